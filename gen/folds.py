# SPDX-License-Identifier: BSD-2-Clause
"""The ways a layer can be folded, each with its cycles and its cost.

A dense layer may take any widths. A convolution's PE divides its rows and its SIMD a window's
pixels, or is several of them, so that beats need no gearbox; only overrides make others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from math import gcd
from typing import Any

from xnorforge.gen import resources
from xnorforge.gen.assembly import conversions
from xnorforge.gen.depths import line_buffers, shallow_store
from xnorforge.gen.layer_plan import LayerPlan, StreamPlan, WindowPlan
from xnorforge.gen.layers import Add, Concat, Conv, Layer, Pool, Product, Threshold
from xnorforge.gen.network import Network
from xnorforge.gen.overrides import FOLD_FIELDS, STORE_FIELDS
from xnorforge.gen.resources import Resources
from xnorforge.hw.folding import divisors
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.store import FAMILIES, SPRAM_FAMILIES
from xnorforge.hw.store_config import SPRAM_SHARES, fits_share
from xnorforge.hw.structures import SPREAD_BITS, engine_for
from xnorforge.hw.threshold import ThresholdConfig
from xnorforge.hw.tile_pool import tiles

__all__ = ["Fold", "Folds"]

# SIMD widths looked at per PE and PL, from the narrowest that is fast enough.
_WIDER = 5
# Windows that may share weight words.
_REUSE = (1, 2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True)
class Fold:
    """A fold of one layer.

    cycles: an image. engine: what it costs without its stores; stores: with each kind of store,
    in the order of STORE_FIELDS, nothing for a layer without weights. vector_in, lanes_in,
    vector_out, lanes_out: elements of a vector and of a beat on its two streams. steps: of the
    engine, an image. shares: what weights cost with each share of an SPRAM that other layers read
    too; a step then takes that many cycles.
    """

    layer: LayerPlan | StreamPlan
    cycles: int
    engine: Resources
    stores: tuple[Mapping[str, Resources], ...]
    vector_in: int
    lanes_in: int
    vector_out: int
    lanes_out: int
    steps: int = 0
    shares: Mapping[int, Resources] = field(default_factory=dict)


class Folds:
    """Folds of every layer of a network on a family.

    overrides: checked settings by layer. constant: weights and presets may be constant logic.
    slots: models that the memories hold. shallow: line buffers are the shallowest that work,
    instead of such as never cost time.
    """

    def __init__(
        self,
        network: Network,
        family: str,
        overrides: Mapping[str, Mapping[str, Any]],
        constant: bool,
        *,
        slots: int = 1,
        shallow: bool = False,
    ) -> None:
        self.slots = slots
        self.network = network
        self.family = family
        self.overrides = overrides
        self.shallow = shallow
        self._kinds: dict[str, tuple[str, ...]] = dict.fromkeys(STORE_FIELDS, ("lut", "block"))
        if constant:
            self._kinds["preset_store"] += ("const",)
            self._kinds["weight_store"] += ("const",)
        if family in SPRAM_FAMILIES and slots == 1:
            self._kinds["weight_store"] += ("spram",)
        self._widths = [self._useful(index) for index in range(len(network.layers))]
        self._fold = cache(self._make)

    def fastest(self, index: int, *, reuse: bool = True) -> int:
        """Fewest cycles an image of a layer, as its overrides allow.

        reuse: also with several windows at once.
        """
        pe, simd, pl, windows = self._widths[index]
        together = max(windows) if reuse else windows[0]
        return self._cycles(index, max(pe), max(simd), max(pl), together)

    def intervals(self, index: int) -> set[int]:
        """Cycles an image of all folds of a layer."""
        return {self._cycles(index, *widths) for widths in product(*self._widths[index])}

    def reusable(self) -> bool:
        """Whether a layer has a choice of how many windows share its weights."""
        return any(len(widths[3]) > 1 for widths in self._widths)

    def within(self, index: int, interval: int | None, reuse: bool = False) -> Iterator[Fold]:
        """For each PE and PL the narrowest SIMD that is fast enough, and the next few: a wider
        one costs more logic but may fill its memories better.

        reuse: also narrower ones, which are fast enough with several windows at once.
        """
        rows, columns, planes, windows = self._widths[index]
        for pe, pl in product(rows, planes):
            enough = len(columns)
            for together in windows if reuse else windows[:1]:
                first = 0
                while first < enough and not (
                    interval is None
                    or self._cycles(index, pe, columns[first], pl, together) <= interval
                ):
                    first += 1
                for simd in columns[first : min(first + _WIDER, enough)]:
                    yield self._fold(index, pe, simd, pl, together)
                enough = first

    def _useful(self, index: int) -> tuple[list[int], ...]:
        """Values of PE, SIMD, PL and reuse worth a look; of a pool, its lanes as SIMD."""
        layer = self.network.layers[index]
        fixed = self.overrides.get(layer.name, {})
        if isinstance(layer, Pool | Threshold):
            found = ([1], divisors(layer.source.channels), [1], [1])
        elif isinstance(layer, Product):
            rows = layer.rows // layer.groups
            simd, pl = _useful_widths(layer.columns), _useful_widths(layer.source.bits)
            if isinstance(layer, Conv):
                channels = layer.source.channels // layer.groups
                whole = [channels * taps for taps in divisors(layer.window.taps)]
                reuse = [windows for windows in _REUSE if windows <= layer.vectors]
                found = (divisors(rows), sorted({*divisors(channels), *whole}), pl, reuse)
            else:
                found = (_useful_widths(rows), simd, pl, [1])
        else:
            found = ([1], divisors(_shared_channels(layer)), [1], [1])
        return tuple(
            [fixed[field]] if field in fixed else widths
            for field, widths in zip(FOLD_FIELDS, found, strict=True)
        )

    def _cycles(self, index: int, pe: int, simd: int, pl: int, reuse: int) -> int:
        layer = self.network.layers[index]
        if isinstance(layer, Pool):
            return _window_cycles(layer, simd)
        if isinstance(layer, Threshold):
            return layer.source.size // simd
        if isinstance(layer, Add | Concat):
            return layer.output.pixels * _beats(layer, simd)
        assert isinstance(layer, Product)
        results, beats = -(-layer.rows // layer.groups // pe), -(-layer.columns // simd)
        steps = results * beats * -(-layer.source.bits // pl) * layer.weight_type.planes
        share = self.overrides.get(layer.name, {}).get("share", 1)
        cycles = -(-layer.vectors // reuse) * layer.groups * steps * share
        if reuse > 1:  # windows come and results leave one after the other
            cycles = max(cycles, layer.vectors * layer.groups * max(results, beats))
        if isinstance(layer, Conv):
            cycles = max(cycles, _window_cycles(layer, _window_lanes(layer, simd)))
        return cycles

    def _make(self, index: int, pe: int, simd: int, pl: int, reuse: int) -> Fold:
        layer = self.network.layers[index]
        cycles = self._cycles(index, pe, simd, pl, reuse)
        if isinstance(layer, Pool):
            return self._pool(layer, simd, cycles)
        if isinstance(layer, Threshold):
            return self._threshold(layer, simd, cycles)
        if isinstance(layer, Add | Concat):
            return self._join(layer, simd, cycles)
        assert isinstance(layer, Product)
        fixed = self.overrides.get(layer.name, {})
        spread = self.network.weight_bits >= SPREAD_BITS
        measured = engine_for(self.family, simd, spread=spread)
        plan = LayerPlan.of(
            layer,
            pe=pe,
            simd=simd,
            pl=pl,
            weight_store="lut",
            preset_store="lut",
            buffer_store="lut",
            structure=fixed.get("structure", measured.structure),
            pipeline=fixed.get("pipeline", measured.pipeline),
            window=self._window(layer, _window_lanes(layer, simd))
            if isinstance(layer, Conv)
            else None,
            reuse=reuse,
            weight_hops=int(spread and FAMILIES[self.family].register),
            slots=self.slots,
        )
        config = plan.mvu_config(self.family, layer)
        if layer.levels > 1:
            serial = ThresholdConfig.behind(config, layer.levels, method="serial")
            # Results of several windows leave in a row, at this pace on average.
            if serial.interval * reuse <= config.result_steps:
                plan = replace(plan, method="serial")
        stores = tuple(
            {
                kind: resources.mvu_store(config, memory, kind)
                for kind in ([fixed[memory]] if memory in fixed else self._kinds[memory])
            }
            for memory in STORE_FIELDS
        )
        shares = {}
        if "spram" in stores[0]:
            shares = _shares(config, [fixed["share"]] if "share" in fixed else SPRAM_SHARES)
        if fixed.get("share", 1) > 1:
            stores = ({}, *stores[1:])
        engine = resources.engine(config)
        thresholds = plan.threshold_config(self.family, layer)
        if thresholds is not None:
            engine += resources.block(thresholds, self.family)
        vector_in, lanes_in = layer.columns, simd
        if plan.window is not None:
            assert isinstance(layer, Conv)
            engine += resources.block(plan.window.config(layer, self.family), self.family)
            for converter in conversions(
                layer.columns, plan.window.lanes, layer.source.bits, layer.columns, simd
            ):
                engine += resources.converter(converter, self.family)
            vector_in, lanes_in = layer.source.channels, plan.window.lanes
        return Fold(
            plan,
            cycles,
            engine,
            stores,
            vector_in,
            lanes_in,
            plan.rows,
            pe,
            config.image_cycles,
            shares,
        )

    def _pool(self, layer: Pool, lanes: int, cycles: int) -> Fold:
        channels = layer.source.channels
        plan = StreamPlan(layer.name, "pool", lanes)
        if tiles(layer.windows):
            config = plan.tile_config(layer, self.family)
            plan = replace(plan, store=shallow_store(self.family, config.words, config.word_bits))
            cost = resources.block(plan.tile_config(layer, self.family), self.family)
        else:
            window = self._window(layer, lanes)
            plan = replace(plan, window=window)
            cost = resources.block(window.config(layer, self.family), self.family)
            cost += resources.block(plan.pool_config(layer), self.family)
        return Fold(plan, cycles, cost, (), channels, lanes, channels, lanes)

    def _threshold(self, layer: Threshold, lanes: int, cycles: int) -> Fold:
        plan = StreamPlan(layer.name, "threshold", lanes, slots=self.slots)
        config = plan.threshold_config(layer, self.family)
        cost = resources.block(config, self.family)
        return Fold(plan, cycles, cost, (), config.rows, lanes, config.rows, lanes)

    def _join(self, layer: Add | Concat, lanes: int, cycles: int) -> Fold:
        plan = StreamPlan(layer.name, type(layer).__name__.lower(), lanes)
        if isinstance(layer, Add):
            plan = replace(plan, slots=self.slots)
            cost = resources.block(plan.add_config(layer, self.family), self.family)
        else:
            cost = resources.block(plan.concat_config(layer), self.family)
        channels = layer.sources[0].channels
        return Fold(plan, cycles, cost, (), channels, lanes, layer.output.channels, lanes)

    def _window(self, layer: Conv | Pool, lanes: int) -> WindowPlan:
        """A line buffer that never makes its source wait, or the shallowest, where asked for."""
        depth = self.overrides.get(layer.name, {}).get("depth")
        if depth is not None:
            words = depth * (layer.source.channels // lanes)
            store = shallow_store(self.family, words, lanes * layer.source.bits)
            return WindowPlan(lanes, depth, store)
        return line_buffers(layer, lanes, self.family)[0 if self.shallow else -1]


def _shares(config: MvuConfig, shares: Iterable[int]) -> dict[int, Resources]:
    """What weights cost with each share of an SPRAM that holds them."""
    shape = config.weight_config
    return {
        share: resources.mvu_store(
            replace(config, weight_store="spram", share=share), "weight_store", "spram"
        )
        for share in shares
        if share > 1 and fits_share(shape.width, shape.depth, share)
    }


def _shared_channels(layer: Layer) -> int:
    """What the lanes of a join must divide."""
    if isinstance(layer, Concat):
        return gcd(*(source.channels for source in layer.sources))
    return layer.output.channels


def _beats(layer: Add | Concat, lanes: int) -> int:
    """Beats of a pixel."""
    if isinstance(layer, Concat):
        return sum(-(-source.channels // lanes) for source in layer.sources)
    return -(-layer.output.channels // lanes)


def _window_lanes(layer: Conv, simd: int) -> int:
    """Channels a beat of the line buffer: the fewest that keep up with the engine."""
    channels = layer.source.channels // layer.groups
    return next(lanes for lanes in divisors(channels) if lanes >= min(simd, channels))


def _window_cycles(layer: Conv | Pool, lanes: int) -> int:
    """Cycles an image of a line buffer: a beat goes in and a beat of a window out in each."""
    windows = layer.windows.height * layer.windows.width * layer.window.taps
    return max(windows, layer.source.pixels) * layer.source.channels // lanes


def _useful_widths(limit: int) -> list[int]:
    """The smallest width for each possible number of folds of `limit`."""
    return sorted({-(-limit // folds) for folds in range(1, limit + 1)})
