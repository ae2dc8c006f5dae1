# SPDX-License-Identifier: BSD-2-Clause
"""Two models in one design, from the compiler to the driver, on the virtual board."""

import numpy as np
import pytest

from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.exchange import exchange
from xnorforge.gen.planner import make_plan
from xnorforge.sim.board import VirtualBoard
from xnorforge.sim.other_model import other_model
from xnorforge.sim.random_networks import dense_network, random_images
from xnorforge.sim.reference import Executor
from xnorforge.sw.driver import Accelerator


@pytest.fixture(scope="module", params=["icebreaker", "ulx3s-25f"])
def two(request, tmp_path_factory):
    """(bundle, load of another model, images, the scores that each gives them)."""
    kind = {"icebreaker": ("bit", 1), "ulx3s-25f": ("uint", 8)}[request.param]
    rng = np.random.default_rng(3)
    network = dense_network(rng, [48, 20, 12, 5], *kind)
    plan = make_plan(network, board=request.param, slots=2)
    bundle = compile_bundle(network, plan, tmp_path_factory.mktemp("slots") / "net")
    images = random_images(rng, network, 40)
    other = other_model(network, plan, images)
    scores = [Executor(model).run(images).scores for model in (network, other.network)]
    assert not np.array_equal(*scores)
    return bundle, exchange(other.network, bundle).load, images, scores


@pytest.fixture(scope="module")
def board(two):
    with VirtualBoard(two[0].path) as running:
        yield running


def test_manifest_says_how_models_are_exchanged(two):
    weights = two[0].manifest["weights"]
    assert (weights["slots"], weights["exchange"]) == (2, "between images")


@pytest.mark.parametrize("line", ["pty", "socket"])
def test_models_take_turns_without_loads(two, board, line):
    bundle, load, images, scores = two
    own = (bundle.path / "weights.bin").read_bytes()
    with Accelerator.open(bundle.path, getattr(board, line)) as accelerator:
        accelerator.load_weights(load)
        before = accelerator.statistics.link.payload_sent
        for turn in range(6):
            accelerator.load_weights((own, load)[turn % 2])
            assert np.array_equal(accelerator.scores(images), scores[turn % 2])
        sent = accelerator.statistics.link
        data = (sent.payload_sent - sent.payload_resent) - before
        assert data <= 6 * len(images) * bundle.network.input.image_bytes


def test_models_are_exchanged_between_two_images_of_a_stream(two, board):
    bundle, load, images, scores = two
    own = (bundle.path / "weights.bin").read_bytes()
    turns = [(0, own), (1, load)]

    with Accelerator.open(bundle.path, board.socket) as accelerator:

        def source():
            for index in range(200):
                if index % 13 == 0:
                    accelerator.load_weights(turns[index // 13 % 2][1])
                yield images[index % len(images)]

        for record in accelerator.stream(source()):
            model, place = record.index // 13 % 2, record.index % len(images)
            assert np.array_equal(record.scores, scores[model][place]), record.index
    assert record.index == 199
