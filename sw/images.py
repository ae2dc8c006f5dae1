# SPDX-License-Identifier: BSD-2-Clause
"""Image files → arrays: idx (gzipped or not), `.npy`, `.npz`, PNG files and folders of these.

Files are recognised by their first bytes, not by their names. Nothing is scaled: an element keeps
the value and the dtype it has in the file, and `Input.quantise` decides whether it fits.
"""

from __future__ import annotations

import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xnorforge.sw.errors import ImageError

__all__ = ["load_images", "read_idx"]

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
EXPECTED = "expected idx files, .npy, .npz, or PNG images"


def load_images(
    path: str | Path,
    *,
    key: str | None = None,
    shape: Sequence[int] | None = None,
    pixel: str | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Images (N, ...) as the file holds them, and their labels int64 (N,) where it has any.

    Parameters
    ----------
    path
        A folder with idx files (the test set, `t10k-images*`, if there are several), an idx
        file, `.npy`, `.npz`, a PNG file, a folder of PNG files of one size (in order of their
        names), or a folder of folders named by label with PNG files in them.
    key
        Name of the image array of an `.npz`. Without it, the one array of the right shape is
        taken, or the one of these with "test" in its name.
    shape
        Shape of one image. Only the number of elements must agree: (784,) and (1, 28, 28) both
        take images of 28 x 28. A single image is taken as a batch of one.
    pixel
        Type the elements must have, "uint8" or "int8".

    Raises
    ------
    ImageError
        The file is missing, damaged, of an unknown kind, or holds no images of this shape and type.
    """
    path = Path(path)
    shape = None if shape is None else tuple(int(n) for n in shape)
    if path.is_dir():
        images, labels = _load_folder(path, shape)
    elif path.is_file():
        images, labels = _load_file(path, key, shape)
    else:
        raise ImageError(f"{path}: no such file or folder; {EXPECTED}")
    images = _as_batch(images, shape, str(path))
    if pixel is not None and images.dtype != np.dtype(pixel):
        raise ImageError(f"{path}: images must be {pixel}, not {images.dtype}; convert them")
    if labels is not None and len(labels) != len(images):
        raise ImageError(f"{path}: {len(labels)} labels for {len(images)} images")
    return images, None if labels is None else labels.astype(np.int64)


def read_idx(path: str | Path) -> np.ndarray:
    """Array of an idx file, gzipped or not, in native byte order. Raises ImageError."""
    path = Path(path)
    data = _read(path)
    if not _is_idx(data):
        raise ImageError(f"{path}: not an idx file (starts with {data[:4].hex() or 'nothing'})")
    dtype, ndim = np.dtype(IDX_TYPES[data[2]]), data[3]
    if len(data) < 4 + 4 * ndim:
        raise ImageError(f"{path}: truncated idx header of {len(data)} bytes")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", ndim, 4))
    body = data[4 + 4 * ndim :]
    if len(body) != math.prod(shape) * dtype.itemsize:
        raise ImageError(
            f"{path}: idx header promises {shape} {dtype.name}, "
            f"{math.prod(shape) * dtype.itemsize} bytes, but {len(body)} follow"
        )
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="))


# --- one file ------------------------------------------------------------------------------


def _load_file(
    path: Path, key: str | None, shape: tuple[int, ...] | None
) -> tuple[np.ndarray, np.ndarray | None]:
    data = _read(path)
    if data.startswith(b"PK"):
        return _load_npz(path, data, key, shape)
    if key is not None:
        raise ImageError(f"{path}: a key ({key!r}) chooses an array of an .npz, which this is not")
    if data.startswith(b"\x93NUMPY"):
        return _load_npy(path, data), None
    if data.startswith(PNG_MAGIC):
        return _load_png(path, shape)[None], None
    if _is_idx(data):
        return _load_idx_pair(path)
    raise ImageError(f"{path}: unknown kind of file (starts with {data[:4].hex()}); {EXPECTED}")


def _read(path: Path) -> bytes:
    """Content of a file, unzipped where it is gzipped."""
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except OSError as error:  # includes gzip.BadGzipFile
        raise ImageError(f"{path}: cannot be read ({error})") from error
    except (EOFError, zlib.error) as error:
        raise ImageError(f"{path}: damaged gzip file ({error})") from error
    if not data:
        raise ImageError(f"{path}: the file is empty; {EXPECTED}")
    return data


def _is_idx(data: bytes) -> bool:
    return len(data) >= 4 and data[:2] == b"\0\0" and data[2] in IDX_TYPES and data[3] > 0


def _load_idx_pair(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    images = read_idx(path)
    if images.ndim < 2:
        raise ImageError(f"{path}: holds labels {images.shape}, not images; name the images file")
    name = path.name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1")
    if name == path.name:
        return images, None
    stem = name.removesuffix(".gz")
    for candidate in (path.with_name(name), path.with_name(stem), path.with_name(stem + ".gz")):
        if candidate.is_file():
            labels = read_idx(candidate)
            if labels.ndim != 1:
                raise ImageError(f"{candidate}: labels must be a vector, not {labels.shape}")
            return images, labels
    return images, None


def _load_npy(path: Path, data: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ImageError(f"{path}: not a readable .npy array ({error})") from error


def _load_npz(
    path: Path, data: bytes, key: str | None, shape: tuple[int, ...] | None
) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ImageError(f"{path}: not a readable .npz archive ({error})") from error
    arrays = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}
    listing = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "no arrays"
    if key is None:
        key = _image_key(path, arrays, shape, listing)
    elif key not in arrays:
        raise ImageError(f"{path}: has no array {key!r}; it holds {listing}")
    return arrays[key], _npz_labels(arrays, key)


def _image_key(
    path: Path, arrays: dict[str, np.ndarray], shape: tuple[int, ...] | None, listing: str
) -> str:
    names = [
        name
        for name, array in arrays.items()
        if array.ndim >= 2 and (shape is None or math.prod(array.shape[1:]) == math.prod(shape))
    ]
    if len(names) > 1:
        names = [name for name in names if "test" in name] or names
    wanted = "images" if shape is None else f"images of shape {shape}"
    if not names:
        raise ImageError(f"{path}: no array holds {wanted}; it holds {listing}")
    if len(names) > 1:
        raise ImageError(f"{path}: several arrays may hold {wanted} ({listing}); choose with --key")
    return names[0]


def _npz_labels(arrays: dict[str, np.ndarray], key: str) -> np.ndarray | None:
    """The one integer vector as long as the images; of several, the one named like labels."""
    count = len(arrays[key]) if arrays[key].ndim else 0
    fits = {
        name: array.reshape(-1)
        for name, array in arrays.items()
        if name != key and array.dtype.kind in "iu" and array.size == count == len(array)
    }
    if len(fits) > 1:
        fits = {n: a for n, a in fits.items() if "label" in n.lower() or n.lower()[:1] == "y"}
    return next(iter(fits.values())) if len(fits) == 1 else None


def _load_png(path: Path, shape: tuple[int, ...] | None) -> np.ndarray:
    """uint8 (H, W) or (H, W, 3): colour where `shape` asks for it, else as the file is."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ImageError(f"{path}: reading PNG files needs Pillow (pip install pillow)") from error
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ImageError(f"{path}: PNG with more than 8 bits a sample; convert it to 8")
            count = image.width * image.height
            grey = image.mode in ("1", "L", "LA")
            if shape is not None and math.prod(shape) in (count, 3 * count):
                grey = math.prod(shape) == count
            return np.asarray(image.convert("L" if grey else "RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{path}: not a readable PNG file ({error})") from error


# --- folders -------------------------------------------------------------------------------


def _load_folder(path: Path, shape: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray | None]:
    names = sorted(entry.name for entry in path.iterdir())
    idx = [name for name in names if "images" in name and "idx" in name]
    if idx:
        idx = [name for name in idx if name.startswith(("t10k", "test"))] or idx
        stems = {name.removesuffix(".gz") for name in idx}
        if len(stems) > 1:
            raise ImageError(f"{path}: several image files ({', '.join(idx)}); name one of them")
        return _load_idx_pair(path / idx[0])
    images = _pngs(path)
    if images:
        return _stack(images, shape), None
    classes = [path / name for name in names if name.isdecimal() and (path / name).is_dir()]
    labelled = [(image, int(folder.name)) for folder in classes for image in _pngs(folder)]
    if labelled:
        images = [image for image, _ in labelled]
        return _stack(images, shape), np.array([label for _, label in labelled])
    raise ImageError(
        f"{path}: no images in this folder; expected t10k-images-idx3-ubyte(.gz), PNG files, "
        "or folders named by label with PNG files"
    )


def _pngs(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.suffix.lower() == ".png")


def _stack(paths: list[Path], shape: tuple[int, ...] | None) -> np.ndarray:
    images = [_load_png(path, shape) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise ImageError(
                f"{path}: an image of shape {image.shape} among images of shape "
                f"{images[0].shape} ({paths[0].name}); a folder must hold one size"
            )
    return np.stack(images)


# --- common --------------------------------------------------------------------------------


def _as_batch(images: np.ndarray, shape: Any, where: str) -> np.ndarray:
    if images.dtype.kind not in "uif":
        raise ImageError(f"{where}: images must be integers or floats, not {images.dtype}")
    if shape is None:
        if images.ndim < 2:
            raise ImageError(f"{where}: images must be (N, ...), not {images.shape}")
    elif images.ndim < 2 or math.prod(images.shape[1:]) != math.prod(shape):
        if images.ndim == 0 or images.size != math.prod(shape):
            raise ImageError(
                f"{where}: images must have shape {('N', *shape)}".replace("'N'", "N")
                + f" ({math.prod(shape)} elements each), not {images.shape}"
            )
        images = images[None]
    if images.size == 0:
        raise ImageError(f"{where}: holds no images (shape {images.shape})")
    # Maps of as many elements in another order: channels first, or width before height.
    if shape is not None and len(shape) == 3 and shape[2] > 1 and images.ndim == 4:
        found = images.shape[1:]
        if found != tuple(shape):
            first = found == (shape[2], *shape[:2])
            advice = "put the channels last" if first else "move the axes"
            wanted = ", ".join(map(str, shape))
            raise ImageError(f"{where}: images must be (N, {wanted}), not {images.shape}: {advice}")
    return images
