# SPDX-License-Identifier: BSD-2-Clause
"""MatrixVectorUnit: a folded binary matrix-vector product with thresholds.

    i --> buffer --> x ---------+--> PE 0 --+
             |     (weights) w -+--> PE ... +--> queue --> o
         controller             +--> PE P-1 +
             |                        ^
             +--> weight address, preset address

The controller walks `for set: for nf: for weight plane: for sf: for plane group`, one *step* a
cycle (FINN's folding: Umuroglu et al., "FINN", 2017, section 4.2); a set takes a vector. A step is
*issued* when its input beat is there and, for the last step of a result, when the output queue has
room for it (a *credit*), so that the pipeline behind the controller never stops.

With `reuse` M, M windows are worked on at once: a step takes a beat of each and one weight word
for all, M times PE rows work, and a result store instead of the queue gives the windows' results
one after the other.

With weights in a shared SPRAM a step is issued only in the one cycle of `share` that has its word
read in the layer's turn.
"""

from functools import reduce
from itertools import pairwise, product
from operator import or_

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorforge.hw.batch import BatchAddress
from xnorforge.hw.border import WindowAddress
from xnorforge.hw.input_buffer import InputBuffer
from xnorforge.hw.mvu_config import MvuConfig
from xnorforge.hw.processing_element import ProcessingElement
from xnorforge.hw.result_store import ResultStore
from xnorforge.hw.shared_spram import TURN_BITS
from xnorforge.hw.stream import Queue
from xnorforge.hw.tally import Cycle, Tally

__all__ = ["MatrixVectorUnit", "MvuConfig"]


