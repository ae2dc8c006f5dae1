# SPDX-License-Identifier: BSD-2-Clause
"""PLL settings against their limits and the tools' own calculators; reset timing."""

import gc
import re

import pytest
from amaranth import *
from amaranth._unused import MustUse
from amaranth.back import rtlil
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.gen.tools import run_tool
from xnorforge.hw.pll import Pll, ResetSequencer
from xnorforge.hw.pll_config import PLL_KINDS, PllConfig

MHZ = 1_000_000
# Part in gowin_pll's words, highest PFD, VCO range and output range in Hz, by `DEVICE`.
GOWIN = {
    "GW1N-1": ("GW1N-1 C6/I5", 400e6, 400e6, 900e6, 3.125e6, 450e6),
    "GW1NR-9C": ("GW1NR-9 C6/I5", 400e6, 400e6, 1200e6, 3.125e6, 600e6),
    "GW2A-18C": ("GW2A-18 C8/I7", 500e6, 500e6, 1250e6, 3.90625e6, 625e6),
}
SINGLE = [kind for kind in PLL_KINDS if kind not in ("rPLL", "none")]  # one part, a PLL
PARTS = [(kind, "") for kind in SINGLE] + [("rPLL", part) for part in GOWIN]


def calculator(tmp_path, name, *args):
    log = tmp_path / "log"
    run_tool(name, args, cwd=tmp_path, log=log)
    return log.read_text()


@pytest.mark.parametrize(
    "source, target",
    [(12, 16.5), (12, 20.5), (12, 30), (12, 39.75), (12, 48), (12, 270), (25, 33.333), (100, 133)],
)
def test_ice40_setting_equals_icepll(tmp_path, source, target):
    text = calculator(tmp_path, "icepll", "-i", f"{source}", "-o", f"{target}")
    setting = PllConfig.nearest("SB_PLL40_PAD", source * MHZ, target * MHZ)
    ours = {name: value.value for name, value in setting.instance_parameters().items()}
    theirs = {
        name: int(re.search(rf"{name}: +(\d+)", text)[1])
        for name in ("DIVR", "DIVF", "DIVQ", "FILTER_RANGE")
    }
    assert ours == theirs
    achieved = float(re.search(r"F_PLLOUT: +([\d.]+) MHz \(achieved\)", text)[1])
    assert setting.output_hz / MHZ == pytest.approx(achieved, abs=0.001)
    vco = float(re.search(r"F_VCO: +([\d.]+)", text)[1])
    assert setting.vco_hz / MHZ == pytest.approx(vco, abs=0.001)


@pytest.mark.parametrize(
    "source, target", [(25, 50), (25, 100), (25, 112.5), (25, 200), (100, 130), (12, 96)]
)
def test_ecp5_setting_equals_ecppll(tmp_path, source, target):
    text = calculator(tmp_path, "ecppll", "-i", f"{source}", "-o", f"{target}", "--file", "pll.v")
    setting = PllConfig.nearest("EHXPLLL", source * MHZ, target * MHZ)
    ours = (setting.reference, setting.feedback, setting.output)
    theirs = tuple(
        int(re.search(rf"{name} divisor: (\d+)", text)[1])
        for name in ("Refclk", "Feedback", "clkout0")
    )
    assert ours == theirs
    phase = re.search(r"CLKOP_CPHASE\((\d+)\)", (tmp_path / "pll.v").read_text())
    assert setting.instance_parameters()["CLKOP_CPHASE"] in (int(phase[1]), int(phase[1]) + 1)


@pytest.mark.parametrize("source, target", [(27, 60), (27, 81), (24, 30), (27, 100), (50, 133)])
@pytest.mark.parametrize("part", GOWIN)
def test_gowin_setting_equals_gowin_pll(tmp_path, part, source, target):
    text = calculator(
        tmp_path, "gowin_pll", "-i", f"{source}", "-o", f"{target}", "-d", GOWIN[part][0]
    )
    ours = PllConfig.nearest("rPLL", source * MHZ, target * MHZ, part=part).instance_parameters()
    for name in ("IDIV_SEL", "FBDIV_SEL", "ODIV_SEL"):
        assert ours[name] == int(re.search(rf"\.{name}\((\d+)\)", text)[1])
    assert float(ours["FCLKIN"]) == source
    assert ours["DEVICE"] == part


