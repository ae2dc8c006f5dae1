# SPDX-License-Identifier: BSD-2-Clause
"""The same tests of the driver over every way to reach a core: its real circuit, simulated.

uart      the virtual board's socket
faulty    the same, with bytes damaged both ways
axi       cocotbext-axi at the core's ports, in a clock of their own
pcie      LitePCIe's core in cocotbext-pcie's PC
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from xnorforge.gen.bundle import Bundle, compile_bundle
from xnorforge.gen.planner import make_plan
from xnorforge.sim.line_faults import FaultyLine
from xnorforge.sim.other_model import OtherModel, other_model
from xnorforge.sim.random_networks import dense_network, random_images
from xnorforge.sim.reference import Executor, Result
from xnorforge.sim.simulated import simulated_board
from xnorforge.sw import endpoint, errors
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.driver_async import AsyncAccelerator
from xnorforge.sw.protocol import MAGIC, crc32
from xnorforge.sw.transport import open_transport

pytestmark = pytest.mark.timeout(600)

WAYS = ("uart", "faulty", "axi", "pcie")
SITES = {
    "uart": {"board": "icebreaker"},
    "faulty": {"board": "icebreaker"},
    "axi": {"device": "ecp5-25f", "link": "axi", "bus_clock_hz": 1.25e8},
    "pcie": {"board": "xcu1525", "link": "pcie"},
}
SLOTS = 2
COUNT = 60
PATIENCE_S = 6.0


class FaultyTransport:
    """A serial port whose line damages a byte in a thousand, each way."""

    def __init__(self, transport: Any, seed: int) -> None:
        self.close = transport.close
        self._transport = transport
        self._up, self._down = FaultyLine(1e-3, seed), FaultyLine(1e-3, seed + 1)

    def write(self, data: bytes) -> None:
        self._transport.write(self._up(data))

    def read(self, timeout: float) -> bytes:
        return self._down(self._transport.read(timeout))


@dataclass
class Bench:
    """A bundle, its simulated board, and what it gives for some images."""

    way: str
    bundle: Bundle
    port: str
    images: np.ndarray
    right: Result
    other: OtherModel

    def open(self, **options: Any) -> Accelerator:
        return Accelerator.open(self.bundle.path, self.port, timeout=PATIENCE_S, **options)

    def disturb(self, board: Accelerator) -> None:
        """Cut the line, or reset the device, under the driver's feet."""
        transport = board._connection._transport
        if self.way in ("uart", "faulty"):
            getattr(transport, "_transport", transport)._socket.shutdown(socket.SHUT_RDWR)
        elif self.way == "axi":
            transport._server.ask("reset")
        else:
            transport._device._server.ask("reset")


@pytest.fixture(scope="module", params=WAYS)
def bench(request, tmp_path_factory):
    way = request.param
    network = dense_network(np.random.default_rng(3), [45, 16, 5], "uint", 4)
    plan = make_plan(network, goal="max" if way == "pcie" else "min", slots=SLOTS, **SITES[way])
    bundle = compile_bundle(network, plan, tmp_path_factory.mktemp(way) / "bundle")
    images = random_images(np.random.default_rng(4), network, COUNT)
    other = other_model(network, plan, images)
    patch = pytest.MonkeyPatch()
    if way == "faulty":
        opened = iter(range(10**6))
        patch.setattr(
            endpoint,
            "open_transport",
            lambda port, rate: FaultyTransport(open_transport(port, rate), next(opened)),
        )
    with simulated_board(bundle.path) as board:
        yield Bench(way, bundle, board.port, images, Executor(network).run(images), other)
    patch.undo()


def test_scores_labels_and_records_are_the_references(bench):
    with bench.open() as board:
        scores, labels = board.results(bench.images)
        np.testing.assert_array_equal(scores, bench.right.scores)
        np.testing.assert_array_equal(labels, bench.right.labels)
        records = list(board.stream(iter(bench.images)))
        assert [record.index for record in records] == list(range(COUNT))
        np.testing.assert_array_equal([record.scores for record in records], scores)
        assert [record.label for record in records] == list(labels)
        best, _ = board.top(bench.images, 3)
        assert (scores[np.arange(COUNT), best[:, 0]] == scores.max(axis=1)).all()
        assert board.scores(bench.images[:0]).shape == (0, 5)
        found = board.statistics
        assert found.images == 3 * COUNT and found.core_seconds > 0
        assert found.frames >= 3 * COUNT
        registers = board.registers()
        assert registers["magic"] == MAGIC
        assert registers["plan_hash"] == bench.bundle.manifest["plan_hash"]


