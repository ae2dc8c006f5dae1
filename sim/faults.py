# SPDX-License-Identifier: BSD-2-Clause
"""Planted faults: the smallest changes that verification must catch.

    weight      one weight with its sign turned, or of several planes the next one
    threshold   one threshold moved by one: of one level, one border class
    channel     two output channels of a group exchanged, without those who read them

A fault that no image can show would prove nothing, so `plant` looks for one that changes a score.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xnorforge.gen.assembly import core_parts, weights_load
from xnorforge.gen.errors import ModelError
from xnorforge.gen.layers import Conv, Dense, Layer, Product, Threshold
from xnorforge.gen.network import Network
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
    places = [index for index, layer in enumerate(network.layers) if _has(layer, kind)]
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


def _has(layer: Layer, kind: str) -> bool:
    """Whether the layer can have this kind of fault."""
    if kind == "threshold":
        levels = layer.levels if isinstance(layer, Product) else isinstance(layer, Threshold)
        return bool(levels)
    return isinstance(layer, Product) and (kind == "weight" or layer.rows > layer.groups)


def _faulty(layer: Layer, kind: str, rng: np.random.Generator) -> tuple[Layer, str]:
    if isinstance(layer, Threshold):
        return _faulty_threshold(layer, rng)
    assert isinstance(layer, Dense | Conv)
    row = int(rng.integers(layer.rows))
    if kind == "weight":
        at = (row, *(int(rng.integers(size)) for size in layer.weights.shape[1:]))
        weights = layer.weights.copy()
        weights[at] = _other_weight(layer, int(weights[at]), rng)
        what = (
            f"weight {list(at)} has its sign turned"
            if weights[at] == -layer.weights[at]
            else f"weight {list(at)} is {weights[at]} instead of {layer.weights[at]}"
        )
        return replace(layer, weights=weights), what
    if kind == "threshold":
        bank = layer.bank
        if bank is None:
            raise ValueError(f"Layer {layer.name!r} has no thresholds to change")
        moved, what = _moved(bank, row, layer.dot_high + 1, rng)
        assert layer.thresholds is not None
        return replace(layer, thresholds=moved.reshape(layer.thresholds.shape)), what
    # Rows of one group: those of another group meet other channels.
    part = layer.rows // layer.groups
    other = row - row % part + (row % part + 1 + int(rng.integers(part - 1))) % part
    order = np.arange(layer.rows)
    order[[row, other]] = order[[other, row]]
    fields = {
        name: value[..., order]
        for name in ("thresholds", "offsets")
        if (value := getattr(layer, name)) is not None
    }
    what = f"channels {row} and {other} are exchanged"
    return replace(layer, weights=layer.weights[order], **fields), what


def _faulty_threshold(layer: Threshold, rng: np.random.Generator) -> tuple[Layer, str]:
    channel = int(rng.integers(layer.source.channels))
    highest = np.iinfo(np.int64).max
    moved, what = _moved(layer.thresholds[None], channel, highest, rng)
    return replace(layer, thresholds=moved[0]), what


def _moved(
    bank: np.ndarray, channel: int, highest: int, rng: np.random.Generator
) -> tuple[np.ndarray, str]:
    """One threshold of (borders, levels, channels) moved by one, the levels still ascending."""
    bank = bank.copy()
    border = int(rng.integers(len(bank)))
    levels = bank[border, :, channel]
    level = int(rng.integers(len(levels)))
    # The highest of equal levels can go up, unless it is at the end: then the lowest goes down.
    value = levels[level]
    if value < highest:
        level, step = int(np.flatnonzero(levels == value)[-1]), 1
    else:
        level, step = int(np.flatnonzero(levels == value)[0]), -1
    levels[level] += step
    place = [channel]
    if bank.shape[1] > 1:
        place.insert(0, level)
    if bank.shape[0] > 1:
        place.insert(0, border)
    return bank, f"threshold {place} is {value + step} instead of {value}"


def _other_weight(layer: Product, weight: int, rng: np.random.Generator) -> int:
    """The weight's negative, or one next to it where it has planes."""
    kind = layer.weight_type
    step = 2 if kind.kind == "odd" else 1
    near = [other for other in (weight - step, weight + step) if abs(other) <= kind.high]
    if weight and kind.planes == 1:
        return -weight
    return int(rng.choice([*near, -weight] if weight else near))
