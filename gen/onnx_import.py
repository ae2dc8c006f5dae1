# SPDX-License-Identifier: BSD-2-Clause
"""ONNX, QONNX and FINN-dialect files of quantised networks -> `Graph`.

A computed tensor is followed as the order of its elements: which element of the current value
(an HWC map or a vector) each one is. Reshapes, transposes and flattenings only rearrange that
order, so they cost nothing and cannot be got wrong; a layer starts a new value. The families of
ops are in `onnx_steps`, `onnx_products`, `onnx_pools` and `onnx_head`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from xnorforge.gen import onnx_head, onnx_pools, onnx_products, onnx_steps
from xnorforge.gen.errors import ModelError, UnsupportedOpError
from xnorforge.gen.graph import SOURCE, Graph, Node, Step
from xnorforge.gen.onnx_file import (
    VIEWS,
    OnnxFile,
    Tensor,
    attributes,
    fold,
    image_input,
    label,
    read,
    rearrange,
)
from xnorforge.gen.onnx_quant import (
    QUANT_DOMAINS,
    QuantError,
    Quantiser,
    is_quantiser,
    quantiser,
)

__all__ = ["Importer", "import_onnx"]

_NEEDS = {
    "ConvTranspose": "transposed convolutions, which are not built here",
    "If": "a model without control flow; export it again in inference mode",
    "Loop": "a model without control flow; export it again in inference mode",
    "Slice": "parts of a value, which are not built here",
    "Split": "parts of a value, which are not built here",
    "Trunc": "a Quant in its place: truncated averages are not built here",
}
_UNKNOWN = "an op this version does not know"


def import_onnx(path: str | Path, *, layout: str = "auto") -> Graph:
    """Read a quantised ONNX or QONNX network.

    layout: "nchw" or "nhwc" says how a four-dimensional input is laid out; "auto" takes NHWC
        where only the last axis is 1, 3 or 4 long.
    Raises ModelError (bad file, bad numbers) or UnsupportedOpError (node, op, what it needs).
    """
    return Importer(read(path), layout).run()


class Importer:
    """What the families of ops work on. ops: the graph so far. tensors: what is computed.
    constants: what is known. heads: arg-max nodes as (op, tie rule, tensor)."""

    def __init__(self, file: OnnxFile, layout: str) -> None:
        self.file = file
        self.layout = layout
        self.constants: dict[str, np.ndarray] = dict(file.constants)
        self.tensors: dict[str, Tensor] = {}
        self.ops: list[Step | Node] = []
        self.heads: list[tuple[int, str, str]] = []
        self.quantisers: dict[str, Quantiser] = {}
        self.value_shape: tuple[int, ...] = ()

    def run(self) -> Graph:
        if len(self.file.inputs) != 1:
            names = [value.name for value in self.file.inputs]
            raise ModelError(
                f"{self.file.path}: needs exactly one input, has {len(names)}: {names}"
            )
        value = self.file.inputs[0]
        shape, self.value_shape, order, dtype = image_input(self.file, value, self.layout)
        self.tensors[value.name] = Tensor(SOURCE, order.reshape(shape), dtype)
        for node in self.file.nodes:
            self._node(node)
        self._check_end(value.name)
        domains = {node.domain for node in self.file.nodes}
        return Graph(
            name=Path(self.file.path).stem,
            file=self.file.path,
            format="QONNX" if domains & set(QUANT_DOMAINS) else "ONNX",
            input_name=value.name,
            input_shape=shape,
            value_shape=self.value_shape,
            input_order=order.reshape(-1),
            dtype=dtype,
            ops=tuple(self.ops),
            tie=self.heads[0][1] if self.heads else "first",
            label_tensor=self.heads[0][2] if self.heads else "",
            quantisers=self.quantisers,
        )

    def _check_end(self, input_name: str) -> None:
        """All outputs must come from one last op, and all arg-max nodes take its scores."""
        outputs = [v.name for v in self.file.model.graph.output if v.name in self.tensors]
        if not outputs:
            raise ModelError(f"{self.file.path}: no output depends on the input {input_name!r}")
        last = len(self.ops) - 1
        taken = {source for op in self.ops for source in op.sources}
        loose = [i for i in range(len(self.ops) - 1) if i not in taken]
        if loose or last not in {self.tensors[name].op for name in outputs}:
            what = f" {self.ops[loose[0]].node} ends a path of its own." if loose else ""
            raise ModelError(
                f"{self.file.path}: the outputs {outputs} leave out the last layer.{what}".rstrip(
                    "."
                )
            )
        if any(op != last for op, _, _ in self.heads):
            raise ModelError(f"{self.file.path}: an arg-max takes other scores than the output's")
        if len({tie for _, tie, _ in self.heads}) > 1:
            raise ModelError(f"{self.file.path}: two arg-max nodes with different tie rules")

    # --- nodes --------------------------------------------------------------------------------

    def _node(self, node: onnx.NodeProto) -> None:
        dynamic = [name for name in node.input if name in self.tensors]
        if not dynamic:
            self._fold(node)
            return
        kind, source = node.op_type, self.tensors[dynamic[0]]
        if kind == "Shape":
            self._shape(node)
            return
        several = len(dynamic) > 1
        if several and kind not in onnx_pools.JOINS:
            raise self.unsupported(node, "one computed tensor; two computed tensors meet here")
        if source.stage == "label" and kind not in (*VIEWS, "Cast"):
            raise self.unsupported(node, "nothing may follow the arg-max")
        if kind in VIEWS or (kind == "Cast" and source.stage == "label"):
            self._view(node, source)
            return
        handler = onnx_head.OPS.get(kind)
        if handler is None and source.stage == "final":
            raise self.unsupported(node, "only an arg-max may follow the soft-max")
        if is_quantiser(node):
            self._quantise(node, source)
            return
        if node.domain not in ("", "ai.onnx"):
            raise self.unsupported(node, _NEEDS.get(kind, _UNKNOWN))
        if several:
            handler = onnx_pools.JOINS[kind]
        for family in (onnx_products.OPS, onnx_pools.OPS, onnx_steps.OPS):
            handler = handler or family.get(kind)
        if handler is None:
            raise self.unsupported(node, _NEEDS.get(kind, _UNKNOWN))
        if source.dtype == bool and kind not in ("Where", "Not", "Cast"):
            raise self.unsupported(node, "its truth values cast to a float type first")
        handler(self, node, source)

    def _fold(self, node: onnx.NodeProto) -> None:
        values = [self.constants[name] if name else None for name in node.input]
        if is_quantiser(node) and values and values[0] is not None:
            made = self._quantiser(node, values[0].ndim)
            results: list[Any] = [made.on(values[0])]
        else:
            results = fold(self.file, node, values)
        self.constants.update(zip(node.output, results, strict=False))

    def _quantiser(self, node: onnx.NodeProto, rank: int) -> Quantiser:
        values = [None, *(self.constant(node, i) for i in range(1, len(node.input)))]
        try:
            made = quantiser(node, values, rank)
        except QuantError as error:
            raise ModelError(f"{self.file.path}: {label(node)} {error}") from None
        self.quantisers[node.output[0]] = made
        return made

    def _quantise(self, node: onnx.NodeProto, source: Tensor) -> None:
        made = self._quantiser(node, source.order.ndim)
        params = [param.astype(source.dtype) for param in made.params]
        self.tensors[node.output[0]] = self.step(
            node, source, made.op, *params, rounding=made.rounding
        )

    def _shape(self, node: onnx.NodeProto) -> None:
        options = attributes(node)
        shape = self.tensors[node.input[0]].order.shape
        part = shape[options.get("start", 0) : options.get("end")]
        self.constants[node.output[0]] = np.array(part, dtype=np.int64)

    def _view(self, node: onnx.NodeProto, source: Tensor) -> None:
        second = self.constant(node, 1) if len(node.input) > 1 and node.input[1] else None
        order = rearrange(self.file, node, source.order, second)
        self.tensors[node.output[0]] = dataclasses.replace(source, order=order)

    # --- for the families of ops ---------------------------------------------------------------

    def unsupported(self, node: onnx.NodeProto, needs: str) -> UnsupportedOpError:
        domain = f" of domain {node.domain!r}" if node.domain else ""
        return UnsupportedOpError(
            f"{self.file.path}: {label(node)}{domain} is not supported: it needs {needs}"
        )

    def bad(self, node: onnx.NodeProto, text: str) -> ModelError:
        return ModelError(f"{self.file.path}: {label(node)} {text}")

    def constant(self, node: onnx.NodeProto, index: int, default: object = None) -> np.ndarray:
        """Input `index` of the node, which must be a constant with finite values."""
        if index >= len(node.input) or not node.input[index]:
            if default is None:
                raise self.bad(node, f"lacks its input {index}")
            return np.asarray(default)
        name = node.input[index]
        if name not in self.constants:
            raise self.unsupported(node, f"input {index} ({name!r}) to be a constant")
        value = self.constants[name]
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            bad = value.reshape(-1)[~np.isfinite(value.reshape(-1))][0]
            raise ModelError(
                f"{self.file.path}: {label(node)}: parameter {name!r} holds {bad}; "
                f"every parameter must be finite"
            )
        return value

    def shape(self, op: int) -> tuple[int, ...]:
        """Of an op's result, or of the input."""
        return self.value_shape if op == SOURCE else self.ops[op].shape

    def add(self, op: Step | Node) -> int:
        self.ops.append(op)
        return len(self.ops) - 1

    def step(
        self,
        node: onnx.NodeProto,
        source: Tensor,
        op: str,
        *values: object,
        rounding: str = "ROUND",
    ) -> Tensor:
        """Add a step whose parameters are given as they broadcast against the tensor."""
        return onnx_steps.append(self, node, source, op, *values, rounding=rounding)

    def map_of(self, node: onnx.NodeProto, source: Tensor) -> tuple[int, int, int]:
        """Height, width and channels of a tensor with axes batch, channels, height, width."""
        order = source.order
        if order.ndim != 4 or order.shape[0] != 1:
            raise self.unsupported(
                node, f"a map with axes batch 1, channels, height, width, not {list(order.shape)}"
            )
        _, c, h, w = order.shape
        wanted = np.arange(h * w * c).reshape(h, w, c).transpose(2, 0, 1)
        if (order[0] != wanted).any() or not self._takes_shape(source.op, (h, w, c)):
            raise self.unsupported(
                node,
                f"its map {list(order.shape)} in the order channels, height, width; the value "
                f"before is {list(self.shape(source.op))} (height, width, channels): check the "
                f"transposes, or the layout of the input",
            )
        return h, w, c

    def _takes_shape(self, op: int, shape: tuple[int, ...]) -> bool:
        """Whether a value has this shape, or can be read so: the input, steps on it included."""
        have, chain = self.shape(op), []
        if have == shape:
            return True
        while op != SOURCE:
            step = self.ops[op]
            if not isinstance(step, Step) or any(p.ndim for p in step.params):
                return False
            chain.append(op)
            op = step.source
        self.value_shape = shape
        for op in chain:
            self.ops[op] = dataclasses.replace(self.ops[op], shape=shape)
        return True


Handler = Callable[[Importer, onnx.NodeProto, Tensor], None]
