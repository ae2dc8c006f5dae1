# SPDX-License-Identifier: BSD-2-Clause
"""The reference executor: runs a `Network` exactly, bit-packed and compiled.

Bits travel 64 to a word, a map's pixels each in whole words (`sim.packed_map`); products count the
bits that differ (`sim.packed_layers`, `sim.kernels`). It is tested against `gen.numpy_reference`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xnorforge.gen.errors import ModelError
from xnorforge.gen.layers import Product, ValueType
from xnorforge.gen.network import INPUT, Network
from xnorforge.sim.packed_layers import PackedLayer, packed_layer
from xnorforge.sim.packed_map import InputMap, PackedMap

__all__ = ["Executor", "Result"]

CHUNK = 256  # images worked on at once at most
CHUNK_BYTES = 1 << 22  # of the largest map of them
MOST_BITS = 61  # of any value: what is worked out on the way to it fits 64 then


@dataclass(frozen=True)
class Result:
    """scores: (N, classes), int32, or int64 where a dot product could leave 32 bits.
    labels: int64 (N,)."""

    scores: np.ndarray
    labels: np.ndarray


class _Step(NamedTuple):
    """A layer, what it takes, and what nothing takes after it."""

    name: str
    taken: tuple[str, ...]
    run: PackedLayer
    done_with: list[str]


class Executor:
    """Exact execution of a network on images.

    threads: how many parts a batch is cut into, each run on its own thread. A batch of one image
        always runs on one.
    """

    def __init__(self, network: Network, threads: int = 1) -> None:
        if threads < 1:
            raise ModelError(f"The executor needs at least 1 thread, not {threads}")
        self.network = network
        self.threads = threads
        made: dict[str, ValueType] = {INPUT: network.input.value}
        taken = [network.inputs_of(index) for index in range(len(network.layers))]
        last_use = {name: index for index, names in enumerate(taken) for name in names}
        self._steps: list[_Step] = []
        for index, layer in enumerate(network.layers):
            bits = layer.output.bits
            if isinstance(layer, Product):
                bits = max(bits, layer.dot_high.bit_length() + 1)
            if bits > MOST_BITS:
                raise ModelError(
                    f"Layer {layer.name!r}: values of {bits} bits; "
                    f"the executor takes up to {MOST_BITS}"
                )
            done_with = [name for name in last_use if last_use[name] == index]
            run = packed_layer(layer, made[taken[index][0]])
            self._steps.append(_Step(layer.name, taken[index], run, done_with))
            made[layer.name] = layer.output
        self._size, self._classes = network.input.value.size, network.classes
        self._scores = np.int64 if network.layers[-1].output.bits > 32 else np.int32
        # Values that are not packed take a word an element.
        largest = max(value.size * (8 if value.kind == "int" else 1) for value in made.values())
        self._chunk = max(1, min(CHUNK, CHUNK_BYTES // largest))
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def run(self, images: np.ndarray) -> Result:
        """Scores and labels of images (N, *shape) of the network's pixel type.

        Raises ModelError on a wrong type or shape, or a pixel outside the input's value range.
        """
        flat = self._flatten(images)
        scores = np.empty((len(flat), self._classes), self._scores)

        def share(first: int, last: int) -> None:
            for start in range(first, last, self._chunk):
                stop = min(start + self._chunk, last)
                scores[start:stop] = self._forward(flat[start:stop])[:, 0]

        if self._pool is None or len(flat) < 2:
            share(0, len(flat))
        else:
            edges = np.linspace(0, len(flat), self.threads + 1).astype(int)
            list(self._pool.map(share, edges[:-1], edges[1:]))
        return Result(scores, self.network.head.label(scores))

    def trace(self, images: np.ndarray) -> list[np.ndarray]:
        """What each layer puts out, (N, *shape): bits uint8, 1 for +1 and 0 for -1, and other
        values int64."""
        flat = self._flatten(images)
        types = [layer.output for layer in self.network.layers]
        outputs = [
            np.empty((len(flat), *value.shape), np.uint8 if value.kind == "bit" else np.int64)
            for value in types
        ]
        for start in range(0, len(flat), self._chunk):
            values: list[PackedMap] = []
            self._forward(flat[start : start + self._chunk], values)
            for out, value, map_ in zip(outputs, types, values, strict=True):
                numbers = map_.numbers.reshape(map_.count, *value.shape)
                out[start : start + self._chunk] = numbers > 0 if value.kind == "bit" else numbers
        return outputs

    def _flatten(self, images: np.ndarray) -> np.ndarray:
        spec = self.network.input
        images = np.ascontiguousarray(images)
        if spec.value.kind != "bit":
            flat = spec.quantise(images)
            low, high = spec.value.low, spec.value.high
            if spec.table is None and flat.size and (flat.min() < low or flat.max() > high):
                raise ModelError(
                    f"Network {self.network.name!r} takes pixels from {low} to {high}; "
                    f"the images hold {flat.min()} to {flat.max()}"
                )
            return flat
        # `quantise` checks and reports; where all is well the packing kernel does its work faster.
        plain = images.shape[1:] in (spec.value.shape, (self._size,))
        if not plain or images.dtype != np.dtype(spec.pixel):
            spec.quantise(images)
        return images.reshape(len(images), self._size)

    def _forward(self, flat: np.ndarray, trace: list[PackedMap] | None = None) -> np.ndarray:
        """Scores (N, 1, classes) of pixels (N, K); every layer's output is added to `trace`."""
        known: dict[str, PackedMap] = {INPUT: InputMap(self.network.input, flat)}
        for step in self._steps:
            value = step.run([known[name] for name in step.taken])
            for name in step.done_with:
                del known[name]
            known[step.name] = value
            if trace is not None:
                trace.append(value)
        return value.numbers
