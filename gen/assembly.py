# SPDX-License-Identifier: BSD-2-Clause
"""From Network and Plan to circuits: the stages of a core, and the core itself.

image --> [window] --> converter --> MVU --> [window --> pool] ... --> converter --> head --> result
                                      ^                                               ^
config --> CRC ------------------> stores ---------------------------------------> stores
"""

from dataclasses import dataclass, field
from math import gcd

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.cycles import StageConfig
from xnorforge.gen.errors import PlanError
from xnorforge.gen.layers import Conv, Pool, Product
from xnorforge.gen.network import Network
from xnorforge.gen.plan import LayerPlan, Plan, StreamPlan, WindowPlan
from xnorforge.hw.config_chain import ConfigHead
from xnorforge.hw.head import ArgMaxHead, HeadConfig
from xnorforge.hw.mvu import MatrixVectorUnit, MvuConfig
from xnorforge.hw.pool import PoolConfig, PoolReducer
from xnorforge.hw.store import Store, StoreConfig
from xnorforge.hw.tally import Cycle, Tally
from xnorforge.hw.width import WidthConverter, WidthConverterConfig
from xnorforge.hw.window import SlidingWindow, WindowConfig
from xnorforge.sw import protocol

__all__ = ["Core", "CoreParts", "conversions", "core_parts", "weights_load"]


@dataclass(frozen=True)
class CoreParts:
    """Configurations of a core's blocks.

    beats: of an image. stages: the datapath in order. owners: the layer each stage belongs to, a
    converter to the one it feeds; "head". stores: (name, config, words) in the weight chain's
    order; constant ones among them are no part of the chain.
    """

    beats: int
    stages: tuple[StageConfig, ...]
    owners: tuple[str, ...]
    stores: tuple[tuple[str, StoreConfig, list[int]], ...] = field(repr=False)

    @property
    def head(self) -> HeadConfig:
        return self.stages[-1]

    @property
    def images_held(self) -> int:
        """At least as many images as can be on the way through the stages."""
        held = 0
        for stage in self.stages:
            if isinstance(stage, MvuConfig):
                held += stage.buffer_depth // stage.sf + stage.credits // stage.nf + 4
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
    def must_load(self) -> bool:
        """Whether the core powers up without a model, since not all its memories can hold one."""
        return not all(config.initialised for _, config, _ in self.stores)


