# SPDX-License-Identifier: BSD-2-Clause
"""A word that synthesis must make, bit by bit, before it makes anything else of it.

Technology mapping restructures logic freely and for speed first; circuits whose tables have been
counted out by hand come out larger. `gen.synthesis` knows these modules by name and keeps their
bits apart: what lies between two barriers is mapped by itself. Anywhere else a barrier is two
inversions, one inside and one that its user writes, and costs nothing.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BARRIER_PREFIX", "Barrier", "kept"]

BARRIER_PREFIX = "barrier_"
"""How the submodule names of barriers begin, and of nothing else."""


class Barrier(wiring.Component):
    """The inverse of a word, each bit of it made: `o = ~i`.

    Inverted because a module that only passes wires on would vanish before synthesis sees it.

    Throughput, latency: combinational.  Cost: no cells.

    Parameters
    ----------
    width : bits of the word

    Members
    -------
    i, o : In(width), Out(width)
    """

    def __init__(self, *, width: int):
        super().__init__({"i": In(width), "o": Out(width)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += self.o.eq(~self.i)
        return m


def kept(m: Module, bits: list[Value], *, name: str) -> list[Value]:
    """`bits` through a barrier; `name` is unique in the module."""
    barrier = Barrier(width=len(bits))
    m.submodules[BARRIER_PREFIX + name] = barrier
    m.d.comb += barrier.i.eq(Cat(bits))
    return [~barrier.o[k] for k in range(len(bits))]
