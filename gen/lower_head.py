# SPDX-License-Identifier: BSD-2-Clause
"""The last layer: from integer scores to the class the source would name.

An increasing function that is the same for all classes is dropped; what differs by class becomes
an integer scale and offset. Whether the arg-max can differ from the float formula's is checked on
every reachable score, not assumed.
"""

from __future__ import annotations

import numpy as np

from xnorforge.gen.errors import ModelError, UnsupportedOpError
from xnorforge.gen.graph import Dot, Graph, Step
from xnorforge.gen.network import Head
from xnorforge.gen.thresholds import Grid, RealDot

__all__ = ["lower_head"]

SCALE_BITS = (8, 12, 16, 20, 24, 28, 32)
_KEY_BITS = 62
_PROVABLE = 1 << 22


def lower_head(
    graph: Graph,
    dot: Dot,
    steps: list[Step],
    signs: np.ndarray,
    real: RealDot,
    grid: Grid,
) -> tuple[np.ndarray, Head, dict]:
    """Weights (rows with a falling score negated), the head, and notes on what was proven."""
    scale, offset = real.slope, real.offset
    for step in steps:
        affine = step.affine()
        if affine is None:
            raise UnsupportedOpError(
                f"{graph.file}: {step.node} after the last product {dot.node} is not affine; the "
                f"scores need a scale and an offset only"
            )
        scale, offset = scale * affine[0], offset * affine[0] + affine[1]
    if not (np.isfinite(scale).all() and np.isfinite(offset).all()):
        raise ModelError(f"{graph.file}: the scores after {dot.node} are not finite")
    if not scale.any():
        raise ModelError(f"{graph.file}: {_zero(steps, dot)} makes every score constant")
    flipped = scale < 0
    source_sign = np.where(flipped, -1, 1)
    grid = Grid(np.where(flipped, -grid.high, grid.low), grid.count, grid.step)
    signs = np.where(flipped[:, None], -signs, signs).astype(np.int8)
    scale = abs(scale)

    def formula(dots: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            x = real.value(source_sign * dots)
            for step in steps:
                x = step.apply(x)
        return x

    if (scale == scale[0]).all() and (offset == offset[0]).all():
        head, note = Head(graph.tie), _prove_common(formula, grid, len(scale))
    else:
        head, note = _fixed_point(graph, formula, scale, offset, grid)
    return signs, head, {"flipped": int(flipped.sum()), "head": note}


def _zero(steps: list[Step], dot: Dot) -> str:
    return next((s.node for s in steps if not np.any(s.direction)), dot.node)


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
    """The narrowest integer scale and offset proven to order all scores as the source does."""
    reach = np.maximum(abs(grid.low), abs(grid.high))
    largest = float((scale * reach + abs(offset)).max())
    total = int(grid.count.sum())
    points = _all_points(formula, grid) if total <= _PROVABLE else None
    for bits in SCALE_BITS:
        fraction = bits - int(np.frexp(scale.max())[1])
        if largest * 2.0**fraction >= 2.0**_KEY_BITS:
            break
        integers = np.rint(np.ldexp(scale, fraction)).astype(np.int64)
        offsets = np.rint(np.ldexp(offset, fraction)).astype(np.int64)
        head = Head(graph.tie, integers, offsets)
        if points is not None and _same_order(points, integers, offsets):
            return head, (
                f"arg-max and ties proven equal to the source's formula for every reachable "
                f"score, with {bits}-bit class scales"
            )
        if bits == 24:
            kept = head, fraction
    else:
        bits = 24
    if bits < 24:
        raise ModelError(
            f"{graph.file}: class offsets up to {abs(offset).max():g} are too large beside scales "
            f"of {scale.max():g} for 62-bit keys"
        )
    head, fraction = kept
    if points is None:
        error = float((reach * 2.0 ** -(fraction + 1) + 2.0 ** -(fraction + 1)).max())
        error += 8 * float(np.finfo(graph.dtype).eps) * largest
    else:
        classes, dots, values = points
        keys = head.scale[classes] * dots + head.offset[classes]
        error = float(abs(np.ldexp(keys.astype(np.float64), -fraction) - values).max())
    return head, (
        f"24-bit class scales; the arg-max can differ from the source's float formula only where "
        f"two scores are within {2 * error:.3g} of each other"
    )


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
    return bool(
        np.isfinite(values).all()
        and ((key_steps > 0) == rising).all()
        and (key_steps[~rising] == 0).all()
    )
