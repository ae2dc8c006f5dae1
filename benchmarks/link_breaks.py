# SPDX-License-Identifier: BSD-2-Clause
"""Clients, boards, cables and weight loads that end in the middle: the next one finds all right.

    python benchmarks/link_breaks.py [--count 100] [--out FOLDER]
    python benchmarks/link_breaks.py --table      only the table, of what has been run so far

`count` of each break over the virtual board's pty and its socket, on TFC (sim/link_breaks.py);
then as many exchanges of two models, on SFC, in one slot and in two, and as many loads cut off at
random points and a tenth as many damaged loads, on TFC (sim/link_loads.py). Goes on where it
stopped. Writes
link_breaks.json, .md and the table of docs/link.md; status 1 when anything failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from link_common import PAGE, RESULTS, WORK, Record, make_bundle, make_network, tested_digest
from tables import insert

from xnorforge.gen.bundle import Bundle
from xnorforge.sim import link_breaks, link_loads
from xnorforge.sim.link_breaks import BREAKS, WAYS, Breaker
from xnorforge.sim.link_loads import Loader
from xnorforge.sim.random_networks import random_images
from xnorforge.sw.images import load_images
from xnorforge.sw.shipped import shipped_images

BAUD = 1_000_000
IMAGES = 60  # of a call that is broken
LOAD_IMAGES = 8  # after a load


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100, help="of each break")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    tfc = make_bundle(make_network("tfc"), options.work / "tfc-breaks", fps=10_000, baud=BAUD)
    sfc = make_bundle(make_network("sfc"), options.work / "sfc-loads", fps=2_000, baud=BAUD)
    both = make_bundle(  # no icebreaker holds SFC twice
        make_network("sfc"),
        options.work / "sfc-slots",
        fps=2_000,
        baud=BAUD,
        board="ulx3s-25f",
        slots=2,
    )
    digest = tested_digest([tfc], Path(link_breaks.__file__))
    broken = Record(options.work / "breaks.jsonl", digest)
    digest = tested_digest([tfc, sfc, both], Path(link_loads.__file__))
    loaded = Record(options.work / "loads.jsonl", digest)
    seeds = range(options.count)
    breaks = [(what, way, seed) for seed in seeds for what in BREAKS for way in WAYS]
    exchanges = [("exchange", seed) for seed in seeds]
    changes = [("change", seed) for seed in seeds]
    loads = [("cut off", seed) for seed in seeds]
    loads += [("damaged", seed) for seed in range(-(-options.count // 10))]
    if not options.table:
        run_loads(loads, tfc, loaded)
        run_loads(exchanges, sfc, loaded)
        run_loads(changes, both, loaded)
        run_breaks(breaks, tfc, broken)
    report = {
        "breaks": summary_of_breaks(breaks, broken),
        "loads": summary_of_loads(exchanges + changes + loads, loaded),
    }
    options.out.mkdir(exist_ok=True)
    (options.out / "link_breaks.json").write_text(json.dumps(report, indent=1) + "\n")
    table = markdown(report)
    (options.out / "link_breaks.md").write_text(table)
    insert(PAGE, "link breaks", table)
    print(table)
    wrong = sum(row["wrong"] for row in report["breaks"].values())
    return int(bool(wrong or any(row["failed"] for row in report["loads"].values())))


def run_breaks(breaks: list[tuple[str, str, int]], bundle: Bundle, record: Record) -> None:
    missing = [case for case in breaks if _key(*case) not in record.items]
    if not missing:
        return
    images, _ = load_images(shipped_images(), shape=(28, 28))
    with Breaker(bundle, images[:IMAGES], fast=True) as breaker:
        for done, case in enumerate(missing, 1):
            record.add(_key(*case), asdict(breaker.run(*case)))
            print(f"\r{done} of {len(missing)} breaks", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def run_loads(loads: list[tuple[str, int]], bundle: Bundle, record: Record) -> None:
    """What came of each: "" where all is right after an exchange, else `Loader`'s word."""
    missing = [case for case in loads if _key(*case) not in record.items]
    if not missing:
        return
    images = random_images(np.random.default_rng(0), bundle.network, LOAD_IMAGES)
    with Loader(bundle, images, fast=True) as loader:
        for done, (what, seed) in enumerate(missing, 1):
            name = loader.names[(seed + 1) % 2]
            if what in ("exchange", "change"):
                wrong = loader.exchange(name)
                found = f"{wrong} wrong" if wrong else "right"
            elif what == "cut off":
                found = loader.cut_off(name, seed)
            else:
                found = loader.damaged(seed)
            # After a load was cut off, the other model is the old one.
            old = what == "cut off" and found in loader.names and found != name
            record.add(_key(what, seed), "old model" if old else found)
            print(f"\r{done} of {len(missing)} loads", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def _key(*case: object) -> str:
    return " ".join(map(str, case))


def summary_of_breaks(breaks: list[tuple[str, str, int]], record: Record) -> dict[str, Any]:
    """A row for each break and way."""
    report: dict[str, Any] = {}
    for what, way, seed in breaks:
        found = record.items.get(_key(what, way, seed))
        if found is None:
            continue
        row = report.setdefault(
            f"{what}, {way}", {"runs": 0, "hit": 0, "repaired": 0, "errors": Counter(), "wrong": 0}
        )
        row["runs"] += 1
        for key in ("hit", "repaired", "wrong"):
            row[key] += found[key]
        if found["error"]:
            row["errors"][found["error"]] += 1
    return report


GOOD = {
    "exchange": {"right"},
    "change": {"right"},
    "cut off": {"old model", "refuses"},
    "damaged": {"refuses"},
}


def summary_of_loads(loads: list[tuple[str, int]], record: Record) -> dict[str, Any]:
    """A row for each kind of load: how often it ended how, and how often it should not have."""
    report: dict[str, Any] = {}
    for what, seed in loads:
        found = record.items.get(_key(what, seed))
        if found is None:
            continue
        row = report.setdefault(what, {"runs": 0, "ends": Counter(), "failed": 0})
        row["runs"] += 1
        row["ends"][found] += 1
        row["failed"] += found not in GOOD[what]
    return report


def markdown(report: dict[str, Any]) -> str:
    lines = [
        "| break, line | runs | in the middle of a call | call repaired itself | call raised "
        "| wrong images, in it and in the next connection |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in report["breaks"].items():
        call = f"{row['repaired']}"
        errors = ", ".join(f"{error} {count}" for error, count in row["errors"].items()) or "0"
        if name.startswith(("client", "port")):
            call = errors = "—"
        lines.append(
            f"| {name} | {row['runs']} | {row['hit']} | {call} | {errors} | {row['wrong']} |"
        )
    lines += [
        "",
        "| weight loads | runs | the board then | failed |",
        "|---|---|---|---|",
    ]
    for name, row in report["loads"].items():
        ends = ", ".join(f"{WORDS.get(end, end)} {count}" for end, count in row["ends"].items())
        lines.append(f"| {TITLES[name]} | {row['runs']} | {ends} | {row['failed']} |")
    return "\n".join(lines) + "\n"


TITLES = {
    "exchange": "two SFC models in turn",
    "change": "two SFC models in turn, both held in slots",
    "cut off": "of TFC, cut off at a random byte",
    "damaged": "of TFC, one bit turned, past the driver's check",
}


WORDS = {
    "right": "gives the new model's scores",
    "old model": "gives the old model's scores",
    "refuses": "takes no image until a load succeeds",
}


if __name__ == "__main__":
    sys.exit(main())
