# SPDX-License-Identifier: BSD-2-Clause
"""Every layer of a network against its source model, run by onnxruntime with all optimisations off.

What is compared: the input, each layer's dot products and the levels they give, pools, sums, the
scores and the labels; the first layer that differs is named. Tensors of the source that a layer
has no counterpart of (a max pool before its quantiser) are passed over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xnorforge.gen.errors import ModelError
from xnorforge.gen.graph import Graph, Node, Step
from xnorforge.gen.layers import Conv, Layer, Product
from xnorforge.gen.load import read_graph
from xnorforge.gen.lower import lower_with_checks
from xnorforge.gen.lower_values import Check
from xnorforge.gen.network import INPUT, Network
from xnorforge.gen.numpy_reference import Evaluation, evaluate
from xnorforge.gen.onnx_file import read
from xnorforge.gen.trace_source import run_source

__all__ = ["LayerTrace", "Trace", "trace"]


@dataclass(frozen=True)
class LayerTrace:
    """One comparison. kind: "input bits", "input values", "dots", "bits", "levels" (which of the
    quantiser's values), "values", "sums", "scores" or "labels".

    compared, differing: numbers of values. tolerance: 0 where the source holds the value
    exactly, else the largest gap taken for its rounding. largest_gap: largest
    |source - network| in the source's units. image, channel, source, network: the first value
    that differs; channel: of a map the element, in HWC order.
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
    lowering = lower_with_checks(
        graph, input_scale=input_scale, input_offset=input_offset, pixel=pixel
    )
    network = network or lowering.network
    shapes, expected = _shapes(network), _shapes(lowering.network)
    if shapes != expected:
        raise ModelError(f"{path}: has layers {expected}, the network has {shapes}")
    images = np.asarray(images)
    if not len(images):
        raise ModelError("trace needs at least one image")
    mine = evaluate(network, images)
    real = images.reshape(len(images), -1).astype(np.float64) * input_scale + input_offset
    feed = real.astype(graph.dtype)[:, graph.input_order]
    wanted = {check.op.tensor for check in lowering.checks} | ({graph.label_tensor} - {""})
    source = run_source(read(path), graph, feed, sorted(wanted))
    layers = list(_compare(graph, network, lowering.checks, mine, source))
    if graph.label_tensor:
        labels = source[graph.label_tensor][:, 0].astype(np.int64)
    else:
        labels = _labels(graph, _by_element(source, graph.ops[-1]))
    layers.append(_difference("head", "labels", graph.label_tensor, labels, mine.labels))
    return Trace(tuple(layers), mine.labels, labels)


def _shapes(network: Network) -> list[tuple]:
    """Of every layer what another network of the same source must have too."""
    return [
        (layer.rows, layer.columns) if isinstance(layer, Product) else (layer.output.shape)
        for layer in network.layers
    ]


def _labels(graph: Graph, scores: np.ndarray) -> np.ndarray:
    if graph.tie == "first":
        return scores.argmax(axis=1)
    return scores.shape[1] - 1 - scores[:, ::-1].argmax(axis=1)


def _compare(
    graph: Graph,
    network: Network,
    checks: tuple[Check, ...],
    mine: Evaluation,
    source: dict[str, np.ndarray],
) -> Iterator[LayerTrace]:
    index = {layer.name: i for i, layer in enumerate(network.layers)}
    for check in checks:
        theirs = _by_element(source, check.op)
        if check.pads is not None:
            theirs = _cropped(theirs.reshape(len(theirs), *check.op.shape), check.pads)
        if check.layer == INPUT:
            output = mine.input.reshape(len(mine.input), *network.input.value.shape)
        elif check.kind == "dots":
            output = mine.dots[index[check.layer]]
        else:
            output = mine.outputs[index[check.layer]]
        if check.table is not None:
            indices = _indices(check.table, theirs.reshape(output.shape))
            yield _difference(check.layer, check.kind, check.op.tensor, indices, output)
            continue
        layer = None if check.layer == INPUT else network.layers[index[check.layer]]
        if layer is not None and layer.output.kind == "bit" and check.kind != "dots":
            output = 2 * output.astype(np.int64) - 1
        values, tolerance = _values(graph, check, layer, output)
        yield _difference(check.layer, check.kind, check.op.tensor, theirs, values, tolerance)


def _indices(table: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which entry of a table (entries, channels) each value is; -1 where it is none."""
    result = np.full(values.shape, -1)
    for i in reversed(range(len(table))):
        result = np.where(values == table[i], i, result)
    return result


def _values(
    graph: Graph, check: Check, layer: Layer | None, output: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the source has by the check, from a layer's integers, and how near it must be."""
    real = check.real
    assert real is not None
    epsilon = 8 * float(np.finfo(graph.dtype).eps)
    signed = output if check.sign is None else check.sign * output
    if real.offset.ndim > 1:
        classes = np.zeros((), np.int64)
        if isinstance(layer, Conv) and len(real.offset) > 1:
            classes = np.array(layer.windows.border_rows)
        real = dataclasses.replace(real, offset=real.offset[classes])
    values = real.value(signed)
    tolerance = epsilon * real.terms
    rounded = not real.exact or any(step.tensor == check.op.tensor for step in check.steps[:-1])
    for step in check.steps:
        if not step.quantises and rounded:
            size = step.magnitude(values.astype(np.float64))
            size = np.broadcast_to(size, values.shape)
            rounding = epsilon * size.reshape(-1, size.shape[-1]).max(axis=0)
            tolerance = tolerance * step.gain() + rounding
        values = step.apply(values)
    tolerance = np.broadcast_to(tolerance, values.shape[1:])
    return values, tolerance.reshape(-1)


def _by_element(source: dict[str, np.ndarray], op: Step | Node) -> np.ndarray:
    """The source's result of an op, in the order of its value's elements."""
    values = source[op.tensor]
    result = np.empty_like(values)
    result[:, op.order] = values
    return result


def _cropped(maps: np.ndarray, pads: tuple[int, int, int, int]) -> np.ndarray:
    """Maps (N, H, W, C) without their padding, (N, elements)."""
    top, left, bottom, right = pads
    _, height, width, _ = maps.shape
    return maps[:, top : height - bottom, left : width - right].reshape(len(maps), -1)


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
