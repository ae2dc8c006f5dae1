# SPDX-License-Identifier: BSD-2-Clause
"""Bitstreams from `accelerator.v`, with timing met at the PLL's real frequency.

    yosys -> netlist -> (PLL found, constraints) -> nextpnr, several seeds -> packer

The result folder appears whole or not at all, and is made again only when something it depends
on has changed. Every step is kept by what it reads (`gen.build_cache`), so a build that was cut
off goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from xnorforge.gen.boards import Board, plan_board
from xnorforge.gen.build_cache import sha256
from xnorforge.gen.build_flow import (
    DEFAULT_SEEDS,
    Flow,
    Seed,
    SeedReport,
    check_seeds,
    default_jobs,
    first_met,
    pll_clocks,
    tool_texts,
    try_seeds,
)
from xnorforge.gen.build_result import (
    BuildResult,
    cache_key,
    file_digests,
    only_one,
    read_result,
    replace_result,
    work_folder,
)
from xnorforge.gen.build_steps import StepResult
from xnorforge.gen.bundle import Bundle
from xnorforge.gen.constraints import Clock
from xnorforge.gen.errors import BundleError, PlanError, RouteError, ToolError
from xnorforge.gen.memory_contents import MemoryContents, memory_contents
from xnorforge.gen.tools import Progress, find_tool

__all__ = ["DEFAULT_SEEDS", "BuildResult", "TimingError", "build", "build_verilog"]

BLANK = "blank.v"
"""The Verilog that a patchable design was placed and routed from."""


class TimingError(ToolError):
    """No seed met timing. `fmax_hz`: the best seen; `clock_hz`: a PLL output that it and the baud
    rate allow, or None where the PLL cannot go that low; `seeds`: what came of each."""

    def __init__(
        self, message: str, fmax_hz: float, clock_hz: float | None, seeds: tuple[Seed, ...] = ()
    ) -> None:
        super().__init__(message)
        self.fmax_hz = fmax_hz
        self.clock_hz = clock_hz
        self.seeds = seeds


def build(
    bundle: Bundle | str | Path,
    *,
    seeds: Sequence[int] | None = None,
    best: bool = False,
    jobs: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    report: SeedReport | None = None,
    routed: BuildResult | None = None,
) -> BuildResult:
    """Make the bitstream of a bundle under its `results/build`.

    seeds: tried in this order until timing is met; without them `DEFAULT_SEEDS`, and a finished
    result of any seed will do. best: route all of them and keep the fastest. jobs: seeds tried at
    a time; without it as many as processors and memory allow. force: make it even if nothing
    changed, and run every step. report: is told of every seed. routed: a build of another bundle
    of the same patchable plan; only its memories are filled anew.
    Raises BundleError, PlanError (bundle without a board), TimingError, ToolError.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    plan = bundle.plan
    if plan.link == "axi":
        raise PlanError(
            f"{bundle.path} was compiled for link axi, a core for a design of your own: that "
            "design's tools make the bitstream"
        )
    if plan.link == "pcie":
        raise PlanError(
            f"{bundle.path} was compiled for board {plan.card}, whose bitstream no open tool "
            f"makes: run `vivado -mode batch -source {bundle.path / 'vivado.tcl'}`"
        )
    if plan.board is None:
        raise PlanError(
            f"{bundle.path} was compiled for bare device {plan.device}, which has no pins: "
            f"compile it for a board to get a bitstream"
        )
    return build_verilog(
        bundle.path / "accelerator.v",
        plan_board(plan),
        bundle.results / "build",
        clock_hz=plan.clock_hz,
        baud=plan.baud,
        seeds=seeds,
        best=best,
        jobs=jobs,
        force=force,
        progress=progress,
        report=report,
        contents=partial(_contents, bundle) if plan.patchable else None,
        routed=routed,
    )


def _contents(bundle: Bundle) -> MemoryContents:
    patcher = plan_board(bundle.plan).device.family.patcher
    return memory_contents(bundle.network, bundle.plan, patcher)


