# SPDX-License-Identifier: BSD-2-Clause
"""Which pixels of a raster-scanned map each of its windows waits for, and which it lets go.

Windows go over the map in raster order too, so two ever rising numbers of pixels say it all:

- `need`: a window starts when so many pixels of its frame have arrived;
- `base`: from a window on, so many pixels of its frame are never read again.

A ring of pixels between source and windows can do without any other book-keeping, and its depth
follows from these numbers.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm

import numpy as np

from xnorforge.hw.geometry import Axis, Window, WindowMap

__all__ = ["Walk"]


@dataclass(frozen=True)
class Walk:
    """The windows over a map, in the order in which a ring of pixels serves them.

    A row of windows either waits for new pixels column by column, or, where rows before it waited
    for the same pixels (at the bottom edge), for none (`waits`). It either lets pixels go column
    by column, or, where the next row needs the same pixels (at the top edge), none (`frees`).

    Raises
    ------
    ValueError
        Where not one window fits the map.
    """

    height: int
    width: int
    window: Window

    def __post_init__(self) -> None:
        self.window.over(self.height, self.width)

    @cached_property
    def windows(self) -> WindowMap:
        """Where the windows lie."""
        return self.window.over(self.height, self.width)

    @property
    def pixels(self) -> int:
        """Pixels of a frame."""
        return self.height * self.width

    @property
    def count(self) -> int:
        """Windows of a frame."""
        return self.windows.height * self.windows.width

    # --- rows and columns ------------------------------------------------------------------

    @cached_property
    def _rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return _ends(self.windows.vertical)

    @cached_property
    def _columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return _ends(self.windows.horizontal)

    @cached_property
    def waits(self) -> np.ndarray:
        """For each row of windows, whether it waits for pixels that none before it waited for."""
        last = self._rows[1]
        return last > np.concatenate(([-1], last[:-1]))

    @cached_property
    def frees(self) -> np.ndarray:
        """For each row of windows, whether its windows let pixels go one after the other."""
        own, _, kept = self._rows
        return np.append(kept[1:], self.height) > own

    # --- pixels ----------------------------------------------------------------------------

    @cached_property
    def need(self) -> np.ndarray:
        """int64 (rows, columns): pixels of the frame that a window waits for. Never falls.

        A window waits for one at least: nothing of a frame goes out before it has begun.
        """
        last_row, last_column = self._rows[1], np.maximum(self._columns[1], 0)
        columns = np.where(self.waits[:, None], last_column[None, :], last_column[-1])
        need = last_row[:, None] * self.width + columns + 1
        return np.where(last_row[:, None] < 0, 1, need)

    @cached_property
    def base(self) -> np.ndarray:
        """int64 (rows, columns): pixels of the frame that no window from this one on reads."""
        own, _, kept = self._rows
        first_column = self._columns[2]
        after = np.append(kept[1:], self.height)
        fixed = after * self.width + first_column[0]
        moving = own[:, None] * self.width + first_column[None, :]
        return np.minimum(np.where(self.frees[:, None], moving, fixed[:, None]), self.pixels)

    @cached_property
    def need_steps(self) -> np.ndarray:
        """int64 (windows,): by how much `need` grows to the next window; the last one's goes on
        to the next frame's first."""
        return np.diff(self.need.ravel(), append=self.pixels + self.need[0, 0])

    @cached_property
    def base_steps(self) -> np.ndarray:
        """int64 (windows,): pixels let go at a window's end; the last one's are what is left of
        the frame and what no window of the next one needs at its start."""
        return np.diff(self.base.ravel(), append=self.pixels + self.base[0, 0])

    @cached_property
    def skipped(self) -> int:
        """Most pixels let go before they have arrived; so many are dropped as they come."""
        after = self.base.ravel() + self.base_steps
        return max(int((after - self.need.ravel()).max()), int(self.base[0, 0]))

    # --- depths ----------------------------------------------------------------------------

    @cached_property
    def min_depth(self) -> int:
        """Pixels a ring must hold so that every window gets what it waits for."""
        return max(1, int((self.need - self.base).max()))

    def bubble_free_depth(self, beats: int = 1) -> int:
        """Pixels a ring must hold so that depth costs no time.

        beats: of a pixel. The depth at which a source and a consumer that are both even, and as
        fast as the slower side lets them (a beat a cycle), never wait for each other: window n is
        read from `n * period` on, and the map's beats arrive at an even pace that starts as late
        as the windows allow; a pixel's slot must be free by its first beat. Slower even pairs
        need no more.
        """
        frame = max(self.pixels, self.count * self.window.taps) * beats
        period, pace = Fraction(frame, self.count), Fraction(frame, self.pixels * beats)
        # All times below in units of 1 / unit cycles, so that they are integers.
        unit = lcm(period.denominator, pace.denominator)
        period_units, pixel_units = int(period * unit), int(pace * beats * unit)
        # From a pixel's first beat until it can be read.
        arrival = int(pace * (beats - 1) * unit) + unit
        last = self.need.ravel() - 1
        start = int((np.arange(self.count) * period_units - last * pixel_units).min()) - arrival
        begins = start + np.arange(self.pixels) * pixel_units
        # Pixel b leaves after the window that lets it go, one a cycle.
        ends = self.base.ravel() + self.base_steps  # pixels let go by a window's end
        numbers = np.arange(self.pixels) + int(self.base[0, 0])
        letting = np.searchsorted(ends, numbers, side="right")
        freed = np.maximum(
            (letting + 1) * period_units,
            start + numbers * pixel_units + arrival,  # skipped pixels leave as they come
        )
        free = np.maximum.accumulate(freed - numbers * unit) + (numbers + 1) * unit
        # Pixels of the frame before are let go a frame earlier.
        frames = 2 + int((free[-1] - begins[0]) // (frame * unit))
        free = np.concatenate([free - back * frame * unit for back in range(frames, -1, -1)])
        gone = np.searchsorted(free, begins, side="right")
        gone = gone - frames * self.pixels + int(self.base[0, 0])
        depth = int((np.arange(self.pixels) + 1 - gone).max())
        return max(self.min_depth, depth)


def _ends(axis: Axis) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along an axis, for each position: its first tap on the map (`size` if none); the last so
    far (-1 if none); the first from here on."""
    taps = (
        np.arange(axis.positions)[:, None] * axis.stride
        - axis.before
        + np.arange(axis.taps)[None, :] * axis.dilation
    )
    inside = (taps >= 0) & (taps < axis.size)
    first = np.where(inside, taps, axis.size).min(axis=1)
    last = np.maximum.accumulate(np.where(inside, taps, -1).max(axis=1))
    return first, last, np.minimum.accumulate(first[::-1])[::-1]
