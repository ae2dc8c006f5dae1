# SPDX-License-Identifier: BSD-2-Clause
"""What synthesis hands to place and route: Gowin tables that its timing knows."""

import json
import subprocess

import pytest

from xnorforge.gen.synthesis import synthesis_script
from xnorforge.gen.tools import find_tool, run_tool

ADDERS = """
module top(input clk, input d, output reg q);
  reg [63:0] s;
  always @(posedge clk) s <= {s[62:0], d};
  wire [7:0] a = s[7:0] + s[19:12] + s[29:22];
  wire [7:0] b = (a ^ s[40:33]) + s[50:43];
  always @(posedge clk) q <= ^b;
endmodule
"""


def _synthesise(folder):
    (folder / "design.v").write_text(ADDERS)
    script = synthesis_script(["synth_gowin", "-nowidelut"], netlist="netlist.json")
    (folder / "design.ys").write_text("read_verilog design.v\n" + script)
    run_tool("yosys", ["design.ys"], cwd=folder, log=folder / "log")
    return json.loads((folder / "netlist.json").read_text())["modules"]["top"]


def test_gowin_tables_all_have_four_inputs(tmp_path):
    cells = _synthesise(tmp_path)["cells"].values()
    tables = [cell for cell in cells if cell["type"].startswith("LUT")]
    assert {cell["type"] for cell in tables} == {"LUT4"}
    for cell in tables:
        bits = cell["parameters"]["INIT"][::-1]
        assert len(bits) == 16
        for index in range(4):
            if f"I{index}" not in cell["connections"]:  # then it must not matter
                assert all(bits[k] == bits[k ^ 1 << index] for k in range(16))


@pytest.mark.routing
def test_gowin_timing_sees_paths_through_small_tables(tmp_path):
    """Two adders in a row take more than 5 ns on this part; unseen, they would take 1.3."""
    _synthesise(tmp_path)
    (tmp_path / "pins.cst").write_text('IO_LOC "clk" 52;\nIO_LOC "d" 25;\nIO_LOC "q" 26;\n')
    tool = find_tool("nextpnr-himbaechel-gowin")
    args = ["--device", "GW1NR-LV9QN88PC6/I5", "--vopt", "family=GW1N-9C"]
    args += ["--vopt", "cst=pins.cst", "--json", "netlist.json", "--report", "report.json"]
    subprocess.run([*tool.command, *args], cwd=tmp_path, check=True, capture_output=True)
    (clock,) = json.loads((tmp_path / "report.json").read_text())["fmax"].values()
    assert clock["achieved"] < 200
