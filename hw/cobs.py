# SPDX-License-Identifier: BSD-2-Clause
"""Consistent Overhead Byte Stuffing: frames without a zero inside, a zero between them.

    content  11 22 00 33        wire  03 11 22 02 33 00

S. Cheshire, M. Baker: Consistent Overhead Byte Stuffing, IEEE/ACM Transactions on Networking 7
(1999). Each group's first byte, its code, tells how far the next zero of the content is.
"""

from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["CobsDecoder", "CobsEncoder", "ContentBeat", "DecodedBeat"]

ContentBeat = data.StructLayout({"data": 8, "end": 1})
"""A byte of a content, or with `end` its close, whose `data` says nothing."""

DecodedBeat = data.StructLayout({"data": 8, "end": 1, "bad": 1})
"""The same; `bad`, beside `end` only: cut off, or with a byte the line spoilt."""


_DEPTH = 512
"""Bytes of the encoder's ring: two frames, one block RAM."""


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

    A frame is encoded in its place in a ring: a slot is kept for each code and filled when the
    group's length is known, so that every beat costs one write.

    Throughput: 1 beat a cycle and two more cycles a frame in, a byte in 3 cycles out.
    Latency: 4 cycles from the end beat to the first wire byte.
    Cost: about 130 LC and one 512 x 8 block RAM on iCE40.  Back-pressure: stalls, never drops.

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
        m = Module()
        m.submodules.ring = ring = memory.Memory(shape=8, depth=_DEPTH, init=[])
        write, read = ring.write_port(), ring.read_port()

        # Pointers have a bit more than addresses. `sent` <= `closed` <= `slot` < `place`.
        bits = len(write.addr)
        place = Signal(bits + 1)  # next byte
        slot = Signal(bits)  # code of the open group; reserved before its first byte
        closed = Signal(bits + 1)  # end of the last whole frame
        sent = Signal(bits + 1)
        code = Signal(8)
        # Room is told in eighths of the ring and a cycle late: "full" leaves an eighth unused.
        full = Signal()
        m.d.sync += full.eq((place - sent)[bits - 3 : bits].all())

        step = Signal(2)
        reserve, take, delimit = 0, 1, 2
        is_zero = self.i.payload.data == 0
        m.d.comb += self.i.ready.eq((step == take) & ~full)
        with m.Switch(step):
            with m.Case(reserve), m.If(self.i.valid & ~full):
                m.d.sync += [slot.eq(place), place.eq(place + 1), code.eq(1), step.eq(take)]
            with m.Case(take):
                m.d.comb += write.en.eq(self.i.valid & ~full)
                with m.If(self.i.payload.end | is_zero):
                    m.d.comb += [write.addr.eq(slot), write.data.eq(code)]
                with m.Else():
                    m.d.comb += [write.addr.eq(place), write.data.eq(self.i.payload.data)]
                with m.If(self.i.valid & ~full):
                    with m.If(self.i.payload.end):
                        m.d.sync += step.eq(delimit)
                    with m.Else():
                        m.d.sync += [place.eq(place + 1), code.eq(Mux(is_zero, 1, code + 1))]
                        with m.If(is_zero):
                            m.d.sync += slot.eq(place)
            with m.Case(delimit):
                m.d.comb += [write.addr.eq(place), write.data.eq(0), write.en.eq(~full)]
                with m.If(~full):
                    m.d.sync += [place.eq(place + 1), closed.eq(place + 1), step.eq(reserve)]
        # A frame whose end was taken is whole: it is not aborted between its code and zero.
        with m.If(self.abort & (step != delimit)):
            m.d.sync += [place.eq(closed), step.eq(reserve)]

        # A byte is fetched, registered (block RAM is slow), offered: 3 cycles, and a line has many.
        fetch = Signal()
        fetched = Signal()
        waiting = Signal()  # a cycle old, while a fetch takes three
        m.d.comb += [
            fetch.eq(waiting & ~fetched & ~self.o.valid),
            read.en.eq(fetch),
            read.addr.eq(sent),
        ]
        m.d.sync += [fetched.eq(fetch), waiting.eq(sent != closed)]
        with m.If(fetch):
            m.d.sync += sent.eq(sent + 1)
        with m.If(fetched):
            m.d.sync += [self.o.payload.eq(read.data), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
