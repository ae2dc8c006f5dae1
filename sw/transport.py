# SPDX-License-Identifier: BSD-2-Clause
"""What the driver talks through: serial ports, `socket://host:port`, and pyserial's other URLs.

A transport has `write(data)`, `read(timeout) -> bytes` (what is there, after at most `timeout`
seconds; empty if nothing came) and `close()`. `TransportLost` says that the other end went away.
"""

import contextlib
import select
import socket
import time
from typing import Protocol
from urllib.parse import urlsplit

import serial

from xnorforge.sw.errors import PortError

__all__ = ["SerialTransport", "SocketTransport", "Transport", "TransportLost", "open_transport"]

_CHUNK = 65536
CONNECT_S = 5.0
_WRITE_TIMEOUT_S = 2.0


class TransportLost(Exception):  # noqa: N818 (an event that the driver handles, not a failure yet)
    """The port was unplugged or closed by the other end."""


class Transport(Protocol):
    """Anything that moves bytes."""

    def write(self, data: bytes) -> None: ...
    def read(self, timeout: float) -> bytes: ...
    def close(self) -> None: ...


def open_transport(port: str, baud: int) -> Transport:
    """Open a serial path or a URL. Raises PortError."""
    if port.startswith("socket://"):
        return SocketTransport(port)
    return SerialTransport(port, baud)


def connect_socket(url: str, what: str) -> socket.socket:
    """A connection to `socket://host:port`, where a `what` listens. Raises PortError."""
    try:
        where = urlsplit(url)
        scheme, host, number = where.scheme, where.hostname, where.port
    except ValueError:
        scheme, host, number = "", None, None
    if scheme != "socket" or not host or not number:
        raise PortError(f"{url} is not a socket address: write socket://host:port")
    try:
        connected = socket.create_connection((host, number), timeout=CONNECT_S)
    except OSError as error:
        raise PortError(
            f"{url} does not answer ({error.strerror or error}): start the {what}, "
            "or check its port number"
        ) from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


class SerialTransport:
    """A serial port, a pseudo-terminal, or any URL of `serial.serial_for_url`.

    The port is locked: a second program that asks for it is refused.
    """

    def __init__(self, port: str, baud: int) -> None:
        options = {} if "://" in port else {"exclusive": True}
        try:
            self._serial = serial.serial_for_url(
                port, baudrate=baud, timeout=0, write_timeout=_WRITE_TIMEOUT_S, **options
            )
        except (OSError, ValueError) as error:
            raise PortError(_why_not(port, baud, error)) from error
        try:
            self._descriptor = self._serial.fileno()
        except (AttributeError, OSError):
            self._descriptor = None  # Windows and some URLs: look again every millisecond

    def write(self, data: bytes) -> None:
        try:
            self._serial.write(data)
        except serial.SerialTimeoutException:
            # The rest of these bytes is lost like any damaged on the line, and sent again.
            return
        except OSError as error:
            raise TransportLost(str(error)) from error

    def read(self, timeout: float) -> bytes:
        try:
            if self._descriptor is not None:
                select.select([self._descriptor], [], [], timeout)
                return self._serial.read(_CHUNK)
            end = time.monotonic() + timeout
            while not (data := self._serial.read(_CHUNK)) and time.monotonic() < end:
                time.sleep(0.001)
            return data
        except OSError as error:
            raise TransportLost(str(error)) from error

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the port may be gone
            self._serial.close()


class SocketTransport:
    """A TCP connection, such as the virtual board's."""

    def __init__(self, url: str) -> None:
        self._socket = connect_socket(url, "virtual board")
        self._socket.settimeout(_WRITE_TIMEOUT_S)

    def write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except TimeoutError:
            return  # as in SerialTransport.write
        except OSError as error:
            raise TransportLost(str(error)) from error

    def read(self, timeout: float) -> bytes:
        try:
            readable, _, _ = select.select([self._socket], [], [], timeout)
            if not readable:
                return b""
            data = self._socket.recv(_CHUNK)
        except (OSError, ValueError) as error:  # ValueError: closed by another thread
            raise TransportLost(str(error)) from error
        if not data:
            raise TransportLost("closed by the other end")
        return data

    def close(self) -> None:
        self._socket.close()


def _why_not(port: str, baud: int, error: Exception) -> str:
    """One sentence for people about a port that does not open."""
    number = getattr(error, "errno", None)
    text = str(error).lower()
    if isinstance(error, FileNotFoundError) or number == 2:
        return f"Port {port} does not exist: plug the board in, or list the ports with `doctor`"
    if number == 13:
        return f"Port {port} may not be opened: add yourself to the group that owns it"
    if number in (11, 16) or "exclusively lock" in text:
        return f"Port {port} is in use: close the other program first"
    if isinstance(error, ValueError) and "baud" in text:
        return f"Port {port} cannot run at {baud} baud: choose another rate"
    return f"Port {port} cannot be opened ({error}): check its name"
