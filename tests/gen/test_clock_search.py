# SPDX-License-Identifier: BSD-2-Clause
"""The clock search: the step above the answer fails, and what was done is not done again."""

import contextlib
import dataclasses
import json
import random
import re
import shutil
from pathlib import Path

import pytest

from xnorforge.gen import clock_search
from xnorforge.gen.boards import BOARDS, baud_divisor
from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.clock_search import STEP, fastest_clock
from xnorforge.gen.errors import PlanError, ToolError
from xnorforge.gen.planner import make_plan
from xnorforge.sim.core_bench import random_network

BOARD = BOARDS["icebreaker"]


def allowed():
    """Every clock of the icebreaker that 1 Mbaud can be divided from."""
    settings = {BOARD.oscillator_hz * f / d for f in range(45, 89) for d in (2, 4, 8, 16, 32, 64)}
    found = []
    for clock in settings:
        with contextlib.suppress(PlanError):
            assert BOARD.pll_config(clock).output_hz == clock
            baud_divisor(clock, BOARD.baud)
            found.append(clock)
    return sorted(found)


CLOCKS = allowed()


@pytest.fixture(scope="module")
def network():
    return random_network(random.Random(4), sizes=[20, 4, 3])


@pytest.fixture(scope="module")
def plan(network):
    return make_plan(network, board="icebreaker", clock_hz=30e6)


@pytest.fixture
def search(network, plan, fake_tools, monkeypatch):
    """fastest_clock on fake tools, one seed at a time."""

    def verilog(_network, plan, _parts, *, core):
        assert "xnorforge_core" in core
        config = BOARD.pll_config(plan.clock_hz)
        codes = [config.reference - 1, config.feedback - 1, config.output.bit_length() - 1]
        divr, divf, divq = (f"7'h{code:02x}" for code in codes)
        return (
            "module top(input clk_in, input rx, output tx, output led);\n"
            f"  SB_PLL40_PAD #(.DIVR({divr}), .DIVF({divf}), .DIVQ({divq})) pll ();\nendmodule\n"
        )

    monkeypatch.setattr(clock_search, "accelerator_verilog", verilog)
    return lambda **options: fastest_clock(network, plan, **{"jobs": 1, **options})


def below(clock_hz):
    return max(clock for clock in CLOCKS if clock <= clock_hz)


def above(clock_hz):
    return min(clock for clock in CLOCKS if clock >= clock_hz * (1 + STEP))


@pytest.mark.parametrize("fmax", [17.3, 30.0, 42.7, 99.1])
def test_answer_is_the_highest_setting_below_fmax_and_the_next_fails(search, fake_tools, fmax):
    fake_tools.plan({"fmax": fmax - 1.5}, s3={"fmax": fmax})
    found = search(seeds=(1, 2, 3))
    # A period of whole picoseconds can ask for a hair more than the clock.
    best = below(fmax * 1e6) if fmax != 30.0 else below(29.9e6)
    assert found.clock_hz == found.plan.clock_hz == best
    assert best * (1 - 1e-9) <= found.fmax_hz
    assert found.next_hz == above(best)
    tried = {attempt.clock_hz: attempt for attempt in found.attempts}
    assert tried[best].closed and not tried[found.next_hz].closed
    assert len(tried[found.next_hz].seeds) == 3, "the step above was given every seed"
    assert found.survey.fmax_hz == fmax * 1e6
    assert found.survey.clock_hz == BOARD.pll_config(60e6).output_hz


def test_search_goes_down_where_the_survey_promised_too_much(search, fake_tools, monkeypatch):
    """Fmax depends on the netlist: at every attempt it is 10 % below what the survey saw."""
    fake_tools.plan({"fmax": 50.0})
    survey = clock_search._Search.survey

    def promising(self):
        found = survey(self)
        fake_tools.plan({"fmax": 45.1})
        return found

    monkeypatch.setattr(clock_search._Search, "survey", promising)
    # What the survey routed is no other's: the netlist of each clock is its own.
    found = search(seeds=(1, 2))
    assert found.clock_hz == below(45.1e6)
    assert not found.attempts[0].closed and found.attempts[0].clock_hz == below(50e6)
    assert found.next_hz == above(found.clock_hz)


