# SPDX-License-Identifier: BSD-2-Clause
"""build and compile --clock max on the command line, with tools that stand in for the slow ones."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
from pathlib import Path

import pytest

from xnorforge.gen.boards import BOARDS
from xnorforge.gen.bundle import Bundle, compile_bundle
from xnorforge.gen.layer_usage import LayerUsage
from xnorforge.gen.planner import make_plan
from xnorforge.sim.core_bench import random_network
from xnorforge.sw import cli_model
from xnorforge.sw.cli import run

NETWORK = random_network(random.Random(4), sizes=[20, 4, 3])


@pytest.fixture(autouse=True)
def small_model(monkeypatch) -> None:
    """Whatever file is named: a network of a few neurons."""
    monkeypatch.setattr(cli_model, "_load", lambda *_: NETWORK)


def compile_(out: Path, *options: str) -> int:
    return run(["compile", "model.onnx", "--board", "icebreaker", "-o", str(out), *options])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A bundle that nobody builds in place: tests that do copy it."""
    path = tmp_path_factory.mktemp("bundle") / "net"
    plan = make_plan(NETWORK, board="icebreaker", clock_hz=30e6)
    return compile_bundle(NETWORK, plan, path).path


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> str:
    return str(shutil.copytree(bundle, tmp_path / "net"))


def test_build_shows_every_seed_and_the_result(copy, fake_tools, capsys) -> None:
    fake_tools.plan({"fmax": 25.0}, s3={"fmax": 31.0})
    assert run(["build", copy, "--jobs", "1"]) == 0
    captured = capsys.readouterr()
    lines = [line.strip() for line in captured.err.splitlines()]
    for seed, fmax in ((1, 25), (2, 25), (3, 31)):
        assert any(line.startswith(f"seed {seed}: {fmax}.00 MHz, 30.00 wanted") for line in lines)
    assert "31.0 MHz reached, 30 MHz needed (seed 3)" in captured.out


