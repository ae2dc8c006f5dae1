# SPDX-License-Identifier: BSD-2-Clause
"""The cycle model of windows, pools and what follows them against simulation, beat by beat."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from amaranth.hdl import Module, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.cycles import predict, timeline
from xnorforge.hw.geometry import Window
from xnorforge.hw.mvu import MatrixVectorUnit, MvuConfig
from xnorforge.hw.pool import PoolConfig, PoolReducer
from xnorforge.hw.threshold import ThresholdConfig, ThresholdUnit
from xnorforge.hw.tile_pool import TilePool, TilePoolConfig
from xnorforge.hw.width import WidthConverter, WidthConverterConfig
from xnorforge.hw.window import SlidingWindow, WindowConfig
from xnorforge.hw.window_walk import Walk
from xnorforge.sim.bench import Sink, Source, run

STAGES = {
    MvuConfig: MatrixVectorUnit,
    PoolConfig: PoolReducer,
    ThresholdConfig: ThresholdUnit,
    TilePoolConfig: TilePool,
    WidthConverterConfig: WidthConverter,
    WindowConfig: SlidingWindow,
}


class Chain(wiring.Component):
    """Stages one after the other; what stores would hold is left at zero, it moves no beat."""

    def __init__(self, configs):
        self.stages = [STAGES[type(config)](config=config) for config in configs]
        widths = [len(Value.cast(port.payload)) for port in (self.stages[0].i, self.stages[-1].o)]
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(widths[0]))),
                "o": Out(stream.Signature(unsigned(widths[1]))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        upstream = self.i
        for index, stage in enumerate(self.stages):
            m.submodules[f"stage_{index}"] = stage
            m.d.comb += [
                Value.cast(stage.i.payload).eq(Value.cast(upstream.payload)),
                stage.i.valid.eq(upstream.valid),
                upstream.ready.eq(stage.i.ready),
            ]
            upstream = stage.o
        m.d.comb += [
            self.o.payload.eq(Value.cast(upstream.payload)),
            self.o.valid.eq(upstream.valid),
            upstream.ready.eq(self.o.ready),
        ]
        return m


def check_every_transfer(configs, frames, gaps):
    """Simulated and predicted times of the chain's ends, with and without gaps of the source."""
    predicted = timeline(configs, frames, gaps)
    unit = Chain(configs)
    idle = (busy for gap in gaps for busy in [True] * gap + [False])
    source, sink = Source(unit.i, [0] * len(gaps), idle=idle), Sink(unit.o, len(predicted.result))
    run(unit, [source, sink], 20 * (predicted.result[-1] + 100))
    assert source.times == predicted.image
    assert sink.times == predicted.result
    return predicted


def frame_beats(configs, frames):
    return len(timeline(configs, frames).image)


def random_gaps(rng, count):
    choices = rng.choice([[0], [0, 0, 0, 1, 2, 7], [0, 9], [3]])
    return [rng.choice(choices) for _ in range(count)]


def random_window(rng, most=6):
    def pair(high):
        return rng.randint(1, high), rng.randint(1, high)

    while True:
        pads = rng.choice([(0, 0, 0, 0), (1, 1, 1, 1), tuple(rng.randint(0, 2) for _ in range(4))])
        try:
            walk = Walk(*pair(most), Window(pair(3), pair(3), pair(2), pads))
        except ValueError:
            continue
        lanes, beats, groups = rng.randint(1, 3), rng.randint(1, 3), rng.choice([1, 1, 2])
        more = rng.choice([0, 0, 1, rng.randint(0, walk.pixels), 2 * walk.pixels])
        return WindowConfig(
            height=walk.height,
            width=walk.width,
            channels=lanes * beats * groups,
            element_bits=1,
            lanes=lanes,
            window=walk.window,
            groups=groups,
            depth=walk.min_depth + more,
            store=rng.choice(["block", "lut"]),
            family=rng.choice(["ice40", "ecp5", "gowin"]),
        )


