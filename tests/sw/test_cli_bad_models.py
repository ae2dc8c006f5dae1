# SPDX-License-Identifier: BSD-2-Clause
"""Models and images that cannot be right: every command says in one sentence which node breaks
which rule, by which value, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from xnorforge.sw.cli import run

HEIGHT, WIDTH, CHANNELS, ROWS, CLASSES = 6, 5, 3, 4, 3
MAP = ROWS * (HEIGHT - 2) * (WIDTH - 2)  # elements behind the convolution


def signs(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).choice(np.float32([-1, 1]), shape)


class Model:
    """Pixels, a convolution of ±1, Sign, a dense layer; made worse by a case."""

    def __init__(self) -> None:
        self.constants = {
            "two": np.float32(2),
            "one": np.float32(1),
            "w0": signs(ROWS, CHANNELS, 3, 3),
            "gamma": np.ones(ROWS, np.float32),
            "beta": np.full(ROWS, 0.25, np.float32),
            "mean": np.zeros(ROWS, np.float32),
            "variance": np.ones(ROWS, np.float32),
            "w1": signs(MAP, CLASSES),
        }
        self.nodes = [
            helper.make_node("Mul", ["image", "two"], ["a"], "double"),
            helper.make_node("Sub", ["a", "one"], ["b"], "centre"),
            helper.make_node("Sign", ["b"], ["c"], "binary"),
            helper.make_node("Conv", ["c", "w0"], ["d"], "conv"),
            helper.make_node(
                "BatchNormalization", ["d", "gamma", "beta", "mean", "variance"], ["e"], "norm"
            ),
            helper.make_node("Sign", ["e"], ["f"], "sign"),
            helper.make_node("Flatten", ["f"], ["g"], "flat"),
            helper.make_node("MatMul", ["g", "w1"], ["scores"], "dense"),
        ]

    def node(self, name: str) -> onnx.NodeProto:
        return next(node for node in self.nodes if node.name == name)

    def attribute(self, node: str, **values: object) -> None:
        self.node(node).attribute.extend(
            helper.make_attribute(name, value) for name, value in values.items()
        )

    def save(self, path: Path) -> str:
        shape = ["N", CHANNELS, HEIGHT, WIDTH]
        graph = helper.make_graph(
            self.nodes,
            "bad",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", CLASSES])],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        opset = [helper.make_opsetid("", 13)]
        path.write_bytes(
            helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
        )
        return str(path)


def unknown_attribute(model: Model) -> None:
    model.attribute("conv", padding_mode="zeros")


def unsupported_attribute(model: Model) -> None:
    model.attribute("conv", auto_pad="SOMEHOW")


def cycle(model: Model) -> None:
    model.node("conv").input[0] = "f"


def dangling(model: Model) -> None:
    model.node("sign").input[0] = "nowhere"


def produced_twice(model: Model) -> None:
    model.node("sign").output[0] = "d"


def mismatched(model: Model) -> None:
    model.constants["w0"] = signs(ROWS, CHANNELS + 1, 3, 3)


def mismatched_dense(model: Model) -> None:
    model.constants["w1"] = signs(MAP + 1, CLASSES)


def not_a_number(model: Model) -> None:
    model.constants["gamma"][2] = np.nan


def infinite(model: Model) -> None:
    model.constants["w0"][1, 2, 0, 1] = -np.inf


def infinite_attribute(model: Model) -> None:
    model.attribute("norm", epsilon=float("inf"))


def not_signs(model: Model) -> None:
    model.constants["w0"][2, 1, 0, 0] = 0.2718


def inexact_input(model: Model) -> None:
    """Channels with means of their own, and no quantiser before the convolution."""
    model.constants["one"] = np.float32([0.4, 0.5, 0.6]).reshape(CHANNELS, 1, 1)
    model.nodes.remove(model.node("binary"))
    model.node("conv").input[0] = "b"


CASES = {
    unknown_attribute: ["Conv 'conv'", "padding_mode"],
    unsupported_attribute: ["Conv 'conv'", "auto_pad 'SOMEHOW'"],
    cycle: ["a cycle", "Conv 'conv'"],
    dangling: ["Sign 'sign'", "'nowhere'", "nothing produces"],
    produced_twice: ["tensor 'd'", "produced twice", "Sign 'sign'"],
    mismatched: ["Conv 'conv'", "[4, 4, 3, 3]", "3 channels"],
    mismatched_dense: ["MatMul 'dense'", "48 inputs", "49 columns"],
    not_a_number: ["BatchNormalization 'norm'", "'gamma' holds nan", "finite"],
    infinite: ["Conv 'conv'", "'w0' holds -inf", "finite"],
    infinite_attribute: ["BatchNormalization 'norm'", "'epsilon' is inf", "finite"],
    not_signs: ["Conv 'conv'", "output 2 are not ±s", "0.2718"],
    inexact_input: ["Sub 'centre'", "element by element", "quantiser"],
}


def fails(capsys, *arguments: str) -> str:
    """Runs a command that must fail; gives the one sentence that it says."""
    assert run(list(arguments)) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err + captured.out
    return lines[0]


@pytest.mark.parametrize("spoil", CASES, ids=lambda spoil: spoil.__name__)
def test_bad_models_are_refused_with_node_rule_and_value(
    spoil: Callable[[Model], None], tmp_path, monkeypatch, capsys
) -> None:
    model = Model()
    spoil(model)
    monkeypatch.chdir(tmp_path)
    path = model.save(tmp_path / "bad.onnx")
    for command in (["inspect", path], ["compile", path, "--board", "icebreaker", "-o", "net"]):
        sentence = fails(capsys, *command)
        assert all(word in sentence for word in ["bad.onnx", *CASES[spoil]]), sentence
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.onnx"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    """The model as it should be."""
    folder = tmp_path_factory.mktemp("good")
    path = Model().save(folder / "good.onnx")
    assert run(["compile", path, "--board", "ulx3s-25f", "-o", str(folder / "net")]) == 0
    return str(folder / "net")


def test_the_model_without_faults_is_fine(bundle, tmp_path, capsys) -> None:
    file = tmp_path / "images.npy"
    np.save(file, np.random.default_rng(1).integers(0, 256, (5, HEIGHT, WIDTH, CHANNELS), np.uint8))
    assert run(["verify", bundle, "--level", "reference", "--data", str(file)]) == 0
    assert "EXACT: 5 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4, CHANNELS, HEIGHT, WIDTH), "not (4, 3, 6, 5): put the channels last"),
        ((4, WIDTH, HEIGHT, CHANNELS), "not (4, 5, 6, 3): move the axes"),
        ((4, HEIGHT, WIDTH), "(90 elements each), not (4, 6, 5)"),
    ],
)
def test_images_of_another_layout_are_refused_before_anything_runs(
    shape, words, bundle, tmp_path, capsys
) -> None:
    file = tmp_path / "images.npy"
    np.save(file, np.zeros(shape, np.uint8))
    for command in (["verify", bundle, "--data"], ["infer", bundle, "--port", "/dev/absent"]):
        sentence = fails(capsys, *command, str(file))
        assert f"{file}: images must" in sentence and words in sentence
