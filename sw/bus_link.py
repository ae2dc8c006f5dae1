# SPDX-License-Identifier: BSD-2-Clause
"""The host's end of a link over a bus, as `sw.connection` uses it: images in, records out.

    images --> [waiting for a result] --> bus --> packets --> records

A bus loses nothing but in a reset. Every image is kept until its result has come all the same, so
that a new lease can send it again: after a reset, a packet that was cut off, or long silence.
"""

from collections.abc import Callable
from itertools import islice

from xnorforge.sw.bus import Bus, packet_bytes, spoilt
from xnorforge.sw.errors import DeviceFaultError
from xnorforge.sw.lease import Lease
from xnorforge.sw.protocol import LABEL_BYTES, Register

__all__ = ["BusLink"]

_WAIT_S = 0.02  # longest wait for results before the time is looked at again
_IMAGES = 4096  # offered in one go


class BusLink(Lease):
    """One end of a lease over a bus. Members as `HostLink` has them.

    Parameters
    ----------
    classes : of a result
    silence : seconds without data after which an open lease is begun anew
    """

    backlog_bytes = 1 << 17

    def __init__(self, *, classes: int, silence: float) -> None:
        super().__init__()
        self._packet_bytes = packet_bytes(classes)
        self._silence = silence
        self._sent = 0  # the first so many of those that wait, in this lease
        self._furthest = 0  # and in any
        self._unsent_bytes = 0
        self._loaded = 0
        self._least: tuple[float, int] = (0, 0)  # of a load, bytes and pieces still to go
        self._wanted = self._delivered = False
        self._moved_at = 0.0  # data, last

    # --- what the owner asks for --------------------------------------------------------------

    def open(
        self, now: float, *, load: bytes | None = None, slot: int = 0, held: bool = False
    ) -> None:
        """Begin a lease that sends the images waiting, or with `load` loads weights to a slot."""
        if load is not self._load:
            self._least = (float("inf"), 0)
        self._load, self._load_slot = load, slot
        self._wanted, self._opened, self._held = True, False, held
        self.stranded = self._delivered = False
        self._sent = self._loaded = 0
        self._unsent_bytes = sum(len(image) for image, _ in self._waiting)
        self.counts.leases += 1
        self._awake_at = now

    def submit(self, image: bytes) -> None:
        """Queue an image; its record will be appended to `records`."""
        self._waiting.append((image, self.model))
        self._unsent_bytes += len(image)

    def drop(self) -> None:
        """Forget images and lease; the next use begins with `open`."""
        self._waiting.clear()
        self._furthest = 0
        self.records.clear()
        self.detach()

    def detach(self) -> None:
        """Leave the lease but keep the images."""
        self._wanted = self._opened = False
        self._load = self._request = None
        self._sent = 0
        self._unsent_bytes = sum(len(image) for image, _ in self._waiting)
        self.stranded = False

    def request(self, address: int, count: int, now: float) -> None:
        """Ask for registers; `values` is None until they have come."""
        self.values = None
        self._request = (address, count)

    def configure(self, record_bytes: int, buffer_bytes: int, window_bytes: int) -> None:
        """Sizes the device told: a bus needs none."""

    @property
    def unsent_bytes(self) -> int:
        return self._unsent_bytes if self._load is None else len(self._load) - self._loaded

    @property
    def delivered(self) -> bool:
        """All data of the load has reached the core."""
        return self._opened and self._delivered

    # --- out and in -----------------------------------------------------------------------------

    def exchange(self, bus: Bus, clock: Callable[[], float]) -> None:
        """Move once what can be moved. Raises BusLost; DeviceFaultError for a result too many."""
        if self._request is not None:
            self._read_registers(bus, *self._request)
            self._request = None
            self.heard_at = clock()
        if self._wanted and not self._opened:
            bus.begin()
            self._opened = True
            self.heard_at = clock()
        if not self._opened or self._held or self.stranded:
            return
        if self._load is not None:
            self._send_load(bus, clock())
        elif self._waiting:
            busy = self._send_images(bus, clock()) and self._sent < len(self._waiting)
            self._take(bus.receive(0.0 if busy else _WAIT_S), clock())

    def _read_registers(self, bus: Bus, address: int, count: int) -> None:
        found = []
        for register in range(address, address + count):
            # A bus has no WINDOW, and no register where none has its number.
            there = register in Register.__members__.values() and register != Register.WINDOW
            found.append(bus.read(register) if there else 0)
        self.counts.bytes_received += 4 * len(found)
        self.values = tuple(found)

    def _send_load(self, bus: Bus, now: float) -> None:
        assert self._load is not None
        part = self._load[self._loaded :]
        if part:
            size = bus.load(part, self._load_slot, first=self._loaded == 0)
            self._loaded += size
            self._count(size)
        left = (len(self._load) - self._loaded, bus.pending)
        self._delivered = left == (0, 0)
        if left < self._least:  # of all leases of this load: one that never ends is no progress
            self._least = left
            self._heard(now)
        elif not self._delivered and now - max(self._moved_at, self._awake_at) > self._silence:
            self.stranded = True

    def _send_images(self, bus: Bus, now: float) -> bool:
        """Whether the bus took any."""
        # One model whose place in the device is not known has slot 0: there is one slot.
        ready = [
            (image, self.slots.get(model, 0))
            for image, model in islice(self._waiting, self._sent, self._sent + _IMAGES)
        ]
        count = bus.send(ready) if ready else 0
        size = sum(len(image) for image, _ in ready[:count])
        self._sent += count
        self._unsent_bytes -= size
        self._count(size)
        if count:
            self.heard_at = self._moved_at = now
        if self._sent > self._furthest:
            self._furthest = self._sent
            self.progress_at = now
        elif not count and now - max(self._moved_at, self._awake_at) > self._silence:
            self.stranded = True
        return count > 0

    def _take(self, packets: list[bytes], now: float) -> None:
        for packet in packets:
            self.counts.bytes_received += len(packet)
            if len(packet) != self._packet_bytes or spoilt(packet):
                self.stranded = True  # the device dropped images that it had taken
                return
            if not self._sent:
                raise DeviceFaultError(
                    "The device gave more results than it got images: load its bitstream again"
                )
            self.records.append(packet[: self._packet_bytes - LABEL_BYTES])
            self._waiting.popleft()
            self._sent -= 1
            self._furthest -= 1
        if packets:
            self._heard(now)

    def _count(self, size: int) -> None:
        self.counts.bytes_sent += size
        self.counts.payload_sent += size

    def _heard(self, now: float) -> None:
        self.heard_at = self.progress_at = self._moved_at = now
