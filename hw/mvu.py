# SPDX-License-Identifier: BSD-2-Clause
"""MatrixVectorUnit: a folded binary matrix-vector product with thresholds.

    i --> buffer --> x ---------+--> PE 0 --+
             |     (weights) w -+--> PE ... +--> queue --> o
         controller             +--> PE P-1 +
             |                        ^
             +--> weight address, preset address

The controller walks `for nf: for sf: for plane group`, one *step* a cycle (FINN's folding: Umuroglu
et al., "FINN", 2017, section 4.2). A step is *issued* when its input beat is there and, for the
last step of a result, when the output queue has room for it (a *credit*), so that the pipeline
behind the controller never stops.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorforge.hw.folding import Folding
from xnorforge.hw.input_buffer import InputBuffer, InputBufferConfig
from xnorforge.hw.processing_element import PeConfig, ProcessingElement
from xnorforge.hw.store import StoreConfig
from xnorforge.hw.stream import Queue
from xnorforge.hw.structures import engine_for
from xnorforge.hw.tally import Cycle, Tally

__all__ = ["MatrixVectorUnit", "MvuConfig"]


@dataclass(frozen=True)
class MvuConfig(Folding):
    """Shape, folding and memories of one MatrixVectorUnit.

    Parameters
    ----------
    rows, columns : int
        Shape of the weight matrix.
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

    Raises
    ------
    ValueError
        A fold outside its range.
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

    # --- folding ---------------------------------------------------------------------------

    @property
    def interval(self) -> int:
        """Cycles per vector."""
        return self.fold_cycles

    @property
    def result_steps(self) -> int:
        """Steps per output beat."""
        return self.sf * self.groups

    # --- number ranges ---------------------------------------------------------------------

    @property
    def dot_high(self) -> int:
        """Bound on |dot|."""
        if self.input_kind == "bit":
            return self.columns
        largest = (1 << self.input_bits) - 1
        if self.input_kind == "int":
            largest = 1 << (self.input_bits - 1)
        return self.columns * largest

    @property
    def score_bits(self) -> int:
        """Width of a signed score."""
        return self.dot_high.bit_length() + 1

    @property
    def acc_width(self) -> int:
        """Width of the accumulator: holds `dot - threshold` (half of it for bit inputs)."""
        if self.input_kind == "bit":
            return (self.columns + 1).bit_length() + 1
        return (2 * self.dot_high + 1).bit_length() + 1

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
        )

    @property
    def weight_config(self) -> StoreConfig:
        return StoreConfig(
            width=self.pe * self.simd,
            depth=self.nf * self.sf,
            kind=self.weight_store,
            family=self.family,
        )

    @property
    def preset_config(self) -> StoreConfig:
        return StoreConfig(
            width=self.pe * self.acc_width,
            depth=self.nf,
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
        turnaround = -(-(self.read_delay + 3) // (self.groups * self.nf)) + 1
        if self.nf == 1:
            return turnaround
        return max(2 * self.sf, self.sf + turnaround)

    @property
    def credits(self) -> int:
        """Depth of the output queue: hides the pipeline at one result per `result_steps`."""
        return -(-(self.latency + 1) // self.result_steps)

    # --- contents --------------------------------------------------------------------------

    def weight_words(self, weights: np.ndarray) -> list[int]:
        """±1 matrix (rows, columns) -> words of the weight store (dead lanes and rows: 1)."""
        padded = np.ones((self.nf * self.pe, self.sf * self.simd), dtype=np.uint8)
        padded[: self.rows, : self.columns] = weights > 0
        tiles = padded.reshape(self.nf, self.pe, self.sf, self.simd).transpose(0, 2, 1, 3)
        packed = np.packbits(
            tiles.reshape(self.nf * self.sf, self.pe * self.simd), axis=1, bitorder="little"
        )
        return [int.from_bytes(word.tobytes(), "little") for word in packed]

    def presets(self, weights: np.ndarray, thresholds: np.ndarray | None) -> list[int]:
        """Start value of the accumulator for each row, `offset - threshold`."""
        values = []
        negative_counts = (weights < 0).sum(axis=1)
        sums = weights.astype(np.int64).sum(axis=1)
        for row in range(self.rows):
            if self.input_kind == "bit":
                # dot = 2 * matches - columns, and `matches >= ceil((threshold + columns) / 2)`
                threshold = 0 if thresholds is None else int(thresholds[row])
                values.append(-((threshold + self.columns + 1) // 2))
                continue
            offset = -((1 << self.input_bits) - 1) * int(negative_counts[row])
            if self.input_kind == "int":
                offset -= (1 << (self.input_bits - 1)) * int(sums[row])
            values.append(offset - (0 if thresholds is None else int(thresholds[row])))
        return values

    def preset_words(self, weights: np.ndarray, thresholds: np.ndarray | None) -> list[int]:
        """Words of the preset store: PE `p` in bits `p * acc_width` up."""
        mask = (1 << self.acc_width) - 1
        presets = self.presets(weights, thresholds)
        presets += [0] * (self.nf * self.pe - self.rows)
        words = []
        for nf in range(self.nf):
            word = 0
            for p in range(self.pe):
                word |= (presets[nf * self.pe + p] & mask) << (p * self.acc_width)
            words.append(word)
        return words

    def reference(
        self, vectors: np.ndarray, weights: np.ndarray, thresholds: np.ndarray | None
    ) -> np.ndarray:
        """Vectors (N, columns), 0/1 for "bit" -> output bits or dots (N, rows)."""
        x = vectors.astype(np.int64)
        if self.input_kind == "bit":
            x = 2 * x - 1
        dots = x @ weights.astype(np.int64).T
        return dots if thresholds is None else (dots >= thresholds).astype(np.int64)


class MatrixVectorUnit(wiring.Component):
    """Folded binary matrix-vector product; the weights and presets live in stores outside.

    Throughput: one vector every NF x SF x G cycles.  Latency: `config.latency` cycles from the
    issue of a result's last step to the result on `o`; a beat taken in cycle t is issued from
    t + 1 on.  Cost: PE engines (see hw/processing_element.py), the input buffer, about 40 LUT4 of
    control.  Back-pressure: stalls before a result that has no room in the output queue, never
    drops.

    Parameters
    ----------
    config : MvuConfig

    Members
    -------
    i : In(stream of SIMD x input_bits)
        Beats of `simd` elements, lane 0 in the low bits; SF beats a vector.
    o : Out(stream of PE or PE x score_bits)
        Beats of `pe` results; NF beats a vector.
    weight_address, preset_address : Out
        To the stores, whose `data` comes back after their latency.
    weight_data, preset_data : In
    """

    def __init__(self, *, config: MvuConfig):
        self.config = c = config
        o_shape = data.ArrayLayout(signed(c.score_bits), c.pe) if c.scores else unsigned(c.pe)
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(c.simd * c.input_bits))),
                "o": Out(stream.Signature(o_shape)),
                "weight_address": Out(ceil_log2(c.nf * c.sf)),
                "weight_data": In(c.pe * c.simd),
                "preset_address": Out(ceil_log2(c.nf)),
                "preset_data": In(c.pe * c.acc_width),
            }
        )

    def elaborate(self, platform):
        # The controller "issues" steps; everything behind it is a pipeline without a stall, whose
        # controls are the controller's own signals, delayed.
        c = self.config
        m = Module()

        # --- controller: counters of the next step to issue
        m.submodules.group = group = Cycle(count=c.groups)
        m.submodules.sf = sf = Cycle(count=c.sf)
        m.submodules.nf = nf = Cycle(count=c.nf)
        weight_address = Signal(range(c.nf * c.sf))
        # `fill`: beats written, first step not yet issued.
        m.submodules.fill = fill = Tally(limit=c.buffer_depth)
        m.submodules.credit = credit = Tally(limit=c.credits, init=c.credits)

        first_touch = nf.first & group.first
        completes = sf.last & group.last
        issue = Signal()
        m.d.comb += [
            issue.eq((~first_touch | fill.some) & (~completes | credit.some)),
            group.step.eq(issue),
            sf.step.eq(issue & group.last),
            nf.step.eq(issue & completes),
        ]
        with m.If(sf.step):
            m.d.sync += weight_address.eq(Mux(sf.last & nf.last, 0, weight_address + 1))

        # --- buffer: written by the stream, read `read_delay` after issue, freed by the last pass
        m.submodules.buffer = buffer = InputBuffer(config=c.buffer_config)
        wiring.connect(m, wiring.flipped(self.i), buffer.i)
        delay = c.read_delay
        m.d.comb += [
            buffer.advance.eq(_delay(m, sf.step, delay, "advance")),
            buffer.pass_end.eq(_delay(m, sf.last, delay, "pass_end")),
            buffer.release.eq(_delay(m, sf.step & nf.last, delay, "release")),
            buffer.group.eq(_delay(m, group.value, delay, "group_at_read")),
        ]
        m.d.comb += [fill.up.eq(self.i.valid & self.i.ready), fill.down.eq(issue & first_touch)]

        # --- stores
        m.d.comb += self.weight_address.eq(
            _delay(m, weight_address, c.issue_latency - c.weight_config.latency, "weight_address")
        )
        preset_delay = c.issue_latency + c.pe_config.preset_latency - c.preset_config.latency
        m.d.comb += self.preset_address.eq(_delay(m, nf.value, preset_delay, "preset_address"))

        # --- engines
        control_delay = c.issue_latency + c.pe_config.control_latency
        enable = _delay(m, issue, control_delay, "enable")
        first = _delay(m, sf.first, control_delay, "first")
        group_first = _delay(m, group.first, control_delay, "group_first")
        group_end = _delay(m, group.last, control_delay, "group_end")
        results = []
        for p in range(c.pe):
            m.submodules[f"pe{p}"] = pe = ProcessingElement(config=c.pe_config)
            m.d.comb += [
                pe.x.eq(buffer.x),
                pe.w.eq(self.weight_data[p * c.simd : (p + 1) * c.simd]),
                pe.enable.eq(enable),
                pe.first.eq(first),
                pe.preset.eq(self.preset_data[p * c.acc_width : (p + 1) * c.acc_width].as_signed()),
            ]
            m.d.comb += [pe.group_first.eq(group_first), pe.group_last.eq(group_end)]
            results.append(pe.o)

        # --- output queue, whose room is counted in credits
        finished = _delay(m, issue & completes, c.issue_latency + c.pe_config.latency, "finished")
        m.submodules.queue = queue = Queue(shape=self.o.payload.shape(), depth=c.credits)
        m.d.comb += [
            queue.i.payload.eq(self._results(results)),
            queue.i.valid.eq(finished),
        ]
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        m.d.comb += [credit.up.eq(self.o.valid & self.o.ready), credit.down.eq(nf.step)]
        return m

    def _results(self, accumulators: Sequence[Value]) -> Value:
        """Accumulators -> output lanes."""
        c = self.config
        if not c.scores:
            return Cat(~acc[-1] for acc in accumulators)
        if c.input_kind != "bit":
            return Cat(acc[: c.score_bits] for acc in accumulators)
        odd = C(c.columns & 1, 1)
        return Cat(Cat(odd, acc)[: c.score_bits] for acc in accumulators)


def _delay(m: Module, value, cycles: int, name: str) -> Value:
    """`value` as it was `cycles` cycles ago."""
    value = Value.cast(value)
    for age in range(1, cycles + 1):
        stage = Signal(value.shape(), name=f"{name}_{age}")
        m.d.sync += stage.eq(value)
        value = stage
    return value
