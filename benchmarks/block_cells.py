# SPDX-License-Identifier: BSD-2-Clause
"""Packed cells of queues, width converters, stores and the weight chain's head, as Markdown.

.venv/bin/python benchmarks/block_cells.py [--engines]

--engines: instead, what processing elements cost together with the store of their weights.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

from amaranth import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.config_chain import CONFIG_BYTE, ConfigHead
from xnorforge.hw.processing_element import PeConfig, ProcessingElement
from xnorforge.hw.store import Store, StoreConfig
from xnorforge.hw.store_loader import LOAD
from xnorforge.hw.stream import Queue
from xnorforge.hw.structures import engine_for
from xnorforge.hw.width import WidthConverter, WidthConverterConfig
from xnorforge.sim.cells import packed_cells


class PlainConfigHead(wiring.Component):
    """ConfigHead with plain ports: an always-ready stream cannot be a port of a top module."""

    byte: In(CONFIG_BYTE)
    valid: In(1)
    load_o: Out(LOAD)
    load_i: In(LOAD)
    model_valid: Out(1)
    weights_digest: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.submodules.head = head = ConfigHead(load_bytes=8000, init_digest=0x12345678)
        wiring.connect(m, head.load_o, wiring.flipped(self.load_o))
        wiring.connect(m, wiring.flipped(self.load_i), head.load_i)
        m.d.comb += [
            head.i.payload.eq(self.byte),
            head.i.valid.eq(self.valid),
            self.model_valid.eq(head.model_valid),
            self.weights_digest.eq(head.weights_digest),
        ]
        return m


class Engine(wiring.Component):
    """Processing elements that share their inputs, and the store of their weights."""

    def __init__(self, config, elements, element):
        self.config, self.elements, self.element = config, elements, element
        mask = (1 << config.width) - 1
        self.words = [scrambled(k, config.width) & mask for k in range(config.depth)]
        load = {"load_i": In(LOAD), "load_o": Out(LOAD)} if config.loadable else {}
        ports = {
            "address": In(config.address_bits),
            "x": In(element.simd),
            "first": In(1),
            "enable": In(1),
            "preset": In(signed(element.acc_width)),
            "o": Out(elements),
        }
        super().__init__({**ports, **load})

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = Store(config=self.config, init=self.words)
        if self.config.loadable:
            wiring.connect(m, wiring.flipped(self.load_i), store.load_i)
            wiring.connect(m, store.load_o, wiring.flipped(self.load_o))
        m.d.comb += store.address.eq(self.address)
        for k in range(self.elements):
            m.submodules[f"pe{k}"] = pe = ProcessingElement(config=self.element)
            low = k * self.element.simd
            m.d.comb += [
                pe.x.eq(self.x),
                pe.w.eq(store.data[low : low + self.element.simd]),
                pe.first.eq(self.first),
                pe.enable.eq(self.enable),
                pe.group_first.eq(1),
                pe.group_last.eq(1),
                pe.preset.eq(self.preset),
                self.o[k].eq(pe.o[-1]),
            ]
        return m


def scrambled(k, width):
    """Bits without a pattern, for word `k`."""
    return int.from_bytes(hashlib.shake_128(bytes([k])).digest(-(-width // 8)), "little")


def queue(width, depth, store):
    return f"Queue {depth} x {width}, {store}", lambda _: Queue(
        shape=width, depth=depth, store=store
    )


def width(elements, bits, lanes_in, lanes_out):
    config = WidthConverterConfig(elements, bits, lanes_in, lanes_out)
    text = f"WidthConverter {lanes_in} -> {lanes_out}, {elements} x {bits} bit"
    return text, lambda _: WidthConverter(config=config)


def store(width, depth, kind):
    def build(family):
        mask = (1 << width) - 1
        words = [(k * 0x9E3779B97F4A7C15F39CC0605CEDC835 >> 3) & mask for k in range(depth)]
        return Store(config=StoreConfig(width, depth, kind, family), init=words)

    return f"Store {width} x {depth}, {kind}", build


BLOCKS = [
    queue(8, 2, "registers"),
    queue(8, 8, "registers"),
    queue(8, 8, "lut"),
    queue(8, 256, "block"),
    width(784, 1, 8, 16),
    width(784, 1, 1, 16),
    width(64, 1, 16, 4),
    width(784, 1, 16, 49),
    width(784, 1, 49, 16),
    store(16, 64, "block"),
    store(16, 3136, "block"),
    store(16, 16, "lut"),
    store(32, 64, "lut"),
    store(64, 512, "block"),
    ("ConfigHead 8,000 bytes", lambda _: PlainConfigHead()),
]


CELLS = {"ice40": "ICESTORM_LC", "ecp5": "TRELLIS_COMB", "gowin": "LUT4"}
FOLDS = (1, 2, 4, 8, 16)
ELEMENTS, SIMD, ACC_WIDTH = 4, 64, 12


def engines() -> None:
    print(f"| weights | family | {' | '.join(f'{fold} words' for fold in FOLDS)} |")
    print(f"|---|---|{'---:|' * len(FOLDS)}")
    for kind in ("const", "lut", "block"):
        for family, cells in CELLS.items():
            measured = engine_for(family, SIMD)
            element = PeConfig(
                simd=SIMD,
                acc_width=ACC_WIDTH,
                structure=measured.structure,
                pipeline=measured.pipeline,
                literals=1 if kind == "const" else 2,
            )
            figures = []
            for fold in FOLDS:
                config = StoreConfig(ELEMENTS * SIMD, fold, kind, family)
                with tempfile.TemporaryDirectory() as folder:
                    used = packed_cells(Engine(config, ELEMENTS, element), family, Path(folder))
                figures.append(f"{used[cells] / ELEMENTS / SIMD:.2f}")
            print(f"| {kind} | {family} | {' | '.join(figures)} |", flush=True)


def main() -> None:
    if "--engines" in sys.argv[1:]:
        engines()
        return
    print("| block | iCE40 LC | iCE40 RAM | ECP5 LUT4 | ECP5 FF | ECP5 RAM | Gowin LUT4 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for text, build in BLOCKS:
        with tempfile.TemporaryDirectory() as folder:
            ice40 = packed_cells(build("ice40"), "ice40", Path(folder))
            ecp5 = packed_cells(build("ecp5"), "ecp5", Path(folder))
            gowin = packed_cells(build("gowin"), "gowin", Path(folder))
        print(
            f"| {text} | {ice40['ICESTORM_LC']} | {ice40['ICESTORM_RAM']} "
            f"| {ecp5['TRELLIS_COMB']} | {ecp5['TRELLIS_FF']} | {ecp5['DP16KD']} "
            f"| {gowin['LUT4']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
