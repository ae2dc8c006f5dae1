# SPDX-License-Identifier: BSD-2-Clause
"""MatrixVectorUnit between ideal stores: values, exact timing, stalls, reset, conversion."""

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
from xnorforge.gen.layers import WeightType
from xnorforge.hw.geometry import Window
from xnorforge.hw.mvu import MatrixVectorUnit, MvuConfig
from xnorforge.hw.popcount import PIPELINES, STRUCTURES
from xnorforge.hw.store import Store
from xnorforge.sim.bench import Monitor, Sink, Source, random_stalls, run

WEIGHT_PLANES = [
    ((1,), False),
    ((2, 1), False),
    ((4, 2, 1), False),
    ((1, 1), True),
    ((2, 1, 1), True),
    ((8, 4, 2, 1, 1), True),
]


class Layer(wiring.Component):
    """A MatrixVectorUnit with its two stores."""

    def __init__(self, config, weights, thresholds, offsets=None):
        self.config = config
        self.words = (
            config.weight_words(weights),
            config.preset_words(weights, thresholds, offsets),
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
    """Random vectors, weights, thresholds (None for scores) and offsets (or None)."""
    g = np.random.default_rng(seed)
    rows = config.sets * config.rows
    planes = g.choice([-1, 1], (config.planes, rows, config.columns))
    weights = np.tensordot(np.array(config.coefficients), planes, 1) // config.scale
    bits = config.input_bits
    low, high = (
        (-(1 << (bits - 1)), 1 << (bits - 1)) if config.input_kind == "int" else (0, 1 << bits)
    )
    vectors = g.integers(low, high, (count, config.columns))
    thresholds = offsets = None
    if not config.scores:
        spread = max(1, config.dot_high // 4)
        thresholds = g.integers(-spread, spread + 1, (config.borders, 1, rows))
        extreme = g.random(thresholds.shape) < 0.1
        thresholds[extreme] = g.choice([-config.dot_high, config.dot_high + 1], extreme.sum())
    elif config.offset_high:
        high = config.offset_high
        offsets = g.integers(-high, high + 1, (config.borders, rows))
    return vectors, weights.astype(np.int8), thresholds, offsets


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
    vectors, *numbers = draw(config, seed, count)
    layer = Layer(config, *numbers)
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
    np.testing.assert_array_equal(got, config.reference(vectors, *numbers))
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


@st.composite
def window_maps(draw_value):
    height, width = draw_value(st.integers(1, 4)), draw_value(st.integers(1, 4))
    kernel = [draw_value(st.integers(1, 3)) for _ in "yx"]
    pads = [draw_value(st.integers(0, 2)) for _ in "tlbr"]
    for axis, size in enumerate((height, width)):
        pads[axis] += max(0, kernel[axis] - size)
    stride = [draw_value(st.integers(1, 2)) for _ in "yx"]
    return Window(kernel, stride, (1, 1), pads).over(height, width)


@st.composite
def map_configs(draw_value):
    """Engines of convolutions: border classes, weight sets, weight planes, offsets."""
    config = draw_value(configs())
    planes, halved = draw_value(st.sampled_from(WEIGHT_PLANES))
    return dataclasses.replace(
        config,
        windows=draw_value(st.none() | window_maps()),
        sets=draw_value(st.integers(1, 3)),
        coefficients=planes,
        halved=halved,
        offset_high=draw_value(st.integers(0, 20)) if config.scores else 0,
    )


@st.composite
def reuse_configs(draw_value):
    """Engines whose weight words serve several windows at once."""
    config = draw_value(map_configs())
    windows = draw_value(window_maps().filter(lambda m: m.height * m.width > 1))
    most = min(5, windows.height * windows.width)
    return dataclasses.replace(config, windows=windows, reuse=draw_value(st.integers(2, most)))


@settings(max_examples=15)
@given(configs(), st.integers(0, 1000))
def test_mvu_equals_reference_under_stalls(config, seed):
    run_layer(config, seed, idle=random_stalls(0.3, seed), stall=random_stalls(0.4, seed + 1))


@settings(max_examples=15)
@given(map_configs(), st.integers(0, 1000))
def test_mvu_of_a_convolution_equals_reference_under_stalls(config, seed):
    count = config.vectors + config.sets + 1  # into the next image
    run_layer(
        config, seed, count, idle=random_stalls(0.3, seed), stall=random_stalls(0.4, seed + 1)
    )


@settings(max_examples=12)
@given(reuse_configs(), st.integers(0, 1000))
def test_mvu_of_several_windows_equals_reference_under_stalls(config, seed):
    run_layer(
        config,
        seed,
        2 * config.vectors,
        idle=random_stalls(0.3, seed),
        stall=random_stalls(0.4, seed + 1),
    )


@settings(max_examples=10)
@given(configs() | map_configs(), st.integers(0, 1000))
def test_mvu_interval_and_latency_are_exact(config, seed):
    source, sink = run_layer(config, seed, count=8)
    firsts = sink.times[:: config.nf]
    assert np.diff(firsts[2:]).tolist() == [config.interval] * 5
    # The last beat is in, one cycle later its first step is issued, the group's last follows;
    # further planes of the weights follow without a pause.
    first_pass = config.sf * config.groups
    issued = max(source.times[config.sf - 1] + config.groups, source.times[0] + first_pass)
    assert sink.times[0] == issued + config.result_steps - first_pass + config.latency


@settings(max_examples=20)
@given(configs() | map_configs() | reuse_configs(), st.integers(0, 1000), st.booleans())
def test_mvu_every_transfer_is_predicted(config, seed, gaps):
    frames = 1 + 4 // config.vectors
    waits = random.Random(seed)
    beats = frames * config.vectors * config.sf
    idle = [waits.choice([0, 0, 0, 1, 2, 7]) if gaps else 0 for _ in range(beats)]
    pattern = [busy for gap in idle for busy in [True] * gap + [False]]
    source, sink = run_layer(config, seed, frames * config.vectors, idle=iter(pattern + [True] * 9))
    predicted = timeline([config], frames, idle)
    assert source.times == predicted.image
    assert sink.times == predicted.result


def test_mvu_reset_in_the_middle_of_a_vector_leaves_nothing_behind():
    config = MvuConfig(
        rows=6, columns=10, input_kind="bit", input_bits=1, pe=2, simd=3, pl=1, scores=False
    )
    run_layer(config, 3, count=4, reset=(17,))
    windows = Window((3, 3)).over(4, 5)
    run_layer(dataclasses.replace(config, windows=windows, reuse=4), 3, 12, reset=(61,))


def test_mvu_wrong_weight_bit_shows():
    config = MvuConfig(
        rows=4, columns=9, input_kind="bit", input_bits=1, pe=2, simd=3, pl=1, scores=True
    )
    vectors, weights, _, _ = draw(config, 5, 2)
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
        ("sets", 0, "Weight sets must be at least 1, not 0"),
        ("coefficients", (3, 1), "Coefficients must halve down to 1"),
        ("coefficients", (), "Coefficients must halve down to 1"),
        ("halved", True, "Halved weights need an even sum"),
        ("offset_high", 3, "Offsets are for dot products that go out"),
    ],
)
def test_mvu_config_refuses(field, value, message):
    good = {"rows": 4, "columns": 9, "input_kind": "bit", "input_bits": 1}
    fold = {"pe": 2, "simd": 3, "pl": 1, "scores": False}
    with pytest.raises(ValueError, match=message):
        MvuConfig(**{**good, **fold, field: value})


