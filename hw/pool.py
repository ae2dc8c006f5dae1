# SPDX-License-Identifier: BSD-2-Clause
"""PoolReducer: the greatest or the sum of a window's pixels, channel by channel.

    i (taps beats of the same channels) --> lane by lane: max or + --> o (one beat)

A window's pixels come out of a `SlidingWindow` whose groups are the beats of a pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.tally import Cycle

__all__ = ["PoolConfig", "PoolReducer", "combined"]


@dataclass(frozen=True)
class PoolConfig:
    """Shape of a PoolReducer.

    Parameters
    ----------
    channels : int
        Of a pixel.
    element_bits : int
        Bits of an element.
    kind : str
        "bit" (1 = +1, 0 = -1), "uint" or "int" (two's complement).
    lanes : int
        Elements a beat; divides `channels`.
    taps : int
        Pixels of a window.
    mode : str
        "max" or "sum".

    Raises
    ------
    ValueError
        A number below 1, lanes that do not divide the channels, an unknown kind or mode, bits of
        more than one bit.
    """

    channels: int
    element_bits: int
    kind: str
    lanes: int
    taps: int
    mode: str

    def __post_init__(self) -> None:
        for name in ("channels", "element_bits", "lanes", "taps"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"Pool {name.replace('_', ' ')} must be at least 1, not {value!r}")
        if self.kind not in ("bit", "uint", "int"):
            raise ValueError(f"Pool kind must be bit, uint or int, not {self.kind!r}")
        if self.kind == "bit" and self.element_bits != 1:
            raise ValueError(f"An element of kind bit has 1 bit, not {self.element_bits!r}")
        if self.mode not in ("max", "sum"):
            raise ValueError(f"Pool mode must be max or sum, not {self.mode!r}")
        if self.channels % self.lanes:
            raise ValueError(f"Lanes must divide the {self.channels} channels, not {self.lanes!r}")

    @property
    def pad_bits(self) -> int:
        """Stored bits of a padding element that takes no part.

        Raises ValueError for sums of bits, which have no such element.
        """
        if self.mode == "sum" and self.kind == "bit":
            raise ValueError("A sum of bits -1 and +1 has no element that takes no part in it")
        return 1 << (self.element_bits - 1) if (self.mode, self.kind) == ("max", "int") else 0

    @property
    def output_kind(self) -> str:
        """Kind of what goes out; sums of bits are integers."""
        return "int" if self.mode == "sum" and self.kind == "bit" else self.kind

    @property
    def output_bits(self) -> int:
        """Bits of an element that goes out: the least that hold every sum."""
        if self.mode == "max":
            return self.element_bits
        if self.kind == "bit":
            return self.taps.bit_length() + 1
        if self.kind == "uint":
            return (self.taps * ((1 << self.element_bits) - 1)).bit_length()
        return ((self.taps << (self.element_bits - 1)) - 1).bit_length() + 1

    @property
    def latency(self) -> int:
        """Cycles from a window's last beat to its result on `o`."""
        return 1

    @property
    def interval(self) -> int:
        """Cycles a result at full speed."""
        return self.taps

    def reference(self, beats: Sequence[int]) -> list[int]:
        """Output beats of whole windows, from their input beats (as plain integers)."""
        mask, out_mask = (1 << self.element_bits) - 1, (1 << self.output_bits) - 1
        out = []
        for first in range(0, len(beats), self.taps):
            beat = 0
            for lane in range(self.lanes):
                window = beats[first : first + self.taps]
                values = [self._value(b >> lane * self.element_bits & mask) for b in window]
                if self.mode == "sum":
                    result = sum(values)
                else:
                    result = (max(values) + 1) // 2 if self.kind == "bit" else max(values)
                beat |= (result & out_mask) << lane * self.output_bits
            out.append(beat)
        return out

    def _value(self, bits: int) -> int:
        """The number that stored bits stand for."""
        if self.kind == "bit":
            return 2 * bits - 1
        if self.kind == "int":
            return bits - (bits >> (self.element_bits - 1) << self.element_bits)
        return bits


class PoolReducer(wiring.Component):
    """Greatest or sum of `taps` beats, lane by lane.

    The greatest of bits is their OR; the sum of bits is twice their number less `taps`. Padding
    is the source's: `config.pad_bits`.

    Throughput: a beat in every cycle, a beat out every `taps` cycles.  Latency: 1 cycle from a
    window's last beat.  Cost: a register of `output_bits` a lane with an OR, an adder, or a
    comparison and a multiplexer.  Back-pressure: stalls, never drops; while a result waits on `o`
    nothing enters, and `i.ready` follows `o.ready` in the same cycle.

    Parameters
    ----------
    config : PoolConfig

    Members
    -------
    i : In(stream of lanes x element_bits)
        For every result `taps` beats of the same channels.
    o : Out(stream of lanes x output_bits)
    """

    def __init__(self, *, config: PoolConfig):
        self.config = c = config
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(c.lanes * c.element_bits))),
                "o": Out(stream.Signature(unsigned(c.lanes * c.output_bits))),
            }
        )

    def elaborate(self, platform):
        c = self.config
        m = Module()
        m.submodules.tap = tap = Cycle(count=c.taps)
        taken = self.i.valid & self.i.ready
        m.d.comb += [self.i.ready.eq(~self.o.valid | self.o.ready), tap.step.eq(taken)]
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid & tap.last)

        lanes = []
        for lane in range(c.lanes):
            bits = self.i.payload[lane * c.element_bits : (lane + 1) * c.element_bits]
            value = bits.as_signed() if c.kind == "int" else bits
            shape = signed(c.output_bits) if c.output_kind == "int" else unsigned(c.output_bits)
            result = Signal(shape, name=f"result_{lane}", reset_less=True)
            with m.If(taken):
                m.d.sync += result.eq(combined(c, tap.first, result, value))
            lanes.append(result)
        m.d.comb += self.o.payload.eq(Cat(lanes))
        return m


def combined(config: PoolConfig, first: Value, result: Value, value: Value) -> Value:
    """The result so far and the next value; at a window's first tap the value alone."""
    if config.mode == "max":
        if config.kind == "bit":
            return (result & ~first) | value
        return Mux(first | (value > result), value, result)
    if config.kind == "bit":
        # Each +1 adds 2 to a start at -taps, so the low bit is constant.
        start = C(-config.taps, signed(config.output_bits))
        return Mux(first, start, result) + Cat(C(0, 1), value)
    return Mux(first, 0, result) + value
