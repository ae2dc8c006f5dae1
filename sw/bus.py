# SPDX-License-Identifier: BSD-2-Clause
"""What the driver talks through where the core is on a bus: registers, images, packets of results.

A bus is reliable: nothing is lost or damaged on it but by a reset. `BusLost` (a `TransportLost`)
says that the device went away. `sw.bus_link` sends images over it; there are two:

    SocketBus      a simulated core with AXI ports, behind a TCP port
    sw.pcie        a card behind LitePCIe's Linux driver, or a simulated one
"""

import json
import select
import time
from collections.abc import Sequence
from typing import Any, Protocol

from xnorforge.sw.errors import PortError
from xnorforge.sw.protocol import WORD_BITS, WORD_SPOILT, AxiRegister, Control
from xnorforge.sw.transport import CONNECT_S, TransportLost, connect_socket

__all__ = ["Bus", "BusLost", "LineServer", "SocketBus", "packet_bytes", "spoilt"]

_WORD = WORD_BITS // 8
_ANSWER_S = 600.0  # a simulation takes its time
_MOST_ON_THE_WAY = 64  # images


class BusLost(TransportLost):
    """The device was reset or taken away."""


class Bus(Protocol):
    """A device with registers, images in, packets of results out."""

    def read(self, register: int) -> int:
        """A register of the core, by number."""

    def begin(self) -> None:
        """Drop all images and results on the way; what comes from now on is of a new lease."""

    def send(self, images: Sequence[tuple[bytes, int]]) -> int:
        """Take some images, each with its slot, in order: how many."""

    def load(self, data: bytes, slot: int, *, first: bool) -> int:
        """Take some of what is left of a weight load, all of it `first`: how many bytes."""

    @property
    def pending(self) -> int:
        """Pieces of a load that were taken and have not reached the core; 0 when all have."""

    def receive(self, timeout: float) -> list[bytes]:
        """Packets of results that have come, after at most `timeout` seconds."""

    def close(self) -> None: ...


def packet_bytes(classes: int) -> int:
    """Of a result: a word a class, and the label's."""
    return (classes + 1) * _WORD


def spoilt(packet: bytes) -> bool:
    """Whether a packet is of an image that was cut short or dropped."""
    return bool(int.from_bytes(packet[-_WORD:], "little") & WORD_SPOILT)


class _Answer(dict[str, Any]):
    """Raises BusLost for what it lacks."""

    def __missing__(self, name: str) -> Any:
        raise BusLost(f"its answer has no {name}")


class LineServer:
    """Questions and answers, a line of JSON each, with a simulator behind a TCP port.

    Attributes
    ----------
    greeting: what it says first.

    Raises PortError where nothing listens there, BusLost when the other end goes away.
    """

    def __init__(self, url: str) -> None:
        self._socket = connect_socket(url, "simulated board")
        self._rest = b""
        try:
            self.greeting = self._answer(CONNECT_S)
        except BusLost as error:
            self.close()
            raise PortError(
                f"{url} does not answer as a simulated board does ({error}): another program uses "
                "it, or it is none"
            ) from error

    def ask(self, op: str, **values: Any) -> dict[str, Any]:
        """An answer. Raises BusLost."""
        try:
            self._socket.sendall(json.dumps({"op": op, **values}).encode() + b"\n")
        except OSError as error:
            raise BusLost(str(error)) from error
        return self._answer(_ANSWER_S)

    def close(self) -> None:
        self._socket.close()

    def _answer(self, timeout: float) -> dict[str, Any]:
        end = time.monotonic() + timeout
        try:
            while b"\n" not in self._rest:
                if not select.select([self._socket], [], [], max(0, end - time.monotonic()))[0]:
                    raise BusLost(f"no answer in {timeout:g} s")
                data = self._socket.recv(1 << 20)
                if not data:
                    raise BusLost("closed by the other end")
                self._rest += data
        except (OSError, ValueError) as error:  # ValueError: closed by another thread
            raise BusLost(str(error)) from error
        line, self._rest = self._rest.split(b"\n", 1)
        try:
            found = json.loads(line)
        except ValueError as error:
            raise BusLost("its answer is no line of JSON") from error
        if not isinstance(found, dict) or "error" in found:
            raise BusLost(str(found.get("error") if isinstance(found, dict) else found))
        return _Answer(found)


class SocketBus:
    """A simulated core with AXI ports. Raises PortError where there is none."""

    def __init__(self, url: str) -> None:
        self._server = LineServer(url)
        if self._server.greeting.get("device") != "axi":
            self._server.close()
            raise PortError(f"{url} is not a simulated core with AXI ports")
        self._on_the_way = 0

    def read(self, register: int) -> int:
        return self._server.ask("read", address=4 * register)["value"]

    def begin(self) -> None:
        # The server stops its streams, flushes, and lets what was ready run out.
        self._server.ask("begin", address=4 * AxiRegister.CONTROL, value=int(Control.FLUSH))
        self._on_the_way = 0

    def send(self, images: Sequence[tuple[bytes, int]]) -> int:
        taken = images[: max(0, _MOST_ON_THE_WAY - self._on_the_way)]
        if taken:
            self._server.ask("images", images=[[image.hex(), slot] for image, slot in taken])
        self._on_the_way += len(taken)
        return len(taken)

    def load(self, data: bytes, slot: int, *, first: bool) -> int:
        if first:
            control = 4 * AxiRegister.CONTROL
            self._server.ask("write", address=control, value=int(Control.RELOAD))
        # In one packet: its end is the load's.
        self._server.ask("load", data=data.hex(), slot=slot)
        return len(data)

    @property
    def pending(self) -> int:
        return 0  # `load` ends when the core has taken the last byte

    def receive(self, timeout: float) -> list[bytes]:
        if not self._on_the_way:
            return []
        packets = self._server.ask("results", waits=timeout > 0)["packets"]
        self._on_the_way -= len(packets)
        return [bytes.fromhex(packet) for packet in packets]

    def close(self) -> None:
        self._server.close()
