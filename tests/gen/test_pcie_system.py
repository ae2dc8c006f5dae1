# SPDX-License-Identifier: BSD-2-Clause
"""A core between DMA streams, simulated with both clocks: registers, loads, images, leases."""

import dataclasses
import random
from collections import deque
from functools import partial

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from xnorforge.gen import core_instance, pcie
from xnorforge.gen.assembly import core_parts, weights_load
from xnorforge.gen.core import Core
from xnorforge.gen.pcie import PCIE, PcieSystem
from xnorforge.gen.planner import make_plan
from xnorforge.gen.verilog import core_verilog, to_verilog
from xnorforge.hw.dma_sender import DmaSender
from xnorforge.sim.axi_run import bus_images
from xnorforge.sim.bench import ProtocolError
from xnorforge.sim.other_model import other_model
from xnorforge.sim.random_networks import dense_network, random_images
from xnorforge.sim.reference import Executor
from xnorforge.sim.verilator import lint
from xnorforge.sw.blocks import (
    BEAT_BYTES,
    BLOCK_BEATS,
    BLOCK_BYTES,
    PAYLOAD_BYTES,
    BlockKind,
    BlockRegister,
    Trailer,
    header,
    number,
)
from xnorforge.sw.protocol import MAGIC, AxiRegister, Control, Register

OKAY, SLVERR = 0, 2
BRIDGE = 4096
BUS_PERIOD = 8
CLOCKS = {"slower core": 21, "faster core": 5.7}


def planned(slots=1, beat_bytes=16):
    network = dense_network(np.random.default_rng(1), [300, 9, 3], "bit", 1)
    plan = make_plan(network, device="ecp5-25f", goal="max", link="axi", slots=slots)
    return network, dataclasses.replace(plan, beat_bytes=beat_bytes, bus_clock_hz=125e6)


@pytest.fixture
def build(monkeypatch):
    """Makes a system whose core is a part of it, as an instance cannot be simulated."""

    def build(network, plan):
        parts = core_parts(network, plan)

        def instance(name, **ports):
            assert name == core_instance.CORE
            m = Module()
            bits = plan.lanes * network.input.value.bits
            m.submodules.core = core = Core(parts=parts, image_bits=bits, plan_hash=77)
            for port, value in ports.items():
                way, _, member = port.partition("_")
                if member not in ("clk", "rst"):
                    own = getattr(core, member)
                    m.d.comb += own.eq(value) if way == "i" else value.eq(own)
            return m

        monkeypatch.setattr(core_instance, "Instance", instance)
        monkeypatch.setattr(pcie, "DmaSender", partial(DmaSender, patience=200))  # to be quick
        return PcieSystem(network, plan, parts)

    return build


