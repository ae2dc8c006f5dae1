# SPDX-License-Identifier: BSD-2-Clause
"""AddUnit: a weighed sum of several maps, element by element, as residual connections have it.

i_0 --> x m_0 --+
i_1 --> x m_1 --+--> + offset --> queue --> o         m, offset: of the channel
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.store import StoreConfig
from xnorforge.hw.stream import Queue
from xnorforge.hw.tally import Cycle, Tally

__all__ = ["AddConfig", "AddUnit"]


@dataclass(frozen=True)
class AddConfig:
    """Shape of an AddUnit.

    Parameters
    ----------
    channels : int
        Elements of a vector.
    lanes : int
        Elements a beat.
    kinds, bits : tuple of str, tuple of int
        Of each source: "bit" (1 = +1, 0 = -1), "uint" or "int" elements of that many bits.
    output_bits : int
        Width of the signed sum.
    multiplier_bits : tuple of int
        Width of each source's signed multipliers; 0: all are 1.
    offset_bits : int
        Width of the signed offsets; 0: there are none.
    store, family, slots : str, str, int
        Kind of `hw.store` for multipliers and offsets, its family, and the models it holds.

    Raises
    ------
    ValueError
        Less than two sources, tuples of different lengths, a number outside its range.
    """

    channels: int
    lanes: int
    kinds: tuple[str, ...]
    bits: tuple[int, ...]
    output_bits: int
    multiplier_bits: tuple[int, ...]
    offset_bits: int = 0
    store: str = "lut"
    family: str = "ecp5"
    slots: int = 1

    def __post_init__(self) -> None:
        if len(self.kinds) < 2:
            raise ValueError(f"Adds at least two sources, not {len(self.kinds)}")
        if not len(self.kinds) == len(self.bits) == len(self.multiplier_bits):
            raise ValueError("Every source has a kind, a width and a width of its multipliers")
        if not 1 <= self.lanes <= self.channels:
            raise ValueError(f"Lanes must be between 1 and {self.channels}, not {self.lanes!r}")
        for kind, bits in zip(self.kinds, self.bits, strict=True):
            if kind not in ("bit", "uint", "int"):
                raise ValueError(f"Source kind must be bit, uint or int, not {kind!r}")
            if bits < 1 or (kind == "bit" and bits != 1):
                raise ValueError(f"A {kind} element cannot have {bits!r} bits")
        if self.output_bits < 1:
            raise ValueError(f"Output bits must be at least 1, not {self.output_bits!r}")
        if min(*self.multiplier_bits, self.offset_bits) < 0:
            raise ValueError("Widths of multipliers and offsets must not be negative")

    @classmethod
    def number_widths(cls, multipliers: np.ndarray, offsets: np.ndarray) -> dict[str, object]:
        """`multiplier_bits` and `offset_bits` that hold these numbers, as keywords."""
        return {
            "multiplier_bits": tuple(
                0 if (factors == 1).all() else _signed_bits(factors) for factors in multipliers
            ),
            "offset_bits": _signed_bits(offsets) if offsets.any() else 0,
        }

    @property
    def nf(self) -> int:
        """Beats of a vector."""
        return -(-self.channels // self.lanes)

    @property
    def lane_bits(self) -> int:
        """Bits of one lane in a word."""
        return sum(self.multiplier_bits) + self.offset_bits

    @property
    def store_config(self) -> StoreConfig | None:
        """The memory of multipliers and offsets; None where there are none."""
        if not self.lane_bits:
            return None
        return StoreConfig(
            width=self.lanes * self.lane_bits,
            depth=self.nf,
            kind=self.store,
            family=self.family,
            slots=self.slots,
        )

    @property
    def store_latency(self) -> int:
        return self.store_config.latency if self.store_config else 0

    @property
    def multiplies(self) -> bool:
        return any(self.multiplier_bits)

    @property
    def interval(self) -> int:
        """Cycles a beat."""
        return 1

    @property
    def latency(self) -> int:
        """Cycles from a transfer on the inputs to the earliest transfer of its sum on `o`."""
        return self.store_latency + self.multiplies + 2

    @property
    def credits(self) -> int:
        """Depth of the output queue, which hides the pipeline."""
        return self.latency + 1

    # --- contents --------------------------------------------------------------------------

    def words(self, multipliers: np.ndarray, offsets: np.ndarray) -> list[int]:
        """Words of the store, one a beat: int64 (sources, channels) and (channels,).

        Lane p at `p * lane_bits`: the multipliers, source 0 lowest, then the offset.

        Raises
        ------
        ValueError
            Numbers that do not fit their widths, or whose sum does not fit `output_bits`.
        """
        low = high = offsets
        for factors, (least, most) in zip(multipliers, self._ends, strict=True):
            low = low + np.minimum(factors * least, factors * most)
            high = high + np.maximum(factors * least, factors * most)
        if max(_signed_bits(low), _signed_bits(high)) > self.output_bits:
            raise ValueError(
                f"Sums from {low.min()} to {high.max()} do not fit {self.output_bits} bits"
            )
        widths = (*self.multiplier_bits, self.offset_bits)
        numbers = [*multipliers, offsets]
        neutral = [1] * len(multipliers) + [0]
        for bits, values, without in zip(widths, numbers, neutral, strict=True):
            fits = _signed_bits(values) <= bits if bits else (values == without).all()
            if not fits:
                raise ValueError(f"Numbers {values.min()} to {values.max()} do not fit {bits} bits")
        words = []
        for first in range(0, self.nf * self.lanes, self.lanes):
            word = place = 0
            for channel in range(first, first + self.lanes):
                for bits, values in zip(widths, numbers, strict=True):
                    value = int(values[channel]) if channel < self.channels else 0
                    word |= (value & ((1 << bits) - 1)) << place
                    place += bits
            words.append(word)
        return words

    @property
    def _ends(self) -> list[tuple[int, int]]:
        """Smallest and largest number of each source."""
        ends = {"bit": lambda b: (-1, 1), "uint": lambda b: (0, (1 << b) - 1)}
        ends["int"] = lambda b: (-(1 << (b - 1)), (1 << (b - 1)) - 1)
        return [ends[kind](bits) for kind, bits in zip(self.kinds, self.bits, strict=True)]

    def reference(
        self, sources: Sequence[np.ndarray], multipliers: np.ndarray, offsets: np.ndarray
    ) -> np.ndarray:
        """Vectors (N, channels) of each source -> sums. Elements of "bit" are 0/1."""
        total = np.zeros_like(sources[0], dtype=np.int64) + offsets
        for kind, values, factors in zip(self.kinds, sources, multipliers, strict=True):
            x = values.astype(np.int64)
            total += factors * (2 * x - 1 if kind == "bit" else x)
        return total


def _signed_bits(values: np.ndarray) -> int:
    """Bits of a two's complement number that can be any of these."""
    return max(int(values.max()), ~int(values.min()), 0).bit_length() + 1


