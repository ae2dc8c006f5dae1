# SPDX-License-Identifier: BSD-2-Clause
"""ONNX ops over the pixels of a map, and ops that join two paths: pools, Add, Concat."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx

from xnorforge.gen.graph import Join, Pooling, Sum
from xnorforge.gen.onnx_file import Tensor, attributes, label
from xnorforge.gen.onnx_products import channels_first, window_of
from xnorforge.hw.geometry import Window

if TYPE_CHECKING:
    from xnorforge.gen.onnx_import import Importer

__all__ = ["JOINS", "OPS"]


def _put(
    importer: Importer,
    node: onnx.NodeProto,
    source: Tensor,
    window: Window,
    kind: str,
    size: tuple[int, int, int],
) -> Tensor:
    placed = window.over(size[0], size[1])
    shape = (placed.height, placed.width, size[2])
    order = channels_first(shape)
    index = importer.add(
        Pooling(label(node), (source.op,), shape, node.output[0], order.reshape(-1), window, kind)
    )
    return Tensor(index, order, source.dtype)


def _pool(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    options = attributes(node)
    mean = node.op_type == "AveragePool"
    size = importer.map_of(node, source)
    if any(node.output[1:]):
        raise importer.unsupported(node, "its first output only, not the places of the largest")
    if "kernel_shape" not in options:
        raise importer.bad(node, "has no kernel_shape")
    kernel = tuple(options["kernel_shape"])
    if len(kernel) != 2:
        raise importer.unsupported(node, "two axes: a pool of maps")
    window = window_of(importer, node, size[:2], kernel)
    if options.get("ceil_mode", 0):
        window = _ceiling(window, size[:2])
    included = options.get("count_include_pad", 0) and not options.get("ceil_mode", 0)
    if mean and window.padded and not included:
        raise importer.unsupported(
            node, "no padding, or count_include_pad: its divisor differs at the edge"
        )
    try:
        window.over(*size[:2])
    except ValueError as error:
        raise importer.bad(node, f"does not fit its map: {error}") from None
    importer.tensors[node.output[0]] = _put(
        importer, node, source, window, "mean" if mean else "max", size
    )


def _ceiling(window: Window, size: tuple[int, int]) -> Window:
    """The window with as much more padding at the end as gives its last, partial position."""
    pads = list(window.pads)
    for axis in (0, 1):
        extent = (window.kernel[axis] - 1) * window.dilation[axis] + 1
        room = size[axis] + pads[axis] + pads[axis + 2] - extent
        count = -(-room // window.stride[axis]) + 1
        if (count - 1) * window.stride[axis] >= size[axis] + pads[axis]:
            count -= 1
        needed = (count - 1) * window.stride[axis] + extent - size[axis] - pads[axis]
        pads[axis + 2] = max(needed, 0)
    top, left, bottom, right = pads
    return Window(window.kernel, window.stride, window.dilation, (top, left, bottom, right))


def _global(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    size = importer.map_of(node, source)
    kind = "max" if node.op_type == "GlobalMaxPool" else "mean"
    importer.tensors[node.output[0]] = _put(importer, node, source, Window(size[:2]), kind, size)


def _reduce(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    """Over all pixels of a map, on whichever axes they are."""
    options, order = attributes(node), source.order
    axes = options.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = importer.constant(node, 1).reshape(-1).tolist()
    axes = list(range(order.ndim)) if axes is None else [int(a) % order.ndim for a in axes]
    shape = importer.shape(source.op)
    if len(shape) != 3:
        raise importer.unsupported(node, f"a map; its value is a vector of {shape[-1]}")
    rest = [i for i in range(order.ndim) if i not in axes]
    left = tuple(order.shape[i] for i in rest)
    grouped = order.transpose([*rest, *axes]).reshape(int(np.prod(left)), -1)
    channel = grouped % shape[2]
    if (channel != channel[:, :1]).any() or grouped.shape[1] != shape[0] * shape[1]:
        raise importer.unsupported(
            node,
            f"all rows and columns of its map, and no channels; it takes axes {axes} of "
            f"{list(order.shape)}",
        )
    kind = {"ReduceMax": "max", "ReduceMean": "mean", "ReduceSum": "sum"}[node.op_type]
    kept = options.get("keepdims", 1)
    result = tuple(1 if i in axes else n for i, n in enumerate(order.shape)) if kept else left
    arranged = channel[:, 0]
    index = importer.add(
        Pooling(
            label(node),
            (source.op,),
            (1, 1, shape[2]),
            node.output[0],
            arranged,
            Window(shape[:2]),
            kind,
        )
    )
    importer.tensors[node.output[0]] = Tensor(index, arranged.reshape(result), source.dtype)


# --- joins ----------------------------------------------------------------------------------------


def _add(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    if any(name not in importer.tensors for name in node.input):
        raise importer.unsupported(node, "computed tensors only, or one and a constant")
    parts = [importer.tensors[name] for name in node.input]
    _check_parts(importer, node, parts)
    first = parts[0]
    shapes = {importer.shape(part.op) for part in parts}
    for part in parts[1:]:
        same = part.order.shape == first.order.shape and (part.order == first.order).all()
        if not same or len(shapes) > 1:
            raise importer.bad(
                node,
                f"adds values {list(first.order.shape)} and {list(part.order.shape)}, which do "
                f"not lie element on element",
            )
    signs = (1, -1) if node.op_type == "Sub" else (1,) * len(parts)
    index = importer.add(
        Sum(
            label(node),
            tuple(part.op for part in parts),
            importer.shape(first.op),
            node.output[0],
            first.order.reshape(-1),
            signs,
        )
    )
    importer.tensors[node.output[0]] = Tensor(index, first.order, first.dtype)


def _concat(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    if any(name not in importer.tensors for name in node.input):
        raise importer.unsupported(node, "computed tensors only, no constants")
    parts = [importer.tensors[name] for name in node.input]
    _check_parts(importer, node, parts)
    if len(parts) == 1:
        importer.tensors[node.output[0]] = parts[0]
        return
    shapes = [importer.shape(part.op) for part in parts]
    if len({shape[:-1] for shape in shapes}) > 1:
        raise importer.bad(node, f"joins values {[list(s) for s in shapes]} of different sizes")
    channels = sum(shape[-1] for shape in shapes)
    orders, before = [], 0
    for part, shape in zip(parts, shapes, strict=True):
        pixel, channel = np.divmod(part.order, shape[-1])
        orders.append(pixel * channels + before + channel)
        before += shape[-1]
    try:
        order = np.concatenate(orders, axis=attributes(node).get("axis", 1))
    except (ValueError, IndexError) as error:
        raise importer.bad(node, f"joins values that do not fit: {error}") from None
    index = importer.add(
        Join(
            label(node),
            tuple(part.op for part in parts),
            (*shapes[0][:-1], channels),
            node.output[0],
            order.reshape(-1),
        )
    )
    importer.tensors[node.output[0]] = Tensor(index, order, parts[0].dtype)


def _check_parts(importer: Importer, node: onnx.NodeProto, parts: list[Tensor]) -> None:
    if any(part.stage != "value" for part in parts) or any(part.dtype == bool for part in parts):
        raise importer.unsupported(node, "values on both sides, no labels and no truth values")
    if len({part.dtype for part in parts}) > 1:
        raise importer.bad(node, f"mixes {', '.join(str(part.dtype) for part in parts)} values")


OPS: dict[str, Callable] = {
    **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceSum"), _reduce),
}
JOINS: dict[str, Callable] = {**dict.fromkeys(("Add", "Sub", "Sum"), _add), "Concat": _concat}
