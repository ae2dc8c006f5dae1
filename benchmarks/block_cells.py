# SPDX-License-Identifier: BSD-2-Clause
"""Packed cells of queues, width converters, stores and the weight chain's head, as Markdown.

.venv/bin/python benchmarks/block_cells.py
"""

import tempfile
from pathlib import Path

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.config_chain import CONFIG_BYTE, ConfigHead
from xnorforge.hw.store import Store, StoreConfig
from xnorforge.hw.store_loader import LOAD
from xnorforge.hw.stream import Queue
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


def main() -> None:
    print("| block | iCE40 LC | iCE40 RAM | ECP5 LUT4 | ECP5 FF | ECP5 RAM |")
    print("|---|---:|---:|---:|---:|---:|")
    for text, build in BLOCKS:
        with tempfile.TemporaryDirectory() as folder:
            ice40 = packed_cells(build("ice40"), "ice40", Path(folder))
            ecp5 = packed_cells(build("ecp5"), "ecp5", Path(folder))
        print(
            f"| {text} | {ice40['ICESTORM_LC']} | {ice40['ICESTORM_RAM']} "
            f"| {ecp5['TRELLIS_COMB']} | {ecp5['TRELLIS_FF']} | {ecp5['DP16KD']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
