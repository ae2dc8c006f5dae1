# SPDX-License-Identifier: BSD-2-Clause
"""The demonstration: a shipped MNIST network, all the way, checked at every step.

    shipped model -> bundle -> verified against the exact reference
                           \\-> virtual board <-> real driver, 200 images
                           \\-> bitstream, built while the simulations run

The verdict is the comparer's own word; nothing here decides what is right.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from xnorforge.gen.errors import ToolError
from xnorforge.sw.cli_output import console, emit, steps, table

__all__ = ["run_demo"]

MODEL = "mnist-tfc"
# Fast enough that simulating 200 images takes seconds, small enough for every board.
IMAGES_PER_SECOND = 10_000
FAULT_KIND = "weight"


@dataclass
class _Outcome:
    """What the steps found, filled in as they end."""

    bundle: Any
    reports: list[Any]
    board: dict[str, Any]
    build: Any = None
    fault: str | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return all(r.passed for r in self.reports) and self.board["comparison"].first is None

    @property
    def word(self) -> str:
        """The comparer's word: that of the first comparison with a difference, if any."""
        for report in self.reports:
            if not report.passed:
                return report.word
        return self.board["comparison"].word


def run_demo(
    *, board: str, out: str | Path, inject_fault: bool, bitstream: bool, as_json: bool
) -> int:
    """Run it and print the summary. Returns the exit code: 0, or 1 on a mismatch.

    inject_fault: what the hardware gets differs in one weight bit from the reference.
    """
    import xnorforge.gen
    from xnorforge.sim.faults import plant
    from xnorforge.sw.images import load_images
    from xnorforge.sw.shipped import shipped_images, shipped_model

    started = time.monotonic()
    network = xnorforge.gen.load(shipped_model(MODEL))
    images, labels = load_images(shipped_images(), shape=network.input.value.shape)
    with steps(f"Compiling {MODEL} for {board}") as say:
        plan = network.plan(board=board, fps=IMAGES_PER_SECOND)
        bundle = plan.compile(out, progress=say)
    fault = plant(network, FAULT_KIND, images) if inject_fault else None
    # A faulty demonstration is about being caught: it has no use for a bitstream.
    with _building(bundle if bitstream and fault is None else None) as finish:
        outcome = _check(bundle, images, labels, fault)
        failure = None
        try:
            outcome.build = finish()
        except ToolError as error:  # said after the summary, which stands without a bitstream
            failure = error
    outcome.seconds = time.monotonic() - started
    if as_json:
        emit(_as_json(outcome))
    else:
        _print(outcome, len(images))
    if failure is not None and outcome.passed:
        raise failure
    return 0 if outcome.passed else 1


@contextmanager
def _building(bundle: Any) -> Iterator[Any]:
    """Builds the bitstream in a process of its own; gives a function that waits for the result.

    However the block is left, the process has ended, and cleaned up, when it is.
    """
    if bundle is None:
        yield lambda: None
        return
    code = "import sys; from xnorforge.sw.cli import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "build", str(bundle.path), "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:

        def finish() -> Any:
            with steps("Building the bitstream"):
                output, errors = child.communicate()
            if child.returncode:
                lines = errors.strip().splitlines() or ["The build failed"]
                raise ToolError(lines[-1].removeprefix("Error: "))
            return json.loads(output)

        try:
            yield finish
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)


def _check(bundle: Any, images: Any, labels: Any, fault: Any) -> _Outcome:
    """Verify at each level, then run all images through the driver and the virtual board."""
    reports = []
    for level in ("reference", "rtl"):
        with steps(f"Verifying at level {level}") as say:
            reports.append(
                bundle.verify(level, images=images, labels=labels, fault=fault, progress=say)
            )
    with steps("Virtual board") as say:
        board = _run_board(bundle, images, labels, fault, say)
    description = None if fault is None else fault.description
    return _Outcome(bundle=bundle, reports=reports, board=board, fault=description)


