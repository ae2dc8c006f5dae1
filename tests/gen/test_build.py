# SPDX-License-Identifier: BSD-2-Clause
"""Real bitstreams from a small design with the shell's ports, and every way a build can fail."""

import dataclasses
import errno
import gzip
import json
import os
import re
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
from xnorforge.gen import build_cache, build_flow
from xnorforge.gen.boards import BOARDS, baud_divisor
from xnorforge.gen.build import TimingError, build_verilog
from xnorforge.gen.constraints import read_timing
from xnorforge.gen.devices import DEVICES
from xnorforge.gen.errors import BundleError, OverfullError, PlanError, RouteError, ToolError
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
CLOCK_HZ = {"icebreaker": 30e6}  # whatever the board's own becomes


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
    clock_hz = clock_hz or CLOCK_HZ.get(name)
    clock = board.pll_config(clock_hz).output_hz
    verilog = folder / "design.v"
    if not verilog.exists():
        write_verilog(folder, board.pll_config(clock_hz))
    return build_verilog(verilog, board, out or folder / "build", clock_hz=clock, **options)


def check(result, name):
    board = BOARDS[name]
    device = board.device
    assert result.clock_hz == board.pll_config(CLOCK_HZ.get(name)).output_hz
    # Equal to the PLL's output but for nextpnr's whole picoseconds, and never below it.
    assert 0 <= 1 / result.clock_hz - 1 / result.constraint_hz < 1.01e-12
    assert result.fmax_hz >= result.constraint_hz
    assert result.available == {
        **({"sprams": device.spram_blocks} if device.family.name == "ice40" else {}),
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


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """These tests start with nothing kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XNORFORGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


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
@pytest.mark.parametrize("name", ["ice40-hx8k-b-evn", "ulx3s-25f", "tang-nano-9k"])
def test_bitstream(tmp_path, name):
    check(make(tmp_path, name), name)


def test_unchanged_build_is_kept_and_a_changed_one_made_again(copy):
    first = make(copy, "icebreaker")
    assert first.cached
    stamp = first.bitstream.stat().st_mtime_ns
    assert make(copy, "icebreaker").bitstream.stat().st_mtime_ns == stamp
    told = []
    seeds = []
    again = make(copy, "icebreaker", force=True, jobs=1, progress=told.append, report=seeds.append)
    assert not again.cached and again.reused == ()
    steps = [line for line in told if not line.endswith(" s")]
    assert steps == ["synthesis", "place and route, seed 1", "packing the bitstream"]
    (seed,) = seeds
    assert str(seed).startswith("seed 1: ") and "MHz, 30.00 wanted, " in str(seed)
    with (copy / "design.v").open("a") as verilog:
        verilog.write("// changed\n")
    assert not make(copy, "icebreaker").cached


def test_damaged_result_is_made_again(copy):
    bitstream = make(copy, "icebreaker").bitstream
    before = bitstream.read_bytes()
    bitstream.write_bytes(before[:-1] + b"x")
    again = make(copy, "icebreaker")
    assert not again.cached
    assert set(again.reused) == {"synthesis", "seed 1", "pack"}
    assert bitstream.read_bytes() == before


def test_timing_without_a_constraint_on_the_pll_is_refused(copy, monkeypatch):
    real = build_flow.constraint_files
    monkeypatch.setattr(
        build_flow,
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
    setting = BOARDS["icebreaker"].pll_config(CLOCK_HZ["icebreaker"])
    write_verilog(tmp_path, setting, cells=5400)
    with pytest.raises(
        OverfullError, match=r"does not fit ice40-up5k: it takes 5\d+ ICESTORM_LC, the"
    ):
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


@pytest.mark.parametrize(
    "options, words",
    [
        ({"seeds": ()}, "at least one seed"),
        ({"seeds": (1, -1)}, "Seed must be a whole number from 0 to 2147483647, not -1"),
        ({"seeds": (2**31,)}, "not 2147483648"),
        ({"seeds": ("7",)}, "not '7'"),
        ({"seeds": (True,)}, "not True"),
        ({"jobs": 0}, "at least one job, not 0"),
        ({"jobs": 1.5}, "at least one job, not 1.5"),
    ],
)
def test_seeds_and_jobs_that_are_none_are_refused(copy, options, words):
    with pytest.raises(ToolError, match=words):
        make(copy, "icebreaker", **options)


# --- seeds, with tools that stand in -----------------------------------------------------------

TINY = """module top(input clk_in, input rx, output tx, output led);
  SB_PLL40_PAD #(.DIVR(4'h0), .DIVF(7'h{feedback:02x}), .DIVQ(3'h5)) pll (.PACKAGEPIN(clk_in));
endmodule
"""


def tiny(folder, **options):
    """A build of a Verilog that only the fake tools understand, at 30 MHz."""
    if not (folder / "design.v").exists():
        (folder / "design.v").write_text(TINY.format(feedback=79))
    options = {"jobs": 1, **options}
    return make(folder, "icebreaker", **options)


def test_first_seed_that_meets_timing_is_taken(tmp_path, fake_tools):
    fake_tools.plan({"fmax": 25.0}, s3={"fmax": 31.0}, s4={"fmax": 99.0})
    result = tiny(tmp_path)
    assert fake_tools.calls() == ["yosys", "seed 1", "seed 2", "seed 3", "icepack"]
    assert (result.seed, result.fmax_hz, result.failed) == (3, 31e6, {})
    assert result.seeds == {1: 25e6, 2: 25e6, 3: 31e6}
    assert result.bitstream.read_text() == "packed seed 3"
    assert tiny(tmp_path).cached and fake_tools.calls() == []


def test_number_of_jobs_does_not_change_the_result(tmp_path, fake_tools):
    fake_tools.plan(
        {"fmax": 25.0}, s2={"fmax": 31.0, "sleep": 0.6}, s3={"fmax": 50.0}, s4={"sleep": 60}
    )
    started = time.monotonic()
    result = tiny(tmp_path, jobs=4)
    assert (result.seed, result.seeds) == (2, {1: 25e6, 2: 31e6})
    assert "seed 3" in fake_tools.calls()
    assert time.monotonic() - started < 20, "seed 4 was not waited for"


def test_best_routes_all_seeds_and_keeps_the_fastest(tmp_path, fake_tools):
    fake_tools.plan({"fmax": 31.0}, s2={"fmax": 40.0}, s3={"fmax": 36.0})
    assert tiny(tmp_path, seeds=(1, 2, 3)).seed == 1
    assert fake_tools.calls() == ["yosys", "seed 1", "icepack"]
    result = tiny(tmp_path, seeds=(1, 2, 3), best=True)
    assert fake_tools.calls() == ["seed 2", "seed 3", "icepack"], "seed 1 and synthesis are kept"
    assert (result.seed, result.fmax_hz) == (2, 40e6)
    assert result.reused == ("synthesis", "seed 1")
    assert tiny(tmp_path).seed == 2, "any finished result will do where no seed is asked for"
    assert tiny(tmp_path, seeds=(1, 2, 3)).seed == 1
    assert fake_tools.calls() == [], "all of it was kept"


@pytest.mark.parametrize(
    "crash, words",
    [
        ("kill", r"nextpnr-ice40 failed: ended by signal SIGKILL \(by hand, or out of memory\)"),
        ("exit", "nextpnr-ice40 failed: ERROR: Unable to place cell 'odd'"),
        ("no report", "nextpnr-ice40 ended without writing seed1-timing.json"),
        ("half report", "nextpnr-ice40 wrote a report that cannot be read"),
    ],
)
def test_crashed_seed_is_named_and_the_others_go_on(tmp_path, fake_tools, crash, words):
    fake_tools.plan({"fmax": 31.0}, s1={"crash": crash})
    result = tiny(tmp_path)
    assert result.seed == 2 and result.seeds == {2: 31e6}
    assert re.fullmatch(rf"{words}.* \(whole log: (.*)\)", result.failed[1])
    log = Path(result.failed[1].split("whole log: ")[1].rstrip(")"))
    assert "placing" in log.read_text()
    fake_tools.plan({"fmax": 31.0, "crash": crash})
    with pytest.raises(ToolError, match=f"^{words}.*whole log: .*; 1 other seeds failed too$"):
        tiny(tmp_path, seeds=(1, 3))
    fake_tools.plan({"fmax": 25.0}, s1={"crash": crash})
    with pytest.raises(TimingError, match=r"25.00 MHz at best \(seed 5 of 1 \(1 more failed: next"):
        tiny(tmp_path, seeds=(1, 5))


def test_same_verilog_for_another_board_or_pin_is_routed_anew(tmp_path, fake_tools):
    first = tiny(tmp_path)
    fake_tools.calls()
    board = BOARDS["icebreaker"]
    pins = {**board.pins, "led": dataclasses.replace(board.pins["led"], site="11")}
    other = dataclasses.replace(board, name="other", pins=pins)
    result = build_verilog(tmp_path / "design.v", other, tmp_path / "other", clock_hz=30e6, jobs=1)
    assert fake_tools.calls() == ["seed 1"], "synthesis knows no pins; the fake packs the same"
    assert result.reused == ("synthesis", "pack")
    texts = [(r.folder / "constraints.pcf").read_text() for r in (first, result)]
    assert texts[0] != texts[1] == texts[0].replace("led 37", "led 11")


def test_other_version_of_a_tool_runs_again(tmp_path, fake_tools):
    tiny(tmp_path)
    fake_tools.calls()
    (metadata,) = fake_tools.home.glob("*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("1.0", "1.1"))
    assert not tiny(tmp_path).cached
    assert fake_tools.calls() == ["yosys", "seed 1", "icepack"]


@pytest.mark.parametrize("name", ["synthesis_script", "constraint_files", "place_and_route_args"])
def test_what_tools_are_told_is_part_of_a_result(tmp_path, fake_tools, monkeypatch, name):
    tiny(tmp_path)
    assert tiny(tmp_path).cached
    fake_tools.calls()
    real = getattr(build_flow, name)

    def other(*words, **options):
        told = real(*words, **options)
        if isinstance(told, dict):
            return {file: f"{text}# more\n" for file, text in told.items()}
        return f"{told}# more\n" if isinstance(told, str) else [*told, "--more"]

    monkeypatch.setattr(build_flow, name, other)
    assert not tiny(tmp_path).cached
    assert fake_tools.calls()[0] == ("yosys" if name == "synthesis_script" else "seed 1")


def test_clock_that_is_advised_suits_the_baud_rate(tmp_path, fake_tools):
    fake_tools.plan({"fmax": 18.4})
    with pytest.raises(TimingError) as error:
        tiny(tmp_path)
    assert error.value.clock_hz == 18.375e6
    with pytest.raises(PlanError, match="would be off by"):
        baud_divisor(18.375e6, 1_000_000)
    with pytest.raises(TimingError) as error:
        tiny(tmp_path, baud=1_000_000)
    assert baud_divisor(error.value.clock_hz, 1_000_000) == 18


def test_placement_that_finds_no_way_is_told_from_a_tool_that_crashed(tmp_path, fake_tools):
    fake_tools.plan({"fmax": 31.0, "crash": "exit"})
    with pytest.raises(RouteError, match=r"Unable to place cell 'odd'.*1 other seeds failed too"):
        tiny(tmp_path, seeds=(1, 2))
    fake_tools.plan({"fmax": 31.0, "crash": "exit"}, s2={"crash": "kill"})
    with pytest.raises(ToolError, match="SIGKILL") as error:
        tiny(tmp_path, seeds=(1, 2))
    assert not isinstance(error.value, RouteError)


@pytest.mark.parametrize(
    "line, answer",
    [
        ("ERROR: Unable to find legal placement for all cells, design is probably at", True),
        ("ERROR: Unable to find legal placement for cell 'a' of type 'b' after 3 attempts", True),
        ("ERROR: Unable to place cell 'a', no BELs remaining to implement cell type 'b'", True),
        ("ERROR: Failed to expand region (0, 0) |_> (25, 31) of 5300 ICESTORM_LCs", True),
        ("ERROR: Failed to route arc 0.1 of net 'a', from b to c.", True),
        ("ERROR: failed to place chain starting at cell 'a'", True),
        ("ERROR: Failed to open JSON file 'netlist.json'", False),
        ("ERROR: PLL 'pll' couldn't be placed anywhere, no suitable BEL found", False),
    ],
)
def test_words_of_place_and_route_that_are_an_answer(tmp_path, line, answer):
    (tmp_path / "seed1.log").write_text(f"Info: placing\n{line}\n")
    flow = build_flow.Flow(tmp_path, BOARDS["icebreaker"], tmp_path, tmp_path)
    found = flow._refuse_overfull("seed1.log", ToolError("failed"))
    assert isinstance(found, RouteError) == answer


def test_force_runs_every_step(tmp_path, fake_tools):
    tiny(tmp_path)
    assert tiny(tmp_path, force=True).reused == ()
    assert fake_tools.calls() == ["yosys", "seed 1", "icepack"] * 2


def entries():
    return sorted(build_cache.StepCache().folder.glob("??/*/*.gz"))


def test_damaged_step_is_run_again(tmp_path, fake_tools):
    tiny(tmp_path)
    shutil.rmtree(tmp_path / "build")
    fake_tools.calls()
    (routed,) = [path for path in entries() if path.name == "seed1.asc.gz"]
    routed.write_bytes(gzip.compress(b"seed 1, but not quite"))
    result = tiny(tmp_path)
    assert fake_tools.calls() == ["seed 1"]
    assert result.bitstream.read_text() == "packed seed 1"


def test_cache_that_cannot_be_written_is_said_and_left_alone(tmp_path, fake_tools, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XNORFORGE_CACHE", str(tmp_path / "file"))
    told = []
    result = tiny(tmp_path, progress=told.append)
    assert result.bitstream.is_file()
    assert f"synthesis: not kept, {tmp_path / 'file' / 'steps'}: Not a directory" in told


def test_full_cache_disk_is_said_and_left_alone(tmp_path, fake_tools, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(build_cache, "_pack", full)
    told = []
    assert tiny(tmp_path, progress=told.append).bitstream.is_file()
    assert any("place and route, seed 1: not kept" in t and "No space left" in t for t in told)
    assert entries() == []


def test_full_disk_under_the_result_is_one_sentence(tmp_path, fake_tools, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(build_flow.shutil, "copyfile", full)
        with pytest.raises(ToolError, match=r"build cannot be written \(No space left on device\)"):
            tiny(tmp_path)
    assert not (tmp_path / "build").exists()
    assert not list(tmp_path.glob(".build-*"))
    assert not tiny(tmp_path).cached


def test_folder_that_cannot_be_written_is_one_sentence(tmp_path, fake_tools):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ToolError, match="file/build cannot be written"):
        tiny(tmp_path, out=tmp_path / "file" / "build")


@pytest.mark.parametrize("gone", [True, False])
def test_verilog_that_changes_while_it_is_built_is_refused(tmp_path, fake_tools, gone):
    def change(_):
        if gone:
            (tmp_path / "design.v").unlink()
        else:
            (tmp_path / "design.v").write_text(TINY.format(feedback=79) + "// anew\n")

    tiny(tmp_path)
    with pytest.raises(BundleError, match=r"design\.v changed while it was being built: build ag"):
        tiny(tmp_path, force=True, report=change)
    assert (tmp_path / "build" / "report.json").is_file(), "the old result stays"


def test_default_jobs_are_bounded_by_processors_and_memory(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    assert 1 <= build_flow.default_jobs() <= cores
    monkeypatch.setattr(build_flow.os, "sysconf", lambda name: 1 if "SIZE" in name else 10**6)
    assert build_flow.default_jobs() == 1


KILLED = """
import sys
from pathlib import Path
from xnorforge.gen.boards import BOARDS
from xnorforge.gen.build import build_verilog
folder = Path(sys.argv[1])
def tell(line):
    print(line, flush=True)
build_verilog(folder / "design.v", BOARDS["icebreaker"], folder / "build", clock_hz=30e6,
              force="force" in sys.argv, progress=tell)
"""


def test_killed_build_leaves_no_half_result_and_the_next_one_works(copy):
    shutil.rmtree(copy / "build")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(copy), "force"], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("place and route"):
                break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    left = list(copy.glob(".build-*"))
    assert left
    assert not (copy / "build").exists()
    result = make(copy, "icebreaker")
    assert not result.cached and "synthesis" in result.reused
    assert not list(copy.glob(".build-*"))


def test_interrupted_build_ends_its_tools_at_once(copy):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(copy), "force"],
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
@pytest.mark.parametrize(
    "name", [name for name, device in DEVICES.items() if device.family.place_and_route]
)
def test_device_table_equals_nextpnr(tmp_path, name):
    device = DEVICES[name]
    family = device.family
    # Gowin's takes no port without a pin.
    ports = "" if family.name == "gowin" else "(input a, output b); assign b = !a"
    keep = "(* keep *) LUT4 #(.INIT(1)) cell_0();" if family.name == "gowin" else ""
    (tmp_path / "a.v").write_text(f"module top{ports}; {keep} endmodule")
    command = " ".join([*family.synthesis, *device.synthesis_args])
    (tmp_path / "a.ys").write_text(f"read_verilog a.v\n{command} -top top -json a.json\n")
    run_tool("yosys", ["a.ys"], cwd=tmp_path, log=tmp_path / "yosys.log")
    if family.name == "gowin":
        part = f"{device.part}{device.packages[0]}{device.speeds[0]}"
        args = ["--device", part, "--vopt", f"family={device.chip}"]
    else:
        speed = ["--speed", device.speeds[0]] if device.speeds else []
        (suffix,) = family.constraints_suffixes
        args = [*device.place_and_route_args, "--package", device.packages[0], *speed]
        args += [f"--{suffix[1:]}-allow-unconstrained"]
    args += ["--json", "a.json", "--report", "report.json"]
    run_tool(family.place_and_route, args, cwd=tmp_path, log=tmp_path / "log")
    cells = json.loads((tmp_path / "report.json").read_text())["utilization"]

    def available(kind):
        (cell, *_) = family.cell_keys.get(kind, ("",))
        return cells.get(cell, {"available": 0})["available"]

    assert available("logic_cells") == device.luts
    assert available("block_rams") == device.block_rams
    assert available("dsps") == device.dsps
    assert available("sprams") == device.spram_blocks


def test_environment_is_left_alone(copy):
    before = dict(os.environ)
    make(copy, "icebreaker")
    assert dict(os.environ) == before
