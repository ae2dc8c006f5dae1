# SPDX-License-Identifier: BSD-2-Clause
"""Best classes, models exchanged in place, counts, slow sources: on a toy board."""

import json
import sys
import time

import numpy as np
import pytest

from xnorforge.sim.line_faults import FaultyLine
from xnorforge.sim.toy_board import (
    OTHER,
    ToyBoard,
    toy_bundle,
    toy_device,
    toy_images,
    toy_load,
    toy_scores,
)
from xnorforge.sw import errors
from xnorforge.sw.driver import Accelerator, Record
from xnorforge.sw.link import LinkCounts
from xnorforge.sw.manifest import Ranking
from xnorforge.sw.protocol import REGISTER_COUNT, Identity, Register, crc32
from xnorforge.sw.statistics import DeviceCounters, Statistics

OUTPUT = {"classes": 3, "score_bytes": 2}


# --- best classes -------------------------------------------------------------------------------


def test_best_classes_come_first_and_of_equal_ones_the_lower():
    record = Record(0, 1, np.array([5, 9, -3, 9, 5]))
    assert record.top(1) == [(1, 9)]
    assert record.top(5) == [(1, 9), (3, 9), (0, 5), (4, 5), (2, -3)]
    for k in (0, 6, -1):
        with pytest.raises(ValueError, match=f"k must be 1 to 5, the number of classes, not {k}"):
            record.top(k)


def test_best_classes_are_those_of_a_full_sort():
    scores = np.random.default_rng(1).integers(-3, 4, (500, 7))
    best = Ranking().top(scores, 7)
    for row, order in zip(scores, best, strict=True):
        assert list(order) == sorted(range(7), key=lambda c: (-row[c], c))


def test_class_scales_decide_where_the_model_has_any(bundle, tmp_path):
    scaled = toy_bundle(
        tmp_path / "scaled", output=OUTPUT | {"scale": [-1, 2, 1], "offset": [0, 0, 50]}
    )
    images = toy_images(60)
    scores = toy_scores(images)
    keys = scores * [-1, 2, 1] + [0, 0, 50]
    with ToyBoard(toy_device()) as server, Accelerator.open(scaled, server.port) as board:
        best, ranked = board.top(images, 2)
        assert (best[:, 0] == keys.argmax(axis=1)).all()
        assert (ranked == np.take_along_axis(scores, best, 1)).all()
        tops = [record.top(2) for record in board.stream(images)]
        assert [[label for label, _ in top] for top in tops] == best.tolist()
        board.load_weights(toy_load(OTHER))
        with pytest.raises(errors.WeightsError, match="came without the class scales"):
            board.top(images, 2)
        board.load_weights(bundle)  # of the same plan, without scales
        best, _ = board.top(images, 1)
        assert (best[:, 0] == scores.argmax(axis=1)).all()


# --- models in place ----------------------------------------------------------------------------


