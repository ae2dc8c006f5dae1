# SPDX-License-Identifier: BSD-2-Clause
"""ArgMaxHead: the scores of a frame pass through, and the winner's index goes out with the last.

key[c] = scale[c] * score[c] + offset[c]        label = arg-max of key, first or last on a tie,
                                                or the highest c with key[c] >= 0, else 0
"""

from dataclasses import dataclass

import numpy as np
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorforge.hw.store import StoreConfig

__all__ = ["ArgMaxHead", "HeadConfig", "result_layout"]

SCALE_BITS = 16
OFFSET_BITS = 32


def result_layout(score_bits: int) -> data.StructLayout:
    """Payload of a result stream: one beat a class; `label` holds on the `last` beat."""
    return data.StructLayout({"score": signed(score_bits), "label": unsigned(16), "last": 1})


@dataclass(frozen=True)
class HeadConfig:
    """Shape and rule of an ArgMaxHead.

    Parameters
    ----------
    classes : int
        Scores a frame, 1 to 65,536.
    score_bits : int
        Width of a signed score.
    tie : str
        "first" or "last" of equal keys wins.
    affine : bool
        Whether keys are scores times a 16-bit scale plus a 32-bit offset, per class.
    family : str
        For the store of scales and offsets.
    rule : str
        "argmax", or "highest_bit": the highest class whose key is not negative, 0 where there is
        none (`tie` is not used).
    slots : int
        Models that the store holds.
    """

    classes: int
    score_bits: int
    tie: str = "first"
    affine: bool = False
    family: str = "ecp5"
    rule: str = "argmax"
    slots: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= 1 << 16:
            raise ValueError(f"Classes must be between 1 and 65536, not {self.classes!r}")
        if self.tie not in ("first", "last"):
            raise ValueError(f"Tie rule must be 'first' or 'last', not {self.tie!r}")
        if self.rule not in ("argmax", "highest_bit"):
            raise ValueError(f"Head rule must be 'argmax' or 'highest_bit', not {self.rule!r}")

    @property
    def interval(self) -> int:
        """Cycles a score: 1, or those of the store's read and the serial multiplication."""
        return self.store_wait + SCALE_BITS + 3 if self.affine else 1

    @property
    def latency(self) -> int:
        """Cycles from taking a score to its result beat."""
        return self.interval

    @property
    def store_wait(self) -> int:
        """Cycles a taken score waits for its scale and offset."""
        return self.store_config.latency - 1

    @property
    def key_bits(self) -> int:
        if not self.affine:
            return self.score_bits
        return max(self.score_bits + SCALE_BITS, OFFSET_BITS) + 1

    @property
    def store_config(self) -> StoreConfig:
        """The store of `scale` (low 16 bits) and `offset`, one word a class."""
        return StoreConfig(
            width=SCALE_BITS + OFFSET_BITS,
            depth=self.classes,
            kind="lut",
            family=self.family,
            slots=self.slots,
        )

    def words(self, scale: np.ndarray, offset: np.ndarray) -> list[int]:
        """Words of the store. Raises ValueError when a number does not fit."""
        for name, values, bits in (("scale", scale, SCALE_BITS), ("offset", offset, OFFSET_BITS)):
            low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
            if min(values) < low or max(values) > high:
                raise ValueError(f"Head {name} must lie in [{low}, {high}]")
        return [
            (int(s) & ((1 << SCALE_BITS) - 1)) | (int(o) & ((1 << OFFSET_BITS) - 1)) << SCALE_BITS
            for s, o in zip(scale, offset, strict=True)
        ]

    def reference(
        self,
        scores: list[int],
        scale: np.ndarray | None = None,
        offset: np.ndarray | None = None,
    ) -> int:
        """Label of one frame."""
        keys = [int(s) for s in scores]
        if self.affine:
            keys = [k * int(a) + int(b) for k, a, b in zip(keys, scale, offset, strict=True)]
        if self.rule == "highest_bit":
            return max((c for c, key in enumerate(keys) if key >= 0), default=0)
        best = max(keys)
        if self.tie == "first":
            return keys.index(best)
        return len(keys) - 1 - keys[::-1].index(best)


