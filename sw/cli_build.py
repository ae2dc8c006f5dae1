# SPDX-License-Identifier: BSD-2-Clause
"""Commands and options about bitstreams: build, patch; the clock search of compile."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click

from xnorforge.gen.errors import PlanError, UserError
from xnorforge.sw.cli_output import Steps, console, emit, json_option, steps, table

__all__ = [
    "ClockType",
    "build",
    "fastest",
    "fastest_plan",
    "jobs_option",
    "patch",
    "print_search",
    "resumable",
    "seeds_option",
]

MOST_SEEDS = 1000


class _SeedsType(click.ParamType):
    """`8` is the first eight; `3-6` and `2,5,9` are those."""

    name = "seeds"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", value):
            self.fail(f"{value!r} is neither a number of seeds nor a list like 1-32 or 3,5,8.")
        found: list[int] = []
        for part in value.split(","):
            first, _, last = part.partition("-")
            low, high = int(first), int(last or first)
            if value.isdigit():
                low = 1
            if high < low:
                self.fail(f"{part!r} holds no seed.")
            if high - low >= MOST_SEEDS or len(found) >= MOST_SEEDS:
                self.fail(f"{value!r} are more than {MOST_SEEDS:,} seeds.")
            found += range(low, high + 1)
        return tuple(dict.fromkeys(found))


class ClockType(click.ParamType):
    """MHz, or "max"."""

    name = "mhz|max"

    def convert(self, value: Any, param: Any, ctx: Any) -> float | str:
        if value == "max" or isinstance(value, float):
            return value
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number of MHz nor 'max'.")


seeds_option = click.option(
    "--seeds",
    type=_SeedsType(),
    help="Placement seeds: how many (8), or which (1-32, 3,5,8).  [default: 8]",
)
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Seeds at a time.  [default: one a processor, as memory allows]",
)


@contextmanager
def resumable() -> Iterator[None]:
    """Says, when it is interrupted, that nothing is lost, where the step cache keeps anything."""
    from xnorforge.gen.build_cache import StepCache

    kept = StepCache().limit_bytes > 0
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if kept:
            click.echo("What has finished is kept: the same command goes on from here", err=True)
        raise


@click.command()
@click.argument("bundle", type=click.Path())
@seeds_option
@click.option(
    "--seed", "single", type=click.IntRange(0), multiple=True, help="One seed; several: in turn."
)
@click.option("--best", is_flag=True, help="Route all seeds and keep the fastest.")
@jobs_option
@click.option("--force", is_flag=True, help="Run every step even if nothing has changed.")
@json_option
def build(
    bundle: str,
    seeds: tuple[int, ...] | None,
    single: tuple[int, ...],
    best: bool,
    jobs: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make the bitstream of a bundle, timing met at the PLL's real frequency.

    Seeds are tried until one meets timing. A build that was interrupted goes on where it stopped.
    The table shows what each layer takes, packed, and beside it what the resource model said.

    \b
    xnorforge build build/net
    xnorforge build build/net --seeds 32 --best
    """
    if seeds and single:
        raise click.UsageError("Give either --seeds or --seed.")
    from xnorforge.gen.build import build as build_bundle
    from xnorforge.gen.bundle import Bundle
    from xnorforge.gen.layer_usage import layer_usage

    rows: Any = ()
    with steps("Building") as say, resumable():
        opened = Bundle.open(bundle)
        result = build_bundle(
            opened,
            seeds=seeds or single or None,
            best=best,
            jobs=jobs,
            force=force,
            progress=say,
            report=lambda seed: say.note(f"  {seed}"),
        )
        try:
            rows = layer_usage(opened, result, progress=say)
        except UserError as error:
            # The bitstream is made all the same.
            say.note(f"What each layer takes is not known: {error}")
    if as_json:
        emit({**result.to_json(), "layers": [asdict(row) for row in rows]})
        return
    if rows:
        console().print(_usage_table(rows))
    used = ", ".join(
        f"{count:,} {name.replace('_', ' ')}" for name, count in result.used.items() if count
    )
    click.echo(
        f"{result.bitstream}\n{result.fmax_hz / 1e6:.1f} MHz reached, "
        f"{result.clock_hz / 1e6:g} MHz needed (seed {result.seed})\n{used}"
    )


# Counts in the table, and whether the resource model has them too.
_COLUMNS = (
    ("Cells", ("logic_cells",), True),
    ("LUTs", ("luts",), False),
    ("Carries", ("carries",), True),
    ("FFs", ("flip_flops", "lost_flip_flops"), True),
    ("LUT RAMs", ("lut_rams",), True),
    ("Block RAMs", ("block_rams",), True),
    ("SPRAMs", ("sprams",), True),
    ("DSPs", ("dsps",), False),
)


