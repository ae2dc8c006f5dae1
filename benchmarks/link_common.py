# SPDX-License-Identifier: BSD-2-Clause
"""What the benchmarks of the link share: their bundles, and results kept line by line."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import xnorforge.gen
import xnorforge.sim
from xnorforge.gen.bundle import Bundle, compile_bundle
from xnorforge.gen.network import Network
from xnorforge.gen.planner import make_plan
from xnorforge.sim.fuzz import sources_digest
from xnorforge.sim.random_networks import dense_network
from xnorforge.sw.shipped import shipped_model

__all__ = ["PAGE", "RESULTS", "WORK", "Record", "make_bundle", "make_network", "tested_digest"]

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "link.md"
WORK = HERE.parent / "build" / "bench" / "link"
_SIM = Path(xnorforge.sim.__file__).parent


def make_network(name: str) -> Network:
    """tiny: 24-byte images, 10 classes. grey: 784 pixels of 8 bits. tfc, sfc: the shipped ones."""
    rng = np.random.default_rng(0)
    if name == "tiny":
        return dense_network(rng, [192, 32, 10])
    if name == "grey":
        return dense_network(rng, [784, 32, 10], "uint", 8)
    return xnorforge.gen.load(shipped_model(f"mnist-{name}"))


def make_bundle(
    network: Network,
    path: Path,
    *,
    fps: float,
    baud: int,
    board: str = "icebreaker",
    slots: int = 1,
) -> Bundle:
    """A bundle of a core of so many images a second at the board's own clock.

    One that is there stays untouched if it is the same: a run may be using it.
    """
    plan = make_plan(network, board=board, fps=fps, baud=baud, slots=slots)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = compile_bundle(network, plan, Path(folder) / path.name)
        if not path.exists() or Bundle.open(path).manifest != made.manifest:
            shutil.rmtree(path, ignore_errors=True)
            made.path.rename(path)
    return Bundle.open(path)


def tested_digest(bundles: Iterable[Bundle], *files: Path) -> str:
    """What results hold for: the circuits, the driver, the simulated line, and these files."""
    sha = hashlib.sha256(sources_digest("xnorforge.sw.driver").encode())
    beside = [_SIM / name for name in ("lockstep.py", "line_faults.py", "board_main.cpp")]
    for path in (*(bundle.path / "accelerator.v" for bundle in bundles), *beside, *files):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


class Record:
    """Results by key in a file, a line each, as they come; another digest's do not count."""

    def __init__(self, path: Path, digest: str) -> None:
        self._path, self._digest = path, digest
        self.items: dict[str, Any] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            for line in path.read_text().splitlines():
                item = json.loads(line)
                if item["digest"] == digest:
                    self.items[item["key"]] = item["result"]

    def add(self, key: str, result: Any) -> None:
        self.items[key] = result
        with self._path.open("a") as file:
            line = {"key": key, "digest": self._digest, "result": result}
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
