# SPDX-License-Identifier: BSD-2-Clause
"""Every layer of a network against its source model, run by onnxruntime with all optimisations off.

The source runs in a copy whose BipolarQuant nodes are written in standard ops and whose every
tensor is an output. What is compared: the input bits, each layer's dot products and bits, the
scores and the labels; the first layer that differs is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from xnorforge.gen.errors import ModelError
from xnorforge.gen.extras import extra_packages
from xnorforge.gen.graph import Dot, Graph, Step
from xnorforge.gen.load import read_graph
from xnorforge.gen.lower import LayerMap, lower_with_maps
from xnorforge.gen.network import Network
from xnorforge.gen.numpy_reference import Evaluation, evaluate
from xnorforge.gen.onnx_file import QUANT_DOMAINS, OnnxFile, read

__all__ = ["LayerTrace", "Trace", "trace"]


@dataclass(frozen=True)
class LayerTrace:
    """One comparison. kind: "input bits", "dots", "bits", "scores" or "labels".

    compared, differing: numbers of values. tolerance: 0 where the source holds the value
    exactly, else the largest gap taken for its rounding. largest_gap: largest
    |source - network| in the source's units. image, channel, source, network: the first value
    that differs.
    """

    layer: str
    kind: str
    tensor: str
    compared: int
    differing: int
    tolerance: float
    largest_gap: float
    image: int | None = None
    channel: int | None = None
    source: float | None = None
    network: float | None = None

    @property
    def equal(self) -> bool:
        return not self.differing

    def __str__(self) -> str:
        if not self.differing:
            how = f"within {self.largest_gap:.3g}, rounding" if self.largest_gap else "equal"
            return f"{self.layer} {self.kind}: all {self.compared} {how}"
        return (
            f"{self.layer} {self.kind}: {self.differing} of {self.compared} differ, first in image "
            f"{self.image}, channel {self.channel}: source {self.source:g}, "
            f"network {self.network:g} (tensor {self.tensor!r})"
        )


@dataclass(frozen=True, eq=False)
class Trace:
    """All comparisons, in the order of the data, and the labels of both sides."""

    layers: tuple[LayerTrace, ...]
    labels: np.ndarray
    source_labels: np.ndarray

    @property
    def first_difference(self) -> LayerTrace | None:
        return next((layer for layer in self.layers if not layer.equal), None)

    @property
    def equal(self) -> bool:
        return self.first_difference is None

    def __str__(self) -> str:
        return "\n".join(map(str, self.layers))


def trace(
    path: str | Path,
    images: np.ndarray,
    *,
    input_scale: float = 1 / 255,
    input_offset: float = 0.0,
    pixel: str = "uint8",
    layout: str = "auto",
    network: Network | None = None,
) -> Trace:
    """Compare a network with the model file it came from, on images as `Input.quantise` takes.

    network: the one to check; by default it is loaded from the file with the same options.
    Raises ModelError where the two do not have the same layers, ToolError without onnxruntime.
    """
    graph = read_graph(path, layout=layout)
    lowering = lower_with_maps(
        graph, input_scale=input_scale, input_offset=input_offset, pixel=pixel
    )
    network = network or lowering.network
    shapes = [(layer.rows, layer.columns) for layer in network.layers]
    expected = [(layer.rows, layer.columns) for layer in lowering.network.layers]
    if shapes != expected:
        raise ModelError(f"{path}: has layers {expected}, the network has {shapes}")
    images = np.asarray(images)
    if not len(images):
        raise ModelError("trace needs at least one image")
    mine = evaluate(network, images)
    real = images.reshape(len(images), -1).astype(np.float64) * input_scale + input_offset
    feed = real.astype(graph.dtype)[:, graph.input_order]
    wanted = _wanted(lowering.maps, graph)
    source = _run_source(read(path), graph, feed, wanted)
    layers = list(_compare(graph, network, lowering.maps, mine, source))
    if graph.label_tensor:
        labels = source[graph.label_tensor][:, 0].astype(np.int64)
    else:
        last = graph.ops[-1]
        labels = _labels(graph, _by_channel(source, last))
    layers.append(_difference("head", "labels", graph.label_tensor, labels, mine.labels))
    return Trace(tuple(layers), mine.labels, labels)


def _labels(graph: Graph, scores: np.ndarray) -> np.ndarray:
    if graph.tie == "first":
        return scores.argmax(axis=1)
    return scores.shape[1] - 1 - scores[:, ::-1].argmax(axis=1)


def _compare(
    graph: Graph,
    network: Network,
    maps: tuple[LayerMap, ...],
    mine: Evaluation,
    source: dict[str, np.ndarray],
) -> Iterator[LayerTrace]:
    if maps[0].cut:
        step = maps[0].steps[maps[0].cut - 1]
        bits = _by_channel(source, step) == maps[0].one
        yield _difference("input", "input bits", step.tensor, bits, mine.input)
    epsilon = 8 * float(np.finfo(graph.dtype).eps)
    for layer, map_, dots, output in zip(
        network.layers, maps[1:], mine.dots, mine.outputs, strict=True
    ):
        assert map_.dot is not None and map_.real is not None
        values = map_.real.value(map_.sign * dots)
        # Gemm adds its bias inside: its result is the product after some of the steps.
        fused = sum(step.tensor == map_.dot.tensor for step in map_.steps)
        tolerance = epsilon * map_.real.terms
        for i, step in enumerate(map_.steps[: map_.cut or None]):
            if i == fused:
                theirs = _by_channel(source, map_.dot)
                yield _difference(layer.name, "dots", map_.dot.tensor, theirs, values, tolerance)
            if not step.quantises and (fused or not map_.real.exact):
                rounding = epsilon * step.magnitude(values.astype(np.float64)).max(axis=0)
                tolerance = tolerance * step.gain() + rounding
            values = step.apply(values)
        last = map_.steps[map_.cut - 1] if map_.steps else map_.dot
        theirs = _by_channel(source, last)
        if isinstance(last, Step) and map_.cut:
            bits = theirs == map_.one
            yield _difference(layer.name, "bits", last.tensor, bits, output)
        else:
            yield _difference(layer.name, "scores", last.tensor, theirs, values, tolerance)


def _by_channel(source: dict[str, np.ndarray], op: Step | Dot) -> np.ndarray:
    """The source's result of an op, in channel order."""
    values = source[op.tensor]
    result = np.empty_like(values)
    result[:, op.order] = values
    return result


