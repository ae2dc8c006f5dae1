# SPDX-License-Identifier: BSD-2-Clause
"""A stream from one clock domain to another."""

from amaranth import *
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Crossing"]


class Crossing(wiring.Component):
    """A stream whose two ends have clocks of their own, in any relation.

    Both domains have to be reset together, the one of `i` no shorter than that of `o`.

    Throughput: 1 item a cycle of the slower clock.  Latency: about 3 cycles of the clock of `o`
    and one of that of `i`.  Back-pressure: stalls, never drops.
    Cost: a memory of `depth` items read at a clock edge, and Gray counters (`amaranth.lib.fifo`).

    Parameters
    ----------
    shape : of an item
    depth : items it holds, a power of two
    i_domain, o_domain : names of the clock domains

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    """

    def __init__(self, *, shape, depth: int, i_domain: str, o_domain: str):
        self._width = Shape.cast(shape).width
        self._depth, self._domains = depth, (i_domain, o_domain)
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        i_domain, o_domain = self._domains
        m.submodules.fifo = queue = fifo.AsyncFIFO(
            width=self._width,
            depth=self._depth,
            w_domain=i_domain,
            r_domain=o_domain,
            exact_depth=True,
        )
        m.d.comb += [
            queue.w_data.eq(Value.cast(self.i.payload)),
            queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy),
            Value.cast(self.o.payload).eq(queue.r_data),
            self.o.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o.ready),
        ]
        return m