class AddUnit(wiring.Component):
    """Adds the beats of its sources, which it takes together.

    Throughput: 1 beat per cycle.  Latency: `config.latency` cycles from the beats to the sum.
    Cost: per lane a multiplier where one is not 1, an adder a further source; registers for the
    beats while the store is read; the queue.
    Back-pressure: takes no beat while another source has none, or the sum no room; drops none.

    Parameters
    ----------
    config : AddConfig

    Members
    -------
    i_0, i_1, ... : In(stream of lanes x bits)
        A source each; `ready` follows the others' `valid` in the same cycle.
    o : Out(stream of lanes x output_bits)
        Two's complement.
    address, data : Out, In
        To the store and back after its latency; only with `config.store_config`.
    """

    def __init__(self, *, config: AddConfig):
        self.config = c = config
        ports = {
            f"i_{k}": In(stream.Signature(unsigned(c.lanes * bits)))
            for k, bits in enumerate(c.bits)
        }
        ports["o"] = Out(stream.Signature(unsigned(c.lanes * c.output_bits)))
        if c.store_config:
            ports["address"] = Out(c.store_config.address_bits)
            ports["data"] = In(c.store_config.width)
        super().__init__(ports)

    @property
    def inputs(self) -> list:
        """The input streams."""
        return [getattr(self, f"i_{k}") for k in range(len(self.config.bits))]

    def elaborate(self, platform):
        # Beats that are taken go their way without a stall; their room in the queue is a "credit".
        c = self.config
        m = Module()
        m.submodules.credit = credit = Tally(limit=c.credits, init=c.credits)
        m.submodules.queue = queue = Queue(shape=self.o.payload.shape(), depth=c.credits)
        taken = Signal()
        m.d.comb += [
            taken.eq(Cat(i.valid for i in self.inputs).all() & credit.some),
            credit.down.eq(taken),
            credit.up.eq(self.o.valid & self.o.ready),
        ]
        for k, i in enumerate(self.inputs):
            others = [other.valid for n, other in enumerate(self.inputs) if n != k]
            m.d.comb += i.ready.eq(Cat(others).all() & credit.some)
        if c.store_config:
            m.submodules.beat = beat = Cycle(count=c.nf)
            m.d.comb += [beat.step.eq(taken), self.address.eq(beat.value)]

        beats = [_later(m, i.payload, c.store_latency, f"x_{k}") for k, i in enumerate(self.inputs)]
        sums = []
        for lane in range(c.lanes):
            numbers = [
                self._number(k, beat[lane * bits : (lane + 1) * bits])
                for k, (beat, bits) in enumerate(zip(beats, c.bits, strict=True))
            ]
            sums.append(self._sum(m, lane, numbers))
        finished = taken
        for stage in range(1, c.latency):
            later = Signal(name=f"taken_{stage}")
            m.d.sync += later.eq(finished)
            finished = later
        m.d.comb += [queue.i.valid.eq(finished), queue.i.payload.eq(Cat(sums))]
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        return m

    def _number(self, source: int, element: Value) -> Value:
        """A stored element as a signed number."""
        kind = self.config.kinds[source]
        if kind == "bit":
            return Cat(C(1, 1), ~element).as_signed()
        return element.as_signed() if kind == "int" else Cat(element, C(0, 1)).as_signed()

    def _sum(self, m, lane: int, numbers: list[Value]) -> Value:
        """One lane's sum, registered; products have a register before it."""
        c = self.config
        place = lane * c.lane_bits
        terms = []
        for bits, number in zip(c.multiplier_bits, numbers, strict=True):
            if bits:
                number = number * self.data[place : place + bits].as_signed()
                place += bits
            terms.append(number)
        if c.offset_bits:
            terms.append(self.data[place : place + c.offset_bits].as_signed())
        if c.multiplies:
            terms = [_later(m, term, 1, f"lane_{lane}_term_{k}") for k, term in enumerate(terms)]
        total = Signal(signed(c.output_bits), name=f"lane_{lane}_sum", reset_less=True)
        m.d.sync += total.eq(sum(terms[1:], terms[0]))
        return total


def _later(m: Module, value, cycles: int, name: str) -> Value:
    """`value` as it was `cycles` cycles ago."""
    value = Value.cast(value)
    for age in range(1, cycles + 1):
        stage = Signal(value.shape(), name=f"{name}_{age}", reset_less=True)
        m.d.sync += stage.eq(value)
        value = stage
    return value
