# SPDX-License-Identifier: BSD-2-Clause
"""Bitstreams from `accelerator.v`, with timing met at the PLL's real frequency.

    yosys -> netlist -> (PLL found, constraints) -> nextpnr, seed after seed -> packer

The result folder appears whole or not at all, and is made again only when something it depends
on has changed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from xnorforge.gen.boards import Board, get_board
from xnorforge.gen.build_result import (
    BuildResult,
    cache_key,
    file_digests,
    only_one,
    read_result,
    replace_result,
    work_folder,
)
from xnorforge.gen.bundle import Bundle
from xnorforge.gen.constraints import (
    Clock,
    Timing,
    check_pll,
    constraint_files,
    find_clock,
    pack_args,
    place_and_route_args,
    read_netlist,
    read_timing,
)
from xnorforge.gen.errors import BundleError, PlanError, ToolError
from xnorforge.gen.tools import Progress, find_tool, run_tool

__all__ = ["DEFAULT_SEEDS", "BuildResult", "TimingError", "build", "build_verilog"]

DEFAULT_SEEDS = tuple(range(1, 9))


class TimingError(ToolError):
    """No seed met timing. `fmax_hz`: the best seen; `clock_hz`: a PLL output that it allows,
    or None where the PLL cannot go that low."""

    def __init__(self, message: str, fmax_hz: float, clock_hz: float | None) -> None:
        super().__init__(message)
        self.fmax_hz = fmax_hz
        self.clock_hz = clock_hz


def build(
    bundle: Bundle | str | Path,
    *,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    jobs: int = 1,
    force: bool = False,
    progress: Progress | None = None,
) -> BuildResult:
    """Make the bitstream of a bundle under its `results/build`.

    seeds: tried in this order until timing is met. jobs: seeds tried at a time. force: make it
    even if nothing changed. Raises BundleError, PlanError (bundle without a board), TimingError,
    ToolError.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    plan = bundle.plan
    if plan.board is None:
        raise PlanError(
            f"{bundle.path} was compiled for bare device {plan.device}, which has no pins: "
            f"compile it for a board to get a bitstream"
        )
    return build_verilog(
        bundle.path / "accelerator.v",
        get_board(plan.board),
        bundle.results / "build",
        clock_hz=plan.clock_hz,
        seeds=seeds,
        jobs=jobs,
        force=force,
        progress=progress,
    )


def build_verilog(
    verilog: Path,
    board: Board,
    out: Path,
    *,
    clock_hz: float,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    jobs: int = 1,
    force: bool = False,
    progress: Progress | None = None,
) -> BuildResult:
    """`build` for any Verilog whose module `top` has the ports of `gen.boards.PORTS`.

    clock_hz: what its PLL must make. out: the result folder; it is replaced as a whole.
    """
    if not seeds or jobs < 1:
        raise ToolError(f"A build needs at least one seed and one job, not {seeds!r} and {jobs!r}")
    family = board.device.family
    tools = {
        name: f"{tool.package} {tool.version}"
        for name in ("yosys", family.place_and_route, family.packer)
        for tool in [find_tool(name)]
    }
    key = cache_key(verilog, board, clock_hz, seeds, tools)
    if not force:
        cached = read_result(out, key)
        if cached is not None:
            return cached
    out.parent.mkdir(parents=True, exist_ok=True)
    logs = out.with_name(f"{out.name}-logs")
    with only_one(out), work_folder(out) as work:
        flow = _Flow(verilog, board, clock_hz, work, logs, jobs, progress)
        flow.run(tuple(seeds), tools, key)
        replace_result(work, out)
    result = read_result(out, key)
    if result is None:
        raise ToolError(f"{out} was changed while it was built: build again")
    return dataclasses.replace(result, cached=False)


