# SPDX-License-Identifier: BSD-2-Clause
"""Which block of the design each cell of a netlist is part of.

    flip-flops, carries   where the Verilog says them: yosys keeps the line, a module has its lines
    memories              by their name, which begins with the block's
    tables                by what they feed, since abc cuts logic anew and keeps no lines

A table that feeds one block is part of that block; one that feeds several is part of the one that
most of its neighbours, before and behind it, are part of. So every cell has just one owner, and
what is shared between two blocks goes to one of them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["Block", "CellOwners"]

Block = tuple[str, ...]
"""Names of the modules around a cell, the outermost first: ("system", "core", "mvu_1")."""

_LINE = re.compile(r"accelerator\.v:(\d+)")
# What a flip-flop without a line is told from: its data input.
_DATA = ("D", "DI")


class CellOwners:
    """The blocks of a netlist that yosys wrote, flattened, with its `$scopeinfo` cells.

    netlist: its module `top`. tables: types of look-up tables. flip_flops: how types of flip-flops
    begin. depth: names that a block has at most; what lies deeper is part of it.
    """

    def __init__(
        self, netlist: Mapping[str, Any], *, tables: Iterable[str], flip_flops: str, depth: int = 3
    ) -> None:
        self.depth = depth
        self.cells: dict[str, dict[str, Any]] = {
            name: cell for name, cell in netlist["cells"].items() if cell["type"] != "$scopeinfo"
        }
        scopes = [
            (name, cell["attributes"])
            for name, cell in netlist["cells"].items()
            if cell["type"] == "$scopeinfo"
        ]
        self._scopes = {name: self._block(name, item) for name, item in scopes}
        self._lines = sorted(
            (first, last, self._scopes[name])
            for name, item in scopes
            for first, last in [_range(item.get("module_src", ""))]
        )
        self._firsts = [first for first, _, _ in self._lines]
        self.driver: dict[int, str] = {}
        self._sinks: dict[int, list[str]] = {}
        for name, cell in self.cells.items():
            for bit in _bits(cell, "output"):
                self.driver[bit] = name
            for bit in _bits(cell, "input"):
                self._sinks.setdefault(bit, []).append(name)
        self.nets = _net_names(netlist)
        self.owner: dict[str, Block] = {}
        self._own_what_is_known(frozenset(tables), flip_flops)
        self._own_tables([name for name in self.cells if name not in self.owner])

    @property
    def blocks(self) -> set[Block]:
        """All blocks, also those without a cell."""
        return set(self._scopes.values())

    def of_net(self, name: str) -> Block | None:
        """Owner of what drives a net; None for one that no cell of the netlist drives."""
        cell = self.driver.get(self.nets.get(name, -1))
        return None if cell is None else self.owner[cell]

    def _block(self, name: str, attributes: Mapping[str, str]) -> Block:
        # A name may hold dots; without this attribute it is that of an outermost module.
        return tuple(attributes.get("hdlname", name).split(" "))[: self.depth]

    def _own_what_is_known(self, tables: frozenset[str], flip_flops: str) -> None:
        unlined = []
        for name, cell in self.cells.items():
            said = self._said(cell)
            if said is not None:
                self.owner[name] = said
            elif cell["type"].startswith(flip_flops):
                unlined.append(name)
            elif cell["type"] not in tables:
                self.owner[name] = self._named(name)
        # The register behind a memory, which yosys made of the memory.
        for name in unlined:
            connections = self.cells[name]["connections"]
            data = next((connections[port] for port in _DATA if port in connections), [-1])
            fed = self.driver.get(data[0])
            self.owner[name] = self.owner.get(fed or "", ()) or self._named(name)

    def _own_tables(self, tables: list[str]) -> None:
        """From what is fed back to what feeds it."""
        waiting = {}
        for name in tables:
            fed = {sink for bit in _bits(self.cells[name], "output") for sink in self._fed(bit)}
            waiting[name] = sum(sink not in self.owner for sink in fed)
        ready = [name for name in tables if waiting[name] == 0]
        while waiting:
            # Only a loop of tables leaves nothing ready.
            name = ready.pop() if ready else next(iter(waiting))
            if waiting.pop(name, None) is None:
                continue
            self.owner[name] = self._of_neighbours(name)
            feeding = {self.driver.get(bit) for bit in _bits(self.cells[name], "input")}
            for source in feeding:
                if source in waiting:
                    waiting[source] -= 1
                    if waiting[source] == 0:
                        ready.append(source)

    def _of_neighbours(self, name: str) -> Block:
        cell = self.cells[name]
        fed = Counter(
            self.owner[sink]
            for bit in _bits(cell, "output")
            for sink in self._fed(bit)
            if sink in self.owner
        )
        if len(fed) == 1:
            return next(iter(fed))
        feeding = (self.driver.get(bit) for bit in _bits(cell, "input"))
        votes = fed + Counter(self.owner[source] for source in feeding if source in self.owner)
        if not votes:
            return self._named(name)
        return min(votes, key=lambda block: (-votes[block], block))

    def _fed(self, bit: int) -> list[str]:
        return self._sinks.get(bit, [])

    def _said(self, cell: Mapping[str, Any]) -> Block | None:
        """The block that the first of a cell's lines is in."""
        for line in map(int, _LINE.findall(cell.get("attributes", {}).get("src", ""))):
            index = bisect_right(self._firsts, line) - 1
            if index >= 0 and line <= self._lines[index][1]:
                return self._lines[index][2]
        return None

    def _named(self, name: str) -> Block:
        """The block whose name this begins with."""
        while name not in self._scopes:
            name, dot, _ = name.rpartition(".")
            if not dot:
                return ()
        return self._scopes[name]


def _range(source: str) -> tuple[int, int]:
    """First and last line of "accelerator.v:707.1-775.10"; of anything else, none."""
    found = re.search(r":(\d+)\.\d+-(\d+)\.\d+$", source)
    return (int(found[1]), int(found[2])) if found else (0, -1)


def _bits(cell: Mapping[str, Any], direction: str) -> Iterable[int]:
    """Nets on the ports of one direction, constants left out."""
    for port, bits in cell["connections"].items():
        if cell.get("port_directions", {}).get(port) == direction:
            yield from (bit for bit in bits if isinstance(bit, int))


def _net_names(netlist: Mapping[str, Any]) -> dict[str, int]:
    """Nets by each of their names, as nextpnr calls them: bits of a vector are "name[3]"."""
    names: dict[str, int] = {}
    for name, net in netlist["netnames"].items():
        bits, first = net["bits"], net.get("offset", 0)
        for index, bit in enumerate(bits):
            # Counted down where the vector is, as nextpnr does.
            place = len(bits) - 1 - index if net.get("upto") else index
            if isinstance(bit, int):
                names[name if len(bits) == 1 else f"{name}[{place + first}]"] = bit
    return names