def gowin_settings(part, input_hz):
    """All legal outputs of an rPLL, by its table written out once more."""
    _, pfd_high, vco_low, vco_high, low, high = GOWIN[part]
    for reference in range(1, 65):
        pfd = input_hz / reference
        if not 3e6 <= pfd <= pfd_high:
            continue
        for output in (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128):
            for feedback in range(1, 65):
                clk = pfd * feedback
                if low <= clk <= high and vco_low <= clk * output <= vco_high:
                    yield clk


@settings(max_examples=15)
@given(
    part=st.sampled_from(sorted(GOWIN)),
    input_mhz=st.integers(3, 133),
    target=st.floats(16e6, 275e6),
)
def test_nearest_gowin_setting_is_legal_and_none_is_nearer(part, input_mhz, target):
    setting = PllConfig.nearest("rPLL", input_mhz * MHZ, target, part=part)
    best = min(abs(clk - target) for clk in gowin_settings(part, input_mhz * MHZ))
    assert abs(setting.output_hz - target) == pytest.approx(best, abs=1e-3)


def every_setting(kind, input_hz):
    """All legal (output, dividers), by the limits written out once more."""
    ice = kind != "EHXPLLL"
    vco_low, vco_high = (533e6, 1066e6) if ice else (400e6, 800e6)
    low, high = (16e6, 275e6) if ice else (3.125e6, 400e6)
    pfd_high = 133e6 if ice else 400e6
    for reference in range(1, 17 if ice else 129):
        pfd = input_hz / reference
        if not 10e6 <= pfd <= pfd_high:
            continue
        for output in [2**q for q in range(1, 7)] if ice else range(1, 129):
            for feedback in range(1, 129 if ice else 81):
                clk = pfd * feedback / (output if ice else 1)
                if low <= clk <= high and vco_low <= clk * output <= vco_high:
                    yield clk


@settings(max_examples=30)
@given(
    kind=st.sampled_from(SINGLE),
    input_mhz=st.integers(10, 133),
    target=st.floats(16e6, 275e6),
)
def test_nearest_is_legal_and_none_is_nearer(kind, input_mhz, target):
    setting = PllConfig.nearest(kind, input_mhz * MHZ, target)
    best = min(abs(clk - target) for clk in every_setting(kind, input_mhz * MHZ))
    assert abs(setting.output_hz - target) == pytest.approx(best, abs=1e-3)


def test_without_a_pll_only_the_oscillator_can_be_had():
    assert PllConfig.nearest("none", 12 * MHZ, 12.1e6).output_hz == 12e6
    with pytest.raises(ValueError, match="no PLL, so the clock is the oscillator's 12 MHz, not 16"):
        PllConfig.nearest("none", 12 * MHZ, 16e6)


@pytest.mark.parametrize("kind, part", PARTS)
def test_parameters_of_an_instance_give_the_setting_back(kind, part):
    setting = PllConfig.nearest(kind, 12 * MHZ, 64e6, part=part)
    numbers = {
        name: value.value if isinstance(value, Const) else value
        for name, value in setting.instance_parameters().items()
    }
    assert PllConfig.from_parameters(kind, 12 * MHZ, numbers, part=part) == setting


@pytest.mark.parametrize(
    "change, words",
    [
        ({"kind": "MMCM"}, "PLL kind must be one of SB_PLL40_CORE, .*, rPLL, not 'MMCM'"),
        ({"kind": "rPLL", "part": "GW9"}, "rPLL part must be one of 'GW1N-1', .*, not 'GW9'"),
        ({"input_hz": 9 * MHZ}, "input frequency must be 10 to 133 MHz, not 9 MHz"),
        ({"feedback": 129}, "feedback divider cannot be 129"),
        ({"output": 24}, "output divider cannot be 24"),
        ({"reference": 2}, "pfd frequency must be 10 to 133 MHz, not 6 MHz"),
        ({"feedback": 40}, "vco frequency must be 533 to 1066 MHz, not 480 MHz"),
        ({"output": 64}, "output frequency must be 16 to 275 MHz, not 15 MHz"),
    ],
)
def test_illegal_settings_are_refused(change, words):
    legal = {
        "kind": "SB_PLL40_PAD",
        "input_hz": 12 * MHZ,
        "reference": 1,
        "feedback": 80,
        "output": 32,
    }
    assert PllConfig(**legal).output_hz == 30e6
    with pytest.raises(ValueError, match=words):
        PllConfig(**{**legal, **change})


