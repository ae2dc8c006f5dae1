# SPDX-License-Identifier: BSD-2-Clause
"""ResultStore: results of several windows at once, in the order of the windows.

    word 0: | lane 0 | lane 1 |           lane 0: word 0, word 1, ...
    word 1: | lane 0 | lane 1 |   --->    lane 1: word 0, word 1, ...
    ...

An engine that works on a batch of windows gives a word of results for all of them together; the
stream behind it wants a window's words one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.batch import BatchCycle
from xnorforge.hw.ram import latched_ram
from xnorforge.hw.tally import Cycle, Tally

__all__ = ["ResultStore", "ResultStoreConfig"]


@dataclass(frozen=True)
class ResultStoreConfig:
    """Shape of a ResultStore.

    width: bits of one window's word. words: of a window. lanes: windows of a batch. windows: of
    an image. depth: words it holds, at least those of a window. store: "block" or "lut". family:
    key of `store.FAMILIES`.

    Raises
    ------
    ValueError
        A depth that does not hold a window's words.
    """

    width: int
    words: int
    lanes: int
    windows: int
    depth: int
    store: str
    family: str

    def __post_init__(self) -> None:
        if self.depth < self.words:
            raise ValueError(
                f"A result store of {self.depth} words cannot hold the {self.words} of a window"
            )

    @property
    def latency(self) -> int:
        """Cycles from a word's arrival to its first lane on `o`."""
        return 2

    def reference(self, words: Sequence[int]) -> list[int]:
        """Output beats of whole images, from their words (lane 0 in the low bits)."""
        batches = -(-self.windows // self.lanes)
        mask = (1 << self.width) - 1
        beats = []
        for number in range(len(words) // self.words):
            own = words[number * self.words : (number + 1) * self.words]
            live = min(self.lanes, self.windows - number % batches * self.lanes)
            beats += [word >> lane * self.width & mask for lane in range(live) for word in own]
        return beats


class ResultStore(wiring.Component):
    """Turns words of a batch of windows into the windows' words.

    The first window's words leave as they come, the others' from then on. A word's place is free
    again with the read of the last window's share of it; who gives the words counts the places.

    Cycles: a word taken in cycle t is read from t + 1 on; a read goes ahead in a cycle in which
    `o` is empty or transfers, and shows on `o` in the next.

    Throughput: a word in and a beat out every cycle.  Latency: `config.latency` cycles.  Cost: the
    memory, pointers and counters (about 8 cells and their bits), a multiplexer of the lanes.
    Back-pressure: `o` stalls the reads; `i` has none.

    Parameters
    ----------
    config : ResultStoreConfig

    Members
    -------
    word : In(lanes x width)
    write : In(1)
        Take the word. Only with a free place.
    freed : Out(1)
        A place is free from the next cycle on.
    o : Out(stream of width)
    """

    def __init__(self, *, config: ResultStoreConfig):
        self.config = c = config
        super().__init__(
            {
                "word": In(c.lanes * c.width),
                "write": In(1),
                "freed": Out(1),
                "o": Out(stream.Signature(unsigned(c.width))),
            }
        )

    def elaborate(self, platform):
        # `base` is the place of the first word of the batch that is being read.
        c = self.config
        m = Module()
        m.submodules.batch = batch = BatchCycle(windows=c.windows, lanes=c.lanes)
        m.submodules.place = place = Cycle(count=c.words)
        m.submodules.held = held = Tally(limit=c.depth)
        write_at, read_at, base = (
            Signal(range(c.depth), name=n) for n in ("write", "read", "base")
        )
        read, following = Signal(), Signal(range(c.depth))
        m.d.comb += [
            read.eq((held.some | ~batch.first) & (~self.o.valid | self.o.ready)),
            place.step.eq(read),
            batch.step.eq(read & place.last),
            held.up.eq(self.write),
            held.down.eq(read & batch.first),
            self.freed.eq(read & batch.last),
            following.eq(_next(read_at, c.depth)),
        ]
        with m.If(self.write):
            m.d.sync += write_at.eq(_next(write_at, c.depth))
        with m.If(read):
            m.d.sync += read_at.eq(following)
            with m.If(place.last & batch.last):
                m.d.sync += base.eq(following)
            with m.Elif(place.last):
                m.d.sync += read_at.eq(base)

        lane = Signal(range(c.lanes), name="lane")
        with m.If(read):
            m.d.sync += lane.eq(batch.value)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += self.o.valid.eq(read)
        word = self._memory(m, read, write_at, read_at)
        m.d.comb += self.o.payload.eq(word.word_select(lane, c.width))
        return m

    def _memory(self, m: Module, read: Value, write_at: Value, read_at: Value) -> Value:
        """The word read last."""
        # A place being written is never one being read.
        c = self.config
        shape = {"width": c.lanes * c.width, "depth": c.depth}
        ram, word = latched_ram(m, store=c.store, family=c.family, **shape, enable=read)
        m.d.comb += [
            ram.write_enable.eq(self.write),
            ram.write_address.eq(write_at),
            ram.write_data.eq(self.word),
            ram.read_address.eq(read_at),
        ]
        return word


def _next(pointer: Value, count: int) -> Value:
    """The pointer after this one among `count`."""
    return Mux(pointer == count - 1, 0, pointer + 1)
