# SPDX-License-Identifier: BSD-2-Clause
"""Training: the paper's rules, the loop on small synthetic digits, and export."""

import dataclasses
import gzip
import hashlib
import json
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest

from xnorforge.sw.errors import TrainingError
from xnorforge.sw.images import load_images
from xnorforge.sw.shipped import shipped_images
from xnorforge.sw.train import RECIPES, Conv, Dense, Pool, Recipe, find_recipe, load_split, train

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")

from xnorforge.sw.train.export import QONNX_DOMAIN, _exact, to_qonnx  # noqa: E402  (needs torch)
from xnorforge.sw.train.layers import BinaryNetwork, Product, TensorNorm, sign  # noqa: E402
from xnorforge.sw.train.loop import (  # noqa: E402
    _augmented,
    _maps,
    _squared_hinge,
    _windows,
    encode,
    fit,
    predict,
    scores,
)

SMALL = Recipe(
    name="small",
    title="test",
    layers=(Dense(16), Dense(16)),
    goal=0,
    epochs=2,
    batch=50,
    held_out=200,
)


def digits(count: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Ten random pictures as classes, each image one of them with a tenth of its pixels noise."""
    pictures = np.random.default_rng(0).integers(0, 256, (10, 28, 28), np.uint8)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    noise = rng.integers(0, 256, (count, 28, 28), np.uint8)
    return np.where(rng.random((count, 28, 28)) < 0.1, noise, pictures[labels]), labels


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data set in MNIST's form."""
    path = tmp_path_factory.mktemp("digits")
    for prefix, count in (("train", 800), ("t10k", 100)):
        images, labels = digits(count, seed=count)
        write_idx(path / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(path / f"{prefix}-labels-idx1-ubyte.gz", labels)
    return path


def random_network(rows: tuple[int, ...], seed: int) -> BinaryNetwork:
    """Hidden dense layers; weights, norms and head all random, slopes of both signs."""
    torch.manual_seed(seed)
    network = BinaryNetwork(dataclasses.replace(SMALL, layers=tuple(map(Dense, rows))))
    for norm in network.norms:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
        torch.nn.init.normal_(norm.running_mean, std=5)
        torch.nn.init.uniform_(norm.running_var, 50, 500)
    torch.nn.init.normal_(network.head.log_scale)
    torch.nn.init.normal_(network.head.bias)
    network.head.running_mean.fill_(-1.5)
    network.head.running_var.fill_(90)
    return network.eval()


def onnx_scores(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    runtime = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = (images.astype(np.float32) / 255).reshape(len(images), 1, 1, 28, 28)
    return np.concatenate([runtime.run(None, {"image": image})[0] for image in inputs])


# --- the paper's rules -----------------------------------------------------------------------


def test_sign_of_zero_is_one_and_gradient_saturates():
    x = torch.tensor([-1.5, -1.0, -0.2, -0.0, 0.0, 0.3, 1.0, 1.0001], requires_grad=True)
    y = sign(x)
    assert y.tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]
    y.backward(torch.arange(1.0, 9.0))
    assert x.grad.tolist() == [0, 2, 3, 4, 5, 6, 7, 0]


def test_dense_uses_signs_and_clips_latent_weights():
    dense = Product(2, 3)
    dense.latent.data = torch.tensor([[0.5, -3.0, 0.0], [-0.1, 0.2, 7.0]])
    assert dense(torch.tensor([[1.0, 1.0, -1.0]])).tolist() == [[-1, -1]]
    dense.clip()
    assert dense.latent.tolist() == torch.tensor([[0.5, -1.0, 0.0], [-0.1, 0.2, 1.0]]).tolist()


def test_head_is_a_positive_affine_even_after_a_negative_step():
    head = TensorNorm()
    head(torch.randn(100, 10) * 7 + 3)
    head.log_scale.data.fill_(-4.0)
    head.eval()
    gain, offset = head.affine()
    x = torch.randn(20, 10)
    assert gain > 0
    torch.testing.assert_close(head(x), gain * x + offset)


def test_head_training_normalises_the_whole_tensor():
    y = TensorNorm()(torch.randn(100, 10) * 7 + 3).detach()
    assert abs(float(y.mean())) < 1e-5 and abs(float(y.std(correction=0)) - 1) < 1e-4


def test_squared_hinge_is_the_mean_over_classes():
    loss = _squared_hinge(torch.tensor([[0.5, -2.0, 0.25]]), torch.tensor([0]))
    assert float(loss) == pytest.approx((0.5**2 + 0 + 1.25**2) / 3)


def test_shift_moves_the_image_and_fills_with_black():
    images = _maps(SMALL, digits(3)[0])
    windows = _windows(images, 2)
    assert torch.equal(windows[:, :, 2, 2], images)
    assert torch.equal(windows[1, 0, 0, 2, 2:], images[1, 0, :-2])
    assert (windows[1, 0, 0, 2, :2] == 0).all()
    assert torch.equal(windows[1, 0, 2, 3, :, :-1], images[1, 0, :, 1:])
    torch.manual_seed(0)
    recipe = dataclasses.replace(SMALL, shift=2)
    moved = _augmented(recipe, windows, torch.tensor([0, 2] * 50))
    assert moved.shape == (100, 1, 28, 28)
    assert len({picture.numpy().tobytes() for picture in moved[::2]}) > 10


def test_flip_mirrors_about_half_of_the_images():
    recipe = dataclasses.replace(SMALL, flip=True, image=(28, 14, 2))
    images = _maps(recipe, digits(1)[0])
    batch = _augmented(recipe, _windows(images, 0), torch.zeros(200, dtype=torch.int64))
    mirrored = (batch == images.flip(3)).flatten(1).all(1)
    plain = (batch == images).flatten(1).all(1)
    assert (mirrored ^ plain).all() and 70 < int(mirrored.sum()) < 130


def test_bits_are_the_sign_of_the_scaled_pixel_and_bytes_the_pixel():
    pixels = torch.arange(256, dtype=torch.uint8)
    bits = np.where(np.arange(256) / 255 * 2 - 1 >= 0, 1, -1)
    np.testing.assert_array_equal(encode(SMALL, pixels).numpy(), bits)
    whole = encode(dataclasses.replace(SMALL, pixels="bytes"), pixels)
    np.testing.assert_array_equal(whole.numpy(), 2 * np.arange(256) - 255)


def test_maps_put_channels_first():
    recipe = dataclasses.replace(SMALL, image=(4, 5, 3))
    images = np.random.default_rng(1).integers(0, 256, (2, 4, 5, 3), np.uint8)
    np.testing.assert_array_equal(_maps(recipe, images)[1, 2].numpy(), images[1, :, :, 2])


# --- the loop --------------------------------------------------------------------------------


def test_same_seed_gives_same_weights_and_another_seed_others():
    recipe = dataclasses.replace(SMALL, epochs=1, shift=1, dropout=0.1)
    images, labels = digits(600)
    runs = [
        fit(dataclasses.replace(recipe, seed=seed), images, labels).network.state_dict()
        for seed in (5, 5, 6)
    ]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not torch.equal(runs[0]["products.0.latent"], runs[2]["products.0.latent"])


def test_fit_leaves_random_state_and_threads_alone():
    images, labels = digits(400)
    threads = torch.get_num_threads()
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    fit(dataclasses.replace(SMALL, epochs=1, threads=threads + 1), images, labels)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_hinge"])
def test_fit_learns_and_keeps_the_best_epoch(loss):
    recipe = dataclasses.replace(SMALL, epochs=6, loss=loss)
    images, labels = digits(1200)
    seen = []
    result = fit(recipe, images, labels, lambda *values: seen.append(values))
    assert [epoch for epoch, _, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert seen[-1][1] < seen[0][1]
    assert tuple(accuracy for _, _, accuracy in seen) == result.history
    assert result.history[result.epoch - 1] == max(result.history) > 90
    right = (predict(result.network, images[-200:]) == labels[-200:]).mean()
    assert 100 * right == result.history[result.epoch - 1]
    for product in result.network.products:
        assert product.latent.abs().max() <= 1


def test_fit_never_trains_on_the_held_out_part():
    images, labels = digits(600)
    other = labels.copy()
    other[-200:] = (other[-200:] + 1) % 10
    recipe = dataclasses.replace(SMALL, epochs=1)
    first, second = (fit(recipe, images, which).network.state_dict() for which in (labels, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"held_out": 600}, "needs at least 50 training images"),
        ({"held_out": 0}, "at least one held-out"),
        ({"image": (10, 10, 1)}, "takes images 10 x 10 x 1 of 10 classes, not 28 x 28 x 1"),
        ({"classes": 5}, "28 x 28 x 1 of 5 classes, not 28 x 28 x 1 and labels up to 9"),
    ],
)
def test_fit_refuses_data_that_does_not_suit(change, sentence):
    with pytest.raises(TrainingError, match=sentence):
        fit(dataclasses.replace(SMALL, **change), *digits(600))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "at least 1 epoch"),
        ({"batch": 1}, "batches of at least 2"),
        ({"loss": "mse"}, "not 'mse'"),
        ({"pixels": "floats"}, "'bits' or 'bytes', not 'floats'"),
        ({"classes": 0}, "0 classes make no network"),
        ({"layers": (Dense(0),)}, r"layer 0 \(Dense\(rows=0\)\) makes no network"),
        ({"layers": (Pool(2),)}, r"layer 0 \(Pool.*: a pool follows a convolution"),
        ({"layers": (Dense(3), Conv(4))}, r"layer 1 \(Conv.* follows a dense layer"),
        ({"layers": (Conv(4, 29),)}, r"layer 0 \(Conv.* leaves nothing of its map"),
        ({"seed": -1}, "seed must be from 0"),
    ],
)
def test_recipe_refuses_nonsense(change, sentence):
    with pytest.raises(TrainingError, match=sentence):
        dataclasses.replace(SMALL, **change)


