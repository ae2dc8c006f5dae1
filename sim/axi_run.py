# SPDX-License-Identifier: BSD-2-Clause
"""Runs a core with AXI ports under Verilator, cocotb and cocotbext-axi's masters."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from xnorforge.gen.axi import AXI
from xnorforge.gen.bundle import input_record
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.gen.tools import Progress
from xnorforge.sim.cocotb_job import run_job
from xnorforge.sim.reference import Result
from xnorforge.sim.verilator import build_cocotb, power_up_options
from xnorforge.sw.manifest import ImageContract
from xnorforge.sw.protocol import WORD_BITS, WORD_SPOILT

__all__ = ["PORTS", "Packets", "Step", "bus_images", "run_axi"]

PORTS = ("aclk", "aresetn", "core_clk", "s_axi_*", "s_axis_*", "m_axis_*")


@dataclass(frozen=True)
class Step:
    """Something that the bench does.

    kind: "images" (`count` from `first` on, for the model in `slot`), "load" (`data`, hex, into
    `slot`), "registers" (read `addresses`), "writes" (`words`: address and word). after: cycles
    after which images are cut off by `end`, "reset" or "flush". idle, stall: share of cycles in
    which the bench gives nothing, takes nothing, on each channel of its own.
    """

    kind: str
    first: int = 0
    count: int = 0
    slot: int = 0
    data: str = ""
    after: int | None = None
    end: str = "reset"
    addresses: tuple[int, ...] = ()
    words: tuple[tuple[int, int], ...] = ()
    idle: float = 0.0
    stall: float = 0.0


@dataclass(frozen=True)
class Packets:
    """What a step gave. result: of the packets that were not spoilt, in order. spoilt: how many
    were. answers: (word, response code) of registers read. codes: of writes. stuck: fewer packets
    than images came."""

    result: Result
    spoilt: int = 0
    answers: list[tuple[int, int]] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    stuck: bool = False


def bus_images(network: Network, beat_bytes: int, images: np.ndarray) -> np.ndarray:
    """Images -> bytes on the bus, uint8 (N, whole beats); past an image's end they are 255."""
    packed = ImageContract.from_json(input_record(network)).pack(images)
    size = -(-network.input.image_bytes // beat_bytes) * beat_bytes
    return np.stack([np.frombuffer(image.ljust(size, b"\xff"), np.uint8) for image in packed])


def run_axi(
    sources: Sequence[Path],
    network: Network,
    plan: Plan,
    images: np.ndarray,
    steps: Sequence[Step],
    *,
    periods: tuple[int, int] = (1000, 1000),
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Packets]:
    """Do steps one after the other with module `xnorforge_axi` of Verilog files.

    periods: simulation steps of a cycle of the bus, and of the core where its clock is its own.
    Raises ToolError when the simulation does not build or run, or a packet has another length.
    """
    model = build_cocotb(sources, AXI, PORTS, progress=progress)
    with tempfile.TemporaryDirectory(prefix="xnorforge-") as temporary:
        folder = Path(temporary)
        job = {
            "bus_period": periods[0],
            "core_period": None if plan.bus_clock_hz is None else periods[1],
            "seed": seed,
            "steps": [asdict(step) for step in steps],
        }
        (folder / "job.json").write_text(json.dumps(job))
        np.save(folder / "images.npy", bus_images(network, plan.beat_bytes, images))
        run_job(
            model,
            folder,
            top=AXI,
            bench="xnorforge.sim.cocotb_axi",
            options=power_up_options(1 + seed),
        )
        found = json.loads((folder / "found.json").read_text())
    return [_read(item, network.classes) for item in found]


def _read(item: dict, classes: int) -> Packets:
    scores, labels, spoilt = [], [], 0
    for packet in item.get("packets", ()):
        *given, last = packet["words"]
        if packet["user"]:
            assert last & WORD_SPOILT and len(given) <= classes, packet
            spoilt += 1
            continue
        assert len(given) == classes and not last & WORD_SPOILT, packet
        scores.append([word - (word >> (WORD_BITS - 1) << WORD_BITS) for word in given])
        labels.append(last)
    return Packets(
        Result(np.array(scores, np.int64).reshape(-1, classes), np.array(labels, np.int64)),
        spoilt,
        [tuple(answer) for answer in item.get("answers", ())],
        item.get("codes", []),
        item.get("stuck", False),
    )
