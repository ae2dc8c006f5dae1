# SPDX-License-Identifier: BSD-2-Clause
"""ONNX files: every way to write a dense binary network, and every way to get one wrong."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import xnorforge.gen
from xnorforge.gen.errors import ModelError, UnsupportedOpError, UserError
from xnorforge.gen.network import Network
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.gen.trace import trace

K, M, C = 12, 7, 4


def signs(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.choice([-1.0, 1.0], (rows, columns)).astype(np.float32)


W0, W1 = signs(M, K, 1), signs(C, M, 2)
IMAGES = np.random.default_rng(3).integers(0, 256, (64, K), np.uint8)


def numbers(network: Network) -> tuple:
    """All that the network computes with."""
    return (
        network.input.value.size,
        network.input.threshold,
        network.head.tie,
        [
            (
                layer.weights.tolist(),
                None if layer.thresholds is None else layer.thresholds.tolist(),
            )
            for layer in network.layers
        ],
    )


@pytest.fixture
def plain(chain, tmp_path):
    """The network all ways of writing must give."""
    model = chain([1, K]).binary_input().node("MatMul", chain.X, W0.T)
    model.bipolar().node("MatMul", chain.X, W1.T)
    return xnorforge.gen.load(model.save(tmp_path / "plain.onnx"))


WAYS = {
    "gemm": lambda c, x, w: c.node("Gemm", x, w.T),
    "gemm transB": lambda c, x, w: c.node("Gemm", x, w, transB=1),
    "gemm transA": lambda c, x, w: c.node("Transpose").node("Gemm", x, w.T, transA=1),
    "gemm on the left": lambda c, x, w: c.node("Gemm", w, x, transB=1).node("Transpose"),
    "gemm alpha": lambda c, x, w: c.node("Gemm", x, w.T, alpha=0.5),
    "gemm bias 0": lambda c, x, w: c.node("Gemm", x, w.T, np.zeros(len(w), np.float32)),
    "matmul on the left": lambda c, x, w: (
        c.node("Transpose", x, perm=[1, 0]).node("MatMul", w, x).node("Transpose")
    ),
    "scaled weights": lambda c, x, w: c.node("MatMul", x, 0.37 * w.T),
    "scaled by row": lambda c, x, w: c.node(
        "MatMul", x, (w * 2.0 ** np.arange(len(w))[:, None]).astype(np.float32).T
    ),
    "identity, dropout": lambda c, x, w: c.node("Identity").node("Dropout").node("MatMul", x, w.T),
    "reshapes": lambda c, x, w: (
        c.node("Reshape", x, np.array([-1, 1, w.shape[1]]))
        .node("Squeeze", x, np.array([1]))
        .node("Unsqueeze", x, np.array([0]))
        .node("Flatten", x, axis=-1)
        .node("Reshape", x, np.array([0, -1]))
        .node("MatMul", x, w.T)
    ),
    "negated twice": lambda c, x, w: c.node("Neg").node("MatMul", x, -w.T),
    "binarised by Sign": lambda c, x, w: binarised(c, "Sign", w),
    "binarised by BipolarQuant": lambda c, x, w: binarised(c, "BipolarQuant", w),
    "binarised by Sign, Add, Sign": lambda c, x, w: binarised(c, "Larq", w),
}


def binarised(c, how: str, w: np.ndarray):
    """Latent weights binarised, transposed and scaled in the graph."""
    x, latent = c.last, c.constant(w * np.linspace(0.2, 0.9, w.size).reshape(w.shape))
    if how == "BipolarQuant":
        c.node("BipolarQuant", latent, 1.0, domain="onnx.brevitas")
    else:
        c.node("Sign", latent)
        if how == "Larq":
            c.node("Add", c.X, 0.1).node("Sign")
    c.node("Transpose").node("Mul", c.X, 0.5)
    return c.node("MatMul", x, c.last)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_a_product_gives_the_same_network(way, chain, plain, tmp_path) -> None:
    model = chain([1, K]).binary_input()
    WAYS[way](model, chain.X, W0)
    model.bipolar()
    WAYS[way](model, chain.X, W1)
    path = model.save(tmp_path / "m.onnx")
    network = xnorforge.gen.load(path)
    if way == "scaled by row":  # then the last layer's scores differ by class
        assert network.head.scale is not None
    elif way == "negated twice":  # the bits between are the inverted ones
        assert (evaluate(network, IMAGES).scores == evaluate(plain, IMAGES).scores).all()
    else:
        assert numbers(network) == numbers(plain)
    report = trace(path, IMAGES, network=network)
    assert report.equal, str(report)


BINARISERS = {
    "bipolar": lambda c: c.bipolar(),
    "brevitas": lambda c: c.bipolar(domain="onnx.brevitas"),
    "larq": lambda c: c.node("Sign").node("Add", c.X, 0.1).node("Sign"),
    "scaled": lambda c: c.bipolar(0.25),
    "falling": lambda c: c.bipolar(0.25).node("Div", c.X, -0.5).node("Mul", c.X, -1.0),
    "where": lambda c: c.node("GreaterOrEqual", c.X, 0.0).node(
        "Where", c.X, np.float32([1.0]), np.float32([-1.0])
    ),
    "cast": lambda c: (
        c.node("Less", c.X, 0.0)
        .node("Not")
        .node("Cast", c.X, to=TensorProto.FLOAT)
        .node("Mul", c.X, 2.0)
        .node("Sub", c.X, 1.0)
    ),
    "zero and one": lambda c: c.node("LessOrEqual", "c_zero", c.X).node(
        "Cast", c.X, to=TensorProto.FLOAT
    ),
    "other way round": lambda c: c.node("Less", c.X, 0.0).node(
        "Where", c.X, np.float32([-1.0]), np.float32([1.0])
    ),
    "clipped": lambda c: c.node("Clip", c.X, -1.0, 1.0).bipolar(),
    "clipped old": lambda c: c.node("Max", c.X, -1.0).node("Min", 1.0, c.X).bipolar(),
    "prelu": lambda c: c.node("PRelu", c.X, np.float32([0.3])).bipolar(),
    "leaky": lambda c: c.node("LeakyRelu", alpha=0.2).bipolar(),
    "mirrored": lambda c: c.node("Sub", 0.0, c.X).node("Neg").bipolar(),
}


@pytest.mark.parametrize("binariser", BINARISERS)
def test_every_binariser_gives_the_same_network(binariser, chain, plain, tmp_path) -> None:
    model = chain([1, K], opset=16).binary_input().node("MatMul", chain.X, W0.T)
    model.constants.append(numpy_helper.from_array(np.zeros((), np.float32), "c_zero"))
    BINARISERS[binariser](model).node("MatMul", chain.X, W1.T)
    path = model.save(tmp_path / "m.onnx")
    assert numbers(xnorforge.gen.load(path)) == numbers(plain)
    report = trace(path, IMAGES)
    assert report.equal, str(report)


def test_old_and_new_opsets_give_the_same_network(chain, plain, tmp_path) -> None:
    for opset in (7, 9, 11, 13, 17, 21):
        model = chain([1, K], opset=opset).binary_input().node("MatMul", chain.X, W0.T)
        if opset < 13:
            model.node("Unsqueeze", axes=[0]).node("Squeeze", axes=[0])
        if opset < 11:
            model.node("Clip", min=-2.0, max=2.0)
        path = model.bipolar().node("MatMul", chain.X, W1.T).save(tmp_path / f"{opset}.onnx")
        assert numbers(xnorforge.gen.load(path)) == numbers(plain)
        assert trace(path, IMAGES[:4]).equal


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_types(dtype, chain, plain, tmp_path) -> None:
    model = chain([1, K], dtype=dtype).binary_input().node("MatMul", chain.X, W0.T)
    model.bipolar().node("MatMul", chain.X, W1.T)
    path = model.save(tmp_path / "m.onnx")
    assert numbers(xnorforge.gen.load(path)) == numbers(plain)


def test_cast_of_the_values_is_followed(chain, plain, tmp_path) -> None:
    model = chain([1, K]).binary_input().node("MatMul", chain.X, W0.T)
    model.node("Cast", chain.X, to=TensorProto.DOUBLE).node("Cast", chain.X, to=TensorProto.FLOAT)
    path = model.bipolar().node("MatMul", chain.X, W1.T).save(tmp_path / "m.onnx")
    assert numbers(xnorforge.gen.load(path)) == numbers(plain)


@pytest.mark.parametrize("batch", ["N", "", 1])
def test_batch_axis_may_be_named_unknown_or_one(batch, chain, plain, tmp_path) -> None:
    model = chain([batch or None, K]).binary_input().node("MatMul", chain.X, W0.T)
    path = model.bipolar().node("MatMul", chain.X, W1.T).save(tmp_path / "m.onnx")
    assert numbers(xnorforge.gen.load(path)) == numbers(plain)
    assert trace(path, IMAGES).equal


def image_model(chain, shape: list[int], order: list[int] | None):
    size = int(np.prod(shape))
    model = chain(["N", *shape]).binary_input()
    if order:
        model.node("Transpose", chain.X, perm=order)
    model.node("Flatten").node("MatMul", chain.X, signs(M, size, 5).T)
    return model.bipolar().node("MatMul", chain.X, W1.T)


@pytest.mark.parametrize(
    ("shape", "order", "value"),
    [
        ([1, 4, 5], None, (4, 5, 1)),
        ([3, 4, 5], None, (4, 5, 3)),
        ([3, 4, 5], [0, 2, 3, 1], (4, 5, 3)),
        ([6, 5, 3], None, (6, 5, 3)),
        ([6, 5, 3], [0, 3, 1, 2], (6, 5, 3)),
        ([4, 5], None, (4, 5, 1)),
        ([20], None, (20,)),
    ],
)
def test_images_are_taken_height_width_channels(shape, order, value, chain, tmp_path) -> None:
    path = image_model(chain, shape, order).save(tmp_path / "m.onnx")
    network = xnorforge.gen.load(path)
    assert network.input.value.shape == value
    images = np.random.default_rng(0).integers(0, 256, (20, *value), np.uint8)
    assert trace(path, images).equal


def test_layout_can_be_stated(chain, tmp_path) -> None:
    path = image_model(chain, [3, 5, 3], None).save(tmp_path / "m.onnx")
    assert xnorforge.gen.load(path).input.value.shape == (5, 3, 3)
    assert xnorforge.gen.load(path, layout="nhwc").input.value.shape == (3, 5, 3)
    with pytest.raises(ModelError, match="layout must be"):
        xnorforge.gen.load(path, layout="hw")
    images = np.random.default_rng(0).integers(0, 256, (20, 45), np.uint8)
    assert trace(path, images, layout="nhwc").equal


@pytest.mark.parametrize(
    ("add", "tie"),
    [
        (lambda c: c.node("ArgMax", axis=1), "first"),
        (lambda c: c.node("ArgMax", axis=-1, keepdims=0), "first"),
        (lambda c: c.node("ArgMax", axis=1, select_last_index=1), "last"),
        (lambda c: c.node("TopK", c.X, np.array([1]), outputs=2), "first"),
        (lambda c: c.node("TopK", c.X, np.array([3]), outputs=2, axis=1), "first"),
        (lambda c: c.node("Softmax"), "first"),
        (lambda c: c.node("LogSoftmax", axis=1).node("ArgMax", axis=1).node("Squeeze"), "first"),
    ],
)
def test_heads_and_their_tie_rules(add, tie, chain, tmp_path) -> None:
    model = chain([1, K]).binary_input().node("MatMul", chain.X, W0.T).bipolar()
    model.node("MatMul", chain.X, signs(5, M, 4).T)
    path = add(model).save(tmp_path / "m.onnx")
    network = xnorforge.gen.load(path)
    assert network.head.tie == tie
    images = np.random.default_rng(9).integers(0, 256, (300, K), np.uint8)
    report = trace(path, images)
    assert report.equal, str(report)
    scores = np.sort(report_scores := evaluate(network, images).scores, axis=1)
    assert (scores[:, -1] == scores[:, -2]).any(), "no ties met"
    assert report_scores.shape == (300, 5)


# --- what is refused ----------------------------------------------------------------------------


def two_layers(c):
    return c([1, K]).binary_input().node("MatMul", c.X, W0.T)


def not_binary(c):
    weights = W0.copy()
    weights[2, 3] = 0.3172
    return c([1, K]).binary_input().node("MatMul", c.X, weights.T)


def with_nan(c):
    return two_layers(c).node("Add", c.X, np.float32([np.nan] * M)).bipolar()


def uneven_residual(c):
    model = two_layers(c)
    product = model.last
    return model.node("Mul", c.X, 0.7310585).node("Add", c.X, product).bipolar()


def cyclic(c):
    model = two_layers(c).node("Neg").node("Neg")
    model.nodes[-2].input[0] = model.last
    return model


def dangling(c):
    return two_layers(c).node("Add", c.X, "nowhere")


def twice(c):
    model = two_layers(c).node("Neg")
    model.nodes[-1].output[0] = model.nodes[-2].output[0]
    model.last = model.nodes[-1].output[0]
    return model


def two_inputs(c):
    model = two_layers(c)
    model.extra_inputs.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    return model


def cut_tensor(c):
    model = two_layers(c)
    model.constants[-1].raw_data = model.constants[-1].raw_data[:-6]
    return model


def no_output(c):
    model = two_layers(c)
    model.last = "absent"
    return model


BAD = {
    "not ±s": (not_binary, ModelError, "MatMul_3.*weights of output 2 .*0.3172 to 1"),
    "nan": (with_nan, ModelError, "Add_4.*nan"),
    "nan attribute": (
        lambda c: two_layers(c).node("LeakyRelu", c.X, alpha=float("nan")).bipolar(),
        ModelError,
        "LeakyRelu_4.*attribute 'alpha' is nan",
    ),
    "infinite epsilon": (
        lambda c: two_layers(c).batchnorm(*np.ones((4, M)), float("inf")).bipolar(),
        ModelError,
        "BatchNormalization_4.*attribute 'epsilon' is inf",
    ),
    "infinite weights": (
        lambda c: c([1, K]).binary_input().node("MatMul", c.X, np.inf * W0.T),
        ModelError,
        "MatMul_3.*inf",
    ),
    "wrong shape": (
        lambda c: c([1, K + 1]).binary_input().node("MatMul", c.X, W0.T),
        ModelError,
        r"MatMul_3.*\[1, 13\].*\[12, 7\]",
    ),
    "wrong bias": (
        lambda c: two_layers(c).node("Add", c.X, np.ones(5, np.float32)),
        ModelError,
        r"Add_4.*\[5\].*\[1, 7\]",
    ),
    "wrong batchnorm": (
        lambda c: two_layers(c).batchnorm(*np.ones((4, 5))),
        ModelError,
        r"BatchNormalization_4.*gamma.*\[5\]",
    ),
    "negative variance": (
        lambda c: two_layers(c).batchnorm(*np.ones((3, M)), -np.ones(M)),
        ModelError,
        "BatchNormalization_4.*variance -1",
    ),
    "grows": (
        lambda c: two_layers(c).node("Add", c.X, np.ones((M, 1), np.float32)),
        UnsupportedOpError,
        "Add_4.*broadcasting",
    ),
    "reshape": (
        lambda c: two_layers(c).node("Reshape", c.X, np.array([1, 6])),
        ModelError,
        r"Reshape_4.*\[1, 7\]",
    ),
    "many vectors": (
        lambda c: c([1, 3, K]).binary_input().node("MatMul", c.X, W0.T),
        UnsupportedOpError,
        "MatMul_3.*one vector",
    ),
    "uneven residual": (uneven_residual, UnsupportedOpError, "Add_5.*steps of 0.73105., 1"),
    "cycle": (cyclic, ModelError, "cycle.*Neg"),
    "dangling": (dangling, ModelError, "Add_4.*'nowhere'.*nothing produces"),
    "twice": (twice, ModelError, "produced twice"),
    "two inputs": (two_inputs, ModelError, "exactly one input.*other"),
    "cut tensor": (cut_tensor, ModelError, "tensor 'c3'"),
    "no output": (no_output, ModelError, "'absent' is produced by nothing"),
    "convolution": (
        lambda c: c([1, 1, 4, 4]).node("Conv", c.X, np.ones((2, 1, 3, 3), np.float32)),
        UnsupportedOpError,
        "Conv_0.*2 x 2 x 2.*one vector",
    ),
    "multi-bit": (
        lambda c: two_layers(c).node("Quant", c.X, 1.0, 0.0, 4.0, domain="qonnx.custom_op.general"),
        UnsupportedOpError,
        "Quant_4.*not affine",
    ),
    "foreign domain": (
        lambda c: two_layers(c).node("Sign", domain="com.example"),
        UnsupportedOpError,
        "Sign_4.*com.example",
    ),
    "unknown op": (
        lambda c: two_layers(c).node("BipolarQuant", c.X, 1.0),
        UnsupportedOpError,
        "BipolarQuant_4.*no op of opset 13; check its domain",
    ),
    "no scale": (
        lambda c: two_layers(c).node("BipolarQuant", c.X, domain="onnx.brevitas"),
        ModelError,
        "BipolarQuant_4.*needs a value, a scale",
    ),
    "too few inputs": (lambda c: two_layers(c).node("Add"), ModelError, "Add_4.*malformed"),
    "too many classes": (
        lambda c: two_layers(c).node("TopK", c.X, np.array([8]), outputs=2),
        ModelError,
        "TopK_4.*8 of 7 classes",
    ),
    "no epsilon": (
        lambda c: two_layers(c).batchnorm(*np.ones((4, M)), "text"),
        ModelError,
        "BatchNormalization_4.*malformed",
    ),
    "tanh": (lambda c: two_layers(c).node("Tanh").bipolar(), UnsupportedOpError, "Tanh_4"),
    "falling prelu": (
        lambda c: two_layers(c).node("PRelu", c.X, np.float32([-0.1])),
        UnsupportedOpError,
        "PRelu_4.*-0.1",
    ),
    "reciprocal": (
        lambda c: two_layers(c).node("Div", 1.0, c.X),
        UnsupportedOpError,
        "Div_4.*divisor",
    ),
    "division by zero": (
        lambda c: two_layers(c).node("Div", c.X, 0.0),
        ModelError,
        "Div_4.*zero",
    ),
    "scale 0": (lambda c: two_layers(c).bipolar(0.0), ModelError, "BipolarQuant_4.*scale 0"),
    "integers": (
        lambda c: two_layers(c).node("Cast", c.X, to=TensorProto.INT32),
        UnsupportedOpError,
        "Cast_4.*int32",
    ),
    "batch of 8": (lambda c: c([8, K]).binary_input(), ModelError, "batch of 8"),
    "dynamic size": (lambda c: c([1, "n"]).binary_input(), ModelError, "static"),
    "old opset": (lambda c: c([1, K], opset=6).binary_input(), ModelError, "opset 6"),
    "smallest first": (
        lambda c: two_layers(c).node("TopK", c.X, np.array([1]), outputs=2, largest=0),
        UnsupportedOpError,
        "TopK_4.*smallest",
    ),
    "wrong axis": (
        lambda c: two_layers(c).node("ArgMax", axis=0),
        UnsupportedOpError,
        "ArgMax_4.*axis of the classes",
    ),
    "after the label": (
        lambda c: two_layers(c).node("ArgMax", axis=1, keepdims=1).node("Neg"),
        UnsupportedOpError,
        "Neg_5.*arg-max",
    ),
    "after the soft-max": (
        lambda c: two_layers(c).node("Softmax").node("Neg"),
        UnsupportedOpError,
        "Neg_5.*soft-max",
    ),
    "no product": (lambda c: c([1, K]).binary_input(), UnsupportedOpError, "no MatMul or Gemm"),
    "constant output": (
        lambda c: c([1, K]).node("Neg", np.ones(3, np.float32)),
        ModelError,
        "no output depends on the input",
    ),
    "both computed": (
        lambda c: c([1, K]).node("Transpose").node("MatMul", "image", c.X),
        UnsupportedOpError,
        "MatMul_1.*two computed",
    ),
    "float64 constants": (
        lambda c: add_double(two_layers(c)),
        ModelError,
        "mixes float32.*float64",
    ),
}


def add_double(model):
    model.constants.append(numpy_helper.from_array(np.ones(1), "double"))
    return model.node("Add", model.X, "double")


@pytest.mark.parametrize("case", BAD)
def test_bad_graphs_are_refused_with_node_and_rule(case, chain, tmp_path) -> None:
    make, error, message = BAD[case]
    path = make(chain).save(tmp_path / "bad.onnx")
    with pytest.raises(error, match=f"(?s)bad.onnx.*{message}") as caught:
        xnorforge.gen.load(path)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_models(tmp_path) -> None:
    for name, content, message in (
        ("empty.onnx", b"", "is empty"),
        ("text.onnx", b"This is not a model.\n", "not an ONNX model"),
        ("image.onnx", b"\x89PNG\r\n\x1a\n" + bytes(100), "not an ONNX model"),
        ("zeros.onnx", bytes(64), "not an ONNX model"),
        ("other.onnx", onnx.ModelProto(ir_version=8).SerializeToString(), "no ONNX graph"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{name}: .*{message}"):
            xnorforge.gen.load(tmp_path / name)
    with pytest.raises(ModelError, match="no such file"):
        xnorforge.gen.load(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="this is a folder"):
        xnorforge.gen.load(tmp_path)


def test_a_file_cut_anywhere_is_refused(chain, tmp_path) -> None:
    content = two_layers(chain).bipolar().node("MatMul", chain.X, W1.T).model().SerializeToString()
    path = tmp_path / "cut.onnx"
    for end in range(0, len(content) - 1, 7):
        path.write_bytes(content[:end])
        with pytest.raises(ModelError, match=r"cut\.onnx"):
            xnorforge.gen.load(path)


@given(data=st.data())
def test_damaged_files_never_crash(data, chain, tmp_path_factory) -> None:
    content = bytearray(
        two_layers(chain).bipolar().node("MatMul", chain.X, W1.T).model().SerializeToString()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(bytes(content))
    try:
        network = xnorforge.gen.load(path)
    except UserError as error:
        assert "damaged.onnx" in str(error)
    else:
        assert isinstance(network, Network)
