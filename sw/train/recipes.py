# SPDX-License-Identifier: BSD-2-Clause
"""Recipes: everything that decides a training run, besides the data and the seed's luck."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial

from xnorforge.sw.errors import TrainingError
from xnorforge.sw.train.data import DataSet

__all__ = ["RECIPES", "Conv", "Dense", "Pool", "Recipe", "find_recipe"]


@dataclass(frozen=True)
class Conv:
    """Square convolution, stride 1, no padding, no bias; then batch norm and sign."""

    channels: int
    kernel: int = 3


@dataclass(frozen=True)
class Pool:
    """Greatest of each `size` x `size` square; between a convolution and its batch norm."""

    size: int = 2


@dataclass(frozen=True)
class Dense:
    """Fully connected, no bias; then batch norm and sign."""

    rows: int


Layer = Conv | Pool | Dense


@dataclass(frozen=True)
class Recipe:
    """One network and how it is trained.

    dataset: name of the data set (`data.DATASETS`) that a run without a folder downloads.
    image, classes: height, width and channels of an image; how many labels there are.
    layers: the hidden layers in order; after them comes a dense layer of one row a class, whose
        dot products are the scores.
    pixels: "bits", an input of +1 where the pixel is at least 128, else -1; or "bytes", the pixel
        itself, as 2 * pixel - 255.
    binary: weights and activations are signs; else the float twin: real weights and ReLU.
    goal: accuracy in percent that the recipe is expected to reach on the test set.
    epochs, batch: passes over the training part, images a step.
    latent_rate, norm_rate: Adam's first learning rate for latent weights and for the norms;
        both follow half a cosine down to 0. twin_rate: the float twin's, for all of it.
    shift: each training image is moved by up to so many pixels in x and y, filled with black.
    flip: half of the training images are mirrored left to right.
    dropout: share of hidden activations zeroed while training.
    loss: "cross_entropy" or "squared_hinge".
    half: products in bfloat16 while training; evaluation is exact either way.
    held_out: images at the end of the training set that choose the epoch and are not trained on.
    seed: default seed of weights, order, shifts, flips and dropout.
    threads: CPU threads; part of the recipe because sums in another order give other weights.
    """

    name: str
    title: str
    layers: tuple[Layer, ...]
    goal: float
    epochs: int
    dataset: str = "mnist"
    image: tuple[int, int, int] = (28, 28, 1)
    classes: int = 10
    pixels: str = "bits"
    binary: bool = True
    batch: int = 250
    latent_rate: float = 0.05
    norm_rate: float = 0.003
    twin_rate: float = 0.003
    shift: int = 0
    flip: bool = False
    dropout: float = 0.0
    loss: str = "cross_entropy"
    half: bool = False
    held_out: int = 10_000
    seed: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("pixels", self.pixels, ("bits", "bytes")),
            ("loss", self.loss, ("cross_entropy", "squared_hinge")),
        ):
            self._require(
                value in choices, f"{name} must be {choices[0]!r} or {choices[1]!r}, not {value!r}"
            )
        self._require(
            self.epochs >= 1 and self.batch >= 2,
            f"needs at least 1 epoch and batches of at least 2, not {self.epochs} and {self.batch}",
        )
        self._require(
            0 <= self.seed < 1 << 63, f"seed must be from 0 to 2**63 - 1, not {self.seed}"
        )
        self._require(
            min(*self.image, self.classes) >= 1,
            f"images {self.image} and {self.classes} classes make no network",
        )
        self._check_layers()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """What goes into each layer and, last, into the head: (height, width, channels) or (n,)."""
        shapes: list[tuple[int, ...]] = [self.image]
        for layer in self.layers:
            if isinstance(layer, Dense):
                shapes.append((layer.rows,))
                continue
            height, width, channels = shapes[-1]
            if isinstance(layer, Conv):
                less = layer.kernel - 1
                shapes.append((height - less, width - less, layer.channels))
            else:
                shapes.append((height // layer.size, width // layer.size, channels))
        return tuple(shapes)

    @property
    def weight_bits(self) -> int:
        """Weights of all layers and the head."""
        count = 0
        for layer, shape in zip((*self.layers, Dense(self.classes)), self.shapes, strict=True):
            if isinstance(layer, Conv):
                count += layer.channels * layer.kernel**2 * shape[2]
            elif isinstance(layer, Dense):
                count += layer.rows * math.prod(shape)
        return count

    def on(self, dataset: DataSet) -> Recipe:
        """The same network and training for another data set, with its number of classes."""
        self._require(
            dataset.image == self.image,
            f"takes images {self.image}; those of {dataset.title} are {dataset.image}",
        )
        return dataclasses.replace(self, dataset=dataset.name, classes=dataset.classes)

    def twin(self) -> Recipe:
        """The same network and training with real weights and ReLU."""
        return dataclasses.replace(self, name=f"{self.name}-float", binary=False)

    def _check_layers(self) -> None:
        before: Layer | None = None
        size: tuple[int, ...] = self.image[:2]
        for index, layer in enumerate(self.layers):
            where = f"layer {index} ({layer})"
            self._require(min(vars(layer).values()) >= 1, f"{where} makes no network")
            if isinstance(layer, Pool):
                self._require(isinstance(before, Conv), f"{where}: a pool follows a convolution")
                size = tuple(n // layer.size for n in size)
            elif isinstance(layer, Conv):
                self._require(not isinstance(before, Dense), f"{where} follows a dense layer")
                size = tuple(n - layer.kernel + 1 for n in size)
            self._require(
                isinstance(layer, Dense) or min(size) >= 1, f"{where} leaves nothing of its map"
            )
            before = layer

    def _require(self, condition: bool, text: str) -> None:
        if not condition:
            raise TrainingError(f"Recipe {self.name!r}: {text}")


def _cnv(*blocks: tuple[int, ...]) -> tuple[Layer, ...]:
    """Convolutions of these channels, with a pool between one block and the next."""
    layers: list[Layer] = []
    for block in blocks:
        if layers:
            layers.append(Pool(2))
        layers += [Conv(channels) for channels in block]
    return tuple(layers)


# Data sets of 32 x 32 pixels of three colours.
_in_colour = partial(
    Recipe,
    dataset="cifar-10",
    image=(32, 32, 3),
    pixels="bytes",
    batch=50,
    latent_rate=0.02,
    shift=2,
    flip=True,
    half=True,
    held_out=5_000,
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mnist-tfc",
            title="MNIST, 784-64-64-64-10, weights and activations of one bit",
            layers=(Dense(64), Dense(64), Dense(64)),
            goal=93.0,
            epochs=100,
            latent_rate=0.02,
        ),
        Recipe(
            name="mnist-sfc",
            title="MNIST, 784-256-256-256-10, weights and activations of one bit",
            layers=(Dense(256), Dense(256), Dense(256)),
            goal=97.5,
            epochs=120,
            shift=1,
        ),
        Recipe(
            name="fashion-cnv",
            title="Fashion-MNIST, 28x28x1: three convolutions and a dense head",
            layers=(Conv(64), Pool(2), Conv(128), Pool(2), Conv(256)),
            goal=89.0,
            epochs=18,
            dataset="fashion-mnist",
            pixels="bytes",
            batch=50,
            latent_rate=0.02,
            flip=True,
            half=True,
            held_out=5_000,
        ),
        _in_colour(
            name="cnv",
            title="CNV of the BNN and FINN papers, 32x32x3: six convolutions, three dense layers",
            layers=(*_cnv((64, 64), (128, 128), (256, 256)), Dense(512), Dense(512)),
            goal=80.0,
            epochs=100,
        ),
        _in_colour(
            name="cnv-tiny",
            title="three convolutions, two dense layers, 32x32x3: what an iCE40 UP5K holds",
            layers=(*_cnv((64, 96), (128,)), Pool(2), Dense(80)),
            goal=75.0,
            epochs=60,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """Recipe of this name. Raises TrainingError with the names there are."""
    if name not in RECIPES:
        raise TrainingError(f"No recipe {name!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[name]
