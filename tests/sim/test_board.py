# SPDX-License-Identifier: BSD-2-Clause
"""The virtual board's bridge, with a top that sends every byte back inverted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import serial

from xnorforge.gen.errors import ToolError
from xnorforge.sim.board import VirtualBoard

ECHO = Path(__file__).parent / "fixtures" / "uart_echo.v"
DATA = bytes(range(256)) * 8

# A client that is killed in the middle: it sends more than it reads and never closes.
CLIENT = """
import serial, sys, time
port = serial.serial_for_url(sys.argv[1], timeout=10)
port.write(bytes(1000))
port.read(10)
print("busy", flush=True)
time.sleep(60)
"""


@pytest.fixture
def board():
    with VirtualBoard.from_verilog([ECHO]) as board:
        yield board


def exchange(address: str, data: bytes = DATA) -> bytes:
    with serial.serial_for_url(address, timeout=20) as port:
        port.write(data)
        return port.read(len(data))


def inverted(data: bytes) -> bytes:
    return bytes(255 - byte for byte in data)


@pytest.mark.parametrize("way", ["pty", "socket"])
def test_every_byte_value_passes_both_ways(board, way):
    assert exchange(getattr(board, way)) == inverted(DATA)
    counts = board.stop()
    assert counts["bytes_in"] == counts["bytes_out"] == len(DATA)
    assert counts["cycles"] > len(DATA) * 40  # ten bits of four cycles


def test_clients_come_and_go_on_either_side(board):
    for address in (board.pty, board.socket, board.pty, board.pty, board.socket, board.socket):
        assert exchange(address, DATA[:300]) == inverted(DATA[:300])


@pytest.mark.parametrize("way", ["pty", "socket"])
def test_killed_client_does_not_harm_the_next(board, way):
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, getattr(board, way)], stdout=subprocess.PIPE, text=True
    )
    assert client.stdout.readline() == "busy\n"
    client.kill()
    client.communicate()
    with serial.serial_for_url(getattr(board, way), timeout=0.3) as port:
        while port.read(4096):
            pass  # what was on its way to the killed client
        port.timeout = 20
        port.write(DATA[:100])
        assert port.read(100) == inverted(DATA[:100])


def test_second_socket_client_is_turned_away(board):
    port = int(board.socket.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as first:
        first.sendall(b"a")
        assert first.recv(1) == inverted(b"a")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as second:
            assert second.recv(1) == b""
        first.sendall(b"b")
        assert first.recv(1) == inverted(b"b")


def test_idle_board_sleeps(board):
    assert exchange(board.pty, b"x") == inverted(b"x")
    time.sleep(0.5)
    before = _cpu_seconds(board.pid)
    time.sleep(1.0)
    assert _cpu_seconds(board.pid) - before < 0.1


def test_idle_board_answers_at_once(board):
    with serial.serial_for_url(board.socket, timeout=20) as port:
        port.write(b"x")
        port.read(1)
        time.sleep(0.5)
        start = time.monotonic()
        port.write(b"y")
        assert port.read(1) == inverted(b"y")
        assert time.monotonic() - start < 0.5


def test_terminated_board_ends_cleanly(board):
    os.kill(board.pid, signal.SIGTERM)
    assert board.wait() == 0
    assert not board.running
    board.stop()


def test_board_ends_with_its_owner():
    script = (
        "import sys, time; from pathlib import Path\n"
        "from xnorforge.sim.board import VirtualBoard\n"
        "board = VirtualBoard.from_verilog([Path(sys.argv[1])])\n"
        "print(board.pid, flush=True); time.sleep(60)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(ECHO)], stdout=subprocess.PIPE, text=True
    )
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 5
    while _state(pid) not in ("gone", "Z"):
        assert time.monotonic() < deadline, "the board outlived its owner"
        time.sleep(0.05)


def test_taken_tcp_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ToolError, match="cannot take the TCP port"):
            VirtualBoard.from_verilog([ECHO], tcp_port=taken.getsockname()[1])


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _state(pid: int) -> str:
    path = Path(f"/proc/{pid}/stat")
    return path.read_text().rsplit(")", 1)[1].split()[0] if path.exists() else "gone"
