# SPDX-License-Identifier: BSD-2-Clause
"""What works on this machine, and what to install where it does not."""

from __future__ import annotations

import glob
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from xnorforge.gen.errors import ToolError
from xnorforge.gen.tools import Progress, find_tool, run_tool, warm_up

__all__ = ["Check", "examine"]

_PACKAGE = "xnorforge"
_PYTHON = (3, 10)
_PORTS = ("/dev/ttyUSB*", "/dev/ttyACM*", "/dev/cu.usb*")
_SYSTEM = {
    "g++": "install a C++ compiler (Debian: apt install g++)",
    "make": "install make (Debian: apt install make)",
    "perl": "install perl (Debian: apt install perl)",
}
_BUILD_TOOLS = ("nextpnr-ice40", "icepack", "nextpnr-ecp5", "ecppack")

_VERILOG = "module tiny(input [3:0] a, output [3:0] b); assign b = ~a; endmodule\n"
_MAIN = """#include "Vtiny.h"
int main() { Vtiny top; top.a = 5; top.eval(); return top.b == 10 ? 0 : 1; }
"""


@dataclass(frozen=True)
class Check:
    """One finding.

    area: "python", "packages", "tools", "system" or "ports". detail: version or what is wrong.
    fix: what to do ("" when ok). needed_for: what works without it not.
    """

    area: str
    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed_for: str = ""


def examine(*, compile_test: bool = True, progress: Progress | None = None) -> list[Check]:
    """Look at everything that the commands need; start every tool once.

    compile_test: also compile and run a small circuit with Verilator (seconds).
    """
    checks = [_python(), *_packages(), *_system(), *_tools(progress)]
    if compile_test:
        checks.append(_verilator(progress))
    return [*checks, *_ports()]


def _python() -> Check:
    ok = sys.version_info >= _PYTHON
    wanted = ".".join(map(str, _PYTHON))
    fix = "" if ok else f"use Python {wanted} or newer"
    return Check("python", "Python", ok, platform.python_version(), fix, "everything")


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
    checks = []
    for extra_name, names in missing.items():
        target = f"{_PACKAGE}[{extra_name}]" if extra_name else _PACKAGE
        detail = f"missing {', '.join(names)}" if names else "all packages installed"
        fix = f"pip install '{target}'" if names else ""
        checks.append(Check("packages", target, not names, detail, fix))
    return checks


def _system() -> list[Check]:
    checks = []
    for name, fix in _SYSTEM.items():
        path = shutil.which(name)
        if path is None:
            checks.append(Check("system", name, False, "not found", fix, "serve, verify"))
            continue
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        version = re.search(r"\d+\.\d+(\.\d+)?", answer.stdout)
        detail = version[0] if version else "version unknown"
        checks.append(Check("system", name, answer.returncode == 0, detail, "", "serve, verify"))
    return checks


def _tools(progress: Progress | None) -> list[Check]:
    checks = [_tool("yosys", ["empty.ys"], "compile, build", progress)]
    for name in _BUILD_TOOLS:
        try:
            tool = find_tool(name)
            seconds = warm_up([name], progress=progress)[name]
        except ToolError as error:
            checks.append(_failed(name, str(error), "build"))
            continue
        detail = f"{tool.package} {tool.version}, starts in {seconds:.1f} s"
        checks.append(Check("tools", name, True, detail, "", "build"))
    checks.append(_tool("openFPGALoader", ["--Version"], "program", progress))
    return checks


def _tool(name: str, args: list[str], needed_for: str, progress: Progress | None) -> Check:
    """Does a tool that needs no warming up start?"""
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as work:
        folder = Path(work)
        (folder / "empty.ys").write_text("design -reset\n")
        try:
            tool = find_tool(name)
            run_tool(name, args, cwd=folder, log=folder / "log", progress=progress)
        except ToolError as error:
            # The log goes with the folder: its path helps nobody.
            return _failed(name, str(error).split(" (whole log:")[0], needed_for)
    return Check("tools", name, True, f"{tool.package} {tool.version}", "", needed_for)


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
            message = str(error).split(" (whole log:")[0]
            return _failed("verilator", message, "serve, verify")
        answer = subprocess.run([folder / "obj_dir" / "Vtiny"], check=False)
    if answer.returncode != 0:
        return _failed("verilator", "the compiled circuit computes wrongly", "serve, verify")
    detail = f"{tool.package} {tool.version}, compiles a small circuit in {seconds:.1f} s"
    return Check("tools", "verilator", True, detail, "", "serve, verify")


def _failed(name: str, message: str, needed_for: str) -> Check:
    library = re.search(r"(lib[\w+.-]+\.so[\w.]*): cannot open shared object", message)
    if library:
        package = {"libusb-1.0.so.0": "libusb-1.0-0", "libftdi1.so.2": "libftdi1-2"}
        wanted = " ".join(package.values())
        fix = (
            f"install {wanted} (Debian: apt install {wanted})"
            if library[1] in package
            else f"install the library {library[1]}"
        )
        return Check("tools", name, False, f"needs {library[1]}", fix, needed_for)
    install = re.search(r"pip install .*", message)
    fix = install[0] if install else "pip install --force-reinstall 'xnorforge[build,sim]'"
    return Check("tools", name, False, message, fix, needed_for)


def _ports() -> list[Check]:
    paths = sorted(path for pattern in _PORTS for path in glob.glob(pattern))
    if not paths:
        detail = "none: no board is attached (the virtual board of `serve` works without)"
        return [Check("ports", "serial ports", True, detail)]
    checks = []
    for path in paths:
        ok = os.access(path, os.R_OK | os.W_OK)
        detail = "can be opened" if ok else "no permission"
        fix = "" if ok else "add yourself to the port's group (Debian: adduser $USER dialout)"
        checks.append(Check("ports", path, ok, detail, fix, "infer on a real board"))
    return checks
