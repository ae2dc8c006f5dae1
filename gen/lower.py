# SPDX-License-Identifier: BSD-2-Clause
"""`Graph` -> `Network`: floats in, integers out, nothing approximated in the hidden layers.

A value of the source is `offset + slope * v` by channel, with v the integers the network carries.
A product with weights ±s is then `s * slope * dot + s * (weights . offset)` (see
`gen.lower_products`), and all that follows it up to the next quantiser is thresholds on `dot` (see
`gen.thresholds`). What a value is becomes known where it is used: see `gen.lower_values`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xnorforge.gen.errors import ModelError, UnsupportedOpError
from xnorforge.gen.graph import (
    SOURCE,
    Convolution,
    Dot,
    Graph,
    Join,
    Padding,
    Pooling,
    Step,
    Sum,
)
from xnorforge.gen.layers import Layer, Product
from xnorforge.gen.lower_head import lower_head
from xnorforge.gen.lower_joins import lower_join, lower_mean, lower_sum
from xnorforge.gen.lower_layers import emit_dots, flatten, settle
from xnorforge.gen.lower_products import lower_product
from xnorforge.gen.lower_values import (
    Check,
    Edge,
    Integers,
    PendingProduct,
    Pixels,
    Value,
    fit,
)
from xnorforge.gen.network import INPUT, Head, Input, Network

__all__ = ["Lowering", "lower", "lower_with_checks"]


@dataclass(frozen=True, eq=False)
class Lowering:
    """A network, and the tensors of the source that its values stand for, in order."""

    network: Network
    checks: tuple[Check, ...]


def lower(
    graph: Graph,
    *,
    input_scale: float = 1 / 255,
    input_offset: float = 0.0,
    pixel: str = "uint8",
) -> Network:
    """The integer network of a graph whose input is `input_scale * pixel + input_offset`.

    Raises ModelError or UnsupportedOpError naming the node that cannot be made integer.
    """
    return lower_with_checks(
        graph, input_scale=input_scale, input_offset=input_offset, pixel=pixel
    ).network


def lower_with_checks(
    graph: Graph, *, input_scale: float, input_offset: float, pixel: str
) -> Lowering:
    """`lower`, keeping what `gen.trace` needs to find every layer in the source."""
    return Lowerer(graph, input_scale, input_offset, pixel).run()


class Lowerer:
    """layers, notes, checks: what is made so far. values: of the graph's ops."""

    def __init__(self, graph: Graph, scale: float, offset: float, pixel: str) -> None:
        self.graph = graph
        self.given = scale, offset, pixel
        self.input: Input | None = None
        self.layers: list[Layer] = []
        self.notes: list[dict] = []
        self.checks: list[Check] = []
        self.counts: dict[str, int] = {}
        self.values = {SOURCE: Value(Pixels(), (), graph.value_shape)}
        self.uses = graph.uses()

    # --- names and layers ----------------------------------------------------------------------

    def name(self, kind: str) -> str:
        """The next free name: products share one count."""
        family = "product" if kind in ("dense", "conv") else kind
        number = self.counts.get(family, 0)
        self.counts[family] = number + 1
        return f"{kind}{number}"

    def inputs(self, *names: str) -> tuple[str, ...]:
        """What a new layer states as its inputs: nothing where it takes the layer before."""
        before = self.layers[-1].name if self.layers else INPUT
        return () if names == (before,) else names

    def add(self, layer: Layer, note: dict) -> None:
        self.layers.append(layer)
        self.notes.append({"name": layer.name, **note})

    # --- values --------------------------------------------------------------------------------

    def take(self, index: int) -> Value:
        """An op's result for a consumer. One with several consumers becomes a layer first."""
        value = self.values[index]
        if self.uses[index] > 1:
            value = self.values[index] = settle(self, value)
        return value

    def edge(self, index: int) -> tuple[Edge, Value]:
        """An op's result as integers with a slope and an offset by channel."""
        value = self.values[index] = settle(self, self.values[index])
        base, graph = value.base, self.graph
        assert isinstance(base, Integers)
        dtype = graph.dtype
        if base.table is None:
            slope, offset = base.real.slope, base.real.offset
            for step in value.steps:
                affine = step.affine()
                if affine is None:
                    raise UnsupportedOpError(
                        f"{graph.file}: {step.node} after {base.origin} reaches the next layer "
                        f"without being binarised; put BipolarQuant, Quant or Sign between them"
                    )
                slope, offset = slope * affine[0], offset * affine[0] + affine[1]
        else:
            table = base.table if base.table.dtype == bool else base.table.astype(dtype)
            with np.errstate(all="ignore"):
                for step in value.steps:
                    table = step.apply(table)
            if table.dtype == bool:
                node = value.steps[-1].node if value.steps else base.origin
                raise ModelError(f"{graph.file}: {node} feeds truth values into a product")
            table = np.broadcast_to(table, (len(table), base.type.channels))
            if not np.isfinite(table).all():
                raise ModelError(
                    f"{graph.file}: {value.steps[-1].node} gives values that are not finite"
                )
            slope, offset = fit(table, base.type, dtype, f"{graph.file}: {base.origin}")
        shape = (base.type.channels,)
        slope, offset = np.broadcast_to(slope, shape), np.broadcast_to(offset, shape)
        if not (np.isfinite(slope).all() and np.isfinite(offset).all()):
            raise ModelError(f"{graph.file}: the scale after {base.origin} is not finite")
        exact = base.real.exact and (base.table is not None or not value.steps)
        return Edge(base.name, base.type, slope, offset, base.origin, exact), value

    # --- the walk ------------------------------------------------------------------------------

    def run(self) -> Lowering:
        graph = self.graph
        if not any(isinstance(op, Dot | Convolution) for op in graph.ops):
            raise UnsupportedOpError(f"{graph.file}: has no MatMul or Gemm or Conv with weights")
        for index, op in enumerate(graph.ops):
            self.values[index] = self._op(op)
        head = self._end(self.values[len(graph.ops) - 1])
        assert self.input is not None
        scale, offset, _ = self.given
        network = Network(
            name=graph.name,
            input=self.input,
            layers=tuple(self.layers),
            head=head,
            source={
                "file": graph.file.replace("\\", "/").rsplit("/", 1)[-1],
                "format": graph.format,
                "input_scale": float(scale),
                "input_offset": float(offset),
                "layers": self.notes,
                "exactness": _statement(self.notes),
            },
        )
        return Lowering(network, tuple(self.checks))

    def _op(self, op: object) -> Value:
        match op:
            case Step():
                return self._step(op)
            case Pooling(kind="max"):
                value = self.take(op.sources[0])
                self._unpadded(op, value)
                return Value(value.base, (*value.ops, op), op.shape)
            case Pooling():
                self._unpadded(op, self.values[op.sources[0]])
                return lower_mean(self, op, *self.edge(op.sources[0]))
            case Padding():
                value = self.take(op.sources[0])
                self._unpadded(op, value)
                real = np.array([op.value], self.graph.dtype)
                return Value(value.base, value.ops, op.shape, (op.pads, real))
            case Sum():
                return lower_sum(self, op, [self._joined(op, i) for i in op.sources])
            case Join():
                return lower_join(self, op, [self._joined(op, i) for i in op.sources])
            case Dot() | Convolution():
                edge, value = self.edge(op.sources[0])
                self._quantised(op, edge)
                if isinstance(op, Dot):
                    self._unpadded(op, value)
                product = lower_product(self.graph.file, op, edge, value.padding, self.graph.dtype)
                return Value(product, (), op.shape)
        raise TypeError(f"No rule for {type(op).__name__}")

    def _quantised(self, op: Dot | Convolution, edge: Edge) -> None:
        before = next((layer for layer in self.layers if layer.name == edge.name), None)
        if isinstance(before, Product) and before.thresholds is None:
            raise UnsupportedOpError(
                f"{self.graph.file}: the values after {edge.origin} reach {op.node} without being "
                f"binarised; put BipolarQuant, Quant or Sign between them"
            )

    def _joined(self, op: Sum | Join, index: int) -> Edge:
        edge, value = self.edge(index)
        self._unpadded(op, value)
        return edge

    def _unpadded(self, op: object, value: Value) -> None:
        if value.padding is not None:
            raise UnsupportedOpError(
                f"{self.graph.file}: {op.node} follows a Pad; only a convolution can"  # type: ignore[attr-defined]
            )

    def _step(self, step: Step) -> Value:
        value = self.take(step.source)
        if len(value.shape) == 3 and len(step.shape) == 1 and not isinstance(value.base, Pixels):
            value = self._flat(step, value)
        padding = value.padding
        if padding is not None:
            with np.errstate(all="ignore"):
                padding = padding[0], step.apply(padding[1])
        return Value(value.base, (*value.ops, step), step.shape, padding)

    def _flat(self, step: Step, value: Value) -> Value:
        """A map as a vector, for steps that differ from pixel to pixel."""
        self._unpadded(step, value)
        value = settle(self, value)
        base = value.base
        assert isinstance(base, Integers)
        if value.ops:
            raise UnsupportedOpError(
                f"{self.graph.file}: {step.node} differs from pixel to pixel after {base.origin}, "
                f"which differs from channel to channel; give it one parameter a channel"
            )
        return Value(flatten(base), (), step.shape)

    def _end(self, value: Value) -> Head:
        last = self.graph.ops[-1]
        if any(isinstance(op, Pooling) for op in value.ops) or isinstance(value.base, Pixels):
            value = settle(self, value)
        self._unpadded(last, value)
        base, file = value.base, self.graph.file
        if int(np.prod(last.shape[:-1])) != 1:
            raise UnsupportedOpError(
                f"{file}: {last.node} gives a map of {' x '.join(map(str, last.shape))}; the "
                f"network must end in one vector of scores"
            )
        assert isinstance(base, Integers | PendingProduct)
        if isinstance(base, PendingProduct):
            node = base.node.node
        else:
            node = base.origin
            if base.type.kind != "int" or self.layers[-1].name != base.name:
                raise UnsupportedOpError(
                    f"{file}: {node} gives the scores as {base.type.kind}{base.type.bits}; the "
                    f"last product, sum or average must give them"
                )
        flipped, head, note = lower_head(self.graph, node, base, value.steps)
        if isinstance(base, PendingProduct):
            base = emit_dots(self, base, value.ops, flipped)
        self.notes[-1].update(note)
        self.checks = [check for check in self.checks if check.op.tensor != last.tensor]
        self.checks.append(Check(base.name, "scores", last, base.real, steps=tuple(value.steps)))
        return head


def _statement(notes: list[dict]) -> str:
    """What was proven, in words."""
    parts = ["thresholds equal the source's float formula at every reachable dot product"]
    near = {n["name"]: n["near_rounding"] for n in notes if n.get("near_rounding")}
    if near:
        parts.append(
            f"{sum(near.values())} rows of {', '.join(near)} have a dot product so near the "
            f"boundary that another order of float operations could decide it otherwise"
        )
    rounded = [note["name"] for note in notes if not note.get("dot_exact_in_source", True)]
    if rounded:
        parts.append(
            f"the source rounds its own dot products in {', '.join(rounded)}, where this network "
            f"takes the exact ones"
        )
    return "; ".join([*parts, notes[-1]["head"]])
