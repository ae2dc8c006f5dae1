# SPDX-License-Identifier: BSD-2-Clause
"""ONNX ops that end a classifier: soft-max, arg-max, top-k."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx

from xnorforge.gen.onnx_file import Tensor, attributes

if TYPE_CHECKING:
    from xnorforge.gen.onnx_import import Importer

__all__ = ["OPS"]


def _head(importer: Importer, node: onnx.NodeProto, source: Tensor) -> None:
    options, shape = attributes(node), source.order.shape
    opset = importer.file.opset
    soft = node.op_type in ("LogSoftmax", "Softmax")
    default = {"ArgMax": 0, "TopK": -1}.get(node.op_type, -1 if opset >= 13 else 1)
    axis = options.get("axis", default)
    length = shape[axis] if -len(shape) <= axis < len(shape) else 0
    if soft and opset < 13 and length:
        length = math.prod(shape[axis:])
    if length != source.order.size:
        raise importer.unsupported(node, f"the axis of the classes; {axis} of {list(shape)} is not")
    if soft:
        for name in node.output:
            importer.tensors[name] = dataclasses.replace(source, stage="final")
        return
    if (np.sort(source.order.reshape(-1)) != source.order.reshape(-1)).any():
        raise importer.unsupported(node, "the classes in the order of the last layer's outputs")
    tie = "last" if options.get("select_last_index", 0) else "first"
    chosen = np.arange(1)
    if node.op_type == "TopK":
        if not options.get("largest", 1):
            raise importer.unsupported(node, "the largest score first; this takes the smallest")
        count = options.get("k")
        count = int(importer.constant(node, 1).reshape(-1)[0]) if count is None else count
        if not 1 <= count <= length:
            raise importer.bad(node, f"takes {count} of {length} classes")
        chosen = np.arange(count)
    importer.heads.append((source.op, tie, node.output[-1]))
    for name in node.output:
        importer.tensors[name] = dataclasses.replace(
            source, order=chosen, dtype=np.dtype(np.int64), stage="label"
        )


OPS: dict[str, Callable] = dict.fromkeys(("ArgMax", "LogSoftmax", "Softmax", "TopK"), _head)
