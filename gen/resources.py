# SPDX-License-Identifier: BSD-2-Clause
"""Resource model: what each block of an accelerator takes, before any synthesis.

Counts are packed ones, as nextpnr gives them: iCE40 logic cells (LUT, carry and flip-flop share
one), LUT4 elsewhere (carry and LUT RAM included) with flip-flops beside. Block RAM, SPRAM and LUT
RAM follow from the memories' shapes and are exact. The rest is a sum of terms, counted by
`gen.resource_terms`, times coefficients in `data/resources.toml`, which
`benchmarks/resource_model.py` fits to packed counts; those of what lies between engines are in
`data/streams.toml` (`benchmarks/stream_cells.py`). docs/resources.md has the fits and their error.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from xnorforge.gen.assembly import SHARED_SPRAM, core_parts
from xnorforge.gen.cycles import StageConfig
from xnorforge.gen.devices import Device
from xnorforge.gen.network import Network
from xnorforge.gen.overrides import STORE_FIELDS
from xnorforge.gen.plan import Plan
from xnorforge.gen.resource_terms import (
    Elements,
    ElementTables,
    Terms,
    buffer_terms,
    constant_terms,
    constant_weight_terms,
    converter_terms,
    engine_terms,
    head_terms,
    store_terms,
    sum_terms,
)
from xnorforge.gen.stream_terms import stream_terms
from xnorforge.hw.add import AddConfig
from xnorforge.hw.boot_rom import BootRomConfig
from xnorforge.hw.concat import ConcatConfig
from xnorforge.hw.fork import ForkConfig
from xnorforge.hw.head import HeadConfig
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.pool import PoolConfig
from xnorforge.hw.store import FAMILIES, StoreConfig
from xnorforge.hw.threshold import ThresholdConfig
from xnorforge.hw.tile_pool import TilePoolConfig
from xnorforge.hw.width import WidthConverterConfig
from xnorforge.hw.window import WindowConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "COEFFICIENTS",
    "ELEMENT_TABLES",
    "FITTED",
    "LIMITS",
    "STREAM_COEFFICIENTS",
    "Model",
    "Resources",
    "block",
    "block_terms",
    "capacity",
    "converter",
    "core",
    "engine",
    "estimate",
    "head",
    "load_model",
    "memory_blocks",
    "mvu_store",
    "parts_of",
    "shell",
    "store",
]

LIMITS = ("cells", "flipflops", "blocks", "sprams", "lut_rams")
"""What a device has a fixed number of."""

FITTED = ("cells", "flipflops", "carries")
"""What is estimated; everything else is exact."""

ELEMENT_TABLES = ("elements", "plane_elements", "constant_elements")
"""Tables of resources.toml, in the order of `ElementTables`."""

COEFFICIENTS = Path(__file__).with_name("data") / "resources.toml"
STREAM_COEFFICIENTS = COEFFICIENTS.with_name("streams.toml")


@dataclass(frozen=True)
class Resources:
    """What a block takes, or what a device has.

    cells: logic cells (iCE40) or LUT4 (elsewhere), carry and LUT RAM included. flipflops.
    blocks: block RAMs. sprams: single-port blocks of the UP5K, and parts of shared ones. carries:
    carry cells, lut_rams: LUT RAM primitives of 16 x 4 bits; both are in `cells` too.
    """

    cells: int = 0
    flipflops: int = 0
    blocks: int = 0
    sprams: float = 0
    carries: int = 0
    lut_rams: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.cells + other.cells,
            self.flipflops + other.flipflops,
            self.blocks + other.blocks,
            self.sprams + other.sprams,
            self.carries + other.carries,
            self.lut_rams + other.lut_rams,
        )

    def __sub__(self, other: Resources) -> Resources:
        return Resources(
            self.cells - other.cells,
            self.flipflops - other.flipflops,
            self.blocks - other.blocks,
            self.sprams - other.sprams,
            self.carries - other.carries,
            self.lut_rams - other.lut_rams,
        )

    def fits(self, capacity: Resources) -> bool:
        return all(getattr(self, kind) <= getattr(capacity, kind) for kind in LIMITS)


@dataclass(frozen=True)
class Model:
    """A family's coefficients.

    weights: by kind (`FITTED`) and term. elements: processing elements measured alone.
    shell_blocks: block RAMs of the link. fill: share of the cells that still routes and closes.
    lut_ram_fill: share of the LUT RAM that still places.
    """

    weights: Mapping[str, Mapping[str, float]]
    elements: ElementTables
    shell_blocks: int
    fill: float
    lut_ram_fill: float

    def weigh(self, terms: Terms, exact: Resources) -> Resources:
        """Terms times coefficients, beside what is exact."""
        fitted = {
            kind: round(sum(weight * terms[name] for name, weight in self.weights[kind].items()))
            for kind in FITTED
        }
        return exact + Resources(**fitted)


@cache
def load_model(family: str) -> Model:
    """The coefficients of a family.

    Xilinx has ECP5's: a LUT6 holds no less than a LUT4.
    """
    family = "ecp5" if family == "xilinx" else family
    item = tomllib.loads(COEFFICIENTS.read_text())[family]
    elements = (
        Elements(**{name: tuple(values) for name, values in item[table].items()})
        for table in ELEMENT_TABLES
    )
    weights = {kind: item[kind] for kind in FITTED}
    weights["cells"] = weights["cells"] | tomllib.loads(STREAM_COEFFICIENTS.read_text())[family]
    fills = item["fill"], item["lut_ram_fill"]
    return Model(weights, ElementTables(*elements), item["shell_blocks"], *fills)


def capacity(device: Device, fill: float | None = None) -> Resources:
    """What a device holds for a design that still places and routes well.

    fill: share of the cells that may be taken, instead of the family's.
    """
    model = load_model(device.family.name)
    if fill is None:
        fill = model.fill
    return Resources(
        int(device.luts * fill),
        int(device.flipflops * fill),
        device.block_rams,
        device.spram_blocks,
        lut_rams=int(device.lut_rams * model.lut_ram_fill),
    )


# --- blocks ------------------------------------------------------------------------------------


def shell(family: str) -> Resources:
    """Everything around the datapath: weight chain, registers, UART and link."""
    return _weighed(family, _SHELL, Resources(blocks=load_model(family).shell_blocks))


def core(family: str) -> Resources:
    """The part of `shell` that a core without a board has too: weight chain and registers."""
    return _weighed(family, _CORE, Resources())


def axi_ports(family: str, crosses: bool) -> Resources:
    """AXI ports around a core. crosses: with a clock of their own."""
    return Resources(*_AXI["ecp5" if family == "xilinx" else family][crosses])


def pcie_bridge(family: str) -> Resources:
    """What stands between a core and LitePCIe, and LitePCIe's own core."""
    return axi_ports(family, True) + Resources(*_PCIE)


