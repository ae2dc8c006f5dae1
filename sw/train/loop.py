# SPDX-License-Identifier: BSD-2-Clause
"""The training loop: the whole data set in memory, the best epoch kept."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xnorforge.sw.errors import TrainingError
from xnorforge.sw.train.data import Split, data_folder, find_dataset, load_split
from xnorforge.sw.train.export import to_qonnx
from xnorforge.sw.train.layers import BinaryNetwork
from xnorforge.sw.train.recipes import Recipe
from xnorforge.sw.train.result import TrainResult

__all__ = ["Fit", "encode", "fit", "predict", "run", "scores"]

PIXEL_THRESHOLD = 128  # pixel / 255 * 2 - 1 >= 0
CHUNK = 1_000  # images evaluated at once


@dataclasses.dataclass(frozen=True)
class Fit:
    """A trained network: that of the best epoch (from 1), with every epoch's held-out accuracy."""

    network: BinaryNetwork
    epoch: int
    history: tuple[float, ...]


def run(
    recipe: Recipe,
    data: str | Path | None,
    out: str | Path | None,
    *,
    seed: int | None = None,
    epochs: int | None = None,
    progress: bool = True,
) -> TrainResult:
    """Train, choose on the held-out part, export, and read the test set once. See `train`."""
    recipe = dataclasses.replace(
        recipe,
        seed=recipe.seed if seed is None else seed,
        epochs=recipe.epochs if epochs is None else epochs,
    )
    if not recipe.binary:
        raise TrainingError(
            f"Recipe {recipe.name!r} is a float twin, for comparison only; no model file is made "
            "of it (`fit` trains it, as benchmarks/train_twins.py does)"
        )
    out = _writable(Path(f"{recipe.name}.onnx") if out is None else Path(out))
    folder = data_folder(recipe.dataset, data, progress=progress)
    training = _load(recipe, folder, "train")
    began = time.perf_counter()
    with _progress(recipe, progress) as report:
        result = fit(recipe, training.images, training.labels, report)
    seconds = time.perf_counter() - began

    test = _load(recipe, folder, "test")
    right = (predict(result.network, test.images) == test.labels).mean()
    model = to_qonnx(
        result.network,
        name=recipe.name,
        metadata={"recipe": recipe.name, "seed": str(recipe.seed), "epochs": str(recipe.epochs)},
    ).SerializeToString(deterministic=True)
    record = TrainResult(
        model=out,
        sha256=hashlib.sha256(model).hexdigest(),
        recipe=dataclasses.asdict(recipe),
        seed=recipe.seed,
        epochs=recipe.epochs,
        epoch=result.epoch,
        held_out_accuracy=result.history[result.epoch - 1],
        held_out_history=result.history,
        test_accuracy=round(100 * float(right), 4),
        seconds=round(seconds, 1),
        data=training.sha256 | test.sha256,
        versions={name: version(name) for name in ("torch", "onnx", "numpy")}
        | {"python": platform.python_version()},
    )
    _replace(out, model)
    _replace(out.with_suffix(".json"), record.to_json().encode())
    return record


def fit(
    recipe: Recipe,
    images: np.ndarray,
    labels: np.ndarray,
    report: Callable[[int, float, float], None] | None = None,
) -> Fit:
    """Train on images uint8 (N, H, W) or (N, H, W, C) and labels (N,).

    The last `recipe.held_out` choose the epoch and are not trained on.

    report: called after each epoch with its number (from 1), mean loss, held-out accuracy.
    The same recipe and data give the same weights. Raises TrainingError on too few images.
    """
    count = len(images) - recipe.held_out
    if recipe.held_out < 1 or count < recipe.batch:
        raise TrainingError(
            f"Recipe {recipe.name!r} needs at least {recipe.batch} training images beside at least "
            f"one held-out, but has {len(images)} with {recipe.held_out} held out"
        )
    height, width, channels = recipe.image
    shape = (*images.shape[1:], 1) if images.ndim == 3 else images.shape[1:]
    if shape != recipe.image or int(labels.max()) >= recipe.classes:
        raise TrainingError(
            f"Recipe {recipe.name!r} takes images {height} x {width} x {channels} of "
            f"{recipe.classes} classes, not {' x '.join(map(str, shape))} and labels up to "
            f"{int(labels.max())}"
        )
    with _isolated(recipe):
        return _fit(recipe, images, labels, report)


def encode(recipe: Recipe, maps: Tensor) -> Tensor:
    """uint8 pixels -> the floats that the network takes.

    For pixels "bits" +1 where `pixel / 255 * 2 - 1 >= 0`, else -1; for "bytes" 2 * pixel - 255.
    """
    if recipe.pixels == "bits":
        return (maps >= PIXEL_THRESHOLD).float().mul_(2).sub_(1)
    return maps.float().mul_(2).sub_(255)


@torch.no_grad()
def scores(network: BinaryNetwork, images: np.ndarray) -> Tensor:
    """Scores (N, classes) of images uint8 (N, H, W) or (N, H, W, C).

    Integers, held as floats, unless this is a float twin.
    """
    network.eval()
    maps = _maps(network.recipe, images)
    return torch.cat([network.dots(encode(network.recipe, part)) for part in maps.split(CHUNK)])


