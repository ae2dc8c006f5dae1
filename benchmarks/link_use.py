# SPDX-License-Identifier: BSD-2-Clause
"""How much of the UART line images fill, against the real Verilog in simulated time.

    python benchmarks/link_use.py [--out FOLDER]

The real connection streams images over rx and tx of the bundle's own Verilog at its own clock and
baud rate, while the adapter hands the host what it has received only every 16 ms: with its timer
alone, and as an FT232 does, also when 62 bytes have come. Rows that were measured with the same
circuits and sources are kept. Writes link_use.json, .md and the table of docs/link.md; status 1
below the limits that docs/link.md promises.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from link_common import PAGE, RESULTS, WORK, Record, make_bundle, make_network, tested_digest
from tables import insert

from xnorforge.sim import line_use, link_faults
from xnorforge.sim.line_use import measure_line_use
from xnorforge.sim.link_faults import Subject
from xnorforge.sim.random_networks import random_images

MODELS = {
    # name: words, images/s of the core, images at 1 Mbaud
    "tfc": ("`mnist-tfc`, 98 bytes of bits an image", 10_000, 1000),
    "grey": ("784-32-10, 784 bytes of 8 bits an image", 600, 200),
}
BAUDS = (1_000_000, 3_000_000)
ADAPTERS = {"timer": None, "timer or 62 bytes": 62}
LATENCY_S = 0.016
LEAST_BUSY, LEAST_PAYLOAD = 0.95, 0.88


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    report = {}
    for name, (_, fps, count) in MODELS.items():
        network = make_network(name)
        images = random_images(np.random.default_rng(1), network, 64)
        for baud in BAUDS:
            bundle = make_bundle(network, options.work / f"{name}-{baud}", fps=fps, baud=baud)
            subject = Subject.of(bundle, images)
            sources = (Path(module.__file__) for module in (line_use, link_faults))
            record = Record(options.work / "use.jsonl", tested_digest([bundle], *sources))
            for adapter, packet_bytes in ADAPTERS.items():
                key = f"{name} {baud} {adapter}"
                if key not in record.items:
                    print(key, file=sys.stderr, flush=True)
                    use = measure_line_use(
                        bundle,
                        subject,
                        count=count * baud // BAUDS[0],
                        latency_s=LATENCY_S,
                        packet_bytes=packet_bytes,
                        fast=True,
                    )
                    core = bundle.manifest["predicted"]["images_per_second"]
                    record.add(key, {**asdict(use), "core_images_per_second": core})
                report[key] = record.items[key]
    options.out.mkdir(exist_ok=True)
    (options.out / "link_use.json").write_text(json.dumps(report, indent=1) + "\n")
    table = markdown(report)
    (options.out / "link_use.md").write_text(table)
    insert(PAGE, "link use", table)
    print(table)
    return int(not all(map(good, report.values())))


def good(row: dict[str, Any]) -> bool:
    """As fast as promised, and right."""
    return row["rx_busy"] >= LEAST_BUSY and row["payload"] >= LEAST_PAYLOAD and row["wrong"] == 0


def markdown(report: dict[str, dict[str, Any]]) -> str:
    """A row a run."""
    lines = [
        "| network | Mbaud | the host hears every 16 ms, by | rx busy | of its bytes image "
        "| images/s (line's limit; core's) | tx busy |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, row in report.items():
        name, _, adapter = key.split(" ", 2)
        lines.append(
            f"| {MODELS[name][0]} | {row['baud'] / 1e6:g} | {adapter} | {row['rx_busy']:.1%} "
            f"| {row['payload']:.1%} | {row['images_per_second']:,.0f} ({row['limit']:,.0f}; "
            f"{row['core_images_per_second']:,.0f}) | {row['tx_busy']:.1%} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
