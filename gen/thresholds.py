# SPDX-License-Identifier: BSD-2-Clause
"""From a source's float formula to integer thresholds, exactly.

The dot product of a layer is an integer, so the level it gives is a function on a grid of
integers. Every step of the formula is weakly monotone in float arithmetic, hence so is the whole:
bisection finds each place where the level changes, with the source's rounding and its own rule
for ties, for all channels, border classes and levels at once. Rows that fall are negated first, so
all thresholds read `dot >= T`.

Thresholds are put on the reachable grid: T is the smallest reachable dot that gives the level;
`dot_low` if all do, `dot_high + 1` if none does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xnorforge.gen.errors import ModelError
from xnorforge.gen.steps import Step

__all__ = ["Grid", "RealDot", "Roots", "find_roots"]

_WINDOW = 32

Predicate = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class RealDot:
    """The source's number as a function of the integer dot: `slope * dot + offset`.

    Computed in float64, then rounded once to the source's dtype.
    slope: (channels,). offset: (channels,) or (borders, channels).
    terms: per channel, a bound on the sum of the sizes of the source's terms, where the source
        rounds while it adds them; 0 where its floats hold every partial sum.
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
    """The reachable dots of each channel: low, low + step, ..., low + step * (count - 1)."""

    low: np.ndarray
    count: np.ndarray
    step: int

    def dots(self, index: np.ndarray) -> np.ndarray:
        return self.low + self.step * index

    @property
    def high(self) -> np.ndarray:
        return self.dots(self.count - 1)

    def flip(self, flipped: np.ndarray) -> Grid:
        """The grid with some channels negated."""
        return Grid(np.where(flipped, -self.high, self.low), self.count, self.step)


@dataclass(frozen=True, eq=False)
class Roots:
    """Result of the search. near: channels with a reachable dot so close to a boundary that
    another order of float operations could decide it otherwise. index: (levels, borders, channels)
    into the grid of the flipped channel."""

    near: np.ndarray
    index: np.ndarray
    grid: Grid


def find_roots(
    real: RealDot,
    steps: list[Step],
    grid: Grid,
    flipped: np.ndarray,
    rise: np.ndarray,
    where: str,
) -> Roots:
    """Where the level of each channel changes.

    steps: the formula; the last one quantises. grid: of the channels as they are. flipped:
    channels that are negated. rise: +1 where the level counts its output upwards, -1 where it
    counts downwards; with it every negated or plain channel must rise. where: prefix of messages.
    """
    grid = grid.flip(flipped)
    sign = np.where(flipped, -1, 1)
    levels = steps[-1].levels(real.dtype)
    if levels.dtype == bool:
        levels = levels.astype(np.int64)
    ascending = np.where(rise > 0, levels, -levels[::-1])  # (levels, channels)

    def run(index: np.ndarray) -> np.ndarray:
        x = real.value(sign * grid.dots(index))
        for step in steps:
            x = step.apply(x)
        return rise * x

    upper, lower = ascending[1:, None, :], ascending[:-1, None, :]
    count = np.broadcast_to(grid.count, (len(levels) - 1, *grid.count.shape))
    with np.errstate(all="ignore"):
        _check_finite(real, steps, sign, grid, where)
        top = _bisect(lambda index: run(index) >= upper, count)
        bottom = _bisect(lambda index: run(index) > lower, count)
        if (top != bottom).any():
            level, border, channel = (int(i) for i in np.argwhere(top != bottom)[0])
            index = bottom[level, border]
            dot = int((sign * grid.dots(index))[border, channel])
            value = float((rise * run(index))[border, channel])
            low, high = sorted(
                float(rise[channel] * ascending[i, channel]) for i in (level, level + 1)
            )
            raise ModelError(
                f"{where}: {steps[-1].node} gives {value:g}, neither {low:g} nor "
                f"{high:g}, for channel {channel} at dot product {dot}, which can "
                f"be reached; say which sign it has (BipolarQuant, or Sign, Add 0.1, Sign)"
            )
        _check_monotone(lambda index: run(index) >= upper, top, grid, where)
        near = _near_rounding(real, steps, sign, grid, top)
    return Roots(near, top, grid)


def _bisect(predicate: Predicate, count: np.ndarray) -> np.ndarray:
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
                finite = np.isfinite(np.broadcast_to(x, grid.count.shape))
                channel = int(np.argwhere(~finite)[0][-1])
                raise ModelError(
                    f"{where}: {step.node} overflows {real.dtype} in channel {channel}; "
                    f"rescale the model's parameters"
                )


def _check_monotone(predicate: Predicate, root: np.ndarray, grid: Grid, where: str) -> None:
    """The level changes at the root and nowhere near it, nor between it and the ends."""
    last = grid.count - 1
    offsets = [*range(-_WINDOW, _WINDOW + 1)]
    points = [np.clip(root + offset, 0, last) for offset in offsets]
    points += [np.rint(part * last).astype(np.int64) for part in np.linspace(0, 1, 9)]
    for index in points:
        index = np.broadcast_to(index, root.shape)
        wrong = predicate(index) != (index >= root)
        if wrong.any():
            channel = int(np.argwhere(wrong)[0][-1])
            raise ModelError(
                f"{where}: the formula of channel {channel} is not monotone in its dot"
            )


def _near_rounding(
    real: RealDot, steps: list[Step], sign: np.ndarray, grid: Grid, root: np.ndarray
) -> np.ndarray:
    """Channels where a neighbour of a root is within eight times the roundings of the decision."""
    near = np.zeros(root.shape, bool)
    epsilon = float(np.finfo(real.dtype).eps)
    for index in (root - 1, root):
        inside = (index >= 0) & (index < grid.count)
        dots = sign * grid.dots(np.clip(index, 0, grid.count - 1))
        x = real.value(dots, wide=True)
        error = np.where(real.value(dots) == x, 0.0, epsilon * abs(x)) + epsilon * real.terms
        for step in steps:
            if step.quantises:
                for decision in step.decisions():
                    near |= inside & (error > 0) & (abs(x - decision) <= 8 * error)
                break
            error = error * step.gain() + epsilon * step.magnitude(x)
            x = step.apply(x, wide=True)
    return np.asarray(near.any(axis=(0, 1)))
