# SPDX-License-Identifier: BSD-2-Clause
"""Tallies and cycles against plain counters."""

import gc
import random

import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator

from xnorforge.hw.tally import Cycle, Tally


def run(dut, bench):
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("limit, init", [(1, 0), (1, 1), (2, 1), (5, 5), (8, 0)])
def test_tally_knows_whether_there_is_any(limit, init):
    dut = Tally(limit=limit, init=init)
    source = random.Random(limit)

    async def bench(ctx):
        count = init
        for step in range(400):
            assert ctx.get(dut.some) == (count > 0)
            busy = 0.8 if step // 50 % 2 else 0.3
            up = count < limit and source.random() < busy
            down = count > 0 and source.random() < 1.1 - busy
            ctx.set(dut.up, up)
            ctx.set(dut.down, down)
            count += up - down
            await ctx.tick()

    run(dut, bench)


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_cycle_names_its_first_and_last(count):
    dut = Cycle(count=count)
    source = random.Random(count)

    async def bench(ctx):
        value = 0
        for _ in range(100):
            found = (ctx.get(dut.value), ctx.get(dut.first), ctx.get(dut.last))
            assert found == (value, value == 0, value == count - 1)
            step = source.random() < 0.7
            ctx.set(dut.step, step)
            value = (value + step) % count
            await ctx.tick()

    run(dut, bench)


@pytest.mark.parametrize("make", [lambda: Tally(limit=3, init=3), lambda: Cycle(count=5)])
def test_converts(make):
    assert rtlil.convert(make())


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_wrong_numbers_are_refused():
    for make, why in (
        (lambda: Tally(limit=2, init=3), "between 0 and 2, not 3"),
        (lambda: Cycle(count=0), "at least 1, not 0"),
    ):
        with pytest.raises(ValueError, match=why) as caught:
            make()
        del caught
    gc.collect()  # a component that was refused is never used: it says so when it goes
