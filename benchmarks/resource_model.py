# SPDX-License-Identifier: BSD-2-Clause
"""Packed cells of random accelerators and of single blocks, and the resource model's fit to them.

    python benchmarks/resource_model.py measure [--family F ...] [--only NAME ...] [--minutes M]
    python benchmarks/resource_model.py fit        writes gen/data/resources.toml
    python benchmarks/resource_model.py report     writes the table and the scatter plot of docs/

    design -> Verilog -> yosys, the family's command -> nextpnr --pack-only

Nothing is measured twice: a result is kept under the hash of its Verilog, of the command and of
the tools' versions, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from resource_designs import FAMILIES, Block, Design, blocks, design_names, draw
from resource_fit import elements_of, fit_family, samples, to_toml
from resource_report import error_table, scatter
from tables import insert

from xnorforge.gen import devices
from xnorforge.gen.boards import get_board
from xnorforge.gen.constraints import (
    constraint_files,
    find_clock,
    place_and_route_args,
    read_netlist,
)
from xnorforge.gen.devices import get_device
from xnorforge.gen.errors import ToolError
from xnorforge.gen.resources import COEFFICIENTS, load_model
from xnorforge.gen.synthesis import synthesis_script
from xnorforge.gen.tools import find_tool, run_tool
from xnorforge.sim.cells import pack

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
RESULTS = HERE / "results" / "resource_designs.json"

PACKED = {
    "ice40": {"cells": "ICESTORM_LC"},
    "ecp5": {"cells": "TRELLIS_COMB", "flipflops": "TRELLIS_FF"},
    # Carry cells and LUT RAM are LUT4s too; flip-flops beside a LUT RAM are lost.
    "gowin": {"cells": "LUT4", "flipflops": "DFF"},
}
"""What the packer counts, by its names."""

NETLIST = {
    "ice40": {
        "flipflops": r"SB_DFF\w*",
        "carries": "SB_CARRY",
        "blocks": r"SB_RAM40_4K\w*",
        "sprams": "SB_SPRAM256KA",
    },
    "ecp5": {"carries": "CCU2C", "blocks": "DP16KD", "lut_rams": "TRELLIS_DPR16X4"},
    "gowin": {"carries": "ALU", "blocks": r"(SDP|DP|SP|pROM)\w*", "lut_rams": r"RAM16SDP\d"},
}
"""What the netlist holds, by the names of its cells."""

KINDS = ("cells", "flipflops", "carries", "blocks", "sprams", "lut_rams")


FILL = {"ice40": 0.85, "ecp5": 0.85, "gowin": 0.85}
# Gowin LUT RAM takes places of a tile whose other cells it limits.
LUT_RAM_FILL = {"ice40": 1.0, "ecp5": 1.0, "gowin": 0.5}
"""Share of a device's cells that a plan may take; docs/resources.md has what it comes from."""

HEADER = """\
# SPDX-License-Identifier: BSD-2-Clause
# Written by benchmarks/resource_model.py from packed designs; docs/resources.md has the meaning.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("measure", "fit", "report"))
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.step == "measure":
        measure_all(options.family, options.only, options.results)
    elif options.step == "fit":
        known = read_results(options.results)
        COEFFICIENTS.write_text(HEADER + "\n".join(fit(family, known) for family in FAMILIES))
    else:
        known = read_results(options.results)
        fitted = {}
        for family in FAMILIES:
            model = load_model(family)
            fitted[family] = samples(family, known, model.shell_blocks), model.weights
        insert(DOCS / "resources.md", "errors", error_table(fitted))
        scatter(fitted, DOCS / "resources.svg")


# --- fitting ---------------------------------------------------------------------------------


def fit(family: str, known: dict[str, Any]) -> str:
    """A family's part of resources.toml."""
    # What the link takes beside the core is the same in every design.
    blocks = {
        sample.used["blocks"] - sample.exact.blocks
        for sample in samples(family, known, 0)
        if sample.terms["shell"]
    }
    if len(blocks) != 1:
        raise SystemExit(f"{family}: block RAMs of the link are {sorted(blocks)}, not one number")
    shell_blocks = blocks.pop()
    weights = fit_family(samples(family, known, shell_blocks))
    return to_toml(
        family,
        weights,
        elements_of(family, known),
        shell_blocks,
        FILL[family],
        LUT_RAM_FILL[family],
    )


