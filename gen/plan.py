# SPDX-License-Identifier: BSD-2-Clause
"""The plan: how a network is laid out on a device. Numbers only; `gen.assembly` builds from it."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from xnorforge.gen.errors import PlanError
from xnorforge.gen.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    Layer,
    Pool,
    Product,
    Threshold,
    WeightType,
)
from xnorforge.gen.network import Network
from xnorforge.hw.add import AddConfig
from xnorforge.hw.concat import ConcatConfig
from xnorforge.hw.folding import Folding
from xnorforge.hw.fork import ForkConfig
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.pool import PoolConfig
from xnorforge.hw.threshold import ThresholdConfig
from xnorforge.hw.tile_pool import TilePoolConfig
from xnorforge.hw.window import WindowConfig

__all__ = ["ForkPlan", "LayerPlan", "Plan", "StreamPlan", "WindowPlan"]


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
            **_add_widths(layer),
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
    and thresholds are held of.
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
            **_extras(layer),
        )

    def threshold_config(self, family: str, layer: Product) -> ThresholdConfig | None:
        """The ThresholdUnit behind the engine, where a row has more than one threshold."""
        if layer.levels < 2:
            return None
        config = self.mvu_config(family, layer)
        return ThresholdConfig.behind(config, layer.levels, method=self.method)


def _extras(layer: Product) -> dict[str, Any]:
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


@dataclass(frozen=True)
class Plan:
    """A network laid out on a device.

    family: of the device, a key of `gen.devices`. board: key of `gen.boards` or None. clock_hz: the
    PLL's real output (or the requested clock without a board). lanes: image elements a beat of the
    core's image stream. link: "uart"; "axi", whose beat_bytes is an image beat and bus_clock_hz the
    ports' clock if not the core's; or "pcie", on `card` (a key of `gen.cards`), with LitePCIe's
    clock as the bus's. reasons: (memory, why it lies where it does), for people. board_record: the
    board as the plan was made for it (`Board.to_json`), so that a bundle needs no board file; None
    for a bare device. forks: a value that several layers take has one. patchable: the words of its
    memories can be replaced in a finished bitstream. slots: models that the design holds at once;
    images of one follow those of the other without a gap.
    """

    family: str
    device: str
    board: str | None
    clock_hz: float
    link: str
    baud: int
    lanes: int
    layers: tuple[LayerPlan | StreamPlan, ...]
    reasons: tuple[tuple[str, str], ...] = ()
    board_record: dict[str, Any] | None = None
    forks: tuple[ForkPlan, ...] = ()
    patchable: bool = False
    slots: int = 1
    beat_bytes: int = 1
    bus_clock_hz: float | None = None
    card: str | None = None

    def fork(self, value: str) -> ForkPlan:
        """The queues behind a value."""
        return next(fork for fork in self.forks if fork.value == value)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, item: dict[str, Any]) -> "Plan":
        fields = {f.name for f in dataclasses.fields(cls)}
        kept = {k: v for k, v in item.items() if k in fields}
        kept["layers"] = tuple(_layer_plan(layer) for layer in item["layers"])
        kept["forks"] = tuple(
            ForkPlan(fork["value"], tuple(fork["depths"]), tuple(fork["stores"]))
            for fork in item.get("forks", ())
        )
        kept["reasons"] = tuple((name, reason) for name, reason in item.get("reasons", ()))
        return cls(**kept)

    def at_clock(self, clock_hz: float) -> "Plan":
        """The same circuit at another clock: the nearest that the board's PLL makes.

        Raises PlanError where the PLL or the UART cannot do that clock.
        """
        if not 0 < clock_hz < float("inf"):
            raise PlanError(f"Clock must be a positive number of Hz, not {clock_hz!r}")
        from xnorforge.gen.boards import baud_divisor, plan_board  # they know of plans
        from xnorforge.gen.cards import get_card

        if self.board is not None:
            clock_hz = plan_board(self).pll_config(clock_hz).output_hz
            baud_divisor(clock_hz, self.baud)
        elif self.card is not None:
            clock_hz = get_card(self.card).core_hz(clock_hz)
        return dataclasses.replace(self, clock_hz=clock_hz)

    def structure_hash(self, network: Network) -> int:
        """First 32 bits of the SHA-256 of all that shapes the circuit.

        Weights and thresholds are part of it only where they are constant logic, so that two
        models with equal hashes can be exchanged at run time.
        """
        # As hex: Python writes no decimal number of over 4,300 digits.
        constants: list[list[str]] = []
        for layer, folds in zip(network.layers, self.layers, strict=True):
            if not isinstance(layer, Product):
                continue
            assert isinstance(folds, LayerPlan)
            config = folds.mvu_config(self.family, layer)
            if folds.weight_store == "const":
                constants.append([hex(word) for word in config.weight_words(layer.matrix)])
            if folds.preset_store == "const":
                words = config.preset_words(layer.matrix, layer.engine_bank, layer.offsets)
                constants.append([hex(word) for word in words])
        structure: dict[str, Any] = {
            "layers": [_told(layer) for layer in self.layers],
            "lanes": self.lanes,
            "family": self.family,
            "input": [network.input.value.kind, network.input.value.bits, network.input.value.size],
            "head": [network.head.tie, network.head.scale is not None],
            "constants": constants,
        }
        if network.head.rule != "argmax":
            structure["head"] = [*structure["head"], network.head.rule]
        # The plan of a dense binary layer says all of its shape.
        shapes = [_shape(layer) for layer in network.layers if not _is_plain(layer)]
        if shapes:
            structure["shapes"] = shapes
            structure["forks"] = [dataclasses.asdict(fork) for fork in self.forks]
        if self.patchable:
            structure["patchable"] = True
        if self.slots > 1:
            structure["slots"] = self.slots
        digest = hashlib.sha256(json.dumps(structure, sort_keys=True).encode()).digest()
        return int.from_bytes(digest[:4], "big")


def _add_widths(layer: Add) -> dict[str, Any]:
    return AddConfig.number_widths(layer.multipliers, layer.offsets)


def _told(plan: LayerPlan | StreamPlan) -> dict[str, Any]:
    """A layer's plan, without what a plain dense layer has no use for."""
    plain = {"sets": 1, "planes": 1, "vectors": 1, "window": None, "method": "parallel", "slots": 1}
    if isinstance(plan, StreamPlan):
        plain["store"] = "block"
    else:
        plain |= {"reuse": 1, "weight_hops": 0}
    return {
        name: value
        for name, value in dataclasses.asdict(plan).items()
        if name not in plain or value != plain[name]
    }


def _is_plain(layer: Layer) -> bool:
    """Whether this is a chain's dense layer of ±1 weights and one threshold a row."""
    return (
        isinstance(layer, Dense)
        and not layer.inputs
        and layer.levels < 2
        and layer.weight_type == WeightType()
        and layer.offsets is None
    )


def _shape(layer: Layer) -> list[Any]:
    """What of a layer shapes circuits beyond its plan: windows, padding, kinds, levels."""
    sources = [dataclasses.asdict(source) for source in layer.sources]
    shape: list[Any] = [type(layer).__name__, layer.inputs, sources]
    for name in ("window", "weight_type"):
        if hasattr(layer, name):
            shape.append(dataclasses.asdict(getattr(layer, name)))
    if isinstance(layer, Add):
        shape.append(_add_widths(layer))
    shape += [getattr(layer, name, None) for name in ("groups", "pad_value", "kind", "levels")]
    if isinstance(layer, Product) and layer.offsets is not None:
        shape.append(_extras(layer)["offset_high"])
    return shape


def _layer_plan(item: dict[str, Any]) -> LayerPlan | StreamPlan:
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