def _run_board(bundle: Any, images: Any, labels: Any, fault: Any, say: Any) -> dict[str, Any]:
    """All images through the real driver, against the reference; times of core and link."""
    from xnorforge.sim.board import VirtualBoard
    from xnorforge.sim.compare import compare
    from xnorforge.sim.reference import Executor, Result
    from xnorforge.sw.driver import Accelerator

    expected = Executor(bundle.network).run(images)
    with VirtualBoard(bundle.path, progress=say) as board:
        say(f"{len(images)} images through the driver and {board.pty}")
        with Accelerator.open(bundle.path, board.pty, load="always") as accelerator:
            if fault is not None:
                accelerator.load_weights(fault.load(bundle.plan))
            got = Result(*accelerator.results(images))
            statistics = accelerator.statistics
    return {
        "comparison": compare(expected, got),
        "accuracy": float((got.labels == labels).mean()),
        "host_seconds": statistics.link_seconds,
        "core_seconds": statistics.core_seconds,
    }


def _link_rate(bundle: Any) -> float:
    """Images per second that the UART can carry, framing included."""
    from xnorforge.sw import protocol

    manifest = bundle.manifest
    payload = protocol.MAX_PAYLOAD_BYTES
    line = protocol.MAX_CONTENT_BYTES + 2  # COBS overhead and the delimiter
    down = manifest["input"]["image_bytes"] * line / payload
    up = protocol.record_bytes(manifest["output"]["classes"], manifest["output"]["score_bytes"])
    return manifest["link"]["baud"] / 10 / max(down, up * line / payload)


def _rows(outcome: _Outcome, images: int) -> list[tuple[str, str]]:
    manifest, report, board = outcome.bundle.manifest, outcome.reports[-1], outcome.board
    plan, predicted = outcome.bundle.plan, manifest["predicted"]
    rows = [
        ("Model", f"{manifest['name']}, {outcome.bundle.network.weight_bits:,} weight bits"),
        ("Board", f"{plan.board} ({plan.device}) at {plan.clock_hz / 1e6:g} MHz"),
    ]
    for level in outcome.reports:
        for name, comparison in level.comparisons.items():
            rows.append((f"{level.level}, {name}", str(comparison)))
    rows.append(("Driver and virtual board", str(board["comparison"])))
    if report.cycles is not None:
        rows.append(("Cycles", str(report.cycles)))
    rows += [
        ("Accuracy", f"{100 * board['accuracy']:.1f} % of {images} MNIST test images"),
        ("Core", f"{predicted['images_per_second']:,.0f} images/s"),
        ("Over the link", f"{_link_rate(outcome.bundle):,.0f} images/s at {plan.baud:,} baud"),
    ]
    used = predicted["resources"]
    rows.append(("Predicted", f"{used['cells']:,} cells, {used['blocks']} block RAMs"))
    if outcome.build is not None:
        build = outcome.build
        counts = ", ".join(
            f"{count:,} of {build['available'][name]:,} {name.replace('_', ' ')}"
            for name, count in build["used"].items()
            if count and name in build["available"]
        )
        rows += [
            ("Packed", counts),
            ("Fmax", f"{build['fmax_hz'] / 1e6:.1f} MHz, {build['clock_hz'] / 1e6:g} MHz needed"),
            ("Bitstream", build["bitstream"]),
        ]
    if outcome.fault is not None:
        rows.append(("Planted fault", outcome.fault))
    return [*rows, ("Bundle", str(outcome.bundle.path)), ("Time", f"{outcome.seconds:.0f} s")]


def _print(outcome: _Outcome, images: int) -> None:
    from rich.markup import escape

    rows = [(name, escape(value)) for name, value in _rows(outcome, images)]
    console().print(table("xnorforge demo", ("", ""), rows))
    click.secho(outcome.word, bold=True, fg="green" if outcome.passed else "red")


def _as_json(outcome: _Outcome) -> dict[str, Any]:
    comparison = outcome.board["comparison"]
    return {
        "word": outcome.word,
        "passed": outcome.passed,
        "bundle": str(outcome.bundle.path),
        "fault": outcome.fault,
        "verify": [report.to_json() for report in outcome.reports],
        "board": {**outcome.board, "comparison": str(comparison)},
        "link_images_per_second": _link_rate(outcome.bundle),
        "predicted": outcome.bundle.manifest["predicted"],
        "build": outcome.build,
        "seconds": outcome.seconds,
    }
