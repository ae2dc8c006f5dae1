# SPDX-License-Identifier: BSD-2-Clause
"""The shell's circuits against the host's own link, over a line that damages bytes."""

import random
from collections import deque

import pytest
from amaranth import Module
from amaranth.back import rtlil
from amaranth.sim import Simulator
from cobs import cobs

from xnorforge.hw.link_shell import LinkShell, LinkShellConfig
from xnorforge.hw.uart import line_bits
from xnorforge.hw.uart_shell import UartShell
from xnorforge.sim.line_faults import FaultyLine
from xnorforge.sw.link import Deframer, HostLink, encode
from xnorforge.sw.protocol import REGISTER_COUNT, Frame, Identity, Kind, Register, crc32

CYCLE_S = 4e-5  # slow, so that the host's waits are short in cycles
CORE_WORDS = {Register.MAGIC: 0x11223344, Register.STATUS: 1, Register.FRAMES: 0xFFEEDDCC}


class FakeCore:
    """Takes images, gives a score of `score_bits` a class; random gaps; records loads."""

    def __init__(self, shell, seed=0, *, stall=0.3, slots=2):
        self.shell = shell
        self.config = shell.shell
        self.random = random.Random(seed)
        self.stall = stall
        self.slots = slots
        self.load = []  # (byte, first)
        self.flushes = 0

    def reference(self, image):
        """Scores and label of an image."""
        bits, word = self.config.score_bits, crc32(image)
        half = 1 << (bits - 1)
        scores = [(word * (k + 3) >> 3) % (2 * half) - half for k in range(self.config.classes)]
        return scores, word & 0xFFFF

    def record(self, image):
        scores, label = self.reference(image)
        size = self.config.words[Register.OUTPUT] >> 16
        data = b"".join(score.to_bytes(size, "little", signed=True) for score in scores)
        return data + label.to_bytes(2, "little")

    async def process(self, ctx):
        """Every port of the core, cycle by cycle."""
        shell = self.shell
        image, beats = bytearray(), deque()
        image_ready = result_valid = False
        address = 0
        ctx.set(shell.config.ready, 1)
        trigger = ctx.tick().sample(
            shell.image.valid,
            shell.image.payload,
            shell.result.ready,
            shell.config.valid,
            shell.config.payload,
            shell.register_address,
            shell.flush,
        )
        async for _, _, valid, byte, taken, load_valid, load_byte, wanted, flush in trigger:
            if image_ready and valid:
                image.append(byte)
            if load_valid:
                self.load.append((int(load_byte.data), int(load_byte.first)))
            if result_valid and taken:
                beats.popleft()
                result_valid = False
            if flush:
                self.flushes += 1
                image.clear()
                beats.clear()
                result_valid = False
            if len(image) == self.config.image_bytes:
                scores, label = self.reference(bytes(image))
                image.clear()
                for k, score in enumerate(scores):
                    last = k == len(scores) - 1
                    beats.append({"score": score, "label": label if last else 0, "last": last})
            room = len(beats) <= (self.slots - 1) * self.config.classes
            image_ready = room and self.random.random() >= self.stall
            ctx.set(shell.image.ready, image_ready)
            if beats and not result_valid and self.random.random() >= self.stall:
                result_valid = True
                ctx.set(shell.result.payload, beats[0])
            ctx.set(shell.result.valid, result_valid)
            ctx.set(shell.register_data, CORE_WORDS.get(address, 0))
            address = wanted
            ctx.set(shell.register_data, CORE_WORDS.get(address, 0))


class Line:
    """Bytes to and from the shell, with faults; `exchange` runs the simulation for a while."""

    def __init__(self, dut, core, host, *, up=None, down=None):
        self.dut, self.core, self.host = dut, core, host
        self.up = up or (lambda data: data)
        self.down = down or (lambda data: data)
        self.cycle = 0
        self.sending = deque()
        self.limit = 60_000

    @property
    def now(self):
        return self.cycle * CYCLE_S

    def pull(self):
        """The next byte to send, from the host when nothing is left."""
        if not self.sending:
            if self.host.stranded:
                self.host.open(self.now)
            self.sending += self.up(self.host.transmit(self.now, 300))
        return self.sending.popleft() if self.sending else None

    def push(self, byte):
        self.host.receive(self.down(bytes([byte])), self.now)

    def simulate(self, done):
        """Run until `done()`; fails after `limit` cycles."""
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_process(self.core.process)

        async def bench(ctx):
            await self.carry(ctx, done)

        simulator.add_testbench(bench)
        simulator.run()
        assert done(), f"not done after {self.cycle} cycles"


