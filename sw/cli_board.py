# SPDX-License-Identifier: BSD-2-Clause
"""Commands about boards, real or simulated: boards, doctor, serve, infer, program."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from xnorforge.sw.cli_output import console, counter, emit, json_option, steps, table
from xnorforge.sw.errors import HostError

__all__ = ["boards", "doctor", "infer", "program", "serve"]


def _positive(_context: Any, _parameter: Any, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise click.BadParameter(f"must be a positive number, not {value:g}.")
    return value


@click.command()
@json_option
def boards(as_json: bool) -> None:
    """List the boards with device, family, resources, clock and link.

    A board of your own is a file like these, see docs/boards.md: compile --board my.toml
    """
    from xnorforge.gen.boards import BOARDS

    items: list[dict[str, Any]] = [
        {
            "name": name,
            "title": board.title,
            "device": board.device.name,
            "device_title": board.device.title,
            "family": board.device.family.name,
            "package": board.package,
            "luts": board.device.luts,
            "block_rams": board.device.block_rams,
            "block_ram_bits": board.device.block_rams * board.device.family.block_ram_bits,
            "spram_blocks": board.device.spram_blocks,
            "oscillator_hz": board.oscillator_hz,
            "pll": board.pll,
            "clock_hz": board.clock_hz,
            "link": "uart",
            "baud": board.baud,
            "uart": board.uart,
        }
        for name, board in BOARDS.items()
    ]
    if as_json:
        emit({"boards": items})
        return
    rows = [
        (
            item["name"],
            item["device"],
            item["family"],
            f"{item['luts']:,}",
            item["block_rams"],
            f"{item['block_ram_bits'] // 1024:,} kbit"
            + (f" + {item['spram_blocks'] * 256:,}" if item["spram_blocks"] else ""),
            f"{item['clock_hz'] / 1e6:g} MHz",
            f"uart, {item['uart']}",
        )
        for item in items
    ]
    columns = ("Board", "Device", "Family", "LUT4", "RAMs", "Memory", "Clock", "Link")
    console().print(table("", columns, rows, right=(3, 4, 5, 6)))


@click.command()
@click.option("--quick", is_flag=True, help="Skip the compiler test.")
@json_option
def doctor(quick: bool, as_json: bool) -> None:
    """Say what works on this machine, what is missing and what to install.

    Exits with 2 if anything is missing.
    """
    from rich.markup import escape

    from xnorforge.gen.doctor import diagnose

    with steps("Looking around") as say:
        found = diagnose(compile_test=not quick, progress=say)
    if as_json:
        emit(found.to_json())
        click.get_current_context().exit(0 if found.ok else 2)
    optional = "[yellow]absent[/]"
    rows = [
        (
            "[green]ok[/]" if c.ok else "[red]missing[/]" if c.needed_for else optional,
            c.area,
            escape(c.name),
            escape(c.detail if c.ok else f"{c.detail}: {c.fix}"),
        )
        for c in found.checks
    ]
    console().print(table("", ("", "Area", "What", "Detail"), rows))
    abilities = [
        ("[green]yes[/]" if a.works else "[red]no[/]", a.what, escape(", ".join(a.missing)))
        for a in found.abilities
    ]
    console().print(table("What works here", ("", "What", "Missing"), abilities))
    cache = found.cache
    total, taken, limit = (cache[k] / 1e6 for k in ("bytes", "steps_bytes", "steps_limit_bytes"))
    click.echo(
        f"Cache: {cache['folder']}, {total:,.0f} MB; {cache['steps']} build steps take "
        f"{taken:,.0f} of at most {limit:,.0f} MB"
    )
    if found.install:
        click.echo("To make all of it work:\n" + "\n".join(f"  {line}" for line in found.install))
    click.get_current_context().exit(0 if found.ok else 2)


@click.command()
@click.argument("bundle", type=click.Path())
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="TCP port; 0: any.")
@json_option
def serve(bundle: str, port: int, as_json: bool) -> None:
    """Run a bundle on the virtual board until Ctrl-C.

    Prints a serial path and a socket:// address; `infer --port` takes either.

    \b
    xnorforge serve build/net
    """
    from xnorforge.sim.board import VirtualBoard

    with steps("Starting the virtual board") as say:
        board = VirtualBoard(bundle, tcp_port=port, progress=say)
    with board:
        if as_json:
            emit({"pty": board.pty, "socket": board.socket, "pid": board.pid})
        else:
            click.echo(f"Serial path: {board.pty}\nSocket:      {board.socket}\nCtrl-C ends it.")
        sys.stdout.flush()
        status = board.wait()
    if status:
        click.echo(f"The virtual board ended with status {status}", err=True)
    click.get_current_context().exit(2 if status else 0)


@click.command()
@click.argument("bundle", type=click.Path())
@click.argument("images", type=click.Path())
@click.option("--port", required=True, help="Serial path, or socket://host:port.")
@click.option("--baud", type=click.IntRange(1, 10**9), help="Instead of the bundle's.")
@click.option("--images", "count", type=click.IntRange(1), help="Only the first ones.")
@click.option("--key", help="Name of the image array in an .npz.")
@click.option(
    "--timeout", type=float, default=5.0, show_default=True, help="Seconds.", callback=_positive
)
@click.option("-o", "--output", type=click.Path(), help="Write scores and labels to an .npz.")
@json_option
def infer(
    bundle: str,
    images: str,
    port: str,
    baud: int | None,
    count: int | None,
    key: str | None,
    timeout: float,
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
    arrays, truth = load_images(
        images, key=key, shape=manifest.image.shape, pixel=manifest.image.pixel
    )
    arrays = arrays[:count]
    target = None if output is None else _npz_target(output)
    started = time.perf_counter()
    with (
        counter("Classifying") as progress,
        Accelerator.open(bundle, port, baud=baud, timeout=timeout, progress=progress) as board,
    ):
        scores, labels = board.results(arrays)
        seconds = time.perf_counter() - started
        statistics = board.statistics
    result = _summary(labels, None if truth is None else truth[:count], seconds, statistics)
    if target is not None:
        _save_npz(target, scores=scores, labels=labels)
        result["output"] = str(target)
    if as_json:
        emit({**result, "labels": labels.tolist(), "scores": scores.tolist()})
        return
    shown = " ".join(map(str, labels[:50]))
    click.echo(f"Labels: {shown}{' ...' if len(labels) > 50 else ''}")
    if "correct" in result:
        share = result["correct"] / result["images"]
        click.echo(f"{result['correct']} of {result['images']} right ({share:.2%})")
    click.echo(
        f"{result['images']} images in {seconds:.2f} s over the link; the core was busy for "
        f"{result['core_seconds'] * 1e3:.3f} ms by its own clock"
    )


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


def _summary(labels: Any, truth: Any, seconds: float, statistics: Any) -> dict[str, Any]:
    result = {
        "images": len(labels),
        "seconds": seconds,
        "link_seconds": statistics.link_seconds,
        "core_seconds": statistics.core_seconds,
        "busy_cycles": statistics.busy_cycles,
        "starved_cycles": statistics.starved_cycles,
        "stalled_cycles": statistics.stalled_cycles,
    }
    if truth is not None:
        result["correct"] = int((labels == truth).sum())
    return result


@click.command()
@click.argument("bundle", type=click.Path())
@json_option
def program(bundle: str, as_json: bool) -> None:
    """Load a built bundle onto its board.

    Without a board it prints the command that would do it and exits with 2.
    """
    from xnorforge.gen.program import program as load_board

    with steps("Programming") as say:
        result = load_board(bundle, progress=say)
    if as_json:
        emit(vars(result))
    elif result.done:
        click.echo(f"Done: {result.command}")
    else:
        click.echo(f"Not programmed: {result.reason}", err=True)
        click.echo(result.command)
    click.get_current_context().exit(0 if result.done else 2)
