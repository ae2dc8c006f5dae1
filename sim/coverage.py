# SPDX-License-Identifier: BSD-2-Clause
"""What a network and a plan have in them, by name, so that tests can tell what they covered."""

from __future__ import annotations

from xnorforge.gen.layer_plan import LayerPlan, StreamPlan
from xnorforge.gen.layers import Add, Concat, Conv, Dense, Layer, Pool, Product, Threshold
from xnorforge.gen.network import INPUT, Network
from xnorforge.gen.plan import Plan
from xnorforge.hw.store_config import SPRAM_SHARES

__all__ = ["FEATURES", "GROUPS", "PLAN_FEATURES", "PLAN_GROUPS", "coverage", "plan_coverage"]

_OPERATORS = {
    Dense: "dense",
    Conv: "conv",
    Pool: "pool",
    Threshold: "threshold",
    Add: "add",
    Concat: "concat",
}

_GIVES = {"bit": "bits", "uint": "levels", "int": "dots"}
_KINDS = ("bit", "uint", "int")
_FOLDS = ("rows", "columns", "input planes")
_WINDOWED = (
    "1x1",
    "kernel",
    "uneven kernel",
    "stride 1",
    "stride 2",
    "stride 3",
    "uneven stride",
    "dilation",
    "no pads",
    "even pads",
    "uneven pads",
    "pixels left over",
    "windows overlap",
)

GROUPS = {
    "Inputs": tuple(
        f"input {what}" for what in (*_KINDS, "table", "channel table", "vector", "forks")
    ),
    "Operators, by what they take": tuple(
        f"{op} of {kind}" for op in _OPERATORS.values() for kind in _KINDS
    ),
    "Products": (
        *(f"{op} gives {what}" for op in ("dense", "conv") for what in ("bits", "levels", "dots")),
        *(f"{op} offsets" for op in ("dense", "conv")),
        "dense of a map",
        "groups",
        "depthwise",
        "several rows a channel",
        "one pixel",
        "channels of odd number",
        *(f"weights {kind}{bits}" for kind in ("odd", "int") for bits in (1, 2, 3)),
    ),
    "Windows": tuple(f"{op} {what}" for op in ("conv", "pool") for what in _WINDOWED),
    "Padding": tuple(
        f"pads {what}" for what in ("low", "high", "zero", "shifted", "that differ from the rest")
    ),
    "Pools": (
        *(f"{way} pool of {kind}" for way in ("max", "sum") for kind in _KINDS),
        "pool before threshold",
        "pool of the whole map",
    ),
    "Thresholds": (
        *(f"{count} thresholds" for count in (1, 3, 7, 15)),
        "always",
        "never",
        "negative slope",
    ),
    "Graphs": ("fork", "named inputs", "add multiplied", "add plain", "add of three"),
    "Ends": (
        *(f"ends in {op}" for op in ("conv", "dense", "pool")),
        *(f"head {what}" for what in ("argmax", "highest_bit", "scaled")),
        *(f"tie {which}" for which in ("first", "last")),
    ),
}
"""What `random_network` draws, by chapter."""

PLAN_GROUPS = {
    "Folds": (
        *(f"{what} folded evenly" for what in _FOLDS),
        *(f"{what} folded unevenly" for what in _FOLDS),
        *(f"all {what} at once" for what in _FOLDS),
        *(f"one of the {what} at a time" for what in _FOLDS),
        "weight planes in turn",
        "weight sets in turn",
        "weights for several windows",
        "windows in batches, whole batches",
        "windows in batches, a short batch last",
        "image beats not filled",
        "channels in turn",
    ),
    "Memories": (
        *(f"weights in {store}" for store in ("block", "lut", "const", "spram")),
        *(f"a word of weights every {share} cycles" for share in SPRAM_SHARES[1:]),
        *(f"presets in {store}" for store in ("block", "lut", "const")),
        *(f"input buffer in {store}" for store in ("block", "lut")),
        *(f"line buffer in {store}" for store in ("block", "lut")),
        *(f"family {family}" for family in ("ice40", "ecp5", "gowin")),
    ),
    "Line buffers": (
        "line buffer of least depth",
        "line buffer without bubbles",
        "line buffer between",
        "line buffer deeper",
        "pool without line buffer",
    ),
    "Models": ("one model", "two models", "patchable"),
    "Thresholds in circuit": ("thresholds in parallel", "thresholds in turn"),
}
"""What `random_plan` draws, by chapter."""

