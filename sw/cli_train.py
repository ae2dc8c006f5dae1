# SPDX-License-Identifier: BSD-2-Clause
"""The command that trains."""

from __future__ import annotations

import click

from xnorforge.sw.cli_output import console, emit, json_option, table

__all__ = ["train"]


@click.command()
@click.argument("recipe", required=False)
@click.option("--data", type=click.Path(), help="Folder of the data set; downloaded without it.")
@click.option("--dataset", help="Instead of the recipe's, for images of the same size.")
@click.option("-o", "--output", type=click.Path(), help="Model to write.  [default: RECIPE.onnx]")
@click.option("--seed", type=int, help="Instead of the recipe's.")
@click.option("--epochs", type=int, help="Instead of the recipe's.")
@json_option
def train(
    recipe: str | None,
    data: str | None,
    dataset: str | None,
    output: str | None,
    seed: int | None,
    epochs: int | None,
    as_json: bool,
) -> None:
    """Train a network by the BNN paper's method and export it as QONNX.

    Without RECIPE: lists the recipes and the data sets.

    \b
    xnorforge train
    xnorforge train mnist-tfc -o tfc.onnx
    xnorforge train fashion-cnv --data fashion-mnist/ -o fashion.onnx
    xnorforge train cnv --dataset svhn -o svhn.onnx
    """
    if recipe is None:
        _list_recipes(as_json)
        return
    from xnorforge.sw.train import train as run_training

    result = run_training(recipe, data, output, seed, epochs, progress=not as_json, dataset=dataset)
    if as_json:
        click.echo(result.to_json(), nl=False)
        return
    click.echo(
        f"{result.model}: {result.test_accuracy:.2f} % of the test images right "
        f"({result.held_out_accuracy:.2f} % held out), {result.seconds:.0f} s"
    )


def _list_recipes(as_json: bool) -> None:
    import dataclasses

    from xnorforge.sw.train import DATASETS, RECIPES

    if as_json:
        emit(
            {
                "recipes": {
                    name: dataclasses.asdict(recipe) | {"weight_bits": recipe.weight_bits}
                    for name, recipe in RECIPES.items()
                },
                "datasets": {
                    name: {"title": item.title, "image": item.image, "classes": item.classes}
                    for name, item in DATASETS.items()
                },
            }
        )
        return
    recipes = [
        (name, recipe.title, recipe.weight_bits, recipe.epochs, recipe.dataset)
        for name, recipe in RECIPES.items()
    ]
    names = ("Recipe", "Network", "Weight bits", "Epochs", "Data set")
    console().print(table("Recipes", names, recipes, right=(2, 3)))
    datasets = [
        (name, item.title, " x ".join(map(str, item.image)), item.classes)
        for name, item in DATASETS.items()
    ]
    headings = ("Data set", "What", "Image", "Classes")
    console().print(table("Data sets (--dataset, --data)", headings, datasets, right=(3,)))
