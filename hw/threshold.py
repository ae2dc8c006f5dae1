# SPDX-License-Identifier: BSD-2-Clause
"""ThresholdUnit: how many thresholds of its channel a number meets, for several a channel.

    i --> x --------> compare (parallel or serial) --> ^ sign --> queue --> o
          |              ^
    address ---> store: levels of the lanes

A negative slope needs no negation: `-x >= T` holds for as many of the ascending levels `T_l` as
`x >= 1 - T_l` does not, and of 2^n - 1 levels those that do not are the inverted n-bit count.
"""

from dataclasses import dataclass

import numpy as np
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.border import WindowAddress, window_borders
from xnorforge.hw.geometry import WindowMap
from xnorforge.hw.mvu_config import MvuConfig
from xnorforge.hw.store import StoreConfig
from xnorforge.hw.stream import Queue
from xnorforge.hw.tally import Cycle, Tally
from xnorforge.hw.width import beat_shape

__all__ = ["ThresholdConfig", "ThresholdUnit"]

METHODS = ("parallel", "serial")
MOST_LEVELS = 15


@dataclass(frozen=True)
class ThresholdConfig:
    """Shape of a ThresholdUnit.

    Parameters
    ----------
    rows : int
        Channels of a vector.
    levels : int
        Thresholds a channel: 1, 3, 7 or 15.
    kind, bits : str, int
        "bit" (1 = +1, 0 = -1), "uint" or "int" elements of that many bits.
    lanes : int
        Elements a beat.
    method : str
        "parallel": a comparator a level and lane, a beat a cycle. "serial": one a lane, which
        searches in a cycle an output bit.
    signs : bool
        Channels have signs, see `words`.
    low : int or None
        The smallest number that comes, if it is not the smallest of its type.
    windows, sets :
        As in `MvuConfig`: thresholds of their own for border classes and for `sets` vectors that
        take turns.
    store, family, slots : str, str, int
        Kind of `hw.store` for the thresholds, its family, and the models it holds.

    Raises
    ------
    ValueError
        A number outside its range, an unknown kind or method.
    """

    rows: int
    levels: int
    kind: str
    bits: int
    lanes: int
    method: str = "parallel"
    signs: bool = False
    low: int | None = None
    windows: WindowMap | None = None
    sets: int = 1
    store: str = "lut"
    family: str = "ecp5"
    slots: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.lanes <= self.rows:
            raise ValueError(f"Lanes must be between 1 and {self.rows}, not {self.lanes!r}")
        if self.levels not in (1, 3, 7, MOST_LEVELS):
            raise ValueError(f"Levels must be 1, 3, 7 or 15, not {self.levels!r}")
        if self.kind not in ("bit", "uint", "int"):
            raise ValueError(f"Input kind must be bit, uint or int, not {self.kind!r}")
        if self.bits < 1 or (self.kind == "bit" and self.bits != 1):
            raise ValueError(f"A {self.kind} element cannot have {self.bits!r} bits")
        if self.method not in METHODS:
            raise ValueError(f"Threshold method must be parallel or serial, not {self.method!r}")
        if self.sets < 1:
            raise ValueError(f"Threshold sets must be at least 1, not {self.sets!r}")
        if self.low is not None and not self._type_low <= self.low <= self.high:
            raise ValueError(f"Smallest input must lie in its type, not be {self.low!r}")

    @classmethod
    def behind(
        cls, mvu: MvuConfig, levels: int, *, method: str = "parallel", store: str = "lut"
    ) -> "ThresholdConfig":
        """For the dot products of a MatrixVectorUnit, which has `scores` and no offsets."""
        return cls(
            rows=mvu.rows,
            levels=levels,
            kind="int",
            bits=mvu.score_bits,
            lanes=mvu.pe,
            method=method,
            low=-mvu.dot_high,
            windows=mvu.windows,
            sets=mvu.sets,
            store=store,
            family=mvu.family,
            slots=mvu.slots,
        )

    # --- numbers ---------------------------------------------------------------------------

    @property
    def output_bits(self) -> int:
        return self.levels.bit_length()

    @property
    def value_bits(self) -> int:
        """Bits of an element as a two's complement number."""
        return self.bits + (self.kind != "int")

    @property
    def _type_low(self) -> int:
        return {"bit": -1, "uint": 0, "int": -(1 << (self.bits - 1))}[self.kind]

    @property
    def lowest(self) -> int:
        """Smallest number that comes."""
        return self._type_low if self.low is None else self.low

    @property
    def high(self) -> int:
        """Largest number of the type."""
        return {"bit": 1, "uint": (1 << self.bits) - 1}.get(self.kind, ~self._type_low)

    @property
    def level_bits(self) -> int:
        """Bits of a stored level: a threshold's negative, from `-lowest` down to `-high - 1`."""
        return max(-self.lowest, self.high).bit_length() + 1

    @property
    def lane_bits(self) -> int:
        """Bits of one lane in a word."""
        return self.levels * self.level_bits + self.signs

    # --- memory ----------------------------------------------------------------------------

    @property
    def nf(self) -> int:
        """Beats of a vector."""
        return -(-self.rows // self.lanes)

    @property
    def borders(self) -> int:
        """Border classes."""
        return 1 if self.windows is None else self.windows.borders

    @property
    def vectors(self) -> int:
        """Vectors an image, as far as `windows` tells."""
        windows = self.windows
        return self.sets * (1 if windows is None else windows.height * windows.width)

    @property
    def store_config(self) -> StoreConfig:
        return StoreConfig(
            width=self.lanes * self.lane_bits,
            depth=self.borders * self.sets * self.nf,
            kind=self.store,
            family=self.family,
            slots=self.slots,
        )

    # --- time ------------------------------------------------------------------------------

    @property
    def interval(self) -> int:
        """Cycles a beat."""
        return self.output_bits if self.method == "serial" else 1

    @property
    def latency(self) -> int:
        """Cycles from a transfer on `i` to the earliest transfer of its counts on `o`."""
        return self.store_config.latency + self.interval + 1

    @property
    def credits(self) -> int:
        """Depth of the output queue, which hides the pipeline."""
        return -(-(self.latency + 1) // self.interval)

    # --- contents --------------------------------------------------------------------------

    def _bank(self, thresholds: np.ndarray) -> np.ndarray:
        """Thresholds as (borders, levels, sets * rows)."""
        bank = thresholds.reshape(-1, self.levels, self.sets * self.rows)
        return np.broadcast_to(bank, (self.borders, *bank.shape[1:]))

    def words(self, thresholds: np.ndarray, sign: np.ndarray | None = None) -> list[int]:
        """Words of the store: word `(border * sets + set) * NF + nf`, lane p at `p * lane_bits`.

        A lane holds its levels ascending, each the negative of the threshold, so that the sign of a
        sum tells; then its sign (1: negative).
        thresholds: (levels, sets * rows) or (borders, levels, sets * rows), ascending; sign: ±1
        (sets * rows,): the count is of `sign * x >= threshold`.
        """
        bank = self._bank(thresholds)
        negative = np.zeros(bank.shape[-1], dtype=bool) if sign is None else sign < 0
        if negative.any() and not self.signs:
            raise ValueError("This ThresholdUnit has no signs")
        stored = -np.where(negative, 1 - bank[:, ::-1], bank).clip(self.lowest, self.high + 1)
        fields = np.concatenate(
            [stored & ((1 << self.level_bits) - 1)]
            + [np.broadcast_to(negative, (self.borders, 1, len(negative)))] * self.signs,
            axis=1,
        )
        lanes = fields.reshape(self.borders, -1, self.sets, self.rows)
        padded = np.zeros((*lanes.shape[:3], self.nf * self.lanes), dtype=np.int64)
        padded[..., : self.rows] = lanes
        words = []
        for word in padded.transpose(0, 2, 3, 1).reshape(-1, self.lanes, fields.shape[1]):
            total = 0
            for lane, values in enumerate(word.tolist()):
                for level, value in enumerate(values):
                    total |= value << (lane * self.lane_bits + level * self.level_bits)
            words.append(total)
        return words

    def reference(
        self, vectors: np.ndarray, thresholds: np.ndarray, sign: np.ndarray | None = None
    ) -> np.ndarray:
        """Vectors (N, rows) from an image's first on -> counts (N, rows). "bit" is 0/1."""
        x = vectors.astype(np.int64)
        if self.kind == "bit":
            x = 2 * x - 1
        places = np.arange(len(x)) % self.vectors
        border, which = window_borders(self.windows)[places // self.sets], places % self.sets
        bank = self._bank(thresholds).reshape(self.borders, self.levels, self.sets, self.rows)
        if sign is not None:
            x = x * sign.reshape(self.sets, self.rows)[which]
        return (x[:, None] >= bank[border, :, which]).sum(axis=1)


class ThresholdUnit(wiring.Component):
    """Counts the thresholds each number meets; they live in a store outside.

    Throughput: one beat every `config.interval` cycles.  Latency: `config.latency` cycles.
    Cost: per lane the comparators, about `bits` LUT4 each, and in "serial" a multiplexer of the
    levels; registers for an element as often as the store has cycles of latency; the queue.
    Back-pressure: takes no beat that has no room in the output queue, never drops.

    Parameters
    ----------
    config : ThresholdConfig

    Members
    -------
    i : In(stream of lanes x bits)
        Beats of `lanes` elements, lane 0 in the low bits; NF beats a vector, a vector a set.
    o : Out(stream of beat_shape(output_bits, lanes))
    address : Out
        To the store, whose `data` comes back after its latency.
    data : In
    """

    def __init__(self, *, config: ThresholdConfig):
        self.config = c = config
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(c.lanes * c.bits))),
                "o": Out(stream.Signature(beat_shape(c.output_bits, c.lanes))),
                "address": Out(c.store_config.address_bits),
                "data": In(c.store_config.width),
            }
        )

    def elaborate(self, platform):
        # A beat that is taken goes its way without a stall; its room in the queue is a "credit".
        # In phase 0 beats are taken, in the last phase the address goes on.
        c = self.config
        m = Module()
        m.submodules.phase = phase = Cycle(count=c.interval)
        m.submodules.beat = beat = Cycle(count=c.sets * c.nf)
        m.submodules.walk = walk = WindowAddress(windows=c.windows, words=c.sets * c.nf)
        m.submodules.credit = credit = Tally(limit=c.credits, init=c.credits)
        m.submodules.queue = queue = Queue(shape=self.o.payload.shape(), depth=c.credits)
        taken = self.i.valid & self.i.ready
        m.d.comb += [
            self.i.ready.eq(phase.first & credit.some),
            phase.step.eq(taken | ~phase.first),
            beat.step.eq(phase.step & phase.last),
            walk.step.eq(beat.step),
            walk.last.eq(beat.last),
            self.address.eq(walk.address),
            credit.down.eq(taken),
            credit.up.eq(self.o.valid & self.o.ready),
        ]

        # --- the beat beside its word
        x = Signal(len(self.i.payload), name="x_1", reset_less=True)
        with m.If(phase.first):
            m.d.sync += x.eq(self.i.payload)
        delay = c.store_config.latency
        for age in range(2, delay + 1):
            later = Signal(len(x), name=f"x_{age}", reset_less=True)
            m.d.sync += later.eq(x)
            x = later
        ends = _delayed(m, beat.step, delay, "ends")
        starts = _delayed(m, phase.first, delay, "starts")

        # --- comparison, a register behind it
        counts = []
        for lane in range(c.lanes):
            word = self.data[lane * c.lane_bits : (lane + 1) * c.lane_bits]
            levels = [
                word[level * c.level_bits : (level + 1) * c.level_bits].as_signed()
                for level in range(c.levels)
            ]
            value = self._number(x[lane * c.bits : (lane + 1) * c.bits])
            sign = word[-1] if c.signs else C(0, 1)
            compare = self._serial if c.method == "serial" else self._parallel
            counts.append(compare(m, value, levels, sign, starts, f"lane_{lane}"))
        finished = Signal()
        m.d.sync += finished.eq(ends)
        m.d.comb += [queue.i.valid.eq(finished), queue.i.payload.eq(Cat(counts))]
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        return m

    def _number(self, element: Value) -> Value:
        """A stored element as a signed number."""
        if self.config.kind == "bit":
            return Cat(C(1, 1), ~element).as_signed()
        if self.config.kind == "uint":
            return Cat(element, C(0, 1)).as_signed()
        return element.as_signed()

    def _parallel(self, m, value, levels, sign, starts, name):
        """All levels at once; as they ascend, each bit of the count is one comparison's."""
        met = Signal(len(levels), name=f"{name}_met", reset_less=True)
        inverted = Signal(name=f"{name}_sign", reset_less=True)
        m.d.sync += [met.eq(Cat(_meets(value, level) for level in levels)), inverted.eq(sign)]
        chosen = [met[level] for level in range(len(levels))]
        bits = []
        while chosen:
            middle = len(chosen) // 2
            bit = chosen[middle]
            pairs = zip(chosen[:middle], chosen[middle + 1 :], strict=True)
            chosen = [Mux(bit, above, below) for below, above in pairs]
            bits.insert(0, bit ^ inverted if self.config.signs else bit)
        return Cat(bits)

    def _serial(self, m, value, levels, sign, starts, name):
        """One bit of the count a cycle, the highest first: compare with the middle of the rest."""
        c = self.config
        # `found` holds the bits so far below a marker bit: the place in a heap of the levels.
        found = Signal(c.output_bits + 1, name=f"{name}_found", reset_less=True)
        inverted = Signal(name=f"{name}_sign", reset_less=True)
        place = Mux(starts, 1, found[: c.output_bits])
        level = Signal(signed(c.level_bits), name=f"{name}_level")
        with m.Switch(place):
            for node in range(1, len(levels) + 1):
                depth = node.bit_length()
                half = (len(levels) + 1) >> depth  # of the levels under this node and its own
                index = ((node - (1 << (depth - 1))) * 2 + 1) * half - 1
                with m.Case(node):
                    m.d.comb += level.eq(levels[index])
        m.d.sync += [found.eq(Cat(_meets(value, level), place)), inverted.eq(sign)]
        count = found[: c.output_bits]
        return count ^ inverted.replicate(c.output_bits) if c.signs else count


def _meets(value: Value, level: Value) -> Value:
    """Whether a number is at least the threshold of a stored level."""
    return ~(value + level)[-1]


def _delayed(m: Module, value: Value, cycles: int, name: str) -> Value:
    """`value` as it was `cycles` cycles ago."""
    for age in range(1, cycles + 1):
        later = Signal(name=f"{name}_{age}")
        m.d.sync += later.eq(value)
        value = later
    return value