class Card:
    """A system, its clocks, an endless DMA each way, and a host's side of AXI4-Lite.

    blocks: what the DMA reads, in order; zeros where there is nothing, one block after the other,
    as of a ring that is not written. found: (trailer, words) of all blocks that came.
    """

    def __init__(self, system, core_period, seed):
        self.system = system
        self.rng = random.Random(seed)
        self.blocks, self.found = deque(), []
        self.awake = False  # the reset is over
        self.simulator = Simulator(system)
        for clock, period in ((system.clk, BUS_PERIOD), (system.core_clk, core_period)):
            self.simulator.add_testbench(self.clock(clock, period), background=True)
        self.simulator.add_testbench(self.reader, background=True)
        self.simulator.add_testbench(self.writer, background=True)

    def clock(self, signal, period):
        async def process(ctx):
            while True:
                for level in (0, 1):
                    ctx.set(signal, level)
                    await ctx.delay(period * 0.5e-9)

        return process

    def run(self, story):
        async def bench(ctx):
            self.ctx = ctx
            for cycle in range(40):
                ctx.set(self.system.rst, cycle < 10)
                await ctx.tick("bus")
            self.awake = True
            await story(self)

        self.simulator.add_testbench(bench)
        self.simulator.run()

    async def tick(self, count=1):
        await self.ctx.tick("bus").repeat(count)

    # --- DMA

    async def reader(self, ctx):
        system = self.system
        while not self.awake:
            await ctx.tick("bus")
        while True:
            data = self.blocks.popleft() if self.blocks else bytes(BLOCK_BYTES)
            for at in range(0, BLOCK_BYTES, BEAT_BYTES):
                while self.rng.random() < 0.1:
                    await ctx.tick("bus")
                ctx.set(system.dma_reader_tdata, int.from_bytes(data[at : at + 16], "little"))
                ctx.set(system.dma_reader_tvalid, 1)
                ready = False
                while not ready:
                    *_, ready = await ctx.tick("bus").sample(system.dma_reader_tready)
                ctx.set(system.dma_reader_tvalid, 0)

    async def writer(self, ctx):
        system = self.system
        while not self.awake:
            await ctx.tick("bus")
        while True:
            data = b""
            while len(data) < BLOCK_BYTES:
                ready = self.rng.random() < 0.6
                ctx.set(system.dma_writer_tready, ready)
                _, _, valid, beat, marks = await ctx.tick("bus").sample(
                    system.dma_writer_tvalid,
                    system.dma_writer_tdata,
                    system.dma_writer_tlast | system.dma_writer_tuser,
                )
                assert not marks
                if valid and ready:
                    data += beat.to_bytes(16, "little")
            trailer = Trailer.from_bytes(data[-16:])
            assert trailer is not None and not any(data[4 * trailer.words : -16])
            self.found.append((trailer, np.frombuffer(data[: 4 * trailer.words], "<i4")))

    # --- registers

    async def write(self, address, data):
        """The response code."""
        await self.channel("aw", addr=address)
        await self.channel("w", data=data, strb=15)
        return (await self.answer("b", "resp"))[0]

    async def read(self, address):
        """(word, response code)."""
        await self.channel("ar", addr=address)
        return await self.answer("r", "data", "resp")

    async def channel(self, channel, **fields):
        ctx, system = self.ctx, self.system
        for name, value in fields.items():
            ctx.set(getattr(system, f"s_axi_{channel}{name}"), value)
        ctx.set(getattr(system, f"s_axi_{channel}valid"), 1)
        await ctx.tick("bus").until(getattr(system, f"s_axi_{channel}ready"))
        ctx.set(getattr(system, f"s_axi_{channel}valid"), 0)

    async def answer(self, channel, *names):
        ctx, system = self.ctx, self.system
        ctx.set(getattr(system, f"s_axi_{channel}ready"), 1)
        for _ in range(2_000):
            valid, *values = (
                await ctx.tick("bus").sample(
                    getattr(system, f"s_axi_{channel}valid"),
                    *(getattr(system, f"s_axi_{channel}{name}") for name in names),
                )
            )[2:]
            if valid:
                ctx.set(getattr(system, f"s_axi_{channel}ready"), 0)
                return tuple(values)
        raise ProtocolError(f"no answer on {channel}")

    async def bridge(self, register, word=None):
        """Write, or read, a register of the bridge."""
        address = BRIDGE + 4 * register
        if word is not None:
            assert await self.write(address, word) == OKAY
            return None
        word, code = await self.read(address)
        assert code == OKAY
        return word

    # --- what a driver does

    async def start(self):
        self.ctx.set(self.system.dma_reader_enable, 1)
        self.ctx.set(self.system.dma_writer_enable, 1)
        await self.tick()
        await self.bridge(BlockRegister.CREDIT, 1000)

    async def begin(self, epoch):
        """A lease: nothing old comes in any more, then what is inside is dropped."""
        self.epoch, self.sent = epoch, 0
        while len(self.blocks) > 2:
            self.blocks.pop()
        await self.bridge(BlockRegister.LEASE, epoch)
        for bit in (Control.FLUSH, Control.RELOAD):  # weights may arrive until the flush is over
            assert await self.write(4 * AxiRegister.CONTROL, bit) == OKAY

    async def send(self, kind, data, slot=0):
        """Blocks of a payload, some behind one that is not for the card."""
        size = self.rng.choice([PAYLOAD_BYTES, 64 * BEAT_BYTES])
        for at in range(0, len(data), size):
            part = data[at : at + size]
            stale = [number(self.sent, self.epoch - 1)][: self.rng.randrange(2)]
            for named in (*stale, number(self.sent, self.epoch)):
                head = header(named, kind, slot, len(part))
                self.blocks.append((head + part).ljust(BLOCK_BYTES, b"\xa5"))
            self.sent += 1
        await self.bridge(BlockRegister.SENT, self.sent)

    async def results(self, count, classes):
        """Scores and labels of so many packets of this lease."""
        words = []
        for _ in range(300):
            words = [w for trailer, w in self.found if trailer.number >> 24 == self.epoch]
            words = np.concatenate([*words, np.zeros(0, np.int32)])
            if len(words) >= count * (classes + 1):
                break
            await self.tick(100)
        packets = words.reshape(-1, classes + 1)
        assert len(packets) == count
        return packets[:, :-1], packets[:, -1]


async def check(card, images, expected):
    scores, labels = await card.results(len(images), expected.scores.shape[1])
    assert np.array_equal(scores, expected.scores) and np.array_equal(labels, expected.labels)


