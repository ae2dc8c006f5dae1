# SPDX-License-Identifier: BSD-2-Clause
"""The layers of a network: their rules, their types, and files that hold every kind of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from xnorforge.gen.errors import ModelError
from xnorforge.gen.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    Pool,
    Threshold,
    ValueType,
    WeightType,
)
from xnorforge.gen.network import Head, Input, Network
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.hw.geometry import Window
from xnorforge.sim.random_networks import coverage, random_images, random_network

BIT = ValueType("bit", 1, (5, 4, 6))
INT = ValueType("int", 3, (5, 4, 6))
K3 = Window((3, 3), pads=(1, 1, 1, 1))
ONES = np.ones((4, 3, 3, 6), np.int8)


def conv(**fields) -> Conv:
    values = {"name": "c", "source": BIT, "weights": ONES, "thresholds": None, "window": K3}
    return Conv(**{**values, **fields})


def add(**fields) -> Add:
    values = {
        "name": "a",
        "sources": (BIT, INT),
        "multipliers": np.ones((2, 6), np.int64),
        "offsets": np.zeros(6, np.int64),
        "inputs": ("x", "y"),
    }
    return Add(**{**values, **fields})


LEVELS = np.array([[0] * 4, [0] * 4, [2] * 4])
SIGN = np.ones(6, np.int8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightType("even"), "A weight cannot be 'even' of 1 bits"),
        (lambda: WeightType("odd", 8), "A weight cannot be 'odd' of 8 bits"),
        (lambda: WeightType("int", 0), "A weight cannot be 'int' of 0 bits"),
        (lambda: WeightType.of(np.array([-128, 1], np.int8)), r"must lie in -127 .. 127"),
        (lambda: conv(source=ValueType("bit", 1, (120,))), "takes an HWC map, not shape"),
        (lambda: conv(weights=ONES[:, :2]), r"'c': weights \(4, 2, 3, 6\) are not \(rows, 3, 3"),
        (lambda: conv(groups=4), "6 channels and 4 rows do not fall into 4 groups"),
        (lambda: conv(groups=0), "do not fall into 0 groups"),
        (lambda: conv(groups=2), "weights for 12 channels, the map has 6"),
        (lambda: conv(window=Window((3, 3), dilation=(3, 1))), "'c': A window of 7 pixels does"),
        (lambda: conv(pad_value=0), "'c': padding of 0 is no value of its input"),
        (lambda: conv(source=INT, pad_value=4), "padding of 4 is no value"),
        (lambda: conv(thresholds=np.zeros(4, np.int64)), r"must be int64 \(9, 1, 4\), not \(4,\)"),
        (lambda: conv(thresholds=np.zeros((9, 2, 4), np.int64)), "must be 1, 3, 7 or 15 a channel"),
        (lambda: conv(window=Window((3, 3)), thresholds=-LEVELS), "must ascend in each channel"),
        (lambda: conv(weights=0 * ONES), "weights must be -1 and"),
        (lambda: conv(weights=4 * ONES, weight_type=WeightType("int", 2)), "weights from 4 to 4"),
        (lambda: conv(offsets=np.zeros((1, 4), np.int64)), r"offsets must be int64 \(9, 4\)"),
        (
            lambda: conv(
                window=Window((3, 3)), thresholds=LEVELS, offsets=np.zeros((1, 4), np.int64)
            ),
            "offsets are for dot products that go out",
        ),
        (lambda: Pool("p", BIT, K3, "least"), "'p': pools by 'max' or 'sum', not 'least'"),
        (lambda: Pool("p", ValueType("bit", 1, (9,)), K3), "takes an HWC map"),
        (
            lambda: Pool("p", BIT, Window((1, 1), pads=(1, 0, 0, 0))),
            "'p': has windows that lie beyond the map's edge",
        ),
        (lambda: Pool("p", BIT, Window((6, 1))), "'p': A window of 6 pixels does not fit 5"),
        (lambda: Threshold("t", INT, LEVELS, SIGN), r"must be \(levels, 6\), not \(3, 4\)"),
        (lambda: Threshold("t", INT, np.zeros((1, 6), int), 0 * SIGN), "signs must be -1 or"),
        (lambda: Threshold("t", INT, np.zeros((1, 6)), SIGN), "must be int64, not float64"),
        (lambda: add(sources=(BIT,)), "'a': adds at least two values"),
        (lambda: add(sources=(BIT, ValueType("bit", 1, (6,)))), "values of different shapes"),
        (lambda: add(multipliers=np.ones((2, 5), np.int64)), r"multipliers \(2, 6\) and offsets"),
        (lambda: Concat("j", (BIT,), ("x",)), "'j': joins at least two values"),
        (lambda: Concat("j", (BIT, INT), ("x", "y")), "values of different types or sizes"),
    ],
)
def test_what_breaks_a_rule_is_refused(make, message) -> None:
    with pytest.raises(ModelError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "output"),
    [
        (conv(), ValueType("int", 7, (5, 4, 4))),
        (conv(offsets=np.full((9, 4), 10)), ValueType("int", 8, (5, 4, 4))),
        (conv(thresholds=np.zeros((9, 1, 4), np.int64)), ValueType("bit", 1, (5, 4, 4))),
        (conv(window=Window((3, 3), (2, 1)), thresholds=LEVELS), ValueType("uint", 2, (2, 2, 4))),
        (Pool("p", BIT, Window((2, 2), (2, 2))), ValueType("bit", 1, (2, 2, 6))),
        (Pool("p", BIT, Window((2, 2)), "sum"), ValueType("int", 4, (4, 3, 6))),
        (Pool("p", INT, Window((1, 2)), "sum"), ValueType("int", 4, (5, 3, 6))),
        (
            Pool("p", ValueType("uint", 2, (4, 4, 1)), Window((2, 2)), "sum"),
            ValueType("uint", 4, (3, 3, 1)),
        ),
        (
            Threshold("t", INT, np.zeros((15, 6), np.int64), SIGN),
            ValueType("uint", 4, INT.shape),
        ),
        (add(), ValueType("int", 4, INT.shape)),
        (add(multipliers=np.full((2, 6), -1)), ValueType("int", 4, INT.shape)),
        (add(offsets=np.full(6, 3)), ValueType("int", 4, INT.shape)),
        (add(offsets=np.full(6, 4)), ValueType("int", 5, INT.shape)),
        (Concat("j", (INT, INT), ("x", "y")), ValueType("int", 3, (5, 4, 12))),
    ],
)
def test_type_of_what_a_layer_gives(layer, output) -> None:
    assert layer.output == output


@pytest.mark.parametrize(
    ("kind", "bits"), [*((k, b) for k in ("odd", "int") for b in range(1, 8)), ("int", 8)]
)
def test_planes_add_up_to_every_weight(kind, bits) -> None:
    type_ = WeightType(kind, bits)
    step = 2 if kind == "odd" else 1
    weights = np.arange(-type_.high, type_.high + 1, step).astype(np.int8)
    planes = type_.split(weights)
    assert planes.shape == (type_.planes, len(weights)) and (abs(planes) == 1).all()
    total = np.tensordot(np.array(type_.coefficients), planes.astype(int), 1)
    assert (total == weights.astype(int) * (2 if kind == "int" else 1)).all()
    assert type_.holds(weights) and not type_.holds(np.array([type_.high + 1]))


@pytest.mark.parametrize(
    ("weights", "kind"),
    [
        ([-1, 1], WeightType("odd", 1)),
        ([-1, 0, 1], WeightType("int", 1)),
        ([-3, 1], WeightType("odd", 2)),
        ([2, -1], WeightType("int", 2)),
        ([127, -127], WeightType("odd", 7)),
        ([64, 0], WeightType("int", 7)),
        ([66, -127], WeightType("int", 8)),
    ],
)
def test_weights_get_the_fewest_planes(weights, kind) -> None:
    assert WeightType.of(np.array(weights, np.int8)) == kind


def test_links_between_layers_are_checked() -> None:
    first, second = conv(name="a"), conv(name="b", inputs=("input",))
    spec = Input(BIT, "uint8", 128)
    joined = add(
        name="sum",
        sources=(first.output,) * 2,
        inputs=("a", "b"),
        multipliers=np.ones((2, 4), np.int64),
        offsets=np.zeros(4, np.int64),
    )
    last = Pool("all", joined.output, Window((5, 4)), "sum")
    network = Network("n", spec, (first, second, joined, last), Head())
    assert network.consumers() == {
        "input": ["a", "b"],
        "a": ["sum"],
        "b": ["sum"],
        "sum": ["all"],
        "all": [],
    }
    assert not network.is_chain and network.products == (first, second)
    assert network.macs == 2 * 20 * 4 * 54 and network.weight_bits == 2 * 4 * 54
    for layers, message in (
        ((first, second, joined), r"must give one vector of scores, not \(5, 4, 4\)"),
        ((first, joined, last), "'sum': no layer 'b' comes before it"),
        ((first, second, dataclasses.replace(joined, inputs=("a",)), last), "names 1 inputs"),
        ((first, second, dataclasses.replace(joined, inputs=("a", "a")), last), "'b': nothing tak"),
        ((first, last), "'all': takes .* but is fed"),
    ):
        with pytest.raises(ModelError, match=message):
            Network("n", spec, layers, Head())


def test_files_give_back_every_layer(tmp_path) -> None:
    seen: set[str] = set()
    for seed in range(40):
        network = random_network(np.random.default_rng(seed))
        seen |= coverage(network)
        folder = tmp_path / str(seed)
        folder.mkdir()
        network.save(folder)
        again = Network.restore(folder)
        assert again.digest() == network.digest()
        for layer, other in zip(network.layers, again.layers, strict=True):
            assert type(layer) is type(other) and layer.output == other.output
            for spec in dataclasses.fields(layer):
                one, two = getattr(layer, spec.name), getattr(other, spec.name)
                if isinstance(one, np.ndarray):
                    assert one.dtype == two.dtype and np.array_equal(one, two), spec.name
                else:
                    assert one == two, spec.name
        images = random_images(np.random.default_rng(seed), network, 3)
        assert np.array_equal(evaluate(again, images).scores, evaluate(network, images).scores)
        assert np.array_equal(evaluate(again, images).labels, evaluate(network, images).labels)
    wanted = {"add", "concat", "conv", "dense", "pool", "threshold"}
    assert wanted == {name.split(" of ")[0] for name in seen if " of " in name} & wanted
    assert {"groups", "weights int2", "15 thresholds", "input table", "conv offsets"} <= seen


def test_digest_sees_every_field_of_a_layer() -> None:
    source = ValueType("int", 3, (5, 4, 6))
    base = conv(source=source, pad_value=0)
    head = Dense("d", base.output, np.ones((2, 80), np.int8), None)

    def digest(layer) -> str:
        tail = dataclasses.replace(
            head, source=layer.output, weights=np.ones((2, layer.output.size), np.int8)
        )
        return Network("n", Input(source, "int8"), (layer, tail), Head()).digest()

    others = [
        dataclasses.replace(base, pad_value=1),
        dataclasses.replace(base, weight_type=WeightType("int", 1)),
        dataclasses.replace(base, offsets=np.ones((9, 4), np.int64)),
        dataclasses.replace(base, window=Window((3, 3), pads=(1, 1, 1, 1), dilation=(2, 1))),
        dataclasses.replace(base, groups=2, weights=ONES[..., :3]),
        Pool("c", source, K3),
        Pool("c", source, K3, "sum"),
        Threshold("c", source, np.zeros((1, 6), np.int64), SIGN),
        Threshold("c", source, np.zeros((1, 6), np.int64), -SIGN),
    ]
    digests = [digest(layer) for layer in [base, *others]]
    assert len(set(digests)) == len(digests)