class ByteLine(Line):
    """For LinkShell: a byte each way every 12 cycles."""

    async def carry(self, ctx, done):
        dut = self.dut
        while not done() and self.cycle < self.limit:
            byte = self.pull()
            if byte is not None:
                ctx.set(dut.i.payload, byte)
                ctx.set(dut.i.valid, 1)
            ctx.set(dut.o.ready, 1)
            _, _, valid, back = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            ctx.set(dut.i.valid, 0)
            ctx.set(dut.o.ready, 0)
            await ctx.tick().repeat(11)
            self.cycle += 12
            if valid:
                self.push(back)


class PinLine(Line):
    """For UartShell: the pins, at 4 clocks a bit."""

    async def carry(self, ctx, done):
        dut = self.dut
        ctx.set(dut.divisor, 4)
        ctx.set(dut.rx, 1)
        levels = deque()
        bits = None  # samples of the byte being received, with the clocks to the next one
        while not done() and self.cycle < self.limit:
            if not levels and (byte := self.pull()) is not None:
                levels += [level for level in line_bits(byte) for _ in range(4)]
            ctx.set(dut.rx, levels.popleft() if levels else 1)
            _, _, tx = await ctx.tick().sample(dut.tx)
            self.cycle += 1
            if bits is None:
                if not tx:
                    bits, wait = [], 5
            elif wait:
                wait -= 1
            else:
                bits.append(tx)
                wait = 3
                if len(bits) == 9:
                    assert bits[8], "no stop bit"
                    self.push(sum(bit << k for k, bit in enumerate(bits[:8])))
                    bits = None


def make(make_shell, line, *, image_bytes=5, classes=3, score_bits=10, seed=0, rate=0.0, **core):
    dut = make_shell(config=LinkShellConfig(image_bytes, classes, score_bits, 512))
    core = FakeCore(dut, seed, **core)
    host = HostLink(seed=seed)
    host.configure(len(core.record(bytes(image_bytes))), 512, 4000)
    up, down = FaultyLine(rate, seed), Flipper(rate, seed + 1)
    return line(dut, core, host, up=up, down=down)


class Flipper:
    """Damages single bytes as they come: flips, drops, doubles."""

    def __init__(self, rate, seed):
        self.rate, self.random, self.count = rate, random.Random(seed), 0

    def __call__(self, data):
        if self.random.random() >= self.rate:
            return data
        self.count += 1
        return self.random.choice((bytes([data[0] ^ 1 << self.random.randrange(8)]), b"", data * 2))


def classify(line, count):
    """Send random images; every record must be the core's."""
    rng = random.Random(9)
    images = [rng.randbytes(line.core.config.image_bytes) for _ in range(count)]
    line.host.open(0.0)
    for image in images:
        line.host.submit(image)
    line.simulate(lambda: len(line.host.records) >= count)
    assert list(line.host.records) == [line.core.record(image) for image in images]


@pytest.mark.parametrize(
    ("image_bytes", "classes", "score_bits"), [(1, 2, 1), (7, 3, 8), (300, 10, 9), (9, 60, 17)]
)
def test_records_equal_the_core(image_bytes, classes, score_bits):
    line = make(
        LinkShell, ByteLine, image_bytes=image_bytes, classes=classes, score_bits=score_bits
    )
    classify(line, {300: 3, 9: 3}.get(image_bytes, 12))
    assert line.host.counts.leases == 1


@pytest.mark.parametrize(
    "seed", [0, 1, 2, 3, *(pytest.param(k, marks=pytest.mark.slow) for k in range(4, 60))]
)
def test_faults_never_change_a_record(seed):
    size, count = ((5, 24), (40, 8), (98, 4), (200, 2))[seed % 4]
    line = make(LinkShell, ByteLine, image_bytes=size, seed=seed, rate=4e-3)
    line.up(bytes(230 * seed % 997))  # somewhere else in its faults
    line.limit = 1_000_000  # many of the host's longest waits
    before = sum(line.up.log.values())
    classify(line, count)
    if seed < 4:
        assert sum(line.up.log.values()) - before + line.down.count > 0


def test_slow_core_refuses_and_stalls_but_loses_nothing():
    line = make(LinkShell, ByteLine, image_bytes=98, stall=0.96, slots=1)
    classify(line, 9)
    assert line.host.counts.leases == 1 and line.host.counts.went_back > 0


@pytest.mark.parametrize("rate", [0.0, 4e-3])
def test_pins_at_four_clocks_a_bit(rate):
    line = make(UartShell, PinLine, rate=rate, seed=3)
    classify(line, 8)
    assert line.core.flushes >= 1


def test_weights_arrive_in_order_with_first_marked_once():
    line = make(LinkShell, ByteLine, seed=2, rate=1e-3)
    load = random.Random(1).randbytes(700)
    line.host.open(0.0, load=load)
    line.simulate(lambda: line.host.delivered)
    begins = [place for place, (_, first) in enumerate(line.core.load) if first]
    assert bytes(byte for byte, _ in line.core.load[begins[-1] :]) == load
    if line.host.counts.leases == 1:
        assert begins == [0]


