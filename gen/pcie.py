# SPDX-License-Identifier: BSD-2-Clause
"""The core between the DMA streams of a LitePCIe endpoint.

    DMA reader --> blocks --> images, weights --> crossings --> shell --> core
    DMA writer <-- blocks <-- results         <-- crossings <-- shell <-- core
    AXI4-Lite: the shell's registers; behind them the bridge's      clk | core_clk

`sw.blocks` holds the format and the registers, `docs/pcie.md` the rules.
"""

from typing import NamedTuple

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.assembly import CoreParts
from xnorforge.gen.bus_core import add_axi_lite, add_bus_core
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.hw.axi_lite import axi_lite_ports
from xnorforge.hw.axi_shell import ADDRESS_BITS as SHELL_ADDRESS_BITS
from xnorforge.hw.dma_receiver import BEAT_BITS, DmaReceiver
from xnorforge.hw.dma_sender import DmaSender
from xnorforge.sw.blocks import BEAT_BYTES, INDEX_BITS, BlockRegister

__all__ = ["ADDRESS_BITS", "PCIE", "PcieSystem", "dma_beat_bytes"]

PCIE = "xnorforge_pcie"
"""The Verilog module with the ports for LitePCIe's DMA."""

ADDRESS_BITS = SHELL_ADDRESS_BITS + 1
"""The shell's page of 4 KiB, then the bridge's."""


_BUSY = 0.9  # share of an image's time that its beats may take


