# SPDX-License-Identifier: BSD-2-Clause
"""ProcessingElement against its reference: planes, groups, bubbles, latency, netlists."""

import gc
import random

import pytest
from amaranth._unused import MustUse
from amaranth.back import rtlil
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.hw.popcount import PIPELINES, STRUCTURES
from xnorforge.hw.processing_element import PeConfig, ProcessingElement
from xnorforge.sim.netlist import synthesise_netlist


@st.composite
def configs(draw):
    bits = draw(st.sampled_from((1, 1, 2, 3, 5, 8)))
    return PeConfig(
        simd=draw(st.sampled_from((1, 2, 3, 4, 7, 8, 13, 16))),
        acc_width=draw(st.integers(14, 20)),
        bits=bits,
        planes=draw(st.integers(1, bits)),
        structure=draw(st.sampled_from(STRUCTURES)),
        pipeline=draw(st.sampled_from(PIPELINES)),
        doubles=draw(st.booleans()),
    )


class Scenario:
    """Random dot products with random gaps, as inputs by cycle and expected values by cycle.

    Whatever the contract does not name (data in gaps, controls without `enable`, `preset` when
    it is not sampled) is random. With `doubles` a dot product has one to three planes of weights.
    """

    def __init__(self, config: PeConfig, seed: int, dots: int = 8, gaps: float = 0.3):
        rng = random.Random(seed)
        steps, controls, presets, lows = {}, {}, {}, {}
        self.expected: dict[int, int] = {}
        cycle = 0
        for _ in range(dots):
            preset = rng.randint(-1000, 1000)
            value = preset
            for plane in range(rng.randint(1, 3) if config.doubles else 1):
                plane_steps = []
                if plane:
                    low = rng.getrandbits(1)
                    value = 2 * value + low
                for fold in range(rng.randint(1, 3)):
                    w = rng.getrandbits(config.simd)
                    for group in range(config.groups):
                        while rng.random() < gaps:
                            cycle += 1
                        x = rng.getrandbits(config.simd * config.planes)
                        plane_steps.append((x, w))
                        steps[cycle] = x, w
                        last = group == config.groups - 1
                        starts = (int(fold == 0 and not plane), int(fold == 0 and plane > 0))
                        controls[cycle + config.control_latency] = (1, *starts, group == 0, last)
                        if fold == 0 and last and not plane:
                            presets[cycle + config.preset_latency] = preset
                        elif fold == 0 and last:
                            lows[cycle + config.preset_latency] = low
                        cycle += 1
                value = config.reference(plane_steps, value)
            self.expected[cycle - 1 + config.latency] = value
        self.inputs: list[dict[str, int]] = []
        for now in range(cycle + config.latency):
            junk = (rng.getrandbits(config.simd * config.planes), rng.getrandbits(config.simd))
            x, w = steps.get(now, junk)
            idle = (0, *(rng.getrandbits(1) for _ in range(4)))
            enable, first, double, group_first, group_last = controls.get(now, idle)
            self.inputs.append(
                {
                    "x": x,
                    "w": w,
                    "enable": enable,
                    "first": first,
                    "group_first": int(group_first),
                    "group_last": int(group_last),
                    "preset": presets.get(now, rng.randint(-1000, 1000)),
                }
            )
            if config.doubles:
                low = lows.get(now, rng.getrandbits(1))
                self.inputs[-1] |= {"double": double, "low": low}

    def check(self, shown: list[int]) -> None:
        """`shown`: value on `o` in every cycle."""
        assert {cycle: shown[cycle] for cycle in self.expected} == self.expected


def rtl_values(config: PeConfig, inputs: list[dict[str, int]]) -> list[int]:
    dut = ProcessingElement(config=config)
    shown = []

    async def bench(ctx):
        for words in inputs:
            for name, word in words.items():
                ctx.set(getattr(dut, name), word)
            shown.append(ctx.get(dut.o))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return shown


def netlist_values(config: PeConfig, family: str, inputs: list, folder) -> list[int]:
    netlist = synthesise_netlist(ProcessingElement(config=config), family, folder)
    half = 1 << (config.acc_width - 1)
    return [((netlist.step(words)["o"] + half) % (2 * half)) - half for words in inputs]


@settings(max_examples=60)
@given(configs(), st.integers(0, 1 << 16), st.sampled_from((0.0, 0.3)))
def test_value_equals_reference(config, seed, gaps):
    scenario = Scenario(config, seed, gaps=gaps)
    scenario.check(rtl_values(config, scenario.inputs))


