# SPDX-License-Identifier: BSD-2-Clause
"""Folders of labelled images in the forms that data sets come in.

    idx       train-images-idx3-ubyte, t10k-...          MNIST, Fashion-MNIST; gzipped or not
    cifar     data_batch_1.bin ... test_batch.bin        CIFAR-10; also still in its tar.gz
    mat       train_32x32.mat, test_32x32.mat            SVHN, cropped
    npz       train.npz, test.npz                        arrays `images` and `labels`
    pictures  train/LABEL/*.ppm, test/LABEL/*.ppm        GTSRB, also as its archives unpack

A reader gives images uint8 (N, H, W) or (N, H, W, C), labels, and the SHA-256 of what it read.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xnorforge.sw.errors import ImageError, TrainingError
from xnorforge.sw.images import load_images, read_idx
from xnorforge.sw.train.mat import read_mat

__all__ = ["FORMS", "Arrays", "recognise"]

Arrays = tuple[np.ndarray, np.ndarray, dict[str, str]]

IDX_PREFIX = {"train": "train", "test": "t10k"}
CIFAR_FILES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}
CIFAR_FOLDER = "cifar-10-batches-bin"
CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"
CIFAR_SHAPE = (3, 32, 32)
GTSRB_FOLDER = {"train": "Final_Training/Images", "test": "Final_Test/Images"}
GTSRB_LABELS = "GT-final_test.csv"
PICTURES = (".ppm", ".png", ".jpg", ".jpeg")


def recognise(folder: Path) -> str | None:
    """Form of the data set in a folder, by the names of its files."""
    for form, (signs, _) in FORMS.items():
        if any(next(folder.glob(sign), None) for sign in signs):
            return form
    return None


# --- the forms -----------------------------------------------------------------------------


def _read_idx(folder: Path, split: str, size: tuple[int, int]) -> Arrays:
    arrays, sha256 = [], {}
    names = [f"{IDX_PREFIX[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
    for name in names:
        path = next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
        if path is None:
            raise TrainingError(
                f"{folder}: {name}(.gz) is missing; training needs train-images-idx3-ubyte, "
                "train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"
            )
        try:
            array = read_idx(path)
        except ImageError as error:
            raise TrainingError(str(error)) from error
        # Of the idx file that a uint8 array came from, however it was packed.
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        sha256[name] = hashlib.sha256(header + array.tobytes()).hexdigest()
        arrays.append(array)
    return arrays[0], arrays[1], sha256


def _read_cifar(folder: Path, split: str, size: tuple[int, int]) -> Arrays:
    record = 1 + int(np.prod(CIFAR_SHAPE))
    parts, sha256 = [], {}
    for name in CIFAR_FILES[split]:
        content = _cifar_file(folder, name)
        if not content or len(content) % record:
            raise TrainingError(
                f"{folder}: {name} has {len(content)} bytes; CIFAR-10's records have {record} each"
            )
        sha256[name] = hashlib.sha256(content).hexdigest()
        parts.append(np.frombuffer(content, np.uint8).reshape(-1, record))
    records = np.concatenate(parts)
    images = records[:, 1:].reshape(-1, *CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0], sha256


def _cifar_file(folder: Path, name: str) -> bytes:
    """Content of a file of the binary version, from the folder or from the archive in it."""
    for path in (folder / name, folder / CIFAR_FOLDER / name):
        if path.is_file():
            return path.read_bytes()
    archive = folder / CIFAR_ARCHIVE
    if not archive.is_file():
        raise TrainingError(
            f"{folder}: {name} is missing; training needs CIFAR-10's binary version, "
            f"{CIFAR_ARCHIVE} or the files in it"
        )
    try:
        with tarfile.open(archive) as packed:
            member = packed.extractfile(f"{CIFAR_FOLDER}/{name}")
            return member.read() if member else b""
    except (tarfile.TarError, OSError, EOFError, KeyError, zlib.error) as error:
        raise TrainingError(f"{archive}: no {CIFAR_FOLDER}/{name} can be read ({error})") from error


def _read_svhn(folder: Path, split: str, size: tuple[int, int]) -> Arrays:
    path = _file(folder, f"{split}_32x32.mat", "train_32x32.mat and test_32x32.mat")
    arrays = read_mat(path)
    if not {"X", "y"} <= arrays.keys():
        raise TrainingError(f"{path}: holds {', '.join(arrays) or 'nothing'}; SVHN's have X and y")
    images, labels = arrays["X"], arrays["y"].reshape(-1)
    if images.ndim != 4:
        raise TrainingError(f"{path}: X must be (32, 32, 3, N), not {images.shape}")
    # The digit 0 has label 10.
    labels = np.where(labels == 10, 0, labels)
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels, _sha256(path)


def _read_npz(folder: Path, split: str, size: tuple[int, int]) -> Arrays:
    path = _file(folder, f"{split}.npz", "train.npz and test.npz")
    try:
        images, labels = load_images(path, key="images")
    except ImageError as error:
        raise TrainingError(str(error)) from error
    if labels is None:
        raise TrainingError(f"{path}: has no array 'labels' as long as 'images'")
    return images, labels, _sha256(path)


def _read_pictures(folder: Path, split: str, size: tuple[int, int]) -> Arrays:
    root = next((p for p in (folder / split, folder / GTSRB_FOLDER[split]) if p.is_dir()), None)
    if root is None:
        raise TrainingError(
            f"{folder}: has no folder {split}/ (or {GTSRB_FOLDER[split]}/) with a folder of "
            "pictures for each label"
        )
    if (root / GTSRB_LABELS).is_file():
        listed = _gtsrb_labels(root)
    else:
        classes = sorted(p for p in root.iterdir() if p.is_dir() and p.name.isdecimal())
        listed = [
            (path, int(label.name))
            for label in classes
            for path in sorted(label.iterdir())
            if path.suffix.lower() in PICTURES
        ]
    if not listed:
        raise TrainingError(
            f"{root}: holds no folders named by label (0, 1, ...) with .ppm, .png or .jpg pictures"
        )
    digest = hashlib.sha256()
    images = []
    for path, label in listed:
        image = _picture(path, size)
        digest.update(bytes([label % 256]) + image.tobytes())
        images.append(image)
    labels = np.array([label for _, label in listed])
    return np.stack(images), labels, {root.name: digest.hexdigest()}


def _gtsrb_labels(root: Path) -> list[tuple[Path, int]]:
    """Pictures of the official test set: "Filename;Width;...;ClassId" a line."""
    path = root / GTSRB_LABELS
    try:
        header, *lines = [line.split(";") for line in path.read_text().splitlines() if line]
        name, label = header.index("Filename"), header.index("ClassId")
        return [(root / line[name], int(line[label])) for line in lines]
    except (ValueError, IndexError) as error:
        raise TrainingError(
            f"{path}: must be lines of Filename;...;ClassId under that header ({error})"
        ) from error


def _picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    """uint8 (height, width, 3), scaled to the size."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            scaled = image.convert("RGB").resize(size[::-1], Image.Resampling.BILINEAR)
            return np.asarray(scaled)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise TrainingError(f"{path}: not a readable picture ({error})") from error


# --- common --------------------------------------------------------------------------------


def _file(folder: Path, name: str, all_names: str) -> Path:
    if not (folder / name).is_file():
        raise TrainingError(f"{folder}: {name} is missing; training needs {all_names}")
    return folder / name


def _sha256(path: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}


Reader = Callable[[Path, str, tuple[int, int]], Arrays]

# Names that tell a form, and its reader.
FORMS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "idx": (("*-images-idx3-ubyte*",), _read_idx),
    "cifar": (("data_batch_1.bin", CIFAR_FOLDER, CIFAR_ARCHIVE), _read_cifar),
    "mat": (("*_32x32.mat",), _read_svhn),
    "npz": (("train.npz", "test.npz"), _read_npz),
    "pictures": (("train", "test", "Final_Training", "Final_Test"), _read_pictures),
}
