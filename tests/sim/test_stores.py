# SPDX-License-Identifier: BSD-2-Clause
"""SPRAM and constant stores in whole cores: verified, loaded by the driver, faults found."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from xnorforge.gen.bundle import Bundle, compile_bundle
from xnorforge.gen.load import load
from xnorforge.gen.planner import make_plan
from xnorforge.sim.board import VirtualBoard
from xnorforge.sim.faults import Fault, plant
from xnorforge.sim.reference import Executor
from xnorforge.sim.verify import verify
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.errors import BundleMismatchError
from xnorforge.sw.images import load_images
from xnorforge.sw.shipped import shipped_model

CONSTANT = {"weight_store": "const", "preset_store": "const"}


def compiled(folder, network, **overrides):
    plan = make_plan(network, board="icebreaker", overrides=overrides)
    return compile_bundle(network, plan, folder / "bundle")


def turned(network, index):
    """The same network with the signs of one layer's weights turned."""
    layers = list(network.layers)
    layers[index] = dataclasses.replace(layers[index], weights=-layers[index].weights)
    return dataclasses.replace(network, layers=tuple(layers))


@pytest.fixture(scope="module")
def mixed(nets, tmp_path_factory):
    """One constant layer, one in SPRAM, one in memories that power up with their words."""
    network = nets.network(np.random.default_rng(5), [52, 18, 11, 7])
    folder = tmp_path_factory.mktemp("mixed")
    return compiled(folder, network, dense0=CONSTANT, dense1={"weight_store": "spram"})


def test_bundle_says_what_must_be_loaded_and_what_cannot(mixed):
    weights = json.loads((mixed.path / "manifest.json").read_text())["weights"]
    assert weights["must_load"]
    assert weights["constant"] == ["dense0.weights", "dense0.presets"]
    kinds = {memory["name"]: memory["kind"] for memory in mixed.manifest["memories"]}
    assert kinds["dense1.weights"] == "spram"
    size = sum(
        memory["depth"] * -(-memory["width"] // 8)
        for memory in mixed.manifest["memories"]
        if memory["kind"] != "const" and memory["width"] <= 16
    )
    assert (mixed.path / "weights.bin").stat().st_size >= size
    assert Bundle.open(mixed.path).plan.reasons == mixed.plan.reasons
    assert mixed.plan.reasons


def test_core_with_spram_and_constants_is_exact_and_loaded_by_the_driver(mixed, nets):
    images = nets.images(np.random.default_rng(6), mixed.network, 40)
    report = verify(mixed.path, "rtl", images=images, shell_images=10)
    assert (report.word, report.passed) == ("EXACT", True)
    expected = Executor(mixed.network).run(images)
    with VirtualBoard(mixed.path) as board:
        with pytest.raises(BundleMismatchError, match="has weights none, the bundle has"):
            Accelerator.open(mixed.path, board.socket, load="never")
        with Accelerator.open(mixed.path, board.socket) as accelerator:
            np.testing.assert_array_equal(accelerator.scores(images), expected.scores)
        with Accelerator.open(mixed.path, board.socket, load="never") as accelerator:
            np.testing.assert_array_equal(accelerator.classify(images), expected.labels)


def test_other_constants_are_another_plan(mixed, tmp_path):
    exchanged = turned(mixed.network, 1)
    assert mixed.plan.structure_hash(exchanged) == mixed.plan.structure_hash(mixed.network)
    other = turned(mixed.network, 0)
    bundle = compile_bundle(other, mixed.plan, tmp_path / "other")
    with VirtualBoard(mixed.path) as board:
        with pytest.raises(BundleMismatchError):
            Accelerator.open(bundle.path, board.socket)
        with (
            Accelerator.open(mixed.path, board.socket) as accelerator,
            pytest.raises(BundleMismatchError, match="has plan"),
        ):
            accelerator.load_weights(bundle.path)


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_fault_in_constants_and_in_spram_is_caught(mixed, nets, index):
    images = nets.images(np.random.default_rng(7), mixed.network, 20)
    fault = Fault("weight", "one layer turned", turned(mixed.network, index))
    assert (fault.circuit(mixed.network, mixed.plan) is None) == (index == 1)
    report = verify(mixed.path, "rtl", images=images, fault=fault, stalls=False)
    assert [report.comparisons[name].word for name in ("reference", "core", "shell")] == [
        "EXACT",
        "MISMATCH",
        "MISMATCH",
    ]


@pytest.mark.slow
def test_core_of_constants_alone_works_through_shell_and_driver(nets, tmp_path):
    network = nets.network(np.random.default_rng(8), [40, 12, 6])
    bundle = compiled(tmp_path, network, dense0=CONSTANT, dense1=CONSTANT)
    assert (bundle.path / "weights.bin").read_bytes() == bytes(4)
    images = nets.images(np.random.default_rng(9), network, 30)
    assert verify(bundle.path, "rtl", images=images, shell_images=10).passed
    fault = plant(network, "threshold", images)
    assert not verify(bundle.path, "rtl", images=images, fault=fault, shell_images=10).passed


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_shipped_sfc_in_spram_is_exact_on_a_thousand_images(shared, tmp_path):
    network = load(shipped_model("mnist-sfc"))
    images, labels = load_images(shared / "data" / "mnist", shape=(28, 28))
    plan = make_plan(network, board="icebreaker", fps=3_000, clock_hz=36e6)
    assert [layer.weight_store for layer in plan.layers[:3]] == ["spram"] * 3
    bundle = compile_bundle(network, plan, tmp_path / "sfc")
    assert bundle.manifest["predicted"]["images_per_second"] >= 3_000
    report = verify(bundle.path, "rtl", images=images[:1000], labels=labels[:1000])
    assert (report.word, report.passed) == ("EXACT", True)
    assert report.accuracy > 0.96
