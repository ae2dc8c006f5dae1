# SPDX-License-Identifier: BSD-2-Clause
"""The board in lockstep, and faults on the line between the driver's connection and its Verilog."""

import numpy as np
import pytest

from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.errors import ToolError
from xnorforge.gen.planner import make_plan
from xnorforge.sim import link_faults
from xnorforge.sim.line_faults import BETWEEN, FAULTS
from xnorforge.sim.link_faults import DIRECTIONS, Block, Subject, run_block
from xnorforge.sim.lockstep import LockstepBoard, SimulatedSerial
from xnorforge.sim.random_networks import dense_network, random_images
from xnorforge.sw.link import Deframer, encode
from xnorforge.sw.protocol import MAGIC, Frame, Kind

pytestmark = pytest.mark.timeout(300)

READ = encode(Frame(Kind.READ, 3, 0, 0 | 1 << 8))
VALUES_BYTES = 14  # of a register: code, header, value, CRC, zero
BYTE_CYCLES = 40
CLOCK_HZ = 1e6


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    rng = np.random.default_rng(0)
    network = dense_network(rng, [192, 32, 10])
    plan = make_plan(network, board="icebreaker", fps=30_000, baud=57_600)
    bundle = compile_bundle(network, plan, tmp_path_factory.mktemp("bundle") / "tiny")
    return Subject.of(bundle, random_images(rng, network, 100))


@pytest.fixture
def board(subject):
    with LockstepBoard(subject.path, divisor=4) as running:
        yield running


def test_board_runs_as_long_as_it_is_told(board):
    assert board.run(1000) == b"" and board.cycles == 1000
    assert board.run(5 * BYTE_CYCLES, READ) == b""
    assert (board.cycles, board.bytes_in) == (1000 + 5 * BYTE_CYCLES, 5)
    assert board.waiting == len(READ) - 5
    back = board.run(1_000_000, until_bytes=VALUES_BYTES)
    assert len(back) == board.bytes_out == VALUES_BYTES
    assert board.cycles < 1000 + (len(READ) + VALUES_BYTES + 5) * BYTE_CYCLES
    (frame,) = Deframer().feed(back)
    assert (frame.kind, frame.epoch) == (Kind.VALUES, 3)
    assert int.from_bytes(frame.payload, "little") == MAGIC


def test_ended_board_is_an_error(board):
    board.stop()
    with pytest.raises(ToolError, match="lockstep ended"):
        board.run(1)


@pytest.mark.parametrize("packet_bytes", [None, 10])
def test_adapter_hands_over_when_its_timer_ends_or_a_packet_is_full(board, packet_bytes):
    port = SimulatedSerial(board, CLOCK_HZ, latency_s=0.016, packet_bytes=packet_bytes)
    port.write(READ)
    assert port.read(0.0) == b"" and port.clock() == 0.0
    first = port.read(1.0)
    if packet_bytes is None:
        assert (len(first), board.cycles) == (VALUES_BYTES, 16_000)
        return
    assert len(first) == packet_bytes
    assert board.cycles < (len(READ) + packet_bytes + 4) * BYTE_CYCLES
    full_at = board.cycles
    assert len(port.read(1.0)) == VALUES_BYTES - packet_bytes
    assert board.cycles == full_at + 16_000


def test_closed_port_takes_back_what_is_not_on_the_line(board):
    port = SimulatedSerial(board, CLOCK_HZ)
    port.write(READ * 100)
    assert port.read(5 * BYTE_CYCLES / CLOCK_HZ) == b""
    port.close()
    assert port.read(0.1) == b"" and 5 <= board.bytes_in < 10


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_changes_or_loses_an_answer(subject, direction, fault):
    outcome = run_block(subject, Block(direction, fault, seed=1, count=25))
    assert (outcome.wrong, outcome.failure) == (0, "")
    landings = outcome.landings[direction]
    assert len(landings) == len(outcome.frames) == 25
    assert sum(landing.part != BETWEEN for landing in landings) > 20
    assert outcome.images > 25
    # Simulated time: the same on any machine. At most 40 images are on their way, a frame each.
    assert max(outcome.frames) <= 90 and max(outcome.seconds) < 0.5


def test_all_faults_at_once(subject):
    outcome = run_block(subject, Block("both", "all", seed=2, count=150))
    assert (outcome.wrong, outcome.failure) == (0, "")
    assert outcome.images > 100
    assert {x.fault for found in outcome.landings.values() for x in found} == set(FAULTS)


def test_same_block_same_outcome(subject):
    block = Block("down", "drop", seed=3, count=5)
    one, two = (run_block(subject, block).to_json() for _ in range(2))
    assert one == two


def test_wrong_record_is_counted(subject):
    wrong = Subject(subject.path, subject.packed, (subject.records[0],) * len(subject.records))
    outcome = run_block(wrong, Block("up", "flip", seed=1, count=1))
    assert outcome.wrong > 0


def test_line_that_lets_nothing_pass_is_a_failure(subject, monkeypatch):
    monkeypatch.setattr(link_faults, "_STORM_GAP_BYTES", 3)
    outcome = run_block(subject, Block("both", "all", seed=1, count=10**6))
    assert "Error: " in outcome.failure and outcome.wrong == 0
