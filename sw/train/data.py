# SPDX-License-Identifier: BSD-2-Clause
"""Data sets to train on: what is known of them, folders of them, downloads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xnorforge.sw.errors import TrainingError
from xnorforge.sw.train.download import download
from xnorforge.sw.train.readers import FORMS, recognise

__all__ = ["DATASETS", "DataSet", "Split", "data_folder", "find_dataset", "load_split"]


@dataclass(frozen=True)
class DataSet:
    """A data set of labelled images.

    image, classes: height, width and channels of an image; how many labels there are.
    form: of its files, see `readers`.
    files: SHA-256 of each file as the mirrors keep it; none if it cannot be downloaded.
    content: SHA-256 of what was read of each file, for copies that were packed again.
    mirrors: what to put before a file's name.
    """

    name: str
    title: str
    image: tuple[int, int, int]
    classes: int
    form: str
    files: dict[str, str] = field(default_factory=dict)
    content: dict[str, str] = field(default_factory=dict)
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Split:
    """One half of a data set.

    images: uint8 (N, height, width, channels). labels: int64 (N,), from 0.
    sha256: checksum of what was read, by name of file.
    """

    images: np.ndarray
    labels: np.ndarray
    sha256: dict[str, str]

    @property
    def is_mnist(self) -> bool:
        """Whether the content is MNIST's, byte for byte."""
        content = DATASETS["mnist"].content
        return all(content.get(name) == value for name, value in self.sha256.items())


def _idx(train: str, train_labels: str, test: str, test_labels: str, end: str) -> dict[str, str]:
    return {
        f"train-images-idx3-ubyte{end}": train,
        f"train-labels-idx1-ubyte{end}": train_labels,
        f"t10k-images-idx3-ubyte{end}": test,
        f"t10k-labels-idx1-ubyte{end}": test_labels,
    }


DATASETS = {
    dataset.name: dataset
    for dataset in (
        DataSet(
            "mnist",
            "MNIST, handwritten digits",
            (28, 28, 1),
            10,
            "idx",
            files=_idx(
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ".gz",
            ),
            content=_idx(
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                "",
            ),
            mirrors=(
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
            ),
        ),
        DataSet(
            "fashion-mnist",
            "Fashion-MNIST, garments",
            (28, 28, 1),
            10,
            "idx",
            files=_idx(
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ".gz",
            ),
            content=_idx(
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                "",
            ),
            mirrors=(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            ),
        ),
        DataSet(
            "cifar-10",
            "CIFAR-10, small photographs",
            (32, 32, 3),
            10,
            "cifar",
            files={
                "cifar-10-binary.tar.gz": (
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
                )
            },
            mirrors=("https://www.cs.toronto.edu/~kriz/",),
        ),
        DataSet(
            "svhn",
            "SVHN, house numbers, cropped to a digit",
            (32, 32, 3),
            10,
            "mat",
            files={
                "train_32x32.mat": (
                    "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"
                ),
                "test_32x32.mat": (
                    "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"
                ),
            },
            mirrors=("http://ufldl.stanford.edu/housenumbers/",),
        ),
        DataSet(
            "gtsrb", "GTSRB, German traffic signs, scaled to 32 x 32", (32, 32, 3), 43, "pictures"
        ),
    )
}


def find_dataset(name: str) -> DataSet:
    """Data set of this name. Raises TrainingError with the names there are."""
    if name not in DATASETS:
        raise TrainingError(f"No data set {name!r}; there are: {', '.join(DATASETS)}")
    return DATASETS[name]


def data_folder(
    name: str,
    data: str | Path | None = None,
    *,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """`data` if it is a folder; None downloads what `cache` lacks and returns the cache's folder.

    Raises TrainingError if `data` is no folder, if there is nothing to download, or if no mirror
    gives a file with its checksum.
    """
    dataset = find_dataset(name)
    if data is not None:
        if not Path(data).is_dir():
            raise TrainingError(
                f"{data}: no such folder; it should hold {_listing(dataset)}, or images in another "
                "form that docs/training.md lists"
            )
        return Path(data)
    if not dataset.files:
        raise TrainingError(
            f"{dataset.title}: cannot be downloaded from here; name a folder with --data, with "
            f"{_listing(dataset)}"
        )
    try:
        import pooch
    except ImportError as error:
        raise TrainingError(
            f"Downloading {name} needs pooch (pip install 'xnorforge[train]'); "
            f"or name a folder with {_listing(dataset)}"
        ) from error
    folder = Path(cache) if cache is not None else Path(pooch.os_cache("xnorforge")) / name
    advice = f"put {_listing(dataset)} in a folder and name it with --data"
    download(dataset.files, dataset.mirrors, folder, advice=advice, progress=progress)
    return folder


def load_split(
    folder: str | Path,
    split: str,
    *,
    form: str = "idx",
    image: tuple[int, int, int] = (28, 28, 1),
    classes: int = 10,
) -> Split:
    """The "train" or "test" half from a folder.

    The form of the files is seen from their names; `form` is the one that is missed where none is
    seen. Any data set of images of this shape, with labels from 0 to `classes` - 1, is taken.
    Raises TrainingError on a missing or damaged file, or another shape.
    """
    if split not in ("train", "test"):
        raise TrainingError(f"A data set has a 'train' and a 'test' split, not {split!r}")
    folder = Path(folder)
    _, read = FORMS[recognise(folder) or form]
    images, labels, sha256 = read(folder, split, image[:2])
    if images.ndim == 3:
        images = images[..., None]
    wanted = f"uint8 (N, {', '.join(map(str, image))})"
    if images.dtype != np.uint8 or images.shape[1:] != image or not len(images):
        raise TrainingError(
            f"{folder}: {split} images must be {wanted}, not {images.dtype} {images.shape}"
        )
    whole = labels.astype(np.int64)
    if labels.shape != images.shape[:1] or (whole != labels).any():
        raise TrainingError(
            f"{folder}: {split} labels must be {len(images)} whole numbers, "
            f"not {labels.dtype} {labels.shape}"
        )
    if whole.min() < 0 or whole.max() >= classes:
        raise TrainingError(
            f"{folder}: {split} labels must be from 0 to {classes - 1}, not from {whole.min()} to "
            f"{whole.max()}; --dataset says which data set it is"
        )
    return Split(images, whole, sha256)


def _listing(dataset: DataSet) -> str:
    if dataset.files:
        return ", ".join(dataset.files)
    return "train/LABEL/*.ppm and test/LABEL/*.ppm (or .png), or its two archives unpacked"
