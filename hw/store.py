# SPDX-License-Identifier: BSD-2-Clause
"""Weight and preset memories: read by the engine, written by the weight chain (or constant).

                     +--> bank 0 --> [register] --+
      address -------+--> bank 1 --> [register] --+--> gate pairs --> register --> OR --> data
                     +--> ...                   --+
      load_i  --> loader --> load_o

Banks have the block RAM's own shapes (or the LUT RAM's 16 entries), and nothing but wires stands
between an ECP5 block RAM and the register behind it. Banks are selected by gating: a LUT4 takes
two banks' bits, the low bank-address bit and a decoded enable of the pair; the rest is an OR.

A "const" store is logic: its address goes into a register, and each bit of the word is a function
of that register, built from multiplexers whose equal parts are shared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorforge.hw.ram import BlockRam, LutRam, Spram
from xnorforge.hw.store_loader import LOAD, StoreLoader

__all__ = ["FAMILIES", "KINDS", "Store", "StoreConfig", "StoreFamily"]

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
}
LUT_RAM_DEPTH = 16
LUT_RAM_WIDTH = 4
SPRAM_SHAPE = (16, 16384)
SPRAM_FAMILIES = ("ice40",)  # some of its devices have it, see `gen.devices`
MERGE_INPUTS = 16  # values OR-ed between two registers: two levels of LUT4


@dataclass(frozen=True)
class StoreConfig:
    """Shape of a `Store`.

    width, depth: words of `width` bits. kind: "block" (block RAM), "lut" (LUT RAM, or flip-flops
    where the family has none), "spram" (iCE40 UltraPlus single-port RAM, unknown at power-up) or
    "const" (constant logic, never loaded). family: key of `FAMILIES`. A store of depth 1 is a
    register, or a constant, whatever its kind.

    Raises
    ------
    TypeError, ValueError: a width or depth that is no positive integer; unknown kind or family; a
        kind that the family has not.
    """

    width: int
    depth: int
    kind: str = "block"
    family: str = "ice40"

    def __post_init__(self):
        for name in ("width", "depth"):
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

    @property
    def loadable(self) -> bool:
        """Whether it takes a share of a weight load."""
        return self.kind != "const"

    @property
    def initialised(self) -> bool:
        """Whether it powers up with its words."""
        return self.kind != "spram" or self.depth == 1

    @property
    def address_bits(self) -> int:
        return ceil_log2(self.depth)

    @property
    def columns(self) -> tuple[int, ...]:
        """Bits of each column; only the last can be narrower than the family's column."""
        full, rest = divmod(self.width, FAMILIES[self.family].column_bits)
        return (FAMILIES[self.family].column_bits,) * full + ((rest,) if rest else ())

    def tile(self, column: int) -> tuple[int, int]:
        """(width, depth) of the memories that a column is built from.

        The block shape that takes the fewest block RAMs, then the fewest banks.
        """
        bits = self.columns[column]
        if self.kind == "lut":
            return bits, LUT_RAM_DEPTH
        if self.kind == "spram":
            return SPRAM_SHAPE
        if self.kind == "const":
            return bits, self.depth

        def price(shape):
            width, depth = shape
            banks = -(-self.depth // depth)
            return -(-bits // width) * banks, banks

        return min(FAMILIES[self.family].block_shapes, key=price)

    def banks(self, column: int) -> int:
        """Memories one behind the other in the address space of a column."""
        return -(-self.depth // self.tile(column)[1])

    @property
    def read_registers(self) -> int:
        """Register stages before the first multiplexer."""
        if self.kind == "lut":
            return 0
        return 2 if self.kind == "block" and FAMILIES[self.family].register else 1

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
        return 1

    @property
    def block_rams(self) -> int:
        """Block RAMs, exactly."""
        return self._tiles if self.kind == "block" else 0

    @property
    def sprams(self) -> int:
        """SPRAM blocks, exactly."""
        return self._tiles if self.kind == "spram" else 0

    @property
    def _tiles(self) -> int:
        if self.depth == 1:
            return 0
        return sum(
            -(-bits // self.tile(column)[0]) * self.banks(column)
            for column, bits in enumerate(self.columns)
        )

    @property
    def lut_rams(self) -> int:
        """LUT RAM primitives of 16 x 4 bits, exactly."""
        if self.kind != "lut" or self.depth == 1 or not FAMILIES[self.family].lut_ram:
            return 0
        return sum(-(-bits // LUT_RAM_WIDTH) for bits in self.columns) * self.banks(0)

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


class Store(wiring.Component):
    """A memory that the engine reads and the weight chain writes.

    `data` shows the word of `address` `config.latency` cycles later. While a load is under way
    `data` carries anything. Memories (and the register of a store of depth 1) power up with
    `init`, SPRAM with anything, and are not touched by a reset. A constant store has `init` for
    ever.

    Throughput: 1 word per cycle.  Latency: `config.latency` cycles.  Cost: `config.block_rams`,
    `config.sprams` or `config.lut_rams`, plus loader and multiplexers as in docs/blocks/stores.md.

    Parameters
    ----------
    config : StoreConfig
    init : words at power-up

    Members
    -------
    address : In(ceil_log2(depth))
    data : Out(width)
    load_i, load_o : In(LOAD), Out(LOAD)
        Weight chain, see `xnorforge.hw.store_loader`. A constant store has neither.
    """

    def __init__(self, *, config: StoreConfig, init: Sequence[int]):
        self.config = config
        self._words = config.check(init)
        load = {"load_i": In(LOAD), "load_o": Out(LOAD)} if config.loadable else {}
        super().__init__({"address": In(config.address_bits), "data": Out(config.width), **load})

    def elaborate(self, platform):
        # `addresses[n]` is the address n cycles ago; each column reads its banks and narrows
        # them down, a stage at a time, by the address bits above the bank's.
        m = Module()
        config = self.config
        if not config.loadable:
            self._constant(m)
            return m
        m.submodules.loader = loader = StoreLoader(columns=config.columns, depth=config.depth)
        wiring.connect(m, wiring.flipped(self.load_i), loader.load_i)
        wiring.connect(m, loader.load_o, wiring.flipped(self.load_o))

        addresses = [self.address]
        for age in range(1, config.latency):
            addresses.append(Signal.like(self.address, name=f"address_{age}", reset_less=True))
            m.d.sync += addresses[age].eq(addresses[age - 1])

        parts, low = [], 0
        for column, bits in enumerate(config.columns):
            words = [word >> low & (1 << bits) - 1 for word in self._words]
            if config.depth == 1:
                parts.append(self._register(m, loader, column, words[0]))
            else:
                values = self._banks(m, loader, column, words)
                parts.append(self._select(m, column, values, addresses))
            low += bits
        m.d.comb += self.data.eq(Cat(parts))
        return m

    def _constant(self, m):
        """Every bit of the word as a function of the registered address."""
        config = self.config
        address = Signal(config.address_bits, name="rom_address", reset_less=True)
        m.d.sync += address.eq(self.address)
        known = {}

        def function(table, bits):
            """A value with truth table `table` over the low address bits; equal ones are one."""
            if bits == 0:
                return C(table, 1)
            low = table & (1 << (1 << bits - 1)) - 1
            high = table >> (1 << bits - 1)
            if low == high:
                return function(low, bits - 1)
            if (table, bits) not in known:
                value = Signal(name="rom")
                known[table, bits] = value
                m.d.comb += value.eq(
                    Mux(address[bits - 1], function(high, bits - 1), function(low, bits - 1))
                )
            return known[table, bits]

        # Addresses past the last word repeat earlier words, which makes for smaller functions.
        half = 1 << config.address_bits >> 1
        words = self._words + self._words[config.depth - half : half]
        tables = [0] * config.width
        for place, word in enumerate(words):
            for bit in range(config.width):
                tables[bit] |= (word >> bit & 1) << place
        m.d.comb += self.data.eq(Cat(function(table, config.address_bits) for table in tables))

    def _register(self, m, loader, column, word):
        value = Signal(self.config.columns[column], init=word, reset_less=True)
        with m.If(loader.write[column]):
            m.d.sync += value.eq(loader.column_data(column))
        return value

    def _banks(self, m, loader, column, words):
        """Every bank's word of the low address bits, `read_registers` cycles later."""
        config = self.config
        bits, count = config.columns[column], config.banks(column)
        width, depth = config.tile(column)
        write, data = loader.write[column], loader.column_data(column)
        values = []
        for bank in range(count):
            enable = write if count == 1 else write & (loader.address[ceil_log2(depth) :] == bank)
            bank_words = words[bank * depth : (bank + 1) * depth]
            pieces = []
            for low in range(0, bits, width):
                high = min(low + width, bits)
                shape = {
                    "width": high - low,
                    "depth": depth if count > 1 else config.depth,
                    "init": [word >> low & (1 << high - low) - 1 for word in bank_words],
                }
                ram = self._ram(m, loader, write, **shape)
                m.submodules[f"column_{column}_bank_{bank}_bit_{low}"] = ram
                m.d.comb += [
                    ram.write_enable.eq(enable),
                    ram.write_data.eq(data[low:high]),
                ]
                pieces.append(ram.ram_data)
            value = Cat(pieces)
            for _ in range(1, config.read_registers):
                later = Signal(bits, name="ram_register", reset_less=True)
                m.d.sync += later.eq(value)
                value = later
            values.append(value)
        return values

    def _ram(self, m, loader, write, *, width, depth, init):
        """A memory of the store's kind with its addresses; `write`: its column is written."""
        config = self.config
        if config.kind == "spram":
            ram = Spram(width=width, depth=depth)
            m.d.comb += ram.address.eq(Mux(loader.write.any(), loader.address, self.address))
            return ram
        if config.kind == "block":
            ram = BlockRam(width=width, depth=depth, init=init)
            m.d.comb += ram.read_enable.eq(~write)
        else:
            distributed = FAMILIES[config.family].lut_ram
            ram = LutRam(width=width, depth=depth, init=init, distributed=distributed)
        m.d.comb += [
            ram.write_address.eq(loader.address),
            ram.read_address.eq(self.address),
        ]
        return ram

    def _select(self, m, column, values, addresses):
        """The word of the whole address: pairs of banks gated and OR-ed, `select_stages` deep."""
        config = self.config
        low, age = ceil_log2(config.tile(column)[1]), config.read_registers
        if len(values) > 1:
            pairs = range(-(-len(values) // 2))
            gated = []
            for pair in pairs:
                odd = values[2 * pair + 1 :][:1]
                value = Mux(addresses[age][low], odd[0], values[2 * pair]) if odd else values[-1]
                if len(pairs) > 1:
                    value = Mux(self._unpaired(m, addresses, age, low + 1, pair), 0, value)
                gated.append(value)
            values = [gated[0] | gated[1]] if len(pairs) == 2 else gated
        for _ in range(config.select_stages):
            values = [self._registered(m, column, value) for value in values]
            values = [
                reduce(or_, values[first : first + MERGE_INPUTS])
                for first in range(0, len(values), MERGE_INPUTS)
            ]
        return values[0]

    def _unpaired(self, m, addresses, age, low, pair):
        """Whether the address `age` cycles ago lies in another pair of banks."""
        if age == 0:
            return addresses[0][low:] != pair
        other = Signal(name=f"not_pair_{pair}", reset_less=True)
        m.d.sync += other.eq(addresses[age - 1][low:] != pair)
        return other

    def _registered(self, m, column, value):
        later = Signal(self.config.columns[column], name="select", reset_less=True)
        m.d.sync += later.eq(value)
        return later
