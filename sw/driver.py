# SPDX-License-Identifier: BSD-2-Clause
"""The driver: a board, real or simulated, as a Python object.

    with Accelerator.open("build/tfc", "/dev/ttyUSB1") as board:
        labels = board.classify(images)

It needs numpy, pyserial and cobs only. Several threads may share one `Accelerator`: calls wait
for each other, and while a `stream` is open other calls are refused.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from xnorforge.sw.connection import Connection
from xnorforge.sw.errors import AcceleratorError, BundleMismatchError, WeightsError
from xnorforge.sw.link import LinkCounts
from xnorforge.sw.manifest import Manifest, check_load
from xnorforge.sw.protocol import Register
from xnorforge.sw.transport import open_transport

__all__ = ["Accelerator", "Record", "Statistics"]

_BACKLOG_BYTES = 8192  # images are packed this far ahead of the line
_COUNTERS = (
    Register.BUSY_CYCLES,
    Register.STARVED_CYCLES,
    Register.STALLED_CYCLES,
    Register.FRAMES,
)


@dataclass(frozen=True)
class Record:
    """One image's result. index: its place in the stream. scores: int64 (classes,)."""

    index: int
    label: int
    scores: np.ndarray


@dataclass(frozen=True)
class Statistics:
    """What happened since the driver was opened, or since `reset_statistics`.

    images: results received. link_seconds: time spent in calls, line and core together.
    core_seconds: time in which the core had an image in it, by its own counter.
    busy, starved, stalled_cycles, frames: the core's counters, while calls ran.
    reconnects: times the port was opened again. link: what happened on the line.
    """

    images: int
    link_seconds: float
    core_seconds: float
    busy_cycles: int
    starved_cycles: int
    stalled_cycles: int
    frames: int
    reconnects: int
    link: LinkCounts


