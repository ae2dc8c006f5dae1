# SPDX-License-Identifier: BSD-2-Clause
"""The layers of an integer network: every value an integer, every rule explicit.

Maps are HWC, C fastest. The meaning of a product layer is the *signed integer dot product*;
counting matching bits is a private encoding of the engine. Thresholds are canonical,
`dot >= threshold`: rows whose source slope was negative have been negated, so two models of one
shape differ in numbers only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from xnorforge.gen.errors import ModelError
from xnorforge.gen.values import ValueType, WeightType
from xnorforge.hw.geometry import Window, WindowMap

__all__ = [
    "Add",
    "Concat",
    "Conv",
    "Dense",
    "Layer",
    "Pool",
    "Product",
    "Threshold",
    "ValueType",
    "WeightType",
]

MOST_LEVELS = 15  # thresholds of a channel: 4-bit activations


class Layer:
    """A layer of a network.

    name: unique. inputs: names of the layers it takes, "input" for the network's input; () means
    the layer before. sources: the types it takes. output: what it gives.
    """

    if TYPE_CHECKING:  # fields of some layers, worked out by others

        @property
        def name(self) -> str: ...

        @property
        def inputs(self) -> tuple[str, ...]: ...

        @property
        def sources(self) -> tuple[ValueType, ...]: ...

        @property
        def output(self) -> ValueType: ...

    def _require(self, condition: object, text: str) -> None:
        if not condition:
            raise ModelError(f"Layer {self.name!r}: {text}")


def _check_bank(layer: Layer, bank: np.ndarray) -> None:
    """Thresholds (..., levels, rows): int64, 2^n - 1 ascending levels."""
    layer._require(bank.dtype == np.int64, f"thresholds must be int64, not {bank.dtype}")
    levels = bank.shape[-2]
    layer._require(
        levels & (levels + 1) == 0 and 1 <= levels <= MOST_LEVELS,
        f"thresholds must be 1, 3, 7 or 15 a channel, not {levels}",
    )
    layer._require((np.diff(bank, axis=-2) >= 0).all(), "thresholds must ascend in each channel")


def _threshold_output(levels: int, shape: tuple[int, ...]) -> ValueType:
    if levels == 1:
        return ValueType("bit", 1, shape)
    return ValueType("uint", levels.bit_length(), shape)


class Product(Layer):
    """What `Dense` and `Conv` share: rows of weights, one dot product a row and window.

    matrix: int8 (rows, columns), the weights with the columns in the order they arrive in.
    groups: channels in, and rows, fall into so many equal parts; a row meets the channels of its
    part only. vectors: windows an image. borders: classes of windows, which have thresholds of
    their own.
    """

    source: ValueType
    weights: np.ndarray
    thresholds: np.ndarray | None
    weight_type: WeightType
    groups: int
    offsets: np.ndarray | None

    @property
    def sources(self) -> tuple[ValueType, ...]:
        return (self.source,)

    @property
    def matrix(self) -> np.ndarray:
        return self.weights.reshape(len(self.weights), -1)

    @property
    def rows(self) -> int:
        return self.weights.shape[0]

    @property
    def columns(self) -> int:
        return self.matrix.shape[1]

    @property
    def vectors(self) -> int:
        return 1

    @property
    def borders(self) -> int:
        return 1

    @property
    def bank(self) -> np.ndarray | None:
        """Thresholds as (borders, levels, rows)."""
        if self.thresholds is None:
            return None
        levels = self.thresholds.shape[-2] if self.thresholds.ndim > 1 else 1
        return self.thresholds.reshape(self.borders, levels, self.rows)

    @property
    def levels(self) -> int:
        """Thresholds a channel; 0 where dot products go out."""
        bank = self.bank
        return 0 if bank is None else bank.shape[1]

    @property
    def engine_bank(self) -> np.ndarray | None:
        """The thresholds that become part of an engine's presets: one a row."""
        return self.bank if self.levels == 1 else None

    @property
    def dot_high(self) -> int:
        """Bound on any dot product (not per row: rows can be exchanged)."""
        largest = max(abs(self.source.low), self.source.high)
        return self.columns * largest * self.weight_type.high

    @property
    def dot_low(self) -> int:
        return -self.dot_high

    @property
    def macs(self) -> int:
        """Binary multiply-accumulates an image: planes of inputs times planes of weights."""
        return self.vectors * self.weights.size * self.source.bits * self.weight_type.planes

    @property
    def weight_bits(self) -> int:
        return self.weights.size * self.weight_type.planes

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.rows,)

    @property
    def output(self) -> ValueType:
        if self.thresholds is not None:
            return _threshold_output(self.levels, self._shape)
        high = self.dot_high
        if self.offsets is not None:
            high += int(abs(self.offsets).max())
        return ValueType("int", high.bit_length() + 1, self._shape)

    def _check(self) -> None:
        w = self.weights
        self._require(w.dtype == np.int8, f"weights must be int8, not {w.dtype}")
        self._require(0 not in w.shape, f"needs at least one row and one column, not {w.shape}")
        self._require(
            self.weight_type.holds(w),
            "weights must be -1 and +1"
            if self.weight_type == WeightType()
            else f"weights from {w.min()} to {w.max()} are not {self.weight_type}",
        )
        t = self.thresholds
        wanted: tuple[int, ...] = (self.rows,)
        if t is not None:
            self._require(t.dtype == np.int64, f"thresholds must be int64, not {t.dtype}")
            self._require(1 <= t.ndim <= 3, f"thresholds must have 1 to 3 dimensions, not {t.ndim}")
            if t.ndim == 3 or self.borders > 1:
                wanted = (self.borders, t.shape[-2] if t.ndim > 1 else 1, self.rows)
            elif t.ndim == 2:
                wanted = (t.shape[0], self.rows)
            self._require(t.shape == wanted, f"thresholds must be int64 {wanted}, not {t.shape}")
            self._require(
                not ((t < self.dot_low) | (t > self.dot_high + 1)).any(),
                f"thresholds must lie in [{self.dot_low}, {self.dot_high + 1}]",
            )
            bank = self.bank
            assert bank is not None
            _check_bank(self, bank)
        o = self.offsets
        if o is not None:
            self._require(t is None, "offsets are for dot products that go out")
            self._require(
                o.shape == (self.borders, self.rows) and o.dtype == np.int64,
                f"offsets must be int64 ({self.borders}, {self.rows})",
            )


