# SPDX-License-Identifier: BSD-2-Clause
"""Every board takes a bitstream: pins, clock input, PLL and packer, shown on a UART echo."""

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.boards import BOARDS, baud_divisor, get_board
from xnorforge.gen.build import build_verilog
from xnorforge.gen.errors import PlanError
from xnorforge.gen.verilog import to_verilog
from xnorforge.hw.pll import Pll
from xnorforge.hw.uart import UartReceiver, UartTransmitter

pytestmark = pytest.mark.routing


class Echo(wiring.Component):
    """PLL, reset, and a UART that sends what it takes."""

    def __init__(self, board):
        self.board = board
        ports = {port: Out(1) if port in ("tx", "led") else In(1) for port in board.pins}
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain()
        config = self.board.pll_config()
        divisor = baud_divisor(config.output_hz, self.board.baud)
        m.submodules.pll = pll = Pll(config=config)
        m.submodules.receiver = receiver = UartReceiver()
        m.submodules.transmitter = transmitter = UartTransmitter()
        m.d.comb += [
            pll.clk_in.eq(self.clk_in),
            receiver.rx.eq(self.rx),
            receiver.divisor.eq(divisor),
            transmitter.divisor.eq(divisor),
            self.tx.eq(transmitter.tx),
            transmitter.i.payload.eq(receiver.o.payload),
            transmitter.i.valid.eq(receiver.o.valid),
        ]
        if "led" in self.board.pins:
            m.d.sync += self.led.eq(1)
        return m


def build_echo(board, folder):
    folder.mkdir(exist_ok=True)
    verilog = folder / "echo.v"
    verilog.write_text(to_verilog(Echo(board), "top"))
    clock_hz = board.pll_config().output_hz
    return build_verilog(verilog, board, folder / "build", clock_hz=clock_hz, seeds=(1,))


def usable(name):
    """A board with a UART: of its own or, for the test, on two of its pins."""
    board = get_board(name)
    return board if "rx" in board.pins else board.with_pins({"rx": "G2", "tx": "J3"})


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_takes_a_bitstream(name, tmp_path):
    board = usable(name)
    result = build_echo(board, tmp_path)
    assert result.bitstream.stat().st_size > 1000
    assert result.clock_hz == board.pll_config().output_hz
    assert result.constraint_hz == pytest.approx(result.clock_hz, rel=1e-3)
    assert result.fmax_hz >= result.constraint_hz


@pytest.mark.parametrize("name", ["icebreaker", "ulx3s-25f", "tang-nano-9k"])
def test_pin_that_the_package_lacks_is_named(name, tmp_path):
    board = get_board(name).with_pins({"rx": "B99"})
    words = f"^Board {name}: package .* has no pin 'B99', which rx should be on"
    with pytest.raises(PlanError, match=words):
        build_echo(board, tmp_path)


# Sipeed's Tang Nano 20K, which amaranth-boards does not have: all that a new board takes.
TANG_NANO_20K = """
title = "Tang Nano 20K"
device = "gw2ar-18"
package = "QN88"
speed = "C8/I7"
oscillator_hz = 27_000_000
pll = "rPLL"
clock_hz = 81_000_000
baud = 1_000_000
uart = "USB bridge"
loader = ["--board", "tangnano20k"]
led_active_low = true

[pins]
clk_in = { site = "4", options = "IO_TYPE=LVCMOS33" }
rx = { site = "70", options = "IO_TYPE=LVCMOS33 PULL_MODE=UP" }
tx = { site = "69", options = "IO_TYPE=LVCMOS33" }
led = { site = "15", options = "IO_TYPE=LVCMOS33" }
"""


def test_board_of_twenty_lines_takes_a_bitstream(tmp_path):
    path = tmp_path / "tang-nano-20k.toml"
    path.write_text(TANG_NANO_20K)
    result = build_echo(get_board(str(path)), tmp_path / "work")
    assert (result.board, result.device, result.clock_hz) == ("tang-nano-20k", "gw2ar-18", 81e6)
    assert result.fmax_hz >= 81e6
