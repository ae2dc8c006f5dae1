# SPDX-License-Identifier: BSD-2-Clause
"""Attached boards and ports: which of ours they may be, and whether the user may open them."""

import json
import os

import pytest
from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from xnorforge.gen import attached, doctor
from xnorforge.gen.boards import BOARDS
from xnorforge.sw.cli import run

FTDI = (0x0403, 0x6010, "D00123", "iCEBreaker V1.0e - Dual RS232-HS")


def port_at(path, vid=None, pid=None, serial=None, description="n/a"):
    port = ListPortInfo(str(path))
    port.vid, port.pid, port.serial_number, port.description = vid, pid, serial, description
    return port


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with nothing attached; `usb(...)` and `ports` attach something."""

    class Machine:
        def __init__(self):
            self.ports = []

        def usb(self, bus, device, usb_id, serial="", product="", allowed=True):
            folder = tmp_path / "sys" / f"{bus}-{device}"
            folder.mkdir(parents=True)
            vendor, number = usb_id.split(":")
            for name, text in (
                ("idVendor", vendor),
                ("idProduct", number),
                ("busnum", bus),
                ("devnum", device),
                ("serial", serial),
                ("product", product),
            ):
                if text:
                    (folder / name).write_text(f"{text}\n")
            file = tmp_path / "dev" / f"{bus:03}" / f"{device:03}"
            file.parent.mkdir(parents=True, exist_ok=True)
            if allowed:
                file.touch()

        def port(self, name, *details, allowed=True):
            path = tmp_path / name
            path.touch()
            if not allowed:
                denied.add(str(path))
            self.ports.append(port_at(path, *details))
            return str(path)

    denied = set()
    made, access = Machine(), os.access
    (tmp_path / "sys").mkdir()
    monkeypatch.setattr(attached, "_SYSTEM_DEVICES", tmp_path / "sys")
    monkeypatch.setattr(attached, "_DEVICE_FILES", tmp_path / "dev")
    monkeypatch.setattr(list_ports, "comports", lambda: made.ports)
    monkeypatch.setattr(
        attached.os, "access", lambda path, mode: str(path) not in denied and access(path, mode)
    )
    return made


def test_every_board_is_known_by_its_usb_chip():
    for name, board in BOARDS.items():
        assert attached.usb_ids(board), name
    assert attached.usb_ids(BOARDS["icebreaker"]) == ("0403:6010",)
    assert attached.usb_ids(BOARDS["butterstick"]) == ("1209:5af1",)  # dfu-util is told
    assert attached.usb_ids(BOARDS["ulx3s-85f"]) == ("0403:6015",)


def test_serial_ports_tell_which_board_they_may_be(machine):
    icebreaker = machine.port("ttyUSB1", *FTDI)
    other = machine.port("ttyUSB2", 0x1A86, 0x7523, None, "USB Serial", allowed=False)
    plain = machine.port("ttyS0")
    first, second, third = sorted(
        attached.serial_ports(), key=lambda item: [icebreaker, other, plain].index(item.name)
    )
    assert (first.usb_id, first.serial, first.may_open) == ("0403:6010", "D00123", True)
    assert "iCEBreaker" in first.description
    assert {"icebreaker", "icestick", "tang-nano-9k"} <= set(first.boards)
    # Its own USB has no serial port: the UART is on pins.
    assert "ice40-up5k-b-evn" not in first.boards
    assert (second.boards, second.may_open) == ((), False)
    assert (third.usb_id, third.description, third.boards) == ("", "", ())


def test_usb_devices_are_those_that_program_boards(machine):
    machine.usb(1, 7, "0403:6015", "D00456", "ULX3S FPGA 85K v3.0.8")
    machine.usb(2, 3, "1209:5af0", product="OrangeCrab r0.2 DFU Bootloader", allowed=False)
    machine.usb(1, 2, "046d:c077", product="Mouse")
    machine.usb(1, 1, "1d6b:0002", product="Root hub")
    ulx3s, orangecrab = attached.usb_devices()
    assert (ulx3s.name, ulx3s.serial, ulx3s.may_open) == ("1:7", "D00456", True)
    assert ulx3s.description == "ULX3S FPGA 85K v3.0.8" and "ulx3s-85f" in ulx3s.boards
    assert (orangecrab.name, orangecrab.serial, orangecrab.may_open) == ("2:3", "", False)
    assert set(orangecrab.boards) == {
        "orangecrab-r0.1", "orangecrab-r0.2-25f", "orangecrab-r0.2-85f"
    }  # fmt: skip


def test_machine_without_usb_has_no_devices(machine, monkeypatch, tmp_path):
    monkeypatch.setattr(attached, "_SYSTEM_DEVICES", tmp_path / "absent")
    assert attached.usb_devices() == []
    (check,) = doctor._ports([])
    assert check.ok and "no board is attached" in check.detail


def test_doctor_says_what_is_attached_and_what_to_do_where_it_may_not_be_opened(machine):
    path = machine.port("ttyUSB1", *FTDI)
    closed = machine.port("ttyUSB2", 0x0403, 0x6010, allowed=False)
    machine.port("ttyS0", allowed=False)
    machine.usb(1, 7, "0403:6010", "D00123", FTDI[3], allowed=False)
    found = doctor._attached()
    checks = {check.name.rsplit("/", 1)[-1]: check for check in doctor._ports(found)}
    opened = checks["ttyUSB1"]
    assert opened.ok and opened.fix == "" and opened.area == "ports"
    for words in ("iCEBreaker V1.0e", "0403:6010", "D00123", "may be ", " more"):
        assert words in opened.detail
    assert not checks["ttyUSB2"].ok and "dialout" in checks["ttyUSB2"].fix
    assert checks["ttyUSB2"].needed_for == "infer on a real board"
    # No board of ours is behind a port that is not on USB: its rights are nobody's trouble.
    assert not checks["ttyS0"].ok and checks["ttyS0"].needed_for == ""
    usb = checks["1:7"]
    assert (usb.area, usb.ok) == ("usb", False) and "udev" in usb.fix and "0403:6010" in usb.fix
    assert {item.name for item in found} >= {path, closed, "1:7"}


def test_command_line_has_them_in_json(machine, monkeypatch, capsys):
    path = machine.port("ttyUSB1", *FTDI)
    monkeypatch.setattr(doctor, "examine", lambda **_: [])
    run(["doctor", "--quick", "--json"])
    (item,) = json.loads(capsys.readouterr().out)["attached"]
    assert item["name"] == path and item["may_open"] and "icebreaker" in item["boards"]
    run(["doctor", "--quick"])
    assert "iCEBreaker V1.0e" in " ".join(capsys.readouterr().out.split())
