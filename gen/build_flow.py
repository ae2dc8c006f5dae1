# SPDX-License-Identifier: BSD-2-Clause
"""From Verilog to a routed design in one work folder, and many placement seeds at a time.

    accelerator.v -> yosys -> netlist.json -> (PLL found) -> constraints.* -> nextpnr, per seed

Every tool run is a step (`gen.build_steps`), so what was done before is not done again.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnorforge.gen.boards import Board, baud_divisor
from xnorforge.gen.build_cache import StepCache
from xnorforge.gen.build_steps import Step, StepResult, run_step
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
    refuse_pin,
)
from xnorforge.gen.devices import Device
from xnorforge.gen.errors import OverfullError, PlanError, RouteError, ToolError
from xnorforge.gen.memory_contents import MemoryContents, check_filled
from xnorforge.gen.synthesis import synthesis_script
from xnorforge.gen.tools import Progress
from xnorforge.hw.pll_config import PllConfig

__all__ = [
    "DEFAULT_SEEDS",
    "Flow",
    "Seed",
    "SeedReport",
    "check_seeds",
    "default_jobs",
    "first_met",
    "pll_clocks",
    "synthesis_step",
    "tool_texts",
    "try_seeds",
]

DEFAULT_SEEDS = tuple(range(1, 9))
MAX_SEED = 2**31 - 1  # nextpnr keeps it in an int

# What one nextpnr may take: 0.45 GB for 6,300 cells of an ECP5-85F (docs/boards.md), and a margin.
_JOB_BYTES = 1_000_000_000

# How nextpnr says that it found no place for a cell, or no way for a net.
_NO_WAY = re.compile(
    r"^ERROR: (Unable to (place cell|find (a |legal )?placement)|failed to place (cell|chain)"
    r"|Failed to (expand region|find a route|route)|Routing design failed)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Seed:
    """What came of one placement seed.

    timing: None where place and route failed; error then says why in one sentence.
    seconds: what place and route took. kept: it ran before, the result was kept.
    """

    seed: int
    timing: Timing | None
    error: ToolError | None
    seconds: float
    kept: bool

    @property
    def met(self) -> bool:
        return self.timing is not None and self.timing.met

    @property
    def decided(self) -> bool:
        """It is known whether this seed meets timing: no tool was killed or crashed."""
        return self.timing is not None or isinstance(self.error, RouteError)

    def __str__(self) -> str:
        if self.timing is None:
            return f"seed {self.seed}: failed, {self.error}"
        return (
            f"seed {self.seed}: {self.timing.fmax_hz / 1e6:.2f} MHz, "
            f"{self.timing.constraint_hz / 1e6:.2f} wanted, "
            f"{'kept from before' if self.kept else f'{self.seconds:.0f} s'}"
        )


SeedReport = Callable[[Seed], None]
"""Is told of every seed as it ends; called from one thread only."""


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds, each once, in their order. Raises ToolError where one is none."""
    for seed in seeds:
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
            raise ToolError(f"Seed must be a whole number from 0 to {MAX_SEED}, not {seed!r}")
    if not seeds:
        raise ToolError("Place and route needs at least one seed")
    return tuple(dict.fromkeys(seeds))


def pll_clocks(board: Board, baud: int | None = None) -> tuple[float, ...]:
    """Every clock that the board's PLL makes, the slowest first.

    baud: only those that a UART of this rate can be divided from.
    """
    clocks = PllConfig.outputs(board.pll, board.oscillator_hz, part=board.device.pll_part)
    return clocks if baud is None else tuple(hz for hz in clocks if _divides(hz, baud))


def _divides(clock_hz: float, baud: int) -> bool:
    try:
        baud_divisor(clock_hz, baud)
    except PlanError:
        return False
    return True


