# SPDX-License-Identifier: BSD-2-Clause
"""Changes the number of lanes a vector travels in.

      i: I lanes a beat --> [ buffer, `level` elements ] --> o: O lanes a beat

A vector of N elements arrives in ceil(N / I) beats and leaves in ceil(N / O). The buffer never
holds elements of two vectors: a vector's last beats leave before the next one enters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["WidthConverter", "WidthConverterConfig", "beat_shape"]


def beat_shape(element_bits: int, lanes: int):
    """Payload of a beat of a vector: an array of lanes, or one bit a lane for 1-bit elements."""
    return unsigned(lanes) if element_bits == 1 else data.ArrayLayout(element_bits, lanes)


@dataclass(frozen=True)
class WidthConverterConfig:
    """Shape of a `WidthConverter`.

    elements: of a vector. element_bits: of an element. lanes_in, lanes_out: elements a beat.

    Raises
    ------
    TypeError, ValueError: anything that is no positive integer.
    """

    elements: int
    element_bits: int
    lanes_in: int
    lanes_out: int

    def __post_init__(self):
        for name in ("elements", "element_bits", "lanes_in", "lanes_out"):
            value = getattr(self, name)
            text = name.replace("_", " ")
            if not isinstance(value, int):
                raise TypeError(f"Width converter {text} must be an integer, not {value!r}")
            if value < 1:
                raise ValueError(f"Width converter {text} must be at least 1, not {value!r}")

    @property
    def unit(self) -> int:
        """The buffer is filled and emptied in units of so many elements."""
        return gcd(self.lanes_in, self.lanes_out)

    @property
    def beats_in(self) -> int:
        return -(-self.elements // self.lanes_in)

    @property
    def beats_out(self) -> int:
        return -(-self.elements // self.lanes_out)

    @property
    def last_units(self) -> int:
        """Units that the last input beat of a vector brings."""
        last = self.elements - (self.beats_in - 1) * self.lanes_in
        return -(-last // self.unit)

    @property
    def aligned(self) -> bool:
        """Whether vectors are whole beats on both sides, so that their ends need no attention."""
        return self.elements % self.lanes_in == 0 and self.elements % self.lanes_out == 0

    @property
    def latency(self) -> int:
        """Cycles from the input beat that completes an output beat to the earliest transfer."""
        return 0 if self.lanes_in == self.lanes_out else 1

    @property
    def interval(self) -> int:
        """Cycles a vector at full speed."""
        return max(self.beats_in, self.beats_out)

    def reference(self, beats: Sequence[int]) -> list[int]:
        """Output beats of whole vectors, from their input beats (as plain integers).

        Lanes past the end of a vector are 0 here, and anything in the circuit.
        """
        bits_in, bits_out = (n * self.element_bits for n in (self.lanes_in, self.lanes_out))
        mask, out_mask = (1 << self.elements * self.element_bits) - 1, (1 << bits_out) - 1
        out = []
        for first in range(0, len(beats), self.beats_in):
            vector = sum(b << k * bits_in for k, b in enumerate(beats[first:][: self.beats_in]))
            out += [(vector & mask) >> k * bits_out & out_mask for k in range(self.beats_out)]
        return out


class WidthConverter(wiring.Component):
    """Changes the number of lanes a vector travels in.

    The rule, with `level` the elements in the buffer and `draining` from a vector's last input
    beat to its last output beat:

    - `o.valid` = level >= O, or draining;
    - `i.ready` = level < O, or `o.ready` and level < 2 O; while draining instead: `o.ready` and
      level <= O. The next vector's first beat can thus enter while the last output beat leaves.

    A beat taken in cycle t is in `o` from t + 1 on. With equal lanes the component is wires.

    Throughput: an input or an output beat every cycle, whichever are more.
    Latency: `config.latency` cycles.  Cost: see docs/blocks/streams.md.
    Back-pressure: stalls, never drops; `i.ready` follows `o.ready` in the same cycle.

    Parameters
    ----------
    config : WidthConverterConfig

    Members
    -------
    i : In(stream.Signature(beat_shape(element_bits, lanes_in)))
    o : Out(stream.Signature(beat_shape(element_bits, lanes_out)))
    """

    def __init__(self, *, config: WidthConverterConfig):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(beat_shape(config.element_bits, config.lanes_in))),
                "o": Out(stream.Signature(beat_shape(config.element_bits, config.lanes_out))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes_in, lanes_out = self.config.lanes_in, self.config.lanes_out
        if lanes_in == lanes_out:
            wiring.connect(m, wiring.flipped(self.i), wiring.flipped(self.o))
        elif lanes_out % lanes_in == 0:
            self._gather(m)
        elif lanes_in % lanes_out == 0:
            self._split(m)
        else:
            self._gearbox(m)
        return m

    def _last_in(self, m, taken):
        """High while the next input beat is the last of its vector."""
        beats = self.config.beats_in
        if beats == 1:
            return C(1)
        beat = Signal(range(beats), name="beat_in")
        with m.If(taken):
            m.d.sync += beat.eq(Mux(beat == beats - 1, 0, beat + 1))
        return beat == beats - 1

    def _gather(self, m):
        # Beats shift in from the top until the buffer is full. At the end of a ragged vector the
        # last beat lands lower and the ones before it move the rest of the way at once.
        config = self.config
        chunk = config.lanes_in * config.element_bits
        count = min(config.lanes_out // config.lanes_in, config.beats_in)
        ragged = config.beats_in % count
        chunks = [Signal(chunk, name=f"chunk_{k}", reset_less=True) for k in range(count)]
        valid = Signal()
        taken = self.i.valid & self.i.ready
        last = self._last_in(m, taken) if ragged else C(0)
        filled = Signal(range(count))
        full = (filled == count - 1) | last
        with m.If(taken):
            m.d.sync += filled.eq(Mux(full, 0, filled + 1))
        m.d.comb += [
            self.o.valid.eq(valid),
            self.i.ready.eq(~valid | self.o.ready),
            Value.cast(self.o.payload).eq(Cat(chunks)),
        ]
        sources = [*chunks[1:], Value.cast(self.i.payload)]
        with m.If(taken):
            for k, target in enumerate(chunks):
                source = sources[k]
                if k < ragged:
                    source = Mux(last, sources[k + count - ragged], source)
                m.d.sync += target.eq(source)
        with m.If(self.i.ready):
            m.d.sync += valid.eq(self.i.valid & full)

    def _split(self, m):
        # A beat is loaded whole and shifts down; `level` counts the chunks left.
        config = self.config
        chunk = config.lanes_out * config.element_bits
        count = config.lanes_in // config.lanes_out
        level = Signal(range(count + 1))
        buffer = Signal(count * chunk, reset_less=True)
        taken = self.i.valid & self.i.ready
        brought = C(count, level.shape())
        if config.last_units != count:
            brought = Mux(self._last_in(m, taken), config.last_units, count)
        m.d.comb += [
            self.o.valid.eq(level != 0),
            self.i.ready.eq((level == 0) | ((level == 1) & self.o.ready)),
            Value.cast(self.o.payload).eq(buffer[:chunk]),
        ]
        with m.If(taken):
            m.d.sync += [buffer.eq(self.i.payload), level.eq(brought)]
        with m.Elif(self.o.valid & self.o.ready):
            m.d.sync += [buffer.eq(buffer >> chunk), level.eq(level - 1)]

    def _gearbox(self, m):
        # What is left after an output beat moves to the bottom; a new beat is shifted to where
        # that ends and merged in. Above `level` the buffer is zero, except at a vector's end. So
        # the lanes past an output beat can always move down: they hold something only if it left.
        config = self.config
        unit_bits = config.unit * config.element_bits
        units_in, units_out = config.lanes_in // config.unit, config.lanes_out // config.unit
        capacity = units_in + units_out - 1
        level = Signal(range(capacity + 1))
        kept_level = Signal(range(units_out))
        buffer = Signal(capacity * unit_bits)
        draining = Signal()
        taken = self.i.valid & self.i.ready
        left = self.o.valid & self.o.ready
        brought = C(units_in)
        ends = level <= units_out  # while draining: this output beat is the last
        if not config.aligned:
            last = self._last_in(m, taken)
            brought = Mux(last, config.last_units, units_in)
            with m.If(taken):
                m.d.sync += draining.eq(last)
            with m.Elif(left & ends):
                m.d.sync += draining.eq(0)
        room = (level < units_out) | (self.o.ready & (level < 2 * units_out))
        m.d.comb += [
            self.o.valid.eq((level >= units_out) | draining),
            self.i.ready.eq(Mux(draining, self.o.ready & ends, room)),
            Value.cast(self.o.payload).eq(buffer[: units_out * unit_bits]),
            kept_level.eq(Mux(self.o.valid, Mux(ends, 0, level - units_out), level)),
        ]
        out_bits = units_out * unit_bits
        moved = buffer >> out_bits
        kept = Cat(Mux(left, moved, buffer)[:out_bits], moved[out_bits:])
        if not config.aligned:
            kept = Mux(draining & ends, 0, kept)
        beat = Mux(taken, Value.cast(self.i.payload), 0)
        with m.If(taken | left):
            m.d.sync += buffer.eq(kept | (beat << kept_level * unit_bits))
        with m.If(taken):
            m.d.sync += level.eq(kept_level + brought)
        with m.Elif(left):
            m.d.sync += level.eq(Mux(ends, 0, level - units_out))
