# SPDX-License-Identifier: BSD-2-Clause
"""Products with float constants -> integer weights, and what the source has for their dots.

A row of weights is s times integers; what it meets is `offset + slope * v`, with the slopes of all
channels equal but for their signs, which go into the weights. So the source's product is
`s * |slope| * dot + s * (weights . offsets)`. Taps beyond the map's edge read the source's padding:
where that is a value of the integers they simply read it; elsewhere the windows of a border class,
which lose the same taps, get an offset of their own.
"""

from __future__ import annotations

import numpy as np

from xnorforge.gen.errors import ModelError, UnsupportedOpError
from xnorforge.gen.graph import Convolution, Dot
from xnorforge.gen.layers import Conv, Dense, WeightType
from xnorforge.gen.lower_values import Edge, PendingProduct
from xnorforge.gen.thresholds import Grid, RealDot
from xnorforge.hw.geometry import Window

__all__ = ["integer_weights", "lower_product"]

_MOST = 127
_WIDEST_INPUT = 16


def integer_weights(
    file: str, node: str, weights: np.ndarray, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (rows, ...) as integers int64 times a scale > 0 for each row.

    The smallest integers that are multiples within one rounding of the source's floats.
    """
    if not np.isfinite(weights).all():
        bad = weights[~np.isfinite(weights)][0]
        raise ModelError(f"{file}: {node}: a weight is {bad}; weights must be finite")
    flat = weights.reshape(len(weights), -1).astype(np.float64)
    size = abs(flat)
    largest = size.max(axis=1)
    smallest = np.where(size > 0, size, np.inf).min(axis=1)
    scale = np.where(largest > 0, 0.0, 1.0)
    integers = np.zeros(flat.shape, np.int64)
    tolerance = float(np.finfo(dtype).eps)
    for divisor in range(1, _MOST + 1):
        open_ = np.flatnonzero(scale == 0)
        # The largest weight says the scale best: its rounding is the least, relatively.
        guess = np.rint(largest[open_] / (smallest[open_] / divisor))
        open_, guess = open_[guess <= _MOST + 1], guess[guess <= _MOST + 1]
        if not len(open_):
            if (scale > 0).all():
                break
            continue
        unit = largest[open_] / guess
        counts = np.rint(flat[open_] / unit[:, None])
        fits = (abs(counts * unit[:, None] - flat[open_]) <= tolerance * size[open_]).all(axis=1)
        fits &= (counts <= _MOST).all(axis=1) & (counts >= -_MOST - 1).all(axis=1)
        chosen = open_[fits]
        scale[chosen], integers[chosen] = unit[fits], counts[fits].astype(np.int64)
    if (scale == 0).any():
        row = int(np.flatnonzero(scale == 0)[0])
        raise ModelError(
            f"{file}: {node}: weights of output {row} are not ±s, nor multiples of s up to "
            f"{_MOST}: their sizes run from {size[row].min():g} to {size[row].max():g}; quantise "
            f"them in the graph (BipolarQuant, Quant) or store them as multiples of one s > 0"
        )
    return integers.reshape(weights.shape), scale


def lower_product(
    file: str,
    op: Dot | Convolution,
    edge: Edge,
    padding: tuple[tuple[int, int, int, int], np.ndarray] | None,
    dtype: np.dtype,
) -> PendingProduct:
    """The product as a layer without thresholds, and the source's number for each of its dots."""
    integers, scale = integer_weights(file, op.node, op.weights, dtype)
    half = _common_slope(file, op.node, edge)
    sign = np.sign(edge.slope).astype(np.int64)
    offset = edge.offset
    if isinstance(op, Dot):
        pixels = edge.type.size // len(sign)
        sign, offset = np.tile(sign, pixels), np.tile(offset, pixels)
        taps = integers[:, None, None, :]
        groups, window = 1, None
    else:
        taps, groups = integers, op.groups
        window = op.window
        if padding is not None:
            window = Window(window.kernel, window.stride, window.dilation, padding[0])
    # By row, the channels it meets.
    member = np.repeat(np.arange(groups), len(taps) // groups)
    sign, offset = (array.reshape(groups, 1, 1, -1)[member] for array in (sign, offset))
    network = taps * sign
    if abs(network).max() > _MOST and (network == _MOST + 1).any():
        raise UnsupportedOpError(
            f"{file}: {op.node}: a weight of -128 meets a value that is negated; use a narrow "
            f"range (-127 to 127)"
        )
    inside = _classes(window, edge.type.shape)
    real_pad = np.zeros(1) if padding is None else np.atleast_1d(padding[1]).astype(np.float64)
    pad_value, plain = _pad_value(edge, real_pad)
    if plain:
        inside = np.ones((1, *taps.shape[1:3]), bool)
    pad = np.broadcast_to(real_pad, edge.offset.shape if window else (1,))
    pad = np.broadcast_to(pad, (groups * taps.shape[3],)) if window else np.zeros(sign.shape[3])
    pad = pad.reshape(groups, 1, 1, -1)[member] if window else np.zeros_like(offset)
    within = (taps * offset).sum(axis=3)
    beyond = (taps * (pad - half * sign * pad_value)).sum(axis=3)
    mask = inside[:, None]  # (classes, rows, kernel height, kernel width)
    shift = scale * np.where(mask, within, beyond).sum(axis=(2, 3))
    low, high = edge.type.low, edge.type.high
    ends = np.stack([network * low, network * high])
    fixed = (network * pad_value).sum(axis=3)
    lowest = np.where(mask, ends.min(axis=0).sum(axis=3), fixed).sum(axis=(2, 3))
    highest = np.where(mask, ends.max(axis=0).sum(axis=3), fixed).sum(axis=(2, 3))
    step = 2 if edge.type.kind == "bit" else 1
    grid = Grid(lowest, (highest - lowest) // step + 1, step)

    largest = max(
        float((abs(edge.slope) * max(abs(low), high) + abs(edge.offset)).max()),
        float(abs(real_pad).max()) if window is not None and window.padded else 0.0,
    )
    weight = abs(taps).sum(axis=(1, 2, 3))
    unit = half / 2
    exact = (
        edge.exact
        & (np.frexp(scale)[0] == 0.5)
        & bool(np.frexp(half)[0] == 0.5)
        & bool((edge.offset % unit == 0).all() and (real_pad % unit == 0).all())
        & (weight * largest / unit < 2.0 ** (np.finfo(dtype).nmant + 1))
    )
    terms = np.where(exact, 0.0, scale * weight * largest)
    real = RealDot(scale * half, shift, dtype, terms)
    kind = WeightType.of(integers)
    if window is None:
        weights = network[:, 0, 0, :].astype(np.int8)
        layer: Dense | Conv = Dense("dense", edge.type, weights, None, kind)
    else:
        try:
            window.over(*edge.type.shape[:2])
        except ValueError as error:
            raise ModelError(f"{file}: {op.node}: {error}") from None
        layer = Conv(
            "conv", edge.type, network.astype(np.int8), None, window, groups, pad_value, kind
        )
    return PendingProduct(layer, edge.name, real, grid, op)


def _common_slope(file: str, node: str, edge: Edge) -> float:
    size = abs(edge.slope)
    half = float(size[0])
    if (size != half).any() or half == 0:
        unit = 2 if edge.type.kind == "bit" else 1
        raise UnsupportedOpError(
            f"{file}: after {edge.origin} the values are {unit * size.min():g} to "
            f"{unit * size.max():g} apart, depending on the channel; they must be equally far "
            f"apart and not the same for the products of {node} to be integers"
        )
    if edge.type.bits > _WIDEST_INPUT:
        raise UnsupportedOpError(
            f"{file}: the values after {edge.origin} reach {node} without being binarised: they "
            f"have {edge.type.bits} bits; put BipolarQuant, Quant or Sign between them"
        )
    return half


def _classes(window: Window | None, shape: tuple[int, ...]) -> np.ndarray:
    """(border classes, kernel height, kernel width): which taps lie on the map."""
    if window is None:
        return np.ones((1, 1, 1), bool)
    map_ = window.over(*shape[:2])
    vertical, horizontal = np.array(map_.vertical.inside), np.array(map_.horizontal.inside)
    both = vertical[:, None, :, None] & horizontal[None, :, None, :]
    return both.reshape(-1, *both.shape[2:])


def _pad_value(edge: Edge, real: np.ndarray) -> tuple[int, bool]:
    """The integer that padding reads, and whether it stands for the source's padding."""
    wanted = (real - edge.offset) / edge.slope
    value = float(wanted.flat[0])
    whole = bool((wanted == value).all()) and value == int(value)
    possible = edge.type.low <= value <= edge.type.high
    if whole and possible and (edge.type.kind != "bit" or abs(value) == 1):
        return int(value), True
    return (-1 if edge.type.kind == "bit" else 0), False
