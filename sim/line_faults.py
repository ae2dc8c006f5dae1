# SPDX-License-Identifier: BSD-2-Clause
"""A line that damages the bytes that pass, and says where it did."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cobs import cobs

from xnorforge.sw.protocol import CRC_BYTES, HEADER_BYTES, Frame

__all__ = ["BETWEEN", "FAULTS", "PARTS", "FaultyLine", "Landing"]

FAULTS = ("flip", "drop", "insert", "duplicate", "truncate", "swap", "garbage")
"""One bit of a byte; a byte lost; a random byte more; the last 1-19 bytes again; up to 40 bytes
lost, to the frame's zero at most; two neighbours exchanged; 20-599 random bytes more."""

BETWEEN = "between"
PARTS = ("code", "kind", "lease", "position", "payload", "crc", "delimiter", BETWEEN)
"""Of a frame on the line: COBS' first code, the content's parts, the zero; and outside of one."""

_ADDING = ("insert", "duplicate", "garbage")  # these put bytes before the one at their place
_RECENT_BYTES = 19


@dataclass
class Landing:
    """Where a fault landed, counted in the undamaged stream.

    byte: of the stream. frame: frames that had passed whole. index: byte of the frame. size: of
    the frame on the line, its zero included, and content: the frame, both None until its zero has
    passed; content stays None where that was none.
    """

    fault: str
    byte: int
    frame: int
    index: int
    size: int | None = None
    content: Frame | None = None

    @property
    def part(self) -> str:
        """One of PARTS, once the frame has passed."""
        if self.size is None:
            raise ValueError(f"The frame at byte {self.byte} has not passed yet")
        at_start = self.index == 0
        if at_start and (self.size == 1 or self.fault in _ADDING):
            return BETWEEN
        if at_start:
            return "code"
        if self.index == self.size - 1:
            return "delimiter"
        # Up to 254 bytes COBS puts one code in front and others where zeros were.
        place = self.index - 1
        if place >= self.size - 2 - CRC_BYTES:
            return "crc"
        return (
            ("kind", "lease", "position", "position")[place] if place < HEADER_BYTES else "payload"
        )


@dataclass
class FaultyLine:
    """Bytes in, bytes out; a fault at random places.

    rate: faults a byte. kinds: those of FAULTS to choose from. single: after a fault no other
    before `arm`, which is also what lets the first one come.

    Attributes
    ----------
    landings: every fault, in order. byte_count, frame_count: undamaged ones that have passed.
    on_frame: where set, called with each undamaged frame when it has passed whole.
    """

    rate: float
    seed: int
    kinds: tuple[str, ...] = FAULTS
    single: bool = False
    landings: list[Landing] = field(default_factory=list)
    on_frame: Callable[[Frame], None] | None = None

    def __post_init__(self) -> None:
        self.byte_count = self.frame_count = 0
        self._random = random.Random(self.seed)
        self._frame = bytearray()  # the undamaged frame that is passing
        self._open: list[Landing] = []  # faults in it
        self._recent = bytearray()  # for `duplicate`
        self._losing = 0  # for `truncate`: bytes still to lose
        self._held = b""  # for `swap`: comes out behind its successor
        self._gap: int | None = None  # bytes before the next fault
        if not self.single:
            self.arm()

    def arm(self) -> None:
        """Let the next fault come."""
        self._gap = int(self._random.expovariate(self.rate)) if self.rate else None

    @property
    def log(self) -> Counter[str]:
        """Faults so far, by kind."""
        return Counter(landing.fault for landing in self.landings)

    def __call__(self, data: bytes) -> bytes:
        """What comes out of the line for what goes in."""
        out = bytearray()
        place = 0
        while self._gap is not None and place + self._gap < len(data):
            self._pass(data[place : place + self._gap], out)
            place += self._gap
            place += self._fault(data[place : place + 1], out)
        self._pass(data[place:], out)
        if self._gap is not None:
            self._gap -= len(data) - place
        return bytes(out)

    def _fault(self, byte: bytes, out: bytearray) -> int:
        """Damage the line at a byte; how many bytes of the stream that took."""
        rng = self._random
        fault = rng.choice(self.kinds)
        landing = Landing(fault, self.byte_count, self.frame_count, len(self._frame))
        self.landings.append(landing)
        self._open.append(landing)
        self._gap = None
        if not self.single:
            self.arm()
        if fault in _ADDING:
            if fault == "insert":
                out.append(rng.randrange(256))
            elif fault == "garbage":
                out += rng.randbytes(rng.randrange(20, 600))
            else:
                out += self._recent[-rng.randrange(1, _RECENT_BYTES + 1) :] or byte
            # The next fault may come at this very byte, so that it is left to the next look.
            return 0
        self._follow(byte)
        if fault == "flip":
            out.append(byte[0] ^ 1 << rng.randrange(8))
        elif fault == "truncate":
            self._losing = rng.randrange(1, 40) if byte != b"\0" else 0
        elif fault == "swap":
            out += self._held
            self._held = byte
        return 1

    def _pass(self, data: bytes, out: bytearray) -> None:
        """Bytes without a new fault; what the one before left behind still acts."""
        self._follow(data)
        if self._losing:
            lost = data[: self._losing].split(b"\0")
            ends = len(lost) > 1
            size = len(lost[0]) + ends
            self._losing = 0 if ends else self._losing - size
            data = data[size:]
        # Two equal neighbours exchanged would be no fault: wait for another one.
        other = len(data) - len(data.lstrip(self._held)) if self._held else 0
        out += data[:other]
        if self._held and other < len(data):
            out += data[other : other + 1] + self._held
            self._held = b""
            other += 1
        out += data[other:]

    def _follow(self, data: bytes) -> None:
        """Know where in the undamaged stream we are."""
        self.byte_count += len(data)
        self._recent = (self._recent + data)[-_RECENT_BYTES:]
        *ended, rest = data.split(b"\0")
        for part in ended:
            self._frame += part
            self._close_frame()
        self._frame += rest

    def _close_frame(self) -> None:
        frame = None
        if self._frame:
            self.frame_count += 1
            frame = self._decoded()
            if frame is not None and self.on_frame is not None:
                self.on_frame(frame)
        for landing in self._open:
            landing.size, landing.content = len(self._frame) + 1, frame
        self._open.clear()
        self._frame.clear()

    def _decoded(self) -> Frame | None:
        try:
            return Frame.from_bytes(cobs.decode(bytes(self._frame)))
        except cobs.DecodeError:
            return None
