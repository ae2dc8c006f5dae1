# SPDX-License-Identifier: BSD-2-Clause
"""New weights in a finished bitstream, against placing and routing them anew.

    python benchmarks/patch.py [--only BOARD ...] [--out FOLDER]

TFC is compiled patchable and built, every step run; a model of its shape with random numbers is
then patched in, built whole as well, and the two bitstreams compared. Writes patch.json and .md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tables import keep_rows

import xnorforge.gen
from xnorforge.gen.build import build
from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.patch import patch
from xnorforge.gen.planner import make_plan
from xnorforge.sim.other_model import other_model
from xnorforge.sw.shipped import shipped_model

HERE = Path(__file__).parent
BOARDS = ("icebreaker", "ulx3s-85f")
SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BOARDS, default=list(BOARDS))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    keep_rows(options.out / "patch.md", options.only, measure, markdown)


def measure(board: str) -> dict[str, Any]:
    """Seconds of a whole build and of a patch, and whether they give the same bytes."""
    network = xnorforge.gen.load(shipped_model("mnist-tfc"))
    plan = make_plan(network, board=board, weights="patchable")
    images = np.random.default_rng(1).integers(0, 256, (20, *network.input.value.shape))
    other = other_model(network, plan, images.astype(network.input.pixel))
    assert other is not None
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as folder:
        work = Path(folder)
        bundle = compile_bundle(network, plan, work / "net")
        print(f"{board}: building", file=sys.stderr, flush=True)
        whole = build(bundle, seeds=(SEED,), force=True)
        print(f"{board}: patching", file=sys.stderr, flush=True)
        began = time.perf_counter()
        patched = patch(bundle, other.network, work / "other")
        seconds = time.perf_counter() - began
        content = patched.bitstream.read_bytes()
        print(f"{board}: building the other model", file=sys.stderr, flush=True)
        again = build(work / "other", seeds=(SEED,), force=True)
        return {
            "build_seconds": whole.seconds,
            "patch_tool_seconds": patched.seconds,
            "patch_seconds": round(seconds, 1),
            "equal": again.bitstream.read_bytes() == content,
            "differs": whole.bitstream.read_bytes() != content,
            "used": whole.used,
            "fmax_hz": whole.fmax_hz,
        }


def markdown(report: dict[str, Any]) -> str:
    """A row a board."""
    lines = [
        "| board | block RAMs | build: yosys, nextpnr, memories and packing, s | patch, s "
        "| of it tools, s | build / patch | bitstream equals a whole build's |",
        "|---|---|---|---|---|---|---|",
    ]
    for board, row in report.items():
        steps = row["build_seconds"]
        filled = steps["fill"] + steps["pack"]
        lines.append(
            f"| {board} | {row['used']['block_rams']} | {steps['synthesis']:.0f} + "
            f"{steps['place_and_route']:.0f} + {filled:.1f} | {row['patch_seconds']:.1f} "
            f"| {row['patch_tool_seconds']['total']:.1f} "
            f"| {steps['total'] / row['patch_seconds']:.0f} "
            f"| {'yes' if row['equal'] and row['differs'] else 'NO'} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
