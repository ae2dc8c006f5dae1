# SPDX-License-Identifier: BSD-2-Clause
"""Windows of packed maps, cut out as packed vectors for the product kernels.

A window of many channels is its pixels' words, one after the other. One of few channels, or of a
group of them, is cut from rows of bits without gaps, so that no word is mostly padding.
"""

from __future__ import annotations

import numpy as np

from xnorforge.gen.layers import Conv
from xnorforge.hw.geometry import WindowMap
from xnorforge.sim.kernels import WORD
from xnorforge.sim.map_kernels import dense_windows, word_windows
from xnorforge.sim.packed_map import PackedMap, pad_words, words_of

__all__ = ["BitWindows", "WordWindows", "by_words", "tap_pixels", "wasteful"]


def by_words(taps: int, channels: int) -> np.ndarray:
    """Where the columns (taps, channels) lie if every tap fills whole words."""
    pitch = words_of(channels) * WORD
    return (np.arange(taps)[:, None] * pitch + np.arange(channels)).reshape(-1)


def wasteful(taps: int, channels: int) -> bool:
    """Whether whole words a tap make vectors much longer than their bits need."""
    return 4 * words_of(taps * channels) < 3 * taps * words_of(channels)


def tap_pixels(map_: WindowMap) -> np.ndarray:
    """(windows, taps): the pixel under each tap of each window, -1 beyond the edge."""
    y, x = (
        np.array([[axis.pixel(p, t) for t in range(axis.taps)] for p in range(axis.positions)])
        for axis in (map_.vertical, map_.horizontal)
    )
    y, x = y[:, None, :, None], x[None, :, None, :]
    height, width = map_.vertical.size, map_.horizontal.size
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return np.where(inside, y * width + x, -1).reshape(map_.height * map_.width, -1)


class WordWindows:
    """Windows of whole words. place: where the columns lie; words: of a window."""

    def __init__(self, layer: Conv) -> None:
        source, window = layer.source, layer.window
        self.place = by_words(window.taps, source.channels)
        self.words = window.taps * words_of(source.channels)
        self._pixels = source.pixels
        self._tap_pixel = tap_pixels(layer.windows)
        self._pad_words = pad_words(source, layer.pad_value)
        plain = window.kernel == window.stride == (1, 1) and not window.padded
        self.is_pixels = plain  # the windows are the pixels: nothing to cut

    def source(self, x: PackedMap) -> np.ndarray:
        """What `cut` cuts from."""
        return x.planes

    def cut(
        self, source: np.ndarray, image: int, images: int, _group: int, out: np.ndarray
    ) -> None:
        """The windows of some images -> out (planes, windows, words)."""
        word_windows(source, image, images, self._pixels, self._tap_pixel, self._pad_words, out)


class BitWindows:
    """Windows without gaps, of one group's channels. The same members."""

    is_pixels = False

    def __init__(self, layer: Conv) -> None:
        map_, window = layer.windows, layer.window
        channels, taps = layer.source.channels, window.kernel[1]
        self.place = np.arange(layer.columns)
        self.words = words_of(layer.columns)
        self._pads, self._pad_value = window.pads, layer.pad_value
        rows = map_.vertical.size + window.pads[0] + window.pads[2]
        self._shape = (rows, window.kernel[0], map_.height, map_.width)
        self._stride = (window.stride[0], window.stride[1] * channels)
        self._dilation = window.dilation[0]
        self._run = channels // layer.groups
        self._starts = np.arange(taps) * window.dilation[1] * channels
        if layer.groups == 1 and window.dilation[1] == 1:
            self._run, self._starts = taps * channels, self._starts[:1]

    def source(self, x: PackedMap) -> np.ndarray:
        """What `cut` cuts from."""
        return x.rows(self._pads, self._pad_value)

    def cut(self, source: np.ndarray, image: int, images: int, group: int, out: np.ndarray) -> None:
        """The windows of some images -> out (planes, windows, words)."""
        starts = self._starts + group * self._run
        dense_windows(
            source,
            image,
            images,
            self._shape,
            self._stride,
            self._dilation,
            starts,
            self._run,
            out,
        )
