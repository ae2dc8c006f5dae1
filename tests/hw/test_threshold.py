# SPDX-License-Identifier: BSD-2-Clause
"""ThresholdUnit with its store: values at every level, exact timing, stalls, reset, conversion."""

import dataclasses
import random

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.gen.cycles import timeline
from xnorforge.hw.geometry import Window
from xnorforge.hw.store import Store
from xnorforge.hw.threshold import ThresholdConfig, ThresholdUnit
from xnorforge.sim.bench import Monitor, Sink, Source, random_stalls, run


class Layer(wiring.Component):
    """A ThresholdUnit with its store."""

    def __init__(self, config, words):
        self.config, self.words = config, words
        self.unit = ThresholdUnit(config=config)
        super().__init__(
            {
                "i": In(stream.Signature(self.unit.i.payload.shape())),
                "o": Out(stream.Signature(self.unit.o.payload.shape())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        m.submodules.store = store = Store(config=self.config.store_config, init=self.words)
        m.d.comb += [store.address.eq(unit.address), unit.data.eq(store.data)]
        wiring.connect(m, wiring.flipped(self.i), unit.i)
        wiring.connect(m, unit.o, wiring.flipped(self.o))
        return m


def draw(config, seed, count):
    """Random vectors, thresholds with all ends of the range among them, signs or None."""
    g = np.random.default_rng(seed)
    rows = config.sets * config.rows
    low, high = config.lowest, config.high
    thresholds = g.integers(low, high + 2, (config.borders, config.levels, rows))
    thresholds[g.random(thresholds.shape) < 0.1] = low
    thresholds[g.random(thresholds.shape) < 0.1] = high + 1
    thresholds.sort(axis=1)
    sign = g.choice(np.array([-1, 1]), rows) if config.signs else None
    if config.kind == "bit":
        return g.integers(0, 2, (count, config.rows)), thresholds, sign
    vectors = g.integers(low, high + 1, (count, config.rows))
    vectors[g.random(vectors.shape) < 0.1] = low
    vectors[g.random(vectors.shape) < 0.1] = high
    return vectors, thresholds, sign


def run_layer(config, seed, count=3, **stalls):
    vectors, thresholds, sign = draw(config, seed, count)
    layer = Layer(config, config.words(thresholds, sign))
    padded = np.zeros((count, config.nf * config.lanes), dtype=np.int64)
    padded[:, : config.rows] = vectors
    mask = (1 << config.bits) - 1
    beats = [
        sum((int(x) & mask) << n * config.bits for n, x in enumerate(beat))
        for beat in padded.reshape(-1, config.lanes)
    ]
    source = Source(layer.i, beats, idle=stalls.get("idle"))
    sink = Sink(layer.o, len(beats), stall=stalls.get("stall"))
    run(layer, [source, sink, Monitor(layer.o)], 20_000, reset=stalls.get("reset", ()))
    lanes = range(config.lanes)
    got = [
        [beat >> p & 1 if config.levels == 1 else beat[p] for p in lanes] for beat in sink.received
    ]
    got = np.array(got).reshape(count, -1)[:, : config.rows]
    wanted = config.reference(vectors, thresholds, sign)
    np.testing.assert_array_equal(got, wanted)
    return source, sink, wanted


@st.composite
def configs(draw_value):
    rows = draw_value(st.integers(1, 8))
    kind = draw_value(st.sampled_from(["bit", "uint", "int"]))
    bits = 1 if kind == "bit" else draw_value(st.integers(1, 6))
    windows = draw_value(
        st.sampled_from([None, Window((3, 2), (1, 2), (1, 1), (1, 0, 1, 1)).over(3, 4)])
    )
    config = ThresholdConfig(
        rows=rows,
        levels=draw_value(st.sampled_from([1, 3, 7, 15])),
        kind=kind,
        bits=bits,
        lanes=draw_value(st.integers(1, rows)),
        method=draw_value(st.sampled_from(["parallel", "serial"])),
        signs=draw_value(st.booleans()),
        windows=windows,
        sets=draw_value(st.integers(1, 2)),
        store=draw_value(st.sampled_from(["block", "lut", "const"])),
        family=draw_value(st.sampled_from(["ice40", "ecp5", "gowin"])),
    )
    if kind == "int" and bits > 1 and draw_value(st.booleans()):
        return dataclasses.replace(config, low=-config.high)
    return config


@settings(max_examples=15)
@given(configs(), st.integers(0, 1000))
def test_threshold_equals_reference_under_stalls(config, seed):
    count = config.vectors + 1
    run_layer(
        config, seed, count, idle=random_stalls(0.3, seed), stall=random_stalls(0.4, seed + 1)
    )


@settings(max_examples=12)
@given(configs(), st.integers(0, 1000), st.booleans())
def test_threshold_every_transfer_is_predicted(config, seed, gaps):
    waits = random.Random(seed)
    frames = 3
    beats = frames * config.nf
    idle = [waits.choice([0, 0, 0, 1, 2, 7]) if gaps else 0 for _ in range(beats)]
    pattern = [busy for gap in idle for busy in [True] * gap + [False]]
    source, sink, _ = run_layer(config, seed, beats // config.nf, idle=iter(pattern + [True] * 9))
    predicted = timeline([config], frames, idle)
    assert source.times == predicted.image
    assert sink.times == predicted.result
    assert sink.times[0] - source.times[0] == config.latency
    if not gaps:
        assert set(np.diff(source.times).tolist()) <= {config.interval}


def test_threshold_every_number_and_level():
    """All 4-bit numbers against thresholds that never, always and somewhere hold."""
    numbers = np.arange(-8, 8)
    for method in ("parallel", "serial"):
        config = ThresholdConfig(rows=16, levels=3, kind="int", bits=4, lanes=16, method=method)
        for levels in ([-8, -8, -8], [-8, 0, 8], [8, 8, 8], [-7, -6, 7], [3, 3, 4]):
            bank = np.repeat(np.array(levels)[:, None], 16, axis=1)
            layer = Layer(config, config.words(bank))
            payload = sum((int(x) & 15) << 4 * n for n, x in enumerate(numbers))
            sink = Sink(layer.o, 1)
            run(layer, [Source(layer.i, [payload]), sink], 100)
            got = [sink.received[0][n] for n in range(16)]
            assert got == [sum(int(x) >= level for level in levels) for x in numbers]


def test_threshold_reset_in_the_middle_leaves_nothing_behind():
    config = ThresholdConfig(rows=6, levels=3, kind="int", bits=5, lanes=2, method="serial")
    run_layer(config, 3, count=6, reset=(11,))


def test_threshold_wrong_level_shows():
    config = ThresholdConfig(rows=4, levels=3, kind="int", bits=5, lanes=2)
    vectors, thresholds, _ = draw(config, 5, 400)
    wrong = thresholds.copy()
    wrong[0, 1, 2] += 1 if wrong[0, 1, 2] < wrong[0, 2, 2] else -1
    differs = config.reference(vectors, wrong) != config.reference(vectors, thresholds)
    assert differs.any(axis=0).tolist() == [False, False, True, False]
    assert config.words(wrong) != config.words(thresholds)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("lanes", 5, "Lanes must be between 1 and 4, not 5"),
        ("levels", 2, "Levels must be 1, 3, 7 or 15, not 2"),
        ("kind", "float", "Input kind must be"),
        ("bits", 0, "cannot have 0 bits"),
        ("method", "magic", "method must be parallel or serial"),
        ("sets", 0, "sets must be at least 1"),
        ("low", -17, "Smallest input must lie in its type"),
    ],
)
def test_threshold_config_refuses(field, value, message):
    good = {"rows": 4, "levels": 3, "kind": "int", "bits": 5, "lanes": 2}
    with pytest.raises(ValueError, match=message):
        ThresholdConfig(**{**good, field: value})


def test_threshold_words_refuse_signs_it_has_not():
    config = ThresholdConfig(rows=2, levels=1, kind="int", bits=5, lanes=2)
    with pytest.raises(ValueError, match="has no signs"):
        config.words(np.zeros((1, 2), np.int64), np.array([1, -1]))


@pytest.mark.parametrize("method", ["parallel", "serial"])
def test_threshold_converts_to_rtlil(method):
    config = ThresholdConfig(
        rows=6, levels=7, kind="uint", bits=5, lanes=4, method=method, signs=True
    )
    assert "module" in rtlil.convert(ThresholdUnit(config=config))
