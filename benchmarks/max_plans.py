# SPDX-License-Identifier: BSD-2-Clause
"""The fastest plans that real devices hold: each builds, and one step up was built and failed.

    python benchmarks/max_plans.py [--only NAME ...] [--work FOLDER] [--out FOLDER]

Every step of a build is kept by what it depends on, so an interrupted run goes on where it
stopped. Writes max_plans.json and .md, and the table of docs/resources.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tables import keep_rows

import xnorforge.gen
from xnorforge.gen.max_search import fastest_build
from xnorforge.gen.resources import estimate
from xnorforge.sw.shipped import shipped_model

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "resources.md"
SEEDS = (1, 2, 3)
PAIRS = {
    "tfc-icebreaker": ("mnist-tfc", "icebreaker"),
    "tfc-hx8k": ("mnist-tfc", "ice40-hx8k-b-evn"),
    "sfc-icebreaker": ("mnist-sfc", "icebreaker"),
    "tfc-tang-nano-9k": ("mnist-tfc", "tang-nano-9k"),
    "sfc-tang-nano-9k": ("mnist-sfc", "tang-nano-9k"),
}
"""Small devices, whose builds take minutes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--work", type=Path, default=Path("build/bench/max"))
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    table = options.out / "max_plans.md"
    keep_rows(table, options.only, lambda name: search(name, options.work / name), markdown, PAGE)


def search(name: str, work: Path) -> dict[str, Any]:
    """The fastest plan of one pair that builds, and the one above it."""
    model, board = PAIRS[name]
    network = xnorforge.gen.load(shipped_model(model))

    def tell(text: object) -> None:
        print(f"{name}: {text}", file=sys.stderr, flush=True)

    found = fastest_build(network, board, work, seeds=SEEDS, attempted=tell)
    rows = {"best": found.best, "above": found.above}
    predicted = {key: estimate(network, row.plan) for key, row in rows.items() if row}
    return {
        "model": model,
        "board": board,
        "device": found.plan.device,
        "clock_hz": found.plan.clock_hz,
        "seeds": SEEDS,
        "predicted": {
            key: {kind: used[kind] for kind in ("cells", "flipflops", "blocks", "sprams")}
            for key, used in predicted.items()
        },
        **found.to_json(),
    }


def markdown(report: dict[str, Any]) -> str:
    """A row a pair: the plan that builds, what it takes, and why the next one does not."""
    lines = [
        "| network, board | clock MHz | images/s | cycles | cells (predicted) of | block RAMs of "
        "| Fmax MHz | one step up: cycles, cells predicted | what came of it | builds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in PAIRS:
        if name not in report:
            continue
        row = report[name]
        best, above = row["best"], row["above"]
        used, there, model = best["used"], best["available"], row["predicted"]
        step = (
            "none: fully parallel | "
            if above is None
            else (f"{above['interval_cycles']:g}, {model['above']['cells']:,} | {above['why']}")
        )
        lines.append(
            f"| {row['model']}, {row['board']} | {row['clock_hz'] / 1e6:g} "
            f"| {best['images_per_second']:,.0f} | {best['interval_cycles']:g} "
            f"| {used['logic_cells']:,} ({model['best']['cells']:,}) of {there['logic_cells']:,} "
            f"| {used['block_rams']} of {there['block_rams']} | {best['fmax_hz'] / 1e6:.2f} "
            f"| {step} | {len(row['attempts'])} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
