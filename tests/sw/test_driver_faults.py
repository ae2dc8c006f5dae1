# SPDX-License-Identifier: BSD-2-Clause
"""Bad input and bad luck: each a clear exception, the port released, the board usable again."""

import errno
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
import tty

import numpy as np
import pytest

from xnorforge.sim.toy_board import (
    ToyBoard,
    toy_bundle,
    toy_device,
    toy_images,
    toy_scores,
)
from xnorforge.sw import errors
from xnorforge.sw.cli import run
from xnorforge.sw.driver import Accelerator

PROGRAM = [sys.executable, "-c", "from xnorforge.sw.cli import main; main()"]
FULL = os.path.exists("/dev/full")


@pytest.fixture
def images(tmp_path):
    """A file of 3,000 images."""
    path = tmp_path / "images.npy"
    np.save(path, toy_images(3000))
    return str(path)


class Terminal:
    """A device behind a pseudo-terminal, which spoils every byte at another rate than its own."""

    def __init__(self, device, baud):
        self.device, self.baud = device, baud
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.path = os.ttyname(self.slave)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        self._thread.join(5)
        os.close(self.master)
        os.close(self.slave)

    def _serve(self):
        while not self._stopping.is_set():
            if select.select([self.master], [], [], 0.02)[0]:
                data = os.read(self.master, 4096)
                speed = termios.tcgetattr(self.slave)[5]
                if speed != self.baud:
                    data = bytes(byte ^ 0x55 for byte in data)
                back = self.device.feed(data)
                if speed != self.baud:
                    # A board at another rate also sends what the host cannot read.
                    back = bytes(len(data))
                os.write(self.master, back)


def usable(bundle, port):
    """A new connection gives right scores."""
    images = toy_images(20, 7)
    with Accelerator.open(bundle, port) as board:
        return bool((board.scores(images) == toy_scores(images)).all())


def test_wrong_baud_rate_is_named_and_the_port_released(bundle):
    with Terminal(toy_device(), termios.B1000000) as terminal:
        with pytest.raises(errors.ForeignDeviceError, match="check the port and the baud rate"):
            Accelerator.open(bundle, terminal.path, baud=9600, timeout=0.4)
        assert usable(bundle, terminal.path)


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ({"magic": 7}, errors.ForeignDeviceError),
        ({"version": 0}, errors.ForeignDeviceError),
        ({"plan_hash": 2}, errors.BundleMismatchError),
        ({"image_bytes": 3}, errors.BundleMismatchError),
    ],
)
def test_wrong_device_old_protocol_and_foreign_bundle_release_the_port(bundle, shape, error):
    device = toy_device()
    own = {name: getattr(device.shape, name) for name in shape}
    with ToyBoard(device) as server:  # which takes one client at a time
        for name, value in shape.items():
            setattr(device.shape, name, value)
        for _ in range(2):
            with pytest.raises(error):
                Accelerator.open(bundle, server.port)
        for name, value in own.items():
            setattr(device.shape, name, value)
        assert usable(bundle, server.port) and server.clients == 3


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 5, 4), np.uint8), r"must be \(N, 4, 4\), not \(2, 5, 4\)"),
        (np.zeros((2, 4, 4)), "must be uint8, not float64"),
        (np.zeros((2, 4, 4), np.int16), "must be uint8, not int16"),
        (np.zeros((2, 4, 4), object), "must be uint8, not object"),
        (np.uint8(3), r"must be \(N, 4, 4\), not \(\)"),
        ("images.npy", "must be uint8, not <U10"),
        (None, "must be uint8, not object"),
        ([[1, 2], [3]], "must be one array"),
    ],
)
def test_images_that_are_none_are_refused_and_the_connection_goes_on(bundle, images, words):
    some = toy_images(9)
    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        for call in (board.classify, board.scores, board.results, lambda i: board.top(i, 1)):
            with pytest.raises(errors.ImageError, match=words):
                call(images)
        with pytest.raises(ValueError, match="k must be 1 to 3"):
            board.top(some, 4)
        assert (board.scores(some) == toy_scores(some)).all() and server.clients == 1


def test_range_of_multi_bit_images_is_checked_before_anything_is_sent(bundle, tmp_path):
    manifest = json.loads((bundle / "manifest.json").read_text())
    given = manifest["input"] | {"kind": "uint", "bits": 1, "threshold": None, "image_bytes": 2}
    narrow = toy_bundle(tmp_path / "narrow", input=given)
    images = np.full((2, 4, 4), 2, np.uint8)
    with ToyBoard(toy_device()) as server, Accelerator.open(narrow, server.port) as board:
        sent = board.statistics.link.payload_sent
        with pytest.raises(errors.ImageError, match=r"must lie in \[0, 1\]: scale them"):
            board.classify(images)
        assert board.statistics.link.payload_sent == sent


