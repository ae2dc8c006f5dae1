# SPDX-License-Identifier: BSD-2-Clause
"""The integer network: its rules, its canonical files, its plain evaluation and its table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnorforge.gen.errors import BundleError, ModelError
from xnorforge.gen.inspect import describe, inspect
from xnorforge.gen.network import Dense, Head, Input, Network, ValueType
from xnorforge.gen.numpy_reference import evaluate


def random_network(seed: int = 0, *, kind: str = "bit", affine: bool = False) -> Network:
    random = np.random.default_rng(seed)
    k, m, c = (int(n) for n in random.integers(2, 20, 3))
    value = ValueType(kind, 1 if kind == "bit" else 8, (k,))
    first = random.choice([-1, 1], (m, k)).astype(np.int8)
    high = k * max(abs(value.low), value.high)
    thresholds = random.integers(-high, high + 2, m)
    last = random.choice([-1, 1], (c, m)).astype(np.int8)
    head = Head("first")
    if affine:
        head = Head("last", random.integers(1, 9, c), random.integers(-9, 9, c))
    input_ = Input(
        value, "int8" if kind == "int" else "uint8", 100 if kind == "bit" else None, seed % 2 == 1
    )
    layers = (
        Dense("dense0", value, first, thresholds),
        Dense("dense1", ValueType("bit", 1, (m,)), last, None),
    )
    return Network("random", input_, layers, head, {"file": "random"})


def images(network: Network, count: int, seed: int = 0) -> np.ndarray:
    info = np.iinfo(network.input.pixel)
    random = np.random.default_rng(seed)
    shape = (count, *network.input.value.shape)
    return random.integers(info.min, info.max + 1, shape).astype(network.input.pixel)


kinds = st.sampled_from(["bit", "uint", "int"])


@given(seed=st.integers(0, 200), kind=kinds, affine=st.booleans())
def test_evaluation_follows_the_definition(seed, kind, affine) -> None:
    network = random_network(seed, kind=kind, affine=affine)
    pictures = images(network, 5, seed)
    result = evaluate(network, pictures)
    for n, picture in enumerate(pictures):
        # Python integers, one by one: what the classes' docstrings say.
        x = [int(p) for p in picture]
        if kind == "bit":
            x = [1 if (p >= network.input.threshold) != network.input.inverted else -1 for p in x]
        for layer, dots in zip(network.layers, result.dots, strict=True):
            dot = [sum(int(w) * v for w, v in zip(row, x, strict=True)) for row in layer.weights]
            assert dot == dots[n].tolist()
            if layer.thresholds is not None:
                x = [1 if d >= t else -1 for d, t in zip(dot, layer.thresholds, strict=True)]
        keys = dot
        if affine:
            scale, offset = network.head.scale.tolist(), network.head.offset.tolist()
            keys = [a * d + b for a, d, b in zip(scale, dot, offset, strict=True)]
        winners = [i for i, key in enumerate(keys) if key == max(keys)]
        assert result.labels[n] == (winners[0] if network.head.tie == "first" else winners[-1])
        assert result.scores[n].tolist() == dot


@given(seed=st.integers(0, 200), kind=kinds, affine=st.booleans())
def test_files_give_back_the_same_network(seed, kind, affine, tmp_path_factory) -> None:
    network = random_network(seed, kind=kind, affine=affine)
    folder = tmp_path_factory.mktemp("network")
    network.save(folder)
    content = [(folder / name).read_bytes() for name in ("network.json", "network.npz")]
    again = Network.restore(folder)
    assert again.digest() == network.digest()
    assert again.source == network.source
    pictures = images(network, 20)
    assert (evaluate(again, pictures).labels == evaluate(network, pictures).labels).all()
    again.save(folder)
    assert content == [(folder / n).read_bytes() for n in ("network.json", "network.npz")]


def test_digest_sees_every_number_and_not_the_provenance() -> None:
    network = random_network(3, affine=True)
    digests = {network.digest()}

    def changed(**fields) -> Network:
        values = {f: getattr(network, f) for f in ("name", "input", "layers", "head", "source")}
        return Network(**{**values, **fields})

    first, last = network.layers
    assert changed(source={}).digest() in digests
    weights = first.weights.copy()
    weights[0, 0] *= -1
    thresholds = first.thresholds.copy()
    thresholds[1] += 1 if thresholds[1] <= first.dot_high else -1
    scale = network.head.scale + 1
    for other in (
        changed(layers=(Dense("dense0", first.source, weights, first.thresholds), last)),
        changed(layers=(Dense("dense0", first.source, first.weights, thresholds), last)),
        changed(head=Head("first", network.head.scale, network.head.offset)),
        changed(head=Head("last", scale, network.head.offset)),
        changed(input=Input(network.input.value, "uint8", 101, network.input.inverted)),
    ):
        assert other.digest() not in digests
        digests.add(other.digest())


def test_unknown_versions_and_ops_are_refused() -> None:
    description, arrays = random_network().to_files()
    with pytest.raises(BundleError, match=r"format '2\.0'"):
        Network.from_files({**description, "format": "2.0"}, arrays)
    description = json.loads(json.dumps(description))
    description["layers"][0]["op"] = "attention"
    with pytest.raises(BundleError, match="'dense0': unknown op 'attention'"):
        Network.from_files(description, arrays)
    description["format"], description["layers"][0]["op"] = "1.9", "dense"
    description["a later field"] = 1
    assert Network.from_files(description, arrays).digest() == random_network().digest()


BIT4 = ValueType("bit", 1, (4,))
ONES = np.ones((2, 4), np.int8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ValueType("float", 1, (4,)), "must be 'bit', 'uint' or 'int', not 'float'"),
        (lambda: ValueType("bit", 2, (4,)), "'bit' value cannot have 2 bits"),
        (lambda: ValueType("uint", 0, (4,)), "cannot have 0 bits"),
        (lambda: Dense("a", BIT4, ONES[0], None), r"'a': weights must be a matrix, not .* \(4,\)"),
        (lambda: Dense("a", BIT4, 0 * ONES, None), "'a': weights must be -1 and \\+1"),
        (lambda: Dense("a", BIT4, ONES.astype(int), None), "'a': weights must be int8, not int64"),
        (lambda: Dense("a", BIT4, ONES[:0], None), "'a': needs at least one row and one column"),
        (lambda: Dense("a", BIT4, ONES[:, :3], None), "'a': 3 weight columns for 4 inputs"),
        (lambda: Dense("a", BIT4, ONES, np.zeros(3, np.int64)), r"must be int64 \(2,\)"),
        (lambda: Dense("a", BIT4, ONES, np.zeros(2)), "must be int64, not float64"),
        (lambda: Dense("a", BIT4, ONES, np.array([0, 6])), r"must lie in \[-4, 5\]"),
        (lambda: Head("middle"), "must be 'first' or 'last', not 'middle'"),
        (lambda: Network("n", Input(BIT4), (), Head()), "'n' has no layers"),
        (
            lambda: Network("n", Input(BIT4), (Dense("a", BIT4, ONES, np.array([0, 0])),), Head()),
            "last layer must give scores",
        ),
        (
            lambda: Network("n", Input(BIT4), (Dense("a", BIT4, ONES, None),) * 2, Head()),
            r"'n': layer names repeat: \['a', 'a'\]",
        ),
        (
            lambda: Network(
                "n",
                Input(BIT4),
                tuple(Dense(name, BIT4, ONES, None) for name in "ab"),
                Head(),
            ),
            "'b': takes .* but is fed",
        ),
    ],
)
def test_what_breaks_a_rule_is_refused(make, message) -> None:
    with pytest.raises(ModelError, match=message):
        make()


def test_images_of_a_wrong_type_or_size_are_refused() -> None:
    input_ = Input(ValueType("bit", 1, (2, 2, 1)), "uint8", 128)
    with pytest.raises(ModelError, match="must be uint8, not float64"):
        input_.quantise(np.zeros((1, 4)))
    with pytest.raises(ModelError, match=r"must be \(N, 2, 2, 1\), not \(1, 5\)"):
        input_.quantise(np.zeros((1, 5), np.uint8))
    for shape in ((3, 4), (3, 2, 2), (3, 2, 2, 1), (3, 1, 2, 2)):
        assert input_.quantise(np.full(shape, 128, np.uint8)).tolist() == [[1] * 4] * 3


def test_table_counts_what_is_there() -> None:
    weights = np.ones((5, 4), np.int8)
    layers = (
        Dense("dense0", ValueType("uint", 8, (4,)), weights, np.array([-1020, 3, 1021, -7, 9])),
        Dense("dense1", ValueType("bit", 1, (5,)), np.ones((3, 5), np.int8), None),
    )
    notes = {"layers": [{"name": "dense0", "node": "MatMul 'a'", "flipped": 2}], "exactness": "yes"}
    network = Network("n", Input(layers[0].source), layers, Head("last"), notes)
    table = inspect(network)
    assert json.loads(json.dumps(table)) == table
    assert (table["weight_bits"], table["macs"]) == (20 + 15, 20 * 8 + 15)
    first, last = table["layers"]
    bank = {"levels": 1, "borders": 1, "low": -7, "high": 9, "always": 1, "never": 1}
    assert first["thresholds"] == bank
    assert (first["macs"], first["flipped"], first["input"]) == (160, 2, "uint8")
    assert (last["thresholds"], last["output"], last["flipped"]) == (None, "scores", None)
    text = describe(network)
    assert "-7 .. 9" in text and "highest class among equals" in text and "exactness: yes" in text
    assert "4 -> 5" in text and "5 -> 3" in text
