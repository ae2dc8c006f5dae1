# SPDX-License-Identifier: BSD-2-Clause
"""Loads a bundle's bitstream onto its board through openFPGALoader.

How a board is reached decides where a bitstream can go:

    jtag   FPGA (gone at power-off) or flash; a cable is chosen by its serial number or USB place
    spi    flash, or FPGA where jumpers lead there; a cable is chosen by its USB place
    dfu    flash, through the board's own bootloader, which must be running

What openFPGALoader writes to flash it can read back and compare.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from xnorforge.gen.attached import usb_devices, usb_ids
from xnorforge.gen.boards import Board, plan_board
from xnorforge.gen.build_result import read_result
from xnorforge.gen.bundle import Bundle
from xnorforge.gen.errors import BundleError, PlanError, ToolError
from xnorforge.gen.tools import Progress, run_tool

__all__ = ["Cable", "ProgramResult", "program", "program_command"]

_TOOL = "openFPGALoader"
# How openFPGALoader reaches its boards; all others by JTAG.
_REACHED = {"ice40_generic": "spi", "fomu": "dfu", "orangeCrab": "dfu", "icebreaker-bitsy": "dfu"}
# Lines that say of a run which ends with status 0 that it failed.
_FAILED = re.compile(
    r"(Verification failed|Failed to read flash|CRC check ?: FAIL|\bfail(ed)?$).*", re.I
)


@dataclass(frozen=True)
class Cable:
    """Which of several attached cables: "" for the board's own kind and the first one found.

    name: openFPGALoader's name of another kind of cable. serial: an FTDI chip's serial number.
    place: USB bus and device, like "1:7". `xnorforge doctor` lists serial numbers and places.
    """

    name: str = ""
    serial: str = ""
    place: str = ""


@dataclass(frozen=True)
class ProgramResult:
    """command: what a user can type. done: it ran and the board took the bitstream. target:
    "sram" (gone at power-off) or "flash", "" where another tool decides. verified: it was read
    back and compared. reason: why not done, e.g. that no board is attached."""

    command: str
    done: bool
    reason: str
    target: str = ""
    verified: bool = False


def program_command(
    bundle: Bundle, *, target: str = "", verify: bool = True, cable: Cable | None = None
) -> list[str]:
    """The whole command; arguments as `program`. Raises BundleError where no bitstream of the
    bundle is, PlanError for what its board cannot do."""
    folder = bundle.results / "build"
    result = read_result(folder)
    if result is None or bundle.plan.board != result.board:
        raise BundleError(f"{bundle.path} has no finished bitstream: build it first")
    if (folder / "accelerator.v").read_bytes() != (bundle.path / "accelerator.v").read_bytes():
        raise BundleError(f"{result.bitstream} is of another accelerator.v: build it again")
    board, bitstream = plan_board(bundle.plan), str(result.bitstream.resolve())
    if not board.loader:
        if target or cable not in (None, Cable()):
            raise PlanError(
                f"{_TOOL} does not know {board.name}: leave out target and cable, which its own "
                "tool decides"
            )
        return [word.replace("{}", bitstream) for word in shlex.split(board.programmer)]
    return [_TOOL, *_options(board, target, verify, cable or Cable()), bitstream]


def program(
    bundle: Bundle | str | Path,
    *,
    target: str = "",
    verify: bool = True,
    cable: Cable | None = None,
    progress: Progress | None = None,
) -> ProgramResult:
    """Load a built bundle onto its board.

    target: "sram", "flash", or "" for what the board is used with most: its flash where that is
    all or the usual way (SPI, DFU), else the FPGA. verify: read flash back and compare.
    A missing tool or board is no exception: the result then holds the command and the reason.
    Raises BundleError where there is no bitstream, PlanError for what the board cannot do.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    words = program_command(bundle, target=target, verify=verify, cable=cable)
    command = shlex.join(words)
    board = plan_board(bundle.plan)
    if words[:1] != [_TOOL]:
        how = "its own tool does" if words else "its board file names no other tool"
        return ProgramResult(command, False, f"{_TOOL} does not know {board.name}: {how}")
    target = target or _usual_target(board)
    several = _several(board, cable or Cable())
    if several:
        return ProgramResult(command, False, several, target)
    log = bundle.results / "program.log"
    log.unlink(missing_ok=True)
    try:
        run_tool(
            _TOOL,
            words[1:],
            cwd=bundle.results,
            log=log,
            progress=progress,
            label=f"programming {board.name}",
        )
    except ToolError as error:
        text = log.read_text(errors="replace") if log.is_file() else ""
        reason = _reason(text, board, cable or Cable()) or str(error)
        return ProgramResult(command, False, reason, target)
    failed = [line.strip() for line in _lines(log) if _FAILED.search(line.strip())]
    if failed:
        reason = f"{_TOOL} says {failed[0]!r} (whole log: {log})"
        return ProgramResult(command, False, reason, target)
    return ProgramResult(command, True, "", target, "--verify" in words)


# --- options ------------------------------------------------------------------------------------


