# SPDX-License-Identifier: BSD-2-Clause
"""BNN-PYNQ folders: the third party's own files against recorded integers, and made-up folders."""

from __future__ import annotations

import gzip
import shutil

import numpy as np
import pytest

import xnorforge.gen
from xnorforge.gen.bnn_pynq import TOPOLOGIES, load_folder
from xnorforge.gen.errors import ModelError
from xnorforge.gen.network import Network
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.sim.reference import Executor

LFC, CNV = "models/bnn-pynq/mnist/lfcW1A1", "models/bnn-pynq/road-signs/cnvW1A1"


def mnist(shared, count: int) -> tuple[np.ndarray, np.ndarray]:
    content = gzip.decompress((shared / "data/mnist/t10k-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28, 1)
    content = gzip.decompress((shared / "data/mnist/t10k-labels-idx1-ubyte.gz").read_bytes())
    return images[:count], np.frombuffer(content, np.uint8, offset=8)[:count]


def test_lfc_equals_the_recorded_integers(shared) -> None:
    network = xnorforge.gen.load(shared / LFC)
    images, _ = mnist(shared, 500)
    golden = np.load(shared / "models/golden/lfcW1A1_mnist10k.npz")
    result = evaluate(network, images)
    assert ((result.scores + 1024) // 2 == golden["popcount_last"][:500]).all()
    for layer in range(3):
        hidden = np.packbits(result.outputs[layer][:32], axis=1, bitorder="little")
        assert (hidden == golden[f"hidden_bits_first32_L{layer}"]).all()


def test_lfc_equals_the_recorded_integers_of_all_images(shared) -> None:
    network = xnorforge.gen.load(shared / LFC)
    images, labels = mnist(shared, 10_000)
    golden = np.load(shared / "models/golden/lfcW1A1_mnist10k.npz")
    result = Executor(network).run(images)
    assert ((result.scores + 1024) // 2 == golden["popcount_last"]).all()
    bits = result.scores >= -network.head.offset
    assert (bits == golden["bits_last"]).all()
    highest = [max(np.flatnonzero(row), default=0) for row in bits]
    assert result.labels.tolist() == highest
    assert int((result.labels == labels).sum()) == 9840
    # The rule matters: images with no bit, or with two.
    assert (result.labels != result.scores.argmax(axis=1)).any()


def test_cnv_in_numpy_equals_the_recorded_integers(shared) -> None:
    network = xnorforge.gen.load(shared / CNV)
    golden = np.load(shared / "models/golden/cnvW1A1_roadsigns_gtsrb500.npz")
    result = evaluate(network, golden["images_nhwc_u8"][:8])
    assert network.classes == 44
    counts = golden["popcount_last64"][:8, :44]
    assert ((result.scores + 512) // 2 == counts).all()
    assert (result.labels == counts.argmax(axis=1)).all()
    every = load_folder(shared / CNV, classes=64)
    hidden = 2 * result.outputs[-2].astype(int) - 1
    scores = hidden @ every.layers[-1].weights.T.astype(int)
    assert ((scores + 512) // 2 == golden["popcount_last64"][:8]).all()


def test_cnv_labels_of_all_images(shared) -> None:
    network = load_folder(shared / CNV)
    golden = np.load(shared / "models/golden/cnvW1A1_roadsigns_gtsrb500.npz")
    result = Executor(network).run(golden["images_nhwc_u8"])
    assert ((result.scores + 512) // 2 == golden["popcount_last64"][:, :44]).all()
    assert int((result.labels == golden["label"]).sum()) == 486


def test_files_keep_the_network_and_its_rule(shared, tmp_path) -> None:
    for folder in (LFC, CNV):
        network = xnorforge.gen.load(shared / folder)
        network.save(tmp_path)
        again = Network.restore(tmp_path)
        assert again.digest() == network.digest()
        assert again.head.rule == network.head.rule


# --- made-up folders ------------------------------------------------------------------------------


def make(folder, topology: str, seed: int = 0, *, rows: int = 64) -> list[tuple]:
    """Random parameters, written in the format's order; (bits, thresholds) of each layer."""
    random = np.random.default_rng(seed)
    layers = []
    for index, fold in enumerate(TOPOLOGIES[topology]):
        count = rows if index == len(TOPOLOGIES[topology]) - 1 else fold.rows
        bits = random.integers(0, 2, (count, fold.columns))
        middle = fold.columns // 2 if fold.simd != 3 else 0
        levels = middle + random.integers(-9, 10, count)
        for row in range(count):
            words = [
                sum(int(bit) << i for i, bit in enumerate(bits[row, first : first + fold.simd]))
                for first in range(0, fold.columns, fold.simd)
            ]
            with (folder / f"{index}-{row % fold.pe}-weights.bin").open("ab") as file:
                file.write(np.array(words, "<u8").tobytes())
            if fold.thresholds:
                with (folder / f"{index}-{row % fold.pe}-thres.bin").open("ab") as file:
                    file.write(np.array(levels[row], "<i8").tobytes())
        layers.append((bits, levels))
    return layers


@pytest.fixture(scope="module")
def lfc(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made-up-lfc")
    return folder, make(folder, "lfc")


def test_padding_that_matches_is_left_out_exactly(lfc) -> None:
    folder, layers = lfc
    network = xnorforge.gen.load(folder)
    images = np.random.default_rng(1).integers(0, 256, (20, 28, 28, 1), np.uint8)
    x = np.zeros((20, 832), int)
    x[:, :784] = images.reshape(20, -1) >= 128
    result = evaluate(network, images)
    for index, (bits, levels) in enumerate(layers[:-1]):
        matches = (x[:, None, :] == bits).sum(axis=2)
        x = (matches > levels).astype(int)
        assert (x == result.outputs[index]).all(), index
    matches = (x[:, None, :] == layers[-1][0]).sum(axis=2)
    assert ((result.scores + 1024) // 2 == matches).all()
    bits = matches > layers[-1][1]
    labels = [max(np.flatnonzero(row), default=0) for row in bits]
    assert result.labels.tolist() == labels


def test_a_short_last_layer_is_filled_with_zeros(tmp_path) -> None:
    layers = make(tmp_path, "cnv", rows=12)
    network = xnorforge.gen.load(tmp_path)
    assert network.classes == 12
    assert (network.layers[-1].weights == 2 * layers[-1][0] - 1).all()
    every = load_folder(tmp_path, classes=64)
    assert (every.layers[-1].weights[12:] == -1).all()
    (tmp_path / "classes.txt").write_text("\n".join(f"sign {i}" for i in range(10)))
    assert xnorforge.gen.load(tmp_path, topology="cnv").classes == 10
    for pe in range(4):  # streetview has them, its hardware does not use them
        (tmp_path / f"8-{pe}-thres.bin").write_bytes(bytes(24))
    assert xnorforge.gen.load(tmp_path).classes == 10


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def cut(name: str, size: int):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def write(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


BAD = {
    "missing weights": (remove("1-63-weights.bin"), "1-63-weights.bin is missing"),
    "missing thresholds": (remove("3-0-thres.bin"), "3-0-thres.bin is missing"),
    "short": (cut("0-3-weights.bin", 3320), r"0-3-weights.bin: too short: 3320 bytes, not 3328"),
    "short thresholds": (cut("2-0-thres.bin", 128), "2-0-thres.bin: too short: 128 bytes, not 256"),
    "last layer, part of a row": (cut("3-1-weights.bin", 8), "3-1-weights.bin: too short: 8 bytes"),
    "empty": (cut("3-1-weights.bin", 0), "3-1-weights.bin: too short: 0 bytes"),
    "long": (write("1-0-thres.bin", bytes(384)), "1-0-thres.bin: too long: 384 bytes, not 128"),
    "extra element": (write("0-32-thres.bin", bytes(256)), "0-32-thres.bin belongs to no layer"),
    "extra layer": (write("4-0-weights.bin", bytes(8)), "files of 5 layers"),
    "wide word": (
        write("1-2-weights.bin", b"\0" * 4092 + b"\1\0\0\0"),
        "1-2-weights.bin: a word holds 0x100000000, more than 32 bits",
    ),
    "no classes": (write("classes.txt", b"\n"), "0 classes"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folders_are_refused_with_file_and_rule(case, lfc, tmp_path) -> None:
    damage, message = BAD[case]
    folder = shutil.copytree(lfc[0], tmp_path / "net")
    damage(folder)
    with pytest.raises(ModelError, match=f"(?s)net.*{message}") as caught:
        xnorforge.gen.load(folder)
    assert "\n" not in str(caught.value)


def test_bad_options_are_refused(lfc, tmp_path) -> None:
    with pytest.raises(ModelError, match="topology must be"):
        xnorforge.gen.load(lfc[0], topology="tfc")
    with pytest.raises(ModelError, match=r"0-16-thres\.bin belongs to no layer"):
        xnorforge.gen.load(lfc[0], topology="cnv")
    with pytest.raises(ModelError, match="states how it takes its images"):
        xnorforge.gen.load(lfc[0], input_scale=1.0)
    with pytest.raises(ModelError, match="65 classes"):
        load_folder(lfc[0], classes=65)
    with pytest.raises(ModelError, match="this is a folder without BNN-PYNQ files"):
        load_folder(tmp_path)
    with pytest.raises(ModelError, match="topology is for folders"):
        xnorforge.gen.load(tmp_path / "net.onnx", topology="lfc")
