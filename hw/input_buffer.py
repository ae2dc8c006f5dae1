# SPDX-License-Identifier: BSD-2-Clause
"""InputBuffer: holds the vectors a matrix-vector engine works on and replays their beats.

    i --> dead lanes off --> [ ring of beats ] --> register --> plane group --> x

Elements are turned into unsigned bit-planes on the way (BNN paper, first layer: Hubara et al.,
2016, section 2.3); a step of the engine sees one group of planes of one beat. With several lanes a
slot of the ring holds the same beat of several windows, which arrive one after the other.
"""

from dataclasses import dataclass

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.batch import BatchCycle
from xnorforge.hw.ram import BlockRam, LutRam
from xnorforge.hw.store import FAMILIES
from xnorforge.hw.tally import Cycle, Tally

__all__ = ["InputBuffer", "InputBufferConfig"]


@dataclass(frozen=True)
class InputBufferConfig:
    """Shape of an InputBuffer.

    columns: elements of a vector. simd: elements a beat. element_bits: planes of an element.
    is_signed: elements are two's complement; they leave in offset binary (top plane inverted).
    pl: planes a step. depth: slots, each of a beat a lane. store: "block" or "lut". family: key of
    `store.FAMILIES`. lanes: windows of a batch. windows: of an image. vectors: of a window.

    Raises
    ------
    ValueError
        An unknown store; a ring that does not hold the windows of a batch.
    """

    columns: int
    simd: int
    element_bits: int
    is_signed: bool
    pl: int
    depth: int
    store: str
    family: str
    lanes: int = 1
    windows: int = 1
    vectors: int = 1

    def __post_init__(self) -> None:
        if self.store not in ("block", "lut"):
            raise ValueError(f"Buffer store must be block or lut, not {self.store!r}")
        if self.lanes > 1 and self.depth < self.span:
            raise ValueError(f"A buffer of {self.depth} slots cannot hold windows of {self.span}")

    @property
    def beats(self) -> int:
        """Beats of a vector (SF)."""
        return -(-self.columns // self.simd)

    @property
    def groups(self) -> int:
        """Plane groups of an element (G)."""
        return -(-self.element_bits // self.pl)

    @property
    def span(self) -> int:
        """Slots that a batch of windows takes."""
        return self.beats * self.vectors

    @property
    def latency(self) -> int:
        """Cycles from a read to its `x`."""
        return (2 if self.store == "block" else 1) + (self.groups > 1)


class InputBuffer(wiring.Component):
    """Ring of beats, written by a stream and read in passes over a vector's beats.

    A pass reads the vector's beats in order; the last pass frees them. Each cycle reads the
    present beat: `x` shows plane group `group` of it `config.latency` cycles later.

    Throughput: a beat written and a step read per cycle.  Latency: a beat taken in cycle t can be
    read from t + 1 on; its slot can be written again from the cycle after its release.
    Cost: the memory, and per element bit about one LUT4 for each further plane group.
    Back-pressure: `i` stalls while all slots are taken.

    Lanes: a batch's first window takes the slots, the others fill their lanes of them; a slot can
    be read once it is complete, that is, has its beat of the batch's last window.

    Parameters
    ----------
    config : InputBufferConfig

    Members
    -------
    i : In(stream of simd x element_bits)
    advance : In(1)
        The present beat's last group is read: go on to the next beat of the pass.
    pass_end : In(1)
        With `advance`: that was the vector's last beat, the next pass begins.
    release : In(1)
        With `advance`: the beat was read for the last time.
    group : In(range(groups))
    x : Out(lanes * simd * pl)
        Element s, plane l of lane 0 at bit `s * pl + l`; group 0 holds the most significant planes.
    complete : Out(1)
        Only with several lanes: the beat being taken completes a slot.
    """

    def __init__(self, *, config: InputBufferConfig):
        self.config = c = config
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(c.simd * c.element_bits))),
                "advance": In(1),
                "pass_end": In(1),
                "release": In(1),
                "group": In(range(c.groups)),
                "x": Out(c.lanes * c.simd * c.pl),
                **({"complete": Out(1)} if c.lanes > 1 else {}),
            }
        )

    def elaborate(self, platform):
        # `base` is the first slot of the vector being read.
        c = self.config
        m = Module()
        m.submodules.space = space = Tally(limit=c.depth, init=c.depth)
        write_at, read_at, base = (
            Signal(range(c.depth), name=n) for n in ("write", "read", "base")
        )
        m.submodules.write_beat = write_beat = Cycle(count=c.beats)
        write, following = Signal(), Signal(range(c.depth))
        batch = BatchCycle(windows=c.windows, lanes=c.lanes) if c.lanes > 1 else None
        m.d.comb += [
            self.i.ready.eq(space.some if batch is None else space.some | ~batch.first),
            space.up.eq(self.release),
            space.down.eq(write if batch is None else write & batch.first),
            write.eq(self.i.valid & self.i.ready),
            write_beat.step.eq(write),
            following.eq(_next(read_at, c.depth)),
        ]
        after_write: Value = _next(write_at, c.depth)
        if batch is not None:
            after_write = self._in_lanes(m, batch, write, write_beat, after_write)
        with m.If(write):
            m.d.sync += write_at.eq(after_write)
        with m.If(self.advance):
            m.d.sync += read_at.eq(following)
            with m.If(self.pass_end & self.release):
                m.d.sync += base.eq(following)
            with m.Elif(self.pass_end):
                m.d.sync += read_at.eq(base)

        planes = self._planes(write_beat.last)
        words = []
        for number in range(c.lanes):
            name = f"_{number}" if number else ""
            ram, word = self._memory(m, name)
            m.d.comb += [
                ram.write_enable.eq(write if batch is None else write & (batch.value == number)),
                ram.write_address.eq(write_at),
                ram.write_data.eq(planes),
                ram.read_address.eq(read_at),
            ]
            words.append(word)
        if c.groups == 1:
            m.d.comb += self.x.eq(Cat(words))
        else:
            self._select_group(m, words)
        return m

    def _in_lanes(
        self, m: Module, batch: BatchCycle, write: Value, beat: Cycle, following: Value
    ) -> Value:
        """The slot of the next beat: each window of a batch goes over those that the first took,
        from `start` on."""
        c = self.config
        m.submodules.batch = batch
        m.submodules.vector = vector = Cycle(count=c.vectors)
        start = Signal(range(c.depth))
        m.d.comb += [
            vector.step.eq(write & beat.last),
            batch.step.eq(write & beat.last & vector.last),
            self.complete.eq(write & batch.last),
        ]
        with m.If(batch.step & batch.last):
            m.d.sync += start.eq(following)
        return Mux(batch.step & ~batch.last, start, following)

    def _memory(self, m: Module, name: str) -> tuple[BlockRam | LutRam, Signal]:
        """A lane's memory, and the register of the beat read last."""
        c = self.config
        width = c.simd * c.element_bits
        ram: BlockRam | LutRam
        if c.store == "block":
            # A slot being written is never one being used.
            ram = BlockRam(width=width, depth=c.depth)
            m.d.comb += ram.read_enable.eq(1)
        else:
            ram = LutRam(width=width, depth=c.depth, distributed=FAMILIES[c.family].lut_ram)
        m.submodules[f"ram{name}"] = ram
        word = Signal(width, name=f"word{name}", reset_less=True)
        m.d.sync += word.eq(ram.ram_data)
        return ram, word

    def _planes(self, last_beat: Value) -> Value:
        """The input beat as unsigned planes, its dead lanes cleared in a vector's last beat."""
        c = self.config
        live_lanes = c.columns - (c.beats - 1) * c.simd
        lanes = []
        for lane in range(c.simd):
            value = self.i.payload[lane * c.element_bits : (lane + 1) * c.element_bits]
            if c.is_signed:
                value = Cat(value[:-1], ~value[-1])
            lanes.append(Mux(last_beat, 0, value) if lane >= live_lanes else value)
        return Cat(lanes)

    def _select_group(self, m: Module, words: list[Signal]) -> None:
        """Register one plane group of every element; those past the top plane carry 0."""
        c = self.config
        group = self.group
        for _ in range(c.latency - 1):
            later = Signal.like(group, name="group_later")
            m.d.sync += later.eq(group)
            group = later
        x = Signal(c.lanes * c.simd * c.pl, name="x", reset_less=True)
        elements = [
            word[lane * c.element_bits : (lane + 1) * c.element_bits]
            for word in words
            for lane in range(c.simd)
        ]
        with m.Switch(group):
            for g in range(c.groups):
                low = (c.groups - 1 - g) * c.pl
                planes = [element[low : low + c.pl] for element in elements]
                with m.Case(g):
                    m.d.sync += x.eq(Cat(Cat(p, C(0, c.pl - len(p))) for p in planes))
        m.d.comb += self.x.eq(x)


def _next(pointer: Value, count: int) -> Value:
    """The pointer after this one among `count`."""
    return Mux(pointer == count - 1, 0, pointer + 1)