# --- measuring ---------------------------------------------------------------------------------


def measure_all(families: Iterable[str], only: list[str] | None, results: Path) -> None:
    """Measure what is not measured yet; the results are on disk after each design.

    Two runs with different families may share the results.
    """
    failed: list[str] = []
    todo: list[Block | Design] = [block for family in families for block in blocks(family)]
    names = [name for row in zip(*map(design_names, families), strict=True) for name in row]
    for item in (*todo, *map(draw, names)):
        if only is not None and item.name not in only:
            continue
        started = time.monotonic()
        verilog = item.verilog()
        key = result_key(item, verilog)
        known = {row["key"]: row for row in read_results(results).values()}
        if key in known:
            keep(results, item.name, known[key])
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                used = measure(item, verilog, Path(folder))
        except ToolError as error:
            failed.append(item.name)
            print(f"{item.name}: {error}", file=sys.stderr, flush=True)
            continue
        seconds = round(time.monotonic() - started, 1)
        keep(results, item.name, {"key": key, "used": used, "seconds": seconds})
        print(f"{item.name}: {used['cells']} cells, {seconds} s", file=sys.stderr, flush=True)
    if failed:
        raise SystemExit(f"not measured: {', '.join(failed)}")


def keep(path: Path, name: str, row: dict[str, Any]) -> None:
    """Add a result to those on disk."""
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = read_results(path)
        if known.get(name) == row:
            return
        known[name] = row
        path.with_suffix(".new").write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        path.with_suffix(".new").rename(path)


def read_results(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def script(item: Block | Design) -> str:
    """Commands for yosys: the family's and its device's synthesis."""
    command = [*devices.FAMILIES[item.family].synthesis]
    if isinstance(item, Design):
        command += get_device(item.plan.device).synthesis_args
    if item.family == "gowin" and not has_board(item):
        command.append("-noiopads")  # `pack` takes the ports away
    return f"read_verilog accelerator.v\n{synthesis_script(command, netlist='netlist.json')}"


def has_board(item: Block | Design) -> bool:
    return isinstance(item, Design) and item.plan.board is not None


def result_key(item: Block | Design, verilog: str) -> str:
    family = devices.FAMILIES[item.family]
    tools = [find_tool(name) for name in ("yosys", family.place_and_route)]
    parts = [verilog, script(item), *(f"{tool.package} {tool.version}" for tool in tools)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def measure(item: Block | Design, verilog: str, folder: Path) -> dict[str, int]:
    """Synthesise and pack: what the packer counts, and what the netlist holds."""
    used = netlist_counts(item, verilog, folder)
    packed = pack(item.family, folder, _site(item, folder))
    return used | {kind: packed[name] for kind, name in PACKED[item.family].items()}


def netlist_counts(item: Block | Design, verilog: str, folder: Path) -> dict[str, int]:
    """Synthesise: what the netlist holds of what is counted there; 0 for the rest."""
    (folder / "accelerator.v").write_text(verilog)
    (folder / "synthesis.ys").write_text(script(item))
    run_tool("yosys", ["synthesis.ys"], cwd=folder, log=folder / "synthesis.log")
    netlist = json.loads((folder / "netlist.json").read_text())
    types = Counter(cell["type"] for cell in netlist["modules"]["top"]["cells"].values())
    used = dict.fromkeys(KINDS, 0)
    for kind, pattern in NETLIST[item.family].items():
        used[kind] = sum(n for name, n in types.items() if re.fullmatch(pattern, name))
    return used


def _site(item: Block | Design, folder: Path) -> list[str]:
    """Arguments of nextpnr for the board of a whole design, whose PLL wants its pins."""
    if not isinstance(item, Design) or item.plan.board is None:
        return []
    board = get_board(item.plan.board)
    clock = find_clock(read_netlist(folder / "netlist.json"), board)
    for name, text in constraint_files(board, clock).items():
        (folder / name).write_text(text)
    return place_and_route_args(board)


if __name__ == "__main__":
    main()
