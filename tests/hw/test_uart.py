# SPDX-License-Identifier: BSD-2-Clause
"""UART: bytes to line and back, off-centre rates, noise and broken stop bits."""

import random

import pytest
from amaranth import Module
from amaranth.back import rtlil
from amaranth.sim import Simulator

from xnorforge.hw.uart import UartReceiver, UartTransmitter, line_bits


def levels_of(data, divisor):
    """The line, clock by clock."""
    return [level for byte in data for level in line_bits(byte) for _ in range(divisor)]


def rtl_receive(levels, divisor, tail=80):
    """Bytes and the number of framing errors the receiver makes of a line."""
    dut = UartReceiver()
    got, broken = [], []

    async def bench(ctx):
        ctx.set(dut.divisor, divisor)
        ctx.set(dut.rx, 1)
        await ctx.tick().repeat(4)
        for level in [*levels, *[1] * tail]:
            ctx.set(dut.rx, level)
            _, _, valid, byte, error = await ctx.tick().sample(
                dut.o.valid, dut.o.payload, dut.framing_error
            )
            if valid:
                got.append(byte)
            if error:
                broken.append(True)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return bytes(got), len(broken)


def rtl_transmit(data, divisor, gap=lambda: 0):
    """The line from the first start bit on."""
    dut = UartTransmitter()
    levels = []
    done = []

    async def bench(ctx):
        ctx.set(dut.divisor, divisor)
        for byte in data:
            ctx.set(dut.i.valid, 0)
            await ctx.tick().repeat(gap() + 1) if gap() else None
            ctx.set(dut.i.payload, byte)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)
        await ctx.tick().repeat(12 * divisor)
        done.append(True)

    async def watch(ctx):
        async for _, _, tx in ctx.tick().sample(dut.tx):
            levels.append(tx)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_process(watch)
    simulator.run()
    return levels[levels.index(0) :]


@pytest.mark.parametrize("divisor", [4, 5, 7, 13, 100])
def test_receiver_takes_back_to_back_bytes(divisor):
    data = bytes([0x00, 0xFF, 0x55, 0xAA, *random.Random(divisor).randbytes(12)])
    assert rtl_receive(levels_of(data, divisor), divisor) == (data, 0)


@pytest.mark.parametrize("percent", [-3, 3])
def test_receiver_takes_a_rate_that_is_off(percent):
    data = random.Random(1).randbytes(20)
    assert rtl_receive(levels_of(data, 100 + percent), 100) == (data, 0)


def test_receiver_ignores_a_short_low_pulse():
    levels = [0] * 20 + [1] * 300 + levels_of(b"\x42", 100)
    assert rtl_receive(levels, 100) == (b"\x42", 0)


def test_receiver_tells_a_broken_stop_bit_and_waits_for_the_line():
    broken = levels_of(b"\x42", 10)[:-10] + [0] * 35 + [1] * 20
    assert rtl_receive(broken + levels_of(b"\x17", 10), 10) == (b"\x17", 1)


@pytest.mark.parametrize("divisor", [4, 9])
def test_transmitter_line_is_exact_without_gaps(divisor):
    data = random.Random(2).randbytes(10)
    levels = rtl_transmit(data, divisor)
    wanted = levels_of(data, divisor)
    assert levels[: len(wanted)] == wanted
    assert set(levels[len(wanted) :]) == {1}


def test_transmitter_idles_high_between_bytes():
    rng = random.Random(3)
    data = rng.randbytes(10)
    levels = rtl_transmit(data, 4, gap=lambda: rng.randrange(60))
    assert rtl_receive(levels, 4) == (data, 0)


@pytest.mark.parametrize("make", [UartReceiver, UartTransmitter])
def test_converts(make):
    top = Module()
    top.submodules.dut = make()
    assert rtlil.convert(top, ports=[])
