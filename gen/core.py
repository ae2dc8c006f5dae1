# SPDX-License-Identifier: BSD-2-Clause
"""Core: the blocks of an accelerator joined, behind bus-neutral ports."""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.assembly import IMAGE, SHARED_SPRAM, CoreParts
from xnorforge.gen.cycles import StageConfig
from xnorforge.hw.add import AddConfig, AddUnit
from xnorforge.hw.boot_rom import BootRom
from xnorforge.hw.concat import ConcatConfig, ConcatUnit
from xnorforge.hw.config_chain import ConfigHead
from xnorforge.hw.fork import Fork, ForkConfig
from xnorforge.hw.head import ArgMaxHead, HeadConfig
from xnorforge.hw.mvu import MatrixVectorUnit, MvuConfig
from xnorforge.hw.pool import PoolConfig, PoolReducer
from xnorforge.hw.shared_spram import SharedSpram, SharedSpramConfig, Turns
from xnorforge.hw.slots import follow_when_idle, slot_ports
from xnorforge.hw.store import Store, blank_words
from xnorforge.hw.tally import Cycle, Tally
from xnorforge.hw.threshold import ThresholdConfig, ThresholdUnit
from xnorforge.hw.tile_pool import TilePool, TilePoolConfig
from xnorforge.hw.width import WidthConverter, WidthConverterConfig
from xnorforge.hw.window import SlidingWindow, WindowConfig
from xnorforge.sw import protocol

__all__ = ["Core", "block_owners"]

