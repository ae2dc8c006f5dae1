# SPDX-License-Identifier: BSD-2-Clause
"""What lies between engines, in packed cells: the resource model's coefficients and its error.

.venv/bin/python benchmarks/stream_cells.py measure [FAMILY ...]
.venv/bin/python benchmarks/stream_cells.py fit
.venv/bin/python benchmarks/stream_cells.py report

measure: synthesises and packs each block alone, into results/stream_cells.json; what is there
already is left out. fit: writes gen/data/streams.toml from those, every third block of a kind held
out. report: the errors, as Markdown.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xnorforge.gen.devices import FAMILIES
from xnorforge.gen.resource_terms import Terms
from xnorforge.gen.resources import STREAM_COEFFICIENTS, load_model
from xnorforge.gen.stream_terms import stream_terms
from xnorforge.hw.add import AddConfig, AddUnit
from xnorforge.hw.concat import ConcatConfig, ConcatUnit
from xnorforge.hw.fork import Fork, ForkConfig
from xnorforge.hw.geometry import Window
from xnorforge.hw.pool import PoolConfig, PoolReducer
from xnorforge.hw.threshold import ThresholdConfig, ThresholdUnit
from xnorforge.hw.tile_pool import TilePool, TilePoolConfig
from xnorforge.hw.window import SlidingWindow, WindowConfig
from xnorforge.sim.cells import packed_cells

RESULTS = Path(__file__).with_name("results") / "stream_cells.json"
CELLS = {"ice40": "ICESTORM_LC", "ecp5": "TRELLIS_COMB", "gowin": "LUT4"}
COMPONENTS = {
    WindowConfig: SlidingWindow,
    TilePoolConfig: TilePool,
    PoolConfig: PoolReducer,
    ThresholdConfig: ThresholdUnit,
    AddConfig: AddUnit,
    ConcatConfig: ConcatUnit,
    ForkConfig: Fork,
}
HEADER = "Written by benchmarks/stream_cells.py from packed blocks (docs/resources.md)."
# How near to 1 a cell's coefficient is believed to be: 0.1 off costs as much as an error of 0.3 %.
BELIEF = 0.03
# Errors of fewer cells are taken as shares of so many.
SMALLEST = 40

# side, channels, element bits, lanes, kernel, stride, pad, depth (0: bubble-free), store
WINDOWS = (
    (32, 3, 8, 1, 3, 1, 0, 0, "block"),
    (32, 3, 8, 3, 3, 1, 0, 67, "block"),
    (30, 64, 1, 4, 3, 1, 0, 64, "block"),
    (14, 64, 1, 8, 3, 1, 0, 0, "block"),
    (12, 128, 1, 16, 3, 1, 0, 32, "block"),
    (10, 128, 1, 32, 3, 1, 0, 0, "block"),
    (28, 64, 1, 64, 3, 1, 1, 0, "block"),
    (28, 1, 8, 1, 5, 1, 0, 0, "block"),
    (16, 32, 1, 4, 3, 2, 0, 0, "block"),
    (9, 16, 2, 4, 3, 1, 1, 0, "block"),
    (12, 16, 1, 16, 3, 1, 0, 27, "lut"),
    (8, 8, 4, 2, 2, 1, 0, 10, "lut"),
)
# side, channels, element bits, lanes, kernel, mode, store
TILES = (
    (28, 64, 1, 4, 2, "max", "block"),
    (10, 128, 1, 16, 2, "max", "block"),
    (24, 16, 4, 4, 3, "max", "block"),
    (28, 64, 1, 64, 2, "max", "block"),
    (8, 32, 8, 2, 2, "sum", "block"),
    (6, 16, 1, 16, 2, "max", "lut"),
)
# channels, element bits, kind, lanes, taps, mode
POOLS = (
    (32, 1, "bit", 8, 9, "max"),
    (16, 4, "uint", 4, 9, "max"),
    (16, 8, "uint", 2, 16, "sum"),
    (64, 1, "bit", 32, 4, "max"),
)
# rows, levels, kind, bits, lanes, method
THRESHOLDS = (
    (16, 3, "int", 10, 1, "parallel"),
    (32, 3, "int", 9, 4, "parallel"),
    (32, 15, "int", 11, 1, "serial"),
    (64, 3, "int", 10, 8, "serial"),
    (16, 7, "int", 12, 2, "parallel"),
)
# channels, lanes, kinds, bits, output bits, multiplier bits, offset bits
ADDS = (
    (16, 1, ("int", "int"), (9, 9), 10, (0, 0), 0),
    (32, 4, ("bit", "int"), (1, 8), 9, (0, 0), 0),
    (16, 2, ("uint", "uint"), (4, 4), 10, (4, 4), 8),
    (32, 8, ("uint", "uint"), (2, 2), 3, (0, 0), 0),
    (8, 1, ("int", "int"), (8, 8), 14, (5, 5), 0),
)
# channels, element bits, lanes
CONCATS = (((16, 16), 1, 4), ((32, 64), 1, 32), ((8, 8, 8), 4, 2), ((16, 8), 8, 1))
# width, depths, stores
FORKS = (
    (8, (2, 2), ("registers", "registers")),
    (32, (2, 4), ("registers", "registers")),
    (4, (2, 300), ("registers", "block")),
    (16, (2, 40), ("registers", "block")),
    (8, (3, 100), ("registers", "block")),
)


def described(config: object) -> str:
    """A configuration in the record; fields of later times are left out at their defaults."""
    return repr(config).replace(", slots=1", "")


def blocks(family: str) -> Iterator[tuple[str, Any]]:
    """(name, configuration) of every block that is measured."""
    for n, (side, channels, bits, lanes, kernel, stride, pad, depth, store) in enumerate(WINDOWS):
        shape = {"height": side, "width": side, "channels": channels, "element_bits": bits}
        window = Window((kernel, kernel), (stride, stride), pads=(pad,) * 4)
        known = {**shape, "lanes": lanes, "window": window, "store": store, "family": family}
        free = WindowConfig(**known, depth=side * side).bubble_free_depth
        if store == "block" or family != "ice40":
            yield f"window {n}", WindowConfig(**known, depth=depth or free)
    for n, (side, channels, bits, lanes, kernel, mode, store) in enumerate(TILES):
        pool = PoolConfig(
            channels=channels,
            element_bits=bits,
            kind="bit" if bits == 1 else "uint",
            lanes=lanes,
            taps=kernel * kernel,
            mode=mode,
        )
        windows = Window((kernel, kernel), (kernel, kernel)).over(side, side)
        yield f"tile {n}", TilePoolConfig(pool=pool, windows=windows, store=store, family=family)
    for n, (channels, bits, kind, lanes, taps, mode) in enumerate(POOLS):
        yield (
            f"pool {n}",
            PoolConfig(
                channels=channels, element_bits=bits, kind=kind, lanes=lanes, taps=taps, mode=mode
            ),
        )
    for n, (rows, levels, kind, bits, lanes, method) in enumerate(THRESHOLDS):
        yield (
            f"threshold {n}",
            ThresholdConfig(rows, levels, kind, bits, lanes, method, family=family),
        )
    for n, (channels, lanes, kinds, widths, out, multipliers, offset) in enumerate(ADDS):
        yield (
            f"add {n}",
            AddConfig(channels, lanes, kinds, widths, out, multipliers, offset, family=family),
        )
    for n, (sources, bits, lanes) in enumerate(CONCATS):
        yield f"concat {n}", ConcatConfig(sources, bits, lanes)
    for n, (width, depths, stores) in enumerate(FORKS):
        yield f"fork {n}", ForkConfig(width, depths, stores)


def measure(families: list[str]) -> None:
    for family in families:
        for name, config in blocks(family):
            key = f"{family} {name}"
            if read().get(key, {}).get("config") == described(config):
                continue
            with tempfile.TemporaryDirectory() as folder:
                component = COMPONENTS[type(config)](config=config)
                used = packed_cells(component, family, Path(folder))
            known = read() | {key: {"config": described(config), "cells": used[CELLS[family]]}}
            RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
            print(key, used[CELLS[family]], flush=True)


def read() -> dict[str, dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def samples(family: str) -> Iterator[tuple[str, int, Terms, float]]:
    """(name, cells, own terms, what its memories add) of everything measured of a family."""
    known = read()
    shared = load_model(family).weights["cells"]
    for name, config in blocks(family):
        row = known.get(f"{family} {name}")
        if row is None or row["config"] != described(config):
            continue
        terms = stream_terms(config, family)
        kind = name.split()[0]
        own = Counter({t: v for t, v in terms.items() if t == kind or t.startswith(f"{kind}.")})
        rest = sum(shared[t] * v for t, v in terms.items() if t in shared and t not in own)
        yield name, row["cells"], own, rest


def held_out(name: str) -> bool:
    return int(name.split()[1]) % 3 == 2


def fit() -> None:
    lines = ["# SPDX-License-Identifier: BSD-2-Clause", f"# {HEADER}"]
    for family in FAMILIES:
        lines += ["", f"[{family}]"]
        found = list(samples(family))
        for kind in dict.fromkeys(name.split()[0] for name, *_ in found):
            rows = [r for r in found if r[0].split()[0] == kind and not held_out(r[0])]
            for term, value in coefficients(rows).items():
                lines.append(f'"{term}" = {float(f"{value:.4g}")}')
    STREAM_COEFFICIENTS.write_text("\n".join(lines) + "\n")


def coefficients(rows: list[tuple[str, int, Terms, float]]) -> dict[str, float]:
    """Least squares of the relative error; none negative, each drawn a little towards a cell."""
    terms = sorted({term for _, _, own, _ in rows for term in own})
    while True:
        scale = np.array([1 / max(cells, SMALLEST) for _, cells, _, _ in rows])
        matrix = np.array([[own[term] for term in terms] for _, _, own, _ in rows], float)
        wanted = np.array([cells - rest for _, cells, _, rest in rows])
        grows = np.array(["." in term for term in terms], float)
        left = np.vstack([matrix * scale[:, None], BELIEF * np.diag(grows)])
        right = np.append(wanted * scale, BELIEF * grows)
        solution = np.linalg.lstsq(left, right, rcond=None)[0]
        if (solution >= 0).all():
            return dict(zip(terms, map(float, solution), strict=True))
        terms.pop(int(solution.argmin()))


def report() -> str:
    lines = [
        "| family | block | fitted | mean error | worst | held out | mean error | worst |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for family in FAMILIES:
        weights = load_model(family).weights["cells"]
        errors: dict[tuple[str, bool], list[float]] = defaultdict(list)
        for name, cells, own, rest in samples(family):
            predicted = rest + sum(weights.get(term, 0) * value for term, value in own.items())
            error = abs(predicted - cells) / max(cells, SMALLEST)
            errors[name.split()[0], held_out(name)].append(error)
        for kind in dict.fromkeys(kind for kind, _ in errors):
            cells = []
            for group in (errors[kind, False], errors[kind, True]):
                cells += [str(len(group))]
                cells += [f"{np.mean(group):.1%}", f"{max(group):.1%}"] if group else ["-", "-"]
            lines.append(f"| {family} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    command, *families = sys.argv[1:] or ["report"]
    if command == "measure":
        measure(families or list(FAMILIES))
    elif command == "fit":
        fit()
    else:
        print(report())


if __name__ == "__main__":
    main()
