# SPDX-License-Identifier: BSD-2-Clause
"""A share of the random cores of `make fuzz`, and the record that it keeps."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from xnorforge.gen.errors import ToolError
from xnorforge.sim import fuzz, fuzz_verilog
from xnorforge.sim.coverage import FEATURES, PLAN_FEATURES
from xnorforge.sim.fuzz import Case, Draw, Record, check, draw
from xnorforge.sim.fuzz_verilog import run_draws


@pytest.mark.parametrize("block", range(6))
def test_random_cores_equal_the_reference(block: int) -> None:
    for seed in range(4 * block, 4 * block + 4):
        assert check(seed).failure == "", seed


def test_random_cores_in_verilog_equal_the_reference_but_the_faulty_one() -> None:
    """Several in one model; the last has the circuit of another tie rule."""
    draws = [draw(seed) for seed in range(100, 115)]
    right = [case for case in draws if case.timed][:2]
    right += [case for case in draws if not case.timed][:2]
    wrong = next(_with_tied_scores())
    head = wrong.network.head
    other = dataclasses.replace(head, tie="last" if head.tie == "first" else "first")
    network = dataclasses.replace(wrong.network, head=other)
    cases = run_draws([*right, dataclasses.replace(wrong, network=network)])
    assert [case.failure for case in cases] == [""] * 4 + ["labels differ"]


def _with_tied_scores() -> Iterator[Draw]:
    for seed in count():
        case = draw(seed)
        scores = fuzz.evaluate(case.network, case.images).scores
        best = scores.max(axis=1, keepdims=True)
        plain = case.network.head.rule == "argmax" and case.network.head.scale is None
        if plain and ((scores == best).sum(axis=1) > 1).any():
            yield case


def test_a_model_that_does_not_run_fails_all_its_seeds(monkeypatch) -> None:
    def broken(draws: list[Draw]) -> list[Case]:
        raise ToolError(f"{len(draws)} graphs")

    monkeypatch.setattr(fuzz_verilog, "run_draws", broken)
    cases = list(fuzz_verilog.fuzz_verilog([1, 2, 3], 2))
    assert [(case.seed, case.failure) for case in cases] == [
        (1, "2 graphs"),
        (2, "2 graphs"),
        (3, "1 graphs"),
    ]


def test_every_feature_of_a_plan_is_drawn() -> None:
    seen: set[str] = set()
    for seed in range(150):
        seen |= draw(seed).features
        if seen >= PLAN_FEATURES | {"every cycle compared", "random stalls"}:
            break
    assert seen >= PLAN_FEATURES | {"every cycle compared", "random stalls"}
    assert seen <= FEATURES | PLAN_FEATURES | {"every cycle compared", "random stalls"}


def test_a_fault_is_seen(monkeypatch) -> None:
    right = fuzz.evaluate

    def wrong(network, images):
        found = right(network, images)
        found.outputs[-1].reshape(-1)[0] += 1
        return found

    monkeypatch.setattr(fuzz, "evaluate", wrong)
    assert check(1).failure == "scores differ"


def test_a_transfer_in_another_cycle_is_seen(monkeypatch) -> None:
    seed = next(seed for seed in range(100) if draw(seed).timed)
    late = draw(seed)
    late.predicted.result[-1] += 1
    monkeypatch.setattr(fuzz, "draw", lambda _: late)
    assert check(seed).failure == "transfers in other cycles than predicted"


def test_a_record_goes_on_where_it_was(tmp_path) -> None:
    path = tmp_path / "fuzz.jsonl"
    record = Record(path, "now")
    record.add(Case(3, frozenset({"conv of bit"}), True))
    record.add(Case(4, frozenset(), False, "scores differ"))
    again = Record(path, "now")
    assert again.cases == record.cases
    # What failed is run again, what passed is not; of other sources nothing counts.
    assert again.missing(2, 4) == [2, 4, 5]
    assert Record(path, "later").missing(3, 1) == [3]
    assert [json.loads(line)["seed"] for line in path.read_text().splitlines()] == [3, 4]
    assert [case.seed for case in again.of(0, 4)] == [3]


def test_a_run_in_pieces_is_recorded(tmp_path, capsys) -> None:
    path = tmp_path / "fuzz.jsonl"
    for first, seeds in ((0, 1), (0, 2)):
        arguments = ["--first", f"{first}", "--count", f"{seeds}", "--jobs", "1"]
        assert fuzz.main([*arguments, "--record", str(path)]) == 0
    assert len(path.read_text().splitlines()) == 2
    assert "2 networks" in capsys.readouterr().out


def test_a_seed_that_raises_is_a_failure() -> None:
    (case,) = fuzz.fuzz([-1], 1)
    assert case.failure.startswith("ValueError: ")


def test_a_seed_stands_for_one_case() -> None:
    first, second = draw(5), draw(5)
    assert first.network.digest() == second.network.digest()
    assert first.plan == second.plan
    assert np.array_equal(first.images, second.images)


def test_the_table_counts_what_passed() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cases = [
        Case(0, frozenset({"conv of bit", "fork"}), True),
        Case(1, frozenset({"conv of bit"}), False),
        Case(2, frozenset({"fork"}), False, "scores differ"),
    ]
    found = module.summary(cases)
    assert found == {
        "passed": 2,
        "timed": 1,
        "failures": {"2": "scores differ"},
        "features": {"conv of bit": 2, "fork": 1},
    }
    table = module.markdown({"Amaranth": {"asked": 5, **found}, "Verilator": {"asked": 0, **found}})
    assert "| Amaranth | 2 of 5 so far | 1 | 1 | 1 |" in table
    assert "conv of bit 4, " in table and "are below 100" in table


def test_a_result_holds_for_circuits_model_and_benches() -> None:
    imported = fuzz._imported("xnorforge.sim.fuzz")
    for name in ("hw.mvu", "hw.structures", "gen.cycles", "gen.core", "sim.bench", "sw.protocol"):
        assert imported[f"xnorforge.{name}"].name == f"{name.split('.')[1]}.py"
    # Not for what has no part in it, whatever else this process has imported.
    assert not {"xnorforge.gen.planner", "xnorforge.sw.cli"} & imported.keys()
    more = fuzz._imported("xnorforge.sim.fuzz_verilog")
    assert imported.keys() < more.keys() and "xnorforge.gen.verilog" in more
    digests = [
        fuzz.sources_digest(f"xnorforge.sim.{name}")
        for name in ("fuzz", "fuzz", "fuzz_verilog", "bench")
    ]
    assert digests[0] == digests[1] and len(set(digests)) == 3
