# SPDX-License-Identifier: BSD-2-Clause
"""The last layer: from integer scores to the class the source would name.

An increasing function that is the same for all classes is dropped; what differs by class becomes
an integer scale and offset. Whether the arg-max can differ from the float formula's is checked on
every reachable score, not assumed.
"""

from __future__ import annotations

import numpy as np

from xnorforge.gen.errors import ModelError, UnsupportedOpError
from xnorforge.gen.graph import Graph, Step
from xnorforge.gen.lower_values import Integers, PendingProduct
from xnorforge.gen.network import Head
from xnorforge.gen.thresholds import Grid

__all__ = ["OFFSET_BITS", "SCALE_BITS", "lower_head"]

SCALE_BITS = 16
OFFSET_BITS = 32
_PROVABLE = 1 << 22
_TRIES = 64


def lower_head(
    graph: Graph, node: str, base: Integers | PendingProduct, steps: list[Step]
) -> tuple[np.ndarray, Head, dict]:
    """Which rows are negated because their score falls, the head, and notes on what was proven.

    base: what the scores are made of; rows of a layer that exists cannot be negated.
    """
    real = base.real
    scale, offset = real.slope, real.offset.reshape(-1)
    grid = Grid(base.grid.low[0], base.grid.count[0], base.grid.step)
    for step in steps:
        affine = step.affine()
        if affine is None:
            raise UnsupportedOpError(
                f"{graph.file}: {step.node} after the last product {node} is not affine; the "
                f"scores need a scale and an offset only"
            )
        scale, offset = scale * affine[0], offset * affine[0] + affine[1]
    scale, offset = np.broadcast_to(scale, real.slope.shape), np.broadcast_to(offset, scale.shape)
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        raise ModelError(f"{graph.file}: the scores after {node} are not finite")
    if not scale.any():
        raise ModelError(f"{graph.file}: {_zero(steps, node)} makes every score constant")
    flipped = scale < 0
    if isinstance(base, Integers):
        flipped = np.zeros_like(flipped)
    source_sign = np.where(flipped, -1, 1)
    grid = grid.flip(flipped)
    scale = scale * source_sign

    def formula(dots: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            x = real.value(source_sign * dots)
            for step in steps:
                x = step.apply(x)
        return x

    if (scale == scale[0]).all() and (offset == offset[0]).all() and scale[0] > 0:
        head, note = Head(graph.tie), _prove_common(formula, grid, len(scale))
    else:
        head, note = _fixed_point(graph, formula, scale, offset, grid)
    return flipped, head, {"flipped": int(flipped.sum()), "head": note}


def _zero(steps: list[Step], node: str) -> str:
    return next((s.node for s in steps if not np.any(s.direction)), node)


def _prove_common(formula, grid: Grid, classes: int) -> str:
    """One increasing function for all classes: the same order and ties if it never rounds two
    scores together."""
    low, high = int(grid.low.min()), int(grid.high.max())
    if (high - low) // grid.step >= _PROVABLE:
        return "scores keep their order under the source's scale (not checked score by score)"
    dots = np.arange(low, high + 1, grid.step)
    values = formula(np.repeat(dots[:, None], classes, axis=1))
    if not np.isfinite(values).all():
        return "the source's score formula overflows, integer scores do not"
    merged = int((np.diff(values, axis=0) <= 0).any(axis=1).sum())
    if merged or (values != values[:, :1]).any():
        return (
            f"exact to the integer scores; the source's float scale rounds {merged} pairs of "
            f"neighbouring scores together, which it then takes for ties"
        )
    return "arg-max and ties proven equal to the source's formula for every reachable score"


def _fixed_point(
    graph: Graph, formula, scale: np.ndarray, offset: np.ndarray, grid: Grid
) -> tuple[Head, str]:
    """Integer scale and offset: the narrowest proven to order all scores as the source does, else
    those that are nearest to it. They fit the hardware's head: `SCALE_BITS` and `OFFSET_BITS`,
    signed."""
    reach = np.maximum(abs(grid.low), abs(grid.high))
    points = _all_points(formula, grid) if int(grid.count.sum()) <= _PROVABLE else None
    best: tuple[float, Head] | None = None
    for factor in _factors(float(abs(scale).max())):
        integers = np.rint(scale * factor)
        offsets = np.rint(offset * factor)
        if abs(offsets).max() >= 1 << (OFFSET_BITS - 1):
            continue
        head = Head(graph.tie, integers.astype(np.int64), offsets.astype(np.int64))
        if points is not None and _same_order(points, integers, offsets):
            bits = int(abs(integers).max()).bit_length()
            return head, (
                f"arg-max and ties proven equal to the source's formula for every reachable "
                f"score, with {bits}-bit class scales"
            )
        error = reach * abs(integers / factor - scale) + abs(offsets / factor - offset)
        rounding = 8 * float(np.finfo(graph.dtype).eps) * (abs(scale) * reach + abs(offset))
        bound = float((error + rounding).max())
        if best is None or bound < best[0]:
            best = bound, head
    if best is None:
        raise ModelError(
            f"{graph.file}: class offsets up to {abs(offset).max():g} are too large beside scales "
            f"of {abs(scale).max():g} for {OFFSET_BITS}-bit offsets"
        )
    bound, head = best
    return head, (
        f"{SCALE_BITS}-bit class scales; the arg-max can differ from the source's float formula "
        f"only where two scores are within {2 * bound:.3g} of each other"
    )


def _factors(largest: float) -> list[float]:
    """What to multiply scales by: powers of two, narrow first, then finer steps near the limit."""
    widths = range(SCALE_BITS // 2, SCALE_BITS)
    exponent = int(np.frexp(largest)[1])
    powers = [2.0 ** (bits - exponent) for bits in widths]
    limit = (1 << (SCALE_BITS - 1)) - 1
    powers = [factor for factor in powers if np.rint(largest * factor) <= limit]
    return powers + [limit / largest * (1 - i / (2 * _TRIES)) for i in range(_TRIES)]


def _all_points(formula, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(class, dot, the source's score) for every reachable dot of every class."""
    index = np.arange(int(grid.count.max()))[:, None]
    inside = index < grid.count
    dots = grid.dots(np.minimum(index, grid.count - 1))
    values = formula(dots).astype(np.float64)
    classes = np.broadcast_to(np.arange(len(grid.count)), dots.shape)
    return classes[inside], dots[inside], values[inside]


def _same_order(points: tuple, scale: np.ndarray, offset: np.ndarray) -> bool:
    """Whether keys and float scores are ordered alike, ties included."""
    classes, dots, values = points
    keys = scale[classes] * dots + offset[classes]
    order = np.lexsort((keys, values))
    rising, key_steps = np.diff(values[order]) > 0, np.diff(keys[order])
    same = ((key_steps > 0) == rising).all() and (key_steps[~rising] == 0).all()
    return bool(same and np.isfinite(values).all())