def build_verilog(
    verilog: Path,
    board: Board,
    out: Path,
    *,
    clock_hz: float,
    baud: int | None = None,
    seeds: Sequence[int] | None = None,
    best: bool = False,
    jobs: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    report: SeedReport | None = None,
    contents: Callable[[], MemoryContents] | None = None,
    routed: BuildResult | None = None,
) -> BuildResult:
    """`build` for any Verilog whose module `top` has the ports of `gen.boards.PORTS`.

    clock_hz: what its PLL must make. baud: of its UART, so that no clock is advised that this
    cannot be divided from. out: the result folder; it is replaced as a whole. contents: of a
    patchable design; its blank Verilog is then placed and routed. routed: as of `build`.
    """
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise ToolError(f"A build needs at least one job, not {jobs!r}")
    wanted = check_seeds(DEFAULT_SEEDS if seeds is None else seeds)
    family = board.device.family
    tools = {
        name: f"{tool.package} {tool.version}"
        for name in ("yosys", family.place_and_route, family.packer, family.patcher)
        if name and (name != family.patcher or contents is not None)
        for tool in [find_tool(name)]
    }
    if not verilog.is_file():
        raise BundleError(f"{verilog} is missing: compile the model again")
    digest = sha256(verilog)
    key = cache_key(digest, board, clock_hz, tools, tool_texts(board, clock_hz))
    asked = {"seeds": list(wanted), "best": best}
    if not force:
        cached = read_result(out, key, None if seeds is None and not best else asked)
        if cached is not None:
            return cached
    logs = out.with_name(f"{out.name}-logs")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with only_one(out), work_folder(out) as work:
            shutil.rmtree(logs, ignore_errors=True)
            logs.mkdir()
            memories = None if contents is None else contents()
            source = verilog
            if memories is not None:
                source = work / BLANK
                source.write_text(memories.verilog)
            flow = Flow(source, board, work, logs, fresh=force, progress=progress)
            if routed is not None and memories is not None:
                found = _fill(flow, routed, memories)
            else:
                count = jobs or default_jobs()
                found = _make(flow, clock_hz, baud, wanted, best, count, report, memories)
            _check_unchanged(verilog, digest)
            if memories is not None:
                shutil.copyfile(verilog, work / "accelerator.v")
            item = {"key": key, "asked": asked, "tools": tools, **found}
            item["files"] = file_digests(work)
            (work / "report.json").write_text(json.dumps(item, indent=1, sort_keys=True) + "\n")
            replace_result(work, out)
    except (OSError, ToolError) as error:
        # A bundle that is compiled anew takes the folder away from under the tools.
        _check_unchanged(verilog, digest)
        if isinstance(error, ToolError):
            raise
        raise ToolError(
            f"{out} cannot be written ({error.strerror or error}): make room, or build a bundle "
            "in another folder"
        ) from error
    result = read_result(out, key)
    if result is None:
        raise ToolError(f"{out} was changed while it was built: build again")
    return dataclasses.replace(result, cached=False)


def _check_unchanged(verilog: Path, digest: str) -> None:
    if not verilog.is_file() or sha256(verilog) != digest:
        raise BundleError(f"{verilog} changed while it was being built: build again")


def _make(
    flow: Flow,
    clock_hz: float,
    baud: int | None,
    seeds: tuple[int, ...],
    best: bool,
    jobs: int,
    report: SeedReport | None,
    contents: MemoryContents | None,
) -> dict[str, Any]:
    """All steps; leaves the result's files in the work folder and gives the report.

    contents: of a design whose memories are blank.
    """
    seconds: dict[str, float] = {}
    synthesis = flow.synthesise()
    seconds["synthesis"] = synthesis.seconds
    clock = flow.find_clock()
    if abs(clock.pll.output_hz - clock_hz) > 1:
        raise BundleError(
            f"{flow.verilog}: its PLL makes {clock.pll.output_hz / 1e6:.6f} MHz, but the plan "
            f"says {clock_hz / 1e6:.6f} MHz: compile the model again"
        )
    flow.constrain(clock)
    found = try_seeds(
        lambda seed, cancel: flow.route(seed, clock, cancel),
        seeds,
        jobs=jobs,
        every=best,
        report=report,
    )
    chosen = _choose(found, seeds, best, flow.board, clock, pll_clocks(flow.board, baud))
    seconds["place_and_route"] = sum(seed.seconds for seed in found.values())
    packing = _pack(flow, flow.routed(chosen.seed), contents, seconds)
    reused = [
        *(["synthesis"] if synthesis.kept else []),
        *(f"seed {seed.seed}" for seed in found.values() if seed.kept),
        *(["pack"] if packing.kept else []),
    ]
    work, suffix = flow.work, flow.family.routed_suffix
    os.rename(work / f"seed{chosen.seed}-timing.json", work / "timing.json")
    os.rename(work / flow.routed(chosen.seed), work / f"routed{suffix}")
    for path in work.glob("seed*"):
        path.unlink()
    used, available = flow.cells(work / "timing.json")
    assert chosen.timing is not None
    return {
        "board": flow.board.name,
        "device": flow.board.device.name,
        "clock_hz": clock.pll.output_hz,
        "constraint_hz": chosen.timing.constraint_hz,
        "fmax_hz": chosen.timing.fmax_hz,
        "seed": chosen.seed,
        "used": used,
        "available": available,
        "seeds": {s.seed: s.timing.fmax_hz for s in found.values() if s.timing is not None},
        "failed": {s.seed: str(s.error) for s in found.values() if s.timing is None},
        "reused": reused,
        "seconds": seconds,
    }


