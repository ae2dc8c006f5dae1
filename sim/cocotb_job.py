# SPDX-License-Identifier: BSD-2-Clause
"""Runs a cocotb bench in a process of its own; bench and caller share a job folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from xnorforge.gen.errors import ToolError
from xnorforge.sim.verilator import environment, run_child

__all__ = ["run_job"]

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
    env = {**environment(), "XNORFORGE_JOB": str(folder), "COCOTB_LOG_LEVEL": "WARNING"}
    log = folder / "log"
    words = [str(model), str(folder), top, bench, *options]
    command = [sys.executable, "-c", _SCRIPT, *words]
    if run_child(command, cwd=folder, log=log, env=env, poll=poll) != 0:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        errors = [line for line in lines if "Error" in line or "Exception" in line]
        raise ToolError(f"The simulation of {top} failed: {(errors or lines)[-1].strip()}")
