# SPDX-License-Identifier: BSD-2-Clause
"""A 32 x 32 x 3 data set from Fashion-MNIST, in the binary form of CIFAR-10.

Stands in for CIFAR-10 where that cannot be had. Each image is padded to 32 x 32 and mixed, pixel
by pixel, of two random colours: a light one for the garment over a dark one.

    python benchmarks/coloured_fashion.py FASHION-MNIST FOLDER --train 10000 --test 2000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from xnorforge.sw.train.data import load_split

__all__ = ["colour", "main"]

BATCHES = 5


def colour(images: np.ndarray, seed: int) -> np.ndarray:
    """uint8 (N, 28, 28, 1) -> uint8 (N, 32, 32, 3); the same seed gives the same colours."""
    random = np.random.default_rng(seed)
    light = random.integers(128, 256, (len(images), 1, 1, 3))
    dark = random.integers(0, 128, (len(images), 1, 1, 3))
    share = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))).astype(np.int64)
    return ((light * share + dark * (255 - share) + 127) // 255).astype(np.uint8)


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Records of a label byte and the red, green and blue map, as CIFAR-10's files have."""
    maps = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    path.write_bytes(np.concatenate([labels.astype(np.uint8)[:, None], maps], axis=1).tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fashion", type=Path, help="folder with the four idx files")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--train", type=int, default=50_000, help="images in five batches")
    parser.add_argument("--test", type=int, default=10_000)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for split, count, seed, parts in (
        ("train", options.train, 1, BATCHES),
        ("test", options.test, 2, 1),
    ):
        source = load_split(options.fashion, split)
        images, labels = colour(source.images[:count], seed), source.labels[:count]
        for part, (some, names) in enumerate(
            zip(np.array_split(images, parts), np.array_split(labels, parts), strict=True), 1
        ):
            name = "test_batch.bin" if split == "test" else f"data_batch_{part}.bin"
            write(options.folder / name, some, names)


if __name__ == "__main__":
    main()
