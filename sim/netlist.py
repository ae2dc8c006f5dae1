# SPDX-License-Identifier: BSD-2-Clause
"""Synthesise one component and simulate the mapped cells.

    component -> RTLIL -> yosys synth_<family> -> yosys' cell models -> and-inverter graph

Made for checking that synthesis kept a circuit's meaning: yosys' own cell models say what the
cells do, and the graph (ASCII AIGER: inputs, latches, two-input ands) is evaluated here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from xnorforge.gen.devices import FAMILIES
from xnorforge.gen.errors import ToolError
from xnorforge.gen.synthesis import synthesis_script
from xnorforge.gen.tools import run_tool
from xnorforge.sim.cell_models import CELL_MODELS

__all__ = ["Netlist", "synthesise_netlist"]

_EXTRA = {"gowin": ("-noiopads",)}  # ports stay ports


class Netlist:
    """A synchronous circuit as an and-inverter graph; every register starts at 0.

    Parameters
    ----------
    text : str
        ASCII AIGER.
    names : str
        The map file that yosys writes beside it: which port bit each input and output is.
    """

    def __init__(self, text: str, names: str):
        lines = iter(text.splitlines())
        header = next(lines).split()
        if header[0] != "aag":
            raise ToolError(f"A netlist must be ASCII AIGER, not a file starting {header[0]!r}")
        variable_count, input_count, latch_count, output_count, and_count = map(int, header[1:6])

        def rows(count: int) -> list[list[int]]:
            return [[int(field) for field in next(lines).split()] for _ in range(count)]

        self._inputs = [row[0] for row in rows(input_count)]
        self._latches = rows(latch_count)
        self._outputs = [row[0] for row in rows(output_count)]
        self._ands = rows(and_count)
        self._values = [0] * (2 * variable_count + 2)
        self._values[1] = 1
        self._names: dict[str, dict[int, tuple[str, int]]] = {"input": {}, "output": {}}
        for line in names.splitlines():
            kind, index, bit, name = line.split()
            if kind in self._names:
                self._names[kind][int(index)] = (name, int(bit))
        self._state = [0] * latch_count

    def outputs(self, inputs: dict[str, int]) -> dict[str, int]:
        """The outputs with these inputs, before the clock edge. Inputs not named are 0."""
        values = self._values
        for index, literal in enumerate(self._inputs):
            name, bit = self._names["input"][index]
            self._set(literal, inputs.get(name, 0) >> bit & 1)
        for row, state in zip(self._latches, self._state, strict=True):
            self._set(row[0], state)
        for out, a, b in self._ands:
            self._set(out, values[a] & values[b])
        words: dict[str, int] = {}
        for index, literal in enumerate(self._outputs):
            name, bit = self._names["output"][index]
            words[name] = words.get(name, 0) | values[literal] << bit
        return words

    def step(self, inputs: dict[str, int]) -> dict[str, int]:
        """As `outputs`, and then a clock edge."""
        words = self.outputs(inputs)
        self._state = [self._values[row[1]] for row in self._latches]
        return words

    def _set(self, literal: int, value: int) -> None:
        self._values[literal] = value
        self._values[literal ^ 1] = 1 - value


def synthesise_netlist(component: Any, family: str, folder: Path) -> Netlist:
    """Map a component to the cells of a family; working files stay in `folder`.

    Raises ToolError when yosys fails.
    """
    if family not in FAMILIES:
        raise ToolError(f"Family must be one of {', '.join(FAMILIES)}, not {family!r}")
    command = [*FAMILIES[family].synthesis, *_EXTRA.get(family, ())]
    (folder / "top.il").write_text(rtlil.convert(component, name="top"))
    script = f"""
read_rtlil top.il
{synthesis_script(command, netlist=None)}
delete t:$scopeinfo
select top
write_rtlil -selected mapped.il
select -clear
design -reset
read_verilog -nowb -defer -nooverwrite +/{CELL_MODELS[family].library}
read_rtlil mapped.il
hierarchy -top top
proc
setattr -mod -unset keep_hierarchy =*
flatten
opt -full
async2sync
dffunmap
delete t:$scopeinfo
techmap
simplemap
setundef -undriven -zero
opt_clean
aigmap
write_aiger -ascii -zinit -map top.map top.aag
"""
    (folder / "top.ys").write_text(script)
    run_tool("yosys", ["top.ys"], cwd=folder, log=folder / "top.log")
    return Netlist((folder / "top.aag").read_text(), (folder / "top.map").read_text())