def default_jobs() -> int:
    """Seeds at a time: one for each processor that we may use, as far as memory goes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError):  # this system does not say
        return cores or 1
    return max(1, min(cores or 1, memory // _JOB_BYTES))


def synthesis_step(verilog: Path, device: Device, work: Path, *, top: str = "top") -> Step:
    """The step that makes `netlist.json` of a Verilog file; its inputs are put in `work`."""
    shutil.copyfile(verilog, work / "accelerator.v")
    (work / "synthesis.ys").write_text(_script(device, top))
    return Step(
        tool="yosys",
        args=("synthesis.ys",),
        reads=("synthesis.ys", "accelerator.v"),
        makes=("netlist.json",),
        label="synthesis",
    )


def _script(device: Device, top: str) -> str:
    command = [*device.family.synthesis, *device.synthesis_args]
    script = synthesis_script(command, top=top, netlist="netlist.json")
    return f"read_verilog accelerator.v\n{script}"


def tool_texts(board: Board, clock_hz: float) -> list[Any]:
    """What the tools of a build are told, as far as it is known before synthesis."""
    clock = Clock("clock", board.pll_config(clock_hz))
    return [
        _script(board.device, "top"),
        constraint_files(board, clock),
        _route_args(board, 0, "routed", "timing"),
        pack_args(board, "routed", "bitstream"),
    ]


def _route_args(board: Board, seed: int, routed: str, report: str) -> tuple[str, ...]:
    """nextpnr's arguments; their order is part of a step's key."""
    return (
        *place_and_route_args(board),
        *("--json", "netlist.json"),
        *(board.device.family.routed_option, routed),
        *("--report", report),
        *("--seed", str(seed)),
        # Timing is judged here, against the PLL's real output.
        "--timing-allow-fail",
    )


class Flow:
    """One design in one work folder, which YoWASP tools must not leave.

    work: an existing folder for all files. logs: an existing folder for the tools' output.
    fresh: run every step, whatever is kept.
    """

    def __init__(
        self,
        verilog: Path,
        board: Board,
        work: Path,
        logs: Path,
        *,
        cache: StepCache | None = None,
        fresh: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.verilog, self.board, self.work, self.logs = verilog, board, work, logs
        self.cache = cache or StepCache()
        self.fresh, self.progress = fresh, progress
        self.family = board.device.family

    def synthesise(self) -> StepResult:
        """`netlist.json` of the Verilog."""
        check_pll(self.verilog.read_text(), self.board)
        step = synthesis_step(self.verilog, self.board.device, self.work)
        return self._run(step, "synthesis.log")

    def netlist(self) -> dict[str, Any]:
        """The module `top` that synthesis made."""
        return read_netlist(self.work / "netlist.json")

    def find_clock(self) -> Clock:
        """The design's clock, as its PLL makes it."""
        return find_clock(self.netlist(), self.board)

    def constrain(self, clock: Clock) -> None:
        """Write the constraint files: pins, and the clock at this frequency."""
        for name, text in constraint_files(self.board, clock).items():
            (self.work / name).write_text(text)

    def route(self, seed: int, clock: Clock, cancel: threading.Event | None = None) -> Seed:
        """Place and route with one seed; clock: as `constrain` was told.

        A failure is part of the result, but for those that every seed has: OverfullError for a
        design larger than the device, PlanError for a pin that the package lacks, ToolError for
        timing that was held against another clock.
        """
        report = f"seed{seed}-timing.json"
        step = Step(
            tool=self.family.place_and_route,
            args=_route_args(self.board, seed, self.routed(seed), report),
            reads=("netlist.json", *constraint_files(self.board, clock)),
            makes=(self.routed(seed), report),
            label=f"place and route, seed {seed}",
        )
        log = f"seed{seed}.log"
        try:
            done = self._run(step, log, cancel)
            item = self._report(report, log)
        except ToolError as error:
            return Seed(seed, None, self._refuse_overfull(log, error), 0.0, False)
        timing = read_timing(item, clock.pll.output_hz)
        return Seed(seed, timing, None, done.seconds, done.kept)

    def fill(self, routed: str, contents: MemoryContents) -> tuple[str, float]:
        """Name of the routed result with its blank memories filled, and the seconds it took.

        Raises ToolError where not every memory is found in it.
        """
        seconds, source = 0.0, routed
        for number, replacement in enumerate(contents.replacements()):
            target = f"filled{number}{self.family.routed_suffix}"
            step = replacement.step(self.family.patcher, self.work, number, source, target)
            seconds += self._run(step, f"fill{number}.log").seconds
            for name in step.reads[1:]:
                (self.work / name).unlink()
            source = target
        check_filled(self.work / routed, self.work / source, contents, self.logs / "fill0.log")
        return source, seconds

    def pack(self, routed: str) -> StepResult:
        """The bitstream of a routed result."""
        step = Step(
            tool=self.family.packer,
            args=tuple(pack_args(self.board, routed, self.bitstream)),
            reads=(routed,),
            makes=(self.bitstream,),
            label="packing the bitstream",
        )
        return self._run(step, "pack.log")

    def cells(self, timing_report: Path) -> tuple[dict[str, int], dict[str, int]]:
        """Cells used, and those of the device, from nextpnr's report and the netlist."""
        utilization = json.loads(timing_report.read_text())["utilization"]

        def count(cell: str, what: str) -> int:
            # What a device has none of is left out of the report.
            return utilization[cell][what] if cell in utilization else 0

        keys = self.family.cell_keys
        used = {name: sum(count(cell, "used") for cell in cells) for name, cells in keys.items()}
        available = {name: count(cells[0], "available") for name, cells in keys.items()}
        prefix = self.family.flip_flop_prefix
        cells = self.netlist()["cells"].values()
        used["flip_flops"] = sum(cell["type"].startswith(prefix) for cell in cells)
        return used, available

    def routed(self, seed: int) -> str:
        """Name of the routed result of a seed."""
        return f"seed{seed}{self.family.routed_suffix}"

    @property
    def bitstream(self) -> str:
        return f"bitstream{self.family.bitstream_suffix}"

    def _run(self, step: Step, log: str, cancel: threading.Event | None = None) -> StepResult:
        if self.progress is not None:
            self.progress(step.label)
        return run_step(
            step,
            work=self.work,
            log=self.logs / log,
            cache=self.cache,
            fresh=self.fresh,
            progress=self.progress,
            cancel=cancel,
        )

    def _report(self, name: str, log: str) -> dict[str, Any]:
        try:
            return json.loads((self.work / name).read_text())
        except ValueError as error:
            raise ToolError(
                f"{self.family.place_and_route} wrote a report that cannot be read: {error}",
                log=self.logs / log,
            ) from error

    def _refuse_overfull(self, log: str, error: ToolError) -> ToolError:
        """The error of place and route, as a RouteError where its log says that it is one.

        Raises PlanError when the package lacks a pin, OverfullError when the device has less of
        some cell than packed.
        """
        path = self.logs / log
        text = path.read_text(errors="replace") if path.is_file() else ""
        refuse_pin(self.board, text)
        for cell, used, available in re.findall(r"(\w+):\s+(\d+)/\s*(\d+)\s+\d+%", text):
            if int(used) > int(available):
                raise OverfullError(
                    f"The design does not fit {self.board.device.name}: it takes {used} {cell}, "
                    f"the device has {available}; compile it for fewer images per second or for "
                    f"a larger board"
                )
        return RouteError(error.why, log=error.log) if _NO_WAY.search(text) else error


