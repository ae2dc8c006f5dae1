# SPDX-License-Identifier: BSD-2-Clause
"""Another model for a circuit that is already built: its weight load, by the bundle's plan.

model file --> Network --> [is it the bundle's, but for its numbers?] --> stores --> weight load

Models can be exchanged where they differ in numbers only: weights, thresholds, scales. What of a
model the host does (the threshold of its input bits) comes along.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnorforge.gen.assembly import core_parts, weights_load
from xnorforge.gen.bnn_pynq import is_folder
from xnorforge.gen.bundle import Bundle, input_record, scale_record
from xnorforge.gen.errors import ModelError
from xnorforge.gen.layer_plan import LayerPlan
from xnorforge.gen.layers import Conv, Layer, Pool, Product, Threshold, ValueType
from xnorforge.gen.load import load
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan

__all__ = [
    "ModelWeights",
    "exchange",
    "fitting",
    "load_like",
    "model_weights",
    "structural_difference",
]


@dataclass(frozen=True)
class ModelWeights:
    """What a board needs to run another model.

    load: the content of a weights.bin. name: the model's. input, output: what changes in these
    parts of the bundle's manifest.
    """

    load: bytes
    name: str
    input: dict[str, Any]
    output: dict[str, Any]


def model_weights(model: str | Path, bundle: Bundle | str | Path, **options: Any) -> ModelWeights:
    """The weights of a model file for a bundle's circuit.

    model: what `gen.load` reads. options: as `gen.load`; unless given, a file is read with the
    input scale, offset and pixel type of the bundle's own model.
    Raises BundleError, and ModelError with the first layer and value that differ where the model
    is no such network.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    return exchange(load_like(model, bundle, **options), bundle, name=str(model))


def load_like(model: str | Path, bundle: Bundle, **options: Any) -> Network:
    """A model file as a network; what `options` leave open as the bundle's own model was read."""
    if not is_folder(model):
        source = bundle.network.source
        kept: dict[str, Any] = {"pixel": bundle.network.input.pixel}
        kept |= {name: source[name] for name in ("input_scale", "input_offset") if name in source}
        options = kept | options
    return load(model, **options)


def exchange(network: Network, bundle: Bundle, *, name: str = "") -> ModelWeights:
    """The weights of a network for a bundle's circuit; arguments and errors as of `fitting`."""
    network = fitting(network, bundle, name=name)
    load = weights_load(core_parts(network, bundle.plan))
    return ModelWeights(load, network.name, input_record(network), scale_record(network))


def fitting(network: Network, bundle: Bundle, *, name: str = "") -> Network:
    """The network with the names of the bundle's layers, for the bundle's plan.

    name: of the network in messages. Raises ModelError where it differs from the bundle's in more
    than numbers.
    """
    name = name or network.name
    difference = structural_difference(network, bundle.network, bundle.plan)
    if difference:
        raise ModelError(
            f"{name} does not go on the circuit of {bundle.path}: {difference}; compile and "
            "build it instead"
        )
    network = _with_names_of(network, bundle.network)
    parts, own = core_parts(network, bundle.plan), core_parts(bundle.network, bundle.plan)
    same = parts.stages == own.stages and parts.wires == own.wires
    for (store, config, _), (_, wanted, _) in zip(parts.stores, own.stores, strict=True):
        if config != wanted:
            raise ModelError(
                f"{name} does not go on the circuit of {bundle.path}: memory {store} would be "
                f"{config.depth} words of {config.width} bits, it has {wanted.depth} of "
                f"{wanted.width}; compile and build it instead"
            )
    if not same or bundle.plan.structure_hash(network) != bundle.manifest["plan_hash"]:
        raise ModelError(
            f"{name} does not go on the circuit of {bundle.path}: its plan would be "
            f"{bundle.plan.structure_hash(network):08x}, the bundle's is "
            f"{bundle.manifest['plan_hash']:08x}; compile and build it instead"
        )
    return network


