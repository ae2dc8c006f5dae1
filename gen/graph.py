# SPDX-License-Identifier: BSD-2-Clause
"""The graph an importer makes: float parameters and the conventions of the source, nothing lowered.

    input -> steps -> Dot -> steps -> Dot -> ... -> steps -> arg-max

A `Dot` is a matrix of floats as the source has it; a `Step` is one of the source's operations on
single elements, kept in the source's order so that its rounding can be repeated exactly. Each is
weakly monotone in float arithmetic too (IEEE rounding is), which is what makes the search for a
threshold exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Dot", "Graph", "Step"]

_QUANTISERS = ("bipolar", "greater", "greater_equal", "less", "less_equal", "sign")
_COMPARE = {
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
}


@dataclass(frozen=True, eq=False)
class Step:
    """One operation on every element of a vector.

    op: "add" x+c, "sub" x-c, "rsub" c-x, "mul" x*c, "div" x/c, "neg", "clip" (low, high),
        "prelu" (slope), "cast", "batchnorm" (gamma, beta, mean, variance, epsilon, evaluated in
        onnxruntime's order), "sign" (0 gives 0), "bipolar" (scale; 0 gives +scale), the four
        comparisons with c, "not", "where" (value if true, value if false).
    params: float arrays, each of shape () or (channels,).
    tensor: the source's name of the result; element i of it (C order) is channel `order[i]`.
    """

    node: str
    op: str
    params: tuple[np.ndarray, ...]
    tensor: str
    order: np.ndarray

    @property
    def quantises(self) -> bool:
        """Whether the result takes two (or, for "sign" at zero, three) values only."""
        return self.op in _QUANTISERS

    def apply(self, x: np.ndarray, *, wide: bool = False) -> np.ndarray:
        """The step on (..., channels) in x's own precision; `wide` ignores casts."""
        p = [q.astype(x.dtype) for q in self.params] if x.dtype != bool else list(self.params)
        match self.op:
            case "add":
                return x + p[0]
            case "sub":
                return x - p[0]
            case "rsub":
                return p[0] - x
            case "mul":
                return x * p[0]
            case "div":
                return x / p[0]
            case "neg":
                return -x
            case "clip":
                return np.minimum(np.maximum(x, p[0]), p[1])
            case "prelu":
                return np.where(x < 0, x * p[0], x)
            case "cast":
                return x if wide and x.dtype != bool else x.astype(self.params[0].dtype)
            case "batchnorm":
                scale, shift = _batchnorm(p)
                return x * scale + shift
            case "sign":
                return np.sign(x)
            case "bipolar":
                return np.where(x >= 0, p[0], -p[0])
            case "not":
                return ~x
            case "where":
                return np.where(x, p[0], p[1])
            case _:
                return _COMPARE[self.op](x, p[0])

    @property
    def direction(self) -> np.ndarray:
        """Per channel (or for all, shape ()): +1 rising, -1 falling, 0 constant."""
        match self.op:
            case "mul" | "div" | "bipolar" | "batchnorm":
                return np.sign(self.params[0]).astype(np.int64)
            case "where":
                return np.sign(self.params[0] - self.params[1]).astype(np.int64)
            case "rsub" | "neg" | "less" | "less_equal" | "not":
                return np.array(-1)
            case _:
                return np.array(1)

    def affine(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(scale, offset) in float64 if the step is affine, else None."""
        p = [q.astype(np.float64) for q in self.params]
        one, zero = np.array(1.0), np.array(0.0)
        match self.op:
            case "add":
                return one, p[0]
            case "sub":
                return one, -p[0]
            case "rsub":
                return -one, p[0]
            case "mul":
                return p[0], zero
            case "div":
                return 1 / p[0], zero
            case "neg":
                return -one, zero
            case "cast":
                return one, zero
            case "batchnorm":
                return _batchnorm(p)
            case _:
                return None

    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        """The lower and the higher value a quantising step gives."""
        if self.op == "bipolar":
            return -abs(self.params[0]), abs(self.params[0])
        if self.op == "sign":
            return np.array(-1.0), np.array(1.0)
        return np.array(False), np.array(True)

    def decision(self) -> np.ndarray:
        """The value at which a quantising step changes its output."""
        return self.params[0] if self.op in _COMPARE else np.array(0.0)

    def gain(self) -> np.ndarray:
        """Bound on how much the step widens a difference between two values."""
        affine = self.affine()
        if affine is not None:
            return abs(affine[0])
        return np.maximum(1.0, self.params[0]) if self.op == "prelu" else np.array(1.0)

    def magnitude(self, x: np.ndarray) -> np.ndarray:
        """Bound on the size of the numbers the step rounds, for float64 x."""
        p = [q.astype(np.float64) for q in self.params]
        if self.op == "batchnorm":
            scale = p[0] / np.sqrt(p[3] + p[4])
            return abs(x * scale) + abs(p[2] * scale) + abs(p[1])
        if self.op in ("add", "sub", "rsub"):
            return abs(x) + abs(p[0])
        if self.op in ("clip", "cast", "neg"):
            return np.zeros_like(x)
        return abs(self.apply(x, wide=True))


def _batchnorm(p: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift in the order of onnxruntime's kernel (bit-equal to it in float32)."""
    gamma, beta, mean, variance, epsilon = p
    scale = gamma * (1 / np.sqrt(variance + epsilon)).astype(gamma.dtype)
    return scale, beta - mean * scale


@dataclass(frozen=True, eq=False)
class Dot:
    """A product with a constant matrix.

    weights: (rows, columns) floats as the source multiplies them; column k meets channel k of
        the vector before. tensor, order: as in `Step`.
    """

    node: str
    weights: np.ndarray
    tensor: str
    order: np.ndarray


@dataclass(frozen=True, eq=False)
class Graph:
    """What an importer hands to lowering.

    file: the path as the user gave it, for messages. input_shape: the source's, batch included.
    value_shape: HWC of an image, or (K,). input_order: element i of the source's input (C order)
    is element `input_order[i]` of the image in `value_shape` order. dtype: of the source's floats.
    tie: rule of the final arg-max. label_tensor: the source's name of its result, or "" where the
    source stops at scores.
    """

    name: str
    file: str
    format: str
    input_name: str
    input_shape: tuple[int, ...]
    value_shape: tuple[int, ...]
    input_order: np.ndarray
    dtype: np.dtype
    ops: tuple[Step | Dot, ...]
    tie: str
    label_tensor: str

    def sections(self) -> tuple[list[Step], list[tuple[Dot, list[Step]]]]:
        """The steps on the input; then each Dot with the steps that follow it."""
        first: list[Step] = []
        layers: list[tuple[Dot, list[Step]]] = []
        for op in self.ops:
            if isinstance(op, Dot):
                layers.append((op, []))
            else:
                (layers[-1][1] if layers else first).append(op)
        return first, layers
