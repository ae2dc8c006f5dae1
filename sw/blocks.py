# SPDX-License-Identifier: BSD-2-Clause
"""Blocks: how images, weights and results travel in whole DMA buffers, as over PCIe.

Both directions move blocks of 8 KiB, 512 beats of 16 bytes, through rings of buffers in the host's
memory that the card reads and writes in a circle, by itself.

    host to card    header beat, then `size` bytes of payload; the rest of the block is ignored
    header          number | kind + slot << 8 | size | MAGIC               (words, little endian)
    card to host    result words from the block's start, zeros after them, a trailer beat at its end
    trailer         number | count of words | blocks taken from the host | MAGIC

    number          index (24 bits) + epoch << 24

The host begins a lease by writing its epoch to LEASE. The card then takes, of all blocks that pass
by, those of this epoch with the index that it waits for, from 0 on; it lets blocks pass only while
it has taken fewer than SENT says. So a block that was read before the host had written it is
dropped, and the host puts it into a later buffer. Indices to the host count from when the DMA was
started and never leave one out; the card begins a block only while its index is not CREDIT, and a
block carries the epoch in which it was begun. `docs/pcie.md` has the rules in full. Only the
standard library is needed here.
"""

import enum
import struct
from dataclasses import dataclass

from xnorforge.sw.protocol import MAGIC

__all__ = [
    "BEAT_BYTES",
    "BLOCK_BEATS",
    "BLOCK_BYTES",
    "BLOCK_WORDS",
    "INDEX_BITS",
    "PAYLOAD_BYTES",
    "BlockKind",
    "BlockRegister",
    "Trailer",
    "header",
    "number",
]

BEAT_BYTES = 16
BLOCK_BYTES = 8192
"""A DMA buffer of LitePCIe's Linux driver."""

BLOCK_BEATS = BLOCK_BYTES // BEAT_BYTES
PAYLOAD_BYTES = BLOCK_BYTES - BEAT_BYTES
"""Of a block to the card, at most."""

BLOCK_WORDS = PAYLOAD_BYTES // 4
"""Result words of a block to the host, at most."""

INDEX_BITS = 24

_BEAT = struct.Struct("<IIII")


class BlockKind(enum.IntEnum):
    """What a block to the card holds."""

    IMAGES = 1  # images in whole beats of their own, one after the other; one may go on in the next
    WEIGHTS = 2  # bytes of a weight load


class BlockRegister(enum.IntEnum):
    """Registers of the DMA bridge, of 32 bits: at byte address 4096 + 4 * number."""

    LEASE = 0  # write: an epoch (8 bits) begins; nothing of an older one passes after it
    SENT = 1  # write: blocks that the host has sent in this lease (24 bits)
    CREDIT = 2  # write: index before which the card may begin blocks (24 bits)
    TAKEN = 3  # blocks taken in this lease (24 bits)
    DROPPED = 4  # blocks that passed by and were not the next one


def number(index: int, epoch: int) -> int:
    """A block's number."""
    return (index & (1 << INDEX_BITS) - 1) | epoch << INDEX_BITS


def header(block: int, kind: BlockKind, slot: int, size: int) -> bytes:
    """The first beat of a block to the card; block: its `number`, size: bytes of payload."""
    return _BEAT.pack(block, kind | slot << 8, size, MAGIC)


@dataclass(frozen=True)
class Trailer:
    """The last beat of a block to the host."""

    number: int
    words: int
    taken: int

    @classmethod
    def from_bytes(cls, beat: bytes) -> "Trailer | None":
        """None where the beat is none, as in a buffer that was not written yet."""
        block, words, taken, magic = _BEAT.unpack(beat)
        return cls(block, words, taken) if magic == MAGIC and words <= BLOCK_WORDS else None

    def to_bytes(self) -> bytes:
        return _BEAT.pack(self.number, self.words, self.taken, MAGIC)
