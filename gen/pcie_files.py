# SPDX-License-Identifier: BSD-2-Clause
"""What a bundle for a board with a PCIe edge holds beside its accelerator.

top.v        LitePCIe's core, the accelerator, its clock
litepcie/    LitePCIe's core, made by its pip package; the C headers of its Linux driver
top.xdc      pins and clocks; clocks.xdc: the crossings, once the clocks are known
vivado.tcl   makes the bitstream

Templates lie in `data/pcie`; {{name}} is filled in.
"""

from __future__ import annotations

import re
from pathlib import Path

from xnorforge.gen.cards import PcieCard, get_card
from xnorforge.gen.litepcie import CORE_WINDOW, LitePcieCore, make_litepcie
from xnorforge.gen.pcie_top import TOP, pcie_top, pcie_top_constraints
from xnorforge.gen.plan import Plan
from xnorforge.gen.tools import Progress

__all__ = ["pcie_files"]

_SCRIPT = Path(__file__).parent / "data" / "pcie" / "vivado.tcl.in"
_FOLDER = "litepcie"
_READER, _LOOP_STATUS = 0x20, 0x14  # behind the DMA's base


def pcie_files(
    plan: Plan, work: Path, progress: Progress | None = None
) -> tuple[list[str], dict[str, int]]:
    """Write the files into `work`: their names, and addresses for the manifest's `link`.

    Raises ToolError when LitePCIe is not installed, or fails.
    """
    card = get_card(plan.card or "")
    core = make_litepcie(card.pcie, work / _FOLDER, progress)
    made = [path.name for path in (*core.verilog, *core.memories, *core.headers)]
    for path in (work / _FOLDER).iterdir():
        if path.name not in made:
            path.unlink()
    mmcm = card.mmcm(plan.clock_hz)
    clkreq = "clkreq_n" in card.pins
    texts = {
        "top.v": pcie_top(card.pcie, mmcm, clkreq=clkreq),
        "top.xdc": _lines(_pins(card), core.constraints),
        "clocks.xdc": _lines(pcie_top_constraints(card.pcie, mmcm)),
        "vivado.tcl": _script(card, core),
    }
    for name, text in texts.items():
        (work / name).write_text(text)
    names = [*texts, *(f"{_FOLDER}/{name}" for name in made)]
    addresses = {
        "registers": CORE_WINDOW,
        "dma_status": core.dma_base + _READER + _LOOP_STATUS,
    }
    return names, addresses


def _pins(card: PcieCard) -> tuple[str, ...]:
    """Sites of the top's ports."""
    lines = []
    for port, text in card.pins.items():
        sites = text.split()
        for lane, site in enumerate(sites):
            end = f"[{lane}]" if port[:7] in ("pcie_rx", "pcie_tx") else ""
            lines.append(f"set_property PACKAGE_PIN {site} [get_ports {{{port}{end}}}]")
    for port in ("pcie_rst_n", "clkreq_n"):
        if port in card.pins:
            lines.append(f"set_property IOSTANDARD {card.standard} [get_ports {port}]")
    lines.append("set_property PULLUP TRUE [get_ports pcie_rst_n]")
    return (*lines, *card.settings)


def _script(card: PcieCard, core: LitePcieCore) -> str:
    verilog = ["accelerator.v", f"{TOP}.v", *(f"{_FOLDER}/{path.name}" for path in core.verilog)]
    values = {
        "name": card.name,
        "part": card.part,
        "ip_tcl": "\n".join(core.ip_tcl),
        "verilog": " ".join(verilog),
        "memories": " ".join(f"{_FOLDER}/{path.name}" for path in core.memories),
        "placement_tcl": "\n".join(core.placement_tcl),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _SCRIPT.read_text())


def _lines(*groups: tuple[str, ...]) -> str:
    return "\n".join(line for group in groups for line in group) + "\n"
