# SPDX-License-Identifier: BSD-2-Clause
"""The driver against a board in plain Python behind sockets and pseudo-terminals."""

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
import zlib

import numpy as np
import pytest

from xnorforge.sim.device_model import Device, FaultyLine, Shape
from xnorforge.sw import errors, protocol
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.manifest import Manifest

SHAPE = (4, 4)
PAYLOAD = bytes(range(256)) * 4
OTHER = bytes(reversed(PAYLOAD))


def load_of(payload):
    return payload + protocol.crc32(payload).to_bytes(4, "little")


def core(image: bytes, digest: int) -> bytes:
    """Three scores of 16 bits, their arg-max as label."""
    word = zlib.crc32(image + digest.to_bytes(4, "little"))
    scores = np.array([word & 255, word >> 8 & 255, word >> 16 & 255], np.int16) - 128
    return scores.astype("<i2").tobytes() + int(scores.argmax()).to_bytes(2, "little")


def expected(images, payload=PAYLOAD):
    """Scores of images as the core gives them for a load."""
    bits = np.packbits(images.reshape(len(images), -1) >= 128, axis=1, bitorder="little")
    records = [core(row.tobytes(), protocol.crc32(payload)) for row in bits]
    return np.array([np.frombuffer(record[:6], "<i2") for record in records]).astype(np.int64)


def some_images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE)).astype(np.uint8)


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "bundle")