def boot(family: str, config: BootRomConfig) -> Resources:
    """What a patchable design takes more: the boot ROM and its way into the weight chain."""
    cells, flipflops, carries = _BOOT[family]
    blocks = memory_blocks(8, config.depth, family)
    return Resources(cells, flipflops, blocks=blocks, carries=carries)


# Measured (benchmarks/axi_cells.py): cells and flip-flops that mnist-tfc takes more with AXI ports,
# in one clock and in two. Flip-flops of iCE40 are those of ECP5.
_AXI = {
    "ice40": ((437, 191), (1052, 453)),
    "ecp5": ((354, 191), (687, 453)),
    "gowin": ((339, 209), (712, 639)),
}

# Measured (yosys synth_xilinx -family xc7): LitePCIe's core for four lanes and the DMA bridge.
_PCIE = (6_300, 3_900, 60)

# Measured: what mnist-tfc takes more patchable than loadable.
_BOOT = {"ice40": (54, 7, 1), "ecp5": (81, 13, 8)}

# Measured (yosys): LUT4 that a store of 16 bits takes more with a share of an SPRAM.
_SHARED = {2: 16, 4: 27, 8: 26}

_CORE: Terms = Terms(core=1)
_SHELL: Terms = Terms(core=1, shell=1)


def engine(config: MvuConfig) -> Resources:
    """A MatrixVectorUnit without its stores and its input buffer."""
    terms = engine_terms(config, load_model(config.family).elements)
    return _weighed(config.family, terms, Resources())


