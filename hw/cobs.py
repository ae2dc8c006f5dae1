# SPDX-License-Identifier: BSD-2-Clause
"""Consistent Overhead Byte Stuffing: frames without a zero inside, a zero between them.

    content  11 22 00 33        wire  03 11 22 02 33 00

S. Cheshire, M. Baker: Consistent Overhead Byte Stuffing, IEEE/ACM Transactions on Networking 7
(1999). Each group's first byte, its code, tells how far the next zero of the content is.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.ram import BlockRam

__all__ = ["CobsDecoder", "CobsEncoder", "ContentBeat", "DecodedBeat"]

ContentBeat = data.StructLayout({"data": 8, "end": 1})
"""A byte of a content, or with `end` its close, whose `data` says nothing."""

DecodedBeat = data.StructLayout({"data": 8, "end": 1, "bad": 1})
"""The same; `bad`, beside `end` only: cut off, or with a byte the line spoilt."""


_HALF = 256
"""Bytes of the longest frame on the wire; the encoder holds two, in one block RAM."""


class CobsDecoder(wiring.Component):
    """Wire bytes to contents, as they come: at most one beat a byte.

    A zero always ends a frame, so whatever garbage went before, the next frame is read right.
    An empty frame (two zeros) gives nothing.

    Throughput: 1 byte a cycle.  Latency: 1 cycle.  Cost: about 50 LC on iCE40.
    Back-pressure: none.

    Members
    -------
    i : In(stream.Signature(8, always_ready=True))
    spoilt : In(1)
        A byte was lost here: the frame is bad.
    o : Out(stream.Signature(DecodedBeat, always_ready=True))
    """

    def __init__(self):
        super().__init__(
            {
                "i": In(stream.Signature(8, always_ready=True)),
                "spoilt": In(1),
                "o": Out(stream.Signature(DecodedBeat, always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        left = Signal(8)  # bytes before the next code
        zero = Signal()  # the next code stands for a zero of the content
        inside = Signal()  # something of this frame has been seen
        bad = Signal()
        beat = self.o.payload
        m.d.sync += self.o.valid.eq(0)
        with m.If(self.spoilt):
            m.d.sync += [bad.eq(1), inside.eq(1)]
        with m.If(self.i.valid):
            m.d.sync += beat.eq(0)
            with m.If(self.i.payload == 0):
                m.d.sync += [
                    self.o.valid.eq(inside),
                    beat.end.eq(1),
                    beat.bad.eq(bad | (left != 0)),
                    left.eq(0),
                    zero.eq(0),
                    inside.eq(0),
                    bad.eq(0),
                ]
            with m.Elif(left == 0):
                m.d.sync += [
                    self.o.valid.eq(zero),
                    left.eq(self.i.payload - 1),
                    zero.eq(self.i.payload != 255),
                    inside.eq(1),
                ]
            with m.Else():
                m.d.sync += [
                    self.o.valid.eq(1),
                    beat.data.eq(self.i.payload),
                    left.eq(left - 1),
                ]
        return m


class CobsEncoder(wiring.Component):
    """Contents of at most 254 bytes to wire bytes, each frame stored before it leaves.

    A frame is encoded in its place in memory: a slot is kept for each code and filled when the
    group's length is known, so that every beat costs one write.

    Throughput: 1 beat a cycle and one more cycle a frame in, a byte in 3 cycles out.
    Latency: 4 cycles from the end beat to the first wire byte.
    Cost: about 100 LC and one 512 x 8 block RAM on iCE40.  Back-pressure: stalls, never drops.

    Members
    -------
    i : In(stream.Signature(ContentBeat))
    abort : In(1)
        Drops the content not yet closed; wins over a beat in the same cycle.
    o : Out(stream.Signature(8))
    """

    def __init__(self):
        super().__init__(
            {
                "i": In(stream.Signature(ContentBeat)),
                "abort": In(1),
                "o": Out(stream.Signature(8)),
            }
        )

    def elaborate(self, platform):
        # A frame of at most 256 wire bytes takes a "half" of the memory: one is filled while the
        # other leaves, so what is read and what is written never have the same address.
        m = Module()
        m.submodules.ram = ram = BlockRam(width=8, depth=2 * _HALF)
        whole = Signal(2)  # halves with a whole frame

        half = Signal()
        place = Signal(8, init=1)  # next byte
        slot = Signal(8)  # code of the open group; reserved before its first byte
        code = Signal(8, init=1)
        closing = Signal()  # the end was taken, the delimiter is missing
        is_zero = Signal()
        at_slot = self.i.payload.end | is_zero
        m.d.comb += [
            self.i.ready.eq(~closing & ~whole.bit_select(half, 1)),
            is_zero.eq(self.i.payload.data == 0),
            ram.write_enable.eq((self.i.valid & self.i.ready) | closing),
            ram.write_address.eq(Cat(Mux(at_slot & ~closing, slot, place), half)),
            ram.write_data.eq(Mux(closing, 0, Mux(at_slot, code, self.i.payload.data))),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [closing.eq(self.i.payload.end), code.eq(code + 1)]
            with m.If(~self.i.payload.end):
                m.d.sync += place.eq(place + 1)
            with m.If(is_zero):
                m.d.sync += [slot.eq(place), code.eq(1)]
        with m.If(closing):
            m.d.sync += [whole.bit_select(half, 1).eq(1), half.eq(~half)]
        # A frame whose end was taken is whole: nothing aborts it between its code and its zero.
        with m.If(closing | self.abort):
            m.d.sync += [closing.eq(0), place.eq(1), slot.eq(0), code.eq(1)]

        # A byte is fetched, registered (block RAM is slow), offered: 3 cycles, and a line has many.
        from_half = Signal()
        sent = Signal(8)
        fetch = Signal()
        fetched = Signal()
        m.d.comb += [
            fetch.eq(whole.bit_select(from_half, 1) & ~fetched & ~self.o.valid),
            ram.read_enable.eq(fetch),
            ram.read_address.eq(Cat(sent, from_half)),
        ]
        m.d.sync += fetched.eq(fetch)
        with m.If(fetch):
            m.d.sync += sent.eq(sent + 1)
        with m.If(fetched):
            m.d.sync += [self.o.payload.eq(ram.ram_data), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
            with m.If(self.o.valid & (self.o.payload == 0)):
                m.d.sync += [
                    sent.eq(0),
                    from_half.eq(~from_half),
                    whole.bit_select(from_half, 1).eq(0),
                ]
        return m
