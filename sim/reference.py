# SPDX-License-Identifier: BSD-2-Clause
"""The reference executor: runs a `Network` exactly, bit-packed and compiled.

Bits travel 64 to a word. With `x` an input plane and `w` a row of weights, one word step is

    acc += popcount(x ^ w)                  # the positions that differ

and the signed dot product follows from the count: `dot = K - 2*acc` for bit inputs. A B-bit input
is B planes, `acc = sum_a 2^a * differ_a`; counting matches against {0,1} planes gives

    dot = (2^B - 1) * (number of +1 weights) - acc             uint inputs
    dot = the same - 2^(B-1) * (sum of the weights)            int inputs, top bit inverted

so every layer is `dot = constant[row] - scale * acc` and `dot >= threshold` is `acc <= limit[row]`.
Padding is 0 in inputs and weights alike and never differs.

Binary dot products by XNOR and popcount: Courbariaux et al., "Binarized Neural Networks", 2016.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from xnorforge.gen.errors import ModelError
from xnorforge.gen.extras import extra_packages
from xnorforge.gen.network import Dense, Network

with extra_packages():
    from numba import njit, types
    from numba.extending import intrinsic

__all__ = ["Executor", "Result"]

WORD = 64  # bits a word, and rows a block of the packed weights
LANES = 8  # rows of a score layer are padded to this: one AVX-512 vector
CHUNK = 256  # images worked on at once, so that their packed values stay in the first-level cache


@dataclass(frozen=True)
class Result:
    """scores: (N, classes), int32, or int64 where a dot product could leave 32 bits.
    labels: int64 (N,)."""

    scores: np.ndarray
    labels: np.ndarray


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
        self._layers = [_PackedLayer(layer) for layer in network.layers]
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def run(self, images: np.ndarray) -> Result:
        """Scores and labels of images (N, *shape) of the network's pixel type.

        Raises ModelError on a wrong type or shape, or a pixel outside the input's value range.
        """
        flat = self._flatten(images)
        wide = self._layers[-1].score_bits > 32
        scores = np.empty((len(flat), self.network.classes), np.int64 if wide else np.int32)

        def share(first: int, last: int) -> None:
            for start in range(first, last, CHUNK):
                stop = min(start + CHUNK, last)
                scores[start:stop] = self._forward(flat[start:stop])

        if self._pool is None or len(flat) < 2:
            share(0, len(flat))
        else:
            edges = np.linspace(0, len(flat), self.threads + 1).astype(int)
            list(self._pool.map(share, edges[:-1], edges[1:]))
        return Result(scores, self.network.head.label(scores))

    def trace(self, images: np.ndarray) -> list[np.ndarray]:
        """What each layer puts out: bits uint8 (N, rows), 1 for +1 and 0 for -1, per hidden layer,
        and the scores int64 (N, classes) of the last."""
        values = self._pack(self._flatten(images))
        outputs = []
        for layer in self._layers[:-1]:
            values = layer.bits(values)
            outputs.append(
                np.unpackbits(values[0].view(np.uint8), axis=1, count=layer.rows, bitorder="little")
            )
        return [*outputs, self._layers[-1].scores(values)]

    def _flatten(self, images: np.ndarray) -> np.ndarray:
        spec = self.network.input
        images = np.ascontiguousarray(images)
        if spec.value.kind != "bit":
            flat = spec.quantise(images)
            low, high = spec.value.low, spec.value.high
            if flat.size and (flat.min() < low or flat.max() > high):
                raise ModelError(
                    f"Network {self.network.name!r} takes pixels from {low} to {high}; "
                    f"the images hold {flat.min()} to {flat.max()}"
                )
            return flat
        # `quantise` checks and reports; where all is well the packing kernel does its work faster.
        size = int(np.prod(images.shape[1:])) if images.ndim > 1 else 0
        if images.dtype != np.dtype(spec.pixel) or size != spec.value.size:
            spec.quantise(images)
        return images.reshape(len(images), size)

    def _pack(self, flat: np.ndarray) -> np.ndarray:
        """Pixels (N, K) -> planes uint64 (B, N, words), the top plane first."""
        spec = self.network.input
        words = -(-spec.value.size // WORD)
        planes = np.empty((spec.value.bits, len(flat), words), np.uint64)
        if spec.value.kind == "bit":
            _pack_bits(flat, spec.threshold, spec.inverted, planes[0])
        else:
            flip = 1 << (spec.value.bits - 1) if spec.value.kind == "int" else 0
            _pack_planes(flat, flip, planes)
        return planes

    def _forward(self, flat: np.ndarray) -> np.ndarray:
        values = self._pack(flat)
        for layer in self._layers[:-1]:
            values = layer.bits(values)
        return self._layers[-1].scores(values)


class _PackedLayer:
    """Weights in blocks (blocks, words, rows a block), so that a block's rows lie side by side."""

    def __init__(self, layer: Dense) -> None:
        self.rows = layer.rows
        self.score_bits = layer.dot_high.bit_length() + 1
        block = WORD if layer.thresholds is not None else min(WORD, -(-layer.rows // LANES) * LANES)
        self._blocks = -(-layer.rows // block)
        padded = self._blocks * block
        words = -(-layer.columns // WORD)
        bits = np.zeros((padded, words * 8), np.uint8)
        packed = np.packbits(layer.weights > 0, axis=1, bitorder="little")
        bits[: layer.rows, : packed.shape[1]] = packed
        by_block = bits.view(np.uint64).reshape(self._blocks, block, words)
        self._weights = np.ascontiguousarray(by_block.transpose(0, 2, 1))

        source = layer.source
        positive = (layer.weights > 0).sum(axis=1, dtype=np.int64)
        if source.kind == "bit":
            self._scale = 2
            constant = np.full(layer.rows, layer.columns, np.int64)
        else:
            self._scale = 1
            constant = ((1 << source.bits) - 1) * positive
            if source.kind == "int":
                constant -= (1 << (source.bits - 1)) * (2 * positive - layer.columns)
        self._constant = constant
        # Rows past the last put out 0, so that the words they share pad the next layer.
        self._limit = np.full((self._blocks, block), -1, np.int64)
        if layer.thresholds is not None:
            limit = (constant - layer.thresholds) // self._scale
            self._limit.reshape(-1)[: layer.rows] = limit

    def bits(self, planes: np.ndarray) -> np.ndarray:
        """Packed values in, packed output bits (1, N, blocks) out."""
        out = np.empty((1, planes.shape[1], self._blocks), np.uint64)
        _threshold_layer(planes, self._weights, self._limit, out[0])
        return out

    def scores(self, planes: np.ndarray) -> np.ndarray:
        """Packed values in, dot products int64 (N, rows) out."""
        out = np.empty((planes.shape[1], self.rows), np.int64)
        _score_layer(planes, self._weights, self._constant, self._scale, out)
        return out


@intrinsic
def _popcount(_typing, _x):
    def codegen(_context, builder, _signature, args):
        return builder.ctpop(args[0])  # becomes vpopcntq where the processor has it

    return types.uint64(types.uint64), codegen


@njit(nogil=True, cache=True)
def _pack_bits(flat, threshold, inverted, out):
    images, size = flat.shape
    for n in range(images):
        for i in range(out.shape[1]):
            word = np.uint64(0)
            for j in range(min(WORD, size - i * WORD)):
                bit = (flat[n, i * WORD + j] >= threshold) != inverted
                word |= np.uint64(bit) << np.uint64(j)
            out[n, i] = word


@njit(nogil=True, cache=True)
def _pack_planes(flat, flip, out):
    planes, images, words = out.shape
    size = flat.shape[1]
    for n in range(images):
        for i in range(words):
            for a in range(planes):
                shift = np.uint64(planes - 1 - a)
                word = np.uint64(0)
                for j in range(min(WORD, size - i * WORD)):
                    value = np.uint64(np.int64(flat[n, i * WORD + j]) ^ flip)
                    word |= ((value >> shift) & np.uint64(1)) << np.uint64(j)
                out[a, n, i] = word


@njit(nogil=True, cache=True)
def _count_four(planes, weights, n, acc):
    """acc[i, r] = sum_a 2^a * differ_a(image n + i, row r), four images against one block.

    Each weight word is loaded once for the four; two words a turn keep `acc` in its registers.
    """
    words, rows = weights.shape
    acc[:] = 0
    for a in range(planes.shape[0]):
        x = planes[a]
        if a:
            acc[:] = acc << np.uint64(1)
        for k in range(0, words - 1, 2):
            p0, p1 = x[n, k], x[n, k + 1]
            q0, q1 = x[n + 1, k], x[n + 1, k + 1]
            s0, s1 = x[n + 2, k], x[n + 2, k + 1]
            t0, t1 = x[n + 3, k], x[n + 3, k + 1]
            for r in range(rows):
                u, v = weights[k, r], weights[k + 1, r]
                acc[0, r] += _popcount(p0 ^ u) + _popcount(p1 ^ v)
                acc[1, r] += _popcount(q0 ^ u) + _popcount(q1 ^ v)
                acc[2, r] += _popcount(s0 ^ u) + _popcount(s1 ^ v)
                acc[3, r] += _popcount(t0 ^ u) + _popcount(t1 ^ v)
        if words % 2:
            k = words - 1
            p0, q0, s0, t0 = x[n, k], x[n + 1, k], x[n + 2, k], x[n + 3, k]
            for r in range(rows):
                u = weights[k, r]
                acc[0, r] += _popcount(p0 ^ u)
                acc[1, r] += _popcount(q0 ^ u)
                acc[2, r] += _popcount(s0 ^ u)
                acc[3, r] += _popcount(t0 ^ u)


@njit(nogil=True, cache=True)
def _count_one(planes, weights, n, acc):
    """The same for the single image n, into acc[0]."""
    words, rows = weights.shape
    acc[0] = 0
    for a in range(planes.shape[0]):
        x = planes[a]
        if a:
            acc[0] = acc[0] << np.uint64(1)
        for k in range(0, words - 3, 4):
            p0, p1, p2, p3 = x[n, k], x[n, k + 1], x[n, k + 2], x[n, k + 3]
            for r in range(rows):
                low = _popcount(p0 ^ weights[k, r]) + _popcount(p1 ^ weights[k + 1, r])
                high = _popcount(p2 ^ weights[k + 2, r]) + _popcount(p3 ^ weights[k + 3, r])
                acc[0, r] += low + high
        for k in range(words - words % 4, words):
            p0 = x[n, k]
            for r in range(rows):
                acc[0, r] += _popcount(p0 ^ weights[k, r])


@njit(nogil=True, cache=True)
def _threshold_layer(planes, weights, limits, out):
    images = planes.shape[1]
    acc = np.empty((4, WORD), np.uint64)
    for b in range(weights.shape[0]):
        n = 0
        while n < images:
            step = 4 if n + 4 <= images else 1
            if step == 4:
                _count_four(planes, weights[b], n, acc)
            else:
                _count_one(planes, weights[b], n, acc)
            for i in range(step):
                word = np.uint64(0)
                for r in range(WORD):
                    word |= np.uint64(np.int64(acc[i, r]) <= limits[b, r]) << np.uint64(r)
                out[n + i, b] = word
            n += step


@njit(nogil=True, cache=True)
def _score_layer(planes, weights, constant, scale, out):
    images, rows = out.shape
    block = weights.shape[2]
    acc = np.empty((4, block), np.uint64)
    for b in range(weights.shape[0]):
        first = b * block
        n = 0
        while n < images:
            step = 4 if n + 4 <= images else 1
            if step == 4:
                _count_four(planes, weights[b], n, acc)
            else:
                _count_one(planes, weights[b], n, acc)
            for i in range(step):
                for r in range(min(block, rows - first)):
                    out[n + i, first + r] = constant[first + r] - scale * np.int64(acc[i, r])
            n += step