def test_images_one_by_one(bench):
    with bench.open() as board:
        for k in range(5):
            assert board.classify(bench.images[k : k + 1])[0] == bench.right.labels[k]


def test_models_are_exchanged_and_found_again(bench):
    own = (bench.bundle.path / "weights.bin").read_bytes()
    told = []
    with bench.open(load="always", progress=lambda *at: told.append(at)) as board:
        assert told[-1] == (len(own), len(own))
        for load, right in ((bench.other.load, bench.other.result), (own, bench.right)) * 2:
            board.load_weights(load)
            np.testing.assert_array_equal(board.scores(bench.images), right.scores)

        def source():
            for index, image in enumerate(bench.images):
                if index == 25:
                    board.load_weights(bench.other.load)
                yield image

        found = np.array([record.scores for record in board.stream(source())])
        np.testing.assert_array_equal(found[:25], bench.right.scores[:25])
        np.testing.assert_array_equal(found[25:], bench.other.result.scores[25:])
    with bench.open(weights=bench.other.load, load="never") as board:
        np.testing.assert_array_equal(board.scores(bench.images), bench.other.result.scores)
    third = bytearray(own)
    third[0] ^= 1
    third[-4:] = crc32(bytes(third[:-4])).to_bytes(4, "little")
    with pytest.raises(errors.BundleMismatchError, match="open it with load='auto'"):
        bench.open(weights=bytes(third), load="never")


def test_wrong_images_and_weights_are_refused_and_change_nothing(bench, tmp_path):
    with bench.open() as board:
        with pytest.raises(errors.ImageError, match="Images must be"):
            board.classify(bench.images[:, :-1])
        damaged = bytearray(bench.other.load)
        damaged[5] ^= 1
        with pytest.raises(errors.ManifestError, match="CRC does not match"):
            board.load_weights(bytes(damaged))
        with pytest.raises(errors.WeightsError, match=r"takes \d+"):
            board.load_weights(bytes(4) + crc32(bytes(4)).to_bytes(4, "little"))
        np.testing.assert_array_equal(board.scores(bench.images[:5]), bench.right.scores[:5])


def test_bundle_of_another_plan_is_named(bench, tmp_path):
    network = dense_network(np.random.default_rng(3), [45, 8, 5], "uint", 4)
    plan = make_plan(network, goal="min", slots=SLOTS, **SITES[bench.way])
    foreign = compile_bundle(network, plan, tmp_path / "foreign")
    with pytest.raises(errors.BundleMismatchError, match="program the board with that bundle"):
        Accelerator.open(foreign.path, bench.port, timeout=PATIENCE_S)
    with bench.open() as board:
        np.testing.assert_array_equal(board.scores(bench.images[:5]), bench.right.scores[:5])


def test_stream_closed_early_and_source_that_fails_leave_nothing_behind(bench):
    with bench.open() as board:
        for moment in (1, 5, 22, 40):
            stream = board.stream(iter(bench.images))
            for _ in range(moment):
                next(stream)
            with pytest.raises(errors.AcceleratorError, match="A stream is open"):
                board.classify(bench.images[:1])
            stream.close()
            np.testing.assert_array_equal(board.scores(bench.images[-9:]), bench.right.scores[-9:])

        def interrupted():
            yield from bench.images[:20]
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(board.stream(interrupted()))
        np.testing.assert_array_equal(board.scores(bench.images[:9]), bench.right.scores[:9])


def test_device_lost_in_the_middle_is_found_again(bench):
    with bench.open() as board:
        for moment in (1, 12, 33):
            stream = board.stream(iter(bench.images))
            found = [next(stream).scores for _ in range(moment)]
            bench.disturb(board)
            found += [record.scores for record in stream]
            np.testing.assert_array_equal(found, bench.right.scores)


def test_next_program_starts_clean(bench):
    board = bench.open()
    stream = board.stream(iter(bench.images))
    next(stream)
    board.close()
    stream.close()
    with pytest.raises(errors.AcceleratorError, match="was closed"):
        board.classify(bench.images[:1])
    with bench.open() as board:
        np.testing.assert_array_equal(board.scores(bench.images), bench.right.scores)


def test_asynchronous_driver(bench):
    async def work():
        way = (bench.bundle.path, bench.port)
        async with AsyncAccelerator.open(*way, timeout=PATIENCE_S) as board:
            scores = await board.scores(bench.images[:20])
            records = [record async for record in board.stream(iter(bench.images[:20]))]
            return scores, np.array([record.scores for record in records])

    for found in asyncio.run(work()):
        np.testing.assert_array_equal(found, bench.right.scores[:20])
