# SPDX-License-Identifier: BSD-2-Clause
"""The real driver against the bundle's own Verilog behind a pty and a socket, also when cut off."""

import signal
import subprocess
import sys

import numpy as np
import pytest

import xnorforge.gen
from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.planner import make_plan
from xnorforge.sim.board import VirtualBoard
from xnorforge.sim.reference import Executor
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.errors import AcceleratorError
from xnorforge.sw.images import load_images
from xnorforge.sw.shipped import shipped_images, shipped_model

pytestmark = pytest.mark.timeout(900)

CLIENT = """
import sys
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.images import load_images
images, _ = load_images(sys.argv[3])
with Accelerator.open(sys.argv[1], sys.argv[2]) as board:
    for record in board.stream(images):
        print(record.index, flush=True)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    network = xnorforge.gen.load(shipped_model("mnist-tfc"))
    plan = make_plan(network, board="icebreaker", fps=10_000)
    return compile_bundle(network, plan, tmp_path_factory.mktemp("bundle") / "tfc")


@pytest.fixture
def board(bundle):
    with VirtualBoard(bundle.path) as running:
        yield running


@pytest.fixture(scope="module")
def images():
    return load_images(shipped_images(), shape=(28, 28))[0]


@pytest.fixture(scope="module")
def expected(bundle, images):
    return Executor(bundle.network).run(images)


def assert_scores(bundle, port, images, expected):
    with Accelerator.open(bundle.path, port) as accelerator:
        np.testing.assert_array_equal(accelerator.scores(images), expected.scores[: len(images)])


def test_pty_and_socket_give_the_references_scores_and_labels(bundle, board, images, expected):
    for port in (board.pty, board.socket):
        with Accelerator.open(bundle.path, port) as accelerator:
            np.testing.assert_array_equal(accelerator.scores(images), expected.scores)
            np.testing.assert_array_equal(accelerator.classify(images[:40]), expected.labels[:40])
            cycles = accelerator.statistics.busy_cycles / accelerator.statistics.frames
        assert cycles >= bundle.manifest["predicted"]["interval_cycles"] * 0.99


def test_killed_client_leaves_the_board_usable(bundle, board, images, expected):
    for port in (board.pty, board.socket):
        arguments = [sys.executable, "-c", CLIENT, str(bundle.path), port, str(shipped_images())]
        client = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            assert client.stdout.readline().strip().isdigit()
        client.send_signal(signal.SIGKILL)
        client.communicate()
        assert_scores(bundle, port, images[:50], expected)


def test_killed_server_is_an_error_and_the_next_one_answers(bundle, images, expected):
    for way in ("pty", "socket"):
        with VirtualBoard(bundle.path) as board:
            accelerator = Accelerator.open(bundle.path, getattr(board, way), timeout=2.0)
            records = accelerator.stream(images)
            next(records)
            board.kill()
            with pytest.raises(AcceleratorError):
                list(records)
            accelerator.close()
        with VirtualBoard(bundle.path) as board:
            assert_scores(bundle, getattr(board, way), images[:50], expected)


def test_port_closed_in_the_middle_leaves_the_board_usable(bundle, board, images, expected):
    for port in (board.pty, board.socket):
        accelerator = Accelerator.open(bundle.path, port)
        records = accelerator.stream(images)
        next(records)
        accelerator.close()
        records.close()
        assert_scores(bundle, port, images[:50], expected)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thousand_images_over_pty_and_socket(bundle, board, shared):
    images, _ = load_images(shared / "data" / "mnist", shape=(28, 28))
    expected = Executor(bundle.network).run(images[:1000])
    for port in (board.pty, board.socket):
        assert_scores(bundle, port, images[:1000], expected)
