# SPDX-License-Identifier: BSD-2-Clause
"""Counters whose questions are answered by a register: is anything left, is this the last one.

A comparison of a wide count, made late in a cycle, is what limits the clock of handshakes; here it
is made a step ahead.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Cycle", "Tally"]


class Tally(wiring.Component):
    """How many of something there are: counts up and down, tells whether there is any.

    `down` is only allowed while `some` is high, `up` while there are fewer than `limit`; with both
    the count stays.

    Throughput: 1 step a cycle.  Latency: 1 cycle.  Cost: a cell a bit and about 4 more.

    Parameters
    ----------
    limit : the most there can be
    init : how many there are after reset

    Members
    -------
    up, down : In(1), In(1)
    some : Out(1)
        A register: the count is not zero.
    """

    def __init__(self, *, limit: int, init: int = 0):
        if not 0 <= init <= limit:
            raise ValueError(f"Tally init must be between 0 and {limit}, not {init!r}")
        self._limit = limit
        self._init = init
        super().__init__({"up": In(1), "down": In(1), "some": Out(1, init=init > 0)})

    def elaborate(self, platform):
        m = Module()
        count = Signal(range(self._limit + 1), init=self._init)
        with m.If(self.up != self.down):
            m.d.sync += [
                count.eq(count + Mux(self.up, 1, -1)),
                self.some.eq(self.up | (count != 1)),
            ]
        return m


class Cycle(wiring.Component):
    """Counts 0, 1, ... count - 1, 0, ...

    Throughput: 1 step a cycle.  Latency: 1 cycle.  Cost: a cell a bit, a comparison, 2 flip-flops.

    Parameters
    ----------
    count : steps of a round

    Members
    -------
    step : In(1)
        Go on.
    value : Out(range(count))
    first, last : Out(1), Out(1)
        Registers: `value` is 0; `value` is count - 1.
    """

    def __init__(self, *, count: int):
        if count < 1:
            raise ValueError(f"Cycle count must be at least 1, not {count!r}")
        self._count = count
        super().__init__(
            {
                "step": In(1),
                "value": Out(range(count)),
                "first": Out(1, init=1),
                "last": Out(1, init=count == 1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if self._count > 1:
            with m.If(self.step):
                m.d.sync += [
                    self.value.eq(Mux(self.last, 0, self.value + 1)),
                    self.first.eq(self.last),
                    self.last.eq(self.value == self._count - 2),
                ]
        return m
