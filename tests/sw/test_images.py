# SPDX-License-Identifier: BSD-2-Clause
"""Image files of every kind give the arrays that were written; damaged ones a clear sentence."""

import gzip
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xnorforge.sw.errors import ImageError
from xnorforge.sw.images import load_images, read_idx
from xnorforge.sw.shipped import shipped_images

RNG = np.random.default_rng(7)
IMAGES = RNG.integers(0, 256, (5, 4, 6), np.uint8)
LABELS = RNG.integers(0, 10, 5, np.uint8)
TYPE_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    code = TYPE_CODES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(path: Path, array: np.ndarray) -> Path:
    data = idx_bytes(array)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_png(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dtype", TYPE_CODES)
def test_idx_gives_values_and_dtype(tmp_path, suffix, dtype):
    array = RNG.integers(-100, 100, (3, 2, 4)).astype(dtype)
    path = write_idx(tmp_path / f"a-idx3{suffix}", array)
    read = read_idx(path)
    assert read.dtype == np.dtype(dtype) and read.dtype.isnative
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("labels_suffix", ["", ".gz"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_file_finds_labels_beside(tmp_path, suffix, labels_suffix):
    path = write_idx(tmp_path / f"train-images-idx3-ubyte{suffix}", IMAGES)
    write_idx(tmp_path / f"train-labels-idx1-ubyte{labels_suffix}", LABELS)
    images, labels = load_images(path)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.int64


def test_idx_without_labels_gives_none(tmp_path):
    path = write_idx(tmp_path / "pictures", IMAGES)
    images, labels = load_images(path)
    np.testing.assert_array_equal(images, IMAGES)
    assert labels is None


def test_idx_folder_prefers_test_set(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", IMAGES[::-1].copy())
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", LABELS)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", IMAGES[:3])
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", LABELS[:3])
    images, labels = load_images(tmp_path)
    np.testing.assert_array_equal(images, IMAGES[:3])
    np.testing.assert_array_equal(labels, LABELS[:3])


def test_idx_folder_of_training_set_only_takes_it(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", IMAGES)
    images, labels = load_images(tmp_path, shape=(24,))
    np.testing.assert_array_equal(images, IMAGES)
    assert labels is None


def test_idx_folder_ambiguous_asks(tmp_path):
    write_idx(tmp_path / "a-images-idx3", IMAGES)
    write_idx(tmp_path / "b-images-idx3", IMAGES)
    with pytest.raises(ImageError, match=r"several image files.*a-images-idx3, b-images-idx3"):
        load_images(tmp_path)


@pytest.mark.parametrize("shape", [None, (24,), (4, 6), (1, 4, 6), (4, 6, 1)])
def test_npy_batch(tmp_path, shape):
    np.save(tmp_path / "a.npy", IMAGES)
    images, labels = load_images(tmp_path / "a.npy", shape=shape)
    np.testing.assert_array_equal(images, IMAGES)
    assert images.dtype == np.uint8 and labels is None


@pytest.mark.parametrize("array", [IMAGES[0], IMAGES[0].reshape(-1)])
def test_npy_single_image_becomes_batch_of_one(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    images, _ = load_images(tmp_path / "a.npy", shape=(24,))
    assert len(images) == 1
    np.testing.assert_array_equal(images.reshape(-1), IMAGES[0].reshape(-1))


def test_npz_finds_array_by_shape_and_labels_by_length(tmp_path):
    np.savez(tmp_path / "a.npz", other=np.zeros((5, 3, 3)), pictures=IMAGES, truth=LABELS)
    images, labels = load_images(tmp_path / "a.npz", shape=(4, 6))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


def test_npz_takes_key(tmp_path):
    np.savez(tmp_path / "a.npz", first=IMAGES, second=IMAGES[:2])
    images, labels = load_images(tmp_path / "a.npz", key="second")
    np.testing.assert_array_equal(images, IMAGES[:2])
    assert labels is None


def test_npz_of_keras_form_takes_test_set(tmp_path):
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[3:], "y_test": LABELS[3:]}
    np.savez(tmp_path / "mnist.npz", **arrays)
    images, labels = load_images(tmp_path / "mnist.npz", shape=(24,))
    np.testing.assert_array_equal(images, IMAGES[3:])
    np.testing.assert_array_equal(labels, LABELS[3:])


def test_npz_of_two_integer_vectors_takes_the_one_named_labels(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES, index=np.arange(5), labels=LABELS)
    np.testing.assert_array_equal(load_images(tmp_path / "a.npz")[1], LABELS)


def test_png_file_grey(tmp_path):
    images, labels = load_images(write_png(tmp_path / "a.png", IMAGES[0]), shape=(24,))
    np.testing.assert_array_equal(images, IMAGES[:1])
    assert images.dtype == np.uint8 and labels is None


def test_png_colour_follows_shape(tmp_path):
    colour = np.stack([IMAGES[0]] * 3, axis=-1)
    path = write_png(tmp_path / "a.png", colour)
    np.testing.assert_array_equal(load_images(path, shape=(24,))[0], IMAGES[:1])
    np.testing.assert_array_equal(load_images(path, shape=(4, 6, 3))[0], colour[None])
    np.testing.assert_array_equal(load_images(path)[0], colour[None])


def test_png_folder_in_order_of_names(tmp_path):
    for index in (2, 0, 1):
        write_png(tmp_path / f"{index}.png", IMAGES[index])
    images, labels = load_images(tmp_path)
    np.testing.assert_array_equal(images, IMAGES[:3])
    assert labels is None


def test_png_folders_named_by_label(tmp_path):
    write_png(tmp_path / "7" / "b.png", IMAGES[1])
    write_png(tmp_path / "7" / "a.png", IMAGES[0])
    write_png(tmp_path / "3" / "c.png", IMAGES[2])
    images, labels = load_images(tmp_path)
    np.testing.assert_array_equal(labels, [3, 7, 7])
    np.testing.assert_array_equal(images, IMAGES[[2, 0, 1]])


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """What can be wrong, and what the sentence must contain."""
    np.save(folder / "small.npy", IMAGES)
    np.save(folder / "none.npy", IMAGES[:0])
    np.save(folder / "text.npy", np.array([["a", "b"]]))
    np.save(folder / "object.npy", np.array([[None, 1]]), allow_pickle=True)
    np.savez(folder / "two.npz", a=IMAGES, b=IMAGES)
    np.savez(folder / "wrong.npz", a=IMAGES[:, :2])
    (folder / "cut.npy").write_bytes((folder / "small.npy").read_bytes()[:-3])
    (folder / "cut.npz").write_bytes((folder / "two.npz").read_bytes()[:200])
    (folder / "cut.idx").write_bytes(idx_bytes(IMAGES)[:-1])
    (folder / "header.idx").write_bytes(idx_bytes(IMAGES)[:9])
    (folder / "cut.gz").write_bytes(gzip.compress(idx_bytes(IMAGES))[:-20])
    (folder / "noise.gz").write_bytes(b"\x1f\x8b" + bytes(range(40)))
    (folder / "empty").write_bytes(b"")
    (folder / "model.onnx").write_bytes(b"\x08\x08\x12\x04abcd")
    (folder / "cut.png").write_bytes(write_png(folder / "a.png", IMAGES[0]).read_bytes()[:50])
    Image.fromarray(IMAGES[0].astype(np.int32)).convert("I;16").save(folder / "deep.png")
    write_idx(folder / "labels-idx1", LABELS)
    (folder / "bare").mkdir()
    write_png(folder / "mixed" / "a.png", IMAGES[0])
    write_png(folder / "mixed" / "b.png", IMAGES[0, :3])
    write_idx(folder / "t10k-images-idx3", IMAGES)
    write_idx(folder / "t10k-labels-idx1", LABELS[:4])
    sentences = {
        "missing": "no such file or folder",
        "small.npy": r"must have shape \(N, 28, 28\) \(784 elements each\), not \(5, 4, 6\)",
        "none.npy": r"must have shape .* not \(0, 4, 6\)",
        "text.npy": "must be integers or floats",
        "object.npy": "not a readable .npy",
        "two.npz": r"no array holds images of shape \(28, 28\); it holds a \(5, 4, 6\), b",
        "wrong.npz": r"it holds a \(5, 2, 6\)",
        "cut.npy": "not a readable .npy",
        "cut.npz": "not a readable .npz",
        "cut.idx": "idx header promises .* 120 bytes, but 119 follow",
        "header.idx": "truncated idx header",
        "cut.gz": "damaged gzip",
        "noise.gz": "gzip|cannot be read",
        "empty": "file is empty",
        "model.onnx": "unknown kind of file.*expected idx files",
        "cut.png": "not a readable PNG",
        "deep.png": "more than 8 bits",
        "labels-idx1": "holds labels",
        "bare": "no images in this folder",
        "mixed": r"shape \(3, 6\) among images of shape \(4, 6\)",
    }
    return {name: (folder / name, sentence) for name, sentence in sentences.items()}


def test_bad_files_give_one_sentence_naming_the_file(tmp_path):
    for name, (path, sentence) in bad_files(tmp_path).items():
        with pytest.raises(ImageError, match=sentence) as caught:
            load_images(path, shape=(28, 28))
        assert re.match(re.escape(str(path)), str(caught.value)), name
        assert "\n" not in str(caught.value), name


def test_ambiguous_npz_lists_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", a=IMAGES, b=IMAGES)
    with pytest.raises(ImageError, match=r"several arrays.*a \(5, 4, 6\), b \(5, 4, 6\).*--key"):
        load_images(tmp_path / "a.npz")


def test_unknown_key_lists_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", a=IMAGES)
    with pytest.raises(ImageError, match=r"no array 'x'; it holds a \(5, 4, 6\)"):
        load_images(tmp_path / "a.npz", key="x")


def test_key_for_a_file_without_arrays_names_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(ImageError, match="chooses an array"):
        load_images(tmp_path / "a.npy", key="x")


def test_label_count_differs_from_images(tmp_path):
    path = write_idx(tmp_path / "t10k-images-idx3", IMAGES)
    write_idx(tmp_path / "t10k-labels-idx1", LABELS[:4])
    with pytest.raises(ImageError, match="4 labels for 5 images"):
        load_images(path)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ((5, 3, 6, 4), "images must be (N, 6, 4, 3), not (5, 3, 6, 4): put the channels last"),
        ((3, 6, 4), "images must be (N, 6, 4, 3), not (1, 3, 6, 4): put the channels last"),
        ((5, 4, 6, 3), "images must be (N, 6, 4, 3), not (5, 4, 6, 3): move the axes"),
    ],
)
def test_maps_of_another_layout_are_refused(tmp_path, found, message):
    path = tmp_path / "images.npy"
    np.save(path, np.zeros(found, np.uint8))
    with pytest.raises(ImageError, match=re.escape(f"{path}: {message}")):
        load_images(path, shape=(6, 4, 3))
    # A map of one channel has one order only, and flat images say nothing about theirs.
    for one_channel in ((5, 1, 6, 4), (5, 24)):
        np.save(path, np.zeros(one_channel, np.uint8))
        assert load_images(path, shape=(6, 4, 1))[0].shape == one_channel


def test_batch_of_no_images_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES[:0])
    with pytest.raises(ImageError, match="holds no images"):
        load_images(tmp_path / "a.npy")


def test_mnist_test_set(shared):
    images, labels = load_images(shared / "data" / "mnist", shape=(784,))
    assert images.shape == (10_000, 28, 28) and images.dtype == np.uint8
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]


def test_shipped_images_are_every_fiftieth_of_the_test_set(shared):
    images, labels = load_images(shipped_images(), shape=(784,))
    all_images, all_labels = load_images(shared / "data" / "mnist")
    np.testing.assert_array_equal(images, all_images[::50])
    np.testing.assert_array_equal(labels, all_labels[::50])


def test_reading_arrays_loads_no_pillow():
    code = (
        "import sys; from xnorforge.sw.images import load_images; "
        f"load_images({str(shipped_images())!r}); assert 'PIL' not in sys.modules; "
        "assert not any(name.startswith('xnorforge.gen') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