def dma_beat_bytes(network: Network, cycles: float) -> int:
    """Bytes of an image beat: those that leave the fewest unused, of images in so many cycles.

    cycles: of the core or of the bus, whichever are fewer.
    """
    size = network.input.image_bytes
    fast = [k for k in (16, 8, 4, 2, 1) if -(-size // k) <= _BUSY * cycles] or [BEAT_BYTES]
    return min(fast, key=lambda k: (-(-size // k) * k, -k))


class PcieSystem(wiring.Component):
    """Block bridge, shell and core behind the ports of a LitePCIe endpoint.

    Throughput: that of `DmaReceiver`, `DmaSender` and the core. Latency: theirs, and that of
    `Crossing` each way.  Back-pressure: stalls the DMA, never drops but what `sw.blocks` says.

    Parameters
    ----------
    network, plan, parts : the core; the plan's image beats have at most the DMA's 16 bytes

    Members
    -------
    clk, rst : In(1), In(1)
        LitePCIe's clock, of all ports, and its reset. The reset may come at any time, and is at
        least as long as a cycle of either clock.
    core_clk : In(1)
    s_axi_* : AXI4-Lite, 32 bits, 8 KiB
    dma_reader_tdata, tvalid, tready, enable : In(128), In(1), Out(1), In(1)
    dma_writer_tdata, tvalid, tready, enable : Out(128), Out(1), In(1), In(1)
    dma_writer_tlast, tuser : Out(1), Out(1)
        Low: a buffer ends where it is full.
    """

    def __init__(self, network: Network, plan: Plan, parts: CoreParts):
        self.network, self.plan, self.parts = network, plan, parts
        super().__init__(
            {
                "clk": In(1),
                "rst": In(1),
                "core_clk": In(1),
                **axi_lite_ports(ADDRESS_BITS),
                "dma_reader_tdata": In(BEAT_BITS),
                "dma_reader_tvalid": In(1),
                "dma_reader_tready": Out(1),
                "dma_reader_enable": In(1),
                "dma_writer_tdata": Out(BEAT_BITS),
                "dma_writer_tvalid": Out(1),
                "dma_writer_tready": In(1),
                "dma_writer_tlast": Out(1),
                "dma_writer_tuser": Out(1),
                "dma_writer_enable": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = add_bus_core(
            m,
            self.network,
            self.plan,
            self.parts,
            clock=self.clk,
            reset=self.rst,
            core_clock=self.core_clk,
        )
        receiver = DmaReceiver(slots=self.plan.slots, image_bytes=self.plan.beat_bytes)
        sender = DmaSender()
        m.submodules.receiver = DomainRenamer(bus.domain)(receiver)
        m.submodules.sender = DomainRenamer(bus.domain)(sender)
        wiring.connect(m, receiver.images, bus.streams["images"])
        wiring.connect(m, receiver.weights, bus.streams["weights"])
        wiring.connect(m, bus.streams["results"], sender.i)
        registers = self._registers(m, bus, receiver)
        m.d.comb += [
            receiver.i.payload.eq(self.dma_reader_tdata),
            receiver.i.valid.eq(self.dma_reader_tvalid & bus.is_open),
            self.dma_reader_tready.eq(receiver.i.ready & bus.is_open),
            receiver.enable.eq(self.dma_reader_enable),
            receiver.epoch.eq(registers.epoch),
            receiver.begin.eq(registers.begin),
            receiver.sent.eq(registers.sent),
            receiver.hold.eq(sender.purging),
            self.dma_writer_tdata.eq(sender.o.payload),
            self.dma_writer_tvalid.eq(sender.o.valid & bus.is_open),
            sender.o.ready.eq(self.dma_writer_tready & bus.is_open),
            sender.enable.eq(self.dma_writer_enable),
            sender.epoch.eq(registers.epoch),
            sender.begin.eq(registers.begin),
            sender.unsent.eq(registers.sent == 0),
            sender.credit.eq(registers.credit),
            sender.taken.eq(receiver.taken),
        ]
        return m

    def _registers(self, m, bus, receiver) -> "_Registers":
        """Requests to the shell, or answered at once where they are for the bridge."""
        lite = add_axi_lite(m, self, bus, ADDRESS_BITS)
        shell_request, shell_response = bus.streams["request"], bus.streams["response"]
        registers = _Registers(*(Signal(size, name=name) for name, size in _SIZES.items()))
        asked, answer = lite.request.payload, lite.response.payload
        is_ours = asked.address[-1]
        number = asked.address[:-1]
        readable = {
            BlockRegister.LEASE: registers.epoch,
            BlockRegister.SENT: registers.sent,
            BlockRegister.CREDIT: registers.credit,
            BlockRegister.TAKEN: receiver.taken,
            BlockRegister.DROPPED: receiver.dropped,
        }
        ours = lite.request.valid & is_ours
        writes = ours & asked.write
        m.d.comb += [
            shell_request.payload.address.eq(number),
            shell_request.payload.write.eq(asked.write),
            shell_request.payload.data.eq(asked.data),
            shell_request.valid.eq(lite.request.valid & ~is_ours),
            lite.request.ready.eq(is_ours | shell_request.ready),
            lite.response.valid.eq(ours | shell_response.valid),
            shell_response.ready.eq(lite.response.ready),
            answer.eq(shell_response.payload),
        ]
        with m.If(ours):
            m.d.comb += [
                answer.data.eq(0),
                answer.error.eq(asked.write | (number > max(BlockRegister))),
            ]
            with m.Switch(number):
                for register, word in readable.items():
                    with m.Case(int(register)):
                        m.d.comb += answer.data.eq(word)
                        if register in _WRITABLE:
                            m.d.comb += answer.error.eq(0)
        m.d.bus += registers.begin.eq(0)
        with m.If(writes & (number == BlockRegister.LEASE)):
            m.d.bus += [
                registers.epoch.eq(asked.data),
                registers.begin.eq(1),
                registers.sent.eq(0),
            ]
        with m.If(writes & (number == BlockRegister.SENT)):
            m.d.bus += registers.sent.eq(asked.data)
        with m.If(writes & (number == BlockRegister.CREDIT)):
            m.d.bus += registers.credit.eq(asked.data)
        with m.If(~self.dma_reader_enable):
            m.d.bus += registers.sent.eq(0)
        with m.If(~self.dma_writer_enable):
            m.d.bus += registers.credit.eq(0)
        return registers


_SIZES = {"epoch": 8, "begin": 1, "sent": INDEX_BITS, "credit": INDEX_BITS}
_WRITABLE = (BlockRegister.LEASE, BlockRegister.SENT, BlockRegister.CREDIT)


class _Registers(NamedTuple):
    """What the host has written. begin: in the first cycle of a lease."""

    epoch: Signal
    begin: Signal
    sent: Signal
    credit: Signal