FEATURES = frozenset(name for names in GROUPS.values() for name in names)
PLAN_FEATURES = frozenset(name for names in PLAN_GROUPS.values() for name in names)


def coverage(network: Network) -> frozenset[str]:
    """The features of a network, by name; those that `random_network` draws are `FEATURES`."""
    found = set()
    spec, head = network.input, network.head
    found.add(f"input {spec.value.kind}")
    if spec.table is not None:
        found.add("input table" if spec.table.ndim == 1 else "input channel table")
    if len(spec.value.shape) == 1:
        found.add("input vector")
    found |= {f"tie {head.tie}", f"head {head.rule}"}
    found.add(f"ends in {_OPERATORS[type(network.layers[-1])]}")
    if head.scale is not None:
        found.add("head scaled")
    for name, takers in network.consumers().items():
        if len(takers) > 1:
            found.add("input forks" if name == INPUT else "fork")
    for index, layer in enumerate(network.layers):
        found |= _layer_features(layer)
        pooled = {other.name for other in network.layers[:index] if isinstance(other, Pool)}
        if isinstance(layer, Threshold) and pooled & {*network.inputs_of(index)}:
            found.add("pool before threshold")
    return frozenset(found)


def _layer_features(layer: Layer) -> set[str]:
    op = _OPERATORS[type(layer)]
    found = {f"{op} of {source.kind}" for source in layer.sources}
    if layer.inputs:
        found.add("named inputs")
    if layer.sources[0].channels % 2 and layer.sources[0].channels > 1:
        found.add("channels of odd number")
    if isinstance(layer, Product):
        found |= _product_features(layer, op)
    if isinstance(layer, Conv | Pool):
        found |= _window_features(layer, op)
    if isinstance(layer, Pool):
        found.add(f"{layer.kind} pool of {layer.source.kind}")
        if layer.output.pixels == 1 and layer.window.taps == layer.source.pixels:
            found.add("pool of the whole map")
    if isinstance(layer, Threshold):
        found.add(f"{len(layer.thresholds)} thresholds")
        if (layer.sign < 0).any():
            found.add("negative slope")
    if isinstance(layer, Add):
        plain = (layer.multipliers == 1).all() and not layer.offsets.any()
        found.add("add plain" if plain else "add multiplied")
        if len(layer.sources) > 2:
            found.add("add of three")
    return found


def _product_features(layer: Product, op: str) -> set[str]:
    found = {f"weights {layer.weight_type.kind}{layer.weight_type.bits}"}
    found.add(f"{op} gives {_GIVES[layer.output.kind]}")
    bank = layer.bank
    if bank is not None:
        found.add(f"{layer.levels} thresholds")
        if (bank == layer.dot_low).any():
            found.add("always")
        if (bank == layer.dot_high + 1).any():
            found.add("never")
    if layer.offsets is not None:
        found.add(f"{op} offsets")
    if isinstance(layer, Dense) and len(layer.source.shape) == 3:
        found.add("dense of a map")
    if layer.groups > 1:
        depthwise = layer.groups == layer.source.channels
        found.add("depthwise" if depthwise else "groups")
        if depthwise and layer.rows > layer.groups:
            found.add("several rows a channel")
    return found


