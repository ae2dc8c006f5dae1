# SPDX-License-Identifier: BSD-2-Clause
"""Real bitstreams of the shipped TFC: cells, block RAM, clock, images a second, build time.

    python benchmarks/bitstreams.py [--only NAME ...] [--out FOLDER]

Each row is compiled, built and read back from its reports; nothing is built twice (a build is
cached by what it depends on), so an interrupted run goes on where it stopped. Writes
bitstreams.json and .md.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any

import xnorforge.gen
from xnorforge.gen.build import build
from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.planner import make_plan
from xnorforge.sw import protocol
from xnorforge.sw.shipped import shipped_model

ROWS: dict[str, dict[str, Any]] = {
    "icebreaker": {"board": "icebreaker"},
    "icebreaker-10k": {"board": "icebreaker", "fps": 10_000},
    "ulx3s-25f": {"board": "ulx3s-25f"},
    "ulx3s-25f-1M": {"board": "ulx3s-25f", "fps": 1_000_000},
    "ulx3s-85f": {"board": "ulx3s-85f"},
    "ulx3s-85f-1M": {"board": "ulx3s-85f", "fps": 1_000_000},
}
BITS_PER_BYTE = 10  # on a UART: start, 8 data, stop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mnist-tfc")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--work", type=Path, default=Path("build/bench/bitstreams"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    report_file = options.out / "bitstreams.json"
    report = {"machine": platform.machine(), "rows": {}}
    if report_file.is_file():
        report = json.loads(report_file.read_text())
    for name in options.only:
        report["rows"][name] = measure(name, options.model, options.work)
        report_file.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
        (options.out / "bitstreams.md").write_text(markdown(report))
    print((options.out / "bitstreams.md").read_text())


def measure(name: str, model: str, work: Path) -> dict[str, Any]:
    """Compile and build one row."""
    network = xnorforge.gen.load(shipped_model(model))
    plan = make_plan(network, **ROWS[name])
    bundle = compile_bundle(network, plan, work / f"{model}-{name}")
    result = build(bundle, progress=lambda text: print(f"{name}: {text}", file=sys.stderr))
    predicted = bundle.manifest["predicted"]
    image_bytes = bundle.manifest["input"]["image_bytes"]
    payload = protocol.MAX_PAYLOAD_BYTES
    frame_bytes = protocol.MAX_CONTENT_BYTES + 2  # COBS adds a byte, then the delimiter
    line = plan.baud / BITS_PER_BYTE * payload / frame_bytes / image_bytes
    return {
        "model": model,
        "goal": ROWS[name].get("fps", ROWS[name].get("goal", "link")),
        "board": plan.board,
        "folds": [[layer.pe, layer.simd] for layer in plan.layers],
        "used": result.used,
        "available": result.available,
        "clock_mhz": plan.clock_hz / 1e6,
        "constraint_mhz": result.constraint_hz / 1e6,
        "fmax_mhz": result.fmax_hz / 1e6,
        "seed": result.seed,
        "interval_cycles": predicted["interval_cycles"],
        "core_images_per_second": predicted["images_per_second"],
        "line_images_per_second": min(line, predicted["images_per_second"]),
        "build_seconds": result.seconds["total"],
        "tools": result.tools,
    }


def markdown(report: dict[str, Any]) -> str:
    """The table of docs/results.md."""
    lines = [
        "| board | target | logic cells | FF | block RAM | Fmax (PLL) MHz | cycles/image "
        "| images/s core | images/s at 1 Mbaud | build s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in (report["rows"][name] for name in ROWS if name in report["rows"]):
        used, there = row["used"], row["available"]
        goal = row["goal"]
        target = f"{goal:,} images/s" if isinstance(goal, int) else goal
        lines.append(
            f"| {row['board']} | {target} "
            f"| {used['logic_cells']:,} of {there['logic_cells']:,} | {used['flip_flops']:,} "
            f"| {used['block_rams']} of {there['block_rams']} "
            f"| {row['fmax_mhz']:.1f} ({row['constraint_mhz']:.2f}) "
            f"| {row['interval_cycles']:g} | {row['core_images_per_second']:,.0f} "
            f"| {row['line_images_per_second']:,.0f} | {row['build_seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
