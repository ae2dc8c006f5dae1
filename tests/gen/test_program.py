# SPDX-License-Identifier: BSD-2-Clause
"""program on every board, with a stand-in for openFPGALoader that obeys and complains like it.

What it says is what openFPGALoader 1.1.1 says, from its sources and from runs without a board.
"""

import json
import random
import shlex
import shutil
import sys
from types import SimpleNamespace

import pytest

from xnorforge.gen import program as program_module
from xnorforge.gen import tools
from xnorforge.gen.attached import Attached, usb_ids
from xnorforge.gen.boards import BOARDS
from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.errors import BundleError, PlanError
from xnorforge.gen.planner import make_plan
from xnorforge.gen.program import Cable, program, program_command
from xnorforge.sim.core_bench import random_network
from xnorforge.sw.cli import run

LOADER = """#!{python}
import json, sys
from pathlib import Path
home = Path({home!r})
(home / "called").write_text(json.dumps(sys.argv[1:]))
print((home / "says").read_text())
sys.exit(int((home / "status").read_text()))
"""


class FakeLoader:
    """openFPGALoader, as far as what it is told and says."""

    def __init__(self, home):
        self.home = home
        self.answer("Parse file DONE\nReset and Wait for CDONE:\nDone", 0)

    def answer(self, text, status):
        (self.home / "says").write_text(text)
        (self.home / "status").write_text(str(status))

    @property
    def told(self):
        return json.loads((self.home / "called").read_text())


