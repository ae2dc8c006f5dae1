# SPDX-License-Identifier: BSD-2-Clause
"""Weights that serve several windows, in plans: chosen where ports limit, kept, told, exact."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.cycles import predict, timeline
from xnorforge.gen.errors import PlanError
from xnorforge.gen.layer_plan import LayerPlan
from xnorforge.gen.layers import Conv, Dense, Pool
from xnorforge.gen.network import Head, Input, Network, ValueType
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.gen.plan import Plan
from xnorforge.gen.planner import make_plan
from xnorforge.gen.resources import estimate
from xnorforge.hw.geometry import Window
from xnorforge.hw.mvu import MvuConfig
from xnorforge.sim.core_bench import simulate_core
from xnorforge.sim.random_networks import random_images, random_network

DEVICE = "ice40-up5k"


def make_network(side: int, channels: int, rows: int, pad: int = 0) -> Network:
    """A 3 x 3 convolution, a pool, a dense layer."""
    g = np.random.default_rng(side)
    value = ValueType("bit", 1, (side, side, channels))
    window = Window((3, 3), pads=(pad,) * 4)
    weights = g.choice(np.array([-1, 1], np.int8), (rows, 3, 3, channels))
    borders = window.over(side, side).borders
    thresholds = g.integers(-9, 9, (borders, 1, rows))
    conv = Conv("conv", value, weights, thresholds, window)
    half = conv.output.shape[0] // 2
    pool = Pool("pool", conv.output, Window((half, half), (half, half)))
    dense = g.choice(np.array([-1, 1], np.int8), (3, pool.output.size))
    layers = (conv, pool, Dense("dense", pool.output, dense, None))
    return Network("net", Input(value, threshold=128), layers, Head())


def test_planner_reuses_weights_where_the_spram_port_limits() -> None:
    """Four SPRAM blocks give 64 weight bits a cycle, and 600 images/s need 118."""
    network = make_network(18, 32, 64)
    spram = {"conv": {"weight_store": "spram"}}
    slow = make_plan(network, device=DEVICE, fps=300, clock_hz=24e6, overrides=spram)
    assert [layer.reuse for layer in slow.layers if isinstance(layer, LayerPlan)] == [1, 1]
    fast = make_plan(network, device=DEVICE, fps=600, clock_hz=24e6, overrides=spram)
    conv = fast.layers[0]
    assert isinstance(conv, LayerPlan)
    assert conv.reuse > 1 and conv.pe * conv.simd <= 64 < conv.reuse * conv.pe * conv.simd
    assert predict(core_parts(network, fast)).interval_cycles <= 24e6 / 600
    assert estimate(network, fast)["sprams"] <= 4
    with pytest.raises(PlanError, match="do not fit"):
        make_plan(
            network,
            device=DEVICE,
            fps=600,
            clock_hz=24e6,
            overrides={"conv": {"weight_store": "spram", "reuse": 1}},
        )


def test_rate_that_only_shared_weights_reach() -> None:
    """A convolution with four weight planes takes 168 cycles with one window at a time."""
    network = random_network(np.random.default_rng(1))
    conv = next(layer for layer in network.layers if isinstance(layer, Conv))
    assert conv.weight_type.planes == 4
    plan = make_plan(network, device="ecp5-25f", goal="max")
    assert predict(core_parts(network, plan)).interval_cycles < conv.vectors * 4
    layers = [layer for layer in plan.layers if isinstance(layer, LayerPlan)]
    assert [layer.reuse > 1 for layer in layers] == [True]


def test_plan_keeps_the_reuse() -> None:
    network = make_network(8, 4, 6)
    plan = make_plan(network, device=DEVICE, goal="min", overrides={"conv": {"reuse": 5}})
    conv, *others = plan.layers
    assert isinstance(conv, LayerPlan)
    assert conv.folds[3:] == [5] and conv.image_cycles == -(-36 // 5) * conv.fold_cycles
    assert Plan.from_json(plan.to_json()) == plan
    plain = dataclasses.replace(plan, layers=(dataclasses.replace(conv, reuse=1), *others))
    assert plain.structure_hash(network) != plan.structure_hash(network)
    older = plain.to_json()
    for layer in older["layers"]:
        layer.pop("reuse", None)
    assert Plan.from_json(older) == plain
    load = core_parts(network, plain).payload()
    assert core_parts(network, plan).payload() == load


@pytest.mark.parametrize(("layer", "reuse", "most"), [("conv", 37, 36), ("dense", 2, 1)])
def test_wrong_reuse_is_named(layer: str, reuse: int, most: int) -> None:
    with pytest.raises(PlanError, match=f"{layer!r}: reuse must be an integer from 1 to {most}"):
        make_plan(make_network(8, 4, 6), device=DEVICE, overrides={layer: {"reuse": reuse}})


@pytest.mark.parametrize(
    ("pad", "reuse", "store"), [(0, 3, "block"), (0, 5, "lut"), (1, 4, "block")]
)
def test_core_is_exact_and_predicted(pad: int, reuse: int, store: str) -> None:
    network = make_network(6, 4, 5, pad)
    plan = make_plan(
        network,
        device=DEVICE,
        goal="min",
        overrides={"conv": {"reuse": reuse, "buffer_store": store, "simd": 4}},
    )
    images = random_images(np.random.default_rng(reuse), network, 4)
    wanted = evaluate(network, images)
    parts = core_parts(network, plan)
    assert any(isinstance(stage, MvuConfig) and stage.reuse == reuse for stage in parts.stages)
    run = simulate_core(network, plan, wanted.input, bound=50_000, parts=parts)
    np.testing.assert_array_equal(run.scores, wanted.scores)
    expected = timeline(parts, 4)
    assert (run.image_times, run.result_times) == (expected.image, expected.result)
    rng = random.Random(reuse)
    stalled = simulate_core(
        network,
        plan,
        wanted.input,
        idle=iter(lambda: rng.random() < 0.3, None),
        stall=iter(lambda: rng.random() < 0.5, None),
        bound=100_000,
        parts=parts,
    )
    np.testing.assert_array_equal(stalled.scores, wanted.scores)
