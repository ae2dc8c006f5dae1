# SPDX-License-Identifier: BSD-2-Clause
"""Planted faults: the smallest changes that verification must catch.

    weight      one weight with its sign turned
    threshold   one threshold moved by one
    channel     two output channels exchanged, without those who read them

A fault that no image can show would prove nothing, so `plant` looks for one that changes a score.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xnorforge.gen.assembly import core_parts, weights_load
from xnorforge.gen.errors import ModelError
from xnorforge.gen.network import Dense, Network
from xnorforge.gen.plan import Plan
from xnorforge.gen.verilog import accelerator_verilog
from xnorforge.sim.reference import Executor

__all__ = ["FAULT_KINDS", "Fault", "plant"]

FAULT_KINDS = ("weight", "threshold", "channel")

_TRIES = 500
_IMAGES = 200  # of those given, enough to show a fault


@dataclass(frozen=True)
class Fault:
    """A network with one fault. description: what was changed, for people."""

    kind: str
    description: str
    network: Network

    def load(self, plan: Plan) -> bytes:
        """The weight load (`weights.bin`) that brings the fault into a core of this plan."""
        return weights_load(core_parts(self.network, plan))

    def circuit(self, network: Network, plan: Plan) -> str | None:
        """`accelerator.v` of `network` with the fault in its constant logic.

        None where the fault is none of the constants': then the load brings all of it.
        """
        faulty, right = core_parts(self.network, plan), core_parts(network, plan)
        pairs = zip(faulty.stores, right.stores, strict=True)
        if all(one[2] == other[2] for one, other in pairs if not one[1].loadable):
            return None
        return accelerator_verilog(network, plan, faulty)


def plant(network: Network, kind: str, images: np.ndarray, seed: int = 0) -> Fault:
    """A fault of this kind that changes the scores of at least one of the images.

    Raises ModelError for an unknown kind, or where no such fault is found.
    """
    if kind not in FAULT_KINDS:
        raise ModelError(f"Fault must be one of {', '.join(FAULT_KINDS)}, not {kind!r}")
    rng = np.random.default_rng(seed)
    shown = images[:_IMAGES]
    right = Executor(network).run(shown).scores
    places = [
        index
        for index, layer in enumerate(network.layers)
        if (kind != "threshold" or layer.thresholds is not None)
        and (kind != "channel" or layer.rows > 1)
    ]
    for _ in range(_TRIES if places else 0):
        index = int(rng.choice(places))
        layer, what = _faulty(network.layers[index], kind, rng)
        layers = (*network.layers[:index], layer, *network.layers[index + 1 :])
        faulty = replace(network, layers=layers)
        if not np.array_equal(Executor(faulty).run(shown).scores, right):
            return Fault(kind, f"{layer.name}: {what}", faulty)
    raise ModelError(
        f"Network {network.name!r} has no {kind} fault that these {len(images)} images show"
    )


def _faulty(layer: Dense, kind: str, rng: np.random.Generator) -> tuple[Dense, str]:
    weights = layer.weights.copy()
    thresholds = None if layer.thresholds is None else layer.thresholds.copy()
    row = int(rng.integers(layer.rows))
    if kind == "weight":
        column = int(rng.integers(layer.columns))
        weights[row, column] *= -1
        what = f"weight [{row}, {column}] has its sign turned"
    elif kind == "threshold":
        if thresholds is None:
            raise ValueError(f"Layer {layer.name!r} has no thresholds to change")
        step = -1 if thresholds[row] > layer.dot_high else 1
        thresholds[row] += step
        what = f"threshold [{row}] is {thresholds[row]} instead of {thresholds[row] - step}"
    else:
        other = (row + 1 + int(rng.integers(layer.rows - 1))) % layer.rows
        weights[[row, other]] = weights[[other, row]]
        if thresholds is not None:
            thresholds[[row, other]] = thresholds[[other, row]]
        what = f"channels {row} and {other} are exchanged"
    return Dense(layer.name, layer.source, weights, thresholds), what
