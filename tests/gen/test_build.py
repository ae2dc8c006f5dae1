# SPDX-License-Identifier: BSD-2-Clause
"""Real bitstreams from a small design with the shell's ports, and every way a build can fail."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from amaranth import *
from amaranth.back import rtlil

from xnorforge.gen import build as build_module
from xnorforge.gen.boards import BOARDS
from xnorforge.gen.build import TimingError, build_verilog
from xnorforge.gen.constraints import read_timing
from xnorforge.gen.devices import DEVICES
from xnorforge.gen.errors import BundleError, PlanError, ToolError
from xnorforge.gen.tools import run_tool
from xnorforge.hw.pll import Pll


class Echo(Elaboratable):
    """tx repeats rx, led blinks; `chain` exclusive-ors in a row make it slow, `cells` large."""

    def __init__(self, setting, *, chain=0, cells=0):
        self.setting, self.chain, self.cells = setting, chain, cells
        self.clk_in, self.rx, self.tx, self.led = (Signal(name=n) for n in PORTS)

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.pll = pll = Pll(config=self.setting)
        count = Signal(20)
        rx = Signal(2)
        bits = Signal(max(self.cells, 1))
        m.d.comb += [pll.clk_in.eq(self.clk_in), self.led.eq(count[-1] ^ bits[-1])]
        m.d.sync += [rx.eq(Cat(self.rx, rx)), self.tx.eq(rx[-1]), count.eq(count + 1)]
        if self.cells:
            m.d.sync += bits.eq(Cat(self.rx ^ bits[-1], bits))
        product = Signal(64)
        if self.chain:
            for _ in range(self.chain):
                product = product * 3 + count
            m.d.sync += self.tx.eq(rx[-1] ^ product[:64].xor())
        return m


PORTS = ("clk_in", "rx", "tx", "led")


def write_verilog(folder, setting, **options):
    design = Echo(setting, **options)
    ports = [getattr(design, name) for name in PORTS]
    (folder / "design.il").write_text(
        rtlil.convert(design, name="top", ports=ports, emit_src=False)
    )
    (folder / "design.ys").write_text(
        "read_rtlil design.il\nproc\nmemory_collect\nwrite_verilog -norename design.v\n"
    )
    run_tool("yosys", ["design.ys"], cwd=folder, log=folder / "design.log")
    return folder / "design.v"


def make(folder, name, *, clock_hz=None, out=None, **options):
    """(result, clock) of a build of the echo for a board."""
    board = BOARDS[name]
    clock = board.pll_config(clock_hz).output_hz
    verilog = folder / "design.v"
    if not verilog.exists():
        write_verilog(folder, board.pll_config(clock_hz))
    return build_verilog(verilog, board, out or folder / "build", clock_hz=clock, **options)


def check(result, name):
    board = BOARDS[name]
    device = board.device
    assert result.clock_hz == board.pll_config().output_hz
    # Equal to the PLL's output but for nextpnr's whole picoseconds, and never below it.
    assert 0 <= 1 / result.clock_hz - 1 / result.constraint_hz < 1.01e-12
    assert result.fmax_hz >= result.constraint_hz
    assert result.available == {
        "logic_cells": device.luts,
        "block_rams": device.block_rams,
        "dsps": device.dsps,
    }
    assert result.used["block_rams"] == 0
    assert 25 <= result.used["flip_flops"] <= 60
    assert 25 <= result.used["logic_cells"] <= 80
    assert result.bitstream.stat().st_size > 50_000
    report = json.loads((result.folder / "report.json").read_text())
    assert report["fmax_hz"] == result.fmax_hz
    assert set(result.seconds) == {"synthesis", "place_and_route", "pack", "total"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the echo built for the iCEBreaker; tests that change it copy it."""
    folder = tmp_path_factory.mktemp("icebreaker")
    result = make(folder, "icebreaker")
    assert not result.cached
    return folder, result


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built[0], tmp_path / "copy")


