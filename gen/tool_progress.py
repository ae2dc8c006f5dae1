# SPDX-License-Identifier: BSD-2-Clause
"""How far a tool is, from what it has written so far.

6.46. Executing TECHMAP pass (map to ...).            TECHMAP (6.46)
Info:     at iteration #5, type ALL: wirelen ...      placing, iteration 5
Info:       3000 |   427  2537 | 225  745 |  5793| …  routing, 5,793 wires to go
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["LogWatcher"]

# More than this since the last look is skipped but for its end: a log can be of 100 MB.
_MOST_BYTES = 1 << 16

_PASS = re.compile(r"(\d+(?:\.\d+)?)((?:\.\d+)*)\. Executing (\S+)")

_NEXTPNR = (
    (re.compile(r"Info: Pack"), "packing"),
    (re.compile(r"Info: +at initial placer iter"), "placing"),
    (re.compile(r"Info: +at iteration #(\d+), type"), "placing, iteration {}"),
    (re.compile(r"Info: +at iteration #(\d+): temp"), "refining the placement, iteration {}"),
    (re.compile(r"Info: Routing"), "routing"),
    (re.compile(r"Info: +\d+ \|[^|]*\|[^|]*\| *(\d+)\|"), "routing, {} wires to go"),
    (re.compile(r"Info: +iter=\d+ .*\boverused=(\d+)"), "routing, {} wires taken twice"),
    (re.compile(r"Info: Critical path report"), "timing"),
)


class LogWatcher:
    """Reads a tool's log while the tool writes it.

    tool: its name; of others than yosys and nextpnr nothing is known.
    """

    def __init__(self, tool: str, log: Path) -> None:
        self.tool, self.log = tool, log
        self._read = 0
        self._rest = ""
        self._number = ""
        self._detail = ""

    def detail(self) -> str:
        """A few words; "" where nothing is known yet."""
        size = self.log.stat().st_size
        with self.log.open("rb") as file:
            if size - self._read > _MOST_BYTES:
                self._rest = ""
                self._read = size - _MOST_BYTES
            file.seek(self._read)
            block = file.read(_MOST_BYTES)
        self._read += len(block)
        *lines, self._rest = (self._rest + block.decode(errors="replace")).split("\n")
        for line in lines:
            if self.tool == "yosys":
                self._yosys(line)
            elif self.tool.startswith("nextpnr"):
                self._nextpnr(line)
        return self._detail

    def _yosys(self, line: str) -> None:
        """The pass of a synthesis script; not those that it calls in turn."""
        found = _PASS.match(line)
        if found is None:
            return
        number, inner, name = found.groups()
        if not inner or number != self._number:
            self._number = number
            self._detail = f"pass {number}, {name}"

    def _nextpnr(self, line: str) -> None:
        for pattern, words in _NEXTPNR:
            found = pattern.match(line)
            if found:
                self._detail = words.format(*(f"{int(count):,}" for count in found.groups()))
                return
