# SPDX-License-Identifier: BSD-2-Clause
"""Runs a core's Verilog on images under Verilator and cocotb: what came out, and when."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from xnorforge.gen.network import Network
from xnorforge.gen.tools import Progress
from xnorforge.sim.cocotb_job import run_job
from xnorforge.sim.reference import Result
from xnorforge.sim.verilator import build_cocotb, power_up_options

__all__ = ["CorePass", "CoreRun", "image_stream", "run_core"]

_PORTS = ("clk", "rst", "image_*", "result_*", "config_*", "register_*", "flush")
_MAX_PERIOD = 64  # frames after which a steady pattern of intervals must have come round


@dataclass(frozen=True)
class CorePass:
    """Images `first` to `first + count` under one pattern of stalls.

    idle, stall: share of cycles in which the source offers nothing, the sink takes nothing.
    load: a weight load sent before it; without one the core runs on what it holds.
    """

    name: str
    first: int
    count: int
    idle: float = 0.0
    stall: float = 0.0
    seed: int = 0
    load: bytes | None = None


@dataclass(frozen=True)
class CoreRun:
    """What one pass gave.

    result: the images whose results came whole and in order, from the first on; more than were
        sent if the core gave too many. stuck: it stopped giving results.
    first_output_cycles: first image beat taken -> first result beat given.
    interval_cycles: steady cycles per image, None when too few images came for a steady state.
    cycles: of the whole pass.
    """

    result: Result
    stuck: bool
    first_output_cycles: int | None
    interval_cycles: Fraction | None
    cycles: int


def image_stream(network: Network, lanes: int, images: np.ndarray) -> np.ndarray:
    """Images -> beats uint8 (N, beats, bytes a beat), element k in beat k // lanes, lane
    k % lanes, lane 0 and bit 0 first."""
    values = network.input.quantise(images)
    bits = network.input.value.bits
    beats = -(-values.shape[1] // lanes)
    padded = np.zeros((len(values), beats * lanes), np.int64)
    padded[:, : values.shape[1]] = values
    planes = (padded[..., None] >> np.arange(bits)) & 1
    flat = planes.astype(np.uint8).reshape(len(values), beats, lanes * bits)
    return np.packbits(flat, axis=2, bitorder="little")


def run_core(
    sources: Sequence[Path],
    network: Network,
    lanes: int,
    images: np.ndarray,
    passes: list[CorePass],
    *,
    timeout_cycles: int = 100_000,
    options: Sequence[str] = (),
    seed: int | None = None,
    turns: int = 1,
    progress: Progress | None = None,
) -> dict[str, CoreRun]:
    """Stream images through module `xnorforge_core` of Verilog files, pass after pass.

    timeout_cycles: without a transfer for so long, the core is stuck; later passes are left out.
    options: more of Verilator's. seed: what is not initialised powers up at random; without it,
    as 0. turns: of shared memories; the pace repeats after as many images at the latest.
    Raises ToolError when the simulation does not build or run.
    """
    model = build_cocotb(sources, "xnorforge_core", _PORTS, options=options, progress=progress)
    beats = image_stream(network, lanes, images)
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as temporary:
        folder = Path(temporary)
        job = {
            "classes": network.classes,
            "beats": beats.shape[1],
            "timeout_cycles": timeout_cycles,
            "passes": [
                {key: value for key, value in vars(item).items() if key != "load"}
                for item in passes
            ],
        }
        (folder / "job.json").write_text(json.dumps(job))
        np.save(folder / "beats.npy", beats)
        for item in passes:
            if item.load is not None:
                (folder / f"{item.name}.load").write_bytes(item.load)
        _simulate(model, folder, power_up_options(seed), progress)
        found = {}
        for item in passes:
            path = folder / f"{item.name}.npz"
            if path.exists():  # a pass after a stuck one was not made
                with np.load(path) as arrays:
                    found[item.name] = _read(dict(arrays), network.classes, turns)
        return found


def _simulate(model: Path, folder: Path, options: Sequence[str], progress: Progress | None) -> None:
    mark = folder / "progress"

    def report() -> None:
        if progress is not None and mark.exists():
            name, done, wanted = mark.read_text().split()
            progress(f"simulating the core, {name}: {100 * int(done) // int(wanted)} %")

    bench = "xnorforge.sim.cocotb_core"
    run_job(model, folder, top="xnorforge_core", bench=bench, options=options, poll=report)


def _read(arrays: dict[str, np.ndarray], classes: int, turns: int) -> CoreRun:
    scores, lasts, labels = arrays["scores"], arrays["lasts"], arrays["labels"]
    whole = len(scores) // classes
    framed = lasts[: whole * classes].reshape(whole, classes)
    right = (framed == (np.arange(classes) == classes - 1)).all(axis=1)
    count = whole if right.all() else int(right.argmin())
    result = Result(
        scores[: count * classes].reshape(count, classes),
        labels[: count * classes].reshape(count, classes)[:, -1],
    )
    image_cycles, label_cycles = arrays["image_cycles"], arrays["label_cycles"]
    first = None
    if len(image_cycles) and int(arrays["first_cycle"]) >= 0:
        first = int(arrays["first_cycle"]) - int(image_cycles[0])
    last = int(label_cycles[-1]) if len(label_cycles) else 0
    return CoreRun(result, bool(arrays["stuck"]), first, _steady(label_cycles, turns), last)


def _steady(cycles: np.ndarray, turns: int = 1) -> Fraction | None:
    """Cycles per image once their intervals repeat: over the shortest period that the last
    intervals, at least a third of them all, come in.

    turns: a layer that takes its turn in one cycle of n gives equal intervals and then a longer
    one, in a pattern of up to n images, so no shorter period counts.
    """
    gaps = np.diff(cycles)
    for period in range(turns, min(_MAX_PERIOD, len(gaps) // 3) + 1):
        tail = gaps[-max(2 * period, len(gaps) // 3) :]
        if np.array_equal(tail[period:], tail[:-period]):
            return Fraction(int(tail[:period].sum()), period)
    return None
