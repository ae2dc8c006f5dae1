# SPDX-License-Identifier: BSD-2-Clause
"""Packets of a known length, from streams whose `last` may come too early or never.

A packet has `beats` beats. `last` may be given with the last of them, and need not be; where it
comes before, the packet is short. What follows it begins the next one.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.tally import Cycle

__all__ = ["PacketGuard", "packet_layout"]


def packet_layout(bits: int, slots: int = 1) -> data.StructLayout:
    """A beat: `data`, `last`, and with two slots `slot`, that of the packet's first beat."""
    two = {"slot": 1} if slots > 1 else {}
    return data.StructLayout({"data": bits, "last": 1, **two})


class PacketGuard(wiring.Component):
    """Gives packets of whole length, whatever comes in.

    With `pad` a short packet is filled up with zeros, so that what is behind it never sees a part
    of one; without, the next beat is the first of a new packet.

    Throughput: 1 beat a cycle.  Latency: 0.  Cost: a counter.
    Back-pressure: stalls; also while it fills a packet up.

    Parameters
    ----------
    bits : of a beat's data
    beats : of a packet
    pad : as above
    slots : models that packets can be for, 1 or 2

    Members
    -------
    i : In(stream.Signature(packet_layout(bits, slots)))
    o : Out(stream.Signature(bits))
    first, last : Out(1), Out(1)
        Of the beat in `o`.
    short : Out(1)
        With the last beat of a packet that was filled up; without `pad`, with the beat that ended
        the packet early. Counts where that beat is taken.
    slot : Out(1)
        Of two slots: the packet's, steady from its first beat to its last.
    """

    def __init__(self, *, bits: int, beats: int, pad: bool, slots: int = 1):
        self.beats, self.pad, self.slots = beats, pad, slots
        super().__init__(
            {
                "i": In(stream.Signature(packet_layout(bits, slots))),
                "o": Out(stream.Signature(bits)),
                "first": Out(1),
                "last": Out(1),
                "short": Out(1),
                **({"slot": Out(1)} if slots > 1 else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat, filling, early = Cycle(count=self.beats), Signal(), Signal()
        moves = self.o.valid & self.o.ready
        m.submodules.beat = beat if self.pad else ResetInserter(early & moves)(beat)
        m.d.comb += [
            beat.step.eq(moves),
            early.eq(self.i.valid & ~filling & self.i.payload.last & ~beat.last),
            self.o.valid.eq(self.i.valid | filling),
            self.i.ready.eq(self.o.ready & ~filling),
            self.o.payload.eq(Mux(filling, 0, self.i.payload.data)),
            self.first.eq(beat.first),
            self.last.eq(beat.last),
            self.short.eq(filling & beat.last if self.pad else early),
        ]
        if self.pad:
            with m.If(moves):
                m.d.sync += filling.eq((filling & ~beat.last) | early)
        if self.slots > 1:
            held = Signal()
            begins = self.i.valid & beat.first
            with m.If(begins):
                m.d.sync += held.eq(self.slot)
            m.d.comb += self.slot.eq(Mux(begins, self.i.payload.slot, held))
        return m
