# SPDX-License-Identifier: BSD-2-Clause
"""Board files against amaranth-boards, their errors, baud divisors, devices."""

import importlib.util
import json
import random
from pathlib import Path

import numpy as np
import pytest
from amaranth.build import Subsignal
from hypothesis import given
from hypothesis import strategies as st

from xnorforge.gen import boards
from xnorforge.gen.boards import (
    BOARDS,
    Board,
    Pin,
    baud_divisor,
    get_board,
    load_board,
    plan_board,
    read_pins,
)
from xnorforge.gen.bundle import Bundle, compile_bundle
from xnorforge.gen.devices import DEVICES, FAMILIES, get_device
from xnorforge.gen.errors import PlanError
from xnorforge.gen.planner import make_plan
from xnorforge.sim.core_bench import random_network
from xnorforge.sim.random_networks import dense_network

# Module and class in amaranth-boards; the clock's name where it is not the platform's default.
PLATFORMS = {
    "blackice": ("blackice", "BlackIcePlatform"),
    "blackice-ii": ("blackice_ii", "BlackIceIIPlatform"),
    "butterstick": ("butterstick", "ButterStickPlatform"),
    "colorlight-5a-75b": ("colorlight_5a75b_r7_0", "Colorlight_5A75B_R70Platform"),
    "ecp5-5g-evn": ("ecp5_5g_evn", "ECP55GEVNPlatform"),
    "ecpix5-45": ("ecpix5", "ECPIX545Platform"),
    "ecpix5-85": ("ecpix5", "ECPIX585Platform"),
    "fomu-hacker": ("fomu_hacker", "FomuHackerPlatform"),
    "fomu-pvt": ("fomu_pvt", "FomuPVTPlatform"),
    "ice40-hx1k-blink-evn": ("ice40_hx1k_blink_evn", "ICE40HX1KBlinkEVNPlatform"),
    "ice40-hx8k-b-evn": ("ice40_hx8k_b_evn", "ICE40HX8KBEVNPlatform"),
    "ice40-up5k-b-evn": ("ice40_up5k_b_evn", "ICE40UP5KBEVNPlatform"),
    "icebreaker": ("icebreaker", "ICEBreakerPlatform"),
    "icebreaker-bitsy": ("icebreaker_bitsy", "ICEBreakerBitsyPlatform"),
    "icepi-zero": ("icepi_zero", "IcepiZero1_3Platform"),
    "icestick": ("icestick", "ICEStickPlatform"),
    "icesugar": ("icesugar", "ICESugarPlatform"),
    "icesugar-nano": ("icesugar_nano", "ICESugarNanoPlatform"),
    "icesugar-pro": ("icesugar_pro", "ICESugarProPlatform"),
    "logicbone-45f": ("logicbone", "LogicbonePlatform"),
    "logicbone-85f": ("logicbone", "Logicbone85FPlatform"),
    "nandland-go": ("nandland_go", "NandlandGoPlatform"),
    "orangecrab-r0.1": ("orangecrab_r0_1", "OrangeCrabR0_1Platform"),
    "orangecrab-r0.2-25f": ("orangecrab_r0_2", "OrangeCrabR0_2_25FPlatform"),
    "orangecrab-r0.2-85f": ("orangecrab_r0_2", "OrangeCrabR0_2_85FPlatform"),
    "supercon19badge": ("supercon19badge", "Supercon19BadgePlatform"),
    "tang-nano": ("tang_nano", "TangNanoPlatform"),
    "tang-nano-9k": ("tang_nano_9k", "TangNano9kPlatform"),
    "tang-primer-20k": ("tang_primer_20k", "TangPrimer20kDockPlatform"),
    "tinyfpga-bx": ("tinyfpga_bx", "TinyFPGABXPlatform"),
    "ulx3s-12f": ("ulx3s", "ULX3S_12F_Platform"),
    "ulx3s-25f": ("ulx3s", "ULX3S_25F_Platform"),
    "ulx3s-45f": ("ulx3s", "ULX3S_45F_Platform"),
    "ulx3s-85f": ("ulx3s", "ULX3S_85F_Platform"),
    "upduino-v2": ("upduino_v2", "UpduinoV2Platform"),
    "upduino-v3": ("upduino_v3", "UpduinoV3Platform"),
    "versa-ecp5": ("versa_ecp5", "VersaECP5Platform"),
    "versa-ecp5-5g": ("versa_ecp5_5g", "VersaECP55GPlatform"),
}
# Boards whose platform runs on an oscillator inside the FPGA, too far off for a UART.
OTHER_CLOCK = {"tang-nano": "clk24", "upduino-v2": "clk12", "upduino-v3": "clk12"}


