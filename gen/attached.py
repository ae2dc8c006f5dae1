# SPDX-License-Identifier: BSD-2-Clause
"""What is attached to this machine: serial ports and USB devices, which boards they may be, and
whether the user may open them.

A board is seen by the USB chip that programs it. Many boards share one: an FT2232 may be any of a
dozen, and only its description tells more.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xnorforge.gen.boards import BOARDS, Board

__all__ = ["Attached", "serial_ports", "usb_devices", "usb_ids"]

# USB ids behind a word of a board's `loader` (openFPGALoader's board and cable names)
# or behind the program of its `programmer`.
_USB_IDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("ice40_generic", "ft2232", "ecp5_evn", "ecpix5"), ("0403:6010",)),
    **dict.fromkeys(("tangnano", "tangnano9k", "tangnano20k", "tangprimer20k"), ("0403:6010",)),
    **dict.fromkeys(("ulx3s", "icepi-zero"), ("0403:6015",)),
    "ft232": ("0403:6014",),
    "fomu": ("1209:5bf0",),
    "orangeCrab": ("1209:5af0",),
    "icebreaker-bitsy": ("1d50:6146",),
    "iceprog": ("0403:6010", "0403:6014"),
    "icesprog": ("1d50:602b",),
    "iceburn": ("1443:0007",),
    "tinyprog": ("1d50:6130",),
    "cp": ("0483:5740",),
}
_SYSTEM_DEVICES = Path("/sys/bus/usb/devices")
_DEVICE_FILES = Path("/dev/bus/usb")


@dataclass(frozen=True)
class Attached:
    """A serial port, or a USB device that programs boards.

    name: path of the port, or USB place like "1:7" (bus and device). usb_id: "vendor:product" in
    hexadecimal, "" for a port that is not on USB. serial: number of the chip, where it has one.
    description: what it says of itself. boards: ours that it may be. may_open: the user may.
    """

    name: str
    usb_id: str
    serial: str
    description: str
    boards: tuple[str, ...]
    may_open: bool


def usb_ids(board: Board) -> tuple[str, ...]:
    """USB ids ("vendor:product") of what programs a board; () where that is not known."""
    words = [*board.loader, *shlex.split(board.programmer)[:1]]
    given = re.findall(r"-d (\w{4}:\w{4})", board.programmer)  # dfu-util is told
    return tuple(dict.fromkeys([*given, *(i for word in words for i in _USB_IDS.get(word, ()))]))


def serial_ports() -> list[Attached]:
    """The serial ports of this machine, as pyserial finds them."""
    from serial.tools import list_ports

    found = []
    for port in sorted(list_ports.comports()):
        usb_id = "" if port.vid is None else f"{port.vid:04x}:{port.pid:04x}"
        boards = _boards_of(usb_id, _bridged())
        description = port.description if port.description not in (None, "n/a") else ""
        # Windows has no permissions on ports: they open, or are in use.
        may_open = os.name == "nt" or os.access(port.device, os.R_OK | os.W_OK)
        found.append(
            Attached(port.device, usb_id, port.serial_number or "", description, boards, may_open)
        )
    return found


def usb_devices() -> list[Attached]:
    """USB devices that may be one of our boards. Only Linux tells: elsewhere []."""
    found = []
    for folder in sorted(_SYSTEM_DEVICES.glob("*")) if _SYSTEM_DEVICES.is_dir() else ():
        usb_id = f"{_read(folder, 'idVendor')}:{_read(folder, 'idProduct')}"
        boards = _boards_of(usb_id, BOARDS)
        if not boards:
            continue
        bus, device = int(_read(folder, "busnum") or 0), int(_read(folder, "devnum") or 0)
        words = filter(None, (_read(folder, "manufacturer"), _read(folder, "product")))
        file = _DEVICE_FILES / f"{bus:03}" / f"{device:03}"
        found.append(
            Attached(
                f"{bus}:{device}",
                usb_id,
                _read(folder, "serial"),
                " ".join(words),
                boards,
                os.access(file, os.R_OK | os.W_OK),
            )
        )
    return found


def _bridged() -> list[str]:
    """Boards whose own USB has a serial port: the others' UARTs are pins."""
    return [name for name, board in BOARDS.items() if board.uart == "USB bridge"]


def _boards_of(usb_id: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if usb_id in usb_ids(BOARDS[name]))


def _read(folder: Path, name: str) -> str:
    """A file of sysfs; "" where a device has no such."""
    try:
        return (folder / name).read_text(errors="replace").strip()
    except OSError:
        return ""