@pytest.mark.parametrize("kind", ["odd", "int"])
@pytest.mark.parametrize("bits", range(1, 5))
def test_mvu_planes_of_weights_are_those_of_the_network(kind, bits):
    weight_type = WeightType(kind, bits)
    config = MvuConfig(
        rows=3, columns=50, input_kind="bit", input_bits=1, pe=1, simd=50, pl=1, scores=True,
        coefficients=weight_type.coefficients, halved=kind == "int",
    )  # fmt: skip
    _, weights, _, _ = draw(config, bits, 1)
    np.testing.assert_array_equal(config.weight_signs(weights), weight_type.split(weights))
    assert config.dot_high == 50 * weight_type.high
    with pytest.raises(ValueError, match="are no sums of"):
        config.weight_signs(weights + 1 if kind == "odd" else weights * 50)


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize(("kind", "bits"), [("bit", 1), ("uint", 3), ("int", 4)])
@pytest.mark.parametrize(("coefficients", "halved"), WEIGHT_PLANES)
def test_mvu_extremes_fit_the_accumulator(kind, bits, coefficients, halved, scores):
    """Largest and smallest dot products against thresholds that never and always hold."""
    for columns in (1, 2, 3, 4, 7, 8, 15, 16):
        config = MvuConfig(
            rows=4, columns=columns, input_kind=kind, input_bits=bits, pe=1, simd=1, pl=1,
            scores=scores, coefficients=coefficients, halved=halved, offset_high=7 * scores,
        )  # fmt: skip
        high, largest = config.dot_high, sum(coefficients) // config.scale
        weights = np.repeat([[largest], [-largest]], columns, axis=1)[[0, 0, 1, 1]].astype(np.int8)
        low_x, high_x = {"bit": (-1, 1), "uint": (0, 7), "int": (-8, 7)}[kind]
        thresholds = offsets = None
        if scores:
            offsets = np.array([[7, -7, 7, -7]])
            presets = config.presets(weights, None, offsets)[0]
        else:
            thresholds = np.array([-high, high + 1] * 2)
            presets = config.presets(weights, thresholds)[0]
        signs = config.weight_signs(weights)
        for x in (low_x, high_x):
            stored = {"bit": (x + 1) // 2, "uint": x, "int": x + 8}[kind]
            planes = stored >> np.arange(bits) & 1
            matches = (planes == (signs[:, :, 0, None] > 0)) @ (1 << np.arange(bits)) * columns
            counted = (np.array(coefficients)[:, None] * matches).sum(axis=0)
            acc = counted + (presets >> 1 if config.has_parity else presets)
            half = 1 << (config.acc_width - 1)
            assert (acc >= -half).all() and (acc < half).all()
            got = acc >= 0
            if scores and kind == "bit" and not halved:
                odd = presets & 1 if config.has_parity else columns * sum(coefficients) & 1
                got = 2 * acc + odd
            elif scores:
                got = acc >> 1 if halved and kind != "bit" else acc
            vector = np.full((1, columns), (x + 1) // 2 if kind == "bit" else x)
            wanted = config.reference(vector, weights, thresholds, offsets)[0]
            np.testing.assert_array_equal(got, wanted)
            assert not scores or (abs(wanted) < 1 << (config.score_bits - 1)).all()


def test_mvu_converts_to_rtlil():
    config = MvuConfig(
        rows=6, columns=10, input_kind="int", input_bits=5, pe=2, simd=3, pl=2, scores=True
    )
    assert "module" in rtlil.convert(MatrixVectorUnit(config=config))
