# SPDX-License-Identifier: BSD-2-Clause
"""What each layer of a built bundle takes on the device, beside what the resource model said.

    netlist.json, constraints --> nextpnr --pack-only --> packed cells --> by block --> by layer

The packer takes no seed, so this is the packing of the routed design; it takes seconds. What place
and route changed after it, if anything, has a row of its own: the rows add up to what nextpnr says
of the routed design, exactly.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.boards import plan_board
from xnorforge.gen.build_cache import StepCache, sha256
from xnorforge.gen.build_result import BuildResult
from xnorforge.gen.build_steps import Step, run_step
from xnorforge.gen.bundle import Bundle
from xnorforge.gen.cell_owners import Block
from xnorforge.gen.constraints import place_and_route_args, read_netlist
from xnorforge.gen.core import block_owners
from xnorforge.gen.devices import Family
from xnorforge.gen.errors import BundleError, ToolError
from xnorforge.gen.packed_cells import count_packed, netlist_owners
from xnorforge.gen.tools import Progress

__all__ = ["KINDS", "LayerUsage", "layer_usage", "total_usage"]

KINDS = (
    "logic_cells",
    "luts",
    "carries",
    "flip_flops",
    "lost_flip_flops",
    "lut_rams",
    "block_rams",
    "sprams",
    "dsps",
)
"""What is counted. logic_cells, block_rams, sprams and dsps are nextpnr's, after packing; the rest
are cells of the netlist. lost_flip_flops: places beside a LUT RAM that nothing else can take."""

SHELL, AFTER = "shell", "place and route"

# The resource model's names.
_MODEL = {
    "logic_cells": "cells",
    "carries": "carries",
    "flip_flops": "flipflops",
    "lut_rams": "lut_rams",
    "block_rams": "blocks",
    "sprams": "sprams",
}
_CORE = ("system", "core")
_FORMAT = 1
_LABEL = "counting what each layer takes"


@dataclass(frozen=True)
class LayerUsage:
    """What one row of the report takes.

    name: of a layer, of a value that several layers take, or "head", "shared SPRAM", "shell"
    (weight chain, registers, link and clock), "place and route". packed: counts by `KINDS`,
    without zeros. predicted: the model's, where it has this row; its flip-flops include lost ones.
    blocks: the same counts of the circuits in it.
    """

    name: str
    packed: dict[str, int]
    predicted: dict[str, int] | None = None
    blocks: dict[str, dict[str, int]] = field(default_factory=dict)


def total_usage(rows: Sequence[LayerUsage]) -> dict[str, int]:
    """All rows together."""
    total: Counter[str] = Counter()
    for row in rows:
        total.update(row.packed)
    return _counts(total)


def layer_usage(
    bundle: Bundle, result: BuildResult, *, progress: Progress | None = None
) -> tuple[LayerUsage, ...]:
    """The rows of a build of a bundle: layers, head, shell.

    They are counted once for a build and then kept in the bundle's results.
    Raises BundleError where the circuit is not the one that this version makes of the plan, and
    ToolError.
    """
    kept = bundle.results / "layers.json"
    key = sha256(result.folder / "report.json")
    found = _read(kept, key)
    if found is None:
        found = _count(bundle, result, progress)
        item = {"format": _FORMAT, "build": key, "layers": [asdict(row) for row in found]}
        text = json.dumps(item, indent=1) + "\n"
        # A report that cannot be kept, say on a full disk, is counted again.
        with contextlib.suppress(OSError):
            kept.with_name(f".{kept.name}").write_text(text)
            os.replace(kept.with_name(f".{kept.name}"), kept)
    return found


def _read(path: Path, key: str) -> tuple[LayerUsage, ...] | None:
    """The rows that were kept for this build; None where there are none, or others."""
    try:
        item = json.loads(path.read_text())
        if (item["format"], item["build"]) != (_FORMAT, key):
            return None
        return tuple(LayerUsage(**row) for row in item["layers"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _count(
    bundle: Bundle, result: BuildResult, progress: Progress | None
) -> tuple[LayerUsage, ...]:
    if progress is not None:
        progress(_LABEL)
    family = plan_board(bundle.plan).device.family
    owners = netlist_owners(read_netlist(result.folder / "netlist.json"), family)
    layers = block_owners(core_parts(bundle.network, bundle.plan))
    missing = [name for name in layers if (*_CORE, name) not in owners.blocks]
    if missing:
        raise BundleError(
            f"{result.folder / 'netlist.json'} has no block {missing[0]!r}: another version of "
            "xnorforge made it; compile the model again to see what each layer takes"
        )
    blocks = count_packed(owners, _packed(bundle, result, progress), family)
    predicted = bundle.manifest["predicted"]["resources"].get("parts", {})
    return rows_of(blocks, layers, predicted, _routed(result, family))


def rows_of(
    blocks: Mapping[Block, Mapping[str, int]],
    layers: Mapping[str, str],
    predicted: Mapping[str, Mapping[str, int]],
    routed: Mapping[str, int],
) -> tuple[LayerUsage, ...]:
    """Counts by block as rows. layers: by the names of the core's blocks. routed: the totals."""
    names = [*dict.fromkeys(layers.values()), SHELL]
    parts: dict[str, dict[str, Counter[str]]] = {name: {} for name in names}
    for block, counts in sorted(blocks.items()):
        row, part = _place(block, layers)
        parts[row].setdefault(part, Counter()).update(counts)
    rows = []
    for name in names:
        packed = _counts(sum(parts[name].values(), Counter()))
        model = predicted.get(name)
        said = None
        if model is not None:
            said = {kind: model[key] for kind, key in _MODEL.items() if model.get(key)}
        within = {part: _counts(counts) for part, counts in parts[name].items()}
        rows.append(LayerUsage(name, packed, said, within))
    total = total_usage(rows)
    after = {kind: count - total.get(kind, 0) for kind, count in routed.items()}
    if any(after.values()):
        rows.append(LayerUsage(AFTER, _counts(after)))
    return tuple(rows)


