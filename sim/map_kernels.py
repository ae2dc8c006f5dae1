# SPDX-License-Identifier: BSD-2-Clause
"""Compiled kernels of the reference executor that pack, cut, pool and join maps.

A packed map is uint64 (planes, pixels of all images, words): each pixel's channels fill whole
words, with 0 above them. The stored code of a number x is `(x + add) >> shift`, not negative.
"""

from __future__ import annotations

import numpy as np

from xnorforge.gen.extras import extra_packages
from xnorforge.sim.kernels import WORD

with extra_packages():
    from numba import njit

__all__ = [
    "dense_rows",
    "dense_windows",
    "join_channels",
    "pack_bits",
    "pack_codes",
    "pool_bits",
    "pool_numbers",
    "unpack_codes",
    "word_windows",
]


@njit(nogil=True, cache=True)
def pack_bits(flat, threshold, inverted, out):
    """out (vectors, words) of `(flat >= threshold) != inverted`."""
    vectors, size = flat.shape
    for n in range(vectors):
        for i in range(out.shape[1]):
            word = np.uint64(0)
            for j in range(min(WORD, size - i * WORD)):
                bit = (flat[n, i * WORD + j] >= threshold) != inverted
                word |= np.uint64(bit) << np.uint64(j)
            out[n, i] = word


@njit(nogil=True, cache=True)
def pack_codes(flat, add, down, out):
    """out (planes, vectors, words) of the codes of flat (vectors, elements)."""
    planes, vectors, words = out.shape
    size = flat.shape[1]
    for n in range(vectors):
        for i in range(words):
            for a in range(planes):
                shift = np.uint64(planes - 1 - a + down)
                word = np.uint64(0)
                for j in range(min(WORD, size - i * WORD)):
                    value = np.uint64(np.int64(flat[n, i * WORD + j]) + add)
                    word |= ((value >> shift) & np.uint64(1)) << np.uint64(j)
                out[a, n, i] = word


@njit(nogil=True, cache=True)
def unpack_codes(planes, add, up, out):
    """Inverse of `pack_codes`: out int64 (vectors, elements)."""
    vectors, size = out.shape
    for n in range(vectors):
        for i in range(size):
            k, j = i // WORD, np.uint64(i % WORD)
            code = np.int64(0)
            for a in range(planes.shape[0]):
                code = (code << 1) | np.int64((planes[a, n, k] >> j) & np.uint64(1))
            out[n, i] = (code << up) - add


@njit(nogil=True, cache=True)
def _append(out, position, word, count):
    """Or the low `count` bits of a word, whose others are 0, into a bit string."""
    k, j = position // WORD, position % WORD
    out[k] |= word << np.uint64(j)
    if j + count > WORD:
        out[k + 1] |= word >> np.uint64(WORD - j)


@njit(nogil=True, cache=True)
def _cut(row, start, mask):
    """Bits of a bit string from `start` on, as many as the mask has. Reads one word too many."""
    k, j = start // WORD, np.uint64(start % WORD)
    high = (row[k + 1] << np.uint64(1)) << (np.uint64(WORD - 1) - j)
    return ((row[k] >> j) | high) & mask


@njit(nogil=True, cache=True)
def _ones(count):
    """A word of so many ones, 1 to WORD."""
    return ~np.uint64(0) >> np.uint64(WORD - count)


@njit(nogil=True, cache=True)
def dense_rows(planes, shape, pads, pad_words, out):
    """Packed maps -> rows of bits without gaps, padding included.

    planes: (planes, images * height * width, words). shape: images, height, width, channels.
    pads: top, left, bottom, right. pad_words: (planes, words), one pixel of padding. out:
    (planes, images * padded height, words a row), a word more than needed if windows are cut.
    """
    images, height, width, channels = shape
    top, left, bottom, right = pads
    rows = height + top + bottom
    words = planes.shape[2]
    out[:] = 0
    for a in range(planes.shape[0]):
        for n in range(images):
            for y in range(rows):
                position = 0
                row = out[a, n * rows + y]
                inside_y = top <= y < top + height
                for x in range(left + width + right):
                    inside = inside_y and left <= x < left + width
                    pixel = (n * height + y - top) * width + x - left
                    for k in range(words):
                        word = planes[a, pixel, k] if inside else pad_words[a, k]
                        count = min(WORD, channels - k * WORD)
                        _append(row, position, word, count)
                        position += count


