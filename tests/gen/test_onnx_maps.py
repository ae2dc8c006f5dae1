# SPDX-License-Identifier: BSD-2-Clause
"""Convolutional ONNX models: every operator against onnxruntime, layer by layer."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xnorforge.gen
from xnorforge.gen.errors import ModelError, UnsupportedOpError
from xnorforge.gen.layers import Conv, Pool, Threshold
from xnorforge.gen.network import Network
from xnorforge.gen.trace import trace

H, W, C, M, CLASSES = 7, 6, 3, 4, 3
RANDOM = np.random.default_rng(17)
IMAGES = RANDOM.integers(0, 256, (24, H, W, C), np.uint8)


def signs(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).choice([-1.0, 1.0], shape).astype(np.float32)


def start(chain):
    """A binarised input map."""
    return sized(chain(["N", C, H, W]).binary_input())


def sized(model, height: int = H, width: int = W, channels: int = C):
    model.size = (height, width, channels)
    return model


def slide(model, op: str, kernel: tuple[int, int], *inputs, channels: int | None = None, **options):
    """A node with a window; keeps the size of the map."""
    strides, dilations = options.get("strides", (1, 1)), options.get("dilations", (1, 1))
    pads, auto = options.get("pads", (0, 0, 0, 0)), options.get("auto_pad", "")
    size = []
    for i in (0, 1):
        if auto.startswith("SAME"):
            size.append(-(-model.size[i] // strides[i]))
            continue
        room = model.size[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1
        up = strides[i] - 1 if options.get("ceil_mode") else 0
        size.append((room + up) // strides[i] + 1)
    model.size = (*size, model.size[2] if channels is None else channels)
    if op != "Conv":
        options["kernel_shape"] = list(kernel)
    return model.node(op, model.X, *inputs, **options)


def conv(model, weights: np.ndarray, *bias, **options):
    return slide(model, "Conv", weights.shape[2:], weights, *bias, channels=len(weights), **options)


def norm(model, channels: int, seed: int = 0, spread: float = 3.0):
    """A batch norm whose gammas have both signs."""
    random = np.random.default_rng([seed, channels])
    gamma, beta, mean = random.normal(size=(3, channels))
    return model.batchnorm(gamma, beta, spread * mean, random.uniform(2, 9, channels))


def end(model):
    """Flatten and classify."""
    size = int(np.prod(model.size))
    return model.node("Flatten").node("MatMul", model.X, signs(size, CLASSES, seed=9))


def check(model, tmp_path, images=IMAGES, **options) -> Network:
    path = model.save(tmp_path / "model.onnx")
    report = trace(path, images, **options)
    assert report.equal, str(report)
    assert all(layer.compared for layer in report.layers)
    return xnorforge.gen.load(path, **options)


CONVS = {
    "plain": ((3, 3), {}),
    "1x1": ((1, 1), {}),
    "wide": ((2, 5), {}),
    "stride": ((3, 3), {"strides": [2, 3]}),
    "dilation": ((3, 2), {"dilations": [2, 3]}),
    "zero padding": ((3, 3), {"pads": [1, 1, 1, 1]}),
    "uneven padding": ((3, 2), {"pads": [2, 0, 1, 1], "strides": [2, 1]}),
    "same upper": ((4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": ((4, 3), {"auto_pad": "SAME_LOWER"}),
    "valid": ((2, 2), {"auto_pad": "VALID"}),
}


@pytest.mark.parametrize("case", CONVS)
def test_convolutions_equal_the_source(case, chain, tmp_path) -> None:
    kernel, options = CONVS[case]
    model = conv(start(chain), signs(M, C, *kernel), **options)
    norm(model, M).bipolar()
    norm(conv(model, signs(5, M, 2, 2)), 5, 1).bipolar()
    network = check(end(model), tmp_path)
    first = network.layers[0]
    assert isinstance(first, Conv)
    assert (first.thresholds.ndim == 3) == first.window.padded


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_and_depthwise(groups, chain, tmp_path) -> None:
    model = norm(conv(start(chain), signs(4, C, 2, 2)), 4).bipolar()
    model = conv(model, signs(8, 4 // groups, 3, 3), pads=[1, 1, 1, 1], group=groups)
    network = check(end(norm(model, 8).bipolar()), tmp_path)
    assert network.layers[1].groups == groups


def test_bias_and_scales_by_filter(chain, tmp_path) -> None:
    # Batch norm fused into the weights, as Larq's converter leaves them.
    scale = np.float32([0.37, 1.25, 0.0421, 2.5])[:, None, None, None]
    model = conv(start(chain), scale * signs(M, C, 3, 3), np.float32([0.3, -2, 0.1, 4.1]))
    network = check(end(model.bipolar()), tmp_path)
    assert set(np.unique(network.layers[0].weights)) == {-1, 1}


def test_eight_bit_pixels_padded_with_real_zero(chain, tmp_path) -> None:
    # x = 2 p / 255 - 1: real 0 is p = 127.5, no pixel.
    model = sized(chain(["N", C, H, W]))
    model.node("Mul", model.X, 2.0).node("Sub", model.X, 1.0)
    model = norm(conv(model, signs(M, C, 3, 3), pads=[1, 1, 1, 1]), M, spread=1.0).bipolar()
    assert check(end(model), tmp_path).layers[0].borders == 9


@pytest.mark.parametrize("value", [-1.0, 1.0, 0.0, 0.5])
@pytest.mark.parametrize("where", ["before the sign", "after the sign"])
def test_pad_nodes(value, where, chain, tmp_path) -> None:
    model = norm(conv(start(chain), signs(M, C, 2, 2)), M)
    pads, h, w = np.array([0, 0, 1, 2, 0, 0, 1, 0]), *model.size[:2]
    if where == "before the sign":
        model.node("Pad", model.X, pads, value).bipolar()
    else:
        model.bipolar().node("Pad", model.X, pads, value)
    model.size = (h + 2, w + 2, M)
    network = check(end(norm(conv(model, signs(5, M, 3, 3)), 5).bipolar()), tmp_path)
    layer = network.layers[1]
    assert layer.window.pads == (1, 2, 1, 0)
    plain = value in (-1.0, 1.0) or where == "before the sign"
    uniform = (layer.bank == layer.bank[:1]).all()
    assert uniform == plain
    if plain:
        assert layer.pad_value == (-1 if value < 0 else 1)


POOLS = {
    "2x2": ((2, 2), {"strides": [2, 2]}),
    "overlapping": ((3, 3), {"strides": [2, 2]}),
    "odd map": ((2, 2), {"strides": [2, 3]}),
    "stride 1": ((2, 2), {}),
    "padded": ((3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "dilated": ((2, 2), {"dilations": [2, 2]}),
    "ceiling": ((2, 2), {"strides": [2, 2], "ceil_mode": 1}),
}


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("place", ["after the sign", "before the norm"])
def test_max_pools_with_gammas_of_both_signs(case, place, chain, tmp_path) -> None:
    kernel, options = POOLS[case]
    model = conv(start(chain), signs(8, C, 2, 2))
    if place == "after the sign":
        slide(norm(model, 8).bipolar(), "MaxPool", kernel, **options)
    else:
        norm(slide(model, "MaxPool", kernel, **options), 8).bipolar()
    network = check(end(norm(conv(model, signs(5, 8, 2, 2)), 5).bipolar()), tmp_path)
    pool = network.layers[1]
    assert isinstance(pool, Pool) and pool.source.kind == "bit"


@pytest.mark.parametrize(
    "kind", ["AveragePool", "GlobalAveragePool", "ReduceMean", "GlobalMaxPool"]
)
@pytest.mark.parametrize("place", ["after the sign", "before the norm"])
def test_pools_over_the_map(kind, place, chain, tmp_path) -> None:
    model = conv(start(chain), signs(8, C, 2, 2))
    if place == "after the sign":
        norm(model, 8).bipolar()
    if kind == "AveragePool":
        slide(model, kind, (2, 2), strides=[2, 2])
    else:
        options = {"axes": [2, 3], "keepdims": 1} if kind == "ReduceMean" else {}
        model.node(kind, **options)
        model.size = (1, 1, 8)
    if place == "before the norm" or kind != "GlobalMaxPool":
        norm(model, 8, spread=0.3).bipolar()
    check(end(model), tmp_path)


def test_a_window_that_sees_padding_only(chain, tmp_path) -> None:
    model = norm(conv(start(chain), signs(M, C, 7, 6)), M).bipolar()
    conv(model, signs(M, M, 1, 1), pads=[0, 1, 0, 0], strides=[1, 2])
    check(end(norm(model, M).bipolar()), tmp_path)


def test_pools_of_negated_bits(chain, tmp_path) -> None:
    # The largest of the negated is the least: the sign goes to the next layer's weights.
    model = norm(conv(start(chain), signs(8, C, 2, 2)), 8).bipolar()
    model.node("Mul", model.X, np.float32([1, -1] * 4).reshape(1, 8, 1, 1))
    slide(model, "MaxPool", (2, 2), strides=[2, 2])
    slide(model, "MaxPool", (2, 2))
    check(end(model), tmp_path)


def test_an_average_ends_a_network(chain, tmp_path) -> None:
    model = norm(conv(start(chain), signs(8, C, 2, 2)), 8).bipolar()
    conv(model, signs(CLASSES, 8, 1, 1), np.float32([0.5, -1.0, 0.25]))
    model.node("GlobalAveragePool").node("Flatten").node("ArgMax", axis=1)
    network = check(model, tmp_path)
    assert isinstance(network.layers[-1], Pool)


def test_flatten_orders(chain, tmp_path) -> None:
    for transposed in (False, True):
        model = norm(conv(start(chain), signs(M, C, 2, 2)), M).bipolar()
        if transposed:
            model.node("Transpose", model.X, perm=[0, 2, 3, 1])
        check(end(model), tmp_path)


def test_channels_last_models(chain, tmp_path) -> None:
    # As tf2onnx writes Keras: NHWC input, transposes around every convolution.
    model = sized(chain(["N", H, W, C]).binary_input())
    model.node("Transpose", model.X, perm=[0, 3, 1, 2])
    conv(model, signs(M, C, 3, 3)).node("Transpose", model.X, perm=[0, 2, 3, 1])
    model.node("Mul", model.X, np.float32([1.5, -0.5, 0.25, 2])).node("Add", model.X, 0.7)
    model.bipolar()
    model.node("Pad", model.X, np.array([0, 1, 1, 0, 0, 1, 1, 0]), 1.0)
    model.node("Transpose", model.X, perm=[0, 3, 1, 2])
    model.size = (model.size[0] + 2, model.size[1] + 2, M)
    norm(conv(model, signs(5, M, 2, 2)), 5).bipolar()
    model.node("Transpose", model.X, perm=[0, 2, 3, 1])
    network = check(end(model), tmp_path)
    assert network.layers[1].pad_value == 1


def test_a_vector_input_that_becomes_a_map(chain, tmp_path) -> None:
    model = sized(chain(["N", 42]).binary_input(), channels=1)
    model.node("Reshape", model.X, np.array([-1, 1, H, W]))
    model = norm(conv(model, signs(M, 1, 3, 3)), M).bipolar()
    network = check(end(model), tmp_path, IMAGES[..., :1])
    assert network.input.value.shape == (H, W, 1)


# --- more than one bit ----------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("form", ["signed", "narrow", "unsigned", "zero point"])
def test_quantised_activations(form, bits, chain, tmp_path) -> None:
    options = {
        "signed": {"signed": 1},
        "narrow": {"signed": 1, "narrow": 1},
        "unsigned": {"signed": 0},
        "zero point": {"signed": 0, "zero": 2.0},
    }[form]
    model = norm(conv(start(chain), signs(M, C, 3, 3), pads=[1, 1, 1, 1]), M)
    if form == "unsigned":
        model.node("Relu")
    model.quant(0.25, bits, **options)
    slide(model, "MaxPool", (2, 2), strides=[2, 2])
    norm(conv(model, signs(5, M, 2, 2), pads=[1, 0, 0, 1]), 5).quant(0.5, bits, **options)
    network = check(end(model), tmp_path)
    assert network.layers[0].output.bits == bits
    assert network.layers[0].output.kind == "uint"


@pytest.mark.parametrize("mode", ["ROUND", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN"])
def test_rounding_modes(mode, chain, tmp_path) -> None:
    model = conv(start(chain), signs(M, C, 3, 3)).node("Mul", chain.X, 0.25)
    model.quant(0.5, 3, rounding_mode=mode)  # ties everywhere
    check(end(model), tmp_path)


@pytest.mark.parametrize(
    ("bits", "narrow", "most"), [(2, 1, 1), (2, 0, 2), (3, 1, 3), (4, 1, 4), (8, 1, 8)]
)
def test_quantised_weights(bits, narrow, most, chain, tmp_path) -> None:
    random = np.random.default_rng(bits)
    latent = random.normal(size=(M, C, 3, 3)).astype(np.float32)
    step = np.float32([[[[0.3]]], [[[0.25]]], [[[0.7]]], [[[0.11]]]]) * 6 / 2**bits
    model = start(chain)
    before, name = model.last, model.constant(latent)
    parameters = (step.astype(np.float32), np.float32(0), np.float32(bits))
    model.node(
        "Quant", name, *parameters, domain="qonnx.custom_op.general", signed=1, narrow=narrow
    )
    weights, model.last = model.last, before
    slide(model, "Conv", (3, 3), weights, channels=M, pads=[1, 1, 1, 1])
    network = check(end(norm(model, M).bipolar()), tmp_path)
    type_ = network.layers[0].weight_type
    assert type_.kind == "int" and type_.bits == most


def test_inputs_the_model_quantises_itself(chain, tmp_path) -> None:
    # Mean and deviation by channel, then eight bits: a table by channel.
    mean = np.float32([0.45, 0.5, 0.55]).reshape(3, 1, 1)
    deviation = np.float32([0.2, 0.25, 0.3]).reshape(3, 1, 1)
    model = sized(chain(["N", C, H, W])).node("Sub", chain.X, mean).node("Div", chain.X, deviation)
    model.quant(2.0**-5, 8)
    norm(conv(model, signs(M, C, 3, 3), pads=[1, 1, 1, 1]), M, spread=1.0).bipolar()
    network = check(end(model), tmp_path)
    assert network.input.table.shape == (C, 256)
    assert network.input.value.kind == "int"
    assert (
        network.layers[0].thresholds.ndim == 1
        or (network.layers[0].bank == network.layers[0].bank[:1]).all()
    )  # real 0 is the integer 0


def test_finn_thresholds(chain, tmp_path) -> None:
    random = np.random.default_rng(3)
    for layout in ("NCHW", "NHWC"):
        model = conv(start(chain), signs(M, C, 3, 3))
        if layout == "NHWC":
            model.node("Transpose", model.X, perm=[0, 2, 3, 1])
        table = np.sort(random.integers(-12, 12, (M, 3)), axis=1).astype(np.float32)
        model.node(
            "MultiThreshold",
            model.X,
            table,
            domain="finn.custom_op.general",
            out_dtype="INT2",
            out_scale=2.0,
            out_bias=-3.0,
            data_layout=layout,
        )
        if layout == "NHWC":
            model.node("Transpose", model.X, perm=[0, 3, 1, 2])
        conv(model, signs(5, M, 2, 2))
        model.node("MultiThreshold", model.X, np.float32([[0.5]]), domain="finn.custom_op.general")
        network = check(end(model), tmp_path)
        assert network.layers[0].output.bits == 2


# --- branches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bits", "levels", "dots"])
def test_residuals(kind, chain, tmp_path) -> None:
    model = norm(conv(start(chain), signs(M, C, 2, 2)), M).bipolar()
    skip = model.last
    conv(model, signs(M, M, 3, 3), pads=[1, 1, 1, 1])
    if kind == "bits":
        norm(model, M).bipolar(0.5)
    elif kind == "levels":
        norm(model, M).quant(0.25, 3)
    else:
        model.node("Mul", model.X, 0.125)
    model.node("Add", model.X, skip)
    norm(model, M, spread=0.3).bipolar()
    norm(conv(model, signs(5, M, 2, 2)), 5).bipolar()
    network = check(end(model), tmp_path)
    assert any(isinstance(layer, Threshold) for layer in network.layers)
    assert not network.is_chain


def test_a_difference_and_a_value_used_twice(chain, tmp_path) -> None:
    model = norm(conv(start(chain), signs(M, C, 2, 2)), M).bipolar()
    skip = model.last
    norm(conv(model, signs(M, M, 1, 1)), M).bipolar()
    model.node("Sub", skip, model.X).node("Add", model.X, 0.25).bipolar()
    check(end(model), tmp_path)


def test_two_batch_norms_on_one_convolution(chain, tmp_path) -> None:
    model = conv(start(chain), signs(M, C, 2, 2))
    dots = model.last
    norm(model, M, 1).bipolar()
    left, model.last = model.last, dots
    norm(model, M, 2).bipolar()
    model.node("Concat", left, model.X, axis=1)
    model.size = (*model.size[:2], 2 * M)
    norm(conv(model, signs(5, 2 * M, 2, 2)), 5).bipolar()
    network = check(end(model), tmp_path)
    assert sum(isinstance(layer, Threshold) for layer in network.layers) == 2


def test_concatenated_paths(chain, tmp_path) -> None:
    model = norm(conv(start(chain), signs(M, C, 2, 2)), M).bipolar()
    before, size = model.last, model.size
    norm(conv(model, signs(5, M, 3, 3), pads=[1, 1, 1, 1]), 5).bipolar()
    left, model.last, model.size = model.last, before, size
    norm(conv(model, signs(2, M, 1, 1)), 2).bipolar()
    model.node("Concat", before, left, model.X, axis=1)
    model.size = (*size[:2], M + 7)
    check(end(norm(conv(model, signs(3, M + 7, 2, 2)), 3).bipolar()), tmp_path)


def test_steps_that_differ_from_pixel_to_pixel(chain, tmp_path) -> None:
    model = conv(start(chain), signs(M, C, 3, 3))
    size = int(np.prod(model.size))
    model.node("Flatten")
    norm(model, size).bipolar().node("MatMul", model.X, signs(size, CLASSES))
    network = check(model, tmp_path)
    assert isinstance(network.layers[1], Threshold)


# --- any of it together ---------------------------------------------------------------------------


def quantise(model, draw, channels: int) -> None:
    """With scales whose sums floats hold, so that not even ties may differ."""
    norm(model, channels, draw(st.integers(0, 99)))
    if draw(st.booleans()):
        model.bipolar(draw(st.sampled_from([1.0, 0.5, 2.0])))
    else:
        signed, narrow = draw(st.sampled_from([(0, 0), (1, 0), (1, 1)]))
        model.quant(
            draw(st.sampled_from([0.25, 0.5])),
            draw(st.integers(2, 4)),
            signed=signed,
            narrow=narrow,
        )


def block(model, draw) -> None:
    """A convolution or a pool that fits, maybe with a way round it."""
    height, width, channels = model.size
    kernel = draw(st.tuples(st.integers(1, min(3, height)), st.integers(1, min(3, width))))
    pads = draw(st.lists(st.integers(0, 1), min_size=4, max_size=4))
    strides = draw(st.lists(st.integers(1, 2), min_size=2, max_size=2))
    rows = draw(st.sampled_from([2, 4, 6]))
    groups = draw(st.sampled_from([g for g in (1, 2) if channels % g == 0]))
    skip, size = model.last, model.size
    weights = signs(rows, channels // groups, *kernel, seed=draw(st.integers(0, 99)))
    if draw(st.booleans()):
        weights *= np.random.default_rng(rows).integers(0, 3, weights.shape)
        weights[:, 0, 0, 0] = 1
    conv(model, weights, pads=pads, strides=strides, group=groups)
    pool = model.size[0] > 1 and model.size[1] > 1 and draw(st.booleans())
    early = draw(st.booleans())
    if pool and early:
        slide(model, "MaxPool", (2, 2), strides=draw(st.sampled_from([[1, 1], [2, 2]])))
    quantise(model, draw, rows)
    if pool and not early:
        slide(model, draw(st.sampled_from(["MaxPool", "AveragePool"])), (2, 2), strides=[2, 2])
        quantise(model, draw, rows)
    if model.size == size and draw(st.booleans()):
        join = draw(st.sampled_from(["Add", "Sub"]))
        model.node("Mul", skip, 0.5)
        model.node(join, model.nodes[-2].output[0], model.X)
        quantise(model, draw, rows)


@settings(max_examples=30)
@given(data=st.data())
def test_random_models_equal_the_source_in_every_layer(data, chain, tmp_path_factory) -> None:
    model = start(chain)
    for _ in range(data.draw(st.integers(1, 3))):
        block(model, data.draw)
    path = end(model).save(tmp_path_factory.getbasetemp() / "random.onnx")
    try:
        report = trace(path, IMAGES[:8])
    except UnsupportedOpError as error:
        # Sums of values that count in different units, and the largest of mixed ones.
        assert re.search("small whole number|is negated|are negated", str(error)), error
        return
    assert report.equal, str(report)


# --- what is refused ------------------------------------------------------------------------------


def first_conv(chain, weights=None, **options):
    return conv(start(chain), signs(M, C, 3, 3) if weights is None else weights, **options)


def with_nan(chain):
    weights = signs(M, C, 3, 3)
    weights[1, 2, 0, 1] = np.nan
    return first_conv(chain, weights)


def uneven(chain):
    weights = signs(M, C, 3, 3)
    weights[2, 1, 1, 1] = 0.2718
    return first_conv(chain, weights)


def by_channel(chain):
    mean = np.float32([0.4, 0.5, 0.6]).reshape(3, 1, 1)
    return conv(sized(chain(["N", C, H, W])).node("Sub", chain.X, mean), signs(M, C, 3, 3))


def uneven_sum(chain):
    model = first_conv(chain).bipolar()
    skip = model.last
    return conv(model, signs(M, M, 3, 3)).node("Add", skip, model.X)


BAD = {
    "nan": (with_nan, ModelError, "Conv_3.*nan"),
    "not multiples": (uneven, ModelError, r"Conv_3.*output 2 are not ±s.*0.2718 to 1"),
    "channels": (
        lambda c: first_conv(c, signs(M, 2, 3, 3)),
        ModelError,
        r"Conv_3.*\[4, 2, 3, 3\].*do not meet 3 channels",
    ),
    "groups": (
        lambda c: first_conv(c, signs(M, 1, 3, 3), group=2),
        ModelError,
        "Conv_3.*2 groups",
    ),
    "kernel": (
        lambda c: first_conv(c, kernel_shape=[5, 5]),
        ModelError,
        r"Conv_3.*kernel \[5, 5\].*\[3, 3\]",
    ),
    "too small": (
        lambda c: first_conv(c, signs(M, C, 9, 3)),
        ModelError,
        "Conv_3.*window of 9 pixels does not fit 7",
    ),
    "bias": (
        lambda c: slide(start(c), "Conv", (3, 3), signs(M, C, 3, 3), np.ones(3, np.float32)),
        ModelError,
        r"Conv_3.*bias of shape \[3\] for 4",
    ),
    "one axis": (
        lambda c: c(["N", C, H]).binary_input().node("Conv", c.X, signs(M, C, 3)),
        UnsupportedOpError,
        "Conv_3.*two axes",
    ),
    "other order": (
        lambda c: (
            start(c).node("Transpose", c.X, perm=[0, 1, 3, 2]).node("Conv", c.X, signs(M, C, 3, 3))
        ),
        UnsupportedOpError,
        "Conv_4.*transposes",
    ),
    "by channel": (by_channel, UnsupportedOpError, "Sub_0.*element by element.*quantiser"),
    "transposed": (
        lambda c: start(c).node("ConvTranspose", c.X, signs(C, M, 2, 2)),
        UnsupportedOpError,
        "ConvTranspose_3.*transposed",
    ),
    "sliced": (
        lambda c: start(c).node("Slice", c.X, np.array([0]), np.array([1])),
        UnsupportedOpError,
        "Slice_3.*parts of a value",
    ),
    "reflected": (
        lambda c: start(c).node("Pad", c.X, np.array([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect"),
        UnsupportedOpError,
        "Pad_3.*'reflect'",
    ),
    "padded channels": (
        lambda c: start(c).node("Pad", c.X, np.array([0, 1, 0, 0, 0, 0, 0, 0])),
        UnsupportedOpError,
        "Pad_3.*rows and columns",
    ),
    "pad before a pool": (
        lambda c: slide(
            first_conv(c).node("Pad", c.X, np.array([0, 0, 1, 1, 0, 0, 1, 1])), "MaxPool", (2, 2)
        ),
        UnsupportedOpError,
        "MaxPool_5.*follows a Pad",
    ),
    "two pads": (
        lambda c: (
            start(c)
            .node("Pad", c.X, np.array([0, 0, 1, 1, 0, 0, 1, 1]), 1.0)
            .node("Conv", c.X, signs(M, C, 3, 3), pads=[1, 1, 1, 1])
        ),
        UnsupportedOpError,
        "Conv_4.*one padding",
    ),
    "average at the edge": (
        lambda c: slide(first_conv(c).bipolar(), "AveragePool", (2, 2), pads=[1, 1, 1, 1]),
        UnsupportedOpError,
        "AveragePool_5.*count_include_pad",
    ),
    "places of the largest": (
        lambda c: start(c).node("MaxPool", c.X, kernel_shape=[2, 2], outputs=2),
        UnsupportedOpError,
        "MaxPool_3.*places",
    ),
    "mean over channels": (
        lambda c: start(c).node("ReduceMean", c.X, axes=[1, 2]),
        UnsupportedOpError,
        "ReduceMean_3.*no channels",
    ),
    "dots into a product": (
        lambda c: conv(first_conv(c), signs(5, M, 2, 2)),
        UnsupportedOpError,
        "Conv_3.*Conv_4.*without being binarised",
    ),
    "many levels": (
        lambda c: conv(first_conv(c).quant(0.5, 5), signs(5, M, 2, 2)),
        UnsupportedOpError,
        "Quant_4.*32 levels.*4 bits",
    ),
    "bad scale": (lambda c: first_conv(c).quant(-0.5, 2), ModelError, "Quant_4.*scale -0.5"),
    "bad width": (lambda c: first_conv(c).quant(0.5, 2.5), ModelError, "Quant_4.*bit width"),
    "one level": (
        lambda c: first_conv(c).quant(0.5, 1, signed=0, narrow=1),
        ModelError,
        "Quant_4.*one level",
    ),
    "bad rounding": (
        lambda c: first_conv(c).quant(0.5, 2, rounding_mode="SOMEHOW"),
        ModelError,
        "Quant_4.*SOMEHOW",
    ),
    "thresholds": (
        lambda c: first_conv(c).node(
            "MultiThreshold", c.X, np.ones(4, np.float32), domain="finn.custom_op.general"
        ),
        ModelError,
        r"MultiThreshold_4.*\[4\], not \(channels, levels\)",
    ),
    "thresholds for others": (
        lambda c: first_conv(c).node(
            "MultiThreshold", c.X, np.ones((3, 1), np.float32), domain="finn.custom_op.general"
        ),
        ModelError,
        r"MultiThreshold_4.*\[1, 3, 1, 1\].*\[1, 4, 5, 4\]",
    ),
    "sizes that differ": (
        uneven_sum,
        ModelError,
        r"Add_6.*\[1, 4, 5, 4\] and \[1, 4, 3, 2\]",
    ),
    "a map as scores": (
        lambda c: first_conv(c),
        UnsupportedOpError,
        "Conv_3.*5 x 4 x 4.*one vector",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_maps_are_refused_with_node_and_rule(case, chain, tmp_path) -> None:
    make, error, message = BAD[case]
    path = make(chain).save(tmp_path / "bad.onnx")
    with pytest.raises(error, match=f"(?s)bad.onnx.*{message}") as caught:
        xnorforge.gen.load(path)
    assert "\n" not in str(caught.value)


def test_images_of_another_layout_are_refused(chain, tmp_path) -> None:
    network = xnorforge.gen.load(end(first_conv(chain).bipolar()).save(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match="channels last, move the axis"):
        network.input.quantise(IMAGES.transpose(0, 3, 1, 2))
