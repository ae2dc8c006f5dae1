# SPDX-License-Identifier: BSD-2-Clause
"""How each layer is laid out: the numbers of its circuits, and their configurations."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from xnorforge.gen.errors import PlanError
from xnorforge.gen.layers import Add, Concat, Conv, Pool, Product, Threshold
from xnorforge.hw.add import AddConfig
from xnorforge.hw.concat import ConcatConfig
from xnorforge.hw.folding import Folding
from xnorforge.hw.fork import ForkConfig
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.pool import PoolConfig
from xnorforge.hw.shared_spram import SpramShare, pack_shares
from xnorforge.hw.threshold import ThresholdConfig
from xnorforge.hw.tile_pool import TilePoolConfig
from xnorforge.hw.window import WindowConfig

__all__ = [
    "ForkPlan",
    "LayerPlan",
    "StreamPlan",
    "WindowPlan",
    "add_widths",
    "engine_extras",
    "layer_plan",
    "with_ports",
]


@dataclass(frozen=True)
class WindowPlan:
    """A line buffer. lanes: channels a beat. depth: pixels it holds. store: "block" or "lut"."""

    lanes: int
    depth: int
    store: str

    def config(self, layer: Conv | Pool, family: str) -> WindowConfig:
        """The SlidingWindow before this layer."""
        source = layer.source
        mask = (1 << source.bits) - 1
        if isinstance(layer, Conv):
            groups = layer.groups
            pad = int(layer.pad_value > 0) if source.kind == "bit" else layer.pad_value & mask
        else:
            groups = source.channels // self.lanes
            pad = _pool_padding(layer, self.lanes) if layer.window.padded else 0
        height, width, channels = source.shape
        return WindowConfig(
            height=height,
            width=width,
            channels=channels,
            element_bits=source.bits,
            lanes=self.lanes,
            window=layer.window,
            groups=groups,
            pad_bits=pad,
            depth=self.depth,
            store=self.store,
            family=family,
        )


@dataclass(frozen=True)
class ForkPlan:
    """The queues behind a value that several layers take.

    value: the layer that gives it, or "input". depths: beats of each consumer's queue, in the
    order of the layers. stores: their memories, as in `hw.stream`.
    """

    value: str
    depths: tuple[int, ...]
    stores: tuple[str, ...]

    def config(self, width: int) -> ForkConfig:
        return ForkConfig(width, self.depths, self.stores)


@dataclass(frozen=True)
class StreamPlan:
    """A layer without weights. lanes: channels a beat. method: of thresholds, as in
    `ThresholdConfig`.

    Of a pool: window, its line buffer; without one its windows lie side by side (`hw.tile_pool`),
    and store is where its results so far lie, "block" or "lut". slots: models that its numbers'
    memory holds.
    """

    name: str
    op: str
    lanes: int
    window: WindowPlan | None = None
    method: str = "parallel"
    store: str = "block"
    slots: int = 1

    @property
    def folds(self) -> list[int]:
        return [self.lanes]

    def threshold_config(self, layer: Threshold, family: str) -> ThresholdConfig:
        """The ThresholdUnit of a layer of thresholds: its numbers come a vector at a time."""
        source = layer.source
        return ThresholdConfig(
            rows=source.channels,
            levels=len(layer.thresholds),
            kind=source.kind,
            bits=source.bits,
            lanes=self.lanes,
            method=self.method,
            signs=True,
            family=family,
            slots=self.slots,
        )

    def add_config(self, layer: Add, family: str) -> AddConfig:
        return AddConfig(
            channels=layer.output.channels,
            lanes=self.lanes,
            kinds=tuple(source.kind for source in layer.sources),
            bits=tuple(source.bits for source in layer.sources),
            output_bits=layer.output.bits,
            family=family,
            slots=self.slots,
            **add_widths(layer),
        )

    def concat_config(self, layer: Concat) -> ConcatConfig:
        channels = tuple(source.channels for source in layer.sources)
        return ConcatConfig(channels, layer.output.bits, self.lanes)

    def pool_config(self, layer: Pool) -> PoolConfig:
        return _pool_config(layer, self.lanes)

    def tile_config(self, layer: Pool, family: str) -> TilePoolConfig:
        """The TilePool of a pool without a line buffer."""
        return TilePoolConfig(
            pool=self.pool_config(layer), windows=layer.windows, store=self.store, family=family
        )


def _pool_config(layer: Pool, lanes: int) -> PoolConfig:
    source = layer.source
    return PoolConfig(
        channels=source.channels,
        element_bits=source.bits,
        kind=source.kind,
        lanes=lanes,
        taps=layer.window.taps,
        mode=layer.kind,
    )


def _pool_padding(layer: Pool, lanes: int) -> int:
    """Stored bits of an element that takes no part."""
    try:
        return _pool_config(layer, lanes).pad_bits
    except ValueError as error:
        raise PlanError(
            f"Layer {layer.name!r} has no circuit: {error}, and its windows hang over the map"
        ) from None


@dataclass(frozen=True)
class LayerPlan(Folding):
    """One MatrixVectorUnit, and the line buffer of a convolution.

    rows, columns, input_bits: the layer's shape. pe, simd, pl: rows, columns and input planes
    worked on in parallel. weight_store, preset_store, buffer_store: "block" (block RAM) or "lut"
    (distributed RAM, or flip-flops where the family has none); weights and presets may also be
    "const" (logic, never loaded), weights "spram" (loaded before use). scores: True for the last
    layer. structure, pipeline: the popcounts' (`hw.popcount`); "": the measured choice of the day,
    which a plan made by the planner names. rows, columns: of one of `sets` weight matrices.
    planes: of a weight. vectors: windows an image. method: how several thresholds a row are
    compared, as in `ThresholdConfig`. reuse: windows worked on at once with the same weights.
    weight_hops: more registers behind the weights' block RAMs. slots: models that weights, presets
    and thresholds are held of. share: weights "spram" have one cycle in so many of a shared SPRAM
    (`hw.shared_spram`); port, turn: number of that SPRAM, and which of the cycles.
    """

    name: str
    rows: int
    columns: int
    input_kind: str
    input_bits: int
    scores: bool
    pe: int
    simd: int
    pl: int
    weight_store: str
    preset_store: str
    buffer_store: str
    structure: str = ""
    pipeline: str = ""
    sets: int = 1
    planes: int = 1
    vectors: int = 1
    window: WindowPlan | None = None
    method: str = "parallel"
    reuse: int = 1
    weight_hops: int = 0
    slots: int = 1
    share: int = 1
    port: int = 0
    turn: int = 0

    @classmethod
    def of(cls, layer: Product, **choices: Any) -> "LayerPlan":
        """A layer's shape, and the choices: widths, stores, structures, the window."""
        return cls(
            name=layer.name,
            rows=layer.rows // layer.groups,
            columns=layer.columns,
            input_kind=layer.source.kind,
            input_bits=layer.source.bits,
            scores=layer.levels != 1,
            sets=layer.groups,
            planes=layer.weight_type.planes,
            vectors=layer.vectors,
            **choices,
        )

    @property
    def folds(self) -> list[int]:
        return [self.pe, self.simd, self.pl, *([self.reuse] if self.reuse > 1 else [])]

    @property
    def spram_share(self) -> SpramShare | None:
        """The layer's part of a shared SPRAM, if its weights lie in one."""
        return SpramShare(self.share, self.turn) if self.share > 1 else None

    @property
    def image_cycles(self) -> int:
        """Engine cycles an image."""
        return -(-self.vectors // self.reuse) * self.sets * self.fold_cycles

    def mvu_config(self, family: str, layer: Product) -> MvuConfig:
        """The MatrixVectorUnit of this layer on a family."""
        return MvuConfig(
            rows=self.rows,
            columns=self.columns,
            input_kind=self.input_kind,
            input_bits=self.input_bits,
            pe=self.pe,
            simd=self.simd,
            pl=self.pl,
            scores=self.scores,
            family=family,
            weight_store=self.weight_store,
            preset_store=self.preset_store,
            buffer_store=self.buffer_store,
            structure=self.structure,
            pipeline=self.pipeline,
            reuse=self.reuse,
            weight_hops=self.weight_hops,
            slots=self.slots,
            share=self.share,
            turn=self.turn,
            **engine_extras(layer),
        )

    def threshold_config(self, family: str, layer: Product) -> ThresholdConfig | None:
        """The ThresholdUnit behind the engine, where a row has more than one threshold."""
        if layer.levels < 2:
            return None
        config = self.mvu_config(family, layer)
        return ThresholdConfig.behind(config, layer.levels, method=self.method)


def with_ports(layers: tuple[LayerPlan | StreamPlan, ...]) -> tuple[LayerPlan | StreamPlan, ...]:
    """The layers with their shares of SPRAMs laid out: each has its SPRAM and its turn."""
    found = list(layers)
    sharing = [
        (index, plan)
        for index, plan in enumerate(layers)
        if isinstance(plan, LayerPlan) and plan.share > 1
    ]
    packed = pack_shares([plan.share for _, plan in sharing])
    for (index, plan), (port, part) in zip(sharing, packed, strict=True):
        found[index] = dataclasses.replace(plan, port=port, turn=part.turn)
    return tuple(found)


def engine_extras(layer: Product) -> dict[str, Any]:
    """What an engine needs beyond a dense binary layer."""
    extras: dict[str, Any] = {}
    if layer.groups > 1:
        extras["sets"] = layer.groups
    if layer.weight_type.planes > 1:
        extras["coefficients"] = layer.weight_type.coefficients
        extras["halved"] = layer.weight_type.kind == "int"
    if layer.offsets is not None:
        extras["offset_high"] = int(abs(layer.offsets).max())
    if isinstance(layer, Conv):  # also without borders: it says how many vectors make an image
        extras["windows"] = layer.windows
    return extras


def add_widths(layer: Add) -> dict[str, Any]:
    return AddConfig.number_widths(layer.multipliers, layer.offsets)


def layer_plan(item: dict[str, Any]) -> LayerPlan | StreamPlan:
    kind = StreamPlan if "op" in item else LayerPlan
    fields = {f.name for f in dataclasses.fields(kind)}
    kept = {name: value for name, value in item.items() if name in fields}
    if kept.get("window") is not None:
        kept["window"] = WindowPlan(**kept["window"])
    if kind is LayerPlan:
        kept = _before_structures(item) | kept
    return kind(**kept)


def _before_structures(layer: dict[str, Any]) -> dict[str, str]:
    """The engine of a layer whose plan does not name it: there was one for each width."""
    return {"structure": "carry", "pipeline": "output" if layer["simd"] <= 8 else "half"}
