# SPDX-License-Identifier: BSD-2-Clause
"""Training data: every form of folder, damaged ones, and downloads from a server of our own."""

import dataclasses
import gzip
import hashlib
import io
import struct
import tarfile
import threading
import zlib
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xnorforge.sw.errors import TrainingError
from xnorforge.sw.train import DATASETS, RECIPES, find_dataset, load_split
from xnorforge.sw.train import data as data_module
from xnorforge.sw.train.data import data_folder
from xnorforge.sw.train.mat import read_mat

RANDOM = np.random.default_rng(4)
COLOUR = {"image": (32, 32, 3)}


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0))


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data set in MNIST's form."""
    path = tmp_path_factory.mktemp("idx")
    for prefix, count in (("train", 30), ("t10k", 20)):
        write_idx(path / f"{prefix}-images-idx3-ubyte.gz", pixels(count, 28, 28))
        write_idx(path / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    return path


# --- idx -------------------------------------------------------------------------------------


def test_split_tells_whether_it_is_mnist(folder, shared):
    assert not load_split(folder, "test").is_mnist
    assert load_split(shared / "data" / "mnist", "test").is_mnist


@pytest.mark.parametrize(
    ("name", "array", "sentence"),
    [
        ("images-idx3", np.zeros((20, 32, 32)), r"must be uint8 \(N, 28, 28, 1\), not .*32, 32"),
        ("images-idx3", np.zeros((0, 28, 28)), r"must be .* not uint8 \(0, 28, 28"),
        ("labels-idx1", np.zeros(19), r"must be 20 whole numbers, not .*\(19,"),
        ("labels-idx1", np.full(20, 10), "from 0 to 9, not from 10 to 10; --dataset says"),
    ],
)
def test_load_refuses_other_shapes(folder, tmp_path, name, array, sentence):
    for path in folder.glob("t10k*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_idx(tmp_path / f"t10k-{name}-ubyte.gz", array)
    with pytest.raises(TrainingError, match=sentence):
        load_split(tmp_path, "test")


def test_load_refuses_a_damaged_file(folder, tmp_path):
    for path in folder.glob("t10k*"):
        (tmp_path / path.name).write_bytes(path.read_bytes()[:-30])
    with pytest.raises(TrainingError, match=r"t10k-images-idx3-ubyte\.gz: damaged gzip"):
        load_split(tmp_path, "test")


def test_load_knows_two_splits(folder):
    with pytest.raises(TrainingError, match="not 'extra'"):
        load_split(folder, "extra")


# --- CIFAR-10 --------------------------------------------------------------------------------


def cifar_files(count: int = 4) -> dict[str, bytes]:
    """Records of a label and three maps; the first image's red is 10, green 20, blue 30."""
    files = {}
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        records = pixels(count, 3073)
        records[:, 0] = np.arange(count) % 10
        records[0, 1:] = np.repeat([10, 20, 30], 1024)
        files[name] = records.tobytes()
    return files


def write_cifar(folder: Path, files: dict[str, bytes], how: str) -> None:
    if how == "archive":
        with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as packed:
            for name, content in files.items():
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
        return
    inside = folder / "cifar-10-batches-bin" if how == "unpacked" else folder
    inside.mkdir(exist_ok=True)
    for name, content in files.items():
        (inside / name).write_bytes(content)


@pytest.mark.parametrize("how", ["files", "unpacked", "archive"])
def test_cifar_is_read_as_images_of_pixels(how, tmp_path):
    files = cifar_files()
    write_cifar(tmp_path, files, how)
    train, test = (load_split(tmp_path, split, **COLOUR) for split in ("train", "test"))
    assert train.images.shape == (20, 32, 32, 3) and test.images.shape == (4, 32, 32, 3)
    assert (train.images[0] == [10, 20, 30]).all()
    record = np.frombuffer(files["data_batch_2.bin"], np.uint8).reshape(4, 3073)[3]
    assert train.images[7, 5, 9, 1] == record[1 + 1024 + 5 * 32 + 9]
    assert train.labels.tolist() == [0, 1, 2, 3] * 5
    assert train.sha256["data_batch_1.bin"] == hashlib.sha256(files["data_batch_1.bin"]).hexdigest()
    assert not train.is_mnist


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.pop("data_batch_3.bin"), "data_batch_3.bin is missing.*binary version"),
        (lambda f: f.update({"data_batch_3.bin": b"12"}), "data_batch_3.bin has 2 bytes.*3073"),
        (lambda f: f.update({"data_batch_3.bin": b""}), "data_batch_3.bin has 0 bytes"),
    ],
)
def test_cifar_refuses_what_is_not_records(change, sentence, tmp_path):
    files = cifar_files()
    change(files)
    write_cifar(tmp_path, files, "files")
    with pytest.raises(TrainingError, match=sentence):
        load_split(tmp_path, "train", **COLOUR)