def test_recipes_are_the_networks_of_the_zoo():
    assert find_recipe("mnist-tfc").layers == (Dense(64), Dense(64), Dense(64))
    assert find_recipe("mnist-sfc").layers == (Dense(256), Dense(256), Dense(256))
    bits = {name: recipe.weight_bits for name, recipe in RECIPES.items()}
    assert bits["mnist-tfc"] == 59_008 and bits["mnist-sfc"] == 334_336
    assert bits["cnv"] == 1_542_848 and bits["cnv-tiny"] == 537_056
    with pytest.raises(TrainingError, match="No recipe 'x'; there are: mnist-tfc, mnist-sfc, fas"):
        find_recipe("x")
    assert all(recipe.name == name for name, recipe in RECIPES.items())


# --- train -----------------------------------------------------------------------------------


def test_train_writes_model_and_record(folder, tmp_path):
    result = train(SMALL, folder, tmp_path / "a.onnx", seed=4, epochs=3, progress=False)
    record = json.loads((tmp_path / "a.json").read_text())
    content = (tmp_path / "a.onnx").read_bytes()
    assert result.model == tmp_path / "a.onnx" and record["model"] == "a.onnx"
    assert record["sha256"] == result.sha256 == hashlib.sha256(content).hexdigest()
    assert (result.seed, result.epochs, len(result.held_out_history)) == (4, 3, 3)
    test = load_split(folder, "test")
    labels = onnx_scores(onnx.load_from_string(content), test.images).argmax(1)
    assert result.test_accuracy == pytest.approx(100 * (labels == test.labels).mean())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.onnx"]


