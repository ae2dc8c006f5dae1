# SPDX-License-Identifier: BSD-2-Clause
"""Compiled kernels of the reference executor: packed vectors against packed rows of weights.

Vectors are uint64 (planes, vectors, words), the top plane first. Weights are uint64
(blocks, weight planes, words, rows a block): a block's rows lie side by side, so that one vector
instruction meets many of them. What is counted is

    acc[row] = sum_p coefficient_p * sum_a 2^a * popcount(x_a ^ w_p)

the positions that differ, weighed by input plane a and weight plane p. Padding is 0 in vectors and
weights alike and never differs.
"""

from __future__ import annotations

import numpy as np

from xnorforge.gen.extras import extra_packages

with extra_packages():
    from numba import njit, types
    from numba.extending import intrinsic

__all__ = [
    "LANES",
    "WORD",
    "direct_products",
    "level_bits",
    "plain_bits",
    "plain_dots",
    "product_bits",
    "product_dots",
]

WORD = 64  # bits a word, and rows a block of the packed weights
LANES = 8  # rows of dot products are padded to this: one AVX-512 vector


@intrinsic
def _popcount(_typing, _x):
    def codegen(_context, builder, _signature, args):
        return builder.ctpop(args[0])  # becomes vpopcntq where the processor has it

    return types.uint64(types.uint64), codegen


