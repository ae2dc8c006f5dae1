# SPDX-License-Identifier: BSD-2-Clause
"""TilePool: pools whose windows do not overlap, without a line buffer of pixels.

    i (a map, beat by beat) --> combine --> o (a beat, with a window's last pixel)
                                 ^   |
                                 |   v
                        a row of windows' results so far

A window's pixels need not be there at once: what they have come to so far is a word a window and
beat, for as many windows as lie in a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.geometry import Axis, WindowMap
from xnorforge.hw.pool import PoolConfig, combined
from xnorforge.hw.ram import latched_ram
from xnorforge.hw.store import FAMILIES
from xnorforge.hw.tally import Cycle

__all__ = ["TilePool", "TilePoolConfig", "tiles"]


def tiles(windows: WindowMap) -> bool:
    """Whether windows lie side by side: no pixel is in two, none is padding."""
    axes = (windows.vertical, windows.horizontal)
    return not windows.window.padded and all(
        (axis.taps == 1 or axis.dilation == 1) and (axis.positions == 1 or axis.stride == axis.taps)
        for axis in axes
    )


@dataclass(frozen=True, kw_only=True)
class TilePoolConfig:
    """Shape of a TilePool.

    Parameters
    ----------
    pool : PoolConfig
        What is done with a window's pixels.
    windows : WindowMap
        `tiles(windows)` holds. Pixels right of and below the last windows count for nothing.
    store : str
        Where results so far lie: "block" (block RAM) or "lut" (LUT RAM, or flip-flops).
    family : str
        "ice40", "ecp5" or "gowin".

    Raises
    ------
    ValueError
        Windows that overlap, leave gaps or have padding, taps that are not theirs, an unknown store
        or family.
    """

    pool: PoolConfig
    windows: WindowMap
    store: str = "block"
    family: str = "ecp5"

    def __post_init__(self) -> None:
        if not tiles(self.windows):
            raise ValueError(f"Windows do not lie side by side: {self.windows.window}")
        if self.pool.taps != self.windows.window.taps:
            raise ValueError(
                f"Windows have {self.windows.window.taps} taps, not {self.pool.taps!r}"
            )
        if self.store not in ("block", "lut"):
            raise ValueError(f"Pool store must be block or lut, not {self.store!r}")
        if self.family not in FAMILIES:
            raise ValueError(f"Family must be one of {', '.join(FAMILIES)}, not {self.family!r}")

    @property
    def pixel_beats(self) -> int:
        """Beats of a pixel."""
        return self.pool.channels // self.pool.lanes

    @property
    def beats_in(self) -> int:
        """Beats of a map."""
        return self.windows.vertical.size * self.windows.horizontal.size * self.pixel_beats

    @property
    def beats_out(self) -> int:
        """Beats of a map of results."""
        return self.windows.height * self.windows.width * self.pixel_beats

    @property
    def words(self) -> int:
        """Results so far that are kept; 0 where a register is all it takes."""
        if self.pool.taps == 1 or (self.pixel_beats == 1 and self._row_at_once):
            return 0
        return self.windows.width * self.pixel_beats

    @property
    def _row_at_once(self) -> bool:
        """Whether one beat after the other is of the same window until that is done."""
        return self.windows.width == 1 or self.windows.vertical.taps == 1

    @property
    def word_bits(self) -> int:
        """Bits of a word."""
        return self.pool.lanes * self.pool.output_bits

    @property
    def latency(self) -> int:
        """Cycles from a window's last beat to its result on `o`."""
        return 2

    def finishing(self) -> list[int]:
        """For each output beat of a map, the input beat that completes it."""
        vertical, horizontal = self.windows.vertical, self.windows.horizontal
        return [
            (last_y * horizontal.size + last_x) * self.pixel_beats + beat
            for last_y in _last_pixels(vertical)
            for last_x in _last_pixels(horizontal)
            for beat in range(self.pixel_beats)
        ]

    def reference(self, beats: Sequence[int]) -> list[int]:
        """Output beats of whole maps, from their input beats (as plain integers)."""
        vertical, horizontal = self.windows.vertical, self.windows.horizontal
        gathered = [
            beats[first + (y * horizontal.size + x) * self.pixel_beats + beat]
            for first in range(0, len(beats), self.beats_in)
            for row in range(vertical.positions)
            for column in range(horizontal.positions)
            for beat in range(self.pixel_beats)
            for y in _pixels(vertical, row)
            for x in _pixels(horizontal, column)
        ]
        return self.pool.reference(gathered)


def _pixels(axis: Axis, position: int) -> list[int]:
    return [axis.pixel(position, tap) for tap in range(axis.taps)]


def _last_pixels(axis: Axis) -> list[int]:
    return [axis.pixel(position, axis.taps - 1) for position in range(axis.positions)]


