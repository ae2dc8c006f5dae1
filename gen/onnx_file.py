# SPDX-License-Identifier: BSD-2-Clause
"""Reading an ONNX file: is it one, is it whole, in which order do its nodes run.

Also computes nodes whose inputs are all constants, by ONNX's own reference evaluator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.helper import tensor_dtype_to_np_dtype
from onnx.reference import ReferenceEvaluator

from xnorforge.gen.errors import ModelError, UnsupportedOpError
from xnorforge.gen.onnx_quant import QUANT_DOMAINS

__all__ = [
    "VIEWS",
    "OnnxFile",
    "Tensor",
    "attributes",
    "fold",
    "image_input",
    "label",
    "read",
    "rearrange",
]

OLDEST_OPSET = 7
VIEWS = ("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_STANDARD_DOMAINS = ("", "ai.onnx")
_NOT_FOLDABLE = ("If", "Loop", "Scan", "RandomNormal", "RandomUniform", "Bernoulli")


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A parsed model: constants by name, nodes in an order they can run in."""

    path: str
    model: onnx.ModelProto
    opset: int
    constants: dict[str, np.ndarray]
    inputs: list[onnx.ValueInfoProto]
    nodes: list[onnx.NodeProto]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor that depends on the image: its elements are elements `order` of the result of
    op `op` of the graph. stage: "value", "final" after a soft-max, "label" after the arg-max."""

    op: int
    order: np.ndarray
    dtype: np.dtype
    stage: str = "value"


def label(node: onnx.NodeProto) -> str:
    """How messages name a node: its op and its name, or its output where it has none."""
    name = node.name or f"giving {', '.join(node.output)}"
    return f"{node.op_type} {name!r}"


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The node's attributes as Python values (strings decoded)."""
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def read(path: str | Path) -> OnnxFile:
    """Parse and check the file. Raises ModelError naming the file and what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        what = "this is a folder" if path.is_dir() else "no such file"
        raise ModelError(f"{path}: {what}; name the model's .onnx file")
    if path.stat().st_size == 0:
        raise ModelError(f"{path}: the file is empty; export the model again")
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's, onnx's and the file system's own kinds
        raise ModelError(
            f"{path}: not an ONNX model, or cut off ({_short(error)}); export it again"
        ) from error
    if not model.HasField("graph") or not model.graph.node:
        raise ModelError(f"{path}: holds no ONNX graph; it is not an ONNX model, or is cut off")
    opset = next((o.version for o in model.opset_import if o.domain in _STANDARD_DOMAINS), 0)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= opset <= newest:
        raise ModelError(
            f"{path}: opset {opset} is outside {OLDEST_OPSET}..{newest}; "
            f"export with opset_version=13"
        )
    graph = model.graph
    if graph.sparse_initializer:
        raise ModelError(f"{path}: sparse initializers are not supported; store them dense")
    constants = {t.name: _array(path, t) for t in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    nodes = _sorted(path, graph, {*constants, *(value.name for value in inputs)})
    _check(path, nodes, opset, model.ir_version)
    return OnnxFile(str(path), model, opset, constants, inputs, nodes)


def _short(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__


def _array(path: Path, tensor: onnx.TensorProto) -> np.ndarray:
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{path}: tensor {tensor.name!r} of shape {list(tensor.dims)} cannot be read "
            f"({_short(error)})"
        ) from error


def _check(path: Path, nodes: list[onnx.NodeProto], opset: int, ir_version: int) -> None:
    """Number of inputs and outputs, and kinds of attributes, of the standard ops."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version, context.opset_imports = ir_version, {"": opset}
    for node in nodes:
        _check_numbers(path, node)
        whole = len(node.input) == 2 and all(node.input) and len(node.output) == 1
        if node.domain in QUANT_DOMAINS and node.op_type == "BipolarQuant" and not whole:
            raise ModelError(f"{path}: {label(node)} needs a value, a scale and one output")
        if node.domain not in _STANDARD_DOMAINS:
            continue
        try:
            onnx.checker.check_node(node, context)
        except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
            if "No Op registered" in str(error):
                raise UnsupportedOpError(
                    f"{path}: {label(node)} is no op of opset {opset}; check its domain"
                ) from error
            raise ModelError(f"{path}: {label(node)} is malformed ({_short(error)})") from error


def _check_numbers(path: Path, node: onnx.NodeProto) -> None:
    """Attributes must be finite. Values of constants are looked at where they are used."""
    if node.op_type == "Constant":
        return
    for attribute in node.attribute:
        bad = [x for x in (attribute.f, *attribute.floats) if not math.isfinite(x)]
        if bad:
            raise ModelError(
                f"{path}: {label(node)}: attribute {attribute.name!r} is {bad[0]}; every "
                f"parameter must be finite"
            )


