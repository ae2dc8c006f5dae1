# SPDX-License-Identifier: BSD-2-Clause
"""Packet guard, result packer, AXI4-Lite and crossing against plain Python, under random stalls."""

import random

import pytest
from amaranth.hdl import ClockDomain, Module
from amaranth.lib import data, stream, wiring
from amaranth.sim import Simulator

from xnorforge.hw.axi_lite import AxiLite
from xnorforge.hw.axi_result import ResultPacker
from xnorforge.hw.axi_shell import AxiShellConfig
from xnorforge.hw.crossing import Crossing
from xnorforge.hw.packet import PacketGuard
from xnorforge.sim.bench import Monitor, Sink, Source, never, random_stalls, run
from xnorforge.sw.protocol import WORD_SPOILT


def stalls(probability, seed):
    return random_stalls(probability, seed) if probability else never()


# --- packets ------------------------------------------------------------------------------------


def guard_reference(beats, items, pad):
    """(data, first, last, short) of what comes out for (data, last) going in."""
    out, at = [], 0
    for word, last in items:
        early = last and at < beats - 1
        out.append((word, at == 0, at == beats - 1, early and not pad))
        at = (at + 1) % beats
        if early:
            out += [(0, False, k == beats - 1, k == beats - 1) for k in range(at, beats) if pad]
            at = 0
    return out


