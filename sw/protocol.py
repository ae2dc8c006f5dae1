# SPDX-License-Identifier: BSD-2-Clause
"""Constants and layouts of the link: the one source for the circuits and the host.

    wire      COBS(content) 0x00                 content is at most 254 bytes
    content   kind·16+epoch | lease | position (2, little endian) | payload | CRC-32 (4)

Two streams of bytes run over it. Host to device: images (or a weight load), with go-back-N on
the byte position. Device to host: result records, numbered the same way; the host keeps every
image until its result has come, so a lost result is computed again and nothing is kept in the
device. `docs/link.md` describes every frame. Only the standard library is needed here.
"""

import enum
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass

__all__ = [
    "ADDRESS_SHELL",
    "CRC_BYTES",
    "DEFAULT_BAUD",
    "DEFAULT_BUFFER_BYTES",
    "DELIMITER",
    "HEADER_BYTES",
    "LABEL_BYTES",
    "MAGIC",
    "MAX_CONTENT_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_WINDOW_BYTES",
    "REGISTER_COUNT",
    "STATUS_MODEL_VALID",
    "STATUS_SECOND_VALID",
    "STATUS_SLOT",
    "STATUS_TWO_SLOTS",
    "VERSION",
    "WORD_BITS",
    "WORD_SPOILT",
    "AxiRegister",
    "Control",
    "Frame",
    "Identity",
    "Kind",
    "Register",
    "crc32",
    "record_bytes",
    "score_bytes",
    "window_bytes",
]

MAGIC = 0x786E6F72
"""Register 0 of every accelerator: "xnor"."""

VERSION = 1
"""Register 1: changes when a host and a device of different versions cannot work together."""

DEFAULT_BAUD = 1_000_000
DELIMITER = 0
MAX_CONTENT_BYTES = 254
HEADER_BYTES = 4
CRC_BYTES = 4
MAX_PAYLOAD_BYTES = MAX_CONTENT_BYTES - HEADER_BYTES - CRC_BYTES
LABEL_BYTES = 2

DEFAULT_BUFFER_BYTES = 1024
"""Receive buffer of the shell, where the plan says nothing else."""

MAX_WINDOW_BYTES = 28 * 1024
"""Positions have 16 bits; less than half of their range may be on the way."""

_HEADER = struct.Struct("<BBH")


class Kind(enum.IntEnum):
    """The upper half of a frame's first byte. Bit 3 is the direction: set from the device."""

    OPEN = 1  # host: start a lease; drops all images and results on the way
    IMAGE = 2  # host: image bytes at `position`
    WEIGHTS = 3  # host: bytes of a weight load at `position`
    WEIGHTS_BEGIN = 4  # host: the same, and the first of them begins a load
    READ = 5  # host: registers; position = address + 256 * count
    IMAGE_SECOND = 6  # host: as IMAGE, for the model in slot 1
    WEIGHTS_BEGIN_SECOND = 7  # host: as WEIGHTS_BEGIN, of a load for slot 1
    ACK = 9  # device: all before `position` taken
    NAK = 10  # device: a frame was not the next one: go back to `position`
    BUSY = 11  # device: a frame did not fit: go back to `position`
    RESULT = 12  # device: result bytes at `position`
    VALUES = 13  # device: registers read; position as in READ

    @property
    def from_device(self) -> bool:
        return bool(self & 8)


class Register(enum.IntEnum):
    """Registers of 32 bits: the core's 0-15, the shell's from 16."""

    MAGIC = 0
    VERSION = 1
    PLAN_HASH = 2
    WEIGHTS_DIGEST = 3
    STATUS = 4
    BUSY_CYCLES = 5
    STARVED_CYCLES = 6
    STALLED_CYCLES = 7
    FRAMES = 8
    SECOND_DIGEST = 9  # of slot 1, where there are two; WEIGHTS_DIGEST is slot 0's then
    WINDOW = 16  # buffer bytes; window bytes << 16
    IMAGE_BYTES = 17
    OUTPUT = 18  # classes; bytes of a score << 16
    # Frames spoilt on the line; data frames not the next or not fitting << 16. On AXI: images, and
    # weight loads << 16, that were shorter than they should be.
    ERRORS = 19


class AxiRegister(enum.IntEnum):
    """What the AXI ports have behind `Register`; they have no WINDOW."""

    BEAT_BYTES = 20  # of an image beat
    LOAD_BYTES = 21  # of a whole weight load
    CONTROL = 22  # write `Control`; reads as 0


class Control(enum.IntFlag):
    """Bits to write to CONTROL, which is answered when they have taken effect."""

    FLUSH = 1  # drop all images and results on the way; a packet of results that has begun ends
    RELOAD = 2  # the next weight byte is the first of a load


