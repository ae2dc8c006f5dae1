# SPDX-License-Identifier: BSD-2-Clause
"""Convolutional recipes: the exported file means exactly what was trained."""

import dataclasses

import numpy as np
import onnx
import pytest

from xnorforge.gen.layers import Conv as ConvLayer
from xnorforge.gen.load import load
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.sw.errors import TrainingError
from xnorforge.sw.train import RECIPES, Conv, Dense, Pool, Recipe, train

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")

from xnorforge.sw.train.export import to_qonnx  # noqa: E402  (needs torch)
from xnorforge.sw.train.layers import BinaryNetwork  # noqa: E402
from xnorforge.sw.train.loop import fit, predict, scores  # noqa: E402

SMALL = Recipe(
    name="small",
    title="test",
    layers=(Conv(8), Pool(2), Conv(6, 2), Dense(11)),
    goal=0,
    epochs=3,
    image=(9, 10, 3),
    classes=4,
    pixels="bytes",
    batch=20,
    latent_rate=0.05,
    shift=1,
    flip=True,
    held_out=40,
)

VARIANTS = {
    "pool, then dense": {},
    "bits": {"pixels": "bits"},
    "odd maps": {"layers": (Conv(5, 2), Pool(3), Conv(7, 1))},
    "pool before the head": {"layers": (Conv(4), Conv(6), Pool(2))},
    "one channel": {"image": (9, 8, 1)},
    "head alone": {"layers": (), "pixels": "bits"},
    "dense of bytes": {"layers": (Dense(9),)},
}


def coloured(count: int, recipe: Recipe = SMALL, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A random picture a class; each image one of them with a tenth of its pixels noise."""
    pictures = np.random.default_rng(0).integers(0, 256, (recipe.classes, *recipe.image), np.uint8)
    random = np.random.default_rng(seed)
    labels = random.integers(0, recipe.classes, count)
    noise = random.integers(0, 256, (count, *recipe.image), np.uint8)
    return np.where(random.random(noise.shape) < 0.1, noise, pictures[labels]), labels


def trained(recipe: Recipe) -> BinaryNetwork:
    """A few steps, then norms of both signs."""
    network = fit(recipe, *coloured(240, recipe)).network
    torch.manual_seed(2)
    for norm in network.norms:
        norm.weight.data *= torch.where(torch.rand(len(norm.weight)) < 0.5, -1.0, 1.0)
    return network


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_exported_network_gives_exactly_the_trainers_scores(variant, tmp_path):
    recipe = dataclasses.replace(SMALL, **VARIANTS[variant])
    network = trained(recipe)
    images, _ = coloured(60, recipe, seed=9)
    model = to_qonnx(network, name="n")
    (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
    loaded = load(tmp_path / "n.onnx")
    assert loaded.weight_bits == recipe.weight_bits
    expected = scores(network, images).numpy()
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(evaluate(loaded, images).scores, expected)

    session = ort.InferenceSession(tmp_path / "n.onnx", providers=["CPUExecutionProvider"])
    inputs = (images.astype(np.float32) / 255).transpose(0, 3, 1, 2)
    outputs = np.concatenate([session.run(None, {"image": x[None]})[0] for x in inputs])
    np.testing.assert_array_equal(outputs.argmax(1), predict(network, images))


def test_the_executor_gives_the_scores_of_cnv_tiny(tmp_path):
    reference = pytest.importorskip("xnorforge.sim.reference")
    recipe = RECIPES["cnv-tiny"]
    torch.manual_seed(1)
    network = BinaryNetwork(recipe)
    images = np.random.default_rng(1).integers(0, 256, (12, 32, 32, 3), np.uint8)
    with torch.no_grad():  # statistics of these images
        network.train()
        network(torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32)) * 2 - 255)
    (tmp_path / "n.onnx").write_bytes(to_qonnx(network, name="n").SerializeToString())
    loaded = load(tmp_path / "n.onnx")
    convolutions = [layer for layer in loaded.layers if isinstance(layer, ConvLayer)]
    assert sum(layer.vectors * layer.weights.size for layer in convolutions) > 50e6
    result = reference.Executor(loaded).run(images)
    np.testing.assert_array_equal(result.scores, scores(network, images).numpy())


def test_cnv_is_the_papers_network():
    network = BinaryNetwork(RECIPES["cnv"])
    shapes = [tuple(product.latent.shape) for product in network.products]
    assert shapes[:6] == [
        (64, 3, 3, 3),
        (64, 64, 3, 3),
        (128, 64, 3, 3),
        (128, 128, 3, 3),
        (256, 128, 3, 3),
        (256, 256, 3, 3),
    ]
    assert shapes[6:] == [(512, 256), (512, 512), (10, 512)]
    assert [product.pool for product in network.products] == [1, 2, 1, 2, 1, 1, 1, 1, 1]


def test_export_is_a_chain_of_standard_nodes():
    model = to_qonnx(BinaryNetwork(SMALL).eval(), name="n")
    onnx.checker.check_model(model, full_check=True)
    ops = [node.op_type for node in model.graph.node if not node.output[0].endswith("_sign")]
    layer = ["BatchNormalization", "BipolarQuant"]
    head = ["MatMul", "Mul", "Add"]
    assert ops == [
        *("Mul", "Sub", "Conv", "MaxPool", *layer, "Conv", *layer),
        *("Flatten", "MatMul", *layer, *head),
    ]


# --- training --------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
def test_a_binary_network_learns_and_its_weights_stay_in_range(half):
    recipe = dataclasses.replace(SMALL, epochs=6, half=half, shift=0, flip=False)
    result = fit(recipe, *coloured(400))
    assert max(result.history) > 90
    assert all(product.latent.abs().max() <= 1 for product in result.network.products)
    repeated = fit(recipe, *coloured(400)).network.state_dict()
    for name, value in result.network.state_dict().items():
        assert torch.equal(value, repeated[name])


def test_a_float_twin_has_the_same_shape_and_real_weights():
    twin = dataclasses.replace(SMALL, epochs=6, shift=0, flip=False).twin()
    result = fit(twin, *coloured(400))
    assert max(result.history) > 90
    binary = BinaryNetwork(SMALL)
    for mine, other in zip(result.network.products, binary.products, strict=True):
        assert mine.latent.shape == other.latent.shape and mine.pool == other.pool
    images, _ = coloured(20, seed=5)
    assert (scores(result.network, images).frac() != 0).any()
    assert (scores(binary, images).frac() == 0).all()


def test_a_float_twin_is_no_model_file(tmp_path):
    with pytest.raises(TrainingError, match=r"'small-float' is a float twin.*train_twins"):
        train(SMALL.twin(), tmp_path, tmp_path / "a.onnx", progress=False)
    with pytest.raises(TrainingError, match=r"'small-float' is a float twin.*no circuit"):
        to_qonnx(BinaryNetwork(SMALL.twin()), name="n")
    assert list(tmp_path.iterdir()) == []


def test_train_writes_a_convolutional_model(tmp_path):
    for split, count in (("train", 120), ("test", 30)):
        images, labels = coloured(count, seed=count)
        np.savez(tmp_path / f"{split}.npz", images=images, labels=labels)
    result = train(SMALL, tmp_path, tmp_path / "a.onnx", epochs=2, progress=False)
    with np.load(tmp_path / "test.npz") as test:
        found = evaluate(load(result.model), test["images"]).labels
        assert result.test_accuracy == pytest.approx(100 * (found == test["labels"]).mean())
    assert result.recipe["layers"][0] == {"channels": 8, "kernel": 3}
    assert set(result.data) == {"train.npz", "test.npz"}