@pytest.mark.parametrize(
    "slots, clocks, beat_bytes", [(1, "slower core", 16), (2, "faster core", 4)]
)
def test_images_and_loads_come_in_blocks_and_leases_part_them(build, slots, clocks, beat_bytes):
    network, plan = planned(slots, beat_bytes)
    images = random_images(np.random.default_rng(3), network, 40)
    own, other = Executor(network).run(images), other_model(network, plan, images)
    packed = bus_images(network, plan.beat_bytes, images).tobytes()
    size = len(packed) // len(images)
    card = Card(build(network, plan), CLOCKS[clocks], slots)

    async def story(card):
        await card.start()
        await card.begin(1)
        await card.send(BlockKind.IMAGES, packed)
        await check(card, images, own)
        # Another model, and images for it right behind its load.
        await card.begin(2)
        slot = slots - 1
        await card.send(BlockKind.WEIGHTS, other.load, slot)
        await card.send(BlockKind.IMAGES, packed, slot)
        await check(card, images, other.result)
        if slots == 2:
            await card.begin(3)
            await card.send(BlockKind.IMAGES, packed[: 20 * size], 0)
            await card.send(BlockKind.IMAGES, packed[: 30 * size], 1)
            scores, _ = await card.results(50, 3)
            assert np.array_equal(scores[:20], own.scores[:20])
            assert np.array_equal(scores[20:], other.result.scores[:30])
        # A load that a lease cuts off, and the whole one.
        await card.begin(4)
        await card.send(BlockKind.WEIGHTS, weights_load(core_parts(network, plan))[:-7], slot)
        await card.tick(1_000)
        await card.begin(5)
        await card.send(BlockKind.WEIGHTS, weights_load(core_parts(network, plan)), slot)
        await card.send(BlockKind.IMAGES, packed, slot)
        await check(card, images, own)
        # Leases that cut images off, and after each some that are whole.
        first = 10
        few = type(own)(own.scores[:first], own.labels[:first])
        for epoch in range(6, 14, 2):
            await card.begin(epoch)
            await card.send(BlockKind.IMAGES, packed * 4)
            await card.tick(card.rng.randrange(300, 1_500))
            await card.begin(epoch + 1)
            await card.send(BlockKind.IMAGES, packed[: size * first])
            await check(card, images[:first], few)
        assert await card.bridge(BlockRegister.TAKEN) == card.sent
        assert await card.bridge(BlockRegister.DROPPED) > 0

    card.run(story)
    indices = [trailer.number & 0xFFFFFF for trailer, _ in card.found]
    assert indices == list(range(len(indices)))
    epochs = [trailer.number >> 24 for trailer, _ in card.found]
    assert epochs == sorted(epochs)
    assert all(trailer.taken <= 4 * len(packed) // 1024 + 1 for trailer, _ in card.found)


def test_registers_of_core_and_bridge(build):
    network, plan = planned()
    card = Card(build(network, plan), CLOCKS["slower core"], 0)

    async def story(card):
        named = {name: BRIDGE + 4 * name for name in BlockRegister}
        assert await card.read(4 * Register.MAGIC) == (MAGIC, OKAY)
        assert await card.read(4 * Register.PLAN_HASH) == (77, OKAY)
        assert await card.read(4 * AxiRegister.BEAT_BYTES) == (16, OKAY)
        assert (await card.read(4 * 200))[1] == SLVERR
        assert [await card.read(address) for address in named.values()] == [(0, OKAY)] * 5
        for register in (5, 15, 512, 1023):
            assert await card.read(BRIDGE + 4 * register) == (0, SLVERR)
            assert await card.write(BRIDGE + 4 * register, 1) == SLVERR
        for register in (BlockRegister.TAKEN, BlockRegister.DROPPED):
            assert await card.write(named[register], 9) == SLVERR
            assert await card.bridge(register) == 0
        # While the DMA is off, nothing counts as sent or granted.
        await card.bridge(BlockRegister.SENT, 3)
        await card.bridge(BlockRegister.CREDIT, 3)
        assert await card.bridge(BlockRegister.SENT) == 0
        assert await card.bridge(BlockRegister.CREDIT) == 0
        card.ctx.set(card.system.dma_reader_enable, 1)
        card.ctx.set(card.system.dma_writer_enable, 1)
        await card.bridge(BlockRegister.LEASE, 0x155)
        assert await card.bridge(BlockRegister.LEASE) == 0x55
        await card.bridge(BlockRegister.CREDIT, 0x5ABCDEF1)
        assert await card.bridge(BlockRegister.CREDIT) == 0xBCDEF1
        await card.bridge(BlockRegister.SENT, 0xFF000003)
        assert await card.bridge(BlockRegister.SENT) == 3
        await card.tick(3 * BLOCK_BEATS)  # zeros pass by
        assert await card.bridge(BlockRegister.DROPPED) >= 2
        # Each goes with its own direction, SENT with a lease, too.
        await card.bridge(BlockRegister.LEASE, 0x56)
        assert await card.bridge(BlockRegister.SENT) == 0
        await card.bridge(BlockRegister.SENT, 2)
        card.ctx.set(card.system.dma_writer_enable, 0)
        await card.tick(2)
        assert await card.bridge(BlockRegister.CREDIT) == 0
        assert await card.bridge(BlockRegister.SENT) == 2
        card.ctx.set(card.system.dma_reader_enable, 0)
        await card.tick(2)
        assert await card.bridge(BlockRegister.SENT) == 0
        assert await card.bridge(BlockRegister.DROPPED) == 0
        assert await card.bridge(BlockRegister.LEASE) == 0x56

    card.run(story)


@pytest.mark.parametrize("slots", [1, 2])
def test_the_verilog_lints(slots, tmp_path):
    network, plan = planned(slots)
    parts = core_parts(network, plan)
    text = core_verilog(network, plan, parts) + to_verilog(PcieSystem(network, plan, parts), PCIE)
    source = tmp_path / "accelerator.v"
    source.write_text(text)
    lint([source], PCIE)
