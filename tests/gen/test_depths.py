# SPDX-License-Identifier: BSD-2-Clause
"""Line buffers: the least memory at which a plan keeps its pace, less if there is no more."""

from dataclasses import replace

import numpy as np
import pytest

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.cycles import predict, timeline
from xnorforge.gen.depths import line_buffers
from xnorforge.gen.errors import PlanError
from xnorforge.gen.layers import Conv, Dense, ValueType
from xnorforge.gen.network import Head, Input, Network
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.gen.planner import make_plan, planner_for
from xnorforge.gen.resources import block
from xnorforge.hw.geometry import Window
from xnorforge.sim.core_bench import simulate_core
from xnorforge.sim.random_networks import random_images


def conv_net(side: int, *channels: int, strides: tuple[int, ...] = (), classes: int = 4) -> Network:
    """Binary 3x3 convolutions, one behind the other, and a dense layer."""
    rng = np.random.default_rng(side)
    value = source = ValueType("bit", 1, (side, side, channels[0]))
    layers = []
    for index, rows in enumerate(channels[1:]):
        weights = rng.choice(np.array([-1, 1], np.int8), (rows, 3, 3, value.shape[2]))
        stride = strides[index] if strides else 1
        window = Window((3, 3), (stride, stride))
        thresholds = np.zeros(rows, np.int64)
        layers.append(Conv(f"conv{index}", value, weights, thresholds, window))
        value = layers[-1].output
    weights = rng.choice(np.array([-1, 1], np.int8), (classes, value.size))
    layers.append(Dense("dense", value, weights, None))
    return Network("maps", Input(source, threshold=128), tuple(layers), Head())


def interval(network: Network, plan) -> float:
    return float(predict(core_parts(network, plan)).interval_cycles)


def with_window(plan, name, window):
    layers = tuple(
        replace(layer, window=window) if layer.name == name else layer for layer in plan.layers
    )
    return replace(plan, layers=layers)


def memory(layer, window, family) -> tuple[int, int]:
    used = block(window.config(layer, family), family)
    return used.blocks, used.lut_rams


# Two convolutions of nearly equal speed, so that the second one's line buffer matters: network,
# folding, and how many block RAMs its buffer takes where 1 % and where 30 % of the time is spare.
CASES = {
    "30x30": (conv_net(32, 8, 64, 16), ((1, 72), (16, 8)), (2, 1)),
    "14x14": (conv_net(16, 8, 128, 8), ((2, 72), (8, 16)), (2, 1)),
    "32x32": (conv_net(34, 8, 96, 8), ((1, 72), (8, 8)), (3, 2)),
}


def folding(folds) -> dict[str, dict[str, int]]:
    return {f"conv{n}": {"pe": pe, "simd": simd} for n, (pe, simd) in enumerate(folds)}


def planned(name: str, slack: float):
    """A plan for a little more time than it needs with line buffers that cost none."""
    network, folds, _ = CASES[name]
    overrides = folding(folds)
    device = "ice40-up5k"
    fast = planner_for(network, device=device, overrides=overrides)
    deep = fast.search.deep(None)
    wanted = int(slack * deep.fold_cycles)
    rate = fast.site.clock_hz / wanted
    return make_plan(network, device=device, overrides=overrides, fps=rate), wanted


