# SPDX-License-Identifier: BSD-2-Clause
"""The cycle model of windows, pools and what follows them against simulation, beat by beat."""

import random

import pytest
from amaranth.hdl import Module, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.cycles import timeline
from xnorforge.hw.geometry import Window
from xnorforge.hw.mvu import MatrixVectorUnit, MvuConfig
from xnorforge.hw.pool import PoolConfig, PoolReducer
from xnorforge.hw.threshold import ThresholdConfig, ThresholdUnit
from xnorforge.hw.width import WidthConverter, WidthConverterConfig
from xnorforge.hw.window import SlidingWindow, WindowConfig
from xnorforge.hw.window_walk import Walk
from xnorforge.sim.bench import Sink, Source, run

STAGES = {
    MvuConfig: MatrixVectorUnit,
    PoolConfig: PoolReducer,
    ThresholdConfig: ThresholdUnit,
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
