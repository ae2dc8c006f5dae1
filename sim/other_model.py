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
from xnorforge.gen.network import Dense, Network
from xnorforge.gen.plan import LayerPlan, Plan
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
    best: OtherModel | None = None
    for seed in range(_TRIES):
        other = _randomised(network, plan, np.random.default_rng(seed))
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


def _randomised(network: Network, plan: Plan, rng: np.random.Generator) -> Network:
    layers = tuple(
        _random_layer(layer, layer_plan, rng)
        for layer, layer_plan in zip(network.layers, plan.layers, strict=True)
    )
    head = network.head
    if head.scale is not None and head.offset is not None:
        order = rng.permutation(network.classes)
        head = replace(head, scale=head.scale[order], offset=head.offset[order])
    return replace(network, layers=layers, head=head)


def _random_layer(layer: Dense, plan: LayerPlan, rng: np.random.Generator) -> Dense:
    weights, thresholds = layer.weights, layer.thresholds
    if plan.weight_store != "const":
        # A row's preset depends on how many of its weights are negative.
        if plan.preset_store == "const":
            weights = rng.permuted(weights, axis=1)
        else:
            weights = rng.choice(np.array([-1, 1], np.int8), weights.shape)
    if thresholds is not None and plan.preset_store != "const":
        spread = isqrt(layer.columns) * layer.dot_high // layer.columns
        thresholds = rng.integers(-spread, spread + 1, layer.rows)
    if weights is layer.weights and thresholds is layer.thresholds:
        return layer
    return replace(layer, weights=weights, thresholds=thresholds)