def test_unreachable_request_is_refused():
    with pytest.raises(ValueError, match="output frequency must be 16 to 275 MHz, not 3 MHz"):
        PllConfig.nearest("SB_PLL40_PAD", 12 * MHZ, 3e6)


def test_output_stays_in_range_at_its_ends():
    # icepll gives 15.9375 and 276 MHz here, both outside what the primitive is good for.
    assert PllConfig.nearest("SB_PLL40_PAD", 12 * MHZ, 16e6).output_hz == 16.125e6
    assert PllConfig.nearest("SB_PLL40_PAD", 12 * MHZ, 275e6).output_hz == 270e6


@pytest.mark.parametrize("target", [16e6, 30e6, 48e6, 275e6])
def test_ice40_reset_outlasts_the_block_ram_wake_up(target):
    setting = PllConfig.nearest("SB_PLL40_PAD", 12 * MHZ, target)
    assert setting.reset_cycles / setting.output_hz >= 15e-6


@pytest.mark.parametrize("cycles", [1, 2, 16, 450])
def test_reset_holds_for_its_cycles_and_returns_when_lock_is_lost(cycles):
    dut = ResetSequencer(cycles=cycles)
    held = []

    async def bench(ctx):
        async def watch(locked, count):
            ctx.set(dut.locked, locked)
            for _ in range(count):
                held.append(ctx.get(dut.reset))
                await ctx.tick()

        await watch(0, 5)
        await watch(1, cycles + 10)
        await watch(0, 6)
        # Lock that lasts one cycle less than needed must not release reset.
        await watch(1, cycles)
        await watch(0, 5)
        await watch(1, cycles + 10)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    wait, gap = cycles + 3, 3
    expected = [1] * 5 + [1] * wait + [0] * (10 - 3) + [0] * gap + [1] * 3
    expected += [1] * (cycles + 5) + [1] * wait + [0] * (10 - 3)
    assert held == expected


@pytest.fixture
def refusals(monkeypatch):
    """Amaranth warns of components that were made and not used; refused ones are that too."""
    monkeypatch.setattr(MustUse, "_MustUse__silence", True)
    yield
    gc.collect()


def test_reset_sequencer_refuses_bad_cycles(refusals):
    with pytest.raises(ValueError, match="at least 1, not 0"):
        ResetSequencer(cycles=0)
    with pytest.raises(TypeError, match=r"must be an integer, not 1\.5"):
        ResetSequencer(cycles=1.5)


@pytest.mark.parametrize(
    "kind, clock_pin", [("SB_PLL40_PAD", "PACKAGEPIN"), ("SB_PLL40_CORE", "REFERENCECLK")]
)
def test_ice40_pll_converts_with_its_own_clock_pin(kind, clock_pin):
    text = pll_rtlil(PllConfig.nearest(kind, 12 * MHZ, 30e6))
    assert re.search(rf"cell \\{kind} ", text)
    assert f"connect \\{clock_pin} \\clk_in" in text
    assert "parameter \\DIVF 7'1001111" in text


def test_ecp5_pll_converts_with_feedback_from_its_output():
    text = pll_rtlil(PllConfig.nearest("EHXPLLL", 25 * MHZ, 100e6))
    output = re.search(r"connect \\CLKOP (\S+)", text)[1]
    assert f"connect \\CLKFB {output}" in text
    assert 'attribute \\ICP_CURRENT "12"' in text


def test_gowin_pll_converts_with_its_part_and_input():
    text = pll_rtlil(PllConfig.nearest("rPLL", 27 * MHZ, 60e6, part="GW1NR-9C"))
    assert "connect \\CLKIN \\clk_in" in text
    assert 'parameter \\DEVICE "GW1NR-9C"' in text
    assert 'parameter \\FCLKIN "27"' in text


def pll_rtlil(setting):
    """RTLIL of a counter on the PLL's domain: it has no clock or reset port of its own."""
    pll = Pll(config=setting)
    m = Module()
    m.domains.sync = ClockDomain()
    m.submodules.pll = pll
    count = Signal(4)
    m.d.sync += count.eq(count + 1)
    text = rtlil.convert(m, ports=[pll.clk_in, count], emit_src=False)
    top = text[text.index("module \\top\n") :].split("\nend\n", 1)[0]
    assert not re.search(r"wire .*input.* \\(clk|rst)\n", top)
    return text


def test_pll_takes_a_setting_only(refusals):
    with pytest.raises(TypeError, match="must be a PllConfig"):
        Pll(config="SB_PLL40_PAD")