class Accelerator:
    """A board that runs a bundle: made by `open`, left by `close` or the `with` statement."""

    def __init__(
        self,
        manifest: Manifest,
        connection: Connection,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.manifest = manifest
        self._connection = connection
        self._progress = progress
        self._lock = threading.Lock()
        self._streaming = False
        self._closed = False
        self.reset_statistics()

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        port: str,
        *,
        baud: int | None = None,
        timeout: float = 5.0,
        load: str = "auto",
        progress: Callable[[int, int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> "Accelerator":
        """Connect to a board, check that it holds the bundle's plan, and load weights.

        port: a serial path or URL, or the `socket://host:port` of a virtual board. baud: the
        bundle's unless given. timeout: seconds without progress before a call fails. load:
        "auto" where the board's weights differ, "always", or "never" (then weights that differ
        are an error). progress: called with (done, total), of a load's bytes or of images.
        clock: seconds for every timeout; a simulated board's own where it is far from real time.

        Raises ManifestError, PortError, SilentDeviceError, ForeignDeviceError,
        BundleMismatchError, WeightsError, LinkLostError: each an AcceleratorError.
        """
        if load not in ("auto", "always", "never"):
            raise ValueError(f"load must be 'auto', 'always' or 'never', not {load!r}")
        manifest = Manifest.read(bundle)
        rate = baud or manifest.baud
        connection = Connection(
            manifest,
            lambda: open_transport(port, rate),
            where=f"{port} at {rate} baud",
            timeout=timeout,
            may_load=load != "never",
            progress=progress,
            clock=clock,
        )
        try:
            connection.start(load_always=load == "always")
        except BaseException:
            connection.close()
            raise
        return cls(manifest, connection, progress)

    def close(self) -> None:
        """Release the port; images on the way are dropped. May be called twice."""
        self._closed = True
        self._connection.close()

    def __enter__(self) -> "Accelerator":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # --- images ---------------------------------------------------------------------------------

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Labels, int64 (N,), of images (N, *shape)."""
        return self.results(images)[1]

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Scores, int64 (N, classes), of images (N, *shape)."""
        return self.results(images)[0]

    def results(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores and labels of images (N, *shape): all of them, or an error.

        Raises ImageError for a wrong shape or type, before anything is sent; LinkLostError,
        PortError and the errors of `open` when the board is lost and does not come back.
        """
        packed = self.manifest.image.pack(images)
        records = []
        with contextlib.closing(self._run(packed, streaming=False)) as run:
            for record in run:
                records.append(record)
                if self._progress:
                    self._progress(len(records), len(packed))
        return self.manifest.unpack(records)

    def stream(self, images: Iterable[np.ndarray]) -> Iterator[Record]:
        """Results, in order, of images (shape each) that are taken as the line can carry them.

        Closing the generator early drops the images on the way.
        """
        packed = (self.manifest.image.pack(np.asarray(image)[None])[0] for image in images)
        with contextlib.closing(self._run(packed, streaming=True)) as run:
            for index, record in enumerate(run):
                scores, labels = self.manifest.unpack([record])
                yield Record(index, int(labels[0]), scores[0])

    def _run(self, packed: Iterable[bytes], *, streaming: bool) -> Generator[bytes, None, None]:
        """Packed images to records. Whatever ends it early leaves nothing behind in the link."""
        with self._use(streaming):
            connection, link = self._connection, self._connection.link
            count_every = min(10.0, 2**31 / self.manifest.clock_hz)
            source = iter(packed)
            more = True
            try:
                connection.prepare()
                self._count(restart=True)
                counted_at = time.monotonic()
                while more or link.waiting_count or link.records:
                    while link.records:
                        record = link.records.popleft()
                        self._images += 1
                        yield record
                        connection.touch()
                    while more and link.unsent_bytes < _BACKLOG_BYTES:
                        image = next(source, None)
                        more = image is not None
                        if image is not None:
                            link.submit(image)
                    if link.waiting_count:
                        connection.step()
                    if time.monotonic() - counted_at > count_every:
                        self._count()
                        counted_at = time.monotonic()
                self._count()
            except BaseException:
                link.drop()
                raise

    # --- weights --------------------------------------------------------------------------------

    def load_weights(self, source: bytes | str | Path) -> None:
        """Load weights of the same plan: a `weights.bin`'s bytes or path, or a bundle's path.

        The digest is read back. After a failure the board refuses images until a load succeeds;
        the next call tries this one again.
        """
        load = self._find_load(source)
        digest = check_load(load)
        wanted = len(self._connection.load)
        if len(load) != wanted:
            raise WeightsError(
                f"These weights have {len(load)} bytes, the board's plan takes {wanted}: they "
                "belong to another plan"
            )
        with self._use(False):
            self._connection.link.drop()
            self._connection.replace_weights(load, digest)

    def _find_load(self, source: bytes | str | Path) -> bytes:
        if isinstance(source, bytes):
            return source
        path = Path(source)
        if path.is_dir():
            manifest = Manifest.read(path)
            if manifest.plan_hash != self.manifest.plan_hash:
                raise BundleMismatchError(
                    f"{path} has plan {manifest.plan_hash:08x}, the board has "
                    f"{self.manifest.plan_hash:08x}: build and program that bundle instead"
                )
            return manifest.weights()
        try:
            return path.read_bytes()
        except OSError as error:
            raise WeightsError(f"{path} cannot be read ({error.strerror})") from error

    # --- registers and statistics ---------------------------------------------------------------

    def registers(self) -> dict[str, int]:
        """All registers by name, the error counters included."""
        with self._use(False):
            identity = self._connection.read_identity()
        return {register.name.lower(): identity[register] for register in Register}

    @property
    def statistics(self) -> Statistics:
        busy, starved, stalled, frames = self._cycles
        return Statistics(
            images=self._images,
            link_seconds=self._link_seconds,
            core_seconds=busy / self.manifest.clock_hz,
            busy_cycles=busy,
            starved_cycles=starved,
            stalled_cycles=stalled,
            frames=frames,
            reconnects=self._connection.reconnects,
            link=replace(self._connection.link.counts),
        )

    def reset_statistics(self) -> None:
        """Count from here."""
        self._images = 0
        self._link_seconds = 0.0
        self._cycles = [0] * len(_COUNTERS)
        self._last_counters: list[int] | None = None
        self._connection.reconnects = 0
        self._connection.link.counts = LinkCounts()

    def _count(self, *, restart: bool = False) -> None:
        """Add what the core counted since the last look; with `restart` only look."""
        identity = self._connection.read_identity()
        counters = [identity[register] for register in _COUNTERS]
        if self._last_counters is not None and not restart:
            for k, (new, old) in enumerate(zip(counters, self._last_counters, strict=True)):
                self._cycles[k] += (new - old) & 0xFFFFFFFF
        self._last_counters = counters

    @contextlib.contextmanager
    def _use(self, streaming: bool) -> Iterator[None]:
        """One call at a time; time in it is link time."""
        while not self._lock.acquire(timeout=0.05):
            if self._streaming:
                raise AcceleratorError("A stream is open on this board: close it first")
        began = time.monotonic()
        self._streaming = streaming
        try:
            if self._closed:
                raise AcceleratorError("This board was closed: open it again")
            self._connection.touch()
            yield
        finally:
            self._link_seconds += time.monotonic() - began
            self._streaming = False
            self._lock.release()
