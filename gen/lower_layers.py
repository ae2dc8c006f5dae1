# SPDX-License-Identifier: BSD-2-Clause
"""A value becomes layers: a product with its thresholds, thresholds of their own, max pools.

A max pool commutes with whatever rises, so it comes after the thresholds, on few bits. Where the
steps up to it fall, the row is negated; where those from it to the quantiser fall, the level
counts downwards, which the next layer's weights undo.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import numpy as np

from xnorforge.gen.errors import UnsupportedOpError
from xnorforge.gen.graph import Pooling, Step
from xnorforge.gen.layers import MOST_LEVELS, Conv, Pool, Threshold, ValueType
from xnorforge.gen.lower_input import lower_input
from xnorforge.gen.lower_values import (
    Check,
    Integers,
    PendingProduct,
    Pixels,
    Value,
    direction,
    split_steps,
)
from xnorforge.gen.thresholds import Grid, RealDot, Roots, find_roots

if TYPE_CHECKING:
    from xnorforge.gen.lower import Lowerer

__all__ = ["emit_dots", "flatten", "settle"]

Ops = tuple[Step | Pooling, ...]


def settle(lowerer: Lowerer, value: Value) -> Value:
    """The value with its product, its thresholds and its pools made layers; what is left to do are
    steps that do not quantise."""
    ops = value.ops
    if isinstance(value.base, Pixels):
        first = next((i for i, op in enumerate(ops) if isinstance(op, Pooling)), len(ops))
        input_, pixels, rest, checks = lower_input(
            lowerer.graph, split_steps(ops[:first]), *lowerer.given
        )
        lowerer.input = input_
        lowerer.checks += checks
        ops = (*rest, *ops[first:])
        value = dataclasses.replace(value, base=pixels, ops=ops)
    cut = max(
        (i + 1 for i, op in enumerate(ops) if isinstance(op, Step) and op.quantises), default=0
    )
    if cut:
        return _quantised(lowerer, value, cut)
    base = value.base
    pools = [i for i, op in enumerate(ops) if isinstance(op, Pooling)]
    if isinstance(base, PendingProduct):
        channels = base.layer.rows
        flipped = np.zeros(channels, bool)
        if pools:
            flipped = base.real.slope * direction(ops[: pools[0]], channels) < 0
        base = emit_dots(lowerer, base, ops, flipped)
    assert isinstance(base, Integers)
    if pools:
        base = _pooled(lowerer, base, ops, pools)
    return dataclasses.replace(value, base=base, ops=tuple(split_steps(ops)))


def flatten(base: Integers) -> Integers:
    """The integers of a map as those of a vector, element by element."""
    pixels, real = base.type.pixels, base.real
    tile = lambda array: np.tile(array, (1,) * (array.ndim - 1) + (pixels,))  # noqa: E731
    return dataclasses.replace(
        base,
        type=ValueType(base.type.kind, base.type.bits, (base.type.size,)),
        real=RealDot(tile(real.slope), tile(real.offset), real.dtype, tile(real.terms)),
        grid=Grid(tile(base.grid.low), tile(base.grid.count), base.grid.step),
        table=None if base.table is None else np.tile(base.table, (1, pixels)),
    )


# --- products -------------------------------------------------------------------------------------


def _fused(product: PendingProduct, ops: Ops) -> tuple[Step, ...]:
    """Steps that the source's product node does itself: a bias."""
    tensor = product.node.tensor
    return tuple(op for op in ops if isinstance(op, Step) and op.tensor == tensor)


def _negated(lowerer: Lowerer, product: PendingProduct, flipped: np.ndarray) -> np.ndarray:
    """The layer's weights with some rows negated."""
    weights = product.layer.weights.astype(np.int64)
    weights[flipped] *= -1
    if weights.max() > np.iinfo(np.int8).max:
        raise UnsupportedOpError(
            f"{lowerer.graph.file}: {product.node.node}: a weight of -128 is in a row that must be "
            f"negated; use a narrow range (-127 to 127)"
        )
    return weights.astype(np.int8)


