# SPDX-License-Identifier: BSD-2-Clause
"""The other model: the same plan, other words in every memory that a load reaches, and seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xnorforge.gen.assembly import core_parts, weights_load
from xnorforge.gen.planner import make_plan
from xnorforge.sim.other_model import _randomised, other_model
from xnorforge.sim.random_networks import random_network
from xnorforge.sim.reference import Executor

STORES = {
    "all loaded": {},
    "weights constant": {"dense0": {"weight_store": "const"}},
    "presets constant": {"dense1": {"preset_store": "const"}},
    "one layer constant": {"dense1": {"weight_store": "const", "preset_store": "const"}},
}


@pytest.mark.parametrize("kind", ["bit", "uint"])
@pytest.mark.parametrize("stores", STORES.values(), ids=STORES)
def test_every_memory_gets_other_words_and_constants_stay(nets, kind, stores):
    rng = np.random.default_rng(4)
    network = nets.network(rng, [40, 12, 9, 5], kind, 1 if kind == "bit" else 4)
    images = nets.images(rng, network, 20)
    plan = make_plan(network, device="ecp5-25f", goal="min", overrides=stores)
    found = other_model(network, plan, images)
    assert found is not None
    assert plan.structure_hash(found.network) == plan.structure_hash(network)
    right, other = core_parts(network, plan), core_parts(found.network, plan)
    assert found.load == weights_load(other) and len(found.load) == len(weights_load(right))
    for (name, config, words), (_, _, others) in zip(right.stores, other.stores, strict=True):
        # The last layer has no thresholds: with bits its presets follow from its shape alone.
        fixed = name == "dense2.presets"
        assert (words == others) == (fixed or not config.loadable), name
    expected = Executor(found.network).run(images)
    np.testing.assert_array_equal(found.result.scores, expected.scores)
    for index, layer in enumerate(network.layers):
        layers = list(found.network.layers)
        if layers[index] is not layer:
            layers[index] = layer  # as if its memories could not be written
            kept = Executor(replace(found.network, layers=tuple(layers))).run(images)
            assert (kept.scores != expected.scores).any()


def test_core_without_memories_has_no_other_model(nets):
    rng = np.random.default_rng(5)
    network = nets.network(rng, [12, 4])
    constant = {"dense0": {"weight_store": "const", "preset_store": "const"}}
    plan = make_plan(network, device="ecp5-25f", goal="min", overrides=constant)
    assert other_model(network, plan, nets.images(rng, network, 5)) is None


def test_random_numbers_keep_every_layer_of_its_type():
    changed = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        network = random_network(rng)
        names = [layer.name for layer in network.layers]
        parts = ("weights", "presets", "thresholds", "multipliers")
        loadable = {f"{name}.{part}" for name in names for part in parts}
        assert _randomised(network, set(), rng).layers == network.layers
        other = _randomised(network, loadable, rng)  # which checks its layers
        for layer, new in zip(network.layers, other.layers, strict=True):
            assert new.output == layer.output
            if new is not layer:
                changed.add(type(layer).__name__)
        # Only the weights can be loaded: what the presets follow from stays.
        weights = {f"{name}.weights" for name in names}
        for layer, new in zip(
            network.products, _randomised(network, weights, rng).products, strict=True
        ):
            assert (np.sort(layer.matrix, axis=1) == np.sort(new.matrix, axis=1)).all()
            assert layer.thresholds is new.thresholds and layer.offsets is new.offsets
    assert changed == {"Dense", "Conv", "Threshold", "Add"}