class MatrixVectorUnit(wiring.Component):
    """Folded binary matrix-vector product; the weights and presets live in stores outside.

    Throughput: one vector (of `reuse` windows at once) every NF x SF x G x weight planes x share
    cycles.
    Latency: `config.latency` cycles from the issue of a result's last step to the result on `o`; a
    beat taken in cycle t is issued from t + 1 on.  Cost: PE x reuse rows (see
    hw/processing_element.py), the input buffer, about 40 LUT4 of control, the result store.
    Back-pressure: stalls before a result that has no room in the output queue, never drops.

    Parameters
    ----------
    config : MvuConfig

    Members
    -------
    i : In(stream of SIMD x input_bits)
        Beats of `simd` elements, lane 0 in the low bits; SF beats a vector.
    o : Out(stream of PE or PE x score_bits)
        Beats of `pe` results; NF beats a vector, a vector a set.
    weight_address, preset_address : Out
        To the stores, whose `data` comes back after their latency.
    weight_data, preset_data : In
    turn : In(TURN_BITS)
        Of the shared SPRAM that holds the weights, if one does.
    """

    def __init__(self, *, config: MvuConfig):
        self.config = c = config
        o_shape = data.ArrayLayout(signed(c.score_bits), c.pe) if c.scores else unsigned(c.pe)
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(c.simd * c.input_bits))),
                "o": Out(stream.Signature(o_shape)),
                "weight_address": Out(c.weight_config.address_bits),
                "weight_data": In(c.pe * c.simd),
                "preset_address": Out(c.preset_config.readers * c.preset_config.address_bits),
                "preset_data": In(c.preset_config.readers * c.pe * c.preset_bits),
                **({"turn": In(TURN_BITS)} if c.share > 1 else {}),
            }
        )

    def elaborate(self, platform):
        # The controller "issues" steps; everything behind it is a pipeline without a stall, whose
        # controls are the controller's own signals, delayed.
        c = self.config
        m = Module()

        # --- controller: counters of the next step to issue; those of one round stand still
        m.submodules.group = group = Cycle(count=c.groups)
        m.submodules.sf = sf = Cycle(count=c.sf)
        m.submodules.nf = nf = Cycle(count=c.nf)
        plane = _cycle(m, "plane", c.planes)
        which = _cycle(m, "set", c.sets)
        weight_address = Signal(range(c.weight_config.depth))
        # `fill`: beats written, first step not yet issued.
        m.submodules.fill = fill = Tally(limit=c.buffer_depth)
        m.submodules.credit = credit = Tally(limit=c.credits, init=c.credits)

        first_touch = nf.first & group.first
        completes = sf.last & group.last
        last_pass = nf.last
        if plane is not None:
            first_touch &= plane.first
            completes &= plane.last
            last_pass &= plane.last
        issue = Signal()
        may_issue = (~first_touch | fill.some) & (~completes | credit.some)
        if c.share > 1:
            # Turns stand still until the first beat is taken, which nothing is issued before.
            own_turn, turn_bits = Signal(), ceil_log2(c.share)
            m.d.sync += own_turn.eq(self.turn[:turn_bits] == (c.issue_turn - 1) % c.share)
            may_issue &= own_turn
        m.d.comb += [
            issue.eq(may_issue),
            group.step.eq(issue),
            sf.step.eq(issue & group.last),
            nf.step.eq(issue & completes),
        ]
        wraps = sf.last & last_pass
        if plane is not None:
            m.d.comb += plane.step.eq(sf.step & sf.last)
        if which is not None:
            m.d.comb += which.step.eq(nf.step & nf.last)
            wraps &= which.last
        with m.If(sf.step):
            m.d.sync += weight_address.eq(Mux(wraps, 0, weight_address + 1))

        # --- buffer: written by the stream, read `read_delay` after issue, freed by the last pass
        m.submodules.buffer = buffer = InputBuffer(config=c.buffer_config)
        wiring.connect(m, wiring.flipped(self.i), buffer.i)
        delay = c.read_delay
        m.d.comb += [
            buffer.advance.eq(_delay(m, sf.step, delay, "advance")),
            buffer.pass_end.eq(_delay(m, sf.last, delay, "pass_end")),
            buffer.release.eq(_delay(m, sf.step & last_pass, delay, "release")),
            buffer.group.eq(_delay(m, group.value, delay, "group_at_read")),
        ]
        arrives = self.i.valid & self.i.ready if c.reuse == 1 else buffer.complete
        m.d.comb += [fill.up.eq(arrives), fill.down.eq(issue & first_touch)]

        # --- stores
        m.d.comb += self.weight_address.eq(
            _delay(m, weight_address, c.issue_latency - c.weight_config.latency, "weight_address")
        )
        preset_delay = c.issue_latency + c.pe_config.preset_latency - c.preset_config.latency
        preset_address = nf.value
        if c.borders * c.sets > 1:
            walk: WindowAddress | BatchAddress
            if c.borders > 1 and c.reuse > 1:
                walk = BatchAddress(windows=c.windows, words=c.result_words, lanes=c.reuse)
            else:
                walk = WindowAddress(windows=c.windows, words=c.result_words)
            m.submodules.walk = walk
            window_ends = nf.last if which is None else nf.last & which.last
            m.d.comb += [walk.step.eq(nf.step), walk.last.eq(window_ends)]
            preset_address = walk.address
        m.d.comb += self.preset_address.eq(
            _delay(m, preset_address, preset_delay, "preset_address")
        )

        # --- engines
        control_delay = c.issue_latency + c.pe_config.control_latency
        enable = _delay(m, issue, control_delay, "enable")
        starts = sf.first if plane is None else sf.first & plane.first
        first = _delay(m, starts, control_delay, "first")
        group_first = _delay(m, group.first, control_delay, "group_first")
        group_end = _delay(m, group.last, control_delay, "group_end")
        doubles, low_bit = self._doubling(m, sf, plane)
        if c.has_parity:
            sampled = issue & starts & group.last
            sampled = _delay(m, sampled, c.issue_latency + c.pe_config.preset_latency, "sampled")
        results = []
        for window, p in product(range(c.reuse), range(c.pe)):
            name = f"{p}_{window}" if window else f"{p}"
            m.submodules[f"pe{name}"] = pe = ProcessingElement(config=c.pe_config)
            share = (window if c.preset_config.readers > 1 else 0) * c.pe + p
            preset = self.preset_data[share * c.preset_bits : (share + 1) * c.preset_bits]
            odd = C(c.columns * sum(c.coefficients) & 1, 1)
            if c.has_parity:
                odd = Signal(name=f"odd_{name}", reset_less=True)
                with m.If(sampled):
                    m.d.sync += odd.eq(preset[0])
                preset = preset[1:]
            m.d.comb += [
                pe.x.eq(buffer.x.word_select(window, c.simd * c.pl) if c.reuse > 1 else buffer.x),
                pe.w.eq(self.weight_data[p * c.simd : (p + 1) * c.simd]),
                pe.enable.eq(enable),
                pe.first.eq(first),
                pe.preset.eq(preset[c.doublings :].as_signed()),
            ]
            m.d.comb += [pe.group_first.eq(group_first), pe.group_last.eq(group_end)]
            if c.doublings:
                m.d.comb += [pe.double.eq(doubles), pe.low.eq(low_bit(preset))]
            results.append(self._result(pe.o, odd))

        finished = _delay(m, issue & completes, c.result_latency, "finished")
        m.d.comb += [credit.up.eq(self._give(m, results, finished)), credit.down.eq(nf.step)]
        return m

    def _give(self, m: Module, results: list[Value], finished: Value) -> Value:
        """Results to the stream; whether room for one is free again. Credits count the room."""
        c = self.config
        if c.reuse == 1:
            m.submodules.queue = queue = Queue(shape=self.o.payload.shape(), depth=c.credits)
            m.d.comb += [queue.i.payload.eq(Cat(results)), queue.i.valid.eq(finished)]
            wiring.connect(m, queue.o, wiring.flipped(self.o))
            return self.o.valid & self.o.ready
        m.submodules.results = store = ResultStore(config=c.result_config)
        m.d.comb += [
            store.word.eq(Cat(results)),
            store.write.eq(finished),
            Value.cast(self.o.payload).eq(store.o.payload),
            self.o.valid.eq(store.o.valid),
            store.o.ready.eq(self.o.ready),
        ]
        return store.freed

    def _doubling(self, m: Module, sf: Cycle, plane: Cycle | None):
        """Whether a step starts a plane that doubles; which preset bit it lets in.

        Of a preset's lowest `doublings` bits the first doubling takes the highest. The preset
        stands from the first plane on, as long as the steps of its row do.
        """
        c = self.config
        if plane is None or not c.doublings:
            return None, None
        pairs = enumerate(pairwise(c.coefficients), 1)
        doubling = [index for index, (high, low) in pairs if high != low]
        chosen = Signal(range(c.doublings), name="preset_bit")
        with m.Switch(plane.value):
            for left, index in enumerate(reversed(doubling)):
                with m.Case(index):
                    m.d.comb += chosen.eq(left)
        doubles = sf.first & reduce(or_, (plane.value == index for index in doubling))
        doubles = _delay(m, doubles, c.issue_latency + c.pe_config.control_latency, "doubles")
        chosen = _delay(m, chosen, c.issue_latency + c.pe_config.preset_latency, "preset_bit")
        return doubles, lambda preset: preset[: c.doublings].bit_select(chosen, 1)

    def _result(self, acc: Value, odd: Value) -> Value:
        """Accumulator -> output lane. odd: lowest bit of a dot product of bits."""
        c = self.config
        if not c.scores:
            return ~acc[-1]
        if c.input_kind != "bit":
            return (acc >> 1 if c.halved else acc)[: c.score_bits]
        return (acc if c.halved else Cat(odd, acc))[: c.score_bits]


def _cycle(m: Module, name: str, count: int) -> Cycle | None:
    """A counter of rounds, if there is more than one."""
    if count == 1:
        return None
    m.submodules[name] = cycle = Cycle(count=count)
    return cycle


def _delay(m: Module, value, cycles: int, name: str) -> Value:
    """`value` as it was `cycles` cycles ago."""
    value = Value.cast(value)
    for age in range(1, cycles + 1):
        stage = Signal(value.shape(), name=f"{name}_{age}")
        m.d.sync += stage.eq(value)
        value = stage
    return value
