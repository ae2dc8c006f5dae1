# SPDX-License-Identifier: BSD-2-Clause
"""A bundle's circuit, simulated, for the driver: whatever its link.

| link | what runs | `port` |
|---|---|---|
| uart | `top`, PLL modelled (`sim.board`) | serial path or `socket://` |
| axi | `xnorforge_axi`, cocotbext-axi at its ports (`sim.axi_board`) | `socket://` |
| pcie | LitePCIe's core, `xnorforge_pcie`, cocotbext-pcie's PC (`sim.pcie_card`) | `socket://` |
"""

from __future__ import annotations

from pathlib import Path

from xnorforge.gen.bundle import Bundle
from xnorforge.gen.tools import Progress
from xnorforge.sim.axi_board import axi_board
from xnorforge.sim.board import VirtualBoard
from xnorforge.sim.cocotb_job import BenchServer
from xnorforge.sim.pcie_card import PcieCard

__all__ = ["simulated_board"]


def simulated_board(
    bundle_dir: str | Path,
    *,
    verilog: Path | None = None,
    tcp_port: int = 0,
    progress: Progress | None = None,
) -> VirtualBoard | BenchServer:
    """What `Accelerator.open(bundle_dir, board.port)` talks to; a context manager.

    verilog: a variant of the bundle's accelerator.v to run instead. tcp_port: 0 for any free one.
    Raises BundleError for a changed bundle or one without a link, ToolError when the simulation
    cannot be built or started.
    """
    bundle = Bundle.open(bundle_dir)
    plan = bundle.plan
    if plan.link == "uart":
        return VirtualBoard(bundle.path, verilog=verilog, tcp_port=tcp_port, progress=progress)
    if plan.link == "axi":
        return axi_board(bundle, verilog=verilog, tcp_port=tcp_port, progress=progress)
    return PcieCard(
        [verilog or bundle.path / "accelerator.v"],
        core_period_ps=2 * round(1e12 / plan.clock_hz / 2),
        tcp_port=tcp_port,
        progress=progress,
    )