def _place(block: Block, layers: Mapping[str, str]) -> tuple[str, str]:
    """Row and part of a block."""
    if block[:2] != _CORE:
        part = "clock" if block[1:2] == ("pll",) else "link" if block else "constants"
        return SHELL, part
    name = block[2] if len(block) > 2 else ""
    return (layers[name], name) if name in layers else (SHELL, "weight chain and registers")


def _counts(counts: Mapping[str, int]) -> dict[str, int]:
    return {kind: counts[kind] for kind in KINDS if counts.get(kind)}


def _routed(result: BuildResult, family: Family) -> dict[str, int]:
    """What nextpnr counts in the routed design."""
    return {kind: result.used[kind] for kind in (*family.cell_keys, "flip_flops")}


def _packed(bundle: Bundle, result: BuildResult, progress: Progress | None) -> dict[str, Any]:
    """The module that nextpnr's packer makes of a build's netlist."""
    board = plan_board(bundle.plan)
    names = ["netlist.json", *sorted(path.name for path in result.folder.glob("constraints.*"))]
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as folder:
        work = Path(folder)
        for name in names:
            shutil.copyfile(result.folder / name, work / name)
        step = Step(
            tool=board.device.family.place_and_route,
            args=(
                *place_and_route_args(board),
                *("--json", "netlist.json"),
                "--pack-only",
                *("--write", "packed.json"),
            ),
            reads=tuple(names),
            makes=("packed.json",),
            label=_LABEL,
        )
        # What is counted is kept, so the netlist need not be.
        cache = StepCache(limit_bytes=0)
        try:
            run_step(step, work=work, log=work / "layers.log", cache=cache, progress=progress)
        except ToolError as error:
            # The log goes with the folder.
            raise ToolError(error.why) from error
        return read_netlist(work / "packed.json")
