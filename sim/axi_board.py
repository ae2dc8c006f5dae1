# SPDX-License-Identifier: BSD-2-Clause
"""A simulated core with AXI ports for the driver (`sim.simulated`)."""

from __future__ import annotations

from pathlib import Path

from xnorforge.gen.axi import AXI
from xnorforge.gen.bundle import Bundle
from xnorforge.gen.tools import Progress
from xnorforge.sim.axi_run import PORTS
from xnorforge.sim.cocotb_job import BenchServer
from xnorforge.sim.verilator import build_cocotb, power_up_options

__all__ = ["axi_board"]

_BUS_PERIOD = 1000  # simulation steps


def axi_board(
    bundle: Bundle,
    *,
    verilog: Path | None = None,
    tcp_port: int = 0,
    stall: float = 0.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> BenchServer:
    """The core of a bundle with link axi under Verilator, cocotbext-axi at its ports.

    verilog, tcp_port: as of `sim.simulated.simulated_board`. stall: share of cycles in which a
    stream is held, each for itself. Raises ToolError when it cannot be built or started.
    """
    plan = bundle.plan
    source = verilog or bundle.path / "accelerator.v"
    model = build_cocotb([source], AXI, PORTS, progress=progress)
    ratio = None if plan.bus_clock_hz is None else plan.bus_clock_hz / plan.clock_hz
    job = {
        "bus_period": _BUS_PERIOD,
        "core_period": None if ratio is None else 2 * round(_BUS_PERIOD * ratio / 2),
        "stall": stall,
        "seed": seed,
        "tcp_port": tcp_port,
    }
    return BenchServer(
        model,
        top=AXI,
        bench="xnorforge.sim.cocotb_axi_server",
        job=job,
        options=power_up_options(1 + seed),
    )
