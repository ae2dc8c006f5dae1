# SPDX-License-Identifier: BSD-2-Clause
"""Another model for a core: what memories that cannot be written would not hold.

A load of the weights that a core powered up with proves nothing of its memories' write ports: they
hold these words already. Random numbers in all that the core loads do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt

import numpy as np

from xnorforge.gen.assembly import core_parts, weights_load
from xnorforge.gen.layers import Add, Conv, Dense, Layer, Threshold
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.sim.reference import Executor, Result

__all__ = ["OtherModel", "other_model"]

_TRIES = 20


@dataclass(frozen=True)
class OtherModel:
    """load: its weight load, of the same plan. result: what it gives for the images."""

    network: Network
    load: bytes
    result: Result


def other_model(network: Network, plan: Plan, images: np.ndarray) -> OtherModel | None:
    """A model with random numbers in all that a load can change; constant logic stays.

    Each of its layers alone, put into the network, changes what the images give, so that a memory
    that keeps its old words is seen; where no model is found whose every layer does, one that the
    images tell from the network as a whole. None where there is none: without loadable memories.
    """
    right = Executor(network).run(images)
    stores = core_parts(network, plan).stores
    loadable = {name for name, config, _ in stores if config.loadable}
    best: OtherModel | None = None
    for seed in range(_TRIES):
        other = _randomised(network, loadable, np.random.default_rng(seed))
        result = Executor(other).run(images)
        if _same(result, right):
            continue
        found = OtherModel(other, weights_load(core_parts(other, plan)), result)
        best = best or found
        changed = [i for i, layer in enumerate(other.layers) if layer is not network.layers[i]]
        if all(_shows(other, network, index, images, result) for index in changed):
            return found
    return best


def _shows(
    other: Network, network: Network, index: int, images: np.ndarray, result: Result
) -> bool:
    """Whether the images show that one layer kept the network's numbers."""
    layers = (*other.layers[:index], network.layers[index], *other.layers[index + 1 :])
    return not _same(Executor(replace(other, layers=layers)).run(images), result)


def _same(one: Result, other: Result) -> bool:
    return np.array_equal(one.scores, other.scores) and np.array_equal(one.labels, other.labels)


def _randomised(network: Network, loadable: set[str], rng: np.random.Generator) -> Network:
    layers = tuple(_random_layer(layer, loadable, rng) for layer in network.layers)
    head = network.head
    if head.scale is not None and head.offset is not None:
        order = rng.permutation(network.classes)
        head = replace(head, scale=head.scale[order], offset=head.offset[order])
    return replace(network, layers=layers, head=head)


def _random_layer(layer: Layer, loadable: set[str], rng: np.random.Generator) -> Layer:
    if isinstance(layer, Dense | Conv):
        return _random_product(layer, loadable, rng)
    if isinstance(layer, Threshold) and f"{layer.name}.thresholds" in loadable:
        spread = layer.source.high // 2 + 1
        return replace(
            layer,
            thresholds=_random_thresholds(layer.thresholds.shape, spread, rng),
            sign=rng.choice(np.array([-1, 1], np.int8), len(layer.sign)),
        )
    if isinstance(layer, Add) and f"{layer.name}.multipliers" in loadable:
        # The same columns, so that the sums have the same type.
        order = rng.permutation(len(layer.offsets))
        return replace(layer, multipliers=layer.multipliers[:, order], offsets=layer.offsets[order])
    return layer


def _random_product(
    layer: Dense | Conv, loadable: set[str], rng: np.random.Generator
) -> Dense | Conv:
    name, kind = layer.name, layer.weight_type
    weights, thresholds, offsets = layer.weights, layer.thresholds, layer.offsets
    if f"{name}.weights" in loadable:
        # A row's preset depends on which weights it has, not on where.
        if f"{name}.presets" not in loadable:
            weights = rng.permuted(layer.matrix, axis=1).reshape(weights.shape)
        else:
            step = 2 if kind.kind == "odd" else 1
            each = np.arange(-kind.high, kind.high + 1, step, dtype=np.int8)
            weights = rng.choice(each, weights.shape)
    # One threshold a row is part of its preset.
    store = f"{name}.presets" if layer.levels <= 1 else f"{name}.thresholds"
    if thresholds is not None and store in loadable:
        spread = isqrt(layer.columns) * layer.dot_high // layer.columns
        thresholds = _random_thresholds(thresholds.shape, spread, rng)
    if offsets is not None and f"{name}.presets" in loadable:
        offsets = rng.permutation(offsets, axis=1)
    if weights is layer.weights and thresholds is layer.thresholds and offsets is layer.offsets:
        return layer
    return replace(layer, weights=weights, thresholds=thresholds, offsets=offsets)


def _random_thresholds(shape: tuple[int, ...], spread: int, rng: np.random.Generator) -> np.ndarray:
    """Thresholds (..., levels, channels), ascending, or (channels,)."""
    thresholds = rng.integers(-spread, spread + 1, shape)
    return np.sort(thresholds, axis=-2) if len(shape) > 1 else thresholds
