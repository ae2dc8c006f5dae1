# SPDX-License-Identifier: BSD-2-Clause
"""Batches of windows that share each weight word: which lane a window takes, where its words lie.

The windows of an image come in raster order and fall into batches of `lanes`; the last batch of an
image is short where `lanes` does not divide them.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.border import class_base
from xnorforge.hw.geometry import Axis, WindowMap
from xnorforge.hw.tally import Cycle

__all__ = ["BatchAddress", "BatchCycle"]


class BatchCycle(wiring.Component):
    """Counts the windows of a batch: 0 to lanes - 1, in an image's last batch as far as there are.

    Throughput: 1 step a cycle.  Latency: 1 cycle.  Cost: as a `Cycle`; where the last batch is
    short, another one that counts batches.

    Parameters
    ----------
    windows : of an image
    lanes : windows of a batch, at most `windows`

    Members
    -------
    step : In(1)
        Go on to the next window.
    value : Out(range(lanes))
    first, last : Out(1), Out(1)
        The window is the first, the last of its batch.
    """

    def __init__(self, *, windows: int, lanes: int):
        if not 1 <= lanes <= windows:
            raise ValueError(f"Lanes of a batch must be between 1 and {windows}, not {lanes!r}")
        self._windows = windows
        self._lanes = lanes
        super().__init__(
            {
                "step": In(1),
                "value": Out(range(lanes)),
                "first": Out(1, init=1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        full, rest = divmod(self._windows, self._lanes)
        m.d.comb += self.last.eq(self.value == self._lanes - 1)
        if rest:
            m.submodules.batch = batch = Cycle(count=full + 1)
            m.d.comb += batch.step.eq(self.step & self.last)
            with m.If(batch.last):
                m.d.comb += self.last.eq(self.value == rest - 1)
        with m.If(self.step):
            m.d.sync += [
                self.value.eq(Mux(self.last, 0, self.value + 1)),
                self.first.eq(self.last),
            ]
        return m


class BatchAddress(wiring.Component):
    """For every lane of a batch: where its window's words lie in a store by border classes.

    As `hw.border.WindowAddress`, for `lanes` windows at once; a lane without a window in an image's
    last batch shows the words of some class.

    Throughput: 1 step a cycle.  Latency: 1 cycle.  Cost: the batch counter, and per lane row and
    column counters, a comparison for each change of class along an axis, a table of the bases.

    Parameters
    ----------
    windows : WindowMap
    words : int
        Words a window.
    lanes : int
        Windows of a batch.

    Members
    -------
    step : In(1)
        Go on to the next word.
    last : In(1)
        With `step`: the present words are the batch's last.
    address : Out(lanes x range(borders * words))
        Lane 0 in the low bits.
    """

    def __init__(self, *, windows: WindowMap, words: int, lanes: int):
        self._windows = windows
        self._words = words
        self._lanes = lanes
        self._bits = Shape.cast(range(windows.borders * words)).width
        super().__init__({"step": In(1), "last": In(1), "address": Out(lanes * self._bits)})

    def elaborate(self, platform):
        # Positions are those of the next batch, so that its bases are there when it begins.
        m = Module()
        windows = self._windows
        count = -(-windows.height * windows.width // self._lanes)
        move = self.step & self.last
        batch = Signal(range(count), name="next_batch", init=min(1, count - 1))
        wraps = Signal()
        m.d.comb += wraps.eq(batch == count - 1)
        with m.If(move):
            m.d.sync += batch.eq(Mux(wraps, 0, batch + 1))
        addresses = []
        for lane in range(self._lanes):
            base = self._next_base(m, lane, move, wraps, count)
            address = Signal(self._bits, name=f"address_{lane}", init=self._base_of(lane))
            with m.If(self.step):
                m.d.sync += address.eq(Mux(self.last, base, address + 1))
            addresses.append(address)
        m.d.comb += self.address.eq(Cat(addresses))
        return m

    def _base_of(self, window: int) -> int:
        """First word of the class of a window; 0 for one past the last."""
        windows = self._windows
        row, column = divmod(window, windows.width)
        if row >= windows.height:
            return 0
        return windows.border(row, column) * self._words

    def _next_base(self, m, lane, move, wraps, count):
        """Base of the class of the lane's window in the next batch."""
        windows, lanes = self._windows, self._lanes
        width = windows.width
        # A lane past the last window stands in rows past the last one.
        rows = (count * lanes - 1) // width + 1
        start_row, start_column = divmod(lane, width)
        first_row, first_column = divmod(lane + (lanes if count > 1 else 0), width)
        column = Signal(range(width), name=f"column_{lane}", init=first_column)
        row = Signal(range(rows), name=f"row_{lane}", init=first_row)
        down, along = divmod(lanes, width)
        carry = Signal(name=f"carry_{lane}")
        m.d.comb += carry.eq(column >= width - along)
        with m.If(move):
            m.d.sync += [
                column.eq(
                    Mux(wraps, start_column, Mux(carry, column + along - width, column + along))
                ),
                row.eq(Mux(wraps, start_row, row + down + carry)),
            ]
        horizontal = _class_of(m, windows.horizontal, column, f"column_class_{lane}")
        vertical = _class_of(m, windows.vertical, row, f"row_class_{lane}")
        return class_base(m, windows, vertical, horizontal, self._words, f"base_{lane}")


def _class_of(m: Module, axis: Axis, position: Value, name: str) -> Value:
    """The border class of a position along an axis, from the places where it changes."""
    classes = axis.border_of
    found = Signal(range(len(axis.inside)), name=name)
    m.d.comb += found.eq(classes[0])
    for place in range(1, axis.positions):
        if classes[place] != classes[place - 1]:
            with m.If(position >= place):
                m.d.comb += found.eq(classes[place])
    return found
