# SPDX-License-Identifier: BSD-2-Clause
"""Popcount against its reference: shapes, latency, conversion, parameters, netlists."""

import gc
import random

import pytest
from amaranth import *
from amaranth._unused import MustUse
from amaranth.back import rtlil
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.hw.compressor import compress
from xnorforge.hw.popcount import PIPELINES, STRUCTURES, Popcount, PopcountConfig
from xnorforge.sim.netlist import synthesise_netlist

configs = st.builds(
    PopcountConfig,
    width=st.one_of(st.integers(1, 40), st.sampled_from((63, 64, 65, 100))),
    structure=st.sampled_from(STRUCTURES),
    pipeline=st.sampled_from(PIPELINES),
    literals=st.sampled_from((1, 2)),
)


def rtl_counts(dut: Popcount, words: list[int]) -> list[int]:
    """What `o` shows while each word is on `i`, a new one every cycle."""
    top = Module()
    top.domains.sync = ClockDomain()
    top.submodules.dut = dut
    shown = []

    async def bench(ctx):
        for word in words:
            ctx.set(dut.i, word)
            await ctx.delay(0.4e-6)
            shown.append(ctx.get(dut.o))
            await ctx.tick()

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return shown


def edge_words(width: int) -> list[int]:
    ones = (1 << width) - 1
    return [0, ones, 1, 1 << (width - 1), ones ^ 1, ones >> 1]


def assert_counts(config: PopcountConfig, words: list[int], shown: list[int]) -> None:
    """Every count comes `latency` cycles after its word, not one sooner or later."""
    latency = config.latency
    assert shown[latency:] == [config.reference(w) for w in words[: len(words) - latency]]


@settings(max_examples=30)
@given(configs, st.randoms(use_true_random=False))
def test_count_equals_reference(config, rng):
    words = edge_words(config.width) + [rng.getrandbits(config.width) for _ in range(20)]
    assert_counts(config, words, rtl_counts(Popcount(config=config), words))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("width", range(1, 8))
def test_all_words_of_small_widths(width, structure):
    config = PopcountConfig(width, structure, "none")
    words = list(range(1 << width))
    assert_counts(config, words, rtl_counts(Popcount(config=config), words))


@pytest.mark.parametrize("width", [1, 3, 4, 7, 8, 31, 32, 100])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_latency_by_pipeline(width, structure):
    latencies = [PopcountConfig(width, structure, p).latency for p in PIPELINES]
    if structure == "pairs":
        depths = [compress(width, 1, levels).depth for levels in (8, 5, 2)]
        stages = [max(1, -(-d // n)) for d, n in zip(depths, (8, 5, 2), strict=True)]
        assert latencies == [0, 1, *stages]
    else:
        depth = max(0, width.bit_length() - 2)
        assert latencies == [0, 1, depth // 3 + 1, depth // 2 + 1, depth + 1]


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("width", [1, 2, 7, 32, 100])
def test_converts_to_rtlil(width, structure):
    assert "attribute \\top" in rtlil.convert(Popcount(config=PopcountConfig(width, structure)))


def test_large_width_converts_in_linear_size():
    text = rtlil.convert(Popcount(config=PopcountConfig(255, "lut", "none")))
    assert len(text) < 3000 * 255


def test_reference_ignores_bits_above_the_width():
    assert PopcountConfig(4).reference(0b110111) == 3
    assert PopcountConfig(4).output_width == 3


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "width must be a positive integer, not 0", {"width": 0}),
        (ValueError, "width must be a positive integer, not -3", {"width": -3}),
        (TypeError, "width must be a positive integer, not 2.0", {"width": 2.0}),
        (TypeError, "width must be a positive integer, not True", {"width": True}),
        (ValueError, "structure must be one of .* not 'tree'", {"width": 4, "structure": "tree"}),
        (ValueError, "pipeline must be one of .* not 'deep'", {"width": 4, "pipeline": "deep"}),
        (ValueError, "literals must be 1 or 2, not 3", {"width": 4, "literals": 3}),
    ],
)
def test_parameter_errors(error, message, arguments):
    with pytest.raises(error, match=message):
        PopcountConfig(**arguments)


@pytest.fixture
def refusals(monkeypatch):
    """Amaranth warns of components that were made and not used; refused ones are that too."""
    monkeypatch.setattr(MustUse, "_MustUse__silence", True)
    yield
    gc.collect()


def test_config_must_be_a_config(refusals):
    with pytest.raises(TypeError, match="must be a PopcountConfig, not 8"):
        Popcount(config=8)


class DroppedBit(Popcount):
    """A fault that an optimiser has made: one raw bit is lost on its way into a carry-in."""

    def elaborate(self, platform):
        m = Module()
        m.submodules.whole = whole = Popcount(config=self.config)
        m.d.comb += [whole.i.eq(Cat(self.i[:-1], C(0, 1))), self.o.eq(whole.o)]
        return m


def test_planted_fault_is_caught():
    config = PopcountConfig(31, "carry")
    words = [*edge_words(31), *range(40)]
    assert_counts(config, words, rtl_counts(Popcount(config=config), words))
    with pytest.raises(AssertionError):
        assert_counts(config, words, rtl_counts(DroppedBit(config=config), words))


def netlist_counts(dut: Popcount, family: str, words: list[int], folder) -> list[int]:
    netlist = synthesise_netlist(dut, family, folder)
    return [netlist.step({"i": word})["o"] for word in words]


def random_words(width: int, count: int) -> list[int]:
    rng = random.Random(width)
    return edge_words(width) + [rng.getrandbits(width) for _ in range(count)]


@pytest.mark.parametrize(
    ("family", "structure"), [("ice40", "carry"), ("ecp5", "pairs"), ("gowin", "pairs")]
)
def test_netlist_equals_reference(family, structure, tmp_path):
    config = PopcountConfig(24, structure, "half")
    words = random_words(24, 200)
    assert_counts(config, words, netlist_counts(Popcount(config=config), family, words, tmp_path))


def test_netlist_check_catches_a_dropped_bit(tmp_path):
    config = PopcountConfig(9, "carry")
    words = random_words(9, 50)
    with pytest.raises(AssertionError):
        counts = netlist_counts(DroppedBit(config=config), "ice40", words, tmp_path)
        assert_counts(config, words, counts)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ice40", "ecp5", "gowin"])
@pytest.mark.parametrize("structure", ["carry", "pairs"])
def test_netlist_of_256_bits_equals_reference(family, structure, tmp_path):
    config = PopcountConfig(256, structure, "none")
    words = random_words(256, 100)
    assert_counts(config, words, netlist_counts(Popcount(config=config), family, words, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ice40", "ecp5", "gowin"])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("pipeline", ["none", "half", "full"])
@pytest.mark.parametrize("width", [1, 64, 100])
def test_netlist_equals_reference_everywhere(width, pipeline, structure, family, tmp_path):
    config = PopcountConfig(width, structure, pipeline)
    words = random_words(width, 100)
    assert_counts(config, words, netlist_counts(Popcount(config=config), family, words, tmp_path))
