# SPDX-License-Identifier: BSD-2-Clause
"""The host's end of the link on a serial line: bytes and times in, bytes out.

    images --> [waiting for a result] --> frames --> line --> ... --> line --> frames --> records

Every image is kept until its result has come. What the line damages is sent again: data from the
position the device names (go-back-N); a lost result by a new lease that begins with its image.
"""

import random
from collections import deque
from collections.abc import Callable

from cobs import cobs

from xnorforge.sw.errors import DeviceFaultError
from xnorforge.sw.lease import Lease, LinkCounts
from xnorforge.sw.protocol import (
    CRC_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_WINDOW_BYTES,
    Frame,
    Kind,
)
from xnorforge.sw.transport import Transport

__all__ = ["Deframer", "HostLink", "LinkCounts", "encode"]

READ_S = 0.02  # longest wait for bytes before the time is looked at again
PROBE_S = 0.05  # first wait before the device is asked where it stands; doubles
MAX_PROBE_S = 1.0
SILENCE_S = 3.0  # an open lease that gives no sign so long is begun anew
_LONGEST = 512  # bytes without a zero that are still kept


def encode(frame: Frame) -> bytes:
    """A frame as it goes over the line."""
    return cobs.encode(frame.to_bytes()) + b"\0"


class Deframer:
    """Line bytes to frames. `bad` counts what was between two zeros and no frame."""

    def __init__(self) -> None:
        self.bad = 0
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        self._rest += data
        *parts, self._rest = self._rest.split(b"\0")
        if len(self._rest) > _LONGEST:
            self._rest = self._rest[-_LONGEST:]
        frames = []
        for part in filter(None, parts):
            try:
                frame = Frame.from_bytes(cobs.decode(bytes(part)))
            except cobs.DecodeError:
                frame = None
            if frame is None:
                self.bad += 1
            else:
                frames.append(frame)
        return frames