ADDRESS_SHELL = 16
REGISTER_COUNT = 20

WORD_BITS = 32
"""On AXI: of a score and of the label in a result packet."""

WORD_SPOILT = 1 << 16
"""On AXI: in the label's word of an image that was cut short, or flushed."""

STATUS_MODEL_VALID = 1  # slot 0 holds a model
STATUS_SECOND_VALID = 2  # slot 1 does
STATUS_SLOT = 4  # the slot that images go through
STATUS_TWO_SLOTS = 8


def crc32(data: bytes) -> int:
    """The CRC of frames and of weight loads: zlib's CRC-32."""
    return zlib.crc32(data)


def score_bytes(score_bits: int) -> int:
    """Bytes of one score in a result record, sign extended."""
    return -(-score_bits // 8)


def record_bytes(classes: int, score_size: int) -> int:
    """Bytes of a result record: the scores in class order, then the label, little endian."""
    return classes * score_size + LABEL_BYTES


def window_bytes(baud: int) -> int:
    """Unacknowledged bytes that keep a line busy while the host hears of them 40 ms late."""
    return max(2048, min(MAX_WINDOW_BYTES, -(-baud // 25_000) * 100))


@dataclass(frozen=True)
class Frame:
    """One frame's content without its CRC.

    kind: its meaning. epoch (0-15): in data frames how often the host went back, echoed by the
    device; in READ a tag, echoed. lease: 1-255, chosen by OPEN; 0 before any. position: bytes
    before this payload in its stream, modulo 2^16.
    """

    kind: Kind
    epoch: int
    lease: int
    position: int
    payload: bytes = b""

    def to_bytes(self) -> bytes:
        """The content: header, payload, CRC."""
        if len(self.payload) > MAX_PAYLOAD_BYTES:
            raise ValueError(
                f"A frame carries at most {MAX_PAYLOAD_BYTES} bytes, not {len(self.payload)}"
            )
        head = _HEADER.pack(self.kind << 4 | self.epoch, self.lease, self.position & 0xFFFF)
        body = head + self.payload
        return body + crc32(body).to_bytes(CRC_BYTES, "little")

    @classmethod
    def from_bytes(cls, content: bytes) -> "Frame | None":
        """The frame in a content, or None where length, CRC or kind is not that of a frame."""
        if not HEADER_BYTES + CRC_BYTES <= len(content) <= MAX_CONTENT_BYTES:
            return None
        body, crc = content[:-CRC_BYTES], content[-CRC_BYTES:]
        if crc32(body) != int.from_bytes(crc, "little"):
            return None
        first, lease, position = _HEADER.unpack_from(body)
        if first >> 4 not in Kind.__members__.values():
            return None
        return cls(Kind(first >> 4), first & 15, lease, position, body[HEADER_BYTES:])


@dataclass(frozen=True)
class Identity:
    """What a device says of itself: all its registers, by name where the driver needs them."""

    words: tuple[int, ...]

    def __getitem__(self, register: Register) -> int:
        return self.words[register]

    @property
    def slots(self) -> int:
        """Models that the device holds at once."""
        return 2 if self[Register.STATUS] & STATUS_TWO_SLOTS else 1

    def digest(self, slot: int) -> int | None:
        """Digest of the model in a slot; None where there is no whole one."""
        valid, register = (
            (STATUS_MODEL_VALID, Register.WEIGHTS_DIGEST),
            (STATUS_SECOND_VALID, Register.SECOND_DIGEST),
        )[slot]
        return self[register] if self[Register.STATUS] & valid else None

    def slot_of(self, digest: int) -> int | None:
        """The slot that holds a model, if any does."""
        return next((slot for slot in range(self.slots) if self.digest(slot) == digest), None)

    def slot_for_load(self, kept: Collection[int] = ()) -> int:
        """Where a load destroys least: an empty slot, or one that no image went through last.

        kept: digests of models that must stay.
        """
        slots = [slot for slot in range(self.slots) if self.digest(slot) not in kept]
        active = int(bool(self[Register.STATUS] & STATUS_SLOT))
        return min(slots or [0], key=lambda slot: (self.digest(slot) is not None, slot == active))

    @property
    def buffer_bytes(self) -> int:
        return self[Register.WINDOW] & 0xFFFF

    @property
    def window_bytes(self) -> int:
        return self[Register.WINDOW] >> 16

    @property
    def classes(self) -> int:
        return self[Register.OUTPUT] & 0xFFFF

    @property
    def score_bytes(self) -> int:
        return self[Register.OUTPUT] >> 16 & 0xFF
