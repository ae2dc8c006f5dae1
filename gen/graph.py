# SPDX-License-Identifier: BSD-2-Clause
"""The graph an importer makes: float parameters and the conventions of the source, nothing lowered.

    input -> steps -> product -> steps -> pool -> steps -> product -> ... -> steps -> arg-max

An op takes the results of earlier ones by index, -1 being the input. Values are HWC maps or
vectors; how the source arranges them is in `order`, element by element. A `Step` (see `gen.steps`)
is one of the source's operations on single elements, kept in the source's order so that its
rounding can be repeated exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from xnorforge.gen.onnx_quant import Quantiser
from xnorforge.gen.steps import Step
from xnorforge.hw.geometry import Window

__all__ = [
    "SOURCE",
    "Convolution",
    "Dot",
    "Graph",
    "Join",
    "Node",
    "Padding",
    "Pooling",
    "Step",
    "Sum",
]

SOURCE = -1  # index of the graph's input


@dataclass(frozen=True, eq=False)
class Node:
    """What all ops but steps have in common.

    node: how messages name it. sources: indices of the ops whose results it takes. shape: HWC or
    (K,) of its result. tensor: the source's name of the result; element i of it (C order) is
    element `order[i]` of the value.
    """

    node: str
    sources: tuple[int, ...]
    shape: tuple[int, ...]
    tensor: str
    order: np.ndarray


@dataclass(frozen=True, eq=False)
class Dot(Node):
    """A product with a constant matrix.

    weights: (rows, columns) floats as the source multiplies them; column k meets element k of the
        value before.
    """

    weights: np.ndarray


@dataclass(frozen=True, eq=False)
class Convolution(Node):
    """A convolution with constants.

    weights: (rows, kernel height, kernel width, channels / groups) floats. The window's padding
        is of real 0, unless a `Padding` comes before.
    """

    weights: np.ndarray
    window: Window
    groups: int


@dataclass(frozen=True, eq=False)
class Pooling(Node):
    """kind: "max" (padding takes no part), "mean" or "sum" of the pixels under each window."""

    window: Window
    kind: str


@dataclass(frozen=True, eq=False)
class Padding(Node):
    """Rows and columns of a constant around a map. pads: top, left, bottom, right."""

    pads: tuple[int, int, int, int]
    value: float


@dataclass(frozen=True, eq=False)
class Sum(Node):
    """The sum of values of one shape. signs: +1 or -1 for each."""

    signs: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Join(Node):
    """Channels side by side."""


@dataclass(frozen=True, eq=False)
class Graph:
    """What an importer hands to lowering.

    file: the path as the user gave it, for messages. input_shape: the source's, batch included.
    value_shape: HWC of an image, or (K,). input_order: element i of the source's input (C order)
    is element `input_order[i]` of the image in `value_shape` order. dtype: of the source's floats.
    tie: rule of the final arg-max. label_tensor: the source's name of its result, or "" where the
    source stops at scores, which are the result of the last op. quantisers: by the name of what
    they give, the quantising nodes of other domains than ONNX's own, weights included.
    """

    name: str
    file: str
    format: str
    input_name: str
    input_shape: tuple[int, ...]
    value_shape: tuple[int, ...]
    input_order: np.ndarray
    dtype: np.dtype
    ops: tuple[Step | Node, ...]
    tie: str
    label_tensor: str
    quantisers: dict[str, Quantiser] = field(default_factory=dict)

    def uses(self) -> list[int]:
        """How often each op's result is taken, the result of the network included; last, the
        input's."""
        counts = [0] * (len(self.ops) + 1)
        for op in self.ops:
            for source in op.sources:
                counts[source] += 1
        counts[len(self.ops) - 1] += 1
        return counts
