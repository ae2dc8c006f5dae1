# SPDX-License-Identifier: BSD-2-Clause
"""A Network evaluated in plain NumPy, layer by layer: short enough to be checked by reading.

`sim.reference` is the fast executor; it is tested against this one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xnorforge.gen.network import Network

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Every value of a network for N images.

    input: (N, K) the quantised input (0/1 for bits). dots: per layer (N, rows) int64.
    outputs: per layer (N, rows): 0/1 bits as uint8, for the last layer its scores as int64.
    labels: (N,) int64.
    """

    input: np.ndarray
    dots: list[np.ndarray]
    outputs: list[np.ndarray]
    labels: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        return self.outputs[-1]


def evaluate(network: Network, images: np.ndarray) -> Evaluation:
    """Run images (see `Input.quantise`) through the network."""
    quantised = network.input.quantise(images)
    values = _values(quantised, network.input.value.kind)
    dots, outputs = [], []
    for layer in network.layers:
        # Sums of integers below 2^53: float64 products are exact and use BLAS.
        dot = (values @ layer.weights.T.astype(np.float64)).astype(np.int64)
        dots.append(dot)
        if layer.thresholds is None:
            outputs.append(dot)
        else:
            outputs.append((dot >= layer.thresholds).astype(np.uint8))
        values = _values(outputs[-1], layer.output.kind)
    return Evaluation(quantised, dots, outputs, network.head.label(outputs[-1]))


def _values(array: np.ndarray, kind: str) -> np.ndarray:
    """Stored values as numbers: a bit 0 is -1."""
    numbers = array.astype(np.float64)
    return 2 * numbers - 1 if kind == "bit" else numbers
