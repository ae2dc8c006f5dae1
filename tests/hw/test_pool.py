# SPDX-License-Identifier: BSD-2-Clause
"""PoolReducer: values against the reference and against the layer, timing, reset."""

import random
from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from xnorforge.gen.layers import Pool, ValueType
from xnorforge.gen.numpy_reference import _pool
from xnorforge.hw.geometry import Window
from xnorforge.hw.pool import PoolConfig, PoolReducer
from xnorforge.hw.window import SlidingWindow, WindowConfig
from xnorforge.hw.window_walk import Walk
from xnorforge.sim.bench import Monitor, Sink, Source, random_stalls, run


@st.composite
def configs(draw):
    kind = draw(st.sampled_from(["bit", "uint", "int"]))
    lanes = draw(st.integers(1, 3))
    return PoolConfig(
        channels=lanes * draw(st.integers(1, 3)),
        element_bits=1 if kind == "bit" else draw(st.integers(1, 8)),
        kind=kind,
        lanes=lanes,
        taps=draw(st.integers(1, 9)),
        mode=draw(st.sampled_from(["max", "sum"])),
    )


def run_pool(config, count, seed, **stalls):
    generator = random.Random(seed)
    bits = config.lanes * config.element_bits
    extremes = [0, (1 << bits) - 1]
    beats = [
        generator.choice([generator.getrandbits(bits), *extremes])
        for _ in range(count * config.taps)
    ]
    unit = PoolReducer(config=config)
    source = Source(unit.i, beats, idle=stalls.get("idle"))
    sink = Sink(unit.o, count, stall=stalls.get("stall"))
    monitors = [Monitor(unit.o)]
    run(unit, [source, sink, *monitors], 40 * len(beats) + 100, reset=stalls.get("reset", ()))
    assert sink.received == config.reference(beats)
    return source, sink


@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(configs(), st.integers(0, 1000))
def test_pool_equals_reference_under_stalls(config, seed):
    run_pool(config, 12, seed, idle=random_stalls(0.3, seed), stall=random_stalls(0.5, seed + 1))


@pytest.mark.parametrize("taps", [1, 2, 9])
def test_pool_takes_a_beat_every_cycle_and_answers_in_the_next(taps):
    config = PoolConfig(4, 3, "int", 2, taps, "max")
    source, sink = run_pool(config, 6, 0)
    assert source.times == list(range(6 * taps))
    assert sink.times == [(k + 1) * taps - 1 + config.latency for k in range(6)]
    assert config.interval == taps


def test_pool_reset_in_the_middle_of_a_window_leaves_nothing_behind():
    run_pool(PoolConfig(2, 4, "uint", 2, 4, "sum"), 5, 1, reset=(7,))


class Pooling(wiring.Component):
    """Windows and their reducer."""

    def __init__(self, window, pool):
        self.window, self.pool = SlidingWindow(config=window), PoolReducer(config=pool)
        super().__init__(
            {
                "i": In(stream.Signature(self.window.i.payload.shape())),
                "o": Out(stream.Signature(self.pool.o.payload.shape())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.window, m.submodules.pool = self.window, self.pool
        wiring.connect(m, wiring.flipped(self.i), self.window.i)
        wiring.connect(m, self.window.o, self.pool.i)
        wiring.connect(m, self.pool.o, wiring.flipped(self.o))
        return m


WINDOWS = [
    Window((2, 2), (2, 2)),
    Window((3, 3), (2, 2), pads=(1, 1, 1, 1)),
    Window((3, 2), (1, 3), pads=(0, 0, 2, 0)),
    Window((2, 2), (3, 3)),
    Window((5, 5)),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("kind", ["bit", "uint", "int"])
@pytest.mark.parametrize("mode", ["max", "sum"])
def test_windows_and_pool_equal_the_layer(window, kind, mode):
    if mode == "sum" and kind == "bit" and window.padded:
        pytest.skip("bits have no element that takes no part in a sum")
    bits, lanes, (height, width, channels) = (1 if kind == "bit" else 3), 2, (5, 6, 4)
    layer = Pool("pool", ValueType(kind, bits, (height, width, channels)), window, mode)
    pool = PoolConfig(channels, bits, kind, lanes, window.taps, mode)
    assert pool.output_bits == layer.output.bits and pool.output_kind == layer.output.kind
    config = WindowConfig(
        height=height,
        width=width,
        channels=channels,
        element_bits=bits,
        lanes=lanes,
        window=window,
        groups=channels // lanes,
        pad_bits=pool.pad_bits if window.padded else 0,
        depth=Walk(height, width, window).min_depth,
    )
    generator = np.random.default_rng(window.taps)
    maps = generator.integers(layer.source.low, layer.source.high + 1, (2, height, width, channels))
    if kind == "bit":
        maps |= 1  # -1 and +1
    stored = (maps > 0).astype(np.int64) if kind == "bit" else maps & (1 << bits) - 1
    shifts = np.arange(lanes) * bits
    beats = (stored.reshape(-1, lanes) << shifts).sum(axis=1).tolist()
    expected = _pool(layer, maps)
    if layer.output.kind == "bit":
        expected = (expected > 0).astype(np.int64)
    lanes_out = expected.reshape(-1, lanes) & (1 << pool.output_bits) - 1
    wanted = (lanes_out << np.arange(lanes) * pool.output_bits).sum(axis=1).tolist()
    unit = Pooling(config, pool)
    sink = Sink(unit.o, len(wanted), stall=random_stalls(0.2, 1))
    run(unit, [Source(unit.i, beats, idle=random_stalls(0.2, 2)), sink], 20_000)
    assert sink.received == wanted


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("taps", 0, "Pool taps must be at least 1, not 0"),
        ("lanes", 3, "Lanes must divide the 4 channels, not 3"),
        ("kind", "float", "Pool kind must be bit, uint or int"),
        ("kind", "bit", "An element of kind bit has 1 bit, not 2"),
        ("mode", "min", "Pool mode must be max or sum"),
    ],
)
def test_pool_config_refuses(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(PoolConfig(4, 2, "uint", 2, 4, "max"), **{field: value})


def test_pool_of_summed_bits_has_no_padding():
    with pytest.raises(ValueError, match="no element that takes no part"):
        _ = PoolConfig(4, 1, "bit", 2, 4, "sum").pad_bits


def test_pool_converts_to_rtlil():
    assert "module" in rtlil.convert(PoolReducer(config=PoolConfig(4, 1, "bit", 4, 9, "sum")))
