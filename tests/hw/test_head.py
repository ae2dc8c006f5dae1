# SPDX-License-Identifier: BSD-2-Clause
"""ArgMaxHead: the reference's labels, exact timing, under stalls."""

import random

import numpy as np
import pytest
from amaranth.back import rtlil
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.hw.head import ArgMaxHead, HeadConfig
from xnorforge.sim.bench import Monitor, Sink, Source, random_stalls, run


class WithTable(ArgMaxHead):
    """A head whose scales and offsets come from a table, `latency` cycles late like a store's."""

    def __init__(self, *, config, words):
        super().__init__(config=config)
        self.words = words

    def elaborate(self, platform):
        from amaranth.hdl import Array, Const, Signal

        m = super().elaborate(platform)
        table = Array(Const(word, len(self.data)) for word in self.words)
        value = table[self.address]
        for _ in range(self.config.store_config.latency):
            later = Signal(len(self.data))
            m.d.sync += later.eq(value)
            value = later
        m.d.comb += self.data.eq(value)
        return m


def frames_of(config, count, rng):
    low, high = -(1 << (config.score_bits - 1)), (1 << (config.score_bits - 1)) - 1
    few = [rng.randint(low, high) for _ in range(3)]  # few values: ties are common
    return [[rng.choice(few) for _ in range(config.classes)] for _ in range(count)]


def run_head(config, frames, scale=None, offset=None, idle=None, stall=None, reset=()):
    words = config.words(scale, offset) if config.affine else [0]
    head = WithTable(config=config, words=words)
    source = Source(head.i, [score for frame in frames for score in frame], idle=idle)
    sink = Sink(head.o, len(frames) * config.classes, stall=stall)
    run(head, [source, sink, Monitor(head.o)], 100_000, reset=reset)
    return source, sink


@settings(max_examples=30)
@given(
    classes=st.integers(1, 12),
    score_bits=st.integers(2, 12),
    tie=st.sampled_from(["first", "last"]),
    affine=st.booleans(),
    rule=st.sampled_from(["argmax", "highest_bit"]),
    seed=st.integers(0, 1000),
)
def test_head_gives_the_references_labels_under_stalls(
    classes, score_bits, tie, affine, rule, seed
):
    rng = random.Random(seed)
    config = HeadConfig(classes=classes, score_bits=score_bits, tie=tie, affine=affine, rule=rule)
    frames = frames_of(config, 4, rng)
    scale = np.array([rng.choice([-32768, 32767, 1, 0, -3, 700]) for _ in range(classes)])
    offset = np.array([rng.choice([-(1 << 31), (1 << 31) - 1, 0, 5]) for _ in range(classes)])
    _, sink = run_head(
        config, frames, scale, offset, random_stalls(0.3, seed), random_stalls(0.3, seed + 1)
    )
    beats = sink.received
    assert [beat.score for beat in beats] == [score for frame in frames for score in frame]
    assert [beat.last for beat in beats] == ([0] * (classes - 1) + [1]) * len(frames)
    labels = [beat.label for beat in beats if beat.last]
    assert labels == [config.reference(frame, scale, offset) for frame in frames]


@pytest.mark.parametrize("affine", [False, True])
def test_head_latency_and_interval_are_exact(affine):
    config = HeadConfig(classes=5, score_bits=6, affine=affine)
    frames = frames_of(config, 3, random.Random(1))
    ones, zeros = np.ones(5, np.int64), np.zeros(5, np.int64)
    source, sink = run_head(config, frames, ones, zeros)
    assert [o - i for i, o in zip(source.times, sink.times, strict=True)] == [config.latency] * 15
    assert np.diff(source.times).tolist() == [config.interval] * 14


def test_highest_bit_is_the_last_key_that_is_not_negative():
    config = HeadConfig(classes=4, score_bits=5, rule="highest_bit")
    frames = [[3, -2, 0, -1], [9, 1, -9, 5], [-1, -1, -1, -1], [-1, 0, -3, -4], [-5, -1, -2, -3]]
    _, sink = run_head(config, frames)
    assert [beat.label for beat in sink.received if beat.last] == [2, 3, 0, 1, 0]


def test_head_starts_a_frame_over_after_reset():
    config = HeadConfig(classes=4, score_bits=5)
    frames = [[3, -2, 5, 5], [1, 9, -9, 9]]
    _, sink = run_head(config, frames, reset=(6,))
    assert [beat.label for beat in sink.received if beat.last] == [2, 1]


def test_head_refuses_numbers_that_do_not_fit():
    config = HeadConfig(classes=2, score_bits=5, affine=True)
    with pytest.raises(ValueError, match="Head scale must lie in"):
        config.words(np.array([1 << 15, 0]), np.array([0, 0]))
    with pytest.raises(ValueError, match="Head offset must lie in"):
        config.words(np.array([1, 0]), np.array([0, 1 << 31]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": 0}, "Classes must be between"),
        ({"tie": "both"}, "Tie rule must be"),
        ({"rule": "lowest"}, "Head rule must be"),
    ],
)
def test_head_config_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        HeadConfig(**{"classes": 3, "score_bits": 4, **values})


@pytest.mark.parametrize("affine", [False, True])
def test_head_converts_to_rtlil(affine):
    config = HeadConfig(classes=3, score_bits=4, affine=affine)
    assert "module" in rtlil.convert(ArgMaxHead(config=config))
