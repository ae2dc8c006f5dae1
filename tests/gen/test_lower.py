# SPDX-License-Identifier: BSD-2-Clause
"""Lowering against the source's own arithmetic, run by onnxruntime on every reachable dot."""

from __future__ import annotations

import gzip
import re

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xnorforge.gen
from xnorforge.gen.errors import ModelError, UnsupportedOpError
from xnorforge.gen.lower_head import OFFSET_BITS, SCALE_BITS
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.gen.trace import trace
from xnorforge.hw import head

X = "value"


def run(model, image: np.ndarray) -> np.ndarray:
    """The model's output for a batch, by onnxruntime with optimisations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    proto = model.model()
    del proto.graph.output[:]
    proto.graph.output.add(name=model.last)
    runtime = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return runtime.run(None, {"image": image})[0]


# Numbers that meet the integers (ties), numbers that just miss them, and any others.
numbers = st.one_of(
    st.integers(-9, 9).map(float),
    st.integers(-36, 36).map(lambda n: n / 4),
    st.sampled_from([1e-30, -1e-7, 3.0000002, -2.9999998, 0.1, 1 / 3]),
    st.floats(-20, 20, width=32),
)
nonzero = numbers.filter(lambda v: abs(v) > 1e-20)
positive = st.one_of(st.sampled_from([1.0, 4.0, 0.25]), st.floats(0.0625, 50, width=32))
C = 6


def vector(values) -> st.SearchStrategy:
    return st.one_of(
        values.map(np.float32), st.lists(values, min_size=C, max_size=C).map(np.float32)
    )


@st.composite
def step(draw):
    """One monotone operation as (op, arguments)."""
    op = draw(
        st.sampled_from(
            ["add", "sub", "rsub", "mul", "div", "neg", "bn", "bn", "clip", "prelu", "max"]
        )
    )
    if op == "bn":
        rows = [st.lists(v, min_size=C, max_size=C) for v in (numbers, numbers, numbers, positive)]
        return op, [np.float32(draw(row)) for row in rows]
    if op == "clip":
        low, high = sorted([draw(numbers), draw(numbers)])
        return op, [np.float32(low), np.float32(high)]
    if op == "prelu":
        return op, [draw(vector(positive))]
    return op, [] if op == "neg" else [draw(vector(nonzero if op == "div" else numbers))]


def put(model, operation) -> None:
    op, values = operation
    x = model.X
    match op:
        case "bn":
            model.batchnorm(*values)
        case "rsub":
            model.node("Sub", values[0], x)
        case "clip":
            model.node("Clip", x, *values)
        case "neg":
            model.node("Neg")
        case "prelu":
            model.node("PRelu", x, np.atleast_1d(values[0]))
        case _:
            name = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max"}[op]
            model.node(name, x, values[0])


def binarise(model, how: str) -> None:
    """A binariser in standard ops only: both sides can run it."""
    if how == "larq":
        model.node("Sign").node("Add", model.X, 0.1).node("Sign")
        return
    op = {"ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "lt": "Less"}[how]
    model.node(op, model.X, 0.0)
    model.node("Where", model.X, np.float32([1.0]), np.float32([-1.0]))


@settings(max_examples=150)
@given(
    steps=st.lists(step(), max_size=4),
    how=st.sampled_from(["larq", "ge", "gt", "le", "lt"]),
    columns=st.integers(2, 33),
    pixel=st.sampled_from(["bit", "uint8", "int8"]),
    seed=st.integers(0, 99),
)
def test_threshold_equals_the_float_formula_at_every_dot(
    steps, how, columns, pixel, seed, chain, tmp_path_factory
) -> None:
    random = np.random.default_rng(seed)
    weights = random.choice([-1.0, 1.0], (C, columns)).astype(np.float32)
    model = chain(["N", columns], opset=16)
    if pixel == "bit":
        model.binary_input()
    else:
        columns = min(columns, 3)
        weights = weights[:, :columns]
        model = chain(["N", columns], opset=16)
    model.node("MatMul", model.X, weights.T)
    formula = chain(["N", C], opset=16)
    for part in (model, formula):
        for operation in steps:
            put(part, operation)
        binarise(part, how)
    model.node("MatMul", model.X, random.choice([-1.0, 1.0], (C, 3)).astype(np.float32))
    path = model.save(tmp_path_factory.getbasetemp() / "formula.onnx")
    if pixel == "bit":
        network = xnorforge.gen.load(path)
        dots = np.arange(-columns, columns + 1, 2)
    else:
        network = xnorforge.gen.load(path, input_scale=1.0, pixel=pixel)
        dots = np.arange(-columns * 255, columns * 255 + 1)
    grid = np.repeat(dots[:, None], C, axis=1)
    source = run(formula, grid.astype(np.float32)) > 0
    layer = network.layers[0]
    sign = layer.weights[:, 0] * weights[:, 0].astype(int)
    low, high = reach(weights, pixel)
    inside = (grid >= low) & (grid <= high)
    lowered = grid * sign >= layer.thresholds
    wrong = inside & (lowered != source)
    assert not wrong.any(), np.argwhere(wrong)[:3]
    on_grid = np.isin(layer.thresholds, [*dots, layer.dot_high + 1, layer.dot_low])
    assert on_grid.all()


def reach(weights: np.ndarray, pixel: str) -> tuple[np.ndarray, np.ndarray]:
    low, high = {"bit": (-1, 1), "uint8": (0, 255), "int8": (-128, 127)}[pixel]
    up, down = (weights > 0).sum(axis=1), (weights < 0).sum(axis=1)
    return up * low - down * high, up * high - down * low


def hidden(chain, weights: np.ndarray, build, **options):
    """A model of one hidden layer, `build` putting in what follows its product."""
    model = chain(["N", weights.shape[1]], **options).binary_input()
    build(model.node("MatMul", model.X, weights.T))
    return model.node("MatMul", model.X, np.ones((len(weights), 2), np.float32))


W = np.random.default_rng(5).choice([-1.0, 1.0], (3, 10)).astype(np.float32)


def test_negative_gamma_flips_the_row_and_keeps_the_tie(chain, tmp_path) -> None:
    # sign(gamma * (dot - 2)): at the tie, dot = 2, the source gives +1 whatever gamma's sign.
    build = lambda m: m.batchnorm([1, -1, 0], [0, 0, 0], [2, 2, 2], [1, 1, 1], 0.0).bipolar()  # noqa: E731
    layer = xnorforge.gen.load(hidden(chain, W, build).save(tmp_path / "m.onnx")).layers[0]
    assert (layer.weights == np.diag([1, -1, 1]) @ W).all()
    assert layer.thresholds.tolist() == [2, -2, -10]


def test_gamma_zero_gives_constant_rows(chain, tmp_path) -> None:
    build = lambda m: m.batchnorm([0, 0, 0], [1, -1, 0], [2, 2, 2], [1, 1, 1]).bipolar()  # noqa: E731
    network = xnorforge.gen.load(hidden(chain, W, build).save(tmp_path / "m.onnx"))
    layer, note = network.layers[0], network.source["layers"][0]
    assert layer.thresholds.tolist() == [layer.dot_low, layer.dot_high + 1, layer.dot_low]
    assert (note["always"], note["never"], note["flipped"]) == (2, 1, 0)


@pytest.mark.parametrize(("offset", "reachable"), [(0.0, True), (1.0, False), (2.0, True)])
def test_sign_of_zero_is_an_error_where_zero_can_be_reached(
    offset, reachable, chain, tmp_path
) -> None:
    path = hidden(chain, W, lambda m: m.node("Add", m.X, offset).node("Sign")).save(
        tmp_path / "m.onnx"
    )
    if reachable:
        message = f"Sign_5.* gives 0, .* channel 0 at dot product -?{offset:g}"
        with pytest.raises(ModelError, match=message):
            xnorforge.gen.load(path)
    else:
        assert xnorforge.gen.load(path).layers[0].thresholds.tolist() == [0, 0, 0]


def test_sign_of_zero_in_the_input_is_an_error(chain, tmp_path) -> None:
    path = chain(["N", 10]).node("Sign").node("MatMul", chain.X, W.T).save(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"Sign_0.* for pixel 0;"):
        xnorforge.gen.load(path)
    assert xnorforge.gen.load(path, input_offset=-0.5).input.threshold == 128


@pytest.mark.parametrize(
    ("scale", "offset", "pixel", "threshold", "inverted"),
    [
        (1 / 255, 0.0, "uint8", 128, False),
        (1.0, -100.0, "uint8", 101, False),
        (-1 / 255, 0.0, "uint8", 128, True),
        (1 / 128, 0.0, "int8", 64, False),
    ],
)
def test_pixel_threshold_is_found_by_running_all_pixels(
    scale, offset, pixel, threshold, inverted, chain, tmp_path
) -> None:
    if inverted:
        offset = 1.0
    model = chain(["N", 10]).binary_input().node("MatMul", chain.X, W.T)
    path = model.save(tmp_path / "m.onnx")
    options = {"input_scale": scale, "input_offset": offset, "pixel": pixel}
    network = xnorforge.gen.load(path, **options)
    assert (network.input.threshold, network.input.inverted) == (threshold, inverted)
    info = np.iinfo(pixel)
    images = np.random.default_rng(0).integers(info.min, info.max + 1, (50, 10)).astype(pixel)
    assert trace(path, images, **options).equal


@pytest.mark.parametrize("pixel", ["uint8", "int8"])
@pytest.mark.parametrize("affine", ["none", "raw", "centred", "falling", "offset in the file"])
def test_eight_bit_inputs_fold_into_the_first_layer(affine, pixel, chain, tmp_path) -> None:
    random = np.random.default_rng(1)
    weights = random.choice([-1.0, 1.0], (9, 20)).astype(np.float32)
    model = chain(["N", 20])
    if affine == "centred":
        model.node("Mul", model.X, 2.0).node("Sub", model.X, 1.0)
    if affine == "falling":
        model.node("Sub", 1.0, model.X)
    model.node("MatMul", model.X, weights.T)
    model.batchnorm(*random.normal(size=(3, 9)), random.uniform(0.5, 2, 9)).bipolar()
    model.node("MatMul", model.X, random.choice([-1.0, 1.0], (9, 4)).astype(np.float32))
    path = model.save(tmp_path / "m.onnx")
    options = {"pixel": pixel}
    if affine == "raw":
        options["input_scale"] = 1.0
    if affine == "offset in the file":
        options |= {"input_scale": 1 / 64, "input_offset": -0.75}
    network = xnorforge.gen.load(path, **options)
    value = network.input.value
    assert (value.kind, value.bits) == ("uint" if pixel == "uint8" else "int", 8)
    info = np.iinfo(pixel)
    images = random.integers(info.min, info.max + 1, (200, 20)).astype(pixel)
    report = trace(path, images, **options)
    assert report.equal, str(report)
    assert ("rounds its own dot products in dense0" in network.source["exactness"]) == (
        affine not in ("raw", "offset in the file")  # all of whose sums floats hold
    )


def test_input_scaled_channel_by_channel_is_refused(chain, tmp_path) -> None:
    def path(build):
        model = build(chain(["N", 3, 2, 2])).node("Flatten")
        model.node("MatMul", model.X, np.ones((12, 2), np.float32))
        return model.save(tmp_path / "m.onnx")

    mean = np.float32([0.4, 0.5, 0.6]).reshape(3, 1, 1)
    with pytest.raises(UnsupportedOpError, match=r"Sub_0.*element by element"):
        xnorforge.gen.load(path(lambda m: m.node("Sub", m.X, mean)))
    with pytest.raises(UnsupportedOpError, match=r"Sub_0.*a threshold of its own"):
        xnorforge.gen.load(path(lambda m: m.node("Sub", m.X, mean).bipolar()))
    with pytest.raises(UnsupportedOpError, match=r"Clip_0.*scale \* pixel"):
        xnorforge.gen.load(path(lambda m: m.node("Clip", m.X, 0.2, 0.8)))
    with pytest.raises(ModelError, match="same bit for every pixel"):
        xnorforge.gen.load(path(lambda m: m.node("Add", m.X, 1.0).bipolar()))
    # A clip that no pixel meets, and channels that round to one threshold, are fine.
    xnorforge.gen.load(path(lambda m: m.node("Clip", m.X, 0.0, 1.0)))
    close = np.float32([0.5, 0.501, 0.5001]).reshape(3, 1, 1)
    network = xnorforge.gen.load(path(lambda m: m.node("Sub", m.X, close).bipolar()))
    assert network.input.threshold == 128


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel": "uint16"}, "pixel must be"),
        ({"input_scale": 0.0}, "input_scale must not be 0"),
        ({"input_scale": float("nan")}, "input_scale must be finite"),
        ({"input_offset": float("inf")}, "input_offset must be finite"),
    ],
)
def test_bad_input_options(options, message, chain, tmp_path) -> None:
    path = hidden(chain, W, lambda m: m.bipolar()).save(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message):
        xnorforge.gen.load(path, **options)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda m: m, UnsupportedOpError, "MatMul_3.*without being binarised"),
        (lambda m: m.node("Relu"), UnsupportedOpError, "MatMul_3.*without being binarised"),
        (lambda m: m.bipolar([[1.0, 2.0, 3.0]]), UnsupportedOpError, "BipolarQuant_4.*2 to 6"),
        (lambda m: m.bipolar().node("Mul", m.X, 0.0), UnsupportedOpError, "BipolarQuant_4.*0"),
        (lambda m: m.node("Mul", m.X, 1e38).bipolar(), ModelError, "Mul_4.*overflows float32"),
    ],
)
def test_hidden_layers_that_are_not_binary(build, error, message, chain, tmp_path) -> None:
    path = hidden(chain, W, build).save(tmp_path / "m.onnx")
    with pytest.raises(error, match=message):
        xnorforge.gen.load(path)


def test_rows_on_the_edge_of_rounding_are_counted(chain, tmp_path) -> None:
    scaled = (W * np.float32([[0.3], [0.7], [1.0]])).astype(np.float32)
    path = hidden(chain, scaled, lambda m: m.bipolar()).save(tmp_path / "m.onnx")
    network = xnorforge.gen.load(path)
    # dot 0 can be reached; with scales 0.3 and 0.7 the source's sum need not round to 0.
    assert network.source["layers"][0]["near_rounding"] == 2
    assert "2 rows of dense0 have a dot product so near" in network.source["exactness"]


# --- scores ---------------------------------------------------------------------------------------


def all_inputs(columns: int) -> np.ndarray:
    bits = (np.arange(2**columns)[:, None] >> np.arange(columns)) & 1
    return (255 * bits).astype(np.uint8)


@settings(max_examples=40)
@given(
    data=st.data(),
    last=st.booleans(),
    seed=st.integers(0, 99),
    common=st.booleans(),
)
def test_labels_equal_the_source_for_every_input(
    data, last, seed, common, chain, tmp_path_factory
) -> None:
    columns, classes = 9, C
    weights = np.random.default_rng(seed).choice([-1.0, 1.0], (classes, columns))
    model = chain(["N", columns]).binary_input().node("MatMul", chain.X, weights.T)
    scale = data.draw(nonzero if common else st.lists(nonzero, min_size=C, max_size=C))
    shift = data.draw(numbers if common else st.lists(numbers, min_size=C, max_size=C))
    model.node("Mul", model.X, np.float32(scale)).node("Add", model.X, np.float32(shift))
    model.node("ArgMax", axis=1, keepdims=0, select_last_index=int(last))
    path = model.save(tmp_path_factory.getbasetemp() / "scores.onnx")
    network = xnorforge.gen.load(path)
    assert network.head.tie == ("last" if last else "first")
    assert (network.head.scale is None) == (
        np.unique(np.float32(scale)).size == 1 and np.unique(np.float32(shift)).size == 1
    )
    report = trace(path, all_inputs(columns))
    if "proven" in network.source["layers"][-1]["head"]:
        assert (report.labels == report.source_labels).all()
        return
    # Otherwise labels may differ only where two of the source's scores are as close as stated.
    result = evaluate(network, all_inputs(columns))
    stated = re.search(r"only where two scores are within (\S+) of", network.source["exactness"])
    within = float(stated[1]) if stated else 1e-6 * abs(np.float32(shift)).max()
    sign = network.layers[0].weights[:, 0] * weights[:, 0]
    real = np.float64(np.float32(scale)) * (result.scores * sign) + np.float64(np.float32(shift))
    picked = np.take_along_axis(real, report.labels[:, None], 1)[:, 0]
    theirs = np.take_along_axis(real, report.source_labels[:, None], 1)[:, 0]
    assert (abs(picked - theirs) <= 1.01 * within).all()


def test_negative_common_scale_negates_the_rows(chain, tmp_path) -> None:
    model = chain(["N", 10]).binary_input().node("MatMul", chain.X, W.T).node("Neg")
    network = xnorforge.gen.load(model.save(tmp_path / "m.onnx"))
    assert (network.layers[0].weights == -W).all()
    assert network.head.scale is None


def test_class_scales_are_positive_integers_and_narrow(chain, tmp_path) -> None:
    model = chain(["N", 10]).binary_input().node("MatMul", chain.X, W.T)
    model.node("Mul", model.X, np.float32([1.0, -2.0, 3.0]))
    model.node("Add", model.X, np.float32([0.5, 0.0, -0.25]))
    network = xnorforge.gen.load(model.save(tmp_path / "m.onnx"))
    assert (network.layers[0].weights == np.float32([[1], [-1], [1]]) * W).all()
    assert (network.head.scale / network.head.scale[0]).tolist() == [1, 2, 3]
    assert (network.head.offset / network.head.scale[0]).tolist() == [0.5, 0, -0.25]
    assert network.head.scale.max() < 2**8
    assert (SCALE_BITS, OFFSET_BITS) == (head.SCALE_BITS, head.OFFSET_BITS)
    assert "proven" in network.source["exactness"]


def test_any_class_scales_fit_the_hardware(chain, tmp_path) -> None:
    random = np.random.default_rng(0)
    proven = 0
    for _ in range(10):
        scale, shift = random.normal(size=(2, 3)).astype(np.float32)
        model = chain(["N", 10]).binary_input().node("MatMul", chain.X, W.T)
        model.node("Mul", model.X, scale).node("Add", model.X, shift)
        network = xnorforge.gen.load(model.save(tmp_path / "m.onnx"))
        assert network.head.scale.min() > 0 and network.head.scale.max() < 2**15
        assert abs(network.head.offset).max() < 2**31
        proven += "proven" in network.source["exactness"]
    assert proven == 10
    model = chain(["N", 10]).binary_input().node("MatMul", chain.X, W.T)
    model.node("Mul", model.X, 1e-6).node("Add", model.X, np.float32([0, 1e6, 0]))
    with pytest.raises(ModelError, match=r"offsets up to 1e\+06 are too large"):
        xnorforge.gen.load(model.save(tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda m: m.node("Relu"), UnsupportedOpError, "Relu_4.*not affine"),
        (lambda m: m.bipolar(), UnsupportedOpError, "BipolarQuant_4.*not affine"),
        (lambda m: m.node("Mul", m.X, 0.0), ModelError, "Mul_4.*every score constant"),
    ],
)
def test_scores_that_are_no_scores(build, error, message, chain, tmp_path) -> None:
    model = build(chain(["N", 10]).binary_input().node("MatMul", chain.X, W.T))
    with pytest.raises(error, match=message):
        xnorforge.gen.load(model.save(tmp_path / "m.onnx"))


def test_scores_that_float_rounds_together_are_reported(chain, tmp_path) -> None:
    model = chain(["N", 10]).binary_input().node("MatMul", chain.X, W.T)
    model.node("Add", model.X, 2.0**26)
    network = xnorforge.gen.load(model.save(tmp_path / "m.onnx"))
    assert "rounds 7 pairs" in network.source["exactness"]


# --- the zoo's network ----------------------------------------------------------------------------


def test_zoo_tfc_gives_the_golden_scores_on_all_of_mnist(shared) -> None:
    network = xnorforge.gen.load(shared / "models/qonnx-zoo/TFC_1W1A.onnx")
    assert network.weight_bits == 59_008
    assert [note["flipped"] for note in network.source["layers"]] == [1, 5, 6, 0]
    images = gzip.decompress((shared / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((shared / "data/mnist/t10k-labels-idx1-ubyte.gz").read_bytes())
    result = evaluate(network, np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28))
    golden = np.load(shared / "models/golden/tfc_1w1a_mnist10k.npz")
    assert (result.scores == golden["dot_last"]).all()
    assert (result.labels == np.frombuffer(labels, np.uint8, offset=8)).mean() == 0.9296
