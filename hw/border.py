# SPDX-License-Identifier: BSD-2-Clause
"""WindowAddress: where a window's words lie in a store that has a set of words a border class.

step ----------> address + 1
step, last ----> base of the next window's class <-- classes of its row and column
"""

import numpy as np
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.geometry import Axis, WindowMap

__all__ = ["WindowAddress", "class_base", "window_borders"]


def window_borders(windows: WindowMap | None) -> np.ndarray:
    """Border class of each window, in raster order; None: one window."""
    if windows is None:
        return np.zeros(1, dtype=np.int64)
    return np.array(windows.border_rows).reshape(-1)


class WindowAddress(wiring.Component):
    """Steps through the words of every window, windows in raster order, map after map.

    Border class b has the words `b * words` to `(b + 1) * words - 1`; a window steps through those
    of its class. Row and column are counted one window ahead, so that the next base is there when
    it is needed.

    Throughput: 1 step a cycle.  Latency: 1 cycle.  Cost: the address, row and column counters, a
    comparison for each change of class along an axis, a table of the bases. With one border class
    only the address counter remains.

    Parameters
    ----------
    windows : WindowMap or None
        None: one border class.
    words : int
        Words a window.

    Members
    -------
    step : In(1)
        Go on to the next word.
    last : In(1)
        With `step`: the present word is its window's last.
    address : Out(range(borders * words))
    """

    def __init__(self, *, windows: WindowMap | None, words: int):
        if words < 1:
            raise ValueError(f"Words a window must be at least 1, not {words!r}")
        self._windows = windows
        self._words = words
        self._borders = 1 if windows is None else windows.borders
        super().__init__(
            {"step": In(1), "last": In(1), "address": Out(range(self._borders * words))}
        )

    def elaborate(self, platform):
        m = Module()
        base = self._next_base(m) if self._borders > 1 else 0
        with m.If(self.step):
            m.d.sync += self.address.eq(Mux(self.last, base, self.address + 1))
        return m

    def _next_base(self, m):
        """Base of the class of the window after the present one."""
        windows = self._windows
        move = self.step & self.last
        column, wraps = _counter(m, windows.horizontal, move, min(1, windows.width - 1), "column")
        first_row = 0 if windows.width > 1 else min(1, windows.height - 1)
        row, _ = _counter(m, windows.vertical, move & wraps, first_row, "row")
        return class_base(m, windows, row, column, self._words, "base")


def class_base(
    m: Module, windows: WindowMap, row: Value, column: Value, words: int, name: str
) -> Value:
    """First word of a border class. row, column: the classes along the axes."""
    base = Signal(range(windows.borders * words), name=name)
    columns = len(windows.horizontal.inside)
    with m.Switch(Cat(column, row)):
        for v in range(len(windows.vertical.inside)):
            for h in range(columns):
                with m.Case(v << len(column) | h):
                    m.d.comb += base.eq((v * columns + h) * words)
    return base


def _counter(m: Module, axis: Axis, step: Value, init: int, name: str) -> tuple[Value, Value]:
    """A position along an axis: its border class, and whether it is the last position.

    The class is a register of its own, changed where the next position has another one.
    """
    last = axis.positions - 1
    classes = axis.border_of
    position = Signal(range(axis.positions), name=name, init=init)
    border = Signal(range(len(axis.inside)), name=f"{name}_class", init=classes[init])
    at_last = Signal(name=f"{name}_last", init=init == last)
    if last > 0:
        with m.If(step):
            m.d.sync += [
                position.eq(Mux(at_last, 0, position + 1)),
                at_last.eq(position == last - 1),
            ]
            with m.Switch(position):
                for here in range(axis.positions):
                    following = classes[(here + 1) % axis.positions]
                    if following != classes[here]:
                        with m.Case(here):
                            m.d.sync += border.eq(following)
    return border, at_last
