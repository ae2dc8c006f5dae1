# SPDX-License-Identifier: BSD-2-Clause
"""ConcatUnit: joins the channels of several maps, pixel by pixel.

i_0 --+
i_1 --+--> the pixel's beats of source 0, then of source 1 ... --> queue --> o
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.stream import Queue
from xnorforge.hw.tally import Cycle

__all__ = ["ConcatConfig", "ConcatUnit"]


@dataclass(frozen=True)
class ConcatConfig:
    """Shape of a ConcatUnit.

    channels: of each source. element_bits: of an element. lanes: elements a beat, the same on all
    streams; divides the channels of all sources but the last, so that beats can follow each other.

    Raises
    ------
    ValueError: less than two sources, a number below 1, lanes that do not divide.
    """

    channels: tuple[int, ...]
    element_bits: int
    lanes: int

    def __post_init__(self) -> None:
        if len(self.channels) < 2:
            raise ValueError(f"Joins at least two sources, not {len(self.channels)}")
        if min(*self.channels, self.element_bits, self.lanes) < 1:
            raise ValueError("Channels, element bits and lanes must be at least 1")
        for channels in self.channels[:-1]:
            if channels % self.lanes:
                raise ValueError(f"Lanes must divide {channels} channels, not {self.lanes!r}")

    @property
    def beats(self) -> tuple[int, ...]:
        """Beats of a pixel, of each source."""
        return tuple(-(-channels // self.lanes) for channels in self.channels)

    @property
    def width(self) -> int:
        """Bits of a beat."""
        return self.lanes * self.element_bits

    @property
    def latency(self) -> int:
        """Cycles from a transfer of a source to the earliest transfer of this beat on `o`."""
        return 1

    @property
    def interval(self) -> int:
        """Cycles a pixel at full speed."""
        return sum(self.beats)

    def reference(self, sources: Sequence[np.ndarray]) -> np.ndarray:
        """Pixels (N, channels) of each source -> (N, sum of channels)."""
        return np.concatenate(sources, axis=-1)


class ConcatUnit(wiring.Component):
    """Takes a pixel's beats from one source after the other.

    Throughput: 1 beat a cycle.  Latency: 1 cycle.  Cost: the multiplexer of the sources, a queue
    of two beats.  Back-pressure: a source waits for its turn; never drops.

    Parameters
    ----------
    config : ConcatConfig

    Members
    -------
    i_0, i_1, ... : In(stream of lanes x element_bits)
    o : Out(stream of lanes x element_bits)
    """

    def __init__(self, *, config: ConcatConfig):
        self.config = config
        shape = unsigned(config.width)
        sources = range(len(config.channels))
        super().__init__(
            {
                **{f"i_{k}": In(stream.Signature(shape)) for k in sources},
                "o": Out(stream.Signature(shape)),
            }
        )

    @property
    def inputs(self) -> list:
        """The input streams."""
        return [getattr(self, f"i_{k}") for k in range(len(self.config.channels))]

    def elaborate(self, platform):
        # `turn`: which source has its turn, one bit each.
        config = self.config
        m = Module()
        m.submodules.queue = queue = Queue(shape=unsigned(config.width), depth=2)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        sources = len(config.channels)
        turn = Signal(sources, init=1)
        ends = Signal()
        for k, (i, beats) in enumerate(zip(self.inputs, config.beats, strict=True)):
            m.submodules[f"beat_{k}"] = beat = Cycle(count=beats)
            m.d.comb += [
                i.ready.eq(turn[k] & queue.i.ready),
                beat.step.eq(i.valid & i.ready),
            ]
            with m.If(turn[k]):
                m.d.comb += [
                    queue.i.valid.eq(i.valid),
                    queue.i.payload.eq(i.payload),
                    ends.eq(beat.step & beat.last),
                ]
        with m.If(ends):
            m.d.sync += turn.eq(turn.rotate_left(1))
        return m