@njit(nogil=True, cache=True)
def dense_windows(rows, image, images, shape, stride, dilation, starts, run, out):
    """Rows of bits -> windows of bits without gaps: out (planes, windows of all images, words).

    image, images: the first of them, and how many. shape: rows of padded maps, kernel height,
    window rows, window columns. stride: rows, and bits, from a window to the next. dilation:
    rows from tap to tap. starts: bit offsets within a row of the pieces of `run` bits that make
    up one tap row of a window.
    """
    row_count, kernel, high, wide = shape
    words, pieces = out.shape[2], len(starts)
    if words == 1:
        mask = _ones(run)
        for a in range(rows.shape[0]):
            for n in range(images):
                for wy in range(high):
                    window = out[a, (n * high + wy) * wide : (n * high + wy + 1) * wide, 0]
                    window[:] = 0
                    for ky in range(kernel):
                        row = rows[a, (image + n) * row_count + wy * stride[0] + ky * dilation]
                        for s in range(pieces):
                            to = np.uint64((ky * pieces + s) * run)
                            for wx in range(wide):
                                window[wx] |= _cut(row, wx * stride[1] + starts[s], mask) << to
        return
    for a in range(rows.shape[0]):
        for n in range(images):
            for wy in range(high):
                for wx in range(wide):
                    window = out[a, (n * high + wy) * wide + wx]
                    window[:] = 0
                    for ky in range(kernel):
                        row = rows[a, (image + n) * row_count + wy * stride[0] + ky * dilation]
                        for s in range(pieces):
                            start = wx * stride[1] + starts[s]
                            to = (ky * pieces + s) * run
                            for done in range(0, run, WORD):
                                count = min(WORD, run - done)
                                piece = _cut(row, start + done, _ones(count))
                                _append(window, to + done, piece, count)


@njit(nogil=True, cache=True)
def word_windows(planes, image, images, pixels, tap_pixel, pad_words, out):
    """Packed maps -> windows of whole words: out (planes, windows of all images, taps * words).

    image, images: the first of them, and how many; pixels: of one. tap_pixel: (windows, taps)
    pixel of the image, -1 for padding.
    """
    words = planes.shape[2]
    windows, taps = tap_pixel.shape
    for a in range(planes.shape[0]):
        for n in range(images):
            base = (image + n) * pixels
            for v in range(windows):
                window = out[a, n * windows + v]
                for t in range(taps):
                    pixel = tap_pixel[v, t]
                    if pixel < 0:
                        for k in range(words):
                            window[t * words + k] = pad_words[a, k]
                    else:
                        for k in range(words):
                            window[t * words + k] = planes[a, base + pixel, k]


@njit(nogil=True, cache=True)
def pool_bits(planes, images, pixels, tap_pixel, out):
    """OR of the pixels under each window: out (vectors, words) of planes (vectors, words)."""
    words = planes.shape[1]
    windows, taps = tap_pixel.shape
    for n in range(images):
        for v in range(windows):
            for k in range(words):
                word = np.uint64(0)
                for t in range(taps):
                    if tap_pixel[v, t] >= 0:
                        word |= planes[n * pixels + tap_pixel[v, t], k]
                out[n * windows + v, k] = word


@njit(nogil=True, cache=True)
def pool_numbers(numbers, tap_pixel, is_sum, lowest, out):
    """Greatest or sum of the pixels under each window: int64 (images, pixels, channels)."""
    for n in range(numbers.shape[0]):
        for v in range(len(tap_pixel)):
            acc = out[n, v]
            acc[:] = 0 if is_sum else lowest
            for t in range(tap_pixel.shape[1]):
                if tap_pixel[v, t] < 0:
                    continue
                x = numbers[n, tap_pixel[v, t]]
                for c in range(len(acc)):
                    acc[c] = acc[c] + x[c] if is_sum else max(acc[c], x[c])


@njit(nogil=True, cache=True)
def join_channels(planes, channels, first, out):
    """Append the channels of packed pixels to those of out, from channel `first` on."""
    for a in range(planes.shape[0]):
        for n in range(planes.shape[1]):
            for k in range(planes.shape[2]):
                count = min(WORD, channels - k * WORD)
                _append(out[a, n], first + k * WORD, planes[a, n, k], count)
