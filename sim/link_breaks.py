# SPDX-License-Identifier: BSD-2-Clause
"""Clients, boards and cables that go away in the middle, on the virtual board's pty or socket.

A *break* is one of BREAKS at a random point while images stream; what the driver makes of it is
kept, and then a new connection must give the reference's scores and labels.

    Accelerator --> [cable] --> pty or socket --> virtual board
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import select
import signal
import socket
import tempfile
import threading
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from xnorforge.gen.bundle import Bundle
from xnorforge.sim.board import VirtualBoard
from xnorforge.sim.reference import Executor, Result
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.errors import AcceleratorError
from xnorforge.sw.transport import TransportLost, open_transport

__all__ = ["BREAKS", "WAYS", "Break", "Breaker", "Cable"]

BREAKS = ("client killed", "port closed", "cable pulled", "board killed")
WAYS = ("pty", "socket")
_MOST_DELAY_S = 0.25
_TIMEOUT_S = 30.0  # the driver's 5 s, on a machine that is busy with other work
_CHECKED = 20  # images of the connection after a break
_STEP_S = 0.001
_CHUNK = 4096
_BAUD = 1_000_000  # no matter: neither a pty nor a socket has a rate


@dataclass(frozen=True)
class Break:
    """hit: the break came while the call ran. repaired: the call gave all its results in the end.
    error: or what it raised. wrong: images whose scores or label were not the reference's, in the
    broken call and in the next connection's."""

    hit: bool
    repaired: bool
    error: str
    wrong: int


class Breaker:
    """A virtual board to break; use it as a context manager.

    images: (N, *shape), as the network takes them, at least 20. fast: as of VirtualBoard.
    """

    def __init__(self, bundle: Bundle, images: np.ndarray, *, fast: bool = False) -> None:
        self._bundle, self._images = bundle, images
        self._image_bytes = bundle.network.input.image_bytes
        self._expected = Executor(bundle.network).run(images)
        # Clients are forked from a process that has imported all they need, and has no threads.
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["xnorforge.sw.driver"])
        self._fast = fast
        self._board = VirtualBoard(bundle.path, fast=fast)
        self._folder = tempfile.TemporaryDirectory()
        self._link_pty()

    def __enter__(self) -> Breaker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._board.stop()
        self._folder.cleanup()

    def run(self, what: str, way: str, seed: int) -> Break:
        """Break the line once, then connect anew. `what` of BREAKS, `way` of WAYS."""
        rng = random.Random(f"{what} {way} {seed}")
        act: dict[str, Callable[[str, random.Random], Break]] = {
            "client killed": self._kill_client,
            "port closed": self._close_port,
            "cable pulled": self._pull_cable,
            "board killed": self._kill_board,
        }
        found = act[what](way, rng)
        some = rng.sample(range(len(self._images)), _CHECKED)
        with self._open(self._address(way)) as board:
            wrong = self._wrong(board.results(self._images[some]), some)
        return replace(found, wrong=found.wrong + wrong)

    # --- the breaks -----------------------------------------------------------------------------

    def _kill_client(self, way: str, rng: random.Random) -> Break:
        client = self._processes.Process(
            target=_stream_forever, args=(self._bundle.path, self._address(way), self._images)
        )
        client.start()
        time.sleep(rng.random() * _MOST_DELAY_S)
        client.kill()
        client.join()
        return Break(client.exitcode == -signal.SIGKILL, False, "", 0)

    def _close_port(self, way: str, rng: random.Random) -> Break:
        board = self._open(self._address(way))
        wrong = 0
        with contextlib.closing(board.stream(self._endless())) as records:
            for _ in range(rng.randrange(60)):
                record = next(records)
                some = [record.index % len(self._images)]
                result = (record.scores[None], np.array([record.label]))
                wrong += self._wrong(result, some)
            board.close()
        return Break(True, False, "", wrong)

    def _pull_cable(self, way: str, rng: random.Random) -> Break:
        with Cable(self._address(way), way) as cable:
            cable.pull_after(
                rng.randrange(len(self._images) * self._image_bytes),
                port_stays=rng.random() < 0.5,
                plug_after_s=rng.random() * _MOST_DELAY_S,
            )
            found = self._call(cable.address)
        return replace(found, hit=cable.pulls == 1)

    def _kill_board(self, way: str, rng: random.Random) -> Break:
        def restart() -> None:
            time.sleep(rng.random() * _MOST_DELAY_S)
            try:
                self._board.kill()
            finally:
                killed.set()  # or the calls never end
            self._board = VirtualBoard(self._bundle.path, tcp_port=port, fast=self._fast)
            self._link_pty()

        port = int(self._board.socket.rsplit(":", 1)[1])
        killed = threading.Event()
        killer = threading.Thread(target=restart)
        killer.start()
        found = self._call(self._address(way), killed)
        killer.join()
        return found

    # --- parts ----------------------------------------------------------------------------------

    def _call(self, address: str, broken: threading.Event | None = None) -> Break:
        """All images over a line that breaks, again and again until it has."""
        wrong, every = 0, list(range(len(self._images)))
        try:
            with self._open(address) as board:
                wrong += self._wrong(board.results(self._images), every)
                while broken is not None and not broken.is_set():
                    wrong += self._wrong(board.results(self._images), every)
        except AcceleratorError as error:
            return Break(True, False, type(error).__name__, wrong)
        return Break(True, True, "", wrong)

    def _open(self, address: str) -> Accelerator:
        return Accelerator.open(self._bundle.path, address, timeout=_TIMEOUT_S)

    def _wrong(self, result: tuple[np.ndarray, np.ndarray], some: list[int]) -> int:
        right: Result = self._expected
        scores, labels = result
        same = (scores == right.scores[some]).all(axis=1) & (labels == right.labels[some])
        return len(some) - int(same.sum())

    def _endless(self) -> Iterator[np.ndarray]:
        while True:
            yield from self._images

    def _address(self, way: str) -> str:
        return self._board.socket if way == "socket" else str(self._pty)

    @property
    def _pty(self) -> Path:
        """A name that stays, as udev gives one to an adapter."""
        return Path(self._folder.name) / "board"

    def _link_pty(self) -> None:
        self._pty.unlink(missing_ok=True)
        self._pty.symlink_to(self._board.pty)