def mvu_store(config: MvuConfig, field: str, kind: str) -> Resources:
    """One memory of a MatrixVectorUnit, if it were of this kind.

    field: "weight_store", "preset_store" or "buffer_store".
    """
    elements = load_model(config.family).elements
    return _weighed(config.family, *_mvu_store(config, field, kind, elements))


def store(config: StoreConfig) -> Resources:
    """A weight or preset store with its loader and multiplexers."""
    return _weighed(config.family, *_store(config))


def converter(config: WidthConverterConfig, family: str) -> Resources:
    """A WidthConverter between two stages."""
    return _weighed(family, converter_terms(config, family), Resources())


def block(config: StageConfig, family: str) -> Resources:
    """A stage that has no memories to choose, with those it has."""
    return _weighed(family, *block_terms(config, family, load_model(family).elements))


def head(config: HeadConfig) -> Resources:
    """The arg-max head, with its scales and offsets where it has any."""
    return _weighed(config.family, *_head(config))


def _weighed(family: str, terms: Terms, exact: Resources) -> Resources:
    return load_model(family).weigh(terms, exact)


def block_terms(
    config: StageConfig | StoreConfig,
    family: str,
    elements: ElementTables,
) -> tuple[Terms, Resources]:
    """Terms and exact counts of one block alone; an engine has its buffer and no other store."""
    if isinstance(config, StoreConfig):
        return _store(config)
    if isinstance(config, WidthConverterConfig):
        return converter_terms(config, family), Resources()
    if isinstance(config, HeadConfig):
        return head_terms(config), Resources()
    if isinstance(config, WindowConfig):
        return _window(config)
    if isinstance(config, PoolConfig | ConcatConfig):
        return stream_terms(config, family), Resources()
    if isinstance(config, TilePoolConfig):
        return _tile_pool(config)
    if isinstance(config, ThresholdConfig):
        terms, exact = _store(config.store_config)
        return sum_terms(stream_terms(config, family), terms), exact
    if isinstance(config, AddConfig):
        stored: tuple[Terms, Resources] = (Terms(), Resources())
        if config.store_config is not None:
            stored = _store(config.store_config)
        return sum_terms(stream_terms(config, family), stored[0]), stored[1]
    if isinstance(config, ForkConfig):
        return _fork(config, family)
    terms, exact = _mvu_store(config, "buffer_store", config.buffer_store, elements)
    return sum_terms(engine_terms(config, elements), terms), exact


def _mvu_store(
    config: MvuConfig, field: str, kind: str, elements: ElementTables
) -> tuple[Terms, Resources]:
    if field == "buffer_store":
        terms, blocks = buffer_terms(config, kind), 0
        if kind == "block":
            width, depth = config.simd * config.input_bits, config.buffer_depth
            blocks = config.reuse * memory_blocks(width, depth, config.family)
            if config.reuse > 1:
                results = config.result_config
                width = results.lanes * results.width
                blocks += memory_blocks(width, results.depth, config.family)
        return terms, Resources(blocks=blocks, lut_rams=terms["lut_rams"])
    if field == "weight_store" and kind == "const":
        return constant_weight_terms(config, elements), Resources()
    known = config.weight_config if field == "weight_store" else config.preset_config
    return _store(replace(known, kind=kind, share=known.share if kind == "spram" else 1))


def _store(config: StoreConfig) -> tuple[Terms, Resources]:
    if config.kind == "const":
        return constant_terms(config), Resources()
    exact = Resources(blocks=config.block_rams, lut_rams=config.lut_rams)
    exact += Resources(sprams=config.sprams) if config.share == 1 else _share(config.share)
    # Slots are more addresses.
    return store_terms(replace(config, depth=config.addresses, slots=1)), exact


def _share(share: int) -> Resources:
    """A store's part of an SPRAM and of the gates before it."""
    return Resources(_SHARED[share], sprams=1 / share)


def _head(config: HeadConfig) -> tuple[Terms, Resources]:
    if not config.affine:
        return head_terms(config), Resources()
    terms, exact = _store(config.store_config)
    return head_terms(config) + terms, exact


