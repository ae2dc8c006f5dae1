# SPDX-License-Identifier: BSD-2-Clause
"""Runs a cocotb bench in a process of its own; bench and caller share a job folder.

`run_job` waits for its end. `BenchServer` is one that answers the driver over TCP, a line of JSON
each way, in lock-step: simulated time passes only while a question is answered (`sim.line_server`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from xnorforge.gen.errors import ToolError
from xnorforge.sim.verilator import environment, run_child

__all__ = ["BenchServer", "run_job"]

_START_S = 120.0

# cocotb's runner changes its process's environment and prints.
_SCRIPT = """
import sys
from cocotb_tools.runner import get_results, get_runner

model, folder, top, bench, *options = sys.argv[1:]
results = get_runner("verilator").test(
    hdl_toplevel=top,
    hdl_toplevel_lang="verilog",
    test_module=bench,
    build_dir=model,
    test_dir=folder,
    results_xml=folder + "/results.xml",
    plusargs=options,
)
sys.exit(get_results(results)[1])
"""


def run_job(
    model: Path,
    folder: Path,
    *,
    top: str,
    bench: str,
    options: Sequence[str] = (),
    poll: Callable[[], None] | None = None,
) -> None:
    """Run a bench on a model of `sim.verilator.build_cocotb`.

    folder: the job's, which the bench finds in XNORFORGE_JOB. top: the model's module. bench: a
    module of cocotb tests. options: of the model. poll: called every second.
    Raises ToolError where the simulation does not run to its end.
    """
    log = folder / "log"
    command, env = _command(model, folder, top, bench, options)
    if run_child(command, cwd=folder, log=log, env=env, poll=poll) != 0:
        raise ToolError(f"The simulation of {top} failed: {_last_words(log)}")


class BenchServer:
    """A bench that serves the driver; use it as a context manager.

    job: for the bench, as job.json; `tcp_port` of it is where to listen, 0 anywhere. Others as
    `run_job`.

    Attributes
    ----------
    port: "socket://127.0.0.1:<port>".
    folder: of the job, removed at the end.

    Raises ToolError when it does not start.
    """

    def __init__(
        self,
        model: Path,
        *,
        top: str,
        bench: str,
        job: Mapping[str, Any],
        options: Sequence[str] = (),
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="xnorforge-"))
        (self.folder / "job.json").write_text(json.dumps(job))
        command, env = _command(model, self.folder, top, bench, options)
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=env,
                stdin=subprocess.PIPE,  # its end tells the bench that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self.port = f"socket://127.0.0.1:{self._number(top)}"
        except BaseException:
            self.stop()
            raise

    def _number(self, top: str) -> int:
        """Of the TCP port, once the bench listens."""
        file, end = self.folder / "port", time.monotonic() + _START_S
        while not file.exists():
            if self._process.poll() is not None or time.monotonic() > end:
                words = _last_words(self.folder / "log")
                raise ToolError(f"The simulation of {top} did not start: {words}")
            time.sleep(0.02)
        return int(file.read_text())

    @property
    def pid(self) -> int:
        """Process of the simulation."""
        return self._process.pid

    def wait(self) -> int:
        """Until it ends by itself or by a signal: its exit status."""
        return self._process.wait()

    def stop(self) -> None:
        """End it. A second call does nothing."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> BenchServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _command(
    model: Path, folder: Path, top: str, bench: str, options: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """What to run, and its environment."""
    env = {**environment(), "XNORFORGE_JOB": str(folder), "COCOTB_LOG_LEVEL": "WARNING"}
    return [sys.executable, "-c", _SCRIPT, str(model), str(folder), top, bench, *options], env


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
    errors = [line for line in lines if "Error" in line or "Exception" in line]
    return (errors or lines)[-1].strip()
