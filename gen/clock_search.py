# SPDX-License-Identifier: BSD-2-Clause
"""The fastest clock that closes: over PLL settings and placement seeds.

    survey    all seeds against a clock that is out of reach: what Fmax is there to be had?
    attempts  the circuit compiled for the PLL setting just below, built with timing held against
              the PLL's real output; then one step up after the other, until a step fails with
              every seed

A step is the next PLL setting that is at least 1 % faster and that the UART's baud rate allows.
The clock enters the Verilog only through the PLL's dividers and the baud divisor, so the folds
and the cycles stay what they are. Everything that ran is kept (`gen.build_cache`): a search that
was cut off goes on where it stopped, and a build at the clock that was found is done already.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnorforge.gen.assembly import CoreParts, core_parts
from xnorforge.gen.boards import Board, plan_board
from xnorforge.gen.build import TimingError, build_verilog
from xnorforge.gen.build_flow import (
    DEFAULT_SEEDS,
    Flow,
    Seed,
    SeedReport,
    check_seeds,
    default_jobs,
    pll_clocks,
    try_seeds,
)
from xnorforge.gen.build_result import scratch
from xnorforge.gen.errors import PlanError, RouteError, ToolError
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.gen.tools import Progress
from xnorforge.gen.verilog import accelerator_verilog, core_verilog

__all__ = ["STEP", "ClockAttempt", "ClockSearch", "fastest_clock"]

STEP = 0.01
"""A step up is at least this much faster."""

# The survey's constraint as a multiple of the plan's clock, as far as the PLL goes.
_AMBITION = 2.0
# A period of whole picoseconds can put a clock and its constraint this far apart.
_HAIR = 1e-4


@dataclass(frozen=True)
class ClockAttempt:
    """What came of one clock. seeds: those that ran, in order. closed: one of them met it.
    error: what ended it before that was known."""

    clock_hz: float
    seeds: tuple[Seed, ...]
    closed: bool
    error: str = ""

    @property
    def undecided(self) -> str:
        """Why it is not known whether this clock closes; "" where it is."""
        lost = [seed for seed in self.seeds if not seed.decided]
        if self.closed or not (self.error or lost):
            return ""
        return self.error or f"{lost[0]} ({len(lost)} of {len(self.seeds)} ended like that)"

    @property
    def fmax_hz(self) -> float:
        """The best of all seeds; 0 where none got that far."""
        return max((seed.timing.fmax_hz for seed in self.seeds if seed.timing), default=0.0)

    def to_json(self) -> dict[str, Any]:
        return {
            "clock_hz": self.clock_hz,
            "closed": self.closed,
            "undecided": self.undecided,
            "fmax_hz": {seed.seed: seed.timing.fmax_hz for seed in self.seeds if seed.timing},
            "failed": {seed.seed: str(seed.error) for seed in self.seeds if seed.error},
        }

    def __str__(self) -> str:
        seeds = ", ".join(
            f"{seed.seed}: {seed.timing.fmax_hz / 1e6:.2f}" if seed.timing else f"{seed.seed}: -"
            for seed in self.seeds
        )
        came = "closes" if self.closed else "is not decided" if self.undecided else "fails"
        return f"{self.clock_hz / 1e6:g} MHz {came} ({seeds})"


@dataclass(frozen=True)
class ClockSearch:
    """What a search found.

    plan: at the fastest clock that closed. seed: the one it closed with, fmax_hz: what that one
    reached. survey: against a clock out of reach. attempts: the clocks tried, in turn.
    next_hz: the step above, which failed with every seed, or of which `undecided` says why that
    is not known; None where the PLL or the baud rate allows no faster one.
    """

    plan: Plan
    seed: int
    fmax_hz: float
    survey: ClockAttempt
    attempts: tuple[ClockAttempt, ...]
    next_hz: float | None

    @property
    def clock_hz(self) -> float:
        return self.plan.clock_hz

    @property
    def undecided(self) -> str:
        return next((a.undecided for a in self.attempts if a.clock_hz == self.next_hz), "")

    def to_json(self) -> dict[str, Any]:
        return {
            "clock_hz": self.clock_hz,
            "seed": self.seed,
            "fmax_hz": self.fmax_hz,
            "next_hz": self.next_hz,
            "undecided": self.undecided,
            "step": STEP,
            "survey": self.survey.to_json(),
            "attempts": [attempt.to_json() for attempt in self.attempts],
        }

    def __str__(self) -> str:
        above = (
            "the PLL and the baud rate allow no faster clock"
            if self.next_hz is None
            else f"the next PLL setting, {self.next_hz / 1e6:g} MHz, "
            + (f"is not decided: {self.undecided}" if self.undecided else "fails with every seed")
        )
        lines = [f"survey: {self.survey.fmax_hz / 1e6:.2f} MHz at best", *map(str, self.attempts)]
        return "\n".join([*lines, f"{self.clock_hz / 1e6:g} MHz with seed {self.seed}; {above}"])


def fastest_clock(
    network: Network,
    plan: Plan,
    *,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    jobs: int | None = None,
    progress: Progress | None = None,
    report: SeedReport | None = None,
    attempted: Callable[[ClockAttempt], None] | None = None,
) -> ClockSearch:
    """Find the fastest clock that closes for a network on the board of its plan.

    seeds: all are given a chance at every clock. jobs: seeds at a time. report: is told of every
    seed, attempted: of every clock.
    Raises PlanError for a plan without a board, a design that does not fit or one too slow for
    the PLL; ToolError where place and route fails with every seed.
    """
    if plan.board is None:
        raise PlanError(
            f"A clock is searched for a board, and this plan is for bare device {plan.device}: "
            "choose a board, or give the clock in MHz"
        )
    wanted = check_seeds(seeds)
    jobs = jobs or default_jobs()
    with scratch("xnorforge-clock-") as space:
        search = _Search(network, plan, wanted, jobs, space.folder, progress, report)
        survey = search.survey()
        if attempted is not None:
            attempted(survey)
        known: dict[float, ClockAttempt] = {}
        candidate = search.at_most(survey.fmax_hz)
        while True:
            closed = [clock for clock, found in known.items() if found.closed]
            attempt = known[candidate] = search.attempt(candidate, must=not closed)
            # Its logs say why.
            space.keep |= bool(attempt.undecided)
            if attempted is not None:
                attempted(attempt)
            closed += [candidate] if attempt.closed else []
            if not closed:
                # Strictly down: a period of whole picoseconds can put the two a hair apart.
                candidate = search.at_most(min(attempt.fmax_hz, candidate * (1 - _HAIR)))
                continue
            top = max(closed)
            above = search.at_least(top * (1 + STEP))
            if above is None or above in known:
                break
            # A seed may have shown more than one step.
            leap = search.at_most(known[top].fmax_hz)
            candidate = leap if leap > above and leap not in known else above
    best = known[top]
    chosen = next(seed for seed in best.seeds if seed.met)
    assert chosen.timing is not None
    return ClockSearch(
        plan=plan.at_clock(top),
        seed=chosen.seed,
        fmax_hz=chosen.timing.fmax_hz,
        survey=survey,
        attempts=tuple(known.values()),
        next_hz=above,
    )


class _Search:
    """The work of one search, in one scratch folder."""

    def __init__(
        self,
        network: Network,
        plan: Plan,
        seeds: tuple[int, ...],
        jobs: int,
        folder: Path,
        progress: Progress | None,
        report: SeedReport | None,
    ) -> None:
        self.network, self.plan, self.seeds, self.jobs = network, plan, seeds, jobs
        self.folder, self.progress, self.report = folder, progress, report
        self.board: Board = plan_board(plan)
        self.parts: CoreParts = core_parts(network, plan)
        self.core = core_verilog(network, plan, self.parts)
        # What the PLL makes and the UART's divisor allows.
        self.clocks = pll_clocks(self.board, plan.baud)

    def survey(self) -> ClockAttempt:
        """All seeds against a clock out of reach."""
        verilog, work, logs = self._files(self.plan, "survey")
        flow = Flow(verilog, self.board, work, logs, progress=self._labelled("survey"))
        flow.synthesise()
        clock = flow.find_clock()
        ambition = min(self.plan.clock_hz * _AMBITION, pll_clocks(self.board)[-1])
        clock = dataclasses.replace(clock, pll=self.board.pll_config(ambition))
        flow.constrain(clock)
        found = try_seeds(
            lambda seed, cancel: flow.route(seed, clock, cancel),
            self.seeds,
            jobs=self.jobs,
            every=True,
            report=self.report,
        )
        self._refuse_failed(found.values())
        met = any(seed.met for seed in found.values())
        return ClockAttempt(clock.pll.output_hz, tuple(found.values()), met)

    def attempt(self, clock_hz: float, *, must: bool) -> ClockAttempt:
        """Compile for a clock and build, seed after seed, until one meets it.

        must: raise ToolError where place and route ends without any result; else that is told.
        """
        plan = self.plan.at_clock(clock_hz)
        name = f"{clock_hz / 1e6:g} MHz"
        verilog, work, _ = self._files(plan, name.replace(" ", ""))
        found: dict[int, Seed] = {}

        def collect(seed: Seed) -> None:
            found[seed.seed] = seed
            if self.report is not None:
                self.report(seed)

        try:
            result = build_verilog(
                verilog,
                self.board,
                work / "build",
                clock_hz=plan.clock_hz,
                baud=plan.baud,
                seeds=self.seeds,
                jobs=self.jobs,
                progress=self._labelled(name),
                report=collect,
            )
        except TimingError as error:
            return ClockAttempt(clock_hz, error.seeds, False)
        except ToolError as error:
            if must:
                raise
            ran = [found[seed] for seed in self.seeds if seed in found]
            why = "" if isinstance(error, RouteError) else str(error)
            return ClockAttempt(clock_hz, tuple(ran), False, why)
        ran = [found[seed] for seed in self.seeds if seed in result.seeds or seed in result.failed]
        return ClockAttempt(clock_hz, tuple(ran), True)

    def at_least(self, clock_hz: float) -> float | None:
        """The lowest clock from here on; None where there is none."""
        return min((clock for clock in self.clocks if clock >= clock_hz), default=None)

    def at_most(self, clock_hz: float) -> float:
        """The highest clock up to here."""
        found = max((clock for clock in self.clocks if clock <= clock_hz), default=None)
        if found is None:
            raise PlanError(
                f"{self.network.name!r} reaches {clock_hz / 1e6:.2f} MHz on {self.board.name}, "
                f"which is less than its PLL can make at {self.plan.baud} baud: compile it for "
                "fewer images per second or another board"
            )
        return found

    def _files(self, plan: Plan, name: str) -> tuple[Path, Path, Path]:
        """Verilog of a plan, a work folder and one for logs."""
        work, logs = self.folder / name, self.folder / f"{name}-logs"
        work.mkdir()
        logs.mkdir()
        verilog = self.folder / f"{name}.v"
        text = accelerator_verilog(self.network, plan, self.parts, core=self.core)
        verilog.write_text(text)
        return verilog, work, logs

    def _labelled(self, name: str) -> Progress | None:
        progress = self.progress
        return None if progress is None else lambda line: progress(f"{name}: {line}")

    @staticmethod
    def _refuse_failed(found: Iterable[Seed]) -> None:
        errors = [seed.error for seed in found]
        if all(errors) and errors[0] is not None:
            raise errors[0]