def _fork(config: ForkConfig, family: str) -> tuple[Terms, Resources]:
    terms = stream_terms(config, family)
    blocks = sum(
        memory_blocks(queue.width, queue.depth, family)
        for queue in config.queues
        if queue.store == "block"
    )
    return terms, Resources(blocks=blocks, lut_rams=terms["lut_rams"])


def _window(config: WindowConfig) -> tuple[Terms, Resources]:
    return _buffered(config, config.beat_bits, config.ring_beats)


def _tile_pool(config: TilePoolConfig) -> tuple[Terms, Resources]:
    return _buffered(config, config.word_bits, config.words)


def _buffered(
    config: WindowConfig | TilePoolConfig, width: int, words: int
) -> tuple[Terms, Resources]:
    """A circuit around one memory, which may have no words."""
    terms = stream_terms(config, config.family)
    used = config.store == "block" and words
    blocks = memory_blocks(width, words, config.family) if used else 0
    return terms, Resources(blocks=blocks, lut_rams=terms["lut_rams"])


def memory_blocks(width: int, depth: int, family: str) -> int:
    """Block RAMs that yosys makes of one memory: the shape that takes the fewest."""
    return min(
        -(-width // bits) * -(-depth // words) for bits, words in FAMILIES[family].block_shapes
    )


# --- whole designs -----------------------------------------------------------------------------


def parts_of(
    network: Network, plan: Plan, elements: ElementTables, shell_blocks: int
) -> dict[str, tuple[Terms, Resources]]:
    """Terms and exact counts of a plan's parts: the layers, "head", SHARED_SPRAM and "shell".

    A converter counts to the stage it feeds; the one behind the link to the shell.
    """
    rows: dict[str, tuple[Terms, Resources]] = {}
    parts, shared = core_parts(network, plan), Resources()
    for stage, owner in zip(parts.stages, parts.owners, strict=True):
        if isinstance(stage, MvuConfig):
            terms = engine_terms(stage, elements)
            exact = Resources()
            for field in STORE_FIELDS:
                more, rest = _mvu_store(stage, field, getattr(stage, field), elements)
                terms, exact = sum_terms(terms, more), exact + rest
            if stage.share > 1:
                exact, shared = exact - _share(stage.share), shared + _share(stage.share)
        elif isinstance(stage, HeadConfig):
            terms, exact = _head(stage)
        else:
            terms, exact = block_terms(stage, plan.family, elements)
        before = rows.get(owner, (Terms(), Resources()))
        rows[owner] = sum_terms(before[0], terms), before[1] + exact
    if parts.shared:
        rows[SHARED_SPRAM] = Terms(), shared + Resources(4, 4)  # with the counter of turns
    if plan.board is None and plan.link == "uart":
        rows["shell"] = _CORE, Resources()
    else:
        value = network.input.value
        step = 8 * plan.beat_bytes if value.bits == 1 else plan.beat_bytes
        link = WidthConverterConfig(value.size, value.bits, step, plan.lanes)
        terms, exact = _SHELL, Resources(blocks=shell_blocks)
        if plan.link == "axi":
            terms, exact = _CORE, axi_ports(plan.family, plan.bus_clock_hz is not None)
        elif plan.link == "pcie":
            terms, exact = _CORE, pcie_bridge(plan.family)
        rows["shell"] = sum_terms(terms, converter_terms(link, plan.family)), exact
    if plan.patchable:
        terms, exact = rows["shell"]
        rows["shell"] = terms, exact + boot(plan.family, parts.boot_config)
    return rows


def estimate(network: Network, plan: Plan) -> dict[str, Any]:
    """Predicted resources of a plan, the parts by name and the total, shell included."""
    model = load_model(plan.family)
    parts = parts_of(network, plan, model.elements, model.shell_blocks)
    rows = {name: model.weigh(*part) for name, part in parts.items()}
    told = {name: _told(used) for name, used in rows.items()}
    return {**_told(sum(rows.values(), Resources())), "parts": told}


def _told(used: Resources) -> dict[str, Any]:
    return asdict(replace(used, sprams=ceil(used.sprams)))
