# SPDX-License-Identifier: BSD-2-Clause
"""The layer table of networks with every kind of layer."""

from __future__ import annotations

import json

import numpy as np

from xnorforge.gen.inspect import describe, inspect
from xnorforge.gen.layers import Add, Concat, Conv, Dense, Pool, Threshold, ValueType, WeightType
from xnorforge.gen.network import Head, Input, Network
from xnorforge.hw.geometry import Window
from xnorforge.sim.random_networks import random_network


def small_network() -> Network:
    """Two branches of one convolution; the table's every column is used."""
    source = ValueType("uint", 8, (6, 5, 4))
    ramp = np.arange(256, dtype=np.int64)[::-1]
    same = Window((3, 3), pads=(1, 1, 1, 1))
    bank = np.zeros((9, 3, 2), np.int64)
    bank[:, 0], bank[:, 2] = -(9 * 2 * 255 * 2), 7  # always, and 7
    conv = Conv(
        "conv0",
        source,
        np.ones((2, 3, 3, 2), np.int8),
        bank,
        same,
        groups=2,
        pad_value=0,
        weight_type=WeightType("int", 2),
    )
    pool = Pool("pool1", conv.output, Window((2, 2), (2, 1), pads=(0, 0, 0, 1)))
    signs = np.array([1, -1], np.int8)
    threshold = Threshold("t2", pool.output, np.array([[1, -9]]), signs)
    add = Add(
        "add3",
        (threshold.output,) * 2,
        np.ones((2, 2), np.int64),
        np.zeros(2, np.int64),
        ("t2", "t2"),
    )
    join = Concat("join4", (add.output,) * 2, ("add3", "add3"))
    dense = Dense("dense5", join.output, np.ones((3, join.output.size), np.int8), None)
    layers = (conv, pool, threshold, add, join, dense)
    notes = {"layers": [{"name": "conv0", "node": "Conv 'c'", "flipped": 1}]}
    head = Head(rule="highest_bit", scale=np.ones(3, np.int64), offset=np.zeros(3, np.int64))
    return Network("n", Input(source, table=ramp, note="turned round"), layers, head, notes)


def test_summary_holds_every_layer() -> None:
    summary = inspect(small_network())
    assert json.loads(json.dumps(summary)) == summary
    assert summary["input"]["table"] and summary["head"]["rule"] == "highest_bit"
    conv, pool, threshold, add, join, dense = summary["layers"]
    assert (conv["op"], conv["rows"], conv["columns"], conv["windows"]) == ("conv", 2, 18, 30)
    assert (conv["groups"], conv["borders"], conv["weights"]) == (2, 9, "-2 .. 2")
    assert (conv["macs"], conv["weight_bits"]) == (30 * 36 * 8 * 3, 36 * 3)
    assert (conv["output"], conv["output_shape"]) == ("uint2", [6, 5, 2])
    assert conv["thresholds"] == {
        "levels": 3,
        "borders": 9,
        "low": 0,
        "high": 7,
        "always": 18,
        "never": 0,
    }
    assert conv["window"] == {
        "kernel": [3, 3],
        "stride": [1, 1],
        "dilation": [1, 1],
        "pads": [1, 1, 1, 1],
        "pad_value": 0,
    }
    assert (pool["op"], pool["pool"], pool["output_shape"]) == ("pool", "max", [3, 5, 2])
    assert (pool["macs"], pool["weight_bits"], pool["thresholds"]) == (0, 0, None)
    # Values are 0 .. 3: the negative of one is never below -9.
    assert threshold["thresholds"]["always"] == 1 and threshold["thresholds"]["low"] == 1
    assert (add["inputs"], add["input"]) == (["t2", "t2"], "bit + bit")
    assert (join["inputs"], join["output"]) == (["add3", "add3"], "int3")
    assert (dense["inputs"], dense["output"], dense["columns"]) == (["join4"], "scores", 60)
    total = sum(row["weight_bits"] for row in summary["layers"])
    assert summary["weight_bits"] == total == 108 + 180


def test_table_has_a_line_for_every_layer() -> None:
    lines = describe(small_network()).splitlines()
    assert lines[1] == "input: 6 x 5 x 4 uint8 pixels as uint8 through a table (turned round)"
    body = {line.split()[0]: line for line in lines[5:11]}
    assert list(body) == ["conv0", "pool1", "t2", "add3", "join4", "dense5"]
    assert "conv 3x3 pads 1 groups 2, weights -2 .. 2  6x5x4 -> 6x5x2" in body["conv0"]
    assert "max pool 2x2 stride 2,1 pads 0,0,0,1" in body["pool1"]
    assert "60 -> 3" in body["dense5"]
    assert lines[-1] == (
        "label: highest class whose score is not negative, else 0, "
        "after a scale and offset by class"
    )


def test_columns_that_nothing_fills_are_left_out() -> None:
    source = ValueType("bit", 1, (4,))
    dense = Dense("d", source, np.ones((2, 4), np.int8), None)
    text = describe(Network("n", Input(source, "uint8", 1), (dense,), Head()))
    assert "windows" not in text and "levels" not in text and "MACs  weight bits\n" in text


def test_any_network_can_be_described() -> None:
    for seed in range(30):
        network = random_network(np.random.default_rng(seed))
        summary = inspect(network)
        assert json.loads(json.dumps(summary)) == summary
        assert sum(row["macs"] for row in summary["layers"]) == network.macs
        text = describe(network)
        assert all(layer.name in text for layer in network.layers)
