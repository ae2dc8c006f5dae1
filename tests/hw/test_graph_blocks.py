# SPDX-License-Identifier: BSD-2-Clause
"""AddUnit, Fork and ConcatUnit: values, exact timing, stalls, reset, conversion."""

import random
from array import array

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.gen.cycle_joins import AddStage, ConcatStage, ForkStage
from xnorforge.gen.cycle_stages import RULES
from xnorforge.hw.add import AddConfig, AddUnit
from xnorforge.hw.concat import ConcatConfig, ConcatUnit
from xnorforge.hw.fork import Fork, ForkConfig
from xnorforge.hw.store import Store
from xnorforge.hw.width import WidthConverter, WidthConverterConfig
from xnorforge.sim.bench import Monitor, Sink, Source, random_stalls, run


class Adder(wiring.Component):
    """An AddUnit with its store, if it has one."""

    def __init__(self, config, multipliers, offsets):
        self.words = config.words(multipliers, offsets)
        self.unit = AddUnit(config=config)
        inputs = {
            f"i_{k}": In(stream.Signature(i.payload.shape()))
            for k, i in enumerate(self.unit.inputs)
        }
        super().__init__({**inputs, "o": Out(stream.Signature(self.unit.o.payload.shape()))})

    @property
    def inputs(self):
        return [getattr(self, f"i_{k}") for k in range(len(self.unit.inputs))]

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        config = unit.config.store_config
        if config:
            m.submodules.store = store = Store(config=config, init=self.words)
            m.d.comb += [store.address.eq(unit.address), unit.data.eq(store.data)]
        for mine, its in zip(self.inputs, unit.inputs, strict=True):
            wiring.connect(m, wiring.flipped(mine), its)
        wiring.connect(m, unit.o, wiring.flipped(self.o))
        return m


ENDS = {"bit": lambda b: (0, 1), "uint": lambda b: (0, (1 << b) - 1)}
ENDS["int"] = lambda b: (-(1 << b - 1), (1 << b - 1) - 1)


