# SPDX-License-Identifier: BSD-2-Clause
"""Queues where paths part and join: at their depth full pace, one less slower or locked."""

from dataclasses import replace

import numpy as np
import pytest

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.cycles import predict, timeline
from xnorforge.gen.errors import PlanError
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.gen.plan import ForkPlan
from xnorforge.gen.planner import make_plan
from xnorforge.gen.queues import least_depths
from xnorforge.sim.bench import ProtocolError, random_stalls
from xnorforge.sim.core_bench import simulate_core
from xnorforge.sim.random_networks import random_images, random_network

# Seeds of networks with a queue that must be deep.
SEEDS = (0, 2, 10, 26)


def case(seed):
    generator = np.random.default_rng(seed)
    network = random_network(generator, side=6, channels=6, blocks=2)
    plan = make_plan(network, device="ecp5-25f", goal="max")
    return network, plan, random_images(generator, network, 5)


def with_depth(plan, value, branch, depth):
    forks = []
    for fork in plan.forks:
        if fork.value == value:
            depths = (*fork.depths[:branch], depth, *fork.depths[branch + 1 :])
            fork = ForkPlan(value, depths, fork.stores)
        forks.append(fork)
    return replace(plan, forks=tuple(forks))


def deepest(plan):
    depth, value, branch = max(
        (depth, fork.value, branch)
        for fork in plan.forks
        for branch, depth in enumerate(fork.depths)
    )
    return value, branch, depth


@pytest.mark.parametrize("seed", SEEDS)
def test_planned_depths_keep_the_pace_and_one_less_does_not(seed) -> None:
    network, plan, images = case(seed)
    value, branch, depth = deepest(plan)
    assert depth > 2
    pace = predict(core_parts(network, plan)).interval_cycles
    deeper = with_depth(plan, value, branch, depth + 20)
    assert predict(core_parts(network, deeper)).interval_cycles == pace
    shallow = with_depth(plan, value, branch, depth - 1)
    parts = core_parts(network, shallow)
    assert predict(parts).interval_cycles > pace
    wanted = evaluate(network, images)
    run = simulate_core(network, shallow, wanted.input, parts=parts)
    assert np.array_equal(run.scores, wanted.scores)
    assert timeline(parts, len(images)).result == run.result_times


@pytest.mark.parametrize("seed", SEEDS)
def test_results_are_right_under_any_stalls(seed) -> None:
    network, plan, images = case(seed)
    wanted = evaluate(network, images)
    stall = random_stalls(0.5, seed)
    run = simulate_core(network, plan, wanted.input, stall=stall, bound=400_000)
    assert np.array_equal(run.scores, wanted.scores)


@pytest.mark.parametrize("seed", [2])
def test_below_the_least_depth_the_core_locks_as_predicted(seed) -> None:
    network, plan, images = case(seed)
    least = least_depths(network, plan)
    value, branch, _ = deepest(plan)
    depth = least[value][branch]
    assert depth > 2
    enough = with_depth(plan, value, branch, depth)
    wanted = evaluate(network, images)
    run = simulate_core(network, enough, wanted.input)
    assert np.array_equal(run.scores, wanted.scores)
    locked = with_depth(plan, value, branch, depth - 1)
    with pytest.raises(PlanError, match="queues of this plan lock"):
        predict(core_parts(network, locked))
    with pytest.raises(ProtocolError, match="Not done"):
        simulate_core(network, locked, wanted.input, bound=20_000)
