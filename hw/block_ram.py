# SPDX-License-Identifier: BSD-2-Clause
"""A block RAM with one write and one read port, written so that synthesis adds nothing to it."""

from collections.abc import Sequence

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

__all__ = ["BlockRam"]


class BlockRam(wiring.Component):
    """Memory whose read register is the block RAM's own output latch.

    The latch loads in cycles with `read_enable`. The parent must make it evident that nothing is
    read in the cycle in which the same address is written: then yosys knows that no value is
    promised and adds neither registers nor a bypass for that case.

    `ram_data` is 0 before the first read here, and anything in a real block RAM. iCE40 synthesis
    gates it to zero (a LUT a bit) unless told that this does not matter:
    `proc; setattr -unset init w:*ram_data*`. Nothing depends on it.

    Throughput: 1 read and 1 write per cycle.  Latency: 1 cycle.  Cost: block RAMs only.

    Parameters
    ----------
    width, depth : int
    init : words at power-up; missing ones are 0

    Members
    -------
    write_enable : In(1)
    write_address, read_address : In(ceil_log2(depth))
    write_data : In(width)
    read_enable : In(1)
    ram_data : Out(width)
    """

    def __init__(self, *, width: int, depth: int, init: Sequence[int] = ()):
        self._ram = memory.MemoryData(shape=width, depth=depth, init=init)
        super().__init__(
            {
                "write_enable": In(1),
                "write_address": In(ceil_log2(depth)),
                "write_data": In(width),
                "read_enable": In(1),
                "read_address": In(ceil_log2(depth)),
                "ram_data": Out(width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.ram = ram = memory.Memory(self._ram, attrs={"ram_style": "block"})
        write, read = ram.write_port(), ram.read_port(domain="comb")
        value = Signal(len(self.ram_data), name="ram_data", reset_less=True)
        m.d.comb += [
            write.en.eq(self.write_enable),
            write.addr.eq(self.write_address),
            write.data.eq(self.write_data),
            read.addr.eq(self.read_address),
            self.ram_data.eq(value),
        ]
        with m.If(self.read_enable):
            m.d.sync += value.eq(read.data)
        return m
