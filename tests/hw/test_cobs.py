# SPDX-License-Identifier: BSD-2-Clause
"""COBS circuits against the `cobs` package, and the serial CRC against zlib."""

import random

import pytest
from amaranth import Module
from amaranth.back import rtlil
from amaranth.sim import Simulator
from cobs import cobs
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.hw.cobs import CobsDecoder, CobsEncoder
from xnorforge.hw.crc import SerialCrc32
from xnorforge.sim.bench import Monitor, Sink, Source, random_stalls, run

CONTENTS = st.lists(
    st.lists(st.sampled_from([0, 0, 1, 7, 255]), min_size=1, max_size=40).map(bytes),
    min_size=1,
    max_size=5,
)


def rtl_encode(contents, *, idle=None, stall=None):
    dut = CobsEncoder()
    beats = []
    for content in contents:
        beats += [{"data": byte, "end": 0} for byte in content] + [{"data": 0, "end": 1}]
    wanted = len(ref_encode(contents))
    source = Source(dut.i, beats, idle=idle)
    sink = Sink(dut.o, wanted, stall=stall)
    run(dut, [source, sink, Monitor(dut.i), Monitor(dut.o)], 20 * wanted + 100)
    return bytes(sink.received)


def rtl_decode(data, spoilt=()):
    """(content, bad) of each frame; the byte before which the line lost one is in `spoilt`."""
    dut = CobsDecoder()
    frames, content = [], bytearray()

    async def bench(ctx):
        for place, byte in enumerate(data):
            if place in spoilt:
                ctx.set(dut.spoilt, 1)
                await ctx.tick()
                ctx.set(dut.spoilt, 0)
            ctx.set(dut.i.payload, byte)
            ctx.set(dut.i.valid, 1)
            await ctx.tick()
            ctx.set(dut.i.valid, 0)
            if ctx.get(dut.o.valid):
                beat = ctx.get(dut.o.payload)
                if beat.end:
                    frames.append((bytes(content), bool(beat.bad)))
                    content.clear()
                else:
                    content.append(beat.data)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return frames


def ref_encode(contents):
    return b"".join(cobs.encode(content) + b"\0" for content in contents)


@settings(max_examples=12)
@given(CONTENTS)
def test_encoder_equals_the_package(contents):
    assert rtl_encode(contents) == ref_encode(contents)


@pytest.mark.parametrize("size", [1, 2, 253, 254])
@pytest.mark.parametrize("filler", [0, 1])
def test_encoder_at_the_longest_content(size, filler):
    contents = [bytes([filler]) * size, bytes([filler ^ 1]) * size]
    assert rtl_encode(contents) == ref_encode(contents)


@pytest.mark.parametrize("idle", [0.0, 0.5])
@pytest.mark.parametrize("stall", [0.0, 0.7])
def test_encoder_under_gaps_and_back_pressure(idle, stall):
    rng = random.Random(5)
    contents = [bytes(rng.choices((0, 3, 9), k=rng.randrange(1, 255))) for _ in range(6)]
    found = rtl_encode(contents, idle=random_stalls(idle, 1), stall=random_stalls(stall, 2))
    assert found == ref_encode(contents)


def test_encoder_abort_drops_the_open_content_only():
    dut = CobsEncoder()
    sent = bytearray()

    async def bench(ctx):
        async def put(data, end):
            for byte in data:
                ctx.set(dut.i.payload, {"data": byte, "end": 0})
                ctx.set(dut.i.valid, 1)
                await ctx.tick().until(dut.i.ready)
            if end:
                ctx.set(dut.i.payload, {"data": 0, "end": 1})
                await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

        await put(b"whole", True)
        ctx.set(dut.abort, 1)  # closing: nothing is dropped
        await ctx.tick()
        ctx.set(dut.abort, 0)
        await put(b"dropped\0half", False)
        ctx.set(dut.abort, 1)
        await ctx.tick()
        ctx.set(dut.abort, 0)
        await put(b"next\0", True)
        ctx.set(dut.o.ready, 1)
        for _ in range(60):
            _, _, valid, byte = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if valid:
                sent.append(byte)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert bytes(sent) == ref_encode([b"whole", b"next\0"])


@settings(max_examples=12)
@given(CONTENTS)
def test_decoder_equals_the_package(contents):
    wanted = [(content, False) for content in contents]
    assert rtl_decode(ref_encode(contents)) == wanted


def test_decoder_at_the_longest_content():
    contents = [bytes([1]) * 254, bytes(254), b"\0" + bytes([5]) * 253]
    assert rtl_decode(ref_encode(contents)) == [(content, False) for content in contents]


def test_decoder_calls_a_cut_frame_bad_and_reads_the_next():
    line = cobs.encode(b"abcdef")[:-2] + b"\0" + ref_encode([b"next"])
    assert rtl_decode(line) == [(b"abcd", True), (b"next", False)]


def test_decoder_calls_a_frame_with_a_lost_byte_bad():
    line = ref_encode([b"abc", b"next"])
    frames = rtl_decode(line, spoilt={2})
    assert [bad for _, bad in frames] == [True, False]
    assert frames[1] == (b"next", False)


def test_decoder_gives_nothing_for_empty_frames():
    assert rtl_decode(b"\0\0" + ref_encode([b"x"]) + b"\0") == [(b"x", False)]


@pytest.mark.parametrize("data", [b"", b"\0", b"123456789", bytes(range(64))])
def test_serial_crc_equals_zlib(data):
    dut = SerialCrc32()
    found = []

    async def bench(ctx):
        async def put(byte, drain=0):
            ctx.set(dut.data, byte)
            ctx.set(dut.drain, drain)
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)
            for _ in range(8):
                assert ctx.get(dut.busy)
                await ctx.tick()
            assert not ctx.get(dut.busy)

        for _ in range(2):  # the second time after `clear`
            crc = []
            for byte in data:
                await put(byte)
            for _ in range(4):
                crc.append(ctx.get(dut.crc))
                await put(0, drain=1)
            found.append(bytes(crc))
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)
        for damage in (0, 1):
            for place, byte in enumerate(data + found[0]):
                await put(byte ^ (damage if place == 0 else 0))
            await ctx.tick()
            assert ctx.get(dut.match) == (not damage)
            ctx.set(dut.clear, 1)
            await ctx.tick()
            ctx.set(dut.clear, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    wanted = SerialCrc32.reference(data).to_bytes(4, "little")
    assert found == [wanted, wanted]


@pytest.mark.parametrize("make", [CobsDecoder, CobsEncoder, SerialCrc32])
def test_converts(make):
    top = Module()
    top.submodules.dut = make()
    assert rtlil.convert(top, ports=[])