@dataclass(frozen=True, eq=False)
class Dense(Product):
    """Fully connected: `dot[n] = sum_k weights[n, k] * x[k]`, then thresholds or scores.

    weights: int8 (rows, columns). A map's columns are its elements in HWC order.
    thresholds: int64 (rows,) or (levels, rows): the output is how many levels hold
        `dot[n] >= thresholds[level, n]`, a "bit" for one level; each within
        [dot_low, dot_high + 1] (always ... never); None: the dots themselves are the output.
    offsets: int64 (1, rows) added to dots that go out.
    """

    name: str
    source: ValueType
    weights: np.ndarray
    thresholds: np.ndarray | None
    weight_type: WeightType = field(default_factory=WeightType)
    offsets: np.ndarray | None = None
    inputs: tuple[str, ...] = ()

    groups = 1

    def __post_init__(self) -> None:
        self._require(
            self.weights.ndim == 2, f"weights must be a matrix, not of shape {self.weights.shape}"
        )
        self._require(
            self.weights.shape[1] == self.source.size,
            f"{self.weights.shape[1]} weight columns for {self.source.size} inputs",
        )
        self._check()


@dataclass(frozen=True, eq=False)
class Conv(Product):
    """Convolution: a dot product of every window with every row (of the window's group).

    weights: int8 (rows, kernel height, kernel width, channels / groups).
    thresholds: int64 (rows,), (levels, rows) or (borders, levels, rows), as in `Dense`.
    offsets: int64 (borders, rows) added to dots that go out.
    pad_value: the integer that taps beyond the map's edge read. Where the source's padding is
        another one (true zero among ±1), the borders' thresholds or offsets make up for it.
    """

    name: str
    source: ValueType
    weights: np.ndarray
    thresholds: np.ndarray | None
    window: Window
    groups: int = 1
    pad_value: int = -1
    weight_type: WeightType = field(default_factory=WeightType)
    offsets: np.ndarray | None = None
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, w = self.source.shape, self.weights
        self._require(len(shape) == 3, f"takes an HWC map, not shape {shape}")
        self._require(
            w.ndim == 4 and w.shape[1:3] == self.window.kernel,
            f"weights {w.shape} are not (rows, {self.window.kernel[0]}, "
            f"{self.window.kernel[1]}, channels)",
        )
        self._require(
            self.groups >= 1 and shape[2] % self.groups == 0 and len(w) % self.groups == 0,
            f"{shape[2]} channels and {len(w)} rows do not fall into {self.groups} groups",
        )
        self._require(
            w.shape[3] * self.groups == shape[2],
            f"weights for {w.shape[3] * self.groups} channels, the map has {shape[2]}",
        )
        _window_map(self, self.window, shape)
        if self.window.padded:
            self._require(
                self.source.low <= self.pad_value <= self.source.high
                and (self.source.kind != "bit" or self.pad_value in (-1, 1)),
                f"padding of {self.pad_value} is no value of its input",
            )
        self._check()

    @cached_property
    def windows(self) -> WindowMap:
        """Where the windows lie."""
        return self.window.over(*self.source.shape[:2])

    @property
    def vectors(self) -> int:
        return self.windows.height * self.windows.width

    @property
    def borders(self) -> int:
        return self.windows.borders

    @property
    def _shape(self) -> tuple[int, ...]:
        return (self.windows.height, self.windows.width, self.rows)


