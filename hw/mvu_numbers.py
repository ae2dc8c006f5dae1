# SPDX-License-Identifier: BSD-2-Clause
"""What the memories of a MatrixVectorUnit hold, and what it computes, in plain NumPy."""

import numpy as np

from xnorforge.hw.border import window_borders
from xnorforge.hw.geometry import WindowMap

__all__ = ["MvuNumbers"]


class MvuNumbers:
    """The part of an `MvuConfig` that turns weights and thresholds into words."""

    rows: int
    columns: int
    input_kind: str
    input_bits: int
    pe: int
    simd: int
    windows: WindowMap | None
    sets: int
    coefficients: tuple[int, ...]
    nf: int
    sf: int
    planes: int
    borders: int
    vectors: int
    scale: int
    preset_bits: int
    has_parity: bool
    offset_high: int

    def weight_signs(self, weights: np.ndarray) -> np.ndarray:
        """Weights (sets * rows, columns) -> planes of ±1, int8 (planes, sets * rows, columns).

        Raises
        ------
        ValueError
            A weight that no planes give.
        """
        rest = weights.astype(np.int64) * self.scale
        planes = []
        for coefficient in self.coefficients:
            sign = np.where(rest > 0, 1, -1).astype(np.int8)
            planes.append(sign)
            rest = rest - coefficient * sign.astype(np.int64)
        if rest.any():
            raise ValueError(
                f"Weights from {weights.min()} to {weights.max()} are no sums of "
                f"±{', ±'.join(map(str, self.coefficients))}{' halved' * self.halved}"
            )
        return np.stack(planes)

    def weight_words(self, weights: np.ndarray) -> list[int]:
        """Weights (sets * rows, columns) -> words of the weight store.

        Word `((set * NF + nf) * planes + plane) * SF + sf`; dead lanes and rows: 1.
        """
        padded = np.ones(
            (self.planes, self.sets, self.nf * self.pe, self.sf * self.simd), dtype=np.uint8
        )
        signs = self.weight_signs(weights).reshape(self.planes, self.sets, self.rows, self.columns)
        padded[:, :, : self.rows, : self.columns] = signs > 0
        tiles = padded.reshape(self.planes, self.sets, self.nf, self.pe, self.sf, self.simd)
        words = tiles.transpose(1, 2, 0, 4, 3, 5).reshape(-1, self.pe * self.simd)
        packed = np.packbits(words, axis=1, bitorder="little")
        return [int.from_bytes(word.tobytes(), "little") for word in packed]

    def presets(
        self,
        weights: np.ndarray,
        thresholds: np.ndarray | None,
        offsets: np.ndarray | None = None,
    ) -> np.ndarray:
        """Start values of the accumulator, int64 (borders, sets * rows).

        thresholds: (rows,) of all sets, or (borders, 1, rows); offsets: (borders, rows), added to
        dots that go out. For bit inputs half of the start value, its lowest bit kept only with
        `has_parity`.
        """
        shift = np.zeros((self.borders, len(weights)), dtype=np.int64)
        if thresholds is not None:
            shift -= self._bank(thresholds)
        if offsets is not None:
            if int(abs(offsets).max()) > self.offset_high:
                raise ValueError(f"Offsets exceed the bound of {self.offset_high}")
            shift += offsets
        total = self.columns * sum(self.coefficients)
        if self.input_kind == "bit":
            doubled = self.scale * shift - total
            return doubled if self.has_parity else doubled >> 1
        sums = self.scale * weights.astype(np.int64).sum(axis=1)
        constant = -((1 << self.input_bits) - 1) * ((total - sums) // 2)
        if self.input_kind == "int":
            constant -= (1 << (self.input_bits - 1)) * sums
        return self.scale * shift + constant

    def _bank(self, thresholds: np.ndarray) -> np.ndarray:
        """Thresholds as (borders or 1, rows of all sets)."""
        levels = thresholds.shape[-2] if thresholds.ndim > 1 else 1
        if levels != 1:
            raise ValueError(f"The engine compares with one threshold a row, not {levels}")
        return thresholds.reshape(-1, self.sets * self.rows)

    def preset_words(
        self,
        weights: np.ndarray,
        thresholds: np.ndarray | None,
        offsets: np.ndarray | None = None,
    ) -> list[int]:
        """Words of the preset store: word `(border * sets + set) * NF + nf`.

        PE `p` in bits `p * preset_bits` up.
        """
        mask = (1 << self.preset_bits) - 1
        presets = self.presets(weights, thresholds, offsets)
        padded = np.zeros((self.borders * self.sets, self.nf * self.pe), dtype=np.int64)
        padded[:, : self.rows] = presets.reshape(-1, self.rows)
        return [
            sum((int(value) & mask) << p * self.preset_bits for p, value in enumerate(word))
            for word in padded.reshape(-1, self.pe)
        ]

    def reference(
        self,
        vectors: np.ndarray,
        weights: np.ndarray,
        thresholds: np.ndarray | None,
        offsets: np.ndarray | None = None,
    ) -> np.ndarray:
        """Vectors (N, columns) from an image's first on -> output bits or dots (N, rows).

        Vectors of "bit" are 0/1; those of a window follow each other, one a set.
        """
        x = vectors.astype(np.int64)
        if self.input_kind == "bit":
            x = 2 * x - 1
        matrices = weights.astype(np.int64).reshape(self.sets, self.rows, self.columns)
        dots = np.empty((len(x), self.rows), dtype=np.int64)
        for index, matrix in enumerate(matrices):
            dots[index :: self.sets] = x[index :: self.sets] @ matrix.T
        places = np.arange(len(x)) % self.vectors
        border, which = window_borders(self.windows)[places // self.sets], places % self.sets
        if thresholds is not None:
            bank = np.broadcast_to(self._bank(thresholds), (self.borders, len(weights)))
            levels = bank.reshape(self.borders, self.sets, self.rows)[border, which]
            return (dots >= levels).astype(np.int64)
        if offsets is not None:
            dots += offsets.reshape(self.borders, self.sets, self.rows)[border, which]
        return dots
