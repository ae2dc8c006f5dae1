# SPDX-License-Identifier: BSD-2-Clause
"""One of a source's operations on single elements, evaluated as the source evaluates it.

Each is weakly monotone in float arithmetic too (IEEE rounding is), which is what makes the search
for thresholds exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ROUNDINGS", "Step", "round_as"]

_QUANTISERS = (
    "bipolar",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "multithreshold",
    "quant",
    "sign",
)
_COMPARE = {
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
}
ROUNDINGS = ("ROUND", "HALF_EVEN", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN")


def round_as(x: np.ndarray, mode: str) -> np.ndarray:
    """QONNX's rounding modes; UP and DOWN are away from and towards zero."""
    match mode:
        case "ROUND" | "HALF_EVEN":
            return np.round(x)
        case "CEIL":
            return np.ceil(x)
        case "FLOOR":
            return np.floor(x)
        case "UP":
            return np.sign(x) * np.ceil(abs(x))
        case "DOWN":
            return np.fix(x)
        case "HALF_UP":
            return np.sign(x) * np.floor(abs(x) + x.dtype.type(0.5))
        case "HALF_DOWN":
            return np.sign(x) * np.ceil(abs(x) - x.dtype.type(0.5))
    raise ValueError(f"No rounding mode {mode!r}")


@dataclass(frozen=True, eq=False)
class Step:
    """One operation on every element of a value.

    op: "add" x+c, "sub" x-c, "rsub" c-x, "mul" x*c, "div" x/c, "neg", "clip" (low, high),
        "prelu" (slope), "cast", "batchnorm" (gamma, beta, mean, variance, epsilon, evaluated in
        onnxruntime's order), "sign" (0 gives 0), "bipolar" (scale; 0 gives +scale), the four
        comparisons with c, "not", "where" (value if true, value if false), "quant" (scale, zero
        point, lowest and highest integer), "multithreshold" (scale, bias, then the thresholds in
        ascending order; counts those met).
    params: float arrays, each of shape () or (channels,).
    source: index of the op whose result it takes. shape: HWC or (K,) of its result; (K,) where a
        map is taken element by element.
    tensor: the source's name of the result; element i of it (C order) is element `order[i]` of
        the value in `shape` order.
    rounding: of "quant", one of `ROUNDINGS`.
    """

    node: str
    op: str
    params: tuple[np.ndarray, ...]
    tensor: str
    order: np.ndarray
    source: int = -1
    shape: tuple[int, ...] = ()
    rounding: str = "ROUND"

    @property
    def sources(self) -> tuple[int, ...]:
        return (self.source,)

    @property
    def quantises(self) -> bool:
        """Whether the result takes a few values only."""
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
            case "quant":
                scale, zero, low, high = p
                clipped = np.minimum(np.maximum(x / scale + zero, low), high)
                return (round_as(clipped, self.rounding) - zero) * scale
            case "multithreshold":
                count = sum((x >= t).astype(x.dtype) for t in p[2:])
                return count * p[0] + p[1]
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
            case "mul" | "div" | "bipolar" | "batchnorm" | "multithreshold":
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

    def levels(self, dtype: np.dtype) -> np.ndarray:
        """The values a quantising step gives, ascending: (levels, 1 or channels)."""
        p = [q.astype(dtype) for q in self.params]
        match self.op:
            case "bipolar":
                return np.stack([-abs(p[0]), abs(p[0])]).reshape(2, -1)
            case "sign":
                return np.array([[-1.0], [1.0]], dtype)
            case "quant":
                integers = np.arange(int(p[2]), int(p[3]) + 1).astype(dtype)[:, None]
                return (integers - p[1]) * p[0]
            case "multithreshold":
                counts = np.arange(len(p) - 1).astype(dtype)[:, None]
                return np.sort(counts * p[0] + p[1], axis=0)
            case _:
                return np.array([[False], [True]])

    def decisions(self) -> np.ndarray:
        """Where a quantising step changes its output, float64 (..., 1 or channels)."""
        p = [q.astype(np.float64) for q in self.params]
        if self.op in _COMPARE:
            return p[0].reshape(1, -1)
        if self.op == "quant":
            middles = np.arange(int(p[2]), int(p[3]))[:, None] + 0.5
            if self.rounding not in ("ROUND", "HALF_EVEN", "HALF_UP", "HALF_DOWN"):
                middles = np.arange(int(p[2]), int(p[3]) + 1)[:, None].astype(np.float64)
            return (middles - p[1]) * p[0]
        if self.op == "multithreshold":
            return np.stack([np.broadcast_to(t, np.shape(sum(p[2:]))) for t in p[2:]]).reshape(
                len(p) - 2, -1
            )
        return np.zeros((1, 1))

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
