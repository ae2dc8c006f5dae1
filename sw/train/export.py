# SPDX-License-Identifier: BSD-2-Clause
"""Binary network → QONNX.

    image [1, 1, 28, 28] in [0, 1] → Flatten → · 2 - 1 → BipolarQuant
        → MatMul(BipolarQuant(weights)) → BatchNormalization → BipolarQuant → ...
        → MatMul(BipolarQuant(weights)) → · gain + offset → scores [1, classes]

`BipolarQuant` is QONNX's op (domain qonnx.custom_op.general). The file also carries its meaning
as an ONNX function, so that runtimes without QONNX, such as onnxruntime, run it as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from xnorforge.sw.errors import TrainingError
from xnorforge.sw.train.layers import BinaryNetwork

__all__ = ["QONNX_DOMAIN", "to_qonnx"]

QONNX_DOMAIN = "qonnx.custom_op.general"
OPSET = 13
IR_VERSION = 8  # the first with functions


def to_qonnx(
    network: BinaryNetwork,
    *,
    name: str,
    image_shape: Sequence[int],
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """The network as it evaluates: checked, with shapes inferred, without time stamps.

    image_shape: of one image, e.g. (1, 28, 28); its elements are divided by 255 by the caller.
    """
    columns = network.dense[0].latent.shape[1]
    if math.prod(image_shape) != columns:
        raise TrainingError(
            f"Network {name!r} takes {columns} inputs, which images of shape "
            f"{tuple(image_shape)} do not have"
        )
    graph = _Graph()
    x = graph.node("Flatten", ["image"], "flat", axis=1)
    x = graph.node("Mul", [x, graph.constant("input_gain", 2.0)], "scaled")
    x = graph.node("Sub", [x, graph.constant("input_offset", 1.0)], "centred")
    x = graph.quantise(x, "input_bits")
    for index, dense in enumerate(network.dense):
        layer = f"dense_{index}"
        signs = np.where(dense.latent.detach().numpy() >= 0, 1.0, -1.0).T
        weights = graph.quantise(graph.constant(f"{layer}_weight", signs), f"{layer}_sign")
        x = graph.node("MatMul", [x, weights], f"{layer}_dot")
        if index < len(network.norms):
            x = graph.norm(x, f"norm_{index}", network.norms[index])
            x = graph.quantise(x, f"{layer}_bits")
    gain, offset = network.head.affine()
    gain, offset = _exact(gain, offset, highest=network.dense[-1].latent.shape[1])
    x = graph.node("Mul", [x, graph.constant("gain", gain)], "gained")
    graph.node("Add", [x, graph.constant("offset", offset)], "scores")
    classes = network.dense[-1].latent.shape[0]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, *image_shape])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, classes])],
            graph.constants,
        ),
        producer_name="xnorforge",
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(QONNX_DOMAIN, 1)],
        functions=[_bipolar_quant()],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(model, dict(sorted((metadata or {}).items())))
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and constants in the order they are made; every method returns its output's name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(
        self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: object
    ) -> str:
        self.nodes.append(
            helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes)
        )
        return output

    def constant(self, name: str, value: object) -> str:
        # A copy, since numpy_helper keeps C order only for contiguous arrays.
        self.constants.append(numpy_helper.from_array(np.array(value, np.float32, order="C"), name))
        return name

    def quantise(self, x: str, output: str) -> str:
        if not any(tensor.name == "one" for tensor in self.constants):
            self.constant("one", 1.0)
        return self.node("BipolarQuant", [x, "one"], output, QONNX_DOMAIN)

    def norm(self, x: str, name: str, norm: nn.BatchNorm1d) -> str:
        parameters = {
            "gamma": norm.weight,
            "beta": norm.bias,
            "mean": norm.running_mean,
            "variance": norm.running_var,
        }
        inputs = [
            self.constant(f"{name}_{part}", value.detach().numpy())
            for part, value in parameters.items()
        ]
        return self.node("BatchNormalization", [x, *inputs], name, epsilon=norm.eps)


def _exact(gain: float, offset: float, highest: int) -> tuple[float, float]:
    """The affine on so coarse a grid that float32 computes it exactly for all |score| <= highest.

    Without this, a runtime that fuses multiply and add in some vector lanes but not in others
    gives equal scores different values, and a tie another label.
    """
    span = math.ceil(math.log2(highest + abs(offset) / gain + 1))
    bits = min(10, 23 - span)
    if bits < 1:
        raise TrainingError(
            f"The last norm's offset {offset:g} is too large beside its gain {gain:g} to export"
        )
    step = 2.0 ** (math.frexp(gain)[1] - bits)
    return round(gain / step) * step, round(offset / step) * step


def _bipolar_quant() -> onnx.FunctionProto:
    """`y = scale where x >= 0, else -scale`."""
    nodes = [
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Less", ["x", "zero"], ["negative"]),
        helper.make_node("Neg", ["scale"], ["minus"]),
        helper.make_node("Where", ["negative", "minus", "scale"], ["y"]),
    ]
    return helper.make_function(
        QONNX_DOMAIN, "BipolarQuant", ["x", "scale"], ["y"], nodes, [helper.make_opsetid("", OPSET)]
    )
