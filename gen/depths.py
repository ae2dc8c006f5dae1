# SPDX-License-Identifier: BSD-2-Clause
"""Depths of line buffers: the least memory at which a core keeps the pace asked of it.

A line buffer of `bubble_free_depth` pixels never makes its source wait. A shallower one may take
fewer block RAMs and then stalls its source, by up to a quarter of the interval on small maps; what
that costs the whole core, whose other stages may be slower anyway, only the exact cycle model
knows. More room never makes a transfer later (the model only adds maxima), so each buffer has a
least depth at which the core keeps its pace, found by bisection, the largest saving first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import inf
from typing import Any

from xnorforge.gen import resources
from xnorforge.gen.assembly import CoreParts, core_parts
from xnorforge.gen.cycles import paced_interval
from xnorforge.gen.layer_plan import LayerPlan, StreamPlan, WindowPlan
from xnorforge.gen.layers import Conv, Pool
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.gen.resources import Resources
from xnorforge.hw.store import FAMILIES
from xnorforge.hw.window import WindowConfig

__all__ = ["LineBuffers", "line_buffers", "shallow_store"]

# Words of a buffer up to which it is made of LUT RAM, where there is any.
_SHALLOW = 64
# Bits of a buffer up to which it is made of flip-flops, where there is no LUT RAM.
_FEW_BITS = 64
# Depths of a buffer that are looked at.
_DEPTHS = 8
# Images after which a pace that has not shown itself is given up.
_IMAGES = 32


def shallow_store(family: str, words: int, bits: int) -> str:
    """The memory that suits a buffer: block RAM unless little of a block would be used."""
    if FAMILIES[family].lut_ram:
        return "lut" if words <= _SHALLOW else "block"
    return "lut" if words * bits <= _FEW_BITS else "block"


def line_buffers(layer: Conv | Pool, lanes: int, family: str) -> tuple[WindowPlan, ...]:
    """Line buffers worth a look, the shallowest that works first.

    Each is the deepest of its memory: one pixel more takes another block RAM. The last never makes
    its source wait.
    """
    config = WindowPlan(lanes, layer.source.pixels, "block").config(layer, family)
    free = config.bubble_free_depth
    depths = [config.min_depth]
    while depths[-1] < free:
        size = _size(config, depths[-1])
        low, high = depths[-1], free
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if _size(config, middle) == size else (low, middle - 1)
        depths[-1] = low
        if low < free:
            depths.append(low + 1)
    # A power of two needs no comparison where the ring wraps: free where the memory has the room.
    round_depth = (1 << (free * config.pixel_beats - 1).bit_length()) // config.pixel_beats
    if round_depth > free and _size(config, round_depth) == _size(config, free):
        depths[-1] = round_depth
    if len(depths) > _DEPTHS:
        step = (len(depths) - 1) / (_DEPTHS - 1)
        depths = [depths[round(step * n)] for n in range(_DEPTHS)]
    return tuple(WindowPlan(lanes, depth, _store(config, depth)) for depth in depths)


def _store(config: WindowConfig, depth: int) -> str:
    return shallow_store(config.family, depth * config.pixel_beats, config.beat_bits)


def _size(config: WindowConfig, depth: int) -> tuple[str, int]:
    """The kind of memory that a ring of this depth takes, and how much."""
    store, words = _store(config, depth), depth * config.pixel_beats
    if store == "block":
        return store, resources.memory_blocks(config.beat_bits, words, config.family)
    if FAMILIES[config.family].lut_ram:
        return store, -(-words // 16)
    return store, 0


@dataclass
class _Buffer:
    """One line buffer of a plan. stage: its place in the core. options: from the shallowest.

    at: the option taken. slower: cycles an image with the next shallower one, where it was tried.
    """

    name: str
    stage: int
    layer: Conv | Pool
    family: str
    options: tuple[WindowPlan, ...]
    at: int
    fixed: bool = False
    slower: Fraction | None = None

    def config(self, at: int) -> WindowConfig:
        return self.options[at].config(self.layer, self.family)

    def used(self, at: int) -> Resources:
        return resources.block(self.config(at), self.family)


@dataclass
class LineBuffers:
    """The line buffers of a plan, made deeper or shallower one by one.

    overrides: checked settings by layer; a depth of theirs stays. price: of what a buffer takes.
    left: what the device has beside the plan.
    """

    network: Network
    plan: Plan
    overrides: Mapping[str, Mapping[str, Any]]
    price: Callable[[Resources], float]
    left: Resources
    _buffers: list[_Buffer] = field(init=False)
    _parts: CoreParts = field(init=False)
    _too_fast: int | None = field(init=False, default=None)  # for the shallowest of all

    def __post_init__(self) -> None:
        self._buffers = list(self._found())

    def _found(self) -> Iterator[_Buffer]:
        plans = [layer.window for layer in self.plan.layers]
        if not any(plans):
            return
        self._parts = core_parts(self.network, self.plan)
        stages = {
            owner: index
            for index, (owner, stage) in enumerate(
                zip(self._parts.owners, self._parts.stages, strict=True)
            )
            if isinstance(stage, WindowConfig)
        }
        family = self.plan.family
        for layer, window in zip(self.network.layers, plans, strict=True):
            if window is None:
                continue
            assert isinstance(layer, Conv | Pool)
            fixed = "depth" in self.overrides.get(layer.name, {})
            options = (window,) if fixed else line_buffers(layer, window.lanes, family)
            buffer = _Buffer(layer.name, stages[layer.name], layer, family, options, 0, fixed)
            # A shallower one that is no cheaper is of no use, unless the plan has it.
            kept: list[WindowPlan] = []
            lowest = inf
            for at in reversed(range(len(options))):
                price = self.price(buffer.used(at))
                if price < lowest or options[at] == window:
                    kept.insert(0, options[at])
                lowest = min(lowest, price)
            buffer.options, buffer.at = tuple(kept), kept.index(window)
            yield buffer

    # --- depths ----------------------------------------------------------------------------

    def deepen(self, wanted: int) -> None:
        """Deeper where that brings the interval nearer to `wanted`, as far as there is room."""
        pace = self._pace({}, wanted)
        for buffer in sorted(self._buffers, key=self._saving):
            if pace == wanted:
                return
            fitting = [at for at in range(len(buffer.options)) if self._fits({buffer.name: at})]
            if max(fitting, default=0) <= buffer.at:
                continue
            found = self._pace({buffer.name: fitting[-1]}, wanted)
            if found is not None and (pace is None or found < pace):
                pace = found
                self._take({buffer.name: fitting[-1]})

    def shrink_all(self, wanted: int) -> bool:
        """All as shallow as they can be, if the core still takes at most `wanted` cycles then."""
        least = {buffer.name: 0 for buffer in self._buffers if buffer.at}
        if not least or wanted == self._too_fast or not self._fits(least):
            return False
        if self._pace(least, wanted) != wanted:
            self._too_fast = wanted
            return False
        self._take(least)
        return True

    def shrink(self, wanted: int) -> None:
        """Shallower as far as the core still takes at most `wanted` cycles an image."""
        if self.shrink_all(wanted):
            return
        for buffer in sorted(self._buffers, key=self._saving, reverse=True):
            low, high = 0, buffer.at
            while low < high:
                # The shallow end first: it often will do.
                middle = (low + high) // 2 if low else 0
                change = {buffer.name: middle}
                found = self._pace(change, wanted) if self._fits(change) else None
                if found == wanted:
                    high = middle
                else:
                    low, buffer.slower = middle + 1, found
            self._take({buffer.name: high})

    def _saving(self, buffer: _Buffer) -> float:
        """What the deepest one costs more than the shallowest."""
        return self.price(buffer.used(-1)) - self.price(buffer.used(0))

    def _fits(self, options: Mapping[str, int]) -> bool:
        """Whether there is room for these buffers instead."""
        changed = [buffer for buffer in self._buffers if buffer.name in options]
        more = sum(
            (buffer.used(options[buffer.name]) - buffer.used(buffer.at) for buffer in changed),
            Resources(),
        )
        return more.fits(self.left)

    def _pace(self, options: Mapping[str, int], wanted: int) -> Fraction | None:
        """Cycles an image with these buffers instead, `wanted` where they are fewer."""
        return paced_interval(self._with(options), wanted, _IMAGES)

    def _with(self, options: Mapping[str, int]) -> CoreParts:
        stages = list(self._parts.stages)
        for buffer in self._buffers:
            if buffer.name in options:
                stages[buffer.stage] = buffer.config(options[buffer.name])
        return replace(self._parts, stages=tuple(stages))

    def _take(self, options: Mapping[str, int]) -> None:
        self._parts = self._with(options)
        for buffer in self._buffers:
            if buffer.name in options:
                at = options[buffer.name]
                self.left = self.left - (buffer.used(at) - buffer.used(buffer.at))
                buffer.at = at

    # --- what came of it -------------------------------------------------------------------

    def planned(self) -> Plan:
        """The plan with these buffers."""
        chosen = {buffer.name: buffer.options[buffer.at] for buffer in self._buffers}

        def deep(layer: LayerPlan | StreamPlan) -> LayerPlan | StreamPlan:
            if layer.name not in chosen:
                return layer
            return replace(layer, window=chosen[layer.name])

        return replace(self.plan, layers=tuple(deep(layer) for layer in self.plan.layers))

    def reasons(self) -> dict[str, str]:
        """By layer why its line buffer is as deep as it is."""
        return {buffer.name: self._reason(buffer) for buffer in self._buffers}

    def _reason(self, buffer: _Buffer) -> str:
        chosen = buffer.options[buffer.at]
        text = f"{_memory(buffer.used(buffer.at))}, {chosen.depth} pixels"
        if buffer.fixed:
            return f"{text}: the overrides say so"
        if buffer.at == len(buffer.options) - 1:
            why = "they never make the source wait"
        else:
            most = buffer.options[-1].depth
            more = _memory(buffer.used(-1))
            why = f"{most}, which never make the source wait, would take {more}"
        if buffer.slower is not None:
            fewer = _memory(buffer.used(buffer.at - 1))
            why += f"; with {fewer} an image would take {float(buffer.slower):,.0f} cycles"
        return f"{text}: {why}"


def _memory(used: Resources) -> str:
    if used.blocks:
        return f"{used.blocks} block RAM{'' if used.blocks == 1 else 's'}"
    if used.lut_rams:
        return f"{used.lut_rams} LUT RAMs"
    return "flip-flops"
