# SPDX-License-Identifier: BSD-2-Clause
"""MNIST from a folder of idx files, or by download with checksum."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xnorforge.sw.errors import ImageError, TrainingError
from xnorforge.sw.images import read_idx

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["CONTENT_SHA256", "MIRRORS", "PACKED_SHA256", "Split", "load_mnist", "mnist_folder"]

MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)

# SHA-256 of the gzipped files as the mirrors keep them (names without ".gz").
PACKED_SHA256 = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}

# SHA-256 of what is in them, for copies that were unpacked or packed again.
CONTENT_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}

CLASSES = 10


@dataclass(frozen=True, eq=False)
class Split:
    """One half of the data set.

    images: uint8 (N, 28, 28). labels: int64 (N,), 0 to 9.
    sha256: checksum of each file's unpacked content, by name without ".gz".
    """

    images: np.ndarray
    labels: np.ndarray
    sha256: dict[str, str]

    @property
    def is_mnist(self) -> bool:
        """Whether the content is the original's, byte for byte."""
        return all(CONTENT_SHA256.get(name) == value for name, value in self.sha256.items())


def load_mnist(folder: str | Path, split: str) -> Split:
    """The "train" or "test" half from a folder with idx files, gzipped or not.

    Any data set in MNIST's form is taken (28 x 28 bytes, labels 0 to 9); `Split.is_mnist` tells.
    Raises TrainingError on a missing or damaged file.
    """
    if split not in ("train", "test"):
        raise TrainingError(f"MNIST has a 'train' and a 'test' split, not {split!r}")
    prefix = {"train": "train", "test": "t10k"}[split]
    folder = Path(folder)
    sha256: dict[str, str] = {}
    arrays = []
    for name in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        path = _existing(folder, name)
        try:
            array = read_idx(path)
        except ImageError as error:
            raise TrainingError(str(error)) from error
        sha256[name] = _content_sha256(array)
        arrays.append(array)
    images, labels = arrays
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or not len(images):
        raise TrainingError(
            f"{folder}: {prefix} images must be uint8 (N, 28, 28), "
            f"not {images.dtype} {images.shape}"
        )
    if labels.shape != images.shape[:1] or labels.dtype != np.uint8 or labels.max() >= CLASSES:
        raise TrainingError(
            f"{folder}: {prefix} labels must be {len(images)} bytes from 0 to {CLASSES - 1}, "
            f"not {labels.dtype} {labels.shape} up to {labels.max()}"
        )
    return Split(images, labels.astype(np.int64), sha256)


def mnist_folder(
    data: str | Path | None = None, *, cache: str | Path | None = None, progress: bool = True
) -> Path:
    """`data` if it is a folder; None downloads what `cache` lacks and returns the cache's folder.

    Raises TrainingError if `data` is no folder, or no mirror gives a file with its checksum.
    """
    if data is not None:
        if not Path(data).is_dir():
            raise TrainingError(
                f"{data}: no such folder; it should hold {', '.join(PACKED_SHA256)} (.gz or not)"
            )
        return Path(data)
    try:
        import pooch
    except ImportError as error:
        raise TrainingError(
            "Downloading MNIST needs pooch (pip install 'xnorforge[train]'); "
            "or name a folder with the four idx files"
        ) from error
    folder = Path(cache) if cache is not None else Path(pooch.os_cache("xnorforge")) / "mnist"
    with _quiet(pooch.get_logger()), _progress(progress) as bar:
        for name, sha256 in PACKED_SHA256.items():
            _fetch(folder, f"{name}.gz", sha256, bar)
    return folder


# --- helpers -------------------------------------------------------------------------------


def _existing(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise TrainingError(
        f"{folder}: {name}(.gz) is missing; training needs {', '.join(PACKED_SHA256)}"
    )


def _content_sha256(array: np.ndarray) -> str:
    """SHA-256 of the idx file a uint8 array came from."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return hashlib.sha256(header + array.tobytes()).hexdigest()


def _fetch(folder: Path, name: str, sha256: str, bar: _Bar | None) -> None:
    import pooch
    import requests

    reasons = []
    for mirror in MIRRORS:
        if bar is not None:
            bar.start(name)
        try:
            pooch.retrieve(
                mirror + name,
                known_hash=f"sha256:{sha256}",
                fname=name,
                path=folder,
                downloader=pooch.HTTPDownloader(progressbar=bar or False, timeout=30),
            )
            return
        except (requests.RequestException, ValueError, OSError) as error:
            reasons.append(f"{mirror}: {_reason(error)}")
    raise TrainingError(
        f"{name} could not be downloaded ({'; '.join(reasons)}): put the four idx files of MNIST "
        "in a folder and name it with --data"
    )


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        return f"no connection ({type(error).__name__})"
    if isinstance(error, ValueError):
        return "the checksum is wrong"
    return str(error)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Pooch tells each download on stderr, where the bar is drawn."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Bar:
    """The four methods pooch asks of a progress bar, on one line of rich's."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._task: TaskID

    def start(self, name: str) -> None:
        self._task = self._display.add_task(f"download {name}", total=None)

    @property
    def total(self) -> float | None:
        return self._display.tasks[self._task].total

    @total.setter
    def total(self, value: float) -> None:
        self._display.update(self._task, total=value)

    def update(self, count: int) -> None:
        self._display.advance(self._task, count)

    def reset(self) -> None:
        self._display.update(self._task, completed=0)

    def close(self) -> None:
        self._display.stop_task(self._task)


@contextmanager
def _progress(show: bool) -> Iterator[_Bar | None]:
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=Console(stderr=True)) as display:
        yield _Bar(display)
