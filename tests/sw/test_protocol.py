# SPDX-License-Identifier: BSD-2-Clause
"""Frames, and the host's link against a board in plain Python over a line that damages bytes."""

import random
import zlib
from collections import deque

import pytest
from cobs import cobs
from hypothesis import given
from hypothesis import strategies as st

from xnorforge.sim.device_model import Device, Shape
from xnorforge.sim.line_faults import FAULTS, FaultyLine
from xnorforge.sw import protocol
from xnorforge.sw.errors import DeviceFaultError
from xnorforge.sw.link import Deframer, HostLink, encode
from xnorforge.sw.protocol import Frame, Kind

FRAMES = st.builds(
    Frame,
    kind=st.sampled_from(list(Kind)),
    epoch=st.integers(0, 15),
    lease=st.integers(0, 255),
    position=st.integers(0, 0xFFFF),
    payload=st.binary(max_size=protocol.MAX_PAYLOAD_BYTES),
)


def record(image: bytes, digest: int) -> bytes:
    """A core whose scores depend on every bit of the image and of the weights."""
    crc = zlib.crc32(image + digest.to_bytes(4, "little")).to_bytes(4, "little")
    return crc + crc[:2] + bytes([crc[0] % 3, 0])


@given(FRAMES)
def test_frame_round_trip(frame):
    assert Frame.from_bytes(frame.to_bytes()) == frame
    line = encode(frame)
    assert line.count(0) == 1 and line.endswith(b"\0") and len(line) <= 256
    assert Deframer().feed(line) == [frame]


