# SPDX-License-Identifier: BSD-2-Clause
"""MatrixVectorUnit between ideal stores: values, exact timing, stalls, reset, conversion."""

import random

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.hw.mvu import MatrixVectorUnit, MvuConfig
from xnorforge.hw.popcount import PIPELINES, STRUCTURES
from xnorforge.hw.store import Store
from xnorforge.sim.bench import Monitor, Sink, Source, random_stalls, run


class Layer(wiring.Component):
    """A MatrixVectorUnit with its two stores."""

    def __init__(self, config, weights, thresholds):
        self.config = config
        self.words = (
            config.weight_words(weights),
            config.preset_words(weights, thresholds),
        )
        self.unit = MatrixVectorUnit(config=config)
        super().__init__(
            {
                "i": In(stream.Signature(self.unit.i.payload.shape())),
                "o": Out(stream.Signature(self.unit.o.payload.shape())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        c = self.config
        m.submodules.weights = weights = Store(config=c.weight_config, init=self.words[0])
        m.submodules.presets = presets = Store(config=c.preset_config, init=self.words[1])
        m.d.comb += [
            weights.address.eq(unit.weight_address),
            unit.weight_data.eq(weights.data),
            presets.address.eq(unit.preset_address),
            unit.preset_data.eq(presets.data),
        ]
        wiring.connect(m, wiring.flipped(self.i), unit.i)
        wiring.connect(m, unit.o, wiring.flipped(self.o))
        return m


def draw(config, seed, count):
    """Random vectors, weights and thresholds (None for scores)."""
    g = np.random.default_rng(seed)
    weights = g.choice(np.array([-1, 1], np.int8), (config.rows, config.columns))
    bits = config.input_bits
    low, high = (
        (-(1 << (bits - 1)), 1 << (bits - 1)) if config.input_kind == "int" else (0, 1 << bits)
    )
    vectors = g.integers(low, high, (count, config.columns))
    spread = max(1, config.dot_high // 2)
    thresholds = None if config.scores else g.integers(-spread, spread + 1, config.rows)
    return vectors, weights, thresholds


def beats_in(config, vectors, garbage):
    """Input beats; lanes past the vector's end carry garbage."""
    mask = (1 << config.input_bits) - 1
    beats = []
    for vector in vectors:
        padded = [int(x) & mask for x in vector]
        padded += [garbage.randint(0, mask) for _ in range(config.sf * config.simd - len(padded))]
        for start in range(0, len(padded), config.simd):
            lanes = padded[start : start + config.simd]
            beats.append(sum(x << (n * config.input_bits) for n, x in enumerate(lanes)))
    return beats


def run_layer(config, seed, count=3, **stalls):
    vectors, weights, thresholds = draw(config, seed, count)
    layer = Layer(config, weights, thresholds)
    source = Source(
        layer.i, beats_in(config, vectors, random.Random(seed)), idle=stalls.get("idle")
    )
    sink = Sink(layer.o, count * config.nf, stall=stalls.get("stall"))
    run(layer, [source, sink, Monitor(layer.o)], 100_000, reset=stalls.get("reset", ()))
    rows = []
    for beat in sink.received:
        lanes = range(config.pe)
        rows += [beat[p] for p in lanes] if config.scores else [beat >> p & 1 for p in lanes]
    got = np.array(rows).reshape(count, config.nf * config.pe)[:, : config.rows]
    np.testing.assert_array_equal(got, config.reference(vectors, weights, thresholds))
    return source, sink


@st.composite
def configs(draw_value):
    rows, columns = draw_value(st.integers(1, 12)), draw_value(st.integers(1, 24))
    kind = draw_value(st.sampled_from(["bit", "uint", "int"]))
    bits = 1 if kind == "bit" else draw_value(st.integers(2, 8))
    stores = st.sampled_from(["block", "lut"])
    return MvuConfig(
        rows=rows,
        columns=columns,
        input_kind=kind,
        input_bits=bits,
        pe=draw_value(st.integers(1, rows)),
        simd=draw_value(st.integers(1, columns)),
        pl=draw_value(st.integers(1, bits)),
        scores=draw_value(st.booleans()),
        family=draw_value(st.sampled_from(["ice40", "ecp5", "gowin"])),
        weight_store=draw_value(stores),
        preset_store=draw_value(stores),
        buffer_store=draw_value(stores),
        structure=draw_value(st.sampled_from(["", *STRUCTURES])),
        pipeline=draw_value(st.sampled_from(["", *PIPELINES])),
    )


@settings(max_examples=30)
@given(configs(), st.integers(0, 1000))
def test_mvu_equals_reference_under_stalls(config, seed):
    run_layer(config, seed, idle=random_stalls(0.3, seed), stall=random_stalls(0.4, seed + 1))


@settings(max_examples=20)
@given(configs(), st.integers(0, 1000))
def test_mvu_interval_and_latency_are_exact(config, seed):
    source, sink = run_layer(config, seed, count=8)
    firsts = sink.times[:: config.nf]
    assert np.diff(firsts[2:]).tolist() == [config.interval] * 5
    # The last beat is in, one cycle later its first step is issued, the group's last follows.
    issued = max(source.times[config.sf - 1] + config.groups, source.times[0] + config.result_steps)
    assert sink.times[0] == issued + config.latency


def test_mvu_reset_in_the_middle_of_a_vector_leaves_nothing_behind():
    config = MvuConfig(
        rows=6, columns=10, input_kind="bit", input_bits=1, pe=2, simd=3, pl=1, scores=False
    )
    run_layer(config, 3, count=4, reset=(17,))


def test_mvu_wrong_weight_bit_shows():
    config = MvuConfig(
        rows=4, columns=9, input_kind="bit", input_bits=1, pe=2, simd=3, pl=1, scores=True
    )
    vectors, weights, _ = draw(config, 5, 2)
    wrong = weights.copy()
    wrong[2, 7] *= -1
    layer = Layer(config, wrong, None)
    sink = Sink(layer.o, 2 * config.nf)
    run(layer, [Source(layer.i, beats_in(config, vectors, random.Random(0))), sink], 1000)
    got = np.array([[beat[0], beat[1]] for beat in sink.received]).reshape(2, 4)
    assert (got != config.reference(vectors, weights, None)).any(axis=0).tolist() == [
        False, False, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("pe", 0, "PE must be between 1 and 4, not 0"),
        ("simd", 10, "SIMD must be between 1 and 9, not 10"),
        ("pl", 2, "PL must be between 1 and 1, not 2"),
        ("input_kind", "float", "Input kind must be"),
        ("buffer_store", "tape", "Buffer store must be"),
    ],
)
def test_mvu_config_refuses(field, value, message):
    good = {"rows": 4, "columns": 9, "input_kind": "bit", "input_bits": 1}
    fold = {"pe": 2, "simd": 3, "pl": 1, "scores": False}
    with pytest.raises(ValueError, match=message):
        MvuConfig(**{**good, **fold, field: value})


def test_mvu_converts_to_rtlil():
    config = MvuConfig(
        rows=6, columns=10, input_kind="int", input_bits=5, pe=2, simd=3, pl=2, scores=True
    )
    assert "module" in rtlil.convert(MatrixVectorUnit(config=config))
