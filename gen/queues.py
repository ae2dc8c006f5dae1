# SPDX-License-Identifier: BSD-2-Clause
"""Depths of the queues behind values that several layers take.

Where paths part and join again, the shorter one must hold what the longer one has not given yet.
More room never makes a transfer later (the cycle model only adds maxima), so each queue has a
least depth at which the core keeps the pace it has with queues of any depth, and a least one at
which it does not lock; both are found by bisection on the exact model, queue after queue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from xnorforge.gen.assembly import CoreParts, core_parts
from xnorforge.gen.cycles import paced_interval, predict
from xnorforge.gen.errors import PlanError
from xnorforge.gen.layer_plan import ForkPlan
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.hw.fork import ForkConfig
from xnorforge.hw.store import FAMILIES

__all__ = ["least_depths", "with_deep_queues", "with_queues"]

_SHALLOW = 2  # a beat a cycle
_REGISTERS = 4  # beats up to which a queue is made of registers
_LUT_RAM = 64  # and of LUT RAM, where there is any


def with_deep_queues(network: Network, plan: Plan) -> Plan:
    """The plan with a fork for every value of several consumers, its queues of any depth."""
    shared = {name: takers for name, takers in network.consumers().items() if len(takers) > 1}
    forks = tuple(
        # A whole value and more: no path can need it.
        _fork(name, (2 * network.type_of(name).size + 2,) * len(takers), plan.family)
        for name, takers in shared.items()
    )
    return replace(plan, forks=forks)


def with_queues(network: Network, plan: Plan) -> Plan:
    """The plan with a fork for every value of several consumers, of queues that cost no time."""
    deep_plan = with_deep_queues(network, plan)
    if not deep_plan.forks:
        return plan
    deep = core_parts(network, deep_plan)
    pace = predict(deep).interval_cycles
    found = _least(deep, plan.family, lambda parts: _keeps(parts, pace))
    forks = tuple(_fork(fork.value, found[fork.value], plan.family) for fork in deep_plan.forks)
    return replace(plan, forks=forks)


def least_depths(network: Network, plan: Plan) -> dict[str, tuple[int, ...]]:
    """By value the least depths at which the core does not lock, whatever its sink does.

    Whether anything can move depends on counts of beats alone, not on when they come, so a core
    that gives its results with one sink gives them with any.
    """
    parts = core_parts(network, plan)
    return _least(parts, plan.family, lambda parts: _interval(parts) is not None)


def _least(
    parts: CoreParts, family: str, works: Callable[[CoreParts], bool]
) -> dict[str, tuple[int, ...]]:
    """Least depths of all forks, one queue after the other made as shallow as the rest allows."""
    found = {}
    for stage, config in enumerate(parts.stages):
        if not isinstance(config, ForkConfig):
            continue
        for branch in range(len(config.depths)):
            high = config.depths[branch]
            low = min(_SHALLOW, high)
            while low < high:
                # The least depth lies in low .. high; the shallow end first: it often will do.
                middle = low if low == _SHALLOW and high > 2 * low else (low + high) // 2
                candidate = _with_depth(parts, stage, branch, middle, family)
                if works(candidate):
                    high = middle
                else:
                    low = middle + 1
            parts = _with_depth(parts, stage, branch, high, family)
            config = parts.stages[stage]
            assert isinstance(config, ForkConfig)
        found[parts.owners[stage]] = config.depths
    return found


def _with_depth(parts: CoreParts, stage: int, branch: int, depth: int, family: str) -> CoreParts:
    config = parts.stages[stage]
    assert isinstance(config, ForkConfig)
    depths = (*config.depths[:branch], depth, *config.depths[branch + 1 :])
    fork = _fork("", depths, family).config(config.width)
    return replace(parts, stages=(*parts.stages[:stage], fork, *parts.stages[stage + 1 :]))


def _fork(value: str, depths: tuple[int, ...], family: str) -> ForkPlan:
    def store(depth: int) -> str:
        if depth <= _REGISTERS:
            return "registers"
        return "lut" if FAMILIES[family].lut_ram and depth <= _LUT_RAM else "block"

    return ForkPlan(value, depths, tuple(store(depth) for depth in depths))


def _keeps(parts: CoreParts, pace: Fraction) -> bool:
    """Whether an image takes no more cycles than these."""
    found = paced_interval(parts, pace)
    if found is None:  # locked, or too near to tell within a few images
        found = _interval(parts)
    return found == pace


def _interval(parts: CoreParts) -> Fraction | None:
    """Steady cycles an image, None where the core locks."""
    try:
        return predict(parts).interval_cycles
    except PlanError:
        return None
