# SPDX-License-Identifier: BSD-2-Clause
"""Which popcount structure and pipeline an engine has: the cheapest measured, if fast enough.

`data/structures.json` holds, per family and SIMD width, the processing element with the fewest
packed cells among those that reach every clock of `CLOCK_GOALS` after place and route by
themselves. `make bench` writes it (`benchmarks/engine_cells.py`). A plan records what it took, so
that a new table changes new plans only.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["CLOCK_GOALS", "SPREAD_BITS", "TABLE_PATH", "Engine", "engine_for"]

CLOCK_GOALS: dict[str, dict[str, float]] = {
    "ice40": {"HX8K": 104, "UP5K": 46.8},
    "ecp5": {"LFE5U-25F-6": 130},
    "ecp5-spread": {"LFE5U-25F-6": 150},
}
"""MHz that an element must reach alone: 1.3 times what whole designs on the device shall run at,
1.5 times where weights lie in memories all over the die and wires from there take longer.

Gowin takes ECP5's choices, which are as deep in tables of four inputs, and so does Xilinx, where
they are no deeper; their own clocks were not measured.
"""

SPREAD_BITS = 500_000
"""Weight bits of a network from which its memories are all over the die.

Such networks also have a register more behind the block RAMs of weights: the wire from a RAM to an
engine's first table, or to a register near it, was the longest path.

CNV on an ECP5 85F, 1.5 Mbit in 121 block RAMs, seed 1: 97.9 MHz with elements of the lower goal,
101.6 with those of the higher.
"""

TABLE_PATH = Path(__file__).parent / "data" / "structures.json"


@dataclass(frozen=True)
class Engine:
    """One row of the table: the choice for elements of more columns than the row before has.

    simd: columns a step it was measured at. cells: nextpnr's packed logic cells there.
    """

    simd: int
    structure: str
    pipeline: str
    cells: int
    clock_mhz: dict[str, float]


@cache
def _table() -> dict[str, tuple[Engine, ...]]:
    content: dict[str, list[dict[str, Any]]] = json.loads(TABLE_PATH.read_text())
    return {
        family: tuple(Engine(**row) for row in sorted(rows, key=lambda row: row["simd"]))
        for family, rows in content.items()
    }


_SEARCHED = 1024
_WIDER = Engine(0, "carry", "half", 0, {})


def engine_for(family: str, simd: int, *, spread: bool = False) -> Engine:
    """The measured choice for an element of `simd` columns: that of the next width measured.

    spread: weights come from all over the die (`SPREAD_BITS`).

    Up to 1,024 columns wider ones have that of the widest measured; from there on carry chains,
    whose shape needs no search.
    """
    table, family = _table(), "ecp5" if family in ("gowin", "xilinx") else family
    rows = table[family]
    if spread:
        rows = table.get(f"{family}-spread", rows)
    wider = rows[-1] if simd <= _SEARCHED else _WIDER
    return next((row for row in rows if row.simd >= simd), wider)
