# SPDX-License-Identifier: BSD-2-Clause
"""Random networks, images for them, and a plain NumPy evaluation to hold executors against."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from xnorforge.gen.network import Dense, Head, Input, Network, ValueType
from xnorforge.gen.numpy_reference import evaluate


def random_network(
    rng: np.random.Generator,
    sizes: list[int],
    kind: str = "bit",
    bits: int = 1,
    tie: str = "first",
    affine: bool = False,
) -> Network:
    """Dense layers `sizes[0] -> ... -> sizes[-1]`; some thresholds are 'always' and 'never'."""
    value = ValueType(kind, bits, (sizes[0],))
    if kind == "bit":
        spec = Input(value, "uint8", int(rng.integers(1, 255)), bool(rng.integers(2)))
    else:
        spec = Input(value, "uint8" if kind == "uint" else "int8")
    layers = []
    for i, (columns, rows) in enumerate(pairwise(sizes)):
        weights = rng.choice(np.array([-1, 1], np.int8), (rows, columns))
        last = i == len(sizes) - 2
        layer = Dense(f"layer{i}", value, weights, None)
        if not last:
            spread = max(1, int(value.high * columns**0.5))
            thresholds = rng.integers(-spread, spread + 1, rows).astype(np.int64)
            thresholds = np.clip(thresholds, layer.dot_low, layer.dot_high + 1)
            extreme = rng.random(rows)
            thresholds[extreme < 0.05] = layer.dot_low
            thresholds[extreme > 0.95] = layer.dot_high + 1
            layer = Dense(f"layer{i}", value, weights, thresholds)
        layers.append(layer)
        value = layer.output
    scale = rng.integers(1, 9, sizes[-1]).astype(np.int64) if affine else None
    offset = rng.integers(-99, 100, sizes[-1]).astype(np.int64) if affine else None
    return Network("random", spec, tuple(layers), Head(tie, scale, offset))


def random_images(rng: np.random.Generator, network: Network, count: int) -> np.ndarray:
    """Images over the whole range the network takes."""
    value = network.input.value
    if value.kind == "bit":
        return rng.integers(0, 256, (count, value.size), dtype=np.uint8)
    dtype = np.dtype(network.input.pixel)
    return rng.integers(value.low, value.high + 1, (count, value.size)).astype(dtype)


def numpy_trace(network: Network, images: np.ndarray) -> list[np.ndarray]:
    """Every layer's output by plain matrix products: bits as 0/1, then the scores."""
    return evaluate(network, images).outputs


@pytest.fixture(scope="session")
def nets() -> SimpleNamespace:
    """`network(rng, sizes, ...)`, `images(rng, network, count)`, `trace(network, images)`."""
    return SimpleNamespace(network=random_network, images=random_images, trace=numpy_trace)
