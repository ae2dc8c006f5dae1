# SPDX-License-Identifier: BSD-2-Clause
"""The top of a board with a PCIe edge: `data/pcie/top.v.in` with its numbers filled in.

PCIe --- litepcie_core --- xnorforge_pcie
              clk --- MMCM --- core_clk
"""

from __future__ import annotations

import re
from pathlib import Path

from xnorforge.gen.litepcie import LitePcieConfig
from xnorforge.gen.mmcm import Mmcm
from xnorforge.gen.pcie import ADDRESS_BITS, PCIE

__all__ = ["TOP", "pcie_top", "pcie_top_constraints"]

TOP = "top"
_TEMPLATE = Path(__file__).parent / "data" / "pcie" / "top.v.in"
_MMCMS = {"S7PCIEPHY": "MMCME2_BASE", "USPPCIEPHY": "MMCME4_BASE"}


def pcie_top(config: LitePcieConfig, mmcm: Mmcm, *, clkreq: bool = False) -> str:
    """Verilog of module `top`; its ports are the edge's pins. clkreq: with one that asks the host
    for its clock, as M.2 has."""
    values = {
        "module": PCIE,
        "lanes": config.lanes,
        "clkreq_port": "\n  output clkreq_n," if clkreq else "",
        "clkreq": "  assign clkreq_n = 1'b0;\n" if clkreq else "",
        "address_bits": ADDRESS_BITS,
        "clock_hz": config.clock_hz,
        "core_hz": round(mmcm.output_hz(config.clock_hz)),
        "period_ns": f"{1e9 / config.clock_hz:.3f}",
        "mmcm": _MMCMS[config.phy],
        "multiply": f"{mmcm.multiply:.3f}",
        "divide": mmcm.divide,
        "divide_out": f"{mmcm.divide_out:.3f}",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: str(values[found[1]]), _TEMPLATE.read_text())


def pcie_top_constraints(config: LitePcieConfig, mmcm: Mmcm) -> tuple[str, ...]:
    """XDC lines for the crossings between the two clocks: Gray counters and synchronisers, whose
    bits may differ by less than a cycle of the faster one."""
    period_ns = 1e9 / max(config.clock_hz, mmcm.output_hz(config.clock_hz))
    clocks = [
        f"[get_clocks -of_objects [get_pins core_mmcm/{pin}]]" for pin in ("CLKIN1", "CLKOUT0")
    ]
    return tuple(
        f"set_max_delay -datapath_only {period_ns:.3f} -from {one} -to {other}"
        for one, other in (clocks, clocks[::-1])
    )