def emit_dots(lowerer: Lowerer, product: PendingProduct, ops: Ops, flipped: np.ndarray) -> Integers:
    """The product as a layer whose dots go out, some rows negated."""
    sign = np.where(flipped, -1, 1)
    real, grid = product.real, product.grid.flip(flipped)
    offsets, first = None, real.offset[0]
    if (real.offset != first).any():
        exact = (real.offset - first) / real.slope
        offsets = np.rint(exact).astype(np.int64)
        if (abs(exact - offsets) > 1e-6).any():
            raise UnsupportedOpError(
                f"{lowerer.graph.file}: {product.node.node}: its padding is no multiple of what "
                f"its dot products count in, and no quantiser follows that could make up for it"
            )
        offsets = offsets * sign
        low = (grid.low + offsets).min(axis=0, keepdims=True)
        high = (grid.high + offsets).max(axis=0, keepdims=True)
        grid = Grid(low, high - low + 1, 1)
    if offsets is not None and not isinstance(product.layer, Conv):
        raise TypeError("only windows have border classes")
    layer = dataclasses.replace(
        product.layer,
        name=lowerer.name(product.layer.name),
        weights=_negated(lowerer, product, flipped),
        offsets=offsets,
        inputs=lowerer.inputs(product.takes),
    )
    made = RealDot(real.slope * sign, first, real.dtype, real.terms)
    note = {
        "node": product.node.node,
        "dot_exact_in_source": real.exact,
        "flipped": int(flipped.sum()),
    }
    lowerer.add(layer, note)
    fused = _fused(product, ops)
    lowerer.checks.append(Check(layer.name, "dots", product.node, made, steps=fused))
    grid = Grid(grid.low[:1], grid.count[:1], grid.step)
    return Integers(layer.name, layer.output, made, grid, None, product.node.node)


# --- thresholds -----------------------------------------------------------------------------------


def _quantised(lowerer: Lowerer, value: Value, cut: int) -> Value:
    """Thresholds, then all pools; the steps after the quantiser are left."""
    base, ops, graph = value.base, value.ops, lowerer.graph
    assert isinstance(base, Integers | PendingProduct)
    channels = base.layer.rows if isinstance(base, PendingProduct) else base.type.channels
    quantiser = ops[cut - 1]
    assert isinstance(quantiser, Step)
    count = len(quantiser.levels(graph.dtype))
    node = base.node.node if isinstance(base, PendingProduct) else base.origin
    where = f"{graph.file}: {node}"
    if count - 1 > MOST_LEVELS:
        raise UnsupportedOpError(
            f"{graph.file}: {quantiser.node} gives {count} levels; activations have at most "
            f"{MOST_LEVELS + 1} (4 bits)"
        )
    pools = [i for i, op in enumerate(ops) if isinstance(op, Pooling)]
    slope = np.sign(base.real.slope).astype(np.int64)
    if pools and pools[0] < cut:
        flipped = slope * direction(ops[: pools[0]], channels) < 0
        rise = direction(ops[pools[0] : cut], channels)
    else:
        rise = direction(ops[cut : pools[0]] if pools else ops[cut:], channels)
        flipped = slope * direction(ops[:cut], channels) * np.where(rise < 0, -1, 1) < 0
    rise = np.where(rise < 0, -1, 1)
    _check_pools(lowerer, ops, pools, channels)
    steps = split_steps(ops[:cut])
    roots = find_roots(base.real, steps, base.grid, flipped, rise, where)
    levels = np.broadcast_to(quantiser.levels(graph.dtype), (count, channels))
    table = np.where(rise > 0, levels, levels[::-1])
    if isinstance(base, PendingProduct):
        made = _product_layer(lowerer, base, ops, flipped, roots)
    else:
        made = _threshold_layer(lowerer, base, flipped, roots, quantiser)
    table = np.concatenate([table, np.repeat(table[-1:], (1 << made.bits) - len(table), axis=0)])
    real_table = table.astype(np.float64)
    real = RealDot(*_slopes(real_table[:count], made), graph.dtype, np.zeros(channels))
    step = 2 if made.kind == "bit" else 1
    low = np.full((1, channels), made.low, np.int64)
    grid = Grid(low, np.full((1, channels), count), step)
    result = Integers(lowerer.layers[-1].name, made, real, grid, table[:count], quantiser.node)
    kind = "bits" if count == 2 else "levels"
    before = [i for i in pools if i < cut]
    pads = None
    if value.padding is not None and quantiser.shape == value.shape:
        pads = value.padding[0]
    if not before:
        lowerer.checks.append(Check(result.name, kind, quantiser, table=table[:count], pads=pads))
    for i in pools:
        result = _pool_layer(lowerer, result, ops[i])
        if before and i == before[-1]:
            lowerer.checks.append(
                Check(result.name, kind, quantiser, table=table[:count], pads=pads)
            )
        elif i > cut:
            seen = table[:count]
            with np.errstate(all="ignore"):
                for after in split_steps(ops[cut:i]):
                    seen = after.apply(seen)
            seen = np.broadcast_to(seen, (count, channels))
            lowerer.checks.append(Check(result.name, kind, ops[i], table=seen))
    return dataclasses.replace(value, base=result, ops=tuple(split_steps(ops[cut:])))


