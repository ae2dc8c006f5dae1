# SPDX-License-Identifier: BSD-2-Clause
"""The plan file: what it says of an engine is what is built, also in files of earlier versions."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.bundle import Bundle, compile_bundle
from xnorforge.gen.errors import PlanError
from xnorforge.gen.layer_plan import LayerPlan
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.gen.planner import make_plan
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.structures import engine_for
from xnorforge.sim import random_networks
from xnorforge.sim.core_bench import random_network
from xnorforge.sim.random_plans import random_plan

DEVICE = "ice40-up5k"


@pytest.fixture(scope="module")
def network() -> Network:
    return random_network(random.Random(3), sizes=[30, 6, 3])


def engines(network: Network, plan: Plan) -> list[tuple[str, str]]:
    """Structure and pipeline of what the core of a plan has inside."""
    stages = core_parts(network, plan).stages
    configs = [stage.pe_config for stage in stages if isinstance(stage, MvuConfig)]
    return [(config.structure, config.pipeline) for config in configs]


def test_override_of_an_engine_changes_what_is_built(network, tmp_path) -> None:
    name = network.layers[0].name
    folds = {"pe": 2, "simd": 15}
    plain = make_plan(network, device=DEVICE, goal="min", overrides={name: folds})
    chosen = {**folds, "structure": "plain", "pipeline": "full"}
    plan = make_plan(network, device=DEVICE, goal="min", overrides={name: chosen})
    measured = engine_for("ice40", 15)
    assert engines(network, plain)[0] == (measured.structure, measured.pipeline)
    assert engines(network, plan) == [("plain", "full"), engines(network, plain)[1]]
    made = [compile_bundle(network, item, tmp_path / item.layers[0].structure)
            for item in (plain, plan)]  # fmt: skip
    texts = [(bundle.path / "accelerator.v").read_text() for bundle in made]
    assert texts[0] != texts[1]
    written = json.loads((made[1].path / "manifest.json").read_text())["plan"]["layers"]
    assert (written[0]["structure"], written[0]["pipeline"]) == ("plain", "full")
    assert Bundle.open(made[1].path).plan == plan


@pytest.mark.parametrize(("simd", "pipeline"), [(8, "output"), (9, "half")])
def test_plan_from_before_structures_has_the_engine_of_its_day(network, simd, pipeline) -> None:
    """There was one engine for each width; the measured choice of today is another."""
    overrides = {network.layers[0].name: {"pe": 1, "simd": simd}}
    today = make_plan(network, device=DEVICE, goal="min", overrides=overrides)
    item = json.loads(json.dumps(today.to_json()))
    for layer in item["layers"]:
        del layer["structure"], layer["pipeline"]
    plan = Plan.from_json(item)
    assert engines(network, plan)[0] == ("carry", pipeline)
    assert engines(network, plan)[0] != engines(network, today)[0]
    assert plan.structure_hash(network) != today.structure_hash(network)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_constant_presets_beside_several_thresholds_have_a_hash() -> None:
    """Thresholds of several levels are no part of an engine's presets."""
    network = random_networks.random_network(np.random.default_rng(2), side=6, channels=6)
    assert any(layer.levels > 1 for layer in network.products)
    plan = random_plan(random.Random(2), network, "ecp5")
    plans = [
        replace(layer, preset_store="const") if isinstance(layer, LayerPlan) else layer
        for layer in plan.layers
    ]
    constant = replace(plan, layers=tuple(plans))
    assert constant.structure_hash(network) == constant.structure_hash(network)
    first = next(i for i, layer in enumerate(network.layers) if layer in network.products)
    flipped = replace(network.layers[first], weights=-network.layers[first].weights)
    other = replace(
        network, layers=(*network.layers[:first], flipped, *network.layers[first + 1 :])
    )
    assert constant.structure_hash(other) != constant.structure_hash(network)


def test_rate_beyond_the_head_is_refused_in_plain_words(network) -> None:
    words = "the head takes one class every cycle, so"
    with pytest.raises(PlanError, match=words):
        make_plan(network, device=DEVICE, fps=1e9)
