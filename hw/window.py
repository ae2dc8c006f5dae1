# SPDX-License-Identifier: BSD-2-Clause
"""SlidingWindow: a map comes in pixel by pixel, the pixels of every window go out.

    i --> [ ring of pixels ] --> word --> padding --> queue --> o
               ^       ^
             write   address: walks over the taps

"Line buffers": the ring holds what later windows still need (FINN's sliding-window unit: Umuroglu
et al., "FINN", 2017, section 4.2). Padding never enters the ring.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.geometry import Window
from xnorforge.hw.ram import latched_ram
from xnorforge.hw.store import FAMILIES
from xnorforge.hw.stream import Queue
from xnorforge.hw.tally import Cycle, Tally
from xnorforge.hw.window_walk import Walk

__all__ = ["SlidingWindow", "WindowConfig", "walk_over"]


@lru_cache(maxsize=256)
def walk_over(height: int, width: int, window: Window) -> Walk:
    """The `Walk` of these windows; the tables of the latest are kept."""
    return Walk(height, width, window)


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Shape of a SlidingWindow.

    Parameters
    ----------
    height, width, channels : int
        Of the map.
    element_bits : int
        Bits of an element.
    lanes : int
        Elements a beat; divides the channels of a group.
    window : Window
        Kernel, stride, dilation, pads.
    groups : int
        Equal parts of the channels; a window goes out part by part.
    pad_bits : int
        Stored bits of one element of padding.
    depth : int
        Pixels of the ring.
    store : str
        "block" or "lut": the ring's memory.
    family : str
        "ice40", "ecp5" or "gowin".

    Raises
    ------
    ValueError
        A window that does not fit the map, groups or lanes that do not divide the channels,
        padding that is no element, a ring that is too small, an unknown store or family.
    """

    height: int
    width: int
    channels: int
    element_bits: int
    lanes: int
    window: Window
    groups: int = 1
    pad_bits: int = 0
    depth: int
    store: str = "block"
    family: str = "ecp5"

    def __post_init__(self) -> None:
        for name in ("height", "width", "channels", "element_bits", "lanes", "groups"):
            value = getattr(self, name)
            if value < 1:
                text = name.replace("_", " ")
                raise ValueError(f"Sliding window {text} must be at least 1, not {value!r}")
        if self.channels % self.groups:
            raise ValueError(f"{self.channels} channels do not fall into {self.groups} groups")
        if self.channels // self.groups % self.lanes:
            raise ValueError(
                f"Lanes must divide the {self.channels // self.groups} channels of a group, "
                f"not {self.lanes!r}"
            )
        if not 0 <= self.pad_bits < 1 << self.element_bits:
            raise ValueError(
                f"Padding must be an element of {self.element_bits} bits, not {self.pad_bits!r}"
            )
        if self.store not in ("block", "lut"):
            raise ValueError(f"Ring store must be block or lut, not {self.store!r}")
        if self.family not in FAMILIES:
            raise ValueError(f"Family must be one of {', '.join(FAMILIES)}, not {self.family!r}")
        if self.depth < self.min_depth:
            raise ValueError(
                f"A ring for these windows needs at least {self.min_depth} pixels, "
                f"not {self.depth!r}"
            )

    # --- counts ----------------------------------------------------------------------------

    @property
    def walk(self) -> Walk:
        """Which pixels the windows wait for and let go."""
        return walk_over(self.height, self.width, self.window)

    @property
    def pixel_beats(self) -> int:
        """Beats of a pixel."""
        return self.channels // self.lanes

    @property
    def group_beats(self) -> int:
        """Beats of a group's channels at a pixel."""
        return self.pixel_beats // self.groups

    @property
    def window_beats(self) -> int:
        """Beats of a window."""
        return self.window.taps * self.pixel_beats

    @property
    def beats_in(self) -> int:
        """Beats of a map."""
        return self.walk.pixels * self.pixel_beats

    @property
    def beats_out(self) -> int:
        """Beats of a map's windows."""
        return self.walk.count * self.window_beats

    @property
    def ring_beats(self) -> int:
        """Words of the ring's memory, of a beat each."""
        return self.depth * self.pixel_beats

    @property
    def beat_bits(self) -> int:
        """Bits of a beat."""
        return self.lanes * self.element_bits

    # --- timing ----------------------------------------------------------------------------

    @property
    def latency(self) -> int:
        """Cycles from a beat's read to the beat on `o`."""
        return 2

    @property
    def credits(self) -> int:
        """Depth of the output queue: hides the latency at a beat a cycle."""
        return self.latency + 1

    @property
    def interval(self) -> int:
        """Cycles a map at full speed and a depth that costs nothing."""
        return max(self.beats_in, self.beats_out)

    @property
    def min_depth(self) -> int:
        """Smallest `depth` that works, in pixels."""
        return self.walk.min_depth

    @property
    def bubble_free_depth(self) -> int:
        """Depth from which on even sources and consumers never wait for each other, in pixels.

        Of the ring alone: a queue in front of it counts on top.
        """
        return _bubble_free_depth(self.walk, self.pixel_beats)

    # --- values ----------------------------------------------------------------------------

    @property
    def pad_beat(self) -> int:
        """A beat of padding."""
        return sum(self.pad_bits << lane * self.element_bits for lane in range(self.lanes))

    def reference(self, beats: Sequence[int]) -> list[int]:
        """Output beats of whole maps, from their input beats (as plain integers)."""
        windows, kernel = self.walk.windows, self.window.kernel
        out = []
        for first in range(0, len(beats), self.beats_in):
            frame = beats[first : first + self.beats_in]
            for position in range(self.walk.count):
                row, column = divmod(position, windows.width)
                for group in range(self.groups):
                    for tap in range(self.window.taps):
                        y = windows.vertical.pixel(row, tap // kernel[1])
                        x = windows.horizontal.pixel(column, tap % kernel[1])
                        inside = 0 <= y < self.height and 0 <= x < self.width
                        at = (y * self.width + x) * self.pixel_beats + group * self.group_beats
                        out += (
                            frame[at : at + self.group_beats]
                            if inside
                            else [self.pad_beat] * self.group_beats
                        )
        return out


@lru_cache(maxsize=1024)
def _bubble_free_depth(walk: Walk, beats: int) -> int:
    return walk.bubble_free_depth(beats)


class SlidingWindow(wiring.Component):
    """The pixels of every window over a map, window after window.

    Maps come one after the other, pixel by pixel in raster order. For every window, in raster
    order too: `for group: for ky: for kx: for beat of the group's channels`, each a beat of `o`;
    taps beyond the map's edge give `pad_bits` in every lane.

    Input: a pixel's first beat is taken while the ring has a free slot, the others follow freely.
    Windows: the first beat of a window is read when all pixels that the window needs are there
    and the output queue has room, each other beat when the queue has room; one a cycle.
    Slots: a window's last read lets the pixels go that no later window needs (`Walk.base`); they
    leave the ring one a cycle, in order, those that no window needs as soon as they are there.
    The next map's pixels enter as slots fall free, so that maps follow without a gap where
    `depth` allows.

    Cycles: a beat read in cycle t is on `o` from t + 2 on; a pixel whose last beat is taken in
    cycle t can be read from t + 1 on; a pixel let go by a read in cycle t leaves its slot in t + 1
    at the earliest, into which a beat can be written from t + 2 on.

    Throughput: a beat in and a beat out every cycle.  Latency: `config.latency` cycles from a read
    to `o`.  Cost: see docs/blocks/window.md.  Back-pressure: stalls, never drops.

    Parameters
    ----------
    config : WindowConfig

    Members
    -------
    i : In(stream of lanes x element_bits)
    o : Out(stream of lanes x element_bits)
    """

    def __init__(self, *, config: WindowConfig):
        self.config = c = config
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(c.beat_bits))),
                "o": Out(stream.Signature(unsigned(c.beat_bits))),
            }
        )

    def elaborate(self, platform):
        # `lead`: pixels here beyond those that the next window waits for; negative: it waits.
        # `debt`: pixels let go that have not left the ring yet.
        c, walk = self.config, self.config.walk
        m = Module()

        # --- counters of the next beat to read, innermost first
        m.submodules.beat = beat = Cycle(count=c.group_beats)
        m.submodules.kx = kx = Cycle(count=c.window.kernel[1])
        m.submodules.ky = ky = Cycle(count=c.window.kernel[0])
        m.submodules.group = group = Cycle(count=c.groups)
        m.submodules.column = column = Cycle(count=walk.windows.width)
        m.submodules.row = row = Cycle(count=walk.windows.height)
        counters = (beat, kx, ky, group, column, row)
        m.submodules.credit = credit = Tally(limit=c.credits, init=c.credits)
        need_step, base_step = _window_steps(m, walk, row, column)
        most = c.depth + walk.skipped
        lead = Signal(_fitting(-int(walk.need_steps.max()), most), init=-int(walk.need[0, 0]))
        debt = Signal(range(most + 1), init=int(walk.base[0, 0]))
        read, opens = Signal(), Signal(init=1)
        m.d.comb += read.eq((~opens | (lead >= 0)) & credit.some)
        step = read
        for counter in counters:
            m.d.comb += counter.step.eq(step)
            step = step & counter.last
        window_end = Signal()
        m.d.comb += window_end.eq(group.step & group.last)
        with m.If(read):
            m.d.sync += opens.eq(group.last & ky.last & kx.last & beat.last)

        # --- slots
        m.submodules.space = space = Tally(limit=c.depth, init=c.depth)
        m.submodules.part = part = Cycle(count=c.pixel_beats)
        write, arrives, leaves = Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(space.some),
            write.eq(self.i.valid & self.i.ready),
            part.step.eq(write),
            arrives.eq(write & part.last),
            space.down.eq(arrives),
            space.up.eq(leaves),
        ]
        m.d.sync += [
            lead.eq(lead + arrives - Mux(window_end, need_step, 0)),
            debt.eq(debt - leaves + Mux(window_end, base_step, 0)),
        ]
        if walk.skipped:
            m.submodules.held = held = Tally(limit=c.depth)
            m.d.comb += [held.up.eq(arrives), held.down.eq(leaves)]
            m.d.comb += leaves.eq((debt != 0) & held.some)
        else:
            m.d.comb += leaves.eq(debt != 0)

        # --- ring
        write_at = Signal(range(c.ring_beats))
        read_at = Signal(range(c.ring_beats), init=self._moves()[-1] % c.ring_beats)
        with m.If(write):
            m.d.sync += write_at.eq(_moved(write_at, [(None, 1)], c.ring_beats))
        with m.If(read):
            *inner, frame, _ = self._moves()
            moves = [*zip(counters, inner, strict=True), (None, frame)]
            m.d.sync += read_at.eq(_moved(read_at, moves, c.ring_beats))
        ram, word = latched_ram(
            m, store=c.store, family=c.family, width=c.beat_bits, depth=c.ring_beats
        )
        m.d.comb += [
            ram.write_enable.eq(write),
            ram.write_address.eq(write_at),
            ram.write_data.eq(self.i.payload),
            ram.read_address.eq(read_at),
        ]

        # --- padding and output
        m.submodules.queue = queue = Queue(shape=c.beat_bits, depth=c.credits)
        m.d.sync += queue.i.valid.eq(read)
        m.d.comb += queue.i.payload.eq(word)
        if c.window.padded:
            inside = Signal()
            m.d.sync += inside.eq(
                self._inside(m, row, ky, "row") & self._inside(m, column, kx, "column")
            )
            m.d.comb += queue.i.payload.eq(Mux(inside, word, c.pad_beat))
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        m.d.comb += [credit.up.eq(self.o.valid & self.o.ready), credit.down.eq(read)]
        return m

    def _moves(self) -> list[int]:
        """By how much the read address moves on, for each counter that is the innermost not at
        its end: beat, kx, ky, group, column, row. Then for a frame's end, then its first value.

        Taps beyond the edge are walked over like any others.
        """
        c = self.config
        (kernel_y, kernel_x), (stride_y, stride_x) = c.window.kernel, c.window.stride
        pixel, line = c.pixel_beats, c.width * c.pixel_beats
        tap_x, tap_y = c.window.dilation[1] * pixel, c.window.dilation[0] * line
        windows = c.walk.windows
        last_beat = c.group_beats - 1
        last_tap = (kernel_y - 1) * tap_y + (kernel_x - 1) * tap_x
        last = last_tap + pixel - 1
        across = (windows.width - 1) * stride_x * pixel
        down = (windows.height - 1) * stride_y * line
        return [
            1,
            tap_x - last_beat,
            tap_y - (kernel_x - 1) * tap_x - last_beat,
            1 - last_tap,
            stride_x * pixel - last,
            stride_y * line - across - last,
            c.beats_in - down - across - last,
            -c.window.pads[0] * line - c.window.pads[1] * pixel,
        ]

    def _inside(self, m: Module, position: Cycle, tap: Cycle, name: str) -> Value:
        """Whether a tap of a row or column of windows lies on the map."""
        windows = self.config.walk.windows
        axis = windows.vertical if name == "row" else windows.horizontal
        if all(map(all, axis.inside)):
            return C(1)
        masks = [
            sum(1 << t for t, inside in enumerate(axis.inside[border]) if inside)
            for border in axis.border_of
        ]
        return _lookup(m, position, masks, f"{name}_inside").bit_select(tap.value, 1)