def random_chain(rng):
    """A window with what may follow it."""
    window = random_window(rng)
    chain = [window]
    columns = window.window.taps * window.channels // window.groups
    if rng.random() < 0.3:
        pool = PoolConfig(window.channels, 1, "bit", window.lanes, window.window.taps, "max")
        pooled = WindowConfig(**{**window.__dict__, "groups": window.channels // window.lanes})
        return [pooled, pool]
    simd = rng.choice([window.lanes, rng.randint(1, columns)])
    if simd != window.lanes:
        chain.append(WidthConverterConfig(columns, 1, window.lanes, simd))
    rows = rng.randint(1, 6)
    mvu = MvuConfig(
        rows=rows,
        columns=columns,
        input_kind="bit",
        input_bits=1,
        pe=rng.randint(1, rows),
        simd=simd,
        pl=1,
        scores=True,
        family=window.family,
        buffer_store=rng.choice(["block", "lut"]),
        sets=window.groups,
        coefficients=rng.choice([(1,), (1,), (2, 1)]),
        windows=window.walk.windows,
    )
    chain.append(mvu)
    if rng.random() < 0.5:
        chain.append(
            ThresholdConfig(
                rows=rows,
                levels=3,
                kind="int",
                bits=mvu.score_bits,
                lanes=mvu.pe,
                method=rng.choice(["parallel", "serial"]),
                windows=mvu.windows,
                sets=mvu.sets,
            )
        )
    return chain


@pytest.mark.parametrize("seed", range(24))
def test_window_every_transfer_is_predicted(seed):
    rng = random.Random(seed)
    config = random_window(rng)
    check_every_transfer([config], 3, random_gaps(rng, 3 * config.beats_in))


@pytest.mark.parametrize("seed", range(40))
def test_window_and_what_follows_every_transfer_is_predicted(seed):
    rng = random.Random(seed)
    chain = random_chain(rng)
    check_every_transfer(chain, 3, random_gaps(rng, frame_beats(chain, 3)))


def random_tile_pool(rng):
    """A pool of tiles; behind it an engine that may make it wait."""
    kernel = rng.randint(1, 3), rng.randint(1, 3)
    windows = Window(kernel, kernel).over(*(rng.randint(k, 3 * k + 2) for k in kernel))
    lanes, beats = rng.randint(1, 3), rng.randint(1, 3)
    config = TilePoolConfig(
        pool=PoolConfig(lanes * beats, 1, "bit", lanes, windows.window.taps, "max"),
        windows=windows,
        store=rng.choice(["block", "lut"]),
    )
    rows = rng.randint(1, 4)
    behind = MvuConfig(
        rows=rows,
        columns=lanes * beats,
        input_kind="bit",
        input_bits=1,
        pe=rng.randint(1, rows),
        simd=lanes,
        pl=1,
        scores=True,
        windows=Window((1, 1)).over(windows.height, windows.width),
    )
    return [config, behind] if rng.random() < 0.7 else [config]


@pytest.mark.parametrize("seed", range(24))
def test_tile_pool_every_transfer_is_predicted(seed):
    rng = random.Random(seed)
    chain = random_tile_pool(rng)
    check_every_transfer(chain, 3, random_gaps(rng, frame_beats(chain, 3)))


def line_buffer(side, stride, depth, pads=(0, 0, 0, 0)):
    """A 3 x 3 window over a square map of one beat a pixel."""
    walk = Walk(side, side, Window((3, 3), (stride, stride), pads=pads))
    depths = {"least": walk.min_depth, "bubble-free": walk.bubble_free_depth()}
    depths["between"] = sum(depths.values()) // 2
    return WindowConfig(
        height=side,
        width=side,
        channels=1,
        element_bits=1,
        lanes=1,
        window=walk.window,
        depth=depths[depth],
    )


def even_gaps(config, frames):
    """Gaps of a source that spreads its beats evenly over the time the windows take."""
    beats = frames * config.beats_in
    times = [-(-beat * config.interval // config.beats_in) for beat in range(beats)]
    return [0] + [after - before - 1 for before, after in pairwise(times)]


DEPTHS = ["least", "between", "bubble-free"]
LINES = [(14, 1), (14, 2), (30, 1), (30, 2), (32, 1), (32, 2)]
SIZES = [pytest.param(*line, marks=[] if line == (14, 2) else [pytest.mark.slow]) for line in LINES]


@pytest.mark.parametrize(("side", "stride"), SIZES)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("source", ["always", "even"])
def test_line_buffer_every_transfer_is_predicted(side, stride, depth, source):
    config = line_buffer(side, stride, depth)
    gaps = [0] * (3 * config.beats_in) if source == "always" else even_gaps(config, 3)
    predicted = check_every_transfer([config], 3, gaps)
    if source == "always":
        firsts = predicted.result[:: config.beats_out]
        assert firsts[2] - firsts[1] == predict([config]).interval_cycles


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("depth", DEPTHS)
def test_line_buffer_of_a_padded_map_every_transfer_is_predicted(stride, depth):
    config = line_buffer(14, stride, depth, pads=(1, 1, 1, 1))
    predicted = check_every_transfer([config], 3, [0] * (3 * config.beats_in))
    firsts = predicted.result[:: config.beats_out]
    assert firsts[2] - firsts[1] == predict([config]).interval_cycles


@pytest.mark.parametrize(("side", "stride"), LINES)
def test_line_buffer_of_bubble_free_depth_costs_no_cycle_and_less_costs_some(side, stride):
    config = line_buffer(side, stride, "bubble-free")
    assert predict([config]).interval_cycles == config.interval
    assert config.bubble_free_depth == config.depth
    frames, results = 6, config.beats_out
    # Where a pixel takes no whole number of cycles, the depth may be one more than needed.
    less = config.depth - stride
    for depth, late in ((config.depth, False), (less, True)):
        shorter = replace(config, depth=depth)
        times = timeline([shorter], frames, even_gaps(config, frames)).result
        ends = times[results - 1 :: results]
        assert (ends[-1] - ends[0] > (frames - 1) * config.interval) == late


def test_prediction_of_least_depths_is_that_of_a_long_timeline():
    config = line_buffer(9, 1, "least")
    mvu = MvuConfig(
        rows=2,
        columns=9,
        input_kind="bit",
        input_bits=1,
        pe=1,
        simd=1,
        pl=1,
        scores=True,
        windows=config.walk.windows,
    )
    chain = [config, mvu, line_buffer_behind(mvu)]
    prediction = predict(chain)
    ends = timeline(chain, 60).result[chain[-1].beats_out - 1 :: chain[-1].beats_out]
    assert ends[59] - ends[19] == 40 * prediction.interval_cycles
    assert prediction.interval_cycles > max(prediction.stage_intervals)
    assert prediction.stage_intervals[0] > config.interval


def line_buffer_behind(mvu):
    """Windows of the least depth over an engine's output."""
    height, width = mvu.windows.height, mvu.windows.width
    walk = Walk(height, width, Window((3, 3)))
    return WindowConfig(
        height=height,
        width=width,
        channels=mvu.rows,
        element_bits=mvu.score_bits,
        lanes=1,
        window=walk.window,
        depth=walk.min_depth,
    )


@pytest.mark.parametrize("seed", range(20))
def test_bubble_free_depth_of_any_window_costs_no_cycle(seed):
    config = random_window(random.Random(seed))
    config = replace(config, depth=config.bubble_free_depth)
    assert predict([config]).interval_cycles == config.interval
    frames, results = 8, config.beats_out
    ends = timeline([config], frames, even_gaps(config, frames)).result[results - 1 :: results]
    # An even source may be a cycle late when the pace is no whole number.
    assert ends[-1] - ends[2] <= (frames - 3) * config.interval + 1
