# SPDX-License-Identifier: BSD-2-Clause
"""What a circuit whose words can be replaced in its bitstream reads once after power-up."""

from dataclasses import dataclass

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from xnorforge.hw.ram import BlockRam
from xnorforge.hw.store_config import Memory

__all__ = ["BootRom", "BootRomConfig"]

DIGEST_BYTES = 4
_MIN_DEPTH = 512  # of a block RAM with words of a byte; smaller would save nothing
# Synthesis takes a bit that is the same at all addresses out of a memory that is never written.
_EVERY_BIT = (0x00, 0xFF)


@dataclass(frozen=True)
class BootRomConfig:
    """Size of a `BootRom`, and its words.

    share_bytes: bytes of all stores that boot. Raises ValueError for less than 0.
    """

    share_bytes: int

    def __post_init__(self):
        if self.share_bytes < 0:
            raise ValueError(f"Shares must have at least 0 bytes, not {self.share_bytes}")

    @property
    def memory(self) -> Memory:
        """Its memory, empty."""
        return Memory("rom", 0, 0, 8, self.depth, ())

    @property
    def depth(self) -> int:
        """Bytes of its memory: whole block RAMs, as far as both families have them."""
        used = self.share_bytes + DIGEST_BYTES + len(_EVERY_BIT)
        return max(_MIN_DEPTH, 1 << ceil_log2(used))

    def words(self, shares: bytes, digest: int) -> list[int]:
        """Its memory's words for the stores' shares, in the chain's order, and the digest."""
        if len(shares) != self.share_bytes:
            raise ValueError(f"Shares must have {self.share_bytes} bytes, not {len(shares)}")
        content = shares + digest.to_bytes(DIGEST_BYTES, "little")
        filling = bytes(self.depth - len(content) - len(_EVERY_BIT))
        return [*content, *filling, *_EVERY_BIT]


class BootRom(wiring.Component):
    """Reads its bytes out once after power-up; a reset in between makes it begin anew.

    Throughput: 1 byte per cycle.  Latency: the first byte a cycle after `start`, which comes with
    the first cycle out of reset.  Cost: block RAMs of 8 bits x `config.depth`, and a counter.
    Back-pressure: none.

    Parameters
    ----------
    config : BootRomConfig
    words : of `config.words`, or others of 8 bits

    Members
    -------
    stop : In(1)
        They have arrived, or are not wanted any more: nothing is read again before power-up.
    start : Out(1)
        A boot begins; high for one cycle.
    valid, data : Out(1), Out(8)
        A byte.
    seal : Out(1)
        It is one of the digest, which follow the shares, little endian.
    last : Out(1)
        It is the last one.
    """

    def __init__(self, *, config: BootRomConfig, words: list[int]):
        self.config = config
        self._words = words
        super().__init__(
            {
                "stop": In(1),
                "start": Out(1),
                "valid": Out(1),
                "data": Out(8),
                "seal": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        count = self.config.share_bytes + DIGEST_BYTES
        reset = ResetSignal(allow_reset_less=True)
        place = Signal(range(count + 1), reset_less=True)
        stopped = Signal(reset_less=True)
        read, came = Signal(), Signal(reset_less=True)
        seal, last = Signal(reset_less=True), Signal(reset_less=True)
        ram = BlockRam(width=8, depth=self.config.depth, init=self._words)
        m.submodules.ram = ram
        m.d.comb += [
            read.eq((place != count) & ~reset),
            ram.read_address.eq(place),
            ram.read_enable.eq(1),
            self.start.eq(read & (place == 0)),
            self.valid.eq(came),
            self.data.eq(ram.ram_data),
            self.seal.eq(seal),
            self.last.eq(last),
        ]
        m.d.sync += [
            came.eq(read & ~self.stop),
            seal.eq(place >= self.config.share_bytes),
            last.eq(place == count - 1),
        ]
        with m.If(self.stop):
            m.d.sync += stopped.eq(1)
        with m.If(self.stop | stopped):
            m.d.sync += place.eq(count)
        with m.Elif(reset):
            m.d.sync += place.eq(0)
        with m.Elif(read):
            m.d.sync += place.eq(place + 1)
        return m