class HostLink(Lease):
    """A `Lease` on a serial line.

    The owner calls `transmit` for bytes to write and `receive` with what was read, often enough,
    with a clock of its own. Images go in by `submit`, records come out of `records`, in order.

    Parameters
    ----------
    seed : for the choice of lease numbers; None for a random one.

    Raises
    ------
    DeviceFaultError: from `receive`, when the device answers what was never asked.
    """

    backlog_bytes = 8192
    """Images are packed this far ahead of the line."""

    # What `_begin_lease` sets; positions: 0 <= consumed <= acked <= next <= highest.
    _out: bytearray
    _consumed: int
    _acked: int
    _next: int
    _highest: int
    _credit: float
    _received: int
    _record: bytearray

    def __init__(self, *, seed: int | None = None) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._deframer = Deframer()
        self._record_bytes = 1
        self._buffer = self._window = 1024
        self._runs: deque[tuple[int, int]] = deque()  # of images of one model: it, and their end
        self._lease = 0
        self._device_lease = 0
        self._epoch = 0
        self._begin_lease()
        self._timer = 0.0
        self._probe = PROBE_S
        self._tag = 0

    # --- what the owner asks for --------------------------------------------------------------

    def configure(self, record_bytes: int, buffer_bytes: int, window_bytes: int) -> None:
        """Sizes the device told."""
        self._record_bytes = record_bytes
        self._buffer = buffer_bytes
        self._window = max(buffer_bytes, min(window_bytes, MAX_WINDOW_BYTES))

    def open(
        self, now: float, *, load: bytes | None = None, slot: int = 0, held: bool = False
    ) -> None:
        """Begin a lease that sends the images waiting, or with `load` loads weights to a slot.

        held: send no data before `release`, to look at registers that no other host can change.
        """
        lease = self._lease
        while lease in (0, self._lease, self._device_lease):
            lease = self._random.randrange(1, 256)
        self._lease = lease
        self._load, self._load_slot = load, slot
        self._held = held
        self.stranded = False
        self._begin_lease()
        self.counts.leases += 1
        self._awake_at = self._timer = now
        self._probe = PROBE_S

    def submit(self, image: bytes) -> None:
        """Queue an image; its record will be appended to `records`."""
        self._waiting.append((image, self.model))
        self._append(image, self.model)

    def _append(self, image: bytes, model: int) -> None:
        self._out += image
        end = self._acked + len(self._out)
        if self._runs and self._runs[-1][0] == model:
            self._runs.pop()
        self._runs.append((model, end))

    def drop(self) -> None:
        """Forget images and lease; the next use begins with `open`."""
        self._waiting.clear()
        self.records.clear()
        self.detach()

    def detach(self) -> None:
        """Leave the lease but keep the images."""
        if self._lease:
            self._lease, self._device_lease = 0, self._lease
        self._load = self._request = None
        self.stranded = False
        self._begin_lease()

    def request(self, address: int, count: int, now: float) -> None:
        """Ask for registers; `values` is None until they have come."""
        self.values = None
        self._tag = (self._tag + 1) & 15
        self._request = (address, count)
        self._timer, self._probe = now, PROBE_S

    @property
    def unsent_bytes(self) -> int:
        return len(self._out) - (self._next - self._acked)

    @property
    def can_send(self) -> bool:
        """`transmit` has data to give at once."""
        return self._opened and not self.stranded and self._sendable() > 0

    @property
    def delivered(self) -> bool:
        """All data of the lease has reached the core."""
        return self._opened and not self._out and self._consumed == self._acked

    # --- out ------------------------------------------------------------------------------------

    def transmit(self, now: float, limit: int = 4096) -> bytes:
        """Bytes to write now, about `limit` at most."""
        out = bytearray()
        due = now >= self._timer
        if self._request and due:
            address, count = self._request
            out += b"\0" + encode(Frame(Kind.READ, self._tag, 0, address | count << 8))
            self._restart_timer(now)
        if self.stranded:
            pass
        elif self._lease and not self._opened:
            if due:
                out += b"\0" + encode(Frame(Kind.OPEN, self._epoch, self._lease, 0))
                self._restart_timer(now)
        elif self._lease:
            while len(out) < limit and (size := self._sendable()):
                start = self._next - self._acked
                self._send_data(out, bytes(self._out[start : start + size]))
            if out:
                self._timer = max(self._timer, now + self._probe)
            elif due and not self._quiet:
                if now - max(self.heard_at, self._awake_at) > SILENCE_S:
                    self.stranded = True
                else:
                    out += b"\0"
                    self._send_data(out, b"")
                    self._restart_timer(now)
        self.counts.bytes_sent += len(out)
        return bytes(out)

    def exchange(self, line: Transport, clock: Callable[[], float]) -> None:
        """Write and read once. Raises TransportLost."""
        out = self.transmit(clock())
        if out:
            line.write(out)
        data = line.read(0.0 if self.can_send else READ_S)
        if data:
            self.receive(data, clock())

    def _sendable(self) -> int:
        """Payload bytes of the next frame; 0 to wait."""
        size = min(self.unsent_bytes, MAX_PAYLOAD_BYTES)
        if self._load is None and size:
            size = min(size, self._run[1] - self._next)
        edge = min(self._acked + self._window, self._consumed + int(self._credit))
        return size if self._next + size <= edge and not self._held else 0

    @property
    def _run(self) -> tuple[int, int]:
        """Model and end of the images at `_next`; past all of them, those of the last."""
        return next((run for run in self._runs if run[1] > self._next), self._runs[-1])

    def _kind(self, payload: bytes) -> Kind:
        """Of a data frame at `_next`; one without payload only asks, and begins no load."""
        if self._load is None:
            slot = self.slots.get(self._run[0], 0) if self._runs else 0
            return (Kind.IMAGE, Kind.IMAGE_SECOND)[slot]
        if self._next == 0 and payload:
            return (Kind.WEIGHTS_BEGIN, Kind.WEIGHTS_BEGIN_SECOND)[self._load_slot]
        return Kind.WEIGHTS

    @property
    def _quiet(self) -> bool:
        """Nothing is awaited."""
        return (not self._waiting and (self._load is None or self.delivered)) or self._held

    def _send_data(self, out: bytearray, payload: bytes) -> None:
        out += encode(Frame(self._kind(payload), self._epoch, self._lease, self._next, payload))
        self.counts.payload_sent += len(payload)
        self.counts.payload_resent += min(len(payload), self._highest - self._next)
        self._next += len(payload)
        self._highest = max(self._highest, self._next)

    def _restart_timer(self, now: float) -> None:
        self._timer = now + self._probe
        self._probe = min(2 * self._probe, MAX_PROBE_S)

    # --- in -------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes that were read."""
        self.counts.bytes_received += len(data)
        for frame in self._deframer.feed(data):
            if frame.kind.from_device:
                self._take(frame, now)
        self.counts.bad_frames = self._deframer.bad

    def _take(self, frame: Frame, now: float) -> None:
        if frame.kind is Kind.VALUES:
            self._device_lease = frame.lease
            self._take_values(frame, now)
        elif not self._lease:
            return
        elif frame.lease != self._lease:
            self._device_lease = frame.lease
            # Replies to an older lease come before the one to OPEN, never after it.
            self.stranded = self._opened and frame.kind is not Kind.RESULT
        elif frame.kind is Kind.RESULT:
            self.heard_at = now
            self._take_result(frame, now)
        elif len(frame.payload) == 4:
            self.heard_at = now
            self._opened = True
            self._take_reply(frame, now)

    def _take_values(self, frame: Frame, now: float) -> None:
        if self._request is None or frame.epoch != self._tag:
            return
        address, count = self._request
        if frame.position != address | count << 8 or len(frame.payload) != 4 * count:
            return
        words = [frame.payload[4 * k : 4 * k + 4] for k in range(count)]
        self.values = tuple(int.from_bytes(word, "little") for word in words)
        self._request = None
        self.heard_at = now

    def _take_reply(self, frame: Frame, now: float) -> None:
        """ACK, NAK, BUSY: position taken; bytes out of the ring; result bytes sent."""
        newly = (frame.position - self._acked) & 0xFFFF
        if newly > self._highest - self._acked:
            return  # an old reply that came twice
        if newly:
            self._acked += newly
            del self._out[:newly]
            while len(self._runs) > 1 and self._runs[0][1] <= self._acked:
                self._runs.popleft()
            self._next = max(self._next, self._acked)
            self._credit = min(self._credit + newly / 8, self._window)
            self._made_progress(now)
        in_ring = (frame.position - int.from_bytes(frame.payload[:2], "little")) & 0xFFFF
        if in_ring > self._buffer:
            in_ring = 0  # more left the ring since the position was read
        if self._acked - in_ring > self._consumed:
            self._consumed = self._acked - in_ring
            self._made_progress(now)
        if frame.kind is not Kind.ACK and frame.epoch == self._epoch and self._next > self._acked:
            self.counts.went_back += 1
            self._next = self._acked
            self._epoch = (self._epoch + 1) & 15
            if frame.kind is Kind.BUSY:
                self._credit = max(self._buffer - CRC_BYTES, self._credit / 2)
        missing = (int.from_bytes(frame.payload[2:], "little") - self._received) & 0xFFFF
        if 0 < missing < 0x8000:
            self._begin_anew(now)

    def _take_result(self, frame: Frame, now: float) -> None:
        ahead = (frame.position - self._received) & 0xFFFF
        if ahead >= 0x8000:
            return  # came twice
        if ahead:
            self._begin_anew(now)
            return
        self._received += len(frame.payload)
        self._record += frame.payload
        while len(self._record) >= self._record_bytes:
            if not self._waiting:
                raise DeviceFaultError(
                    "The device gave more results than it got images: load its bitstream again"
                )
            self.records.append(bytes(self._record[: self._record_bytes]))
            del self._record[: self._record_bytes]
            self._waiting.popleft()
        self._made_progress(now)

    def _begin_anew(self, now: float) -> None:
        """A result was lost on the line: ask again with its image."""
        self.open(now, load=self._load)

    def _made_progress(self, now: float) -> None:
        self.progress_at = now
        self._probe = PROBE_S
        self._timer = now + self._probe

    def _begin_lease(self) -> None:
        self._opened = False
        self._out = bytearray(self._load or b"")
        self._runs.clear()
        self._consumed = 0
        self._acked = 0
        self._next = 0
        self._highest = 0
        self._credit = float(self._window)  # bytes that may be sent and not out of the ring
        self._received = 0  # result bytes
        self._record = bytearray()
        if self._load is None:
            for image, model in self._waiting:
                self._append(image, model)