def test_build_shows_what_each_layer_takes(copy, fake_tools, monkeypatch, capsys) -> None:
    rows = (
        LayerUsage("conv0", {"logic_cells": 1300, "flip_flops": 7, "lost_flip_flops": 2}, None),
        LayerUsage(
            "shell",
            {"logic_cells": 5, "flip_flops": 1, "block_rams": 3},
            {"logic_cells": 4, "flip_flops": 2, "block_rams": 3},
            {"link": {"logic_cells": 5}},
        ),
    )
    monkeypatch.setattr("xnorforge.gen.layer_usage.layer_usage", lambda *_, **__: rows)
    assert run(["build", copy]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    heads = ["Cells", "model", "FFs", "model", "Block", "RAMs", "model"]
    assert ["Layer", *heads] in shown
    assert ["conv0", "1,300", "-", "9", "-", "0", "-"] in shown
    assert ["shell", "5", "4", "1", "2", "3", "3"] in shown
    assert ["total", "1,305", "4", "10", "2", "3", "3"] in shown
    assert run(["build", copy, "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert layers == [dataclasses.asdict(row) for row in rows]


def test_layers_that_cannot_be_counted_are_said_and_do_no_harm(copy, fake_tools, capsys) -> None:
    assert run(["build", copy, "--json"]) == 0
    captured = capsys.readouterr()
    assert "What each layer takes is not known: " in captured.err
    assert "made it; compile the model again" in captured.err
    found = json.loads(captured.out)
    assert found["layers"] == [] and Path(found["bitstream"]).is_file()


@pytest.mark.parametrize(
    "options, seeds",
    [
        (("--seeds", "2"), ["1", "2"]),
        (("--seeds", "4-6"), ["4", "5", "6"]),
        (("--seeds", "9,2-3,9"), ["9", "2", "3"]),
        (("--seed", "7", "--seed", "5"), ["7", "5"]),
    ],
)
def test_seeds_are_the_asked_ones(copy, fake_tools, capsys, options, seeds) -> None:
    fake_tools.plan({"fmax": 35.0})
    assert run(["build", copy, *options, "--best", "--jobs", "1", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["seeds"]) == set(seeds)
    assert fake_tools.calls()[1:-1] == [f"seed {seed}" for seed in seeds]


@pytest.mark.parametrize(
    "options, words",
    [
        (("--seeds", "0"), "'0' holds no seed"),
        (("--seeds", "5-3"), "'5-3' holds no seed"),
        (("--seeds", "a"), "neither a number of seeds nor a list like 1-32"),
        (("--seeds", "1,"), "neither a number of seeds"),
        (("--seeds", "1-5000"), "more than 1,000 seeds"),
        (("--seeds", "4294967296-4294967297"), "from 0 to 2147483647, not 4294967296"),
        (("--seeds", "2", "--seed", "1"), "either --seeds or --seed"),
        (("--jobs", "0"), "--jobs"),
    ],
)
def test_seeds_and_jobs_that_are_none_are_refused(copy, fake_tools, capsys, options, words) -> None:
    assert run(["build", copy, *options]) == 2
    assert words in capsys.readouterr().err
    assert fake_tools.calls() == []


def test_interrupted_build_says_that_it_goes_on(copy, fake_tools, monkeypatch, capsys) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("xnorforge.gen.build_flow.Flow.pack", interrupted)
    assert run(["build", copy]) == 130
    errors = capsys.readouterr().err
    assert "What has finished is kept: the same command goes on from here\n" in errors
    assert errors.endswith("Interrupted\n")


def test_interrupted_build_promises_nothing_where_nothing_is_kept(
    copy, fake_tools, monkeypatch, capsys
) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setenv("XNORFORGE_CACHE_GB", "0")
    monkeypatch.setattr("xnorforge.gen.build_flow.Flow.pack", interrupted)
    assert run(["build", copy]) == 130
    assert "What has finished is kept" not in capsys.readouterr().err


def test_output_that_is_no_bundle_is_refused_before_anything_is_built(
    tmp_path, fake_tools, capsys
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "notes").write_text("mine")
    for options in (("--clock", "max"), ("--max", "--prove")):
        assert compile_(tmp_path / "net", *options) == 2
        assert "exists and is not a bundle" in capsys.readouterr().err
    assert fake_tools.calls() == []


def test_crashed_seeds_are_one_sentence(copy, fake_tools, capsys) -> None:
    fake_tools.plan({"fmax": 25.0, "crash": "kill"})
    assert run(["build", copy, "--seeds", "2"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("Error: nextpnr-ice40 failed: ended by signal SIGKILL")
    assert "build-logs/seed" in line


def test_compile_for_the_fastest_clock_comes_with_its_bitstream(
    tmp_path, fake_tools, capsys
) -> None:
    fake_tools.plan({"fmax": 40.0}, s2={"fmax": 43.0})
    out = tmp_path / "net"
    assert compile_(out, "--clock", "max", "--seeds", "2", "--jobs", "1", "--json") == 0
    captured = capsys.readouterr()
    item = json.loads(captured.out)
    search, build = item["clock_search"], item["build"]
    assert item["plan"]["clock_hz"] == search["clock_hz"] == build["clock_hz"]
    assert search["clock_hz"] == 42.75e6
    assert search["seed"] == build["seed"] == 2
    assert search["next_hz"] == 44.25e6
    assert not search["attempts"][-1]["closed"]
    assert set(build["reused"]) == {"synthesis", "seed 2", "pack"}
    assert "survey" not in captured.out.split('"clock_search"')[0]
    assert "seed 2: 43.00 MHz" in captured.err and "MHz closes (" in captured.err
    fake_tools.calls()
    assert run(["build", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cached"] and fake_tools.calls() == []
    assert Bundle.open(out).plan.clock_hz == 42.75e6


def test_people_see_the_clocks_tried(tmp_path, fake_tools, capsys) -> None:
    fake_tools.plan({"fmax": 40.0})
    assert compile_(tmp_path / "net", "--clock", "max", "--seeds", "1") == 0
    output = capsys.readouterr().out
    assert "Clocks tried" in output
    assert re.search(r"39\.75 MHz with seed 1; the next PLL setting, 4\d[.\d]* MHz, fails", output)


def test_clock_too_slow_for_the_rate_is_refused(tmp_path, fake_tools, capsys) -> None:
    fake_tools.plan({"fmax": 20.0})
    options = ("--fps", "1000", "--clock", "max", "--seeds", "1")
    assert compile_(tmp_path / "net", *options) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    clock = BOARDS["icebreaker"].pll_config().output_hz
    assert f"1000 images/s were asked for and planned at {clock / 1e6:g} MHz, but 19.875 " in line
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    "options, words",
    [
        (("--board", "icebreaker", "--clock", "fast"), "neither a number of MHz nor 'max'"),
        (("--board", "icebreaker", "--clock", "5"), "must be 16 to 275 MHz, not 5 MHz"),
        (("--board", "icebreaker", "--clock", "nan"), "Clock must be a positive number"),
        (("--device", "ice40-up5k", "--clock", "max"), "--clock max needs a --board"),
        (("--board", "icebreaker", "--seeds", "3"), "belong to --clock max"),
        (("--board", "icebreaker", "--link", "axi", "--clock", "max"), "has none of"),
        (("--board", "icebreaker", "--link", "axi", "--max", "--prove"), "has none of"),
        (("--board", "icebreaker", "--clock", "30", "--jobs", "2"), "belong to --clock max"),
    ],
)
def test_clocks_that_are_none_are_refused(tmp_path, capsys, options, words) -> None:
    assert run(["compile", "model.onnx", "-o", str(tmp_path / "net"), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "net").exists()


def test_compile_max_proved_by_builds(tmp_path, fake_tools, capsys) -> None:
    fake_tools.plan({"fmax": 40.0})
    out = tmp_path / "net"
    assert compile_(out, "--max", "--prove", "--seeds", "1", "--jobs", "1", "--json") == 0
    item = json.loads(capsys.readouterr().out)
    # Every plan closes with these tools: the fastest of all is found.
    assert item["max_search"]["above"] is None
    assert item["build"]["fmax_hz"] == 40e6
    folds = [[layer.pe, layer.simd, layer.pl] for layer in Bundle.open(out).plan.layers]
    assert folds == item["max_search"]["best"]["folds"]


def test_max_that_never_closes_is_one_sentence(tmp_path, fake_tools, capsys) -> None:
    fake_tools.plan({"fmax": 20.0})
    assert compile_(tmp_path / "net", "--max", "--prove", "--seeds", "1", "--jobs", "1") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "No plan of 'random' builds on icebreaker" in line and "20.00 MHz at best" in line


def test_log_that_a_proof_names_is_there(tmp_path, fake_tools, capsys) -> None:
    fake_tools.plan({"fmax": 40.0, "crash": "kill"})
    assert compile_(tmp_path / "net", "--max", "--prove", "--seeds", "1", "--jobs", "1") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("Error: nextpnr-ice40 failed: ended by signal SIGKILL")
    log = Path(re.search(r"whole log: ([^)]*)\)", line)[1])
    assert "placing" in log.read_text()
    shutil.rmtree(log.parents[2])


@pytest.mark.parametrize(
    "options",
    [
        ("--board", "icebreaker", "--prove"),
        ("--device", "ice40-up5k", "--max", "--prove"),
        ("--board", "icebreaker", "--max", "--prove", "--clock", "max"),
    ],
)
def test_prove_goes_with_max_and_a_board(tmp_path, capsys, options) -> None:
    assert run(["compile", "model.onnx", "-o", str(tmp_path / "net"), *options]) == 2
    assert "--prove goes with --max" in capsys.readouterr().err
