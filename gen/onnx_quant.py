# SPDX-License-Identifier: BSD-2-Clause
"""QONNX's and FINN's quantising ops: what their nodes say, on constants, and in standard ONNX.

BipolarQuant: +scale where x >= 0, else -scale. Quant: the integer nearest to x / scale + zero
point within its bits, and back. MultiThreshold: how many thresholds x meets, scaled and biased.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from xnorforge.gen.steps import ROUNDINGS, Step

__all__ = ["QUANT_DOMAINS", "QuantError", "Quantiser", "is_quantiser", "quantiser", "standard"]

QUANT_DOMAINS = ("finn.custom_op.general", "onnx.brevitas", "qonnx.custom_op.general")
_INPUTS = {"BipolarQuant": 2, "Quant": 4, "IntQuant": 4, "MultiThreshold": 2}
_MOST_BITS = 32


class QuantError(ValueError):
    """A node that makes no quantiser, in words that follow its name."""


@dataclass(frozen=True, eq=False)
class Quantiser:
    """op, rounding: as in `Step`. params: as they broadcast against the tensor; thresholds and
    scales by channel already have the tensor's axes."""

    op: str
    params: tuple[np.ndarray, ...]
    rounding: str = "ROUND"

    def on(self, x: np.ndarray) -> np.ndarray:
        """The quantiser on an array of the tensor's shape."""
        step = Step("", self.op, self.params, "", np.zeros(0), rounding=self.rounding)
        return step.apply(x).astype(x.dtype)


def is_quantiser(node: onnx.NodeProto) -> bool:
    return node.domain in QUANT_DOMAINS and node.op_type in _INPUTS


def quantiser(node: onnx.NodeProto, values: Sequence[np.ndarray | None], rank: int) -> Quantiser:
    """The quantiser of a node whose inputs are `values` (the first may be None) on a tensor of
    `rank` axes. Raises QuantError."""
    count = _INPUTS[node.op_type]
    if len(values) != count or any(value is None for value in values[1:]):
        raise QuantError(f"needs {count} inputs, all but the first constants")
    parameters = [np.asarray(value) for value in values[1:]]
    for value in parameters:
        if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
            raise QuantError("has a parameter that is no finite number")
    options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "BipolarQuant":
        if (parameters[0] == 0).any():
            raise QuantError("has scale 0")
        return Quantiser("bipolar", (parameters[0],))
    if node.op_type == "MultiThreshold":
        return _multithreshold(parameters[0], options, rank)
    return _quant(parameters, options)


def _quant(parameters: list[np.ndarray], options: dict) -> Quantiser:
    scale, zero, width = parameters
    if (scale <= 0).any():
        raise QuantError(f"has scale {scale.min():g}; scales must be positive")
    if width.size != 1 or width.flat[0] != int(width.flat[0]):
        raise QuantError(f"has bit width {width.tolist()}; one whole number is needed")
    bits = int(width.flat[0])
    if not 1 <= bits <= _MOST_BITS:
        raise QuantError(f"has {bits} bits; 1 to {_MOST_BITS} are possible")
    signed, narrow = bool(options.get("signed", 1)), bool(options.get("narrow", 0))
    mode = options.get("rounding_mode", b"ROUND").decode().upper()
    if mode not in ROUNDINGS:
        raise QuantError(f"has rounding mode {mode!r}, not one of {', '.join(ROUNDINGS)}")
    if bits == 1 and signed:
        if zero.any():
            raise QuantError("has one signed bit and a zero point, which do not go together")
        return Quantiser("bipolar", (scale,))
    low = -(1 << (bits - 1)) + narrow if signed else 0
    high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1 - narrow
    if high <= low:
        raise QuantError(f"has one level only ({bits} bits, narrow)")
    limits = (np.asarray(float(low)), np.asarray(float(high)))
    return Quantiser("quant", (scale, zero.astype(scale.dtype), *limits), mode)


