# SPDX-License-Identifier: BSD-2-Clause
"""A Network evaluated in plain NumPy, layer by layer: short enough to be checked by reading.

`sim.reference` is the fast executor; it is tested against this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xnorforge.gen.layers import Add, Concat, Conv, Dense, Layer, Pool, Product, Threshold
from xnorforge.gen.network import INPUT, Network
from xnorforge.hw.geometry import WindowMap

__all__ = ["Evaluation", "evaluate"]

_CHUNK = 64  # images at a time: the windows of all of them are in memory at once


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Every value of a network for N images.

    input: (N, K) the quantised input (0/1 for bits). dots: per layer (N, ..., rows) int64, what
    is compared with thresholds, or the output of a layer that has none.
    outputs: per layer (N, *shape): 0/1 bits as uint8, other values as int64.
    labels: (N,) int64.
    """

    input: np.ndarray
    dots: list[np.ndarray]
    outputs: list[np.ndarray]
    labels: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """(N, classes)."""
        return self.outputs[-1].reshape(len(self.labels), -1)


def evaluate(network: Network, images: np.ndarray) -> Evaluation:
    """Run images (see `Input.quantise`) through the network."""
    quantised = network.input.quantise(images)
    parts = [
        _evaluate(network, quantised[first : first + _CHUNK])
        for first in range(0, max(1, len(quantised)), _CHUNK)
    ]
    dots, outputs = (
        [np.concatenate(layer) for layer in zip(*(part[side] for part in parts), strict=True)]
        for side in (0, 1)
    )
    scores = outputs[-1].reshape(len(quantised), -1)
    return Evaluation(quantised, dots, outputs, network.head.label(scores))


def _evaluate(network: Network, quantised: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    known = {INPUT: _numbers(quantised, network.input.value.kind)}
    dots, outputs = [], []
    for index, layer in enumerate(network.layers):
        taken = [
            known[name].reshape(len(quantised), *source.shape)
            for name, source in zip(network.inputs_of(index), layer.sources, strict=True)
        ]
        dot, output = _layer(layer, taken)
        dots.append(dot)
        outputs.append(output)
        known[layer.name] = _numbers(output, layer.output.kind)
    return dots, outputs


def _layer(layer: Layer, taken: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What a layer compares with its thresholds, and what it gives."""
    x = taken[0]
    if isinstance(layer, Product):
        dot = _product(layer, x)
        if layer.bank is None:
            return dot, dot
        levels = layer.bank[_borders(layer)]  # (..., levels, rows)
        return dot, _met(dot, levels)
    if isinstance(layer, Threshold):
        dot = x * layer.sign
        return dot, _met(dot, layer.thresholds)
    if isinstance(layer, Pool):
        out = _pool(layer, x)
    elif isinstance(layer, Add):
        out = layer.offsets + sum(m * t for m, t in zip(layer.multipliers, taken, strict=True))
    elif isinstance(layer, Concat):
        out = np.concatenate(taken, axis=-1)
    else:
        raise TypeError(f"No rule for {type(layer).__name__}")
    return out, (out > 0).astype(np.uint8) if layer.output.kind == "bit" else out


def _product(layer: Product, x: np.ndarray) -> np.ndarray:
    """Dot products int64 (N, ..., rows), offsets included."""
    if isinstance(layer, Conv):
        windows = _windows(layer.windows, x, layer.pad_value)  # (N, oh, ow, kh, kw, C)
        split = windows.reshape(*windows.shape[:-1], layer.groups, -1)
        vectors = np.moveaxis(split, -2, 3).reshape(*windows.shape[:3], layer.groups, -1)
    else:
        vectors = x.reshape(len(x), 1, -1)
    matrix = layer.matrix.reshape(layer.groups, -1, layer.columns).astype(np.float64)
    # Sums of integers below 2^53: float64 products are exact and use BLAS.
    parts = [vectors[..., g, :].astype(np.float64) @ matrix[g].T for g in range(layer.groups)]
    dot = np.concatenate(parts, axis=-1).astype(np.int64)
    return dot if layer.offsets is None else dot + layer.offsets[_borders(layer)]


def _borders(layer: Product) -> np.ndarray | int:
    """Border class of each window, or the only one."""
    if isinstance(layer, Dense):
        return 0
    assert isinstance(layer, Conv)
    return np.array(layer.windows.border_rows)


def _met(dot: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How many of the thresholds (..., levels, rows) each value (..., rows) meets."""
    count = (dot[..., None, :] >= levels).sum(axis=-2)
    return count.astype(np.uint8) if levels.shape[-2] == 1 else count


def _windows(map_: WindowMap, x: np.ndarray, pad_value: int) -> np.ndarray:
    """Maps (N, H, W, C) -> windows (N, oh, ow, kh, kw, C)."""
    top, left, bottom, right = map_.window.pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=pad_value)
    rows, columns = (
        np.array(
            [
                [p * axis.stride + t * axis.dilation for t in range(axis.taps)]
                for p in range(axis.positions)
            ]
        )
        for axis in (map_.vertical, map_.horizontal)
    )
    return padded[:, rows[:, None, :, None], columns[None, :, None, :]]


def _pool(layer: Pool, x: np.ndarray) -> np.ndarray:
    if layer.kind == "sum":
        return _windows(layer.windows, x, 0).sum(axis=(3, 4))
    return _windows(layer.windows, x, layer.source.low).max(axis=(3, 4))


def _numbers(array: np.ndarray, kind: str) -> np.ndarray:
    """Stored values as numbers: a bit 0 is -1."""
    numbers = array.astype(np.int64)
    return 2 * numbers - 1 if kind == "bit" else numbers
