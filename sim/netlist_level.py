# SPDX-License-Identifier: BSD-2-Clause
"""Runs the netlist that place and route takes, of a bundle, on images.

    results/build, or the same synthesis step -> netlist.json -> Verilog, cell for cell -> Verilator
        a board's top: behind the virtual board and the real driver, at its built-in baud rate
        a bare device's core: under the bench of `core_run`

The memories power up with what the netlist holds; what nobody initialises, and bits that the
netlist leaves open, are random. Images run on that, again after a load of the same weights, and
after one of another model: only this needs every memory to be written.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.boards import baud_divisor, plan_board
from xnorforge.gen.build_cache import StepCache, sha256
from xnorforge.gen.build_flow import Flow, synthesis_step
from xnorforge.gen.build_result import read_result
from xnorforge.gen.build_steps import run_step
from xnorforge.gen.bundle import Bundle
from xnorforge.gen.devices import FAMILIES, get_device
from xnorforge.gen.errors import BundleError
from xnorforge.gen.tools import Progress
from xnorforge.sim.board import VirtualBoard
from xnorforge.sim.cell_models import CELL_MODELS, UsedModels
from xnorforge.sim.core_run import CorePass, CoreRun, run_core
from xnorforge.sim.netlist_verilog import MappedNetlist
from xnorforge.sim.other_model import OtherModel
from xnorforge.sim.reference import Result
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.errors import AcceleratorError

__all__ = [
    "LOADED_IMAGES",
    "FoundNetlist",
    "NetlistModel",
    "NetlistRun",
    "family_name",
    "find_netlist",
    "run_netlist",
]

# Of simulated time: a board answers within a millisecond.
_TIMEOUT_S = 0.1
_NEVER = 1 << 62
_OPTIONS = ("--x-assign", "unique", "--x-initial", "unique")
_LOAD_CYCLES = 40_000_000  # a longer second load is left out: minutes
LOADED_IMAGES = 20
"""Images that run again after a load over the link, and with another model."""


@dataclass(frozen=True)
class FoundNetlist:
    """The netlist of a bundle. sha256: of netlist.json.

    in_bitstream: whether results/build holds a bitstream made from this very file; of a patchable
    bundle, from one that differs in what its memories hold, and nowhere else.
    """

    netlist: MappedNetlist
    sha256: str
    in_bitstream: bool

    @property
    def cells(self) -> dict[str, int]:
        """How many of each type."""
        counts = Counter(cell["type"] for cell in self.netlist.cells.values())
        return dict(sorted(counts.items()))


def find_netlist(
    bundle: Bundle, verilog: Path | None = None, *, progress: Progress | None = None
) -> FoundNetlist:
    """The netlist of the bundle's bitstream, or that which a build would make.

    verilog: in place of the bundle's.
    Raises ToolError when synthesis fails, BundleError for Verilog of another board, or for a device
    whose netlist no tool here makes.
    """
    plan = bundle.plan
    device = get_device(plan.device)
    if device.family.name not in FAMILIES:
        raise BundleError(
            f"{bundle.path} is for {device.title}, whose netlist Vivado makes: verify it at level "
            "rtl"
        )
    verilog = verilog or bundle.path / "accelerator.v"
    top = "xnorforge_core" if plan.board is None else "top"
    built = bundle.results / "build"
    is_built = read_result(built) is not None and sha256(built / "accelerator.v") == sha256(verilog)
    if is_built and not plan.patchable:
        path = built / "netlist.json"
        return FoundNetlist(MappedNetlist.read(path, top), sha256(path), True)
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as folder:
        work = Path(folder)
        if plan.board is None:
            step = synthesis_step(verilog, device, work, top=top)
            log = work / "synthesis.log"
            run_step(step, work=work, log=log, cache=StepCache(), progress=progress)
        else:
            Flow(verilog, plan_board(plan), work, work, progress=progress).synthesise()
        path = work / "netlist.json"
        netlist = MappedNetlist.read(path, top)
        if is_built:
            blank = MappedNetlist.read(built / "netlist.json", top)
            is_built = netlist.without_contents() == blank.without_contents()
        return FoundNetlist(netlist, sha256(path), is_built)


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


@dataclass(frozen=True)
class NetlistRun:
    """results: by pass. notes: what was replaced or left out. core: of a bare device's core."""

    results: dict[str, Result]
    notes: tuple[str, ...]
    core: CoreRun | None = None