def test_cifar_refuses_a_damaged_archive(tmp_path):
    write_cifar(tmp_path, cifar_files(), "archive")
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(TrainingError, match=r"tar\.gz: no .*data_batch_1\.bin can be read"):
        load_split(tmp_path, "train", **COLOUR)


# --- SVHN ------------------------------------------------------------------------------------


def element(kind: int, data: bytes) -> bytes:
    if 0 < len(data) <= 4:  # the small form
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(name: str, array: np.ndarray) -> bytes:
    """As MATLAB writes it: flags, sizes, name, numbers with the first axis fastest."""
    content = (
        element(6, struct.pack("<II", {"u1": 9, "f8": 6}[array.dtype.str[1:]], 0))
        + element(5, struct.pack(f"<{array.ndim}i", *array.shape))
        + element(1, name.encode())
        + element({"u1": 2, "f8": 9}[array.dtype.str[1:]], array.tobytes(order="F"))
    )
    return element(14, content)


def mat_file(*matrices: bytes, packed: bool = True) -> bytes:
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    parts = [
        struct.pack("<II", 15, len(small)) + small if packed else part
        for part in matrices
        for small in [zlib.compress(part)]
    ]
    return header + b"".join(parts)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", [np.uint8, np.float64])
def test_svhn_is_read_and_its_tens_are_zeros(packed, kind, tmp_path):
    images = pixels(32, 32, 3, 5)
    labels = np.array([[1], [10], [9], [10], [2]], kind)
    content = mat_file(matrix("X", images), matrix("y", labels), packed=packed)
    (tmp_path / "train_32x32.mat").write_bytes(content)
    split = load_split(tmp_path, "train", **COLOUR)
    np.testing.assert_array_equal(split.images, images.transpose(3, 0, 1, 2))
    assert split.labels.tolist() == [1, 0, 9, 0, 2]
    with pytest.raises(TrainingError, match=r"test_32x32\.mat is missing"):
        load_split(tmp_path, "test", **COLOUR)


def test_mat_passes_over_what_is_no_number(tmp_path):
    text = element(
        14, element(6, struct.pack("<II", 4, 0)) + element(5, bytes(8)) + element(1, b"s")
    )
    path = tmp_path / "a.mat"
    path.write_bytes(mat_file(text, matrix("X", pixels(2, 3))))
    assert list(read_mat(path)) == ["X"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"PK\3\4", "not a MATLAB file of version 5"),
        (mat_file(matrix("X", pixels(32, 32, 3, 5)))[:-9], "damaged MATLAB file.*cut off"),
        (mat_file(matrix("X", pixels(32, 32, 3, 5))), "holds X; SVHN's have X and y"),
        (mat_file(), "holds nothing; SVHN's have X and y"),
        (mat_file(matrix("X", pixels(4, 5)), matrix("y", pixels(4, 1))), r"X must be .*\(4, 5\)"),
    ],
)
def test_svhn_refuses_other_files(content, sentence, tmp_path):
    (tmp_path / "train_32x32.mat").write_bytes(content)
    with pytest.raises(TrainingError, match=rf"train_32x32\.mat: {sentence}"):
        load_split(tmp_path, "train", **COLOUR)


