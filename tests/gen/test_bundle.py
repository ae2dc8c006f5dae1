# SPDX-License-Identifier: BSD-2-Clause
"""The bundle on disk: whole or not there, the same bytes every time, and refused when changed."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from xnorforge.gen import bundle as module
from xnorforge.gen.bundle import Bundle, compile_bundle
from xnorforge.gen.errors import BundleError
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.gen.planner import make_plan
from xnorforge.sim.core_bench import random_network


@pytest.fixture(scope="module")
def case() -> tuple[Network, Plan]:
    network = random_network(random.Random(3), sizes=[12, 5, 3])
    return network, make_plan(network, device="ice40-up5k", goal="min")


@pytest.fixture
def made(case, tmp_path) -> Path:
    return compile_bundle(*case, tmp_path / "net").path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_input_gives_the_same_bytes(case, made, tmp_path) -> None:
    again = compile_bundle(*case, tmp_path / "elsewhere" / "other")
    assert contents(again.path) == contents(made)
    text = b"".join(contents(made).values())
    assert str(tmp_path).encode() not in text
    assert str(Path.cwd()).encode() not in text


def test_failed_compilation_leaves_the_older_bundle_and_nothing_else(
    case, made, monkeypatch
) -> None:
    before = contents(made)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "accelerator_verilog", fail)
    with pytest.raises(KeyboardInterrupt):
        compile_bundle(*case, made)
    assert contents(made) == before
    assert list(made.parent.iterdir()) == [made]


def test_older_bundle_is_replaced_as_a_whole(case, made) -> None:
    (made / "results").mkdir()
    compile_bundle(*case, made)
    assert not (made / "results").exists()
    assert list(made.parent.iterdir()) == [made]


def test_foreign_folder_and_working_directory_are_refused(case, tmp_path, monkeypatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(BundleError, match="is not a bundle: choose another"):
        compile_bundle(*case, tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(BundleError, match="holds the working directory"):
        compile_bundle(*case, ".")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda item: item.pop("files"), "is not a bundle's manifest"),
        (lambda item: item["files"].update({"weights.bin": "0"}), "is not a bundle's manifest"),
        (lambda item: item["files"].pop("weights.bin"), "weights.bin has changed"),
        (lambda item: item.pop("plan"), "no whole plan"),
        (lambda item: item["plan"]["layers"][0].pop("pe"), "no whole plan"),
        (lambda item: item["plan"]["layers"][0].update(pe=1, simd=1), "not the circuit's"),
        (lambda item: item.update(plan_hash=0), "not the circuit's"),
        (lambda item: item.update(schema="2.0"), "has schema 2.0"),
    ],
)
def test_changed_manifest_is_refused(made, change, words: str) -> None:
    path = made / "manifest.json"
    item = json.loads(path.read_text())
    change(item)
    path.write_text(json.dumps(item))
    with pytest.raises(BundleError, match=words):
        Bundle.open(made)


def test_later_minor_version_is_read(made) -> None:
    path = made / "manifest.json"
    item = json.loads(path.read_text())
    item.update(schema="1.7", plan_hash=0, weather="fine")
    item["plan"]["layers"][0]["colour"] = "red"
    path.write_text(json.dumps(item))
    assert Bundle.open(made).plan.layers[0].rows == 5


def test_work_folders_of_killed_compilations_are_removed(case, made) -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    dead = made.with_name(f".net-{done.pid}-x1")
    alive = made.with_name(f".net-{os.getpid()}-x2")
    dead.mkdir()
    alive.mkdir()
    compile_bundle(*case, made)
    assert not dead.exists() and alive.exists()
