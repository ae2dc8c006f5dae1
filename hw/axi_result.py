# SPDX-License-Identifier: BSD-2-Clause
"""Results as packets of 32-bit words: an image's scores in class order, then its label."""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.head import result_layout
from xnorforge.hw.stream import Queue
from xnorforge.sw.protocol import WORD_BITS, WORD_SPOILT

__all__ = ["WORD_LAYOUT", "ResultPacker"]

WORD_LAYOUT = data.StructLayout({"data": WORD_BITS, "last": 1, "user": 1})


class ResultPacker(wiring.Component):
    """A packet an image: its scores, sign extended, then `label | spoilt << 16` with `last`.

    `user` is high with the last word of a packet whose image was spoilt. A flush ends a packet
    that has begun with such a word, so that every packet ends, and drops the rest of it.

    Throughput: a word a cycle, classes + 1 an image.  Latency: 1 cycle.
    Back-pressure: stalls, never takes a word back.  Cost: two words of registers.

    Parameters
    ----------
    score_bits : of a score, up to 32

    Members
    -------
    i : In(stream.Signature(result_layout(score_bits)))
    spoilt : In(1)
        With the last beat of `i`: the image was not what had been sent.
    o : Out(stream.Signature(WORD_LAYOUT))
    flush : In(1)
    """

    def __init__(self, *, score_bits: int):
        super().__init__(
            {
                "i": In(stream.Signature(result_layout(score_bits))),
                "spoilt": In(1),
                "o": Out(stream.Signature(WORD_LAYOUT)),
                "flush": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(shape=WORD_LAYOUT, depth=2)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        begun, ends, spoilt = Signal(), Signal(), Signal()  # a packet has; its label is due; as it
        label = Signal(16)
        word = queue.i.payload
        taken = self.i.valid & self.i.ready
        with m.If(ends):
            m.d.comb += [
                queue.i.valid.eq(1),
                word.data.eq(Cat(label, Mux(spoilt, WORD_SPOILT >> 16, 0))),
                word.last.eq(1),
                word.user.eq(spoilt),
            ]
            with m.If(queue.i.ready):
                m.d.sync += [ends.eq(0), begun.eq(0)]
        with m.Else():
            m.d.comb += [
                queue.i.valid.eq(self.i.valid & ~self.flush),
                self.i.ready.eq(queue.i.ready & ~self.flush),
                word.data.eq(self.i.payload.score),
            ]
            with m.If(taken):
                m.d.sync += [
                    begun.eq(1),
                    ends.eq(self.i.payload.last),
                    label.eq(self.i.payload.label),
                    spoilt.eq(self.spoilt),
                ]
        with m.If(self.flush & begun & ~ends):
            m.d.sync += [ends.eq(1), spoilt.eq(1), label.eq(0)]
        return m