def family_name(bundle: Bundle) -> str:
    """The family of the device that a bundle is for."""
    return get_device(bundle.plan.device).family.name


def run_netlist(
    bundle: Bundle,
    model: NetlistModel,
    images: np.ndarray,
    *,
    load: bytes | None = None,
    loaded: bool = True,
    other: OtherModel | None = None,
    progress: Progress | None = None,
) -> NetlistRun:
    """Run images on the netlist of a bundle, or on one with a fault.

    Passes: "powered_up", on the weights that the netlist holds; with `loaded`: "loaded", the first
    `LOADED_IMAGES` after a load over the link, and with `other`: "other_model", as many after the
    load of another model. load: another weight load; then only "loaded" runs, with all images, as
    it does where the memories hold nothing at power-up. A driver that gives up leaves its pass
    without results.
    """
    fresh = not core_parts(bundle.network, bundle.plan).must_load
    if bundle.plan.board is None:
        return _on_bench(bundle, model, images, load, fresh, other if loaded else None, progress)
    plan = bundle.plan
    divisor = baud_divisor(plan.clock_hz, plan.baud)
    size = (bundle.path / "weights.bin").stat().st_size
    notes = ["the PLL was replaced by a model and the pins by a simulated UART"]
    few = min(len(images), LOADED_IMAGES)
    boards = [{"powered_up": len(images)}]  # passes of each
    if load is not None or not fresh:
        boards = [{"loaded": len(images)}]
    if load is None and loaded:
        if size * 10 * divisor > _LOAD_CYCLES:
            notes.append("no other weights were loaded over the link: it would take minutes")
        else:
            if fresh:
                boards.append({"loaded": few})
            if other is not None:
                boards[-1]["other_model"] = few
    results = {name: _nothing(bundle) for passes in boards for name in passes}
    for passes in boards:
        with VirtualBoard.from_verilog(
            model.sources,
            baud_divisor=divisor,
            idle_cycles=_NEVER,
            options=_OPTIONS,
            seed=model.seed,
            progress=progress,
        ) as board:
            name = next(iter(passes))
            try:
                with Accelerator.open(
                    bundle.path,
                    board.socket,
                    load="never" if name == "powered_up" else "always",
                    timeout=_TIMEOUT_S,
                    clock=partial(board.seconds, plan.clock_hz),
                ) as accelerator:
                    for name, count in passes.items():
                        if progress is not None:
                            progress(
                                f"running {count} images through the netlist and the driver, {name}"
                            )
                        if name == "other_model" and other is not None:
                            accelerator.load_weights(other.load)
                        elif load is not None:
                            accelerator.load_weights(load)
                        results[name] = Result(*accelerator.results(images[:count]))
            except AcceleratorError as error:
                notes.append(f"{name}: the driver gave up: {error}")
    return NetlistRun(results, tuple(notes))


def _on_bench(
    bundle: Bundle,
    model: NetlistModel,
    images: np.ndarray,
    load: bytes | None,
    fresh: bool,
    other: OtherModel | None,
    progress: Progress | None,
) -> NetlistRun:
    """The core alone under cocotb."""
    few = min(len(images), LOADED_IMAGES)
    weights = (bundle.path / "weights.bin").read_bytes()
    if load is not None or not fresh:
        passes = [CorePass("loaded", 0, len(images), load=load or weights)]
    else:
        passes = [CorePass("powered_up", 0, len(images))]
        if other is not None:
            passes.append(CorePass("loaded", 0, few, load=weights))
    if other is not None and load is None:
        passes.append(CorePass("other_model", 0, few, load=other.load))
    predicted = bundle.manifest["predicted"]
    runs = run_core(
        model.sources,
        bundle.network,
        bundle.plan.lanes,
        images,
        passes,
        timeout_cycles=20_000
        + 4 * int(predicted["first_output_cycles"] + predicted["interval_cycles"]),
        options=_OPTIONS,
        seed=model.seed,
        progress=progress,
    )
    results = {
        item.name: runs[item.name].result if item.name in runs else _nothing(bundle)
        for item in passes
    }
    note = "the core alone was run: the bundle is for a bare device, without a top"
    return NetlistRun(results, (note,), runs[passes[0].name])


def _nothing(bundle: Bundle) -> Result:
    return Result(np.zeros((0, bundle.network.classes), np.int64), np.zeros(0, np.int64))