def test_another_bundles_images_are_taken_its_own_way(bundle, tmp_path):
    """Two models may binarise their images differently: that is done in the host."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    other = toy_bundle(tmp_path / "other", OTHER, input=manifest["input"] | {"threshold": 30})
    images = toy_images(50)
    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        for _ in range(2):
            board.load_weights(other)
            assert (board.scores(images) == toy_scores(images, OTHER, threshold=30)).all()
            records = board.stream(images)
            assert (
                next(records).scores.tolist() == toy_scores(images, OTHER, threshold=30)[0].tolist()
            )
            records.close()
            board.load_weights(bundle)
            assert (board.scores(images) == toy_scores(images)).all()


def test_board_opened_with_other_weights_runs_them_at_once(bundle, tmp_path):
    images = toy_images(20)
    path = tmp_path / "weights.bin"
    path.write_bytes(toy_load(OTHER))
    device = toy_device()
    with ToyBoard(device) as server:
        for weights in (path, toy_load(OTHER)):
            with Accelerator.open(bundle, server.port, weights=weights) as board:
                assert (board.scores(images) == toy_scores(images, OTHER)).all()
        assert device.weights_digest == crc32(OTHER)
        with Accelerator.open(bundle, server.port, load="never", weights=path) as board:
            assert board.manifest.weights_digest == crc32(OTHER)
            assert board.statistics.link.payload_sent == 0
        with pytest.raises(errors.WeightsError, match=r"24 bytes.* takes 1028"):
            Accelerator.open(bundle, server.port, weights=toy_load(bytes(20)))
        with pytest.raises(TypeError, match=r"has no bauds"):
            Accelerator.open(bundle, server.port, bauds=9600)


def test_sources_that_are_none_are_refused_in_one_sentence(bundle, tmp_path):
    (tmp_path / "damaged.bin").write_bytes(b"1234567890")
    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        for source, options, error, words in (
            (tmp_path / "absent.onnx", {}, errors.WeightsError, r"absent\.onnx does not exist"),
            (tmp_path / "damaged.bin", {}, errors.ManifestError, r"damaged\.bin is damaged"),
            (bundle, {"pixel": "int8"}, errors.WeightsError, "is no model: leave out pixel"),
            # The toy's bundle holds no network that a model could be compared with.
            (__file__, {}, errors.WeightsError, r"network\.json is missing|not a bundle's"),
        ):
            with pytest.raises(error, match=words):
                board.load_weights(source, **options)
        images = toy_images(5)
        assert (board.scores(images) == toy_scores(images)).all()


def test_without_the_compiler_a_model_names_what_to_install(bundle, tmp_path, monkeypatch):
    (tmp_path / "model.onnx").touch()
    monkeypatch.setitem(sys.modules, "xnorforge.gen.exchange", None)
    with (
        ToyBoard(toy_device()) as server,
        Accelerator.open(bundle, server.port) as board,
        pytest.raises(errors.WeightsError, match="pip install xnorforge, or load a weights"),
    ):
        board.load_weights(tmp_path / "model.onnx")


# --- counts -------------------------------------------------------------------------------------


def test_counts_hold_together(bundle):
    images = toy_images(1500)
    up, down = FaultyLine(1e-3, 1), FaultyLine(5e-4, 51)
    device = toy_device()
    with (
        ToyBoard(device, up=up, down=down) as server,
        Accelerator.open(bundle, server.port) as board,
    ):
        board.classify(images)
        found = board.statistics
        assert found.images == 1500 and found.frames >= 1500
        assert found.link.payload_sent - found.link.payload_resent >= 3000
        assert found.link.payload_resent > 0 and found.link.bad_frames > 0
        assert 0 < found.spoilt_frames <= device.deframer.bad
        assert 0 < found.refused_frames <= device.misfits + device.overruns
        assert found.images_per_second == pytest.approx(1500 / found.link_seconds)
        item = json.loads(json.dumps(found.to_json()))
        assert item["link"]["bytes_sent"] == found.link.bytes_sent > found.link.payload_sent
        assert item["images_per_second"] == found.images_per_second
        for count in (1500, found.link.bytes_received, found.link.payload_resent):
            assert f"{count:,}" in str(found)
    assert "0 a second" in str(Statistics(0, 0.0, 0.0, 0, 0, 0, 0, 0, 0, 0, LinkCounts()))


def identity(**registers):
    words = [0] * REGISTER_COUNT
    for name, value in registers.items():
        words[Register[name.upper()]] = value
    return Identity(tuple(words))


def test_counters_of_the_board_wrap_around_and_begin_anew_after_a_reset():
    counters = DeviceCounters()
    counters.look(identity(busy_cycles=2**32 - 10, frames=7, errors=0xFFFE_FFFF), restart=True)
    counters.look(identity(busy_cycles=5, frames=9, errors=0x0001_0004))
    assert counters.totals() == {
        "busy_cycles": 15,
        "starved_cycles": 0,
        "stalled_cycles": 0,
        "frames": 2,
        "spoilt_frames": 5,
        "refused_frames": 3,
    }
    counters.look(identity(busy_cycles=3, frames=1, errors=0x0001_0002))  # less: a reset
    assert counters.totals()["frames"] == 3 and counters.totals()["busy_cycles"] == 18
    counters.look(identity(busy_cycles=900, frames=80), restart=True)
    assert counters.totals()["frames"] == 3


def test_slow_source_gets_each_result_before_it_is_asked_again(bundle):
    images = toy_images(3)
    seen = []

    def camera():
        for index, image in enumerate(images):
            time.sleep(0.2)
            seen.append(("image", index))
            yield image

    with ToyBoard(toy_device()) as server, Accelerator.open(bundle, server.port) as board:
        for record in board.stream(camera()):
            seen.append(("result", record.index))
    assert seen == [(what, index) for index in range(3) for what in ("image", "result")]


def test_source_slower_than_the_timeout_is_no_fault_of_the_board(bundle):
    images = toy_images(3)

    def camera():
        for image in images:
            time.sleep(0.7)
            yield image

    def late(data):
        time.sleep(0.06)  # longer than one read of the port
        return data

    with (
        ToyBoard(toy_device(), up=late) as server,
        Accelerator.open(bundle, server.port, timeout=0.4) as board,
    ):
        found = np.array([record.scores for record in board.stream(camera())])
    assert (found == toy_scores(images)).all()
