# SPDX-License-Identifier: BSD-2-Clause
"""How much of a PCIe link images fill: LitePCIe's core and ours, in a simulated PC.

    python benchmarks/pcie_link.py [--out FOLDER]

The real driver streams images through a card of `sim.pcie_card`, whose link's generation and lanes
are the limit, or the core. The steady rate is that of the images which a longer call has more than
a shorter one. Writes pcie_link.json, .md and the table of docs/pcie.md; status 1 where a score is
wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from link_common import RESULTS, make_network
from tables import insert

from xnorforge.gen.bundle import Bundle, compile_bundle
from xnorforge.gen.network import Network
from xnorforge.gen.planner import make_plan
from xnorforge.sim.pcie_card import PcieCard
from xnorforge.sim.random_networks import random_images
from xnorforge.sim.reference import Executor
from xnorforge.sw.driver import Accelerator

PAGE = Path(__file__).parents[1] / "docs" / "pcie.md"
BOARD = "xcu1525"
PAYLOAD_BYTES = 256  # of a completion, as most PCs have it
CASES = (
    # network, what it is, images/s of the plan, generation, lanes, images of both calls
    ("tfc", "`mnist-tfc`, 98 bytes of bits", 2_600_000, 1, 1, (3000, 9000)),
    ("grey", "784-32-10, 784 bytes of 8 bits", 400_000, 1, 1, (600, 1800)),
    ("tfc", "`mnist-tfc`, 98 bytes of bits", 2_600_000, 2, 4, (3000, 9000)),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    report = []
    for name, words, fps, generation, lanes, counts in CASES:
        print(f"{name}, generation {generation}, x{lanes}", file=sys.stderr, flush=True)
        network = make_network(name)
        with tempfile.TemporaryDirectory(prefix="xnorforge-") as folder:
            plan = make_plan(network, board=BOARD, link="pcie", fps=fps)
            bundle = compile_bundle(network, plan, Path(folder, "bundle"))
            row = measure(bundle, network, generation, lanes, counts)
        report.append({"network": words, "generation": generation, "lanes": lanes, **row})
    options.out.mkdir(exist_ok=True)
    (options.out / "pcie_link.json").write_text(json.dumps(report, indent=1) + "\n")
    table = markdown(report)
    (options.out / "pcie_link.md").write_text(table)
    insert(PAGE, "pcie link", table)
    print(table)
    return 0 if all(row["exact"] for row in report) else 1


def measure(
    bundle: Bundle, network: Network, generation: int, lanes: int, counts: tuple[int, int]
) -> dict[str, Any]:
    """Rates in simulated seconds, and the link's and the core's own."""
    images = random_images(np.random.default_rng(1), network, max(counts))
    right = Executor(network).run(images)
    card = PcieCard(
        [bundle.path / "accelerator.v"],
        generation=generation,
        lanes=lanes,
        payload_bytes=PAYLOAD_BYTES,
        core_period_ps=2 * round(1e12 / bundle.plan.clock_hz / 2),
    )
    exact, seconds = True, []
    with card, Accelerator.open(bundle.path, card.port, timeout=60.0) as board:
        ask = board._connection._transport._device._server.ask
        for count in (1, *counts):
            began = ask("time")["ns"]
            scores = board.scores(images[:count])
            seconds.append((ask("time")["ns"] - began) * 1e-9)
            exact &= bool((scores == right.scores[:count]).all())
        link = ask("link")
    size = network.input.image_bytes
    steady = (counts[1] - counts[0]) / (seconds[2] - seconds[1])
    return {
        "exact": exact,
        "image_bytes": size,
        "beat_bytes": bundle.plan.beat_bytes,
        "one_image_us": seconds[0] * 1e6,
        "images": counts[1],
        "images_per_second": counts[1] / seconds[2],
        "steady_images_per_second": steady,
        "core_images_per_second": bundle.manifest["predicted"]["images_per_second"],
        "link_bytes_per_second": link["bytes_per_second"],
        "link_share": steady * size / link["bytes_per_second"],
    }


def markdown(report: list[dict[str, Any]]) -> str:
    lines = [
        "| image | link | its bytes/s | images/s | of its bytes | the core alone | one image |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report:
        cells = (
            row["network"],
            f"generation {row['generation']} x{row['lanes']}",
            f"{row['link_bytes_per_second'] / 1e6:,.0f} M",
            f"{row['steady_images_per_second']:,.0f}",
            f"{row['link_share']:.1%}",
            f"{row['core_images_per_second']:,.0f}",
            f"{row['one_image_us']:.0f} µs",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
