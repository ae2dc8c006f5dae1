# SPDX-License-Identifier: BSD-2-Clause
"""ONNX ops on single elements -> `Step`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx.helper import tensor_dtype_to_np_dtype

from xnorforge.gen.graph import Step
from xnorforge.gen.onnx_file import Tensor, attributes, label

if TYPE_CHECKING:
    from xnorforge.gen.onnx_import import Importer

__all__ = ["OPS", "append"]

_COMPARISONS = {
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
}
_MIRRORED = {
    "greater": "less",
    "less": "greater",
    "greater_equal": "less_equal",
    "less_equal": "greater_equal",
}


def append(
    importer: Importer,
    node: onnx.NodeProto,
    source: Tensor,
    op: str,
    *values: object,
    rounding: str = "ROUND",
) -> Tensor:
    """Add a step whose parameters are given as they broadcast against the tensor."""
    shape, dtype = source.order.shape, source.dtype
    params = []
    for value in values:
        array = np.asarray(value)
        array = array if isinstance(value, np.ndarray) else array.astype(dtype)
        if array.dtype != dtype and op not in ("cast", "where"):
            raise importer.bad(node, f"mixes {dtype} values with {array.dtype} constants")
        try:
            shape = np.broadcast_shapes(shape, array.shape)
        except ValueError:
            raise importer.bad(
                node,
                f"has constants of shape {list(array.shape)}, which do not fit values of shape "
                f"{list(source.order.shape)}",
            ) from None
        params.append(array)
    if math.prod(shape) != source.order.size:
        raise importer.unsupported(node, f"a vector to grow to shape {list(shape)} by broadcasting")
    order = source.order.reshape(shape)
    value_shape = importer.shape(source.op)
    fitted = [_per_channel(array, order, value_shape[-1]) for array in params]
    if any(p.size > value_shape[-1] for p in fitted):  # a map, element by element
        value_shape = (order.size,)
        fitted = [_per_channel(array, order, order.size) for array in params]
    index = importer.add(
        Step(
            label(node),
            op,
            tuple(fitted),
            node.output[0],
            order.reshape(-1),
            source.op,
            value_shape,
            rounding,
        )
    )
    if op in _MIRRORED or op == "not":
        dtype = np.dtype(bool)
    elif op in ("cast", "where"):
        dtype = params[0].dtype
    return Tensor(index, order, dtype)


def _per_channel(array: np.ndarray, order: np.ndarray, channels: int) -> np.ndarray:
    """Broadcast values in tensor order -> by channel; shape () where all are equal, by element
    where they differ inside a channel."""
    flat = np.broadcast_to(array, order.shape).reshape(-1)
    if flat.size and (flat == flat[0]).all():
        return flat[0].reshape(())
    result = np.empty_like(flat)
    result[order.reshape(-1)] = flat
    pixels = result.reshape(-1, channels)
    return pixels[0] if (pixels == pixels[0]).all() else result


# --- ops ------------------------------------------------------------------------------------------


def _first(importer: Importer, node: onnx.NodeProto) -> bool:
    """Whether the computed tensor is the node's first input."""
    return node.input[0] in importer.tensors


def _put(importer: Importer, node: onnx.NodeProto, source: Tensor, op: str, *values) -> None:
    importer.tensors[node.output[0]] = importer.step(node, source, op, *values)


def _arithmetic(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    kind, first = node.op_type, _first(importer, node)
    value = importer.constant(node, 1 if first else 0)
    if kind == "Div" and not first:
        raise importer.unsupported(node, "a constant divisor; 1/x is no threshold")
    if kind == "Div" and (value == 0).any():
        raise importer.bad(node, "divides by zero")
    _put(importer, node, source, "rsub" if kind == "Sub" and not first else kind.lower(), value)


def _plain(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    _put(importer, node, source, node.op_type.lower())


def _prelu(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    leaky = node.op_type == "LeakyRelu"
    slope = attributes(node).get("alpha", 0.01) if leaky else importer.constant(node, 1)
    if (np.asarray(slope) < 0).any():
        raise importer.unsupported(node, f"slopes of at least 0; {np.min(slope)} is not monotone")
    _put(importer, node, source, "prelu", slope)


def _cast(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    target = np.dtype(tensor_dtype_to_np_dtype(attributes(node)["to"]))
    if target.kind != "f":
        raise importer.unsupported(node, f"a float type; {target} rounds the values")
    _put(importer, node, source, "cast", np.zeros((), target))


def _compare(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    op, first = _COMPARISONS[node.op_type], _first(importer, node)
    value = importer.constant(node, 1 if first else 0)
    _put(importer, node, source, op if first else _MIRRORED[op], value)


def _where(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    values = importer.constant(node, 1), importer.constant(node, 2)
    _put(importer, node, source, "where", *values)


def _batchnorm(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    options = attributes(node)
    if options.get("training_mode", 0) or any(node.output[1:]):
        raise importer.unsupported(node, "inference mode; export the model after model.eval()")
    shape = source.order.shape
    axes = (1, -1) + (1,) * (len(shape) - 2)
    values = [importer.constant(node, i) for i in range(1, 5)]
    epsilon = options.get("epsilon", 1e-5)
    for name, value in zip(("gamma", "beta", "mean", "variance"), values, strict=True):
        if len(shape) < 2 or value.shape != (shape[1],):
            raise importer.bad(
                node,
                f"has {name} of shape {list(value.shape)} for values of shape {list(shape)}",
            )
    if (values[3] + epsilon <= 0).any():
        raise importer.bad(node, f"has variance {values[3].min()}, which is negative")
    shaped = [value.reshape(axes) for value in values]
    _put(importer, node, source, "batchnorm", *shaped, epsilon)


def _clip(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    options, first = attributes(node), _first(importer, node)
    limits = np.finfo(source.dtype)
    low, high = np.asarray(limits.min), np.asarray(limits.max)
    if node.op_type == "Relu":
        low = np.zeros((), source.dtype)
    elif node.op_type == "Clip":
        low = importer.constant(node, 1, options.get("min", low)).astype(source.dtype)
        high = importer.constant(node, 2, options.get("max", high)).astype(source.dtype)
    elif len(node.input) != 2:
        raise importer.unsupported(node, "one constant beside the values")
    else:
        bound = importer.constant(node, 1 if first else 0)
        low, high = (bound, high) if node.op_type == "Max" else (low, bound)
    if (low > high).any():
        raise importer.bad(node, f"clips to [{low}, {high}]")
    _put(importer, node, source, "clip", low, high)


OPS: dict[str, Callable] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    **dict.fromkeys(("Neg", "Sign", "Not"), _plain),
    **dict.fromkeys(("PRelu", "LeakyRelu"), _prelu),
    **dict.fromkeys(_COMPARISONS, _compare),
    **dict.fromkeys(("Clip", "Max", "Min", "Relu"), _clip),
    "Cast": _cast,
    "Where": _where,
    "BatchNormalization": _batchnorm,
}