class _Flow:
    """One build in one work folder, which YoWASP tools must not leave."""

    def __init__(
        self,
        verilog: Path,
        board: Board,
        clock_hz: float,
        work: Path,
        logs: Path,
        jobs: int,
        progress: Progress | None,
    ) -> None:
        self.verilog, self.board, self.clock_hz = verilog, board, clock_hz
        self.work, self.logs = work, logs
        self.jobs, self.progress = jobs, progress
        self.family = board.device.family
        self.cancel = threading.Event()

    def run(self, seeds: tuple[int, ...], tools: dict[str, str], key: str) -> None:
        """All steps; leaves the finished result in the work folder."""
        started = time.monotonic()
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir()
        seconds = {"synthesis": self._synthesise()}
        netlist = read_netlist(self.work / "netlist.json")
        clock = find_clock(netlist, self.board)
        if abs(clock.pll.output_hz - self.clock_hz) > 1:
            raise BundleError(
                f"{self.verilog}: its PLL makes {clock.pll.output_hz / 1e6:.6f} MHz, but the plan "
                f"says {self.clock_hz / 1e6:.6f} MHz: compile the model again"
            )
        for name, text in constraint_files(self.board, clock).items():
            (self.work / name).write_text(text)
        routed = time.monotonic()
        seed, timings = self._place_and_route(seeds, clock)
        seconds["place_and_route"] = time.monotonic() - routed
        seconds["pack"] = self._pack(seed)
        seconds["total"] = time.monotonic() - started
        os.rename(self.work / f"seed{seed}-timing.json", self.work / "timing.json")
        os.rename(
            self.work / f"seed{seed}{self.family.routed_suffix}",
            self.work / f"routed{self.family.routed_suffix}",
        )
        for path in self.work.glob("seed*"):
            path.unlink()
        used, available = self._cells(netlist)
        report = {
            "key": key,
            "board": self.board.name,
            "device": self.board.device.name,
            "clock_hz": clock.pll.output_hz,
            "constraint_hz": timings[seed].constraint_hz,
            "fmax_hz": timings[seed].fmax_hz,
            "seed": seed,
            "used": used,
            "available": available,
            "seeds": {number: timing.fmax_hz for number, timing in timings.items()},
            "seconds": {step: round(value, 3) for step, value in seconds.items()},
            "tools": tools,
            "files": file_digests(self.work),
        }
        text = json.dumps(report, indent=1, sort_keys=True) + "\n"
        (self.work / "report.json").write_text(text)

    def _synthesise(self) -> float:
        check_pll(self.verilog.read_text(), self.board)
        shutil.copyfile(self.verilog, self.work / "accelerator.v")
        device = self.board.device
        command = " ".join([*self.family.synthesis, *device.synthesis_args])
        (self.work / "synthesis.ys").write_text(
            f"read_verilog accelerator.v\n{command} -top top -json netlist.json\n"
        )
        self._tell("synthesis")
        return run_tool(
            "yosys",
            ["synthesis.ys"],
            cwd=self.work,
            log=self.logs / "synthesis.log",
            progress=self.progress,
            label="synthesis",
        )

    def _place_and_route(
        self, seeds: tuple[int, ...], clock: Clock
    ) -> tuple[int, dict[int, Timing]]:
        """The first seed, in order, that meets timing, and the timing of every seed tried."""
        timings: dict[int, Timing] = {}
        failures: list[ToolError] = []

        def attempt(seed: int) -> dict[str, Any] | ToolError:
            try:
                return self._attempt(seed)
            except ToolError as error:
                return error

        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                for start in range(0, len(seeds), self.jobs):
                    batch = seeds[start : start + self.jobs]
                    for seed, outcome in zip(batch, pool.map(attempt, batch), strict=True):
                        if isinstance(outcome, ToolError):
                            failures.append(outcome)
                            continue
                        timing = read_timing(outcome, clock.pll.output_hz)
                        timings[seed] = timing
                        self._tell(
                            f"place and route, seed {seed}: {timing.fmax_hz / 1e6:.1f} MHz, "
                            f"{timing.constraint_hz / 1e6:.1f} wanted"
                        )
                    for seed in batch:
                        if seed in timings and timings[seed].met:
                            return seed, timings
                    self._refuse_overfull(batch[0])
            finally:
                self.cancel.set()
        if not timings:
            raise failures[0]
        raise self._timing_error(timings, clock)

    def _attempt(self, seed: int) -> dict[str, Any]:
        args = [
            *place_and_route_args(self.board),
            *("--json", "netlist.json"),
            *(self.family.routed_option, f"seed{seed}{self.family.routed_suffix}"),
            *("--report", f"seed{seed}-timing.json"),
            *("--seed", str(seed)),
            # Timing is judged here, against the PLL's real output.
            "--timing-allow-fail",
        ]
        name = self.family.place_and_route
        self._tell(f"place and route, seed {seed}")
        run_tool(
            name,
            args,
            cwd=self.work,
            log=self.logs / f"seed{seed}.log",
            progress=self.progress,
            label=f"place and route, seed {seed}",
            cancel=self.cancel,
        )
        return json.loads((self.work / f"seed{seed}-timing.json").read_text())

    def _refuse_overfull(self, seed: int) -> None:
        """Raise PlanError when the packed design has more of some cell than the device."""
        log = (self.logs / f"seed{seed}.log").read_text(errors="replace")
        for cell, used, available in re.findall(r"(\w+):\s+(\d+)/\s*(\d+)\s+\d+%", log):
            if int(used) > int(available):
                raise PlanError(
                    f"The design does not fit {self.board.device.name}: it takes {used} {cell}, "
                    f"the device has {available}; compile it for fewer images per second or for "
                    f"a larger board"
                )

    def _timing_error(self, timings: dict[int, Timing], clock: Clock) -> TimingError:
        best = max(timings, key=lambda seed: timings[seed].fmax_hz)
        fmax = timings[best].fmax_hz
        lower = _pll_below(self.board, fmax)
        advice = (
            f"compile again with a clock of {lower / 1e6:g} MHz"
            if lower
            else "compile again for fewer images per second"
        )
        return TimingError(
            f"Timing is not met on {self.board.name}: {fmax / 1e6:.2f} MHz at best (seed {best} of "
            f"{len(timings)}) where the PLL makes {clock.pll.output_hz / 1e6:.2f} MHz; {advice}",
            fmax,
            lower,
        )

    def _pack(self, seed: int) -> float:
        self._tell("packing the bitstream")
        return run_tool(
            self.family.packer,
            pack_args(self.board, f"seed{seed}{self.family.routed_suffix}", self._bitstream),
            cwd=self.work,
            log=self.logs / "pack.log",
            progress=self.progress,
        )

    @property
    def _bitstream(self) -> str:
        return f"bitstream{self.family.bitstream_suffix}"

    def _cells(self, netlist: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
        report = json.loads((self.work / "timing.json").read_text())
        utilization = report["utilization"]
        keys = self.family.cell_keys
        used = {
            name: sum(utilization[cell]["used"] for cell in cells) for name, cells in keys.items()
        }
        available = {name: utilization[cells[0]]["available"] for name, cells in keys.items()}
        prefix = self.family.flip_flop_prefix
        used["flip_flops"] = sum(c["type"].startswith(prefix) for c in netlist["cells"].values())
        return used, available

    def _tell(self, message: str) -> None:
        if self.progress is not None:
            self.progress(message)


def _pll_below(board: Board, limit_hz: float) -> float | None:
    """The nearest PLL output that a design of this Fmax meets, None where there is none."""
    request = limit_hz
    for _ in range(50):
        try:
            output = board.pll_config(request).output_hz
        except PlanError:
            return None
        if output <= limit_hz:
            return output
        request -= max(output - limit_hz, 0.01 * limit_hz)
    return None