def _window_steps(m: Module, walk: Walk, row: Cycle, column: Cycle) -> tuple[Value, Value]:
    """At a window's end: by how much `need` and `base` grow to the next window."""
    shape = (walk.windows.height, walk.windows.width)
    grown = []
    for name, steps, active in (
        ("need", walk.need_steps, walk.waits),
        ("base", walk.base_steps, walk.frees),
    ):
        steps = steps.reshape(shape)
        along = [int(step) for step in steps[active][0, :-1]] if active.any() else []
        inner = _lookup(m, column, [*along, along[-1]], f"{name}_along") if along else C(0)
        moving = _lookup(m, row, [int(a) for a in active], f"{name}_moves")
        end = _lookup(m, row, [int(step) for step in steps[:, -1]], f"{name}_at_end")
        grown.append(Mux(column.last, end, Mux(moving, inner, 0)))
    return grown[0], grown[1]


def _lookup(m: Module, counter: Cycle, values: Sequence[int], name: str) -> Value:
    """`values[counter.value]`; what most positions share costs nothing."""
    usual = Counter(values).most_common(1)[0][0]
    if len(set(values)) == 1:
        return C(usual, range(max(values) + 1))
    result = Signal(range(max(values) + 1), name=name)
    with m.Switch(counter.value):
        for value in sorted(set(values) - {usual}):
            with m.Case(*(k for k, other in enumerate(values) if other == value)):
                m.d.comb += result.eq(value)
        with m.Default():
            m.d.comb += result.eq(usual)
    return result


def _moved(address: Signal, moves: Sequence[tuple[Cycle | None, int]], count: int) -> Value:
    """The address in a ring of `count` moved on by the first move whose counter is not at its
    end; the last move's counter is not asked."""
    width = len(address)
    if count == 1:
        return C(0, 0)
    if count == 1 << width:
        return (address + _chosen([(k, move % count) for k, move in moves], width))[:width]
    straight = address + _chosen([(k, move % count) for k, move in moves], width)
    beyond = 1 << (width + 1)
    wrapped = address + _chosen(
        [(k, (move % count - count) % beyond) for k, move in moves], width + 1
    )
    wrapped = wrapped[: width + 1]
    return Mux(wrapped[-1], straight[:width], wrapped[:width])


def _chosen(moves: Sequence[tuple[Cycle | None, int]], width: int) -> Value:
    value: Value = C(moves[-1][1], width)
    for counter, move in reversed(moves[:-1]):
        value = Mux(counter.last, value, C(move, width))
    return value


def _fitting(low: int, high: int) -> Shape:
    """The shape of signed numbers from `low` to `high`."""
    return signed(max(high.bit_length(), (~low).bit_length()) + 1)
