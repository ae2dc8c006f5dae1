# SPDX-License-Identifier: BSD-2-Clause
"""What the block RAMs of a patchable design hold, and how it gets into a routed result.

    blank Verilog -> yosys -> nextpnr -> routed, memories blank --+--> icebram or ecpbram -> packer
                            network's numbers --> wanted words --+

A design is placed and routed with words in its memories that no other memory has (blank). The
family's patcher finds them in the routed result, a bit of 256 or 512 addresses at a time, and puts
the wanted ones in their place. So one place and route serves every network of a plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xnorforge.gen.assembly import CoreParts, core_parts
from xnorforge.gen.build_steps import Step
from xnorforge.gen.errors import ToolError
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.gen.verilog import accelerator_verilog
from xnorforge.hw.store import blank_words

__all__ = ["MemoryContents", "Replacement", "check_filled", "memory_contents"]

_SLICE_BITS = {"icebram": 256, "ecpbram": 512}  # addresses that the patcher looks at together
_DIGIT_BITS = 4  # words of the patchers' files are whole hexadecimal digits
_SECTION = re.compile(r"^(\.(?:ram_data|bram_init)\b.*)\n((?:[0-9a-fA-F \t]+\n)*)", re.MULTILINE)


@dataclass(frozen=True)
class Replacement:
    """What one call of the patcher replaces: bits (slices, addresses) before and after."""

    old: np.ndarray
    new: np.ndarray

    def step(self, patcher: str, work: Path, number: int, source: str, target: str) -> Step:
        """The step that replaces them in a routed result; writes its files to `work`."""
        names = [f"old{number}.hex", f"new{number}.hex"]
        for name, bits in zip(names, (self.old, self.new), strict=True):
            (work / name).write_text(_hex_lines(bits))
        args = [source, target, *names]
        if patcher == "ecpbram":
            args = ["-i", source, "-o", target, "-f", names[0], "-t", names[1]]
        return Step(
            tool=patcher,
            args=tuple(args),
            reads=(source, *names),
            makes=(target,),
            label="filling the memories",
        )


@dataclass(frozen=True)
class MemoryContents:
    """Words of all memories of a design, as bits (slices, addresses): blank and wanted.

    verilog: the design with the blank ones, the same for every network of the plan.
    """

    verilog: str = field(repr=False)
    blank: np.ndarray = field(repr=False)
    wanted: np.ndarray = field(repr=False)

    @property
    def differing_bits(self) -> int:
        """How many bits of the routed result are to change."""
        return int((self.blank != self.wanted).sum())

    def replacements(self) -> list[Replacement]:
        """The calls to make. The patchers take whole digits of slices: with some left over, a few
        that are found already take part a second time."""
        odd = len(self.blank) % _DIGIT_BITS
        if not odd:
            return [Replacement(self.blank, self.wanted)]
        again = _DIGIT_BITS - odd
        between = self.wanted.copy()
        between[:again] = self.blank[:again] ^ 1
        first, rest = slice(0, len(self.blank) - odd), slice(len(self.blank) - odd, None)
        return [
            Replacement(self.blank[first], between[first]),
            Replacement(
                np.concatenate([between[:again], self.blank[rest]]),
                np.concatenate([self.wanted[:again], self.wanted[rest]]),
            ),
        ]


def memory_contents(network: Network, plan: Plan, patcher: str) -> MemoryContents:
    """The contents of a patchable plan's memories for a network. patcher: a name in `gen.tools`."""
    parts = core_parts(network, plan)
    pairs = list(_slices(parts, _SLICE_BITS[patcher]))
    return MemoryContents(
        accelerator_verilog(network, plan, parts, blank=True),
        np.concatenate([old for old, _ in pairs]),
        np.concatenate([new for _, new in pairs]),
    )


def check_filled(blank: Path, filled: Path, contents: MemoryContents, log: Path) -> None:
    """Raises ToolError unless exactly the bits that should have changed did."""
    before, after = _memory_bits(blank.read_text()), _memory_bits(filled.read_text())
    changed = -1
    if before.keys() == after.keys():
        changed = sum((before[name] ^ after[name]).bit_count() for name in before)
    if changed != contents.differing_bits:
        raise ToolError(
            f"Filling the memories changed {changed} bits instead of "
            f"{contents.differing_bits}: the tools map memories in another way than is known here",
            log=log,
        )


def _slices(parts: CoreParts, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(blank, wanted) bits (slices, size) of each memory."""
    rom = parts.boot_config.memory
    yield _bits(blank_words("boot", rom), 8, size), _bits(parts.boot_words(), 8, size)
    for name, config, words in parts.stores:
        if not config.loadable or config.boots:
            continue
        for reader in range(config.readers):
            for column in range(len(config.columns)):
                for memory in config.memories(words, column, reader):
                    width = memory.high - memory.low
                    wanted = memory.words + (0,) * (memory.depth - len(memory.words))
                    yield (
                        _bits(blank_words(name, memory), width, size),
                        _bits(wanted, width, size),
                    )


def _bits(words: tuple[int, ...] | list[int], width: int, size: int) -> np.ndarray:
    """Words to bits uint8 (width * addresses / size, size)."""
    bits = np.array(words, np.uint64)[:, None] >> np.arange(width, dtype=np.uint64) & np.uint64(1)
    return bits.T.reshape(-1, size).astype(np.uint8)


def _hex_lines(bits: np.ndarray) -> str:
    """A line an address: its bit of every slice, the first slice's lowest."""
    digits = len(bits) // _DIGIT_BITS
    words = np.packbits(bits, axis=0, bitorder="little").T
    return "".join(f"{int.from_bytes(w.tobytes(), 'little'):0{digits}x}\n" for w in words)


def _memory_bits(routed: str) -> dict[str, int]:
    """Initial words of every block RAM in a routed result, as one number each."""
    return {
        name: int("".join(digits.split()) or "0", 16) for name, digits in _SECTION.findall(routed)
    }
