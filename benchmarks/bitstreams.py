# SPDX-License-Identifier: BSD-2-Clause
"""Real bitstreams for every board: cells, memories, clock, images a second, build time.

    python benchmarks/bitstreams.py [--tfc FILE] [--only ROW ...] [--boards BOARD ...] [--list]

TFC and SFC (the shipped ones, or ONNX files of the user) on every board that can hold them, and
faster plans on some. Each row is compiled, built and read back from its reports; a board that
cannot hold a network gets a row that says why. Nothing is built twice (a build is cached by what
it depends on), so an interrupted run goes on where it stopped, and two runs with different rows
may share the work. Writes results/bitstreams.json and .md.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xnorforge.gen
from xnorforge.gen.boards import BOARDS, get_board
from xnorforge.gen.build import TimingError, build
from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.errors import OverfullError, PlanError, RouteError
from xnorforge.gen.planner import make_plan
from xnorforge.sw import protocol
from xnorforge.sw.shipped import shipped_model

FASTER = {
    ("tfc", "icebreaker"): 10_000,
    ("tfc", "ice40-hx8k-b-evn"): 10_000,
    ("tfc", "tang-nano-9k"): 100_000,
    ("tfc", "tang-primer-20k"): 100_000,
    ("tfc", "ulx3s-25f"): 1_000_000,
    ("tfc", "ulx3s-85f"): 1_000_000,
    ("sfc", "icebreaker"): 3_000,
    ("sfc", "ulx3s-85f"): 100_000,
}
"""Plans beside the default one, which keeps the line busy: images per second."""
BITS_PER_BYTE = 10  # on a UART: start, 8 data, stop


@dataclass(frozen=True)
class Row:
    """A network ("tfc" or "sfc") on a board, for a rate or for the link."""

    network: str
    board: str
    fps: int | None

    @property
    def name(self) -> str:
        return f"{self.network}-{self.board}" + (f"-{self.fps}" if self.fps else "")


def all_rows() -> list[Row]:
    """Families together, small devices first."""
    boards = [get_board(name) for name in BOARDS]
    boards.sort(key=lambda board: (board.device.family.name, board.device.luts, board.name))
    rows = []
    for network in ("tfc", "sfc"):
        for board in boards:
            rows.append(Row(network, board.name, None))
            if (network, board.name) in FASTER:
                rows.append(Row(network, board.name, FASTER[network, board.name]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tfc", type=Path, default=shipped_model("mnist-tfc"))
    parser.add_argument("--sfc", type=Path, default=shipped_model("mnist-sfc"))
    parser.add_argument("--only", nargs="+", metavar="ROW", help="as --list names them")
    parser.add_argument("--boards", nargs="+", metavar="BOARD")
    parser.add_argument("--networks", nargs="+", choices=("tfc", "sfc"), default=["tfc", "sfc"])
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--work", type=Path, default=Path("build/bench/bitstreams"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    rows = [row for row in all_rows() if row.network in options.networks]
    if options.boards:
        rows = [row for row in rows if row.board in options.boards]
    if options.only:
        rows = [row for row in rows if row.name in options.only]
    if options.list:
        print("\n".join(row.name for row in rows))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for row in rows:
        model = {"tfc": options.tfc, "sfc": options.sfc}[row.network]
        found = measure(row, model, options.work)
        options.work.mkdir(parents=True, exist_ok=True)
        with (options.work / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            record(options.out, row, found)
    print((options.out / "bitstreams.md").read_text())


def measure(row: Row, model: Path, work: Path) -> dict[str, Any]:
    """Compile and build one row; why not, where the board cannot."""

    def tell(text: str) -> None:
        print(f"{row.name}: {text}", file=sys.stderr, flush=True)

    board = get_board(row.board)
    found: dict[str, Any] = {
        "network": row.network,
        "model": model.name,
        "board": row.board,
        "device": board.device.name,
        "goal": row.fps or "link",
    }
    network = xnorforge.gen.load(model)
    try:
        plan = make_plan(network, board=row.board, fps=row.fps)
        bundle = compile_bundle(network, plan, work / row.name)
        result = build(bundle, progress=tell)
    except PlanError as error:
        tell(str(error))
        return {**found, "refused": str(error)}
    except TimingError as error:
        tell(str(error))
        return {**found, "failed": str(error), "fmax_mhz": error.fmax_hz / 1e6}
    except (OverfullError, RouteError) as error:
        tell(str(error))
        return {**found, "failed": str(error)}
    predicted = bundle.manifest["predicted"]
    image_bytes = bundle.manifest["input"]["image_bytes"]
    frame_bytes = protocol.MAX_CONTENT_BYTES + 2  # COBS adds a byte, then the delimiter
    frames = protocol.MAX_PAYLOAD_BYTES / frame_bytes
    line = plan.baud / BITS_PER_BYTE * frames / image_bytes
    return {
        **found,
        "folds": [[layer.pe, layer.simd] for layer in plan.layers],
        "stores": [layer.weight_store for layer in plan.layers],
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
        "bitstream_bytes": result.bitstream.stat().st_size,
        "tools": result.tools,
    }


def record(out: Path, row: Row, found: dict[str, Any]) -> None:
    """Add a row to the report."""
    report_file = out / "bitstreams.json"
    report: dict[str, Any] = {"machine": platform.machine(), "rows": {}}
    if report_file.is_file():
        report = json.loads(report_file.read_text())
    report["rows"][row.name] = found
    for path, text in (
        (report_file, json.dumps(report, indent=1, sort_keys=True) + "\n"),
        (out / "bitstreams.md", markdown(report)),
    ):
        aside = path.with_suffix(".part")
        aside.write_text(text)
        os.replace(aside, path)


def markdown(report: dict[str, Any]) -> str:
    """The table of docs/results.md, and under it the boards that cannot hold a network."""
    lines = [
        "| network | board | device | target | logic cells | FF | block RAM | SPRAM "
        "| Fmax (PLL) MHz | cycles/image | images/s core | images/s on the line | build s |",
        "|---" * 13 + "|",
    ]
    notes = []
    for row in all_rows():
        found = report["rows"].get(row.name)
        if found is None:
            continue
        goal = found["goal"]
        target = f"{goal:,} images/s" if isinstance(goal, int) else goal
        start = f"| {row.network.upper()} | {row.board} | {found['device']} | {target} "
        if "refused" in found:
            notes.append(f"- {row.network.upper()} on {row.board}: {found['refused']}")
            continue
        if "failed" in found:
            notes.append(f"- {row.network.upper()} on {row.board}: {found['failed']}")
            continue
        used, there = found["used"], found["available"]
        spram = f"{used['sprams']} of {there['sprams']}" if there.get("sprams") else "-"
        lines.append(
            f"{start}| {used['logic_cells']:,} of {there['logic_cells']:,} "
            f"| {used['flip_flops']:,} | {used['block_rams']} of {there['block_rams']} | {spram} "
            f"| {found['fmax_mhz']:.1f} ({found['constraint_mhz']:.2f}) "
            f"| {found['interval_cycles']:g} | {found['core_images_per_second']:,.0f} "
            f"| {found['line_images_per_second']:,.0f} | {found['build_seconds']:.0f} |"
        )
    if notes:
        lines += ["", "Not built:", "", *notes]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