def core_parts(network: Network, plan: Plan) -> CoreParts:
    """Blocks of the core for a network laid out by a plan."""
    builder = _Builder(network, plan)
    for layer, layer_plan in zip(network.layers, plan.layers, strict=True):
        if isinstance(layer, Product):
            assert isinstance(layer_plan, LayerPlan)
            builder.product(layer, layer_plan)
        elif isinstance(layer, Pool):
            assert isinstance(layer_plan, StreamPlan)
            builder.pool(layer, layer_plan)
        else:
            raise PlanError(
                f"Layer {layer.name!r}: no circuit for {type(layer).__name__.lower()} layers"
            )
    builder.head()
    beats = -(-network.input.value.size // plan.lanes)
    return CoreParts(beats, tuple(builder.stages), tuple(builder.owners), tuple(builder.stores))


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


class _Builder:
    """Stages and stores in the making.

    The stream so far carries vectors of `elements` elements of `bits` bits, `lanes` a beat: the
    pixels of a map, or a whole value. Where `lanes` divides a pixel, both are the same beats.
    """

    def __init__(self, network: Network, plan: Plan) -> None:
        self.network, self.plan = network, plan
        self.stages: list[StageConfig] = []
        self.owners: list[str] = []
        self.stores: list[tuple[str, StoreConfig, list[int]]] = []
        value = network.input.value
        self.elements, self.lanes, self.bits = value.size, plan.lanes, value.bits

    def put(self, owner: str, config: StageConfig) -> None:
        self.stages.append(config)
        self.owners.append(owner)

    def vectors_of(self, owner: str, elements: int, lanes: int) -> None:
        """Make the stream carry vectors of so many elements in beats of so many lanes."""
        for config in conversions(self.elements, self.lanes, self.bits, elements, lanes):
            self.put(owner, config)
        self.elements, self.lanes = elements, lanes

    def product(self, layer: Product, folds: LayerPlan) -> None:
        config = folds.mvu_config(self.plan.family, layer)
        if isinstance(layer, Conv):
            assert folds.window is not None
            self.window(layer, folds.window)
        self.vectors_of(layer.name, layer.columns, config.simd)
        self.put(layer.name, config)
        self.stores += [
            (
                f"{layer.name}.weights",
                config.weight_config,
                config.weight_words(layer.matrix),
            ),
            (
                f"{layer.name}.presets",
                config.preset_config,
                config.preset_words(layer.matrix, layer.bank, layer.offsets),
            ),
        ]
        self.elements, self.lanes = layer.rows // layer.groups, config.pe
        self.bits = config.score_bits if config.scores else 1

    def pool(self, layer: Pool, stream: StreamPlan) -> None:
        assert stream.window is not None
        self.window(layer, stream.window)
        self.put(layer.name, stream.pool_config(layer))
        self.elements, self.lanes = layer.source.channels, stream.lanes
        self.bits = layer.output.bits

    def window(self, layer: Conv | Pool, window: WindowPlan) -> None:
        config = window.config(layer, self.plan.family)
        self.vectors_of(layer.name, config.channels, config.lanes)
        self.put(layer.name, config)

    def head(self) -> None:
        network = self.network
        config = HeadConfig(
            classes=network.classes,
            score_bits=self.bits,
            tie=network.head.tie,
            affine=network.head.scale is not None,
            family=self.plan.family,
            rule=network.head.rule,
        )
        self.vectors_of("head", config.classes, 1)
        self.put("head", config)
        if config.affine:
            words = config.words(network.head.scale, network.head.offset)
            self.stores.append(("head", config.store_config, words))


def weights_load(parts: CoreParts) -> bytes:
    """`weights.bin`: the payload of a load and its CRC-32."""
    payload = parts.payload()
    return payload + protocol.crc32(payload).to_bytes(4, "little")


class Core(wiring.Component):
    """The bus-neutral accelerator core: images in, scores and labels out, weights in.

    One clock domain. Throughput and latency: `gen.cycles.predict(parts.stages)`, exact.
    Back-pressure: every stream stalls, none drops; `config` is always ready.

    Parameters
    ----------
    parts : CoreParts
    image_bits : int
        Width of an image beat (lanes x element bits).
    plan_hash : int
        Read as a register.

    Members
    -------
    As docs/architecture.md, "Core": plain signals, so that the Verilog module reads well.
    """

    def __init__(self, *, parts: CoreParts, image_bits: int, plan_hash: int):
        self.parts = parts
        self.plan_hash = plan_hash
        super().__init__(
            {
                "image_data": In(image_bits),
                "image_valid": In(1),
                "image_ready": Out(1),
                "result_score": Out(signed(parts.head.score_bits)),
                "result_label": Out(16),
                "result_last": Out(1),
                "result_valid": Out(1),
                "result_ready": In(1),
                "config_data": In(8),
                "config_first": In(1),
                "config_valid": In(1),
                "config_ready": Out(1),
                "register_address": In(4),
                "register_data": Out(32),
                "flush": In(1),
            }
        )

    def elaborate(self, platform):
        parts = self.parts
        m = Module()

        # --- weights: the chain's head, then every store in load order
        payload = parts.payload()
        m.submodules.config = chain = ConfigHead(
            load_bytes=len(payload),
            init_digest=None if parts.must_load else protocol.crc32(payload),
        )
        m.d.comb += [
            chain.i.payload.data.eq(self.config_data),
            chain.i.payload.first.eq(self.config_first),
            chain.i.valid.eq(self.config_valid),
            self.config_ready.eq(chain.i.ready),
        ]
        stores = {}
        load = chain.load_o
        for name, config, words in parts.stores:
            m.submodules[f"{name}_store"] = stores[name] = store = Store(config=config, init=words)
            if config.loadable:
                wiring.connect(m, load, store.load_i)
                load = store.load_o
        wiring.connect(m, load, chain.load_i)

        # --- datapath: flushed as one, stores aside
        store_names = iter([name for name, _, _ in parts.stores])
        ready = chain.model_valid
        upstream = None
        for index, config in enumerate(parts.stages):
            if isinstance(config, WidthConverterConfig):
                name, stage = f"width_{index}", WidthConverter(config=config)
            elif isinstance(config, WindowConfig):
                name, stage = f"window_{index}", SlidingWindow(config=config)
            elif isinstance(config, PoolConfig):
                name, stage = f"pool_{index}", PoolReducer(config=config)
            elif isinstance(config, MvuConfig):
                name, stage = f"mvu_{index}", MatrixVectorUnit(config=config)
                for side in ("weight", "preset"):
                    store = stores[next(store_names)]
                    m.d.comb += store.address.eq(getattr(stage, f"{side}_address"))
                    m.d.comb += getattr(stage, f"{side}_data").eq(store.data)
            else:
                name, stage = "head", ArgMaxHead(config=config)
                if config.affine:
                    store = stores[next(store_names)]
                    m.d.comb += [store.address.eq(stage.address), stage.data.eq(store.data)]
            m.submodules[name] = ResetInserter(self.flush)(stage)
            if upstream is None:
                m.d.comb += [
                    Value.cast(stage.i.payload).eq(self.image_data),
                    stage.i.valid.eq(self.image_valid & ready),
                    self.image_ready.eq(stage.i.ready & ready),
                ]
            else:
                m.d.comb += [
                    Value.cast(stage.i.payload).eq(upstream.payload),
                    stage.i.valid.eq(upstream.valid),
                    upstream.ready.eq(stage.i.ready),
                ]
            upstream = stage.o
        m.d.comb += [
            self.result_score.eq(upstream.payload.score),
            self.result_label.eq(upstream.payload.label),
            self.result_last.eq(upstream.payload.last),
            self.result_valid.eq(upstream.valid),
            upstream.ready.eq(self.result_ready),
        ]
        self._registers(m, chain)
        return m

    def _registers(self, m, chain) -> None:
        """Identity, status and the cycle counters behind the register bus."""
        # An image is "in flight" from its first beat until its last result beat. Events come late
        # in their cycle: each goes through a register before it is counted.
        taken, ends, starved, stalled = (
            Signal(name=name) for name in ("taken", "frame_ends", "starved", "stalled")
        )
        m.d.sync += [
            taken.eq(self.image_valid & self.image_ready & ~self.flush),
            ends.eq(self.result_valid & self.result_ready & self.result_last & ~self.flush),
            starved.eq(self.image_ready & ~self.image_valid),
            stalled.eq(self.result_valid & ~self.result_ready),
        ]
        beat = Cycle(count=self.parts.beats)
        in_flight = Tally(limit=self.parts.images_held)
        for name, part in (("beat", beat), ("in_flight", in_flight)):
            m.submodules[name] = ResetInserter(self.flush)(part)
        m.d.comb += [
            beat.step.eq(taken),
            in_flight.up.eq(taken & beat.first),
            in_flight.down.eq(ends),
        ]

        counters = {
            protocol.Register.BUSY_CYCLES: in_flight.some,
            protocol.Register.STARVED_CYCLES: starved,
            protocol.Register.STALLED_CYCLES: stalled,
            protocol.Register.FRAMES: ends,
        }
        words = {
            protocol.Register.MAGIC: C(protocol.MAGIC, 32),
            protocol.Register.VERSION: C(protocol.VERSION, 32),
            protocol.Register.PLAN_HASH: C(self.plan_hash, 32),
            protocol.Register.WEIGHTS_DIGEST: chain.weights_digest,
            protocol.Register.STATUS: chain.model_valid,
        }
        for register, event in counters.items():
            words[register] = count = Signal(32, name=register.name.lower())
            m.d.sync += count.eq(count + event)
        with m.Switch(self.register_address):
            for register, word in words.items():
                with m.Case(int(register)):
                    m.d.sync += self.register_data.eq(word)
            with m.Default():
                m.d.sync += self.register_data.eq(0)
