# SPDX-License-Identifier: BSD-2-Clause
"""The benchmarks of docs/results.md, one after the other, and that page from what they measured.

    python benchmarks/run.py [NAME ...]        (a quiet machine gives better seconds)

A benchmark that is not named keeps the table of its last run. Those with builds take hours, and go
on where they stopped. Others write elsewhere and are started by hand: resource_model.py
(docs/resources.md and the model's coefficients; hours), link_use.py, link_faults.py and
link_breaks.py (docs/link.md), block_cells.py (prints the tables of docs/blocks), boards_table.py
(docs/boards.md), axi_cells.py (docs/axi.md), pcie_link.py (docs/pcie.md).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "results.md"

CHAPTERS = {
    "bitstreams": (
        "Bitstreams",
        "TFC (784-64-64-64-10, 59,008 weight bits; FINN's of the QONNX model zoo, or the shipped "
        "one) and the shipped SFC (784-256-256-256-10, 334,336 weight bits), from ONNX to a packed "
        "bitstream. Logic cells are nextpnr's: ICESTORM_LC on iCE40, TRELLIS_COMB on ECP5, "
        "places of a LUT4 on Gowin, carry cells and LUT RAM included. Fmax is what place and route "
        "reached, beside it the constraint, which "
        "equals the PLL's real output. Cycles an image are the cycle model's, which `xnorforge "
        "verify` holds equal to simulation. "
        "Target `link` is the smallest plan that keeps a 1 Mbaud line busy. A row that is missing "
        "was not run yet.",
    ),
    "max_plans": (
        "Fastest plans",
        "The fastest plan that a board really holds: it was built, and one step up was built and "
        "failed. The same table is in resources.md, with how it is found.",
    ),
    "patch": (
        "New weights in a finished bitstream",
        "TFC for the smallest plan that keeps the link busy, compiled `--patchable`. `patch` is "
        "the whole command: the new bundle with its Verilog, memories, packing.",
    ),
    "fuzz": (
        "Random graphs",
        "Networks of random layers under random plans: every score and label against the plain "
        "NumPy reference, and where nothing stalls the cycle of every transfer against the cycle "
        "model. In Amaranth's simulator one by one, in Verilator as Verilog, many in one model, "
        "with power-up values at random. `make fuzz` goes on where it stopped.",
    ),
    "reference_executor": (
        "Reference executor",
        "Against float32 PyTorch and NumPy on networks of LFC's and CNV's size, interleaved in one "
        "run.",
    ),
    "engine_cells": (
        "Engine",
        "Packed cells of popcounts with a threshold and of processing elements, from the Verilog "
        "that the components emit.",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CHAPTERS))
    names = parser.parse_args().names or list(CHAPTERS)
    for name in names:
        if name not in CHAPTERS:
            parser.error(f"benchmark must be one of {', '.join(CHAPTERS)}, not {name!r}")
    RESULTS.mkdir(exist_ok=True)
    for name in names:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, HERE / f"{name}.py", "--out", RESULTS], check=True)
    PAGE.write_text(page())
    print(f"{PAGE.relative_to(HERE.parent)} written")


def page() -> str:
    """The page, with a chapter for each benchmark that has a table."""
    parts = [
        "# Results\n",
        "Measured by `make bench`, which writes this page. Seconds are those of one machine of "
        "2 cores, which other work shared at times; cells, cycles and clock rates do not "
        "depend on it.\n",
    ]
    for name, (title, words) in CHAPTERS.items():
        table = RESULTS / f"{name}.md"
        if table.is_file():
            parts.append(f"## {title}\n\n{words} `python benchmarks/{name}.py`\n")
            body = table.read_text().strip()
            parts.append("\n".join(x for x in body.splitlines() if not x.startswith("# ")).strip())
            parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