def platform_of(name):
    module, kind = PLATFORMS[name]
    return getattr(importlib.import_module(f"amaranth_boards.{module}"), kind)()


def resource(platform, name, number=0):
    return next(r for r in type(platform).resources if (r.name, r.number) == (name, number))


def attributes(item):
    return {**getattr(item, "attrs", {})}


def leaves(platform, name):
    """(name within the resource, pins, attributes) of all that resources of a name hold."""
    for item in type(platform).resources:
        if item.name != name:
            continue
        for io in item.ios:
            inner = io.ios[0] if isinstance(io, Subsignal) else io
            attrs = {**attributes(item), **(attributes(io) if isinstance(io, Subsignal) else {})}
            yield io.name if isinstance(io, Subsignal) else "", inner, attrs


def io_type(platform, attrs):
    found = attrs["IO_TYPE"]
    return found(platform) if callable(found) else found


def agrees(board, port, platform, attrs):
    """The IO standard of a pin is the platform's (iCE40 has but one here)."""
    if board.device.family.name != "ice40":
        options = board.pins[port].options.split()
        assert f"IO_TYPE={io_type(platform, attrs)}" in options
        assert all(word.split("=")[0] in ("IO_TYPE", "PULLMODE", "PULL_MODE", "DRIVE")
                   for word in options)  # fmt: skip


@pytest.mark.parametrize("name", BOARDS)
def test_board_equals_amaranth_boards(name):
    board, platform = BOARDS[name], platform_of(name)
    clock = resource(platform, OTHER_CLOCK.get(name, platform.default_clk))
    assert board.oscillator_hz == clock.clock.frequency
    pins = clock.ios[0].p if hasattr(clock.ios[0], "p") else clock.ios[0]
    assert [board.pins["clk_in"].site] == pins.names
    agrees(board, "clk_in", platform, clock.attrs)
    uart = {line: (pins, attrs) for line, pins, attrs in leaves(platform, "uart")}
    for line in ("rx", "tx"):
        if line in uart:
            assert [board.pins[line].site] == uart[line][0].names
            agrees(board, line, platform, uart[line][1])
        elif line in board.pins:
            assert board.pins[line].site in loose_pins(platform)
            assert "USB" not in board.uart
    if "led" in board.pins:
        site = board.pins["led"].site
        (led, attrs) = next(
            (pins, attrs)
            for kind in ("led", "rgb_led")
            for _, pins, attrs in leaves(platform, kind)
            if pins.names == [site]
        )
        assert board.led_active_low == led.invert
        agrees(board, "led", platform, attrs)


def loose_pins(platform):
    """Pins on connectors and touch pads."""
    pins = {pin for connector in type(platform).connectors for pin in connector.mapping.values()}
    for _, found, _ in leaves(platform, "touch"):
        pins.update(found.names)
    return pins


@pytest.mark.parametrize("name", BOARDS)
def test_device_equals_amaranth_boards(name):
    board, platform = BOARDS[name], platform_of(name)
    if board.device.family.name == "gowin":
        part = f"{board.device.part}{board.package}{board.speed}"
        # Its own name for the chip of a Tang Nano is not what its PLL is called by.
        assert (part, board.device.pll_part) == (platform.part, platform.family)
        return
    family, _, size = board.device.name.partition("-")
    chip = f"LFE5U{size.upper()}" if "-" in size else f"LFE5U-{size.upper()}"
    chip = f"iCE40{size.upper()}" if family == "ice40" else chip.replace("LFE5UUM", "LFE5UM")
    assert chip == platform.device
    package = board.package.lower().replace("csfbga", "mg").replace("cabga", "bg")
    assert package == platform.package.lower()
    assert board.speed == getattr(platform, "speed", "")


