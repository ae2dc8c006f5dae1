# SPDX-License-Identifier: BSD-2-Clause
"""Binary networks against their float twins: same layers, data, epochs and seeds.

    python benchmarks/train_twins.py fashion-cnv --data FOLDER --seeds 1 2 3
    python benchmarks/train_twins.py cnv-tiny --data FOLDER --label coloured-fashion
        --train 6000 --held-out 1000 --epochs 5 --set batch=50 --set half=true --models build/

A twin has real weights and ReLU where the binary network has signs; `Recipe.twin` makes it. Every
finished run is kept in train_twins.json by its settings, so an interrupted benchmark goes on where
it stopped. --set puts other values in the recipe's fields, --models keeps the binary networks as
QONNX. Writes train_twins.json and .md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from xnorforge.sw.train import Recipe, find_dataset, find_recipe, load_split
from xnorforge.sw.train.data import data_folder
from xnorforge.sw.train.export import to_qonnx
from xnorforge.sw.train.loop import fit, predict

HERE = Path(__file__).parent
KINDS = ("binary", "float")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("--data", type=Path, help="folder of the data set; downloaded without it")
    parser.add_argument("--label", help="what to call the data; the recipe's data set without it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--train", type=int, help="images trained on; all without it")
    parser.add_argument("--held-out", type=int, help="instead of the recipe's")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=JSON")
    parser.add_argument("--models", type=Path, help="folder for the binary networks")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    report_file = options.out / "train_twins.json"
    runs: dict[str, dict[str, Any]] = {}
    if report_file.is_file():
        runs = json.loads(report_file.read_text())
    recipe = changed(find_recipe(options.recipe), options)
    label = options.label or recipe.dataset
    for seed in options.seeds:
        for kind in options.kinds:
            seeded = dataclasses.replace(recipe, seed=seed)
            name = f"{recipe.name}, {label}, seed {seed}, {kind}"
            settings = json.loads(json.dumps(dataclasses.asdict(seeded)))
            known = runs.get(name)
            if known and (known["settings"], known["wanted"]) == (settings, options.train):
                continue
            made = train(seeded if kind == "binary" else seeded.twin(), name, options)
            made |= {"settings": settings, "wanted": options.train, "kind": kind, "seed": seed}
            runs[name] = made | {"recipe": recipe.name, "data": label}
            report_file.write_text(json.dumps(runs, indent=1, sort_keys=True) + "\n")
            (options.out / "train_twins.md").write_text(markdown(runs))
    print(markdown(runs))


def changed(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe with the values of the command line."""
    values = {name: json.loads(value) for name, value in (x.split("=", 1) for x in options.set)}
    for name, value in (("epochs", options.epochs), ("held_out", options.held_out)):
        if value is not None:
            values[name] = value
    return dataclasses.replace(recipe, **values)


def train(recipe: Recipe, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One run: accuracies in percent, seconds."""
    folder = data_folder(recipe.dataset, options.data)
    form = find_dataset(recipe.dataset).form
    halves = {
        split: load_split(folder, split, form=form, image=recipe.image, classes=recipe.classes)
        for split in ("train", "test")
    }
    images, labels = halves["train"].images, halves["train"].labels
    if options.train is not None:
        count = options.train + recipe.held_out
        images, labels = images[:count], labels[:count]

    def report(epoch: int, loss: float, accuracy: float) -> None:
        text = f"{name}: epoch {epoch}, loss {loss:.4f}, held out {accuracy:.2f} %"
        print(f"{text}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)

    began, cpu_began = time.perf_counter(), time.process_time()
    result = fit(recipe, images, labels, report)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    right = (predict(result.network, halves["test"].images) == halves["test"].labels).mean()
    if options.models is not None and recipe.binary:
        options.models.mkdir(parents=True, exist_ok=True)
        model = to_qonnx(result.network, name=recipe.name, metadata={"seed": str(recipe.seed)})
        path = options.models / f"{recipe.name}-{recipe.seed}.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
    return {
        "test_accuracy": round(100 * float(right), 2),
        "held_out_accuracy": result.history[result.epoch - 1],
        "epoch": result.epoch,
        "train_images": len(images) - recipe.held_out,
        "test_images": len(halves["test"].images),
        "seconds": round(seconds),
        "cpu_seconds": round(cpu_seconds),
        "sha256": halves["train"].sha256 | halves["test"].sha256,
        "torch": torch.__version__,
    }


def markdown(runs: dict[str, dict[str, Any]]) -> str:
    """A line a recipe and data set: each seed's accuracies, and the means where all are there."""
    lines = [
        "| recipe | data | training images | epochs | seeds | binary, test % | float twin, test % "
        "| mean difference | binary / float | CPU s a run, binary, float |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, ...], dict[str, dict[int, dict[str, Any]]]] = {}
    for run in runs.values():
        # All that a run depends on but its seed.
        settings = {name: value for name, value in run["settings"].items() if name != "seed"}
        key = (
            run["recipe"],
            run["data"],
            json.dumps([settings, run["train_images"]], sort_keys=True),
        )
        groups.setdefault(key, {kind: {} for kind in KINDS})[run["kind"]][run["seed"]] = run
    for (recipe, data, _), kinds in sorted(groups.items()):
        some = next(run for kind in kinds.values() for run in kind.values())
        seeds = sorted({seed for kind in kinds.values() for seed in kind})
        pairs = [seed for seed in seeds if all(seed in kind for kind in kinds.values())]
        means = {
            kind: statistics.mean(found[seed]["test_accuracy"] for seed in pairs)
            for kind, found in kinds.items()
            if pairs
        }
        cells = [
            recipe,
            data,
            f"{some['train_images']:,}",
            some["settings"]["epochs"],
            ", ".join(map(str, seeds)),
            *(
                ", ".join(
                    f"{kinds[kind][seed]['test_accuracy']:.2f}" if seed in kinds[kind] else "-"
                    for seed in seeds
                )
                for kind in KINDS
            ),
            f"{means['float'] - means['binary']:.2f}" if pairs else "-",
            f"{means['binary'] / means['float']:.3f}" if pairs else "-",
            ", ".join(
                f"{statistics.mean(run['cpu_seconds'] for run in kinds[kind].values()):.0f}"
                if kinds[kind]
                else "-"
                for kind in KINDS
            ),
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