class Told(wiring.Component):
    """A guard whose flags travel with the beats."""

    def __init__(self, guard):
        self.guard = guard
        shape = data.StructLayout({"data": 8, "first": 1, "last": 1, "short": 1})
        super().__init__(
            {"i": guard.signature.members["i"], "o": wiring.Out(stream.Signature(shape))}
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.guard = guard = self.guard
        wiring.connect(m, wiring.flipped(self.i), guard.i)
        told = self.o.payload
        m.d.comb += [
            told.data.eq(guard.o.payload),
            told.first.eq(guard.first),
            told.last.eq(guard.last),
            told.short.eq(guard.short),
            self.o.valid.eq(guard.o.valid),
            guard.o.ready.eq(self.o.ready),
        ]
        return m


@pytest.mark.parametrize("beats", [1, 2, 3, 8])
@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("stall", [0, 0.4])
def test_packets_have_their_length_wherever_last_comes(beats, pad, stall):
    rng = random.Random(beats)
    items = [(rng.randrange(256), rng.random() < 0.3) for _ in range(120)]
    wanted = guard_reference(beats, items, pad)
    assert any(short for *_, short in wanted) == (beats > 1)
    guard = PacketGuard(bits=8, beats=beats, pad=pad)
    dut = Told(guard)
    payloads = [{"data": word, "last": last} for word, last in items]
    source = Source(dut.i, payloads, idle=stalls(stall, 1))
    sink = Sink(dut.o, len(wanted), stall=stalls(stall, 2))
    run(dut, [source, sink, Monitor(dut.o, "o")], 2_000)
    found = [(w.data, bool(w.first), bool(w.last), bool(w.short)) for w in sink.received]
    # Without `last` nobody can tell whether a beat ends early before it is there.
    assert found == wanted
    if not stall and not pad:
        assert sink.times == list(range(len(items)))


# --- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stall", [0, 0.5])
def test_results_become_packets_of_words(stall):
    rng = random.Random(1)
    packer = ResultPacker(score_bits=7)
    beats, wanted = [], []
    for _ in range(20):
        scores, label = [rng.randint(-64, 63) for _ in range(3)], rng.randrange(1 << 16)
        for k, score in enumerate(scores):
            beats.append({"score": score, "label": label if k == 2 else 0, "last": k == 2})
            wanted.append((score & 0xFFFF_FFFF, False, False))
        wanted.append((label, True, False))
    source = Source(packer.i, beats, idle=stalls(stall, 1))
    sink = Sink(packer.o, len(wanted), stall=stalls(stall, 2))
    run(packer, [source, sink, Monitor(packer.o, "o")], 2_000)
    assert [(w.data, bool(w.last), bool(w.user)) for w in sink.received] == wanted
    if not stall:
        # A word a cycle, the first a cycle after its score.
        assert sink.times == list(range(1, len(wanted) + 1))


@pytest.mark.parametrize("words", [0, 1, 2, 3])
def test_a_flush_ends_the_packet_that_has_begun(words):
    """Three scores a packet; the flush comes when so many have been taken."""
    packer = ResultPacker(score_bits=8)
    received = []

    async def bench(ctx):
        for k in range(words):
            ctx.set(packer.i.payload, {"score": k, "label": 9, "last": k == 2})
            ctx.set(packer.i.valid, 1)
            await ctx.tick().until(packer.i.ready)
        ctx.set(packer.i.payload, {"score": 77, "label": 9, "last": 0})
        ctx.set(packer.flush, 1)
        await ctx.tick()
        await ctx.tick()
        ctx.set(packer.flush, 0)
        for k in range(3):
            ctx.set(packer.i.valid, 1)
            ctx.set(packer.i.payload, {"score": 10 + k, "label": 5, "last": k == 2})
            await ctx.tick().until(packer.i.ready)
        ctx.set(packer.i.valid, 0)

    sink = Sink(packer.o, None, stall=random_stalls(0.3, words))

    async def end(ctx):
        await ctx.tick().repeat(60)
        received.extend((w.data, w.last, w.user) for w in sink.received)

    simulator = Simulator(packer)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_process(sink.process)
    simulator.add_testbench(end)
    simulator.run()
    cut = [(k, 0, 0) for k in range(words)]
    if words == 3:
        cut.append((9, 1, 0))  # it was whole
    elif words:
        cut.append((WORD_SPOILT, 1, 1))
    assert received == [*cut, (10, 0, 0), (11, 0, 0), (12, 0, 0), (5, 1, 0)]


# --- AXI4-Lite ----------------------------------------------------------------------------------


def as_bench(story, *arguments):
    async def bench(ctx):
        await story(ctx, *arguments)

    return bench


@pytest.mark.parametrize("seed", range(6))
def test_accesses_are_answered_once_each_and_in_order(seed):
    """Random reads and writes on channels of their own, against a memory behind the requests."""
    rng = random.Random(seed)
    bus = AxiLite(address_bits=8)
    memory = [rng.getrandbits(32) for _ in range(64)]
    reads = [rng.randrange(64) for _ in range(40)]
    writes = [(rng.randrange(64), rng.getrandbits(32), rng.randrange(16)) for _ in range(40)]
    seen, read_answers, write_answers = [], [], []
    slow = rng.random() * 0.7

    async def wait(ctx):
        while rng.random() < slow:
            await ctx.tick()

    async def give(ctx, channel, values):
        for fields in values:
            await wait(ctx)
            for name, value in fields.items():
                ctx.set(getattr(bus, f"s_axi_{channel}{name}"), value)
            ctx.set(getattr(bus, f"s_axi_{channel}valid"), 1)
            await ctx.tick().until(getattr(bus, f"s_axi_{channel}ready"))
            ctx.set(getattr(bus, f"s_axi_{channel}valid"), 0)

    async def take(ctx, channel, count, answers, *names):
        for _ in range(count):
            await wait(ctx)
            ctx.set(getattr(bus, f"s_axi_{channel}ready"), 1)
            signals = [getattr(bus, f"s_axi_{channel}{name}") for name in names]
            answers.append(
                tuple(
                    await ctx.tick().sample(*signals).until(getattr(bus, f"s_axi_{channel}valid"))
                )
            )
            ctx.set(getattr(bus, f"s_axi_{channel}ready"), 0)

    async def responder(ctx):
        """Words from 60 on are refused; the answer comes with the request or later."""
        while len(seen) < 80:
            while not ctx.get(bus.request.valid):
                await ctx.tick()
            payload = ctx.get(bus.request.payload)
            at, refused = payload.address, payload.address >= 60
            seen.append((at, payload.write, payload.data))
            if payload.write and not refused:
                memory[at] = payload.data
            late = rng.randrange(3)
            if late:
                ctx.set(bus.request.ready, 1)
                await ctx.tick()
                ctx.set(bus.request.ready, 0)
                await ctx.tick().repeat(late)
            word = 0 if refused else memory[at]
            ctx.set(bus.response.payload, {"data": word, "error": refused})
            ctx.set(bus.response.valid, 1)
            ctx.set(bus.request.ready, not late)
            await ctx.tick()
            ctx.set(bus.response.valid, 0)
            ctx.set(bus.request.ready, 0)

    simulator = Simulator(bus)
    simulator.add_clock(1e-6)
    first = list(memory)
    addresses = [{"addr": 4 * at + rng.randrange(4)} for at in reads]
    places = [{"addr": 4 * at} for at, _, _ in writes]
    words = [{"data": word, "strb": strb} for _, word, strb in writes]
    for bench, *what in (
        (give, "ar", addresses),
        (give, "aw", places),
        (give, "w", words),
        (take, "r", len(reads), read_answers, "data", "resp"),
        (take, "b", len(writes), write_answers, "resp"),
        (responder,),
    ):
        simulator.add_testbench(as_bench(bench, *what))
    simulator.run()

    masked = [
        (at, word & sum(0xFF << 8 * k for k in range(4) if strb >> k & 1))
        for at, word, strb in writes
    ]
    assert [at for at, write, _ in seen if not write] == reads
    assert [(at, word) for at, write, word in seen if write] == masked
    replay, wanted = list(first), []
    for at, write, word in seen:
        if write:
            replay[at] = word if at < 60 else replay[at]
        else:
            wanted.append((0, 2) if at >= 60 else (replay[at], 0))
    assert read_answers == wanted
    assert write_answers == [(2 if at >= 60 else 0,) for at, _ in masked]


# --- crossing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("periods", [(10, 10), (10, 37), (23, 7)])
@pytest.mark.parametrize("depth", [4, 16])
def test_a_stream_crosses_between_unrelated_clocks(periods, depth):
    crossing = Crossing(shape=8, depth=depth, i_domain="left", o_domain="right")
    m = Module()
    m.domains += [ClockDomain("left"), ClockDomain("right")]
    m.submodules.crossing = crossing
    rng = random.Random(depth)
    items, received = [rng.randrange(256) for _ in range(300)], []

    async def give(ctx):
        for item in items:
            while rng.random() < 0.2:
                await ctx.tick("left")
            ctx.set(crossing.i.payload, item)
            ctx.set(crossing.i.valid, 1)
            await ctx.tick("left").until(crossing.i.ready)
            ctx.set(crossing.i.valid, 0)

    async def take(ctx):
        while len(received) < len(items):
            ctx.set(crossing.o.ready, rng.random() < 0.7)
            ready = ctx.get(crossing.o.ready)
            _, _, valid, item = await ctx.tick("right").sample(crossing.o.valid, crossing.o.payload)
            if valid and ready:
                received.append(item)

    simulator = Simulator(m)
    for name, period in zip(("left", "right"), periods, strict=True):
        simulator.add_clock(period * 1e-9, domain=name)
    simulator.add_testbench(give)
    simulator.add_testbench(take)
    simulator.run()
    assert received == items


@pytest.mark.parametrize(
    "field, value", [("beat_bytes", 0), ("beat_bytes", 129), ("score_bits", 33), ("load_bytes", 3)]
)
def test_shell_config_is_checked(field, value):
    given = {
        "image_bytes": 98,
        "beat_bytes": 8,
        "classes": 10,
        "score_bits": 8,
        "load_bytes": 100,
        "images_held": 4,
    }
    assert AxiShellConfig(**given).beats == 13
    with pytest.raises(ValueError, match=f"AXI shell {field} must be an integer from"):
        AxiShellConfig(**given | {field: value})
