# SPDX-License-Identifier: BSD-2-Clause
"""Random networks under random plans: the core in Amaranth simulation against the reference.

    python -m xnorforge.sim.fuzz --count 10000 --jobs 2 --record build/fuzz.jsonl

Each seed is a network, a plan, a few images and stalls of its own. All scores and labels are
compared; where nothing stalls, every transfer's cycle is too. The features that networks and
plans had are counted, so that a run can tell what it covered.

A record has a line a seed, written when the seed has ended, so a run that was stopped goes on
where it was: seeds that passed with the very circuits, model and benches of today are not run
again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xnorforge.gen.assembly import CoreParts, core_parts
from xnorforge.gen.cycles import Timeline, timeline
from xnorforge.gen.errors import PlanError
from xnorforge.gen.layer_plan import LayerPlan
from xnorforge.gen.network import Network
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.gen.plan import Plan
from xnorforge.sim.core_bench import simulate_core
from xnorforge.sim.coverage import FEATURES, PLAN_FEATURES, coverage, plan_coverage
from xnorforge.sim.random_networks import random_images, random_network
from xnorforge.sim.random_plans import random_plan
from xnorforge.sw.protocol import CRC_BYTES

__all__ = [
    "Case",
    "Draw",
    "Record",
    "check",
    "coin",
    "draw",
    "fuzz",
    "main",
    "run_recorded",
    "sources_digest",
    "verdict",
]

_IMAGES = 3  # the least that show a steady pace
_BOUND = 400_000  # cycles
_WORK = 12_000  # cycles x circuits of a case: it takes half a second then
_PLANS = 4  # for a network before another is drawn


@dataclass(frozen=True)
class Case:
    """What one seed gave. failure: what differed, "" where nothing did."""

    seed: int
    features: frozenset[str]
    timed: bool
    failure: str = ""


@dataclass(frozen=True, eq=False)
class Draw:
    """A network, a plan and images. idle, stall: seeds of their patterns, None for none.
    predicted: the cycle of every transfer where nothing stalls. slot: of the model that the
    images go through."""

    seed: int
    network: Network
    plan: Plan
    parts: CoreParts
    predicted: Timeline
    images: np.ndarray
    idle: float | None
    stall: float | None
    slot: int

    @property
    def timed(self) -> bool:
        return self.idle is None

    @property
    def loads(self) -> bool:
        """Whether the model has to be loaded: it is not what the core powers up with."""
        return self.parts.must_load or self.slot > 0

    @property
    def features(self) -> frozenset[str]:
        found = coverage(self.network) | plan_coverage(self.network, self.plan)
        return found | {"every cycle compared" if self.timed else "random stalls"}


def draw(seed: int) -> Draw:
    """What a seed stands for: the first that it draws with a circuit, and one small enough."""
    generator, rng = np.random.default_rng(seed), random.Random(seed)
    while True:
        network = random_network(generator, side=6, channels=6, blocks=2)
        for _ in range(_PLANS):
            try:
                plan = random_plan(rng, network)
            except PlanError:
                break  # the network has no circuit: random_plan asks for its line buffers
            if _least_cycles(network, plan) * len(plan.layers) > _WORK:
                continue
            parts = core_parts(network, plan)
            predicted = timeline(parts, _IMAGES)
            if predicted.result[-1] * len(parts.stages) > _WORK:
                continue
            images = random_images(generator, network, _IMAGES)
            stalls = rng.random() < 0.5
            idle, stall = (rng.random(), rng.random()) if stalls else (None, None)
            slot = rng.randrange(plan.slots)
            return Draw(seed, network, plan, parts, predicted, images, idle, stall, slot)


def _least_cycles(network: Network, plan: Plan) -> int:
    """What all images take at least: those of the slowest engine."""
    engines = [layer.image_cycles for layer in plan.layers if isinstance(layer, LayerPlan)]
    return _IMAGES * max(engines, default=0)


def check(seed: int) -> Case:
    """Simulate the core of one seed and compare it with the reference."""
    case = draw(seed)
    wanted = evaluate(case.network, case.images)
    run = simulate_core(
        case.network,
        case.plan,
        wanted.input,
        idle=None if case.idle is None else coin(case.idle, 0.3),
        stall=None if case.stall is None else coin(case.stall, 0.3),
        bound=_BOUND,
        parts=case.parts,
        slot=case.slot,
        beside=_noise(case),
    )
    times = (run.image_times, run.result_times)
    return verdict(case, wanted.scores, wanted.labels, run.scores, run.labels, times)


def _noise(case: Draw) -> bytes:
    """A load that belongs to no model, for the slot that no image uses."""
    if case.plan.slots == 1:
        return b""
    return random.Random(case.seed).randbytes(len(case.parts.payload()) + CRC_BYTES)


def verdict(
    case: Draw,
    scores: np.ndarray,
    labels: np.ndarray,
    found_scores: np.ndarray,
    found_labels: np.ndarray,
    times: tuple[list[int], list[int]],
) -> Case:
    """What a simulation of a draw says: (scores, labels) are the reference's; times: of image
    beats and of results."""
    failure = ""
    if not np.array_equal(scores, found_scores):
        failure = "scores differ"
    elif not np.array_equal(labels, found_labels):
        failure = "labels differ"
    elif case.timed and times != (case.predicted.image, case.predicted.result):
        failure = "transfers in other cycles than predicted"
    return Case(case.seed, case.features, case.timed, failure)


def coin(seed: float, share: float) -> Iterator[bool]:
    """True with a probability, the same sequence for the same seed."""
    own = random.Random(seed)
    while True:
        yield own.random() < share


def fuzz(seeds: list[int], jobs: int) -> Iterator[Case]:
    """Cases of seeds, as they end. A seed that raises ends in a failure, too."""
    with ProcessPoolExecutor(jobs) as pool:
        waiting: dict[Future[Case], int] = {pool.submit(check, seed): seed for seed in seeds}
        for future in as_completed(waiting):
            seed = waiting.pop(future)
            error = future.exception()
            if error is None:
                yield future.result()
            else:
                yield Case(seed, frozenset(), False, f"{type(error).__name__}: {error}")


# --- the record ---------------------------------------------------------------------------------


def sources_digest(module: str) -> str:
    """What a result holds for: a digest of a module's source, of all it imports at the start, and
    of the data and C++ that lie beside them."""
    sha = hashlib.sha256()
    for name, path in sorted(_imported(module).items()):
        beside = re.findall(r'"(\w+_main\.cpp)"', path.read_text())
        data = sorted((path.parent / "data").glob(f"{path.stem}.*"))
        for file in (path, *data, *map(path.with_name, beside)):
            sha.update(f"{name} {file.name}\0".encode() + file.read_bytes())
    return sha.hexdigest()[:16]


def _imported(module: str) -> dict[str, Path]:
    """The project's modules that a module needs, itself among them."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        spec = importlib.util.find_spec(name)
        if name in found or spec is None or spec.origin is None:
            continue
        found[name] = Path(spec.origin)
        text = found[name].read_text()
        pattern = r"^from (xnorforge\.\w+)(\.[\w.]+)? import (.*)"
        for package, below, names in re.findall(pattern, text, re.MULTILINE):
            modules = [below] if below else [f".{x}" for x in re.findall(r"\w+", names)]
            waiting += [package + module for module in modules]
    return found


