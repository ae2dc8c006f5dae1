# SPDX-License-Identifier: BSD-2-Clause
"""Random networks, images for them, and a plain NumPy evaluation to hold executors against."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from xnorforge.gen.network import Head, Network
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.sim.random_networks import dense_network, random_images


def network_of(
    rng: np.random.Generator,
    sizes: list[int],
    kind: str = "bit",
    bits: int = 1,
    tie: str = "first",
    affine: bool = False,
) -> Network:
    """Dense layers of given sizes; the input's threshold is drawn too."""
    scale = rng.integers(1, 9, sizes[-1]) if affine else None
    offset = rng.integers(-99, 100, sizes[-1]) if affine else None
    threshold, inverted = int(rng.integers(1, 255)), bool(rng.integers(2))
    head = Head(tie, scale, offset)
    return dense_network(rng, sizes, kind, bits, threshold, inverted, head)


def flat_images(rng: np.random.Generator, network: Network, count: int) -> np.ndarray:
    """Images over the whole range the network takes, each a row."""
    return random_images(rng, network, count).reshape(count, network.input.value.size)


def numpy_trace(network: Network, images: np.ndarray) -> list[np.ndarray]:
    """Every layer's output by plain matrix products: bits as 0/1, then the scores."""
    return evaluate(network, images).outputs


@pytest.fixture(scope="session")
def nets() -> SimpleNamespace:
    """`network(rng, sizes, ...)`, `images(rng, network, count)`, `trace(network, images)`."""
    return SimpleNamespace(network=network_of, images=flat_images, trace=numpy_trace)
