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

__all__ = ["CLOCK_GOALS", "TABLE_PATH", "Engine", "engine_for"]

CLOCK_GOALS: dict[str, dict[str, float]] = {
    "ice40": {"HX8K": 104, "UP5K": 46.8},
    "ecp5": {"LFE5U-25F-6": 130},
}
"""MHz that an element must reach alone: 1.3 times what whole designs on the device shall run at.

Gowin takes ECP5's choices, which are as deep in tables of four inputs; its own clocks were not
measured.
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


def engine_for(family: str, simd: int) -> Engine:
    """The measured choice for an element of `simd` columns: that of the next width measured.

    Up to 1,024 columns wider ones have that of the widest measured; from there on carry chains,
    whose shape needs no search.
    """
    rows = _table()["ecp5" if family == "gowin" else family]
    wider = rows[-1] if simd <= _SEARCHED else _WIDER
    return next((row for row in rows if row.simd >= simd), wider)