# --- arrays and pictures ---------------------------------------------------------------------


def test_npz_files_are_read(tmp_path):
    images = pixels(6, 32, 32, 3)
    np.savez(tmp_path / "train.npz", images=images, labels=np.arange(6))
    np.savez(tmp_path / "test.npz", images=images)
    split = load_split(tmp_path, "train", **COLOUR)
    np.testing.assert_array_equal(split.images, images)
    assert split.labels.tolist() == list(range(6))
    with pytest.raises(TrainingError, match=r"test\.npz: has no array 'labels'"):
        load_split(tmp_path, "test", **COLOUR)


@pytest.mark.parametrize("root", ["train", "Final_Training/Images"])
def test_folders_of_pictures_are_scaled_and_labelled(root, tmp_path):
    for label, colour, size in ((0, (250, 0, 0), (40, 31)), (42, (0, 0, 90), (32, 32))):
        inside = tmp_path / root / f"{label:05}"
        inside.mkdir(parents=True)
        for name in ("00001.ppm", "00000.ppm"):
            Image.new("RGB", size, colour).save(inside / name)
        (inside / "GT-00000.csv").write_text("Filename;Width\n")
    split = load_split(tmp_path, "train", classes=43, **COLOUR)
    assert split.images.shape == (4, 32, 32, 3) and split.labels.tolist() == [0, 0, 42, 42]
    assert (split.images[0] == (250, 0, 0)).all() and (split.images[3] == (0, 0, 90)).all()


def test_the_official_test_set_of_gtsrb_is_labelled_by_its_list(tmp_path):
    inside = tmp_path / "Final_Test" / "Images"
    inside.mkdir(parents=True)
    for name, grey in (("00000.ppm", 10), ("00001.ppm", 200)):
        Image.new("RGB", (50, 48), (grey,) * 3).save(inside / name)
    listing = inside / "GT-final_test.csv"
    listing.write_text("Filename;Width;ClassId\n00001.ppm;50;7\n00000.ppm;50;16\n")
    split = load_split(tmp_path, "test", classes=43, **COLOUR)
    assert split.labels.tolist() == [7, 16] and split.images[:, 0, 0, 0].tolist() == [200, 10]
    listing.write_text("Filename;Width;ClassId\n00001.ppm;50;seven\n")
    with pytest.raises(TrainingError, match=r"GT-final_test\.csv: must be lines of Filename"):
        load_split(tmp_path, "test", classes=43, **COLOUR)


def test_bad_pictures_and_empty_folders_are_named(tmp_path):
    inside = tmp_path / "train" / "3"
    inside.mkdir(parents=True)
    with pytest.raises(TrainingError, match="holds no folders named by label"):
        load_split(tmp_path, "train", **COLOUR)
    (inside / "a.ppm").write_bytes(b"P6 hello")
    with pytest.raises(TrainingError, match=r"a\.ppm: not a readable picture"):
        load_split(tmp_path, "train", **COLOUR)
    with pytest.raises(TrainingError, match="has no folder test/"):
        load_split(tmp_path, "test", **COLOUR)


def test_an_empty_folder_is_told_what_the_data_set_needs(tmp_path):
    for name, sentence in (
        ("mnist", r"train-images-idx3-ubyte\(\.gz\) is missing"),
        ("cifar-10", "needs CIFAR-10's binary version"),
        ("svhn", r"train_32x32\.mat is missing"),
        ("gtsrb", "has no folder train/"),
    ):
        with pytest.raises(TrainingError, match=sentence):
            load_split(tmp_path, "train", form=DATASETS[name].form)


# --- data sets and recipes -------------------------------------------------------------------