class Record:
    """Cases in a file, a line each, as the seeds end.

    path: None keeps them in memory alone. digest: of the sources that they were run with; lines of
    other sources stay in the file and count for nothing.
    """

    def __init__(self, path: Path | None, digest: str | None = None) -> None:
        self.path = path
        self.digest = digest or sources_digest("xnorforge.sim.fuzz")
        self.cases: dict[int, Case] = {}
        if path is not None and path.is_file():
            for line in path.read_text().splitlines():
                item = json.loads(line)
                if item["sources"] == self.digest:
                    features = frozenset(item["features"])
                    case = Case(item["seed"], features, item["timed"], item["failure"])
                    self.cases[case.seed] = case

    def missing(self, first: int, count: int) -> list[int]:
        """Seeds that have not passed yet."""
        seeds = range(first, first + count)
        return [seed for seed in seeds if seed not in self.cases or self.cases[seed].failure]

    def add(self, case: Case) -> None:
        self.cases[case.seed] = case
        if self.path is None:
            return
        item = {
            "seed": case.seed,
            "sources": self.digest,
            "timed": case.timed,
            "failure": case.failure,
            "features": sorted(case.features),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(item) + "\n")

    def of(self, first: int, count: int) -> list[Case]:
        """The cases of a range of seeds, as far as they have been run."""
        seeds = range(first, first + count)
        return [self.cases[seed] for seed in seeds if seed in self.cases]


def run_recorded(cases: Iterator[Case], record: Record, count: int) -> None:
    """Put cases into a record as they end, and say on the way how many there are."""
    for done, case in enumerate(cases, 1):
        record.add(case)
        if case.failure:
            print(f"seed {case.seed}: {case.failure}", file=sys.stderr)
        if done % 25 == 0 or done == count:
            print(f"\r{done} of {count}", end="", file=sys.stderr, flush=True)
    if count:
        print(file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--record", type=Path, help="the file to go on from and to write")
    parser.add_argument(
        "--verilator", type=int, metavar="GRAPHS", help="as Verilog in Verilator, so many a build"
    )
    options = parser.parse_args(arguments)
    if options.verilator is None:
        record = Record(options.record)
        seeds = record.missing(options.first, options.count)
        run_recorded(fuzz(seeds, options.jobs), record, len(seeds))
    else:
        from xnorforge.sim import fuzz_verilog

        record = Record(options.record, sources_digest(fuzz_verilog.__name__))
        seeds = record.missing(options.first, options.count)
        run_recorded(fuzz_verilog.fuzz_verilog(seeds, options.verilator), record, len(seeds))
    cases = record.of(options.first, options.count)
    seen = Counter(feature for case in cases for feature in case.features)
    known = sorted(FEATURES | PLAN_FEATURES)
    width = max(map(len, known))
    for feature in known:
        print(f"{feature:{width}}  {seen[feature]:6}")
    failures = sum(bool(case.failure) for case in cases)
    print(
        f"{len(cases)} networks, {sum(case.timed for case in cases)} with every transfer's cycle "
        f"compared, {failures} failures; the rarest feature was met "
        f"{min(seen[feature] for feature in known)} times"
    )
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
