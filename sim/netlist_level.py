# SPDX-License-Identifier: BSD-2-Clause
"""Runs the netlist that place and route takes, of a bundle, on images.

    results/build, or the same synthesis step -> netlist.json -> Verilog, cell for cell -> Verilator
        a board's top: behind the virtual board and the real driver, at its built-in baud rate
        a bare device's core: under the bench of `core_run`

The memories power up with what the netlist holds; what nobody initialises, and bits that the
netlist leaves open, are random. Images run on that, and again after a load over the link.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xnorforge.gen.boards import baud_divisor, plan_board
from xnorforge.gen.build_cache import StepCache, sha256
from xnorforge.gen.build_flow import Flow, synthesis_step
from xnorforge.gen.build_result import read_result
from xnorforge.gen.build_steps import run_step
from xnorforge.gen.bundle import Bundle
from xnorforge.gen.devices import get_device
from xnorforge.gen.tools import Progress
from xnorforge.sim.board import VirtualBoard
from xnorforge.sim.cell_models import CELL_MODELS, UsedModels
from xnorforge.sim.core_run import CorePass, CoreRun, run_core
from xnorforge.sim.netlist_verilog import MappedNetlist
from xnorforge.sim.reference import Result
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.errors import AcceleratorError

__all__ = ["FoundNetlist", "NetlistModel", "find_netlist", "run_on_bench", "run_on_board"]

# Of simulated time: a board answers within a millisecond.
_TIMEOUT_S = 0.1
_NEVER = 1 << 62
_OPTIONS = ("--x-assign", "unique", "--x-initial", "unique")
_LOAD_CYCLES = 40_000_000  # a longer second load is left out: minutes
_LOADED_IMAGES = 20


@dataclass(frozen=True)
class FoundNetlist:
    """The netlist of a bundle. sha256: of netlist.json.

    in_bitstream: whether results/build holds a bitstream made from this very file.
    """

    netlist: MappedNetlist
    sha256: str
    in_bitstream: bool

    @property
    def cells(self) -> dict[str, int]:
        """How many of each type."""
        counts = Counter(cell["type"] for cell in self.netlist.cells.values())
        return dict(sorted(counts.items()))


def find_netlist(bundle: Bundle, *, progress: Progress | None = None) -> FoundNetlist:
    """The netlist of the bundle's bitstream, or that which a build would make.

    Raises ToolError when synthesis fails, BundleError for Verilog of another board.
    """
    plan, verilog = bundle.plan, bundle.path / "accelerator.v"
    top = "xnorforge_core" if plan.board is None else "top"
    built = bundle.results / "build"
    if read_result(built) is not None and sha256(built / "accelerator.v") == sha256(verilog):
        path = built / "netlist.json"
        return FoundNetlist(MappedNetlist.read(path, top), sha256(path), True)
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as folder:
        work = Path(folder)
        if plan.board is None:
            device = get_device(plan.device)
            step = synthesis_step(verilog, device, work, top=top)
            log = work / "synthesis.log"
            run_step(step, work=work, log=log, cache=StepCache(), progress=progress)
        else:
            Flow(verilog, plan_board(plan), work, work, progress=progress).synthesise()
        path = work / "netlist.json"
        return FoundNetlist(MappedNetlist.read(path, top), sha256(path), False)


class NetlistModel:
    """A netlist and the models of its cells as Verilog files, while its context lasts."""

    def __init__(self, netlist: MappedNetlist, family: str, *, seed: int = 1) -> None:
        self.seed = seed
        self.models: UsedModels = CELL_MODELS[family].used(netlist.cell_types)
        self._texts = {"netlist.v": netlist.verilog(seed), "cells.v": self.models.vendor_text}
        self._folder = tempfile.TemporaryDirectory(prefix="xnorforge-")

    @property
    def sources(self) -> list[Path]:
        """The Verilog files."""
        folder = Path(self._folder.name)
        return [*(folder / name for name in self._texts), *self.models.files]

    def __enter__(self) -> NetlistModel:
        for name, text in self._texts.items():
            (Path(self._folder.name) / name).write_text(text)
        return self

    def __exit__(self, *exception: object) -> None:
        self._folder.cleanup()


def run_on_board(
    bundle: Bundle,
    model: NetlistModel,
    images: np.ndarray,
    *,
    load: bytes | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Result], tuple[str, ...]]:
    """The top behind the driver: results by pass, and notes.

    Passes: "powered_up", on the weights that the netlist holds, and "loaded", after a load over
    the link. load: another weight load; then only that pass runs. A driver that gives up leaves
    its pass without results.
    """
    plan = bundle.plan
    divisor = baud_divisor(plan.clock_hz, plan.baud)
    needs_load = any(memory["kind"] == "spram" for memory in bundle.manifest["memories"])
    size = len(load or (bundle.path / "weights.bin").read_bytes())
    notes = ["the PLL was replaced by a model and the pins by a simulated UART"]
    passes = {"powered_up": len(images), "loaded": min(len(images), _LOADED_IMAGES)}
    if needs_load or load is not None:
        passes = {"loaded": len(images)}
    elif size * 10 * divisor > _LOAD_CYCLES:
        del passes["loaded"]
        notes.append("no load over the link was made: it would take minutes")
    results = {}
    for name, count in passes.items():
        with VirtualBoard.from_verilog(
            model.sources,
            baud_divisor=divisor,
            idle_cycles=_NEVER,
            options=_OPTIONS,
            seed=model.seed,
            progress=progress,
        ) as board:
            if progress is not None:
                progress(f"running {count} images through the netlist and the driver, {name}")
            try:
                results[name] = _drive(bundle, board, images[:count], name == "loaded", load)
            except AcceleratorError as error:
                notes.append(f"{name}: the driver gave up: {error}")
                results[name] = Result(
                    np.zeros((0, bundle.network.classes), np.int64), np.zeros(0, np.int64)
                )
    return results, tuple(notes)


def _drive(
    bundle: Bundle, board: VirtualBoard, images: np.ndarray, loaded: bool, load: bytes | None
) -> Result:
    with Accelerator.open(
        bundle.path,
        board.socket,
        load="always" if loaded else "never",
        timeout=_TIMEOUT_S,
        clock=lambda: board.seconds(bundle.plan.clock_hz),
    ) as accelerator:
        if load is not None:
            accelerator.load_weights(load)
        return Result(*accelerator.results(images))


def run_on_bench(
    bundle: Bundle,
    model: NetlistModel,
    images: np.ndarray,
    *,
    load: bytes | None = None,
    timeout_cycles: int,
    progress: Progress | None = None,
) -> Mapping[str, CoreRun]:
    """The core alone under cocotb: the pass "core"."""
    return run_core(
        model.sources,
        bundle.network,
        bundle.plan.lanes,
        images,
        [CorePass("core", 0, len(images))],
        load=load,
        timeout_cycles=timeout_cycles,
        options=_OPTIONS,
        progress=progress,
    )
