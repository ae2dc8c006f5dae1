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

from xnorforge.hw.folding import Folding
from xnorforge.hw.geometry import WindowMap
from xnorforge.hw.input_buffer import InputBufferConfig
from xnorforge.hw.mvu_numbers import MvuNumbers
from xnorforge.hw.processing_element import PeConfig
from xnorforge.hw.result_store import ResultStoreConfig
from xnorforge.hw.store import StoreConfig
from xnorforge.hw.structures import engine_for

__all__ = ["MvuConfig"]


@dataclass(frozen=True)
class MvuConfig(Folding, MvuNumbers):
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
    reuse : int
        Windows worked on at once, each by rows of its own, with the same weight words.
    weight_hops : int
        More registers behind the weights' block RAMs, as in `StoreConfig`.
    slots : int
        Models that weights and presets hold, as in `StoreConfig`.
    share, turn : int, int
        Of an SPRAM that gives its words in turn: a step can be issued every `share` cycles only,
        such that the weights are read in turn `turn` (`hw.shared_spram`).

    Raises
    ------
    ValueError
        A fold outside its range; coefficients that do not halve down to 1; a turn that the share
        has not.
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
    reuse: int = 1
    weight_hops: int = 0
    slots: int = 1
    share: int = 1
    turn: int = 0

    def __post_init__(self) -> None:
        for name, value, limit in (
            ("PE", self.pe, self.rows),
            ("SIMD", self.simd, self.columns),
            ("PL", self.pl, self.input_bits),
            ("Reuse", self.reuse, self.window_count),
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
        if not 0 <= self.turn < self.share:
            raise ValueError(f"Turn must be from 0 to {self.share - 1}, not {self.turn!r}")

    # --- folding ---------------------------------------------------------------------------

    @property
    def planes(self) -> int:  # type: ignore[override]  # a field of other foldings
        """Planes of a weight."""
        return len(self.coefficients)

    @property
    def interval(self) -> int:
        """Cycles per vector, of `reuse` windows at once."""
        return self.fold_cycles

    @property
    def image_cycles(self) -> int:
        """Engine cycles an image."""
        return self.batches * self.sets * self.fold_cycles

    @property
    def result_steps(self) -> int:
        """Steps per output beat."""
        return self.sf * self.groups * self.planes

    @property
    def result_cycles(self) -> int:
        """Engine cycles per output beat."""
        return self.result_steps * self.share

    @property
    def window_count(self) -> int:
        """Windows an image, each a vector a set."""
        return 1 if self.windows is None else self.windows.height * self.windows.width

    @property
    def vectors(self) -> int:  # type: ignore[override]
        """Vectors an image."""
        return self.sets * self.window_count

    @property
    def batches(self) -> int:
        """Batches an image, each of `reuse` windows; the last may be short."""
        return -(-self.window_count // self.reuse)

    @property
    def result_words(self) -> int:
        """Result words of a batch of windows."""
        return self.sets * self.nf

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
            hops=self.weight_hops,
            slots=self.slots,
            share=self.share,
        )

    @property
    def preset_config(self) -> StoreConfig:
        return StoreConfig(
            width=self.pe * self.preset_bits,
            depth=self.borders * self.sets * self.nf,
            kind=self.preset_store,
            family=self.family,
            # The windows of a batch lie in border classes of their own.
            readers=self.reuse if self.borders > 1 else 1,
            slots=self.slots,
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
            lanes=self.reuse,
            windows=self.window_count,
            vectors=self.sets,
        )

    @property
    def buffer_latency(self) -> int:
        """Cycles from a read of the buffer to the engine's x."""
        return self._buffer(self.sf * self.sets).latency

    @property
    def result_config(self) -> ResultStoreConfig:
        """What gives the results of several windows in their order."""
        return ResultStoreConfig(
            width=self.pe * (self.score_bits if self.scores else 1),
            words=self.result_words,
            lanes=self.reuse,
            windows=self.window_count,
            depth=self.credits,
            store=self.buffer_store,
            family=self.family,
        )

    @property
    def issue_latency(self) -> int:
        """Cycles from a step's issue to its x and w at the engine."""
        preset_lead = self.preset_config.latency - self.pe_config.preset_latency
        return max(self.weight_config.latency, self.buffer_latency, preset_lead)

    @property
    def issue_turn(self) -> int:
        """The turn in which a step of a shared SPRAM is issued, so that it is read in its own."""
        return (self.turn - (self.issue_latency - self.weight_config.latency)) % self.share

    @property
    def read_delay(self) -> int:
        """Cycles from a step's issue to its read of the buffer; the slot is free after it."""
        return self.issue_latency - self.buffer_latency

    @property
    def latency(self) -> int:
        """Cycles from the issue of a result's last step until the result is seen on `o`.

        Of the first window's result, where several are worked on at once.
        """
        return self.result_latency + (1 if self.reuse == 1 else 2)

    @property
    def result_latency(self) -> int:
        """Cycles from the issue of a result's last step until the result leaves the rows."""
        return self.issue_latency + self.pe_config.latency

    @property
    def buffer_depth(self) -> int:
        """Beats: two vectors where beats are replayed; at least what covers a slot's turnaround.

        Of several windows at once: two batches.
        """
        passes = self.nf * self.planes
        turnaround = -(-(self.read_delay + 3) // (self.groups * passes)) + 1
        if passes == 1 and self.reuse == 1:
            return turnaround
        span = self.sf * (self.sets if self.reuse > 1 else 1)
        return max(2 * span, span + turnaround)

    @property
    def credits(self) -> int:
        """Depth of the output queue: hides the pipeline at one result per `result_cycles`.

        Of several windows at once: of the result store, which holds a batch's words until its
        last window's leave; in block RAM two batches, which take no more of them.
        """
        hidden = -(-(self.latency + 1) // self.result_cycles)
        if self.reuse == 1:
            return hidden
        words = self.result_words
        if self.buffer_store == "block":
            return words + max(words, hidden)
        return words + hidden + min(words, -(-(self.reuse - 2) * words // self.result_cycles))