def make_bundle(path, payload=PAYLOAD, **changes):
    path.mkdir()
    load = load_of(payload)
    (path / "weights.bin").write_bytes(load)
    manifest = {
        "schema": "1.0",
        "name": "test",
        "plan_hash": Shape().plan_hash,
        "weights_digest": protocol.crc32(payload),
        "clock_hz": 12e6,
        "link": {"kind": "uart", "baud": 1_000_000},
        "input": {
            "shape": list(SHAPE),
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


def make_device(**options):
    shape = Shape(image_bytes=2, classes=3, score_bytes=2)
    return Device(core, shape, weights_digest=protocol.crc32(PAYLOAD), **options)


class Server:
    """A device behind a TCP port; one client at a time. `lines` damage what passes."""

    def __init__(self, device, *, up=None, down=None):
        self.device = device
        self.up = up or (lambda data: data)
        self.down = down or (lambda data: data)
        self.cut_after = None  # bytes after which the connection is cut, once
        self.clients = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = f"socket://127.0.0.1:{self.listener.getsockname()[1]}"
        self.stopping = threading.Event()
        self.lock = threading.Lock()  # held while the device works
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(5)
        self.listener.close()

    def serve(self):
        while not self.stopping.is_set():
            if not select.select([self.listener], [], [], 0.02)[0]:
                continue
            client, _ = self.listener.accept()
            self.clients += 1
            with client, contextlib.suppress(OSError):
                self.talk(client)

    def talk(self, client):
        while not self.stopping.is_set():
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


def test_scores_labels_and_records_equal_the_core(bundle):
    images = some_images(500)
    with Server(make_device()) as server, Accelerator.open(bundle, server.port) as board:
        scores, labels = board.results(images)
        assert (scores == expected(images)).all()
        assert (labels == scores.argmax(axis=1)).all()
        assert (board.classify(images[:7]) == labels[:7]).all()
        assert (board.scores(images[:7].reshape(7, 16)) == scores[:7]).all()
        records = list(board.stream(iter(images[:50])))
        assert [record.index for record in records] == list(range(50))
        assert (np.array([record.scores for record in records]) == scores[:50]).all()
        assert [record.label for record in records] == list(labels[:50])
        assert board.scores(images[:0]).shape == (0, 3)


def test_statistics_keep_core_and_link_apart(bundle):
    with Server(make_device()) as server, Accelerator.open(bundle, server.port) as board:
        board.classify(some_images(60))
        found = board.statistics
        assert (found.images, found.frames, found.busy_cycles) == (60, 60, 6000)
        assert found.core_seconds == pytest.approx(6000 / 12e6)
        assert 0 < found.core_seconds < found.link_seconds
        assert found.link.payload_sent == 120
        board.reset_statistics()
        assert board.statistics.images == 0


def test_progress_is_told(bundle):
    calls = []
    with (
        Server(make_device()) as server,
        Accelerator.open(bundle, server.port, progress=lambda *at: calls.append(at)) as board,
    ):
        board.classify(some_images(5))
    assert calls == [(k, 5) for k in range(1, 6)]


@pytest.mark.parametrize("seed", range(3))
def test_faults_on_the_line_never_change_an_answer(bundle, seed):
    images = some_images(1500, seed)
    up, down = FaultyLine(1e-3, seed), FaultyLine(5e-4, seed + 50)
    with (
        Server(make_device(), up=up, down=down) as server,
        Accelerator.open(bundle, server.port) as board,
    ):
        assert (board.scores(images) == expected(images)).all()
        assert sum(up.log.values()) + sum(down.log.values()) > 5
        assert board.statistics.link.payload_resent + board.statistics.link.bad_frames > 0


def test_pseudo_terminal(bundle):
    master, slave = os.openpty()
    tty.setraw(slave)
    device = make_device()
    stopping = threading.Event()

    def serve():
        while not stopping.is_set():
            if select.select([master], [], [], 0.02)[0]:
                os.write(master, device.feed(os.read(master, 4096)))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    path = os.ttyname(slave)
    images = some_images(400)
    with Accelerator.open(bundle, path) as board:
        assert (board.scores(images) == expected(images)).all()
        with pytest.raises(errors.PortError, match="in use: close the other program"):
            Accelerator.open(bundle, path)
    with Accelerator.open(bundle, path) as board:  # the port was released
        assert (board.scores(images[:5]) == expected(images[:5])).all()
    stopping.set()
    thread.join()
    os.close(master)
    os.close(slave)


# --- connection lost and found ------------------------------------------------------------------


def test_cut_connection_is_made_again_and_resumed(bundle):
    images = some_images(3000)
    with Server(make_device()) as server, Accelerator.open(bundle, server.port) as board:
        server.cut_after = 2000
        assert (board.scores(images) == expected(images)).all()
        assert board.statistics.reconnects == 1 and server.clients == 2


def test_board_that_lost_its_weights_gets_them_again(bundle):
    device = make_device()
    images = some_images(3000)
    with Server(device) as server, Accelerator.open(bundle, server.port) as board:
        stream = board.stream(iter(images))
        first = [next(stream).scores for _ in range(10)]
        with server.lock:
            device.weights_digest = 1
            device.power_cycle()
        rest = [record.scores for record in stream]
        assert (np.array(first + rest) == expected(images)).all()
        assert device.weights_digest == protocol.crc32(PAYLOAD)


def test_board_gone_for_good_is_an_error_and_the_driver_usable_again(bundle):
    server = Server(make_device())
    with server:
        board = Accelerator.open(bundle, server.port, timeout=0.6)
    with pytest.raises(errors.PortError, match=r"did not come back within 0\.6 s"):
        board.classify(some_images(3))
    address = server.port
    again = Server(make_device())
    again.listener.close()
    again.listener = socket.create_server(("127.0.0.1", int(address.rsplit(":", 1)[1])))
    with again, board:
        images = some_images(20)
        assert (board.scores(images) == expected(images)).all()


@pytest.mark.parametrize("moment", range(3))
def test_killed_client_leaves_nothing_behind(bundle, moment):
    code = (
        "import sys, numpy as np\n"
        "from xnorforge.sw.driver import Accelerator\n"
        "board = Accelerator.open(sys.argv[1], sys.argv[2])\n"
        "print('ready', flush=True)\n"
        "while True: board.classify(np.zeros((500, 4, 4), np.uint8))\n"
    )
    with Server(make_device(slots=3)) as server:
        client = subprocess.Popen(
            [sys.executable, "-c", code, str(bundle), server.port], stdout=subprocess.PIPE
        )
        assert client.stdout.readline() == b"ready\n"
        time.sleep(0.02 * moment + 0.005)
        client.send_signal(signal.SIGKILL)
        client.wait()
        client.stdout.close()
        images = some_images(200, moment)
        with Accelerator.open(bundle, server.port) as board:
            assert (board.scores(images) == expected(images)).all()


def test_stream_closed_early_drops_its_images(bundle):
    images = some_images(2000)
    with Server(make_device()) as server, Accelerator.open(bundle, server.port) as board:
        stream = board.stream(iter(images))
        for _ in range(3):
            next(stream)
        with pytest.raises(errors.AcceleratorError, match="A stream is open"):
            board.classify(images[:1])
        stream.close()
        tail = images[-20:]
        assert (board.scores(tail) == expected(tail)).all()


def test_interrupt_leaves_the_board_usable(bundle):
    images = some_images(50)

    def interrupted():
        yield from images[:20]
        raise KeyboardInterrupt

    with Server(make_device()) as server, Accelerator.open(bundle, server.port) as board:
        with pytest.raises(KeyboardInterrupt):
            list(board.stream(interrupted()))
        assert (board.scores(images) == expected(images)).all()


def test_threads_take_turns(bundle):
    images = some_images(300)
    wrong = []
    with Server(make_device()) as server, Accelerator.open(bundle, server.port) as board:

        def work(part):
            wrong.append((board.scores(part) != expected(part)).any())

        parts = [images[k::3] for k in range(3)]
        threads = [threading.Thread(target=work, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == [False] * 3


# --- weights ------------------------------------------------------------------------------------


def test_weights_are_loaded_where_they_differ(bundle):
    device = make_device()
    device.weights_digest = 5
    images = some_images(20)
    with Server(device) as server, Accelerator.open(bundle, server.port) as board:
        assert (board.scores(images) == expected(images)).all()


def test_never_load_names_both_digests(bundle):
    device = make_device()
    device.weights_digest = 5
    found = f"00000005, the bundle has {protocol.crc32(PAYLOAD):08x}"
    with (
        Server(device) as server,
        pytest.raises(errors.BundleMismatchError, match=found),
    ):
        Accelerator.open(bundle, server.port, load="never")


def test_two_models_alternate(bundle, tmp_path):
    other = make_bundle(tmp_path / "other", OTHER)
    images = some_images(10)
    with Server(make_device()) as server, Accelerator.open(bundle, server.port) as board:
        for turn in range(6):
            payload, source = ((OTHER, other), (PAYLOAD, load_of(PAYLOAD)))[turn % 2]
            board.load_weights(source)
            assert (board.scores(images) == expected(images, payload)).all()


def test_wrong_weights_are_refused_before_they_are_sent(bundle, tmp_path):
    images = some_images(5)
    with Server(make_device()) as server, Accelerator.open(bundle, server.port) as board:
        damaged = bytearray(load_of(PAYLOAD))
        damaged[7] ^= 1
        with pytest.raises(errors.ManifestError, match="CRC does not match"):
            board.load_weights(bytes(damaged))
        with pytest.raises(errors.WeightsError, match=r"24 bytes.* takes 1028"):
            board.load_weights(load_of(bytes(20)))
        with pytest.raises(errors.WeightsError, match="cannot be read"):
            board.load_weights(tmp_path / "absent.bin")
        foreign = make_bundle(tmp_path / "foreign", plan_hash=1)
        with pytest.raises(errors.BundleMismatchError, match=r"plan 00000001.*1234abcd"):
            board.load_weights(foreign)
        assert (board.scores(images) == expected(images)).all()


def test_load_cut_off_leaves_no_mixture(bundle):
    images = some_images(10)
    device = make_device()
    with Server(device) as server:
        board = Accelerator.open(bundle, server.port, timeout=1.0)
        server.cut_after = 500
        with pytest.raises(errors.PortError, match="during the load"):
            board.load_weights(load_of(OTHER))
        assert not device.valid
        assert (board.scores(images) == expected(images, OTHER)).all()  # loads again first
        board.close()


def test_digest_that_does_not_read_back_is_an_error(bundle):
    device = make_device(garble_digest=True)
    with Server(device) as server, pytest.raises(errors.WeightsError, match="after a load of"):
        Accelerator.open(bundle, server.port)


# --- bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 5, 4), np.uint8), r"must be \(N, 4, 4\), not \(2, 5, 4\)"),
        (np.zeros((2, 4, 4), np.float32), "must be uint8, not float32"),
        (np.zeros(16, np.uint8), r"must be \(N, 4, 4\)"),
    ],
)
def test_wrong_images_are_refused(bundle, images, message):
    with (
        Server(make_device()) as server,
        Accelerator.open(bundle, server.port) as board,
        pytest.raises(errors.ImageError, match=message),
    ):
        board.classify(images)


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ({"magic": 7}, errors.ForeignDeviceError, "register 0 is 00000007"),
        ({"version": 9}, errors.ForeignDeviceError, "speaks protocol 9, this driver 1"),
        ({"plan_hash": 2}, errors.BundleMismatchError, "plan 00000002.*1234abcd"),
        ({"image_bytes": 3}, errors.BundleMismatchError, "3 bytes an image.*has 2"),
        ({"classes": 4}, errors.BundleMismatchError, "4 classes.*has 3"),
    ],
)
def test_wrong_device_is_named(bundle, shape, error, message):
    device = make_device()
    for name, value in shape.items():
        setattr(device.shape, name, value)
    with Server(device) as server, pytest.raises(error, match=message):
        Accelerator.open(bundle, server.port)