def test_every_board_is_compared():
    assert set(PLATFORMS) == set(BOARDS)


@pytest.mark.parametrize("name", BOARDS)
def test_board_reaches_its_own_clock_and_baud(name):
    board = BOARDS[name]
    setting = board.pll_config()
    assert setting.output_hz == pytest.approx(board.clock_hz, rel=0.01)
    assert baud_divisor(setting.output_hz, board.baud) >= 12
    assert set(board.pins) <= set(boards.PORTS)
    assert Board.from_json(json.loads(json.dumps(board.to_json()))) == board
    assert board.loader or board.programmer.format("x") != board.programmer


@pytest.mark.parametrize(
    "device, mhz",
    [("ice40-up5k", 36), ("ice40-hx8k", 80), ("gw1nr-9", 60), ("gw2a-18", 80), ("ecp5", 100)],
)
def test_clocks_are_those_promised(device, mhz):
    found = [board for board in BOARDS.values() if board.device.name.startswith(device)]
    assert found
    for board in found:
        assert board.pll_config().output_hz >= mhz * 1e6


def test_unreachable_clock_is_an_error_with_the_range():
    with pytest.raises(PlanError, match="icebreaker: SB_PLL40_PAD output frequency must be 16 to"):
        BOARDS["icebreaker"].pll_config(1e6)


def test_unknown_board_and_device_are_named():
    with pytest.raises(PlanError, match=r"one of .*, versa-ecp5-5g, or a file .* not 'arty'"):
        get_board("arty")
    with pytest.raises(PlanError, match=r"one of ice40-hx1k, .*, not 'xc7'"):
        get_device("xc7")
    assert get_device("ecp5-85f") is DEVICES["ecp5-85f"]


GOOD = """title = "Mine"
device = "ecp5-85f"
package = "CABGA381"
speed = "6"
oscillator_hz = 25_000_000
pll = "EHXPLLL"
clock_hz = 100_000_000
baud = 1_000_000
loader = ["--board", "ulx3s"]
led_active_low = true

[pins]
clk_in = { site = "G2", options = "IO_TYPE=LVCMOS33" }
rx = { site = "M1", options = "IO_TYPE=LVCMOS33 PULLMODE=UP" }
tx = { site = "L4" }
led = { site = "B2" }
"""


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("25_000_000", '"25 MHz"', "line 5: field 'oscillator_hz' must be an integer, "
         "not '25 MHz'"),
        ("25_000_000", "2_000_000", "line 5: field 'oscillator_hz' does not suit the PLL: "
         "EHXPLLL input"),
        ("100_000_000", "9" * 400, "line 7: field 'clock_hz' must be positive, and at most 1,000"),
        ("baud = 1_000_000", f"baud = {'9' * 400}", "line 8: field 'baud' must be positive, and "
         "at most 1,000,000,000"),
        ("baud = 1_000_000", f"baud = {'9' * 5000}", "cannot be read: .*4300 digits"),
        ("baud = 1_000_000", "baud = 0", "line 8: field 'baud' must be positive, not 0"),
        ("baud = 1_000_000", "baud = true", "line 8: field 'baud' must be an integer"),
        ("baud = 1_000_000", "bridge_baud = 900_000\nbaud = 1_000_000", "field 'baud' does not "
         "suit the clock: .* its USB bridge does at most 900,000 baud"),
        ("baud = 1_000_000", "baud = 9_600_000", "line 8: field 'baud' does not suit the clock: .* "
         "off by 4.2%"),
        ("ecp5-85f", "ecp5-99f", "line 2: field 'device' must be one of ice40-hx1k"),
        ("CABGA381", "QN88", "line 3: field 'package' of ecp5-85f must be one of 'CABGA381', .*, "
         "not 'QN88'"),
        ('speed = "6"', 'speed = "9"', "line 4: field 'speed' of ecp5-85f must be one of '6', '7', "
         "'8', not '9'"),
        ('speed = "6"', "speed = 6", "line 4: field 'speed' must be a string, not 6"),
        ("EHXPLLL", "MMCM", "line 6: field 'pll' of family ecp5 must be one of 'EHXPLLL', 'none', "
         "not 'MMCM'"),
        ("clock_hz", "clock", "line 7: field 'clock' is unknown; fields are title"),
        ("clock_hz = 100_000_000\n", "", "field 'clock_hz' is missing; it must be an integer"),
        ("100_000_000", "900_000_000", "line 7: field 'clock_hz' does not suit the PLL"),
        ('"--board", "ulx3s"', "1", "line 9: field 'loader' must be a list of strings, not .1."),
        ('loader = ["--board", "ulx3s"]', 'programmer = "dfu"', "line 9: field 'programmer' must "
         "have {} where"),
        ('loader = ["--board", "ulx3s"]', "programmer = \"dfu '{}\"", "line 9: field 'programmer' "
         "is no command line .No closing quotation"),
        ("led_active_low = true", "led_active_low = 1", "line 10: field 'led_active_low' must be "
         "true or false, not 1"),
        ("clk_in = {", "clk = {", "line 12: field 'pins.clk_in' is missing"),
        ("tx = { site", "tx = { pin", "line 15: field 'pins.tx' must be like"),
        ('tx = { site = "L4"', "tx = { site = 4", "line 15: field 'pins.tx' must hold strings"),
        ('"L4"', '"L 4"', "line 15: field 'pins.tx' must name a pin of the package, not 'L 4'"),
        ('"L4"', '"m1"', "line 15: field 'pins.tx' is on pin 'm1', where pins.rx is|"
         "line 15: field 'pins.tx' is on pin 'M1', where pins.rx is"),
        ("LVCMOS33 PULL", "LVCMOS33; PULL", "line 14: field 'pins.rx' must have options without "
         "';'"),
        ("[pins]", "[pins]\nbutton = 1", "line 13: field 'pins.button' is unknown"),
        ("[pins]", "[pin]", "line 12: field 'pin' is unknown"),
        ('title = "', "title = ", "is not TOML: .*line 1"),
    ],
)  # fmt: skip
def test_wrong_board_file_names_file_line_and_field(tmp_path, old, new, words):
    assert old in GOOD
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_board(path).name == "mine"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(PlanError, match=f"^Board file mine.toml.*({words})"):
        load_board(path)


