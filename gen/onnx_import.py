# SPDX-License-Identifier: BSD-2-Clause
"""ONNX and QONNX files of dense binary networks -> `Graph`.

A computed tensor is followed as the order of its elements: which channel of the current vector
each element is. Reshapes, transposes and flattenings only rearrange that order, so they cost
nothing and cannot be got wrong; a product with constants starts a new vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx.helper import tensor_dtype_to_np_dtype

from xnorforge.gen.errors import ModelError, UnsupportedOpError
from xnorforge.gen.graph import Dot, Graph, Step
from xnorforge.gen.onnx_file import (
    QUANT_DOMAINS,
    VIEWS,
    OnnxFile,
    attributes,
    fold,
    image_input,
    label,
    read,
    rearrange,
)

__all__ = ["import_onnx"]

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
_NEEDS = {
    "Conv": "convolution layers, which this version does not build",
    "MaxPool": "pooling layers, which this version does not build",
    "AveragePool": "pooling layers, which this version does not build",
    "Quant": "activations or weights of more than one bit; use BipolarQuant",
    "MultiThreshold": "banks of thresholds; use BipolarQuant or Sign",
    "Concat": "joining of vectors, which this version does not build",
    "If": "a model without control flow; export it again in inference mode",
    "Loop": "a model without control flow; export it again in inference mode",
}


@dataclass(frozen=True)
class _Computed:
    """A tensor that depends on the image: after `position` ops, elements are channels `order`.

    stage: "value" in the chain, "final" after a soft-max, "label" after the arg-max.
    """

    position: int
    order: np.ndarray
    dtype: np.dtype
    stage: str = "value"


def import_onnx(path: str | Path, *, layout: str = "auto") -> Graph:
    """Read a dense ONNX or QONNX network.

    layout: "nchw" or "nhwc" says how a four-dimensional input is laid out; "auto" takes NHWC
        where only the last axis is 1, 3 or 4 long.
    Raises ModelError (bad file, bad numbers) or UnsupportedOpError (node, op, what it needs).
    """
    return _Importer(read(path), layout).run()


class _Importer:
    def __init__(self, file: OnnxFile, layout: str) -> None:
        self.file = file
        self.layout = layout
        self.constants = dict(file.constants)
        self.computed: dict[str, _Computed] = {}
        self.ops: list[Step | Dot] = []
        self.heads: list[tuple[str, str]] = []

    def run(self) -> Graph:
        if len(self.file.inputs) != 1:
            names = [value.name for value in self.file.inputs]
            raise ModelError(
                f"{self.file.path}: needs exactly one input, has {len(names)}: {names}"
            )
        value = self.file.inputs[0]
        shape, value_shape, order, dtype = image_input(self.file, value, self.layout)
        self.computed[value.name] = _Computed(0, order.reshape(shape), dtype)
        for node in self.file.nodes:
            self._node(node)
        outputs = [v.name for v in self.file.model.graph.output if v.name in self.computed]
        if not outputs:
            raise ModelError(f"{self.file.path}: no output depends on the input {value.name!r}")
        reached = max(self.computed[name].position for name in outputs)
        if reached < len(self.ops):
            raise ModelError(f"{self.file.path}: the outputs {outputs} leave out the last layer")
        rules = {tie for tie, _ in self.heads}
        if len(rules) > 1:
            raise ModelError(f"{self.file.path}: two arg-max nodes with different tie rules")
        domains = {node.domain for node in self.file.nodes}
        return Graph(
            name=Path(self.file.path).stem,
            file=self.file.path,
            format="QONNX" if domains & set(QUANT_DOMAINS) else "ONNX",
            input_name=value.name,
            input_shape=shape,
            value_shape=value_shape,
            input_order=order.reshape(-1),
            dtype=dtype,
            ops=tuple(self.ops),
            tie=self.heads[0][0] if self.heads else "first",
            label_tensor=self.heads[0][1] if self.heads else "",
        )

    # --- nodes --------------------------------------------------------------------------------

    def _node(self, node: onnx.NodeProto) -> None:
        dynamic = [name for name in node.input if name in self.computed]
        if not dynamic:
            values = [self.constants[name] if name else None for name in node.input]
            results = fold(self.file, node, values)
            self.constants.update(zip(node.output, results, strict=False))
            return
        if node.op_type == "Shape":
            self._shape(node)
            return
        if len(set(dynamic)) > 1:
            raise self._unsupported(
                node, "two computed tensors at once (a residual or joined path), not built here"
            )
        source = self.computed[dynamic[0]]
        if source.stage == "label" and node.op_type not in (*VIEWS, "Cast"):
            raise self._unsupported(node, "nothing may follow the arg-max")
        if node.op_type in VIEWS or (node.op_type == "Cast" and source.stage == "label"):
            self._view(node, source)
        elif node.op_type in ("ArgMax", "LogSoftmax", "Softmax", "TopK"):
            self._head(node, source)
        elif source.stage == "final":
            raise self._unsupported(node, "only an arg-max may follow the soft-max")
        elif source.position != len(self.ops):
            raise self._unsupported(node, "a value used by two layers (a branch), not built here")
        elif node.op_type in ("Gemm", "MatMul"):
            self._dot(node, source)
        else:
            self._step(node, source)

    def _unsupported(self, node: onnx.NodeProto, needs: str) -> UnsupportedOpError:
        domain = f" of domain {node.domain!r}" if node.domain else ""
        return UnsupportedOpError(
            f"{self.file.path}: {label(node)}{domain} is not supported: it needs {needs}"
        )

    def _constant(self, node: onnx.NodeProto, index: int, default: object = None) -> np.ndarray:
        """Input `index` of the node, which must be a constant with finite values."""
        if index >= len(node.input) or not node.input[index]:
            if default is None:
                raise ModelError(f"{self.file.path}: {label(node)} lacks its input {index}")
            return np.asarray(default)
        name = node.input[index]
        if name not in self.constants:
            raise self._unsupported(node, f"input {index} ({name!r}) to be a constant")
        value = self.constants[name]
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            bad = value.reshape(-1)[~np.isfinite(value.reshape(-1))][0]
            raise ModelError(
                f"{self.file.path}: {label(node)}: parameter {name!r} holds {bad}; "
                f"every parameter must be finite"
            )
        return value

    def _shape(self, node: onnx.NodeProto) -> None:
        options = attributes(node)
        shape = self.computed[node.input[0]].order.shape
        part = shape[options.get("start", 0) : options.get("end")]
        self.constants[node.output[0]] = np.array(part, dtype=np.int64)

    def _view(self, node: onnx.NodeProto, source: _Computed) -> None:
        second = self._constant(node, 1) if len(node.input) > 1 and node.input[1] else None
        order = rearrange(self.file, node, source.order, second)
        self.computed[node.output[0]] = _Computed(
            source.position, order, source.dtype, source.stage
        )

    def _dot(self, node: onnx.NodeProto, source: _Computed) -> None:
        options = attributes(node)
        on_left = node.input[0] in self.computed
        matrix = self._constant(node, 1 if on_left else 0)
        x, gemm = source.order, node.op_type == "Gemm"
        if gemm and options.get("transA" if on_left else "transB", 0):
            x = x.T
        if gemm and options.get("transB" if on_left else "transA", 0):
            matrix = matrix.T
        matrix = matrix.reshape(matrix.shape[-2:]) if matrix.ndim > 2 else matrix
        if matrix.ndim != 2:
            raise self._unsupported(node, f"a weight matrix; its constant is {matrix.shape}")
        weights = matrix.T if on_left else matrix
        length = x.shape[-1] if on_left else x.shape[-2] if x.ndim > 1 else x.shape[0]
        if length != weights.shape[1]:
            raise ModelError(
                f"{self.file.path}: {label(node)} multiplies {list(x.shape)} with weights "
                f"{list(matrix.shape)}: {length} inputs do not meet {weights.shape[1]} columns"
            )
        if x.size != length:
            raise self._unsupported(node, f"one vector an image; its input is {list(x.shape)}")
        columns = np.empty_like(weights)
        columns[:, x.reshape(-1)] = weights
        rows = len(weights)
        if on_left:
            shape: tuple[int, ...] = (*x.shape[:-1], rows)
        else:
            shape = (*x.shape[:-2], rows, 1) if x.ndim > 1 else (rows,)
        order = np.arange(rows)
        self.ops.append(Dot(label(node), columns, node.output[0], order))
        result = _Computed(len(self.ops), order.reshape(shape), source.dtype)
        if gemm:
            alpha, beta = options.get("alpha", 1.0), options.get("beta", 1.0)
            result = self._append(node, result, "mul", alpha) if alpha != 1 else result
            if len(node.input) > 2 and node.input[2]:
                bias = self._constant(node, 2)
                bias = bias * np.asarray(beta, bias.dtype)
                result = self._append(node, result, "add", bias)
        self.computed[node.output[0]] = result

    def _append(
        self, node: onnx.NodeProto, source: _Computed, op: str, *values: object
    ) -> _Computed:
        """Add a step whose parameters are given as they broadcast against the tensor."""
        shape, dtype = source.order.shape, source.dtype
        params = []
        for value in values:
            array = np.asarray(value)
            array = array if isinstance(value, np.ndarray) else array.astype(dtype)
            if array.dtype != dtype and op not in ("cast", "where"):
                raise ModelError(
                    f"{self.file.path}: {label(node)} mixes {dtype} values with "
                    f"{array.dtype} constants"
                )
            try:
                shape = np.broadcast_shapes(shape, array.shape)
            except ValueError as error:
                raise ModelError(
                    f"{self.file.path}: {label(node)}: constants of shape {list(array.shape)} do "
                    f"not fit values of shape {list(source.order.shape)}"
                ) from error
            params.append(array)
        if math.prod(shape) != source.order.size:
            raise self._unsupported(
                node, f"a vector to grow to shape {list(shape)} by broadcasting"
            )
        order = source.order.reshape(shape)
        self.ops.append(
            Step(
                label(node),
                op,
                tuple(_per_channel(array, order) for array in params),
                node.output[0],
                order.reshape(-1),
            )
        )
        result_dtype = dtype
        if op in _MIRRORED or op == "not":
            result_dtype = np.dtype(bool)
        elif op in ("cast", "where"):
            result_dtype = params[0].dtype
        return _Computed(len(self.ops), order, result_dtype)

    def _step(self, node: onnx.NodeProto, source: _Computed) -> None:
        first = node.input[0] in self.computed
        kind, options = node.op_type, attributes(node)
        custom = node.domain in QUANT_DOMAINS
        logical = kind in ("Where", "Not", "Cast")
        if (node.domain and not custom) or (custom and kind != "BipolarQuant"):
            raise self._unsupported(node, _NEEDS.get(kind, "an op this version does not know"))
        if source.dtype == bool and not logical:
            raise self._unsupported(node, "its truth values cast to a float type first")

        def put(op: str, *values: object) -> None:
            self.computed[node.output[0]] = self._append(node, source, op, *values)

        match kind:
            case "Add" | "Mul" | "Sub" | "Div":
                value = self._constant(node, 1 if first else 0)
                if kind == "Div" and not first:
                    raise self._unsupported(node, "a constant divisor; 1/x is no threshold")
                if kind == "Div" and (value == 0).any():
                    raise ModelError(f"{self.file.path}: {label(node)} divides by zero")
                put("rsub" if kind == "Sub" and not first else kind.lower(), value)
            case "Neg" | "Sign" | "Not":
                put(kind.lower())
            case "BipolarQuant":
                scale = self._constant(node, 1)
                if (scale == 0).any():
                    raise ModelError(f"{self.file.path}: {label(node)} has scale 0")
                put("bipolar", scale)
            case "BatchNormalization":
                self._batchnorm(node, source, options)
            case "Clip" | "Max" | "Min" | "Relu":
                self._clip(node, source, options, first)
            case "PRelu" | "LeakyRelu":
                leaky = kind == "LeakyRelu"
                slope = options.get("alpha", 0.01) if leaky else self._constant(node, 1)
                if (np.asarray(slope) < 0).any():
                    raise self._unsupported(
                        node, f"slopes of at least 0; {np.min(slope)} is not monotone"
                    )
                put("prelu", slope)
            case "Cast":
                target = np.dtype(tensor_dtype_to_np_dtype(options["to"]))
                if target.kind != "f":
                    raise self._unsupported(node, f"a float type; {target} rounds the values")
                put("cast", np.zeros((), target))
            case "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual":
                op = _COMPARISONS[kind]
                put(op if first else _MIRRORED[op], self._constant(node, 1 if first else 0))
            case "Where":
                put("where", self._constant(node, 1), self._constant(node, 2))
            case _:
                raise self._unsupported(node, _NEEDS.get(kind, "an op this version does not know"))

    def _batchnorm(self, node: onnx.NodeProto, source: _Computed, options: dict) -> None:
        if options.get("training_mode", 0) or any(node.output[1:]):
            raise self._unsupported(node, "inference mode; export the model after model.eval()")
        shape = source.order.shape
        axes = (1, -1) + (1,) * (len(shape) - 2)
        values = [self._constant(node, i) for i in range(1, 5)]
        epsilon = options.get("epsilon", 1e-5)
        for name, value in zip(("gamma", "beta", "mean", "variance"), values, strict=True):
            if len(shape) < 2 or value.shape != (shape[1],):
                raise ModelError(
                    f"{self.file.path}: {label(node)}: {name} has shape {list(value.shape)} for "
                    f"values of shape {list(shape)}"
                )
        if (values[3] + epsilon <= 0).any():
            raise ModelError(
                f"{self.file.path}: {label(node)}: variance {values[3].min()} is negative"
            )
        shaped = [value.reshape(axes) for value in values]
        self.computed[node.output[0]] = self._append(node, source, "batchnorm", *shaped, epsilon)

    def _clip(self, node: onnx.NodeProto, source: _Computed, options: dict, first: bool) -> None:
        limits = np.finfo(source.dtype)
        low, high = np.asarray(limits.min), np.asarray(limits.max)
        if node.op_type == "Relu":
            low = np.zeros((), source.dtype)
        elif node.op_type == "Clip":
            low = self._constant(node, 1, options.get("min", low)).astype(source.dtype)
            high = self._constant(node, 2, options.get("max", high)).astype(source.dtype)
        elif len(node.input) != 2:
            raise self._unsupported(node, "one constant beside the values")
        else:
            bound = self._constant(node, 1 if first else 0)
            low, high = (bound, high) if node.op_type == "Max" else (low, bound)
        if (low > high).any():
            raise ModelError(f"{self.file.path}: {label(node)} clips to [{low}, {high}]")
        self.computed[node.output[0]] = self._append(node, source, "clip", low, high)

    def _head(self, node: onnx.NodeProto, source: _Computed) -> None:
        options, shape = attributes(node), source.order.shape
        soft = node.op_type in ("LogSoftmax", "Softmax")
        if source.position != len(self.ops):
            raise self._unsupported(node, "the scores of the last layer")
        default = {"ArgMax": 0, "TopK": -1}.get(node.op_type, -1 if self.file.opset >= 13 else 1)
        axis = options.get("axis", default)
        length = shape[axis] if -len(shape) <= axis < len(shape) else 0
        if soft and self.file.opset < 13 and length:
            length = math.prod(shape[axis:])
        if length != source.order.size:
            raise self._unsupported(
                node, f"the axis of the classes; {axis} of {list(shape)} is not"
            )
        if soft:
            for name in node.output:
                self.computed[name] = _Computed(
                    source.position, source.order, source.dtype, "final"
                )
            return
        tie = "last" if options.get("select_last_index", 0) else "first"
        if node.op_type == "TopK":
            if not options.get("largest", 1):
                raise self._unsupported(node, "the largest score first; this takes the smallest")
            count = options.get("k")
            count = int(self._constant(node, 1).reshape(-1)[0]) if count is None else count
            if not 1 <= count <= length:
                raise ModelError(
                    f"{self.file.path}: {label(node)} takes {count} of {length} classes"
                )
            chosen = np.arange(count)
        else:
            chosen = np.arange(1)
        self.heads.append((tie, node.output[-1]))
        for name in node.output:
            self.computed[name] = _Computed(source.position, chosen, np.dtype(np.int64), "label")


def _per_channel(array: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Broadcast values in tensor order -> values by channel, or shape () where all are equal."""
    flat = np.broadcast_to(array, order.shape).reshape(-1)
    if flat.size and (flat == flat[0]).all():
        return flat[0].reshape(())
    result = np.empty_like(flat)
    result[order.reshape(-1)] = flat
    return result
