# SPDX-License-Identifier: BSD-2-Clause
"""Block RAMs of ECP5 and Gowin by what yosys' brams*.txt say of them, in plain Python.

A block is 16384 data bits and, where bytes have 9 bits, 2048 parity bits. This says which of them a
word has and what one clock edge does; sim/models must do the same.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BlockRam", "Port", "Request", "cells"]

DATA_BITS = 16384


@dataclass
class Port:
    """mode: "kept", "new" or "old", what the output shows of a write. `second`: output register."""

    width: int
    mode: str = "kept"
    second: bool = False
    latch: int = 0
    out: int = 0

    @property
    def shown(self) -> int:
        return self.out if self.second else self.latch


@dataclass
class Request:
    """What a port's pins say at one clock edge. `on`: clock enable and block select together."""

    on: bool
    write: bool
    address: int
    data: int
    reset: bool
    register_enable: bool


def cells(width: int, address: int) -> list[tuple[int, int]]:
    """The bits of a word, lowest first: (index, byte of the word)."""
    if width < 8:
        return [(address // width * width + bit, 0) for bit in range(width)]
    count = -(-width // 9)  # of bytes
    first = address // (8 * count) * count
    found = []
    for byte in range(count):
        found += [(8 * (first + byte) + bit, byte) for bit in range(8)]
        if width % 9 == 0:
            found.append((DATA_BITS + first + byte, byte))
    return found


class BlockRam:
    """contents: 16384 data bits, then 2048 parity bits."""

    def __init__(self, contents: list[int], a: Port, b: Port, *, reset_blocks: bool = False):
        self.bits = list(contents)
        self.ports = (a, b)
        self.reset_blocks = reset_blocks

    def edge(self, requests: tuple[Request, Request]) -> None:
        """A rising edge, with a synchronous reset."""
        old = self.bits
        written: list[dict[int, int]] = []
        for port, request in zip(self.ports, requests, strict=True):
            now = request.on and request.write and not (self.reset_blocks and request.reset)
            written.append(
                {
                    index: request.data >> place & 1
                    for place, (index, byte) in enumerate(cells(port.width, request.address))
                    if now and (port.width < 16 or request.address >> byte & 1)
                }
            )
        both = written[0].keys() & written[1].keys()
        new = {**written[0], **written[1], **{index: 1 - written[0][index] for index in both}}
        for number, (port, request) in enumerate(zip(self.ports, requests, strict=True)):
            if request.reset:
                port.latch, port.out = 0, 0
                continue
            latch = port.latch
            if request.register_enable:
                port.out = latch
            if not request.on or (request.write and port.mode == "kept"):
                continue
            word = 0
            for place, (index, _) in enumerate(cells(port.width, request.address)):
                bit = old[index]
                if index in written[1 - number]:
                    bit = 1 - bit
                elif request.write and port.mode == "new":
                    bit = new.get(index, bit)
                word |= bit << place
            port.latch = word
        for index, bit in new.items():
            old[index] = bit
