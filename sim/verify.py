# SPDX-License-Identifier: BSD-2-Clause
"""Verification levels: is a bundle what its network says?

    reference   the bundle's network in the compiled executor  = plain NumPy (= golden scores)
    rtl         accelerator.v: core under Verilator, all images = the executor; its cycles = the
                cycle model; the complete top behind the real driver, some images = the executor
    netlist     the mapped netlist that place and route takes: the complete top behind the real
                driver, all images, as it powers up and after a load = the executor

Loads over the link are of the bundle's weights and then of another model, random numbers: a memory
that cannot be written goes on holding what it powered up with, and only that shows it.

Nothing is shared between the two sides of a comparison but the bundle: the expected scores come
from `network.npz`, the circuit holds `accelerator.v` and `weights.bin`.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.bundle import Bundle
from xnorforge.gen.errors import UserError
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.gen.tools import Progress, find_tool
from xnorforge.sim.axi_run import Step, run_axi
from xnorforge.sim.compare import Comparison, compare
from xnorforge.sim.core_run import CorePass, CoreRun, run_core
from xnorforge.sim.faults import Fault
from xnorforge.sim.netlist_faults import NetlistFault
from xnorforge.sim.netlist_level import (
    LOADED_IMAGES,
    NetlistModel,
    family_name,
    find_netlist,
    run_netlist,
)
from xnorforge.sim.other_model import OtherModel, other_model
from xnorforge.sim.reference import Executor, Result
from xnorforge.sim.simulated import simulated_board
from xnorforge.sw.driver import Accelerator

__all__ = ["LEVELS", "CycleCheck", "VerifyReport", "verify"]

LEVELS = ("reference", "rtl", "netlist")

_STALLED_IMAGES = 100
_IDLE, _STALL = 0.3, 0.4  # shares of cycles in the stalled pass
_PATIENCE_S = 60.0  # simulations can be slow
_SHELL_NOTES = {
    "uart": "in the shell run the PLL was replaced by a model and the pins by a simulated UART",
    "pcie": "the shell ran behind LitePCIe's core in a simulated PC; the vendor's hard block "
    "(always that of UltraScale+) and the core's clock were models",
}
_NUMPY_BATCH = 1000


@dataclass(frozen=True)
class CycleCheck:
    """Predicted against simulated cycles, from the pass without stalls.

    interval_simulated: None when too few images ran for a steady state; it is not judged then.
    """

    first_output_predicted: int
    first_output_simulated: int | None
    interval_predicted: float
    interval_simulated: float | None

    @property
    def equal(self) -> bool:
        if self.first_output_predicted != self.first_output_simulated:
            return False
        interval = self.interval_simulated
        return interval is None or abs(interval - self.interval_predicted) < 1e-6

    def __str__(self) -> str:
        interval = "-" if self.interval_simulated is None else f"{self.interval_simulated:g}"
        relation = "equal" if self.equal else "NOT equal"
        return (
            f"cycles predicted and simulated are {relation}: first output "
            f"{self.first_output_predicted} and {self.first_output_simulated}, interval "
            f"{self.interval_predicted:g} and {interval}"
        )


@dataclass(frozen=True)
class VerifyReport:
    """What a level found. comparisons: by name, in the order they were made.

    notes: what was replaced or left out. fault: the planted fault's description, if any.
    netlist: of level "netlist", "sha256" of the file, "in_bitstream" (results/build was made from
    this very file), and how many "cells" there are of each type.
    """

    level: str
    images: int
    comparisons: dict[str, Comparison]
    cycles: CycleCheck | None = None
    accuracy: float | None = None
    fault: str | None = None
    notes: tuple[str, ...] = ()
    netlist: dict[str, Any] | None = None
    seconds: float = 0.0
    tools: dict[str, str] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """The comparer's word for all: that of the first comparison with a difference, if any."""
        found = list(self.comparisons.values())
        return next((item for item in found if item.first is not None), found[0]).word

    @property
    def passed(self) -> bool:
        """All results right, and the cycles as predicted."""
        right = all(item.first is None for item in self.comparisons.values())
        return right and (self.cycles is None or self.cycles.equal)

    def __str__(self) -> str:
        lines = [f"{name}: {item}" for name, item in self.comparisons.items()]
        if self.cycles is not None:
            lines.append(str(self.cycles))
        if self.netlist is not None:
            which = "the bitstream's" if self.netlist["in_bitstream"] else "no bitstream yet"
            lines.append(f"netlist: SHA-256 {self.netlist['sha256']}, {which}")
        if self.accuracy is not None:
            lines.append(f"accuracy: {100 * self.accuracy:.2f} % of {self.images} images")
        if self.fault is not None:
            lines.append(f"planted fault: {self.fault}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        item = asdict(self)
        item["word"], item["passed"] = self.word, self.passed
        if self.cycles is not None:
            item["cycles"]["equal"] = self.cycles.equal
        return item


def verify(
    bundle_dir: str | Path,
    level: str = "rtl",
    *,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    golden: np.ndarray | None = None,
    fault: Fault | NetlistFault | None = None,
    shell_images: int = 20,
    stalls: bool = True,
    progress: Progress | None = None,
) -> VerifyReport:
    """Verify a bundle on images; the report also goes to the bundle's `results/`.

    level: one of LEVELS. labels: for the accuracy. golden: scores (N, classes) from elsewhere
    that must come out too. fault: planted in what is under test, which must then be found out
    (no report is written); a NetlistFault only at level "netlist". shell_images: how many go
    through the complete top and the driver at level "rtl". stalls: also run the core with random
    gaps and back-pressure there.

    Raises BundleError for a changed bundle, ModelError for images that do not fit, ToolError.
    """
    if level not in LEVELS:
        raise UserError(f"Level must be one of {', '.join(LEVELS)}, not {level!r}")
    started = time.monotonic()
    bundle = Bundle.open(bundle_dir)
    if len(images) == 0:
        raise UserError("Verification needs at least one image")
    if shell_images < 1:
        raise UserError(f"At least one image must go through the shell, not {shell_images}")
    if labels is not None and len(labels) != len(images):
        raise UserError(f"{len(labels)} labels were given for {len(images)} images")
    wanted_shape = (len(images), bundle.network.classes)
    if golden is not None and np.shape(golden) != wanted_shape:
        raise UserError(f"Golden scores must be {wanted_shape}, not {np.shape(golden)}")
    if isinstance(fault, NetlistFault) and level != "netlist":
        raise UserError(f"A fault of the netlist is not in what level {level} runs")
    if progress is not None:
        progress(f"running {len(images)} images through the reference executor")
    expected = Executor(bundle.network).run(images)
    comparisons: dict[str, Comparison] = {}
    notes: tuple[str, ...] = ()
    cycles = None
    tools: dict[str, str] = {}

    netlist: dict[str, Any] | None = None
    under_test = expected
    if isinstance(fault, Fault) and level == "reference":
        under_test = Executor(fault.network).run(images)
    comparisons["reference"] = compare(_plain(bundle, images), under_test)
    if golden is not None:
        scores = np.asarray(golden, np.int64)
        wanted = Result(scores, bundle.network.head.label(scores))
        comparisons["golden"] = compare(wanted, under_test)
    got = under_test
    if level == "rtl" and not isinstance(fault, NetlistFault):
        with tempfile.TemporaryDirectory(prefix="xnorforge-") as folder:
            verilog, load = _under_test(bundle, fault, Path(folder))
            runs = _core(bundle, verilog, images, load, stalls, progress)
            fresh = None if fault is None else load
            shown = images[:shell_images]
            other = None
            if fault is None:
                other = other_model(bundle.network, bundle.plan, shown)
            found, notes = _shell(bundle, verilog, shown, fresh, other, progress)
        for name, run in runs.items():
            count = len(images) if name == "core" else min(len(images), _STALLED_IMAGES)
            comparisons[name] = compare(_part(expected, count), run.result)
        got = runs["core"].result
        cycles = _cycles(bundle, runs["core"])
        if found:
            comparisons["shell"] = compare(_part(expected, shell_images), found[0])
        if other is not None and found:
            comparisons["shell_other_model"] = compare(other.result, found[1])
        tools = _versions("verilator")
    elif level == "netlist":
        mapped = _Mapped(bundle, images, fault, progress)
        comparisons |= mapped.comparisons(expected)
        netlist, notes, cycles, got = mapped.netlist, mapped.notes, mapped.cycles, mapped.result
        tools = _versions("yosys", "verilator")
    accuracy = None
    if labels is not None and len(got.labels) == len(labels):
        accuracy = float((got.labels == np.asarray(labels)).mean())
    report = VerifyReport(
        level=level,
        images=len(images),
        comparisons=comparisons,
        cycles=cycles,
        accuracy=accuracy,
        fault=None if fault is None else fault.description,
        notes=notes,
        netlist=netlist,
        seconds=time.monotonic() - started,
        tools=tools,
    )
    if fault is None:
        bundle.results.mkdir(exist_ok=True)
        text = json.dumps(report.to_json(), indent=1) + "\n"
        report_file = bundle.results / f"verify_{level}.json"
        aside = report_file.with_suffix(".part")
        aside.write_text(text)
        aside.replace(report_file)
    return report


def _plain(bundle: Bundle, images: np.ndarray) -> Result:
    """The network in plain NumPy, some images at a time."""
    parts = [
        evaluate(bundle.network, images[start : start + _NUMPY_BATCH])
        for start in range(0, len(images), _NUMPY_BATCH)
    ]
    scores = np.concatenate([part.scores for part in parts])
    return Result(scores, np.concatenate([part.labels for part in parts]))


def _versions(*names: str) -> dict[str, str]:
    return {name: find_tool(name).version for name in names}


class _Mapped:
    """The run of level "netlist"."""

    def __init__(
        self,
        bundle: Bundle,
        images: np.ndarray,
        fault: Fault | NetlistFault | None,
        progress: Progress | None,
    ) -> None:
        planted = fault if isinstance(fault, Fault) else None
        self._other = None
        if planted is None:
            self._other = other_model(bundle.network, bundle.plan, images[:LOADED_IMAGES])
        with tempfile.TemporaryDirectory(prefix="xnorforge-") as folder:
            verilog, load = _under_test(bundle, planted, Path(folder))
            found = find_netlist(bundle, verilog, progress=progress)
        mapped = found.netlist
        if isinstance(fault, NetlistFault):
            mapped = fault.apply(mapped)
        with NetlistModel(mapped, family_name(bundle)) as model:
            self._run = run_netlist(
                bundle,
                model,
                images,
                load=None if planted is None else load,
                other=self._other,
                progress=progress,
            )
            self.notes = (str(model.models), *self._run.notes)
        self.netlist = {
            "sha256": found.sha256,
            "in_bitstream": found.in_bitstream,
            "cells": found.cells,
        }
        core = self._run.core
        self.cycles = None if core is None or len(images) < 2 else _cycles(bundle, core)

    def comparisons(self, expected: Result) -> dict[str, Comparison]:
        """By pass; one of fewer images is held against as many."""
        found = {}
        for name, result in self._run.results.items():
            count = len(expected.labels) if name == self._first else LOADED_IMAGES
            wanted = _part(expected, count)
            if name == "other_model" and self._other is not None:
                wanted = self._other.result
            found[name] = compare(wanted, result)
        return found

    @property
    def result(self) -> Result:
        """Of all images."""
        return self._run.results[self._first]

    @property
    def _first(self) -> str:
        return next(iter(self._run.results))


def _part(result: Result, count: int) -> Result:
    return Result(result.scores[:count], result.labels[:count])


def _under_test(bundle: Bundle, fault: Fault | None, folder: Path) -> tuple[Path, bytes | None]:
    """accelerator.v, and the load to send first: where a fault or memories want one.

    A fault in constant logic is in a file of its own.
    """
    verilog = bundle.path / "accelerator.v"
    if fault is None:
        must_load = core_parts(bundle.network, bundle.plan).must_load
        return verilog, (bundle.path / "weights.bin").read_bytes() if must_load else None
    text = fault.circuit(bundle.network, bundle.plan)
    if text is not None:
        verilog = folder / "accelerator.v"
        verilog.write_text(text)
    return verilog, fault.load(bundle.plan)


def _core(
    bundle: Bundle,
    verilog: Path,
    images: np.ndarray,
    load: bytes | None,
    stalls: bool,
    progress: Progress | None,
) -> dict[str, CoreRun]:
    passes = [CorePass("core", 0, len(images), load=load)]
    if stalls:
        count = min(len(images), _STALLED_IMAGES)
        passes.append(CorePass("core_stalled", 0, count, _IDLE, _STALL, seed=1))
    predicted = bundle.manifest["predicted"]
    timeout = 20_000 + 4 * int(predicted["first_output_cycles"] + predicted["interval_cycles"])
    return run_core(
        [verilog],
        bundle.network,
        bundle.plan.lanes,
        images,
        passes,
        timeout_cycles=timeout,
        turns=bundle.plan.turns,
        progress=progress,
    )


def _cycles(bundle: Bundle, run: CoreRun) -> CycleCheck:
    predicted = bundle.manifest["predicted"]
    interval = run.interval_cycles
    return CycleCheck(
        first_output_predicted=predicted["first_output_cycles"],
        first_output_simulated=run.first_output_cycles,
        interval_predicted=predicted["interval_cycles"],
        interval_simulated=None if interval is None else float(interval),
    )


def _shell(
    bundle: Bundle,
    verilog: Path,
    images: np.ndarray,
    load: bytes | None,
    other: OtherModel | None,
    progress: Progress | None,
) -> tuple[list[Result], tuple[str, ...]]:
    """The complete top behind the real driver; the weights always go over the link, and then
    those of another model."""
    if bundle.plan.link == "axi":
        return _axi_shell(bundle, verilog, images, load, other, progress)
    if bundle.plan.board is None and bundle.plan.link == "uart":
        return [], ("no shell was run: the bundle is for a bare device, without a top",)
    with simulated_board(bundle.path, verilog=verilog, progress=progress) as board:
        if progress is not None:
            progress(f"running {len(images)} images through the top and the driver")
        port = board.port
        with Accelerator.open(bundle.path, port, load="always", timeout=_PATIENCE_S) as accelerator:
            if load is not None:
                accelerator.load_weights(load)
            results = [Result(*accelerator.results(images))]
            if other is not None:
                accelerator.load_weights(other.load)
                results.append(Result(*accelerator.results(images)))
    return results, (_SHELL_NOTES[bundle.plan.link],)


def _axi_shell(
    bundle: Bundle,
    verilog: Path,
    images: np.ndarray,
    load: bytes | None,
    other: OtherModel | None,
    progress: Progress | None,
) -> tuple[list[Result], tuple[str, ...]]:
    """The core behind its AXI ports, under random stalls on every channel; loads as of `_shell`."""
    own = load or (bundle.path / "weights.bin").read_bytes()
    steps = []
    for data in (own, *([] if other is None else [other.load])):
        steps.append(Step("load", data=data.hex(), idle=_IDLE))
        steps.append(Step("images", count=len(images), idle=_IDLE, stall=_STALL))
    if progress is not None:
        progress(f"running {len(images)} images through the AXI ports")
    network, plan = bundle.network, bundle.plan
    found = run_axi([verilog], network, plan, images, steps, progress=progress)
    results = [packets.result for packets in found[1::2]]
    return results, ("the AXI ports were driven by cocotbext-axi, under random stalls",)
