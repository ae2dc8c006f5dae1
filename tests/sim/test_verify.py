# SPDX-License-Identifier: BSD-2-Clause
"""Verification of a real bundle: right as compiled, red at each level for each planted fault."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.errors import BundleError, ModelError, UserError
from xnorforge.gen.planner import make_plan
from xnorforge.sim.faults import FAULT_KINDS, plant
from xnorforge.sim.reference import Executor
from xnorforge.sim.verify import LEVELS, verify

EVERY_TIME = LEVELS[:2]  # level "netlist" has a file of tests of its own


@pytest.fixture(scope="module")
def made(nets, tmp_path_factory):
    rng = np.random.default_rng(5)
    network = nets.network(rng, [52, 18, 11, 7])
    plan = make_plan(network, board="icebreaker")
    bundle = compile_bundle(network, plan, tmp_path_factory.mktemp("verify") / "bundle")
    return SimpleNamespace(bundle=bundle, images=nets.images(rng, network, 60))


@pytest.mark.parametrize("level", EVERY_TIME)
def test_compiled_bundle_is_exact(made, level):
    golden = Executor(made.bundle.network).run(made.images)
    report = verify(
        made.bundle.path, level, images=made.images, labels=golden.labels, golden=golden.scores
    )
    assert (report.word, report.passed) == ("EXACT", True)
    assert report.accuracy == 1.0
    names = ["reference", "golden"]
    if level == "rtl":
        names += ["core", "core_stalled", "shell", "shell_other_model"]
        assert report.cycles.equal and report.cycles.interval_simulated is not None
        assert report.comparisons["shell"].images == 20
    assert list(report.comparisons) == names
    written = json.loads((made.bundle.results / f"verify_{level}.json").read_text())
    assert (written["word"], written["passed"]) == ("EXACT", True)


@pytest.mark.parametrize("kind", FAULT_KINDS)
@pytest.mark.parametrize("level", EVERY_TIME)
def test_planted_fault_is_caught(made, kind, level):
    images = made.images[:20]  # all of them through every part of the level
    fault = plant(made.bundle.network, kind, images)
    report = verify(made.bundle.path, level, images=images, fault=fault, stalls=False)
    assert (report.word, report.passed) == ("MISMATCH", False)
    assert report.fault == fault.description
    if level == "rtl":  # each part of the level by itself
        assert report.comparisons["core"].word == "MISMATCH"
        assert report.comparisons["shell"].word == "MISMATCH"
        assert report.comparisons["reference"].word == "EXACT"


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_fault_changes_one_thing(made, kind):
    network = made.bundle.network
    fault = plant(network, kind, made.images)
    pairs = list(zip(network.layers, fault.network.layers, strict=True))
    weights = [np.argwhere(a.weights != b.weights) for a, b in pairs]
    thresholds = [
        np.flatnonzero(a.thresholds != b.thresholds) for a, b in pairs if a.thresholds is not None
    ]
    if kind == "weight":
        assert sum(map(len, weights)) == 1 and sum(map(len, thresholds)) == 0
    elif kind == "threshold":
        assert sum(map(len, weights)) == 0 and sum(map(len, thresholds)) == 1
    else:
        rows = [len(np.unique(found[:, 0])) for found in weights]
        assert sorted(rows) == [0] * (len(rows) - 1) + [2]
    load = (made.bundle.path / "weights.bin").read_bytes()
    assert len(fault.load(made.bundle.plan)) == len(load)
    assert fault.load(made.bundle.plan) != load


def test_wrong_golden_scores_are_a_mismatch(made):
    golden = Executor(made.bundle.network).run(made.images).scores.copy()
    golden[7, 2] += 2
    report = verify(made.bundle.path, "reference", images=made.images, golden=golden)
    assert report.word == "MISMATCH"
    assert report.comparisons["golden"].first.image == 7


def test_changed_bundle_is_refused(made, tmp_path):
    copy = tmp_path / "bundle"
    shutil.copytree(made.bundle.path, copy)
    load = bytearray((copy / "weights.bin").read_bytes())
    load[0] ^= 1
    (copy / "weights.bin").write_bytes(load)
    with pytest.raises(BundleError, match=r"weights\.bin has changed"):
        verify(copy, "reference", images=made.images)


def test_bad_arguments_are_refused(made):
    with pytest.raises(UserError, match="Level must be one of reference, rtl, netlist, not 'gate'"):
        verify(made.bundle.path, "gate", images=made.images)
    with pytest.raises(UserError, match="at least one image"):
        verify(made.bundle.path, "reference", images=made.images[:0])
    count = len(made.images)
    with pytest.raises(UserError, match=f"1 labels were given for {count} images"):
        verify(made.bundle.path, "reference", images=made.images, labels=np.zeros(1, int))
    with pytest.raises(UserError, match="Golden scores must be"):
        verify(made.bundle.path, "reference", images=made.images, golden=np.zeros((count, 99)))
    with pytest.raises(UserError, match="At least one image must go through the shell"):
        verify(made.bundle.path, "rtl", images=made.images, shell_images=0)
    with pytest.raises(ModelError, match="Fault must be one of"):
        plant(made.bundle.network, "typo", made.images)


def test_fault_that_cannot_exist_is_refused(nets):
    network = nets.network(np.random.default_rng(1), [9, 4])  # no thresholds
    images = nets.images(np.random.default_rng(1), network, 5)
    with pytest.raises(ModelError, match="no threshold fault"):
        plant(network, "threshold", images)
