# SPDX-License-Identifier: BSD-2-Clause
"""`Graph` -> `Network`: floats in, integers out, nothing approximated in the hidden layers.

A value on an edge of the source is `middle + half * v` with v the integer the network carries
(-1 or +1, or a pixel). A product with weights ±s is then `s * half * dot + s * w·middle`, and all
that follows it up to the next binarisation is a threshold on `dot` (see `gen.thresholds`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xnorforge.gen.errors import ModelError, UnsupportedOpError
from xnorforge.gen.graph import Dot, Graph, Step
from xnorforge.gen.lower_head import lower_head
from xnorforge.gen.network import Dense, Input, Network, ValueType
from xnorforge.gen.thresholds import Grid, RealDot, find_roots

__all__ = ["LayerMap", "Lowering", "lower", "lower_with_maps", "pixel_values"]


@dataclass(frozen=True, eq=False)
class _Edge:
    """Values between layers: channel k of the source is `middle[k] + half * sign[k] * v[k]`."""

    value: ValueType
    half: float
    sign: np.ndarray
    middle: np.ndarray


@dataclass(frozen=True, eq=False)
class LayerMap:
    """How a layer's integers correspond to the source's tensors.

    dot: the source's product, or None for the input. steps: what follows it. cut: how many of
    them, the binarising one included, became the threshold (0: none binarises). real: the
    product as floats. sign: -1 for rows that were negated. one: the binarising step's value that
    is bit 1.
    """

    dot: Dot | None
    steps: list[Step]
    cut: int
    real: RealDot | None
    sign: np.ndarray
    one: np.ndarray


@dataclass(frozen=True, eq=False)
class Lowering:
    """A network and, for the input and every layer, its correspondence to the source."""

    network: Network
    maps: tuple[LayerMap, ...]


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


def lower(
    graph: Graph,
    *,
    input_scale: float = 1 / 255,
    input_offset: float = 0.0,
    pixel: str = "uint8",
) -> Network:
    """The integer network of a graph whose input is `input_scale * pixel + input_offset`.

    Raises ModelError or UnsupportedOpError naming the node that cannot be made integer.
    """
    return lower_with_maps(
        graph, input_scale=input_scale, input_offset=input_offset, pixel=pixel
    ).network


def lower_with_maps(
    graph: Graph, *, input_scale: float, input_offset: float, pixel: str
) -> Lowering:
    """`lower`, keeping what `gen.trace` needs to find every layer in the source."""
    first, sections = graph.sections()
    if not sections:
        raise UnsupportedOpError(f"{graph.file}: has no MatMul or Gemm with binary weights")
    input_, edge, one = _lower_input(graph, first, input_scale, input_offset, pixel)
    maps = [LayerMap(None, first, _cut(first), None, np.array(1), one)]
    layers, notes = [], []
    for i, (dot, steps) in enumerate(sections[:-1]):
        layer, edge, note, map_ = _lower_hidden(graph, f"dense{i}", dot, steps, edge)
        layers.append(layer)
        notes.append(note)
        maps.append(map_)
    dot, steps = sections[-1]
    name = f"dense{len(layers)}"
    signs, real = _integer_dot(graph, dot, edge)
    source_signs = signs
    signs, head, note = lower_head(graph, dot, steps, signs, real, _grid(signs, edge.value))
    sign = (signs[:, 0] * source_signs[:, 0]).astype(np.int64)
    maps.append(LayerMap(dot, steps, 0, real, sign, np.array(1)))
    layers.append(Dense(name, edge.value, signs, None))
    notes.append({"name": name, "node": dot.node, "dot_exact_in_source": real.exact, **note})
    network = Network(
        name=graph.name,
        input=input_,
        layers=tuple(layers),
        head=head,
        source={
            "file": graph.file.replace("\\", "/").rsplit("/", 1)[-1],
            "format": graph.format,
            "input_scale": float(input_scale),
            "input_offset": float(input_offset),
            "layers": notes,
            "exactness": _statement(notes),
        },
    )
    return Lowering(network, tuple(maps))


def _cut(steps: list[Step]) -> int:
    """Number of steps up to and including the last one that binarises."""
    return max((i + 1 for i, step in enumerate(steps) if step.quantises), default=0)


def _statement(notes: list[dict]) -> str:
    """What was proven, in words."""
    parts = ["thresholds equal the source's float formula at every reachable dot product"]
    near = {n["name"]: n["near_rounding"] for n in notes if n.get("near_rounding")}
    if near:
        parts.append(
            f"{sum(near.values())} rows of {', '.join(near)} have a dot product so near the "
            f"boundary that another order of float operations could decide it otherwise"
        )
    rounded = [note["name"] for note in notes if not note["dot_exact_in_source"]]
    if rounded:
        parts.append(
            f"the source rounds its own dot products in {', '.join(rounded)}, where this network "
            f"takes the exact ones"
        )
    return "; ".join([*parts, notes[-1]["head"]])


# --- input ------------------------------------------------------------------------------------


def _lower_input(
    graph: Graph, steps: list[Step], scale: float, offset: float, pixel: str
) -> tuple[Input, _Edge, np.ndarray]:
    pixels, values = pixel_values(pixel, scale, offset, graph.dtype)
    channels = len(graph.input_order)
    cut = _cut(steps)
    x = values[:, None]
    with np.errstate(all="ignore"):
        for step in steps[:cut]:
            x = step.apply(x)
    note = f"pixel p stands for {scale:g} * p + {offset:g}"
    if cut:
        return _binary_input(graph, steps, cut, x, pixels, note)
    for step in steps:
        x = step.apply(x)
    if (x != x[:, :1]).any():
        raise UnsupportedOpError(
            f"{graph.file}: {_culprit(steps).node} scales the input element by element; one scale "
            f"and offset for all pixels folds into the first layer, others need an input quantiser"
        )
    if not np.isfinite(x).all():
        raise ModelError(f"{graph.file}: the input scaling gives {x[~np.isfinite(x)][0]}")
    slope, intercept = float(scale), float(offset)
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
    value = ValueType("uint" if pixel == "uint8" else "int", 8, graph.value_shape)
    middle = np.full(channels, intercept)
    edge = _Edge(value, abs(slope), np.full(channels, int(np.sign(slope))), middle)
    return Input(value, pixel, note=note + ", folded into the first layer"), edge, np.array(1)


def _binary_input(
    graph: Graph, steps: list[Step], cut: int, x: np.ndarray, pixels: np.ndarray, note: str
) -> tuple[Input, _Edge, np.ndarray]:
    value = ValueType("bit", 1, graph.value_shape)
    edge, outward = _edge_after(graph, steps, cut, value)
    low, high = steps[cut - 1].levels()
    odd = (x != high) & (x != low)
    one = high if outward[0] > 0 else low
    bits = x == one
    if odd.any():
        p = int(pixels[np.flatnonzero(odd.any(axis=1))[0]])
        raise ModelError(
            f"{graph.file}: {steps[cut - 1].node} gives neither {low.flat[0]} nor {high.flat[0]} "
            f"for pixel {p}; say which sign it has (BipolarQuant, or Sign, Add 0.1, Sign)"
        )
    if (bits != bits[:, :1]).any():
        raise UnsupportedOpError(
            f"{graph.file}: {_culprit(steps[:cut]).node} gives each input element a threshold of "
            f"its own; one pixel threshold for all is supported"
        )
    changes = np.flatnonzero(np.diff(bits[:, 0].astype(np.int8)))
    if len(changes) != 1:
        raise ModelError(
            f"{graph.file}: {steps[cut - 1].node} gives the same bit for every pixel from "
            f"{pixels[0]} to {pixels[-1]}; check input_scale and input_offset"
        )
    threshold, inverted = int(pixels[changes[0] + 1]), bool(bits[0, 0])
    test = f"bit = (p {'<' if inverted else '>='} {threshold})"
    pixel = "int8" if pixels[0] < 0 else "uint8"
    edge = _Edge(value, edge.half, outward * outward[0], edge.middle)
    return Input(value, pixel, threshold, inverted, f"{note}; {test}"), edge, one


def _culprit(steps: list[Step]) -> Step:
    """The first step whose parameters differ from element to element."""
    return next(step for step in steps if any(p.ndim for p in step.params))


def _edge_after(
    graph: Graph, steps: list[Step], cut: int, value: ValueType
) -> tuple[_Edge, np.ndarray]:
    """What the next layer is fed when `steps[cut - 1]` binarises and more steps follow, if bit 1
    is the larger value; and where that is the smaller value of the binarising step (-1)."""
    low, high = (np.broadcast_to(v, (value.size,)) for v in steps[cut - 1].levels())
    pair = np.stack([low, high])
    pair = pair.astype(graph.dtype) if pair.dtype.kind == "f" else pair
    with np.errstate(all="ignore"):
        for step in steps[cut:]:
            pair = step.apply(pair)
    if pair.dtype == bool:
        raise ModelError(f"{graph.file}: {steps[-1].node} feeds truth values into a product")
    pair = pair.astype(np.float64)
    if not np.isfinite(pair).all():
        raise ModelError(f"{graph.file}: {steps[-1].node} gives values that are not finite")
    half, middle = (pair[1] - pair[0]) / 2, (pair[1] + pair[0]) / 2
    size = abs(half[0])
    if (abs(half) != size).any() or size == 0:
        raise UnsupportedOpError(
            f"{graph.file}: after {steps[cut - 1].node} the two values are {2 * abs(half).min():g} "
            f"to {2 * abs(half).max():g} apart, depending on the channel; they must be equally far "
            f"apart and not the same for products to be integers"
        )
    edge = _Edge(value, float(size), np.ones(value.size, np.int64), middle)
    return edge, np.sign(half).astype(np.int64)


# --- layers -----------------------------------------------------------------------------------


def _integer_dot(graph: Graph, dot: Dot, edge: _Edge) -> tuple[np.ndarray, RealDot]:
    """Weights as ±1 for the network's values, and the source's product of their dot."""
    size = abs(dot.weights).astype(np.float64)
    if not np.isfinite(dot.weights).all():
        bad = dot.weights[~np.isfinite(dot.weights)][0]
        raise ModelError(f"{graph.file}: {dot.node}: a weight is {bad}; weights must be finite")
    scale = size[:, 0]
    rows = np.flatnonzero((size != scale[:, None]).any(axis=1) | (scale == 0))
    if len(rows):
        row = size[rows[0]]
        raise ModelError(
            f"{graph.file}: {dot.node}: weights of output {rows[0]} are not ±s: their sizes run "
            f"from {row.min():g} to {row.max():g}; binarise them in the graph (BipolarQuant) or "
            f"store them as ±s, one s > 0 an output"
        )
    signs = np.where(dot.weights > 0, 1, -1).astype(np.int8)
    mantissa = np.finfo(graph.dtype).nmant + 1
    limit = len(edge.middle) * max(abs(edge.value.low), edge.value.high)
    powers = (np.frexp(scale)[0] == 0.5) & (np.frexp(edge.half)[0] == 0.5)
    exact = powers & (not edge.middle.any()) & (limit < 2**mantissa)
    terms = scale * (edge.half * limit + abs(edge.middle).sum())
    slope, offset = scale * edge.half, scale * (signs @ edge.middle)
    real = RealDot(slope, offset, graph.dtype, np.where(exact, 0.0, terms))
    return (signs * edge.sign).astype(np.int8), real


def _grid(signs: np.ndarray, value: ValueType) -> Grid:
    positive = (signs > 0).sum(axis=1).astype(np.int64)
    negative = signs.shape[1] - positive
    low = positive * value.low - negative * value.high
    high = positive * value.high - negative * value.low
    step = 2 if value.kind == "bit" else 1
    return Grid(low, (high - low) // step + 1, step)


def _lower_hidden(
    graph: Graph, name: str, dot: Dot, steps: list[Step], edge: _Edge
) -> tuple[Dense, _Edge, dict, LayerMap]:
    cut = _cut(steps)
    if not cut:
        raise UnsupportedOpError(
            f"{graph.file}: the values after {dot.node} reach the next product without being "
            f"binarised; put BipolarQuant or Sign between them"
        )
    signs, real = _integer_dot(graph, dot, edge)
    bits = ValueType("bit", 1, (len(signs),))
    next_edge, outward = _edge_after(graph, steps, cut, bits)
    where = f"{graph.file}: {dot.node}"
    roots = find_roots(real, steps[:cut], _grid(signs, edge.value), outward, where)
    signs = np.where(roots.flipped[:, None], -signs, signs).astype(np.int8)
    always, never = roots.index == 0, roots.index == roots.grid.count
    plain = Dense(name, edge.value, signs, None)
    thresholds = roots.grid.dots(roots.index)
    thresholds = np.where(always, plain.dot_low, thresholds)
    thresholds = np.where(never, plain.dot_high + 1, thresholds).astype(np.int64)
    layer = Dense(name, edge.value, signs, thresholds)
    note = {
        "name": name,
        "node": dot.node,
        "dot_exact_in_source": real.exact,
        "flipped": int(roots.flipped.sum()),
        "always": int(always.sum()),
        "never": int(never.sum()),
        "near_rounding": int(roots.near.sum()),
    }
    levels = steps[cut - 1].levels()
    one = np.where(outward > 0, levels[1], levels[0])
    map_ = LayerMap(dot, steps, cut, real, np.where(roots.flipped, -1, 1), one)
    return layer, next_edge, note, map_
