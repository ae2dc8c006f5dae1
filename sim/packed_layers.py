# SPDX-License-Identifier: BSD-2-Clause
"""The layers of a network made ready to run on packed maps.

With `x` an input plane and `w` a plane of weights, counting the positions that differ gives the
signed dot product. For one plane of each it is `dot = K - 2*acc`. An input of B bits is B planes,
`acc = sum_a 2^a * differ_a`; counting matches against {0,1} planes gives

    dot = (2^B - 1) * (number of +1 weights) - acc             uint inputs
    dot = the same - 2^(B-1) * (sum of the weights)            int inputs, top bit inverted

Planes of weights add up with their coefficients. So every row of every layer is
`dot = (constant - scale * acc) >> shift`, and `dot >= threshold` is `acc <= limit`.

Binary dot products by XNOR and popcount: Courbariaux et al., "Binarized Neural Networks", 2016.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from xnorforge.gen.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    Layer,
    Pool,
    Product,
    Threshold,
    ValueType,
)
from xnorforge.sim.kernels import (
    LANES,
    WORD,
    direct_products,
    level_bits,
    plain_bits,
    plain_dots,
    product_bits,
    product_dots,
)
from xnorforge.sim.map_kernels import (
    join_channels,
    pool_bits,
    pool_numbers,
)
from xnorforge.sim.packed_map import PackedMap, words_of
from xnorforge.sim.packed_windows import BitWindows, WordWindows, by_words, tap_pixels, wasteful

__all__ = ["PackedLayer", "packed_layer"]

_ONE_BORDER = np.zeros(1, np.int64)
_WINDOW_BYTES = 1 << 18  # of packed windows at once: they stay in the second-level cache
_FEW_COLUMNS = 64  # groups of fewer columns, or of fewer rows than LANES, are multiplied out


class PackedLayer(Protocol):
    """Runs a layer on the maps it takes."""

    def __call__(self, taken: list[PackedMap]) -> PackedMap: ...


def packed_layer(layer: Layer, source: ValueType) -> PackedLayer:
    """What runs a layer; source: the type its first input has where it is made."""
    if isinstance(layer, Conv):
        share, taps = layer.source.channels // layer.groups, layer.window.taps
        few = share * taps < _FEW_COLUMNS or layer.rows // layer.groups < LANES
        return _DirectConv(layer) if layer.groups > 1 and few else _PackedConv(layer)
    if isinstance(layer, Dense):
        return _PackedDense(layer, source)
    if isinstance(layer, Pool):
        return _PackedPool(layer)
    if isinstance(layer, Threshold):
        return _PackedThreshold(layer)
    if isinstance(layer, Add):
        return _PackedAdd(layer)
    if isinstance(layer, Concat):
        return _PackedConcat(layer)
    raise TypeError(f"No rule for {type(layer).__name__}")


def _border_of(layer: Product) -> np.ndarray:
    """Border class of each window of an image."""
    if not isinstance(layer, Conv):
        return _ONE_BORDER
    return np.array(layer.windows.border_rows, np.int64).reshape(-1)


class _Rows:
    """Rows of weights in blocks, and what turns their counts into dots or bits.

    rows: which rows of the layer. place: where the columns of its matrix lie in packed vectors.
    """

    def __init__(self, layer: Product, rows: slice, place: np.ndarray) -> None:
        kind, source = layer.weight_type, layer.source
        planes = kind.split(layer.matrix[rows])
        count = planes.shape[1]
        one_step = layer.thresholds is not None and layer.groups == 1
        block = WORD if one_step else min(WORD, -(-count // LANES) * LANES)
        self.blocks = -(-count // block)
        words = words_of(int(place[-1]) + 1)
        bits = np.zeros((kind.planes, self.blocks * block, words * WORD), np.uint8)
        bits[:, :count, place] = planes > 0
        packed = np.packbits(bits, axis=-1, bitorder="little").view(np.uint64)
        by_block = packed.reshape(kind.planes, self.blocks, block, words)
        self._weights = np.ascontiguousarray(by_block.transpose(1, 0, 3, 2))
        self._coefficients = np.array(kind.coefficients, np.uint64)
        self._border_of = _border_of(layer)

        positive = (planes > 0).sum(axis=-1, dtype=np.int64)  # (planes, rows)
        if source.kind == "bit":
            self._scale, constants = 2, np.full_like(positive, layer.columns)
        else:
            self._scale, constants = 1, ((1 << source.bits) - 1) * positive
            if source.kind == "int":
                constants -= (1 << (source.bits - 1)) * (2 * positive - layer.columns)
        constant = np.array(kind.coefficients, np.int64) @ constants
        self._shift = 1 if kind.kind == "int" else 0
        # What most layers are has kernels of its own, which are compiled the sooner.
        self._is_plain = source.bits == kind.planes == 1
        # Without offsets all borders' dots are alike.
        self._constant = constant[None]
        if layer.offsets is not None:
            self._constant = constant + (layer.offsets[:, rows] << self._shift)
        if one_step:
            bank = layer.bank
            assert bank is not None
            # Rows past the last put out 0, so that the words they share pad the next layer.
            limits = np.full((layer.borders, layer.levels, self.blocks * block), -1, np.int64)
            limits[..., :count] = (constant - (bank << self._shift)) // self._scale
            split = limits.reshape(*limits.shape[:2], self.blocks, block)
            self._limits = np.ascontiguousarray(split.transpose(0, 2, 1, 3))

    def bits(self, vectors: np.ndarray, count: int, first: int, out: np.ndarray) -> None:
        """`count` packed vectors in, packed pixels out, to `out[:, first:]`."""
        if self._is_plain and self._limits.shape[0] == self._limits.shape[2] == 1:
            plain_bits(vectors, count, self._weights, self._limits, first, out)
            return
        product_bits(
            vectors,
            count,
            self._weights,
            self._coefficients,
            self._limits,
            self._border_of,
            first,
            out,
        )

    def dots(self, vectors: np.ndarray, count: int, first: int, row: int, out: np.ndarray) -> None:
        """`count` packed vectors in, dot products out, to `out[first:, row:]`."""
        if self._is_plain and len(self._constant) == 1:
            weights, constant = self._weights, self._constant
            plain_dots(vectors, count, weights, constant, self._scale, first, row, out)
            return
        product_dots(
            vectors,
            count,
            self._weights,
            self._coefficients,
            self._constant,
            self._scale,
            self._shift,
            self._border_of,
            first,
            row,
            out,
        )


class _PackedDense:
    """A dense layer: one vector of all elements an image."""

    def __init__(self, layer: Dense, source: ValueType) -> None:
        self._output, self._levels, self._count = layer.output, layer.levels, layer.rows
        self._by_words = not wasteful(source.pixels, source.channels)
        words = by_words(source.pixels, source.channels)
        place = words if self._by_words else np.arange(layer.columns)
        self._rows = _Rows(layer, slice(None), place)

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        (x,) = taken
        if self._by_words:
            planes = x.planes
            vectors = planes.reshape(len(planes), x.count, -1)
        else:
            vectors = x.vectors()
        output = self._output
        if self._levels:
            out = np.empty((output.bits, x.count, self._rows.blocks), np.uint64)
            self._rows.bits(vectors, x.count, 0, out)
            return PackedMap(output, x.count, planes=out)
        dots = np.empty((x.count, 1, self._count), np.int64)
        self._rows.dots(vectors, x.count, 0, 0, dots[:, 0])
        return PackedMap(output, x.count, numbers=dots)


class _PackedConv:
    """A convolution: windows cut from the map as packed vectors, group by group."""

    def __init__(self, layer: Conv) -> None:
        share, taps = layer.source.channels // layer.groups, layer.window.taps
        self._windows: WordWindows | BitWindows = (
            BitWindows(layer) if layer.groups > 1 or wasteful(taps, share) else WordWindows(layer)
        )
        self._rows, self._planes, self._vectors = layer.rows, layer.source.bits, layer.vectors
        part = layer.rows // layer.groups
        self._groups = [
            _Rows(layer, slice(first, first + part), self._windows.place)
            for first in range(0, layer.rows, part)
        ]
        self._part = part
        self._output = layer.output
        self._in_one_step = layer.groups == 1 and layer.thresholds is not None
        self._met = _Met.of_product(layer)
        image_bytes = 8 * self._planes * self._vectors * self._windows.words
        self._step = max(1, _WINDOW_BYTES // image_bytes)

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        (x,) = taken
        output, vectors = self._output, x.count * self._vectors
        shape = (output.bits, vectors, self._groups[0].blocks)
        if self._in_one_step:
            out = np.empty(shape, np.uint64)
        else:
            out = np.empty((vectors, self._rows), np.int64)
        source = self._windows.source(x)
        if self._windows.is_pixels:
            self._products(source, vectors, 0, 0, out)
        else:
            step = min(self._step, x.count)
            cut = np.empty((self._planes, step * self._vectors, self._windows.words), np.uint64)
            for image in range(0, x.count, step):
                images = min(step, x.count - image)
                for group in range(len(self._groups)):
                    self._windows.cut(source, image, images, group, cut)
                    count, first = images * self._vectors, image * self._vectors
                    self._products(cut, count, first, group, out)
        if self._in_one_step:
            return PackedMap(output, x.count, planes=out)
        if self._met is not None:
            return self._met.bits(out, x.count, output)
        return PackedMap(output, x.count, numbers=out.reshape(x.count, self._vectors, self._rows))

    def _products(
        self, vectors: np.ndarray, count: int, first: int, group: int, out: np.ndarray
    ) -> None:
        rows = self._groups[group]
        if self._in_one_step:
            rows.bits(vectors, count, first, out)
        else:
            rows.dots(vectors, count, first, group * self._part, out)


class _DirectConv:
    """A convolution in groups of few columns, depthwise for one: sums of products."""

    def __init__(self, layer: Conv) -> None:
        self._layer = layer
        taps, share = layer.window.taps, layer.source.channels // layer.groups
        by_tap = layer.weights.reshape(layer.rows, taps, share).transpose(1, 2, 0)
        self._weights = np.ascontiguousarray(by_tap).astype(np.int64)
        self._channel = np.arange(layer.rows) // (layer.rows // layer.groups) * share
        self._tap_pixel = tap_pixels(layer.windows)
        self._border_of = _border_of(layer)
        none = np.zeros((layer.borders, layer.rows), np.int64)
        self._offsets = none if layer.offsets is None else layer.offsets
        self._met = _Met.of_product(layer)

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        (x,) = taken
        layer = self._layer
        dots = np.empty((x.count, layer.vectors, layer.rows), np.int64)
        direct_products(
            x.numbers,
            self._weights,
            self._channel,
            self._tap_pixel,
            layer.pad_value,
            self._offsets,
            self._border_of,
            dots,
        )
        if self._met is not None:
            return self._met.bits(dots.reshape(-1, layer.rows), x.count, layer.output)
        return PackedMap(layer.output, x.count, numbers=dots)


class _Met:
    """Thresholds on numbers."""

    def __init__(self, sign: np.ndarray, bank: np.ndarray, border_of: np.ndarray) -> None:
        self._sign, self._bank, self._border_of = sign, np.ascontiguousarray(bank), border_of

    @classmethod
    def of_product(cls, layer: Product) -> _Met | None:
        bank = layer.bank
        return None if bank is None else cls(np.ones(layer.rows, np.int64), bank, _border_of(layer))

    def bits(self, numbers: np.ndarray, count: int, output: ValueType) -> PackedMap:
        """int64 (images * pixels, channels) of `count` images in, a packed map out."""
        out = np.empty((output.bits, len(numbers), words_of(output.channels)), np.uint64)
        level_bits(numbers, self._sign, self._bank, self._border_of, out)
        return PackedMap(output, count, planes=out)


class _PackedThreshold:
    """Thresholds on a map."""

    def __init__(self, layer: Threshold) -> None:
        self._layer = layer
        self._met = _Met(layer.sign.astype(np.int64), layer.thresholds[None], _ONE_BORDER)

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        x = taken[0].read_as(self._layer.source)
        numbers = x.numbers.reshape(-1, self._layer.source.channels)
        return self._met.bits(numbers, x.count, self._layer.output)


class _PackedPool:
    """Pooling: bits in their words, other values as numbers."""

    def __init__(self, layer: Pool) -> None:
        self._layer, self._output = layer, layer.output
        self._tap_pixel = tap_pixels(layer.windows)

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        (x,) = taken
        layer, windows, source = self._layer, len(self._tap_pixel), self._layer.source
        if source.kind == "bit" and layer.kind == "max":
            planes = x.planes
            packed = np.empty((1, x.count * windows, planes.shape[2]), np.uint64)
            pool_bits(planes[0], x.count, source.pixels, self._tap_pixel, packed[0])
            return PackedMap(self._output, x.count, planes=packed)
        out = np.empty((x.count, windows, source.channels), np.int64)
        pool_numbers(x.numbers, self._tap_pixel, layer.kind == "sum", source.low, out)
        return PackedMap(self._output, x.count, numbers=out)


class _PackedAdd:
    """Weighed sums of maps."""

    def __init__(self, layer: Add) -> None:
        self._layer, self._output = layer, layer.output

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        layer = self._layer
        total = layer.offsets
        for x, source, factor in zip(taken, layer.sources, layer.multipliers, strict=True):
            total = total + x.read_as(source).numbers * factor
        return PackedMap(self._output, taken[0].count, numbers=total)


class _PackedConcat:
    """Channels side by side."""

    def __init__(self, layer: Concat) -> None:
        self._layer, self._output = layer, layer.output

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        output, count = self._output, taken[0].count
        sources = self._layer.sources
        taken = [x.read_as(source) for x, source in zip(taken, sources, strict=True)]
        if not all(x.is_packed for x in taken):
            joined = np.concatenate([x.numbers for x in taken], axis=2)
            return PackedMap(output, count, numbers=joined)
        out = np.zeros((output.bits, count * output.pixels, words_of(output.channels)), np.uint64)
        first = 0
        for x in taken:
            join_channels(x.planes, x.value.channels, first, out)
            first += x.value.channels
        return PackedMap(output, count, planes=out)