@pytest.fixture
def loader(tmp_path, monkeypatch):
    package = tmp_path / "tools" / "fake_loader"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    path = package / "bin" / "openFPGALoader"
    path.write_text(LOADER.format(python=sys.executable, home=str(tmp_path)))
    path.chmod(0o755)
    tool = tools.Tool("openFPGALoader", "fake-loader", "1.1.1", (str(path),))
    monkeypatch.setattr(tools, "find_tool", lambda name: tool)
    monkeypatch.setattr(program_module, "usb_devices", list)
    return FakeLoader(tmp_path)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A bundle with what a build leaves, as far as program looks at it."""
    network = random_network(random.Random(4), sizes=[20, 4, 3])
    plan = make_plan(network, board="icebreaker", clock_hz=30e6)
    bundle = compile_bundle(network, plan, tmp_path_factory.mktemp("program") / "net")
    (bundle.results / "build").mkdir(parents=True)
    (bundle.results / "build" / "net.bin").write_bytes(b"bitstream")
    return bundle


@pytest.fixture
def built(loader, compiled, monkeypatch):
    folder = compiled.results / "build"
    shutil.copy(compiled.path / "accelerator.v", folder)
    result = SimpleNamespace(board="icebreaker", bitstream=folder / "net.bin")
    monkeypatch.setattr(program_module, "read_result", lambda folder: result)
    return compiled


@pytest.fixture
def on(built, monkeypatch):
    """The built bundle, as if it were of another board."""

    def bundle_on(board):
        monkeypatch.setattr(program_module, "plan_board", lambda plan: BOARDS[board])
        return built

    return bundle_on


def options(bundle, **choices):
    """What openFPGALoader is told, without the file."""
    tool, *words, file = program_command(bundle, **choices)
    assert tool == "openFPGALoader" and file.endswith((".bin", ".bit", ".fs"))
    return " ".join(words)


# --- what is asked for --------------------------------------------------------------------------


def test_bitstream_goes_into_the_flash_of_an_icebreaker_and_is_compared(built, loader, capsys):
    result = program(built)
    assert result.done and result.target == "flash" and result.verified and result.reason == ""
    words = ["--board", "ice40_generic", "--write-flash", "--verify"]
    assert loader.told[:-1] == words
    assert shlex.split(result.command) == ["openFPGALoader", *loader.told]
    assert run(["program", str(built.path)]) == 0
    assert "In flash, read back and equal" in capsys.readouterr().out
    assert run(["program", str(built.path), "--sram", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "sram"
    assert loader.told[:-1] == ["--board", "ice40_generic", "--write-sram"]


@pytest.mark.parametrize(
    ("board", "choices", "words"),
    [
        ("ulx3s-85f", {}, "--board ulx3s --write-sram"),
        ("ulx3s-85f", {"target": "flash"}, "--board ulx3s --write-flash --verify"),
        ("ulx3s-85f", {"target": "flash", "verify": False}, "--board ulx3s --write-flash"),
        (
            "ulx3s-85f",
            {"cable": Cable(serial="D00123")},
            "--board ulx3s --write-sram --ftdi-serial D00123",
        ),
        (
            "versa-ecp5",
            {"cable": Cable(name="ft4232", place="1:7")},
            "--write-sram --cable ft4232 --busdev-num 1:7",
        ),
        ("icebreaker", {"cable": Cable(place="3:12")}, "--board ice40_generic --write-flash "
         "--busdev-num 3:12 --verify"),
        ("tang-nano-9k", {"target": "flash"}, "--board tangnano9k --write-flash"),
        ("tang-primer-20k", {"target": "flash"}, "--board tangprimer20k --write-flash --verify"),
        ("fomu-pvt", {}, "--board fomu"),
        ("fomu-pvt", {"target": "flash"}, "--board fomu"),
    ],
)  # fmt: skip
def test_options_of_a_board(on, board, choices, words):
    assert options(on(board), **choices) == words


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_can_be_programmed_or_says_how(on, loader, name):
    bundle, board = on(name), BOARDS[name]
    result = program(bundle)
    assert usb_ids(board), "doctor would not know it"
    if board.loader:
        assert result.done, result
        assert loader.told[:2] == list(board.loader)
    else:
        assert not result.done and "does not know" in result.reason
        assert str(bundle.results) in result.command and "{}" not in result.command


@pytest.mark.parametrize(
    ("board", "choices", "words"),
    [
        ("fomu-pvt", {"target": "sram"}, "bootloader of fomu-pvt writes to flash only"),
        ("fomu-pvt", {"cable": Cable(serial="1")}, "has no cable to choose"),
        ("icebreaker", {"cable": Cable(serial="1")}, "choose the cable by its USB bus and device"),
        ("icebreaker", {"cable": Cable(place="usb1")}, "like 1:7, not 'usb1'"),
        ("icebreaker", {"target": "moon"}, "must be 'sram' or 'flash', not 'moon'"),
        ("icesugar", {"target": "flash"}, "openFPGALoader does not know icesugar"),
    ],
)
def test_what_a_board_cannot_do_is_refused(on, board, choices, words):
    with pytest.raises(PlanError, match=words):
        program(on(board), **choices)


def test_without_a_bitstream_of_this_circuit_it_is_refused(built):
    (built.results / "build" / "accelerator.v").write_text("// another")
    with pytest.raises(BundleError, match="build it"):
        program(built)


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("board", "says", "words"),
    [
        (
            "icebreaker",
            "unable to open ftdi device: -3 (device not found)\nError: Failed to claim cable",
            "No icebreaker is attached: plug it in",
        ),
        (
            "ulx3s-85f",
            "unable to open ftdi device: -3 (device not found)\n"
            "JTAG init failed with: unable to open ftdi device",
            "No ulx3s-85f is attached: plug it in",
        ),
        (
            "fomu-pvt",
            "Open device 1209:5bf0 Not found\nDFU init failed with: No DFU compatible device found",
            "No fomu-pvt is attached in its bootloader",
        ),
        (
            "icebreaker",
            "unable to open ftdi device: -4 (usb_open() failed)\nError: Failed to claim cable",
            'ATTRS{idVendor}=="0403", ATTRS{idProduct}=="6010"',
        ),
        (
            "ulx3s-85f",
            "Error: can't open device with vid:vid = 0x0403:0x6015. Error code -3 Access denied "
            "(insufficient permissions)\nJTAG init failed with: low level FTDI init failed",
            "you may not open it: let udev allow it",
        ),
        (
            "icebreaker",
            "unable to open ftdi device: -5 (unable to claim usb device. Make sure the default "
            "FTDI driver is not in use)\nError: Failed to claim cable",
            "is in use: close the other program first",
        ),
        (
            "ulx3s-85f",
            "mismatch between target's idcode and bitstream idcode\n"
            "\tbitstream has 0x41113043 hardware requires 0x41111043\n"
            "Error: Failed to program FPGA: std::exception",
            "its FPGA is 0x41111043, the bitstream is for 0x41113043",
        ),
        ("ulx3s-85f", "Error: no device found", "answers, but no FPGA behind it: check its power"),
        (
            "icebreaker",
            "openFPGALoader: error while loading shared libraries: libusb-1.0.so.0: cannot open "
            "shared object file: No such file or directory",
            "apt install libusb-1.0-0 libftdi1-2",
        ),
        ("icebreaker", "Error: flux capacitor empty", "flux capacitor empty"),
    ],
)
def test_usual_failures_are_one_sentence(on, loader, board, says, words):
    loader.answer(says, 1)
    result = program(on(board))
    assert not result.done and not result.verified
    assert words in result.reason and "\n" not in result.reason
    assert result.command.startswith("openFPGALoader")


@pytest.mark.parametrize(
    "says",
    [
        "Verifying write (May take time)\rReading: [===] 12.00%\rFail\nVerification failed at 4096",
        "Wait for CDONE\nFail",
        "CRC check : FAIL\nRead: 0x00000000 checksum: 0x1234",
    ],
)
def test_failures_that_end_with_status_0_are_found(on, loader, says):
    """openFPGALoader says so, and gives 0 all the same."""
    loader.answer(says, 0)
    result = program(on("icebreaker"))
    assert not result.done and not result.verified
    assert "fail" in result.reason.lower() and "program.log" in result.reason


def test_chosen_cable_that_is_absent_is_named(on, loader):
    loader.answer("unable to open ftdi device: -3 (device not found)", 1)
    result = program(on("ulx3s-85f"), cable=Cable(serial="D00123"))
    assert result.reason.startswith("No ulx3s-85f is attached on cable D00123")


def test_one_of_several_cables_must_be_chosen(on, loader, monkeypatch):
    """openFPGALoader would take the first one it finds."""
    chips = [
        Attached("1:7", "0403:6010", "D00123", "iCEBreaker V1.0e", ("icebreaker",), True),
        Attached("1:9", "0403:6010", "", "", ("icebreaker",), True),
        Attached("2:3", "0403:6015", "D00456", "ULX3S", ("ulx3s-85f",), True),
    ]
    monkeypatch.setattr(program_module, "usb_devices", lambda: chips)
    result = program(on("icebreaker"))
    assert not result.done and not (loader.home / "called").exists()
    assert result.reason == (
        "2 cables may be that of icebreaker: choose one by --busdev-num, "
        "1:7 (iCEBreaker V1.0e, D00123) or 1:9 (0403:6010)"
    )
    assert program(on("icebreaker"), cable=Cable(place="1:9")).done
    assert program(on("ulx3s-85f")).done
    chips += 2 * [Attached("3:1", "1209:5bf0", "", "Fomu", ("fomu-pvt",), True)]
    assert "leave only that one in its bootloader" in program(on("fomu-pvt")).reason


def test_command_line_prints_the_command_and_exits_with_2(on, loader, capsys):
    loader.answer("unable to open ftdi device: -3 (device not found)", 1)
    path = str(on("icebreaker").path)
    assert run(["program", path]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("openFPGALoader --board ice40_generic --write-flash --verify ")
    assert "Not programmed: No icebreaker is attached" in captured.err
    assert run(["program", path, "--ftdi-serial", "1"]) == 2
    assert "by its USB bus and device" in capsys.readouterr().err
