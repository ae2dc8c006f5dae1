# SPDX-License-Identifier: BSD-2-Clause
"""What nextpnr's packer made of a netlist, counted by the blocks that it is part of.

A packed cell is part of what drives its output: of the flip-flop, where a logic cell has one, else
of the table or carry. Cells that nextpnr adds to a carry chain, to let it begin, go on or end, are
part of the chain they are in. A cell that tells nothing, like the constant 0, has owner `()`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from xnorforge.gen.cell_owners import Block, CellOwners
from xnorforge.gen.devices import Family

__all__ = ["count_packed", "netlist_owners"]

_TABLES = ("SB_LUT4", "LUT1", "LUT2", "LUT3", "LUT4", "INV")
_CARRIES = ("SB_CARRY", "CCU2C", "ALU")
_LUT_RAMS = ("TRELLIS_DPR16X4", "RAM16SDP4")
# Types of packed cells by family and kind. Elsewhere they are those of `Family.cell_keys`.
_PACKED = {
    "gowin": {
        # What a carry cell or a LUT RAM takes the place of is blocked.
        "logic_cells": ("LUT1", "LUT2", "LUT3", "LUT4", "BLOCKER_LUT"),
        "lost_flip_flops": ("BLOCKER_FF",),
        "block_rams": ("DP", "SDP", "SP", "ROM"),
        "dsps": ("MULT18X18",),
    }
}
# What the packer puts behind a name, bit by bit: "_BLOCKER_LUT_7", "$RAMW_BLOCK0".
_MARK = re.compile(r"(^|[$_])[^$_]*$")
# Ports of packed cells that carry chains run through.
_CHAIN = ("CIN", "COUT", "FCI", "FCO")


def netlist_owners(netlist: Mapping[str, Any], family: Family) -> CellOwners:
    """The blocks of a netlist of a family."""
    return CellOwners(netlist, tables=_TABLES, flip_flops=family.flip_flop_prefix)


def count_packed(
    owners: CellOwners, packed: Mapping[str, Any], family: Family
) -> dict[Block, Counter[str]]:
    """Cells by block: those of the netlist (luts, flip_flops, carries, lut_rams), and those that
    the packer made of them by the names of `family.cell_keys`, and lost_flip_flops: places beside
    a LUT RAM that nothing else can take.

    packed: module of the netlist that nextpnr wrote.
    """
    counts: dict[Block, Counter[str]] = {}
    for name, cell in owners.cells.items():
        kind = _primitive(cell["type"], family)
        if kind:
            counts.setdefault(owners.owner[name], Counter())[kind] += 1
    packed_types = _PACKED.get(family.name, family.cell_keys)
    kinds = {kind: name for name, kinds in packed_types.items() for kind in kinds}
    cells = {name: cell for name, cell in packed["cells"].items() if cell["type"] in kinds}
    found = _owned(owners, cells, _names(packed))
    for name, cell in cells.items():
        counts.setdefault(found.get(name, ()), Counter())[kinds[cell["type"]]] += 1
    return counts


def _primitive(kind: str, family: Family) -> str:
    if kind.startswith(family.flip_flop_prefix):
        return "flip_flops"
    for name, kinds in (("luts", _TABLES), ("carries", _CARRIES), ("lut_rams", _LUT_RAMS)):
        if kind in kinds:
            return name
    return ""


def _owned(
    owners: CellOwners, cells: Mapping[str, Any], names: Mapping[int, list[str]]
) -> dict[str, Block]:
    found: dict[str, Block] = {}
    for name, cell in cells.items():
        block = _owner(owners, name, cell, names)
        if block is not None:
            found[name] = block
    # Along the chains, from cells with an owner to those without.
    chained: dict[int, list[str]] = {}
    for name, cell in cells.items():
        for bit in _chain_bits(cell):
            chained.setdefault(bit, []).append(name)
    reached = list(found)
    while reached:
        name = reached.pop()
        for bit in _chain_bits(cells[name]):
            for other in chained[bit]:
                if other not in found:
                    found[other] = found[name]
                    reached.append(other)
    return found


def _owner(
    owners: CellOwners, name: str, cell: Mapping[str, Any], names: Mapping[int, list[str]]
) -> Block | None:
    """From the cell's name, where the packer left it alone, its outputs, or the name it is made
    of."""
    if name in owners.owner:
        return owners.owner[name]
    directions = cell["port_directions"]
    outputs = [port for port in cell["connections"] if directions.get(port) == "output"]
    for port in sorted(outputs, key=lambda port: (port in _CHAIN, port)):
        for bit in cell["connections"][port]:
            for net in names.get(bit, ()):
                block = owners.of_net(net)
                if block is not None:
                    return block
    while name := _MARK.sub("", name):
        if name in owners.owner:
            return owners.owner[name]
    return None


def _chain_bits(cell: Mapping[str, Any]) -> Iterable[int]:
    for port in _CHAIN:
        yield from cell["connections"].get(port, ())


def _names(packed: Mapping[str, Any]) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, net in packed["netnames"].items():
        for bit in net["bits"]:
            names.setdefault(bit, []).append(name)
    return names
