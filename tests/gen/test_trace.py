# SPDX-License-Identifier: BSD-2-Clause
"""Trace: equal where the network is the source's, and the first wrong layer named where not."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import sys

import numpy as np
import pytest

import xnorforge.gen
from xnorforge.gen.errors import ModelError, ToolError
from xnorforge.gen.network import Network
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.gen.trace import trace

RANDOM = np.random.default_rng(11)
SIZES = (40, 24, 16, 6)
IMAGES = RANDOM.integers(0, 256, (200, SIZES[0]), np.uint8)


@pytest.fixture
def path(chain, tmp_path):
    """784-style network of three layers with random batch norms."""
    random = np.random.default_rng(4)
    model = chain(["N", SIZES[0]]).binary_input()
    for i, (k, m) in enumerate(itertools.pairwise(SIZES)):
        model.node("MatMul", model.X, random.choice([-1.0, 1.0], (k, m)))
        if i < 2:
            gamma, beta, mean = random.normal(size=(3, m))
            model.batchnorm(gamma, beta, 2 * mean, random.uniform(5, 40, m)).bipolar()
    model.node("Mul", model.X, 0.125).node("ArgMax", axis=1)
    return model.save(tmp_path / "model.onnx")


def planted(network: Network, layer: int, **changes) -> Network:
    layers = list(network.layers)
    layers[layer] = dataclasses.replace(layers[layer], **changes)
    return dataclasses.replace(network, layers=tuple(layers))


def test_a_lowered_network_is_equal_in_every_layer(path) -> None:
    report = trace(path, IMAGES)
    assert report.equal, str(report)
    kinds = [(layer.layer, layer.kind) for layer in report.layers]
    assert kinds == [
        ("input", "input bits"),
        ("dense0", "dots"),
        ("dense0", "bits"),
        ("dense1", "dots"),
        ("dense1", "bits"),
        ("dense2", "dots"),
        ("dense2", "scores"),
        ("head", "labels"),
    ]
    assert all(layer.tolerance == 0 and layer.compared for layer in report.layers)
    assert (report.labels == report.source_labels).all()


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_one_wrong_weight_is_found_in_its_layer(layer, path) -> None:
    network = xnorforge.gen.load(path)
    weights = network.layers[layer].weights.copy()
    weights[3, 5] *= -1
    first = trace(path, IMAGES, network=planted(network, layer, weights=weights)).first_difference
    assert (first.layer, first.kind, first.channel) == (f"dense{layer}", "dots", 3)
    assert f"dense{layer} dots" in str(first) and "channel 3" in str(first)


@pytest.mark.parametrize("layer", [0, 1])
def test_one_wrong_threshold_is_found_in_its_layer(layer, path) -> None:
    network = xnorforge.gen.load(path)
    found = 0
    dots = evaluate(network, IMAGES).dots[layer]
    for row in range(network.layers[layer].rows):
        thresholds = network.layers[layer].thresholds.copy()
        if not (dots[:, row] == thresholds[row]).any():
            continue  # no image tells T from T + 1
        thresholds[row] += 1
        wrong = planted(network, layer, thresholds=thresholds)
        first = trace(path, IMAGES[:100], network=wrong).first_difference
        if (dots[:100, row] == thresholds[row] - 1).any():
            assert (first.layer, first.kind, first.channel) == (f"dense{layer}", "bits", row)
            found += 1
        if found == 3:
            break
    assert found == 3


def test_two_swapped_rows_are_found(path) -> None:
    network = xnorforge.gen.load(path)
    weights = network.layers[1].weights.copy()
    weights[[2, 9]] = weights[[9, 2]]
    first = trace(path, IMAGES, network=planted(network, 1, weights=weights)).first_difference
    assert (first.layer, first.kind, first.channel) == ("dense1", "dots", 2)


def test_a_wrong_pixel_threshold_and_a_wrong_tie_rule_are_found(path, chain, tmp_path) -> None:
    network = xnorforge.gen.load(path)
    input_ = dataclasses.replace(network.input, threshold=127)
    first = trace(path, IMAGES, network=dataclasses.replace(network, input=input_)).first_difference
    assert (first.layer, first.kind, first.source, first.network) == ("input", "input bits", 0, 1)
    head = dataclasses.replace(network.head, tie="last")
    first = trace(path, IMAGES, network=dataclasses.replace(network, head=head)).first_difference
    assert (first.layer, first.kind) == ("head", "labels")


def test_products_with_a_bias_inside_are_compared_by_their_sum(chain, tmp_path) -> None:
    random = np.random.default_rng(0)
    model = chain(["N", SIZES[0]])  # 8-bit inputs: the source rounds its products
    model.node("Gemm", model.X, random.choice([-1.0, 1.0], (SIZES[0], 9)), random.normal(size=9))
    model.bipolar().node("Gemm", model.X, random.choice([-1.0, 1.0], (9, 4)), random.normal(size=4))
    path = model.save(tmp_path / "m.onnx")
    report = trace(path, IMAGES)
    assert report.equal, str(report)
    assert [layer.kind for layer in report.layers] == ["dots", "bits", "scores", "labels"]
    assert report.layers[0].tolerance > 0
    network = xnorforge.gen.load(path)
    weights = network.layers[1].weights.copy()
    weights[1, 1] *= -1
    first = trace(path, IMAGES, network=planted(network, 1, weights=weights)).first_difference
    assert (first.layer, first.kind, first.channel) == ("dense1", "scores", 1)


def test_trace_needs_the_same_layers_an_image_and_onnxruntime(path, monkeypatch) -> None:
    network = xnorforge.gen.load(path)
    with pytest.raises(ModelError, match="at least one image"):
        trace(path, IMAGES[:0])
    shorter = dataclasses.replace(
        network,
        layers=(network.layers[0], dataclasses.replace(network.layers[1], thresholds=None)),
    )
    with pytest.raises(ModelError, match=r"has layers .*\(6, 16\).* the network has"):
        trace(path, IMAGES, network=shorter)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ToolError, match=r"onnxruntime is not installed: pip install 'xnorforge\[sim\]'"
    ):
        trace(path, IMAGES)


def test_zoo_tfc_is_equal_in_every_layer(shared) -> None:
    content = gzip.decompress((shared / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)[:1000]
    report = trace(shared / "models/qonnx-zoo/TFC_1W1A.onnx", images)
    assert report.equal, str(report)
    assert len(report.layers) == 10


def test_network_traces_itself_in_the_layout_it_was_loaded_with(chain, tmp_path) -> None:
    random = np.random.default_rng(5)
    model = chain(["N", 3, 5, 3]).binary_input().node("Flatten")
    model.node("MatMul", model.X, random.choice([-1.0, 1.0], (45, 4)))
    path = model.save(tmp_path / "model.onnx")
    images = random.integers(0, 256, (20, 45), np.uint8)
    stated = xnorforge.gen.load(path, layout="nhwc")
    assert stated.trace(images, path, layout="nhwc").equal
    assert not stated.trace(images, path).equal  # taken for channels first
