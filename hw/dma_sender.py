# SPDX-License-Identifier: BSD-2-Clause
"""Result words in blocks for a DMA that writes a ring of buffers.

    i --> queue --> four words a beat --> o         511 beats, then a trailer
            |
            +-> dropped, while words of an older lease may come ("purging")

`sw.blocks` holds the format and `docs/pcie.md` the rules.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.axi_result import WORD_LAYOUT
from xnorforge.hw.dma_receiver import BEAT_BITS
from xnorforge.hw.stream import Queue
from xnorforge.hw.tally import Cycle
from xnorforge.sw.blocks import BLOCK_BEATS, BLOCK_WORDS, INDEX_BITS
from xnorforge.sw.protocol import MAGIC, WORD_BITS

__all__ = ["QUIET_CYCLES", "DmaSender"]

QUIET_CYCLES = 64
"""Without a word: nothing is left in the crossing (16 words) or on its way through it."""

_LANES = BEAT_BITS // WORD_BITS
_QUEUE_WORDS = 32


class DmaSender(wiring.Component):
    """Words from a block's start, zeros after them, and a trailer with their count.

    A block begins with a word, while its index is not `credit`. It ends when it is full; where no
    word comes for `patience` cycles, or a lease begins, it is filled up with zeros.

    Throughput: 1 word a cycle where `o` takes a beat every 4, less the trailer's beat in 512;
    while it fills a block up, 1 beat a cycle.  Latency: 2 cycles from a beat's fourth word.
    Back-pressure: stalls; drops while it purges and while `enable` is low.
    Cost: 320 LUTs + 221 flip-flops of 7 series, 32 words of LUT RAM (yosys).

    Parameters
    ----------
    patience : cycles, at least 1

    Members
    -------
    i : In(stream.Signature(WORD_LAYOUT))
    o : Out(stream.Signature(128))
    enable : In(1)
        Low: the DMA is off. What is held is dropped, and indices begin anew.
    epoch, begin : In(8), In(1)
        With `begin` a lease of that epoch begins; a block has the epoch in which it begins.
    unsent : In(1)
        The host has sent nothing in this lease yet: what comes is of an older one.
    credit : In(24)
        Index before which blocks may begin.
    taken : In(24)
        For the trailer.
    purging : Out(1)
        From the cycle of `begin` on, until no word has come for `QUIET_CYCLES` and `unsent` is
        low: words are dropped.

    Raises
    ------
    ValueError: patience below 1.
    """

    def __init__(self, *, patience: int = 4096):
        if patience < 1:
            raise ValueError(f"DMA sender patience must be at least 1 cycle, not {patience!r}")
        self._patience = patience
        super().__init__(
            {
                "i": In(stream.Signature(WORD_LAYOUT)),
                "o": Out(stream.Signature(BEAT_BITS)),
                "enable": In(1),
                "epoch": In(8),
                "begin": In(1),
                "unsent": In(1),
                "credit": In(INDEX_BITS),
                "taken": In(INDEX_BITS),
                "purging": Out(1),
            }
        )

    def elaborate(self, platform):
        # A block is "open" from its first word until its trailer is in the register behind `o`,
        # and "closing" while it is filled up. A beat gathers in that register, too.
        m = Module()
        queue = Queue(shape=WORD_BITS, depth=_QUEUE_WORDS, store="lut")
        m.submodules.queue = ResetInserter(~self.enable)(queue)
        m.submodules.beat = beat = ResetInserter(~self.enable)(Cycle(count=BLOCK_BEATS))
        is_open, closing = Signal(), Signal()
        lane = Signal(range(_LANES))
        index, epoch = Signal(INDEX_BITS), Signal(8)
        count = Signal(range(BLOCK_WORDS + 1))
        word = queue.o.payload

        moves = self.o.valid & self.o.ready
        free = ~self.o.valid | self.o.ready
        ends = moves & (beat.value == BLOCK_BEATS - 2)  # the trailer is due
        drops = self.purging | ~self.enable
        allowed = ~drops & ~closing & (is_open | (index != self.credit))
        takes = queue.o.valid & free & ~ends & allowed
        m.d.comb += [
            queue.i.payload.eq(self.i.payload.data),
            queue.i.valid.eq(self.i.valid),
            self.i.ready.eq(queue.i.ready | ~self.enable),
            queue.o.ready.eq(takes | drops),
            beat.step.eq(moves),
        ]
        given_up = self._gives_up(m, is_open & ~queue.o.valid)
        with m.If(is_open & (self.begin | given_up)):
            m.d.sync += closing.eq(1)
        with m.If(moves):
            m.d.sync += self.o.valid.eq(0)
        with m.If(takes):
            for k in range(_LANES):
                with m.If(lane == k):  # the lanes behind it are zero, as the block may be closed
                    m.d.sync += self.o.payload[k * WORD_BITS :].eq(word)
            m.d.sync += [
                self.o.valid.eq(lane == _LANES - 1),
                lane.eq(lane + 1),
                is_open.eq(1),
                count.eq(Mux(is_open, count + 1, 1)),
            ]
            with m.If(~is_open):
                m.d.sync += epoch.eq(self.epoch)
        with m.Elif(ends):
            m.d.sync += [
                self.o.payload.eq(
                    Cat(index, epoch, count | C(0, 32), self.taken | C(0, 32), C(MAGIC, 32))
                ),
                self.o.valid.eq(1),
                is_open.eq(0),
                closing.eq(0),
                index.eq(index + 1),
            ]
        with m.Elif(closing & free):
            m.d.sync += [self.o.valid.eq(1), lane.eq(0)]
            with m.If(lane == 0):
                m.d.sync += self.o.payload.eq(0)
        with m.If(~self.enable):
            m.d.sync += [
                self.o.valid.eq(0),
                is_open.eq(0),
                closing.eq(0),
                lane.eq(0),
                index.eq(0),
            ]
        self._purge(m, self.i.valid | queue.o.valid)
        return m

    def _gives_up(self, m, waits) -> Value:
        """High in the last of `patience` cycles in which a block waited for a word."""
        waited = Signal(range(self._patience))
        last = waited == self._patience - 1
        m.d.sync += waited.eq(Mux(waits & ~last, waited + 1, 0))
        return waits & last

    def _purge(self, m, comes) -> None:
        purges = Signal()
        quiet = Signal(range(QUIET_CYCLES))
        m.d.comb += self.purging.eq(self.begin | purges)
        with m.If(self.begin):
            m.d.sync += [purges.eq(1), quiet.eq(0)]
        with m.Elif(comes):
            m.d.sync += quiet.eq(0)
        with m.Elif(quiet != QUIET_CYCLES - 1):
            m.d.sync += quiet.eq(quiet + 1)
        with m.Elif(~self.unsent):
            m.d.sync += purges.eq(0)