def test_search_climbs_and_leaps_where_the_survey_saw_too_little(search, fake_tools, monkeypatch):
    fake_tools.plan({"fmax": 40.0})
    survey = clock_search._Search.survey

    def timid(self):
        found = survey(self)
        fake_tools.plan({"fmax": 50.3})
        return found

    monkeypatch.setattr(clock_search._Search, "survey", timid)
    found = search(seeds=(1,))
    assert [attempt.clock_hz for attempt in found.attempts] == [
        below(40e6), below(50.3e6), above(below(50.3e6))
    ]  # fmt: skip
    assert found.clock_hz == below(50.3e6)


def test_second_search_runs_nothing(search, fake_tools):
    fake_tools.plan({"fmax": 31.0}, s2={"fmax": 33.0})
    first = search(seeds=(1, 2))
    ran = fake_tools.calls()
    assert ran.count("yosys") == 1 + len(first.attempts)
    second = search(seeds=(1, 2))
    assert fake_tools.calls() == []
    assert second.to_json() == first.to_json()
    assert all(seed.kept for attempt in second.attempts for seed in attempt.seeds)


def test_interrupted_search_goes_on_where_it_stopped(search, fake_tools):
    fake_tools.plan({"fmax": 31.0}, s3={"fmax": 33.5})
    whole = []

    def stop(seed):
        whole.append(seed)
        if len(whole) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(seeds=(1, 2, 3), report=stop)
    before = fake_tools.calls()
    search(seeds=(1, 2, 3))
    after = fake_tools.calls()
    assert before.count("yosys") == 2
    assert "yosys" in after
    # Nothing ran twice: the survey's seeds and the first two of the attempt are kept.
    assert [call for call in before if call.startswith("seed")] == [
        "seed 1", "seed 2", "seed 3", "seed 1", "seed 2"
    ]  # fmt: skip
    assert after[0] == "seed 3"


def test_seeds_and_clocks_are_told_as_they_end(search, fake_tools):
    fake_tools.plan({"fmax": 31.0})
    seeds, clocks, lines = [], [], []
    found = search(
        seeds=(5, 6), report=seeds.append, attempted=clocks.append, progress=lines.append
    )
    assert clocks == [found.survey, *found.attempts]
    assert [seed.seed for seed in seeds] == [5, 6, *[s.seed for a in clocks[1:] for s in a.seeds]]
    assert "survey: synthesis" in lines
    assert any(re.match(r"[\d.]+ MHz: place and route, seed 5", line) for line in lines)
    item = json.loads(json.dumps(found.to_json()))
    assert item["attempts"][-1]["closed"] is False
    assert item["next_hz"] == found.next_hz and item["survey"]["fmax_hz"] == {"5": 31e6, "6": 31e6}
    assert f"{found.next_hz / 1e6:g} MHz, fails with every seed" in str(found)
    assert "survey: 31.00 MHz at best" in str(found)


def test_crashed_seed_does_not_stop_the_search(search, fake_tools):
    fake_tools.plan({"fmax": 31.0}, s1={"crash": "kill"})
    found = search(seeds=(1, 2))
    assert found.seed == 2 and found.clock_hz == below(31e6)
    assert "1: -" in str(found)


@pytest.mark.parametrize(
    "seeds, lost",
    [({"crash": "kill"}, "whole log"), ({"crash": "exit"}, ""), ({"fmax": 31.0}, "1 of 2 ended")],
)
def test_step_up_that_ends_without_a_result_keeps_what_closed(search, fake_tools, seeds, lost):
    fake_tools.plan({"fmax": 31.0})

    def attempted(attempt):
        if attempt.closed:
            last = {"crash": "kill"} if "fmax" in seeds else {}
            fake_tools.plan({"fmax": 31.0, **seeds}, s2=last)

    found = search(seeds=(1, 2), attempted=attempted)
    assert found.clock_hz == below(31e6) and found.next_hz == above(found.clock_hz)
    assert bool(found.undecided) == bool(lost) and lost in found.undecided
    assert found.to_json()["undecided"] == found.undecided
    ended = f"{found.next_hz / 1e6:g} MHz, " + ("is not decided: " if lost else "fails with every")
    assert ended in str(found)
    if lost:
        assert "is not decided" in str(found.attempts[-1])
        log = re.search(r"whole log: ([^)]*)\)", found.undecided)[1]
        assert "placing" in Path(log).read_text()
        shutil.rmtree(Path(log).parents[2])


