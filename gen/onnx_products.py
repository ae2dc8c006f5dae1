# SPDX-License-Identifier: BSD-2-Clause
"""ONNX ops with weights, and padding: MatMul, Gemm, Conv, Pad; and windows of all kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx

from xnorforge.gen.graph import Convolution, Dot, Padding, Step
from xnorforge.gen.onnx_file import Tensor, attributes, label
from xnorforge.hw.geometry import Window

if TYPE_CHECKING:
    from xnorforge.gen.onnx_import import Importer

__all__ = ["OPS", "channels_first", "window_of"]


def channels_first(shape: tuple[int, int, int]) -> np.ndarray:
    """The order of a map (height, width, channels) with axes batch, channels, height, width."""
    return np.arange(int(np.prod(shape))).reshape(shape).transpose(2, 0, 1)[None]


def window_of(
    importer: Importer,
    node: onnx.NodeProto,
    size: tuple[int, int],
    kernel: tuple[int, int],
) -> Window:
    """The window of a node's attributes over a map of some height and width."""
    options = attributes(node)
    given = options.get("kernel_shape")
    if given is not None and tuple(given) != kernel:
        raise importer.bad(node, f"says kernel {list(given)}, its weights have {list(kernel)}")
    strides = tuple(options.get("strides", (1, 1)))
    dilations = tuple(options.get("dilations", (1, 1)))
    pads = tuple(options.get("pads", (0, 0, 0, 0)))
    auto = options.get("auto_pad", "NOTSET")
    if (len(strides), len(dilations), len(pads)) != (2, 2, 4):
        raise importer.unsupported(node, "two axes: a convolution or pool of maps")
    try:
        window = Window(kernel, strides, dilations)
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            pads = _same(size, window, auto == "SAME_UPPER")
        elif auto == "VALID":
            pads = (0, 0, 0, 0)
        elif auto != "NOTSET":
            raise importer.bad(node, f"has auto_pad {auto!r}")
        window = Window(kernel, strides, dilations, pads)
        window.over(*size)
    except ValueError as error:
        raise importer.bad(node, f"does not fit its map: {error}") from None
    return window


