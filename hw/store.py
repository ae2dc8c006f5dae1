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
from functools import reduce
from itertools import groupby
from operator import attrgetter, or_

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorforge.hw.ram import BlockRam, LutRam, Spram
from xnorforge.hw.shared_spram import SHARED_PORT
from xnorforge.hw.store_config import (
    FAMILIES,
    KINDS,
    MERGE_INPUTS,
    SPRAM_FAMILIES,
    SPRAM_SHAPE,
    StoreConfig,
    StoreFamily,
    blank_words,
)
from xnorforge.hw.store_loader import LOAD, StoreLoader

__all__ = [
    "FAMILIES",
    "KINDS",
    "SPRAM_FAMILIES",
    "SPRAM_SHAPE",
    "Store",
    "StoreConfig",
    "StoreFamily",
    "blank_words",
]


class Store(wiring.Component):
    """A memory that the engine reads and the weight chain writes.

    `data` shows the word of `address` `config.latency` cycles later. While a load is under way
    `data` carries anything. Memories (and the register of a store of depth 1) power up with
    `init`, SPRAM with anything, one that boots with 0, and are not touched by a reset. A constant
    store has `init` for ever.

    Throughput: 1 word per cycle, with a share of an SPRAM one in `config.share`.
    Latency: `config.latency` cycles.  Cost: `config.block_rams`,
    `config.sprams` or `config.lut_rams`, plus loader and multiplexers as in docs/blocks/stores.md.

    Parameters
    ----------
    config : StoreConfig
    init : words at power-up
    blank : a name, different for every store: the memories of a patchable store that stay in the
        bitstream then power up with `blank_words` instead, by which they are found there

    Members
    -------
    address : In(readers * ceil_log2(depth))
    data : Out(readers * width)
        The first reader's in the low bits.
    slot, load_slot : In(1)
        Of a store of two slots: the one that is read, in the address's own cycle, and the one that
        is written, from the load's start on. `init` powers up in slot 0, the other is empty.
    load_i, load_o : In(LOAD), Out(LOAD)
        Weight chain, see `xnorforge.hw.store_loader`. A constant store has neither.
    port : Out(SHARED_PORT)
        Of a store with a share of an SPRAM: what `xnorforge.hw.shared_spram` answers. An address
        counts in the store's turns only.
    """

    def __init__(self, *, config: StoreConfig, init: Sequence[int], blank: str = ""):
        self.config = config
        self._blank = blank if config.patchable and not config.boots else ""
        self._words = config.check(init)
        if config.boots:
            self._words = [0] * config.depth
        load = {"load_i": In(LOAD), "load_o": Out(LOAD)} if config.loadable else {}
        ports = {
            "address": In(config.readers * config.address_bits),
            "data": Out(config.readers * config.width),
        }
        slots = {"slot": In(1), "load_slot": In(1)} if config.slots > 1 else {}
        port = {"port": Out(SHARED_PORT)} if config.share > 1 else {}
        super().__init__({**ports, **slots, **load, **port})

    def elaborate(self, platform):
        # `addresses[n]` is the address n cycles ago; each column reads its banks and narrows
        # them down, a stage at a time, by the address bits above the bank's.
        m = Module()
        config = self.config
        wanted = [self.address]
        if config.readers > 1:
            wanted = [
                self.address.word_select(n, config.address_bits) for n in range(config.readers)
            ]
        if not config.loadable:
            m.d.comb += self.data.eq(Cat(self._constant(m, address) for address in wanted))
            return m
        m.submodules.loader = loader = StoreLoader(
            columns=config.columns,
            depth=config.depth,
            boots=config.boots if config.patchable else None,
        )
        wiring.connect(m, wiring.flipped(self.load_i), loader.load_i)
        wiring.connect(m, loader.load_o, wiring.flipped(self.load_o))
        if config.slots > 1:
            wanted = [Cat(self.slot, address) for address in wanted]
            self._write_address = Cat(self.load_slot, loader.address)
        else:
            self._write_address = loader.address
        data = [self._reader(m, loader, number, address) for number, address in enumerate(wanted)]
        m.d.comb += self.data.eq(Cat(data))
        return m

    def _reader(self, m, loader, number, address):
        """The word of an address, from a reader's own memories."""
        config = self.config
        addresses = [address]
        for age in range(1, config.latency):
            later = Signal(len(address), name=f"address_{age}", reset_less=True)
            m.d.sync += later.eq(addresses[-1])
            addresses.append(later)

        parts, low = [], 0
        for column, bits in enumerate(config.columns):
            if config.depth == 1:
                word = self._words[0] >> low & (1 << bits) - 1
                parts.append(self._register(m, loader, column, word))
            else:
                values = self._banks(m, loader, column, number, address)
                parts.append(self._select(m, column, values, addresses))
            low += bits
        return Cat(parts)

    def _constant(self, m, wanted):
        """Every bit of the word as a function of the registered address."""
        config = self.config
        address = Signal(config.address_bits, name="rom_address", reset_less=True)
        m.d.sync += address.eq(wanted)
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
        return Cat(function(table, config.address_bits) for table in tables)

    def _register(self, m, loader, column, word):
        write, bits = loader.write[column], self.config.columns[column]
        value = Signal(bits, init=word, reset_less=True)
        if self.config.slots == 1:
            with m.If(write):
                m.d.sync += value.eq(loader.column_data(column))
            return value
        second = Signal(bits, name="second", reset_less=True)
        with m.If(write & ~self.load_slot):
            m.d.sync += value.eq(loader.column_data(column))
        with m.If(write & self.load_slot):
            m.d.sync += second.eq(loader.column_data(column))
        return Mux(self.slot, second, value)

    def _banks(self, m, loader, column, number, address):
        """Every bank's word of the low address bits, `read_registers` cycles later.

        number, address: the reader.
        """
        config = self.config
        count, depth = config.banks(column), config.tile(column)[1]
        write, data = loader.write[column], loader.column_data(column)
        values = []
        memories = config.memories(self._words, column, number)
        for bank, members in groupby(memories, attrgetter("bank")):
            high = self._write_address[ceil_log2(depth) :]
            enable = write if count == 1 else write & (high == bank)
            pieces = []
            for memory in members:
                words = blank_words(self._blank, memory) if self._blank else memory.words
                low, high = memory.low, memory.high
                shape = {"width": high - low, "depth": memory.depth, "init": words}
                ram = self._ram(m, loader, write, address, memory.name, **shape)
                m.d.comb += [
                    ram.write_enable.eq(enable),
                    ram.write_data.eq(data[low:high]),
                ]
                pieces.append(ram.ram_data)
            value = Cat(pieces)
            for _ in range(1, config.read_registers):
                later = Signal(config.columns[column], name="ram_register", reset_less=True)
                m.d.sync += later.eq(value)
                value = later
            values.append(value)
        return values

    def _ram(self, m, loader, write, address, name, *, width, depth, init):
        """A memory of the store's kind with its addresses; `write`: its column is written."""
        config = self.config
        if config.kind == "spram":
            if config.share > 1:
                ram = self.port
            else:
                m.submodules[name] = ram = Spram(width=width, depth=depth)
            m.d.comb += ram.address.eq(Mux(loader.write.any(), loader.address, address))
            return ram
        if config.kind == "block":
            ram = BlockRam(width=width, depth=depth, init=init)
            # One slot is read while the other is written: never the same address.
            m.d.comb += ram.read_enable.eq(~write if config.slots == 1 else 1)
        else:
            distributed = FAMILIES[config.family].lut_ram
            ram = LutRam(width=width, depth=depth, init=init, distributed=distributed)
        m.submodules[name] = ram
        m.d.comb += [
            ram.write_address.eq(self._write_address),
            ram.read_address.eq(address),
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