def first_met(found: Mapping[int, Seed], seeds: Sequence[int]) -> Seed | None:
    """The first seed, in order, that meets timing, once all before it have ended."""
    for seed in seeds:
        if seed not in found:
            return None
        if found[seed].met:
            return found[seed]
    return None


def try_seeds(
    route: Callable[[int, threading.Event], Seed],
    seeds: Sequence[int],
    *,
    jobs: int,
    every: bool,
    report: SeedReport | None = None,
) -> dict[int, Seed]:
    """Run seeds in their order, `jobs` at a time; what came of each, in that order.

    every: run all; else no more than are needed to know the first that meets timing, and the
    result ends with that one: it does not depend on `jobs`. However this is left, nothing runs
    any more.
    """
    found: dict[int, Seed] = {}
    waiting = list(seeds)
    running: dict[concurrent.futures.Future[Seed], tuple[int, threading.Event]] = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    seed, cancel = waiting.pop(0), threading.Event()
                    running[pool.submit(route, seed, cancel)] = (seed, cancel)
                done, _ = concurrent.futures.wait(
                    running, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    seed, _ = running.pop(future)
                    found[seed] = future.result()
                    if report is not None:
                        report(found[seed])
                if every:
                    continue
                if first_met(found, seeds) is not None:
                    break
                met = [seeds.index(seed) for seed in found if found[seed].met]
                if met:
                    # Only what comes before it in order can still be chosen.
                    waiting = [seed for seed in waiting if seeds.index(seed) < min(met)]
        finally:
            for _, cancel in running.values():
                cancel.set()
    chosen = None if every else first_met(found, seeds)
    last = len(seeds) if chosen is None else seeds.index(chosen.seed) + 1
    return {seed: found[seed] for seed in seeds[:last]}
