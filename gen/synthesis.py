# SPDX-License-Identifier: BSD-2-Clause
"""The yosys commands between a Verilog design and the netlist for place and route.

The modules of `hw.barrier` become yosys' own `$barrier` cells before mapping and plain wires after
it, so that tables that were counted out by hand stay as they are. Without this a design works the
same, with more cells.

On Gowin, tables of fewer than four inputs become LUT4 with the table repeated: nextpnr has delays
for LUT4 only, and leaves every path through a smaller one out of its timing (two adders in a row
"reached" 795 MHz). A site holds one table of any size, so this costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from xnorforge.hw.barrier import BARRIER_PREFIX

__all__ = ["synthesis_script"]

# A barrier module holds one inversion; the inversion stays outside the cell and costs nothing.
_BEFORE = r"""
(* techmap_celltype = "$not" *)
module barrier_not (A, Y);
  parameter A_SIGNED = 0;
  parameter A_WIDTH = 1;
  parameter Y_WIDTH = 1;
  input [A_WIDTH-1:0] A;
  output [Y_WIDTH-1:0] Y;
  wire [A_WIDTH-1:0] kept;
  \$barrier #(.WIDTH(A_WIDTH)) barrier (.A(A), .Y(kept));
  assign Y = kept ^ {A_WIDTH{1'b1}};
endmodule
"""
_AFTER = r"""
(* techmap_celltype = "$barrier" *)
module barrier_wire (A, Y);
  parameter WIDTH = 1;
  input [WIDTH-1:0] A;
  output [WIDTH-1:0] Y;
  assign Y = A;
endmodule
"""

_WIDER = "".join(
    f"""
(* techmap_celltype = "LUT{size}" *)
module wider_{size} #(parameter [{(1 << size) - 1}:0] INIT = 0) (output F, input {ports});
  LUT4 #(.INIT({{{16 >> size}{{INIT}}}})) _TECHMAP_REPLACE_ (.F(F), {wires});
endmodule
"""
    for size in (1, 2, 3)
    for inputs in [[f"I{index}" for index in range(size)]]
    for ports, wires in [(", ".join(inputs), ", ".join(f".{name}({name})" for name in inputs))]
)


def synthesis_script(command: Sequence[str], *, top: str = "top", netlist: str | None) -> str:
    """yosys commands that map the Verilog design read before them.

    command: the family's synthesis command with its options. netlist: JSON file that they write;
    with None the mapped design is left in yosys.
    """
    wider = command[0] == "synth_gowin"
    lines = [
        "proc",
        "design -push",
        f"read_verilog -icells <<END_OF_MAP{_BEFORE}END_OF_MAP",
        "design -stash barrier_before",
        f"read_verilog -icells <<END_OF_MAP{_AFTER}END_OF_MAP",
        "design -stash barrier_after",
        *([f"read_verilog -icells <<END_OF_MAP{_WIDER}END_OF_MAP"] if wider else []),
        *(["design -stash wider"] if wider else []),
        "design -pop",
        f"techmap -map %barrier_before *.{BARRIER_PREFIX}* {BARRIER_PREFIX}* %u",
        f"{' '.join(command)} -top {top}",
        "techmap -map %barrier_after",
        *(["techmap -map %wider"] if wider else []),
        "opt_clean",
    ]
    if netlist is not None:
        lines.append(f"write_json {netlist}")
    return "\n".join(lines) + "\n"