def test_icebreaker_bitstream(built):
    check(built[1], "icebreaker")


@pytest.mark.routing
@pytest.mark.parametrize("name", [name for name in BOARDS if name != "icebreaker"])
def test_bitstream(tmp_path, name):
    check(make(tmp_path, name), name)


def test_unchanged_build_is_kept_and_a_changed_one_made_again(copy):
    first = make(copy, "icebreaker")
    assert first.cached
    stamp = first.bitstream.stat().st_mtime_ns
    assert make(copy, "icebreaker").bitstream.stat().st_mtime_ns == stamp
    told = []
    assert not make(copy, "icebreaker", force=True, progress=told.append).cached
    steps = [line for line in told if not line.endswith(" s")]
    assert steps[:2] == ["synthesis", "place and route, seed 1"]
    assert "MHz, 30.0 wanted" in steps[2]
    assert steps[3:] == ["packing the bitstream"]
    with (copy / "design.v").open("a") as verilog:
        verilog.write("// changed\n")
    assert not make(copy, "icebreaker").cached


def test_damaged_result_is_made_again(copy):
    bitstream = make(copy, "icebreaker").bitstream
    before = bitstream.read_bytes()
    bitstream.write_bytes(before[:-1] + b"x")
    assert not make(copy, "icebreaker").cached
    assert bitstream.read_bytes() == before


def test_timing_without_a_constraint_on_the_pll_is_refused(copy, monkeypatch):
    real = build_module.constraint_files
    monkeypatch.setattr(
        build_module,
        "constraint_files",
        lambda board, clock: {
            name: text.rsplit("set_frequency", 1)[0] for name, text in real(board, clock).items()
        },
    )
    before = (copy / "build" / "report.json").read_text()
    with pytest.raises(ToolError, match=r"against 12\.000 MHz, but the PLL makes 30\.000 MHz"):
        make(copy, "icebreaker", force=True)
    assert (copy / "build" / "report.json").read_text() == before


@pytest.mark.parametrize(
    "fmax, words",
    [
        ({}, "no clock at all"),
        ({"a": {"constraint": 30.0, "achieved": 40.0}, "b": {"constraint": 12.0, "achieved": 99.0}},
         "held clock 'b' against 12.000 MHz"),
        ({"a": {"constraint": 30.1, "achieved": 40.0}}, "held clock 'a' against 30.100 MHz"),
    ],
)  # fmt: skip
def test_meaningless_timing_reports_are_refused(fmax, words):
    with pytest.raises(ToolError, match=words):
        read_timing({"fmax": fmax}, 30e6)


def test_unmet_timing_tries_all_seeds_and_names_a_clock_that_would_do(tmp_path):
    board = BOARDS["icebreaker"]
    write_verilog(tmp_path, board.pll_config(60e6), chain=3)
    with pytest.raises(TimingError, match=r"Timing is not met on icebreaker: .* of 2") as error:
        make(tmp_path, "icebreaker", clock_hz=60e6, seeds=(3, 4), jobs=2)
    assert 16e6 <= error.value.clock_hz <= error.value.fmax_hz < 60e6
    assert f"a clock of {error.value.clock_hz / 1e6:g} MHz" in str(error.value)
    assert board.pll_config(error.value.clock_hz).output_hz == error.value.clock_hz
    assert not (tmp_path / "build").exists()
    assert (tmp_path / "build-logs" / "seed4.log").is_file()


@pytest.mark.routing
def test_design_larger_than_the_device_is_named(tmp_path):
    write_verilog(tmp_path, BOARDS["icebreaker"].pll_config(), cells=5400)
    with pytest.raises(PlanError, match=r"does not fit ice40-up5k: it takes 5\d+ ICESTORM_LC, the"):
        make(tmp_path, "icebreaker")
    assert not (tmp_path / "build").exists()


