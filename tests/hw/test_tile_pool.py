# SPDX-License-Identifier: BSD-2-Clause
"""TilePool: results against the reference and the layer, timing, reset."""

import random
from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from xnorforge.gen.layers import Pool, ValueType
from xnorforge.gen.numpy_reference import _pool
from xnorforge.hw.geometry import Window
from xnorforge.hw.pool import PoolConfig
from xnorforge.hw.tile_pool import TilePool, TilePoolConfig, tiles
from xnorforge.sim.bench import Monitor, Sink, Source, random_stalls, run


@st.composite
def configs(draw):
    kind = draw(st.sampled_from(["bit", "uint", "int"]))
    lanes = draw(st.integers(1, 3))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    size = [draw(st.integers(k, 3 * k + 2)) for k in kernel]
    whole = draw(st.booleans())
    # One window alone may have any stride.
    window = Window(tuple(size), (1, 1)) if whole else Window(kernel, kernel)
    pool = PoolConfig(
        channels=lanes * draw(st.integers(1, 3)),
        element_bits=1 if kind == "bit" else draw(st.integers(1, 6)),
        kind=kind,
        lanes=lanes,
        taps=window.taps,
        mode=draw(st.sampled_from(["max", "sum"])),
    )
    return TilePoolConfig(
        pool=pool,
        windows=window.over(*size),
        store=draw(st.sampled_from(["block", "lut"])),
        family=draw(st.sampled_from(["ice40", "ecp5", "gowin"])),
    )


def run_pool(config, maps, seed, **stalls):
    generator = random.Random(seed)
    bits = config.pool.lanes * config.pool.element_bits
    extremes = [0, (1 << bits) - 1]
    beats = [
        generator.choice([generator.getrandbits(bits), *extremes])
        for _ in range(maps * config.beats_in)
    ]
    unit = TilePool(config=config)
    source = Source(unit.i, beats, idle=stalls.get("idle"))
    sink = Sink(unit.o, maps * config.beats_out, stall=stalls.get("stall"))
    bound = 40 * len(beats) + 100
    run(unit, [source, sink, Monitor(unit.o)], bound, reset=stalls.get("reset", ()))
    assert sink.received == config.reference(beats)
    return source, sink


@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(configs(), st.integers(0, 1000))
def test_tile_pool_equals_reference_under_stalls(config, seed):
    run_pool(config, 3, seed, idle=random_stalls(0.3, seed), stall=random_stalls(0.5, seed + 1))


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_tile_pool_takes_a_beat_every_cycle_and_answers_two_later(lanes):
    pool = PoolConfig(4, 3, "int", lanes, 4, "max")
    config = TilePoolConfig(pool=pool, windows=Window((2, 2), (2, 2)).over(5, 7))
    source, sink = run_pool(config, 2, 0)
    assert source.times == list(range(2 * config.beats_in))
    due = [map_ * config.beats_in + beat for map_ in (0, 1) for beat in config.finishing()]
    assert sink.times == [beat + config.latency for beat in due]


def test_tile_pool_reset_in_the_middle_of_a_window_leaves_nothing_behind():
    pool = PoolConfig(2, 4, "uint", 1, 6, "sum")
    config = TilePoolConfig(pool=pool, windows=Window((2, 3), (2, 3)).over(4, 7))
    run_pool(config, 3, 1, reset=(17,))


@pytest.mark.parametrize("kind", ["bit", "uint", "int"])
@pytest.mark.parametrize("mode", ["max", "sum"])
def test_tile_pool_equals_the_layer(kind, mode):
    bits, lanes, (height, width, channels) = (1 if kind == "bit" else 3), 2, (5, 6, 4)
    window = Window((2, 3), (2, 3))
    layer = Pool("pool", ValueType(kind, bits, (height, width, channels)), window, mode)
    pool = PoolConfig(channels, bits, kind, lanes, window.taps, mode)
    config = TilePoolConfig(pool=pool, windows=layer.windows)
    generator = np.random.default_rng(7)
    maps = generator.integers(layer.source.low, layer.source.high + 1, (2, height, width, channels))
    if kind == "bit":
        maps |= 1  # -1 and +1
    stored = (maps > 0).astype(np.int64) if kind == "bit" else maps & (1 << bits) - 1
    beats = (stored.reshape(-1, lanes) << np.arange(lanes) * bits).sum(axis=1).tolist()
    expected = _pool(layer, maps)
    if layer.output.kind == "bit":
        expected = (expected > 0).astype(np.int64)
    lanes_out = expected.reshape(-1, lanes) & (1 << pool.output_bits) - 1
    wanted = (lanes_out << np.arange(lanes) * pool.output_bits).sum(axis=1).tolist()
    assert config.reference(beats) == wanted


def test_which_windows_lie_side_by_side():
    assert tiles(Window((2, 2), (2, 2)).over(5, 5))
    assert tiles(Window((7, 7)).over(7, 7))
    assert tiles(Window((1, 2), (1, 2), dilation=(3, 1)).over(4, 4))
    assert not tiles(Window((3, 3), (2, 2)).over(7, 7))
    assert not tiles(Window((2, 2), (3, 3)).over(8, 8))
    assert not tiles(Window((2, 2), (2, 2), pads=(0, 0, 1, 1)).over(5, 5))
    assert not tiles(Window((2, 2), (2, 2), dilation=(2, 2)).over(8, 8))


def test_tile_pool_config_refuses():
    good = TilePoolConfig(
        pool=PoolConfig(4, 2, "uint", 2, 4, "max"), windows=Window((2, 2), (2, 2)).over(4, 4)
    )
    with pytest.raises(ValueError, match="do not lie side by side"):
        replace(good, windows=Window((2, 2)).over(4, 4))
    with pytest.raises(ValueError, match="have 4 taps, not 3"):
        replace(good, pool=replace(good.pool, taps=3))
    with pytest.raises(ValueError, match="store must be block or lut"):
        replace(good, store="const")
    with pytest.raises(ValueError, match="Family must be one of"):
        replace(good, family="xc7")


def test_tile_pool_converts_to_rtlil():
    config = TilePoolConfig(
        pool=PoolConfig(4, 1, "bit", 4, 4, "sum"), windows=Window((2, 2), (2, 2)).over(5, 4)
    )
    assert "module" in rtlil.convert(TilePool(config=config))
