# SPDX-License-Identifier: BSD-2-Clause
"""Types of the integers of a network: values on edges, and weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xnorforge.gen.errors import ModelError

__all__ = ["ValueType", "WeightType"]


@dataclass(frozen=True)
class ValueType:
    """Type of the values on an edge.

    kind: "bit" (1 = +1, 0 = -1), "uint" (0 .. 2^bits - 1) or "int" (two's complement).
    shape: HWC for maps, (K,) for vectors; the last axis is fastest.
    """

    kind: str
    bits: int
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.kind not in ("bit", "uint", "int"):
            raise ModelError(f"Value kind must be 'bit', 'uint' or 'int', not {self.kind!r}")
        if self.bits < 1 or (self.kind == "bit" and self.bits != 1):
            raise ModelError(f"A {self.kind!r} value cannot have {self.bits} bits")

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def channels(self) -> int:
        """Elements of a pixel, or of the vector."""
        return self.shape[-1]

    @property
    def pixels(self) -> int:
        """Vectors of `channels` elements in one value."""
        return self.size // self.channels

    @property
    def low(self) -> int:
        """Smallest value."""
        return {"bit": -1, "uint": 0, "int": -(1 << (self.bits - 1))}[self.kind]

    @property
    def high(self) -> int:
        """Largest value."""
        return {"bit": 1, "uint": (1 << self.bits) - 1, "int": ~self.low}[self.kind]


@dataclass(frozen=True)
class WeightType:
    """What a weight can be, as a weighed sum of planes of ±1.

    kind: "odd": the odd numbers of -(2^bits - 1) .. 2^bits - 1, so ±1 for one bit;
        "int": all of -2^(bits-1) .. 2^(bits-1), so -1, 0, 1 for one bit; of 8 bits -127 .. 127,
        as a row may have to be negated.
    """

    kind: str = "odd"
    bits: int = 1

    def __post_init__(self) -> None:
        most = {"odd": 7, "int": 8}.get(self.kind, 0)
        if not 1 <= self.bits <= most:
            raise ModelError(f"A weight cannot be {self.kind!r} of {self.bits} bits")

    @property
    def coefficients(self) -> tuple[int, ...]:
        """`sum(c * s)` over the planes is the weight, twice the weight for "int"."""
        doubling = tuple(1 << j for j in reversed(range(self.bits)))
        return doubling if self.kind == "odd" else (*doubling, 1)

    @property
    def planes(self) -> int:
        return len(self.coefficients)

    @property
    def high(self) -> int:
        """Largest weight."""
        return (1 << self.bits) - 1 if self.kind == "odd" else min(1 << (self.bits - 1), 127)

    def holds(self, weights: np.ndarray) -> bool:
        """Whether all these integers are weights of this type."""
        fits = bool((abs(weights.astype(np.int64)) <= self.high).all())
        return fits and (self.kind == "int" or bool((weights & 1).all()))

    def split(self, weights: np.ndarray) -> np.ndarray:
        """Weights -> planes of ±1, int8 (planes, *shape), in the order of `coefficients`."""
        rest = weights.astype(np.int64) * (2 if self.kind == "int" else 1)
        planes = []
        for coefficient in self.coefficients:
            sign = np.where(rest > 0, 1, -1)
            # A rest of 0 splits either way: what follows can still undo a first -1.
            planes.append(sign.astype(np.int8))
            rest = rest - coefficient * sign
        if rest.any():
            raise ModelError(f"Weights from {weights.min()} to {weights.max()} are not {self}")
        return np.stack(planes)

    @classmethod
    def of(cls, weights: np.ndarray) -> WeightType:
        """The type of the fewest planes that holds these integers. Raises ModelError."""
        for bits in range(1, 9):
            for kind in ("odd", "int"):
                if (kind, bits) != ("odd", 8) and cls(kind, bits).holds(weights):
                    return cls(kind, bits)
        raise ModelError(f"Weights from {weights.min()} to {weights.max()} must lie in -127 .. 127")
