# SPDX-License-Identifier: BSD-2-Clause
"""The fastest plan that a board really holds: `goal="max"` proved by builds.

    the planner's answer --> build --+-- fits, routes, closes --> a faster one
                                     +-- fails -----------------> a slower one

until one plan builds and the next faster one does not. Between the two the search halves the
distance. The resource model only says where to begin, so its error costs builds, never the
answer. Every step of a build is kept (`gen.build_cache`): a search that was cut off goes on where
it stopped, and a build of what it found is done already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.boards import plan_board
from xnorforge.gen.build import DEFAULT_SEEDS, TimingError, build_verilog
from xnorforge.gen.build_result import BuildResult
from xnorforge.gen.cycles import predict
from xnorforge.gen.errors import OverfullError, PlanError, RouteError
from xnorforge.gen.ladder import Ladder
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.gen.tools import Progress
from xnorforge.gen.verilog import accelerator_verilog

__all__ = ["MaxAttempt", "MaxSearch", "fastest_build"]


@dataclass(frozen=True)
class MaxAttempt:
    """What came of one plan. interval_cycles: cycles an image. result: of its build; None where
    that failed, and `why` says how."""

    plan: Plan
    interval_cycles: float
    result: BuildResult | None
    why: str = ""

    @property
    def images_per_second(self) -> float:
        return self.plan.clock_hz / self.interval_cycles

    def __str__(self) -> str:
        end = f"closes, {self.result.fmax_hz / 1e6:.2f} MHz" if self.result else self.why
        return f"{self.images_per_second:,.0f} images/s ({self.interval_cycles:g} cycles): {end}"

    def to_json(self) -> dict[str, Any]:
        return {
            "interval_cycles": self.interval_cycles,
            "images_per_second": self.images_per_second,
            "folds": [layer.folds for layer in self.plan.layers],
            "why": self.why,
            "used": self.result.used if self.result else None,
            "available": self.result.available if self.result else None,
            "fmax_hz": self.result.fmax_hz if self.result else None,
        }


@dataclass(frozen=True)
class MaxSearch:
    """What a search found.

    best: the fastest plan that builds. above: the next faster one, which does not; None where
    there is none. planned: where it began, the planner's own answer if it has one. attempts:
    everything built, in turn.
    """

    best: MaxAttempt
    above: MaxAttempt | None
    planned: Plan
    attempts: tuple[MaxAttempt, ...]

    @property
    def plan(self) -> Plan:
        return self.best.plan

    @property
    def seed(self) -> int:
        """The placement seed that the fastest plan closed with."""
        assert self.best.result is not None
        return self.best.result.seed

    def __str__(self) -> str:
        step = f"one step up, {self.above}" if self.above else "no fold is faster"
        return f"{self.best}; {step}"

    def to_json(self) -> dict[str, Any]:
        return {
            "best": self.best.to_json(),
            "above": self.above.to_json() if self.above else None,
            "planned_folds": [layer.folds for layer in self.planned.layers],
            "attempts": [attempt.to_json() for attempt in self.attempts],
        }


def fastest_build(
    network: Network,
    board: str,
    work: Path,
    *,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    jobs: int | None = None,
    progress: Progress | None = None,
    attempted: Callable[[MaxAttempt], None] | None = None,
    **settings: Any,
) -> MaxSearch:
    """Find the fastest plan of a network that builds on a board.

    work: folder for the builds. seeds: all are given a chance before a plan counts as one that
    does not close. settings: as of `make_plan` (clock_hz, baud, overrides, weights). attempted:
    is told of every plan built.
    Raises PlanError where the planner finds no plan at all or none builds, and whatever else ends
    a build, like a full disk: that says nothing about the plan.
    """
    ladder = Ladder(network, board=board, **settings)
    attempts: dict[int, MaxAttempt] = {}

    def attempt(rung: int) -> MaxAttempt:
        rung = ladder.settle(rung)
        if rung not in attempts:
            attempts[rung] = _attempt(network, ladder.plan(rung), work, seeds, jobs, progress)
            if attempted is not None:
                attempted(attempts[rung])
        return attempts[rung]

    # `good` builds. Rungs up to `bad` fail, or are beyond what the model holds possible.
    good, bad = ladder.planned, min(ladder.planned, ladder.largest) - 1
    step = 1
    while attempt(good).result is None:
        if good == len(ladder) - 1:
            raise PlanError(
                f"No plan of {network.name!r} builds on {board}; the smallest: {attempt(good).why}"
            )
        bad, good = good, min(good + step, len(ladder) - 1)
        step *= 2
    good = ladder.settle(good)
    above = None
    while good > 0:
        if good - bad <= 1:
            above = attempt(good - 1)
            if above.result is None:
                break
            good, above = ladder.settle(good - 1), None
            bad = good - 1
        else:
            middle = (good + bad) // 2
            if attempt(middle).result is None:
                bad = middle
            else:
                good = ladder.settle(middle)
    return MaxSearch(
        best=attempt(good),
        above=above,
        planned=ladder.plan(ladder.planned),
        attempts=tuple(attempts.values()),
    )


def _attempt(
    network: Network,
    plan: Plan,
    work: Path,
    seeds: Sequence[int],
    jobs: int | None,
    progress: Progress | None,
) -> MaxAttempt:
    """Compile and build one plan."""
    parts = core_parts(network, plan)
    interval = float(predict(parts).interval_cycles)
    # Several plans may take as many cycles.
    folder = work / f"{interval:.0f}-cycles-{plan.structure_hash(network):08x}"
    folder.mkdir(parents=True, exist_ok=True)
    verilog = folder / "accelerator.v"
    verilog.write_text(accelerator_verilog(network, plan, parts))
    try:
        result = build_verilog(
            verilog,
            plan_board(plan),
            folder / "build",
            clock_hz=plan.clock_hz,
            baud=plan.baud,
            seeds=seeds,
            jobs=jobs,
            progress=progress,
        )
    except TimingError as error:
        clock = plan.clock_hz / 1e6
        lost = [seed for seed in error.seeds if not seed.decided]
        more = f" ({len(lost)} of {len(error.seeds)} seeds not decided)" if lost else ""
        why = f"closes at {error.fmax_hz / 1e6:.2f} MHz at best, not at {clock:g} MHz{more}"
        return MaxAttempt(plan, interval, None, why)
    except OverfullError as error:
        return MaxAttempt(plan, interval, None, str(error))
    except RouteError as error:
        # Its log goes with the folder of the search.
        return MaxAttempt(plan, interval, None, error.brief)
    return MaxAttempt(plan, interval, result)
