# SPDX-License-Identifier: BSD-2-Clause
"""Faults on the line, against the real Verilog: nothing wrong accepted, nothing lost, no hang.

    python benchmarks/link_faults.py [--count 10000] [--jobs 2] [--out FOLDER]
    python benchmarks/link_faults.py --table      only the table, of what has been run so far

`count` faults of each kind in each direction, one at a time (sim/link_faults.py), on a network with
images of 24 bytes and every twentieth on TFC, and as many of all kinds at once.
Every block of 100 is kept with the place of every fault (build/bench/link/faults.jsonl), so that
an interrupted run goes on where it stopped. Writes link_faults.json, .md and the table of
docs/link.md; status 1 when anything failed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from link_common import PAGE, RESULTS, WORK, Record, make_bundle, make_network, tested_digest
from tables import insert

from xnorforge.sim import link_faults
from xnorforge.sim.line_faults import BETWEEN, FAULTS, PARTS
from xnorforge.sim.link_faults import DIRECTIONS, Block, Subject, run_block
from xnorforge.sim.random_networks import random_images

BAUD = 57_600  # the board's clock is 4 of its bits: the host's time-outs then cost few cycles
MODELS = {"tiny": 30_000, "tfc": 10_000}  # images/s at the plan's clock of 36 MHz
BLOCK = 100
IMAGES = 256

_subjects: dict[str, Subject] = {}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="of each kind and direction")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    bundles = []
    for name, fps in MODELS.items():
        network = make_network(name)
        bundles.append(make_bundle(network, options.work / name, fps=fps, baud=BAUD))
        images = random_images(np.random.default_rng(1), network, IMAGES)
        _subjects[name] = Subject.of(bundles[-1], images)
    digest = tested_digest(bundles, Path(link_faults.__file__))
    record = Record(options.work / "faults.jsonl", digest)
    wanted = blocks(options.count)
    if not options.table:
        missing = [key for key in wanted if key not in record.items]
        run(missing, wanted, record, options.jobs)
    report = summary((wanted[key], record.items[key]) for key in wanted if key in record.items)
    options.out.mkdir(exist_ok=True)
    (options.out / "link_faults.json").write_text(json.dumps(report, indent=1) + "\n")
    table = markdown(report)
    (options.out / "link_faults.md").write_text(table)
    insert(PAGE, "link faults", table)
    print(table)
    return int(any(row["wrong"] or row["failures"] for row in report.values()))


def blocks(count: int) -> dict[str, tuple[str, Block]]:
    """All blocks by name, the kinds in turn, so that a run cut short has some of each."""
    each = -(-count // BLOCK)
    kinds = [(direction, fault) for direction in DIRECTIONS for fault in FAULTS]
    kinds.append(("both", "all"))  # in every fifth round, and five times as many
    found: dict[str, tuple[str, Block]] = {}
    for seed in range(each):
        model = "tfc" if seed % 20 == 19 else "tiny"
        for direction, fault in kinds:
            many = 5 * BLOCK if fault == "all" else BLOCK
            if fault != "all" or seed % 10 >= 8:
                name = f"{model} {direction} {fault} {seed}"
                found[name] = (model, Block(direction, fault, seed, many))
    return found


def run(
    missing: list[str], wanted: dict[str, tuple[str, Block]], record: Record, jobs: int
) -> None:
    for model in MODELS:  # once, before all ask for it at once
        run_block(_subjects[model], Block("up", "flip", 0, 1), fast=True)
    with multiprocessing.Pool(jobs) as pool:
        cases = ((key, *wanted[key]) for key in missing)
        for done, (key, outcome) in enumerate(pool.imap_unordered(_run_one, cases), 1):
            record.add(key, outcome)
            if outcome["failure"] or outcome["wrong"]:
                print(f"{key}: {outcome['wrong']} wrong, {outcome['failure']}", file=sys.stderr)
            print(f"\r{done} of {len(missing)} blocks", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def _run_one(case: tuple[str, str, Block]) -> tuple[str, dict[str, Any]]:
    key, model, block = case
    return key, run_block(_subjects[model], block, fast=True).to_json()


def summary(results: Iterable[tuple[tuple[str, Block], dict[str, Any]]]) -> dict[str, Any]:
    """A row for each direction and kind."""
    report: dict[str, Any] = {}
    for (model, block), outcome in results:
        row = report.setdefault(
            f"{block.direction} {block.fault}",
            {
                "faults": 0,
                "by_model": Counter(),
                "parts": dict.fromkeys(PARTS, 0),
                "images": 0,
                "wrong": 0,
                "failures": [],
                "cycles": 0,
                "frames": Counter(),
                "bytes_of_line": [],
            },
        )
        landings = [x for places in outcome["landings"].values() for x in places]
        row["faults"] += len(landings)
        row["by_model"][model] += len(landings)
        for *_, part in landings:
            row["parts"][part] += 1
        for key in ("images", "wrong", "cycles"):
            row[key] += outcome[key]
        if outcome["failure"]:
            row["failures"].append([model, block.seed, outcome["failure"]])
        row["frames"].update(outcome["frames"])
        row["bytes_of_line"] += [second * BAUD / 10 for second in outcome["seconds"]]
    for row in report.values():
        row["inside"] = 1 - row["parts"][BETWEEN] / row["faults"]
        row["frames"] = {str(frames): row["frames"][frames] for frames in sorted(row["frames"])}
        spent = row.pop("bytes_of_line")
        row["line_bytes"] = {
            name: round(float(np.quantile(spent, share)))
            for name, share in (("median", 0.5), ("p99", 0.99), ("most", 1.0))
            if spent
        }
    return report


def markdown(report: dict[str, Any]) -> str:
    """A row for each direction and kind of fault."""
    lines = [
        "| faults | number | in a frame | images answered | wrong | failed | frames until the "
        "image is answered: median, 99 %, most | the same in line bytes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in report.items():
        counts = {int(frames): number for frames, number in row["frames"].items()}
        frames = bytes_of_line = "—"
        if counts:
            median, p99 = _quantile(counts, 0.5), _quantile(counts, 0.99)
            frames = f"{median}, {p99}, {max(counts)}"
            bytes_of_line = ", ".join(f"{number:,}" for number in row["line_bytes"].values())
        lines.append(
            f"| {TITLES.get(name, name)} | {row['faults']:,} | {row['inside']:.1%} "
            f"| {row['images']:,} | {row['wrong']} | {len(row['failures'])} | {frames} "
            f"| {bytes_of_line} |"
        )
    total = sum(row["faults"] for row in report.values())
    inside = sum(row["faults"] - row["parts"][BETWEEN] for row in report.values())
    images = sum(row["images"] for row in report.values())
    parts = Counter()
    for row in report.values():
        parts.update(row["parts"])
    where = ", ".join(f"{part} {number:,}" for part, number in parts.items())
    lines += [
        "",
        f"{total:,} faults, {inside / total:.1%} of them in frames ({where}); {images:,} images "
        f"answered, {sum(row['wrong'] for row in report.values())} of them wrong, "
        f"{sum(len(row['failures']) for row in report.values())} runs failed.",
    ]
    return "\n".join(lines) + "\n"


TITLES = {
    f"{direction} {fault}": f"{fault}, to the {end}"
    for direction, end in (("up", "board"), ("down", "host"))
    for fault in FAULTS
} | {"both all": "all kinds at once, both ways"}


def _quantile(counts: dict[int, int], share: float) -> int:
    """The smallest number that so large a share of the counted ones does not exceed."""
    left = share * sum(counts.values())
    for number in sorted(counts):
        left -= counts[number]
        if left <= 0:
            return number
    raise ValueError("Nothing was counted")


if __name__ == "__main__":
    sys.exit(main())
