# SPDX-License-Identifier: BSD-2-Clause
"""What the driver counts: images, seconds, the core's cycles, the line's bytes and faults."""

from dataclasses import asdict, dataclass
from typing import Any

from xnorforge.sw.link import LinkCounts
from xnorforge.sw.protocol import Identity, Register

__all__ = ["DeviceCounters", "Statistics"]


@dataclass(frozen=True)
class Statistics:
    """What happened since the driver was opened, or since `reset_statistics`.

    images: results received. link_seconds: time spent in calls, line and core together.
    core_seconds: time in which the core had an image in it, by its own counter.
    busy, starved, stalled_cycles, frames: the core's counters, while calls ran.
    spoilt_frames, refused_frames: frames that reached the board damaged, and data frames that it
    did not take (they came out of turn or found no room), while calls ran.
    reconnects: times the port was opened again. link: what happened on the line, see
    `LinkCounts`: bytes each way, payload sent and sent again, frames that reached the host damaged.
    """

    images: int
    link_seconds: float
    core_seconds: float
    busy_cycles: int
    starved_cycles: int
    stalled_cycles: int
    frames: int
    spoilt_frames: int
    refused_frames: int
    reconnects: int
    link: LinkCounts

    @property
    def images_per_second(self) -> float:
        """Of whole calls, waiting for the line included; 0 before the first."""
        return self.images / self.link_seconds if self.link_seconds else 0.0

    @property
    def core_images_per_second(self) -> float:
        """Of the core while it had images; 0 before the first."""
        return self.frames / self.core_seconds if self.core_seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """All of it in plain values, for json.dumps."""
        rates = ("images_per_second", "core_images_per_second")
        return {**asdict(self), **{name: getattr(self, name) for name in rates}}

    def __str__(self) -> str:
        """A few lines for people."""
        link = self.link
        return "\n".join(
            (
                f"Images  {self.images:,} in {self.link_seconds:.3f} s of calls, "
                f"{self.images_per_second:,.0f} a second",
                f"Core    {self.frames:,} in {self.core_seconds * 1e3:,.3f} ms by its own clock, "
                f"{self.core_images_per_second:,.0f} a second",
                f"Waits   {self.starved_cycles:,} cycles for an image to take, "
                f"{self.stalled_cycles:,} for room for a result",
                f"Line    {link.bytes_sent:,} bytes out, {link.bytes_received:,} in; of "
                f"{link.payload_sent:,} bytes of data {link.payload_resent:,} sent again",
                f"Faults  {link.bad_frames:,} spoilt frames in, {self.spoilt_frames:,} out, "
                f"{self.refused_frames:,} not taken, {self.reconnects:,} reconnections",
            )
        )


# Name, register, first bit, bits.
_COUNTERS = (
    ("busy_cycles", Register.BUSY_CYCLES, 0, 32),
    ("starved_cycles", Register.STARVED_CYCLES, 0, 32),
    ("stalled_cycles", Register.STALLED_CYCLES, 0, 32),
    ("frames", Register.FRAMES, 0, 32),
    ("spoilt_frames", Register.ERRORS, 0, 16),
    ("refused_frames", Register.ERRORS, 16, 16),
)


class DeviceCounters:
    """Adds up the board's counters, which wrap around, and begin anew when the board is reset."""

    def __init__(self) -> None:
        self._totals = dict.fromkeys((name for name, *_ in _COUNTERS), 0)
        self._last: dict[str, int] | None = None

    def look(self, identity: Identity, *, restart: bool = False) -> None:
        """Add what was counted since the last look; with `restart` only look.

        Looks must follow each other before a counter of 32 bits has gone half around.
        """
        found = {
            name: identity[register] >> first & ((1 << bits) - 1)
            for name, register, first, bits in _COUNTERS
        }
        if self._last is not None and not restart:
            added = {
                name: (found[name] - self._last[name]) % (1 << bits)
                for name, _, _, bits in _COUNTERS
            }
            if max(added.values()) >= 1 << 31:  # it went back: the board was reset
                added = found
            for name, count in added.items():
                self._totals[name] += count
        self._last = found

    def totals(self) -> dict[str, int]:
        """Counts by the names that `Statistics` gives them."""
        return dict(self._totals)

    @property
    def busy_cycles(self) -> int:
        return self._totals["busy_cycles"]