_CIRCUITS = {
    AddConfig: ("add", AddUnit),
    ConcatConfig: ("concat", ConcatUnit),
    ForkConfig: ("fork", Fork),
    HeadConfig: ("head", ArgMaxHead),
    MvuConfig: ("mvu", MatrixVectorUnit),
    PoolConfig: ("pool", PoolReducer),
    ThresholdConfig: ("threshold", ThresholdUnit),
    TilePoolConfig: ("pool", TilePool),
    WidthConverterConfig: ("width", WidthConverter),
    WindowConfig: ("window", SlidingWindow),
}


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
    blank : bool
        Of patchable parts: block RAMs hold words that tell them apart instead of the network's, so
        that the circuit is the same for every network of the plan.

    Members
    -------
    As docs/architecture.md, "Core": plain signals, so that the Verilog module reads well.
    """

    def __init__(self, *, parts: CoreParts, image_bits: int, plan_hash: int, blank: bool = False):
        self.parts = parts
        self.blank = blank
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
                **slot_ports(In, parts.slots),
            }
        )

    def elaborate(self, platform):
        parts = self.parts
        m = Module()

        # --- weights: the chain's head, then every store in load order
        payload = parts.payload()
        boot, digest = None, None if parts.must_load else protocol.crc32(payload)
        if parts.patchable:
            rom = parts.boot_config
            words = blank_words("boot", rom.memory) if self.blank else parts.boot_words()
            boot, digest = BootRom(config=rom, words=words), None
        m.submodules.config = chain = ConfigHead(
            load_bytes=len(payload), init_digest=digest, boot=boot, slots=parts.slots
        )
        m.d.comb += [
            chain.i.payload.data.eq(self.config_data),
            chain.i.payload.first.eq(self.config_first),
            chain.i.valid.eq(self.config_valid),
            self.config_ready.eq(chain.i.ready),
        ]
        stores = {}
        load = chain.load_o
        for name, shape, words in parts.stores:
            store = Store(config=shape, init=words, blank=name if self.blank else "")
            m.submodules[_store_name(name)] = stores[name] = store
            if shape.loadable:
                wiring.connect(m, load, store.load_i)
                load = store.load_o
        wiring.connect(m, load, chain.load_i)

        turn = self._shared_sprams(m, stores) if parts.shared else C(0)

        # --- datapath: flushed as one, stores aside
        names = iter([name for name, _, _ in parts.stores])
        self._slot = slot = Signal(name="slot")
        ready = chain.model_valid
        if parts.slots > 1:
            waits = Signal()  # for the images of the other model to leave
            ready = chain.model_valid.bit_select(slot, 1) & ~waits
            m.d.comb += chain.slot.eq(self.config_slot)
            for store in stores.values():
                m.d.comb += [store.slot.eq(slot), store.load_slot.eq(chain.load_slot)]
        outputs: list[list] = []
        for index, (config, wires) in enumerate(zip(parts.stages, parts.wires, strict=True)):
            _, circuit = _CIRCUITS[type(config)]
            stage = circuit(config=config)
            m.submodules[_stage_name(config, index)] = ResetInserter(self.flush)(stage)
            if isinstance(config, MvuConfig) and config.share > 1:
                m.d.comb += stage.turn.eq(turn)
            for address, data in _memories(config, stage):
                store = stores[next(names)]
                m.d.comb += [store.address.eq(address), data.eq(store.data)]
            for port, (source, branch) in zip(_ports(stage, "i"), wires, strict=True):
                if source == IMAGE:
                    m.d.comb += [
                        Value.cast(port.payload).eq(self.image_data),
                        port.valid.eq(self.image_valid & ready),
                        self.image_ready.eq(port.ready & ready),
                    ]
                    continue
                upstream = outputs[source][branch]
                m.d.comb += [
                    Value.cast(port.payload).eq(upstream.payload),
                    port.valid.eq(upstream.valid),
                    upstream.ready.eq(port.ready),
                ]
            outputs.append(_ports(stage, "o"))
        (upstream,) = outputs[-1]
        m.d.comb += [
            self.result_score.eq(upstream.payload.score),
            self.result_label.eq(upstream.payload.label),
            self.result_last.eq(upstream.payload.last),
            self.result_valid.eq(upstream.valid),
            upstream.ready.eq(self.result_ready),
        ]
        in_flight = self._registers(m, chain)
        if parts.slots > 1:
            self._change_slots(m, waits, in_flight)
        return m

    def _shared_sprams(self, m, stores) -> Value:
        """The SPRAMs that stores read in turn; whose turn it is."""
        m.submodules.turns = turns = ResetInserter(self.flush)(Turns())
        m.d.comb += turns.begin.eq(self.image_valid & self.image_ready)
        for number, clients in enumerate(self.parts.shared):
            config = SharedSpramConfig(tuple(share for _, share in clients))
            spram = SharedSpram(config=config)
            m.submodules[_spram_name(number)] = spram
            m.d.comb += spram.turn.eq(turns.turn)
            for port, (name, _) in zip(spram.ports, clients, strict=True):
                wiring.connect(m, stores[name].port, port)
        return turns.turn

    def _change_slots(self, m, waits, in_flight) -> None:
        """Between two images of different models: no image in, all results out, then the slot."""
        # `in_flight` learns of a beat two cycles later.
        beat = Cycle(count=self.parts.beats)
        m.submodules.image_beat = ResetInserter(self.flush)(beat)
        m.d.comb += [
            beat.step.eq(self.image_valid & self.image_ready),
            waits.eq((self.image_slot != self._slot) & beat.first),
        ]
        follow_when_idle(m, self._slot, self.image_slot, beat.first & ~in_flight.some)

    def _registers(self, m, chain) -> Tally:
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
        if self.parts.slots > 1:
            words |= {
                protocol.Register.WEIGHTS_DIGEST: chain.weights_digest[0],
                protocol.Register.SECOND_DIGEST: chain.weights_digest[1],
                protocol.Register.STATUS: Cat(chain.model_valid, self._slot, C(1, 1)),
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
        return in_flight


def block_owners(parts: CoreParts) -> dict[str, str]:
    """The layer, "head" or SHARED_SPRAM of each block of a core, by its name.

    What has none is left out.
    """
    owners = {
        _stage_name(config, index): owner
        for index, (config, owner) in enumerate(zip(parts.stages, parts.owners, strict=True))
    }
    if parts.shared:
        shared = ["turns", *(_spram_name(number) for number in range(len(parts.shared)))]
        owners |= dict.fromkeys(shared, SHARED_SPRAM)
    # A store is named after its layer and its field; the head has just one.
    return owners | {
        _store_name(name): name.rpartition(".")[0] or name for name, _, _ in parts.stores
    }


def _stage_name(config: StageConfig, index: int) -> str:
    kind, _ = _CIRCUITS[type(config)]
    return kind if kind == "head" else f"{kind}_{index}"


def _spram_name(number: int) -> str:
    return f"shared_spram_{number}"


def _store_name(name: str) -> str:
    return f"{name}_store"


def _ports(stage, side: str) -> list:
    """The input ("i") or output ("o") streams of a stage."""
    several = getattr(stage, {"i": "inputs", "o": "outputs"}[side], None)
    return [getattr(stage, side)] if several is None else several


def _memories(config: StageConfig, stage) -> list[tuple]:
    """(address, data) of the stores that a stage reads, in the order of `CoreParts.stores`."""
    if isinstance(config, MvuConfig):
        return [
            (stage.weight_address, stage.weight_data),
            (stage.preset_address, stage.preset_data),
        ]
    reads = (
        isinstance(config, ThresholdConfig)
        or (isinstance(config, HeadConfig) and config.affine)
        or (isinstance(config, AddConfig) and config.store_config is not None)
    )
    return [(stage.address, stage.data)] if reads else []