def test_image_in_the_middle_of_a_stream_that_is_none(bundle):
    some = toy_images(30)
    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        with pytest.raises(errors.ImageError, match="reshape them"):
            list(board.stream([*some, np.zeros(3, np.uint8), *some]))
        assert (board.scores(some) == toy_scores(some)).all() and server.clients == 1


def test_board_closed_under_another_threads_call_leaves_the_port_free(bundle):
    images = toy_images(300)
    ended = []
    with ToyBoard(toy_device(slots=1)) as server:
        board = Accelerator.open(bundle, server.port, timeout=2.0)

        def work():
            try:
                ended.append((board.scores(images) == toy_scores(images)).all())
            except errors.AcceleratorError:
                ended.append(True)

        thread = threading.Thread(target=work)
        thread.start()
        while board.statistics.images < 10:
            time.sleep(0.001)
        board.close()
        thread.join()
        assert ended == [True] and usable(bundle, server.port)
        with pytest.raises(errors.AcceleratorError, match="was closed"):
            board.classify(images)


# --- a full disk --------------------------------------------------------------------------------


def test_full_disk_keeps_what_was_computed_on_the_screen(
    bundle, images, tmp_path, monkeypatch, capsys
):
    def full(file, **_):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", full)
    with ToyBoard(toy_device()) as server:
        out = tmp_path / "results.npz"
        arguments = ["infer", str(bundle), images, "--port", server.port, "-o", str(out), "--json"]
        assert run(arguments) == 2
        captured = capsys.readouterr()
        assert f"{out} cannot be written (No space left on device): make room" in captured.err
        found = json.loads(captured.out)
        assert len(found["labels"]) == 3000 and "output" not in found
        assert not list(tmp_path.glob("*results*"))
        assert usable(bundle, server.port)


@pytest.mark.skipif(not FULL, reason="no /dev/full here")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_full_disk_under_the_output_or_the_log(bundle, images, stream):
    with ToyBoard(toy_device()) as server, open("/dev/full", "w") as full:
        arguments = ["infer", str(bundle), images, "--port", server.port, "--json"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
        done = subprocess.run([*PROGRAM, *arguments], **streams, text=True)
        if stream == "stdout":
            assert done.returncode == 2
            assert done.stderr.strip() == "Error: No space left on device"
        else:
            assert len(json.loads(done.stdout)["labels"]) == 3000 and done.returncode == 0
        assert usable(bundle, server.port)


@pytest.mark.skipif(shutil.which("mount") is None or os.getuid() != 0, reason="needs a tmpfs")
def test_results_on_a_disk_of_64_kilobytes(bundle, images, tmp_path, capsys):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        with ToyBoard(toy_device()) as server:
            out = str(small / "results.npz")
            arguments = ["infer", str(bundle), images, "--port", server.port, "-o", out]
            assert run(arguments) == 2
            captured = capsys.readouterr()
            assert "No space left on device" in captured.err and "Labels: " in captured.out
            assert not list(small.iterdir())
            assert usable(bundle, server.port)
    finally:
        subprocess.run(["umount", str(small)], check=True)


# --- Ctrl-C -------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_interrupt_at_any_moment_leaves_board_and_port_usable(bundle, images, tmp_path):
    """SIGINT to `infer` from its first import to its last word, a load of weights included."""
    rng = random.Random(1)
    device = toy_device(slots=8)  # some 1,000 images a second
    codes = []
    with ToyBoard(device) as server:
        arguments = ["infer", str(bundle), images, "--port", server.port, "--images", "500"]
        began = time.monotonic()
        whole = subprocess.run([*PROGRAM, *arguments], capture_output=True, check=True)
        seconds = time.monotonic() - began
        assert b"Labels: " in whole.stdout
        for turn in range(12):
            with server.lock:
                if turn % 2:  # so that it loads first
                    device.weights_digest = 5
            before = server.clients
            child = subprocess.Popen(
                [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            if turn % 4:  # from when it talks to the board
                while server.clients == before and child.poll() is None:
                    time.sleep(0.001)
                time.sleep(rng.uniform(0, 0.4 * seconds))
            else:
                time.sleep(rng.uniform(0.2, 1) * seconds)
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=60)
            codes.append(child.returncode)
            if child.returncode == 130:
                assert said.strip().endswith("Interrupted") and "Traceback" not in said
            assert usable(bundle, server.port)
    # Before its first own line Python itself ends it, and after its last word it has succeeded.
    assert set(codes) <= {130, 0, -signal.SIGINT, 1} and codes.count(130) >= 6
    assert not list(tmp_path.glob(".*.part"))
