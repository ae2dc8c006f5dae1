# SPDX-License-Identifier: BSD-2-Clause
"""Every board takes a bitstream: pins, clock input, PLL and packer, shown on a UART echo."""


import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.boards import BOARDS, baud_divisor, get_board
from xnorforge.gen.build import build_verilog
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
