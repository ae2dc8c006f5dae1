# SPDX-License-Identifier: BSD-2-Clause
"""One step of a build: a tool that reads files of a work folder and makes others.

The key of a step is the SHA-256 of everything that its result depends on: the content of every
file it reads, the tool's arguments, package and version. What a step made is kept under it
(`gen.build_cache`) and taken from there the next time, whichever build, bundle or search asks.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from xnorforge.gen.build_cache import StepCache, sha256
from xnorforge.gen.errors import ToolError
from xnorforge.gen.tools import Progress, Tool, find_tool, run_tool

__all__ = ["Step", "StepResult", "run_step"]

# Part of every key: raise it when the same tool is run in another way.
_FORMAT = 1


@dataclass(frozen=True)
class Step:
    """tool: name in `gen.tools`. args: its arguments; paths in them are names in the work folder.
    reads: all files that it reads there. makes: those it must leave there. label: for people."""

    tool: str
    args: tuple[str, ...]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    label: str

    def key(self, work: Path, tool: Tool) -> str:
        """Hash of all that the result depends on."""
        parts = {
            "format": _FORMAT,
            "tool": [self.tool, tool.package, tool.version],
            "args": self.args,
            "reads": {name: sha256(work / name) for name in self.reads},
            "makes": self.makes,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class StepResult:
    """seconds: what the tool took, now or when the result was made. kept: it was made before."""

    seconds: float
    kept: bool


def run_step(
    step: Step,
    *,
    work: Path,
    log: Path,
    cache: StepCache,
    fresh: bool = False,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
) -> StepResult:
    """Run a step in a work folder, or take what it made from the cache.

    log: file for the tool's output, also that of a kept result. fresh: run it in any case. A
    cache that cannot be written is said to `progress` and otherwise left alone.
    Raises ToolError, naming the log, where the tool fails or does not leave what it should.
    """
    key = step.key(work, find_tool(step.tool))
    kept_log = f"{step.makes[0]}.log"
    names = (*step.makes, kept_log)
    note = None if fresh else cache.take(key, names, work)
    if note is not None:
        (work / kept_log).replace(log)
        return StepResult(float(note["seconds"]), True)
    for name in step.makes:
        (work / name).unlink(missing_ok=True)
    started = time.monotonic()
    run_tool(
        step.tool,
        step.args,
        cwd=work,
        log=log,
        progress=progress,
        label=step.label,
        cancel=cancel,
    )
    seconds = time.monotonic() - started
    for name in step.makes:
        if not (work / name).is_file():
            raise ToolError(f"{step.tool} ended without writing {name}", log=log)
    try:
        (work / kept_log).write_bytes(log.read_bytes())
        cache.keep(key, names, work, {"seconds": round(seconds, 3), "label": step.label})
    except OSError as error:
        if progress is not None:
            progress(f"{step.label}: not kept, {cache.folder}: {error.strerror or error}")
    finally:
        (work / kept_log).unlink(missing_ok=True)
    return StepResult(seconds, False)
