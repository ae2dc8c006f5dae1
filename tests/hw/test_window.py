# SPDX-License-Identifier: BSD-2-Clause
"""SlidingWindow: values against the reference on any window, depths, timing, reset."""

import random
from dataclasses import replace

import numpy as np
import pytest
from amaranth.back import rtlil
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from xnorforge.hw.geometry import Window
from xnorforge.hw.window import SlidingWindow, WindowConfig
from xnorforge.hw.window_walk import Walk
from xnorforge.sim.bench import Monitor, ProtocolError, Sink, Source, random_stalls, run


def sliding(height, width, window, *, channels=1, lanes=1, depth=None, **more):
    """A config, its ring as small as can be unless told."""
    depth = depth or Walk(height, width, window).min_depth
    fields = {"element_bits": 4, "pad_bits": 9, **more}
    return WindowConfig(
        height=height,
        width=width,
        channels=channels,
        lanes=lanes,
        window=window,
        depth=depth,
        **fields,
    )


@st.composite
def walks(draw, most=8):
    """A map and a window that fits it: any kernel, stride, dilation and padding."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    window = Window(
        draw(pair),
        draw(pair),
        draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        draw(st.one_of(st.just((0, 0, 0, 0)), st.tuples(*[st.integers(0, 3)] * 4))),
    )
    height, width = draw(st.integers(1, most)), draw(st.integers(1, most))
    top, left, bottom, right = window.pads
    extents = [(k - 1) * d + 1 for k, d in zip(window.kernel, window.dilation, strict=True)]
    assume(extents[0] <= height + top + bottom and extents[1] <= width + left + right)
    return Walk(height, width, window)


@st.composite
def configs(draw):
    walk = draw(walks())
    groups, beats, lanes = (draw(st.sampled_from([1, 1, 2, 3])) for _ in range(3))
    bits = draw(st.integers(1, 3))
    return WindowConfig(
        height=walk.height,
        width=walk.width,
        channels=groups * beats * lanes,
        element_bits=bits,
        lanes=lanes,
        window=walk.window,
        groups=groups,
        pad_bits=draw(st.integers(0, (1 << bits) - 1)),
        depth=walk.min_depth + draw(st.integers(0, 2 * walk.pixels)) * draw(st.integers(0, 1)),
        store=draw(st.sampled_from(["block", "lut"])),
        family=draw(st.sampled_from(["ice40", "ecp5", "gowin"])),
    )


def run_window(config, frames=3, seed=0, **stalls):
    generator = random.Random(seed)
    beats = [generator.getrandbits(config.beat_bits) for _ in range(frames * config.beats_in)]
    unit = SlidingWindow(config=config)
    source = Source(unit.i, beats, idle=stalls.get("idle"))
    sink = Sink(unit.o, frames * config.beats_out, stall=stalls.get("stall"))
    # The last map's last pixels may be of no window: the source is done when they are dropped.
    bound = 20 * frames * (config.beats_in + config.beats_out) + 200
    run(unit, [source, sink, Monitor(unit.o)], bound, reset=stalls.get("reset", ()))
    assert sink.received == config.reference(beats)
    return source, sink


@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(configs(), st.integers(0, 1000))
def test_window_equals_reference_under_stalls(config, seed):
    run_window(config, seed=seed, idle=random_stalls(0.3, seed), stall=random_stalls(0.4, seed + 1))


@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(configs(), st.integers(0, 1000))
def test_window_equals_reference_at_full_speed(config, seed):
    run_window(config, seed=seed)


@settings(max_examples=100)
@given(walks(most=10))
def test_walk_never_lets_go_what_a_window_reads_and_holds_little_more(walk):
    windows = walk.windows
    pixels = []
    for position in range(walk.count):
        row, column = divmod(position, windows.width)
        rows = [windows.vertical.pixel(row, t) for t in range(walk.window.kernel[0])]
        columns = [windows.horizontal.pixel(column, t) for t in range(walk.window.kernel[1])]
        pixels.append(
            [
                y * walk.width + x
                for y in rows
                for x in columns
                if 0 <= y < walk.height and 0 <= x < walk.width
            ]
        )
    need, base = walk.need.ravel(), walk.base.ravel()
    for position, read in enumerate(pixels):
        latest = max((max(p) for p in pixels[: position + 1] if p), default=-1) + 1
        earliest = min((min(p) for p in pixels[position:] if p), default=walk.pixels)
        assert all(base[position] <= pixel < need[position] for pixel in read)
        assert need[position] >= latest and base[position] <= earliest
        if all(pixels) and not walk.window.padded:
            # Windows without padding: nothing waits or is held without need, but at the end of a
            # row of windows, where the next row's first pixel may still be far.
            assert need[position] == latest
            assert base[position] == earliest
    assert (np.diff(need) >= 0).all() and (np.diff(base) >= 0).all()
    assert walk.need_steps.sum() == walk.base_steps.sum() == walk.pixels


@settings(max_examples=10, phases=[Phase.explicit, Phase.generate])
@given(walks(most=4))
def test_window_with_a_ring_smaller_than_least_never_ends(walk):
    config = sliding(walk.height, walk.width, walk.window)
    assert config.depth == config.min_depth == walk.min_depth
    if config.min_depth == 1:
        return
    with pytest.raises(ValueError, match=f"needs at least {config.min_depth} pixels"):
        replace(config, depth=config.min_depth - 1)
    object.__setattr__(config, "depth", config.min_depth - 1)
    with pytest.raises(ProtocolError, match="Not done"):
        run_window(config)


def test_least_depth_and_full_speed_depth_of_plain_windows():
    # A frame's last window and the next one's first are both whole in a ring that costs no time.
    for side in (32, 30, 14):
        walk = Walk(side, side, Window((3, 3)))
        assert walk.min_depth == 2 * side + 3
        assert walk.bubble_free_depth(8) == 2 * walk.min_depth
    assert Walk(9, 9, Window((1, 1))).min_depth == 1


def test_window_latency_and_interval():
    config = sliding(6, 5, Window((3, 3)), channels=4, lanes=2, depth=40)
    source, sink = run_window(config, frames=4)
    needed = config.walk.need[0, 0] * config.pixel_beats - 1
    assert sink.times[0] == source.times[needed] + 1 + config.latency
    firsts = sink.times[:: config.beats_out]
    assert np.diff(firsts[1:]).tolist() == [config.interval] * 2


def test_window_reset_in_the_middle_of_a_map_leaves_nothing_behind():
    config = sliding(5, 5, Window((3, 3), (2, 2), pads=(1, 1, 1, 1)), channels=2)
    run_window(config, reset=(37, 38))


def test_window_pads_are_constants_of_every_lane():
    config = sliding(2, 2, Window((3, 3), pads=(1, 1, 1, 1)), channels=3, lanes=3)
    assert config.pad_beat == 0x999
    out = config.reference([1, 2, 3, 4])
    assert out[:9] == [0x999] * 4 + [1, 2, 0x999, 3, 4]
    run_window(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("height", 0, "Sliding window height must be at least 1, not 0"),
        ("element_bits", 0, "Sliding window element bits must be at least 1, not 0"),
        ("groups", 3, "4 channels do not fall into 3 groups"),
        ("lanes", 3, "Lanes must divide the 4 channels of a group, not 3"),
        ("pad_bits", 16, "Padding must be an element of 4 bits, not 16"),
        ("depth", 12, "needs at least 13 pixels, not 12"),
        ("store", "tape", "Ring store must be block or lut"),
        ("family", "ttl", "Family must be one of"),
        ("height", 2, "does not fit 2 pixels"),
    ],
)
def test_window_config_refuses(field, value, message):
    good = sliding(5, 5, Window((3, 3)), channels=4)
    with pytest.raises(ValueError, match=message):
        replace(good, **{field: value})


def test_window_converts_to_rtlil():
    for store in ("block", "lut"):
        config = sliding(5, 6, Window((2, 3), (2, 1), pads=(0, 1, 1, 0)), channels=4, store=store)
        assert "module" in rtlil.convert(SlidingWindow(config=config))
