# SPDX-License-Identifier: BSD-2-Clause
"""Weight words that serve several windows: speed, latency, result store, border classes, reset."""

import random

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.gen.cycles import predict
from xnorforge.hw.batch import BatchAddress
from xnorforge.hw.border import window_borders
from xnorforge.hw.geometry import Window
from xnorforge.hw.input_buffer import InputBufferConfig
from xnorforge.hw.mvu import MatrixVectorUnit, MvuConfig
from xnorforge.hw.result_store import ResultStore, ResultStoreConfig
from xnorforge.hw.store import Store, StoreConfig
from xnorforge.sim.bench import Monitor, Sink, Source, random_stalls, run


class Words(wiring.Component):
    """A ResultStore fed by a stream: a word is taken while there is a free place."""

    def __init__(self, config):
        self.config = config
        self.store = ResultStore(config=config)
        super().__init__(
            {
                "i": In(stream.Signature(config.lanes * config.width)),
                "o": Out(stream.Signature(config.width)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = self.store
        places = Signal(range(self.config.depth + 1), init=self.config.depth)
        m.d.comb += [
            self.i.ready.eq(places != 0),
            store.write.eq(self.i.valid & self.i.ready),
            store.word.eq(self.i.payload),
        ]
        m.d.sync += places.eq(places - store.write + store.freed)
        wiring.connect(m, store.o, wiring.flipped(self.o))
        return m


@settings(max_examples=20)
@given(
    st.integers(1, 5), st.integers(2, 5), st.integers(0, 9), st.integers(0, 7),
    st.sampled_from(["block", "lut"]), st.integers(0, 99),
)  # fmt: skip
def test_result_store_equals_reference_under_stalls(words, lanes, more, deeper, store, seed):
    windows = lanes + more
    config = ResultStoreConfig(3, words, lanes, windows, words + deeper, store, "ecp5")
    generator = random.Random(seed)
    given_words = [
        generator.getrandbits(3 * lanes) for _ in range(3 * -(-windows // lanes) * words)
    ]
    wanted = config.reference(given_words)
    assert len(wanted) == 3 * windows * words
    top = Words(config)
    source = Source(top.i, given_words, idle=random_stalls(0.4, seed))
    sink = Sink(top.o, len(wanted), stall=random_stalls(0.4, seed + 1))
    run(top, [source, sink, Monitor(top.o)], 10_000)
    assert sink.received == wanted


def test_result_store_latency_and_a_beat_every_cycle():
    config = ResultStoreConfig(4, 6, 3, 7, 12, "block", "ice40")
    words = [random.Random(2).getrandbits(12) for _ in range(3 * 6 * 4)]
    top = Words(config)
    source, sink = Source(top.i, words), Sink(top.o, len(config.reference(words)))
    run(top, [source, sink], 1000)
    assert sink.times[0] == source.times[0] + config.latency
    assert np.diff(sink.times).tolist() == [1] * (len(sink.times) - 1)


@pytest.mark.parametrize("lanes", [2, 3, 5, 8, 20])
@pytest.mark.parametrize(("height", "width"), [(4, 5), (5, 4), (7, 1), (1, 9), (3, 3)])
def test_batch_address_walks_every_windows_class(lanes, height, width):
    windows = Window((3, 3), (1, 1), (1, 1), (1, 2, 1, 1)).over(height, width)
    count, words = windows.height * windows.width, 2
    lanes = min(lanes, count)
    walk = BatchAddress(windows=windows, words=words, lanes=lanes)
    bits = len(walk.address) // lanes
    borders = window_borders(windows)

    async def bench(ctx):
        ctx.set(walk.step, 1)
        for _ in range(3):
            for first in range(0, count, lanes):
                for word in range(words):
                    ctx.set(walk.last, word == words - 1)
                    shown = ctx.get(walk.address)
                    for lane in range(min(lanes, count - first)):
                        wanted = borders[first + lane] * words + word
                        assert shown >> lane * bits & (1 << bits) - 1 == wanted
                    await ctx.tick()

    run(walk, [bench], 3 * words * count + 10)


def engine(**fields):
    """3 x 3 over 6 x 7 pixels of 8 channels, 4 rows, unless fields say otherwise."""
    shape = {"rows": 4, "columns": 72, "input_kind": "bit", "input_bits": 1, "scores": False}
    folds = {"pe": 1, "simd": 8, "pl": 1, "family": "ice40", "weight_store": "block"}
    windows = Window((3, 3)).over(6, 7)
    return MvuConfig(**{**shape, **folds, "windows": windows, **fields})


@pytest.mark.parametrize("reuse", [2, 3, 4, 5, 9])
@pytest.mark.parametrize("fields", [{}, {"pe": 4}, {"pe": 2, "simd": 24}, {"sets": 2}])
def test_reuse_divides_the_interval(reuse, fields):
    """20 windows: an image takes the steps of its batches, unless their beats take longer."""
    config = engine(reuse=reuse, **fields)
    steps = -(-20 // reuse) * config.sets * config.fold_cycles
    assert config.image_cycles == steps
    interval = predict([config]).interval_cycles
    if reuse <= min(config.nf, config.sf):
        assert interval == steps
    else:
        assert interval >= max(steps, 20 * config.sets * max(config.sf, config.nf))


def test_reuse_keeps_the_weight_port_as_it_is():
    one, four = engine(), engine(reuse=4)
    assert four.weight_config == one.weight_config
    assert four.preset_config == one.preset_config
    assert engine(reuse=4, windows=Window((3, 3), pads=(1, 1, 1, 1)).over(6, 7)).preset_config == (
        StoreConfig(one.preset_config.width, 9 * one.nf, one.preset_config.kind, "ice40", readers=4)
    )


def test_store_with_several_readers_is_loaded_once():
    for kind, family in (("block", "ice40"), ("lut", "ecp5"), ("const", "ecp5"), ("lut", "ice40")):
        config = StoreConfig(11, 40, kind, family, readers=3)
        words = [random.Random(5).getrandbits(11) for _ in range(40)]
        assert config.pack(words) == StoreConfig(11, 40, kind, family).pack(words)
        store = Store(config=config, init=words)
        bits = config.address_bits
        wanted = [[random.Random(n).randrange(40) for n in (c, c + 7, c + 99)] for c in range(20)]

        async def bench(ctx, store=store, config=config, bits=bits, wanted=wanted, words=words):
            for cycle in range(20 + config.latency):
                if cycle < 20:
                    shown = sum(a << n * bits for n, a in enumerate(wanted[cycle]))
                    ctx.set(store.address, shown)
                _, _, data = await ctx.tick().sample(store.data)
                if cycle >= config.latency:
                    own = wanted[cycle - config.latency]
                    assert data == sum(words[a] << n * 11 for n, a in enumerate(own))

        run(store, [bench], 1000)
    assert StoreConfig(11, 40, "block", "ice40", readers=3).block_rams == 3
    with pytest.raises(ValueError, match="'spram' has one reader, not 2"):
        StoreConfig(16, 40, "spram", "ice40", readers=2)


def test_reuse_is_refused_beyond_the_windows():
    with pytest.raises(ValueError, match="Reuse must be between 1 and 20, not 21"):
        engine(reuse=21)
    with pytest.raises(ValueError, match="Reuse must be between 1 and 1, not 2"):
        engine(reuse=2, windows=None)
    with pytest.raises(ValueError, match="cannot hold the 6 of a window"):
        ResultStoreConfig(1, 6, 2, 4, 5, "lut", "ecp5")
    with pytest.raises(ValueError, match="5 slots cannot hold windows of 6"):
        InputBufferConfig(18, 3, 1, False, 1, 5, "lut", "ecp5", lanes=2, windows=4)


def test_reuse_converts_to_rtlil():
    windows = Window((3, 3), pads=(1, 1, 1, 1)).over(6, 7)
    config = engine(reuse=3, windows=windows, scores=True, offset_high=9)
    assert "module" in rtlil.convert(MatrixVectorUnit(config=config))
