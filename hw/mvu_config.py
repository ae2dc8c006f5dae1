# SPDX-License-Identifier: BSD-2-Clause
"""MvuConfig: shape, folding, number ranges and contents of a MatrixVectorUnit.

A weight is a weighed sum of planes of ±1: `w = sum_j c_j s_j`, or half of it for `halved` ones.
The engine counts, for each plane, the bits of input planes that match: `S = sum_j c_j sum_a 2^a
matches(x_a, s_j)`. With C the sum of the coefficients, K columns, B input bits and h = 2 for
halved weights, 1 otherwise:

    h dot = 2 S - K C                                     for bits
    h dot = S - (2^B - 1) (K C - h sum(w)) / 2            for uint
    h dot = S - (2^B - 1) (K C - h sum(w)) / 2 - 2^(B - 1) h sum(w)     for int (offset binary)

so that a threshold, an offset and the constants above are one start value of the accumulator.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from xnorforge.hw.border import window_borders
from xnorforge.hw.folding import Folding
from xnorforge.hw.geometry import WindowMap
from xnorforge.hw.input_buffer import InputBufferConfig
from xnorforge.hw.processing_element import PeConfig
from xnorforge.hw.store import StoreConfig
from xnorforge.hw.structures import engine_for

__all__ = ["MvuConfig"]


@dataclass(frozen=True)
class MvuConfig(Folding):
    """Shape, folding and memories of one MatrixVectorUnit.

    Parameters
    ----------
    rows, columns : int
        Shape of the weight matrix, of one set.
    input_kind, input_bits : str, int
        "bit", "uint" or "int" elements of that many bits.
    pe, simd, pl : int
        Rows, columns and input bit-planes worked on in one step.
    scores : bool
        Output the dot products; otherwise one threshold bit a row.
    family : str
        "ice40", "ecp5" or "gowin": decides the memories' shapes and so their latencies.
    weight_store, preset_store, buffer_store : str
        Kinds of `hw.store`; the buffer's is "block" or "lut".
    structure, pipeline : str
        The popcounts', as in `PopcountConfig`; "" for the measured choice (`hw.structures`).
    windows : WindowMap or None
        The windows of an image, each one vector a set; their border classes have presets of their
        own. None: one vector a set and image.
    sets : int
        Weight sets (the groups of a convolution), taken in turn vector by vector.
    coefficients : tuple of int
        What each plane of the weights counts, in descending order: each is twice the next or the
        same, the last is 1.
    halved : bool
        The weighed sum of planes is twice the weight.
    offset_high : int
        Bound on |offset| added to dots that go out.

    Raises
    ------
    ValueError
        A fold outside its range; coefficients that do not halve down to 1.
    """

    rows: int
    columns: int
    input_kind: str
    input_bits: int
    pe: int
    simd: int
    pl: int
    scores: bool
    family: str = "ecp5"
    weight_store: str = "block"
    preset_store: str = "lut"
    buffer_store: str = "lut"
    structure: str = ""
    pipeline: str = ""
    windows: WindowMap | None = None
    sets: int = 1
    coefficients: tuple[int, ...] = (1,)
    halved: bool = False
    offset_high: int = 0

    def __post_init__(self) -> None:
        for name, value, limit in (
            ("PE", self.pe, self.rows),
            ("SIMD", self.simd, self.columns),
            ("PL", self.pl, self.input_bits),
        ):
            if not 1 <= value <= limit:
                raise ValueError(f"{name} must be between 1 and {limit}, not {value!r}")
        if self.input_kind not in ("bit", "uint", "int"):
            raise ValueError(f"Input kind must be bit, uint or int, not {self.input_kind!r}")
        if self.buffer_store not in ("block", "lut"):
            raise ValueError(f"Buffer store must be block or lut, not {self.buffer_store!r}")
        if self.sets < 1:
            raise ValueError(f"Weight sets must be at least 1, not {self.sets!r}")
        steps = all(a in (b, 2 * b) for a, b in pairwise(self.coefficients))
        if not steps or self.coefficients[-1:] != (1,):
            raise ValueError(f"Coefficients must halve down to 1, not {self.coefficients!r}")
        if self.halved and sum(self.coefficients) % 2:
            raise ValueError(f"Halved weights need an even sum of {self.coefficients!r}")
        if self.offset_high < 0 or (self.offset_high and not self.scores):
            raise ValueError("Offsets are for dot products that go out, and have a bound >= 0")

    # --- folding ---------------------------------------------------------------------------

    @property
    def planes(self) -> int:  # type: ignore[override]  # a field of other foldings
        """Planes of a weight."""
        return len(self.coefficients)

    @property
    def interval(self) -> int:
        """Cycles per vector."""
        return self.fold_cycles

    @property
    def result_steps(self) -> int:
        """Steps per output beat."""
        return self.sf * self.groups * self.planes

    @property
    def vectors(self) -> int:
        """Vectors an image."""
        windows = self.windows
        return self.sets * (1 if windows is None else windows.height * windows.width)

    @property
    def borders(self) -> int:
        """Border classes, each with presets of its own."""
        return 1 if self.windows is None else self.windows.borders

    @property
    def doublings(self) -> int:
        """Planes before which the accumulator doubles (Horner's rule)."""
        return sum(a != b for a, b in pairwise(self.coefficients))

    # --- number ranges ---------------------------------------------------------------------

    @property
    def scale(self) -> int:
        """What the weighed sum of a weight's planes is divided by."""
        return 2 if self.halved else 1

    @property
    def dot_high(self) -> int:
        """Bound on |dot|, without offsets."""
        largest = 1
        if self.input_kind == "uint":
            largest = (1 << self.input_bits) - 1
        elif self.input_kind == "int":
            largest = 1 << (self.input_bits - 1)
        return self.columns * largest * (sum(self.coefficients) // self.scale)

    @property
    def score_bits(self) -> int:
        """Width of a signed score."""
        return (self.dot_high + self.offset_high).bit_length() + 1

    @property
    def acc_width(self) -> int:
        """Width of the accumulator.

        It holds `scale * (dot - threshold)`, half of it rounded down for bit inputs, with
        thresholds from -dot_high to dot_high + 1: for bits at least -(scale * dot_high + 1), else
        at least -scale * (2 * dot_high + 1). Scores with their offset fit as well.
        """
        scale, score_high = self.scale, self.dot_high + self.offset_high
        if self.input_kind == "bit":
            return max(scale * self.dot_high + 1, score_high).bit_length() + 1
        return (scale * max(2 * self.dot_high + 1, score_high)).bit_length() + 1

    @property
    def has_parity(self) -> bool:
        """Whether the lowest bit of the scores differs from row to row: it is in the preset."""
        return self.offset_high > 0 and self.input_kind == "bit" and not self.halved

    @property
    def preset_bits(self) -> int:
        """Bits of one row's preset."""
        return self.acc_width + self.has_parity

    # --- parts -----------------------------------------------------------------------------

    @property
    def pe_config(self) -> PeConfig:
        return PeConfig(
            simd=self.simd,
            acc_width=self.acc_width,
            bits=self.input_bits,
            planes=self.pl,
            structure=self.structure or engine_for(self.family, self.simd).structure,
            pipeline=self.pipeline or engine_for(self.family, self.simd).pipeline,
            # Product and ROM of constant weights are one table as long as the ROM is shallow.
            literals=1 if self.weight_store == "const" else 2,
            doubles=self.doublings > 0,
        )

    @property
    def weight_config(self) -> StoreConfig:
        return StoreConfig(
            width=self.pe * self.simd,
            depth=self.sets * self.nf * self.planes * self.sf,
            kind=self.weight_store,
            family=self.family,
        )

    @property
    def preset_config(self) -> StoreConfig:
        return StoreConfig(
            width=self.pe * self.preset_bits,
            depth=self.borders * self.sets * self.nf,
            kind=self.preset_store,
            family=self.family,
        )

    @property
    def buffer_config(self) -> InputBufferConfig:
        return self._buffer(self.buffer_depth)

    def _buffer(self, depth: int) -> InputBufferConfig:
        return InputBufferConfig(
            columns=self.columns,
            simd=self.simd,
            element_bits=self.input_bits,
            is_signed=self.input_kind == "int",
            pl=self.pl,
            depth=depth,
            store=self.buffer_store,
            family=self.family,
        )

    @property
    def buffer_latency(self) -> int:
        """Cycles from a read of the buffer to the engine's x."""
        return self._buffer(1).latency

    @property
    def issue_latency(self) -> int:
        """Cycles from a step's issue to its x and w at the engine."""
        preset_lead = self.preset_config.latency - self.pe_config.preset_latency
        return max(self.weight_config.latency, self.buffer_latency, preset_lead)

    @property
    def read_delay(self) -> int:
        """Cycles from a step's issue to its read of the buffer; the slot is free after it."""
        return self.issue_latency - self.buffer_latency

    @property
    def latency(self) -> int:
        """Cycles from the issue of a result's last step until the result is seen on `o`."""
        return self.issue_latency + self.pe_config.latency + 1

    @property
    def buffer_depth(self) -> int:
        """Beats: two vectors where beats are replayed; at least what covers a slot's turnaround."""
        passes = self.nf * self.planes
        turnaround = -(-(self.read_delay + 3) // (self.groups * passes)) + 1
        if passes == 1:
            return turnaround
        return max(2 * self.sf, self.sf + turnaround)

    @property
    def credits(self) -> int:
        """Depth of the output queue: hides the pipeline at one result per `result_steps`."""
        return -(-(self.latency + 1) // self.result_steps)

    # --- contents --------------------------------------------------------------------------

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
