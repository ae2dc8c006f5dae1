# SPDX-License-Identifier: BSD-2-Clause
"""How a window slides over a map: sizes, taps, and which taps hang over the map's edge.

The one place for these counts: the integer network, the circuits and the cycle model share them.
"""

from dataclasses import dataclass
from functools import cached_property

__all__ = ["Axis", "Window", "WindowMap"]


@dataclass(frozen=True)
class Window:
    """The shape of a sliding window. Pairs are (vertical, horizontal).

    kernel: taps. stride: pixels from one window to the next. dilation: pixels from tap to tap.
    pads: rows and columns beyond the map that windows may cover: top, left, bottom, right.

    Raises
    ------
    ValueError
        A kernel, stride or dilation below 1, a negative pad.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        for name, lowest, count in (
            ("kernel", 1, 2),
            ("stride", 1, 2),
            ("dilation", 1, 2),
            ("pads", 0, 4),
        ):
            values = tuple(int(value) for value in getattr(self, name))
            if len(values) != count or min(values) < lowest:
                raise ValueError(
                    f"Window {name} must be {count} integers of at least {lowest}, not {values}"
                )
            object.__setattr__(self, name, values)

    @property
    def taps(self) -> int:
        """Pixels under the window."""
        return self.kernel[0] * self.kernel[1]

    @property
    def padded(self) -> bool:
        """Whether any window may hang over the edge."""
        return any(self.pads)

    def over(self, height: int, width: int) -> "WindowMap":
        """The windows over a map. Raises ValueError where not one fits."""
        top, left, bottom, right = self.pads
        axes = (
            Axis(height, self.kernel[0], self.stride[0], self.dilation[0], top, bottom),
            Axis(width, self.kernel[1], self.stride[1], self.dilation[1], left, right),
        )
        return WindowMap(self, *axes)


@dataclass(frozen=True)
class Axis:
    """The windows along one axis of a map.

    size: pixels. before, after: pad pixels on either side. A window's position p covers the
    pixels `p * stride - before + tap * dilation`.
    """

    size: int
    taps: int
    stride: int
    dilation: int
    before: int
    after: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"A map has at least one pixel on a side, not {self.size}")
        if self.extent > self.size + self.before + self.after:
            raise ValueError(
                f"A window of {self.extent} pixels does not fit {self.size} pixels with "
                f"{self.before + self.after} of padding"
            )

    @property
    def extent(self) -> int:
        """Pixels from the first tap to the last."""
        return (self.taps - 1) * self.dilation + 1

    @property
    def positions(self) -> int:
        """Windows along this axis."""
        return (self.size + self.before + self.after - self.extent) // self.stride + 1

    def pixel(self, position: int, tap: int) -> int:
        """The pixel under a tap; outside 0 .. size - 1 it is padding."""
        return position * self.stride - self.before + tap * self.dilation

    @cached_property
    def _classes(self) -> tuple[tuple[int, ...], tuple[tuple[bool, ...], ...]]:
        kinds: dict[tuple[bool, ...], int] = {}
        of_position = []
        for position in range(self.positions):
            inside = tuple(0 <= self.pixel(position, t) < self.size for t in range(self.taps))
            of_position.append(kinds.setdefault(inside, len(kinds)))
        return tuple(of_position), tuple(kinds)

    @property
    def border_of(self) -> tuple[int, ...]:
        """For each position its border class: windows of a class lose the same taps."""
        return self._classes[0]

    @property
    def inside(self) -> tuple[tuple[bool, ...], ...]:
        """For each border class, which taps lie on the map."""
        return self._classes[1]


@dataclass(frozen=True)
class WindowMap:
    """A window over a map of some size. vertical, horizontal: its axes."""

    window: Window
    vertical: Axis
    horizontal: Axis

    @property
    def height(self) -> int:
        """Rows of windows."""
        return self.vertical.positions

    @property
    def width(self) -> int:
        """Windows in a row."""
        return self.horizontal.positions

    @property
    def borders(self) -> int:
        """Border classes: class `v * horizontal classes + h`."""
        return len(self.vertical.inside) * len(self.horizontal.inside)

    def border(self, row: int, column: int) -> int:
        """Border class of a window."""
        classes = len(self.horizontal.inside)
        return self.vertical.border_of[row] * classes + self.horizontal.border_of[column]

    @cached_property
    def border_rows(self) -> tuple[tuple[int, ...], ...]:
        """Border class of each window, a tuple for each row of windows."""
        return tuple(
            tuple(self.border(row, column) for column in range(self.width))
            for row in range(self.height)
        )
