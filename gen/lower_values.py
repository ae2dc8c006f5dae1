# SPDX-License-Identifier: BSD-2-Clause
"""What lowering knows of a value of the source: integers, and what the source makes of them.

A value is integers times a slope plus an offset, by channel, and then the source's own steps. A
product is not made a layer before its value is needed: the steps that follow may end in a
quantiser, which becomes its thresholds, and max pools on the way are moved behind them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xnorforge.gen.errors import UnsupportedOpError
from xnorforge.gen.graph import Node, Pooling, Step
from xnorforge.gen.layers import Conv, Dense, ValueType
from xnorforge.gen.thresholds import Grid, RealDot

__all__ = [
    "Check",
    "Edge",
    "Integers",
    "PendingProduct",
    "Pixels",
    "Value",
    "direction",
    "fit",
    "split_steps",
]


@dataclass(frozen=True, eq=False)
class Pixels:
    """The image, before it is known how the network takes it."""


@dataclass(frozen=True, eq=False)
class Integers:
    """What a layer gives, or the input.

    name, type: of the layer's output. real: what the source has for an integer. grid: the
    integers that can be reached, by channel. table: where there are a few, the source's number
    for each in ascending order, (values, channels). origin: the node that made them, for messages.
    """

    name: str
    type: ValueType
    real: RealDot
    grid: Grid
    table: np.ndarray | None
    origin: str


@dataclass(frozen=True, eq=False)
class PendingProduct:
    """A product that is no layer yet. layer: it, without thresholds, named by its kind; its input
    is `takes`. real, grid: by border class and row."""

    layer: Dense | Conv
    takes: str
    real: RealDot
    grid: Grid
    node: Node


@dataclass(frozen=True, eq=False)
class Value:
    """ops: what the source does to `base` next; max pools among them. shape: HWC or (K,).
    padding: pads (top, left, bottom, right), included in shape, and the real number they hold, by
    channel."""

    base: Pixels | Integers | PendingProduct
    ops: tuple[Step | Pooling, ...]
    shape: tuple[int, ...]
    padding: tuple[tuple[int, int, int, int], np.ndarray] | None = None

    @property
    def steps(self) -> list[Step]:
        return split_steps(self.ops)


@dataclass(frozen=True, eq=False)
class Edge:
    """Integers whose steps are done: the source has `slope[c] * v + offset[c]`. origin: the node
    that made them. error: bound on what the source's floats lose."""

    name: str
    type: ValueType
    slope: np.ndarray
    offset: np.ndarray
    origin: str
    exact: bool


@dataclass(frozen=True, eq=False)
class Check:
    """A tensor of the source that a layer's integers stand for.

    op: the source's. real, sign, steps: the source has the steps of `real.value(sign * dots)`,
    dots being what the layer compares with thresholds, or gives. table: instead, the source's
    numbers for the layer's output values, in ascending order, (values, channels). pads: of the
    op's map around the layer's.
    """

    layer: str
    kind: str
    op: Step | Node
    real: RealDot | None = None
    sign: np.ndarray | None = None
    steps: tuple[Step, ...] = ()
    table: np.ndarray | None = None
    pads: tuple[int, int, int, int] | None = None


def split_steps(ops: tuple[Step | Pooling, ...] | list[Step | Pooling]) -> list[Step]:
    return [op for op in ops if isinstance(op, Step)]


def direction(ops: tuple[Step | Pooling, ...] | list[Step | Pooling], channels: int) -> np.ndarray:
    """By channel: +1 where the ops together rise, -1 where they fall, 0 where they are constant."""
    total = np.ones(channels, np.int64)
    for step in split_steps(ops):
        total = total * step.direction
    return total


def fit(
    table: np.ndarray, type_: ValueType, dtype: np.dtype, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset by channel of a table (values, channels) over the values of a type."""
    real = table.astype(np.float64)
    last = len(real) - 1
    spacing = (real[-1] - real[0]) / last
    even = real[0] + spacing * np.arange(last + 1)[:, None]
    tolerance = 8 * float(np.finfo(dtype).eps) * abs(real).max(axis=0)
    if (abs(even - real) > tolerance).any():
        channel = int(np.argwhere(abs(even - real) > tolerance)[0][1])
        raise UnsupportedOpError(
            f"{where} gives values that are not evenly spaced in channel {channel} "
            f"({', '.join(f'{v:g}' for v in real[:, channel])}); products need even levels"
        )
    if type_.kind == "bit":
        return (real[1] - real[0]) / 2, (real[1] + real[0]) / 2
    return spacing, real[0]
