# SPDX-License-Identifier: BSD-2-Clause
"""Simulation models of the cells that synthesis maps to, a list for each family.

Most are yosys' own (`+/<family>/cells_sim.v`). Ours, in sim/models, stand in for those that yosys
leaves empty (block RAMs of ECP5 and Gowin, every PLL), for iCE40's block RAM, where a bit that is
written while it is read must not come out right by luck, and for look-up tables, where another way
of writing the same simulates faster. tests/sim/test_models.py holds ours against plain statements
and against yosys'.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from xnorforge.gen.errors import ToolError
from xnorforge.gen.tools import find_tool
from xnorforge.sim.verilator import MODELS

__all__ = ["CELL_MODELS", "CellModels", "UsedModels", "vendor_macros", "vendor_module"]


@dataclass(frozen=True)
class UsedModels:
    """The models of some cells. files: ours. vendor_text: yosys', Verilog.

    own, vendor: names of the cells. version: of yosys.
    """

    files: tuple[Path, ...]
    vendor_text: str
    own: tuple[str, ...]
    vendor: tuple[str, ...]
    version: str

    def __str__(self) -> str:
        return (
            f"own models: {', '.join(self.own) or 'none'}; models from {self.version}: "
            f"{', '.join(self.vendor) or 'none'}"
        )


@dataclass(frozen=True)
class CellModels:
    """A family's models. library: yosys' file. own_files: ours, each with the modules it holds."""

    family: str
    library: str
    own_files: dict[str, tuple[str, ...]]

    def used(self, cell_types: Iterable[str]) -> UsedModels:
        """Models of these cells and of what they are made of.

        Raises ToolError, naming the cell, where there is none.
        """
        ours = {name: MODELS / path for path, names in self.own_files.items() for name in names}
        vendor = _modules(self.library)
        tool = find_tool("yosys")
        found: dict[str, str] = {}  # where each comes from
        waiting = set(cell_types)
        while waiting:
            name = waiting.pop()
            if name in ours:
                found[name], text = "own", _text_of(ours[name], name)
            elif name in vendor and _says_something(vendor[name]):
                found[name], text = "vendor", vendor[name]
            else:
                raise ToolError(
                    f"Cell {name} of {self.family} has no simulation model, neither in "
                    f"{tool.package} {tool.version} nor in xnorforge"
                )
            words = set(re.findall(r"\w+", re.sub(r'"[^"]*"', "", text)))
            waiting |= (words & (ours.keys() | vendor.keys())) - found.keys()
        names = {
            kind: sorted(n for n, k in found.items() if k == kind) for kind in ("own", "vendor")
        }
        return UsedModels(
            tuple(sorted({ours[name] for name in names["own"]})),
            "\n\n".join([vendor_macros(self.library), *(vendor[name] for name in names["vendor"])]),
            tuple(name for name in names["own"] if name != _SHARED),
            tuple(names["vendor"]),
            f"{tool.package} {tool.version}",
        )


_SHARED = "xnorforge_block_ram"  # inside our block RAMs, no cell
CELL_MODELS = {
    item.family: item
    for item in (
        CellModels(
            "ice40",
            "ice40/cells_sim.v",
            {
                "ice40/sb_lut4.v": ("SB_LUT4",),
                "ice40/sb_ram40_4k.v": ("SB_RAM40_4K",),
                "sb_pll40.v": ("SB_PLL40_CORE", "SB_PLL40_PAD"),
            },
        ),
        CellModels(
            "ecp5",
            "ecp5/cells_sim.v",
            {
                "ecp5/lut4.v": ("LUT4", "LUT2"),
                "ecp5/dp16kd.v": ("DP16KD",),
                "common/block_ram.v": (_SHARED,),
                "ehxplll.v": ("EHXPLLL",),
            },
        ),
        CellModels(
            "gowin",
            "gowin/cells_sim.v",
            {
                "gowin/lut.v": ("LUT1", "LUT2", "LUT3", "LUT4"),
                "gowin/bram.v": ("SP", "SPX9", "SDPB", "SDPX9B", "DPB", "DPX9B"),
                "common/block_ram.v": (_SHARED,),
                "rpll.v": ("rPLL",),
            },
        ),
    )
}
"""By family."""


def _share() -> Path:
    """The folder of yosys' libraries."""
    package = find_tool("yosys").package.replace("-", "_")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ToolError(f"{package} is installed without its library files: reinstall it")
    return Path(spec.submodule_search_locations[0]) / "share"


@cache
def _library(path: str) -> str:
    """A library file with what it includes; timing and macros that ask for it left out."""
    file = _share() / path
    if not file.is_file():
        raise ToolError(f"yosys has no {path}: reinstall {find_tool('yosys').package}")

    def included(match: re.Match[str]) -> str:
        return _library(f"{Path(path).parent}/{match[1]}")

    text = re.sub(r'^\s*`include "([\w.]+)"', included, file.read_text(), flags=re.MULTILINE)
    return re.sub(r"\bspecify\b.*?\bendspecify\b", "", text, flags=re.DOTALL)


def vendor_macros(path: str) -> str:
    """The macros that come before a library's first module."""
    macros = re.split(r"^module\b", _library(path), maxsplit=1, flags=re.MULTILINE)[0]
    return f"`define NO_ICE40_DEFAULT_ASSIGNMENTS\n{macros}"


def vendor_module(path: str, name: str) -> str:
    """A module of yosys' library."""
    return _modules(path)[name]


def _text_of(file: Path, name: str) -> str:
    """A module of one of our files."""
    found = re.search(rf"^module\s+{name}\b.*?\bendmodule\b", file.read_text(), re.M | re.S)
    if found is None:
        raise ToolError(f"{file} has no module {name}: reinstall xnorforge")
    return found[0]


@cache
def _modules(path: str) -> dict[str, str]:
    """The modules of a library, by name."""
    found = re.findall(r"^(module\s+(\w+)\b.*?\bendmodule\b)", _library(path), re.M | re.S)
    return {name: text for text, name in found}


def _says_something(module: str) -> bool:
    """Whether a module is more than its ports."""
    return (
        re.search(r"\b(assign|always|initial)\b|^\s*\w+ (#\(|\w+ ?\()", module[6:], re.M)
        is not None
    )
