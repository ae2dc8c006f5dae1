# SPDX-License-Identifier: BSD-2-Clause
"""The driver for asyncio: the same board and the same calls, awaited.

    async with AsyncAccelerator.open("build/tfc", "/dev/ttyUSB1") as board:
        labels = await board.classify(images)
        async for record in board.stream(camera):
            print(record.label)

Each board has a thread of its own that talks to it, so the event loop never waits for the line.

Thread safety: the tasks of one event loop may share a board. Calls get their turn in the order in
which they were made, and while a `stream` is open other calls are refused. Other threads may not
call anything here.
"""

import asyncio
import contextlib
import functools
import queue
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from xnorforge.sw.driver import Accelerator, Record, Statistics
from xnorforge.sw.errors import AcceleratorError
from xnorforge.sw.manifest import Manifest

__all__ = ["AsyncAccelerator"]

_AHEAD = 64  # images, and records, that may wait between event loop and thread

_Result = TypeVar("_Result")


class AsyncAccelerator:
    """A board that runs a bundle: made by `open`, entered and left by `async with`.

    A call that is cancelled gives up at the next look at the clock (20 ms, or as long as the
    system takes to open a port), drops its images, and leaves board and port usable.
    """

    def __init__(self, connect: Callable[..., Accelerator], clock: Callable[[], float]) -> None:
        self._connect = connect
        self._clock = clock
        self._board: Accelerator | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="accelerator")
        self._turn = asyncio.Lock()
        self._closed = False
        self._job: asyncio.Future[Any] | None = None  # the latest
        self._cancelled = threading.Event()  # that job is to end
        self._bridge: _Bridge | None = None  # of the stream that is open

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
    ) -> "AsyncAccelerator":
        """A board that `async with` connects to; arguments and errors as `Accelerator.open`.

        progress is called in the board's thread.
        """
        connect = functools.partial(
            Accelerator.open,
            bundle,
            port,
            baud=baud,
            timeout=timeout,
            load=load,
            weights=weights,
            progress=progress,
            **options,
        )
        return cls(connect, clock)

    async def __aenter__(self) -> "AsyncAccelerator":
        def connect() -> None:
            self._board = self._connect(clock=self._watch)

        try:
            async with self._turn:
                await self._ask(connect)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Release the port; what still runs ends with an error. May be called twice."""
        self._closed = True
        self._cancel()
        if self._job is not None:
            await _ended(self._job)
        if self._board is not None:
            self._board.close()
        self._worker.shutdown()  # its thread has nothing left to do

    # --- images ---------------------------------------------------------------------------------

    async def classify(self, images: np.ndarray) -> np.ndarray:
        """Labels, int64 (N,), of images (N, *shape)."""
        return await self._call(lambda board: board.classify(images))

    async def scores(self, images: np.ndarray) -> np.ndarray:
        """Scores, int64 (N, classes), of images (N, *shape)."""
        return await self._call(lambda board: board.scores(images))

    async def results(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores and labels of images (N, *shape); errors as `Accelerator.results`."""
        return await self._call(lambda board: board.results(images))

    async def top(self, images: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best classes of each image and their scores, as `Accelerator.top`."""
        return await self._call(lambda board: board.top(images, k))

    async def stream(
        self, images: AsyncIterable[np.ndarray] | Iterable[np.ndarray]
    ) -> AsyncGenerator[Record, None]:
        """Results, in order, of images (shape each) that are taken as the line can carry them.

        images: an asynchronous iterable, or an ordinary one, which is iterated in the board's
        thread and may wait there. Neither it nor the results run far ahead: a slow consumer slows
        the source down. Closing or cancelling the generator drops the images on the way. An error
        of an asynchronous source is raised after the results of what it gave.
        """
        board = self._usable()
        async with self._turn:
            self._bridge = bridge = _Bridge()
            filling: asyncio.Future[None] | None = None
            source: Iterable[np.ndarray]
            if isinstance(images, AsyncIterable):
                filling = asyncio.ensure_future(bridge.fill(images))
                source = bridge.images()
            else:
                source = images
            try:
                job = self._begin(lambda: bridge.work(board.stream(source)))
                while (record := await bridge.next_record()) is not None:
                    yield record
                await job
                if filling is not None:
                    await filling
            finally:
                if filling is not None:
                    filling.cancel()
                    await _ended(filling)
                self._cancel()
                if self._job is not None:
                    await _ended(self._job)
                self._bridge = None

    # --- weights, registers, statistics ---------------------------------------------------------

    async def load_weights(self, source: bytes | str | Path, **options: Any) -> None:
        """Run another model on the same circuit; arguments and errors as
        `Accelerator.load_weights`, also while a stream is open. A load that is cancelled is made
        good by the next call."""
        if self._bridge is not None:
            # The stream has the board's thread, and takes the model when it can.
            await asyncio.to_thread(self._opened().load_weights, source, **options)
            return
        await self._call(lambda board: board.load_weights(source, **options))

    async def registers(self) -> dict[str, int]:
        """All registers by name, the error counters included."""
        return await self._call(lambda board: board.registers())

    @property
    def manifest(self) -> Manifest:
        """What is known of the bundle and of the model that runs."""
        return self._opened().manifest

    @property
    def statistics(self) -> Statistics:
        """What happened since the board was opened, or since `reset_statistics`."""
        return self._opened().statistics

    def reset_statistics(self) -> None:
        """Count from here."""
        self._opened().reset_statistics()

    # --- turns ----------------------------------------------------------------------------------

    def _opened(self) -> Accelerator:
        if self._board is None:
            raise AcceleratorError("This board is not open yet: enter it with `async with`")
        return self._board

    def _usable(self) -> Accelerator:
        if self._bridge is not None:
            raise AcceleratorError("A stream is open on this board: close it first")
        return self._opened()

    async def _call(self, work: Callable[[Accelerator], _Result]) -> _Result:
        """One turn at the board."""
        board = self._usable()
        async with self._turn:
            return await self._ask(lambda: work(board))

    async def _ask(self, work: Callable[[], _Result]) -> _Result:
        job = self._begin(work)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            self._cancel()
            await _ended(job)
            raise

    def _cancel(self) -> None:
        """Let the job end where it waits."""
        self._cancelled.set()
        if self._bridge is not None:
            self._bridge.release()

    def _begin(self, work: Callable[[], _Result]) -> "asyncio.Future[_Result]":
        """Start work in the board's thread, which is free."""
        if self._closed:
            raise _ClosedError()
        self._cancelled.clear()
        self._job = job = asyncio.wrap_future(self._worker.submit(work))
        return job

    def _watch(self) -> float:
        """The driver's clock. It looks at it in every wait, so that is where a job can end."""
        if self._cancelled.is_set():
            raise _ClosedError()
        return self._clock()


class _ClosedError(AcceleratorError):
    """Ends a job that was cancelled; seen by others only where the board was closed."""

    def __init__(self) -> None:
        super().__init__("This board was closed: open it again")


async def _ended(job: "asyncio.Future[Any]") -> None:
    """Wait for the end of a job that ends soon, whatever it ends with."""
    while not job.done():
        try:
            await asyncio.wait([job])
        except asyncio.CancelledError:
            continue  # once more: but it uses the board until it has ended
    if not job.cancelled():
        job.exception()


class _Bridge:
    """Images from the event loop to the board's thread, records back, `_AHEAD` of each at most."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._images: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._image_room = asyncio.Semaphore(_AHEAD)
        self._records: asyncio.Queue[Record | None] = asyncio.Queue()
        self._record_room = threading.Semaphore(_AHEAD)

    # In the event loop.

    async def fill(self, images: AsyncIterable[np.ndarray]) -> None:
        try:
            async for image in images:
                await self._image_room.acquire()
                self._images.put(image)
        finally:
            self._images.put(None)

    async def next_record(self) -> Record | None:
        record = await self._records.get()
        self._record_room.release()
        return record

    def release(self) -> None:
        """Let the thread go on, from wherever it waits, to find that it was cancelled."""
        self._images.put(None)
        self._record_room.release()

    # In the board's thread.

    def images(self) -> Iterator[np.ndarray]:
        while (image := self._images.get()) is not None:
            self._loop.call_soon_threadsafe(self._image_room.release)
            yield image

    def work(self, records: Generator[Record, None, None]) -> None:
        try:
            with contextlib.closing(records):
                for record in records:
                    self._record_room.acquire()
                    self._loop.call_soon_threadsafe(self._records.put_nowait, record)
        finally:
            self._loop.call_soon_threadsafe(self._records.put_nowait, None)
