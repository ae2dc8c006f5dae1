# SPDX-License-Identifier: BSD-2-Clause
"""Random networks with every kind of layer, small enough to simulate.

`random_network` draws one, `dense_network` one of given sizes. `coverage` names the features of a
network: a test over many seeds can tell that it met every one of `FEATURES`.
"""

from __future__ import annotations

from itertools import count, pairwise
from typing import Any

import numpy as np

from xnorforge.gen.errors import ModelError
from xnorforge.gen.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    Layer,
    Pool,
    Threshold,
    ValueType,
    WeightType,
)
from xnorforge.gen.network import INPUT, Head, Input, Network
from xnorforge.hw.geometry import Window
from xnorforge.sim.coverage import FEATURES, coverage

__all__ = ["FEATURES", "coverage", "dense_network", "random_images", "random_network"]

_MOST_BITS = 8  # of what a product takes
_WEIGHTS = [WeightType()] * 4 + [
    WeightType(kind, bits) for kind in ("odd", "int") for bits in (1, 2, 3)
]


def random_network(
    rng: np.random.Generator, *, side: int = 7, channels: int = 9, blocks: int = 3
) -> Network:
    """A network of random shape and numbers.

    side, channels: the most of an input map; layers have up to `channels` rows. blocks: the most
    parts of one to four layers before the last ones.
    """
    return _Draw(rng, side, channels).network(int(rng.integers(0, blocks + 1)))


def random_images(rng: np.random.Generator, network: Network, count: int) -> np.ndarray:
    """Images (count, *shape) over the whole range the network takes."""
    return network.input.draw(rng, count)


