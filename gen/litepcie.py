# SPDX-License-Identifier: BSD-2-Clause
"""LitePCIe's core for a board with a PCIe edge, made from its pip package in about a second.

    PCIe --- vendor's hard block --- litepcie_core --+-- registers of BAR 0 below 0x20000: CSRs
                                                     +-- 0x20000 and above: AXI4-Lite to the core
                                                     +-- DMA 0: AXI4-Streams of 128 bits, both ways

The hard block is the vendor's: Vivado makes it from `ip_tcl`. For simulation `simulation_copy`
puts a stub in its place whose streams cocotbext-pcie drives (UltraScale+ only: it models no other).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnorforge.gen.errors import PlanError, ToolError
from xnorforge.gen.extras import MissingPackageError
from xnorforge.gen.tools import Progress

__all__ = [
    "BAR0_BYTES",
    "CORE_WINDOW",
    "DATA_BITS",
    "PHYS",
    "LitePcieConfig",
    "LitePcieCore",
    "make_litepcie",
    "simulation_copy",
]

DATA_BITS = 128
"""Of the DMA streams."""

BAR0_BYTES = 0x40000
CORE_WINDOW = 0x20000
"""Where in BAR 0 the accelerator's registers begin; it ends with the BAR."""

# Nothing answers at some addresses. A host gives up after 50 us at the earliest (PCIe's shortest
# range of completion timeouts); LiteX's default of a million cycles would be 4 to 8 ms.
_BUS_TIMEOUT_CYCLES = 4096
_BUFFER_BYTES = 8192
_PENDING_REQUESTS = 8
_DATA = Path(__file__).parent / "data" / "pcie"
_PACKAGES = ("litepcie", "litex", "migen")


@dataclass(frozen=True)
class _Phy:
    """lanes: width of the hard block's streams, and their clock, by lanes. address_bits: of the
    host's memory that the DMA reaches."""

    lanes: dict[int, tuple[int, int]]
    device_id: int
    address_bits: int


PHYS = {
    # Generation 2.
    "S7PCIEPHY": _Phy(
        {
            1: (64, 125_000_000),
            2: (64, 125_000_000),
            4: (128, 125_000_000),
            8: (128, 250_000_000),
        },
        device_id=0x7020,
        address_bits=64,
    ),
    # Generation 3. LitePCIe 2024.12 has no adapter for streams of 64 bits; that for 128 takes the
    # high half of a long address for the whole one; that for 256 takes only long ones, which
    # LitePCIe gives it only where its own streams have 256 bits, too.
    "USPPCIEPHY": _Phy({4: (128, 250_000_000)}, device_id=0x9030, address_bits=32),
}
"""What LitePCIe calls the hard blocks of 7-series and UltraScale+."""


@dataclass(frozen=True)
class LitePcieConfig:
    """phy: of `PHYS`. part: the device, as Vivado names it. lanes: of the board's edge.

    Raises PlanError for what LitePCIe cannot do.
    """

    phy: str
    part: str
    lanes: int = 4

    def __post_init__(self) -> None:
        if self.phy not in PHYS:
            raise PlanError(f"PCIe PHY must be one of {', '.join(PHYS)}, not {self.phy!r}")
        if self.lanes not in PHYS[self.phy].lanes:
            known = ", ".join(map(str, PHYS[self.phy].lanes))
            raise PlanError(f"Lanes of {self.phy} must be one of {known}, not {self.lanes!r}")

    @property
    def clock_hz(self) -> int:
        """Of the core's `clk`, to which all its ports belong."""
        return PHYS[self.phy].lanes[self.lanes][1]

    @property
    def device_id(self) -> int:
        """PCI's, of vendor 0x10ee; LitePCIe's Linux driver takes it."""
        return PHYS[self.phy].device_id + self.lanes

    def settings(self) -> dict[str, Any]:
        """For `gen.litepcie_make`; names of `core` are LitePCIe's."""
        return {
            "part": self.part,
            "bus_timeout_cycles": _BUS_TIMEOUT_CYCLES,
            "core": {
                "phy": self.phy,
                "phy_lanes": self.lanes,
                "phy_pcie_data_width": PHYS[self.phy].lanes[self.lanes][0],
                "phy_data_width": DATA_BITS,
                "phy_bar0_size": BAR0_BYTES,
                "clk_freq": self.clock_hz,
                "ep_max_pending_requests": _PENDING_REQUESTS,
                "ep_address_width": PHYS[self.phy].address_bits,
                "mmap": True,
                "mmap_base": CORE_WINDOW,
                "mmap_size": BAR0_BYTES - CORE_WINDOW,
                "dma_channels": {
                    "dma0": {
                        "dma_writer": True,
                        "dma_reader": True,
                        "dma_buffering": _BUFFER_BYTES,
                        "dma_loopback": False,
                    }
                },
                "msi_irqs": 1,
            },
        }


