# SPDX-License-Identifier: BSD-2-Clause
"""The virtual board: a bundle's complete `top` under Verilator, behind a pty and a TCP port.

    host driver <-> pty or socket:// <-> board_main.cpp <-> rx, tx | top (PLL modelled)

The host's side cannot tell it from a board but by its speed: the UART runs at 4 clock cycles a
bit, and simulated time stands still while nothing is sent.
"""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from xnorforge.gen.bundle import Bundle
from xnorforge.gen.errors import BundleError, ToolError
from xnorforge.gen.tools import Progress
from xnorforge.sim.verilator import MODELS, build_program, environment, power_up_options

__all__ = ["VirtualBoard", "board_program"]

BAUD_DIVISOR = 4
_MAIN = Path(__file__).with_name("board_main.cpp")
_STOP_SECONDS = 10.0
_CLOCK_BYTES = 8
_FAST = (
    *("-CFLAGS", "-O3", "-MAKEFLAGS", "OPT_FAST=-O3"),
    *("--x-assign", "fast", "--x-initial", "fast"),
)


def board_program(
    bundle: Bundle, divisor: int, *, fast: bool = False, progress: Progress | None = None
) -> Path:
    """The program of board_main.cpp with a bundle's top, at `divisor` clock cycles a bit.

    fast: it takes longer to compile and runs three times as fast. Raises ToolError when it cannot
    be built.
    """
    sources = [bundle.path / "accelerator.v", *_pll_models()]
    return _build(sources, divisor, _FAST if fast else (), progress)


class VirtualBoard:
    """A running virtual board; use it as a context manager.

    bundle_dir: the bundle whose accelerator.v runs. verilog: a variant of that file to run
    instead. tcp_port: 0 for any free one. fast: it takes longer to compile and runs three times as
    fast.

    Attributes
    ----------
    pty: path to give to a serial program.
    socket, port: "socket://127.0.0.1:<port>", pyserial's address of the same line.
    cycles: clock cycles simulated since clients can connect.

    Raises BundleError for a changed bundle, ToolError when the model cannot be built or started.
    """

    def __init__(
        self,
        bundle_dir: str | Path,
        *,
        verilog: Path | None = None,
        tcp_port: int = 0,
        fast: bool = False,
        progress: Progress | None = None,
    ) -> None:
        bundle = Bundle.open(bundle_dir)
        if bundle.plan.board is None:
            raise BundleError(
                f"{bundle.path} is a core without a board's top: compile it for a board to get a "
                "simulated one"
            )
        predicted = bundle.manifest["predicted"]
        # Longer than any computation, so that an image is never left half done for a nap.
        idle_cycles = 20_000 + 4 * int(
            predicted["first_output_cycles"] + predicted["interval_cycles"]
        )
        self._start(
            [verilog or bundle.path / "accelerator.v", *_pll_models()],
            idle_cycles=idle_cycles,
            tcp_port=tcp_port,
            options=_FAST if fast else (),
            progress=progress,
        )

    @classmethod
    def from_verilog(
        cls,
        sources: Sequence[Path],
        *,
        baud_divisor: int | None = None,
        idle_cycles: int = 20_000,
        tcp_port: int = 0,
        options: Sequence[str] = (),
        seed: int | None = None,
        progress: Progress | None = None,
    ) -> VirtualBoard:
        """A board of any Verilog whose `top` has an accelerator's pins.

        baud_divisor: of a top that has it built in; without it the top's parameter BAUD_DIVISOR is
        set. idle_cycles: of silence on the line before it sleeps. options: more of Verilator's.
        seed: what is not initialised powers up at random; without it, as 0.
        """
        board = cls.__new__(cls)
        board._start(
            [*sources, *(_pll_models() if baud_divisor is None else ())],
            baud_divisor=baud_divisor,
            idle_cycles=idle_cycles,
            tcp_port=tcp_port,
            options=options,
            seed=seed,
            progress=progress,
        )
        return board

    def _start(
        self,
        sources: Sequence[Path],
        *,
        baud_divisor: int | None = None,
        idle_cycles: int,
        tcp_port: int,
        options: Sequence[str] = (),
        seed: int | None = None,
        progress: Progress | None,
    ) -> None:
        parameter = BAUD_DIVISOR if baud_divisor is None else None
        program = _build(sources, parameter, options, progress)
        with tempfile.NamedTemporaryFile() as clock_file:  # mapped by both, it needs no name
            clock_file.truncate(_CLOCK_BYTES)
            self._clock = mmap.mmap(clock_file.fileno(), _CLOCK_BYTES)
            self._process = subprocess.Popen(
                [
                    str(program),
                    *(str(baud_divisor or BAUD_DIVISOR), str(idle_cycles), str(tcp_port)),
                    *(clock_file.name, *power_up_options(seed)),
                ],
                stdin=subprocess.PIPE,  # its end tells the board that we are gone
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
            self._output = self._process.stdout
            line = self._output.readline() if self._output else ""
        if not line:
            _, error = self._process.communicate()
            raise ToolError(f"The virtual board did not start: {error.strip()}")
        addresses = json.loads(line)
        self.pty: str = addresses["pty"]
        self.socket: str = addresses["socket"]
        self.port = self.socket

    @property
    def cycles(self) -> int:
        return int.from_bytes(self._clock[:_CLOCK_BYTES], sys.byteorder)

    def seconds(self, clock_hz: float) -> float:
        """A clock for the driver's timeouts: simulated time, and ours once the board has ended."""
        ended = 0.0 if self.running else time.monotonic()
        return self.cycles / clock_hz + ended

    @property
    def pid(self) -> int:
        """Process of the simulation."""
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Until the board ends by itself or by a signal: its exit status."""
        return self._process.wait()

    def stop(self) -> dict[str, int]:
        """End the simulation: its counts `cycles`, `bytes_in`, `bytes_out` ({} if it was killed).

        A second call does nothing.
        """
        if self._output is None or self._output.closed:
            return {}
        self._process.terminate()
        try:
            output, _ = self._process.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, _ = self._process.communicate()
        return json.loads(output) if output else {}

    def kill(self) -> None:
        """Take the board away without notice, as pulling its plug would."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> VirtualBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _pll_models() -> list[Path]:
    return sorted(MODELS.glob("*.v"))


def _build(
    sources: Sequence[Path],
    divisor: int | None,
    options: Sequence[str],
    progress: Progress | None,
) -> Path:
    """divisor: None for a top that has it built in."""
    return build_program(
        sources,
        "top",
        _MAIN,
        parameters={} if divisor is None else {"BAUD_DIVISOR": divisor},
        options=options,
        progress=progress,
    )
