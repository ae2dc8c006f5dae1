# SPDX-License-Identifier: BSD-2-Clause
"""WindowAddress walks through the words of every window's border class."""

import gc
import random

import pytest
from amaranth._unused import MustUse
from amaranth.back import rtlil
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.hw.border import WindowAddress, window_borders
from xnorforge.hw.geometry import Window
from xnorforge.sim.bench import run


def addresses(windows, words, maps, seed):
    """What `address` shows before each step, with idle cycles between."""
    unit = WindowAddress(windows=windows, words=words)
    rng = random.Random(seed)
    count = 1 if windows is None else windows.height * windows.width
    shown = []

    async def bench(ctx):
        for _ in range(maps * count):
            for word in range(words):
                while rng.random() < 0.3:
                    # `last` alone moves nothing.
                    ctx.set(unit.step, 0)
                    ctx.set(unit.last, rng.getrandbits(1))
                    await ctx.tick()
                shown.append(ctx.get(unit.address))
                ctx.set(unit.step, 1)
                ctx.set(unit.last, word == words - 1)
                await ctx.tick()

    run(unit, [bench], 100_000)
    return shown


@st.composite
def window_maps(draw):
    axes = [
        (draw(st.integers(1, 7)), draw(st.integers(1, 4)), draw(st.integers(1, 3)),
         draw(st.integers(1, 2)), draw(st.integers(0, 3)), draw(st.integers(0, 3)))
        for _ in "yx"
    ]  # fmt: skip
    (height, *vertical), (width, *horizontal) = (
        (size, taps, stride, dilation, before + max(0, (taps - 1) * dilation + 1 - size), after)
        for size, taps, stride, dilation, before, after in axes
    )
    pairs = list(zip(vertical, horizontal, strict=True))
    pads = (pairs[3][0], pairs[3][1], pairs[4][0], pairs[4][1])
    return Window(pairs[0], pairs[1], pairs[2], pads).over(height, width)


@settings(max_examples=40)
@given(st.none() | window_maps(), st.integers(1, 4), st.integers(0, 1000))
def test_address_is_in_the_words_of_the_windows_class(windows, words, seed):
    wanted = [
        border * words + word
        for border in window_borders(windows).tolist()
        for word in range(words)
    ]
    assert addresses(windows, words, 2, seed) == wanted * 2


def test_a_class_that_comes_again_along_an_axis():
    """Windows left and right of a map of one pixel lose the same taps."""
    windows = Window((1, 1), pads=(0, 1, 0, 1)).over(1, 1)
    assert windows.horizontal.border_of == (0, 1, 0)
    assert addresses(windows, 1, 3, 0) == [0, 1, 0] * 3


@pytest.fixture
def refusals(monkeypatch):
    """Amaranth warns of components that were made and not used; refused ones are that too."""
    monkeypatch.setattr(MustUse, "_MustUse__silence", True)
    yield
    gc.collect()


def test_window_address_refuses_no_words(refusals):
    with pytest.raises(ValueError, match="at least 1, not 0"):
        WindowAddress(windows=None, words=0)


def test_window_address_converts_to_rtlil():
    windows = Window((3, 3), pads=(1, 1, 1, 1)).over(5, 6)
    assert "module" in rtlil.convert(WindowAddress(windows=windows, words=3))
