# SPDX-License-Identifier: BSD-2-Clause
"""The shipped models: their files, their accuracy, and that the import means what was trained."""

import dataclasses
import hashlib
import json

import numpy as np
import onnx
import pytest

from xnorforge.gen.load import load
from xnorforge.sw.errors import TrainingError
from xnorforge.sw.images import load_images
from xnorforge.sw.shipped import SHIPPED_MODELS, shipped_images, shipped_model, shipped_record
from xnorforge.sw.train import DATASETS, RECIPES

pytestmark = pytest.mark.parametrize("name", SHIPPED_MODELS)


def constants(name: str) -> dict[str, np.ndarray]:
    model = onnx.load(shipped_model(name))
    return {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}


def float_margin(name: str) -> float:
    """Smallest |batch norm| at any reachable dot product, in units of its slope."""
    values, smallest, index = constants(name), np.inf, 0
    while f"norm_{index}_gamma" in values:
        gamma, beta, mean, variance = (
            values[f"norm_{index}_{part}"].astype(np.float64)
            for part in ("gamma", "beta", "mean", "variance")
        )
        columns = len(values[f"dense_{index}_weight"])
        root = mean - beta * np.sqrt(variance + 1e-5) / gamma
        # Dot products of `columns` signs are columns, columns - 2, ...: a grid of step 2.
        distance = abs((root - columns + 1) % 2 - 1)
        smallest = min(smallest, distance.min())
        index += 1
    assert index == 3
    return smallest


def plain_scores(name: str, images: np.ndarray) -> np.ndarray:
    """Integer scores from the file's numbers, by plain floating point, no code of ours."""
    values = constants(name)
    x = np.where(images.reshape(len(images), -1) >= 127.5, 1.0, -1.0).astype(np.float32)
    for index in range(4):
        x = x @ values[f"dense_{index}_weight"]
        if index < 3:
            gamma, beta, mean, variance = (
                values[f"norm_{index}_{part}"].astype(np.float64)
                for part in ("gamma", "beta", "mean", "variance")
            )
            y = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
            x = np.where(y >= 0, 1.0, -1.0).astype(np.float32)
    return x.astype(np.int64)


def test_record_belongs_to_the_file_and_the_recipe(name):
    record = json.loads(shipped_record(name).read_text())
    assert record["model"] == shipped_model(name).name
    assert record["sha256"] == hashlib.sha256(shipped_model(name).read_bytes()).hexdigest()
    assert record["data"] == DATASETS[RECIPES[name].dataset].content
    recipe = json.loads(json.dumps(dataclasses.asdict(RECIPES[name])))
    assert record["recipe"] == recipe
    assert (record["seed"], record["epochs"]) == (recipe["seed"], recipe["epochs"])
    assert record["held_out_history"][record["epoch"] - 1] == max(record["held_out_history"])
    assert record["test_accuracy"] >= recipe["goal"]


def test_file_passes_the_checker(name):
    onnx.checker.check_model(onnx.load(shipped_model(name)), full_check=True)


def test_thresholds_lie_clear_of_float_rounding(name):
    assert float_margin(name) > 1e-4


def test_network_scores_equal_the_file_on_the_shipped_images(name):
    reference = pytest.importorskip("xnorforge.sim.reference")
    images, _ = load_images(shipped_images(), shape=(784,))
    network = load(shipped_model(name))
    assert network.weight_bits == {"mnist-tfc": 59_008, "mnist-sfc": 334_336}[name]
    result = reference.Executor(network).run(images)
    np.testing.assert_array_equal(result.scores, plain_scores(name, images))


def test_network_scores_equal_torch_and_labels_equal_onnxruntime(name):
    torch = pytest.importorskip("torch")
    ort = pytest.importorskip("onnxruntime")
    reference = pytest.importorskip("xnorforge.sim.reference")
    from xnorforge.sw.train.layers import BinaryNetwork
    from xnorforge.sw.train.loop import predict, scores

    values = {key: torch.from_numpy(value.copy()) for key, value in constants(name).items()}
    twin = BinaryNetwork(RECIPES[name]).eval()
    for index, dense in enumerate(twin.products):
        dense.latent.data = values[f"dense_{index}_weight"].T
    for index, norm in enumerate(twin.norms):
        norm.weight.data, norm.bias.data = (
            values[f"norm_{index}_gamma"],
            values[f"norm_{index}_beta"],
        )
        norm.running_mean, norm.running_var = (
            values[f"norm_{index}_mean"],
            values[f"norm_{index}_variance"],
        )
    images, _ = load_images(shipped_images(), shape=(784,))
    dots = scores(twin, images).numpy().astype(np.int64)
    result = reference.Executor(load(shipped_model(name))).run(images)
    np.testing.assert_array_equal(result.scores, dots)

    runtime = ort.InferenceSession(shipped_model(name), providers=["CPUExecutionProvider"])
    inputs = (images.astype(np.float32) / 255).reshape(len(images), 1, 1, 28, 28)
    labels = [runtime.run(None, {"image": image})[0].argmax() for image in inputs]
    np.testing.assert_array_equal(labels, predict(twin, images))
    np.testing.assert_array_equal(labels, result.labels)


def test_accuracy_on_the_test_set_is_the_recorded_one(name, shared):
    images, labels = load_images(shared / "data" / "mnist", shape=(784,))
    accuracy = 100 * (plain_scores(name, images).argmax(1) == labels).mean()
    assert accuracy == pytest.approx(json.loads(shipped_record(name).read_text())["test_accuracy"])
    assert accuracy >= {"mnist-tfc": 93.0, "mnist-sfc": 97.5}[name]


def test_unknown_name_lists_the_models(name):
    with pytest.raises(TrainingError, match=f"No shipped model 'x{name}'; .*{name}"):
        shipped_model("x" + name)
