# SPDX-License-Identifier: BSD-2-Clause
"""Queues where paths part and join, in three residual graphs of different shape: at the planned
depth full pace, under any stalls, and with one place less slower or locked, as predicted."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import cycle

import numpy as np
import pytest

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.cycles import predict, timeline
from xnorforge.gen.errors import PlanError
from xnorforge.gen.layers import Add, Conv, Dense, Layer, Threshold, ValueType
from xnorforge.gen.network import Head, Input, Network
from xnorforge.gen.numpy_reference import Evaluation, evaluate
from xnorforge.gen.plan import Plan
from xnorforge.gen.planner import make_plan
from xnorforge.gen.queues import least_depths
from xnorforge.hw.geometry import Window
from xnorforge.sim.bench import ProtocolError, random_stalls
from xnorforge.sim.core_bench import CoreRun, simulate_core
from xnorforge.sim.random_networks import random_images

IMAGES = 4
SAME = Window((3, 3), pads=(1, 1, 1, 1))


class Layers:
    """A network in the making; methods give the name of the layer that they add."""

    def __init__(self, spec: Input) -> None:
        self.rng = np.random.default_rng(spec.value.size)
        self.spec = spec
        self.layers: list[Layer] = []
        self.types = {"input": spec.value}

    def put(self, layer: Layer) -> str:
        self.layers.append(layer)
        self.types[layer.name] = layer.output
        return layer.name

    def weights(self, *shape: int) -> np.ndarray:
        return self.rng.choice(np.array([-1, 1], np.int8), shape)

    def conv(self, at: str, rows: int, window: Window = SAME, *, bits: bool = True) -> str:
        """bits: with thresholds, otherwise it gives its sums."""
        source = self.types[at]
        weights = self.weights(rows, *window.kernel, source.channels)
        borders = window.over(*source.shape[:2]).borders
        bank = np.tile(self.rng.integers(-3, 4, rows), (borders, 1, 1)) if bits else None
        name = f"conv{len(self.layers)}"
        return self.put(
            Conv(name, source, weights, bank, window, pad_value=source.low, inputs=(at,))
        )

    def join(self, *names: str) -> str:
        """The sum of paths, with thresholds."""
        sources = tuple(self.types[name] for name in names)
        channels = sources[0].channels
        ones, zeros = np.ones((len(names), channels), np.int64), np.zeros(channels, np.int64)
        at = self.put(Add(f"add{len(self.layers)}", sources, ones, zeros, names))
        source = self.types[at]
        bank, sign = self.rng.integers(-3, 4, (1, channels)), np.ones(channels, np.int8)
        return self.put(Threshold(f"threshold{len(self.layers)}", source, bank, sign, (at,)))

    def network(self, at: str) -> Network:
        source = self.types[at]
        self.put(Dense("dense", source, self.weights(3, source.size), None, inputs=(at,)))
        return Network("residual", self.spec, tuple(self.layers), Head())


def block() -> Network:
    """x + conv(conv(x)): two line buffers on the long path."""
    layers = Layers(Input(ValueType("bit", 1, (6, 5, 4)), "uint8", 128))
    x = layers.conv("input", 4)
    return layers.network(layers.join(x, layers.conv(layers.conv(x, 4), 4, bits=False)))


def nested() -> Network:
    """x + conv(y + conv(y)) with y = conv(x): a queue past a block with a queue of its own."""
    layers = Layers(Input(ValueType("bit", 1, (5, 5, 3)), "uint8", 128))
    y = layers.conv("input", 3)
    z = layers.join(y, layers.conv(y, 3, bits=False))
    return layers.network(layers.join("input", layers.conv(z, 3, bits=False)))


def three() -> Network:
    """x + 1x1 conv(x) + 3x3 conv(x): three paths of different length behind one value."""
    layers = Layers(Input(ValueType("uint", 2, (6, 6, 2)), "uint8"))
    x = layers.conv("input", 4, Window((2, 2)))
    short, long = (layers.conv(x, 4, window, bits=False) for window in (Window((1, 1)), SAME))
    return layers.network(layers.join(x, short, long))


GRAPHS = (block, nested, three)


@cache
def planned(graph) -> tuple[Network, Plan, Evaluation]:
    network = graph()
    plan = make_plan(network, device="ecp5-25f", goal="max")
    images = random_images(np.random.default_rng(7), network, IMAGES)
    return network, plan, evaluate(network, images)


def with_depth(plan: Plan, value: str, branch: int, depth: int) -> Plan:
    forks = []
    for fork in plan.forks:
        if fork.value == value:
            depths = (*fork.depths[:branch], depth, *fork.depths[branch + 1 :])
            stores = ("lut",) * len(depths)
            fork = replace(fork, depths=depths, stores=stores)
        forks.append(fork)
    return replace(plan, forks=tuple(forks))


def deeper(plan: Plan, by: int) -> Plan:
    for fork in plan.forks:
        for branch, depth in enumerate(fork.depths):
            plan = with_depth(plan, fork.value, branch, depth + by)
    return plan


def queues(plan: Plan) -> list[tuple[str, int, int]]:
    """Value, branch and depth of every queue that must be deep."""
    return [
        (fork.value, branch, depth)
        for fork in plan.forks
        for branch, depth in enumerate(fork.depths)
        if depth > 2
    ]


def simulate(network: Network, plan: Plan, wanted: Evaluation, **stalls) -> CoreRun:
    run = simulate_core(network, plan, wanted.input, bound=60_000, **stalls)
    assert np.array_equal(run.scores, wanted.scores)
    return run


def lasts(network: Network, times: list[int]) -> list[int]:
    return times[network.classes - 1 :: network.classes]


@pytest.mark.parametrize("graph", GRAPHS)
def test_planned_depths_keep_the_pace_of_queues_of_any_depth(graph) -> None:
    network, plan, wanted = planned(graph)
    assert queues(plan)
    parts, free = core_parts(network, plan), core_parts(network, deeper(plan, 200))
    assert predict(parts).interval_cycles == predict(free).interval_cycles
    run = simulate(network, plan, wanted)
    predicted = timeline(parts, IMAGES)
    assert (run.image_times, run.result_times) == (predicted.image, predicted.result)


@pytest.mark.parametrize("graph", GRAPHS)
def test_planned_depths_keep_the_pace_under_random_stalls(graph) -> None:
    network, plan, wanted = planned(graph)
    pace = predict(core_parts(network, plan)).interval_cycles
    undisturbed = timeline(core_parts(network, plan), IMAGES).result
    for idle, stall in ((0.3, 0.3), (0.1, 0.7)):
        taken = []
        for candidate in (plan, deeper(plan, 200)):
            stalls = {"idle": random_stalls(idle, 1), "stall": random_stalls(stall, 2)}
            taken.append(simulate(network, candidate, wanted, **stalls).result_times)
        planned_times, free_times = taken
        for alone, free, at in zip(undisturbed, free_times, planned_times, strict=True):
            assert alone <= free <= at
        # Neither source nor sink is the narrow place: what they stall is not added up, and makes
        # only the last results of an image come some cycles sooner or later.
        ends = lasts(network, planned_times)
        assert abs(ends[-1] - ends[1] - pace * (IMAGES - 2)) <= 25


@pytest.mark.parametrize("graph", GRAPHS)
def test_one_place_less_is_slower_or_locks_as_predicted(graph) -> None:
    network, plan, wanted = planned(graph)
    pace = predict(core_parts(network, plan)).interval_cycles
    for value, branch, depth in queues(plan):
        shallow = with_depth(plan, value, branch, depth - 1)
        parts = core_parts(network, shallow)
        try:
            slower = predict(parts).interval_cycles
        except PlanError as error:
            assert "queues of this plan lock" in str(error)
            with pytest.raises(ProtocolError, match="Not done"):
                simulate_core(network, shallow, wanted.input, bound=5_000)
            continue
        assert slower > pace
        run = simulate(network, shallow, wanted)
        predicted = timeline(parts, IMAGES)
        assert (run.image_times, run.result_times) == (predicted.image, predicted.result)
        assert run.result_times[-1] > timeline(core_parts(network, plan), IMAGES).result[-1]


@pytest.mark.parametrize("graph", GRAPHS)
def test_at_the_least_depths_no_stalls_of_the_sink_lock_the_core(graph) -> None:
    network, plan, wanted = planned(graph)
    for value, depths in least_depths(network, plan).items():
        for branch, depth in enumerate(depths):
            plan = with_depth(plan, value, branch, depth)
    late = [True] * 1_500 + [False] * 20_000
    for stall in (late, cycle([True, True, True, False]), random_stalls(0.9, 3)):
        simulate(network, plan, wanted, stall=stall)


@pytest.mark.parametrize("graph", GRAPHS)
def test_below_the_least_depths_the_core_locks_as_predicted(graph) -> None:
    network, plan, wanted = planned(graph)
    least = least_depths(network, plan)
    value, branch, depth = max(
        (
            (value, branch, depth)
            for value, depths in least.items()
            for branch, depth in enumerate(depths)
        ),
        key=lambda queue: queue[2],
    )
    assert depth > 2
    for name, depths in least.items():
        for other, enough in enumerate(depths):
            plan = with_depth(plan, name, other, enough)
    locked = with_depth(plan, value, branch, depth - 1)
    with pytest.raises(PlanError, match="queues of this plan lock"):
        predict(core_parts(network, locked))
    with pytest.raises(ProtocolError, match="Not done"):
        simulate_core(network, locked, wanted.input, bound=5_000)