def structural_difference(network: Network, wanted: Network, plan: Plan) -> str:
    """The first thing other than numbers in which two networks differ, for people; "" for none.

    Numbers that the plan made constant logic count as structure.
    """
    if network.input.value != wanted.input.value:
        return f"its input is {_told(network.input.value)}, not {_told(wanted.input.value)}"
    if len(network.layers) != len(wanted.layers):
        return f"it has {len(network.layers)} layers, not {len(wanted.layers)}"
    places = {layer.name: index for index, layer in enumerate(network.layers)}
    wanted_places = {layer.name: index for index, layer in enumerate(wanted.layers)}
    for index, (layer, other) in enumerate(zip(network.layers, wanted.layers, strict=True)):
        facts = dict(_facts(layer))
        for what, want in _facts(other):
            if facts.get(what) != want:
                return f"layer {layer.name!r} has {what} {facts.get(what)}, not {want}"
        takes = [places.get(name) for name in network.inputs_of(index)]
        if takes != [wanted_places.get(name) for name in wanted.inputs_of(index)]:
            return (
                f"layer {layer.name!r} takes {', '.join(network.inputs_of(index))}, not "
                f"{', '.join(wanted.inputs_of(index))}"
            )
    for what in ("tie", "rule"):
        found, want = getattr(network.head, what), getattr(wanted.head, what)
        if found != want:
            return f"its head has {what} {found!r}, not {want!r}"
    if (network.head.scale is None) != (wanted.head.scale is None):
        without = network.head.scale is None
        return (
            f"its classes have {'no ' if without else ''}scales of their own, unlike the circuit's"
        )
    return _constant_difference(network, wanted, plan)


def _facts(layer: Layer) -> Iterator[tuple[str, Any]]:
    """All of a layer but its numbers and its place."""
    yield "kind", type(layer).__name__.lower()
    if isinstance(layer, Product):
        yield "rows", layer.rows
        yield "columns", layer.columns
        yield "weights of kind", f"{layer.weight_type.kind}{layer.weight_type.bits}"
        yield "thresholds a channel", layer.levels
        yield "offsets", layer.offsets is not None
    if isinstance(layer, Conv | Pool):
        for field in dataclasses.fields(layer.window):
            yield field.name, getattr(layer.window, field.name)
    if isinstance(layer, Conv):
        yield "groups", layer.groups
        yield "padding", layer.pad_value
    if isinstance(layer, Pool):
        yield "pool", layer.kind
    if isinstance(layer, Threshold):
        yield "thresholds a channel", len(layer.thresholds)
    yield "inputs of", " and ".join(map(_told, layer.sources))
    yield "an output of", _told(layer.output)


def _told(value: ValueType) -> str:
    """A type for people: uint8 28 x 28, bit 784."""
    kind = value.kind if value.kind == "bit" else f"{value.kind}{value.bits}"
    return f"{kind} {' x '.join(map(str, value.shape))}"


def _constant_difference(network: Network, wanted: Network, plan: Plan) -> str:
    for layer, other, folds in zip(network.layers, wanted.layers, plan.layers, strict=True):
        if not isinstance(folds, LayerPlan):
            continue
        assert isinstance(layer, Product) and isinstance(other, Product)
        where = f"of layer {other.name!r} are logic in this circuit and cannot be exchanged"
        if folds.weight_store == "const" and (layer.matrix != other.matrix).any():
            return f"the weights {where}"
        if folds.preset_store == "const":
            config = folds.mvu_config(plan.family, other)
            words = [
                config.preset_words(item.matrix, item.engine_bank, item.offsets)
                for item in (layer, other)
            ]
            if words[0] != words[1]:
                return f"the thresholds {where}"
    return ""


def _with_names_of(network: Network, wanted: Network) -> Network:
    """The network with the other's names of layers, which the plan goes by."""
    layers: list[Any] = [
        dataclasses.replace(layer, name=other.name, inputs=other.inputs)  # type: ignore[type-var]
        for layer, other in zip(network.layers, wanted.layers, strict=True)
    ]
    return dataclasses.replace(network, layers=tuple(layers))
