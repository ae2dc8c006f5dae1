# SPDX-License-Identifier: BSD-2-Clause
"""The driver: a board, real or simulated, as a Python object.

    with Accelerator.open("build/tfc", "/dev/ttyUSB1") as board:
        labels = board.classify(images)

It needs numpy, pyserial and cobs only; `docs/driver.md` is its guide, `sw.driver_async` the same
for asyncio.

Thread safety: several threads may share one `Accelerator`. Each method is one turn at the board,
calls wait for their turn, and while a `stream` is open other calls are refused. A stream belongs to
the thread that reads it.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from xnorforge.sw.connection import Connection
from xnorforge.sw.endpoint import endpoint
from xnorforge.sw.errors import AcceleratorError
from xnorforge.sw.link import LinkCounts
from xnorforge.sw.manifest import Manifest, Ranking
from xnorforge.sw.protocol import Register
from xnorforge.sw.statistics import DeviceCounters, Statistics
from xnorforge.sw.weights import check_size, find_weights

__all__ = ["Accelerator", "Record", "Statistics"]

_Image = TypeVar("_Image", bytes, np.ndarray)

_STREAM_IS_OPEN = "A stream is open on this board: close it first"
_PATIENCE_S = 0.05  # a source slower than this gets its results before it is asked for more


@dataclass(frozen=True)
class Record:
    """One image's result. index: its place in the stream. label: the board's. scores: int64
    (classes,). ranking: how scores of different classes compare."""

    index: int
    label: int
    scores: np.ndarray
    ranking: Ranking = field(default=Ranking(), repr=False)

    def top(self, k: int) -> list[tuple[int, int]]:
        """The k best classes with their scores, best first; of equal ones the lower class first.

        The first is `label`, unless the model lets the last of equal classes win or has another
        rule than arg-max (`output` in manifest.json). Raises ValueError where k is not 1 to
        classes, WeightsError after weights that came without their class scales.
        """
        best = self.ranking.top(self.scores, k)
        return [(int(label), int(self.scores[label])) for label in best]


class Accelerator:
    """A board that runs a bundle: made by `open`, left by `close` or the `with` statement.

    Thread-safe: each method is one turn at the board, `statistics` may be asked for at any time.
    """

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
        self._exchange: tuple[bytes, Manifest] | None = None  # for the stream that is open
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
        weights: bytes | str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        **options: Any,
    ) -> "Accelerator":
        """Connect to a board, check that it holds the bundle's plan, and load weights.

        port: a serial path or URL, a card's `/dev/litepcie0`, or the `socket://host:port` of a
        virtual board. baud: the bundle's unless given. timeout: seconds without progress before a
        call fails. load: "auto" where the board's weights differ, "always", or "never" (then
        weights that differ are an error). weights, options: to run instead of the bundle's own, as
        `load_weights` takes them. progress: called with (done, total), of a load's bytes or of
        images. clock: seconds for every timeout; a simulated board's own where it is far from real
        time.

        Raises ManifestError, PortError, SilentDeviceError, ForeignDeviceError,
        BundleMismatchError, WeightsError, LinkLostError: each an AcceleratorError.
        """
        if load not in ("auto", "always", "never"):
            raise ValueError(f"load must be 'auto', 'always' or 'never', not {load!r}")
        if options and weights is None:
            raise TypeError(f"open() has no {', '.join(options)}, and no weights that take it")
        manifest = Manifest.read(bundle)
        own = manifest.weights()
        chosen, manifest = find_weights(own if weights is None else weights, manifest, options)
        check_size(chosen, own)
        connection = Connection(
            manifest,
            endpoint(manifest, port, baud, timeout),
            timeout=timeout,
            may_load=load != "never",
            progress=progress,
            clock=clock,
        )
        connection.use(chosen, manifest.weights_digest)
        try:
            connection.start(load_always=load == "always")
        except BaseException:
            connection.close()
            raise
        return cls(manifest, connection, progress)

    def close(self) -> None:
        """Release the port; images on the way are dropped. May be called twice.

        A call that runs in another thread may still end well; it leaves the port free.
        """
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

    def top(self, images: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best classes of each image and their scores, both int64 (N, k), best first.

        Equal classes, and the errors, as in `Record.top`.
        """
        scores, _, ranking = self._results(images)
        best = ranking.top(scores, k)
        return best, np.take_along_axis(scores, best, axis=-1)

    def results(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores and labels of images (N, *shape): all of them, or an error.

        Raises ImageError for a wrong shape, type or range, before anything is sent; LinkLostError,
        PortError and the errors of `open` when the board is lost and does not come back.
        """
        scores, labels, _ = self._results(images)
        return scores, labels

    def _results(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, Ranking]:
        manifest = self.manifest
        records = []

        def packed() -> list[bytes]:
            # Called when it is this call's turn: with the model that the board has then.
            return self.manifest.image.pack(images)

        with contextlib.closing(self._run(packed, bytes, streaming=False)) as run:
            for record, manifest in run:  # noqa: B007 (all of one model)
                records.append(record)
                if self._progress:
                    self._progress(len(records), len(images))
        return *manifest.unpack(records), manifest.ranking

    def stream(self, images: Iterable[np.ndarray]) -> Generator[Record, None, None]:
        """Results, in order, of images (shape each) that are taken as the line can carry them.

        A source slower than the line, such as a camera, gets the results of all it gave before it
        is asked for more. Closing the generator early drops the images on the way, and an error of
        the source ends it the same way.
        """

        def pack(image: np.ndarray) -> bytes:
            return self.manifest.image.pack(np.asarray(image)[None])[0]

        with contextlib.closing(self._run(lambda: images, pack, streaming=True)) as run:
            for index, (record, manifest) in enumerate(run):
                scores, labels = manifest.unpack([record])
                yield Record(index, int(labels[0]), scores[0], manifest.ranking)

    def _run(
        self,
        images: Callable[[], Iterable[_Image]],
        pack: Callable[[_Image], bytes],
        *,
        streaming: bool,
    ) -> Generator[tuple[bytes, Manifest], None, None]:
        """Images to records, each with the manifest of its model.

        pack: an image as it goes to the board, called with the model in force that it is for.
        Whatever ends it early leaves nothing behind in the link.
        """
        with self._use(streaming):
            connection, link = self._connection, self._connection.link
            count_every = min(10.0, 2**31 / self.manifest.clock_hz)
            source = iter(images())
            image: _Image | None = None
            manifests: deque[Manifest] = deque()  # of the images without a result
            more = True
            try:
                connection.prepare()
                self._count(restart=True)
                counted_at = time.monotonic()
                patient = True
                while more or link.waiting_count or link.records:
                    while link.records:
                        record = link.records.popleft()
                        self._images += 1
                        yield record, manifests.popleft()
                        connection.touch()
                    if self._exchange and len(link.models) < connection.slots:
                        self._do_exchange()
                    patient = patient or not link.waiting_count
                    asked_at = time.monotonic()
                    while more and patient and link.unsent_bytes < link.backlog_bytes:
                        image = next(source, None) if image is None else image
                        more = image is not None
                        if self._exchange:
                            break  # this image is the first of the new model
                        if image is not None:
                            link.submit(pack(image))
                            manifests.append(self.manifest)
                            image = None
                        if time.monotonic() - asked_at > _PATIENCE_S:
                            patient = False
                            connection.touch()  # the board was not listened to meanwhile
                    if link.waiting_count:
                        connection.step()
                    if time.monotonic() - counted_at > count_every:
                        self._count()
                        counted_at = time.monotonic()
                self._do_exchange()
                self._count()
            except BaseException:
                link.drop()
                raise

    def _do_exchange(self) -> None:
        """Run the model that `load_weights` left for the open stream, if any."""
        if self._exchange:
            (load, self.manifest), self._exchange = self._exchange, None
            self._connection.replace_weights(load, self.manifest.weights_digest)

    # --- weights --------------------------------------------------------------------------------

    def load_weights(self, source: bytes | str | Path, **options: Any) -> None:
        """Run another model on the same circuit, without a rebuild.

        source: another bundle of the same plan, a model file or folder of the same structure (the
        compiler part must be installed), or the bytes or path of a weights.bin. A weights.bin does
        not say how its model takes images: they are taken as before.
        options: for a model file, as `gen.load`; those of the bundle's own model unless given.

        The digest is read back. After a failure the board refuses images until a load succeeds;
        the next call tries this one again. A board of two slots keeps the model it had, and has
        nothing to load where it holds this one already.

        While a `stream` is open, a board of two slots sends the images that it takes from then on
        through the new model, those before through the old one; errors of the load are the
        stream's. A board of one slot refuses. Raises WeightsError or BundleMismatchError with what
        differs, ManifestError for damaged weights: all before anything is sent.
        """
        if self._streaming and self._connection.slots == 1:
            raise AcceleratorError(_STREAM_IS_OPEN)
        load, manifest = find_weights(source, self.manifest, options)
        check_size(load, self._connection.load)
        if self._streaming and self._connection.slots > 1:
            self._exchange = (load, manifest)
            return
        with self._use(False):
            self.manifest = manifest
            self._connection.replace_weights(load, manifest.weights_digest)

    # --- registers and statistics ---------------------------------------------------------------

    def registers(self) -> dict[str, int]:
        """All registers by name, the error counters included."""
        with self._use(False):
            identity = self._connection.read_identity()
        return {register.name.lower(): identity[register] for register in Register}

    @property
    def statistics(self) -> Statistics:
        """A copy of the counts; may be asked for at any time, also while a call runs."""
        return Statistics(
            images=self._images,
            link_seconds=self._link_seconds,
            core_seconds=self._counters.busy_cycles / self.manifest.clock_hz,
            **self._counters.totals(),
            reconnects=self._connection.reconnects,
            link=replace(self._connection.link.counts),
        )

    def reset_statistics(self) -> None:
        """Count from here."""
        self._images = 0
        self._link_seconds = 0.0
        self._counters = DeviceCounters()
        self._connection.reconnects = 0
        self._connection.link.counts = LinkCounts()

    def _count(self, *, restart: bool = False) -> None:
        """Add what the board counted since the last look; with `restart` only look."""
        self._counters.look(self._connection.read_identity(), restart=restart)

    @contextlib.contextmanager
    def _use(self, streaming: bool) -> Iterator[None]:
        """One call at a time; time in it is link time."""
        while not self._lock.acquire(timeout=0.05):
            if self._streaming:
                raise AcceleratorError(_STREAM_IS_OPEN)
        began = time.monotonic()
        self._streaming = streaming
        self._exchange = None
        try:
            if self._closed:
                raise AcceleratorError("This board was closed: open it again")
            self._connection.touch()
            yield
        finally:
            self._link_seconds += time.monotonic() - began
            self._streaming = False
            if self._closed:  # by another thread, and perhaps opened again since
                self._connection.close()
            self._lock.release()