def _slopes(table: np.ndarray, type_: ValueType) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset between the first and the last of some levels."""
    if type_.kind == "bit":
        return (table[1] - table[0]) / 2, (table[1] + table[0]) / 2
    return (table[-1] - table[0]) / (len(table) - 1), table[0]


def _bank(roots: Roots, low: np.ndarray | int, never: np.ndarray | int) -> np.ndarray:
    """Thresholds (levels, borders, channels), levels up to the next 2^n - 1."""
    bank = roots.grid.dots(roots.index)
    bank = np.where(roots.index == 0, low, bank)
    bank = np.where(roots.index == roots.grid.count, never, bank).astype(np.int64)
    levels = (1 << len(bank).bit_length()) - 1
    missing = np.broadcast_to(np.asarray(never), (levels - len(bank), *bank.shape[1:]))
    return np.concatenate([bank, missing.astype(np.int64)])


def _product_layer(
    lowerer: Lowerer, product: PendingProduct, ops: Ops, flipped: np.ndarray, roots: Roots
) -> ValueType:
    plain = product.layer
    bank = _bank(roots, plain.dot_low, plain.dot_high + 1).transpose(1, 0, 2)
    thresholds = bank
    if plain.borders > 1:
        thresholds = np.broadcast_to(bank, (plain.borders, *bank.shape[1:]))
    elif len(bank[0]) == 1:
        thresholds = bank[0, 0]
    else:
        thresholds = bank[0]
    layer = dataclasses.replace(
        plain,
        name=lowerer.name(plain.name),
        weights=_negated(lowerer, product, flipped),
        thresholds=np.ascontiguousarray(thresholds),
        inputs=lowerer.inputs(product.takes),
    )
    note = {
        "node": product.node.node,
        "dot_exact_in_source": product.real.exact,
        "flipped": int(flipped.sum()),
        "always": int((roots.index == 0).all(axis=(0, 1)).sum()),
        "never": int((roots.index == roots.grid.count).all(axis=(0, 1)).sum()),
        "near_rounding": int(roots.near.sum()),
    }
    lowerer.add(layer, note)
    sign = np.where(flipped, -1, 1)
    fused = _fused(product, ops)
    lowerer.checks.append(Check(layer.name, "dots", product.node, product.real, sign, fused))
    return layer.output


def _threshold_layer(
    lowerer: Lowerer, base: Integers, flipped: np.ndarray, roots: Roots, quantiser: Step
) -> ValueType:
    bank = _bank(roots, roots.grid.low, roots.grid.high + 1)[:, 0]
    sign = np.where(flipped, -1, 1).astype(np.int8)
    layer = Threshold(
        lowerer.name("threshold"),
        base.type,
        np.ascontiguousarray(bank),
        sign,
        lowerer.inputs(base.name),
    )
    note = {
        "node": quantiser.node,
        "flipped": int(flipped.sum()),
        "near_rounding": int(roots.near.sum()),
    }
    lowerer.add(layer, note)
    return layer.output


# --- max pools ------------------------------------------------------------------------------------


def _check_pools(lowerer: Lowerer, ops: Ops, pools: list[int], channels: int) -> None:
    """Between two pools the values must not fall."""
    for first, second in itertools.pairwise(pools):
        if (direction(ops[first:second], channels) < 0).any():
            raise UnsupportedOpError(
                f"{lowerer.graph.file}: between {ops[first].node} and {ops[second].node} the "
                f"values of some channels are negated; a quantiser between the two is needed"
            )


def _pooled(lowerer: Lowerer, base: Integers, ops: Ops, pools: list[int]) -> Integers:
    """Max pools of integers that nothing quantises."""
    channels = base.type.channels
    rising = np.sign(base.real.slope) * direction(ops[: pools[0]], channels)
    if (rising < 0).any():
        raise UnsupportedOpError(
            f"{lowerer.graph.file}: {ops[pools[0]].node} takes the largest of values that are "
            f"negated after {base.origin}; a quantiser before it is needed"
        )
    _check_pools(lowerer, ops, pools, channels)
    for i in pools:
        base = _pool_layer(lowerer, base, ops[i])
        steps = tuple(split_steps(ops[:i]))
        lowerer.checks.append(Check(base.name, "values", ops[i], base.real, steps=steps))
    return base


def _pool_layer(lowerer: Lowerer, base: Integers, op: Step | Pooling) -> Integers:
    assert isinstance(op, Pooling)
    layer = Pool(lowerer.name("pool"), base.type, op.window, "max", lowerer.inputs(base.name))
    lowerer.add(layer, {"node": op.node})
    return dataclasses.replace(base, name=layer.name, type=layer.output)
