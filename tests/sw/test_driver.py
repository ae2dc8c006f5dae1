# SPDX-License-Identifier: BSD-2-Clause
"""The driver against a board in plain Python behind sockets and pseudo-terminals."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import tty

import numpy as np
import pytest

from xnorforge.sim.line_faults import FaultyLine
from xnorforge.sim.toy_board import (
    OTHER,
    WEIGHTS,
    ToyBoard,
    toy_bundle,
    toy_device,
    toy_images,
    toy_load,
    toy_scores,
)
from xnorforge.sw import errors, protocol
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.manifest import Manifest


def test_scores_labels_and_records_equal_the_core(bundle):
    images = toy_images(500)
    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        scores, labels = board.results(images)
        assert (scores == toy_scores(images)).all()
        assert (labels == scores.argmax(axis=1)).all()
        assert (board.classify(images[:7]) == labels[:7]).all()
        assert (board.scores(images[:7].reshape(7, 16)) == scores[:7]).all()
        records = list(board.stream(iter(images[:50])))
        assert [record.index for record in records] == list(range(50))
        assert (np.array([record.scores for record in records]) == scores[:50]).all()
        assert [record.label for record in records] == list(labels[:50])
        assert board.scores(images[:0]).shape == (0, 3)


def test_statistics_keep_core_and_link_apart(bundle):
    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        board.classify(toy_images(60))
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
        ToyBoard(toy_device()) as server,
        Accelerator.open(bundle, server.port, progress=lambda *at: calls.append(at)) as board,
    ):
        board.classify(toy_images(5))
    assert calls == [(k, 5) for k in range(1, 6)]


@pytest.mark.parametrize("seed", range(3))
def test_faults_on_the_line_never_change_an_answer(bundle, seed):
    images = toy_images(1500, seed)
    up, down = FaultyLine(1e-3, seed), FaultyLine(5e-4, seed + 50)
    with (
        ToyBoard(toy_device(), up=up, down=down) as server,
        Accelerator.open(bundle, server.port) as board,
    ):
        assert (board.scores(images) == toy_scores(images)).all()
        assert sum(up.log.values()) + sum(down.log.values()) > 5
        assert board.statistics.link.payload_resent + board.statistics.link.bad_frames > 0


def test_pseudo_terminal(bundle):
    master, slave = os.openpty()
    tty.setraw(slave)
    device = toy_device()
    stopping = threading.Event()

    def serve():
        while not stopping.is_set():
            if select.select([master], [], [], 0.02)[0]:
                os.write(master, device.feed(os.read(master, 4096)))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    path = os.ttyname(slave)
    images = toy_images(400)
    with Accelerator.open(bundle, path) as board:
        assert (board.scores(images) == toy_scores(images)).all()
        with pytest.raises(errors.PortError, match="in use: close the other program"):
            Accelerator.open(bundle, path)
    with Accelerator.open(bundle, path) as board:  # the port was released
        assert (board.scores(images[:5]) == toy_scores(images[:5])).all()
    stopping.set()
    thread.join()
    os.close(master)
    os.close(slave)


# --- connection lost and found ------------------------------------------------------------------


def test_cut_connection_is_made_again_and_resumed(bundle):
    images = toy_images(3000)
    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        server.cut_after = 2000
        assert (board.scores(images) == toy_scores(images)).all()
        assert board.statistics.reconnects == 1 and server.clients == 2


def test_board_that_lost_its_weights_gets_them_again(bundle):
    device = toy_device()
    images = toy_images(3000)
    with ToyBoard(device) as server, Accelerator.open(bundle, server.port) as board:
        stream = board.stream(iter(images))
        first = [next(stream).scores for _ in range(10)]
        with server.lock:
            device.weights_digest = 1
            device.power_cycle()
        rest = [record.scores for record in stream]
        assert (np.array(first + rest) == toy_scores(images)).all()
        assert device.weights_digest == protocol.crc32(WEIGHTS)


def test_board_gone_for_good_is_an_error_and_the_driver_usable_again(bundle):
    server = ToyBoard(toy_device())
    with server:
        board = Accelerator.open(bundle, server.port, timeout=0.6)
    with pytest.raises(errors.PortError, match=r"did not come back within 0\.6 s"):
        board.classify(toy_images(3))
    address = ("127.0.0.1", int(server.port.rsplit(":", 1)[1]))
    with ToyBoard(toy_device(), address=address), board:
        images = toy_images(20)
        assert (board.scores(images) == toy_scores(images)).all()


@pytest.mark.parametrize("moment", range(3))
def test_killed_client_leaves_nothing_behind(bundle, moment):
    code = (
        "import sys, numpy as np\n"
        "from xnorforge.sw.driver import Accelerator\n"
        "board = Accelerator.open(sys.argv[1], sys.argv[2])\n"
        "print('ready', flush=True)\n"
        "while True: board.classify(np.zeros((500, 4, 4), np.uint8))\n"
    )
    with ToyBoard(toy_device(slots=3)) as server:
        client = subprocess.Popen(
            [sys.executable, "-c", code, str(bundle), server.port], stdout=subprocess.PIPE
        )
        assert client.stdout.readline() == b"ready\n"
        time.sleep(0.02 * moment + 0.005)
        client.send_signal(signal.SIGKILL)
        client.wait()
        client.stdout.close()
        images = toy_images(200, moment)
        with Accelerator.open(bundle, server.port) as board:
            assert (board.scores(images) == toy_scores(images)).all()


def test_stream_closed_early_drops_its_images(bundle):
    images = toy_images(2000)
    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        stream = board.stream(iter(images))
        for _ in range(3):
            next(stream)
        with pytest.raises(errors.AcceleratorError, match="A stream is open"):
            board.classify(images[:1])
        stream.close()
        tail = images[-20:]
        assert (board.scores(tail) == toy_scores(tail)).all()


def test_interrupt_leaves_the_board_usable(bundle):
    images = toy_images(50)

    def interrupted():
        yield from images[:20]
        raise KeyboardInterrupt

    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        with pytest.raises(KeyboardInterrupt):
            list(board.stream(interrupted()))
        assert (board.scores(images) == toy_scores(images)).all()


def test_threads_take_turns(bundle):
    images = toy_images(300)
    wrong = []
    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:

        def work(part):
            wrong.append((board.scores(part) != toy_scores(part)).any())

        parts = [images[k::3] for k in range(3)]
        threads = [threading.Thread(target=work, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == [False] * 3


# --- weights ------------------------------------------------------------------------------------


def test_weights_are_loaded_where_they_differ(bundle):
    device = toy_device()
    device.weights_digest = 5
    images = toy_images(20)
    with ToyBoard(device) as server, Accelerator.open(bundle, server.port) as board:
        assert (board.scores(images) == toy_scores(images)).all()


def test_never_load_names_both_digests(bundle):
    device = toy_device()
    device.weights_digest = 5
    found = f"00000005, the bundle has {protocol.crc32(WEIGHTS):08x}"
    with (
        ToyBoard(device) as server,
        pytest.raises(errors.BundleMismatchError, match=found),
    ):
        Accelerator.open(bundle, server.port, load="never")


def test_two_models_alternate(bundle, tmp_path):
    other = toy_bundle(tmp_path / "other", OTHER)
    images = toy_images(10)
    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        for turn in range(6):
            payload, source = ((OTHER, other), (WEIGHTS, toy_load(WEIGHTS)))[turn % 2]
            board.load_weights(source)
            assert (board.scores(images) == toy_scores(images, payload)).all()


def test_wrong_weights_are_refused_before_they_are_sent(bundle, tmp_path):
    images = toy_images(5)
    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        damaged = bytearray(toy_load(WEIGHTS))
        damaged[7] ^= 1
        with pytest.raises(errors.ManifestError, match="CRC does not match"):
            board.load_weights(bytes(damaged))
        with pytest.raises(errors.WeightsError, match=r"24 bytes.* takes 1028"):
            board.load_weights(toy_load(bytes(20)))
        with pytest.raises(errors.WeightsError, match="cannot be read"):
            board.load_weights(tmp_path / "absent.bin")
        foreign = toy_bundle(tmp_path / "foreign", plan_hash=1)
        with pytest.raises(errors.BundleMismatchError, match=r"plan 00000001.*1234abcd"):
            board.load_weights(foreign)
        assert (board.scores(images) == toy_scores(images)).all()


def test_load_cut_off_leaves_no_mixture(bundle):
    images = toy_images(10)
    device = toy_device()
    with ToyBoard(device) as server:
        board = Accelerator.open(bundle, server.port, timeout=1.0)
        server.cut_after = 500
        with pytest.raises(errors.PortError, match="during the load"):
            board.load_weights(toy_load(OTHER))
        assert not device.valid
        assert (board.scores(images) == toy_scores(images, OTHER)).all()  # loads again first
        board.close()


def test_digest_that_does_not_read_back_is_an_error(bundle):
    device = toy_device(garble_digest=True)
    with ToyBoard(device) as server, pytest.raises(errors.WeightsError, match="after a load of"):
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
        ToyBoard(toy_device()) as server,
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
    device = toy_device()
    for name, value in shape.items():
        setattr(device.shape, name, value)
    with ToyBoard(device) as server, pytest.raises(error, match=message):
        Accelerator.open(bundle, server.port)


def test_silent_device(bundle):
    with (
        ToyBoard(toy_device(), up=lambda data: b"") as server,
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
        ToyBoard(Babbler()) as server,
        pytest.raises(errors.ForeignDeviceError, match="not an xnorforge accelerator"),
    ):
        Accelerator.open(bundle, server.port, timeout=0.4)


def test_core_that_stops_is_an_error(bundle):
    device = toy_device()
    with ToyBoard(device) as server, Accelerator.open(bundle, server.port, timeout=0.5) as board:
        device.step = lambda: b""
        with pytest.raises(errors.LinkLostError, match="answers but takes and gives no data"):
            board.classify(toy_images(5))


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
    with ToyBoard(toy_device()) as server:
        board = Accelerator.open(bundle, server.port)
        board.close()
        board.close()
        with pytest.raises(errors.AcceleratorError, match="was closed"):
            board.classify(toy_images(1))


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