class TilePool(wiring.Component):
    """Greatest or sum of each window's pixels, channel by channel; windows lie side by side.

    Throughput: a beat in every cycle; a beat out with the last beat of each window and lane group.
    Latency: 2 cycles from that beat.  Cost: `words` words of `word_bits` in one memory, a register
    of the beat, the counters, and a lane's OR, adder, or comparison and multiplexer.
    Back-pressure: stalls, never drops; while a result waits on `o` one beat more is taken.

    Parameters
    ----------
    config : TilePoolConfig

    Members
    -------
    i : In(stream of lanes x element_bits)
        Maps, pixel by pixel.
    o : Out(stream of lanes x output_bits)
    """

    def __init__(self, *, config: TilePoolConfig):
        self.config = c = config
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(c.pool.lanes * c.pool.element_bits))),
                "o": Out(stream.Signature(unsigned(c.word_bits))),
            }
        )

    def elaborate(self, platform):
        c, m = self.config, Module()
        taken, leave, full = Signal(), Signal(), Signal()
        m.d.comb += [
            leave.eq(full & (~self.o.valid | self.o.ready)),
            self.i.ready.eq(~full | leave),
            taken.eq(self.i.valid & self.i.ready),
        ]
        # --- a beat enters: where it lies in its window, and what that has come to so far
        m.submodules.beat = beat = Cycle(count=c.pixel_beats)
        m.d.comb += beat.step.eq(taken)
        column = _Place(m, c.windows.horizontal, taken & beat.last, "column")
        row = _Place(m, c.windows.vertical, taken & beat.last & column.ends, "row")
        beat_at = {
            "first": column.first & row.first,
            "counts": column.inside & row.inside,
            "completes": column.inside & row.inside & column.last & row.last,
            "again": Const(1) if c.windows.width == 1 else ~column.first,
        }
        data = Signal.like(self.i.payload, reset_less=True)
        held = {name: Signal(name=f"held_{name}", reset_less=True) for name in beat_at}
        with m.If(taken):
            m.d.sync += [data.eq(self.i.payload)]
            m.d.sync += [held[name].eq(value) for name, value in beat_at.items()]
        with m.If(self.i.ready):
            m.d.sync += full.eq(self.i.valid)

        # --- it leaves: combined, and kept or given
        so_far, result = Signal(c.word_bits), Signal(c.word_bits)
        m.d.comb += result.eq(self._result(held["first"], so_far, data))
        keep = leave & held["counts"]
        word = self._memory(m, beat, column, taken, keep, result) if c.words else Const(0)
        if c.pixel_beats == 1:
            # Beats of a window follow each other: sooner than a word could be read again.
            register = Signal(c.word_bits, reset_less=True)
            with m.If(keep):
                m.d.sync += register.eq(result)
            word = Mux(held["again"], register, word) if c.words else register
        m.d.comb += so_far.eq(word)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [self.o.valid.eq(full & held["completes"]), self.o.payload.eq(result)]
        return m

    def _result(self, first: Value, so_far: Value, data: Value) -> Value:
        pool = self.config.pool
        lanes = []
        for lane in range(pool.lanes):
            value = data.word_select(lane, pool.element_bits)
            before = so_far.word_select(lane, pool.output_bits)
            value = value.as_signed() if pool.kind == "int" else value
            before = before.as_signed() if pool.output_kind == "int" else before
            lanes.append(combined(pool, first, before, value)[: pool.output_bits])
        return Cat(lanes)

    def _memory(
        self, m: Module, beat: Cycle, column: "_Place", taken: Value, keep: Value, result: Value
    ) -> Value:
        """Results so far, each read as a beat of its window enters and written as that leaves.

        Beats of one word are at least two apart, but for one beat a pixel, where the second takes
        a register instead: nothing is read in the cycle in which it is written.
        """
        c = self.config
        at, write_at = Signal(range(c.words)), Signal(range(c.words), reset_less=True)
        with m.If(taken):
            m.d.sync += [write_at.eq(at), at.eq(at + 1)]
            with m.If(beat.last):
                with m.If(column.ends):
                    m.d.sync += at.eq(0)
                with m.Elif(~column.last):
                    m.d.sync += at.eq(at - (c.pixel_beats - 1))
        shape = {"width": c.word_bits, "depth": c.words}
        ram, word = latched_ram(m, store=c.store, family=c.family, **shape, enable=taken)
        m.d.comb += [
            ram.write_enable.eq(keep),
            ram.write_address.eq(write_at),
            ram.write_data.eq(result),
            ram.read_address.eq(at),
        ]
        return word


class _Place:
    """Where a pixel lies along an axis: the tap of its window, whether it is in one (`inside`),
    whether it is the axis' last (`ends`)."""

    def __init__(self, m: Module, axis: Axis, step: Value, name: str):
        covered = axis.positions * axis.taps
        if covered == axis.size:
            m.submodules[f"{name}_tap"] = tap = Cycle(count=axis.taps)
            m.submodules[f"{name}_window"] = window = Cycle(count=axis.positions)
            m.d.comb += [tap.step.eq(step), window.step.eq(step & tap.last)]
            self.first, self.last = tap.first, tap.last
            self.inside, self.ends = Const(1), tap.last & window.last
            return
        # Pixels are left over behind the last window: the taps start anew with each line.
        m.submodules[f"{name}_pixel"] = pixel = Cycle(count=axis.size)
        m.d.comb += pixel.step.eq(step)
        tap = Signal(range(axis.taps), name=f"{name}_tap")
        inside = Signal(name=f"{name}_inside", init=1)
        self.first, self.last = tap == 0, tap == axis.taps - 1
        self.inside, self.ends = inside, pixel.last
        with m.If(step):
            m.d.sync += tap.eq(Mux(pixel.last | self.last, 0, tap + 1))
            with m.If(pixel.last | (pixel.value == covered - 1)):
                m.d.sync += inside.eq(pixel.last)
