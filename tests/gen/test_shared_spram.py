# SPDX-License-Identifier: BSD-2-Clause
"""Layers that take turns at an SPRAM: planned where blocks run short, exact, predicted, told."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xnorforge.gen.assembly import SHARED_SPRAM, core_parts
from xnorforge.gen.core import block_owners
from xnorforge.gen.cycles import predict, timeline
from xnorforge.gen.errors import PlanError
from xnorforge.gen.layer_plan import LayerPlan, with_ports
from xnorforge.gen.layer_usage import layer_usage
from xnorforge.gen.network import Network
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.gen.plan import Plan
from xnorforge.gen.planner import make_plan
from xnorforge.gen.resources import estimate
from xnorforge.sim.core_bench import simulate_core
from xnorforge.sim.random_networks import dense_network, random_images

DEVICE = "ice40-up5k"


def make_network(sizes: list[int], kind: str = "bit", bits: int = 1) -> Network:
    return dense_network(np.random.default_rng(len(sizes)), sizes, kind, bits)


def shares(plan: Plan) -> list[int]:
    return [layer.share for layer in plan.layers if isinstance(layer, LayerPlan)]


def sharing(network: Network, *wanted: int, **fields: int) -> Plan:
    """A plan of narrow layers, each with this share of an SPRAM."""
    overrides = {
        layer.name: {"pe": 2, "simd": 5, "share": share, **fields}
        for layer, share in zip(network.products, wanted, strict=True)
    }
    return make_plan(network, device=DEVICE, goal="min", overrides=overrides)


@pytest.fixture(scope="module")
def deep() -> Network:
    """Six layers whose weights are too many for block RAM: four SPRAMs alone do not do."""
    return make_network([256, *[320] * 6, 10])


def test_layers_share_only_where_blocks_run_short(deep: Network) -> None:
    few = make_plan(make_network([256, 320, 320, 320, 320, 10]), device=DEVICE, goal="min")
    assert set(shares(few)) == {1}
    plan = make_plan(deep, device=DEVICE, goal="min")
    assert max(shares(plan)) > 1
    used = estimate(deep, plan)
    parts = core_parts(deep, plan)
    alone = [c.sprams for _, c, _ in parts.stores if c.kind == "spram" and c.share == 1]
    assert used["sprams"] == sum(alone) + len(parts.shared) <= 4
    assert used["parts"][SHARED_SPRAM]["sprams"] == len(parts.shared)
    assert all(type(part["sprams"]) is int for part in (used, *used["parts"].values()))
    told = dict(plan.reasons)
    first = next(layer for layer in plan.layers if layer.share > 1)
    assert f"1/{first.share} of a shared SPRAM block" in told[f"{first.name}.weights"]


def test_rate_is_that_of_the_turns(deep: Network) -> None:
    plan = make_plan(deep, device=DEVICE, fps=2500)
    assert max(shares(plan)) > 1
    cycles = [layer.image_cycles for layer in plan.layers if isinstance(layer, LayerPlan)]
    assert predict(core_parts(deep, plan)).interval_cycles == max(cycles) <= plan.clock_hz / 2500
    for layer in plan.layers:
        assert isinstance(layer, LayerPlan)
        assert layer.image_cycles == layer.nf * layer.sf * layer.share


@pytest.mark.parametrize("wanted", [(2, 2, 2), (8, 2, 4), (4, 8, 1), (8, 8, 8)])
@pytest.mark.parametrize(("kind", "bits"), [("bit", 1), ("uint", 3)])
def test_core_is_exact_and_every_transfer_predicted(
    wanted: tuple[int, ...], kind: str, bits: int
) -> None:
    network = make_network([23, 12, 9, 5], kind, bits)
    plan = sharing(network, *wanted)
    images = random_images(np.random.default_rng(1), network, 5)
    reference = evaluate(network, images)
    parts = core_parts(network, plan)
    found = simulate_core(network, plan, reference.input, bound=50_000, parts=parts)
    np.testing.assert_array_equal(found.scores, reference.scores)
    expected = timeline(parts, 5)
    assert (found.image_times, found.result_times) == (expected.image, expected.result)
    rng = random.Random(1)
    stalled = simulate_core(
        network,
        plan,
        reference.input,
        idle=iter(lambda: rng.random() < 0.3, None),
        stall=iter(lambda: rng.random() < 0.5, None),
        bound=100_000,
        parts=parts,
    )
    np.testing.assert_array_equal(stalled.scores, reference.scores)


def test_interval_follows_a_slower_layer_whose_pace_turns_do_not_divide() -> None:
    """A layer of 105 cycles beside shares of 2 and 8: images come at its pace, in any turn."""
    network = make_network([21, 15, 6, 3])
    plan = make_plan(
        network,
        device=DEVICE,
        goal="min",
        overrides={
            "dense0": {"pe": 1, "simd": 3, "weight_store": "block"},
            "dense1": {"pe": 3, "simd": 5, "share": 2},
            "dense2": {"pe": 1, "simd": 6, "share": 8},
        },
    )
    parts = core_parts(network, plan)
    assert predict(parts).interval_cycles == 105
    reference = evaluate(network, random_images(np.random.default_rng(2), network, 12))
    found = simulate_core(network, plan, reference.input, parts=parts)
    expected = timeline(parts, 12)
    assert (found.image_times, found.result_times) == (expected.image, expected.result)


@pytest.mark.parametrize("seed", range(4))
def test_transfers_are_predicted_with_gaps(seed: int) -> None:
    network, rng = make_network([23, 12, 9, 5]), random.Random(seed)
    plan = sharing(network, *rng.choice([(2, 8, 4), (8, 8, 8), (4, 2, 8)]))
    parts = core_parts(network, plan)
    reference = evaluate(network, random_images(np.random.default_rng(seed), network, 3))
    gaps = [rng.choice([0, 0, 1, 7]) for _ in range(3 * parts.beats)]
    idle = [wait for gap in gaps for wait in (*[True] * gap, False)]
    run = simulate_core(network, plan, reference.input, idle=iter(idle), parts=parts)
    np.testing.assert_array_equal(run.scores, reference.scores)
    gaps[0] = 0  # cycles count from the first beat
    expected = timeline(parts, 3, gaps)
    assert (run.image_times, run.result_times) == (expected.image, expected.result)


def test_plan_keeps_its_turns() -> None:
    network = make_network([23, 12, 9, 5])
    plan = sharing(network, 4, 2, 4)
    assert dict(plan.reasons)["dense0.weights"].endswith("the overrides say so")
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    places = {(layer.port, layer.turn) for layer in plan.layers if isinstance(layer, LayerPlan)}
    assert len(places) == 3
    owners = block_owners(core_parts(network, plan))
    assert owners["shared_spram_0"] == SHARED_SPRAM
    first = plan.layers[0]
    assert isinstance(first, LayerPlan)
    moved = replace(plan, layers=(replace(first, share=8), *plan.layers[1:]))
    assert plan.structure_hash(network) != moved.structure_hash(network)
    assert with_ports(plan.layers) == plan.layers


@pytest.mark.routing
@pytest.mark.timeout(3600)
def test_board_with_seven_layers_in_four_sprams(tmp_path: Path) -> None:
    """597 kbit on an icebreaker: RTL, its driver and the mapped netlist as the reference."""
    network = make_network([256, *[320] * 6, 10])
    design = network.plan(board="icebreaker", goal="max")
    bundle = design.compile(tmp_path / "bundle")
    images = random_images(np.random.default_rng(1), network, 20)
    assert bundle.verify("rtl", images=images).passed
    result = bundle.build(seeds=(1, 2))
    assert result.fmax_hz >= 36e6 and result.used["sprams"] == 4
    rows = {row.name: row.packed for row in layer_usage(bundle, result)}
    assert rows[SHARED_SPRAM]["sprams"] == len(core_parts(network, design.plan).shared)
    assert bundle.verify("netlist", images=images[:5]).passed


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"share": 3}, "share must be one of 1, 2, 4, 8, not 3"),
        ({"share": True}, "share must be one of 1, 2, 4, 8, not True"),
        ({"share": 2.0}, "share must be one of 1, 2, 4, 8, not 2.0"),
        ({"share": 2}, "a share of an SPRAM needs pe and simd beside it"),
        (
            {"share": 2, "weight_store": "block", "pe": 1, "simd": 1},
            "weights in 'block' have no share of an SPRAM",
        ),
        (
            {"share": 2, "pe": 4, "simd": 5},
            "1/2 of an SPRAM holds 2 to 8192 words of up to 16 weights, not 15 of 4 x 5",
        ),
    ],
)
def test_wrong_share_is_named(fields: dict[str, object], said: str) -> None:
    network = make_network([23, 12, 5])
    with pytest.raises(PlanError, match=f"'dense0': {said}"):
        make_plan(network, device=DEVICE, overrides={"dense0": fields})


def test_too_large_with_a_share_is_told() -> None:
    """Also where no larger device has SPRAM to put the share into."""
    network = make_network([256, *[320] * 12, 10])
    share = {"dense0": {"pe": 4, "simd": 4, "share": 2}}
    with pytest.raises(PlanError, match=r"too large .* block RAMs .* would hold it$"):
        make_plan(network, device=DEVICE, goal="min", overrides=share)


def test_share_where_there_is_none_is_refused() -> None:
    network = make_network([23, 12, 5])
    share = {"dense0": {"share": 2, "pe": 2, "simd": 5}}
    with pytest.raises(PlanError, match="no SPRAM to share on ice40-hx8k"):
        make_plan(network, device="ice40-hx8k", overrides=share)
    with pytest.raises(PlanError, match="a share of an SPRAM cannot be loaded while images"):
        make_plan(network, device=DEVICE, overrides=share, slots=2)