def predict(network: BinaryNetwork, images: np.ndarray) -> np.ndarray:
    """Labels int64 (N,): the first highest score."""
    return scores(network, images).argmax(1).numpy()


def _load(recipe: Recipe, folder: Path, split: str) -> Split:
    form = find_dataset(recipe.dataset).form
    return load_split(folder, split, form=form, image=recipe.image, classes=recipe.classes)


# --- one training --------------------------------------------------------------------------


def _fit(
    recipe: Recipe,
    images: np.ndarray,
    labels: np.ndarray,
    report: Callable[[int, float, float], None] | None,
) -> Fit:
    network = BinaryNetwork(recipe)
    count = len(images) - recipe.held_out
    held_out, held_out_labels = images[count:], labels[count:]
    optimiser, schedule = _optimiser(recipe, network, count // recipe.batch * recipe.epochs)
    loss_of = {"cross_entropy": nn.functional.cross_entropy, "squared_hinge": _squared_hinge}[
        recipe.loss
    ]
    windows = _windows(_maps(recipe, images[:count]), recipe.shift)
    targets = torch.from_numpy(labels)
    best, best_epoch, history = copy.deepcopy(network.state_dict()), 0, []
    for epoch in range(1, recipe.epochs + 1):
        network.train()
        order = torch.randperm(count)[: count - count % recipe.batch]
        loss_sum = torch.zeros(())
        for chosen in order.split(recipe.batch):
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.half):
                outputs = network(encode(recipe, _augmented(recipe, windows, chosen)))
            loss = loss_of(outputs, targets[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            network.clip()
            loss_sum += loss.detach()
        right = (predict(network, held_out) == held_out_labels).sum()
        history.append(round(100 * int(right) / recipe.held_out, 4))
        if best_epoch == 0 or history[-1] > history[best_epoch - 1]:
            best, best_epoch = copy.deepcopy(network.state_dict()), epoch
        if report is not None:
            report(epoch, float(loss_sum) / (len(order) // recipe.batch), history[-1])
    network.load_state_dict(best)
    network.eval()
    return Fit(network, best_epoch, tuple(history))


def _optimiser(
    recipe: Recipe, network: BinaryNetwork, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adam with half a cosine; latent weights learn faster, as the paper scales their rate."""
    latent = [product.latent for product in network.products]
    others = [*network.norms.parameters(), *network.head.parameters()]
    rates = (recipe.latent_rate, recipe.norm_rate) if recipe.binary else (recipe.twin_rate,) * 2
    optimiser = torch.optim.Adam(
        [{"params": latent, "lr": rates[0]}, {"params": others, "lr": rates[1]}]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))
    )
    return optimiser, schedule


def _squared_hinge(outputs: Tensor, labels: Tensor) -> Tensor:
    targets = 2 * nn.functional.one_hot(labels, outputs.shape[1]) - 1
    return (1 - targets * outputs).clamp_min(0).square().mean()


def _maps(recipe: Recipe, images: np.ndarray) -> Tensor:
    """Pixels uint8 (N, C, H, W)."""
    maps = images.reshape(-1, *recipe.image).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(maps))


def _windows(maps: Tensor, shift: int) -> Tensor:
    """View (N, C, 2·shift + 1, 2·shift + 1, H, W): every image at every shift, filled with 0."""
    height, width = maps.shape[2:]
    padded = nn.functional.pad(maps, (shift,) * 4)
    return padded.unfold(2, height, 1).unfold(3, width, 1)


def _augmented(recipe: Recipe, windows: Tensor, chosen: Tensor) -> Tensor:
    """The chosen images uint8 (N, C, H, W), shifted and mirrored at random as the recipe says."""
    down, right = 0, 0
    if recipe.shift:
        down, right = torch.randint(windows.shape[2], (2, len(chosen)))
    batch = windows[chosen, :, down, right]
    if recipe.flip:
        mirrored = torch.rand(len(batch)) < 0.5
        batch = torch.where(mirrored[:, None, None, None], batch.flip(3), batch)
    return batch


# --- surroundings --------------------------------------------------------------------------


@contextmanager
def _isolated(recipe: Recipe) -> Iterator[None]:
    """The recipe's seed and thread count inside, the caller's again afterwards."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _writable(out: Path) -> Path:
    """Fail before minutes of training rather than after."""
    if out.suffix != ".onnx":
        raise TrainingError(f"{out}: the trained model is written as .onnx; name it so")
    if out.is_dir():
        raise TrainingError(f"{out}: is a folder; name the file to write")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise TrainingError(f"{out}: the folder {out.parent} does not exist or is not writable")
    return out


def _replace(path: Path, content: bytes) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(content)
    aside.replace(path)


@contextmanager
def _progress(recipe: Recipe, show: bool) -> Iterator[Callable[[int, float, float], None] | None]:
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(f"train {recipe.name}", total=recipe.epochs)

        def report(epoch: int, loss: float, accuracy: float) -> None:
            text = f"train {recipe.name}  loss {loss:.4f}  held-out {accuracy:.2f} %"
            display.update(task, completed=epoch, description=text)

        yield report