def _reached(board: Board) -> str:
    """ "jtag", "spi" or "dfu"."""
    return next((_REACHED[word] for word in board.loader if word in _REACHED), "jtag")


def _usual_target(board: Board) -> str:
    return "sram" if _reached(board) == "jtag" else "flash"


def _options(board: Board, target: str, verify: bool, cable: Cable) -> list[str]:
    if target not in ("", "sram", "flash"):
        raise PlanError(f"Target must be 'sram' or 'flash', not {target!r}")
    reached = _reached(board)
    if reached == "dfu":
        if target == "sram":
            raise PlanError(f"The bootloader of {board.name} writes to flash only, not to sram")
        if cable != Cable():
            raise PlanError(
                f"{board.name} has no cable to choose: it is its own, by its bootloader"
            )
        return list(board.loader)
    target = target or _usual_target(board)
    options = [*board.loader, f"--write-{target}"]
    if cable.name:
        options = [*_without(options, "--cable"), "--cable", cable.name]
    if cable.serial:
        if reached == "spi":
            raise PlanError(
                f"{_TOOL} takes no serial number for {board.name}, which it reaches by SPI: choose "
                "the cable by its USB bus and device instead"
            )
        options += ["--ftdi-serial", cable.serial]
    if cable.place:
        if not re.fullmatch(r"\d{1,3}:\d{1,3}", cable.place):
            raise PlanError(f"A cable's place is USB bus and device like 1:7, not {cable.place!r}")
        options += ["--busdev-num", cable.place]
    # Gowin's own flash cannot be read back; openFPGALoader says so and goes on.
    if verify and target == "flash" and not board.device.name.startswith("gw1n"):
        options.append("--verify")
    return options


def _several(board: Board, cable: Cable) -> str:
    """What to choose from, where more than one cable may be meant; "" where one is."""
    ids = usb_ids(board)
    found = [device for device in usb_devices() if device.usb_id in ids]
    if len(found) < 2 or cable != Cable():
        return ""
    if _reached(board) == "dfu":
        return f"{len(found)} boards may be the {board.name}: leave only that one in its bootloader"
    names = [
        f"{item.name} ({', '.join(filter(None, (item.description, item.serial))) or item.usb_id})"
        for item in found
    ]
    return (
        f"{len(found)} cables may be that of {board.name}: choose one by --busdev-num, "
        f"{' or '.join(names)}"
    )


def _without(options: list[str], name: str) -> list[str]:
    """Options without one and its value."""
    if name not in options:
        return options
    place = options.index(name)
    return options[:place] + options[place + 2 :]


# --- what went wrong ----------------------------------------------------------------------------


def _lines(log: Path) -> list[str]:
    # Progress bars overwrite their line.
    return re.split(r"[\r\n]+", log.read_text(errors="replace"))


def _reason(text: str, board: Board, cable: Cable) -> str:
    """The usual failures in one sentence, from the tool's output; "" for others."""
    chosen = ", ".join(filter(None, (cable.name, cable.serial, cable.place)))
    which = f" on cable {chosen}" if chosen else ""
    library = re.search(r"(lib[\w+.-]+\.so[\w.]*): cannot open shared object", text)
    mismatch = re.search(r"bitstream has (\S+) hardware requires (\S+)", text)
    if library:
        return (
            f"{_TOOL} needs {library[1]}: install libusb-1.0 and libftdi1 (Debian: apt install "
            "libusb-1.0-0 libftdi1-2)"
        )
    if mismatch:
        return (
            f"What is attached{which} is no {board.name}: its FPGA is {mismatch[2]}, the "
            f"bitstream is for {mismatch[1]}; choose a cable, `xnorforge doctor` lists them"
        )
    if re.search(r"ACCESS|ermission|ccess denied|-4 \(usb_open\(\) failed|-8 \(", text):
        return _no_permission(board)
    if re.search(r"-5 \(unable to claim|LIBUSB_ERROR_BUSY|fail to claim", text, re.I):
        return f"The cable of {board.name}{which} is in use: close the other program first"
    if re.search(r"-3 \(device not found|No DFU compatible|No USB devices|Not found", text):
        how = " in its bootloader" if _reached(board) == "dfu" else ""
        return f"No {board.name} is attached{which}{how}: plug it in; `xnorforge doctor` lists all"
    if "no device found" in text or re.search(r"JTAG init failed", text):
        return f"The cable of {board.name}{which} answers, but no FPGA behind it: check its power"
    return ""


def _no_permission(board: Board) -> str:
    rules = "".join(
        f'ATTRS{{idVendor}}=="{vendor}", ATTRS{{idProduct}}=="{product}", MODE="664", '
        f'TAG+="uaccess"\\n'
        for vendor, product in (usb_id.split(":") for usb_id in usb_ids(board))
    )
    return (
        f"{board.name} is attached, but you may not open it: let udev allow it with "
        f"printf '{rules}' | sudo tee -a /etc/udev/rules.d/70-xnorforge.rules, then "
        "sudo udevadm control --reload, and plug it in again"
    )
