# SPDX-License-Identifier: BSD-2-Clause
"""A card's registers and DMA memory, as LitePCIe's Linux driver gives them to a program.

The driver (litepcie 2024.12, software/kernel) makes a device file for each card: registers by
ioctl, two rings of DMA buffers by mmap. While the DMA is on, the card goes round both rings by
itself. A simulated card offers the same over a TCP port, with the memory in a file.
"""

import contextlib
import errno
import mmap
import os
import struct
import time
from typing import Protocol

import numpy as np

from xnorforge.sw.blocks import BLOCK_BYTES
from xnorforge.sw.bus import BusLost, LineServer
from xnorforge.sw.errors import PortError

__all__ = ["DeviceFile", "LitePcie", "SimulatedDevice", "ioctl_number"]


class LitePcie(Protocol):
    """A card. tx, rx: the rings to and from it, uint8 (buffers, 8192), shared with its DMA."""

    tx: np.ndarray
    rx: np.ndarray

    def read(self, address: int) -> int:
        """A word of BAR 0; ones where the card is gone."""

    def write(self, address: int, word: int) -> None: ...

    def start(self) -> None:
        """Both directions from their first buffers on."""

    def pause(self, seconds: float) -> None:
        """Let some time pass, `seconds` at most."""

    def close(self) -> None:
        """Stop the DMA and leave the card to others."""


# --- the device file ------------------------------------------------------------------------------

_MAGIC = ord("S")
_READ, _WRITE = 2, 1
_REGISTER = struct.Struct("@IIB3x")  # address, value, is it a write
_SWITCH = struct.Struct("@B7xqq")  # enable, hw_count, sw_count
_LOCK = struct.Struct("@6B")  # reader and writer: requests, releases, status
_INFO = struct.Struct("@6Q")  # of tx, then rx: offset, size and count of its buffers


def ioctl_number(direction: int, number: int, size: int) -> int:
    """As Linux's _IOC makes it (asm-generic)."""
    return direction << 30 | size << 16 | _MAGIC << 8 | number


_IOCTL_REGISTER = ioctl_number(_READ | _WRITE, 0, _REGISTER.size)
_IOCTL_WRITER = ioctl_number(_READ | _WRITE, 21, _SWITCH.size)
_IOCTL_READER = ioctl_number(_READ | _WRITE, 22, _SWITCH.size)
_IOCTL_INFO = ioctl_number(_READ, 24, _INFO.size)
_IOCTL_LOCK = ioctl_number(_READ | _WRITE, 25, _LOCK.size)


