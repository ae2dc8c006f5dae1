# SPDX-License-Identifier: BSD-2-Clause
"""The line that damages bytes: what each fault does, and where it says that it landed."""

import random

import pytest

from xnorforge.sim.line_faults import BETWEEN, FAULTS, PARTS, FaultyLine
from xnorforge.sw.link import Deframer, encode
from xnorforge.sw.protocol import Frame, Kind


def frames(count, seed=0):
    rng = random.Random(seed)
    return [
        Frame(Kind.IMAGE, rng.randrange(16), 7, 50 * k, rng.randbytes(rng.randrange(60)))
        for k in range(count)
    ]


def stream(count, seed=0):
    return b"".join(map(encode, frames(count, seed)))


def passed(line, data, seed=0):
    """Through the line in pieces of random size."""
    rng, out = random.Random(seed), b""
    while data:
        size = rng.randrange(1, 50)
        out += line(data[:size])
        data = data[size:]
    return out


def test_line_without_faults_changes_nothing():
    seen = []
    line = FaultyLine(0.0, 0, on_frame=seen.append)
    data = stream(50)
    assert passed(line, data) == data
    assert line.landings == [] and seen == frames(50)
    assert (line.byte_count, line.frame_count) == (len(data), 50)


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_spoils_two_frames_at_most(fault):
    data = stream(40)
    for seed in range(50):
        line = FaultyLine(1 / 200, seed, (fault,), single=True)
        line.arm()
        out = passed(line, data, seed)
        if not line.landings:
            continue
        assert out != data
        left = [frame for frame in Deframer().feed(out) if frame in frames(40)]
        assert len(left) >= 38
        assert line.log == {fault: 1}


CHANGES = {"flip": 0, "drop": -1, "insert": 1, "swap": 0}


@pytest.mark.parametrize("fault", CHANGES)
def test_landing_is_where_the_first_byte_changes(fault):
    data = stream(40)
    found = set()
    for seed in range(400):
        line = FaultyLine(1 / 700, seed, (fault,), single=True)
        line.arm()
        out = passed(line, data, seed)
        for landing in line.landings:
            assert len(out) == len(data) + CHANGES[fault]
            assert out[: landing.byte] == data[: landing.byte]
            found.add(landing.part)
            start = data.rfind(b"\0", 0, landing.byte) + 1
            assert landing.index == landing.byte - start
            assert landing.frame == data[: landing.byte].count(0)
            assert data[start : start + landing.size].index(0) == landing.size - 1
            assert encode(landing.content) == data[start : start + landing.size]
    assert found == set(PARTS) - ({"code"} if fault == "insert" else {BETWEEN})


def test_parts_of_a_frame():
    frame = Frame(Kind.IMAGE, 0, 7, 0, bytes(5))
    wire = encode(frame)
    parts = []
    for index in range(len(wire)):
        line = FaultyLine(1e9, 0, ("flip",), single=True)
        line(wire[:index])
        line.arm()
        line(wire[index:])
        parts.append(line.landings[0].part)
    header = ["code", "kind", "lease", "position", "position"]
    assert parts == [*header, *["payload"] * 5, *["crc"] * 4, "delimiter"]


def test_same_seed_same_damage():
    data = stream(200)
    one, two, other = (FaultyLine(1 / 100, seed) for seed in (5, 5, 6))
    assert passed(one, data) == passed(two, data) != passed(other, data)
    assert one.landings == two.landings and set(one.log) == set(FAULTS)


def test_single_faults_wait_to_be_armed():
    line = FaultyLine(1.0, 0, single=True)
    data = stream(5)
    assert line(data) == data
    line.arm()
    line(stream(200))
    line(stream(200))
    assert len(line.landings) == 1
    line.arm()
    line(stream(200))
    assert len(line.landings) == 2
