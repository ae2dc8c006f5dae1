# SPDX-License-Identifier: BSD-2-Clause
"""A board of a made-up core behind a TCP port, and its bundle: the driver without a simulator.

with ToyBoard(toy_device()) as board, Accelerator.open(toy_bundle(path), board.port) as driver:
    assert (driver.scores(images) == toy_scores(images)).all()
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import select
import socket
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xnorforge.sim.device_model import Device, Shape
from xnorforge.sw.protocol import crc32

__all__ = [
    "ToyBoard",
    "toy_bundle",
    "toy_device",
    "toy_images",
    "toy_load",
    "toy_record",
    "toy_scores",
]

IMAGE_SHAPE = (4, 4)
WEIGHTS = bytes(range(256)) * 4
OTHER = bytes(reversed(WEIGHTS))  # of another model


def toy_record(image: bytes, digest: int) -> bytes:
    """Three scores of 16 bits, their arg-max as label."""
    word = zlib.crc32(image + digest.to_bytes(4, "little"))
    scores = np.array([word & 255, word >> 8 & 255, word >> 16 & 255], np.int16) - 128
    return scores.astype("<i2").tobytes() + int(scores.argmax()).to_bytes(2, "little")


def toy_load(weights: bytes = WEIGHTS) -> bytes:
    """A weight load."""
    return weights + crc32(weights).to_bytes(4, "little")


def toy_device(**options: Any) -> Device:
    """A device that holds `WEIGHTS`; options as `Device`."""
    shape = Shape(image_bytes=2, classes=3, score_bytes=2)
    return Device(toy_record, shape, weights_digest=crc32(WEIGHTS), **options)


def toy_images(count: int, seed: int = 0) -> np.ndarray:
    """Images (count, 4, 4), uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, *IMAGE_SHAPE)).astype(np.uint8)


def toy_scores(images: np.ndarray, weights: bytes = WEIGHTS, *, threshold: int = 128) -> np.ndarray:
    """The scores, int64 (N, 3), that the core gives images with some weights."""
    bits = np.packbits(images.reshape(len(images), -1) >= threshold, axis=1, bitorder="little")
    records = [toy_record(row.tobytes(), crc32(weights)) for row in bits]
    return np.array([np.frombuffer(record[:6], "<i2") for record in records]).astype(np.int64)


def toy_bundle(path: Path, weights: bytes = WEIGHTS, **changes: Any) -> Path:
    """A bundle's manifest and weights in a new folder, as far as the driver reads it.

    changes: of the manifest's top level.
    """
    path.mkdir()
    load = toy_load(weights)
    (path / "weights.bin").write_bytes(load)
    manifest = {
        "schema": "1.0",
        "name": "toy",
        "plan_hash": Shape().plan_hash,
        "weights_digest": crc32(weights),
        "clock_hz": 12e6,
        "link": {"kind": "uart", "baud": 1_000_000},
        "input": {
            "shape": list(IMAGE_SHAPE),
            "kind": "bit",
            "bits": 1,
            "pixel": "uint8",
            "threshold": 128,
            "inverted": False,
            "image_bytes": 2,
        },
        "output": {"classes": 3, "score_bytes": 2},
        "files": {"weights.bin": {"sha256": hashlib.sha256(load).hexdigest()}},
    }
    (path / "manifest.json").write_text(json.dumps(manifest | changes))
    return path


class ToyBoard:
    """A device behind a TCP port, one client at a time; use it as a context manager.

    up, down: what the line makes of bytes to and from the device. address: where to listen.

    Attributes
    ----------
    port: its socket:// address.
    cut_after: bytes to the device after which the connection is cut, once; None: never.
    clients: connections so far.
    lock: held while the device works.
    """

    def __init__(
        self,
        device: Any,
        *,
        up: Callable[[bytes], bytes] | None = None,
        down: Callable[[bytes], bytes] | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.device = device
        self.up = up or (lambda data: data)
        self.down = down or (lambda data: data)
        self.cut_after: int | None = None
        self.clients = 0
        self.lock = threading.Lock()
        self._listener = socket.create_server(address)
        self.port = f"socket://127.0.0.1:{self._listener.getsockname()[1]}"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> ToyBoard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            if not select.select([self._listener], [], [], 0.02)[0]:
                continue
            client, _ = self._listener.accept()
            self.clients += 1
            with client, contextlib.suppress(OSError):
                self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        while not self._stopping.is_set():
            readable = select.select([client], [], [], 0.005)[0]
            data = client.recv(4096) if readable else None
            if data == b"":
                return
            if self.cut_after is not None and data:
                self.cut_after -= len(data)
                if self.cut_after < 0:
                    self.device.feed(data[: self.cut_after])
                    self.cut_after = None
                    return
            with self.lock:
                back = self.device.feed(self.up(data)) if data else b""
                if self.device.slots is not None:
                    back += self.device.step()
            if back:
                client.sendall(self.down(back))
