# SPDX-License-Identifier: BSD-2-Clause
"""A board in plain Python: the shell as docs/link.md describes it, with any function as core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from xnorforge.sw.link import Deframer, encode
from xnorforge.sw.protocol import (
    MAGIC,
    STATUS_MODEL_VALID,
    STATUS_SECOND_VALID,
    STATUS_SLOT,
    STATUS_TWO_SLOTS,
    VERSION,
    Frame,
    Kind,
    Register,
    crc32,
    record_bytes,
)

__all__ = ["Device", "Shape"]


@dataclass
class Shape:
    """What the device says of itself."""

    image_bytes: int = 8
    classes: int = 3
    score_bytes: int = 2
    plan_hash: int = 0x1234ABCD
    buffer_bytes: int = 1024
    window_bytes: int = 4000
    magic: int = MAGIC
    version: int = VERSION


@dataclass
class Device:
    """Bytes in, bytes out.

    core: (image, digest of the weights) -> a result record's scores and label as bytes.
    slots: images that may wait in the core for `step`; None computes at once. models: it holds at
    once, 1 or 2; the second is none at first.
    """

    core: Callable[[bytes, int], bytes]
    shape: Shape = field(default_factory=Shape)
    weights_digest: int = 0
    slots: int | None = None
    models: int = 1
    garble_digest: bool = False
    lease: int = 0

    def __post_init__(self) -> None:
        self.valid = True
        self.second_digest: int | None = None
        self.image_slot = self.load_slot = 0
        self.frames = self.misfits = self.overruns = self.busy_cycles = 0
        self.deframer = Deframer()
        self.load = bytearray()
        self.power_cycle()

    def power_cycle(self) -> None:
        self._open(0)

    def _open(self, lease: int) -> None:
        self.lease = lease
        self.expected = self.consumed = self.sent = 0
        self.ring, self.image = bytearray(), bytearray()
        self.queue: list[tuple[bytes, int]] = []  # images and their slots
        self.mode = Kind.IMAGE
        self.first = False

    def feed(self, data: bytes) -> bytes:
        out = bytearray()
        for frame in self.deframer.feed(data):
            out += self._frame(frame)
            out += self.step() if self.slots is None else b""
        return bytes(out)

    def _frame(self, frame: Frame) -> bytes:
        kind = frame.kind
        if kind is Kind.READ:
            address, count = frame.position & 255, frame.position >> 8
            words = [self._register(address + k).to_bytes(4, "little") for k in range(count)]
            position = frame.position
            return encode(Frame(Kind.VALUES, frame.epoch, self.lease, position, b"".join(words)))
        if kind is Kind.OPEN:
            if frame.lease != self.lease:
                self._open(frame.lease)
            return self._reply(Kind.ACK, frame.epoch)
        begins = {Kind.WEIGHTS_BEGIN: 0, Kind.WEIGHTS_BEGIN_SECOND: 1}
        images = {Kind.IMAGE: 0, Kind.IMAGE_SECOND: 1}
        if self.models == 1:
            del begins[Kind.WEIGHTS_BEGIN_SECOND], images[Kind.IMAGE_SECOND]
        if kind not in (*images, *begins, Kind.WEIGHTS):
            return b""
        if frame.lease != self.lease or frame.position != self.expected & 0xFFFF:
            self.misfits += 1
            return self._reply(Kind.NAK, frame.epoch)
        mode = kind if kind in images else Kind.WEIGHTS
        fits = len(self.ring) + len(frame.payload) + 4 <= self.shape.buffer_bytes
        if not fits or (self.ring and kind not in (self.mode,)):
            self.overruns += 1
            return self._reply(Kind.BUSY, frame.epoch)
        self.mode = mode
        self.image_slot = images.get(kind, self.image_slot)
        self.load_slot = begins.get(kind, self.load_slot)
        self.first |= kind in begins
        self.ring += frame.payload
        self.expected += len(frame.payload)
        self._drain()
        return self._reply(Kind.ACK, frame.epoch)

    def _reply(self, kind: Kind, epoch: int) -> bytes:
        where = (self.consumed & 0xFFFF, self.sent & 0xFFFF)
        payload = b"".join(position.to_bytes(2, "little") for position in where)
        return encode(Frame(kind, epoch, self.lease, self.expected, payload))

    def _drain(self) -> None:
        """Ring to core, as far as the core takes it."""
        if self.mode is Kind.WEIGHTS:
            self._take_weights(bytes(self.ring))
            self.consumed += len(self.ring)
            self.ring.clear()
        while (
            self.ring
            and self._digest(self.image_slot) is not None
            and (self.slots is None or len(self.queue) < self.slots)
        ):
            size = min(len(self.ring), self.shape.image_bytes - len(self.image))
            self.image += self.ring[:size]
            del self.ring[:size]
            self.consumed += size
            if len(self.image) == self.shape.image_bytes:
                self.queue.append((bytes(self.image), self.image_slot))
                self.image.clear()

    def _take_weights(self, data: bytes) -> None:
        if data and self.first:
            self.load.clear()
            self.first = False
            if self.load_slot:
                self.second_digest = None
            else:
                self.valid = False
        self.load += data
        if crc32(bytes(self.load[:-4])).to_bytes(4, "little") == self.load[-4:]:
            digest = int.from_bytes(self.load[-4:], "little")
            if self.load_slot:
                self.second_digest = digest
            else:
                self.valid, self.weights_digest = True, digest

    def _digest(self, slot: int) -> int | None:
        """Digest of a slot's model; None where it has none."""
        if slot:
            return self.second_digest
        return self.weights_digest if self.valid else None

    def step(self) -> bytes:
        """Compute what waits, one frame a record; with `slots`, one record."""
        out = bytearray()
        while self.queue:
            image, slot = self.queue.pop(0)
            record = self.core(image, self._digest(slot) or 0)
            self._drain()
            for start in range(0, len(record), 200):
                part = record[start : start + 200]
                out += encode(Frame(Kind.RESULT, 0, self.lease, self.sent, part))
                self.sent += len(part)
            self.frames += 1
            self.busy_cycles += 100
            if self.slots is not None:
                break
        return bytes(out)

    def _register(self, address: int) -> int:
        shape = self.shape
        words: dict[int, int] = {
            Register.MAGIC: shape.magic,
            Register.VERSION: shape.version,
            Register.PLAN_HASH: shape.plan_hash,
            Register.WEIGHTS_DIGEST: self.weights_digest ^ self.garble_digest,
            Register.STATUS: self._status(),
            Register.SECOND_DIGEST: self.second_digest or 0,
            Register.BUSY_CYCLES: self.busy_cycles & 0xFFFFFFFF,
            Register.FRAMES: self.frames,
            Register.WINDOW: shape.window_bytes << 16 | shape.buffer_bytes,
            Register.IMAGE_BYTES: shape.image_bytes,
            Register.OUTPUT: shape.score_bytes << 16 | shape.classes,
            Register.ERRORS: (self.misfits + self.overruns) << 16 | self.deframer.bad,
        }
        return words.get(address, 0)

    def _status(self) -> int:
        status = STATUS_MODEL_VALID * self.valid
        if self.models > 1:
            status |= STATUS_TWO_SLOTS | STATUS_SLOT * self.image_slot
            status |= STATUS_SECOND_VALID * (self.second_digest is not None)
        return status

    @property
    def record_bytes(self) -> int:
        return record_bytes(self.shape.classes, self.shape.score_bytes)
