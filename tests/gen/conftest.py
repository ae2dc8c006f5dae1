# SPDX-License-Identifier: BSD-2-Clause
"""A builder of small ONNX models: a chain of nodes, each taking the result of the one before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

QONNX = "qonnx.custom_op.general"


class Chain:
    """`Chain([1, 784]).node("MatMul", X, w)`: X stands for the result so far."""

    X = object()

    def __init__(self, shape: list, *, opset: int = 13, dtype: type = np.float32) -> None:
        self.opset, self.dtype = opset, np.dtype(dtype)
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.last = "image"
        self.extra_inputs: list[onnx.ValueInfoProto] = []

    def constant(self, value: object) -> str:
        array = np.asarray(value)
        if array.dtype.kind == "f" or not isinstance(value, np.ndarray):
            array = array.astype(self.dtype)
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(
        self, op: str, *inputs: object, domain: str = "", outputs: int = 1, **options
    ) -> Chain:
        """Append a node; inputs are X, names (str), None (left out) or constants."""
        inputs = inputs or (self.X,)
        names = []
        for value in inputs:
            if value is self.X:
                names.append(self.last)
            elif value is None or isinstance(value, str):
                names.append(value or "")
            else:
                names.append(self.constant(value))
        results = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, results, name, domain=domain, **options))
        self.last = results[0]
        return self

    def bipolar(self, scale: object = 1.0, domain: str = QONNX) -> Chain:
        return self.node("BipolarQuant", self.X, np.asarray(scale, self.dtype), domain=domain)

    def binary_input(self) -> Chain:
        """The zoo's: pixels in [0, 1], doubled, less one, binarised."""
        return self.node("Mul", self.X, 2.0).node("Sub", self.X, 1.0).bipolar()

    def batchnorm(self, gamma, beta, mean, variance, epsilon: float = 1e-5) -> Chain:
        params = [np.asarray(p, self.dtype) for p in (gamma, beta, mean, variance)]
        return self.node("BatchNormalization", self.X, *params, epsilon=epsilon)

    def quant(
        self,
        scale: object,
        bits: int,
        *,
        signed: int = 1,
        narrow: int = 0,
        zero: float = 0.0,
        **options,
    ) -> Chain:
        """QONNX's Quant."""
        parameters = [np.asarray(value, self.dtype) for value in (scale, zero, float(bits))]
        return self.node(
            "Quant", self.X, *parameters, domain=QONNX, signed=signed, narrow=narrow, **options
        )

    def model(self) -> onnx.ModelProto:
        element = helper.np_dtype_to_tensor_dtype(self.dtype)
        graph = helper.make_graph(
            self.nodes,
            "chain",
            [helper.make_tensor_value_info("image", element, self.shape), *self.extra_inputs],
            [helper.make_tensor_value_info(self.last, TensorProto.UNDEFINED, None)],
            self.constants,
        )
        versions = [helper.make_opsetid("", self.opset), helper.make_opsetid(QONNX, 1)]
        return helper.make_model(graph, opset_imports=versions, ir_version=8)

    def save(self, path: Path) -> Path:
        path.write_bytes(self.model().SerializeToString())
        return path


@pytest.fixture(scope="session")
def chain() -> Callable[..., Chain]:
    return Chain
