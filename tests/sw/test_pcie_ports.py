# SPDX-License-Identifier: BSD-2-Clause
"""A PCIe card's device file under the driver, its ioctls made up; and ports of something else."""

import json
import socket
import threading
from dataclasses import asdict

import numpy as np
import pytest

from xnorforge.sim.toy_board import ToyBoard, toy_bundle, toy_device, toy_images, toy_scores
from xnorforge.sim.toy_card import CARD, ToyCard
from xnorforge.sw import errors, litepcie
from xnorforge.sw.blocks import BLOCK_BYTES
from xnorforge.sw.bus import BusLost, LineServer
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.pcie import PcieBus

LINK = {"kind": "pcie", **asdict(CARD)}


@pytest.fixture
def bundle(tmp_path):
    return toy_bundle(tmp_path / "bundle", link=LINK)


# --- LitePCIe's driver, made up -------------------------------------------------------------------


class Kernel:
    """The driver's ioctls over a ToyCard, and a file with its memory."""

    def __init__(self, path):
        self.card = card = ToyCard(buffers=16)
        self.size = 16 * BLOCK_BYTES
        path.write_bytes(bytes(2 * self.size))
        rings = np.memmap(path, np.uint8, "r+").reshape(2, 16, BLOCK_BYTES)
        card.tx, card.rx = rings
        self.locked, self.on = False, [False, False]

    def ioctl(self, file, number, data):
        if file < 0:
            raise OSError(9, "closed")
        card = self.card
        if number == litepcie._IOCTL_INFO:
            return litepcie._INFO.pack(0, BLOCK_BYTES, 16, self.size, BLOCK_BYTES, 16)
        if number == litepcie._IOCTL_LOCK:
            free = data[2] or not self.locked
            self.locked = not data[2]
            return data[:4] + bytes([free, free])
        if number == litepcie._IOCTL_REGISTER:
            address, word, is_write = litepcie._REGISTER.unpack(data)
            if is_write:
                card.write(address, word)
            else:
                word = card.read(address)
            return litepcie._REGISTER.pack(address, word, is_write)
        self.on[number == litepcie._IOCTL_READER] = bool(data[0])
        if all(self.on) != card._on:
            card._stop()
            card._on = all(self.on)
        return data


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    found = Kernel(tmp_path / "litepcie0")
    monkeypatch.setattr(litepcie, "_ioctl", found.ioctl)
    monkeypatch.setattr(litepcie.DeviceFile, "pause", lambda _, seconds: found.card.pause(seconds))
    return found


def test_device_file_is_given_back_whoever_still_looks(bundle, kernel, tmp_path):
    port = str(tmp_path / "litepcie0")
    images = toy_images(300)
    with Accelerator.open(bundle, port, timeout=1.0) as board:
        assert (board.scores(images) == toy_scores(images)).all()
        device = board._connection._transport._device
        looks = device.tx[3]
        with pytest.raises(errors.PortError, match="in use"):
            Accelerator.open(bundle, port)
    assert not kernel.locked and kernel.on == [False, False]
    with Accelerator.open(bundle, port) as board:
        assert (board.scores(images) == toy_scores(images)).all()
        device.close()  # again, which is nothing to the other
        assert kernel.locked and kernel.on == [True, True]
    assert not looks.flags.owndata
    # What another thread does with it ends as a reset would.
    bus = PcieBus(device, CARD, 3)
    for ask in (bus.begin, lambda: bus.send([(b"ab", 0)]), lambda: bus.receive(0.0)):
        with pytest.raises(BusLost, match="closed"):
            ask()


def test_card_lost_while_its_memory_is_in_use_is_found_again(bundle, kernel, tmp_path):
    """The traceback of the loss holds the rings; the device file is opened again all the same."""
    images = toy_images(300)
    with Accelerator.open(bundle, str(tmp_path / "litepcie0"), timeout=2.0) as board:
        read, looks = kernel.card.read, []

        def lost(address):
            looks.append(address)
            kernel.card.gone = address == CARD.dma_status and len(looks) == 9
            return 0xFFFFFFFF if 9 <= len(looks) < 12 else read(address)

        kernel.card.read = lost
        assert (board.scores(images) == toy_scores(images)).all()
        assert board.statistics.reconnects == 1


# --- ports of something else ----------------------------------------------------------------------


class Lines:
    """Says a greeting to every client, then an answer to every line; then it is gone."""

    def __init__(self, *texts):
        self._texts = texts
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = f"socket://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            client, _ = self._server.accept()
            with client:
                client.sendall(self._texts[0])
                for text in self._texts[1:]:
                    client.recv(1 << 16)
                    client.sendall(text)


GREETING = {"device": "litepcie", "buffer_bytes": BLOCK_BYTES, "buffers": 4, "memory": "/none"}


def _line(**values):
    return json.dumps(values).encode() + b"\n"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([_line(device="axi")], "is not a simulated PCIe card"),
        ([_line(device="litepcie")], "has no buffer_bytes"),
        ([_line(**GREETING)], "went away"),
        ([_line(**GREETING), _line(ok=False)], "is in use"),
        ([_line(**GREETING), _line(no="ok")], "has no ok"),
        ([_line(**GREETING), _line(ok=True)], "run both on one machine"),
        ([_line(**{**GREETING, "buffers": "x"}), _line(ok=True)], "cannot map it"),
        ([b"\xff\xfe{\n"], "another program uses it, or it is none"),
        ([b"[]\n"], "another program uses it, or it is none"),
    ],
)
def test_socket_of_something_else(bundle, answers, message):
    with pytest.raises(errors.PortError, match=message):
        Accelerator.open(bundle, Lines(*answers).port)


def test_links_do_not_take_each_others_ports(bundle, tmp_path, monkeypatch):
    serial = toy_bundle(tmp_path / "serial")
    with pytest.raises(errors.ForeignDeviceError, match="is not an xnorforge accelerator"):
        Accelerator.open(serial, Lines(_line(**GREETING), *[b""] * 1000).port, timeout=0.3)
    monkeypatch.setattr("xnorforge.sw.bus.CONNECT_S", 0.2)
    message = "does not answer as a simulated board does"
    with ToyBoard(toy_device()) as board, pytest.raises(errors.PortError, match=message):
        Accelerator.open(bundle, board.port)


def test_socket_closed_by_another_thread_is_a_loss():
    server = Lines(_line(**GREETING), _line(ok=True), *[b""] * 9)
    line = LineServer(server.port)
    assert line.ask("lock")["ok"]
    line.close()
    with pytest.raises(BusLost):
        line._answer(1.0)
