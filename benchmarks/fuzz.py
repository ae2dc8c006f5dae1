# SPDX-License-Identifier: BSD-2-Clause
"""Random graphs in simulation, and how often each feature was among them.

    python benchmarks/fuzz.py [--count 10000] [--verilator 300] [--jobs 2] [--out FOLDER]
    python benchmarks/fuzz.py --table        only the table, of what has been run so far

Each seed is a network, a plan, images and stalls: in Amaranth's simulator, or as Verilog in
Verilator, many graphs a model. The runs go on where they stopped (build/fuzz*.jsonl, a line a
seed), but for circuits or models that have changed since. Writes fuzz.json and fuzz.md; status 1
when any seed failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from xnorforge.sim.coverage import GROUPS, PLAN_GROUPS
from xnorforge.sim.fuzz import Case, Record, fuzz, run_recorded, sources_digest
from xnorforge.sim.fuzz_verilog import fuzz_verilog

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"
VERILATOR_FIRST = 1_000_000  # seeds of its own
ENOUGH = 100  # networks with a feature


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="seeds in Amaranth simulation")
    parser.add_argument("--verilator", type=int, default=300, help="seeds in Verilator")
    parser.add_argument("--graphs", type=int, default=25, help="of a Verilator model")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--build", type=Path, default=BUILD, help="folder of the records")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    runs = {
        "Amaranth": (Record(options.build / "fuzz.jsonl"), 0, options.count),
        "Verilator": (
            Record(
                options.build / "fuzz_verilog.jsonl",
                sources_digest("xnorforge.sim.fuzz_verilog"),
            ),
            VERILATOR_FIRST,
            options.verilator,
        ),
    }
    for name, (record, first, count) in runs.items():
        seeds = record.missing(first, count)
        if options.table or not seeds:
            continue
        print(f"{name}: {len(seeds)} of {count} random graphs", file=sys.stderr)
        cases = (
            fuzz(seeds, options.jobs) if name == "Amaranth" else fuzz_verilog(seeds, options.graphs)
        )
        run_recorded(cases, record, len(seeds))
    report = {
        name: {"asked": count, **summary(record.of(first, count))}
        for name, (record, first, count) in runs.items()
    }
    options.out.mkdir(exist_ok=True)
    (options.out / "fuzz.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "fuzz.md").write_text(markdown(report))
    print(f"{options.out / 'fuzz.md'} written")
    return int(any(run["failures"] for run in report.values()))


def summary(cases: list[Case]) -> dict[str, Any]:
    """Counts over the cases of one simulator."""
    passed = [case for case in cases if not case.failure]
    seen = Counter(feature for case in passed for feature in case.features)
    return {
        "passed": len(passed),
        "timed": sum(case.timed for case in passed),
        "failures": {str(case.seed): case.failure for case in cases if case.failure},
        "features": dict(sorted(seen.items())),
    }


def markdown(report: dict[str, Any]) -> str:
    """A row a simulator, then a row a chapter of features."""
    lines = [
        "| simulator | graphs equal to the reference | with every transfer's cycle as predicted "
        "| under random stalls | failures |",
        "|---|---|---|---|---|",
    ]
    for name, run in report.items():
        part = "" if run["passed"] == run["asked"] else f" of {run['asked']:,} so far"
        lines.append(
            f"| {name} | {run['passed']:,}{part} | {run['timed']:,} "
            f"| {run['passed'] - run['timed']:,} | {len(run['failures'])} |"
        )
    seen = Counter()
    for run in report.values():
        seen.update(run["features"])
    groups = GROUPS | PLAN_GROUPS
    rarest = min((seen[name], name) for names in groups.values() for name in names)
    few = [name for names in groups.values() for name in names if seen[name] < ENOUGH]
    lines += [
        "",
        f"Graphs with each feature; the rarest is *{rarest[1]}* with {rarest[0]:,}"
        + (f", and {len(few)} are below {ENOUGH}." if few else "."),
        "",
        "| chapter | graphs |",
        "|---|---|",
    ]
    for group, names in groups.items():
        counts = ", ".join(f"{name} {seen[name]:,}" for name in names)
        lines.append(f"| {group} | {counts} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
