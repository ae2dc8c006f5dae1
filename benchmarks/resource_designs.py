# SPDX-License-Identifier: BSD-2-Clause
"""Designs that the resource model is fitted to and judged by: whole accelerators, single blocks.

Every design follows from its name alone, and so does whether it serves the fit or is held out.
Nothing here asks the model: sizes come from a rule of thumb, so that a new fit leaves the
designs as they are.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass, replace
from typing import Any

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.boards import get_board
from xnorforge.gen.devices import Device, get_device
from xnorforge.gen.layer_plan import LayerPlan
from xnorforge.gen.network import Dense, Network
from xnorforge.gen.plan import Plan
from xnorforge.gen.resource_terms import CONSTANT_WORDS, ELEMENT_ACC_WIDTH
from xnorforge.gen.verilog import accelerator_verilog, to_verilog
from xnorforge.hw.head import ArgMaxHead, HeadConfig
from xnorforge.hw.mvu import MatrixVectorUnit, MvuConfig
from xnorforge.hw.processing_element import PeConfig, ProcessingElement
from xnorforge.hw.store import FAMILIES as STORE_FAMILIES
from xnorforge.hw.store import Store, StoreConfig
from xnorforge.hw.width import WidthConverter, WidthConverterConfig
from xnorforge.sim.core_bench import random_network

__all__ = [
    "FAMILIES",
    "Block",
    "Design",
    "Element",
    "blocks",
    "design_names",
    "draw",
    "is_held_out",
]

SMALLEST = ("core", "shell")
DESIGNS = 28
"""Whole designs a family."""

BOARDS = {
    "ice40": ("icebreaker",),
    "ecp5": ("ulx3s-25f", "ulx3s-85f"),
    "gowin": ("tang-nano-9k", "tang-primer-20k"),
}
DEVICE = {"ice40": "ice40-up5k", "ecp5": "ecp5-85f", "gowin": "gw2a-18"}
LARGEST_CELLS = {"ice40": 5_000, "ecp5": 14_000, "gowin": 12_000}
FAMILIES = tuple(BOARDS)
SHELL_CELLS = 2_000
CELLS_PER_LANE = 3.0  # the rule of thumb: cells of one XNOR, its popcount and its accumulator


@dataclass(frozen=True)
class Design:
    """A whole accelerator: with its shell on a board, or the core alone on a device."""

    name: str
    family: str
    network: Network
    plan: Plan

    def verilog(self) -> str:
        text = accelerator_verilog(self.network, self.plan, core_parts(self.network, self.plan))
        if self.plan.board is None:
            return text.replace("module xnorforge_core(", "module top(")
        return text


@dataclass(frozen=True)
class Element:
    """A processing element. table: where resources.toml keeps what it takes."""

    table: str
    config: PeConfig


class ConstantElement(wiring.Component):
    """A processing element and the constants that it takes as weights."""

    def __init__(self, config: PeConfig, words: StoreConfig, init: list[int]):
        self.element = ProcessingElement(config=config)
        self.store = Store(config=words, init=init)
        ports = dict(self.element.signature.members)
        del ports["w"]
        super().__init__({**ports, "address": In(words.address_bits)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.element, m.submodules.store = self.element, self.store
        m.d.comb += [self.store.address.eq(self.address), self.element.w.eq(self.store.data)]
        for name in self.signature.members:
            if name not in ("address", "o"):
                m.d.comb += getattr(self.element, name).eq(getattr(self, name))
        m.d.comb += self.o.eq(self.element.o)
        return m


@dataclass(frozen=True)
class Block:
    """One component alone. config: what makes it, and what the model takes."""

    name: str
    family: str
    config: Element | MvuConfig | StoreConfig | WidthConverterConfig | HeadConfig

    def verilog(self) -> str:
        return to_verilog(self._component(), "top")

    def _component(self) -> wiring.Component:
        rng = random.Random(1)
        if isinstance(self.config, Element) and self.config.table == "constant_elements":
            simd = self.config.config.simd
            words = [rng.getrandbits(simd) for _ in range(CONSTANT_WORDS)]
            store = StoreConfig(simd, CONSTANT_WORDS, "const", self.family)
            return ConstantElement(self.config.config, store, words)
        if isinstance(self.config, Element):
            return ProcessingElement(config=self.config.config)
        if isinstance(self.config, MvuConfig):
            return MatrixVectorUnit(config=self.config)
        if isinstance(self.config, WidthConverterConfig):
            return WidthConverter(config=self.config)
        if isinstance(self.config, HeadConfig):
            return ArgMaxHead(config=self.config)
        words = [rng.getrandbits(self.config.width) for _ in range(self.config.depth)]
        return Store(config=self.config, init=words)


def design_names(family: str) -> list[str]:
    """The smallest core without and with a shell, then the random designs."""
    return [f"{family}-{name}" for name in (*SMALLEST, *(f"{n:02}" for n in range(DESIGNS)))]


def is_held_out(name: str) -> bool:
    """Whether a design judges the model instead of serving its fit: by its name's hash."""
    if name.endswith(SMALLEST):
        return False
    return hashlib.sha256(name.encode()).digest()[0] % 6 < 5


