# SPDX-License-Identifier: BSD-2-Clause
"""What a network has in it, by name, so that tests can tell what they covered."""

from __future__ import annotations

from xnorforge.gen.layers import Add, Concat, Conv, Dense, Layer, Pool, Product, Threshold
from xnorforge.gen.network import INPUT, Network

__all__ = ["FEATURES", "coverage"]

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

FEATURES = frozenset(
    [
        *(f"input {what}" for what in (*_KINDS, "table", "channel table", "vector", "forks")),
        *(f"{op} of {kind}" for op in _OPERATORS.values() for kind in _KINDS),
        *(f"{way} pool of {kind}" for way in ("max", "sum") for kind in _KINDS),
        *(f"{op} gives {what}" for op in ("dense", "conv") for what in ("bits", "levels", "dots")),
        *(f"{op} offsets" for op in ("dense", "conv")),
        *(f"{op} {what}" for op in ("conv", "pool") for what in _WINDOWED),
        *(f"{count} thresholds" for count in (1, 3, 7, 15)),
        *(f"weights {kind}{bits}" for kind in ("odd", "int") for bits in (1, 2, 3)),
        *(f"pads {what}" for what in ("low", "high", "zero", "that differ from the rest")),
        *(f"head {what}" for what in ("argmax", "highest_bit", "scaled")),
        *(f"tie {which}" for which in ("first", "last")),
        *(f"ends in {op}" for op in ("conv", "dense", "pool")),
        "always",
        "channels of odd number",
        "dense of a map",
        "depthwise",
        "fork",
        "groups",
        "named inputs",
        "negative slope",
        "never",
        "one pixel",
        "pool before threshold",
        "pool of the whole map",
        "several rows a channel",
    ]
)


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
        for name, value in (("low", source.low), ("high", source.high), ("zero", 0)):
            if layer.pad_value == value:
                found.add(f"pads {name}")
        if layer.borders > 1:
            found.add("pads that differ from the rest")
    return found
