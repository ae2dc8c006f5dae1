# SPDX-License-Identifier: BSD-2-Clause
"""A simulated PCIe card for the driver: LitePCIe's core and ours, in a simulated PC.

The core's Verilog is the board's, the vendor's hard block excepted (`gen.litepcie`). The bench
(`sim.cocotb_pcie`) is the PC and does what LitePCIe's Linux driver would.
"""

from __future__ import annotations

import functools
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path

from xnorforge.gen.errors import PlanError, ToolError
from xnorforge.gen.litepcie import LitePcieConfig, make_litepcie, simulation_copy
from xnorforge.gen.mmcm import Mmcm
from xnorforge.gen.pcie_top import TOP, pcie_top
from xnorforge.gen.tools import Progress
from xnorforge.sim.cocotb_job import BenchServer
from xnorforge.sim.verilator import build_cocotb, power_up_options
from xnorforge.sw.blocks import BLOCK_BYTES

__all__ = ["PcieCard"]

_CONFIG = LitePcieConfig("USPPCIEPHY", "xcau10p-ffvb676-1-e")
_TABLE = 256  # descriptors that LitePCIe's DMA holds
_PORTS = ("pcie_clk_p", "pcie_rst_n")
# Files that give no timescale get LitePCIe's.
_OPTIONS = ("--timescale", "1ns/1ps")


class PcieCard(BenchServer):
    """A card whose `port` the driver opens; use it as a context manager.

    Parameters
    ----------
    sources : Verilog with module `xnorforge_pcie`
    generation, lanes : of the link: 1 to 3; 1, 2 or 4
    core_period_ps : of `core_clk`; even
    buffers : of each direction's ring; LitePCIe's driver has 256, which take long to set up
    payload_bytes : of a PCIe write or completion, at most: 128, 256 or 512
    latency_ns : of the link, each way
    tcp_port : where to listen; 0 anywhere
    seed : for the buffers' addresses, and for what powers up at random

    Raises ToolError when something is not installed, or does not build or start.
    """

    def __init__(
        self,
        sources: Sequence[Path],
        *,
        generation: int = 3,
        lanes: int = 4,
        core_period_ps: int = 8000,
        buffers: int = 32,
        payload_bytes: int = 128,
        latency_ns: int = 100,
        seed: int = 0,
        tcp_port: int = 0,
        progress: Progress | None = None,
    ) -> None:
        for name, value, known in (
            ("generation", generation, (1, 2, 3)),
            ("lanes", lanes, (1, 2, 4)),
            ("payload_bytes", payload_bytes, (128, 256, 512)),
            ("buffers", buffers, range(1, _TABLE + 1)),
            ("core_period_ps", core_period_ps, range(2, 1_000_000, 2)),
        ):
            if value not in known:
                raise PlanError(f"{name} of a simulated card must be in {known}, not {value!r}")
        _need("cocotbext", "cocotbext.pcie")
        if progress is not None:
            progress("making the PCIe core")
        texts, registers = _card()
        with tempfile.TemporaryDirectory(prefix="xnorforge-") as temporary:
            paths = []
            for name, text in texts.items():
                paths.append(Path(temporary, name))
                paths[-1].write_text(text)
            model = build_cocotb(
                [*paths, *sources], TOP, _PORTS, options=_OPTIONS, progress=progress
            )
        job = {
            "core_period_ps": core_period_ps,
            "buffers": buffers,
            "buffer_bytes": BLOCK_BYTES,
            "seed": seed,
            "tcp_port": tcp_port,
            "registers": registers,
            "host": {
                "generation": generation,
                "lanes": lanes,
                "device_id": _CONFIG.device_id,
                "payload_bytes": payload_bytes,
                "latency_ns": latency_ns,
            },
        }
        super().__init__(
            model,
            top=TOP,
            bench="xnorforge.sim.cocotb_pcie",
            job=job,
            options=power_up_options(1 + seed),
        )


@functools.cache
def _card() -> tuple[dict[str, str], dict[str, int]]:
    """Verilog of the board around `xnorforge_pcie`, by file name, and LitePCIe's registers."""
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as temporary:
        core = make_litepcie(_CONFIG, Path(temporary, "core"))
        copies = simulation_copy(core, Path(temporary, "simulation"))
        texts = {path.name: path.read_text() for path in copies}
    texts["top.v"] = pcie_top(_CONFIG, Mmcm(4, 1, 8))  # the bench drives its clock
    registers = {
        "ctrl_reset": core.registers["ctrl_reset"],
        "msi_enable": core.registers["pcie_msi_enable"],
        "dma": core.dma_base,
        "reader_interrupt": core.constants["pcie_dma0_reader_interrupt"],
        "writer_interrupt": core.constants["pcie_dma0_writer_interrupt"],
    }
    return texts, registers


def _need(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ToolError(
                f"{module.replace('.', '-')} is not installed: pip install 'xnorforge[sim]'"
            )