# --- whole designs -----------------------------------------------------------------------------


def draw(name: str) -> Design:
    """The design of this name."""
    if name.endswith(SMALLEST):
        return _smallest(name)
    rng = random.Random(name)
    while True:
        design = _attempt(rng, name)
        if design is not None:
            return design


def _attempt(rng: random.Random, name: str) -> Design | None:
    """A random design, if its memories fit its device and its size is in range by the rule."""
    family = name.split("-")[0]
    board = rng.choice(BOARDS[family]) if rng.random() < 0.25 else None
    device = get_board(board).device if board else get_device(DEVICE[family])
    smallest = SHELL_CELLS + 500 if board else 600
    largest = LARGEST_CELLS[family]
    cells = round(smallest * (largest / smallest) ** rng.random() ** 1.5)
    depth = rng.choice([1, 2, 2, 3, 3, 4])
    sizes = [_log_uniform(rng, 24, 800)]
    sizes += [_log_uniform(rng, 12, 256) for _ in range(depth - 1)]
    sizes.append(rng.randint(2, 20))
    kind = rng.choice(["bit", "bit", "bit", "uint", "int"])
    bits = 1 if kind == "bit" else rng.choice([2, 3, 4, 8])
    network = random_network(rng, sizes=sizes, kind=kind, bits=bits)
    lanes = max(1, int((cells - (SHELL_CELLS if board else 400)) / CELLS_PER_LANE / depth))
    layers = tuple(_layer(rng, layer, lanes, device) for layer in network.layers)
    width = layers[0].simd if rng.random() < 0.5 else 8 if kind == "bit" else 1
    plan = _plan(family, board, min(width, sizes[0]), layers)
    configs = [config for _, config, _ in core_parts(network, plan).stores]
    blocks = sum(config.block_rams for config in configs)
    stored = sum(c.width * c.depth for c in configs if c.kind == "lut" and not c.lut_rams)
    stored += 24 * sum(c.lut_rams for c in configs)
    sprams = sum(config.sprams for config in configs)
    total = stored + CELLS_PER_LANE * sum(fold.pe * fold.simd * fold.pl for fold in layers)
    total += SHELL_CELLS if board else 400
    if blocks > device.block_rams - 6 or sprams > device.spram_blocks:
        return None
    if not smallest / 2 < total < largest:
        return None
    return Design(name, family, network, plan)


def _smallest(name: str) -> Design:
    """Next to nothing between the ends of a core: what every design takes."""
    family, kind = name.split("-")
    network = random_network(random.Random(1), sizes=[24, 4])
    fold = _fold(network.layers[0], 1, 1, 1)
    board = BOARDS[family][0] if kind == "shell" else None
    return Design(name, family, network, _plan(family, board, 1, (fold,)))


def _plan(family: str, board: str | None, lanes: int, layers: tuple[LayerPlan, ...]) -> Plan:
    site = get_board(board) if board else None
    return Plan(
        family=family,
        device=site.device.name if site else DEVICE[family],
        board=board,
        clock_hz=site.pll_config().output_hz if site else 1e8,
        link="uart",
        baud=1_000_000,
        lanes=lanes,
        layers=layers,
    )


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))