def _sorted(path: Path, graph: onnx.GraphProto, known: set[str]) -> list[onnx.NodeProto]:
    """Topological order of the nodes the outputs need; cycles and dangling inputs are errors."""
    producer: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        for name in node.output:
            if name and (name in producer or name in known):
                raise ModelError(f"{path}: tensor {name!r} is produced twice, by {label(node)} too")
            producer[name] = node
    for node in graph.node:
        for name in node.input:
            if name and name not in known and name not in producer:
                raise ModelError(f"{path}: {label(node)} takes {name!r}, which nothing produces")
    if not graph.output:
        raise ModelError(f"{path}: the graph has no output")
    order: list[onnx.NodeProto] = []
    state: dict[int, str] = {}
    stack = [(value.name, False) for value in reversed(graph.output)]
    for name, _ in stack:
        if name not in producer and name not in known:
            raise ModelError(f"{path}: output {name!r} is produced by nothing")
    while stack:
        name, leaving = stack.pop()
        if name not in producer:
            continue
        node = producer[name]
        if leaving:
            state[id(node)] = "done"
            order.append(node)
        elif id(node) not in state:
            state[id(node)] = "open"
            stack.append((name, True))
            for source in node.input:
                if source in producer and state.get(id(producer[source])) == "open":
                    raise ModelError(f"{path}: the graph has a cycle through {label(node)}")
                stack.append((source, False))
    return order


def image_input(
    file: OnnxFile, value: onnx.ValueInfoProto, layout: str
) -> tuple[tuple[int, ...], tuple[int, ...], np.ndarray, np.dtype]:
    """The model input's shape, that of an image (height, width, channels, or a vector), the order
    of the input's elements in the image, and their type."""
    what = f"{file.path}: input {value.name!r}"
    tensor = value.type.tensor_type
    if not tensor.HasField("shape") or tensor.elem_type == onnx.TensorProto.UNDEFINED:
        raise ModelError(f"{what} has no shape or type; export the model with static shapes")
    dtype = np.dtype(tensor_dtype_to_np_dtype(tensor.elem_type))
    if dtype not in (np.float16, np.float32, np.float64):
        raise UnsupportedOpError(f"{what} is {dtype}; floating point inputs are supported")
    dims = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
    dims = [1 if i == 0 and d <= 0 else d for i, d in enumerate(dims)]
    if len(dims) > 1 and dims[0] != 1:
        raise ModelError(f"{what} has a batch of {dims[0]}; export with batch 1 or dynamic")
    if any(d <= 0 for d in dims) or math.prod(dims) < 2:
        raise ModelError(f"{what} has shape {dims}; every axis but the batch must be static")
    shape = tuple(dims)
    size = math.prod(shape)
    if len(shape) != 4:
        inner = shape[1:] if len(shape) > 1 else shape
        return shape, (*inner, 1) if len(inner) == 2 else (size,), np.arange(size), dtype
    first, last = shape[1] in (1, 3, 4), shape[3] in (1, 3, 4)
    channels_last = {"nchw": False, "nhwc": True, "auto": last and not first}.get(layout)
    if channels_last is None:
        raise ModelError(f"layout must be 'auto', 'nchw' or 'nhwc', not {layout!r}")
    if channels_last:
        return shape, shape[1:], np.arange(size), dtype
    _, c, h, w = shape
    order = np.arange(size).reshape(h, w, c).transpose(2, 0, 1)
    return shape, (h, w, c), order.reshape(-1), dtype


def rearrange(
    file: OnnxFile, node: onnx.NodeProto, array: np.ndarray, second: np.ndarray | None
) -> np.ndarray:
    """What one of `VIEWS` does to the elements of an array; `second` is its second input."""
    options = attributes(node)
    try:
        match node.op_type:
            case "Transpose":
                return array.transpose(options.get("perm"))
            case "Flatten":
                axis = options.get("axis", 1)
                axis += array.ndim if axis < 0 else 0
                return array.reshape(math.prod(array.shape[:axis]), -1)
            case "Reshape":
                if second is None:
                    raise ValueError("no shape is given")
                dims = [int(d) for d in second]
                if not options.get("allowzero", 0):
                    dims = [array.shape[i] if d == 0 else d for i, d in enumerate(dims)]
                return array.reshape(dims)
            case "Squeeze" | "Unsqueeze":
                axes = options.get("axes")
                if axes is None and second is not None:
                    axes = second.reshape(-1).tolist()
                if node.op_type == "Squeeze":
                    return np.squeeze(array, axis=None if axes is None else tuple(axes))
                return np.expand_dims(array, tuple(axes or ()))
            case _:
                return array
    except (ValueError, IndexError) as error:
        raise ModelError(
            f"{file.path}: {label(node)} does not fit its input of shape {list(array.shape)} "
            f"({_short(error)})"
        ) from error


def fold(file: OnnxFile, node: onnx.NodeProto, values: Sequence[np.ndarray | None]) -> list[Any]:
    """The outputs of a node whose inputs are all constants."""
    if node.domain not in _STANDARD_DOMAINS or node.op_type in _NOT_FOLDABLE:
        raise UnsupportedOpError(
            f"{file.path}: {label(node)} (domain {node.domain!r}) on constants is not supported; "
            f"weights are quantised by BipolarQuant, Quant or Sign, or stored as multiples of s"
        )
    if node.op_type in VIEWS and values[0] is not None:
        return [rearrange(file, node, values[0], values[1] if len(values) > 1 else None)]
    if node.op_type == "Constant":
        tensor = attributes(node)
        if "value" in tensor:
            return [_array(Path(file.path), tensor["value"])]
    feeds = {name: value for name, value in zip(node.input, values, strict=True) if name}
    try:
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(node, opsets={"": file.opset})
            results = evaluator.run(None, feeds)
    except Exception as error:  # the evaluator raises whatever NumPy or the op raises
        raise ModelError(
            f"{file.path}: {label(node)} cannot be computed from its constants ({_short(error)})"
        ) from error
    return [np.asarray(value) for value in results]
