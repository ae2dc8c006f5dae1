# SPDX-License-Identifier: BSD-2-Clause
"""infer and load on a toy board: what people and programs get to see."""

import json

import numpy as np
import pytest

from xnorforge.sim.toy_board import (
    OTHER,
    WEIGHTS,
    ToyBoard,
    toy_bundle,
    toy_device,
    toy_images,
    toy_load,
    toy_scores,
)
from xnorforge.sw.cli import run
from xnorforge.sw.protocol import crc32


@pytest.fixture
def bundle(tmp_path):
    return str(toy_bundle(tmp_path / "bundle"))


@pytest.fixture
def images(tmp_path):
    path = tmp_path / "images.npz"
    labels = toy_scores(toy_images(80)).argmax(axis=1)
    labels[:8] += 1  # ten percent wrong
    np.savez(path, images=toy_images(80), labels=labels)
    return str(path)


@pytest.fixture
def board():
    with ToyBoard(toy_device()) as server:
        yield server


def test_people_see_labels_best_classes_and_counts(bundle, images, board, capsys):
    assert run(["infer", bundle, images, "--port", board.port, "--top", "2"]) == 0
    shown = capsys.readouterr().out
    scores = toy_scores(toy_images(80))
    order = np.argsort(-scores[0], kind="stable")
    best = ", ".join(f"{label} ({scores[0, label]})" for label in order[:2])
    for words in (
        "Labels: ",
        f"Image 0: {best}\n",
        "... 70 more: --json has them all",
        "72 of 80 right (90.00%)",
        "Images  80 in ",
        "Core    80 in 0.667 ms by its own clock, 120,000 a second",
        "of 160 bytes of data 0 sent again",
        "Faults  0 spoilt frames in, 0 out, 0 not taken, 0 reconnections",
    ):
        assert words in shown, shown


def test_programs_get_all_of_it_in_json(bundle, images, board, tmp_path, capsys):
    out = tmp_path / "results"
    command = ["infer", bundle, images, "--port", board.port, "--top", "3", "--json"]
    assert run([*command, "-o", str(out), "--images", "50"]) == 0
    found = json.loads(capsys.readouterr().out)
    scores = toy_scores(toy_images(80)[:50])
    assert found["scores"] == scores.tolist()
    assert [row[0] for row in found["top"]] == scores.argmax(axis=1).tolist() == found["labels"]
    assert (found["images"], found["frames"], found["correct"]) == (50, 50, 42)
    assert found["link"]["payload_sent"] == 100 and found["link"]["payload_resent"] == 0
    for name in ("link_seconds", "core_seconds", "images_per_second", "core_images_per_second"):
        assert found[name] > 0, name
    for name in ("spoilt_frames", "refused_frames", "reconnects", "starved_cycles"):
        assert found[name] == 0, name
    with np.load(found["output"]) as saved:
        assert (saved["scores"] == scores).all()


def test_load_says_what_the_board_holds_then(bundle, images, board, tmp_path, capsys):
    path = tmp_path / "other.bin"
    path.write_bytes(toy_load(OTHER))
    command = ["load", bundle, str(path), "--port", board.port]
    assert run(command) == 0
    assert f"other.bin: weights {crc32(OTHER):08x} loaded and read back in" in (
        capsys.readouterr().out
    )
    assert board.device.weights_digest == crc32(OTHER)
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights_digest"] == crc32(OTHER)
    infer = ["infer", bundle, images, "--port", board.port, "--json"]
    for more, weights in ((["--weights", str(path)], OTHER), ([], WEIGHTS)):
        assert run([*infer, *more]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["scores"] == toy_scores(toy_images(80), weights).tolist()
        assert board.device.weights_digest == crc32(weights)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("load", "{bundle}", "absent.onnx"), "absent.onnx does not exist"),
        (("load", "{bundle}", "{bundle}/manifest.json"), "network.json"),
        (("load", "{bundle}", "{bundle}", "--pixel", "int8"), "is no model: leave out pixel"),
        (("load", "absent", "{bundle}"), "absent is no bundle"),
        (("infer", "{bundle}", "{images}", "--top", "4"), "4 is more than the 3 classes"),
        (("infer", "{bundle}", "{images}", "--weights", "x.bin"), "x.bin cannot be read"),
    ],
)
def test_bad_input_is_one_sentence(bundle, images, board, arguments, words, capsys):
    filled = [word.format(bundle=bundle, images=images) for word in arguments]
    assert run([*filled, "--port", board.port]) == 2
    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("Error: ")]
    assert words in line and captured.out == ""
    assert board.device.weights_digest == crc32(WEIGHTS)