def test_silent_device(bundle):
    with (
        Server(make_device(), up=lambda data: b"") as server,
        pytest.raises(errors.SilentDeviceError, match="Nothing answers on socket"),
    ):
        Accelerator.open(bundle, server.port, timeout=0.4)


@pytest.mark.parametrize("answer", [lambda data: b"login: \r\n", lambda data: data])
def test_another_device_or_an_echo(bundle, answer):
    class Babbler:
        slots = None

        def feed(self, data):
            return answer(data)

    with (
        Server(Babbler()) as server,
        pytest.raises(errors.ForeignDeviceError, match="not an xnorforge accelerator"),
    ):
        Accelerator.open(bundle, server.port, timeout=0.4)


def test_core_that_stops_is_an_error(bundle):
    device = make_device()
    with Server(device) as server, Accelerator.open(bundle, server.port, timeout=0.5) as board:
        device.step = lambda: b""
        with pytest.raises(errors.LinkLostError, match="answers but takes and gives no data"):
            board.classify(some_images(5))


@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("socket://127.0.0.1:1", "start the virtual board"),
        ("socket://nowhere", "write socket://host:port"),
        ("/dev/absent", "does not exist"),
        ("/dev/null", "cannot be opened"),
    ],
)
def test_port_that_does_not_open(bundle, port, message):
    with pytest.raises(errors.PortError, match=message):
        Accelerator.open(bundle, port)


