# SPDX-License-Identifier: BSD-2-Clause
"""Memories as the devices have them, written so that synthesis adds nothing to them."""

from collections.abc import Sequence

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorforge.hw.store_config import FAMILIES

__all__ = ["BlockRam", "LutRam", "Spram", "latched_ram"]


def _ports(width, depth):
    return {
        "write_enable": In(1),
        "write_address": In(ceil_log2(depth)),
        "write_data": In(width),
        "read_address": In(ceil_log2(depth)),
        "ram_data": Out(width),
    }


def _memory(m, ports, contents, **attributes):
    """The memory, written from its ports; returns what `read_address` shows, asynchronously."""
    m.submodules.cells = ram = memory.Memory(contents, attrs=attributes)
    write, read = ram.write_port(), ram.read_port(domain="comb")
    m.d.comb += [
        write.en.eq(ports.write_enable),
        write.addr.eq(ports.write_address),
        write.data.eq(ports.write_data),
        read.addr.eq(ports.read_address),
    ]
    return read.data


class BlockRam(wiring.Component):
    """Memory whose read register is the block RAM's own output latch.

    The latch loads in cycles with `read_enable`. The parent must never read the address that it
    writes in the same cycle, or not look at what it gets: no value is promised for that case
    (`no_rw_check`), so yosys adds neither registers nor a bypass for it.

    `ram_data` is 0 before the first read here, and anything in a real block RAM. iCE40 synthesis
    gates it to zero (a LUT a bit) unless told that this does not matter: `gen.verilog` does, by
    `setattr -unset init w:*ram_data*` when it writes the Verilog. Nothing depends on it.

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
        self._contents = memory.MemoryData(shape=width, depth=depth, init=init)
        super().__init__({**_ports(width, depth), "read_enable": In(1)})

    def elaborate(self, platform):
        m = Module()
        read_data = _memory(m, self, self._contents, ram_style="block", no_rw_check=1)
        latch = Signal(len(self.ram_data), name="ram_data", reset_less=True)
        with m.If(self.read_enable):
            m.d.sync += latch.eq(read_data)
        m.d.comb += self.ram_data.eq(latch)
        return m


class LutRam(wiring.Component):
    """Memory that is read asynchronously: LUT RAM, or flip-flops and multiplexers.

    Throughput: 1 read and 1 write per cycle.  Latency: 0 cycles, a written word shows in the next.
    Cost: one primitive per 16 x 4 bits, or a flip-flop a bit and its share of a multiplexer.

    Parameters
    ----------
    width, depth : int
    init : words at power-up; missing ones are 0
    distributed : whether the family has LUT RAM

    Members
    -------
    write_enable : In(1)
    write_address, read_address : In(ceil_log2(depth))
    write_data : In(width)
    ram_data : Out(width)
    """

    def __init__(self, *, width: int, depth: int, init: Sequence[int] = (), distributed: bool):
        self._contents = memory.MemoryData(shape=width, depth=depth, init=init)
        self._style = "distributed" if distributed else "logic"
        super().__init__(_ports(width, depth))

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.ram_data.eq(_memory(m, self, self._contents, ram_style=self._style))
        return m


class Spram(wiring.Component):
    """Memory with one port for both writing and reading, whose words at power-up are unknown.

    The latch of `ram_data` loads in cycles without a write. A simulation starts with words that
    are neither 0 nor anybody's, so that nothing comes to depend on them; they do not go into
    Verilog (`gen.verilog` drops what a memory of this name starts with).

    Throughput: 1 read or 1 write per cycle.  Latency: 1 cycle.  Cost: one SB_SPRAM256KA per
    16 bits x 16,384.

    Parameters
    ----------
    width, depth : int

    Members
    -------
    write_enable : In(1)
    address : In(ceil_log2(depth))
    write_data : In(width)
    ram_data : Out(width)
    """

    def __init__(self, *, width: int, depth: int):
        unknown = [(k * 0x9E37 + 0x79B9) & (1 << width) - 1 for k in range(depth)]
        self._contents = memory.MemoryData(shape=width, depth=depth, init=unknown)
        super().__init__(
            {
                "write_enable": In(1),
                "address": In(ceil_log2(depth)),
                "write_data": In(width),
                "ram_data": Out(width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.spram = ram = memory.Memory(self._contents, attrs={"ram_style": "huge"})
        write, read = ram.write_port(), ram.read_port(domain="comb")
        latch = Signal(len(self.ram_data), name="ram_data", reset_less=True)
        m.d.comb += [
            write.en.eq(self.write_enable),
            write.addr.eq(self.address),
            write.data.eq(self.write_data),
            read.addr.eq(self.address),
            self.ram_data.eq(latch),
        ]
        with m.If(~self.write_enable):
            m.d.sync += latch.eq(read.data)
        return m


def latched_ram(
    m: Module, *, store: str, family: str, width: int, depth: int, enable: Value | None = None
) -> tuple[BlockRam | LutRam, Value]:
    """A memory as submodule "ram", and the word read last, which shows a cycle after its address.

    store: "block" or "lut". enable: read in this cycle; None: in every one. Nothing is promised of
    a word that is read while it is written.
    """
    ram: BlockRam | LutRam
    if store == "block":
        m.submodules.ram = ram = BlockRam(width=width, depth=depth)
        m.d.comb += ram.read_enable.eq(1 if enable is None else enable)
        return ram, ram.ram_data
    distributed = FAMILIES[family].lut_ram
    m.submodules.ram = ram = LutRam(width=width, depth=depth, distributed=distributed)
    word = Signal(width, name="word", reset_less=True)
    if enable is None:
        m.d.sync += word.eq(ram.ram_data)
    else:
        with m.If(enable):
            m.d.sync += word.eq(ram.ram_data)
    return ram, word
