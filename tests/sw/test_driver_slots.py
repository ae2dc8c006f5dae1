# SPDX-License-Identifier: BSD-2-Clause
"""Boards that hold two models: exchanged without a load, in the middle of a stream, and kept when
a load of the other breaks off."""

import itertools

import numpy as np
import pytest

from xnorforge.sim.line_faults import FaultyLine
from xnorforge.sim.toy_board import (
    OTHER,
    WEIGHTS,
    ToyBoard,
    toy_device,
    toy_images,
    toy_load,
    toy_scores,
)
from xnorforge.sw import errors
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.protocol import crc32

THIRD = WEIGHTS[1:] + WEIGHTS[:1]


def test_two_models_alternate_without_further_loads(bundle):
    images = toy_images(20)
    with (
        ToyBoard(toy_device(models=2)) as server,
        Accelerator.open(bundle, server.port) as board,
    ):
        board.load_weights(toy_load(OTHER))
        sent = board.statistics.link.payload_sent
        assert sent >= len(toy_load(OTHER))
        leases = board.statistics.link.leases
        for turn in range(10):
            weights = (WEIGHTS, OTHER)[turn % 2]
            board.load_weights(toy_load(weights))
            assert (board.scores(images) == toy_scores(images, weights)).all()
        assert board.statistics.link.payload_sent - sent == 10 * 20 * 2
        assert board.statistics.link.leases == leases
        board.load_weights(toy_load(THIRD))
        assert (board.scores(images) == toy_scores(images, THIRD)).all()
        # The model that ran last is the one that stayed.
        assert server.device.weights_digest == crc32(THIRD)
        assert server.device.second_digest == crc32(OTHER)


def test_other_client_finds_both_models(bundle):
    images = toy_images(20)
    with ToyBoard(toy_device(models=2)) as server:
        with Accelerator.open(bundle, server.port) as board:
            board.load_weights(toy_load(OTHER))
        for weights in (OTHER, WEIGHTS):
            with Accelerator.open(
                bundle, server.port, weights=toy_load(weights), load="never"
            ) as board:
                assert (board.scores(images) == toy_scores(images, weights)).all()
                assert board.statistics.link.payload_sent == 40
        with pytest.raises(errors.BundleMismatchError, match=f"{crc32(THIRD):08x}: open it with"):
            Accelerator.open(bundle, server.port, weights=toy_load(THIRD), load="never")


@pytest.mark.parametrize("rate", [0.0, 1e-3])
def test_models_are_exchanged_in_the_middle_of_a_stream(bundle, rate):
    images = toy_images(900)
    up, down = FaultyLine(rate, 1), FaultyLine(rate / 2, 2)
    turns = itertools.cycle((OTHER, THIRD, WEIGHTS))
    model = WEIGHTS

    with (
        ToyBoard(toy_device(models=2), up=up, down=down) as server,
        Accelerator.open(bundle, server.port) as board,
    ):

        def source():
            nonlocal model
            for index, image in enumerate(images):
                if index % 100 == 60:
                    model = next(turns)
                    board.load_weights(toy_load(model))
                yield image

        records = list(board.stream(source()))
        used = board.manifest.weights_digest
    assert [record.index for record in records] == list(range(900))
    scores = np.array([record.scores for record in records])
    known = {crc32(weights): toy_scores(images, weights) for weights in (WEIGHTS, OTHER, THIRD)}
    assert used == crc32(model)
    for index, found in enumerate(scores):
        weights = (WEIGHTS, OTHER, THIRD)[(index + 40) // 100 % 3]
        assert (found == known[crc32(weights)][index]).all(), index


def test_board_of_one_slot_refuses_in_the_middle_of_a_stream(bundle):
    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        stream = board.stream(iter(toy_images(50)))
        next(stream)
        with pytest.raises(errors.AcceleratorError, match="A stream is open"):
            board.load_weights(toy_load(OTHER))
        assert len(list(stream)) == 49


@pytest.mark.parametrize("cut", [5, 300, 1000])
def test_load_cut_off_leaves_the_old_model(bundle, cut):
    images = toy_images(30)
    device = toy_device(models=2)
    with ToyBoard(device) as server:
        board = Accelerator.open(bundle, server.port)
        server.cut_after = cut
        with pytest.raises(errors.PortError, match="went away during the load"):
            board.load_weights(toy_load(OTHER))
        board.close()
        assert device.second_digest is None
        with Accelerator.open(bundle, server.port, load="never") as again:
            assert (again.scores(images) == toy_scores(images)).all()


def test_board_that_lost_the_second_model_gets_it_again(bundle):
    images = toy_images(200)
    device = toy_device(models=2)
    with ToyBoard(device) as server, Accelerator.open(bundle, server.port) as board:
        board.load_weights(toy_load(OTHER))
        assert (board.scores(images) == toy_scores(images, OTHER)).all()
        with server.lock:
            device.second_digest = None
            device.power_cycle()
        assert (board.scores(images) == toy_scores(images, OTHER)).all()


@pytest.mark.parametrize("models", [1, 2])
def test_weights_are_loaded_when_asked_for_whatever_open_was_told(bundle, models):
    images = toy_images(20)
    with (
        ToyBoard(toy_device(models=models)) as server,
        Accelerator.open(bundle, server.port, load="never") as board,
    ):
        board.load_weights(toy_load(OTHER))
        assert (board.scores(images) == toy_scores(images, OTHER)).all()
