# SPDX-License-Identifier: BSD-2-Clause
"""Commands that make things: inspect, compile, verify."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import click

from xnorforge.gen.errors import PlanError, SiteError
from xnorforge.sw.cli_build import (
    ClockType,
    fastest,
    fastest_plan,
    jobs_option,
    print_search,
    seeds_option,
)
from xnorforge.sw.cli_output import console, emit, json_option, steps, table

__all__ = ["compile_", "inspect", "verify"]

RANDOM_IMAGES = 200


def _input_options(command: Any) -> Any:
    for option in (
        click.option(
            "--topology",
            type=click.Choice(["auto", "lfc", "cnv"]),
            default="auto",
            show_default=True,
            help="Of a BNN-PYNQ folder.",
        ),
        click.option(
            "--pixel",
            type=click.Choice(["uint8", "int8"]),
            default="uint8",
            show_default=True,
            help="Type of an image element.",
        ),
        click.option("--input-offset", type=float, default=0.0, help="See --input-scale."),
        click.option(
            "--input-scale",
            type=float,
            default=1 / 255,
            help="The model is fed pixel * scale + offset; 1/255 by default.",
        ),
    ):
        command = option(command)
    return command


def _load(model: str, input_scale: float, input_offset: float, pixel: str, topology: str) -> Any:
    from xnorforge.gen.load import load

    with steps(f"Reading {Path(model).name}"):
        return load(
            model,
            input_scale=input_scale,
            input_offset=input_offset,
            pixel=pixel,
            topology=topology,
        )


@click.command()
@click.argument("model", type=click.Path())
@_input_options
@json_option
def inspect(
    model: str,
    input_scale: float,
    input_offset: float,
    pixel: str,
    topology: str,
    as_json: bool,
) -> None:
    """Show what a model holds and which boards would hold it.

    MODEL: an ONNX or QONNX file, or a folder of BNN-PYNQ parameters.

    \b
    xnorforge inspect model.onnx
    xnorforge inspect cnvW1A1/ --topology cnv
    """
    from xnorforge.gen.boards import BOARDS
    from xnorforge.gen.inspect import describe
    from xnorforge.gen.inspect import inspect as summarise
    from xnorforge.gen.planner import make_plan
    from xnorforge.gen.resources import estimate

    network = _load(model, input_scale, input_offset, pixel, topology)
    fits: dict[str, Any] = {}
    seen: dict[tuple[Any, ...], dict[str, Any] | PlanError] = {}
    searches: dict[str, Any] = {}
    if not as_json:
        click.echo(describe(network))
    with steps("Looking at boards") as say:
        for name, board in BOARDS.items():
            # Boards of one device, clock and baud rate differ in their pins only.
            site = (board.device.name, board.clock_hz, board.baud, "rx" in board.pins)
            if site not in seen:
                say(name)
                try:
                    plan = make_plan(network, board=name, searches=searches)
                except PlanError as error:
                    seen[site] = error
                else:
                    used = estimate(network, plan)
                    used = {key: value for key, value in used.items() if key != "parts"}
                    seen[site] = {"fits": True, **used}
            found = seen[site]
            if isinstance(found, SiteError):
                found = found.at(name)
            if isinstance(found, PlanError):
                found = {"fits": False, "reason": str(found)}
            fits[name] = found
    if as_json:
        emit({**summarise(network), "boards": fits})
        return
    rows = [
        (name, "yes", item["cells"], item["blocks"])
        if item["fits"]
        else (name, "no", "", item["reason"])
        for name, item in fits.items()
    ]
    columns = ("Board", "Fits", "Logic cells", "Block RAMs")
    console().print(table("Smallest plan that keeps 1 Mbaud busy", columns, rows, right=(2,)))


@click.command("compile")
@click.argument("model", type=click.Path())
@click.option("--board", help="Board, see `xnorforge boards`, or a board file (my.toml).")
@click.option("--pins", help="Pins that are not the board's own, like rx=B2,tx=B3.")
@click.option("--device", help="Bare device, for Verilog without pins.")
@click.option("--fps", type=float, help="Images per second that the core must reach.")
@click.option("--max", "maximum", is_flag=True, help="The fastest that fits.")
@click.option(
    "--prove",
    is_flag=True,
    help="With --max: by builds, until one plan builds and the next faster one does not.",
)
@click.option("--min", "minimum", is_flag=True, help="The smallest.")
@click.option("--folding", type=click.Path(), help='JSON: {layer: {"pe": 4, "simd": 49, ...}}.')
@click.option(
    "--constant-weights",
    "constant",
    is_flag=True,
    help="Weights may become logic, where that is cheaper; the driver cannot exchange them then.",
)
@click.option(
    "--patchable",
    is_flag=True,
    help="`patch` can replace the weights of the finished bitstream; takes a block RAM.",
)
@click.option(
    "--slots",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="Models held at once: two take twice the memory, and turns without a load or a pause.",
)
@click.option(
    "--link",
    default="uart",
    show_default=True,
    help="uart; axi: a core with AXI ports for a design of your own; pcie: a PCIe board.",
)
@click.option(
    "--bus-clock",
    type=float,
    metavar="MHZ",
    help="With --link axi: clock of the AXI ports, where it is not the core's.",
)
@click.option("--baud", type=int, help="Baud rate of the UART, instead of the board's.")
@click.option(
    "--clock",
    type=ClockType(),
    help="Core clock in MHz, instead of the board's; max: the fastest that closes.",
)
@seeds_option
@jobs_option
@click.option("-o", "--output", required=True, type=click.Path(), help="Bundle to make.")
@_input_options
@json_option
def compile_(
    model: str,
    board: str | None,
    pins: str | None,
    device: str | None,
    fps: float | None,
    maximum: bool,
    prove: bool,
    minimum: bool,
    folding: str | None,
    constant: bool,
    patchable: bool,
    slots: int,
    link: str,
    bus_clock: float | None,
    baud: int | None,
    clock: float | str | None,
    seeds: tuple[int, ...] | None,
    jobs: int | None,
    output: str,
    input_scale: float,
    input_offset: float,
    pixel: str,
    topology: str,
    as_json: bool,
) -> None:
    """Turn a model into a bundle: plan, Verilog, weights, manifest.

    Without --fps, --max or --min: the smallest design that keeps the link busy.
    With --clock max the design is placed and routed for one clock after the other, with --max
    --prove one plan after the other (--seeds and --jobs are about that); the bitstream comes with
    the bundle.

    \b
    xnorforge compile model.onnx --board ulx3s-85f --fps 1000000 -o build/net
    xnorforge compile model.onnx --device ecp5-25f --max --clock 80 -o build/net
    xnorforge compile model.onnx --board icebreaker --clock max -o build/net
    """
    if sum((fps is not None, maximum, minimum)) > 1:
        raise click.UsageError("Give one of --fps, --max and --min.")
    if (board is None) == (device is None):
        raise click.UsageError("Give either --board or --device.")
    if clock == "max" and board is None:
        raise click.UsageError("--clock max needs a --board: a bare device has no pins.")
    if link != "uart" and (prove or clock == "max"):
        raise click.UsageError(
            f"--prove and --clock max build bitstreams, which --link {link} has none of here."
        )
    if prove and (not maximum or board is None or clock == "max"):
        raise click.UsageError("--prove goes with --max, a --board and a clock that stands.")
    if clock != "max" and not prove and (seeds or jobs):
        raise click.UsageError("--seeds and --jobs belong to --clock max and --prove.")
    if constant and patchable:
        raise click.UsageError("Give either --constant-weights or --patchable.")
    from xnorforge.gen.boards import read_pins
    from xnorforge.gen.bundle import check_output, compile_bundle
    from xnorforge.gen.planner import make_plan

    check_output(output)
    network = _load(model, input_scale, input_offset, pixel, topology)
    settings: dict[str, Any] = {
        "pins": None if pins is None else read_pins(pins),
        "overrides": folding,
        "link": link,
        "baud": baud,
        "clock_hz": clock * 1e6 if isinstance(clock, float) else None,
        "weights": "patchable" if patchable else "constant" if constant else "loadable",
        "slots": slots,
        "bus_clock_hz": None if bus_clock is None else bus_clock * 1e6,
    }
    found: Any = None
    if prove:
        with steps("Looking for the fastest plan") as say:
            found = fastest_plan(network, board, say, seeds=seeds, jobs=jobs, settings=settings)
        plan = found.plan
    else:
        goal = "max" if maximum else "min" if minimum else "link"
        with steps("Planning"):
            plan = make_plan(network, board=board, device=device, fps=fps, goal=goal, **settings)
    if clock == "max":
        with steps("Looking for the fastest clock") as say:
            found = fastest(network, plan, say, seeds=seeds, jobs=jobs, fps=fps)
        plan = found.plan
    with steps("Compiling") as say:
        bundle = compile_bundle(network, plan, Path(output), progress=say)
        # Every step of it ran in the search.
        built = None if found is None else bundle.build(seeds=(found.seed,), progress=say)
    if as_json:
        item = {"bundle": str(bundle.path), **bundle.manifest}
        if found is not None and built is not None:
            name = "max_search" if prove else "clock_search"
            item |= {name: found.to_json(), "build": built.to_json()}
        emit(item)
        return
    if prove:
        click.echo(str(found))
    elif found is not None:
        print_search(found)
    predicted = bundle.manifest["predicted"]
    console().print(_fold_table(bundle.manifest))
    for name, reason in plan.reasons:
        click.echo(f"{name}: {reason}")
    used = predicted["resources"]
    memories = f"{used['blocks']} block RAMs"
    if used["lut_rams"]:
        memories = f"{used['lut_rams']} LUT RAMs, {memories}"
    if used["sprams"]:
        memories += f" and {used['sprams']} SPRAM blocks, which the driver loads when it opens"
    click.echo(
        f"{predicted['images_per_second']:,.0f} images/s at {plan.clock_hz / 1e6:g} MHz, "
        f"about {used['cells']:,} logic cells, {used['flipflops']:,} flip-flops, "
        f"{used['carries']:,} carry cells and {memories}\n"
        f"Bundle: {bundle.path}"
    )


def _fold_table(manifest: dict[str, Any]) -> Any:
    parts = manifest["predicted"]["resources"]["parts"]
    rows = [
        (
            layer["name"],
            f"{layer['rows']}x{layer['columns']}" if "rows" in layer else layer["op"],
            # Rows of each of several windows that share weights.
            f"{layer['pe']} x {layer['reuse']}" if "reuse" in layer else layer.get("pe", "-"),
            layer.get("simd", layer.get("lanes", "-")),
            layer.get("pl", "-"),
            # Of weights in a shared SPRAM, whose words come in turn.
            f"{layer['fold_cycles']:,} ({layer['share']} a step)"
            if "share" in layer
            else layer.get("fold_cycles", "-"),
            parts[layer["name"]]["cells"],
            parts[layer["name"]]["blocks"],
        )
        for layer in manifest["layers"]
    ]
    names = ("Layer", "Shape", "PE", "SIMD", "PL", "Cycles", "Cells", "Block RAMs")
    return table("", names, rows, right=(1, 2, 3, 4, 5, 6, 7))


@click.command()
@click.argument("bundle", type=click.Path())
@click.option(
    "--level",
    "levels",
    multiple=True,
    type=click.Choice(["reference", "rtl", "netlist"]),
    help="What to compare; several run in turn.  [default: rtl]",
)
@click.option(
    "--images", "count", type=click.IntRange(1), help="How many.  [default: all, or 200 random]"
)
@click.option("--data", type=click.Path(), help="Images: idx, .npy, .npz, PNG folder.")
@click.option("--key", help="Name of the image array in an .npz.")
@json_option
def verify(
    bundle: str,
    levels: tuple[str, ...],
    count: int | None,
    data: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Compare a bundle with the exact reference, all scores of all images.

    Without --data random images are used. Exits with 1 on any difference.

    \b
    xnorforge verify build/net --level rtl --data mnist/ --images 1000
    """
    from xnorforge.gen.bundle import Bundle

    opened = Bundle.open(bundle)
    arrays, labels = _images(opened.network.input, data, key, count)
    reports = []
    for level in levels or ("rtl",):
        with steps(f"Verifying at level {level}") as say:
            reports.append(opened.verify(level, images=arrays, labels=labels, progress=say))
    if as_json:
        emit({"levels": [report.to_json() for report in reports]})
    else:
        for report in reports:
            click.echo(f"{report.level}:\n{textwrap.indent(str(report), '  ')}")
    click.get_current_context().exit(0 if all(report.passed for report in reports) else 1)


def _images(contract: Any, data: str | None, key: str | None, count: int | None) -> Any:
    """Images to verify with, and their labels where there are any."""
    if data is not None:
        from xnorforge.sw.images import load_images

        images, labels = load_images(
            data, key=key, shape=contract.value.shape, pixel=contract.pixel
        )
        return images[:count], None if labels is None else labels[:count]
    import numpy as np

    kind = np.iinfo(contract.pixel)
    shape = (count or RANDOM_IMAGES, *contract.value.shape)
    generator = np.random.default_rng(0)
    return generator.integers(kind.min, kind.max, shape, contract.pixel, endpoint=True), None