def test_images_after_weights_in_a_new_lease():
    line = make(LinkShell, ByteLine)
    line.host.open(0.0, load=b"weights")
    line.simulate(lambda: line.host.delivered)
    assert line.core.load == [(byte, byte == ord("w")) for byte in b"weights"]
    classify(line, 3)


def test_registers():
    line = make(LinkShell, ByteLine)
    line.host.request(0, REGISTER_COUNT, 0.0)
    line.simulate(lambda: line.host.values is not None)
    identity = Identity(line.host.values)
    for register in Register:
        wanted = CORE_WORDS.get(register, 0) | line.core.config.words.get(register, 0)
        assert identity[register] == wanted, register


def answers_to(data, frames=1, core=None):
    """Frames a shell sends for raw bytes, and its core."""
    line = make(LinkShell, ByteLine)
    found = []
    deframer = Deframer()
    line.sending += data
    line.push = lambda byte: found.extend(deframer.feed(bytes([byte])))
    line.simulate(lambda: len(found) >= frames)
    assert deframer.bad == 0
    return found, line


OPEN = encode(Frame(Kind.OPEN, 3, 42, 0))


def image_at(position, payload, *, lease=42, epoch=3):
    return encode(Frame(Kind.IMAGE, epoch, lease, position, payload))


def test_open_is_acknowledged_and_flushes_once():
    found, line = answers_to(OPEN + OPEN, 2)
    assert found == [Frame(Kind.ACK, 3, 42, 0, bytes(4))] * 2
    assert line.core.flushes == 1


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (image_at(1, b"ab"), Kind.NAK),
        (image_at(0, b"ab", lease=41), Kind.NAK),
        (image_at(0x8000, b""), Kind.NAK),
        (image_at(0, b""), Kind.ACK),
    ],
)
def test_frame_that_is_not_next_is_refused(wrong, kind):
    found, _ = answers_to(OPEN + wrong + bytes(600), 2)
    assert found[-1] == Frame(kind, 3, 42, 0, bytes(4))


@pytest.mark.parametrize("place", range(13))
def test_no_byte_of_a_damaged_frame_reaches_the_core(place):
    content = bytearray(Frame(Kind.IMAGE, 1, 42, 0, b"image").to_bytes())
    content[place] ^= 0x10
    garbage = cobs.encode(bytes(content)) + b"\0"
    good = image_at(0, b"right", epoch=5)
    found, line = answers_to(OPEN + garbage + good, 3)
    result = next(frame for frame in found if frame.kind is Kind.RESULT)
    assert result.payload == line.core.record(b"right")
    assert found[1].kind is Kind.ACK and found[1].position == 5


def test_lease_begun_anew_drops_half_an_image_and_results():
    again = encode(Frame(Kind.OPEN, 0, 43, 0))
    data = OPEN + image_at(0, b"abcdefgh") + again
    data += encode(Frame(Kind.IMAGE, 0, 43, 0, b"12345"))
    line = make(LinkShell, ByteLine, stall=0.9)
    found = []
    deframer = Deframer()
    line.sending += data
    line.push = lambda byte: found.extend(deframer.feed(bytes([byte])))
    line.simulate(lambda: any(f.kind is Kind.RESULT and f.lease == 43 for f in found))
    results = [f for f in found if f.kind is Kind.RESULT and f.lease == 43]
    assert results[0].position == 0
    assert results[0].payload == line.core.record(b"12345")
    assert line.core.flushes == 2


def test_error_counters():
    data = OPEN + b"garbage\0" + image_at(7, b"x") + encode(Frame(Kind.READ, 9, 0, 19 | 1 << 8))
    found, _ = answers_to(data, 3)
    assert found[-1] == Frame(Kind.VALUES, 9, 42, 19 | 1 << 8, bytes([1, 0, 1, 0]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 3, 8), "image_bytes must be an integer from 1 to 4294967295, not 0"),
        ((5, 0, 8), "classes must be"),
        ((5, 3, 33), "score_bits must be an integer from 1 to 32, not 33"),
        ((5, 3, 8, 1000), "buffer_bytes must be a power of two, not 1000"),
        ((5, 3, 8, 512, 30000), "window_bytes must be an integer from 512 to 28672, not 30000"),
    ],
)
def test_config_is_checked(values, message):
    with pytest.raises(ValueError, match=message):
        LinkShellConfig(*values)


@pytest.mark.parametrize("make_shell", [UartShell, LinkShell])
def test_converts(make_shell):
    top = Module()
    top.submodules.dut = make_shell(config=LinkShellConfig(98, 10, 8))
    assert rtlil.convert(top, ports=[])
