# SPDX-License-Identifier: BSD-2-Clause
"""A value of a network for some images, as packed bit planes or as numbers, as is asked for."""

from __future__ import annotations

import numpy as np

from xnorforge.gen.layers import ValueType
from xnorforge.gen.network import Input
from xnorforge.sim.kernels import WORD
from xnorforge.sim.map_kernels import dense_rows, pack_bits, pack_codes, unpack_codes

__all__ = ["InputMap", "PackedMap", "pad_words", "words_of"]


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
        count: int,
        *,
        numbers: np.ndarray | None = None,
        planes: np.ndarray | None = None,
    ) -> None:
        self.value = value
        self.count = count
        self._numbers, self._planes = numbers, planes

    @property
    def is_packed(self) -> bool:
        """Whether `planes` costs nothing."""
        return self._planes is not None

    @property
    def numbers(self) -> np.ndarray:
        """int64 (images, pixels, channels); bits are -1 and +1."""
        if self._numbers is None:
            assert self._planes is not None
            self._numbers = np.empty((self.count, self.value.pixels, self.value.channels), np.int64)
            flat = self._numbers.reshape(-1, self.value.channels)
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
        return PackedMap(value, self.count, numbers=self.numbers.reshape(shape))

    def vectors(self) -> np.ndarray:
        """All elements of an image in a row without gaps: (planes, images, words)."""
        if self._planes is None:
            return self._pack(self._elements(), self.value.size)
        value = self.value
        out = np.empty((value.bits, self.count, words_of(value.size)), np.uint64)
        shape = (self.count, 1, value.pixels, value.channels)
        dense_rows(self._planes, shape, (0, 0, 0, 0), self._planes[:, 0], out)
        return out

    def rows(self, pads: tuple[int, int, int, int], pad_value: int) -> np.ndarray:
        """A map's rows, padded, without gaps: (planes, images * padded height, words), with a
        word of 0 more than they need."""
        height, width, channels = self.value.shape
        top, left, bottom, right = pads
        wide = (width + left + right) * channels
        if self._planes is None:
            elements = self._elements()
            if any(pads):
                elements = np.pad(
                    elements.reshape(-1, height, width, channels),
                    ((0, 0), (top, bottom), (left, right), (0, 0)),
                    constant_values=self._element(pad_value),
                )
            return self._pack(elements, wide, spare=1)
        rows = self.count * (height + top + bottom)
        out = np.empty((self.value.bits, rows, words_of(wide) + 1), np.uint64)
        shape = (self.count, height, width, channels)
        dense_rows(self._planes, shape, pads, pad_words(self.value, pad_value), out)
        return out

    def _elements(self) -> np.ndarray:
        """What `_pack` packs: an integer for each element, images first."""
        assert self._numbers is not None
        return self._numbers

    def _element(self, number: int) -> int:
        return number

    def _pack(self, elements: np.ndarray, size: int, spare: int = 0) -> np.ndarray:
        return _packed(elements, size, spare, self.value.bits, *_coding(self.value))


def _packed(
    elements: np.ndarray, size: int, spare: int, bits: int, add: int, shift: int
) -> np.ndarray:
    """Rows of `size` elements as bit planes; spare: words of 0 after each."""
    flat = elements.reshape(-1, size)
    planes = np.empty((bits, len(flat), words_of(size) + spare), np.uint64)
    pack_codes(flat, add, shift, planes)
    return planes


def pad_words(value: ValueType, pad_value: int) -> np.ndarray:
    """One pixel of padding, packed: (planes, words)."""
    pixel = np.full((1, value.channels), pad_value, np.int64)
    return _packed(pixel, value.channels, 0, value.bits, *_coding(value))[:, 0]


class InputMap(PackedMap):
    """The network's input, as pixels (N, K); of multi-bit values what `Input.quantise` gives."""

    def __init__(self, spec: Input, pixels: np.ndarray) -> None:
        super().__init__(spec.value, len(pixels))
        self._spec, self._pixels = spec, pixels

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

    def _pack(self, elements: np.ndarray, size: int, spare: int = 0) -> np.ndarray:
        add = _coding(self.value)[0] if self.value.kind == "int" else 0
        return _packed(elements, size, spare, self.value.bits, add, 0)

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
