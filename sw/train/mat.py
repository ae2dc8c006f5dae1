# SPDX-License-Identifier: BSD-2-Clause
"""Numeric arrays of a MATLAB file, version 5, which SVHN comes in.

file = 128 bytes, then elements;  element = type u32, length u32, data padded to 8 bytes,
or, where the type's upper half is not 0, its length there and at most 4 bytes of data.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from xnorforge.sw.errors import TrainingError

__all__ = ["read_mat"]

HEADER_BYTES = 128
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
MATRIX, COMPRESSED = 14, 15
NUMERIC_CLASSES = range(6, 14)  # double, single, int8 ... uint32


def read_mat(path: Path) -> dict[str, np.ndarray]:
    """Real numeric arrays by name, axes as MATLAB has them. Raises TrainingError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error})") from error
    if content[:10] != b"MATLAB 5.0" or content[126:128] not in (b"IM", b"MI"):
        raise TrainingError(f"{path}: not a MATLAB file of version 5")
    order = "<" if content[126:128] == b"IM" else ">"
    arrays: dict[str, np.ndarray] = {}
    try:
        for kind, data in _elements(content[HEADER_BYTES:], order):
            if kind == COMPRESSED:
                kind, data = next(_elements(zlib.decompress(data), order))
            if kind == MATRIX:
                arrays.update(_matrix(data, order))
    except (struct.error, zlib.error, ValueError, KeyError, StopIteration) as error:
        raise TrainingError(f"{path}: damaged MATLAB file ({error})") from error
    return arrays


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # small: both in one word
            kind, size, at = kind & 0xFFFF, kind >> 16, at - 4
            padded = 4
        else:
            padded = size if kind == COMPRESSED else -(-size // 8) * 8
        if at + 8 + size > len(data):
            raise ValueError(f"an element of {size} bytes is cut off")
        yield kind, data[at + 8 : at + 8 + size]
        at += 8 + padded


def _matrix(data: bytes, order: str) -> dict[str, np.ndarray]:
    """One array by its name; nothing for cells, structures and other kinds."""
    (_, flags), (_, sizes), (_, name), *rest = _elements(data, order)
    if struct.unpack_from(f"{order}I", flags)[0] & 0xFF not in NUMERIC_CLASSES or not rest:
        return {}
    kind, numbers = rest[0]
    shape = np.frombuffer(sizes, f"{order}i4")
    array = np.frombuffer(numbers, order + NUMBERS[kind]).reshape(shape, order="F")
    return {name.decode("latin-1"): array.astype(array.dtype.newbyteorder("="))}
