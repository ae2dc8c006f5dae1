# SPDX-License-Identifier: BSD-2-Clause
"""The planner: targets met exactly, devices not overfilled, errors that say what limits."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
from itertools import pairwise

import numpy as np
import pytest

from xnorforge.gen import planner, site
from xnorforge.gen.assembly import core_parts
from xnorforge.gen.cycles import predict
from xnorforge.gen.devices import DEVICES
from xnorforge.gen.errors import PlanError
from xnorforge.gen.network import Dense, Head, Input, Network, ValueType
from xnorforge.gen.planner import link_interval, make_plan, planner_for
from xnorforge.gen.resources import LIMITS, Resources, capacity, estimate, shell


def make_network(*sizes: int, bits: int = 1) -> Network:
    rng = np.random.default_rng(0)
    value = ValueType("bit" if bits == 1 else "uint", bits, (sizes[0],))
    source = Input(value, threshold=128 if bits == 1 else None)
    layers = []
    for index, (columns, rows) in enumerate(pairwise(sizes)):
        weights = rng.choice(np.array([-1, 1], np.int8), (rows, columns))
        thresholds = None if index == len(sizes) - 2 else np.zeros(rows, np.int64)
        layers.append(Dense(f"fc{index}", value, weights, thresholds))
        value = layers[-1].output
    return Network("net", source, tuple(layers), Head())


TFC = make_network(784, 64, 64, 64, 10)
SFC = make_network(784, 256, 256, 256, 10)


def interval(network: Network, plan) -> float:
    return float(predict(core_parts(network, plan).stages).interval_cycles)


def block_rams(network: Network, plan) -> int:
    """Weight and preset stores of the circuits themselves."""
    return sum(config.block_rams for _, config, _ in core_parts(network, plan).stores)


@pytest.mark.parametrize("fps", [1_000, 100_000, 1_000_000, 5_000_000])
def test_rate_is_reached_by_the_exact_model(fps: int) -> None:
    plan = make_plan(TFC, board="ulx3s-85f", fps=fps)
    assert plan.clock_hz / interval(TFC, plan) >= fps
    used = estimate(TFC, plan)
    total = Resources(used["cells"], used["flipflops"], used["blocks"])
    assert total.fits(capacity(DEVICES[plan.device]))


@pytest.mark.parametrize("bits", [1, 2, 8])
@pytest.mark.parametrize("fps", [2_000, 200_000])
def test_rate_is_reached_with_ragged_shapes(bits: int, fps: int) -> None:
    network = make_network(97, 31, 17, 5, bits=bits)
    plan = make_plan(network, device="ecp5-45f", fps=fps)
    assert plan.clock_hz / interval(network, plan) >= fps


def test_slower_target_costs_less() -> None:
    costs = [
        estimate(TFC, make_plan(TFC, board="ulx3s-85f", fps=fps))["cells"]
        for fps in (5_000_000, 500_000, 50_000)
    ]
    assert costs == sorted(costs, reverse=True) and len(set(costs)) == 3


def test_link_goal_keeps_the_link_busy() -> None:
    plan = make_plan(TFC, board="icebreaker")
    assert interval(TFC, plan) <= link_interval(TFC, plan.clock_hz, plan.baud)
    faster = make_plan(TFC, board="icebreaker", baud=4 * plan.baud)
    assert interval(TFC, faster) <= link_interval(TFC, faster.clock_hz, faster.baud)
    assert interval(TFC, faster) < interval(TFC, plan)


def test_goals_are_ordered() -> None:
    rates = {
        goal: TFC_rate(make_plan(TFC, board="icebreaker", goal=goal))
        for goal in ("min", "link", "max")
    }
    assert rates["min"] <= rates["link"] < rates["max"]


def TFC_rate(plan) -> float:  # noqa: N802
    return plan.clock_hz / interval(TFC, plan)


@pytest.mark.parametrize("goal", ["link", "max", "min"])
def test_block_rams_of_the_circuits_fit(goal: str) -> None:
    plan = make_plan(TFC, board="icebreaker", goal=goal)
    assert block_rams(TFC, plan) <= DEVICES[plan.device].block_rams
    assert block_rams(TFC, plan) <= estimate(TFC, plan)["blocks"]
    total = estimate(TFC, plan)
    assert sum(part["sprams"] for part in total["parts"].values()) == total["sprams"]


def test_folds_are_legal_and_stable() -> None:
    plan = make_plan(SFC, board="ulx3s-25f", fps=10_000)
    for layer, folds in zip(SFC.layers, plan.layers, strict=True):
        assert folds.mvu_config(plan.family, layer).fold_cycles == folds.image_cycles
    assert plan == make_plan(SFC, board="ulx3s-25f", fps=10_000)


def test_planes_in_parallel_when_needed() -> None:
    network = make_network(64, 16, 4, bits=8)
    slow = make_plan(network, device="ecp5-25f", goal="min")
    fast = make_plan(network, device="ecp5-25f", fps=10_000_000)
    assert fast.layers[0].fold_cycles <= 10 < slow.layers[0].fold_cycles


def test_overrides_are_kept(tmp_path) -> None:
    wanted = {"fc0": {"pe": 5, "simd": 31, "weight_store": "lut"}, "fc3": {"simd": 7}}
    file = tmp_path / "folding.json"
    file.write_text(json.dumps(wanted))
    for overrides in (wanted, file, str(file)):
        plan = make_plan(TFC, board="ulx3s-85f", overrides=overrides)
        assert (plan.layers[0].pe, plan.layers[0].simd) == (5, 31)
        assert plan.layers[0].weight_store == "lut"
        assert plan.layers[3].simd == 7


def test_what_other_boards_found_out_changes_no_plan() -> None:
    searches = {}
    for board in ("icebreaker", "fomu-hacker", "ulx3s-85f", "ecpix5-45", "icebreaker"):
        plan = make_plan(TFC, board=board, searches=searches)
        assert plan == make_plan(TFC, board=board)
    assert set(searches) == {"ice40", "ecp5"}


def test_override_limits_the_rate() -> None:
    with pytest.raises(PlanError, match=r"'fc1' takes 4096 cycles as its overrides fix it"):
        make_plan(TFC, board="ulx3s-85f", fps=1e6, overrides={"fc1": {"pe": 1, "simd": 1}})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"fc9": {}}, "no layer 'fc9'; the layers are fc0, fc1, fc2, fc3"),
        ({"fc0": {"pee": 4}}, "unknown field 'pee'"),
        ({"fc0": {"pe": 65}}, "pe must be an integer from 1 to 64, not 65"),
        ({"fc0": {"pe": 0}}, "from 1 to 64, not 0"),
        ({"fc0": {"simd": 2.5}}, "not 2.5"),
        ({"fc0": {"pe": True}}, "not True"),
        ({"fc0": {"pl": 2}}, "pl must be an integer from 1 to 1"),
        ({"fc0": {"weight_store": "flash"}}, "must be 'block', 'lut', 'spram' or 'const', not"),
        ({"fc0": {"buffer_store": "const"}}, "must be 'block' or 'lut', not 'const'"),
        ({"fc0": {"preset_store": "spram"}}, "must be 'block', 'lut' or 'const', not 'spram'"),
        ({"fc0": 4}, "must map fields to values"),
        ([1], "must map layer names"),
    ],
)
def test_wrong_override_is_named(tmp_path, overrides, words: str) -> None:
    file = tmp_path / "folding.json"
    file.write_text(json.dumps(overrides))
    with pytest.raises(PlanError, match=re.escape(words)) as error:
        make_plan(TFC, board="icebreaker", overrides=file)
    assert "folding.json" in str(error.value)


def test_unreadable_override_file_is_named(tmp_path) -> None:
    with pytest.raises(PlanError, match=r"absent\.json cannot be read"):
        make_plan(TFC, board="icebreaker", overrides=tmp_path / "absent.json")
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    with pytest.raises(PlanError, match=r"broken\.json is not JSON"):
        make_plan(TFC, board="icebreaker", overrides=broken)


def test_impossible_rate_names_what_limits_and_the_best() -> None:
    with pytest.raises(PlanError, match=r"the head takes one class.*10,000,000 images/s"):
        make_plan(TFC, board="ulx3s-85f", fps=50_000_000)
    with pytest.raises(PlanError, match=r"layer 'fc0' limits, the best that fits is") as error:
        make_plan(TFC, board="icebreaker", fps=1_000_000)
    best = float(re.search(r"fits is ([\d,]+)", str(error.value))[1].replace(",", ""))
    assert make_plan(TFC, board="icebreaker", fps=best)
    assert re.search(r"; (tang-primer-20k|ulx3s-25f) would hold it", str(error.value))


def test_network_too_large_says_by_how_much_and_what_would_do() -> None:
    with pytest.raises(PlanError, match=r"'net' is too large for ice40-hx8k") as error:
        make_plan(SFC, device="ice40-hx8k")
    need, have = re.search(r"(\d+) of (\d+) block RAMs", str(error.value)).groups()
    assert int(need) > int(have)
    other = re.search(r"; (\S+) would hold it", str(error.value))[1]
    assert make_plan(SFC, board=other, goal="min")


def test_network_that_nothing_holds(monkeypatch) -> None:
    huge = make_network(4000, 4000, 4000, 10)
    with pytest.raises(PlanError, match=r"\d+ of \d+ .*; xcvu9p would hold it"):
        make_plan(huge, board="icebreaker")
    monkeypatch.setattr(planner, "DEVICES", {k: DEVICES[k] for k in DEVICES if k != "xcvu9p"})
    with pytest.raises(PlanError, match=r"\d+ of \d+ .*; no board or device known here"):
        make_plan(huge, board="icebreaker")


def test_spram_wanted_where_there_is_none() -> None:
    with pytest.raises(PlanError, match="weight_store 'spram' does not exist on ice40-hx8k"):
        make_plan(TFC, device="ice40-hx8k", overrides={"fc0": {"weight_store": "spram"}})
    with pytest.raises(PlanError, match="5 of 4 SPRAM blocks"):
        wide = {"pe": 1, "simd": 66, "weight_store": "spram"}
        make_plan(TFC, board="icebreaker", overrides={"fc0": wide})


# --- stores ---------------------------------------------------------------------------------------


def test_large_layers_go_into_spram() -> None:
    plan = make_plan(SFC, board="icebreaker", fps=3_000, clock_hz=36e6)
    assert plan.clock_hz / interval(SFC, plan) >= 3_000
    assert [layer.weight_store for layer in plan.layers] == ["spram", "spram", "spram", "block"]
    parts = core_parts(SFC, plan)
    assert parts.must_load
    assert sum(config.sprams for _, config, _ in parts.stores) == 4
    assert estimate(SFC, plan)["sprams"] == 4
    reason = dict(plan.reasons)["fc0.weights"]
    assert re.fullmatch(
        r"2 SPRAM blocks: .* bits would take 5\d block RAMs and \d+ are left", reason
    )


def test_spram_is_left_alone_where_block_ram_does() -> None:
    plan = make_plan(TFC, board="icebreaker")
    assert not core_parts(TFC, plan).must_load


def test_two_layers_side_by_side_in_spram_by_overrides() -> None:
    overrides = {"fc0": {"pe": 4, "simd": 8}, "fc1": {"pe": 2, "simd": 8}}
    plan = make_plan(SFC, board="icebreaker", overrides=overrides)
    assert [layer.fold_cycles for layer in plan.layers[:2]] == [6272, 4096]
    assert plan.layers[0].weight_store == "spram"


@pytest.mark.parametrize("device", ["ecp5-25f", "ecp5-85f", "gw2a-18"])
@pytest.mark.parametrize("fps", [200_000, 2_000_000])
def test_shallow_words_waste_no_block_ram(device: str, fps: int) -> None:
    plan = make_plan(TFC, device=device, fps=fps)
    for _, config, _ in core_parts(TFC, plan).stores:
        if config.depth <= 16:
            assert config.block_rams == 0, config


def test_every_memory_has_a_reason() -> None:
    for options in ({"board": "icebreaker"}, {"device": "ecp5-25f", "fps": 1e6}):
        plan = make_plan(TFC, **options, overrides={"fc2": {"preset_store": "lut"}})
        reasons = dict(plan.reasons)
        assert {f"fc{n}.{what}" for n in range(4) for what in ("weights", "presets", "buffer")} == (
            set(reasons)
        )
        assert all(": " in reason for reason in reasons.values())
        assert reasons["fc2.presets"].endswith("the overrides say so")


def test_constant_weights_only_when_asked_for() -> None:
    loadable = make_plan(TFC, device="ecp5-25f", goal="max")
    constant = make_plan(TFC, device="ecp5-25f", goal="max", weights="constant")
    assert all(layer.weight_store != "const" for layer in loadable.layers)
    assert any(layer.weight_store == "const" for layer in constant.layers)
    assert interval(TFC, constant) <= interval(TFC, loadable)
    with pytest.raises(PlanError, match="loadable, constant or patchable, not 'fixed'"):
        make_plan(TFC, device="ecp5-25f", weights="fixed")


def test_constant_layer_by_override_belongs_to_the_hash() -> None:
    overrides = {"fc1": {"weight_store": "const"}, "fc2": {"preset_store": "const"}}
    plan = make_plan(TFC, board="ulx3s-85f", overrides=overrides)
    assert plan.layers[1].weight_store == "const"

    def with_layer(index: int, **changes) -> Network:
        layers = list(TFC.layers)
        layers[index] = dataclasses.replace(layers[index], **changes)
        return dataclasses.replace(TFC, layers=tuple(layers))

    turned = [-layer.weights for layer in TFC.layers]
    raised = TFC.layers[2].thresholds + 2
    same, other = plan.structure_hash(TFC), []
    for network in (with_layer(0, weights=turned[0]), with_layer(2, weights=turned[2])):
        assert plan.structure_hash(network) == same  # these can be loaded
    for network in (with_layer(1, weights=turned[1]), with_layer(2, thresholds=raised)):
        other.append(plan.structure_hash(network))
    assert len({same, *other}) == 3


def test_hash_takes_constant_words_of_any_width() -> None:
    """A word of 32 x 784 bits has over 4,300 decimal digits."""
    wide = {"pe": 32, "simd": 784, "weight_store": "const"}
    plan = make_plan(TFC, board="ulx3s-85f", goal="min", overrides={"fc0": wide})
    first, *others = TFC.layers
    turned = dataclasses.replace(first, weights=-first.weights)
    other = dataclasses.replace(TFC, layers=(turned, *others))
    assert plan.structure_hash(TFC) != plan.structure_hash(other)


def test_converter_behind_the_link_is_counted_to_what_must_fit() -> None:
    network = make_network(784, 8, 4, bits=8)
    plan = make_plan(network, board="icebreaker", goal="max")
    assert plan.lanes > 1, "the stream is wider than the link, so there is a converter"
    used = estimate(network, plan)
    total = Resources(**{kind: used[kind] for kind in LIMITS})
    assert total.fits(capacity(DEVICES[plan.device]))


@pytest.mark.parametrize("fps", [30_000, 1_000_000])
def test_search_counts_what_the_estimate_does(fps: int) -> None:
    for where in ({"board": "ulx3s-25f"}, {"device": "ecp5-25f"}):
        planner = planner_for(TFC, **where)
        chain = planner.search.best(planner._interval(fps))
        used, counted = estimate(TFC, planner.plan(chain)), chain.resources + planner.shell
        # Parts are rounded by themselves.
        assert abs(used["cells"] - counted.cells) <= 8
        assert used["blocks"] == counted.blocks and used["lut_rams"] == counted.lut_rams


def test_bare_device_is_not_charged_for_a_link() -> None:
    wide = make_network(784, 48, 10)
    planner = planner_for(wide, device="ice40-hx1k")
    used = estimate(wide, planner.plan(planner.search.best(None)))
    assert used["parts"]["shell"]["cells"] == planner.shell.cells < shell("ice40").cells
    huge = make_network(4000, 4000, 4000, 10)
    with pytest.raises(PlanError, match=r"\(beside the weight chain\)"):
        make_plan(huge, device="ecp5-25f")
    with pytest.raises(PlanError, match=r"\((beside|with) the link\)"):
        make_plan(huge, board="ulx3s-25f")


def test_lack_of_lut_ram_is_named() -> None:
    # 64 words of 784 bits: 3,136 primitives.
    lut = {"pe": 1, "simd": 784, "weight_store": "lut"}
    with pytest.raises(PlanError, match=r"needs .*\d of \d+ LUT RAMs"):
        make_plan(TFC, board="tang-nano-9k", overrides={"fc0": lut})


@pytest.mark.parametrize(
    ("network", "device"),
    [(SFC, "ice40-up5k"), (TFC, "ice40-hx8k"), (TFC, "ecp5-25f")],
)
def test_fastest_plan_is_not_beaten_by_the_next_rate(network: Network, device: str) -> None:
    plan = make_plan(network, device=device, goal="max")
    best = interval(network, plan)
    assert best == max(layer.fold_cycles for layer in plan.layers) or best == network.classes
    with pytest.raises(PlanError, match=r"do not fit|cannot be reached"):
        make_plan(network, device=device, fps=1.01 * plan.clock_hz / best)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_fastest_plan_takes_seconds(device: str) -> None:
    networks = (SFC, make_network(784, 1024, 1024, 1024, 10))
    for network in networks:
        started = time.process_time()
        with contextlib.suppress(PlanError):
            make_plan(network, device=device, goal="max")
        assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either a board or a device"),
        ({"board": "icebreaker", "device": "ecp5-25f"}, "either a board or a device"),
        ({"board": "nexys"}, "not 'nexys'"),
        ({"device": "xc7"}, "not 'xc7'"),
        ({"board": "icebreaker", "fps": 0}, "positive number, not 0"),
        ({"board": "icebreaker", "fps": float("nan")}, "not nan"),
        ({"board": "icebreaker", "goal": "most"}, "not 'most'"),
        ({"board": "icebreaker", "link": "usb"}, "not 'usb'"),
        ({"board": "icebreaker", "baud": 0}, "positive number up to 1,000,000,000, not 0"),
        ({"board": "icebreaker", "baud": 10**400}, "positive number up to 1,000,000,000, not 1000"),
        ({"board": "icebreaker", "baud": 100}, "takes 360000 cycles a bit"),
        ({"board": "icebreaker", "clock_hz": 18.4e6}, "would be off by"),
        ({"board": "icebreaker", "clock_hz": -1}, "positive number up to 1,000,000,000 Hz, not -1"),
        ({"board": "icebreaker", "clock_hz": 9e8}, "choose another clock"),
        ({"device": "ecp5-25f", "clock_hz": 5e9}, "up to 1,000,000,000 Hz, not 5000000000.0"),
    ],
)
def test_bad_option_is_named(options, words: str) -> None:
    with pytest.raises(PlanError, match=re.escape(words)):
        make_plan(TFC, **options)


def test_clock_is_what_the_pll_makes() -> None:
    plan = make_plan(TFC, board="icebreaker", clock_hz=33.3e6)
    assert plan.clock_hz != 33.3e6 and abs(plan.clock_hz / 33.3e6 - 1) < 0.02
    assert make_plan(TFC, device="ice40-up5k", clock_hz=33.3e6).clock_hz == 33.3e6


def test_estimate_adds_up() -> None:
    plan = make_plan(TFC, board="ulx3s-25f", fps=100_000)
    used = estimate(TFC, plan)
    for kind in ("cells", "flipflops", "blocks"):
        assert used[kind] == sum(part[kind] for part in used["parts"].values())
    assert set(used["parts"]) == {"fc0", "fc1", "fc2", "fc3", "head", "shell"}


def test_baud_rate_is_the_boards_unless_asked_for(monkeypatch) -> None:
    known = site.get_board("icebreaker")
    slow = dataclasses.replace(known, baud=115_200)
    monkeypatch.setattr(site, "get_board", lambda _: slow)
    assert make_plan(TFC, board="icebreaker", goal="min").baud == 115_200
    assert make_plan(TFC, board="icebreaker", goal="min", baud=9_600).baud == 9_600


def test_more_classes_than_a_label_can_name_are_refused() -> None:
    value = ValueType("bit", 1, (1,))
    layer = Dense("dense0", value, np.ones((65_536, 1), np.int8), None)
    network = Network("many", Input(value, threshold=1), (layer,), Head())
    with pytest.raises(PlanError, match="65,536 classes; 65,535 are the most"):
        make_plan(network, board="ulx3s-85f")