def _stream_forever(bundle: Path, address: str, images: np.ndarray) -> None:
    with Accelerator.open(bundle, address) as board:
        while True:
            board.results(images)


class Cable:
    """A USB-serial cable between a driver and a virtual board; use it as a context manager.

    way: "pty" or "socket", of both ends.

    Attributes
    ----------
    address: of the driver's end; it stays the same when the cable is pulled and plugged in.
    pulls: times that it was pulled.
    """

    def __init__(self, board_address: str, way: str) -> None:
        self._board = open_transport(board_address, _BAUD)
        self._folder = tempfile.TemporaryDirectory()
        self._end: _End = _SocketEnd() if way == "socket" else _PtyEnd(Path(self._folder.name))
        self.address = self._end.address
        self.pulls = 0
        self._left: int | None = None  # bytes of both ways before it is pulled
        self._port_stays, self._plug_after_s = False, 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._carry)

    def pull_after(self, byte_count: int, *, port_stays: bool, plug_after_s: float) -> None:
        """Pull it when so many bytes have passed, once, and plug it in again.

        port_stays: at the board's side of the adapter, so that the port stays and bytes vanish.
        """
        self._port_stays, self._plug_after_s = port_stays, plug_after_s
        self._left = byte_count

    def __enter__(self) -> Cable:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._end.unplug()
        self._board.close()
        self._folder.cleanup()

    def _carry(self) -> None:
        with contextlib.suppress(TransportLost):  # the board has ended
            while not self._stopping.is_set():
                self._board.write(self._passing(self._end.read()))
                self._end.write(self._passing(self._board.read(0.0)))
                if self._left == 0:
                    self._pull()

    def _passing(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        data = data[: self._left]
        self._left -= len(data)
        return data

    def _pull(self) -> None:
        self._left = None
        self.pulls += 1
        if not self._port_stays:
            self._end.unplug()
        end = time.monotonic() + self._plug_after_s
        while time.monotonic() < end:
            if self._port_stays:
                self._end.read()
            self._board.read(_STEP_S)
        if not self._port_stays:
            self._end.plug()


class _End(Protocol):
    """The driver's end of a cable: plugged in when made."""

    address: str

    def plug(self) -> None: ...
    def unplug(self) -> None: ...
    def read(self) -> bytes:
        """What the driver sent, after a millisecond at most."""

    def write(self, data: bytes) -> None: ...


class _PtyEnd:
    def __init__(self, folder: Path) -> None:
        self._link = folder / "cable"
        self.address = str(self._link)
        self.plug()

    def plug(self) -> None:
        self._master, self._slave = os.openpty()  # held open, so that clients may come and go
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._link.symlink_to(os.ttyname(self._slave))

    def unplug(self) -> None:
        self._link.unlink()
        os.close(self._master)
        os.close(self._slave)

    def read(self) -> bytes:
        readable, _, _ = select.select([self._master], [], [], _STEP_S)
        return os.read(self._master, _CHUNK) if readable else b""

    def write(self, data: bytes) -> None:
        with contextlib.suppress(BlockingIOError):  # nobody reads: lost, as in an adapter
            os.write(self._master, data)


class _SocketEnd:
    def __init__(self) -> None:
        self._port = 0
        self.plug()
        self.address = f"socket://127.0.0.1:{self._port}"

    def plug(self) -> None:
        self._client: socket.socket | None = None
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]

    def unplug(self) -> None:
        self._listener.close()
        if self._client is not None:
            self._client.close()

    def read(self) -> bytes:
        readable, _, _ = select.select([self._client or self._listener], [], [], _STEP_S)
        if not readable:
            return b""
        if self._client is None:
            self._client, _ = self._listener.accept()
            return b""
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self._client.recv(_CHUNK)
        if not data:
            self._client.close()
            self._client = None
        return data

    def write(self, data: bytes) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError):  # the driver has just gone
                self._client.sendall(data)
