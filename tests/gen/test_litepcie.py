# SPDX-License-Identifier: BSD-2-Clause
"""LitePCIe's core as its package makes it: files, addresses, and nothing left behind."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from xnorforge.gen.errors import PlanError, ToolError
from xnorforge.gen.litepcie import (
    LitePcieConfig,
    LitePcieCore,
    make_litepcie,
    simulation_copy,
)

PARTS = {"S7PCIEPHY": "xc7a100tfgg484-2", "USPPCIEPHY": "xcau10p-ffvb676-1-e"}


@pytest.fixture(scope="module", params=sorted(PARTS))
def core(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LitePcieCore:
    config = LitePcieConfig(request.param, PARTS[request.param])
    return make_litepcie(config, tmp_path_factory.mktemp("core"))


def test_addresses_are_those_of_its_linux_driver(core: LitePcieCore) -> None:
    """config.h of litepcie 2024.12 has the offsets as numbers."""
    assert core.registers["ctrl_scratch"] == 4
    offsets = {
        "writer_enable": 0x00,
        "writer_table_value": 0x04,
        "writer_table_we": 0x0C,
        "writer_table_loop_prog_n": 0x10,
        "writer_table_loop_status": 0x14,
        "writer_table_reset": 0x1C,
        "reader_enable": 0x20,
        "reader_table_loop_status": 0x34,
    }
    for name, offset in offsets.items():
        assert core.registers[f"pcie_dma0_{name}"] == core.dma_base + offset
    header = (core.headers[0]).read_text()
    assert f"CSR_PCIE_DMA0_BASE (CSR_BASE + {core.dma_base:#x}L)" in header
    assert f"CSR_IDENTIFIER_MEM_BASE (CSR_BASE + {core.identifier_base:#x}L)" in header


def test_the_driver_is_told_what_memory_the_dma_reaches(core: LitePcieCore) -> None:
    bits = {"S7PCIEPHY": 64, "USPPCIEPHY": 32}[core.config.phy]
    assert f"#define DMA_ADDR_WIDTH {bits}\n" in core.headers[1].read_text()
    assert core.constants["dma_channels"] == 1


def test_vivado_makes_the_hard_block_with_the_driver_s_id(core: LitePcieCore) -> None:
    assert core.ip_tcl[0].startswith("create_ip ") and core.ip_tcl[-1] == "synth_ip $obj"
    device_id = f"device_id {{{core.config.device_id:x}}}"
    assert any(device_id in line.lower() for line in core.ip_tcl)
    assert (
        core.constraints[0] == "create_clock -name pcie_clk_p -period 10.0 [get_ports pcie_clk_p]"
    )
    assert not any("LOC X" in line for line in core.constraints)
    assert not any("{{" in line for line in (*core.ip_tcl, *core.placement_tcl, *core.constraints))


def test_made_twice_it_is_the_same(
    core: LitePcieCore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules, before = set(sys.modules), set(Path.cwd().iterdir())
    monkeypatch.setenv("PYTHONHASHSEED", "123")
    again = make_litepcie(core.config, tmp_path / "again")
    for one, other in zip(
        (*core.verilog, *core.memories, *core.headers),
        (*again.verilog, *again.memories, *again.headers),
        strict=True,
    ):
        assert one.name == other.name and one.read_bytes() == other.read_bytes()
    assert set(Path.cwd().iterdir()) == before
    loaded = {name.split(".")[0] for name in set(sys.modules) - modules}
    assert not loaded & {"litepcie", "litex", "migen"}


def test_simulation_copy_has_no_files_to_read(core: LitePcieCore, tmp_path: Path) -> None:
    if core.config.phy == "S7PCIEPHY":
        with pytest.raises(PlanError, match="can be simulated for USPPCIEPHY"):
            simulation_copy(core, tmp_path)
        return
    text = simulation_copy(core, tmp_path)[0].read_text()
    assert "$readmemh" not in text and "always @(*)" not in text
    for body in re.findall(r"^always_comb begin\n(.*?)^end", text, re.M | re.S):
        assert not re.search(r"^\s+\w+(?:\[[^\]]*\])? <= .*;$", body, re.M)


@pytest.mark.parametrize(("phy", "lanes"), [("USPPCIEPHY", 8), ("S7PCIEPHY", 3), ("GTYE9", 4)])
def test_what_litepcie_cannot_do_is_named(phy: str, lanes: int) -> None:
    with pytest.raises(PlanError, match="must be one of"):
        LitePcieConfig(phy, "part", lanes)


def test_a_failure_of_litepcie_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LitePcieConfig("S7PCIEPHY", "xc7a100tfgg484-2")
    monkeypatch.setattr(LitePcieConfig, "settings", lambda self: {"core": {}})
    with pytest.raises(ToolError, match=r"LitePCIe did not make its core: KeyError.*whole log"):
        make_litepcie(config, tmp_path)
