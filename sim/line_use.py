# SPDX-License-Identifier: BSD-2-Clause
"""How much of the line images fill: a stream through connection and Verilog, in simulated time.

Measured while images stream, from a time when results come to one when images still go out: bits
of the line in which a byte was on rx or tx, and what of the bytes on rx was image, once each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

from xnorforge.gen.bundle import Bundle
from xnorforge.sim.line_faults import FaultyLine
from xnorforge.sim.link_faults import Subject
from xnorforge.sim.lockstep import BYTE_BITS, LockstepBoard, SimulatedSerial
from xnorforge.sw.connection import Connection
from xnorforge.sw.manifest import Manifest
from xnorforge.sw.protocol import Frame, Kind

__all__ = ["LineUse", "measure_line_use"]

_BACKLOG_BYTES = 8192  # as the driver's
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class LineUse:
    """rx_busy, tx_busy: share of the bit times in which the line to the board, to the host was
    busy. payload: share of the bytes on rx that was image payload sent for the first time.
    images_per_second: of simulated time. limit: the line's, were all its bytes image. seconds: of
    simulated time that were measured. baud: the line's, clock / divisor. wrong: records that
    differ from the reference's."""

    rx_busy: float
    tx_busy: float
    payload: float
    images_per_second: float
    limit: float
    seconds: float
    baud: float
    wrong: int


def measure_line_use(
    bundle: Bundle,
    subject: Subject,
    *,
    count: int,
    latency_s: float = 0.016,
    packet_bytes: int | None = None,
    fast: bool = False,
) -> LineUse:
    """Stream `count` images over the line at the bundle's own clock and baud rate.

    subject: of the bundle; its images go round. latency_s, packet_bytes: of the adapter, as of
    SimulatedSerial. fast: as of LockstepBoard. Raises the errors of Connection, and ValueError for
    too few images.
    """
    manifest = Manifest.read(bundle.path)
    seen = _Payload()
    monitor = FaultyLine(0.0, 0, on_frame=seen)
    with LockstepBoard(bundle.path, fast=fast) as board:
        port = SimulatedSerial(
            board,
            manifest.clock_hz,
            latency_s=latency_s,
            packet_bytes=packet_bytes,
            up=monitor,
        )
        connection = port.connection(manifest, where="a simulated line", timeout=_TIMEOUT_S)
        connection.start()
        wrong = 0
        begin: tuple[int, ...] = ()
        end: tuple[int, ...] = ()
        stream = _records(connection, subject, count)
        for done, (record, right) in enumerate(stream, 1):
            wrong += record != right
            if 10 * done >= count and connection.link.unsent_bytes:
                end = (board.cycles, board.bytes_in, board.bytes_out, seen.byte_count)
                begin = begin or end
        if begin == end:
            raise ValueError(f"{count} images are too few to measure the line: take more")
        cycles, rx, tx, payload = (late - early for early, late in zip(begin, end, strict=True))
        seconds = cycles / manifest.clock_hz
        byte_cycles = BYTE_BITS * board.divisor
        image_bytes = manifest.image.image_bytes
        baud = manifest.clock_hz / board.divisor
        return LineUse(
            rx_busy=min(1.0, rx * byte_cycles / cycles),
            tx_busy=min(1.0, tx * byte_cycles / cycles),
            payload=payload / rx,
            images_per_second=payload / image_bytes / seconds,
            limit=baud / BYTE_BITS / image_bytes,
            seconds=seconds,
            baud=baud,
            wrong=wrong,
        )


class _Payload:
    """Counts image bytes that pass for the first time."""

    def __init__(self) -> None:
        self.byte_count = 0
        self._end = 0  # of what has passed, modulo 2^16

    def __call__(self, frame: Frame) -> None:
        if frame.kind is Kind.OPEN:
            self._end = 0
        elif frame.kind is Kind.IMAGE:
            new = (frame.position + len(frame.payload) - self._end) & 0xFFFF
            if new < 0x8000:
                self.byte_count += new
                self._end += new


def _records(connection: Connection, subject: Subject, count: int) -> Iterator[tuple[bytes, bytes]]:
    """Each record that comes, with the reference's."""
    link = connection.link
    images = cycle(subject.packed)
    right = cycle(subject.records)
    submitted = done = 0
    while done < count:
        while submitted < count and link.unsent_bytes < _BACKLOG_BYTES:
            link.submit(next(images))
            submitted += 1
        connection.step()
        while link.records:
            done += 1
            yield link.records.popleft(), next(right)
