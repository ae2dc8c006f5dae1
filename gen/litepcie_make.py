# SPDX-License-Identifier: BSD-2-Clause
"""The process in which LiteX makes a LitePCIe core; `gen.litepcie` starts it, reads what it left.

    python -m xnorforge.gen.litepcie_make SETTINGS FOLDER

LiteX prints, writes into the folder it runs in and keeps global state, so it never runs in a
process of ours. SETTINGS is JSON; FOLDER gets the files and `core.json`, which names them. Made
twice, the files are the same: dates, and the commit of whatever repository LiteX finds itself in,
are taken out of them.
"""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from litepcie.gen import LitePCIeCore
from litepcie.phy.s7pciephy import S7PCIEPHY
from litepcie.phy.usppciephy import USPPCIEPHY
from litepcie.software import generate_litepcie_software_headers
from litex.build.xilinx import XilinxPlatform
from litex.soc.integration.builder import Builder

__all__ = ["main"]

_NAME = "litepcie_core"
_PHYS = {"S7PCIEPHY": S7PCIEPHY, "USPPCIEPHY": USPPCIEPHY}
_HEADERS = ("csr.h", "soc.h", "mem.h")
# Dates, a commit, and a drawing of the modules whose order changes.
_STAMPS = re.compile(
    r"^// (?:Date|LiteX sha1) .*\n"
    r"| (?:\(\w+\) )?on \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    r"|^/\*\n_Core\n(?:.*\n)*?\*/\n",
    re.M,
)


class _Core(LitePCIeCore):
    def add_identifier(
        self, name: str = "identifier", identifier: str = "", with_build_time: bool = True
    ) -> None:
        """Without the time."""
        super().add_identifier(name, "xnorforge LitePCIe", with_build_time=False)


def main(settings: dict[str, Any], folder: Path) -> None:
    """Make the core into `folder`; everything else into the folder this runs in."""
    platform = XilinxPlatform(settings["part"], io=[], toolchain="vivado")
    core = _Core(platform, {**settings["core"], "phy": _PHYS[settings["core"]["phy"]]})
    core.bus.timeout = settings["bus_timeout_cycles"]
    builder = Builder(core, output_dir="build", compile_gateware=False, csr_json="csr.json")
    builder.build(build_name=_NAME, regular_comb=True)
    generate_litepcie_software_headers(core, ".")

    gateware = Path("build", "gateware")
    verilog = [Path(source[0]) for source in platform.sources]
    memories = sorted(gateware.glob("*.init"))
    for path in (*verilog, *memories, *map(Path, _HEADERS)):
        if path.name == f"{_NAME}.v" or path.name in _HEADERS:
            (folder / path.name).write_text(_STAMPS.sub("", path.read_text()))
        else:
            shutil.copyfile(path, folder / path.name)
    tcl = (gateware / f"{_NAME}.tcl").read_text()
    found = json.loads(Path("csr.json").read_text())
    record = {
        # The core first, and then what it is made of.
        "verilog": sorted((path.name for path in verilog), key=lambda name: name != f"{_NAME}.v"),
        "memories": [path.name for path in memories],
        "ip_tcl": _section(tcl, "Add pre-synthesis commands"),
        # LitePCIe looks for the hard block in the top; ours has it two modules down.
        "placement_tcl": [
            line.replace("NAME=~", "NAME=~*")
            for line in _section(tcl, "Add pre-placement commands")
        ],
        "constraints": _constraints((gateware / f"{_NAME}.xdc").read_text()),
        "headers": list(_HEADERS),
        "registers": {name: register["addr"] for name, register in found["csr_registers"].items()},
        "bases": found["csr_bases"],
        "constants": found["constants"],
    }
    (folder / "core.json").write_text(json.dumps(record, indent=2) + "\n")


def _section(tcl: str, title: str) -> list[str]:
    """The commands under a heading of the Vivado script."""
    body = re.split(r"^# ", tcl.split(f"# {title}\n")[1], maxsplit=1, flags=re.M)[0]
    return [line for line in body.splitlines() if line]


def _constraints(xdc: str) -> list[str]:
    """Without the places of the core's ports, which are not pins."""
    lines = [line for line in xdc.splitlines() if line and not line.startswith("#")]
    return [line for line in lines if not line.startswith("set_property LOC X ")]


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