def test_train_twice_gives_the_same_file(folder, tmp_path, capsys):
    first = train(SMALL, folder, tmp_path / "a.onnx", epochs=1, progress=True)
    shown = capsys.readouterr()
    second = train(SMALL, folder, tmp_path / "b.onnx", epochs=1, progress=False)
    assert first.model.read_bytes() == second.model.read_bytes()
    assert "train small" in shown.err and shown.out == ""


def test_train_reads_the_test_set_once_and_last(folder, tmp_path, monkeypatch):
    from xnorforge.sw.train import loop

    events = []
    load, fit_network = loop.load_split, loop.fit
    monkeypatch.setattr(
        loop, "load_split", lambda *a, **options: (events.append(a[1]), load(*a, **options))[1]
    )
    monkeypatch.setattr(loop, "fit", lambda *a: (events.append("fit"), fit_network(*a))[1])
    train(SMALL, folder, tmp_path / "a.onnx", epochs=1, progress=False)
    assert events == ["train", "fit", "test"]


@pytest.mark.parametrize(
    ("recipe", "data", "out", "sentence"),
    [
        ("mnist-x", "digits", "a.onnx", "No recipe 'mnist-x'"),
        (SMALL, "nowhere", "a.onnx", "nowhere: no such folder"),
        (SMALL, "bare", "a.onnx", r"train-images-idx3-ubyte\(.gz\) is missing"),
        (SMALL, "digits", "none/a.onnx", "does not exist or is not writable"),
        (SMALL, "digits", "a.pt", "name it so"),
        (SMALL, "digits", "folder.onnx", "is a folder"),
    ],
)
def test_train_bad_input_leaves_nothing(folder, tmp_path, recipe, data, out, sentence):
    (tmp_path / "bare").mkdir()
    (tmp_path / "folder.onnx").mkdir()
    source = folder if data == "digits" else tmp_path / data
    with pytest.raises(TrainingError, match=sentence):
        train(recipe, source, tmp_path / out, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare", "folder.onnx"]


# --- export ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [(), (13,), (64, 31)])
def test_export_equals_torch_in_onnxruntime(rows):
    network = random_network(rows, seed=len(rows) + 2)
    images, _ = load_images(shipped_images(), shape=(784,))
    found = onnx_scores(to_qonnx(network, name="n"), images)
    np.testing.assert_array_equal(found.argmax(1), predict(network, images))
    with torch.no_grad():
        expected = network.head(scores(network, images)).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_exported_scores_are_exact_so_ties_stay_ties():
    # Equal integer scores came out of onnxruntime different in the last place: it fuses
    # multiply and add in some vector lanes only.
    network = random_network((), seed=2)
    images, _ = load_images(shipped_images(), shape=(784,))
    model = to_qonnx(network, name="n")
    gain, offset = (
        Fraction(float(onnx.numpy_helper.to_array(tensor)))
        for tensor in model.graph.initializer
        if tensor.name in ("gain", "offset")
    )
    dots = scores(network, images).numpy().astype(int)
    ties = np.sort(dots, axis=1)
    assert (ties[:, -1] == ties[:, -2]).any()
    exact = [[float(gain * int(dot) + offset) for dot in row] for row in dots]
    np.testing.assert_array_equal(onnx_scores(model, images), exact)


@pytest.mark.parametrize(("gain", "offset"), [(0.05, 0.67), (3.3, -900.0), (1e-3, 2.0), (7.0, 0)])
def test_exact_affine_is_close_and_fits_float32(gain, offset):
    near_gain, near_offset = _exact(gain, offset, highest=1024)
    assert near_gain == pytest.approx(gain, rel=2e-3)
    assert near_offset == pytest.approx(offset, abs=gain)
    for dot in range(-1024, 1025):
        value = Fraction(near_gain) * dot + Fraction(near_offset)
        assert float(np.float32(float(value))) == value


def test_export_refuses_an_offset_out_of_all_proportion():
    with pytest.raises(TrainingError, match=r"offset 1e\+09 is too large beside its gain 0.5"):
        _exact(0.5, 1e9, highest=64)


def test_export_is_plain_qonnx():
    model = to_qonnx(random_network((8,), 1), name="n", metadata={"b": "1"})
    onnx.checker.check_model(model, full_check=True)
    quantisers = [node for node in model.graph.node if node.op_type == "BipolarQuant"]
    assert len(quantisers) == 4 and {node.domain for node in quantisers} == {QONNX_DOMAIN}
    others = {node.op_type for node in model.graph.node} - {"BipolarQuant"}
    assert others == {"Flatten", "Mul", "Sub", "MatMul", "BatchNormalization", "Add"}
    assert [(item.key, item.value) for item in model.metadata_props] == [("b", "1")]
    shapes = {
        info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        for info in [*model.graph.value_info, *model.graph.output]
    }
    assert shapes["dense_0_dot"] == [1, 8] and shapes["scores"] == [1, 10]


def test_export_opens_and_executes_in_qonnx(monkeypatch):
    wrapper = pytest.importorskip("qonnx.core.modelwrapper").ModelWrapper
    execute = pytest.importorskip("qonnx.core.onnx_exec").execute_onnx
    infer = pytest.importorskip("qonnx.transformation.infer_datatypes").InferDataTypes
    # qonnx wraps each node in a model of onnx's newest format, which onnxruntime may not know yet.
    monkeypatch.setattr(onnx, "IR_VERSION", 8)
    model = to_qonnx(random_network((16,), 2), name="n")
    images, _ = load_images(shipped_images(), shape=(784,))
    wrapped = wrapper(model)
    for image in images[:10]:
        scaled = (image.astype(np.float32) / 255).reshape(1, 1, 28, 28)
        found = execute(wrapped, {"image": scaled})["scores"]
        np.testing.assert_allclose(found, onnx_scores(model, image[None]), rtol=1e-5)
    wrapped = wrapped.transform(infer())
    types = {
        name: str(wrapped.get_tensor_datatype(name)) for name in wrapped.get_all_tensor_names()
    }
    assert "BIPOLAR" in types["dense_0_sign"] and "BIPOLAR" in types["input_bits"]
    assert "INT32" in types["dense_0_dot"]