def test_verilog_of_another_board_is_refused(copy):
    with pytest.raises(BundleError, match="one EHXPLLL for board ulx3s-25f, but holds SB_PLL40_PA"):
        make(copy, "ulx3s-25f", out=copy / "other")


def test_pll_of_another_clock_is_refused(copy):
    with pytest.raises(BundleError, match=r"makes 30\.000000 MHz, but the plan says 48\.000000 MH"):
        make(copy, "icebreaker", clock_hz=48e6)


def test_broken_verilog_names_the_tool_and_its_log(copy):
    text = (copy / "design.v").read_text()
    (copy / "design.v").write_text(text.replace("endmodule", "endmodul", 1))
    with pytest.raises(ToolError, match=r"yosys failed: .*syntax error.*build-logs") as error:
        make(copy, "icebreaker")
    log = str(error.value).split("whole log: ")[1].rstrip(")")
    assert "syntax error" in Path(log).read_text()


def test_second_build_at_a_time_is_refused(copy, tmp_path):
    with (
        build_module.only_one(copy / "build"),
        pytest.raises(ToolError, match="being built already"),
    ):
        make(copy, "icebreaker", force=True)


@pytest.mark.parametrize("options", [{"seeds": ()}, {"jobs": 0}])
def test_empty_search_is_refused(copy, options):
    with pytest.raises(ToolError, match="at least one seed and one job"):
        make(copy, "icebreaker", **options)


KILLED = """
import sys
from pathlib import Path
from xnorforge.gen.boards import BOARDS
from xnorforge.gen.build import build_verilog
folder = Path(sys.argv[1])
def tell(line):
    print(line, flush=True)
build_verilog(folder / "design.v", BOARDS["icebreaker"], folder / "build", clock_hz=30e6,
              force=True, progress=tell)
"""


def test_killed_build_leaves_no_half_result_and_the_next_one_works(copy):
    shutil.rmtree(copy / "build")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(copy)], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("place and route"):
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    left = list(copy.glob(".build-*"))
    assert left
    assert not (copy / "build").exists()
    assert not make(copy, "icebreaker").cached
    assert not list(copy.glob(".build-*"))


def test_interrupted_build_ends_its_tools_at_once(copy):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(copy)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            if line.startswith("place and route"):
                break
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        _, error = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in error
    assert time.monotonic() - started < 20
    assert not list(copy.glob(".build-*"))
    assert make(copy, "icebreaker").cached


@pytest.mark.routing
@pytest.mark.parametrize("name", DEVICES)
def test_device_table_equals_nextpnr(tmp_path, name):
    device = DEVICES[name]
    family = device.family
    (tmp_path / "a.v").write_text("module top(input a, output reg b); always @* b = !a; endmodule")
    command = " ".join([*family.synthesis, *device.synthesis_args])
    (tmp_path / "a.ys").write_text(f"read_verilog a.v\n{command} -top top -json a.json\n")
    run_tool("yosys", ["a.ys"], cwd=tmp_path, log=tmp_path / "yosys.log")
    speed = ["--speed", device.speed] if device.speed else []
    args = [*device.place_and_route_args, "--package", device.package, *speed, "--json", "a.json"]
    args += ["--report", "report.json", f"{family.constraints_option}-allow-unconstrained"]
    run_tool(family.place_and_route, args, cwd=tmp_path, log=tmp_path / "log")
    cells = json.loads((tmp_path / "report.json").read_text())["utilization"]
    keys = family.cell_keys
    assert cells[keys["logic_cells"]]["available"] == device.luts
    assert cells[keys["block_rams"]]["available"] == device.block_rams
    assert cells.get(keys["dsps"], {"available": 0})["available"] == device.dsps
    if family.name == "ice40":
        assert cells.get("ICESTORM_SPRAM", {"available": 0})["available"] == device.spram_blocks


def test_environment_is_left_alone(copy):
    before = dict(os.environ)
    make(copy, "icebreaker")
    assert dict(os.environ) == before