@pytest.mark.parametrize("family", ["ice40", "ecp5", "gowin"])
@pytest.mark.parametrize("name", CASES)
def test_line_buffers_are_the_deepest_of_their_memory(name: str, family: str) -> None:
    layer = CASES[name][0].layers[1]
    for lanes in (1, 8, 64):
        if layer.source.channels % lanes:
            continue
        found = line_buffers(layer, lanes, family)
        config = found[0].config(layer, family)
        assert found[0].depth >= config.min_depth
        assert found[-1].depth >= config.bubble_free_depth
        sizes = [memory(layer, window, family) for window in found]
        assert len(set(sizes)) == len(sizes)
        for window, size in zip(found[:-1], sizes[:-1], strict=True):
            deeper = replace(window, depth=window.depth + 1)
            assert memory(layer, deeper, family) != size


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("spare", [0, 1])
def test_planned_depths_keep_the_pace_and_a_block_less_does_not(name: str, spare: int) -> None:
    network, _, blocks = CASES[name]
    plan, wanted = planned(name, (1.01, 1.3)[spare])
    assert interval(network, plan) <= wanted
    layer, window = network.layers[1], plan.layers[1].window
    assert memory(layer, window, plan.family)[0] == blocks[spare]
    options = line_buffers(layer, window.lanes, plan.family)
    at = options.index(window)
    if at:
        less = with_window(plan, layer.name, options[at - 1])
        assert memory(layer, options[at - 1], plan.family)[0] == blocks[spare] - 1
        assert interval(network, less) > wanted
    else:
        assert memory(layer, replace(window, depth=window.depth + 1), plan.family)[0] > 1
    reason = dict(plan.reasons)["conv1.lines"]
    assert f"{window.depth} pixels" in reason
    assert ("an image would take" in reason) == (at > 0)


def test_line_buffers_are_shallow_where_any_speed_will_do() -> None:
    network, folds, _ = CASES["14x14"]
    plan = make_plan(network, device="ice40-up5k", overrides=folding(folds), goal="min")
    for layer, layer_plan in zip(network.layers[:2], plan.layers[:2], strict=True):
        options = line_buffers(layer, layer_plan.window.lanes, plan.family)
        assert layer_plan.window == options[0]


@pytest.mark.parametrize("lacking", [1, 2])
def test_what_does_not_fit_otherwise_gets_shallow_line_buffers(lacking: int) -> None:
    network, folds, _ = CASES["32x32"]
    planner = planner_for(network, device="ice40-up5k", overrides=folding(folds))
    deep = planner.search.deep(None)
    room = replace(deep.resources, blocks=deep.resources.blocks - lacking, cells=5_000)
    planner.room, planner.search = room, planner.search.within(room)
    chain = planner.search.best(deep.fold_cycles)
    assert chain.shallow
    assert chain.resources.fits(room)
    plan = planner.plan(chain)
    taken = memory(network.layers[1], plan.layers[1].window, plan.family)[0]
    # Of 4 block RAMs; 3 are enough for the pace, the 2 of the shallowest are not.
    assert taken == 4 - lacking
    assert (interval(network, plan) > deep.fold_cycles) == (lacking == 2)


def test_depth_of_overrides_stays() -> None:
    network, folds, _ = CASES["14x14"]
    overrides = folding(folds)
    overrides["conv1"]["depth"] = 40
    for fps in (1, 2_000):
        plan = make_plan(network, device="ice40-up5k", overrides=overrides, fps=fps)
        assert plan.layers[1].window.depth == 40
        assert dict(plan.reasons)["conv1.lines"].endswith("the overrides say so")


@pytest.mark.parametrize("depth", [30, 197, "deep", True])
def test_wrong_depth_is_named(depth) -> None:
    network = CASES["14x14"][0]
    with pytest.raises(PlanError, match="layer 'conv1': depth must be an integer from 31 to 196"):
        make_plan(network, device="ice40-up5k", overrides={"conv1": {"depth": depth}})


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("extra", [0, 5, 99])
def test_cycles_equal_simulation_at_any_depth(stride: int, extra: int) -> None:
    network = conv_net(9, 2, 4, 4, strides=(1, stride))
    overrides = folding(((1, 18), (2, 4)))
    for layer in network.layers[:2]:
        first, *_, last = line_buffers(layer, 1, "ecp5") * 2
        least = first.config(layer, "ecp5").min_depth
        overrides[layer.name]["depth"] = min(least + extra, last.depth)
    plan = make_plan(network, device="ecp5-25f", overrides=overrides)
    images = random_images(np.random.default_rng(stride), network, 4)
    wanted = evaluate(network, images)
    parts = core_parts(network, plan)
    run = simulate_core(network, plan, wanted.input, parts=parts)
    assert np.array_equal(run.scores, wanted.scores)
    assert timeline(parts, len(images)).result == run.result_times