def test_search_without_any_seed_that_ends_names_the_log(search, fake_tools):
    fake_tools.plan({"fmax": 31.0, "crash": "kill"})
    with pytest.raises(ToolError, match=r"ended by signal SIGKILL .*whole log: (.*)\)") as error:
        search(seeds=(1, 2))
    log = re.search(r"whole log: (.*)\)", str(error.value))[1]
    assert "placing" in Path(log).read_text()


def test_design_slower_than_the_pll_can_make_is_refused(search, fake_tools):
    fake_tools.plan({"fmax": 12.0})
    with pytest.raises(
        PlanError, match=r"reaches 12\.00 MHz on icebreaker, which is less than its"
    ):
        search(seeds=(1,))


def test_end_of_the_pll_ends_the_search(search, fake_tools):
    fake_tools.plan({"fmax": 400.0})
    found = search(seeds=(1,))
    assert found.clock_hz == max(CLOCKS) and found.next_hz is None
    assert "allow no faster clock" in str(found)


@pytest.mark.parametrize("seeds, words", [((), "at least one seed"), ((1, "x"), "not 'x'")])
def test_seeds_that_are_none_are_refused(search, seeds, words):
    with pytest.raises(ToolError, match=words):
        search(seeds=seeds)


def test_plan_without_a_board_is_refused(network):
    bare = make_plan(network, device="ice40-up5k")
    with pytest.raises(PlanError, match="this plan is for bare device ice40-up5k: choose a board"):
        fastest_clock(network, bare)


# --- a plan at another clock -----------------------------------------------------------------


def test_plan_at_another_clock_is_the_same_circuit(network, plan):
    other = plan.at_clock(41.1e6)
    assert other.clock_hz == BOARD.pll_config(41.1e6).output_hz != 41.1e6
    assert other == dataclasses.replace(plan, clock_hz=other.clock_hz)
    assert other.structure_hash(network) == plan.structure_hash(network)
    bare = make_plan(network, device="ice40-up5k")
    assert bare.at_clock(41.1e6).clock_hz == 41.1e6


@pytest.mark.parametrize(
    "clock_hz, words",
    [
        (5e6, "output frequency must be 16 to 275 MHz, not 5 MHz"),
        (400e6, "not 400 MHz"),
        (18.4e6, "Baud rate 1000000 at a 18.375 MHz clock would be off by"),
        (0, "Clock must be a positive number"),
        (float("nan"), "Clock must be a positive number"),
    ],
)
def test_clock_that_cannot_be_made_is_refused(plan, clock_hz, words):
    with pytest.raises(PlanError, match=words):
        plan.at_clock(clock_hz)


def test_planned_network_changes_its_clock():
    network = random_network(random.Random(4), sizes=[20, 4, 3])
    planned = network.plan(board="icebreaker", clock_hz=30e6)
    faster = planned.at_clock(60e6)
    assert faster.images_per_second == pytest.approx(2 * planned.images_per_second)


@pytest.mark.routing
@pytest.mark.timeout(1800)
def test_real_search_closes_and_its_build_is_done_already(tmp_path, monkeypatch):
    monkeypatch.setenv("XNORFORGE_CACHE", str(tmp_path / "cache"))
    network = random_network(random.Random(4), sizes=[64, 16, 10])
    plan = make_plan(network, board="icebreaker", goal="min")
    found = fastest_clock(network, plan, seeds=(1, 2))
    assert found.clock_hz > plan.clock_hz
    tried = {attempt.clock_hz: attempt for attempt in found.attempts}
    assert tried[found.clock_hz].closed and not tried[found.next_hz].closed
    assert len(tried[found.next_hz].seeds) == 2
    bundle = compile_bundle(network, found.plan, tmp_path / "net")
    result = bundle.build(seeds=(1, 2))
    assert set(result.reused) == {"synthesis", "pack", *(f"seed {s}" for s in result.seeds)}
    assert result.clock_hz == found.clock_hz <= result.fmax_hz
    assert result.seed == found.seed
