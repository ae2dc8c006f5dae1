# SPDX-License-Identifier: BSD-2-Clause
"""Training of binary networks by the BNN paper's method.

    Courbariaux, Hubara, Soudry, El-Yaniv, Bengio: "Binarized Neural Networks: Training Neural
    Networks with Weights and Activations Constrained to +1 or -1", 2016.

Importing this package loads no PyTorch; `train` does.
"""

from __future__ import annotations

from pathlib import Path

from xnorforge.sw.errors import TrainingError
from xnorforge.sw.train.data import DATASETS, find_dataset, load_split
from xnorforge.sw.train.recipes import RECIPES, Conv, Dense, Pool, Recipe, find_recipe
from xnorforge.sw.train.result import TrainResult

__all__ = [
    "DATASETS",
    "RECIPES",
    "Conv",
    "Dense",
    "Pool",
    "Recipe",
    "TrainResult",
    "find_dataset",
    "find_recipe",
    "load_split",
    "train",
]


def train(
    recipe: str | Recipe,
    data: str | Path | None = None,
    out: str | Path | None = None,
    seed: int | None = None,
    epochs: int | None = None,
    progress: bool = True,
    dataset: str | None = None,
) -> TrainResult:
    """Train a recipe and write the network as QONNX, with a JSON record beside it.

    Parameters
    ----------
    recipe
        A recipe or its name.
    data
        Folder with the data set; None downloads it, checksummed, to the cache.
    out
        The `.onnx` to write, `<recipe>.onnx` by default; the record gets the suffix `.json`.
    seed, epochs
        In place of the recipe's.
    progress
        Show a progress bar on stderr.
    dataset
        In place of the recipe's: another of `DATASETS`, whose images have the same size.

    Raises
    ------
    TrainingError
        Unknown recipe or data set, no PyTorch, data missing or not as expected, `out` not writable.
    """
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    recipe = recipe if dataset is None else recipe.on(find_dataset(dataset))
    try:
        import torch  # noqa: F401  (only asks whether it is there)
    except ImportError as error:
        raise TrainingError(
            f"Training needs PyTorch, which does not import ({error}): "
            "pip install 'xnorforge[train]'"
        ) from error
    from xnorforge.sw.train.loop import run

    return run(recipe, data, out, seed=seed, epochs=epochs, progress=progress)
