# SPDX-License-Identifier: BSD-2-Clause
"""What AXI ports cost: packed cells of mnist-tfc with them, beside its bare core.

    python benchmarks/axi_cells.py [--out FOLDER]

One clock and two, on a device of each family. Writes axi_cells.json and axi_cells.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.devices import FAMILIES, get_device
from xnorforge.gen.load import load
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.gen.planner import make_plan
from xnorforge.gen.synthesis import synthesis_script
from xnorforge.gen.tools import run_tool
from xnorforge.gen.verilog import accelerator_verilog
from xnorforge.sim.cells import pack
from xnorforge.sw.shipped import shipped_model

HERE = Path(__file__).parent
DEVICES = ("ice40-hx8k", "ecp5-25f", "gw2a-18")
FPS = 50_000
CELLS = {"ice40": "ICESTORM_LC", "ecp5": "TRELLIS_COMB", "gowin": "LUT4"}
FLIPFLOPS = {"ecp5": "TRELLIS_FF", "gowin": "DFF"}  # an iCE40's logic cell holds its flip-flop


def packed(network: Network, plan: Plan, top: str) -> dict[str, int]:
    """Packed cells and flip-flops of a plan's Verilog, without pads."""
    family = get_device(plan.device).family
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as name:
        folder = Path(name)
        text = accelerator_verilog(network, plan, core_parts(network, plan))
        (folder / "accelerator.v").write_text(text)
        command = [*FAMILIES[family.name].synthesis]
        if family.name == "gowin":
            command.append("-noiopads")
        script = f"read_verilog accelerator.v\nhierarchy -top {top}\nrename {top} top\n"
        script += synthesis_script(command, netlist="netlist.json")
        (folder / "synthesis.ys").write_text(script)
        run_tool("yosys", ["synthesis.ys"], cwd=folder, log=folder / "synthesis.log")
        used = pack(family.name, folder)
    kinds = {"cells": CELLS[family.name], "flipflops": FLIPFLOPS.get(family.name, "")}
    return {kind: used[name] for kind, name in kinds.items() if name}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    network = load(shipped_model("mnist-tfc"))
    report = {}
    for device in DEVICES:
        tops = {
            "core": ({}, "xnorforge_core"),
            "one clock": ({"link": "axi"}, "xnorforge_axi"),
            "two clocks": ({"link": "axi", "bus_clock_hz": 1e8}, "xnorforge_axi"),
        }
        report[device] = {}
        for name, (settings, top) in tops.items():
            plan = make_plan(network, device=device, fps=FPS, **settings)
            report[device][name] = packed(network, plan, top)
            print(device, name, report[device][name], file=sys.stderr)
    options.out.mkdir(exist_ok=True)
    (options.out / "axi_cells.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "axi_cells.md").write_text(markdown(report))
    print(f"{options.out / 'axi_cells.md'} written")
    return 0


def markdown(report: dict[str, dict[str, dict[str, int]]]) -> str:
    """A row a device: what the core takes, and what the ports add. Cells / flip-flops."""
    lines = ["| device | core | one clock adds | two clocks add |", "|---|---|---|---|"]
    for device, found in report.items():
        core = found["core"]
        row = [device, " / ".join(f"{core[kind]:,}" for kind in core)]
        for name in ("one clock", "two clocks"):
            row.append(" / ".join(f"{found[name][kind] - core[kind]:,}" for kind in core))
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