def test_board_of_a_file_is_got_by_its_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    board = get_board(str(path))
    assert (board.name, board.title, board.uart, board.programmer) == ("mine", "Mine", "pins", "")
    assert list(board.pins) == ["clk_in", "rx", "tx", "led"]
    (tmp_path / "bare.toml").write_text(GOOD.replace("rx = ", "# rx = "))
    with pytest.raises(PlanError, match=r"bare has no UART of its own: .* --pins rx=PIN$"):
        get_board(str(tmp_path / "bare.toml")).check_uart()


def test_pins_can_be_elsewhere():
    board = BOARDS["ulx3s-85f"]
    moved = board.with_pins(read_pins("rx=B11, tx=A10"))
    assert (moved.pins["rx"].site, moved.pins["tx"].site) == ("B11", "A10")
    assert moved.pins["rx"].options == board.pins["rx"].options
    bare = BOARDS["butterstick"]
    assert bare.with_pins({"rx": "G2"}).pins["rx"].options == "IO_TYPE=LVCMOS33"


@pytest.mark.parametrize(
    "text, words",
    [
        ("rx", "given like rx=B2,tx=B3, not 'rx'"),
        ("rx=", "given like rx=B2,tx=B3"),
        ("rx=B2,rx=B3", "Pin rx is given twice"),
        ("button=B2", "those of clk_in, rx, tx, led, not of 'button'"),
        ("rx=B 2", "Pin rx must be a pin of the package, not 'B 2'"),
        ("rx=L4", "Board ulx3s-85f: rx and tx cannot both be on pin L4"),
        ("rx=l4", "rx and tx cannot both be on pin"),
    ],
)
def test_impossible_pins_are_refused(text, words):
    with pytest.raises(PlanError, match=words):
        BOARDS["ulx3s-85f"].with_pins(read_pins(text))


