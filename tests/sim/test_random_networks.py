# SPDX-License-Identifier: BSD-2-Clause
"""Random networks: what they cover, and that a seed stands for one network."""

from __future__ import annotations

import numpy as np

from xnorforge.gen.layers import Conv, Pool, ValueType
from xnorforge.gen.network import Head, Input, Network
from xnorforge.hw.geometry import Window
from xnorforge.sim.random_networks import FEATURES, coverage, random_images, random_network


def test_every_feature_is_met() -> None:
    seen: set[str] = set()
    for seed in range(300):
        found = coverage(random_network(np.random.default_rng(seed)))
        assert found <= FEATURES
        seen |= found
    assert seen == FEATURES


def test_networks_stay_small() -> None:
    for seed in range(100):
        network = random_network(np.random.default_rng(seed), side=4, channels=3, blocks=1)
        assert network.input.value.size <= 48
        assert all(layer.output.size <= 7 * 7 * 9 for layer in network.layers)


def test_a_seed_stands_for_one_network() -> None:
    digests = [random_network(np.random.default_rng(seed)).digest() for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_images_reach_both_ends_of_the_range() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        network = random_network(rng)
        images = random_images(rng, network, 200)
        assert images.shape == (200, *network.input.value.shape)
        values = network.input.quantise(images)
        low, high = network.input.value.low, network.input.value.high
        if network.input.table is None and values.size > 10_000:
            assert (values.min(), values.max()) == (max(0, low) if low == -1 else low, high)


def test_coverage_of_a_known_network() -> None:
    source = ValueType("bit", 1, (6, 5, 4))
    window = Window((3, 2), (2, 1), pads=(1, 0, 0, 0))
    conv = Conv("c", source, np.ones((4, 3, 2, 2), np.int8), None, window, 2, 1)
    pool = Pool("p", conv.output, Window(conv.output.shape[:2]), "sum")
    network = Network("n", Input(source, "uint8", 1), (conv, pool), Head())
    assert coverage(network) == {
        "input bit",
        "conv of bit",
        "conv gives dots",
        "conv kernel",
        "conv uneven kernel",
        "conv stride 1",
        "conv stride 2",
        "conv uneven stride",
        "conv uneven pads",
        "conv windows overlap",
        "groups",
        "pads high",
        "pads that differ from the rest",
        "weights odd1",
        "pool of int",
        "sum pool of int",
        "pool kernel",
        "pool uneven kernel",
        "pool no pads",
        "pool of the whole map",
        "pool stride 1",
        "one pixel",
        "head argmax",
        "tie first",
        "ends in pool",
    }
