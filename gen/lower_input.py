# SPDX-License-Identifier: BSD-2-Clause
"""The network's input: pixels as they are, a pixel threshold, or a table of the 256 pixels.

All 256 pixels are put through the source's own steps, so what the source quantises is exact.
"""

from __future__ import annotations

import numpy as np

from xnorforge.gen.errors import ModelError, UnsupportedOpError
from xnorforge.gen.graph import Graph, Step
from xnorforge.gen.layers import ValueType
from xnorforge.gen.lower_values import Check, Integers, fit
from xnorforge.gen.network import INPUT, Input
from xnorforge.gen.thresholds import Grid, RealDot

__all__ = ["cut_of", "lower_input", "pixel_values"]


def pixel_values(
    pixel: str, input_scale: float, input_offset: float, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """All 256 pixels and what the source is fed for each: scale * p + offset, rounded once."""
    if pixel not in ("uint8", "int8"):
        raise ModelError(f"pixel must be 'uint8' or 'int8', not {pixel!r}")
    for name, number in (("input_scale", input_scale), ("input_offset", input_offset)):
        if not np.isfinite(number):
            raise ModelError(f"{name} must be finite, not {number}")
    if input_scale == 0:
        raise ModelError("input_scale must not be 0: every pixel would be the same")
    info = np.iinfo(pixel)
    pixels = np.arange(info.min, info.max + 1)
    return pixels, (pixels * float(input_scale) + float(input_offset)).astype(dtype)


def cut_of(steps: list[Step]) -> int:
    """Number of steps up to and including the last one that quantises."""
    return max((i + 1 for i, step in enumerate(steps) if step.quantises), default=0)


def lower_input(
    graph: Graph, steps: list[Step], scale: float, offset: float, pixel: str
) -> tuple[Input, Integers, list[Step], list[Check]]:
    """The input, its integers, the steps that are left to do on them, what can be compared."""
    pixels, values = pixel_values(pixel, scale, offset, graph.dtype)
    channels = graph.value_shape[-1]
    wide = any(p.size > channels for step in steps for p in step.params)
    if wide:  # element by element
        channels = int(np.prod(graph.value_shape))
    cut = cut_of(steps)
    x = values[:, None]
    with np.errstate(all="ignore"):
        for step in steps[:cut] if cut else steps:
            x = _apply(step, x, channels)
    x = np.broadcast_to(x, (256, channels))
    note = f"pixel p stands for {scale:g} * p + {offset:g}"
    if not cut:
        return _pixel_input(graph, steps, x, pixels, (scale, offset), note)
    levels = steps[cut - 1].levels(graph.dtype)
    if len(levels) == 2:
        return _binary_input(graph, steps, cut, x, pixels, note)
    return _table_input(graph, steps, cut, x, pixel, note)


def _apply(step: Step, x: np.ndarray, channels: int) -> np.ndarray:
    """A step whose parameters are one a channel, on as many elements as needed."""
    params = tuple(
        np.tile(p, channels // p.size) if 1 < p.size < channels else p for p in step.params
    )
    return Step(step.node, step.op, params, "", step.order, rounding=step.rounding).apply(x)


def _culprit(steps: list[Step]) -> Step:
    """The first step whose parameters differ from element to element."""
    return next(step for step in steps if any(p.ndim for p in step.params))


def _pixel_input(
    graph: Graph,
    steps: list[Step],
    x: np.ndarray,
    pixels: np.ndarray,
    given: tuple[float, float],
    note: str,
) -> tuple[Input, Integers, list[Step], list[Check]]:
    if (x != x[:, :1]).any():
        raise UnsupportedOpError(
            f"{graph.file}: {_culprit(steps).node} scales the input element by element; one scale "
            f"and offset for all pixels folds into the first layer, others need an input quantiser "
            f"in the model (Quant, BipolarQuant)"
        )
    if not np.isfinite(x).all():
        raise ModelError(f"{graph.file}: the input scaling gives {x[~np.isfinite(x)][0]}")
    slope, intercept = float(given[0]), float(given[1])
    for step in steps:
        affine = step.affine()
        if affine is not None:
            slope = float(slope * affine[0].flat[0])
            intercept = float(intercept * affine[0].flat[0] + affine[1].flat[0])
    real = slope * pixels + intercept
    tolerance = 16 * float(np.finfo(graph.dtype).eps) * (abs(real).max() + 1)
    if abs(real - x[:, 0]).max() > tolerance or slope == 0:
        bad = next((s for s in steps if s.affine() is None), steps[-1] if steps else None)
        raise UnsupportedOpError(
            f"{graph.file}: {bad.node if bad else 'the input'} makes the input no scaled pixel; "
            f"only scale * pixel + offset folds into the first layer"
        )
    kind = "int" if pixels[0] < 0 else "uint"
    value = ValueType(kind, 8, graph.value_shape)
    every = np.full(graph.value_shape[-1], slope), np.full(graph.value_shape[-1], intercept)
    name = "int8" if pixels[0] < 0 else "uint8"
    input_ = Input(value, name, note=note + ", folded into the first layer")
    return input_, _integers(graph, value, *every, None, "the input"), [], []


def _binary_input(
    graph: Graph, steps: list[Step], cut: int, x: np.ndarray, pixels: np.ndarray, note: str
) -> tuple[Input, Integers, list[Step], list[Check]]:
    value = ValueType("bit", 1, graph.value_shape)
    last = steps[cut - 1]
    low, high = last.levels(graph.dtype)
    odd = (x != high) & (x != low)
    if odd.any():
        p = int(pixels[np.flatnonzero(odd.any(axis=1))[0]])
        raise ModelError(
            f"{graph.file}: {last.node} gives neither {low.flat[0]} nor {high.flat[0]} "
            f"for pixel {p}; say which sign it has (BipolarQuant, or Sign, Add 0.1, Sign)"
        )
    # Bit 1 is what the next layer gets as the larger value, in the first channel.
    pair = np.stack([low, high]).reshape(2, -1)
    after = pair[:, :1] if pair.dtype == bool else pair[:, :1].astype(graph.dtype)
    with np.errstate(all="ignore"):
        for step in steps[cut:]:
            first = tuple(p.reshape(-1)[:1] if p.ndim else p for p in step.params)
            after = Step(step.node, step.op, first, "", step.order, rounding=step.rounding).apply(
                after
            )
    rises = bool(float(after[1, 0]) >= float(after[0, 0]))
    bits = x == (high if rises else low)
    if (bits != bits[:, :1]).any():
        raise UnsupportedOpError(
            f"{graph.file}: {_culprit(steps[:cut]).node} gives each input element a threshold of "
            f"its own; one pixel threshold for all is supported"
        )
    changes = np.flatnonzero(np.diff(bits[:, 0].astype(np.int8)))
    if len(changes) != 1:
        raise ModelError(
            f"{graph.file}: {last.node} gives the same bit for every pixel from "
            f"{pixels[0]} to {pixels[-1]}; check input_scale and input_offset"
        )
    threshold, inverted = int(pixels[changes[0] + 1]), bool(bits[0, 0])
    test = f"bit = (p {'<' if inverted else '>='} {threshold})"
    pixel = "int8" if pixels[0] < 0 else "uint8"
    channels = graph.value_shape[-1]
    table = np.broadcast_to(pair if rises else pair[::-1], (2, max(pair.shape[1], channels)))
    if table.shape[1] != channels:
        raise UnsupportedOpError(f"{graph.file}: {last.node} scales the input element by element")
    slope, offset = fit(table, value, graph.dtype, f"{graph.file}: {last.node}")
    integers = _integers(graph, value, slope, offset, table, last.node)
    input_ = Input(value, pixel, threshold, inverted, f"{note}; {test}")
    return input_, integers, steps[cut:], [Check(INPUT, "input bits", last, table=table)]


def _table_input(
    graph: Graph, steps: list[Step], cut: int, x: np.ndarray, pixel: str, note: str
) -> tuple[Input, Integers, list[Step], list[Check]]:
    last = steps[cut - 1]
    channels = graph.value_shape[-1]
    where = f"{graph.file}: {last.node}"
    if pixel != "uint8":
        raise UnsupportedOpError(f"{where} quantises int8 pixels, which needs uint8 pixels")
    if x.shape[1] != channels:
        raise UnsupportedOpError(f"{where} quantises the input element by element")
    levels = np.broadcast_to(last.levels(graph.dtype), (len(last.levels(graph.dtype)), channels))
    index = (x[:, None, :] == levels).argmax(axis=1)  # (256, channels)
    if (np.take_along_axis(levels, index, axis=0) != x).any():
        raise ModelError(f"{where} gives the input a value that is none of its levels")
    if (index == index[0]).all():
        raise ModelError(f"{where} gives the same value for every pixel")
    spacing, first = fit(levels, ValueType("uint", 16, graph.value_shape), graph.dtype, where)
    # Integers that make the offset 0 where there are such: padding with 0 is then a value.
    begin = np.rint(first / spacing).astype(np.int64)
    whole = (abs(begin * spacing - first) <= 1e-6 * abs(spacing)) & (abs(begin) <= 256)
    begin = begin if whole.all() and (begin == begin[0]).all() else np.zeros_like(begin)
    table = index + begin
    low, high = int(table.min()), int(table.max())
    kind = "int" if low < 0 else "uint"
    bits = max(high, ~low).bit_length() + 1 if low < 0 else max(high.bit_length(), 1)
    if bits > 8:
        raise UnsupportedOpError(f"{where} gives the input {low} to {high}: more than 8 bits")
    value = ValueType(kind, bits, graph.value_shape)
    same = (table == table[:, :1]).all()
    stored = (table[:, 0] if same else table.T).astype(np.int64).copy()
    input_ = Input(value, "uint8", note=f"{note}, quantised by the model", table=stored)
    offset = first - begin * spacing
    offset = np.where(abs(offset) <= 1e-6 * abs(spacing), 0.0, offset)
    integers = _integers(graph, value, spacing, offset, None, last.node)
    check = Check(INPUT, "input values", last, real=integers.real, sign=np.array(1))
    return input_, integers, steps[cut:], [check]


def _integers(
    graph: Graph,
    value: ValueType,
    slope: np.ndarray,
    offset: np.ndarray,
    table: np.ndarray | None,
    origin: str,
) -> Integers:
    channels = value.channels
    step = 2 if value.kind == "bit" else 1
    low = np.full((1, channels), value.low, np.int64)
    grid = Grid(low, np.full((1, channels), (value.high - value.low) // step + 1), step)
    real = RealDot(
        np.broadcast_to(slope, (channels,)).astype(np.float64),
        np.broadcast_to(offset, (channels,)).astype(np.float64),
        graph.dtype,
        np.zeros(channels),
    )
    return Integers(INPUT, value, real, grid, table, origin)