@settings(max_examples=100)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 20), st.data())
def test_reference_is_the_weighed_sum_for_every_plane_split(bits, planes, simd, data):
    """Groups, masked lanes and plane order against `sum of matches`, straight from the numbers."""
    planes = min(bits, planes)
    config = PeConfig(simd=simd, acc_width=40, bits=bits, planes=planes)
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=simd, max_size=simd))
    weights = data.draw(st.lists(st.integers(0, 1), min_size=simd, max_size=simd))
    w = sum(bit << s for s, bit in enumerate(weights))
    steps = []
    for group in range(config.groups):
        x = 0
        for s, value in enumerate(values):
            for lane in range(planes):
                plane = (config.groups - 1 - group) * planes + lane
                bit = value >> plane & 1 if plane < bits else data.draw(st.integers(0, 1))
                x |= bit << (s * planes + lane)
        steps.append((x, w))
    top = 2**bits - 1
    # A +1 weight matches the ones of a value, a -1 weight its zeros.
    want = sum(v if bit else top - v for v, bit in zip(values, weights, strict=True))
    assert config.reference(steps, preset=-7) == want - 7


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize(("bits", "planes"), [(1, 1), (8, 1), (8, 3), (4, 4)])
def test_latency_is_exact(bits, planes, pipeline):
    """One lone step: `o` takes its value in cycle `latency`, and has another the cycle before."""
    config = PeConfig(simd=20, acc_width=16, bits=bits, planes=planes, pipeline=pipeline)
    scenario = Scenario(config, seed=3, dots=1, gaps=0.0)
    (cycle,) = scenario.expected
    shown = rtl_values(config, [*scenario.inputs, scenario.inputs[-1] | {"enable": 0}])
    assert shown[cycle] == scenario.expected[cycle] != shown[cycle - 1]


def test_latencies_of_the_usual_shapes():
    engine = PeConfig(simd=64, acc_width=12)
    assert (engine.control_latency, engine.preset_latency, engine.latency) == (1, 1, 2)
    planes = PeConfig(simd=64, acc_width=20, bits=8, planes=2, pipeline="half")
    assert (planes.control_latency, planes.preset_latency, planes.latency) == (3, 5, 6)


def test_value_holds_through_gaps():
    config = PeConfig(simd=5, acc_width=10)
    scenario = Scenario(config, seed=1, dots=1)
    idle = [{"x": 3, "w": 7, "enable": 0, "first": 1, "preset": 9}] * 10
    shown = rtl_values(config, scenario.inputs + idle)
    assert set(shown[-10:]) == set(scenario.expected.values())


def test_accumulator_wraps_on_the_way():
    config = PeConfig(simd=4, acc_width=3)
    steps = [(0b1111, 0b1111)] * 2
    assert config.reference(steps, preset=-4) == -4
    assert config.reference(steps[:1], preset=-4) == 0


@pytest.mark.parametrize(("bits", "planes"), [(1, 1), (8, 3), (2, 2)])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_converts_to_rtlil(bits, planes, structure):
    config = PeConfig(simd=9, acc_width=16, bits=bits, planes=planes, structure=structure)
    assert "attribute \\top" in rtlil.convert(ProcessingElement(config=config))


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "simd must be a positive integer, not 0", {"simd": 0}),
        (TypeError, "simd must be a positive integer, not '8'", {"simd": "8"}),
        (ValueError, "acc_width must be a positive integer, not 0", {"acc_width": 0}),
        (ValueError, "bits must be a positive integer, not 0", {"bits": 0}),
        (TypeError, "planes must be a positive integer, not 1.5", {"planes": 1.5}),
        (ValueError, "planes must be at most bits = 2, not 3", {"bits": 2, "planes": 3}),
        (ValueError, "structure must be one of .* not 'x'", {"structure": "x"}),
        (ValueError, "pipeline must be one of .* not 'x'", {"pipeline": "x"}),
    ],
)
def test_parameter_errors(error, message, arguments):
    with pytest.raises(error, match=message):
        PeConfig(**({"simd": 8, "acc_width": 10} | arguments))


@pytest.fixture
def refusals(monkeypatch):
    """Amaranth warns of components that were made and not used; refused ones are that too."""
    monkeypatch.setattr(MustUse, "_MustUse__silence", True)
    yield
    gc.collect()


def test_config_must_be_a_config(refusals):
    with pytest.raises(TypeError, match="must be a PeConfig, not 8"):
        ProcessingElement(config=8)


@pytest.mark.parametrize(
    "fault", ["enable", "first", "group_first", "group_last", "w", "preset", "double", "low"]
)
def test_planted_fault_is_caught(fault):
    """Each input matters: one stuck at 0 changes a value."""
    config = PeConfig(simd=6, acc_width=18, bits=8, planes=3, doubles=True)
    scenario = Scenario(config, seed=5)
    scenario.check(rtl_values(config, scenario.inputs))
    with pytest.raises(AssertionError):
        scenario.check(rtl_values(config, [words | {fault: 0} for words in scenario.inputs]))


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("ice40", PeConfig(simd=8, acc_width=12)),
        ("ecp5", PeConfig(simd=5, acc_width=20, bits=3, planes=2, structure="lut")),
        ("gowin", PeConfig(simd=16, acc_width=12, structure="pairs", pipeline="half")),
        ("ecp5", PeConfig(simd=8, acc_width=14, doubles=True)),
    ],
)
def test_netlist_equals_reference(family, config, tmp_path):
    scenario = Scenario(config, seed=2, dots=20)
    scenario.check(netlist_values(config, family, scenario.inputs, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ice40", "ecp5", "gowin"])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("pipeline", ["output", "half"])
@pytest.mark.parametrize(("simd", "bits", "planes"), [(128, 1, 1), (32, 8, 2), (9, 8, 3)])
def test_netlist_equals_reference_everywhere(
    simd, bits, planes, pipeline, structure, family, tmp_path
):
    config = PeConfig(simd, 22, bits, planes, structure, pipeline)
    scenario = Scenario(config, seed=simd, dots=15)
    scenario.check(netlist_values(config, family, scenario.inputs, tmp_path))