def dense_network(
    rng: np.random.Generator,
    sizes: list[int],
    kind: str = "bit",
    bits: int = 1,
    threshold: int = 128,
    inverted: bool = False,
    head: Head | None = None,
) -> Network:
    """Dense layers of ±1 `sizes[0] -> ... -> sizes[-1]`; some rows are always or never +1."""
    value = ValueType(kind, bits, (sizes[0],))
    spec = Input(value, "uint8", threshold, inverted)
    if kind != "bit":
        spec = Input(value, "int8" if kind == "int" else "uint8")
    layers = []
    for index, (columns, rows) in enumerate(pairwise(sizes)):
        weights = rng.choice(np.array([-1, 1], dtype=np.int8), size=(rows, columns))
        thresholds = None
        if index < len(sizes) - 2:
            high = columns * max(abs(value.low), value.high)
            spread = max(1, high // 4)
            thresholds = rng.integers(-spread, spread + 1, size=rows).astype(np.int64)
            always, never = rng.random(rows) < 0.05, rng.random(rows) < 0.05
            thresholds[always], thresholds[never] = -high, high + 1
        layers.append(Dense(f"dense{index}", value, weights, thresholds))
        value = layers[-1].output
    return Network("random", spec, tuple(layers), head or Head())


class _Draw:
    """One network in the making. Methods that add layers give the name of the last one."""

    def __init__(self, rng: np.random.Generator, side: int, channels: int) -> None:
        self._rng, self._side, self._channels = rng, side, channels
        self._layers: list[Layer] = []
        self._types: dict[str, ValueType] = {}
        self._numbers = count()

    def network(self, blocks: int) -> Network:
        spec = self._input()
        self._types[INPUT] = spec.value
        at = INPUT
        for _ in range(blocks):
            if len(self._types[at].shape) == 3:
                parts = [self._conv, self._residual, *[self._pool, self._branches] * 2] * 2
                at = self._pick([*parts, self._threshold])(at)
                if self._types[at].kind == "int" and self._chance(0.8):
                    at = self._threshold(at)
        at = self._last(at)
        classes = self._types[at].channels
        affine = self._chance(0.2)
        head = Head(
            tie=str(self._rng.choice(["first", "last"])),
            scale=self._rng.integers(-99, 100, classes) if affine else None,
            offset=self._rng.integers(-999, 1000, classes) if affine else None,
            rule="highest_bit" if self._chance(0.15) else "argmax",
        )
        return Network("random", spec, tuple(self._layers), head)

    # --- dice ----------------------------------------------------------------------------------

    def _chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def _between(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, high + 1))

    def _pick(self, items: list[Any]) -> Any:
        return items[self._between(0, len(items) - 1)]

    # --- parts ---------------------------------------------------------------------------------

    def _input(self) -> Input:
        kind = self._pick(["bit", "bit", "uint", "int"])
        bits = 1 if kind == "bit" else self._between(2, 8)
        shape: tuple[int, ...] = (self._between(1, 40),)
        if self._chance(0.9):
            shape = (
                self._between(2, self._side),
                self._between(2, self._side),
                self._between(1, self._channels),
            )
        value = ValueType(kind, bits, shape)
        if kind == "bit":
            return Input(value, "uint8", self._between(1, 255), self._chance(0.3))
        if self._chance(0.4):
            size = (256,) if self._chance(0.5) else (shape[-1], 256)
            table = self._rng.integers(value.low, value.high + 1, size)
            return Input(value, "uint8", table=table)
        return Input(value, "uint8" if kind == "uint" else "int8")

    def _add(self, layer: Layer) -> str:
        self._layers.append(layer)
        self._types[layer.name] = layer.output
        return layer.name

    def _name(self, kind: str) -> str:
        return f"{kind}{next(self._numbers)}"

    def _inputs(self, *names: str) -> tuple[str, ...]:
        before = self._layers[-1].name if self._layers else INPUT
        return () if names == (before,) and self._chance(0.7) else names

    def _narrow(self, at: str) -> str:
        """A value of few enough bits for a product."""
        return at if self._types[at].bits <= _MOST_BITS else self._threshold(at)

    def _window(self, height: int, width: int, *, pool: bool = False) -> Window:
        """One that fits; of a pool, every window has a pixel on the map."""
        while True:
            kernel = self._between(1, 3), self._between(1, 3)
            if self._chance(0.6):
                kernel = (kernel[0], kernel[0])
            stride = (1, 1) if self._chance(0.5) else (self._between(1, 3), self._between(1, 3))
            dilation = (1, 1) if self._chance(0.7) else (self._between(1, 2), self._between(1, 2))
            pads = self._pick([(0,) * 4, (1,) * 4, tuple(self._between(0, 2) for _ in range(4))])
            window = Window(kernel, stride, dilation, pads)
            try:
                if pool:
                    Pool("try", ValueType("bit", 1, (height, width, 1)), window)
                else:
                    window.over(height, width)
            except (ModelError, ValueError):
                continue
            return window

    def _weights(self, kind: WeightType, shape: tuple[int, ...]) -> np.ndarray:
        if kind.kind == "int":
            return self._rng.integers(-kind.high, kind.high + 1, shape).astype(np.int8)
        return (2 * self._rng.integers(0, 1 << kind.bits, shape) - kind.high).astype(np.int8)

    def _bank(self, low: int, high: int, spread: float, shape: tuple[int, ...]) -> np.ndarray:
        """Thresholds (..., levels, channels) in [low, high + 1], some of them always or never."""
        bank = np.rint(self._rng.normal(0, max(1.0, spread), shape)).astype(np.int64)
        extreme = self._rng.random(shape)
        bank[extreme < 0.04], bank[extreme > 0.96] = low, high + 1
        return np.sort(np.clip(bank, low, high + 1), axis=-2)

    def _levels(self) -> int:
        return self._pick([1, 1, 1, 3, 7, 15])

    def _product(self, make: Any, levels: int | None, *, plain: bool = False, **fields: Any) -> str:
        """A layer with weights; levels: 0 for dots, None for any number."""
        bare = make(thresholds=None, **fields)
        levels = self._pick([0, self._levels(), self._levels()]) if levels is None else levels
        if levels:
            spread = bare.columns**0.5 * bare.weight_type.high * bare.source.high
            shape = (bare.borders, levels, bare.rows)
            bank = self._bank(bare.dot_low, bare.dot_high, spread, shape)
            return self._add(make(thresholds=bank if bare.borders > 1 else bank[0], **fields))
        if not plain and self._chance(0.3):
            fields["offsets"] = self._rng.integers(-9, 10, (bare.borders, bare.rows))
        return self._add(make(thresholds=None, **fields))

    def _conv(
        self,
        at: str,
        levels: int | None = None,
        window: Window | None = None,
        rows: int | None = None,
        plain: bool = False,
    ) -> str:
        """levels: as in `_product`. plain: one group, weights of ±1, no offsets."""
        at = self._narrow(at)
        source = self._types[at]
        height, width, channels = source.shape
        window = window or self._window(height, width)
        parts = [g for g in range(2, 9) if channels % g == 0]
        groups = 1 if plain else self._pick([1, 1, channels, *parts])
        if rows is None:
            rows = groups * self._between(1, max(1, self._channels // groups))
        elif rows % groups:
            groups = 1
        kind = WeightType() if plain else self._pick(_WEIGHTS)
        inner = self._between(source.low, source.high)
        pad_value = self._pick([source.low, source.high, max(0, source.low), inner])
        return self._product(
            Conv,
            levels,
            plain=plain,
            name=self._name("conv"),
            source=source,
            weights=self._weights(kind, (rows, *window.kernel, channels // groups)),
            window=window,
            groups=groups,
            pad_value=source.low if source.kind == "bit" and pad_value == 0 else pad_value,
            weight_type=kind,
            inputs=self._inputs(at),
        )

    def _dense(self, at: str, levels: int | None = None) -> str:
        at = self._narrow(at)
        source = self._types[at]
        if self._chance(0.5):
            source = ValueType(source.kind, source.bits, (source.size,))
        kind = self._pick(_WEIGHTS)
        weights = self._weights(kind, (self._between(1, self._channels), source.size))
        return self._product(
            Dense,
            levels,
            name=self._name("dense"),
            source=source,
            weights=weights,
            weight_type=kind,
            inputs=self._inputs(at),
        )

    def _pool(self, at: str) -> str:
        source = self._types[at]
        window = self._window(*source.shape[:2], pool=True)
        kind = self._pick(["max", "max", "sum"])
        return self._add(Pool(self._name("pool"), source, window, kind, self._inputs(at)))

    def _threshold(self, at: str) -> str:
        source = self._types[at]
        shape = (self._levels(), source.channels)
        bank = self._bank(-source.high, source.high, source.high / 8, shape)
        sign = self._rng.choice(np.array([-1, 1], np.int8), source.channels)
        name = self._name("threshold")
        return self._add(Threshold(name, source, bank, sign, self._inputs(at)))

    def _residual(self, at: str) -> str:
        """Layers that keep the map's shape, added to it."""
        at = self._narrow(at)
        channels = self._types[at].channels
        kernel = self._between(1, 3)
        same = (kernel // 2, kernel // 2, (kernel - 1) // 2, (kernel - 1) // 2)
        window = Window((kernel, kernel), pads=same)
        names = [at, self._conv(at, self._pick([0, 0, None]), window, channels)]
        if self._chance(0.3):
            names.append(self._conv(at, 0, Window((1, 1)), channels))
        sources = tuple(self._types[name] for name in names)
        plain = self._chance(0.5)
        multipliers = (
            np.ones((len(names), channels), np.int64)
            if plain
            else self._rng.integers(-3, 4, (len(names), channels))
        )
        offsets = np.zeros(channels, np.int64) if plain else self._rng.integers(-9, 10, channels)
        layer = Add(self._name("add"), sources, multipliers, offsets, tuple(names))
        return self._add(layer)

    def _branches(self, at: str) -> str:
        """Two layers on one map, side by side."""
        at = self._narrow(at)
        source = self._types[at]
        window, levels = self._window(*source.shape[:2]), self._pick([0, *[self._levels()] * 3])
        names = [
            self._conv(at, levels, window, plain=not levels) for _ in range(self._between(2, 3))
        ]
        if self._types[names[0]].shape[:2] == source.shape[:2] and self._chance(0.5):
            first = self._types[names[0]]
            if (first.kind, first.bits) == (source.kind, source.bits):
                names.insert(0, at)
        sources = tuple(self._types[name] for name in names)
        return self._add(Concat(self._name("concat"), sources, tuple(names)))

    def _last(self, at: str) -> str:
        """What ends in scores."""
        source = self._types[at]
        way = self._between(0, 3) if len(source.shape) == 3 else 0
        if way <= 1:
            if self._chance(0.4):
                at = self._dense(at, self._levels())
            return self._dense(at, 0)
        if way == 2:
            at = self._narrow(at)
            return self._conv(at, 0, Window((self._types[at].shape[0], self._types[at].shape[1])))
        if source.kind == "uint":
            at = self._conv(at, self._pick([0, 1]), Window((1, 1)))
            source = self._types[at]
            if source.kind == "uint":
                raise AssertionError("one level gives bits")
        return self._add(
            Pool(
                self._name("pool"),
                source,
                Window((source.shape[0], source.shape[1])),
                "sum",
                self._inputs(at),
            )
        )
