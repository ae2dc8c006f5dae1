# SPDX-License-Identifier: BSD-2-Clause
"""Planted faults in networks of every kind of layer."""

from __future__ import annotations

import numpy as np
import pytest

from xnorforge.gen.errors import ModelError
from xnorforge.gen.layers import Conv, Dense, Threshold, ValueType, WeightType
from xnorforge.gen.network import Head, Input, Network
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.hw.geometry import Window
from xnorforge.sim.coverage import coverage
from xnorforge.sim.faults import FAULT_KINDS, plant
from xnorforge.sim.random_networks import random_images, random_network


def changed_layer(network: Network, faulty: Network):
    """The one layer that differs, before and after."""
    pairs = [
        (one, other)
        for one, other in zip(network.layers, faulty.layers, strict=True)
        if one is not other
    ]
    assert len(pairs) == 1
    return pairs[0]


def differences(one, other, name: str) -> int:
    before, after = getattr(one, name, None), getattr(other, name, None)
    return 0 if before is None else int((before != after).sum())


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_fault_is_small_and_shows(kind) -> None:
    planted, seen = 0, set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        network = random_network(rng, blocks=2)
        images = random_images(rng, network, 30)
        if len(np.unique(evaluate(network, images).scores, axis=0)) < 5:
            continue  # hardly anything changes the scores
        try:
            fault = plant(network, kind, images, seed)
        except ModelError as error:
            assert f"no {kind} fault that these 30 images show" in str(error)
            continue
        planted += 1
        assert (evaluate(fault.network, images).scores != evaluate(network, images).scores).any()
        one, other = changed_layer(network, fault.network)
        assert fault.kind == kind and fault.description.startswith(f"{one.name}: {kind}")
        seen |= coverage(network)
        counts = [differences(one, other, name) for name in ("weights", "thresholds", "sign")]
        assert one.output == other.output
        if kind == "weight":
            assert counts == [1, 0, 0]
        elif kind == "threshold":
            assert counts == [0, 1, 0]
            assert abs(one.thresholds - other.thresholds).max() == 1
        else:
            rows = np.flatnonzero((one.matrix != other.matrix).any(axis=1))
            assert len(rows) in (0, 2)  # 0: rows of the same weights, other thresholds
    assert planted >= 15
    assert {"groups", "15 thresholds", "weights int2", "pads that differ from the rest"} <= seen


def test_exchanged_channels_are_of_one_group() -> None:
    source = ValueType("bit", 1, (2, 2, 4))
    rng = np.random.default_rng(1)
    weights = rng.choice(np.array([-1, 1], np.int8), (4, 2, 2, 2))
    layer = Conv("c", source, weights, None, Window((2, 2)), 2, offsets=np.arange(4)[None])
    network = Network("n", Input(source, "uint8", 128), (layer,), Head())
    images = random_images(rng, network, 40)
    for seed in range(20):
        fault = plant(network, "channel", images, seed)
        other = fault.network.layers[0]
        assert fault.description in (
            "c: channels 0 and 1 are exchanged",
            "c: channels 1 and 0 are exchanged",
            "c: channels 2 and 3 are exchanged",
            "c: channels 3 and 2 are exchanged",
        )
        moved = np.flatnonzero(other.offsets[0] != layer.offsets[0])
        assert moved.tolist() in ([0, 1], [2, 3])
        assert (other.matrix[moved] == layer.matrix[moved[::-1]]).all()


@pytest.mark.parametrize("kind", [WeightType("odd", 1), WeightType("odd", 3), WeightType("int", 1)])
def test_faulty_weight_is_still_a_weight(kind) -> None:
    source = ValueType("uint", 2, (2, 2, 2))
    rng = np.random.default_rng(2)
    low, step = -kind.high, 2 if kind.kind == "odd" else 1
    weights = rng.choice(np.arange(low, kind.high + 1, step), (3, 2, 2, 2)).astype(np.int8)
    layer = Conv("c", source, weights, None, Window((2, 2)), weight_type=kind)
    network = Network("n", Input(source), (layer,), Head())
    images = random_images(rng, network, 20)
    for seed in range(30):
        fault = plant(network, "weight", images, seed)
        assert kind.holds(fault.network.layers[0].weights)
        wanted = "has its sign turned" if kind.planes == 1 else "weight ["
        assert wanted in fault.description


def test_equal_levels_stay_in_order() -> None:
    source = ValueType("int", 4, (1, 1, 2))
    bank = np.array([[0, 1], [0, 1], [0, 8]])
    threshold = Threshold("t", source, bank, np.ones(2, np.int8))
    last = Conv("c", threshold.output, np.ones((2, 1, 1, 2), np.int8), None, Window((1, 1)))
    network = Network("n", Input(source, "int8"), (threshold, last), Head())
    images = random_images(np.random.default_rng(3), network, 60)
    descriptions = set()
    for seed in range(40):
        fault = plant(network, "threshold", images, seed)
        assert (np.diff(fault.network.layers[0].thresholds, axis=0) >= 0).all()
        descriptions.add(fault.description)
    assert "t: threshold [2, 0] is 1 instead of 0" in descriptions
    assert "t: threshold [1, 1] is 2 instead of 1" in descriptions


def test_a_network_without_thresholds_has_no_threshold_fault() -> None:
    source = ValueType("bit", 1, (3,))
    layer = Dense("d", source, np.ones((2, 3), np.int8), None)
    network = Network("n", Input(source, "uint8", 128), (layer,), Head())
    images = random_images(np.random.default_rng(0), network, 3)
    with pytest.raises(ModelError, match="no threshold fault that these 3 images show"):
        plant(network, "threshold", images)
    with pytest.raises(ModelError, match="must be one of weight, threshold, channel, not 'heat'"):
        plant(network, "heat", images)
