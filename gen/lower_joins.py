# SPDX-License-Identifier: BSD-2-Clause
"""Averages, sums of two paths and channels side by side -> layers of integers."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from xnorforge.gen.errors import UnsupportedOpError
from xnorforge.gen.graph import Join, Pooling, Sum
from xnorforge.gen.layers import Add, Concat, Pool, ValueType
from xnorforge.gen.lower_values import Check, Edge, Integers, Value
from xnorforge.gen.thresholds import Grid, RealDot

if TYPE_CHECKING:
    from xnorforge.gen.lower import Lowerer

__all__ = ["lower_join", "lower_mean", "lower_sum"]

_LARGEST_MULTIPLIER = 127  # larger ones would come near any ratio


def lower_mean(lowerer: Lowerer, op: Pooling, edge: Edge, value: Value) -> Value:
    """The sum of the pixels under each window; dividing it is a matter of the slope."""
    graph = lowerer.graph
    if op.window.padded and edge.offset.any():
        raise UnsupportedOpError(
            f"{graph.file}: {op.node} pads with 0, which is no multiple of the values after "
            f"{edge.origin}"
        )
    name = lowerer.name("pool")
    layer = Pool(name, edge.type, op.window, "sum", lowerer.inputs(edge.name))
    lowerer.add(layer, {"node": op.node})
    taps = op.window.taps
    share = taps if op.kind == "mean" else 1
    slope, offset = edge.slope / share, edge.offset * (taps / share)
    largest = abs(edge.slope) * max(abs(edge.type.low), edge.type.high) + abs(edge.offset)
    power = share & (share - 1) == 0 and edge.exact
    exact = power and bool(np.isin(np.frexp(abs(edge.slope))[0], (0.0, 0.5)).all())
    terms = np.zeros(len(slope)) if exact else largest * taps
    real = RealDot(slope, offset, graph.dtype, terms)
    integers = _integers(name, layer.output, real, op.node, 2 if edge.type.kind == "bit" else 1)
    if op.window.padded and edge.type.kind == "bit":
        integers = _integers(name, layer.output, real, op.node, 1)
    lowerer.checks.append(Check(name, "sums", op, real))
    return Value(integers, (), op.shape)


def lower_sum(lowerer: Lowerer, op: Sum, edges: list[Edge]) -> Value:
    """A sum with integer multipliers, so that all sources count in one unit by channel."""
    graph = lowerer.graph
    slopes = np.stack([sign * edge.slope for sign, edge in zip(op.signs, edges, strict=True)])
    offset = np.stack([s * edge.offset for s, edge in zip(op.signs, edges, strict=True)]).sum(
        axis=0
    )
    tolerance = 8 * float(np.finfo(graph.dtype).eps)
    unit, multipliers = _common_unit(slopes, tolerance)
    wrong = abs(multipliers * unit - slopes) > tolerance * abs(slopes)
    wrong |= abs(multipliers) > _LARGEST_MULTIPLIER
    if wrong.any() or (multipliers == 0).any():
        bad = wrong | (multipliers == 0)
        channel = int(np.argwhere(bad.any(axis=0))[0][0])
        steps = ", ".join(f"{abs(s):.6g}" for s in slopes[:, channel])
        raise UnsupportedOpError(
            f"{graph.file}: {op.node} adds values that count in steps of {steps} in channel "
            f"{channel}; their ratio is no small whole number or fraction, so the sum is no "
            f"integer: quantise both with one scale"
        )
    name = lowerer.name("add")
    layer = Add(
        name,
        tuple(edge.type for edge in edges),
        multipliers.astype(np.int64),
        np.zeros(slopes.shape[1], np.int64),
        tuple(edge.name for edge in edges),
    )
    lowerer.add(layer, {"node": op.node})
    power = np.isin(np.frexp(abs(slopes))[0], (0.0, 0.5)).all()
    exact = power and all(edge.exact for edge in edges) and not offset.any()
    largest = sum(
        abs(edge.slope) * max(abs(edge.type.low), edge.type.high) + abs(edge.offset)
        for edge in edges
    )
    terms = np.zeros(slopes.shape[1]) if exact else np.asarray(largest)
    real = RealDot(unit, offset, graph.dtype, terms)
    lowerer.checks.append(Check(name, "sums", op, real))
    return Value(_integers(name, layer.output, real, op.node, 1), (), op.shape)


def _common_unit(slopes: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """By channel the unit > 0 of which all slopes are multiples, as far as small ones exist."""
    unit = np.empty(slopes.shape[1])
    multipliers = np.zeros(slopes.shape, np.int64)
    for channel in range(slopes.shape[1]):
        column = slopes[:, channel]
        smallest = abs(column).min()
        if smallest == 0:
            unit[channel] = 1.0
            continue
        ratios = [
            Fraction(float(s / smallest)).limit_denominator(_LARGEST_MULTIPLIER) for s in column
        ]
        common = int(np.lcm.reduce([ratio.denominator for ratio in ratios]))
        unit[channel] = smallest / common
        multipliers[:, channel] = [int(ratio * common) for ratio in ratios]
    return unit, multipliers


def lower_join(lowerer: Lowerer, op: Join, edges: list[Edge]) -> Value:
    """Channels side by side; each keeps its slope."""
    graph = lowerer.graph
    kinds = {(edge.type.kind, edge.type.bits) for edge in edges}
    if len(kinds) > 1:
        what = ", ".join(f"{edge.type.kind}{edge.type.bits}" for edge in edges)
        raise UnsupportedOpError(
            f"{graph.file}: {op.node} joins values of different types ({what}); quantise all alike"
        )
    name = lowerer.name("concat")
    layer = Concat(name, tuple(edge.type for edge in edges), tuple(edge.name for edge in edges))
    lowerer.add(layer, {"node": op.node})
    slope = np.concatenate([edge.slope for edge in edges])
    offset = np.concatenate([edge.offset for edge in edges])
    exact = all(edge.exact for edge in edges)
    bound = abs(slope) * max(abs(layer.output.low), layer.output.high) + abs(offset)
    terms = np.zeros(len(slope)) if exact else bound
    real = RealDot(slope, offset, graph.dtype, terms)
    step = 2 if layer.output.kind == "bit" else 1
    integers = _integers(name, layer.output, real, op.node, step)
    lowerer.checks.append(Check(name, "values", op, real))
    return Value(integers, (), op.shape)


def _integers(name: str, type_: ValueType, real: RealDot, origin: str, step: int) -> Integers:
    """All values of the type that have the parity of the lowest; a sum of bits starts at its
    number of taps below 0."""
    channels = type_.channels
    low, high = type_.low, type_.high
    if step == 2 and type_.kind == "int":
        step = 1
    count = (high - low) // step + 1
    grid = Grid(np.full((1, channels), low), np.full((1, channels), count), step)
    return Integers(name, type_, real, grid, None, origin)
