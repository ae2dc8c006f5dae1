# SPDX-License-Identifier: BSD-2-Clause
"""`--max` proved by builds: what it finds builds, and the next faster plan was seen to fail."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from xnorforge.gen import max_search, site
from xnorforge.gen.assembly import core_parts
from xnorforge.gen.boards import get_board
from xnorforge.gen.cycles import predict
from xnorforge.gen.errors import OverfullError, PlanError, RouteError, ToolError
from xnorforge.gen.ladder import Ladder
from xnorforge.gen.max_search import fastest_build
from xnorforge.gen.planner import make_plan
from xnorforge.gen.resources import estimate
from xnorforge.sim.core_bench import random_network

BOARD = "icebreaker"


@pytest.fixture(scope="module")
def network():
    import random

    return random_network(random.Random(3), sizes=[48, 24, 10])


def interval(network, plan) -> float:
    return float(predict(core_parts(network, plan).stages).interval_cycles)


@pytest.fixture
def builds(monkeypatch, network):
    """A build that fails for every plan faster than `limit` cycles; it counts what it is asked."""
    state = SimpleNamespace(limit=0.0, asked=[], folders=[], error=RouteError("too dense to route"))

    def verilog(network, plan, parts):
        state.asked.append(interval(network, plan))
        return ""

    def build(path, board, out, **settings):
        state.folders.append(out)
        if state.asked[-1] < state.limit:
            raise state.error
        return SimpleNamespace(fmax_hz=31e6, used={}, available={})

    monkeypatch.setattr(max_search, "accelerator_verilog", verilog)
    monkeypatch.setattr(max_search, "build_verilog", build)
    return state


def test_rungs_are_plans_in_order_of_speed(network) -> None:
    ladder = Ladder(network, board=BOARD)
    planned = make_plan(network, board=BOARD, goal="max")
    assert ladder.plan(ladder.planned) == planned
    assert ladder.largest <= ladder.planned < len(ladder)
    rungs = range(0, len(ladder), 7)
    cycles = [max(layer.fold_cycles for layer in ladder.plan(rung).layers) for rung in rungs]
    assert cycles == sorted(cycles)
    for rung in rungs:
        assert ladder.settle(rung) <= rung
        assert ladder.settle(ladder.settle(rung)) == ladder.settle(rung)


def test_what_only_a_full_device_holds_is_tried(monkeypatch, network, builds, tmp_path) -> None:
    """The model leaves room to route; without it the smallest plan may still fit."""
    least = make_plan(network, board=BOARD, goal="min")
    cells = estimate(network, least)["cells"]
    device = dataclasses.replace(get_board(BOARD).device, luts=cells + 40)
    board = dataclasses.replace(get_board(BOARD), device=device)
    monkeypatch.setattr(site, "get_board", lambda _: board)
    with pytest.raises(PlanError, match="too large"):
        make_plan(network, board=BOARD, goal="max")
    ladder = Ladder(network, board=BOARD)
    assert ladder.planned == len(ladder) - 1 and ladder.largest <= ladder.planned
    builds.limit = interval(network, ladder.plan(ladder.settle(ladder.planned))) * 0.99
    assert fastest_build(network, BOARD, tmp_path).best.interval_cycles >= builds.limit
    tight = dataclasses.replace(board, device=dataclasses.replace(device, luts=cells - 400))
    monkeypatch.setattr(site, "get_board", lambda _: tight)
    with pytest.raises(PlanError, match=r"too large for icebreaker: .* logic cells"):
        Ladder(network, board=BOARD)


@pytest.mark.parametrize("share", [0.3, 0.8, 1.0, 1.7, 6.0])
def test_answer_builds_and_one_step_up_does_not(network, builds, tmp_path, share) -> None:
    planned = interval(network, make_plan(network, board=BOARD, goal="max"))
    builds.limit = share * planned
    found = fastest_build(network, BOARD, tmp_path)
    assert found.best.result is not None and found.best.interval_cycles >= builds.limit
    if found.above is not None:
        assert found.above.result is None and "too dense" in found.above.why
        assert found.above.interval_cycles < builds.limit
    assert len(builds.asked) == len(set(builds.asked)) == len(found.attempts)


def test_nothing_that_builds_is_an_error(network, builds, tmp_path) -> None:
    builds.limit = float("inf")
    with pytest.raises(PlanError, match=r"No plan .* builds on icebreaker; .* too dense"):
        fastest_build(network, BOARD, tmp_path)


def test_device_that_is_too_small_is_an_answer(network, builds, tmp_path) -> None:
    builds.limit = interval(network, make_plan(network, board=BOARD, goal="max")) * 1.5
    builds.error = OverfullError("it takes 31 ICESTORM_RAM, the device has 30")
    found = fastest_build(network, BOARD, tmp_path)
    assert found.above is not None and "31 ICESTORM_RAM" in found.above.why


@pytest.mark.parametrize(
    "error",
    [ToolError("No space left on device"), PlanError("package sg48 has no pin '99'")],
)
def test_what_says_nothing_about_a_plan_ends_the_search(network, builds, tmp_path, error) -> None:
    builds.limit = interval(network, make_plan(network, board=BOARD, goal="max")) * 1.5
    builds.error = error
    with pytest.raises(type(error), match=str(error)):
        fastest_build(network, BOARD, tmp_path)
    assert len(builds.asked) == 1


def test_why_names_no_log_and_each_plan_has_a_folder(network, builds, tmp_path) -> None:
    builds.limit = interval(network, make_plan(network, board=BOARD, goal="max")) * 1.5
    more = "; 2 other seeds failed too"
    builds.error = RouteError("ERROR: no place", log=Path("a/b.log"), more=more)
    assert str(builds.error) == f"ERROR: no place (whole log: a/b.log){more}"
    found = fastest_build(network, BOARD, tmp_path)
    assert found.above is not None
    assert found.above.why == "ERROR: no place; 2 other seeds failed too"
    assert len(set(builds.folders)) == len(found.attempts)
    for attempt, folder in zip(found.attempts, builds.folders, strict=True):
        assert f"{attempt.plan.structure_hash(network):08x}" in str(folder)


@pytest.mark.routing
def test_real_builds_end_where_the_device_does(tmp_path: Path) -> None:
    """Memories, all in block RAM, that fill a device: real builds on both sides of the edge.

    The block RAMs are predicted exactly, and the clock is low: it is two builds, of which the
    second ends at the packer.
    """
    import random

    network = random_network(random.Random(5), sizes=[64, 32, 4])
    stores = {"weight_store": "block", "preset_store": "block"}
    overrides = {layer.name: stores for layer in network.layers}
    found = fastest_build(
        network, BOARD, tmp_path, seeds=(1, 2), clock_hz=24e6, overrides=overrides
    )
    assert found.best.result is not None
    assert found.best.result.used["block_rams"] <= found.best.result.available["block_rams"]
    assert found.above is not None and found.above.result is None
    assert re.search(r"takes \d+ ICESTORM_RAM, the device has 30", found.above.why)