def _difference(
    layer: str,
    kind: str,
    tensor: str,
    source: np.ndarray,
    network: np.ndarray,
    tolerance: np.ndarray | float = 0.0,
) -> LayerTrace:
    source = source.astype(np.float64).reshape(len(source), -1)
    network = network.astype(np.float64).reshape(source.shape)
    gap = abs(source - network)
    wrong = ~(gap <= tolerance)
    counts = source.size, int(wrong.sum()), float(np.max(tolerance)), float(gap.max(initial=0))
    if not wrong.any():
        return LayerTrace(layer, kind, tensor, *counts)
    image, channel = (int(i) for i in np.argwhere(wrong)[0])
    return LayerTrace(
        layer,
        kind,
        tensor,
        *counts,
        image,
        channel,
        float(source[image, channel]),
        float(network[image, channel]),
    )


# --- the source -------------------------------------------------------------------------------


def _wanted(maps: tuple[LayerMap, ...], graph: Graph) -> list[str]:
    names = {op.tensor for map_ in maps for op in (*map_.steps, map_.dot) if op is not None}
    return sorted(names | ({graph.label_tensor} - {""}))


def _run_source(
    file: OnnxFile, graph: Graph, feed: np.ndarray, wanted: list[str]
) -> dict[str, np.ndarray]:
    """The source's tensors, each (N, elements) in C order of one image's tensor."""
    with extra_packages():
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = _standard(file, graph, wanted).SerializeToString()
    try:
        runtime = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        rows = [
            runtime.run(wanted, {graph.input_name: image.reshape(graph.input_shape)})
            for image in feed
        ]
    except Exception as error:  # onnxruntime raises kinds of its own
        raise ModelError(f"{file.path}: onnxruntime cannot run it ({error})") from error
    return {
        name: np.stack([np.asarray(row[i]).reshape(-1) for row in rows])
        for i, name in enumerate(wanted)
    }


def _standard(file: OnnxFile, graph: Graph, wanted: list[str]) -> onnx.ModelProto:
    """A copy in standard ops only, with the wanted tensors as outputs."""
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    for field in (model.graph.node, model.graph.output, model.graph.value_info):
        del field[:]
    element = helper.np_dtype_to_tensor_dtype(graph.dtype)
    zero, two = "trace.zero", "trace.two"
    for name, value in ((zero, 0.0), (two, 2.0)):
        model.graph.initializer.append(helper.make_tensor(name, element, [], [value]))
    for i, node in enumerate(file.nodes):
        if node.domain not in QUANT_DOMAINS or node.op_type != "BipolarQuant":
            model.graph.node.append(node)
            continue
        (x, scale), y, t = node.input, node.output[0], f"trace.{i}"
        model.graph.node.extend(  # scale - 2 * scale * (x < 0): exact, and old opsets have it
            [
                helper.make_node("Less", [x, zero], [f"{t}.negative"]),
                helper.make_node("Cast", [f"{t}.negative"], [f"{t}.one"], to=element),
                helper.make_node("Mul", [scale, two], [f"{t}.twice"]),
                helper.make_node("Mul", [f"{t}.one", f"{t}.twice"], [f"{t}.step"]),
                helper.make_node("Sub", [scale, f"{t}.step"], [y]),
            ]
        )
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    return model
