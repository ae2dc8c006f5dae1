# SPDX-License-Identifier: BSD-2-Clause
"""A mapped netlist (yosys' JSON) as Verilog, cell for cell.

One wire a net, one instance a cell with its parameters and connections, one assignment a pin of
the top, and nothing else: no pass of any tool comes between the netlist that place and route reads
and the simulator, so there is nothing that could repair or hide a fault in it.

Where the netlist leaves a bit open ("x": an initial value that nobody reads, an input that does
not matter) place and route may put either; here it becomes a random one, by `seed`. A design that
depends on it is then wrong with some seed, as it would be with some placement.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnorforge.gen.errors import ToolError

__all__ = ["MappedNetlist"]

_CLOCK_PAIRS = (("CLKA", "CLKB"), ("RCLK", "WCLK"))
_NO_CELLS = ("$scopeinfo",)  # notes of yosys about hierarchy that is gone
# Inputs that are left open because the cell's parameters turn them off, and a Gowin table's that
# do not matter (gen.synthesis): the latter get a random level.
_OPEN_INPUTS = {"TRELLIS_FF": {"M", "CE", "LSR"}, "LUT4": {"I0", "I1", "I2", "I3"}}
_BLOCK_RAMS = ("SB_RAM40_4K", "DP16KD", "PDPW16KD")
_PLLS = ("SB_PLL40_CORE", "SB_PLL40_PAD", "EHXPLLL", "rPLL")  # have many inputs without use


@dataclass(frozen=True)
class MappedNetlist:
    """The top module of a netlist, and the ports of the cell types that it is made of.

    top: its name. module: its part of the JSON. ports: {cell type: {port: (direction, width)}}.
    """

    top: str
    module: dict[str, Any]
    ports: dict[str, dict[str, tuple[str, int]]]

    @classmethod
    def read(cls, path: Path, top: str = "top") -> MappedNetlist:
        """A netlist from a file. Raises ToolError when the module is not in it."""
        modules = json.loads(path.read_text())["modules"]
        if top not in modules:
            raise ToolError(f"{path} has no module {top}")
        module = modules[top]
        types = {cell["type"] for cell in module["cells"].values()}.difference(_NO_CELLS)
        unmapped = sorted(name for name in types if name not in modules)
        if unmapped:
            raise ToolError(f"{path} has cells that are not mapped: {', '.join(unmapped)}")
        ports = {
            name: {
                port: (item["direction"], len(item["bits"]))
                for port, item in modules[name]["ports"].items()
            }
            for name in types
        }
        return cls(top, module, ports)

    @property
    def cells(self) -> dict[str, dict[str, Any]]:
        """The cells, by name."""
        found = self.module["cells"].items()
        return {name: cell for name, cell in found if cell["type"] not in _NO_CELLS}

    @property
    def cell_types(self) -> set[str]:
        return set(self.ports)

    def without_contents(self) -> dict[str, dict[str, Any]]:
        """The cells without what block RAMs hold at power-up.

        And without their attributes: those say where the source lay, also yosys' own.
        """
        return {
            name: {
                **cell,
                "attributes": {},
                "parameters": {
                    key: value
                    for key, value in cell["parameters"].items()
                    if not (cell["type"] in _BLOCK_RAMS and key.startswith("INIT"))
                },
            }
            for name, cell in self.cells.items()
        }

    def verilog(self, seed: int = 1) -> str:
        """Raises ToolError for a net with several drivers or none, and for two clocks at a RAM."""
        self._check()
        rng = random.Random(seed)

        def bit(value: int | str) -> str:
            if isinstance(value, int):
                return f"n{value}"
            return f"1'b{value if value in ('0', '1') else rng.randrange(2)}"

        def word(bits: list[int | str]) -> str:
            return f"{{{', '.join(bit(value) for value in reversed(bits))}}}"

        def parameter(value: str) -> str:
            if value and not set(value) - set("01xz"):
                digits = "".join(c if c in "01" else rng.choice("01") for c in value)
                return f"{len(digits)}'b{digits}"
            # A text that looks like bits has a space behind it.
            return f'"{value[:-1] if re.fullmatch("[01xz]* +", value) else value}"'

        ports = self.module["ports"]
        pins = [
            f"    {port['direction']} [{len(port['bits']) - 1}:0] {name}"
            if len(port["bits"]) > 1
            else f"    {port['direction']} {name}"
            for name, port in ports.items()
        ]
        lines = [f"module {self.top} (", ",\n".join(pins), ");"]
        lines += [f"  wire n{net};" for net in sorted(self._nets())]
        for name, port in ports.items():
            bits = word(port["bits"])
            ends = (bits, name) if port["direction"] == "input" else (name, bits)
            lines.append(f"  assign {ends[0]} = {ends[1]};")
        for index, (name, cell) in enumerate(self.cells.items()):
            settings = ", ".join(
                f".{key}({parameter(value)})" for key, value in cell["parameters"].items()
            )
            pins = [f".{port}({word(bits)})" for port, bits in cell["connections"].items() if bits]
            if cell["type"] == "LUT4":
                pins += [f".{port}({bit('x')})" for port in self._open_inputs(cell)]
            lines.append(f"  // {name}")
            lines.append(
                f"  {cell['type']} {f'#({settings}) ' if settings else ''}c{index} "
                f"({', '.join(pins)});"
            )
        return "\n".join([*lines, "endmodule", ""])

    def _nets(self) -> set[int]:
        bits = [bit for port in self.module["ports"].values() for bit in port["bits"]]
        for cell in self.cells.values():
            for connection in cell["connections"].values():
                bits += connection
        return {bit for bit in bits if isinstance(bit, int)}

    def _open_inputs(self, cell: dict[str, Any]) -> list[str]:
        """Inputs of a cell that nothing is connected to."""
        return sorted(
            port
            for port, (direction, _) in self.ports[cell["type"]].items()
            if direction == "input" and not cell["connections"].get(port)
        )

    def _check(self) -> None:
        driven: set[int] = set()

        def drive(bits: list[int | str], by: str) -> None:
            for bit in bits:
                if bit in driven or not isinstance(bit, int):
                    raise ToolError(f"The netlist has more than one driver on net {bit}, of {by}")
                driven.add(bit)

        for name, port in self.module["ports"].items():
            if port["direction"] == "input":
                drive(port["bits"], f"port {name}")
        for name, cell in self.cells.items():
            for port, bits in cell["connections"].items():
                direction, width = self.ports[cell["type"]].get(port, ("", 0))
                if direction not in ("input", "output"):
                    raise ToolError(f"Cell {name} ({cell['type']}) has an unknown port {port}")
                if len(bits) not in (0, width):
                    raise ToolError(
                        f"Cell {name} ({cell['type']}) has {len(bits)} bits on port {port}, "
                        f"which has {width}"
                    )
                if direction == "output":
                    drive(bits, f"cell {name}")
            may_be_open = _OPEN_INPUTS.get(cell["type"], set())
            missing = [port for port in self._open_inputs(cell) if port not in may_be_open]
            if missing and cell["type"] not in _PLLS:
                raise ToolError(f"Cell {name} ({cell['type']}) has nothing on {missing}")
            for first, second in _CLOCK_PAIRS:
                clocks = [(cell["connections"].get(port) or ["x"])[0] for port in (first, second)]
                if clocks[0] != clocks[1] and all(isinstance(clock, int) for clock in clocks):
                    raise ToolError(f"Cell {name} runs on two clocks, which its model does not")
        undriven = self._nets() - driven
        if undriven:
            raise ToolError(f"The netlist has nets that nothing drives, the first {min(undriven)}")
