# SPDX-License-Identifier: BSD-2-Clause
"""StoreConfig: a store's shape, the memories of its family that it is built from, its words."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from amaranth.utils import ceil_log2

__all__ = [
    "FAMILIES",
    "KINDS",
    "MERGE_INPUTS",
    "SPRAM_FAMILIES",
    "SPRAM_SHAPE",
    "SPRAM_SHARES",
    "Memory",
    "StoreConfig",
    "StoreFamily",
    "blank_words",
    "fits_share",
]

KINDS = ("block", "lut", "spram", "const")


@dataclass(frozen=True)
class StoreFamily:
    """What a family's memories look like.

    column_bits: widest port. block_shapes: (width, depth) a block RAM can take. register: a
    register directly behind the block RAM, whose clock-to-output is long. lut_ram: LUT RAM exists
    (16 entries of 4 bits); without it a "lut" store is flip-flops.
    """

    column_bits: int
    block_shapes: tuple[tuple[int, int], ...]
    register: bool
    lut_ram: bool


FAMILIES = {
    "ice40": StoreFamily(16, ((16, 256), (8, 512), (4, 1024), (2, 2048)), False, False),
    "ecp5": StoreFamily(
        36, ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)), True, True
    ),
    "gowin": StoreFamily(
        36, ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)), True, True
    ),
    "xilinx": StoreFamily(
        36, ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384)), True, True
    ),
}
LUT_RAM_DEPTH = 16
LUT_RAM_WIDTH = 4
SPRAM_SHAPE = (16, 16384)
SPRAM_SHARES = (1, 2, 4, 8)  # stores that may read the same SPRAM in turn
SPRAM_FAMILIES = ("ice40",)  # some of its devices have it, see `gen.devices`
MERGE_INPUTS = 16  # values OR-ed between two registers: two levels of LUT4


@dataclass(frozen=True)
class Memory:
    """One memory of a store. low, high: the column's bits that it holds. depth: its addresses.

    words: at power-up; missing ones are 0.
    """

    name: str
    bank: int
    low: int
    high: int
    depth: int
    words: tuple[int, ...]


def blank_words(name: str, memory: Memory) -> tuple[int, ...]:
    """Words that no other memory has: what a bitstream's memories hold before they are filled.

    name: of the memory's store.
    """
    width = memory.high - memory.low
    size = -(-width // 8)
    digits = hashlib.shake_256(f"{name}.{memory.name}".encode()).digest(size * memory.depth)
    words = (digits[k : k + size] for k in range(0, len(digits), size))
    return tuple(int.from_bytes(word, "little") & (1 << width) - 1 for word in words)


@lru_cache(maxsize=1 << 16)  # a planner asks for every column of every fold
def _block_shape(family: str, bits: int, addresses: int) -> tuple[int, int]:
    """The block shape that takes the fewest block RAMs for so many words, then the fewest banks."""

    def price(shape):
        width, depth = shape
        banks = -(-addresses // depth)
        return -(-bits // width) * banks, banks

    return min(FAMILIES[family].block_shapes, key=price)


def fits_share(width: int, depth: int, share: int) -> bool:
    """Whether so many words of so many bits can live on 1/share of an SPRAM.

    A single word cannot: it is a register.
    """
    return width <= SPRAM_SHAPE[0] and 1 < depth <= SPRAM_SHAPE[1] // share


@dataclass(frozen=True)
class StoreConfig:
    """Shape of a `Store`.

    width, depth: words of `width` bits. kind: "block" (block RAM), "lut" (LUT RAM, or flip-flops
    where the family has none), "spram" (iCE40 UltraPlus single-port RAM, unknown at power-up) or
    "const" (constant logic, never loaded). family: key of `FAMILIES`. A store of depth 1 is a
    register, or a constant, whatever its kind. readers: addresses read at once, each from copies of
    its own. hops: more registers behind each block RAM, for wires across the die. patchable: only
    the contents of block RAMs, which use every address of their shape, depend on its words; all
    else powers up as 0 and is booted (`config_chain`). slots: models whose words it holds, 1 or 2;
    only one of them can be read, and only one written. share: of an SPRAM that stores read in turn
    (`hw.shared_spram`) this one has one cycle in so many, and as small a part of its words.

    Raises
    ------
    TypeError, ValueError: a width or depth that is no positive integer; unknown kind or family; a
        kind that the family has not; more than fits in a share.
    """

    width: int
    depth: int
    kind: str = "block"
    family: str = "ice40"
    readers: int = 1
    hops: int = 0
    patchable: bool = False
    slots: int = 1
    share: int = 1

    def __post_init__(self):
        for name in ("width", "depth", "readers", "share"):
            value = getattr(self, name)
            if not isinstance(value, int):
                raise TypeError(f"Store {name} must be an integer, not {value!r}")
            if value < 1:
                raise ValueError(f"Store {name} must be at least 1, not {value!r}")
        if self.kind not in KINDS:
            raise ValueError(f"Store kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ValueError(f"Store family must be one of {known}, not {self.family!r}")
        if self.kind == "spram" and self.family not in SPRAM_FAMILIES:
            raise ValueError(f"Store kind 'spram' does not exist on family {self.family!r}")
        if self.hops < 0:
            raise ValueError(f"Store hops must be at least 0, not {self.hops!r}")
        if self.kind == "spram" and self.readers > 1:
            raise ValueError(f"A store of kind 'spram' has one reader, not {self.readers}")
        if self.patchable and not (self.loadable and self.initialised):
            raise ValueError(f"A store of kind {self.kind!r} cannot be patchable")
        if self.slots not in (1, 2):
            raise ValueError(f"Store slots must be 1 or 2, not {self.slots!r}")
        # What one port writes nobody can read meanwhile, and what is logic nobody can write.
        if self.slots > 1 and not (self.loadable and self.initialised):
            raise ValueError(f"A store of kind {self.kind!r} has one slot")
        if self.share not in SPRAM_SHARES:
            known = ", ".join(map(str, SPRAM_SHARES))
            raise ValueError(f"Store share must be one of {known}, not {self.share!r}")
        if self.share > 1:
            if self.kind != "spram":
                raise ValueError(f"A store of kind {self.kind!r} cannot share its memory")
            if not fits_share(self.width, self.depth, self.share):
                width, depth = SPRAM_SHAPE
                raise ValueError(
                    f"A share of 1/{self.share} of an SPRAM holds 2 to {depth // self.share} words "
                    f"of up to {width} bits, not {self.depth} of {self.width}"
                )

    @property
    def loadable(self) -> bool:
        """Whether it takes a share of a weight load."""
        return self.kind != "const"

    @property
    def initialised(self) -> bool:
        """Whether it powers up with its words."""
        return self.kind != "spram" or self.depth == 1

    @property
    def boots(self) -> bool:
        """Whether it takes its words at power-up out of the boot ROM."""
        return self.patchable and (self.kind != "block" or self.depth == 1)

    @property
    def address_bits(self) -> int:
        return ceil_log2(self.depth)

    @property
    def addresses(self) -> int:
        """Of its memories: the slot is the lowest bit, so that any depth fills them."""
        return self.depth * self.slots

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """Bits of each column; only the last can be narrower than the family's column."""
        full, rest = divmod(self.width, FAMILIES[self.family].column_bits)
        return (FAMILIES[self.family].column_bits,) * full + ((rest,) if rest else ())

    def tile(self, column: int) -> tuple[int, int]:
        """(width, depth) of the memories that a column is built from."""
        bits = self.columns[column]
        if self.kind == "lut":
            return bits, LUT_RAM_DEPTH
        if self.kind == "spram":
            return SPRAM_SHAPE
        if self.kind == "const":
            return bits, self.depth
        return _block_shape(self.family, bits, self.addresses)

    def banks(self, column: int) -> int:
        """Memories one behind the other in the address space of a column."""
        return -(-self.addresses // self.tile(column)[1])

    def memories(self, words: Sequence[int], column: int, reader: int) -> Iterator[Memory]:
        """The memories of a column that hold these words for a reader, bank by bank."""
        start = sum(self.columns[:column])
        bits, count = self.columns[column], self.banks(column)
        width, depth = self.tile(column)
        whole = count > 1 or (self.patchable and not self.boots)
        if self.slots > 1:  # the other ones power up empty
            words = [word for own in words for word in (own, *(0,) * (self.slots - 1))]
        for bank in range(count):
            part = words[bank * depth : (bank + 1) * depth]
            for low in range(0, bits, width):
                high = min(low + width, bits)
                mask = (1 << high - low) - 1
                name = f"column_{column}_bank_{bank}_bit_{low}"
                yield Memory(
                    name=f"{name}_reader_{reader}" if reader else name,
                    bank=bank,
                    low=low,
                    high=high,
                    depth=depth if whole else self.addresses,
                    words=tuple(word >> start + low & mask for word in part),
                )

    @property
    def read_registers(self) -> int:
        """Register stages before the first multiplexer."""
        if self.kind == "lut":
            return 0
        if self.kind != "block":
            return 1
        return 1 + FAMILIES[self.family].register + self.hops

    @property
    def select_stages(self) -> int:
        """Multiplexer stages, each with a register."""
        banks = max(self.banks(0), self.banks(len(self.columns) - 1))  # the others are as the first
        if banks <= 4:
            return 1 if banks > 1 or self.kind == "lut" else 0
        pairs = -(-banks // 2)
        return 1 + next(n for n in range(1, 32) if MERGE_INPUTS**n >= pairs)

    @property
    def latency(self) -> int:
        """Cycles from `address` to `data`; 1 by definition for a depth of 1, whose data stands."""
        return 1 if self.depth == 1 else self.read_registers + self.select_stages

    @property
    def interval(self) -> int:
        """Cycles between reads."""
        return self.share

    @property
    def block_rams(self) -> int:
        """Block RAMs, exactly."""
        return self._tiles if self.kind == "block" else 0

    @property
    def sprams(self) -> float:
        """SPRAM blocks, exactly: a half, a quarter or an eighth of a shared one."""
        if self.share > 1:
            return 1 / self.share
        return self._tiles if self.kind == "spram" else 0

    @property
    def _tiles(self) -> int:
        if self.depth == 1:
            return 0
        return self.readers * sum(
            -(-bits // self.tile(column)[0]) * self.banks(column)
            for column, bits in enumerate(self.columns)
        )

    @property
    def lut_rams(self) -> int:
        """LUT RAM primitives of 16 x 4 bits, exactly."""
        if self.kind != "lut" or self.depth == 1 or not FAMILIES[self.family].lut_ram:
            return 0
        rams = sum(-(-bits // LUT_RAM_WIDTH) for bits in self.columns) * self.banks(0)
        return rams * self.readers

    @property
    def load_bytes(self) -> int:
        """Bytes of its share of a weight load."""
        if not self.loadable:
            return 0
        return self.depth * sum(-(-bits // 8) for bits in self.columns)

    def check(self, words: Sequence[int]) -> list[int]:
        """The words as integers. Raises ValueError unless they are `depth` words that fit."""
        words = [int(word) for word in words]
        if len(words) != self.depth:
            raise ValueError(f"A store of depth {self.depth} cannot take {len(words)} words")
        for address, word in enumerate(words):
            if not 0 <= word < 1 << self.width:
                raise ValueError(
                    f"Store word {address} must fit in {self.width} unsigned bits, not {word:#x}"
                )
        return words

    def pack(self, words: Sequence[int]) -> bytes:
        """Its share of `weights.bin`: what the loader must be sent to hold `words`."""
        words = self.check(words)
        if not self.loadable:
            return b""
        share = bytearray()
        low = 0
        for bits in self.columns:
            mask, size = (1 << bits) - 1, -(-bits // 8)
            for word in words:
                share += (word >> low & mask).to_bytes(size, "little")
            low += bits
        return bytes(share)

    def unpack(self, share: bytes) -> list[int]:
        """Inverse of `pack`. Raises ValueError on a wrong length; unused bits are ignored."""
        if not self.loadable:
            raise ValueError("A constant store has no share of a load to unpack")
        if len(share) != self.load_bytes:
            raise ValueError(f"A store's share must be {self.load_bytes} bytes, not {len(share)}")
        words = [0] * self.depth
        low = offset = 0
        for bits in self.columns:
            mask, size = (1 << bits) - 1, -(-bits // 8)
            for address in range(self.depth):
                entry = int.from_bytes(share[offset : offset + size], "little")
                words[address] |= (entry & mask) << low
                offset += size
            low += bits
        return words

    def reference(self, words: Sequence[int], addresses: Sequence[int]) -> list[int]:
        """What `data` shows, `latency` cycles later, for a sequence of addresses."""
        words = self.check(words)
        return [words[address] for address in addresses]