def _pack(
    flow: Flow, routed: str, contents: MemoryContents | None, seconds: dict[str, float]
) -> StepResult:
    """The bitstream of a routed result, its memories filled first where they are blank.

    seconds: of the steps so far; takes those of these, and the total.
    """
    if contents is not None:
        routed, seconds["fill"] = flow.fill(routed, contents)
    packing = flow.pack(routed)
    for path in flow.work.glob("filled*"):
        path.unlink()
    seconds["pack"] = packing.seconds
    seconds["total"] = sum(seconds.values())
    for step, value in seconds.items():
        seconds[step] = round(value, 3)
    return packing


def _fill(flow: Flow, routed: BuildResult, contents: MemoryContents) -> dict[str, Any]:
    """As `_make`, from the result of another network of the plan: fill and pack."""
    if (routed.folder / BLANK).read_text() != contents.verilog:
        raise BundleError(f"{routed.folder} is of another circuit: build the bundle")
    result = json.loads((routed.folder / "report.json").read_text())
    made_anew = ("accelerator.v", "report.json", routed.bitstream.name)
    for name in result["files"].keys() - set(made_anew):
        shutil.copyfile(routed.folder / name, flow.work / name)
    seconds: dict[str, float] = {}
    _pack(flow, f"routed{flow.family.routed_suffix}", contents, seconds)
    kept = ("board", "device", "clock_hz", "constraint_hz", "fmax_hz", "seed", "seeds", "failed")
    return {
        **{name: result[name] for name in (*kept, "used", "available")},
        "reused": ["synthesis", f"seed {result['seed']}"],
        "seconds": seconds,
    }


def _choose(
    found: dict[int, Seed],
    seeds: tuple[int, ...],
    best: bool,
    board: Board,
    clock: Clock,
    clocks: Sequence[float],
) -> Seed:
    """The seed to keep. clocks: those that may be advised.

    Raises TimingError where none met timing, RouteError where place and route found no way with
    any, ToolError where all failed and not all of them so.
    """
    routed = [seed for seed in found.values() if seed.timing is not None]
    if not routed:
        errors = [seed.error for seed in found.values() if seed.error is not None]
        # What says nothing about the design comes first: with it this is no answer.
        first, *others = sorted(errors, key=lambda error: isinstance(error, RouteError))
        more = f"; {len(others)} other seeds failed too" if others else ""
        raise type(first)(first.why, log=first.log, more=more)
    fastest = max(routed, key=lambda seed: seed.timing.fmax_hz if seed.timing else 0.0)
    chosen = fastest if best else first_met(found, seeds)
    if chosen is not None and chosen.met:
        return chosen
    assert fastest.timing is not None
    fmax = fastest.timing.fmax_hz
    lower = max((hz for hz in clocks if hz <= fmax), default=None)
    advice = (
        f"compile again with a clock of {lower / 1e6:g} MHz, or with --clock max"
        if lower
        else "compile again for fewer images per second"
    )
    failed = [seed for seed in found.values() if seed.timing is None]
    more = f" ({len(failed)} more failed: {failed[0].error})" if failed else ""
    raise TimingError(
        f"Timing is not met on {board.name}: {fmax / 1e6:.2f} MHz at best (seed {fastest.seed} of "
        f"{len(routed)}{more}) where the PLL makes {clock.pll.output_hz / 1e6:.2f} MHz; {advice}",
        fmax,
        lower,
        tuple(found.values()),
    )