def test_unreadable_board_file_is_an_error(tmp_path):
    with pytest.raises(PlanError, match=r"Board file .*none\.toml cannot be read: No such file"):
        load_board(tmp_path / "none.toml")


@given(clock_hz=st.floats(16e6, 400e6), baud=st.integers(300, 12_000_000))
def test_baud_divisor_is_within_one_percent_or_refused(clock_hz, baud):
    possible = [
        d for d in (int(clock_hz / baud), int(clock_hz / baud) + 1)
        if 4 <= d <= 65535 and abs(clock_hz / d / baud - 1) <= 0.0099
    ]  # fmt: skip
    try:
        divisor = baud_divisor(clock_hz, baud)
    except PlanError:
        assert not possible
    else:
        assert abs(clock_hz / divisor / baud - 1) <= 0.01


def test_baud_errors_say_what_would_do():
    with pytest.raises(PlanError, match=r"off by 6\.2% .* nearest possible rate is 7500000"):
        baud_divisor(30e6, 8_000_000)
    with pytest.raises(PlanError, match="choose a rate from 1526 to 25000000"):
        baud_divisor(100e6, 30_000_000)
    with pytest.raises(PlanError, match="must be positive, not 0"):
        baud_divisor(100e6, 0)


def test_bridge_is_not_asked_for_more_than_it_does():
    network = dense_network(np.random.default_rng(1), [8, 4], "bit", 1)
    with pytest.raises(PlanError, match=r"ulx3s-85f: its USB bridge does at most 3,000,000 baud"):
        make_plan(network, board="ulx3s-85f", baud=4_000_000)
    for name, baud, clock in (("ulx3s-85f", 3_000_000, 75e6), ("ecp5-5g-evn", 12_000_000, 96e6)):
        assert make_plan(network, board=name, baud=baud, clock_hz=clock).baud == baud
    # With pins of one's own the bridge has no part in it; its clock still has.
    pins = {"rx": "M2", "tx": "L5"}
    assert make_plan(network, board="ulx3s-85f", baud=12_500_000, pins=pins)
    with pytest.raises(PlanError, match="4 to 65535 are possible"):
        make_plan(network, board="icebreaker", baud=12_000_000)


def test_block_ram_shapes_hold_the_blocks_bits():
    for family in FAMILIES.values():
        parity_free = family.block_ram_shapes[-1]
        assert family.block_ram_bits >= parity_free[0] * parity_free[1]
        widths = [width for width, _ in family.block_ram_shapes]
        assert widths == sorted(widths, reverse=True)
    assert FAMILIES["ice40"].block_ram_bits == 4096
    assert FAMILIES["ecp5"].block_ram_bits == 18 * 1024


def test_table_of_the_document_is_that_of_the_files():
    path = Path(__file__).parents[2] / "benchmarks" / "boards_table.py"
    spec = importlib.util.spec_from_file_location("boards_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.DOCUMENT.read_text()
    assert module.with_table(text) == text, "run python benchmarks/boards_table.py"


def test_board_of_a_file_travels_with_the_bundle(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace("led = ", "# led = "))
    network = random_network(random.Random(3), sizes=[12, 5, 3])
    plan = make_plan(network, board=str(path), pins={"tx": "A10"}, goal="min")
    bundle = compile_bundle(network, plan, tmp_path / "net")
    path.unlink()
    found = plan_board(Bundle.open(tmp_path / "net").plan)
    assert (bundle.plan.board, found.name) == ("mine", "mine")
    assert found.pins["tx"] == Pin("A10")
    assert found.pins["rx"].site == "M1"
    assert list(found.pins) == ["clk_in", "rx", "tx"]
    top = (tmp_path / "net" / "accelerator.v").read_text().split("module top")[1]
    assert "output tx" in top
    assert "output led" not in top


def test_pins_need_a_board():
    network = random_network(random.Random(3), sizes=[12, 5, 3])
    with pytest.raises(PlanError, match="Pins go with a board, not with bare device ecp5-25f"):
        make_plan(network, device="ecp5-25f", pins={"rx": "B2"})
    with pytest.raises(PlanError, match="butterstick has no UART of its own"):
        make_plan(network, board="butterstick")
