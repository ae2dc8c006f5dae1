# SPDX-License-Identifier: BSD-2-Clause
"""Binary network → QONNX.

    image [1, C, H, W] in [0, 1] → · 2 - 1 → BipolarQuant       (pixels "bits")
                                  → · 510 - 255                 (pixels "bytes")
        → Conv(BipolarQuant(weights)) → MaxPool → BatchNormalization → BipolarQuant → ...
        → Flatten → MatMul(BipolarQuant(weights)) → BatchNormalization → BipolarQuant → ...
        → MatMul(BipolarQuant(weights)) → · gain + offset → scores [1, classes]

`BipolarQuant` is QONNX's op (domain qonnx.custom_op.general). The file also carries its meaning
as an ONNX function, so that runtimes without QONNX, such as onnxruntime, run it as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from xnorforge.sw.errors import TrainingError
from xnorforge.sw.train.layers import BinaryNetwork, Product

__all__ = ["QONNX_DOMAIN", "to_qonnx"]

QONNX_DOMAIN = "qonnx.custom_op.general"
OPSET = 13
IR_VERSION = 8  # the first with functions
PIXEL_SCALE = {"bits": (2.0, 1.0), "bytes": (510.0, 255.0)}  # factor, then what is subtracted


def to_qonnx(
    network: BinaryNetwork, *, name: str, metadata: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """The network as it evaluates: checked, with shapes inferred, without time stamps.

    Its input is pixels divided by 255. Raises TrainingError for a float twin.
    """
    recipe = network.recipe
    if not recipe.binary:
        raise TrainingError(
            f"Recipe {recipe.name!r} is a float twin, for comparison only; no circuit is made of it"
        )
    height, width, channels = recipe.image
    graph = _Graph("image")
    if network.products[0].latent.ndim == 2:
        graph.flatten()
    gain, offset = PIXEL_SCALE[recipe.pixels]
    graph.node("Mul", "scaled", graph.constant("input_gain", gain))
    graph.node("Sub", "centred", graph.constant("input_offset", offset))
    if recipe.pixels == "bits":
        graph.quantise("input_bits")
    for index, product in enumerate(network.products):
        layer = graph.product(index, product)
        if index < len(network.norms):
            graph.norm(f"norm_{index}", network.norms[index])
            graph.quantise(f"{layer}_bits")
    largest = 255 if recipe.pixels == "bytes" and not network.norms else 1
    highest = network.products[-1].columns * largest
    gain, offset = network.head.affine()
    gain, offset = _exact(gain, offset, highest=highest)
    graph.node("Mul", "gained", graph.constant("gain", gain))
    graph.node("Add", "scores", graph.constant("offset", offset))
    image, scores = [1, channels, height, width], [1, recipe.classes]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, scores)],
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
    """A chain of nodes, with its constants in the order they are made; `x` is the last output."""

    def __init__(self, x: str) -> None:
        self.x = x
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.flat = False

    def node(self, op: str, output: str, *inputs: str, **attributes: object) -> None:
        self._put(op, [self.x, *inputs], output, "", **attributes)
        self.x = output

    def constant(self, name: str, value: object) -> str:
        # A copy, since numpy_helper keeps C order only for contiguous arrays.
        self.constants.append(numpy_helper.from_array(np.array(value, np.float32, order="C"), name))
        return name

    def flatten(self) -> None:
        """From here on a vector; nothing where it is one."""
        if not self.flat:
            self.node("Flatten", "flat", axis=1)
            self.flat = True

    def product(self, index: int, product: Product) -> str:
        """Dense layer or convolution with its pool; returns what its names begin with."""
        signs = np.where(product.latent.detach().numpy() >= 0, 1.0, -1.0)
        dense = signs.ndim == 2
        layer = f"{'dense' if dense else 'conv'}_{index}"
        if dense:
            self.flatten()
        weights = self.constant(f"{layer}_weight", signs.T if dense else signs)
        weights = self._quantised(weights, f"{layer}_sign")
        self.node("MatMul" if dense else "Conv", f"{layer}_dot", weights)
        if product.pool > 1:
            size = [product.pool] * 2
            self.node("MaxPool", f"{layer}_pool", kernel_shape=size, strides=size)
        return layer

    def norm(self, name: str, norm: nn.Module) -> None:
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
        self.node("BatchNormalization", name, *inputs, epsilon=norm.eps)

    def quantise(self, output: str) -> None:
        self.x = self._quantised(self.x, output)

    def _quantised(self, x: str, output: str) -> str:
        if not any(tensor.name == "one" for tensor in self.constants):
            self.constant("one", 1.0)
        self._put("BipolarQuant", [x, "one"], output, QONNX_DOMAIN)
        return output

    def _put(
        self, op: str, inputs: list[str], output: str, domain: str, /, **attributes: object
    ) -> None:
        self.nodes.append(
            helper.make_node(op, inputs, [output], name=output, domain=domain, **attributes)
        )


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