class ArgMaxHead(wiring.Component):
    """Arg-max over the scores of a frame, one score at a time.

    Throughput: one score every `config.interval` cycles.  Latency: `config.latency` cycles from
    score to result beat.  Cost: about 3 x key bits LUT4; with `affine` one adder of key bits more
    (serial shift-and-add multiplication, top bit first, no DSP).  Back-pressure: stalls.

    Members
    -------
    i : In(stream of signed score_bits)
    o : Out(stream of result_layout)
    address, data : to the store of scales and offsets; unused without `affine`.
    """

    def __init__(self, *, config: HeadConfig):
        self.config = c = config
        super().__init__(
            {
                "i": In(stream.Signature(signed(c.score_bits))),
                "o": Out(stream.Signature(result_layout(c.score_bits))),
                "address": Out(ceil_log2(c.classes)),
                "data": In(SCALE_BITS + OFFSET_BITS),
            }
        )

    def elaborate(self, platform):
        # A score is "judged" when its key is known: at once, or after the multiplication.
        c = self.config
        m = Module()
        index = Signal(range(c.classes))
        best_key = Signal(signed(c.key_bits))
        best_index = Signal(range(c.classes))
        key = Signal(signed(c.key_bits))
        score = Signal(signed(c.score_bits))
        judge = Signal()
        last = index == c.classes - 1

        if c.affine:
            self._multiply(m, key, score, judge, index)
        else:
            m.d.comb += [
                key.eq(self.i.payload),
                score.eq(self.i.payload),
                self.i.ready.eq(~self.o.valid | self.o.ready),
                judge.eq(self.i.valid & self.i.ready),
            ]

        if c.rule == "highest_bit":
            beats = key >= 0
        else:
            beats = key > best_key if c.tie == "first" else key >= best_key
        wins = (index == 0) | beats
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(judge):
            m.d.sync += [
                index.eq(Mux(last, 0, index + 1)),
                self.o.valid.eq(1),
                self.o.payload.score.eq(score),
                self.o.payload.last.eq(last),
                self.o.payload.label.eq(Mux(wins, index, best_index)),
            ]
            with m.If(wins):
                m.d.sync += [best_key.eq(key), best_index.eq(index)]
        return m

    def _multiply(self, m, key, score, judge, index) -> None:
        """`product = 2 * product ± score` over the scale's bits; the sign bit counts negative."""
        c = self.config
        held = Signal(signed(c.score_bits))
        product = Signal(signed(c.key_bits))
        scale = Signal(SCALE_BITS)
        busy = Signal()
        first_step = c.store_wait + 1  # at step `store_wait` the scale is loaded
        step = Signal(range(first_step + SCALE_BITS + 1))
        m.d.comb += [
            self.address.eq(index),
            score.eq(held),
            key.eq(product + self.data[SCALE_BITS:].as_signed()),
            self.i.ready.eq(~busy & (~self.o.valid | self.o.ready)),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [held.eq(self.i.payload), busy.eq(1), step.eq(0), product.eq(0)]
        addend = Mux(scale[-1], held, 0)
        doubled = (product << 1)[: c.key_bits].as_signed()
        with m.If(busy):
            m.d.sync += step.eq(step + 1)
            with m.If(step == first_step + SCALE_BITS):
                m.d.comb += judge.eq(1)
                m.d.sync += busy.eq(0)
            with m.Elif(step == first_step - 1):
                m.d.sync += scale.eq(self.data[:SCALE_BITS])
            with m.Else():
                m.d.sync += scale.eq(scale << 1)
                m.d.sync += product.eq(Mux(step == first_step, doubled - addend, doubled + addend))
