# SPDX-License-Identifier: BSD-2-Clause
"""Weight and preset memories: read by the engine, written by the weight chain.

                     +--> bank 0 --> [register] --+
      address -------+--> bank 1 --> [register] --+--> 4:1 --> register --> ... --> data
                     +--> ...                   --+
      load_i  --> loader --> load_o

Banks have the block RAM's own shapes (or the LUT RAM's 16 entries), nothing but wires stands
between an ECP5 block RAM and the register behind it, and the multiplexers are pipelined: one
register every 4:1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorforge.hw.store_loader import LOAD, StoreLoader

__all__ = ["FAMILIES", "Store", "StoreConfig", "StoreFamily"]


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
}
LUT_RAM_DEPTH = 16
LUT_RAM_WIDTH = 4
RADIX_BITS = 2  # a multiplexer stage is 4:1


@dataclass(frozen=True)
class StoreConfig:
    """Shape of a `Store`.

    width, depth: words of `width` bits. kind: "block" (block RAM) or "lut" (LUT RAM, or
    flip-flops where the family has none). family: key of `FAMILIES`. A store of depth 1 is a
    register whatever its kind.

    Raises
    ------
    TypeError, ValueError: a width or depth that is no positive integer; unknown kind or family.
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
        if self.kind not in ("block", "lut"):
            raise ValueError(f"Store kind must be 'block' or 'lut', not {self.kind!r}")
        if self.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ValueError(f"Store family must be one of {known}, not {self.family!r}")

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
        return 2 if FAMILIES[self.family].register else 1

    @property
    def select_stages(self) -> int:
        """Multiplexer stages, each with a register."""
        banks = max(self.banks(column) for column in range(len(self.columns)))
        stages = -(-ceil_log2(banks) // RADIX_BITS)
        return max(1, stages) if self.kind == "lut" else stages

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
        if self.kind == "lut" or self.depth == 1:
            return 0
        return sum(
            -(-bits // self.tile(column)[0]) * self.banks(column)
            for column, bits in enumerate(self.columns)
        )

    @property
    def lut_rams(self) -> int:
        """LUT RAM primitives of 16 x 4 bits, exactly."""
        if self.kind == "block" or self.depth == 1 or not FAMILIES[self.family].lut_ram:
            return 0
        return sum(-(-bits // LUT_RAM_WIDTH) for bits in self.columns) * self.banks(0)

    @property
    def load_bytes(self) -> int:
        """Bytes of its share of a weight load."""
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
    `init` and are not touched by a reset.

    Throughput: 1 word per cycle.  Latency: `config.latency` cycles.  Cost: `config.block_rams`
    or `config.lut_rams`, plus loader and multiplexers as in docs/blocks/stores.md.

    Parameters
    ----------
    config : StoreConfig
    init : words at power-up

    Members
    -------
    address : In(ceil_log2(depth))
    data : Out(width)
    load_i, load_o : In(LOAD), Out(LOAD)
        Weight chain, see `xnorforge.hw.store_loader`.
    """

    def __init__(self, *, config: StoreConfig, init: Sequence[int]):
        self.config = config
        self._words = config.check(init)
        super().__init__(
            {
                "address": In(config.address_bits),
                "data": Out(config.width),
                "load_i": In(LOAD),
                "load_o": Out(LOAD),
            }
        )

    def elaborate(self, platform):
        # `addresses[n]` is the address n cycles ago; each column reads its banks and narrows
        # them down, a stage at a time, by the address bits above the bank's.
        m = Module()
        config = self.config
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

    def _register(self, m, loader, column, word):
        value = Signal(self.config.columns[column], init=word, reset_less=True)
        with m.If(loader.write[column]):
            m.d.sync += value.eq(loader.column_data(column))
        return value

    def _banks(self, m, loader, column, words):
        """Every bank's word of the low address bits, `read_registers` cycles later."""
        config = self.config
        bits, (width, depth), count = (
            config.columns[column],
            config.tile(column),
            config.banks(column),
        )
        family = FAMILIES[config.family]
        style = "block" if config.kind == "block" else "distributed" if family.lut_ram else "logic"
        write, data = loader.write[column], loader.column_data(column)
        values = []
        for bank in range(count):
            enable = write if count == 1 else write & (loader.address[ceil_log2(depth) :] == bank)
            pieces = []
            for low in range(0, bits, width):
                high = min(low + width, bits)
                init = [
                    word >> low & (1 << high - low) - 1
                    for word in words[bank * depth : (bank + 1) * depth]
                ]
                ram = memory.Memory(
                    shape=high - low,
                    depth=depth if count > 1 else config.depth,
                    init=init,
                    attrs={"ram_style": style},
                )
                m.submodules[f"column_{column}_bank_{bank}_bit_{low}"] = ram
                write_port, read_port = ram.write_port(), ram.read_port(domain="comb")
                m.d.comb += [
                    write_port.en.eq(enable),
                    write_port.addr.eq(loader.address),
                    write_port.data.eq(data[low:high]),
                    read_port.addr.eq(self.address),
                ]
                piece = read_port.data
                if config.kind == "block":
                    # Never reading while a word is written tells yosys that no value is promised
                    # then; it turns the register into the RAM's own and adds no bypass.
                    piece = Signal(high - low, name="ram_data", reset_less=True)
                    with m.If(~write):
                        m.d.sync += piece.eq(read_port.data)
                pieces.append(piece)
            value = Cat(pieces)
            for _ in range(1, config.read_registers):
                later = Signal(bits, name="ram_register", reset_less=True)
                m.d.sync += later.eq(value)
                value = later
            values.append(value)
        return values

    def _select(self, m, column, values, addresses):
        config = self.config
        low = ceil_log2(config.tile(column)[1])
        for stage in range(config.select_stages):
            select = addresses[config.read_registers + stage][low : low + RADIX_BITS]
            later = []
            for first in range(0, len(values), 1 << RADIX_BITS):
                group = values[first : first + (1 << RADIX_BITS)]
                later.append(
                    Signal(config.columns[column], name=f"select_{stage}", reset_less=True)
                )
                m.d.sync += later[-1].eq(Array(group)[select] if len(group) > 1 else group[0])
            values, low = later, low + RADIX_BITS
        return values[0]
