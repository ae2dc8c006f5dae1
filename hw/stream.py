# SPDX-License-Identifier: BSD-2-Clause
"""A first-in first-out queue between two streams.

      i --> [ item | item | ... ] --> o        depth items

What a queue costs is its memory: registers (a shift chain whose head is the output), LUT RAM
(read asynchronously), or block RAM (its output latch is the head of the queue).
"""

from dataclasses import dataclass

from amaranth import *
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.ram import BlockRam

__all__ = ["Queue", "QueueConfig"]

STORES = ("registers", "lut", "block")


@dataclass(frozen=True)
class QueueConfig:
    """Shape of a `Queue`.

    width: bits of an item. depth: items it holds. store: "registers", "lut" or "block".

    Raises
    ------
    TypeError, ValueError: a width or depth that is no positive integer, an unknown store, a
        block-RAM queue of less than three items.
    """

    width: int
    depth: int
    store: str = "registers"

    def __post_init__(self):
        for name in ("width", "depth"):
            value = getattr(self, name)
            if not isinstance(value, int):
                raise TypeError(f"Queue {name} must be an integer, not {value!r}")
            if value < 1:
                raise ValueError(f"Queue {name} must be at least 1, not {value!r}")
        if self.store not in STORES:
            raise ValueError(f"Queue store must be one of {', '.join(STORES)}, not {self.store!r}")
        if self.store == "block" and self.depth < 3:
            raise ValueError(f"A block-RAM queue needs a depth of at least 3, not {self.depth}")

    @property
    def latency(self) -> int:
        """Cycles from a transfer on `i` to the earliest transfer of that item on `o`."""
        return 2 if self.store == "block" else 1

    @property
    def interval(self) -> int:
        """Cycles between items at full speed."""
        return 2 if self.depth == 1 else 1

    def reference(self, items: list) -> list:
        """What comes out for what goes in."""
        return list(items)


class Queue(wiring.Component):
    """First-in first-out queue.

    An item taken on `i` in cycle t can leave on `o` from cycle `t + config.latency` on.
    `i.ready` depends on registers only: in cycle t it is high exactly when
    (items taken before t) - (items left before t) < depth.

    Throughput: 1 item per cycle for a depth of 2 or more.
    Latency: 1 cycle, 2 with "block".  Cost: see docs/blocks/streams.md.
    Back-pressure: stalls, never drops.

    store: "registers" suits a few items, and any small queue on iCE40; "lut" becomes LUT RAM on
    ECP5 and flip-flops with a read multiplexer on iCE40; "block" is a block RAM, whose output
    drives `o.payload` without a register behind it.

    Parameters
    ----------
    shape : shape of an item
    depth : items it holds
    store : "registers", "lut" or "block"

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    """

    def __init__(self, *, shape, depth: int, store: str = "registers"):
        width = Shape.cast(shape).width
        self.config = QueueConfig(width, depth, store)
        self._shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        build = {"registers": self._registers, "lut": self._lut, "block": self._block}
        build[self.config.store](m)
        return m

    def _registers(self, m):
        # A chain of slots, slot 0 the output. `full` is a thermometer: slots 0..k-1 are taken.
        # An empty slot loads every cycle; what it loads counts only if it becomes full.
        depth = self.config.depth
        full = Signal(depth)
        width = self.config.width
        slots = [Signal(width, name=f"slot_{k}", reset_less=True) for k in range(depth)]
        m.d.comb += [
            self.i.ready.eq(~full[-1]),
            self.o.valid.eq(full[0]),
            Value.cast(self.o.payload).eq(slots[0]),
        ]
        taken = self.i.valid & self.i.ready
        left = self.o.valid & self.o.ready
        with m.If(taken != left):
            m.d.sync += full.eq(Mux(taken, Cat(C(1, 1), full), full[1:]))
        item = Value.cast(self.i.payload)
        for k, slot in enumerate(slots):
            with m.If(self.o.ready | ~full[k]):
                m.d.sync += slot.eq(
                    item if k == depth - 1 else Mux(full[k + 1], slots[k + 1], item)
                )

    def _lut(self, m):
        # A ring in a memory that is read asynchronously; `level` counts the items in it.
        depth = self.config.depth
        m.submodules.ring = ring = memory.Memory(shape=self.config.width, depth=depth, init=[])
        write, read = ring.write_port(), ring.read_port(domain="comb")
        level = Signal(range(depth + 1))
        taken = self.i.valid & self.i.ready
        left = self.o.valid & self.o.ready
        m.d.comb += [
            self.i.ready.eq(level != depth),
            self.o.valid.eq(level != 0),
            Value.cast(self.o.payload).eq(read.data),
            write.data.eq(self.i.payload),
            write.en.eq(taken),
        ]
        with m.If(taken):
            m.d.sync += write.addr.eq(_next(write.addr, depth))
        with m.If(left):
            m.d.sync += read.addr.eq(_next(read.addr, depth))
        with m.If(taken != left):
            m.d.sync += level.eq(level + Mux(taken, 1, -1))

    def _block(self, m):
        # The same ring in block RAM. The latch behind its read port is the head of the queue:
        # fetching an item moves it from the ring into the latch. `level` counts both.
        # An item is never fetched from where one is written; saying so keeps yosys from adding
        # registers and a bypass for that case.
        depth = self.config.depth
        width = self.config.width
        m.submodules.ring = ring = BlockRam(width=width, depth=depth)
        level = Signal(range(depth + 1))
        valid = Signal()
        taken = self.i.valid & self.i.ready
        left = valid & self.o.ready
        fetch = (level != valid) & (~valid | self.o.ready)
        collides = taken & (ring.read_address == ring.write_address)
        write_address, read_address = (Signal(range(depth), name=n) for n in ("write", "read"))
        m.d.comb += [
            self.i.ready.eq(level != depth),
            self.o.valid.eq(valid),
            Value.cast(self.o.payload).eq(ring.ram_data),
            ring.write_data.eq(self.i.payload),
            ring.write_enable.eq(taken),
            ring.write_address.eq(write_address),
            ring.read_address.eq(read_address),
            ring.read_enable.eq(fetch & ~collides),
        ]
        m.d.sync += valid.eq(fetch | (valid & ~self.o.ready))
        with m.If(taken):
            m.d.sync += write_address.eq(_next(write_address, depth))
        with m.If(fetch):
            m.d.sync += read_address.eq(_next(read_address, depth))
        with m.If(taken != left):
            m.d.sync += level.eq(level + Mux(taken, 1, -1))


def _next(pointer, depth):
    """The pointer after this one in a ring of `depth`."""
    if depth == 1 << len(pointer):
        return pointer + 1
    return Mux(pointer == depth - 1, 0, pointer + 1)
