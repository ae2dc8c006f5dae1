# SPDX-License-Identifier: BSD-2-Clause
"""`accelerator.v`: the core, the system around it, and a top with the baud divisor as parameter.

top #(BAUD_DIVISOR)  ->  xnorforge_system (clock, reset, UART shell)  ->  xnorforge_core
"""

import tempfile
from pathlib import Path

from amaranth import *
from amaranth.back import rtlil
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.assembly import CoreParts
from xnorforge.gen.axi import AXI, AxiSystem
from xnorforge.gen.boards import baud_divisor, plan_board
from xnorforge.gen.core import Core
from xnorforge.gen.core_instance import CORE, add_core
from xnorforge.gen.network import Network
from xnorforge.gen.pcie import PCIE, PcieSystem
from xnorforge.gen.plan import Plan
from xnorforge.gen.tools import run_tool
from xnorforge.hw.pll import Pll
from xnorforge.hw.pll_config import PllConfig
from xnorforge.hw.uart_shell import UartShell, UartShellConfig
from xnorforge.sw import protocol

__all__ = ["accelerator_verilog", "core_verilog"]

_TOP = """
// {name}clock {mhz:.3f} MHz. BAUD_DIVISOR is clock cycles per bit on the UART.
module top #(
    parameter BAUD_DIVISOR = {divisor}
) (
    input  clk_in,
    input  rx,
    output tx{led_port}
);
  xnorforge_system system (
      .clk_in(clk_in),
      .rx(rx),
      .tx(tx),
      .led({led}),
      .divisor(BAUD_DIVISOR[15:0])
  );
endmodule
"""


class System(wiring.Component):
    """Clock and reset, the UART shell and the core, on a board's pins.

    Members
    -------
    clk_in, rx, tx, led : the board's pins; `led` is lit out of reset.
    divisor : In(16), clock cycles per bit on the UART.
    """

    def __init__(self, network: Network, plan: Plan, parts: CoreParts, pll: PllConfig):
        self.network, self.plan, self.parts, self.pll = network, plan, parts, pll
        super().__init__(
            {
                "clk_in": In(1),
                "rx": In(1),
                "tx": Out(1),
                "led": Out(1),
                "divisor": In(16),
            }
        )

    def elaborate(self, platform):
        network, plan, parts = self.network, self.plan, self.parts
        m = Module()
        m.domains.sync = ClockDomain()
        m.submodules.pll = pll = Pll(config=self.pll)
        m.submodules.shell = shell = UartShell(
            config=UartShellConfig(
                image_bytes=network.input.image_bytes,
                classes=network.classes,
                score_bits=parts.head.score_bits,
                window_bytes=protocol.window_bytes(plan.baud),
                slots=plan.slots,
            )
        )
        add_core(m, shell, network, plan, parts)
        board = plan_board(plan)
        m.d.comb += [
            pll.clk_in.eq(self.clk_in),
            shell.rx.eq(self.rx),
            self.tx.eq(shell.tx),
            shell.divisor.eq(self.divisor),
        ]
        # Lit once the clock runs and reset is over.
        running = Signal()
        m.d.sync += running.eq(1)
        m.d.comb += self.led.eq(~running if board.led_active_low else running)
        return m


def core_verilog(network: Network, plan: Plan, parts: CoreParts, *, blank: bool = False) -> str:
    """The module `xnorforge_core`. blank: as of `gen.core.Core`."""
    core = Core(
        parts=parts,
        image_bits=plan.lanes * network.input.value.bits,
        plan_hash=plan.structure_hash(network),
        blank=blank,
    )
    return to_verilog(core, CORE)


def accelerator_verilog(
    network: Network,
    plan: Plan,
    parts: CoreParts,
    *,
    core: str | None = None,
    blank: bool = False,
) -> str:
    """All of `accelerator.v`: the core, with AXI or DMA ports around it, or with system and top for
    a board; alone for a bare device.

    core: its Verilog where that is known already; it is the same at every clock. blank: as of
    `gen.core.Core`; the text is then the same for all networks of the plan.
    """
    text = core or core_verilog(network, plan, parts, blank=blank)
    if plan.link == "axi":
        return text + to_verilog(AxiSystem(network, plan, parts), AXI)
    if plan.link == "pcie":
        return text + to_verilog(PcieSystem(network, plan, parts), PCIE)
    if plan.board is None:
        return text
    board = plan_board(plan)
    system = System(network, plan, parts, board.pll_config(plan.clock_hz))
    text += to_verilog(system, "xnorforge_system")
    return text + _TOP.format(
        name="" if blank else f"{' '.join(network.name.split())}, ",
        mhz=plan.clock_hz / 1e6,
        divisor=baud_divisor(plan.clock_hz, plan.baud),
        led_port=",\n    output led" if "led" in board.pins else "",
        led="led" if "led" in board.pins else "",
    )


def to_verilog(component: wiring.Component, name: str) -> str:
    """Verilog of a component, the same text for the same circuit.

    Source locations are left out. Registers behind block RAM (`ram_data`) lose the initial value
    that Amaranth gives every register, which the RAM's own output register cannot have; memories
    named `spram` lose their words at power-up.
    """
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as folder:
        work = Path(folder)
        (work / "design.il").write_text(rtlil.convert(component, name=name, emit_src=False))
        (work / "convert.ys").write_text(
            "read_rtlil design.il\n"
            "proc -nomux -norom\n"
            "delete t:$meminit_v2 r:MEMID=*spram %i\n"
            "memory_collect\n"
            "setattr -unset init w:*ram_data*\n"
            "attrmap -remove generator -remove top -remove src\n"
            "attrmap -modattr -remove generator -remove top -remove src -remove keep_hierarchy\n"
            "write_verilog -norename design.v\n"
        )
        run_tool("yosys", ["convert.ys"], cwd=work, log=work / "convert.log")
        return (work / "design.v").read_text()
