# SPDX-License-Identifier: BSD-2-Clause
"""Faults on the line between the driver's connection and a bundle's Verilog, in simulated time.

    images --> Connection --> fault line --> rx | Verilog | tx --> fault line --> records

A *subject* is a bundle with images and the records that the reference executor expects for them.
A *block* is one seeded run of faults of one kind in one direction: a fault comes a random number
of bytes after the one before has been recovered from, so that every recovery is measured alone.
In a block of kind "all" faults of all kinds come in both directions at once, recovered or not.

What the host does is drawn as well: the adapter's latency, images at a time, leases, reads.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xnorforge.gen.bundle import Bundle
from xnorforge.sim.line_faults import FAULTS, FaultyLine, Landing
from xnorforge.sim.lockstep import LockstepBoard, SimulatedSerial
from xnorforge.sim.reference import Executor
from xnorforge.sw.errors import AcceleratorError
from xnorforge.sw.link import HostLink
from xnorforge.sw.manifest import Manifest
from xnorforge.sw.protocol import Frame, Kind

__all__ = ["DIRECTIONS", "Block", "Outcome", "Subject", "run_block"]

DIRECTIONS = ("up", "down")
DIVISOR = 4  # clock cycles a bit
TIMEOUT_S = 5.0  # without progress: a hang
_GAP_BYTES = 40  # mean, from a recovery to the next fault
_STORM_GAP_BYTES = 600
_MOST_IMAGES = 40  # of one call


@dataclass(frozen=True)
class Subject:
    """A bundle, packed images, and the record that each must give."""

    path: Path
    packed: tuple[bytes, ...]
    records: tuple[bytes, ...]

    @classmethod
    def of(cls, bundle: Bundle, images: np.ndarray) -> Subject:
        """images: (N, *shape), as the network takes them."""
        manifest = Manifest.read(bundle.path)
        result = Executor(bundle.network).run(images)
        size = manifest.score_bytes
        records = [
            b"".join(int(score).to_bytes(size, "little", signed=True) for score in scores)
            + int(label).to_bytes(2, "little")
            for scores, label in zip(result.scores, result.labels, strict=True)
        ]
        return cls(bundle.path, tuple(manifest.image.pack(images)), tuple(records))


@dataclass(frozen=True)
class Block:
    """direction: "up" to the board, "down" to the host, or "both". fault: of FAULTS, or "all".
    count: faults."""

    direction: str
    fault: str
    seed: int
    count: int


@dataclass
class Outcome:
    """landings: every fault, by direction. images: answered with the right record. wrong: answered
    with another one. failure: what ended the block early, or "". frames, seconds: from each fault
    to its recovery, frames of the damaged direction. cycles: simulated."""

    landings: dict[str, list[Landing]] = field(default_factory=dict)
    images: int = 0
    wrong: int = 0
    failure: str = ""
    frames: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cycles: int = 0

    def to_json(self) -> dict[str, Any]:
        """All of it, each landing as [fault, byte, frame, index, size, part]."""
        return {
            "images": self.images,
            "wrong": self.wrong,
            "failure": self.failure,
            "cycles": self.cycles,
            "frames": self.frames,
            "seconds": [round(second, 5) for second in self.seconds],
            "landings": {
                direction: [
                    [x.fault, x.byte, x.frame, x.index, x.size, x.part]
                    for x in landings
                    if x.size is not None
                ]
                for direction, landings in self.landings.items()
            },
        }


def run_block(subject: Subject, block: Block, *, fast: bool = False) -> Outcome:
    """Run a block: same block, same outcome. fast: a model that takes longer to compile."""
    with LockstepBoard(subject.path, divisor=DIVISOR, fast=fast) as board:
        run = _Run(subject, block, board)
        try:
            run.go()
        except AcceleratorError as error:
            run.outcome.failure = f"{type(error).__name__}: {error}"
        return run.outcome


class _Run:
    """A host, two lines and a board."""

    def __init__(self, subject: Subject, block: Block, board: LockstepBoard) -> None:
        self._subject, self._block, self._board = subject, block, board
        self._random = rng = random.Random(repr(block))
        manifest = Manifest.read(subject.path)
        self._storm = block.fault == "all"
        kinds = FAULTS if self._storm else (block.fault,)
        rate = 1 / (_STORM_GAP_BYTES if self._storm else _GAP_BYTES)
        self._lines = {
            direction: FaultyLine(
                rate if block.direction in (direction, "both") else 0.0,
                rng.randrange(1 << 32),
                kinds,
                single=not self._storm,
            )
            for direction in DIRECTIONS
        }
        self._lines["up"].on_frame = self._see
        self._port = SimulatedSerial(
            board,
            DIVISOR * manifest.baud,
            latency_s=rng.choice((0.002, 0.004, 0.016)),
            packet_bytes=rng.choice((None, 62)),
            **self._lines,
        )
        self._connection = self._port.connection(
            manifest, where="a line with faults", timeout=TIMEOUT_S
        )
        self._connection.link = self._link = HostLink(seed=rng.randrange(1 << 32))
        self._done = 0
        self._asked: list[int] = []  # of the images submitted, which
        self._lease = self._lease_done = 0  # the running lease, and images done before it
        self._fault: Landing | None = None  # the one not recovered from
        self._fault_done, self._fault_at = 0, 0.0
        self.outcome = Outcome({name: line.landings for name, line in self._lines.items()})

    def go(self) -> None:
        """Calls, as a user's, until all faults have come and have been recovered from."""
        rng, link = self._random, self._link
        watched = self._lines.get(self._block.direction)
        if watched is not None:
            watched.arm()
        self._connection.start()
        while self._missing():
            if rng.random() < 0.3:
                link.detach()
            self._connection.prepare()
            if rng.random() < 0.3:
                self._connection.read_identity()
            self._call(rng.randrange(1, _MOST_IMAGES), rng.choice((1, 3, 10, _MOST_IMAGES)))
        self.outcome.cycles = self._board.cycles

    def _missing(self) -> bool:
        """Faults are to come."""
        if self._storm:
            return sum(len(line.landings) for line in self._lines.values()) < self._block.count
        return len(self.outcome.frames) < self._block.count

    def _call(self, count: int, at_a_time: int) -> None:
        """Images in, records out: all of them, and each compared."""
        end = self._done + count
        while self._done < end:
            while len(self._asked) < min(end, self._done + at_a_time):
                which = self._random.randrange(len(self._subject.packed))
                self._asked.append(which)
                self._link.submit(self._subject.packed[which])
            self._connection.step()
            while self._link.records:
                right = self._subject.records[self._asked[self._done]]
                same = self._link.records.popleft() == right
                self.outcome.images += same
                self.outcome.wrong += not same
                self._done += 1
            if not self._storm:
                self._watch()

    def _see(self, frame: Frame) -> None:
        """A frame of the host, on its way."""
        if frame.kind is Kind.OPEN and frame.lease != self._lease:
            self._lease, self._lease_done = frame.lease, self._done

    def _watch(self) -> None:
        """Is the last fault over? Then let the next one come."""
        line = self._lines[self._block.direction]
        if self._fault is None:
            if len(line.landings) > len(self.outcome.frames):
                self._fault = line.landings[-1]
                self._fault_done, self._fault_at = self._done, self._port.clock()
        elif self._fault.size is not None and self._done > self._awaited(self._fault):
            self.outcome.frames.append(line.frame_count - self._fault.frame)
            self.outcome.seconds.append(self._port.clock() - self._fault_at)
            self._fault = None
            if self._missing():
                line.arm()

    def _awaited(self, fault: Landing) -> int:
        """The image whose result ends a fault: that of the frame it hit, or the next one."""
        frame = fault.content
        parts = {Kind.IMAGE: self._subject.packed, Kind.RESULT: self._subject.records}
        if frame is None or frame.kind not in parts or frame.lease != self._lease:
            return self._fault_done
        size = len(parts[frame.kind][0])
        near = size * (self._fault_done - self._lease_done)
        ahead = (frame.position - near + 0x8000 & 0xFFFF) - 0x8000
        place = (near + ahead) // size + self._lease_done
        # A frame that came again carries what has been answered.
        return max(self._fault_done, place)