@njit(nogil=True, cache=True)
def _count_four(planes, weights, n, acc):
    """acc[i, r] = sum_a 2^a * differ_a(vector n + i, row r), four vectors against one block.

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
    """The same for the single vector n, into acc[0]."""
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
def _count_planes(planes, weights, n, acc):
    """The same for vectors of several planes and few words: four planes a turn."""
    words, rows = weights.shape
    count = planes.shape[0]
    acc[0] = 0
    for k in range(words):
        for a in range(0, count - 3, 4):
            p0, p1 = planes[a, n, k], planes[a + 1, n, k]
            p2, p3 = planes[a + 2, n, k], planes[a + 3, n, k]
            shift = np.uint64(count - 4 - a)
            for r in range(rows):
                w = weights[k, r]
                high = (_popcount(p0 ^ w) << np.uint64(1)) + _popcount(p1 ^ w)
                low = (_popcount(p2 ^ w) << np.uint64(1)) + _popcount(p3 ^ w)
                acc[0, r] += ((high << np.uint64(2)) + low) << shift
        for a in range(count - count % 4, count):
            p0, shift = planes[a, n, k], np.uint64(count - 1 - a)
            for r in range(rows):
                acc[0, r] += _popcount(p0 ^ weights[k, r]) << shift


@njit(nogil=True, cache=True)
def _count(planes, weights, n, count, acc):
    """Counts of vectors from n on, one block and weight plane, into acc; gives how many."""
    if planes.shape[0] >= 4 and weights.shape[0] < 4:
        _count_planes(planes, weights, n, acc)
        return 1
    if n + 4 <= count:
        _count_four(planes, weights, n, acc)
        return 4
    _count_one(planes, weights, n, acc)
    return 1


@njit(nogil=True, cache=True)
def _count_weighed(planes, weights, coefficients, n, count, acc, total):
    """The sum over the weight planes, into acc."""
    step = _count(planes, weights[0], n, count, acc)
    if weights.shape[0] == 1:
        return step
    for i in range(step):
        for r in range(acc.shape[1]):
            total[i, r] = coefficients[0] * acc[i, r]
    for p in range(1, weights.shape[0]):
        _count(planes, weights[p], n, count, acc)
        for i in range(step):
            for r in range(acc.shape[1]):
                total[i, r] += coefficients[p] * acc[i, r]
    acc[:step] = total[:step]
    return step


@njit(nogil=True, cache=True)
def plain_bits(planes, count, weights, limits, first, out):
    """`product_bits` of one plane of vectors and of weights, one level and one border."""
    acc = np.empty((4, WORD), np.uint64)
    for b in range(weights.shape[0]):
        n = 0
        while n < count:
            step = 4 if n + 4 <= count else 1
            if step == 4:
                _count_four(planes, weights[b, 0], n, acc)
            else:
                _count_one(planes, weights[b, 0], n, acc)
            for i in range(step):
                word = np.uint64(0)
                for r in range(WORD):
                    word |= np.uint64(np.int64(acc[i, r]) <= limits[0, b, 0, r]) << np.uint64(r)
                out[0, first + n + i, b] = word
            n += step


@njit(nogil=True, cache=True)
def plain_dots(planes, count, weights, constant, scale, first, row, out):
    """`product_dots` of one plane of vectors and of weights, and one border."""
    rows, block = constant.shape[1], weights.shape[3]
    acc = np.empty((4, block), np.uint64)
    for b in range(weights.shape[0]):
        start = b * block
        n = 0
        while n < count:
            step = 4 if n + 4 <= count else 1
            if step == 4:
                _count_four(planes, weights[b, 0], n, acc)
            else:
                _count_one(planes, weights[b, 0], n, acc)
            for i in range(step):
                for r in range(min(block, rows - start)):
                    dot = constant[0, start + r] - scale * np.int64(acc[i, r])
                    out[first + n + i, row + start + r] = dot
            n += step


@njit(nogil=True, cache=True)
def product_bits(planes, count, weights, coefficients, limits, border_of, first, out):
    """out (output planes, vectors, blocks): how many limits each count keeps to, as bit planes.

    The first `count` vectors go to out from vector `first` on. limits: int64 (borders, blocks,
    levels, WORD). border_of: the border class of each window of an image; vectors are whole
    images, window by window.
    """
    borders, levels, windows = limits.shape[0], limits.shape[2], len(border_of)
    bits = out.shape[0]
    acc = np.empty((4, WORD), np.uint64)
    total = np.empty((4, WORD), np.uint64)
    met = np.empty(WORD, np.uint64)
    for b in range(weights.shape[0]):
        n = 0
        while n < count:
            step = _count_weighed(planes, weights[b], coefficients, n, count, acc, total)
            for i in range(step):
                border = border_of[(n + i) % windows] if borders > 1 else 0
                limit = limits[border, b]
                to = first + n + i
                if levels == 1:
                    word = np.uint64(0)
                    for r in range(WORD):
                        word |= np.uint64(np.int64(acc[i, r]) <= limit[0, r]) << np.uint64(r)
                    out[0, to, b] = word
                    continue
                met[:] = 0
                for level in range(levels):
                    for r in range(WORD):
                        met[r] += np.uint64(np.int64(acc[i, r]) <= limit[level, r])
                for a in range(bits):
                    shift = np.uint64(bits - 1 - a)
                    word = np.uint64(0)
                    for r in range(WORD):
                        word |= ((met[r] >> shift) & np.uint64(1)) << np.uint64(r)
                    out[a, to, b] = word
            n += step


@njit(nogil=True, cache=True)
def product_dots(
    planes, count, weights, coefficients, constant, scale, shift, border_of, first, row, out
):
    """out[first + n, row + r] = (constant[border, r] - scale * count) >> shift, for all rows r."""
    borders, rows = constant.shape
    windows, block = len(border_of), weights.shape[3]
    acc = np.empty((4, block), np.uint64)
    total = np.empty((4, block), np.uint64)
    for b in range(weights.shape[0]):
        start = b * block
        last = min(block, rows - start)
        n = 0
        while n < count:
            step = _count_weighed(planes, weights[b], coefficients, n, count, acc, total)
            for i in range(step):
                base = constant[border_of[(n + i) % windows] if borders > 1 else 0]
                to = out[first + n + i]
                for r in range(last):
                    dot = base[start + r] - scale * np.int64(acc[i, r])
                    to[row + start + r] = dot >> shift
            n += step


@njit(nogil=True, cache=True)
def direct_products(x, weights, channel, tap_pixel, pad, offsets, border_of, out):
    """Dot products by multiplication, for groups of few columns.

    x: (images, pixels, channels). weights: int64 (taps, channels a group, rows). channel: the
    first channel of each row's group. tap_pixel: (windows, taps), -1 for padding, whose value is
    `pad`. out: int64 (images, windows, rows).
    """
    taps, share, rows = weights.shape
    plain = share == 1 and rows == x.shape[2]  # each channel has its own row
    for n in range(x.shape[0]):
        for v in range(len(tap_pixel)):
            acc = out[n, v]
            base = offsets[border_of[v]]
            for r in range(rows):
                acc[r] = base[r]
            for t in range(taps):
                pixel = tap_pixel[v, t]
                for c in range(share):
                    w = weights[t, c]
                    if pixel < 0:
                        for r in range(rows):
                            acc[r] += w[r] * pad
                    elif plain:
                        for r in range(rows):
                            acc[r] += w[r] * x[n, pixel, r]
                    else:
                        for r in range(rows):
                            acc[r] += w[r] * x[n, pixel, channel[r] + c]


@njit(nogil=True, cache=True)
def level_bits(numbers, sign, thresholds, border_of, out):
    """How many thresholds each number meets, packed: out (output planes, pixels, words).

    numbers: int64 (pixels, channels), window by window as `border_of`. thresholds: int64
    (borders, levels, channels).
    """
    bits, pixels, words = out.shape
    channels, levels = numbers.shape[1], thresholds.shape[1]
    met = np.zeros(WORD, np.uint64)
    for n in range(pixels):
        levels_here = thresholds[border_of[n % len(border_of)]]
        for k in range(words):
            start = k * WORD
            here = min(WORD, channels - start)
            met[:] = 0
            for level in range(levels):
                for j in range(here):
                    value = numbers[n, start + j] * sign[start + j]
                    met[j] += np.uint64(value >= levels_here[level, start + j])
            for a in range(bits):
                shift = np.uint64(bits - 1 - a)
                word = np.uint64(0)
                for j in range(WORD):
                    word |= ((met[j] >> shift) & np.uint64(1)) << np.uint64(j)
                out[a, n, k] = word
