# SPDX-License-Identifier: BSD-2-Clause
"""What a second model in the same design costs: builds with one slot and with two, side by side.

    python benchmarks/two_models.py [--only NAME ...] [--out FOLDER]

Both designs of a pair keep the link busy at the board's own clock. The netlist of the one with two
slots runs behind the virtual board and the driver: on the model it powers up with, on the same one
loaded, and on another one. Writes two_models.json, .md and the table of docs/driver.md; status 1
where a netlist differs from its reference.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tables import keep_rows

import xnorforge.gen
from xnorforge.gen.build import build
from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.network import Network
from xnorforge.gen.planner import make_plan
from xnorforge.gen.resources import estimate
from xnorforge.sim.random_networks import dense_network, random_images
from xnorforge.sim.verify import verify
from xnorforge.sw.shipped import shipped_model

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "driver.md"
SEEDS = (1, 2, 3)
IMAGES = 20
PAIRS = {
    "small-icebreaker": ("256-64-32-10", "icebreaker"),
    "tfc-ulx3s": ("mnist-tfc", "ulx3s-25f"),
    "tfc-tang": ("mnist-tfc", "tang-nano-9k"),
    "sfc-ulx3s": ("mnist-sfc", "ulx3s-25f"),
}
"""On iCE40 no board holds TFC twice."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    table = options.out / "two_models.md"
    report = keep_rows(table, options.only, lambda name: measure(*PAIRS[name]), markdown, PAGE)
    return int(not all(row["exact"] for row in report.values()))


def make_network(name: str) -> Network:
    """A shipped model, or a dense one of these sizes with random numbers."""
    if name.startswith("mnist"):
        return xnorforge.gen.load(shipped_model(name))
    return dense_network(np.random.default_rng(0), [int(size) for size in name.split("-")])


def measure(model: str, board: str) -> dict[str, Any]:
    """Predicted and packed counts with one slot and two; whether the netlist of two is exact."""
    network = make_network(model)
    row: dict[str, Any] = {"model": model, "board": board}
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as folder:
        for slots in (1, 2):
            print(f"{model} on {board}: {slots} slots", file=sys.stderr, flush=True)
            plan = make_plan(network, board=board, slots=slots)
            bundle = compile_bundle(network, plan, Path(folder) / f"slots{slots}")
            built = build(bundle, seeds=SEEDS)
            predicted = estimate(network, plan)
            row[f"slots{slots}"] = {
                "predicted": {kind: predicted[kind] for kind in ("cells", "blocks")},
                "used": built.used,
                "clock_hz": built.clock_hz,
                "fmax_hz": built.fmax_hz,
            }
        images = random_images(np.random.default_rng(1), network, IMAGES)
        found = verify(bundle.path, "netlist", images=images)
    row["exact"], row["images"] = found.passed, IMAGES
    return row


def markdown(report: dict[str, Any]) -> str:
    """A row a pair; one slot / two."""
    lines = [
        "| network, board | logic cells (predicted) | flip-flops | block RAMs (predicted) "
        "| Fmax, MHz (wanted) | netlist of two |",
        "|---|---|---|---|---|---|",
    ]
    for row in report.values():
        sides = [row["slots1"], row["slots2"]]
        cells, blocks = (
            " / ".join(f"{s['used'][kind]:,} ({s['predicted'][said]:,})" for s in sides)
            for kind, said in (("logic_cells", "cells"), ("block_rams", "blocks"))
        )
        flip_flops = " / ".join(f"{side['used']['flip_flops']:,}" for side in sides)
        fmax = " / ".join(f"{side['fmax_hz'] / 1e6:.0f}" for side in sides)
        exact = f"{row['images']} images equal" if row["exact"] else "DIFFERS"
        lines.append(
            f"| {row['model']}, {row['board']} | {cells} | {flip_flops} | {blocks} "
            f"| {fmax} ({sides[1]['clock_hz'] / 1e6:g}) | {exact} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
