# SPDX-License-Identifier: BSD-2-Clause
"""From a source's float formula to an integer threshold, exactly.

The dot product of a binary layer is an integer, so the bit it gives is a function on a grid of
integers. Every step of the formula is weakly monotone in float arithmetic, hence so is the whole:
bisection finds the one place where the bit changes, with the source's rounding and its own rule
for ties, for all channels at once. Rows that fall are negated first, so all thresholds read
`dot >= T`.

Thresholds are put on the reachable grid: T is the smallest reachable dot that gives 1;
`dot_low` if all do, `dot_high + 1` if none does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xnorforge.gen.errors import ModelError
from xnorforge.gen.graph import Step

__all__ = ["Grid", "RealDot", "Roots", "find_roots"]

_WINDOW = 32


@dataclass(frozen=True, eq=False)
class RealDot:
    """The source's product as a function of the integer dot: `slope[c] * dot + offset[c]`.

    Computed in float64, then rounded once to the source's dtype.
    terms: per row, a bound on the sum of the sizes of the source's terms, where the source rounds
        while it adds them; 0 where its floats hold every partial sum.
    """

    slope: np.ndarray
    offset: np.ndarray
    dtype: np.dtype
    terms: np.ndarray

    @property
    def exact(self) -> bool:
        """Whether the source's own product is exact."""
        return not self.terms.any()

    def value(self, dots: np.ndarray, *, wide: bool = False) -> np.ndarray:
        real = self.slope * dots + self.offset
        return real if wide else real.astype(self.dtype)


@dataclass(frozen=True, eq=False)
class Grid:
    """The reachable dots of each row: low, low + step, ..., low + step * (count - 1)."""

    low: np.ndarray
    count: np.ndarray
    step: int

    def dots(self, index: np.ndarray) -> np.ndarray:
        return self.low + self.step * index

    @property
    def high(self) -> np.ndarray:
        return self.dots(self.count - 1)


@dataclass(frozen=True, eq=False)
class Roots:
    """Result of the search. flipped: rows whose weights must be negated (thresholds are for the
    negated row). near: rows with a reachable dot so close to the boundary that another order of
    float operations could decide it otherwise. index: into the grid of the flipped row."""

    flipped: np.ndarray
    near: np.ndarray
    index: np.ndarray
    grid: Grid


def find_roots(
    real: RealDot, steps: list[Step], grid: Grid, outward: np.ndarray, where: str
) -> Roots:
    """Where the bit of each channel changes from 0 to 1.

    steps: the formula; the last one quantises. outward: +1 where its higher value is bit 1, -1
    where its lower value is. where: prefix of messages.
    """
    direction = np.sign(real.slope).astype(np.int64) * outward
    for step in steps:
        direction = direction * step.direction
    flipped = direction < 0
    grid = Grid(np.where(flipped, -grid.high, grid.low), grid.count, grid.step)
    sign = np.where(flipped, -1, 1)
    levels = steps[-1].levels()
    high = np.where(outward > 0, levels[1], levels[0])
    low = np.where(outward > 0, levels[0], levels[1])

    def run(index: np.ndarray, *, wide: bool = False) -> np.ndarray:
        x = real.value(sign * grid.dots(index), wide=wide)
        for step in steps:
            x = step.apply(x, wide=wide)
        return x

    with np.errstate(all="ignore"):
        _check_finite(real, steps, sign, grid, where)
        top = _bisect(lambda index: run(index) == high, grid.count)
        bottom = _bisect(lambda index: run(index) != low, grid.count)
        if (top != bottom).any():
            channel = int(np.flatnonzero(top != bottom)[0])
            dot = int((sign * grid.dots(bottom))[channel])
            value = float(run(bottom)[channel])
            raise ModelError(
                f"{where}: {steps[-1].node} gives {value:g}, neither {float(low[channel]):g} nor "
                f"{float(high[channel]):g}, for channel {channel} at dot product {dot}, which can "
                f"be reached; say which sign it has (BipolarQuant, or Sign, Add 0.1, Sign)"
            )
        _check_monotone(lambda index: run(index) == high, top, grid, where)
        near = _near_rounding(real, steps, sign, grid, top)
    return Roots(flipped, near, top, grid)


def _bisect(predicate, count: np.ndarray) -> np.ndarray:
    """Smallest index in 0..count at which a rising predicate holds (count: nowhere)."""
    low, high = np.zeros_like(count), count.copy()
    while (low < high).any():
        middle = (low + high) // 2
        holds = predicate(np.minimum(middle, count - 1))
        open_ = low < high
        high = np.where(open_ & holds, middle, high)
        low = np.where(open_ & ~holds, middle + 1, low)
    return low


def _check_finite(
    real: RealDot, steps: list[Step], sign: np.ndarray, grid: Grid, where: str
) -> None:
    """Monotone functions are finite between finite ends."""
    for index in (np.zeros_like(grid.count), grid.count - 1):
        x = real.value(sign * grid.dots(index))
        for step in steps:
            x = step.apply(x)
            if not np.isfinite(x).all():
                channel = int(np.flatnonzero(~np.isfinite(np.broadcast_to(x, sign.shape)))[0])
                raise ModelError(
                    f"{where}: {step.node} overflows {real.dtype} in channel {channel}; "
                    f"rescale the model's parameters"
                )


def _check_monotone(predicate, root: np.ndarray, grid: Grid, where: str) -> None:
    """The bit changes at the root and nowhere near it, nor between it and the ends."""
    offsets = np.arange(-_WINDOW, _WINDOW + 1)[:, None]
    last = grid.count - 1
    ends = np.linspace(0, 1, 9)[:, None] * last
    index = np.concatenate([root + offsets, np.rint(ends).astype(np.int64)])
    index = np.clip(index, 0, last)
    wrong = predicate(index) != (index >= root)
    if wrong.any():
        channel = int(np.flatnonzero(wrong.any(axis=0))[0])
        raise ModelError(f"{where}: the formula of channel {channel} is not monotone in its dot")


def _near_rounding(
    real: RealDot, steps: list[Step], sign: np.ndarray, grid: Grid, root: np.ndarray
) -> np.ndarray:
    """Rows where a neighbour of the root is within eight times the roundings of the decision."""
    near = np.zeros(len(root), bool)
    epsilon = float(np.finfo(real.dtype).eps)
    for index in (root - 1, root):
        inside = (index >= 0) & (index < grid.count)
        dots = sign * grid.dots(np.clip(index, 0, grid.count - 1))
        x = real.value(dots, wide=True)
        error = np.where(real.value(dots) == x, 0.0, epsilon * abs(x)) + epsilon * real.terms
        for step in steps:
            if step.quantises:
                gap = abs(x - step.decision().astype(np.float64))
                near |= inside & (error > 0) & (gap <= 8 * error)
                break
            error = error * step.gain() + epsilon * step.magnitude(x)
            x = step.apply(x, wide=True)
    return near
