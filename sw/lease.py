# SPDX-License-Identifier: BSD-2-Clause
"""What the host's ends of all links have in common: images that wait for results, and a lease."""

from collections import deque
from dataclasses import dataclass

__all__ = ["Lease", "LinkCounts"]


@dataclass
class LinkCounts:
    """What happened on the line, seen from the host."""

    bytes_sent: int = 0
    bytes_received: int = 0
    payload_sent: int = 0
    payload_resent: int = 0
    bad_frames: int = 0
    went_back: int = 0
    leases: int = 0


class Lease:
    """One end of a lease, begun anew whenever that is needed.

    Attributes
    ----------
    records: result records, oldest first; the owner takes them out.
    model: the model that images submitted from now on are for: any key. slots: where the device
        holds each; one of two slots at most is asked for what is not in it.
    values: registers that were asked for, None until they have come.
    heard_at, progress_at: when the device last gave a sign; when it last took or gave data.
    stranded: the device has left the lease (another host, a reset) or fallen silent: make sure
        that it is still the same device with the same weights, in a new lease.
    counts: LinkCounts.
    """

    def __init__(self) -> None:
        self.records: deque[bytes] = deque()
        self.counts = LinkCounts()
        self.heard_at = self.progress_at = 0.0
        self.model = 0
        self.slots: dict[int, int] = {}
        self.stranded = False
        self.values: tuple[int, ...] | None = None
        self._waiting: deque[tuple[bytes, int]] = deque()  # images without a result, their models
        self._load: bytes | None = None
        self._load_slot = 0
        self._request: tuple[int, int] | None = None
        self._opened = self._held = False
        self._awake_at = 0.0

    def release(self) -> None:
        """Let the data of a held lease go."""
        self._held = False

    def touch(self, now: float) -> None:
        """The owner was away: silence counts from here."""
        self._awake_at = now

    @property
    def models(self) -> set[int]:
        """Models of the images without a result."""
        return {model for _, model in self._waiting}

    @property
    def waiting_count(self) -> int:
        """Images whose result has not come."""
        return len(self._waiting)

    @property
    def takes_images(self) -> bool:
        """A lease for images runs."""
        return self._opened and not self.stranded and self._load is None

    @property
    def opened(self) -> bool:
        """The device is in the lease."""
        return self._opened
