# SPDX-License-Identifier: BSD-2-Clause
"""One store's place in the weight chain: takes its share of the bytes, passes on the rest.

      load_i --> [ shift register ] --> load_o        one register stage a store
                         |
                         +--> write data (address, one write enable a column)

The chain has no back-pressure. `start` runs ahead of the bytes and makes every loader it passes
expect its share from the beginning.
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

__all__ = ["LOAD", "StoreLoader"]

#: The weight chain. start: a load begins (a byte in the same cycle is void), or, in a chain that is
#: booted, with bit 0 of `data` a boot, which brings shares of some stores only. valid: `data` is a
#: byte of the load.
LOAD = wiring.Signature({"start": Out(1), "valid": Out(1), "data": Out(8)})


class StoreLoader(wiring.Component):
    """Turns a share of the weight chain into writes of whole column entries.

    Column by column, address by address, the bytes of an entry little endian. A reset makes it
    pass everything on until the next `start`.

    Throughput: 1 byte per cycle.  Latency: 1 cycle from `load_i` to `load_o`, and from the last
    byte of an entry to its write.  Cost: see docs/blocks/stores.md.

    Parameters
    ----------
    columns : bits of each column
    depth : entries of a column
    boots : whether it takes a share of a boot; None in a chain that is never booted

    Members
    -------
    load_i, load_o : In(LOAD), Out(LOAD)
    write : Out(len(columns))
        Write enables, one hot.
    address : Out(ceil_log2(depth))
        Entry to write.
    data : Out(8 * bytes of the widest column)
        The entry; columns with fewer bytes find theirs at the top (see `column_data`).
    """

    def __init__(self, *, columns: tuple[int, ...], depth: int, boots: bool | None = None):
        self._boots = boots
        self._bytes = [-(-bits // 8) for bits in columns]
        self._columns = columns
        self._depth = depth
        super().__init__(
            {
                "load_i": In(LOAD),
                "load_o": Out(LOAD),
                "write": Out(len(columns)),
                "address": Out(ceil_log2(depth)),
                "data": Out(8 * max(self._bytes)),
            }
        )

    def column_data(self, index: int) -> Value:
        """The part of `data` that belongs to a column."""
        low = 8 * (max(self._bytes) - self._bytes[index])
        return self.data[low : low + self._columns[index]]

    def elaborate(self, platform):
        # The shift register is at once the assembler of entries, the write data and the register
        # of the chain (its top byte). `column` is one hot; its extra top bit means "passing on".
        m = Module()
        widest = max(self._bytes)
        column = Signal(len(self._columns) + 1, init=1 << len(self._columns))
        passing = column[-1]
        shift = Signal(8 * widest, reset_less=True)
        start, moves = self.load_i.start, self.load_i.valid
        if self._boots is not None:
            moves = moves | start
        if self._boots is False:
            start = start & ~self.load_i.data[0]
        with m.If(moves):
            m.d.sync += shift.eq(Cat(shift, self.load_i.data)[8:])
        m.d.comb += [self.data.eq(shift), self.load_o.data.eq(shift[-8:])]
        m.d.sync += [
            self.load_o.start.eq(self.load_i.start),
            self.load_o.valid.eq(self.load_i.valid & passing),
        ]

        own = self.load_i.valid & ~passing
        entry = Signal()  # the last byte of an entry arrives
        byte = Signal(range(widest))
        if widest == 1:
            m.d.comb += entry.eq(own)
        else:
            last_byte = byte == widest - 1
            if self._bytes[-1] != widest:
                last_byte = byte == Mux(column[-2], self._bytes[-1] - 1, widest - 1)
            m.d.comb += entry.eq(own & last_byte)
            with m.If(start | entry):
                m.d.sync += byte.eq(0)
            with m.Elif(own):
                m.d.sync += byte.eq(byte + 1)
        m.d.sync += self.write.eq(Mux(entry, column[:-1], 0))

        # `address` is that of the entry before; `last` marks the end of a column (or no entry).
        column_ends = entry
        if self._depth > 1:
            last = Signal()
            column_ends = entry & (self.address == self._depth - 2) & ~last
            with m.If(entry):
                m.d.sync += [self.address.eq(self.address + 1), last.eq(column_ends)]
                with m.If(last):
                    m.d.sync += self.address.eq(0)
            with m.If(start):
                m.d.sync += last.eq(1)
        with m.If(start):
            m.d.sync += column.eq(1)
        with m.Elif(column_ends):
            m.d.sync += column.eq(column << 1)
        return m
