# SPDX-License-Identifier: BSD-2-Clause
"""What a component costs: primitives after synthesis, cells after packing.

Components go the way a bundle goes: Verilog, then the family's synthesis command. Packed counts
come from nextpnr (`--pack-only`), which knows of cells that synthesis does not count, such as
those that feed a carry chain.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from xnorforge.gen.devices import FAMILIES
from xnorforge.gen.errors import ToolError
from xnorforge.gen.synthesis import synthesis_script
from xnorforge.gen.tools import run_tool

__all__ = ["pack", "packed_cells", "primitives"]

_PACK_DEVICE = {
    "ice40": ("--hx8k",),
    "ecp5": ("--85k",),
    "gowin": ("--device", "GW2A-LV18PG256C8/I7", "--vopt", "family=GW2A-18C"),
}


def primitives(
    component: Any,
    family: str,
    folder: Path,
    options: Sequence[str] = (),
    *,
    pads: bool = False,
) -> Counter[str]:
    """Synthesise a component in an existing folder: how many cells of each type it takes.

    options: what a device adds to its family's synthesis command. pads: with pads on Gowin too,
    as place and route wants them; `pack` wants none there.
    """
    (folder / "component.il").write_text(rtlil.convert(component))
    command = [*FAMILIES[family].synthesis, *options]
    if family == "gowin" and not pads:
        command.append("-noiopads")
    (folder / "synthesis.ys").write_text(
        "read_rtlil component.il\nproc\ndelete t:$meminit_v2 r:MEMID=*spram %i\n"
        "memory_collect\nwrite_verilog component.v\n"
        "design -reset\nread_verilog component.v\nproc\n"
        "setattr -unset init w:*ram_data*\n" + synthesis_script(command, netlist="netlist.json")
    )
    run_tool("yosys", ["synthesis.ys"], cwd=folder, log=folder / "synthesis.log")
    netlist = json.loads((folder / "netlist.json").read_text())
    return Counter(cell["type"] for cell in netlist["modules"]["top"]["cells"].values())


def packed_cells(component: Any, family: str, folder: Path) -> dict[str, int]:
    """Synthesise and pack: used resources by nextpnr's names, e.g. ICESTORM_LC, TRELLIS_COMB."""
    primitives(component, family, folder)
    return pack(family, folder)


def pack(family: str, folder: Path, site: Sequence[str] = ()) -> dict[str, int]:
    """Pack a folder's netlist.json: used resources by nextpnr's names.

    site: nextpnr's arguments for device, package and constraints, where it matters which. Gowin's
    LUT4 counts the carry cells (ALU) too, which take the place of one; without a site the netlist
    must be one without pads, since its packer wants every pad on a pin.
    """
    log = folder / "pack.log"
    tool = FAMILIES[family].place_and_route
    name = "netlist.json"
    if family == "gowin" and not site:
        netlist = json.loads((folder / name).read_text())
        netlist["modules"]["top"]["ports"] = {}
        name = "portless.json"
        (folder / name).write_text(json.dumps(netlist))
    args = [*(site or _PACK_DEVICE[family]), "--json", name, "--pack-only"]
    run_tool(tool, args, cwd=folder, log=log)
    used = re.findall(r"^Info:\s+(\w+):\s*(\d+)/", log.read_text(), flags=re.MULTILINE)
    if not used:
        raise ToolError(f"{tool} reported no utilisation", log=log)
    return {name: int(count) for name, count in used}
