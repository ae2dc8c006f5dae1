# SPDX-License-Identifier: BSD-2-Clause
"""SharedSpram: one SPRAM whose port several stores have in turn.

    Turns --> turn ----------+
    store 0: address, write --+--> gates --> OR --> SPRAM --> data, to all of them
    store 1: address, write --+

A store with a share of 1/n reads in one cycle of n and has an n-th of the words. Its turn, read
from the lowest bit up, is the top of its addresses: stores whose turns never meet never meet in an
address either. Nothing waits for a grant, so what a layer does depends on no other one, and its
cycles are known beforehand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorforge.hw.ram import Spram
from xnorforge.hw.store_config import SPRAM_SHAPE, SPRAM_SHARES

__all__ = [
    "SHARED_PORT",
    "TURN_BITS",
    "SharedSpram",
    "SharedSpramConfig",
    "SpramShare",
    "Turns",
    "pack_shares",
]

_WIDTH, _DEPTH = SPRAM_SHAPE
TURN_BITS = ceil_log2(SPRAM_SHARES[-1])

#: What a store says to a shared SPRAM: as the ports of `hw.ram.Spram`, its words from address 0 on.
SHARED_PORT = wiring.Signature(
    {
        "write_enable": Out(1),
        "address": Out(ceil_log2(_DEPTH) - 1),
        "write_data": Out(_WIDTH),
        "ram_data": In(_WIDTH),
    }
)


@dataclass(frozen=True)
class SpramShare:
    """One store's part of an SPRAM. share: one cycle in so many. turn: which, 0 to share - 1."""

    share: int
    turn: int

    def __post_init__(self) -> None:
        if self.share not in SPRAM_SHARES[1:]:
            known = ", ".join(map(str, SPRAM_SHARES[1:]))
            raise ValueError(f"A share of an SPRAM must be one of {known}, not {self.share!r}")
        if not 0 <= self.turn < self.share:
            raise ValueError(f"Turn must be from 0 to {self.share - 1}, not {self.turn!r}")

    @property
    def base(self) -> int:
        """Its first address: the turn's bits from the top, the lowest first."""
        return _reversed(self.turn, self.share) * (_DEPTH // self.share)

    def meets(self, other: "SpramShare") -> bool:
        """Whether there are cycles in which both have their turn."""
        return (self.turn - other.turn) % min(self.share, other.share) == 0


@dataclass(frozen=True)
class SharedSpramConfig:
    """The shares of an SPRAM's stores. Raises ValueError where turns of two of them meet."""

    shares: tuple[SpramShare, ...]

    def __post_init__(self) -> None:
        for one, other in combinations(self.shares, 2):
            if one.meets(other):
                raise ValueError(f"Two stores have the same turn of an SPRAM: {one} and {other}")


def pack_shares(shares: Sequence[int]) -> list[tuple[int, SpramShare]]:
    """(number of the SPRAM, share) for stores with these shares, in as few SPRAMs as possible.

    The largest part first: parts of a half, a quarter or an eighth then leave no gaps.
    """
    eighths = SPRAM_SHARES[-1]
    place = 0
    found: dict[int, tuple[int, SpramShare]] = {}
    for index in sorted(range(len(shares)), key=lambda index: shares[index]):
        share = shares[index]
        spram, offset = divmod(place, eighths)
        turn = _reversed(offset * share // eighths, share)
        found[index] = spram, SpramShare(share, turn)
        place += eighths // share
    return [found[index] for index in range(len(shares))]


def _reversed(value: int, count: int) -> int:
    """The bits of 0 .. count - 1, a power of two, the other way round."""
    return int(f"{value:0{ceil_log2(count)}b}"[::-1], 2)


class Turns(wiring.Component):
    """Counts the turns of the shared SPRAMs from the first beat of the first image on.

    So the cycles of an image after a reset do not depend on when it comes.

    Members
    -------
    begin : In(1)
        A beat of an image is taken. The first since the reset is taken in turn 0.
    turn : Out(TURN_BITS)
        Of this cycle; 0 before the first beat.
    """

    def __init__(self):
        super().__init__({"begin": In(1), "turn": Out(TURN_BITS)})

    def elaborate(self, platform):
        m = Module()
        running = Signal()
        with m.If(self.begin):
            m.d.sync += running.eq(1)
        with m.If(self.begin | running):
            m.d.sync += self.turn.eq(self.turn + 1)
        return m


class SharedSpram(wiring.Component):
    """One SPRAM read by several stores, each in its turn.

    A store's address counts in cycles of its turn only; `ram_data` shows that word in the next
    cycle, and anything in all others. A write takes the cycle whoever has the turn; two stores
    never write at once, as the weight chain is loaded byte by byte.

    Throughput: a word every `share` cycles for each store.  Latency: 1 cycle.  Cost: one
    SB_SPRAM256KA; about a LUT4 an address bit and a data bit for each two stores.

    Parameters
    ----------
    config : SharedSpramConfig

    Members
    -------
    turn : In(TURN_BITS)
    ports : array of In(SHARED_PORT)
        Of the stores, in the order of their shares.
    """

    def __init__(self, *, config: SharedSpramConfig):
        self.config = config
        ports = In(SHARED_PORT).array(len(config.shares))
        super().__init__({"turn": In(TURN_BITS), "ports": ports})

    def elaborate(self, platform):
        m = Module()
        m.submodules.spram = ram = Spram(width=_WIDTH, depth=_DEPTH)
        writes = Cat(port.write_enable for port in self.ports)
        addresses, words = [], []
        for number, (share, port) in enumerate(zip(self.config.shares, self.ports, strict=True)):
            chosen = Signal(name=f"chosen_{number}")
            turn = self.turn[: ceil_log2(share.share)] == share.turn
            m.d.comb += [
                chosen.eq(Mux(writes.any(), port.write_enable, turn)),
                port.ram_data.eq(ram.ram_data),
            ]
            own = port.address[: ceil_log2(_DEPTH // share.share)]
            addresses.append(Mux(chosen, own | share.base, 0))
            words.append(Mux(port.write_enable, port.write_data, 0))
        m.d.comb += [
            ram.write_enable.eq(writes.any()),
            ram.address.eq(reduce(or_, addresses)),
            ram.write_data.eq(reduce(or_, words)),
        ]
        return m
