# SPDX-License-Identifier: BSD-2-Clause
"""Board files against amaranth-boards, their errors, baud divisors, devices."""

from pathlib import Path

import pytest
from amaranth_boards.icebreaker import ICEBreakerPlatform
from amaranth_boards.tang_nano_9k import TangNano9kPlatform
from amaranth_boards.tang_primer_20k import TangPrimer20kDockPlatform
from amaranth_boards.ulx3s import ULX3S_25F_Platform, ULX3S_85F_Platform
from hypothesis import given
from hypothesis import strategies as st

from xnorforge.gen import boards
from xnorforge.gen.boards import BOARDS, baud_divisor, get_board, load_board
from xnorforge.gen.devices import DEVICES, FAMILIES, get_device
from xnorforge.gen.errors import PlanError

PLATFORMS = {
    "icebreaker": ICEBreakerPlatform,
    "tang-nano-9k": TangNano9kPlatform,
    "tang-primer-20k": TangPrimer20kDockPlatform,
    "ulx3s-25f": ULX3S_25F_Platform,
    "ulx3s-85f": ULX3S_85F_Platform,
}
# What amaranth-boards calls the chip of a device.
CHIPS = {
    "ice40-up5k": "iCE40UP5K",
    "ecp5-25f": "LFE5U-25F",
    "ecp5-85f": "LFE5U-85F",
}


def resource(platform, name, number=0):
    return next(r for r in platform.resources if (r.name, r.number) == (name, number))


def uart_pin(platform, line):
    (pins,) = [sub.ios[0] for sub in resource(platform, "uart").ios if sub.name == line]
    return pins


@pytest.mark.parametrize("name", PLATFORMS)
def test_board_equals_amaranth_boards(name):
    board, platform = BOARDS[name], PLATFORMS[name]
    clock = resource(platform, platform.default_clk)
    assert board.oscillator_hz == clock.clock.frequency
    assert [board.pins["clk_in"].site] == clock.ios[0].names
    for line in ("rx", "tx"):
        assert [board.pins[line].site] == uart_pin(platform, line).names
    leds = [r.ios[0] for r in platform.resources if r.name == "led"]
    (led,) = [pins for pins in leds if pins.names == [board.pins["led"].site]]
    assert board.led_active_low == led.invert
    if board.device.family.name == "gowin":
        part = f"{board.device.part}{board.package}{board.speed}"
        assert (part, board.device.pll_part) == (platform.part, platform.family)
        return
    assert CHIPS[board.device.name] == platform.device
    assert board.package.lower().replace("cabga", "bg") == platform.package.lower()
    assert board.speed == getattr(platform, "speed", "")


def test_every_board_is_compared():
    assert set(PLATFORMS) == set(BOARDS)


@pytest.mark.parametrize("name", BOARDS)
def test_board_reaches_its_own_clock_and_baud(name):
    board = BOARDS[name]
    setting = board.pll_config()
    assert setting.output_hz == pytest.approx(board.clock_hz, rel=0.01)
    assert baud_divisor(setting.output_hz, board.baud) >= 16
    assert set(board.pins) == set(boards.PORTS)


def test_clocks_are_those_promised():
    assert BOARDS["icebreaker"].pll_config().output_hz >= 30e6
    assert BOARDS["ulx3s-25f"].pll_config().output_hz >= 100e6
    assert BOARDS["ulx3s-85f"].pll_config().output_hz >= 100e6


def test_unreachable_clock_is_an_error_with_the_range():
    with pytest.raises(PlanError, match="icebreaker: SB_PLL40_PAD output frequency must be 16 to"):
        BOARDS["icebreaker"].pll_config(1e6)


def test_unknown_board_and_device_are_named():
    with pytest.raises(PlanError, match=r"one of .*, ulx3s-85f, or a file .* not 'arty'"):
        get_board("arty")
    with pytest.raises(PlanError, match=r"one of ice40-hx1k, .*, not 'xc7'"):
        get_device("xc7")
    assert get_device("ecp5-85f") is DEVICES["ecp5-85f"]


GOOD = (Path(boards.__file__).parent / "data" / "boards" / "ulx3s-85f.toml").read_text()


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('oscillator_hz = 25_000_000', 'oscillator_hz = "25 MHz"', "line 6: field 'oscillator_hz' "
         "must be an integer, not '25 MHz'"),
        ("baud = 1_000_000", "baud = 0", "line 9: field 'baud' must be positive, not 0"),
        ("baud = 1_000_000", "baud = true", "line 9: field 'baud' must be an integer"),
        ("ecp5-85f", "ecp5-99f", "line 3: field 'device' must be one of ice40-hx1k"),
        ('pll = "EHXPLLL"', 'pll = "MMCM"', "line 7: field 'pll' of family ecp5 must be one of "
         "'EHXPLLL', 'none', not 'MMCM'"),
        ("clock_hz", "clock", "line 8: field 'clock' is unknown; fields are title"),
        ("clock_hz = 100_000_000\n", "", "field 'clock_hz' is missing; it must be an integer"),
        ("100_000_000", "900_000_000", "line 8: field 'clock_hz' does not suit the PLL"),
        ('"--board", "ulx3s"', "1", "line 10: field 'loader' must be a list of strings"),
        ("clk_in = {", "clk = {", "line 13: field 'pins.clk_in' is missing"),
        ("tx = { site", "tx = { pin", "line 16: field 'pins.tx' must be like"),
        ('tx = { site = "L4"', "tx = { site = 4", "line 16: field 'pins.tx' must hold strings"),
        ("[pins]", "[pins]\nbutton = 1", "line 14: field 'pins.button' is unknown"),
        ('title = "', "title = ", "is not TOML: .*line 2"),
    ],
)  # fmt: skip
def test_wrong_board_file_names_file_line_and_field(tmp_path, old, new, words):
    assert old in GOOD
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_board(path).name == "mine"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(PlanError, match=f"^Board file mine.toml.*{words}"):
        load_board(path)


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


def test_block_ram_shapes_hold_the_blocks_bits():
    for family in FAMILIES.values():
        parity_free = family.block_ram_shapes[-1]
        assert family.block_ram_bits >= parity_free[0] * parity_free[1]
        widths = [width for width, _ in family.block_ram_shapes]
        assert widths == sorted(widths, reverse=True)
    assert FAMILIES["ice40"].block_ram_bits == 4096
    assert FAMILIES["ecp5"].block_ram_bits == 18 * 1024
