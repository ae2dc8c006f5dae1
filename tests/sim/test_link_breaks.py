# SPDX-License-Identifier: BSD-2-Clause
"""Clients, boards, cables and weight loads that end in the middle, and the next connection."""

import numpy as np
import pytest

from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.planner import make_plan
from xnorforge.sim import link_loads
from xnorforge.sim.line_faults import FaultyLine
from xnorforge.sim.link_breaks import BREAKS, WAYS, Breaker, Cable
from xnorforge.sim.link_loads import Loader
from xnorforge.sim.lockstep import SimulatedSerial
from xnorforge.sim.random_networks import dense_network, random_images
from xnorforge.sim.toy_board import ToyBoard, toy_bundle, toy_device, toy_images, toy_scores
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.errors import BundleMismatchError, ManifestError, WeightsError
from xnorforge.sw.protocol import crc32

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    network = dense_network(np.random.default_rng(0), [192, 32, 10])
    plan = make_plan(network, board="icebreaker", fps=30_000, baud=57_600)
    return compile_bundle(network, plan, tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def breaker(bundle):
    images = random_images(np.random.default_rng(1), bundle.network, 300)
    with Breaker(bundle, images) as running:
        yield running


@pytest.fixture(scope="module")
def loader(bundle):
    images = random_images(np.random.default_rng(1), bundle.network, 8)
    with Loader(bundle, images) as running:
        yield running


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", BREAKS)
def test_next_connection_gives_the_references_scores(breaker, what, way):
    for seed in range(2):
        found = breaker.run(what, way, seed)
        assert found.wrong == 0
        assert found.repaired or found.error or what in ("client killed", "port closed")


@pytest.mark.parametrize("port_stays", [True, False])
def test_pulled_cable_is_mended_by_the_driver(tmp_path, port_stays):
    images = toy_images(2000)
    manifest = toy_bundle(tmp_path / "toy")
    with (
        ToyBoard(toy_device()) as board,
        Cable(board.port, "socket") as cable,
        Accelerator.open(manifest, cable.address) as driver,
    ):
        cable.pull_after(1500, port_stays=port_stays, plug_after_s=0.1)
        assert (driver.scores(images) == toy_scores(images)).all()
        assert cable.pulls == 1
        assert (driver.statistics.reconnects == 0) == port_stays


def test_two_models_in_turn(loader):
    assert [loader.exchange(name) for name in ("other", "own", "other", "own")] == [0] * 4


def test_loads_over_a_faulty_line(loader, monkeypatch):
    lines = {"up": FaultyLine(2e-3, 1), "down": FaultyLine(2e-3, 2)}
    clock_hz = link_loads.DIVISOR * link_loads.BAUD
    monkeypatch.setattr(
        link_loads, "_serial", lambda board: SimulatedSerial(board, clock_hz, **lines)
    )
    assert [loader.exchange(name) for name in ("other", "own") * 3] == [0] * 6
    assert all(len(line.landings) > 3 for line in lines.values())


def test_load_cut_off_leaves_the_old_model_or_none(loader):
    found = {loader.cut_off("other", seed) for seed in range(4)}
    assert found == {"own", "refuses"}
    assert loader.exchange("other") == 0


def test_damaged_load_is_refused(loader):
    assert loader.damaged(0) == "refuses"
    assert loader.exchange("own") == 0


def test_wrong_weights_are_refused_and_the_old_model_runs(bundle, breaker, tmp_path):
    images, own = breaker._images, (bundle.path / "weights.bin").read_bytes()
    plan = make_plan(bundle.network, board="icebreaker", fps=10_000, baud=57_600)
    other = compile_bundle(bundle.network, plan, tmp_path / "slower")
    assert other.manifest["plan_hash"] != bundle.manifest["plan_hash"]
    with Accelerator.open(bundle.path, breaker._board.socket) as board:
        for weights, error in (
            (other.path, BundleMismatchError),
            (own + bytes(4), ManifestError),
            (own[:100] + bytes([own[100] ^ 1]) + own[101:], ManifestError),
            (bytes(8) + crc32(bytes(8)).to_bytes(4, "little"), WeightsError),
        ):
            with pytest.raises(error):
                board.load_weights(weights)
        np.testing.assert_array_equal(board.scores(images), breaker._expected.scores)
    with pytest.raises(BundleMismatchError):
        Accelerator.open(other.path, breaker._board.socket)


def test_wrong_answers_and_mixtures_are_told(bundle, breaker, monkeypatch):
    images = random_images(np.random.default_rng(1), bundle.network, 8)
    with Loader(bundle, images) as loader:
        monkeypatch.setitem(loader._expected, "other", loader._expected["own"])
        assert loader.exchange("other") > 0
        assert {loader.cut_off("own", seed) for seed in range(1, 4)} == {"mixture", "refuses"}
    expected = breaker._expected
    monkeypatch.setattr(breaker, "_expected", type(expected)(expected.scores + 1, expected.labels))
    assert breaker.run("port closed", "socket", 0).wrong >= 20