def _layer(rng: random.Random, layer: Dense, lanes: int, device: Device) -> LayerPlan:
    """A layer folded to about so many lanes (PE x SIMD x PL), its memories at random."""
    pl = rng.choice([1, layer.source.bits, rng.randint(1, layer.source.bits)])
    simd = _useful(rng, layer.columns, min(layer.columns, max(1, lanes // pl)))
    pe = max(1, min(layer.rows, lanes // (pl * simd)))
    pe = -(-layer.rows // -(-layer.rows // pe))  # no more rows than its folds need
    return _with_stores(rng, layer, _fold(layer, pe, simd, pl), device)


def _fold(layer: Dense, pe: int, simd: int, pl: int) -> LayerPlan:
    return LayerPlan.of(
        layer,
        pe=pe,
        simd=simd,
        pl=pl,
        weight_store="block",
        preset_store="block",
        buffer_store="block",
    )


def _with_stores(rng: random.Random, layer: Dense, fold: LayerPlan, device: Device) -> LayerPlan:
    """Memories as a plan might choose them: no kilobits in flip-flops."""
    family = device.family.name
    distributed = STORE_FAMILIES[family].lut_ram

    def kind(shape: StoreConfig, constant: bool = False) -> str:
        if constant and shape.depth <= 16 and rng.random() < 0.3:
            return "const"
        small = shape.depth <= 256 if distributed else shape.depth * shape.width <= 250
        return "lut" if shape.depth == 1 or (small and rng.random() < 0.6) else "block"

    config = fold.mvu_config(family, layer)
    buffer = StoreConfig(
        width=fold.simd * fold.input_bits, depth=config.buffer_depth, family=family
    )
    weights = config.weight_config
    weight_store = kind(weights, constant=True)
    if device.spram_blocks and weights.width <= 32 and rng.random() < 0.5:
        weight_store = "spram"
    return replace(
        fold,
        weight_store=weight_store,
        preset_store=kind(config.preset_config, constant=True),
        buffer_store=kind(buffer),
    )


def _useful(rng: random.Random, size: int, most: int) -> int:
    """A width up to `most` that folds `size` without a needless lane."""
    width = _log_uniform(rng, max(1, most // 8), most)
    return -(-size // -(-size // width))


# --- blocks alone ------------------------------------------------------------------------------


def blocks(family: str) -> list[Block]:
    """Components measured alone, which tell apart what whole designs mix."""
    found: list[Block] = []
    distributed = STORE_FAMILIES[family].lut_ram

    def add(kind: str, config: Any) -> None:
        number = sum(block.name.startswith(f"{family}-{kind}-") for block in found)
        found.append(Block(f"{family}-{kind}-{number:02}", family, config))

    for table, planes, weights, widths in (
        ("elements", 1, "block", ELEMENTS),
        ("plane_elements", 2, "block", FEW_ELEMENTS),
        ("constant_elements", 1, "const", FEW_ELEMENTS),
    ):
        for simd in widths:
            shape = MvuConfig(
                rows=CONSTANT_WORDS,
                columns=16 * simd,
                input_kind="bit" if planes == 1 else "uint",
                input_bits=planes,
                pe=1,
                simd=simd,
                pl=planes,
                scores=True,
                family=family,
                weight_store=weights,
            )
            element = replace(shape.pe_config, acc_width=ELEMENT_ACC_WIDTH)
            config = Element(table, element)
            found.append(Block(f"{family}-{table}-{simd:03}", family, config))
    for number, (rows, columns, kind, bits, pe, simd, pl) in enumerate(ENGINES):
        shape = MvuConfig(
            rows=rows,
            columns=columns,
            input_kind=kind,
            input_bits=bits,
            pe=pe,
            simd=simd,
            pl=pl,
            scores=number % 4 == 3,
            family=family,
            buffer_store="block",
        )
        if number % 2 and (distributed or shape.buffer_depth * simd * bits <= 250):
            shape = replace(shape, buffer_store="lut")
        add("engine", shape)
    for width, depth, kind in STORES:
        add("store", StoreConfig(width, depth, kind, family))
    for elements, bits, lanes_in, lanes_out in CONVERTERS:
        add("width", WidthConverterConfig(elements, bits, lanes_in, lanes_out))
    for classes, score_bits, affine in HEADS:
        add("head", HeadConfig(classes, score_bits, "first", affine, family))
    return found


ELEMENTS = (1, 2, 4, 8, 9, 16, 17, 32, 49, 64, 98, 128, 129, 256, 257, 392)
FEW_ELEMENTS = (1, 8, 9, 16, 17, 32, 128)
"""SIMD widths of processing elements measured alone, and of those with two planes or constant
weights. The model goes straight between them."""

ENGINES = (
    (64, 784, "bit", 1, 2, 8, 1),
    (10, 64, "bit", 1, 4, 28, 1),
    (32, 256, "bit", 1, 3, 128, 1),
    (10, 64, "bit", 1, 5, 64, 1),
    (64, 784, "uint", 8, 2, 16, 1),
    (64, 100, "uint", 8, 2, 25, 4),
    (20, 96, "uint", 4, 2, 32, 4),
    (17, 53, "bit", 1, 6, 11, 1),
    (48, 60, "bit", 1, 24, 3, 1),
)
"""rows, columns, input kind, input bits, PE, SIMD, PL"""

STORES = (
    (16, 64, "block"),
    (128, 256, "block"),
    (32, 3136, "block"),
    (90, 700, "block"),
    (64, 8, "lut"),
    (200, 4, "lut"),
    (24, 30, "lut"),
    (700, 1, "lut"),
    (64, 16, "const"),
    (40, 30, "const"),
)
"""width, depth, kind"""

CONVERTERS = (
    (784, 1, 8, 16),
    (784, 1, 8, 98),
    (64, 1, 32, 8),
    (784, 1, 8, 49),
    (60, 1, 12, 20),
    (64, 1, 7, 22),
    (64, 1, 22, 7),
)
"""elements, element bits, lanes in, lanes out"""

HEADS = ((10, 8, False), (10, 10, True), (20, 14, True))
"""classes, score bits, affine"""