def test_unusable_bundles(bundle, tmp_path):
    with pytest.raises(errors.ManifestError, match=r"has no manifest\.json"):
        Accelerator.open(tmp_path, "socket://127.0.0.1:1")
    (bundle / "weights.bin").write_bytes(b"other")
    with pytest.raises(errors.ManifestError, match="has changed since"):
        Accelerator.open(bundle, "socket://127.0.0.1:1")
    (bundle / "manifest.json").write_text('{"schema": "2.0"}')
    with pytest.raises(errors.ManifestError, match=r"schema 2.0; this driver reads 1.x"):
        Accelerator.open(bundle, "socket://127.0.0.1:1")
    (bundle / "manifest.json").write_text("{}")
    with pytest.raises(errors.ManifestError, match="is damaged"):
        Accelerator.open(bundle, "socket://127.0.0.1:1")
    with pytest.raises(ValueError, match="'auto', 'always' or 'never'"):
        Accelerator.open(bundle, "socket://127.0.0.1:1", load="maybe")


def test_closed_board_says_so(bundle):
    with Server(make_device()) as server:
        board = Accelerator.open(bundle, server.port)
        board.close()
        board.close()
        with pytest.raises(errors.AcceleratorError, match="was closed"):
            board.classify(some_images(1))


def test_multi_bit_images_are_packed_one_element_a_byte(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["input"] |= {"kind": "int", "bits": 4, "pixel": "int8", "threshold": None}
    manifest["input"] |= {"image_bytes": 16}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    contract = Manifest.read(bundle).image
    images = np.arange(-8, 8, dtype=np.int8).reshape(1, 4, 4)
    assert contract.pack(images) == [images.tobytes()]
    with pytest.raises(errors.ImageError, match=r"must lie in \[-8, 7\]"):
        contract.pack(images + np.int8(1))


def test_bits_are_packed_low_first_and_inverted_where_asked(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    images = np.zeros((1, 16), np.uint8)
    images[0, [0, 9]] = 128, 200
    assert Manifest.read(bundle).image.pack(images) == [b"\x01\x02"]
    manifest["input"]["inverted"] = True
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert Manifest.read(bundle).image.pack(images) == [b"\xfe\xfd"]