def beats_of(vectors, lanes, bits):
    """Vectors (N, channels) -> beats, the lanes past a vector's end 0."""
    count, channels = vectors.shape
    padded = np.zeros((count, -(-channels // lanes) * lanes), dtype=np.int64)
    padded[:, :channels] = vectors
    mask = (1 << bits) - 1
    return [
        sum((int(x) & mask) << n * bits for n, x in enumerate(beat))
        for beat in padded.reshape(-1, lanes)
    ]


@st.composite
def adders(draw):
    """An AddConfig that fits its random numbers, and those."""
    channels, sources = draw(st.integers(1, 6)), draw(st.integers(2, 3))
    kinds = tuple(draw(st.sampled_from(["bit", "uint", "int"])) for _ in range(sources))
    bits = tuple(1 if kind == "bit" else draw(st.integers(1, 5)) for kind in kinds)
    g = np.random.default_rng(draw(st.integers(0, 1000)))
    multipliers = g.integers(-9, 10, (sources, channels))
    for k in range(sources):
        if draw(st.booleans()):
            multipliers[k] = 1
    offsets = g.integers(-50, 50, channels) * draw(st.integers(0, 1))
    low = high = offsets
    for kind, b, factors in zip(kinds, bits, multipliers, strict=True):
        ends = {"bit": (-1, 1)}.get(kind, ENDS[kind](b))
        low = low + np.minimum(*(factors * end for end in ends))
        high = high + np.maximum(*(factors * end for end in ends))
    config = AddConfig(
        channels=channels,
        lanes=draw(st.integers(1, channels)),
        kinds=kinds,
        bits=bits,
        output_bits=max(int(high.max()), int(~low.min()), 0).bit_length() + 1,
        store=draw(st.sampled_from(["block", "lut", "const"])),
        family=draw(st.sampled_from(["ice40", "ecp5"])),
        **AddConfig.number_widths(multipliers, offsets),
    )
    return config, multipliers, offsets


@settings(max_examples=20)
@given(adders(), st.integers(0, 1000))
def test_add_equals_reference_under_stalls(case, seed):
    config, multipliers, offsets = case
    g = np.random.default_rng(seed)
    maps = []
    for kind, bits in zip(config.kinds, config.bits, strict=True):
        low, high = ENDS[kind](bits)
        values = g.integers(low, high + 1, (5, config.channels))
        values[g.random(values.shape) < 0.2] = low
        values[g.random(values.shape) < 0.2] = high
        maps.append(values)
    adder = Adder(config, multipliers, offsets)
    sources = [
        Source(i, beats_of(values, config.lanes, bits), idle=random_stalls(0.4, seed + k))
        for k, (i, values, bits) in enumerate(zip(adder.inputs, maps, config.bits, strict=True))
    ]
    sink = Sink(adder.o, 5 * config.nf, stall=random_stalls(0.4, seed + 9))
    run(adder, [*sources, sink, Monitor(adder.o)], 5000)
    wanted = config.reference(maps, multipliers, offsets)
    live = (1 << len(adder.o.payload)) - 1
    if config.channels % config.lanes:
        live >>= (config.lanes - config.channels % config.lanes) * config.output_bits
    last = config.nf - 1
    got = [b & live if n % config.nf == last else b for n, b in enumerate(sink.received)]
    assert got == beats_of(wanted, config.lanes, config.output_bits)
    assert all(source.times == sources[0].times for source in sources)


@settings(max_examples=8)
@given(adders())
def test_add_latency_and_interval_are_exact(case):
    config, multipliers, offsets = case
    adder = Adder(config, multipliers, offsets)
    sources = [Source(i, [0] * (6 * config.nf)) for i in adder.inputs]
    sink = Sink(adder.o, 6 * config.nf)
    run(adder, [*sources, sink], 500)
    assert sources[0].times == list(range(6 * config.nf))
    assert sink.times == [time + config.latency for time in sources[0].times]


def test_add_words_refuse_numbers_that_do_not_fit():
    numbers = {"multipliers": np.array([[1, 1], [3, -4]]), "offsets": np.array([0, 5])}
    widths = AddConfig.number_widths(**numbers)
    assert widths == {"multiplier_bits": (0, 3), "offset_bits": 4}
    shape = {"channels": 2, "lanes": 1, "kinds": ("uint", "uint"), "bits": (2, 2)}
    config = AddConfig(**shape, output_bits=5, **widths)
    assert len(config.words(**numbers)) == 2
    with pytest.raises(ValueError, match="do not fit 4 bits"):
        AddConfig(**shape, output_bits=4, **widths).words(**numbers)
    with pytest.raises(ValueError, match="do not fit 0 bits"):
        config.words(np.array([[1, 2], [3, -4]]), np.array([0, 0]))
    with pytest.raises(ValueError, match="do not fit 2 bits"):
        AddConfig(**shape, output_bits=9, multiplier_bits=(0, 2), offset_bits=4).words(**numbers)


@settings(max_examples=12)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=3), st.booleans(), st.integers(0, 1000))
def test_fork_gives_every_beat_to_every_branch_in_its_own_time(depths, block, seed):
    stores = tuple("block" if block and depth > 2 else "registers" for depth in depths)
    config = ForkConfig(width=8, depths=tuple(depths), stores=stores)
    fork = Fork(config=config)
    beats = [random.Random(seed).getrandbits(8) for _ in range(40)]
    source = Source(fork.i, beats, idle=random_stalls(0.3, seed))
    sinks = [
        Sink(o, len(beats), stall=random_stalls(0.5, seed + k), waits=k == 1)
        for k, o in enumerate(fork.outputs)
    ]
    run(fork, [source, *sinks, *map(Monitor, fork.outputs)], 2000)
    assert [sink.received for sink in sinks] == config.reference(beats)
    for sink, depth, latency in zip(sinks, depths, config.latency, strict=True):
        assert sink.times[0] - source.times[0] >= latency
        lags = zip(sink.times, source.times[depth:], strict=False)
        assert all(left < taken for left, taken in lags)


class Unawaited:
    """A source that the bench does not wait for."""

    done, progress = True, ""

    def __init__(self, source):
        self.process = source.process


def test_fork_stops_at_the_depth_of_the_branch_that_takes_nothing():
    fork = Fork(config=ForkConfig(width=4, depths=(2, 5)))
    source, quick = Source(fork.i, range(9)), Sink(fork.o_0)
    slow = Sink(fork.o_1, stall=iter(lambda: True, None))
    run(fork, [Unawaited(source), quick, slow, Monitor(fork.o_1)], 50, extra=30)
    assert quick.received == [0, 1, 2, 3, 4]


@settings(max_examples=15)
@given(st.data(), st.integers(0, 1000))
def test_concat_equals_reference_under_stalls(data, seed):
    lanes, bits = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    whole = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
    last = data.draw(st.integers(1, 6))
    config = ConcatConfig((*(n * lanes for n in whole), last), bits, lanes)
    g = np.random.default_rng(seed)
    maps = [g.integers(0, 1 << bits, (6, channels)) for channels in config.channels]
    unit = ConcatUnit(config=config)
    sources = [
        Source(i, beats_of(values, lanes, bits), idle=random_stalls(0.4, seed + k))
        for k, (i, values) in enumerate(zip(unit.inputs, maps, strict=True))
    ]
    wanted = beats_of(config.reference(maps), lanes, bits)
    sink = Sink(unit.o, len(wanted), stall=random_stalls(0.3, seed + 9))
    run(unit, [*sources, sink, Monitor(unit.o)], 3000)
    assert sink.received == wanted


# --- a residual connection: fork, a branch with converters, sum, joined with a third branch ------

CHANNELS = 6


class Residual(wiring.Component):
    """fork -> (nothing, lanes to 2 and back, nothing); sum of the first two, beside the third."""

    def __init__(self, depths, narrow):
        self.fork = ForkConfig(width=3 * 8, depths=depths)
        self.down = WidthConverterConfig(CHANNELS, 8, 3, narrow)
        self.up = WidthConverterConfig(CHANNELS, 8, narrow, 3)
        self.add = AddConfig(CHANNELS, 3, ("int", "int"), (8, 8), 16, (0, 4))
        self.concat = ConcatConfig((CHANNELS, CHANNELS), 16, 3)
        super().__init__({"i": In(stream.Signature(24)), "o": Out(stream.Signature(48))})

    multipliers = np.stack([np.ones(CHANNELS, np.int64), np.arange(CHANNELS) - 3])

    def elaborate(self, platform):
        m = Module()
        m.submodules.fork = fork = Fork(config=self.fork)
        m.submodules.down = down = WidthConverter(config=self.down)
        m.submodules.up = up = WidthConverter(config=self.up)
        m.submodules.add = add = Adder(self.add, self.multipliers, np.zeros(CHANNELS, np.int64))
        m.submodules.concat = concat = ConcatUnit(config=self.concat)

        def join(source, sink, payload=None):
            payload = source.payload if payload is None else payload
            m.d.comb += [
                sink.payload.eq(payload),
                sink.valid.eq(source.valid),
                source.ready.eq(sink.ready),
            ]

        wiring.connect(m, wiring.flipped(self.i), fork.i)
        join(fork.o_0, add.i_0)
        join(fork.o_1, down.i)
        join(down.o, up.i)
        join(up.o, add.i_1)
        join(add.o, concat.i_0)
        wide = [fork.o_2.payload.word_select(k, 8) for k in range(3)]
        third = Cat(Cat(w, w[7].replicate(8)) for w in wide)
        join(fork.o_2, concat.i_1, third)
        wiring.connect(m, concat.o, wiring.flipped(self.o))
        return m

    def predicted(self, gaps):
        """Times on `i` and `o`: every stream in turn, until nothing moves."""
        names = ["i", "a0", "b0", "c0", "b1", "b2", "s", "o"]
        times = {name: array("q") for name in names}
        fork = ForkStage(self.fork, [times["i"]], [times[n] for n in ("a0", "b0", "c0")])
        down = RULES[WidthConverterConfig](self.down, times["b0"], times["b1"])
        up = RULES[WidthConverterConfig](self.up, times["b1"], times["b2"])
        offered = [fork.offers[0], up.offers]
        add = AddStage(self.add, [times["a0"], times["b2"]], [times["s"]], offered)
        concat = ConcatStage(self.concat, [times["s"], times["c0"]], [times["o"]])
        ends = {
            "a0": (fork.offers[0], add.accepts[0]),
            "b0": (fork.offers[1], down.accepts),
            "c0": (fork.offers[2], concat.accepts[1]),
            "b1": (down.offers, up.accepts),
            "b2": (up.offers, add.accepts[1]),
            "s": (add.offers[0], concat.accepts[0]),
        }
        progress = True
        while progress:
            progress = False
            for stage in (fork, down, up, add, concat):
                stage.advance()
            for name, moved in times.items():
                while True:
                    n, free = len(moved), moved[-1] + 1 if moved else 0
                    if name == "i":
                        bounds = (gaps, fork.accepts[0])
                        if n >= min(map(len, bounds)):
                            break
                        moved.append(max(free + gaps[n], fork.accepts[0][n]))
                    elif name == "o":
                        if n >= len(concat.offers[0]):
                            break
                        moved.append(max(free, concat.offers[0][n]))
                    else:
                        offers, accepts = ends[name]
                        if n >= min(len(offers), len(accepts)):
                            break
                        moved.append(max(free, offers[n], accepts[n]))
                    progress = True
        return times["i"].tolist(), times["o"].tolist()


@pytest.mark.parametrize("narrow", [1, 2, 6])
@pytest.mark.parametrize("depths", [(6, 1, 12), (4, 2, 9), (8, 3, 20)])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_residual_every_transfer_is_predicted_and_exact(narrow, depths, seed):
    g = np.random.default_rng(seed or 0)
    x = g.integers(-128, 128, (7, CHANNELS))
    beats = beats_of(x, 3, 8)
    waits = random.Random(seed)
    gaps = [0 if seed is None else waits.choice([0, 0, 1, 5]) for _ in beats]
    pattern = [busy for gap in gaps for busy in [True] * gap + [False]]
    unit = Residual(depths, narrow)
    source = Source(unit.i, beats, idle=iter(pattern + [True] * 9))
    sink = Sink(unit.o, 4 * len(x))
    run(unit, [source, sink, Monitor(unit.o)], 2000)
    total = unit.add.reference([x, x], unit.multipliers, np.zeros(CHANNELS, np.int64))
    assert sink.received == beats_of(unit.concat.reference([total, x]), 3, 16)
    assert (source.times, sink.times) == unit.predicted(gaps)


def test_residual_stops_where_a_branch_is_too_short():
    """The sum of a pixel needs more beats to pass than the third branch may lag: no more moves."""
    unit = Residual((6, 1, 1), 1)
    source, sink = Source(unit.i, [0] * 14), Sink(unit.o)
    run(unit, [Unawaited(source), sink], 50, extra=200)
    assert len(source.times) < 14 and len(sink.times) < 4
    assert (source.times, sink.times) == unit.predicted([0] * 14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ForkConfig(8, (2,)), "at least two branches"),
        (lambda: ForkConfig(8, (2, 0)), "Queue depth must be at least 1"),
        (lambda: ForkConfig(8, (2, 2), ("lut",)), "1 stores for 2 branches"),
        (lambda: ConcatConfig((4,), 1, 2), "at least two sources"),
        (lambda: ConcatConfig((5, 4), 1, 2), "Lanes must divide 5 channels"),
        (lambda: ConcatConfig((4, 4), 0, 2), "must be at least 1"),
        (lambda: AddConfig(4, 2, ("bit",), (1,), 4, (0,)), "at least two sources"),
        (lambda: AddConfig(4, 5, ("bit",) * 2, (1, 1), 4, (0, 0)), "Lanes must be between"),
        (lambda: AddConfig(4, 2, ("bit",) * 2, (1, 2), 4, (0, 0)), "cannot have 2 bits"),
        (lambda: AddConfig(4, 2, ("bit", "bool"), (1, 1), 4, (0, 0)), "Source kind must be"),
        (lambda: AddConfig(4, 2, ("bit",) * 2, (1, 1), 0, (0, 0)), "Output bits must be"),
        (lambda: AddConfig(4, 2, ("bit",) * 2, (1, 1), 4, (0, -1)), "must not be negative"),
        (lambda: AddConfig(4, 2, ("bit",) * 2, (1, 1), 4, (0,)), "Every source has a kind"),
    ],
)
def test_graph_block_config_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "unit",
    [
        lambda: AddUnit(config=AddConfig(4, 2, ("bit", "int"), (1, 5), 9, (0, 4), 3)),
        lambda: Fork(config=ForkConfig(8, (2, 3), ("registers", "block"))),
        lambda: ConcatUnit(config=ConcatConfig((4, 5), 2, 2)),
    ],
)
def test_graph_block_converts_to_rtlil(unit):
    assert "module" in rtlil.convert(unit())
