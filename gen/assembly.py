# SPDX-License-Identifier: BSD-2-Clause
"""From Network and Plan to circuits: the stages of a core, and the core itself.

image --> [window] --> converter --> MVU --> [window --> pool] ... --> converter --> head --> result
                                      ^                                               ^
config --> CRC ------------------> stores ---------------------------------------> stores
"""

from dataclasses import dataclass, field, replace
from math import gcd

from xnorforge.gen.cycles import StageConfig
from xnorforge.gen.layer_plan import LayerPlan, StreamPlan, WindowPlan
from xnorforge.gen.layers import Add, Concat, Conv, Layer, Pool, Product, Threshold
from xnorforge.gen.network import INPUT, Network
from xnorforge.gen.plan import Plan
from xnorforge.hw.boot_rom import BootRomConfig
from xnorforge.hw.head import HeadConfig
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.shared_spram import SpramShare
from xnorforge.hw.store import StoreConfig
from xnorforge.hw.width import WidthConverterConfig
from xnorforge.hw.window import WindowConfig
from xnorforge.sw import protocol

__all__ = [
    "IMAGE",
    "SHARED_SPRAM",
    "CoreParts",
    "Wire",
    "conversions",
    "core_parts",
    "weights_load",
]

Wire = tuple[int, int]
"""A stream: index of the stage that gives it, and of that stage's output."""

IMAGE = -1  # the stage of the image stream
SHARED_SPRAM = "shared SPRAM"  # who owns what stores read in turn


@dataclass(frozen=True)
class CoreParts:
    """Configurations of a core's blocks.

    beats: of an image. stages: the datapath, each behind those it takes from. wires: what each
    stage takes. owners: the layer each stage belongs to, a converter to the one it feeds; "head".
    stores: (name, config, words) in the weight chain's order; constant ones among them are no
    part of the chain. patchable: nothing but words of memories depends on the network's numbers.
    slots: models that the stores hold. shared: the SPRAMs that stores read in turn, each as the
    (name, share) of its stores.
    """

    beats: int
    stages: tuple[StageConfig, ...]
    wires: tuple[tuple[Wire, ...], ...]
    owners: tuple[str, ...]
    stores: tuple[tuple[str, StoreConfig, list[int]], ...] = field(repr=False)
    patchable: bool = False
    slots: int = 1
    shared: tuple[tuple[tuple[str, SpramShare], ...], ...] = ()

    @property
    def head(self) -> HeadConfig:
        last = self.stages[-1]
        assert isinstance(last, HeadConfig)
        return last

    @property
    def images_held(self) -> int:
        """At least as many images as can be on the way through the stages."""
        held = 0
        for stage in self.stages:
            if isinstance(stage, MvuConfig):
                vectors = stage.buffer_depth // stage.sf + stage.credits // stage.nf
                held += vectors * stage.reuse + 4
            elif isinstance(stage, WindowConfig):
                held += stage.depth // (stage.height * stage.width) + 3
            elif isinstance(stage, WidthConverterConfig):
                held += (stage.lanes_in + stage.lanes_out) // stage.elements + 2
            else:
                held += 2
        return held

    @property
    def load_bytes(self) -> int:
        """Payload of a weight load, without its CRC."""
        return sum(config.load_bytes for _, config, _ in self.stores)

    def payload(self) -> bytes:
        """Payload of the weight load that holds this network's numbers."""
        return b"".join(config.pack(words) for _, config, words in self.stores)

    @property
    def boot_config(self) -> BootRomConfig:
        """The boot ROM of patchable parts."""
        return BootRomConfig(sum(config.load_bytes for _, config, _ in self.stores if config.boots))

    def boot_words(self) -> list[int]:
        """The boot ROM's words."""
        shares = b"".join(config.pack(words) for _, config, words in self.stores if config.boots)
        return self.boot_config.words(shares, protocol.crc32(self.payload()))

    @property
    def must_load(self) -> bool:
        """Whether the core powers up without a model, since not all its memories can hold one."""
        return not all(config.initialised for _, config, _ in self.stores)