def _usage_table(rows: Sequence[Any]) -> Any:
    """What each layer takes, and behind it, as "model", what was predicted."""
    from xnorforge.gen.layer_usage import total_usage

    packed = [*(row.packed for row in rows), total_usage(rows)]
    models = [row.predicted for row in rows]
    total: Counter[str] = Counter()
    for model in models:
        total.update(model or {})
    models.append(dict(total))
    names, lines = ["Layer"], [[name] for name in (*(row.name for row in rows), "total")]
    for title, kinds, modelled in _COLUMNS:
        columns = [[sum(counts.get(kind, 0) for kind in kinds) for counts in packed]]
        if modelled:
            columns.append([None if m is None else m.get(kinds[0], 0) for m in models])
        if not any(any(column) for column in columns):
            continue
        names += [title, "model"][: len(columns)]
        for line, *cells in zip(lines, *columns, strict=True):
            line += ["-" if cell is None else cell for cell in cells]
    return table("What each layer takes", names, lines, right=range(1, len(names)))


def fastest(
    network: Any,
    plan: Any,
    say: Steps,
    *,
    seeds: tuple[int, ...] | None,
    jobs: int | None,
    fps: float | None,
) -> Any:
    """The clock search of `compile --clock max`. fps: what the plan was made for, if anything."""
    from xnorforge.gen.build_flow import DEFAULT_SEEDS
    from xnorforge.gen.clock_search import fastest_clock

    with resumable():
        found = fastest_clock(
            network,
            plan,
            seeds=seeds or DEFAULT_SEEDS,
            jobs=jobs,
            progress=say,
            report=lambda seed: say.note(f"  {seed}"),
            attempted=lambda attempt: say.note(str(attempt)),
        )
    if fps is not None and found.clock_hz < plan.clock_hz:
        raise PlanError(
            f"{fps:g} images/s were asked for and planned at {plan.clock_hz / 1e6:g} MHz, but "
            f"{found.clock_hz / 1e6:g} MHz is the most that closes on {plan.board}: ask for fewer, "
            f"or plan for that clock with --clock {found.clock_hz / 1e6:g}"
        )
    return found


def fastest_plan(
    network: Any,
    board: str | None,
    say: Steps,
    *,
    seeds: tuple[int, ...] | None,
    jobs: int | None,
    settings: dict[str, Any],
) -> Any:
    """The search of `compile --max --prove`."""
    from xnorforge.gen.build_flow import DEFAULT_SEEDS
    from xnorforge.gen.build_result import scratch
    from xnorforge.gen.max_search import fastest_build

    with resumable(), scratch("xnorforge-max-") as space:
        return fastest_build(
            network,
            str(board),
            space.folder,
            seeds=seeds or DEFAULT_SEEDS,
            jobs=jobs,
            progress=say,
            attempted=lambda attempt: say.note(str(attempt)),
            **settings,
        )


def print_search(found: Any) -> None:
    """The clocks that a search tried, the fastest first, and what is above them."""
    rows = [
        (
            f"{attempt.clock_hz / 1e6:.3f}",
            "[green]closes[/]"
            if attempt.closed
            else "not decided"
            if attempt.undecided
            else "[red]fails[/]",
            len(attempt.seeds),
            f"{attempt.fmax_hz / 1e6:.2f}",
        )
        for attempt in sorted(found.attempts, key=lambda item: -item.clock_hz)
    ]
    names = ("PLL MHz", "", "Seeds", "Best Fmax MHz")
    console().print(table("Clocks tried", names, rows, right=(0, 2, 3)))
    click.echo(str(found).splitlines()[-1])


@click.command()
@click.argument("bundle", type=click.Path())
@click.argument("model", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(), help="Bundle to make.")
@json_option
def patch(bundle: str, model: str, output: str, as_json: bool) -> None:
    """Put another model's weights into a finished bitstream, without place and route.

    BUNDLE was compiled with --patchable and built. MODEL has its shape and other numbers; it gets
    a bundle of its own, with the bitstream.

    \b
    xnorforge compile digits.onnx --board icebreaker --patchable -o build/digits
    xnorforge build build/digits
    xnorforge patch build/digits fashion.onnx -o build/fashion
    """
    from xnorforge.gen.patch import patch as patch_bundle

    with steps("Patching") as say:
        result = patch_bundle(bundle, model, output, progress=say)
    if as_json:
        emit(result.to_json())
        return
    click.echo(
        f"{result.bitstream}\n{result.seconds['total']:.1f} s for memories and packing; "
        f"{result.fmax_hz / 1e6:.1f} MHz reached when it was placed (seed {result.seed})"
    )
