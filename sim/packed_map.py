# SPDX-License-Identifier: BSD-2-Clause
"""A value of a network for some images, as packed bit planes or as numbers, as is asked for."""

from __future__ import annotations

import numpy as np

from xnorforge.gen.layers import ValueType
from xnorforge.gen.network import Input
from xnorforge.sim.kernels import WORD
from xnorforge.sim.map_kernels import dense_rows, pack_bits, pack_codes, unpack_codes

__all__ = ["InputMap", "PackedMap", "pad_words", "words_of"]

_NO_PADS = (0, 0, 0, 0)


def words_of(elements: int) -> int:
    """Words that hold so many bits."""
    return -(-elements // WORD)


def _coding(value: ValueType) -> tuple[int, int]:
    """(add, shift): the code of a number x is `(x + add) >> shift`."""
    if value.kind == "bit":
        return 1, 1
    return (1 << (value.bits - 1) if value.kind == "int" else 0), 0


class PackedMap:
    """One value of `count` images. Whichever form is lacking is made once and kept.

    value: its type; maps may also be read as vectors of all their elements.
    """

    def __init__(
        self,
        value: ValueType,
        numbers: np.ndarray | None = None,
        planes: np.ndarray | None = None,
    ) -> None:
        self.value = value
        self._numbers, self._planes = numbers, planes

    @property
    def count(self) -> int:
        """Images."""
        if self._planes is not None:
            return self._planes.shape[1] // self.value.pixels
        assert self._numbers is not None
        return len(self._numbers)

    @property
    def is_packed(self) -> bool:
        """Whether `planes` costs nothing."""
        return self._planes is not None

    @property
    def numbers(self) -> np.ndarray:
        """int64 (images, pixels, channels); bits are -1 and +1."""
        if self._numbers is None:
            assert self._planes is not None
            shape = (self.count, self.value.pixels, self.value.channels)
            self._numbers = np.empty(shape, np.int64)
            flat = self._numbers.reshape(-1, shape[2])
            unpack_codes(self._planes, *_coding(self.value), flat)
        return self._numbers

    @property
    def planes(self) -> np.ndarray:
        """uint64 (planes, images * pixels, words), every pixel's channels in whole words."""
        if self._planes is None:
            self._planes = self._pack(self._elements(), self.value.channels)
        return self._planes

    def read_as(self, value: ValueType) -> PackedMap:
        """The same elements under another shape."""
        if value.shape == self.value.shape:
            return self
        shape = (self.count, value.pixels, value.channels)
        return PackedMap(value, numbers=self.numbers.reshape(shape))

    def rows(self, pads: tuple[int, int, int, int], pad_value: int) -> np.ndarray:
        """A map's rows, padded, without gaps: (planes, images * padded height, words)."""
        height, width, channels = self.value.shape
        return self._rows(height, width, channels, pads, pad_value)

    def vectors(self) -> np.ndarray:
        """All elements of an image in a row without gaps: (planes, images, words)."""
        return self._rows(1, self.value.pixels, self.value.channels, _NO_PADS, 0)

    def _rows(
        self,
        height: int,
        width: int,
        channels: int,
        pads: tuple[int, int, int, int],
        pad_value: int,
    ) -> np.ndarray:
        top, left, bottom, right = pads
        high, wide = height + top + bottom, width + left + right
        if self._planes is None:
            elements = self._elements()
            if any(pads):
                elements = np.pad(
                    elements.reshape(-1, height, width, channels),
                    ((0, 0), (top, bottom), (left, right), (0, 0)),
                    constant_values=self._element(pad_value),
                )
            return self._pack(elements, wide * channels)
        out = np.empty((self.value.bits, self.count * high, words_of(wide * channels)), np.uint64)
        pad = pad_words(self.value, pad_value)
        dense_rows(self._planes, self.count, height, width, channels, pads, pad, out)
        return out

    def _elements(self) -> np.ndarray:
        """What `_pack` packs: an integer for each element, images first."""
        assert self._numbers is not None
        return self._numbers

    def _element(self, number: int) -> int:
        return number

    def _pack(self, elements: np.ndarray, size: int) -> np.ndarray:
        return _packed(elements, size, self.value.bits, *_coding(self.value))


def _packed(elements: np.ndarray, size: int, bits: int, add: int, shift: int) -> np.ndarray:
    flat = elements.reshape(-1, size)
    planes = np.empty((bits, len(flat), words_of(size)), np.uint64)
    pack_codes(flat, add, shift, planes)
    return planes


def pad_words(value: ValueType, pad_value: int) -> np.ndarray:
    """One pixel of padding, packed: (planes, words)."""
    pixel = np.full((1, value.channels), pad_value, np.int64)
    return _packed(pixel, value.channels, value.bits, *_coding(value))[:, 0]


class InputMap(PackedMap):
    """The network's input, as pixels (N, K); of multi-bit values what `Input.quantise` gives."""

    def __init__(self, spec: Input, pixels: np.ndarray) -> None:
        super().__init__(spec.value)
        self._spec, self._pixels = spec, pixels

    @property
    def count(self) -> int:
        return len(self._pixels)

    @property
    def numbers(self) -> np.ndarray:
        if self._numbers is None:
            numbers = self._elements().astype(np.int64)
            if self.value.kind == "bit":
                numbers = 2 * numbers - 1
            self._numbers = numbers.reshape(self.count, self.value.pixels, self.value.channels)
        return self._numbers

    def _elements(self) -> np.ndarray:
        spec, pixels = self._spec, self._pixels
        if self.value.kind == "bit":
            return ((pixels >= spec.threshold) ^ spec.inverted).view(np.uint8)
        return pixels

    def _element(self, number: int) -> int:
        return (number + 1) // 2 if self.value.kind == "bit" else number

    def _pack(self, elements: np.ndarray, size: int) -> np.ndarray:
        add = _coding(self.value)[0] if self.value.kind == "int" else 0
        return _packed(elements, size, self.value.bits, add, 0)

    @property
    def planes(self) -> np.ndarray:
        if self._planes is None and self.value.kind == "bit":
            self._planes = self._pack_bits(self.value.channels)
        return super().planes

    def vectors(self) -> np.ndarray:
        if self.value.kind != "bit":
            return super().vectors()
        return self._pack_bits(self.value.size)

    def _pack_bits(self, size: int) -> np.ndarray:
        flat = self._pixels.reshape(-1, size)
        planes = np.empty((1, len(flat), words_of(size)), np.uint64)
        pack_bits(flat, self._spec.threshold, self._spec.inverted, planes[0])
        return planes