def _multithreshold(table: np.ndarray, options: dict, rank: int) -> Quantiser:
    if table.ndim != 2 or not table.size:
        raise QuantError(f"has thresholds of shape {list(table.shape)}, not (channels, levels)")
    layout = options.get("data_layout", b"NCHW").decode()
    if layout not in ("NC", "NCHW", "NCW", "NHWC", "NWC"):
        raise QuantError(f"has data_layout {layout!r}, not NC, NCHW or NHWC")
    axis = rank - 1 if layout.endswith("C") else 1
    if rank < 2:
        raise QuantError("needs values with a batch and a channel axis")
    scale, bias = (np.asarray(float(options.get(n, d))) for n, d in _AFFINE)
    if scale == 0 or not np.isfinite(scale) or not np.isfinite(bias):
        raise QuantError(f"has out_scale {scale:g} and out_bias {bias:g}")
    shape = [1] * rank
    shape[axis] = len(table)
    levels = [level.reshape(shape) for level in np.sort(table, axis=1).T]
    dtype = table.dtype if table.dtype.kind == "f" else np.dtype(np.float32)
    return Quantiser(
        "multithreshold",
        (scale.astype(dtype), bias.astype(dtype), *(level.astype(dtype) for level in levels)),
    )


_AFFINE = (("out_scale", 1.0), ("out_bias", 0.0))


# --- in standard ops ----------------------------------------------------------------------------


def standard(
    node: onnx.NodeProto, made: Quantiser, prefix: str, dtype: np.dtype
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Nodes and constants of standard ops, of any opset, that compute what the node does, bit for
    bit."""
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    element = helper.np_dtype_to_tensor_dtype(dtype)

    def constant(value: np.ndarray | float) -> str:
        array = np.asarray(value, dtype)
        name = f"{prefix}.c{len(constants)}"
        constants.append(onnx.numpy_helper.from_array(array, name))
        return name

    def put(op: str, *inputs: str, to: str = "", **options: object) -> str:
        name = to or f"{prefix}.{len(nodes)}"
        nodes.append(helper.make_node(op, list(inputs), [name], **options))
        return name

    def met(x: str, threshold: str) -> str:
        """1 where x >= threshold, else 0."""
        below = f"{prefix}.{len(nodes)}.below"
        nodes.append(helper.make_node("Cast", [put("Less", x, threshold)], [below], to=element))
        return put("Sub", constant(1), below)

    x, y = node.input[0], node.output[0]
    params = made.params
    if made.op == "bipolar":  # 2 * scale * (x >= 0) - scale
        twice = put("Mul", met(x, constant(0)), constant(2 * params[0]))
        put("Sub", twice, constant(params[0]), to=y)
    elif made.op == "multithreshold":
        counts = [met(x, constant(level)) for level in params[2:]]
        total = put("Sum", *counts)
        put("Add", put("Mul", total, constant(params[0])), constant(params[1]), to=y)
    else:
        scale, zero, low, high = params
        shifted = put("Add", put("Div", x, constant(scale)), constant(zero))
        clipped = put("Min", put("Max", shifted, constant(low)), constant(high))
        rounded = _ROUND[made.rounding](put, constant, clipped)
        put("Mul", put("Sub", rounded, constant(zero)), constant(scale), to=y)
    return nodes, constants


def _nearest(put: Callable, constant: Callable, x: str) -> str:
    return put("Round", x)


def _signed(op: str, shift: float) -> Callable:
    """sign(x) * op(|x| + shift)."""

    def build(put: Callable, constant: Callable, x: str) -> str:
        size = put("Abs", x)
        if shift:
            size = put("Add", size, constant(shift))
        return put("Mul", put("Sign", x), put(op, size))

    return build


_ROUND: dict[str, Callable] = {
    "ROUND": _nearest,
    "HALF_EVEN": _nearest,
    "CEIL": lambda put, constant, x: put("Ceil", x),
    "FLOOR": lambda put, constant, x: put("Floor", x),
    "UP": _signed("Ceil", 0.0),
    "DOWN": _signed("Floor", 0.0),
    "HALF_UP": _signed("Floor", 0.5),
    "HALF_DOWN": _signed("Ceil", -0.5),
}