class DeviceFile:
    """`/dev/litepcieN`.

    Raises PortError: no such file, no permission, another program has the card, not LitePCIe's.
    """

    def __init__(self, path: str) -> None:
        try:
            self._file = os.open(path, os.O_RDWR)
        except OSError as error:
            raise PortError(_why_not(path, error)) from error
        except ValueError as error:  # a zero in it
            raise PortError(f"{path!r} is no name of a device file: check it") from error
        self.tx = self.rx = np.zeros((1, BLOCK_BYTES), np.uint8)
        self._maps: list[mmap.mmap] = []
        self._locked = False
        try:
            self._lock(path)
            offset, size, count, other_offset, other_size, other_count = _INFO.unpack(
                _ioctl(self._file, _IOCTL_INFO, bytes(_INFO.size))
            )
            if {size, other_size} != {BLOCK_BYTES} or count != other_count:
                raise PortError(
                    f"{path}: its driver has DMA buffers of {size} bytes, not {BLOCK_BYTES}: "
                    "install the driver of LitePCIe 2024.12"
                )
            self.tx = self._map(offset, count)
            self.rx = self._map(other_offset, count)
        except OSError as error:
            self.close()
            raise PortError(
                f"{path} is not a card of LitePCIe's driver ({error.strerror}): check its name"
            ) from error
        except BaseException:
            self.close()
            raise

    def read(self, address: int) -> int:
        return self._register(address, 0, write=False)

    def write(self, address: int, word: int) -> None:
        self._register(address, word, write=True)

    def start(self) -> None:
        self._switch(False)
        self.tx[:] = 0
        self.rx[:] = 0
        self._switch(True)

    def pause(self, seconds: float) -> None:
        time.sleep(min(seconds, 50e-6))

    def close(self) -> None:
        # Another thread may be at work: from here on its questions are answered with BusLost, and
        # the memory that it finds is nobody's.
        file, self._file = self._file, -1
        if file < 0:
            return
        self.tx = self.rx = np.zeros_like(self.tx)
        with contextlib.suppress(OSError):
            if self._locked:
                for number in (_IOCTL_WRITER, _IOCTL_READER):
                    _ioctl(file, number, _SWITCH.pack(False, 0, 0))
                # The end of the file would do it, too. But that comes when its memory is unmapped,
                # and a traceback may hold that for as long as another one waits for the card.
                _ioctl(file, _IOCTL_LOCK, _LOCK.pack(0, 0, 1, 1, 0, 0))
        for mapped in self._maps:
            with contextlib.suppress(BufferError):
                mapped.close()
        os.close(file)

    def _lock(self, path: str) -> None:
        asked = _LOCK.pack(1, 1, 0, 0, 0, 0)
        *_, reader, writer = _LOCK.unpack(_ioctl(self._file, _IOCTL_LOCK, asked))
        if not (reader and writer):
            raise PortError(f"{path} is in use: close the other program first")
        self._locked = True

    def _map(self, offset: int, count: int) -> np.ndarray:
        mapped = mmap.mmap(self._file, count * BLOCK_BYTES, offset=offset)
        self._maps.append(mapped)
        return np.frombuffer(mapped, np.uint8).reshape(count, BLOCK_BYTES)

    def _switch(self, on: bool) -> None:
        for number in (_IOCTL_WRITER, _IOCTL_READER):
            self._changed(number, _SWITCH.pack(on, 0, 0))

    def _register(self, address: int, word: int, *, write: bool) -> int:
        return _REGISTER.unpack(
            self._changed(_IOCTL_REGISTER, _REGISTER.pack(address, word, write))
        )[1]

    def _changed(self, number: int, data: bytes) -> bytes:
        try:
            return _ioctl(self._file, number, data)
        except OSError as error:
            raise BusLost(error.strerror or str(error)) from error


def _ioctl(file: int, number: int, data: bytes) -> bytes:
    from fcntl import ioctl  # Linux has it, and so has the card

    if file < 0:
        raise OSError(errno.EBADF, "closed")
    return ioctl(file, number, data)


def _why_not(path: str, error: OSError) -> str:
    """One sentence for people about a device file that does not open."""
    if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return (
            f"{path} does not exist: load LitePCIe's driver (docs/pcie.md), and check that the "
            "card has its bitstream and is listed by lspci"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path} may not be opened: ask for permission to it, or run as its owner"
    return f"{path} cannot be opened ({error.strerror}): check its name"


# --- a simulated card -----------------------------------------------------------------------------

_WAIT_CYCLES = 400


class SimulatedDevice:
    """A simulated card behind `socket://host:port`. Its time passes only while it is asked.

    Raises PortError where there is none, or another program has it.
    """

    def __init__(self, url: str) -> None:
        self._server = LineServer(url)
        try:
            greeting = self._server.greeting
            if greeting.get("device") != "litepcie" or greeting["buffer_bytes"] != BLOCK_BYTES:
                raise PortError(f"{url} is not a simulated PCIe card")
            if not self._server.ask("lock")["ok"]:
                raise PortError(f"{url} is in use: close the other program first")
            count = greeting["buffers"]
            memory = np.memmap(greeting["memory"], np.uint8, "r+", shape=(2 * count, BLOCK_BYTES))
        except (OSError, TypeError, ValueError) as error:
            self.close()
            raise PortError(
                f"{url} has its card's memory where this program cannot map it ({error}): "
                "run both on one machine"
            ) from error
        except BaseException:
            self.close()
            raise
        self.tx, self.rx = memory[:count], memory[count:]

    def read(self, address: int) -> int:
        return self._server.ask("read", address=address)["value"]

    def write(self, address: int, word: int) -> None:
        self._server.ask("write", address=address, value=word)

    def start(self) -> None:
        self._switch(False)
        self.tx[:] = 0
        self.rx[:] = 0
        self._switch(True)

    def pause(self, seconds: float) -> None:
        self._server.ask("wait", cycles=_WAIT_CYCLES)

    def close(self) -> None:
        self._server.close()

    def _switch(self, on: bool) -> None:
        for op in ("writer", "reader"):
            self._server.ask(op, enable=on)