def _window_features(layer: Conv | Pool, op: str) -> set[str]:
    window, map_ = layer.window, layer.windows
    found = {f"{op} 1x1" if window.kernel == (1, 1) else f"{op} kernel"}
    if window.kernel[0] != window.kernel[1]:
        found.add(f"{op} uneven kernel")
    found |= {f"{op} stride {stride}" for stride in window.stride}
    if window.stride[0] != window.stride[1]:
        found.add(f"{op} uneven stride")
    for axis in (map_.vertical, map_.horizontal):
        if axis.dilation > 1 and axis.taps > 1:
            found.add(f"{op} dilation")
        if axis.stride < axis.extent and axis.positions > 1:
            found.add(f"{op} windows overlap")
        last = axis.pixel(axis.positions - 1, axis.taps - 1)
        if last < axis.size - 1:
            found.add(f"{op} pixels left over")
    kind = "no" if not window.padded else "even" if len(set(window.pads)) == 1 else "uneven"
    found.add(f"{op} {kind} pads")
    if map_.height == map_.width == 1:
        found.add("one pixel")
    if isinstance(layer, Conv) and window.padded:
        source = layer.source
        ends = {
            f"pads {name}" for name in ("low", "high") if layer.pad_value == getattr(source, name)
        }
        found |= ends
        if layer.pad_value == 0:
            found.add("pads zero")
        elif not ends:
            found.add("pads shifted")
        if layer.borders > 1:
            found.add("pads that differ from the rest")
    return found


def plan_coverage(network: Network, plan: Plan) -> frozenset[str]:
    """The features of a plan, by name; those that `random_plan` draws are `PLAN_FEATURES`."""
    found = {f"family {plan.family}", "one model" if plan.slots == 1 else "two models"}
    if plan.patchable:
        found.add("patchable")
    if network.input.value.size % plan.lanes:
        found.add("image beats not filled")
    for layer, layer_plan in zip(network.layers, plan.layers, strict=True):
        if isinstance(layer_plan, LayerPlan):
            found |= _engine_features(layer_plan)
        elif layer_plan.lanes < layer.sources[0].channels:
            found.add("channels in turn")
        if isinstance(layer, Conv | Pool):
            found |= _buffer_features(layer, layer_plan, plan.family)
        several = isinstance(layer, Threshold) or (isinstance(layer, Product) and layer.levels > 1)
        if several:
            ways = {"parallel": "thresholds in parallel", "serial": "thresholds in turn"}
            found.add(ways[layer_plan.method])
    return frozenset(found)


def _engine_features(plan: LayerPlan) -> set[str]:
    found = {
        f"weights in {plan.weight_store}",
        f"presets in {plan.preset_store}",
        f"input buffer in {plan.buffer_store}",
    }
    sizes = (plan.rows, plan.columns, plan.input_bits)
    for what, size, width in zip(_FOLDS, sizes, (plan.pe, plan.simd, plan.pl), strict=True):
        if size == 1:
            continue
        if width == size:
            found.add(f"all {what} at once")
        else:
            found.add(f"{what} folded {'unevenly' if size % width else 'evenly'}")
        if width == 1:
            found.add(f"one of the {what} at a time")
    if plan.planes > 1:
        found.add("weight planes in turn")
    if plan.sets > 1:
        found.add("weight sets in turn")
    if plan.share > 1:
        found.add(f"a word of weights every {plan.share} cycles")
    if plan.reuse > 1:
        short = "a short batch last" if plan.vectors % plan.reuse else "whole batches"
        found |= {"weights for several windows", f"windows in batches, {short}"}
    return found


def _buffer_features(layer: Conv | Pool, plan: LayerPlan | StreamPlan, family: str) -> set[str]:
    if plan.window is None:
        return {"pool without line buffer"}
    config = plan.window.config(layer, family)
    least, full = config.min_depth, config.bubble_free_depth
    found = {f"line buffer in {config.store}"}
    if config.depth == least:
        found.add("line buffer of least depth")
    elif config.depth < full:
        found.add("line buffer between")
    if config.depth == full:
        found.add("line buffer without bubbles")
    elif config.depth > full:
        found.add("line buffer deeper")
    return found
