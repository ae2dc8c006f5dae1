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

from collections.abc import Callable

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
from xnorforge.hw.geometry import WindowMap
from xnorforge.sim.kernels import (
    LANES,
    WORD,
    direct_products,
    level_bits,
    product_bits,
    product_dots,
)
from xnorforge.sim.map_kernels import (
    dense_windows,
    join_channels,
    pool_bits,
    pool_numbers,
    word_windows,
)
from xnorforge.sim.packed_map import PackedMap, pad_words, words_of

__all__ = ["PackedLayer", "packed_layer"]

PackedLayer = Callable[[list[PackedMap]], PackedMap]

_ONE_BORDER = np.zeros(1, np.int64)
_FEW_COLUMNS = 64  # groups of fewer columns, or of fewer rows than LANES, are multiplied out


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
    map_ = layer.windows
    classes = [map_.border(y, x) for y in range(map_.height) for x in range(map_.width)]
    return np.array(classes, np.int64)


def _tap_pixel(map_: WindowMap) -> np.ndarray:
    """(windows, taps): the pixel under each tap of each window, -1 beyond the edge."""
    found = []
    for axis in (map_.vertical, map_.horizontal):
        at = np.array([[axis.pixel(p, t) for t in range(axis.taps)] for p in range(axis.positions)])
        found.append(np.where((at >= 0) & (at < axis.size), at, -1))
    y, x = found
    pixel = y[:, None, :, None] * map_.horizontal.size + x[None, :, None, :]
    pixel[np.broadcast_to((y < 0)[:, None, :, None] | (x < 0)[None, :, None, :], pixel.shape)] = -1
    return pixel.reshape(map_.height * map_.width, -1)


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
        self._blocks = -(-count // block)
        words = words_of(int(place[-1]) + 1)
        bits = np.zeros((kind.planes, self._blocks * block, words * WORD), np.uint8)
        bits[:, :count, place] = planes > 0
        packed = np.packbits(bits, axis=-1, bitorder="little").view(np.uint64)
        by_block = packed.reshape(kind.planes, self._blocks, block, words)
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
        self._constant = np.tile(constant, (layer.borders, 1))
        if layer.offsets is not None:
            self._constant += layer.offsets[:, rows] << self._shift
        if one_step:
            bank = layer.bank
            assert bank is not None
            # Rows past the last put out 0, so that the words they share pad the next layer.
            limits = np.full((layer.borders, layer.levels, self._blocks * block), -1, np.int64)
            limits[..., :count] = (constant - (bank << self._shift)) // self._scale
            split = limits.reshape(*limits.shape[:2], self._blocks, block)
            self._limits = np.ascontiguousarray(split.transpose(0, 2, 1, 3))

    def bits(self, vectors: np.ndarray, output: ValueType) -> PackedMap:
        """Packed vectors in, a packed map out."""
        out = np.empty((output.bits, vectors.shape[1], self._blocks), np.uint64)
        product_bits(vectors, self._weights, self._coefficients, self._limits, self._border_of, out)
        return PackedMap(output, planes=out)

    def dots(self, vectors: np.ndarray, first: int, out: np.ndarray) -> None:
        """Packed vectors in, dot products out, to `out[:, first:]`."""
        product_dots(
            vectors,
            self._weights,
            self._coefficients,
            self._constant,
            self._scale,
            self._shift,
            self._border_of,
            first,
            out,
        )


def _by_words(taps: int, channels: int) -> np.ndarray:
    """Where columns (taps, channels) lie if every tap fills whole words."""
    pitch = words_of(channels) * WORD
    return (np.arange(taps)[:, None] * pitch + np.arange(channels)).reshape(-1)


def _wasteful(taps: int, channels: int) -> bool:
    """Whether whole words a tap make the vectors much longer than their bits need."""
    return 4 * words_of(taps * channels) < 3 * taps * words_of(channels)


class _PackedDense:
    """A dense layer: one vector of all elements an image."""

    def __init__(self, layer: Dense, source: ValueType) -> None:
        self._layer = layer
        self._by_words = not _wasteful(source.pixels, source.channels)
        place = (
            _by_words(source.pixels, source.channels)
            if self._by_words
            else np.arange(layer.columns)
        )
        self._rows = _Rows(layer, slice(None), place)

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        (x,) = taken
        if self._by_words:
            planes = x.planes
            vectors = planes.reshape(len(planes), x.count, -1)
        else:
            vectors = x.vectors()
        layer = self._layer
        if layer.thresholds is not None:
            return self._rows.bits(vectors, layer.output)
        dots = np.empty((x.count, layer.rows), np.int64)
        self._rows.dots(vectors, 0, dots)
        return PackedMap(layer.output, numbers=dots[:, None])


class _PackedConv:
    """A convolution: windows cut from the map as packed vectors, group by group."""

    def __init__(self, layer: Conv) -> None:
        self._layer = layer
        share, taps = layer.source.channels // layer.groups, layer.window.taps
        self._by_words = layer.groups == 1 and not _wasteful(taps, share)
        place = _by_words(taps, share) if self._by_words else np.arange(layer.columns)
        part = layer.rows // layer.groups
        self._groups = [
            _Rows(layer, slice(g * part, (g + 1) * part), place) for g in range(layer.groups)
        ]
        self._tap_pixel = _tap_pixel(layer.windows)
        self._pad_words = pad_words(layer.source, layer.pad_value)
        self._met = _Met.of_product(layer)

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        (x,) = taken
        layer = self._layer
        output = layer.output
        if layer.groups == 1 and layer.thresholds is not None:
            return self._groups[0].bits(self._windows(x, 0), output)
        dots = np.empty((x.count * layer.vectors, layer.rows), np.int64)
        for g, rows in enumerate(self._groups):
            rows.dots(self._windows(x, g), g * layer.rows // layer.groups, dots)
        if self._met is not None:
            return self._met.bits(dots, output)
        return PackedMap(output, numbers=dots.reshape(x.count, layer.vectors, layer.rows))

    def _windows(self, x: PackedMap, group: int) -> np.ndarray:
        """Packed windows (planes, images * windows, words)."""
        layer = self._layer
        map_, bits = layer.windows, layer.source.bits
        if self._by_words:
            planes = x.planes
            if self._is_plain:
                return planes
            words = planes.shape[2] * layer.window.taps
            out = np.empty((bits, x.count * layer.vectors, words), np.uint64)
            word_windows(planes, x.count, self._tap_pixel, self._pad_words, out)
            return out
        channels = layer.source.channels
        share = channels // layer.groups
        taps, step = layer.window.kernel[1], map_.horizontal.dilation
        starts, run = np.arange(taps) * step * channels + group * share, share
        if layer.groups == 1 and step == 1:
            starts, run = starts[:1], taps * channels
        out = np.empty((bits, x.count * layer.vectors, words_of(layer.columns)), np.uint64)
        dense_windows(
            x.rows(layer.window.pads, layer.pad_value),
            x.count,
            (layer.window.kernel[0], map_.height, map_.width),
            (map_.vertical.stride, map_.horizontal.stride * channels),
            map_.vertical.dilation,
            starts,
            run,
            out,
        )
        return out

    @property
    def _is_plain(self) -> bool:
        """Whether the windows are the pixels."""
        window = self._layer.window
        return window.kernel == window.stride == (1, 1) and not window.padded


class _DirectConv:
    """A convolution in groups of few columns, depthwise for one: sums of products."""

    def __init__(self, layer: Conv) -> None:
        self._layer = layer
        taps, share = layer.window.taps, layer.source.channels // layer.groups
        by_tap = layer.weights.reshape(layer.rows, taps, share).transpose(1, 2, 0)
        self._weights = np.ascontiguousarray(by_tap).astype(np.int64)
        self._channel = np.arange(layer.rows) // (layer.rows // layer.groups) * share
        self._tap_pixel = _tap_pixel(layer.windows)
        self._border_of = _border_of(layer)
        offsets = layer.offsets
        self._offsets = (
            np.zeros((layer.borders, layer.rows), np.int64) if offsets is None else offsets
        )
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
            return self._met.bits(dots.reshape(-1, layer.rows), layer.output)
        return PackedMap(layer.output, numbers=dots)


class _Met:
    """Thresholds on numbers."""

    def __init__(self, sign: np.ndarray, bank: np.ndarray, border_of: np.ndarray) -> None:
        self._sign, self._bank, self._border_of = sign, np.ascontiguousarray(bank), border_of

    @classmethod
    def of_product(cls, layer: Product) -> _Met | None:
        bank = layer.bank
        return None if bank is None else cls(np.ones(layer.rows, np.int64), bank, _border_of(layer))

    def bits(self, numbers: np.ndarray, output: ValueType) -> PackedMap:
        """int64 (images * pixels, channels) in, a packed map out."""
        out = np.empty((output.bits, len(numbers), words_of(output.channels)), np.uint64)
        level_bits(numbers, self._sign, self._bank, self._border_of, out)
        return PackedMap(output, planes=out)


class _PackedThreshold:
    """Thresholds on a map."""

    def __init__(self, layer: Threshold) -> None:
        self._layer = layer
        self._met = _Met(layer.sign.astype(np.int64), layer.thresholds[None], _ONE_BORDER)

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        numbers = taken[0].read_as(self._layer.source).numbers
        return self._met.bits(numbers.reshape(-1, numbers.shape[2]), self._layer.output)


class _PackedPool:
    """Pooling: bits in their words, other values as numbers."""

    def __init__(self, layer: Pool) -> None:
        self._layer = layer
        self._tap_pixel = _tap_pixel(layer.windows)

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        (x,) = taken
        layer, windows = self._layer, len(self._tap_pixel)
        if layer.source.kind == "bit" and layer.kind == "max":
            planes = x.planes
            packed = np.empty((1, x.count * windows, planes.shape[2]), np.uint64)
            pool_bits(planes[0], x.count, self._tap_pixel, packed[0])
            return PackedMap(layer.output, planes=packed)
        out = np.empty((x.count, windows, layer.source.channels), np.int64)
        pool_numbers(x.numbers, self._tap_pixel, layer.kind == "sum", layer.source.low, out)
        return PackedMap(layer.output, numbers=out)


class _PackedAdd:
    """Weighed sums of maps."""

    def __init__(self, layer: Add) -> None:
        self._layer = layer

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        layer = self._layer
        total = np.zeros((1, 1, 1), np.int64) + layer.offsets
        for x, source, factor in zip(taken, layer.sources, layer.multipliers, strict=True):
            total = total + x.read_as(source).numbers * factor
        return PackedMap(layer.output, numbers=total)


class _PackedConcat:
    """Channels side by side."""

    def __init__(self, layer: Concat) -> None:
        self._layer = layer

    def __call__(self, taken: list[PackedMap]) -> PackedMap:
        layer = self._layer
        taken = [x.read_as(source) for x, source in zip(taken, layer.sources, strict=True)]
        output = layer.output
        if not all(x.is_packed for x in taken):
            return PackedMap(output, numbers=np.concatenate([x.numbers for x in taken], axis=2))
        pixels = taken[0].count * output.pixels
        out = np.zeros((output.bits, pixels, words_of(output.channels)), np.uint64)
        first = 0
        for x in taken:
            join_channels(x.planes, x.value.channels, first, out)
            first += x.value.channels
        return PackedMap(output, planes=out)
