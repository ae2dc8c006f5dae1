# SPDX-License-Identifier: BSD-2-Clause
"""The executor against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnorforge.gen.bnn_pynq import load_folder
from xnorforge.gen.errors import ModelError
from xnorforge.gen.layers import Add, Threshold
from xnorforge.gen.network import Dense, Head, Input, Network, ValueType
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.sim import packed_layers, reference
from xnorforge.sim.random_networks import random_images, random_network
from xnorforge.sim.reference import CHUNK, Executor

# Below, at and above a word, a row block and a padded score block; primes.
SIZE = st.sampled_from([1, 2, 7, 8, 31, 63, 64, 65, 97, 127, 128, 129, 193])


@given(
    sizes=st.lists(SIZE, min_size=2, max_size=5),
    kind=st.sampled_from(["bit", "uint", "int"]),
    bits=st.integers(1, 8),
    tie=st.sampled_from(["first", "last"]),
    affine=st.booleans(),
    count=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_numpy_on_random_networks(nets, sizes, kind, bits, tie, affine, count, seed):
    rng = np.random.default_rng(seed)
    network = nets.network(rng, sizes, kind, 1 if kind == "bit" else bits, tie, affine)
    images = nets.images(rng, network, count)
    want = nets.trace(network, images)

    executor = Executor(network)
    result = executor.run(images)
    assert np.array_equal(result.scores, want[-1])
    assert np.array_equal(result.labels, network.head.label(want[-1]))
    for got, expected in zip(executor.trace(images), want, strict=True):
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("count", [0, 1, 2, CHUNK - 1, CHUNK, 2 * CHUNK + 5])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_equals_numpy_however_the_batch_is_cut(nets, count, threads):
    rng = np.random.default_rng(count)
    network = nets.network(rng, [50, 70, 10])
    images = nets.images(rng, network, max(count, 1))[:count]
    result = Executor(network, threads).run(images)
    assert result.scores.shape == (count, 10)
    if count:
        assert np.array_equal(result.scores, nets.trace(network, images)[-1])


def test_images_may_have_any_shape_and_layout(nets):
    rng = np.random.default_rng(1)
    network = nets.network(rng, [36, 5])
    flat = nets.images(rng, network, 6)
    want = Executor(network).run(flat).scores
    strided = np.asfortranarray(flat.reshape(6, 6, 6, 1))
    assert np.array_equal(Executor(network).run(strided).scores, want)


def test_scores_are_64_bits_wide_where_32_do_not_hold_them():
    value = ValueType("uint", 24, (200,))
    weights = np.ones((1, 200), np.int8)
    network = Network("wide", Input(value, "uint32"), (Dense("l", value, weights, None),), Head())
    images = np.full((1, 200), (1 << 24) - 1, np.uint32)
    result = Executor(network).run(images)
    assert result.scores.dtype == np.int64
    assert result.scores[0, 0] == 200 * ((1 << 24) - 1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 36), np.float32), "must be uint8, not float32"),
        (np.zeros((2, 35), np.uint8), r"must be \(N, 36\), not \(2, 35\)"),
    ],
)
def test_wrong_images_are_refused(nets, images, message):
    network = nets.network(np.random.default_rng(1), [36, 5])
    with pytest.raises(ModelError, match=message):
        Executor(network).run(images)


def test_pixels_outside_the_range_are_refused(nets):
    network = nets.network(np.random.default_rng(1), [36, 5], "uint", 4)
    with pytest.raises(ModelError, match="takes pixels from 0 to 15; the images hold 0 to 16"):
        Executor(network).run(np.eye(36, dtype=np.uint8) * 16)


def test_zero_threads_are_refused(nets):
    with pytest.raises(ModelError, match="at least 1 thread, not 0"):
        Executor(nets.network(np.random.default_rng(1), [3, 2]), 0)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize(("side", "channels"), [(7, 9), (9, 140)])
def test_equals_numpy_on_networks_of_every_layer(seed, side, channels):
    rng = np.random.default_rng(seed)
    network = random_network(rng, side=side, channels=channels)
    images = random_images(rng, network, 5)
    want = evaluate(network, images)

    executor = Executor(network)
    result = executor.run(images)
    assert np.array_equal(result.scores, want.scores)
    assert np.array_equal(result.labels, want.labels)
    for got, expected in zip(executor.trace(images), want.outputs, strict=True):
        assert got.dtype == expected.dtype and np.array_equal(got, expected)


def test_cnv_equals_the_recorded_popcounts(shared):
    network = load_folder(shared / "models/bnn-pynq/road-signs/cnvW1A1", classes=64)
    golden = np.load(shared / "models/golden/cnvW1A1_roadsigns_gtsrb500.npz")
    images = golden["images_nhwc_u8"]
    executor = Executor(network, 2)
    result = executor.run(images)
    assert len(images) == 500
    assert np.array_equal((result.scores + 512) // 2, golden["popcount_last64"])
    want = evaluate(network, images[:8]).outputs
    for got, expected in zip(executor.trace(images[:8]), want, strict=True):
        assert np.array_equal(got, expected)


def test_a_value_may_be_taken_twice_by_one_layer():
    source = ValueType("bit", 1, (2, 3, 2))
    add = Add(
        "a", (source,) * 2, np.array([[1, 2], [1, -3]]), np.zeros(2, np.int64), ("input",) * 2
    )
    last = Dense("d", add.output, np.ones((3, 12), np.int8), None)
    network = Network("n", Input(source, "uint8", 100), (add, last), Head())
    images = np.random.default_rng(1).integers(0, 256, (9, 2, 3, 2), dtype=np.uint8)
    assert np.array_equal(Executor(network).run(images).scores, evaluate(network, images).scores)


def test_a_map_may_be_read_as_a_vector():
    source = ValueType("uint", 2, (3, 3, 5))
    flat = ValueType("uint", 2, (45,))
    bank = np.tile([[1], [2], [3]], (1, 45))
    first = Threshold("t", flat, bank, np.ones(45, np.int8))
    last = Dense("d", first.output, np.ones((2, 45), np.int8), None)
    network = Network("n", Input(source), (first, last), Head())
    images = np.random.default_rng(2).integers(0, 4, (5, 3, 3, 5), dtype=np.uint8)
    trace = Executor(network).trace(images)
    assert np.array_equal(trace[0], images.reshape(5, 45))
    assert trace[1][:, 0].tolist() == images.reshape(5, 45).sum(axis=1).tolist()


def test_maps_of_another_layout_are_refused():
    source = ValueType("bit", 1, (4, 4, 3))
    dense = Dense("d", source, np.ones((2, 48), np.int8), None)
    network = Network("n", Input(source, "uint8", 1), (dense,), Head())
    with pytest.raises(ModelError, match="channels last, move the axis"):
        Executor(network).run(np.zeros((2, 3, 4, 4), np.uint8))


@pytest.mark.parametrize("thresholds", [None, np.zeros(1, np.int64)])
def test_values_too_wide_to_be_exact_are_refused(thresholds):
    value = ValueType("uint", 60, (20,))
    first = Dense("wide", value, np.ones((1, 20), np.int8), thresholds)
    last = Dense("last", ValueType("bit", 1, (1,)), np.ones((1, 1), np.int8), None)
    layers = (first,) if thresholds is None else (first, last)
    network = Network("n", Input(value, "uint64"), layers, Head())
    with pytest.raises(ModelError, match="'wide': values of 66 bits; the executor takes up to 61"):
        Executor(network)


def test_widest_values_are_exact():
    value = ValueType("int", 55, (20,))
    layer = Dense("d", value, np.array([[1] * 20, [-1] * 20], np.int8), None)
    network = Network("n", Input(value, "int64"), (layer,), Head())
    images = np.array([[value.low] * 20, [value.high] * 20, [3] * 20], np.int64)
    scores = Executor(network).run(images).scores.tolist()
    assert scores == [[20 * x, -20 * x] for x in (value.low, value.high, 3)]


@pytest.mark.parametrize("seed", range(20))
def test_parts_of_a_batch_fit_together(seed, monkeypatch):
    """Images in chunks of 5, windows of two or so images at a time, on two threads."""
    monkeypatch.setattr(reference, "CHUNK", 5)
    monkeypatch.setattr(packed_layers, "_WINDOW_BYTES", 1500)
    rng = np.random.default_rng(seed)
    network = random_network(rng, side=6, channels=12)
    images = random_images(rng, network, 23)
    want = evaluate(network, images)
    executor = Executor(network, 2)
    assert np.array_equal(executor.run(images).scores, want.scores)
    for got, expected in zip(executor.trace(images), want.outputs, strict=True):
        assert np.array_equal(got, expected)