def _same(size: tuple[int, int], window: Window, upper: bool) -> tuple[int, int, int, int]:
    """Pads by which every stride begins one window."""
    before, after = [], []
    for axis in (0, 1):
        extent = (window.kernel[axis] - 1) * window.dilation[axis] + 1
        count = -(-size[axis] // window.stride[axis])
        total = max(0, (count - 1) * window.stride[axis] + extent - size[axis])
        small = total // 2
        before.append(small if upper else total - small)
        after.append(total - before[-1])
    return before[0], before[1], after[0], after[1]


def _matmul(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    options = attributes(node)
    on_left = node.input[0] in importer.tensors
    matrix = importer.constant(node, 1 if on_left else 0)
    x, gemm = source.order, node.op_type == "Gemm"
    if gemm and options.get("transA" if on_left else "transB", 0):
        x = x.T
    if gemm and options.get("transB" if on_left else "transA", 0):
        matrix = matrix.T
    matrix = matrix.reshape(matrix.shape[-2:]) if matrix.ndim > 2 else matrix
    if matrix.ndim != 2:
        raise importer.unsupported(node, f"a weight matrix; its constant is {matrix.shape}")
    weights = matrix.T if on_left else matrix
    length = x.shape[-1] if on_left else x.shape[-2] if x.ndim > 1 else x.shape[0]
    if length != weights.shape[1]:
        raise importer.bad(
            node,
            f"multiplies {list(x.shape)} with weights {list(matrix.shape)}: {length} inputs do "
            f"not meet {weights.shape[1]} columns",
        )
    if x.size != length:
        raise importer.unsupported(node, f"one vector an image; its input is {list(x.shape)}")
    columns = np.empty_like(weights)
    columns[:, x.reshape(-1)] = weights
    rows = len(weights)
    if on_left:
        shape: tuple[int, ...] = (*x.shape[:-1], rows)
    else:
        shape = (*x.shape[:-2], rows, 1) if x.ndim > 1 else (rows,)
    order = np.arange(rows)
    index = importer.add(Dot(label(node), (source.op,), (rows,), node.output[0], order, columns))
    result = Tensor(index, order.reshape(shape), source.dtype)
    if gemm:
        alpha, beta = options.get("alpha", 1.0), options.get("beta", 1.0)
        result = importer.step(node, result, "mul", alpha) if alpha != 1 else result
        if len(node.input) > 2 and node.input[2]:
            bias = importer.constant(node, 2)
            bias = bias * np.asarray(beta, bias.dtype)
            result = importer.step(node, result, "add", bias)
    importer.tensors[node.output[0]] = result


def _conv(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    if node.input[0] not in importer.tensors:
        raise importer.unsupported(node, "constant weights; they depend on the image")
    weights = importer.constant(node, 1)
    if weights.ndim != 4:
        raise importer.unsupported(
            node, f"two axes: weights of four axes, not {list(weights.shape)}"
        )
    h, w, c = importer.map_of(node, source)
    groups = attributes(node).get("group", 1)
    rows, depth = weights.shape[:2]
    if groups < 1 or c % groups or rows % groups or depth * groups != c:
        raise importer.bad(
            node,
            f"has weights {list(weights.shape)} and {groups} groups, which do not meet {c} "
            f"channels",
        )
    kernel = (int(weights.shape[2]), int(weights.shape[3]))
    window = window_of(importer, node, (h, w), kernel)
    if window.padded and _has_padding(importer, source.op):
        raise importer.unsupported(node, "one padding; a Pad comes before its own pads")
    placed = window.over(h, w)
    shape = (placed.height, placed.width, rows)
    order = channels_first(shape)
    index = importer.add(
        Convolution(
            label(node),
            (source.op,),
            shape,
            node.output[0],
            order.reshape(-1),
            weights.transpose(0, 2, 3, 1),
            window,
            groups,
        )
    )
    result = Tensor(index, order, source.dtype)
    if len(node.input) > 2 and node.input[2]:
        bias = importer.constant(node, 2)
        if bias.shape != (rows,):
            raise importer.bad(node, f"has a bias of shape {list(bias.shape)} for {rows} outputs")
        result = importer.step(node, result, "add", bias.reshape(1, rows, 1, 1))
    importer.tensors[node.output[0]] = result


def _has_padding(importer: Importer, op: int) -> bool:
    """Whether a Pad comes before, with nothing but steps between."""
    while op >= 0 and isinstance(importer.ops[op], Step):
        op = importer.ops[op].sources[0]
    return op >= 0 and isinstance(importer.ops[op], Padding)


def _pad(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    options = attributes(node)
    if options.get("mode", "constant") != "constant":
        raise importer.unsupported(node, f"mode 'constant', not {options['mode']!r}")
    rank = source.order.ndim
    if "pads" in options or "paddings" in options:
        pads = np.asarray(options.get("pads", options.get("paddings")))
        value = float(options.get("value", 0.0))
    else:
        pads = importer.constant(node, 1)
        constant = importer.constant(node, 2, 0.0)
        value = float(constant.reshape(-1)[0]) if constant.size else 0.0
        if len(node.input) > 3 and node.input[3]:
            axes = importer.constant(node, 3).reshape(-1).astype(int) % rank
            spread = np.zeros(2 * rank, np.int64)
            spread[axes], spread[axes + rank] = np.split(pads.reshape(-1), 2)
            pads = spread
    pads = pads.reshape(-1).astype(int)
    if len(pads) != 2 * rank or (pads < 0).any():
        raise importer.bad(
            node, f"has pads {pads.tolist()} for {rank} axes; two of at least 0 an axis"
        )
    if not pads.any():
        importer.tensors[node.output[0]] = source
        return
    if rank != 4:
        raise importer.unsupported(node, f"a map of four axes, not {list(source.order.shape)}")
    have = importer.shape(source.op)
    last = (
        source.order.shape[1:] == have
        and (source.order.reshape(-1) == np.arange(source.order.size)).all()
    )
    if last and not (pads[3] or pads[7]):  # channels last
        h, w, c = have
        pads = pads[[0, 3, 1, 2, 4, 7, 5, 6]]
    else:
        last = False
        h, w, c = importer.map_of(node, source)
    if pads[[0, 1, 4, 5]].any():
        raise importer.unsupported(node, "pads of rows and columns only")
    top, left, bottom, right = (int(p) for p in pads[[2, 3, 6, 7]])
    shape = (h + top + bottom, w + left + right, c)
    order = channels_first(shape)
    if last:
        order = order.transpose(0, 2, 3, 1)
    index = importer.add(
        Padding(
            label(node),
            (source.op,),
            shape,
            node.output[0],
            order.reshape(-1),
            (top, left, bottom, right),
            value,
        )
    )
    importer.tensors[node.output[0]] = Tensor(index, order, source.dtype)


OPS: dict[str, Callable] = {"Conv": _conv, "Gemm": _matmul, "MatMul": _matmul, "Pad": _pad}
