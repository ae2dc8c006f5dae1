# SPDX-License-Identifier: BSD-2-Clause
"""What a block is made of, counted from its configuration: the terms of the resource model.

A term is a number of things that cost cells: lookup tables of XNOR and popcount, accumulator
bits, registers, memory columns. `gen.resources` weighs them by a family's coefficients, which
packed synthesis gave; `docs/resources.md` has the meaning of each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from typing import Any

from xnorforge.hw.head import HeadConfig
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.store import FAMILIES, StoreConfig
from xnorforge.hw.width import WidthConverterConfig

__all__ = [
    "CONSTANT_WORDS",
    "ELEMENT_ACC_WIDTH",
    "TERMS",
    "ElementTables",
    "Elements",
    "Terms",
    "buffer_terms",
    "chain",
    "constant_terms",
    "constant_weight_terms",
    "converter_terms",
    "counter_bits",
    "engine_terms",
    "head_terms",
    "level_bits",
    "lut_memory",
    "selector_tables",
    "store_terms",
    "sum_terms",
]

Terms = Counter
"""Terms by name; values may be fractions."""

TERMS = {
    "match": "XNORs and popcount of the processing elements, as measured alone",
    "accumulate": "bits of accumulators and of the adders that join planes",
    "elements": "processing elements",
    "engine": "matrix-vector units: control",
    "count": "bits of counters",
    "registers": "flip-flops counted from the configuration",
    "lone": "flip-flops with no LUT before them",
    "choose": "LUTs of multiplexers",
    "stored": "bits of memories made of flip-flops",
    "lut_rams": "LUT RAM primitives",
    "rom": "tables of constants",
    "store": "stores: their loader",
    "column": "memory columns",
    "convert": "bits of width converters",
    "gearbox": "LUTs of barrel shifters",
    "gearboxes": "width converters whose widths do not divide",
    "head": "key bits of the head",
    "affine": "key bits of a head with scales",
    "core": "weight chain and registers",
    "shell": "UART and link",
}
"""What each term counts."""

ELEMENT_ACC_WIDTH = 12
"""Accumulator bits of the processing elements that were measured alone."""

CONSTANT_WORDS = 8
"""Words of constant weights that they were measured with: three address bits, beside which a
LUT4 has room for the input."""

# Widest adder without a carry chain, and bits of a carry cell.
_CHAINS = {"ice40": (0, 1), "ecp5": (4, 2), "gowin": (2, 1), "xilinx": (4, 2)}


def sum_terms(first: Terms, second: Terms) -> Terms:
    """Terms added up; unlike `+` this keeps negative ones."""
    total: Terms = Terms(first)
    total.update(second)
    return total


# --- engine ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Elements:
    """Processing elements measured alone, by SIMD width; between widths the model goes straight.

    simd: ascending, from 1. The other lists run beside it. carries: without the accumulator's.
    """

    simd: tuple[int, ...]
    cells: tuple[int, ...]
    flipflops: tuple[int, ...]
    carries: tuple[int, ...]

    def tree(self, kind: str, simd: int) -> float:
        """What XNORs and popcount take: an element of this width less one of width 1."""
        known = getattr(self, kind)
        right = min(max(1, bisect_left(self.simd, simd)), len(self.simd) - 1)
        low, high = self.simd[right - 1], self.simd[right]
        slope = (known[right] - known[right - 1]) / (high - low)
        return known[right] + slope * (simd - high) - known[0]


@dataclass(frozen=True)
class ElementTables:
    """Elements that work on one plane a step, on two, and on one with constant weights.

    The last hold the constants too, 8 words of them.
    """

    single: Elements
    double: Elements
    constant: Elements

    def tree(self, kind: str, simd: int, planes: int) -> float:
        """What XNORs and popcounts of all planes of a step take."""
        if planes == 1:
            return self.single.tree(kind, simd)
        return planes / 2 * self.double.tree(kind, simd)


def engine_terms(config: MvuConfig, elements: ElementTables) -> Terms:
    """A MatrixVectorUnit without its stores and without its input buffer."""
    sums = _plane_sums(config.simd, config.input_bits, config.pl)
    adders = [width - low for width, low in sums]
    bits = config.score_bits if config.scores else 1
    queue = config.credits * config.pe * bits if config.reuse == 1 else 0
    rows = config.pe * config.reuse
    counters = [
        counter_bits(n) for n in (config.nf, config.sf, config.groups, config.nf * config.sf)
    ]
    counters += [level_bits(config.buffer_depth), level_bits(config.credits)]
    if config.windows is not None and config.borders > 1 and config.reuse > 1:
        places = (config.windows.width, config.windows.height, config.preset_config.depth)
        counters += [counter_bits(count) for count in places] * config.reuse
    delay = config.issue_latency + config.pe_config.control_latency
    controls = delay * (2 + (2 if config.groups > 1 else 0)) + config.latency
    controls += config.read_delay * (3 + counter_bits(config.groups))
    lead = config.issue_latency - config.weight_config.latency
    controls += max(0, lead) * counter_bits(config.nf * config.sf)
    # Scores leave the accumulator's top bits unused.
    accumulator = config.acc_width
    if config.scores:
        accumulator = config.score_bits - (config.input_kind == "bit")
    own = rows * (accumulator + _plane_registers(config, sums))
    spare = config.pe_config.has_spare
    chains = sum(chain(width, config.family) for width in (accumulator + spare, *adders))
    return Counter(
        {
            "match.cells": rows * elements.tree("cells", config.simd, config.pl),
            "match.flipflops": rows * elements.tree("flipflops", config.simd, config.pl),
            "match.carries": rows * elements.tree("carries", config.simd, config.pl),
            "accumulate": rows * (accumulator + sum(adders)),
            "accumulate.carries": rows * chains,
            "elements": rows * (1 + len(sums)),
            "engine": 1,
            "count": sum(counters),
            "count.carries": sum(chain(width, config.family) for width in counters),
            "registers": own
            + queue
            + config.credits * (config.reuse == 1)
            + sum(counters)
            + controls,
            "lone": queue + controls,
            "choose": max(0, queue - config.pe * bits),
        }
    )


def _plane_sums(simd: int, bits: int, planes: int) -> list[tuple[int, int]]:
    """(width, low bits that pass) of the sums of more than two planes and of a fold's steps.

    Sums of two planes are part of the elements measured with two planes.
    """
    sums, nodes = [], [1] * planes
    while len(nodes) > 1:
        pairs = list(zip(nodes[::2], nodes[1::2], strict=False))
        sums += [(_sum_bits(simd, low + high), low) for low, high in pairs if low + high > 2]
        nodes = [low + high for low, high in pairs] + nodes[len(pairs) * 2 :]
    if planes < bits:
        sums.append((_sum_bits(simd, bits), planes))
    return sums


def _plane_registers(config: MvuConfig, sums: list[tuple[int, int]]) -> int:
    """Registers of the sums of planes, beyond those of the elements measured with two planes."""
    if config.pl <= 2 or config.pe_config.pipeline != "output":
        return sum(width for width, _ in sums)
    # One register behind all of a step's planes, instead of one behind every two.
    pairs = config.pl // 2 * _sum_bits(config.simd, 2)
    fold = sums[-1][0] if config.groups > 1 else 0
    return _sum_bits(config.simd, config.pl) + fold - pairs


def _sum_bits(simd: int, planes: int) -> int:
    """Bits of the sum of so many planes."""
    return (simd * ((1 << planes) - 1)).bit_length()


def buffer_terms(config: MvuConfig, kind: str) -> Terms:
    """The input buffer of a MatrixVectorUnit around a memory of this kind, block RAMs aside."""
    depth = config.buffer_depth
    width = config.simd * config.input_bits
    dead = (config.sf * config.simd - config.columns) * config.input_bits
    counters = [counter_bits(depth)] * 3 + [level_bits(depth), counter_bits(config.sf)]
    counts = sum(counters)
    # The register behind a block RAM follows no LUT.
    terms: Terms = Counter(
        {
            "count": counts,
            "count.carries": sum(chain(bits, config.family) for bits in counters),
            "registers": counts + width,
            "choose": dead,
            "lone": width if kind == "block" else 0,
        }
    )
    if config.input_kind == "int":
        terms["choose"] += config.simd
    for _ in range(config.reuse):
        if kind == "lut":
            terms.update(lut_memory(width, depth, config.family))
        if config.groups > 1:
            terms["registers"] += config.simd * config.pl
            terms["choose"] += config.simd * config.pl * selector_tables(config.groups)
    if config.reuse > 1:
        more = (config.reuse - 1) * width
        terms.update(registers=more, lone=more if kind == "block" else 0)
        terms.update(_batch_terms(config, kind))
    return terms


def _batch_terms(config: MvuConfig, kind: str) -> Terms:
    """What an engine of several windows has more: counters of its buffer, the result store."""
    results = config.result_config
    width = results.lanes * results.width
    batch = [counter_bits(config.reuse)] * 2
    if config.window_count % config.reuse:
        batch += [counter_bits(config.batches)] * 2
    counters = [*batch, counter_bits(config.buffer_depth), counter_bits(config.sets)]
    counters += [counter_bits(results.depth)] * 3 + [level_bits(results.depth)]
    counters.append(counter_bits(results.words))
    # Reads of a block RAM hold its latch; those of other memories take a register.
    read = counter_bits(results.lanes) + 1 + (width if kind == "lut" else 0)
    terms: Terms = Counter(
        {
            "count": sum(counters),
            "count.carries": sum(chain(bits, config.family) for bits in counters),
            "registers": sum(counters) + read,
            "choose": results.width * selector_tables(results.lanes) + config.reuse,
        }
    )
    if kind == "lut":
        terms.update(lut_memory(width, results.depth, config.family))
    return terms


def lut_memory(width: int, depth: int, family: str) -> Terms:
    """A memory without block RAM, and the multiplexer that reads it."""
    if not FAMILIES[family].lut_ram:
        return Counter(
            stored=width * depth,
            registers=width * depth,
            choose=width * selector_tables(depth) + depth,
        )
    banks = -(-depth // 16)
    return Counter(lut_rams=-(-width // 4) * banks, choose=width * selector_tables(banks))


# --- stores ------------------------------------------------------------------------------------


def store_terms(config: StoreConfig) -> Terms:
    """A weight or preset store with its loader, block RAMs aside."""
    columns = len(config.columns)
    widest = -(-max(config.columns) // 8)
    loader = 8 * widest
    terms: Terms = Counter(
        store=1,
        column=columns,
        count=config.address_bits + counter_bits(widest),
        registers=loader + 2 * columns + 4 + config.address_bits + counter_bits(widest),
        lone=loader,
    )
    terms["count.carries"] = chain(config.address_bits, config.family)
    if config.depth == 1:
        terms.update(registers=config.width, lone=config.width)
        return terms
    later = config.readers * (config.latency - 1) * config.address_bits
    terms["registers"] += later
    terms["lone"] += later
    shapes = Counter((bits, config.banks(column)) for column, bits in enumerate(config.columns))
    for (bits, banks), count in shapes.items():
        for name, value in _column(config, bits, banks).items():
            terms[name] += config.readers * count * value
    return terms


def _column(config: StoreConfig, bits: int, banks: int) -> Terms:
    """The memories of one column, the registers behind them and what selects a bank."""
    terms: Terms = Counter()
    if config.kind == "lut":
        memory = lut_memory(bits, min(config.depth, 16), config.family)
        terms.update({name: banks * value for name, value in memory.items()})
    later = banks * bits * max(0, config.read_registers - 1)
    terms.update(registers=later, lone=later, choose=banks if banks > 1 else 0)
    values = banks
    for stage in range(config.select_stages):
        if stage == 0 and banks > 1:
            values = -(-banks // 2)
            terms["choose"] += bits * values
            if values == 2:
                terms["choose"] += bits
                values = 1
        elif stage:
            merged = -(-values // 16)
            terms["choose"] += bits * -(-(values - merged) // 3)
            values = merged
        terms["registers"] += bits * values
        # LUT RAM is no LUT that a register could share a cell with.
        terms["lone"] += bits * values if banks == 1 and "lut_rams" in terms else 0
    return terms


def constant_terms(config: StoreConfig) -> Terms:
    """A store of constants: tables of its address, equal ones shared."""
    if config.depth == 1:
        return Counter()
    address = config.address_bits
    # Up to complement, and without the two constants.
    functions = (1 << (1 << address) - 1) - 1 if address <= 4 else config.width
    # LUT4s of a function of more address bits: a tree that chooses between tables.
    tables = 2 * -(-config.depth // 16) - 1
    return Counter(rom=tables * min(config.width, functions), registers=address, lone=address)


def constant_weight_terms(config: MvuConfig, tables: ElementTables) -> Terms:
    """What constant weights take more, or less, than an engine with weights from outside."""
    shape = config.weight_config
    if shape.depth > CONSTANT_WORDS:
        return constant_terms(shape)
    # XNOR and table are one LUT4.
    terms: Terms = Counter(registers=shape.address_bits, lone=shape.address_bits)
    for kind in ("cells", "flipflops", "carries"):
        known = tables.tree(kind, config.simd, config.pl)
        constant: Any = config.pl * tables.constant.tree(kind, config.simd)
        terms[f"match.{kind}"] = config.pe * (constant - known)
    return terms


# --- the rest ----------------------------------------------------------------------------------


def converter_terms(config: WidthConverterConfig, family: str) -> Terms:
    """A width converter."""
    bits_in = config.lanes_in * config.element_bits
    if config.lanes_in == config.lanes_out:
        return Counter()
    if config.lanes_out % config.lanes_in == 0:
        count = min(config.lanes_out // config.lanes_in, config.beats_in)
        ragged = config.beats_in % count
        counts = counter_bits(count) + (counter_bits(config.beats_in) if ragged else 0)
        terms: Terms = Counter(
            count=counts,
            registers=count * bits_in + counts + 1,
            lone=(count - ragged) * bits_in,
            convert=ragged * bits_in,
        )
        terms["count.carries"] = chain(counter_bits(count), family)
        return terms
    if config.lanes_in % config.lanes_out == 0:
        level = level_bits(config.lanes_in // config.lanes_out)
        terms = Counter(count=level, registers=bits_in + level, convert=bits_in)
        terms["count.carries"] = chain(level, family)
        return terms
    # A gearbox: a barrel shifter moves the beat to where the buffer ends, stage after stage.
    units_in, units_out = config.lanes_in // config.unit, config.lanes_out // config.unit
    unit, capacity = config.unit * config.element_bits, units_in + units_out - 1
    places = counter_bits(units_out)
    shifted = sum(min(units_in + (1 << stage) - 1, capacity) for stage in range(1, places + 1))
    counts = 2 * level_bits(capacity) + (0 if config.aligned else counter_bits(config.beats_in))
    terms = Counter(
        count=counts,
        registers=capacity * unit + level_bits(capacity) + 2,
        convert=capacity * unit * (1 if config.aligned else 2),
        gearbox=shifted * unit,
        gearboxes=1,
    )
    terms["count.carries"] = 3 * chain(level_bits(capacity), family)
    return terms


def head_terms(config: HeadConfig) -> Terms:
    """The arg-max head, without its store."""
    index = counter_bits(config.classes)
    bits = config.key_bits
    terms: Terms = Counter(
        head=bits,
        count=index,
        registers=bits + config.score_bits + 3 * index + 2,
        lone=bits + config.score_bits + index,
    )
    if config.affine:
        terms.update(affine=bits, registers=bits + config.score_bits + 16 + 7, lone=16)
    return terms


def chain(bits: int, family: str) -> int:
    """Carry cells of an adder; synthesis makes narrow ones without a carry chain."""
    narrow, step = _CHAINS[family]
    return -(-bits // step) if bits > narrow else 0


def counter_bits(count: int) -> int:
    """Bits of a counter of `count` values."""
    return (count - 1).bit_length()


def level_bits(most: int) -> int:
    """Bits of a level from 0 to `most`."""
    return most.bit_length()


def selector_tables(values: int) -> Any:  # a fraction, which Counter's stub knows nothing of
    """LUT4s that choose one of so many bits: two make a choice of four."""
    return 2 / 3 * (values - 1)