@dataclass(frozen=True)
class LitePcieCore:
    """A core that was made.

    verilog: `litepcie_core.v`, then what it is made of. memories: that it reads when synthesised.
    ip_tcl: Vivado commands before synthesis, which make the hard block. placement_tcl: before
    placement. constraints: XDC lines; `pcie_clk_p` is the top's port. headers: csr.h, soc.h, mem.h,
    which the kernel driver is built with. registers: byte addresses in BAR 0 by LiteX' names.
    bases: of their groups. constants: LiteX', as `dma_channels`.
    """

    config: LitePcieConfig
    verilog: tuple[Path, ...]
    memories: tuple[Path, ...]
    ip_tcl: tuple[str, ...]
    placement_tcl: tuple[str, ...]
    constraints: tuple[str, ...]
    headers: tuple[Path, ...]
    registers: dict[str, int]
    bases: dict[str, int]
    constants: dict[str, Any]

    @property
    def dma_base(self) -> int:
        """Of DMA 0's registers: the writer's (card to host), 0x20 behind them the reader's."""
        return self.bases["pcie_dma0"]

    @property
    def identifier_base(self) -> int:
        """A character a word, up to a zero."""
        return self.bases["identifier_mem"]


def make_litepcie(
    config: LitePcieConfig, folder: Path, progress: Progress | None = None
) -> LitePcieCore:
    """The core's files, into `folder`. Made twice, they are the same.

    Raises ToolError when LitePCIe is not installed, or fails.
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(f"{package} is not installed: pip install 'xnorforge[pcie]'")
    if progress is not None:
        progress("making the PCIe core")
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as aside:
        command = [sys.executable, "-m", "xnorforge.gen.litepcie_make"]
        done = subprocess.run(
            [*command, json.dumps(config.settings()), str(folder)],
            cwd=aside,
            # The order in which LiteX writes signals follows Python's hashes.
            env={**os.environ, "PYTHONHASHSEED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if done.returncode != 0:
        log = folder / "litepcie.log"
        log.write_text(done.stdout)
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise ToolError(f"LitePCIe did not make its core: {last}", log=log)
    record = json.loads((folder / "core.json").read_text())

    def paths(names: list[str]) -> tuple[Path, ...]:
        return tuple(folder / name for name in names)

    return LitePcieCore(
        config=config,
        verilog=paths(record["verilog"]),
        memories=paths(record["memories"]),
        ip_tcl=tuple(record["ip_tcl"]),
        placement_tcl=tuple(record["placement_tcl"]),
        constraints=tuple(record["constraints"]),
        headers=paths(record["headers"]),
        registers=record["registers"],
        bases=record["bases"],
        constants=record["constants"],
    )


# --- for simulation -------------------------------------------------------------------------------

HARD_BLOCK = "pcie_usp"
_SUPPORT = "pcie_usp_support.v"

# What the model of the hard block drives, and what it reads: bits of each port. Others stay open.
_DRIVEN = {
    "user_clk": 1,
    "user_reset": 1,
    "user_lnk_up": 1,
    "s_axis_rq_tready": 1,
    "s_axis_cc_tready": 1,
    "m_axis_rc_tdata": 128,
    "m_axis_rc_tuser": 75,
    "m_axis_rc_tkeep": 4,
    "m_axis_rc_tlast": 1,
    "m_axis_rc_tvalid": 1,
    "m_axis_cq_tdata": 128,
    "m_axis_cq_tuser": 88,
    "m_axis_cq_tkeep": 4,
    "m_axis_cq_tlast": 1,
    "m_axis_cq_tvalid": 1,
    "cfg_max_payload": 2,
    "cfg_max_read_req": 3,
    "cfg_function_status": 16,
    "cfg_current_speed": 2,
    "cfg_negotiated_width": 3,
}
_READ = {
    "s_axis_rq_tdata": 128,
    "s_axis_rq_tuser": 62,
    "s_axis_rq_tkeep": 4,
    "s_axis_rq_tlast": 1,
    "s_axis_rq_tvalid": 1,
    "s_axis_cc_tdata": 128,
    "s_axis_cc_tuser": 33,
    "s_axis_cc_tkeep": 4,
    "s_axis_cc_tlast": 1,
    "s_axis_cc_tvalid": 1,
    "m_axis_rc_tready": 1,
    "m_axis_cq_tready": 1,
    "sys_reset": 1,
}


def simulation_copy(core: LitePcieCore, folder: Path) -> tuple[Path, ...]:
    """The core's Verilog for Verilator, with stubs of the vendor's primitives (`MMCME4_BASE`, the
    accelerator's clock, among them), and last a control file that opens the stubs to a bench.

    Raises PlanError for another hard block than an UltraScale+ one of four lanes.
    """
    if (core.config.phy, core.config.lanes) != ("USPPCIEPHY", 4):
        raise PlanError(
            "A PCIe core can be simulated for USPPCIEPHY with 4 lanes, not for "
            f"{core.config.phy} with {core.config.lanes}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    changes: dict[str, Callable[[str], str]] = {
        "litepcie_core.v": lambda text: _inline_memories(_always_comb(text), core.memories)
    }
    for path in core.verilog:
        copy = folder / path.name
        copy.write_text(changes.get(path.name, str)(path.read_text()))
        copies.append(copy)
    support = next(path for path in core.verilog if path.name == _SUPPORT)
    stub = folder / f"{HARD_BLOCK}.v"
    stub.write_text(_hard_block_stub(support.read_text()))
    primitives = folder / "primitives.v"
    shutil.copyfile(_DATA / "primitives.v", primitives)
    opened = [(HARD_BLOCK, name) for name in (*_DRIVEN, *_READ)] + [("MMCME4_BASE", "CLKOUT0")]
    control = folder / "stubs.vlt"
    lines = [f'public_flat_rw -module "{module}" -var "{name}"' for module, name in opened]
    control.write_text("\n".join(["`verilator_config", *lines, ""]))
    return (*copies, stub, primitives, control)


def _always_comb(text: str) -> str:
    """LiteX writes combinational blocks as `always @(*)` with non-blocking assignments, of which
    those of constants never run in a simulator."""
    lines, inside = [], False
    for line in text.splitlines(keepends=True):
        if line.startswith("always @(*) begin"):
            line, inside = "always_comb begin\n", True
        elif inside and line.startswith("end"):
            inside = False
        elif inside:
            line = re.sub(r"^(\s+\w+(?:\[[^\]]*\])?\s*) <= ", r"\1 = ", line)
        lines.append(line)
    return "".join(lines)


def _inline_memories(text: str, memories: tuple[Path, ...]) -> str:
    """A simulation runs in a folder of its own, without the files."""
    words = {path.name: path.read_text().split() for path in memories}

    def assignments(found: re.Match[str]) -> str:
        name, memory = found.groups()
        return " ".join(f"{memory}[{k}] = 'h{word};" for k, word in enumerate(words[name]))

    return re.sub(r'\$readmemh\("([^"]+)", (\w+)\);', assignments, text)


def _hard_block_stub(support: str) -> str:
    """A module with the ports with which LitePCIe's adapter instantiates the hard block."""
    body = support[support.index(f"{HARD_BLOCK}  {HARD_BLOCK}_i (") :]
    body = re.sub(r"//.*", "", body[: body.index(");\n")])
    ports = re.findall(r"^\s*\.(\w+)\s*\(", body, re.M)
    lines = [f"// The ports of the vendor's hard block; a bench drives {HARD_BLOCK}'s outputs."]
    lines += [f"module {HARD_BLOCK} (", ",\n".join(f"  {port}" for port in ports), ");"]
    for port in ports:
        if port in _DRIVEN:
            lines.append(f"  output reg [{_DRIVEN[port] - 1}:0] {port} = 0;")
        else:
            lines.append(f"  input [{_READ.get(port, 1) - 1}:0] {port};")
    return "\n".join([*lines, "endmodule", ""])