def core_parts(network: Network, plan: Plan) -> CoreParts:
    """Blocks of the core for a network laid out by a plan."""
    builder = _Builder(network, plan)
    for index, (layer, layer_plan) in enumerate(zip(network.layers, plan.layers, strict=True)):
        taken = [builder.take(name) for name in network.inputs_of(index)]
        builder.give(layer.name, builder.layer(layer, layer_plan, taken))
    builder.head()
    beats = -(-network.input.value.size // plan.lanes)
    return CoreParts(
        beats,
        tuple(builder.stages),
        tuple(builder.wires),
        tuple(builder.owners),
        tuple(
            (name, replace(config, patchable=plan.patchable), words)
            for name, config, words in builder.stores
        ),
        plan.patchable,
        plan.slots,
        tuple(tuple(stores) for _, stores in sorted(builder.shared.items())),
    )


def conversions(
    elements: int, lanes: int, bits: int, to_elements: int, to_lanes: int
) -> list[WidthConverterConfig]:
    """Converters from vectors of `elements` in beats of `lanes` to others.

    The vectors of one side may hold several of the other's, as a map holds pixels: beats whose
    lanes divide both belong to either.
    """
    steps = [(elements, to_lanes)]
    if to_elements != elements:
        steps = [(elements, gcd(lanes, elements, to_elements)), (to_elements, to_lanes)]
    found = []
    for vector, wanted in steps:
        if wanted != lanes:
            found.append(WidthConverterConfig(vector, bits, lanes, wanted))
        lanes = wanted
    return found


@dataclass(frozen=True)
class _Stream:
    """What a stage gives on a port: vectors of `elements` elements of `bits` bits, `lanes` a beat.

    Vectors are the pixels of a map, or whole values; where `lanes` divides a pixel, both are the
    same beats.
    """

    source: Wire
    elements: int
    lanes: int
    bits: int


class _Builder:
    """Stages and stores in the making, and the streams that wait for their consumers."""

    def __init__(self, network: Network, plan: Plan) -> None:
        self.network, self.plan = network, plan
        self.stages: list[StageConfig] = []
        self.wires: list[tuple[Wire, ...]] = []
        self.owners: list[str] = []
        self.stores: list[tuple[str, StoreConfig, list[int]]] = []
        self.shared: dict[int, list[tuple[str, SpramShare]]] = {}
        self._consumers = network.consumers()
        self._waiting: dict[str, list[_Stream]] = {}
        value = network.input.value
        self.give(INPUT, _Stream((IMAGE, 0), value.size, plan.lanes, value.bits))

    # --- streams ---------------------------------------------------------------------------

    def give(self, name: str, stream: _Stream) -> None:
        """Offer a value to its consumers, through a fork if there are several."""
        consumers = len(self._consumers[name])
        if consumers < 2:
            self._waiting[name] = [stream]
            return
        config = self.plan.fork(name).config(stream.lanes * stream.bits)
        self.put(name, config, stream)
        stage = len(self.stages) - 1
        self._waiting[name] = [replace(stream, source=(stage, k)) for k in range(consumers)]

    def take(self, name: str) -> _Stream:
        return self._waiting[name].pop(0)

    def put(
        self, owner: str, config: StageConfig, *taken: _Stream, elements: int = 0, bits: int = 0
    ) -> _Stream:
        """Add a stage behind streams; what it gives has their lanes, if nothing else is said."""
        self.stages.append(config)
        self.wires.append(tuple(stream.source for stream in taken))
        self.owners.append(owner)
        first = taken[0]
        return _Stream(
            (len(self.stages) - 1, 0), elements or first.elements, first.lanes, bits or first.bits
        )

    def vectors_of(self, owner: str, stream: _Stream, elements: int, lanes: int) -> _Stream:
        """The stream as vectors of so many elements in beats of so many lanes."""
        for config in conversions(stream.elements, stream.lanes, stream.bits, elements, lanes):
            stream = self.put(owner, config, stream)
            stream = replace(stream, elements=config.elements, lanes=config.lanes_out)
        return replace(stream, elements=elements)

    def store(self, name: str, config: StoreConfig, words: list[int]) -> None:
        self.stores.append((name, config, words))

    # --- layers ----------------------------------------------------------------------------

    def layer(self, layer: Layer, plan: LayerPlan | StreamPlan, taken: list[_Stream]) -> _Stream:
        if isinstance(plan, LayerPlan):
            assert isinstance(layer, Product)
            return self.product(layer, plan, taken[0])
        if isinstance(layer, Pool):
            return self.pool(layer, plan, taken[0])
        if isinstance(layer, Threshold):
            return self.threshold(layer, plan, taken[0])
        if isinstance(layer, Add):
            return self.add(layer, plan, taken)
        assert isinstance(layer, Concat)
        return self.concat(layer, plan, taken)

    def product(self, layer: Product, folds: LayerPlan, stream: _Stream) -> _Stream:
        name, family = layer.name, self.plan.family
        config = folds.mvu_config(family, layer)
        if isinstance(layer, Conv):
            assert folds.window is not None
            stream = self.window(layer, folds.window, stream)
        stream = self.vectors_of(name, stream, layer.columns, config.simd)
        bits = config.score_bits if config.scores else 1
        stream = self.put(name, config, stream, elements=config.rows, bits=bits)
        stream = replace(stream, lanes=config.pe)
        self.store(f"{name}.weights", config.weight_config, config.weight_words(layer.matrix))
        if folds.spram_share is not None:
            self.shared.setdefault(folds.port, []).append((f"{name}.weights", folds.spram_share))
        presets = config.preset_words(layer.matrix, layer.engine_bank, layer.offsets)
        self.store(f"{name}.presets", config.preset_config, presets)
        thresholds = folds.threshold_config(family, layer)
        if thresholds is None:
            return stream
        assert layer.bank is not None
        words = thresholds.words(layer.bank)
        self.store(f"{name}.thresholds", thresholds.store_config, words)
        return self.put(name, thresholds, stream, bits=thresholds.output_bits)

    def window(self, layer: Conv | Pool, window: WindowPlan, stream: _Stream) -> _Stream:
        config = window.config(layer, self.plan.family)
        stream = self.vectors_of(layer.name, stream, config.channels, config.lanes)
        # A window's vectors, one a group.
        elements = layer.window.taps * config.channels // config.groups
        return self.put(layer.name, config, stream, elements=elements)

    def pool(self, layer: Pool, plan: StreamPlan, stream: _Stream) -> _Stream:
        channels, bits = layer.source.channels, layer.output.bits
        if plan.window is None:
            config = plan.tile_config(layer, self.plan.family)
            stream = self.vectors_of(layer.name, stream, channels, plan.lanes)
            return self.put(layer.name, config, stream, bits=bits)
        stream = self.window(layer, plan.window, stream)
        return self.put(layer.name, plan.pool_config(layer), stream, elements=channels, bits=bits)

    def threshold(self, layer: Threshold, plan: StreamPlan, stream: _Stream) -> _Stream:
        config = plan.threshold_config(layer, self.plan.family)
        stream = self.vectors_of(layer.name, stream, config.rows, config.lanes)
        words = config.words(layer.thresholds, layer.sign)
        self.store(f"{layer.name}.thresholds", config.store_config, words)
        return self.put(layer.name, config, stream, bits=config.output_bits)

    def add(self, layer: Add, plan: StreamPlan, taken: list[_Stream]) -> _Stream:
        config = plan.add_config(layer, self.plan.family)
        taken = [self.vectors_of(layer.name, s, config.channels, config.lanes) for s in taken]
        if config.store_config is not None:
            words = config.words(layer.multipliers, layer.offsets)
            self.store(f"{layer.name}.multipliers", config.store_config, words)
        return self.put(layer.name, config, *taken, bits=config.output_bits)

    def concat(self, layer: Concat, plan: StreamPlan, taken: list[_Stream]) -> _Stream:
        config = plan.concat_config(layer)
        taken = [
            self.vectors_of(layer.name, stream, channels, config.lanes)
            for stream, channels in zip(taken, config.channels, strict=True)
        ]
        return self.put(layer.name, config, *taken, elements=layer.output.channels)

    def head(self) -> None:
        network = self.network
        stream = self.take(network.layers[-1].name)
        config = HeadConfig(
            classes=network.classes,
            score_bits=stream.bits,
            tie=network.head.tie,
            affine=network.head.scale is not None,
            family=self.plan.family,
            rule=network.head.rule,
            slots=self.plan.slots,
        )
        stream = self.vectors_of("head", stream, config.classes, 1)
        self.put("head", config, stream)
        if network.head.scale is not None and network.head.offset is not None:
            words = config.words(network.head.scale, network.head.offset)
            self.store("head", config.store_config, words)


def weights_load(parts: CoreParts) -> bytes:
    """`weights.bin`: the payload of a load and its CRC-32."""
    payload = parts.payload()
    return payload + protocol.crc32(payload).to_bytes(4, "little")
