# SPDX-License-Identifier: BSD-2-Clause
"""Commands that talk to a board that runs: infer, load."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import click

from xnorforge.sw.cli_output import counter, emit, json_option
from xnorforge.sw.errors import HostError

__all__ = ["infer", "load"]

SHOWN = 50  # labels in what people see
SHOWN_TOP = 10  # images whose best classes people see


def _positive(_context: Any, _parameter: Any, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise click.BadParameter(f"must be a positive number, not {value:g}.")
    return value


def _link_options(command: Any) -> Any:
    for option in (
        click.option(
            "--timeout",
            type=float,
            default=5.0,
            show_default=True,
            help="Seconds.",
            callback=_positive,
        ),
        click.option("--baud", type=click.IntRange(1, 10**9), help="Instead of the bundle's."),
        click.option(
            "--port",
            required=True,
            help="Serial path, /dev/litepcie0 of a card, or socket://host:port.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("bundle", type=click.Path())
@click.argument("images", type=click.Path())
@_link_options
@click.option("--images", "count", type=click.IntRange(1), help="Only the first ones.")
@click.option("--key", help="Name of the image array in an .npz.")
@click.option(
    "--weights", type=click.Path(), help="Run these instead of the bundle's own, see `load`."
)
@click.option("--top", "k", type=click.IntRange(1), help="Also the best classes, so many.")
@click.option("-o", "--output", type=click.Path(), help="Write scores and labels to an .npz.")
@json_option
def infer(
    bundle: str,
    images: str,
    port: str,
    baud: int | None,
    timeout: float,
    count: int | None,
    key: str | None,
    weights: str | None,
    k: int | None,
    output: str | None,
    as_json: bool,
) -> None:
    """Classify images on a board.

    \b
    xnorforge infer build/net digits.npz --port /dev/ttyUSB1
    xnorforge infer build/net mnist/ --images 1000 --port socket://127.0.0.1:4000
    """
    from xnorforge.sw.driver import Accelerator
    from xnorforge.sw.images import load_images
    from xnorforge.sw.manifest import Manifest

    manifest = Manifest.read(bundle)
    if k is not None and k > manifest.classes:
        raise click.BadParameter(
            f"{k} is more than the {manifest.classes} classes of {bundle}.", param_hint="'--top'"
        )
    arrays, truth = load_images(
        images, key=key, shape=manifest.image.shape, pixel=manifest.image.pixel
    )
    arrays = arrays[:count]
    target = None if output is None else _npz_target(output)
    started = time.perf_counter()
    with (
        counter("Classifying") as progress,
        Accelerator.open(
            bundle, port, baud=baud, timeout=timeout, weights=weights, progress=progress
        ) as board,
    ):
        scores, labels = board.results(arrays)
        seconds = time.perf_counter() - started
        statistics = board.statistics
        best = None if k is None else board.manifest.ranking.top(scores, k)
    result = {"images": len(labels), "seconds": seconds, **statistics.to_json()}
    if truth is not None:
        result["correct"] = int((labels == truth[:count]).sum())
    unsaved = None
    if target is not None:
        try:
            _save_npz(target, scores=scores, labels=labels)
            result["output"] = str(target)
        except HostError as error:
            unsaved = error  # what was computed is shown all the same
    if as_json:
        top = {} if best is None else {"top": best.tolist()}
        emit({**result, "labels": labels.tolist(), "scores": scores.tolist(), **top})
    else:
        _print_results(labels, scores, best)
        if "correct" in result:
            share = result["correct"] / result["images"]
            click.echo(f"{result['correct']} of {result['images']} right ({share:.2%})")
        click.echo(f"{statistics}\nAll of it took {seconds:.2f} s, opening the port included")
    if unsaved is not None:
        raise unsaved


def _print_results(labels: Any, scores: Any, best: Any) -> None:
    shown = " ".join(map(str, labels[:SHOWN]))
    click.echo(f"Labels: {shown}{' ...' if len(labels) > SHOWN else ''}")
    if best is None:
        return
    for index, classes in enumerate(best[:SHOWN_TOP]):
        words = ", ".join(f"{label} ({scores[index, label]:,})" for label in classes)
        click.echo(f"Image {index}: {words}")
    if len(best) > SHOWN_TOP:
        click.echo(f"... {len(best) - SHOWN_TOP:,} more: --json has them all")


def _npz_target(output: str) -> Path:
    """Where to write, looked at before the board is used rather than after."""
    target = Path(output if output.endswith(".npz") else f"{output}.npz")
    if target.is_dir() or not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise click.BadParameter(
            f"{target} cannot be written: choose a file in a folder that exists and is writable",
            param_hint="'--output'",
        )
    return target


def _save_npz(target: Path, **arrays: Any) -> None:
    import numpy as np

    aside = target.with_name(f".{target.name}.part")
    try:
        with aside.open("wb") as file:
            np.savez(file, **arrays)
        aside.replace(target)
    except OSError as error:
        raise HostError(
            f"{target} cannot be written ({error.strerror or error}): make room or choose another "
            "file"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


@click.command()
@click.argument("bundle", type=click.Path())
@click.argument("source", type=click.Path())
@_link_options
@click.option("--input-scale", type=float, help="Of a model file, as for `compile`.")
@click.option("--input-offset", type=float, help="Of a model file, as for `compile`.")
@click.option("--pixel", type=click.Choice(["uint8", "int8"]), help="Of a model file.")
@click.option("--topology", type=click.Choice(["auto", "lfc", "cnv"]), help="Of a model folder.")
@json_option
def load(
    bundle: str,
    source: str,
    port: str,
    baud: int | None,
    timeout: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Load another model into a board that runs BUNDLE: no build, no programming.

    SOURCE: a model file or folder of the same structure, another bundle of the same plan, or a
    weights.bin. Options of a model file are those of the bundle's own model unless given.

    The board keeps it until power-off, or until BUNDLE's own weights are loaded again, which
    `infer` does unless it is told of SOURCE.

    \b
    xnorforge load build/net other.onnx --port /dev/ttyUSB1
    xnorforge infer build/net digits.npz --weights other.onnx --port /dev/ttyUSB1
    """
    from xnorforge.sw.driver import Accelerator

    given = {name: value for name, value in options.items() if value is not None}
    started = time.perf_counter()
    with (
        counter("Loading") as progress,
        Accelerator.open(
            bundle,
            port,
            baud=baud,
            timeout=timeout,
            load="always",
            weights=source,
            progress=progress,
            **given,
        ) as board,
    ):
        seconds = time.perf_counter() - started
        manifest = board.manifest
    if as_json:
        emit(
            {
                "bundle": bundle,
                "source": source,
                "model": manifest.name,
                "weights_digest": manifest.weights_digest,
                "seconds": seconds,
            }
        )
        return
    click.echo(
        f"{manifest.name}: weights {manifest.weights_digest:08x} loaded and read back in "
        f"{seconds:.2f} s"
    )
