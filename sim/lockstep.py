# SPDX-License-Identifier: BSD-2-Clause
"""A bundle's `top` in lockstep with the caller: simulated time decides who hears what, and when.

    driver -- write --> [waiting] --> fault line --> rx |
                                                        | top under Verilator, real baud divisor
    driver <-- read --- [adapter] <-- fault line <-- tx |

`LockstepBoard` runs the Verilog so many cycles and no more. `SimulatedSerial` is the serial port
on top of it, a transport of the driver whose `clock` is simulated time, so that link, connection
and their time-outs run as on a real line, the same in every run and on any machine.

The adapter is modelled as USB-serial converters are. Towards the board a byte goes out as soon as
it is written and the line is free. Towards the host bytes are handed over when the latency timer
ends, `latency_s` after the last time, or as soon as `packet_bytes` have come (an FT232 fills
packets of 62 bytes); without `packet_bytes` only the timer counts, which is worse than any
adapter. The host itself takes no time.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from xnorforge.gen.boards import baud_divisor
from xnorforge.gen.bundle import Bundle
from xnorforge.gen.errors import ToolError
from xnorforge.gen.tools import Progress
from xnorforge.sim.board import board_program
from xnorforge.sim.verilator import environment
from xnorforge.sw.connection import Connection
from xnorforge.sw.endpoint import Endpoint
from xnorforge.sw.link import HostLink
from xnorforge.sw.manifest import Manifest

__all__ = ["LockstepBoard", "SimulatedSerial"]

BYTE_BITS = 10
_WORDS = struct.Struct("=III")
_FOREVER = 0xFFFFFFFF


class LockstepBoard:
    """A board that runs when told to; use it as a context manager.

    divisor: clock cycles a bit; the plan's own (clock / baud) without it. fast: for runs of more
    than a minute, takes longer to compile.

    Attributes
    ----------
    divisor: as above. cycles: clock cycles run so far. waiting: bytes given that have not begun
    on rx. bytes_in, bytes_out: that have begun on rx, that have ended on tx.

    Raises BundleError for a changed bundle, ToolError when the model cannot be built or ends.
    """

    def __init__(
        self,
        bundle_dir: str | Path,
        *,
        divisor: int | None = None,
        fast: bool = False,
        progress: Progress | None = None,
    ) -> None:
        bundle = Bundle.open(bundle_dir)
        manifest = bundle.manifest
        self.divisor = divisor or baud_divisor(manifest["clock_hz"], manifest["link"]["baud"])
        program = board_program(bundle, self.divisor, fast=fast, progress=progress)
        self.cycles = self.waiting = self.bytes_in = self.bytes_out = 0
        self._process = subprocess.Popen(
            [str(program), str(self.divisor), "lockstep"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )

    def run(self, cycles: int, data: bytes = b"", *, until_bytes: int = _FOREVER) -> bytes:
        """Give `data` to rx and run for `cycles`, or until so many bytes have come: those of tx."""
        to_board, from_board = self._process.stdin, self._process.stdout
        assert to_board is not None and from_board is not None  # both are pipes
        try:
            to_board.write(_WORDS.pack(cycles, until_bytes, len(data)) + data)
            to_board.flush()
            done, waiting, size = _WORDS.unpack(from_board.read(_WORDS.size))
            back = from_board.read(size)
        except (OSError, ValueError, struct.error) as error:
            raise ToolError(f"The board in lockstep ended: {self._process.poll()}") from error
        self.cycles += done
        self.bytes_in += self.waiting + len(data) - waiting
        self.bytes_out += len(back)
        self.waiting = waiting
        return back

    def stop(self) -> None:
        """End the simulation. A second call does nothing."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> LockstepBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _unharmed(data: bytes) -> bytes:
    return data


class SimulatedSerial:
    """The host's serial port to a board in lockstep: a `Transport` in simulated time.

    clock_hz: the board's clock; the line has clock_hz / divisor baud. latency_s, packet_bytes: of
    the adapter, as above. up, down: what the line does to bytes to the board and to the host, in
    the order in which they are on it.

    Attributes
    ----------
    waiting: bytes written that have not entered the line.
    """

    def __init__(
        self,
        board: LockstepBoard,
        clock_hz: float,
        *,
        latency_s: float = 0.016,
        packet_bytes: int | None = None,
        up: Callable[[bytes], bytes] = _unharmed,
        down: Callable[[bytes], bytes] = _unharmed,
    ) -> None:
        self.board = board
        self.waiting = bytearray()
        self._clock_hz = clock_hz
        self._latency_cycles = round(latency_s * clock_hz)
        self._packet_bytes = packet_bytes or _FOREVER
        self._up, self._down = up, down
        self._arrived = bytearray()  # in the adapter
        self._visible = bytearray()  # handed over to the host
        self._hand_over_at = board.cycles + self._latency_cycles

    def connection(
        self, manifest: Manifest, *, where: str, timeout: float, may_load: bool = False
    ) -> Connection:
        """The driver's connection over this port, in simulated time; not started."""
        return Connection(
            manifest,
            Endpoint(HostLink(), lambda: self, where),
            timeout=timeout,
            may_load=may_load,
            clock=self.clock,
        )

    def clock(self) -> float:
        """Seconds of simulated time."""
        return self.board.cycles / self._clock_hz

    def write(self, data: bytes) -> None:
        self.waiting += data

    def read(self, timeout: float) -> bytes:
        """What has been handed over, after at most `timeout` simulated seconds."""
        end = self.board.cycles + round(timeout * self._clock_hz)
        while not self._visible and self.board.cycles < end:
            self._run(min(end, self._hand_over_at) - self.board.cycles)
        data = bytes(self._visible)
        self._visible.clear()
        return data

    def close(self) -> None:
        """What has not entered the line, and what the host has not read, is lost."""
        self.waiting.clear()
        self._arrived.clear()
        self._visible.clear()

    def _run(self, cycles: int) -> None:
        """Run until the adapter may have bytes to hand over, at most so long."""
        board = self.board
        # As many bytes as can begin in this time; the rest can still be taken back by `close`.
        room = cycles // (board.divisor * BYTE_BITS) + 2 - board.waiting
        data = bytes(self.waiting[: max(0, room)])
        del self.waiting[: len(data)]
        missing = self._packet_bytes - len(self._arrived)
        self._arrived += self._down(board.run(cycles, self._up(data), until_bytes=missing))
        if len(self._arrived) >= self._packet_bytes or board.cycles >= self._hand_over_at:
            self._visible += self._arrived
            self._arrived.clear()
            self._hand_over_at = board.cycles + self._latency_cycles
