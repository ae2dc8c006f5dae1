# SPDX-License-Identifier: BSD-2-Clause
"""Recipes: everything that decides a training run, besides the data and the seed's luck."""

from __future__ import annotations

from dataclasses import dataclass

from xnorforge.sw.errors import TrainingError

__all__ = ["RECIPES", "Recipe", "find_recipe"]


@dataclass(frozen=True)
class Recipe:
    """One network and how it is trained.

    widths: inputs, hidden layers ..., classes.
    goal: accuracy in percent that the recipe is expected to reach on the test set.
    epochs, batch: passes over the training part, images a step.
    latent_rate, norm_rate: Adam's first learning rate for latent weights and for the norms;
        both follow half a cosine down to 0.
    shift: each training image is moved by up to so many pixels in x and y, filled with -1.
    dropout: share of hidden activations zeroed while training.
    loss: "cross_entropy" or "squared_hinge".
    held_out: images at the end of the training set that choose the epoch and are not trained on.
    seed: default seed of weights, order, shifts and dropout.
    threads: CPU threads; part of the recipe because sums in another order give other weights.
    """

    name: str
    title: str
    widths: tuple[int, ...]
    goal: float
    epochs: int
    batch: int = 250
    latent_rate: float = 0.05
    norm_rate: float = 0.003
    shift: int = 0
    dropout: float = 0.0
    loss: str = "cross_entropy"
    held_out: int = 10_000
    seed: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise TrainingError(f"Recipe {self.name!r}: widths {self.widths} make no network")
        if self.loss not in ("cross_entropy", "squared_hinge"):
            raise TrainingError(
                f"Recipe {self.name!r}: loss must be 'cross_entropy' or 'squared_hinge', "
                f"not {self.loss!r}"
            )
        if self.epochs < 1 or self.batch < 2:
            raise TrainingError(
                f"Recipe {self.name!r}: needs at least 1 epoch and batches of at least 2, "
                f"not {self.epochs} and {self.batch}"
            )
        if not 0 <= self.seed < 1 << 63:
            raise TrainingError(
                f"Recipe {self.name!r}: seed must be from 0 to 2**63 - 1, not {self.seed}"
            )


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mnist-tfc",
            title="MNIST, 784-64-64-64-10, weights and activations of one bit",
            widths=(784, 64, 64, 64, 10),
            goal=93.0,
            epochs=100,
            latent_rate=0.02,
        ),
        Recipe(
            name="mnist-sfc",
            title="MNIST, 784-256-256-256-10, weights and activations of one bit",
            widths=(784, 256, 256, 256, 10),
            goal=97.5,
            epochs=120,
            shift=1,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """Recipe of this name. Raises TrainingError with the names there are."""
    if name not in RECIPES:
        raise TrainingError(f"No recipe {name!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[name]