def _window_map(layer: Layer, window: Window, shape: tuple[int, ...]) -> WindowMap:
    try:
        return window.over(*shape[:2])
    except ValueError as error:
        raise ModelError(f"Layer {layer.name!r}: {error}") from None


@dataclass(frozen=True, eq=False)
class Pool(Layer):
    """The greatest or the sum of the pixels under each window, channel by channel.

    kind: "max" or "sum". Taps beyond the edge take no part.
    Of bits, the greatest is OR; their sum counts -1 and +1. The least of a source is the greatest
    of its negative, whose sign lowering gives to the consumers: no gate depends on the numbers.
    """

    name: str
    source: ValueType
    window: Window
    kind: str = "max"
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.source.shape
        self._require(len(shape) == 3, f"takes an HWC map, not shape {shape}")
        self._require(self.kind in ("max", "sum"), f"pools by 'max' or 'sum', not {self.kind!r}")
        windows = _window_map(self, self.window, shape)
        for axis in (windows.vertical, windows.horizontal):
            self._require(all(map(any, axis.inside)), "has windows that lie beyond the map's edge")

    @property
    def sources(self) -> tuple[ValueType, ...]:
        return (self.source,)

    @cached_property
    def windows(self) -> WindowMap:
        """Where the windows lie."""
        return self.window.over(*self.source.shape[:2])

    @property
    def output(self) -> ValueType:
        source = self.source
        shape = (self.windows.height, self.windows.width, source.channels)
        if self.kind == "max":
            return ValueType(source.kind, source.bits, shape)
        high = self.window.taps * source.high
        low = self.window.taps * source.low
        if low >= 0:
            return ValueType("uint", high.bit_length(), shape)
        return ValueType("int", max(high, ~low).bit_length() + 1, shape)


@dataclass(frozen=True, eq=False)
class Threshold(Layer):
    """How many thresholds a channel's value meets: `sign * x >= thresholds[level]`.

    sign: int8 (channels,) of ±1: -1 where the source's slope is negative.
    thresholds: int64 (levels, channels), ascending.
    """

    name: str
    source: ValueType
    thresholds: np.ndarray
    sign: np.ndarray
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        channels = self.source.channels
        self._require(
            self.thresholds.ndim == 2 and self.thresholds.shape[1] == channels,
            f"thresholds must be (levels, {channels}), not {self.thresholds.shape}",
        )
        self._require(
            self.sign.shape == (channels,) and np.isin(self.sign, (-1, 1)).all(),
            f"signs must be -1 or +1 for each of {channels} channels",
        )
        _check_bank(self, self.thresholds)

    @property
    def sources(self) -> tuple[ValueType, ...]:
        return (self.source,)

    @property
    def output(self) -> ValueType:
        return _threshold_output(len(self.thresholds), self.source.shape)


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """`sum_i multipliers[i, c] * x_i[c] + offsets[c]`, a residual connection.

    sources: two or more values of one shape. multipliers: int64 (sources, channels).
    offsets: int64 (channels,).
    """

    name: str
    sources: tuple[ValueType, ...]
    multipliers: np.ndarray
    offsets: np.ndarray
    inputs: tuple[str, ...]

    def __post_init__(self) -> None:
        self._require(len(self.sources) > 1, "adds at least two values")
        self._require(
            len({source.shape for source in self.sources}) == 1,
            f"adds values of different shapes {[source.shape for source in self.sources]}",
        )
        channels = self.sources[0].channels
        self._require(
            self.multipliers.shape == (len(self.sources), channels)
            and self.offsets.shape == (channels,)
            and self.multipliers.dtype == self.offsets.dtype == np.int64,
            f"needs int64 multipliers ({len(self.sources)}, {channels}) and offsets ({channels},)",
        )

    @property
    def output(self) -> ValueType:
        low = high = 0
        for source, factor in zip(self.sources, self.multipliers, strict=True):
            ends = np.stack([factor * source.low, factor * source.high])
            low, high = low + ends.min(axis=0), high + ends.max(axis=0)
        bottom, top = int((low + self.offsets).min()), int((high + self.offsets).max())
        bits = max(top, ~bottom, 0).bit_length() + 1
        return ValueType("int", bits, self.sources[0].shape)


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """Channels side by side, in the order of the sources."""

    name: str
    sources: tuple[ValueType, ...]
    inputs: tuple[str, ...]

    def __post_init__(self) -> None:
        self._require(len(self.sources) > 1, "joins at least two values")
        kinds = {(source.kind, source.bits, source.shape[:-1]) for source in self.sources}
        self._require(len(kinds) == 1, f"joins values of different types or sizes {sorted(kinds)}")

    @property
    def output(self) -> ValueType:
        first = self.sources[0]
        channels = sum(source.channels for source in self.sources)
        return ValueType(first.kind, first.bits, (*first.shape[:-1], channels))
