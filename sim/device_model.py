# SPDX-License-Identifier: BSD-2-Clause
"""A board in plain Python: the shell as docs/link.md describes it, with any function as core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from xnorforge.sw.link import Deframer, encode
from xnorforge.sw.protocol import (
    MAGIC,
    STATUS_MODEL_VALID,
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
    slots: images that may wait in the core for `step`; None computes at once.
    """

    core: Callable[[bytes, int], bytes]
    shape: Shape = field(default_factory=Shape)
    weights_digest: int = 0
    slots: int | None = None
    garble_digest: bool = False
    lease: int = 0

    def __post_init__(self) -> None:
        self.valid = True
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
        self.queue: list[bytes] = []
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
        if kind not in (Kind.IMAGE, Kind.WEIGHTS, Kind.WEIGHTS_BEGIN):
            return b""
        if frame.lease != self.lease or frame.position != self.expected & 0xFFFF:
            self.misfits += 1
            return self._reply(Kind.NAK, frame.epoch)
        mode = Kind.IMAGE if kind is Kind.IMAGE else Kind.WEIGHTS
        fits = len(self.ring) + len(frame.payload) + 4 <= self.shape.buffer_bytes
        if not fits or (self.ring and kind not in (self.mode,)):
            self.overruns += 1
            return self._reply(Kind.BUSY, frame.epoch)
        self.mode = mode
        self.first |= kind is Kind.WEIGHTS_BEGIN
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
        if self.mode is not Kind.IMAGE:
            self._take_weights(bytes(self.ring))
            self.consumed += len(self.ring)
            self.ring.clear()
        while self.ring and self.valid and (self.slots is None or len(self.queue) < self.slots):
            size = min(len(self.ring), self.shape.image_bytes - len(self.image))
            self.image += self.ring[:size]
            del self.ring[:size]
            self.consumed += size
            if len(self.image) == self.shape.image_bytes:
                self.queue.append(bytes(self.image))
                self.image.clear()

    def _take_weights(self, data: bytes) -> None:
        if data and self.first:
            self.load.clear()
            self.first = self.valid = False
        self.load += data
        if crc32(bytes(self.load[:-4])).to_bytes(4, "little") == self.load[-4:]:
            self.valid = True
            self.weights_digest = int.from_bytes(self.load[-4:], "little")

    def step(self) -> bytes:
        """Compute what waits, one frame a record; with `slots`, one record."""
        out = bytearray()
        while self.queue:
            record = self.core(self.queue.pop(0), self.weights_digest)
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
            Register.STATUS: STATUS_MODEL_VALID * self.valid,
            Register.BUSY_CYCLES: self.busy_cycles & 0xFFFFFFFF,
            Register.FRAMES: self.frames,
            Register.WINDOW: shape.window_bytes << 16 | shape.buffer_bytes,
            Register.IMAGE_BYTES: shape.image_bytes,
            Register.OUTPUT: shape.score_bytes << 16 | shape.classes,
            Register.ERRORS: (self.misfits + self.overruns) << 16 | self.deframer.bad,
        }
        return words.get(address, 0)

    @property
    def record_bytes(self) -> int:
        return record_bytes(self.shape.classes, self.shape.score_bytes)