@given(FRAMES, st.data())
def test_damaged_frame_is_refused(frame, data):
    content = bytearray(frame.to_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    assert Frame.from_bytes(bytes(content)) is None


def test_example_of_the_document():
    # The bytes of docs/link.md.
    frame = Frame(Kind.IMAGE, 0, 0x2A, 0, bytes.fromhex("ff008001"))
    assert frame.to_bytes().hex(" ") == "20 2a 00 00 ff 00 80 01 c1 75 18 65"
    assert encode(frame).hex(" ") == "03 20 2a 01 02 ff 07 80 01 c1 75 18 65 00"


@pytest.mark.parametrize("content", [b"", b"\0" * 4, b"\0\0\0\0\0\0\0", bytes(255)])
def test_content_of_wrong_length_is_no_frame(content):
    assert Frame.from_bytes(content) is None


def test_unknown_kind_is_no_frame():
    body = bytes([0xE0, 1, 0, 0])
    assert Frame.from_bytes(body + protocol.crc32(body).to_bytes(4, "little")) is None


def test_too_long_payload_is_refused():
    with pytest.raises(ValueError, match="at most 246 bytes, not 247"):
        Frame(Kind.IMAGE, 0, 1, 0, bytes(247)).to_bytes()


@given(st.binary(max_size=300), FRAMES)
def test_next_frame_is_read_after_any_garbage(garbage, frame):
    deframer = Deframer()
    deframer.feed(garbage)
    assert deframer.feed(b"\0" + encode(frame))[-1] == frame


def test_deframer_forgets_endless_garbage():
    deframer = Deframer()
    for _ in range(100):
        deframer.feed(b"\x55" * 1000)
    assert len(deframer._rest) <= 512


def test_host_bytes_are_cobs():
    frame = Frame(Kind.OPEN, 1, 2, 0)
    assert cobs.decode(encode(frame)[:-1]) == frame.to_bytes()


class Bench:
    """Link and board in simulated time: 1 Mbaud, and bytes reach the host late."""

    def __init__(self, shape=None, *, rate=0.0, seed=0, slots=None, kinds=FAULTS, late_s=0.016):
        self.device = Device(record, shape or Shape(), slots=slots)
        self.link = HostLink(seed=seed)
        told = self.device.shape
        self.link.configure(self.device.record_bytes, told.buffer_bytes, told.window_bytes)
        self.up, self.down = FaultyLine(rate, seed, kinds), FaultyLine(rate, seed + 1, kinds)
        self.now = 0.0
        self.idle_s = 0.0
        self.late_s = late_s
        self.late = deque()
        self.link.open(self.now)

    def step(self):
        if self.link.stranded:
            self.link.open(self.now)
        out = self.link.transmit(self.now, 512)
        self.now += max(len(out) * 1e-5, 1e-3)
        self.idle_s += max(0.0, 1e-3 - len(out) * 1e-5)
        back = self.device.feed(self.up(out))
        if self.device.slots is not None:
            back += self.device.step()
        if back:
            self.late.append((self.now + self.late_s, self.down(back)))
        while self.late and self.late[0][0] <= self.now:
            self.link.receive(self.late.popleft()[1], self.now)

    def run(self, images, limit_s=600.0):
        todo, got = deque(images), []
        while len(got) < len(images):
            while todo and self.link.unsent_bytes < 4096:
                self.link.submit(todo.popleft())
            self.step()
            got += self.link.records
            self.link.records.clear()
            assert self.now < limit_s, f"{len(got)} of {len(images)} after {limit_s} s"
        return got


def images(count, size, seed=0):
    rng = random.Random(seed)
    return [rng.randbytes(size) for _ in range(count)]


@pytest.mark.parametrize("size", [1, 98, 246, 784, 3072])
def test_clean_line_keeps_busy_although_the_host_hears_late(size):
    bench = Bench(Shape(image_bytes=size))
    sent = images(max(100, 200_000 // max(size, 98)), size)
    assert bench.run(sent) == [record(image, 0) for image in sent]
    counts = bench.link.counts
    assert counts.payload_resent == 0 and counts.leases == 1 and counts.went_back == 0
    if size >= 98:
        total = sum(map(len, sent))
        assert total / (bench.now * 1e5) > 0.88, "share of line time that is image payload"


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_repaired(fault):
    sent = images(400, 98, seed=1)
    bench = Bench(Shape(image_bytes=98), rate=1e-3, seed=7, kinds=(fault,))
    assert bench.run(sent) == [record(image, 0) for image in sent]
    assert bench.up.log[fault] > 30 and bench.down.log[fault] > 5


@pytest.mark.parametrize("seed", range(6))
def test_all_faults_on_a_bad_line(seed):
    size = (3, 8, 98, 98, 300, 784)[seed]
    sent = images(150, size, seed)
    bench = Bench(Shape(image_bytes=size), rate=3e-3, seed=100 + seed, slots=(None, 1)[seed % 2])
    assert bench.run(sent) == [record(image, 0) for image in sent]


def test_slow_core_refuses_what_does_not_fit_and_loses_nothing():
    sent = images(500, 98)
    bench = Bench(Shape(image_bytes=98), slots=1)
    assert bench.run(sent) == [record(image, 0) for image in sent]
    assert bench.device.overruns > 0
    assert bench.link.counts.leases == 1


def without_results(count):
    """A line that swallows the first `count` RESULT frames."""
    lost = []

    def line(data):
        kept = []
        for part in data.split(b"\0"):
            frame = Frame.from_bytes(cobs.decode(part)) if part else None
            if frame and frame.kind is Kind.RESULT and len(lost) < count:
                lost.append(frame)
            else:
                kept.append(part)
        return b"\0".join(kept)

    return line, lost


def test_lost_results_are_computed_again():
    bench = Bench()
    bench.down, lost = without_results(3)
    sent = images(20, 8)
    assert bench.run(sent) == [record(image, 0) for image in sent]
    assert len(lost) == 3 and bench.link.counts.leases > 1


def test_lost_last_result_is_noticed():
    bench = Bench()
    sent = images(5, 8)
    bench.run(sent[:4])
    bench.down, lost = without_results(1)
    assert bench.run(sent[4:]) == [record(sent[4], 0)]
    assert len(lost) == 1


def test_device_reset_strands_the_lease():
    bench = Bench(Shape(image_bytes=98))
    sent = images(60, 98)
    for image in sent:
        bench.link.submit(image)
    got = []
    while len(got) < 10:
        bench.step()
        got += bench.link.records
        bench.link.records.clear()
    bench.device.power_cycle()
    while len(got) < 60:
        bench.step()
        got += bench.link.records
        bench.link.records.clear()
        assert bench.now < 60
    assert got == [record(image, 0) for image in sent]
    assert bench.link.counts.leases == 2


def test_positions_wrap():
    bench = Bench(Shape(image_bytes=784))
    sent = images(300, 784)  # 235,200 bytes: three turns of 16 bits
    assert bench.run(sent) == [record(image, 0) for image in sent]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate", [0.0, 3e-3])
def test_images_of_two_models_take_turns(seed, rate):
    size = (3, 98, 300, 98)[seed]
    sent = images(120, size, seed)
    bench = Bench(Shape(image_bytes=size), rate=rate, seed=seed, slots=(None, 1)[seed % 2])
    device, link = bench.device, bench.link
    device.models, device.second_digest, device.weights_digest = 2, 22, 11
    link.slots = {11: 0, 22: 1}
    rng, got, models, todo = random.Random(seed), [], [], deque(sent)
    while len(got) < len(sent):
        while todo and link.unsent_bytes < 4096:
            if not models or rng.random() < 0.1:
                link.model = rng.choice([11, 22])
            models.append(link.model)
            link.submit(todo.popleft())
        bench.step()
        got += link.records
        link.records.clear()
        assert bench.now < 600
    assert set(models) == {11, 22}
    assert got == [record(*pair) for pair in zip(sent, models, strict=True)]


@pytest.mark.parametrize("rate", [0.0, 2e-3])
def test_weight_load_survives_faults(rate):
    payload = random.Random(3).randbytes(20_000)
    load = payload + protocol.crc32(payload).to_bytes(4, "little")
    bench = Bench(rate=rate, seed=5)
    bench.link.open(bench.now, load=load)
    while not bench.link.delivered:
        if bench.link.stranded:
            bench.link.open(bench.now, load=load)
        bench.step()
        assert bench.now < 200
    assert bench.device.valid
    assert bench.device.weights_digest == protocol.crc32(payload)


def test_surplus_result_is_an_error():
    bench = Bench()
    bench.run(images(3, 8))
    device = bench.device
    extra = Frame(Kind.RESULT, 0, device.lease, device.sent, bytes(8))
    with pytest.raises(DeviceFaultError, match="more results"):
        bench.link.receive(encode(extra), bench.now)


def test_registers_are_read_without_a_lease():
    device = Device(record)
    link = HostLink()
    link.request(0, protocol.REGISTER_COUNT, 0.0)
    link.receive(device.feed(link.transmit(0.0)), 0.0)
    identity = protocol.Identity(link.values)
    assert identity[protocol.Register.MAGIC] == protocol.MAGIC
    assert identity[protocol.Register.PLAN_HASH] == device.shape.plan_hash
    assert (identity.classes, identity.score_bytes, identity.slots) == (3, 2, 1)
    assert (identity.digest(0), identity.slot_of(0), identity.slot_of(1)) == (0, 0, None)
    assert (identity.buffer_bytes, identity.window_bytes) == (1024, 4000)


def test_own_echo_is_not_taken_for_an_answer():
    link = HostLink()
    link.request(0, 1, 0.0)
    link.receive(link.transmit(0.0), 0.0)
    assert link.values is None
