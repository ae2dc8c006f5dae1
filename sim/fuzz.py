# SPDX-License-Identifier: BSD-2-Clause
"""Random networks under random plans: the core in Amaranth simulation against the reference.

    python -m xnorforge.sim.fuzz --count 10000 --jobs 2

Each seed is a network, a plan, a few images and stalls of its own. All scores and labels are
compared; where nothing stalls, every transfer's cycle is too. The features that the networks had
are counted, so that a run can tell what it covered.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.cycles import timeline
from xnorforge.gen.errors import PlanError
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.sim.core_bench import simulate_core
from xnorforge.sim.coverage import FEATURES, coverage
from xnorforge.sim.random_networks import random_images, random_network
from xnorforge.sim.random_plans import random_plan

__all__ = ["Case", "check", "fuzz"]

_IMAGES = 3
_BOUND = 400_000  # cycles


@dataclass(frozen=True)
class Case:
    """What one seed gave. failure: what differed, "" where nothing did. refused: why there is no
    circuit for its network, "" where there is one."""

    seed: int
    features: frozenset[str]
    timed: bool
    failure: str = ""
    refused: str = ""


def check(seed: int) -> Case:
    """Simulate the core of one seed and compare it with the reference."""
    generator, rng = np.random.default_rng(seed), random.Random(seed)
    network = random_network(generator, side=6, channels=6, blocks=2)
    try:
        plan = random_plan(rng, network)
    except PlanError as error:
        return Case(seed, frozenset(), False, refused=str(error))
    images = random_images(generator, network, _IMAGES)
    wanted = evaluate(network, images)
    parts = core_parts(network, plan)
    stalls = rng.random() < 0.5
    run = simulate_core(
        network,
        plan,
        wanted.input,
        idle=_coin(rng, 0.3) if stalls else None,
        stall=_coin(rng, 0.3) if stalls else None,
        bound=_BOUND,
        parts=parts,
    )
    failure = ""
    if not np.array_equal(run.scores, wanted.scores):
        failure = "scores differ"
    elif not np.array_equal(run.labels, wanted.labels):
        failure = "labels differ"
    elif not stalls:
        predicted = timeline(parts, _IMAGES)
        if predicted.image != run.image_times or predicted.result != run.result_times:
            failure = "transfers in other cycles than predicted"
    return Case(seed, coverage(network), not stalls, failure)


def _coin(rng: random.Random, share: float) -> Iterator[bool]:
    own = random.Random(rng.random())
    while True:
        yield own.random() < share


def fuzz(first: int, count: int, jobs: int) -> Iterator[Case]:
    """Cases of so many seeds, as they end. A seed that raises ends in a failure, too."""
    with ProcessPoolExecutor(jobs) as pool:
        waiting = {pool.submit(check, seed): seed for seed in range(first, first + count)}
        for future in as_completed(waiting):
            seed = waiting[future]
            error = future.exception()
            if error is None:
                yield future.result()
            else:
                yield Case(seed, frozenset(), False, f"{type(error).__name__}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    seen: Counter[str] = Counter()
    failures, timed, refused = [], 0, 0
    for done, case in enumerate(fuzz(options.first, options.count, options.jobs), 1):
        seen.update(case.features)
        timed += case.timed
        refused += bool(case.refused)
        if case.failure:
            failures.append(case)
            print(f"seed {case.seed}: {case.failure}", file=sys.stderr)
        if done % 50 == 0 or done == options.count:
            print(f"\r{done} of {options.count}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    width = max(map(len, FEATURES))
    for feature in sorted(FEATURES):
        print(f"{feature:{width}}  {seen[feature]:6}")
    print(
        f"{options.count} networks, {timed} with every transfer's cycle compared, "
        f"{refused} refused, {len(failures)} failures; the rarest feature was met "
        f"{min(seen[feature] for feature in FEATURES)} times"
    )
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