def test_a_recipe_goes_over_to_another_data_set():
    recipe = RECIPES["cnv"].on(find_dataset("gtsrb"))
    assert (recipe.dataset, recipe.classes, recipe.layers) == ("gtsrb", 43, RECIPES["cnv"].layers)
    with pytest.raises(TrainingError, match=r"'cnv': takes images \(32, 32, 3\); those of MNIST"):
        RECIPES["cnv"].on(find_dataset("mnist"))
    with pytest.raises(TrainingError, match="No data set 'x'; there are: mnist, fashion-mnist"):
        find_dataset("x")


def test_every_recipe_suits_its_data_set():
    for recipe in RECIPES.values():
        assert recipe.on(find_dataset(recipe.dataset)) == recipe


# --- downloads -------------------------------------------------------------------------------


class _Server:
    """Serves a folder on this machine and counts what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        log = self.requests

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *values: object) -> None:
                log.append(self.path)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def change(monkeypatch, name: str = "mnist", **options: object) -> None:
    """Our own files and mirrors in place of a data set's."""
    changed = dataclasses.replace(DATASETS[name], **options)
    monkeypatch.setitem(data_module.DATASETS, name, changed)


@pytest.fixture
def mirror(folder, monkeypatch):
    server = _Server(folder)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    # Port 9 (discard) is closed: the first mirror is always down.
    change(monkeypatch, files=files, mirrors=("http://127.0.0.1:9/", server.url))
    yield server
    server.close()


def test_download_falls_back_to_the_second_mirror_and_is_kept(folder, mirror, tmp_path, capsys):
    cache = tmp_path / "cache"
    for _ in range(2):
        assert data_folder("mnist", cache=cache, progress=True) == cache
    assert len(mirror.requests) == 4
    for path in folder.iterdir():
        assert (cache / path.name).read_bytes() == path.read_bytes()
    assert "download train-images" in capsys.readouterr().err


def test_download_repairs_a_damaged_cache(mirror, tmp_path):
    data_folder("mnist", cache=tmp_path, progress=False)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    data_folder("mnist", cache=tmp_path, progress=False)
    assert load_split(tmp_path, "test").labels.shape == (20,)


def test_download_with_wrong_checksum_is_refused_and_not_kept(mirror, tmp_path, monkeypatch):
    files = DATASETS["mnist"].files | {"train-images-idx3-ubyte.gz": "0" * 64}
    change(monkeypatch, files=files)
    with pytest.raises(TrainingError, match=r"train-images.*the checksum is wrong.*--data"):
        data_folder("mnist", cache=tmp_path, progress=False)
    assert list(tmp_path.glob("train-images*")) == []


def test_download_without_network_says_what_to_do(tmp_path, monkeypatch):
    change(monkeypatch, mirrors=("http://127.0.0.1:9/",))
    with pytest.raises(TrainingError, match=r"no connection.*put train-images-idx3.*--data"):
        data_folder("mnist", cache=tmp_path, progress=False)


def test_download_file_that_the_mirror_lacks_names_the_status(mirror, tmp_path, monkeypatch):
    change(monkeypatch, files={"t11k-images-idx3-ubyte.gz": "0" * 64})
    with pytest.raises(TrainingError, match="HTTP status 404"):
        data_folder("mnist", cache=tmp_path, progress=False)


def test_download_of_an_archive_is_read_as_it_is(tmp_path, monkeypatch):
    write_cifar(tmp_path, cifar_files(), "archive")
    (archive,) = tmp_path.iterdir()
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    server = _Server(tmp_path)
    change(monkeypatch, "cifar-10", files={archive.name: digest}, mirrors=(server.url,))
    try:
        cache = data_folder("cifar-10", cache=tmp_path / "cache", progress=False)
    finally:
        server.close()
    assert load_split(cache, "test", **COLOUR).images.shape == (4, 32, 32, 3)


def test_gtsrb_asks_for_a_folder(tmp_path):
    with pytest.raises(TrainingError, match=r"GTSRB.*name a folder with --data, with train/LABEL"):
        data_folder("gtsrb")
    with pytest.raises(TrainingError, match=r"nowhere: no such folder; .*train_32x32\.mat"):
        data_folder("svhn", tmp_path / "nowhere")
