# SPDX-License-Identifier: BSD-2-Clause
"""What a build leaves on disk: its result, whole or not at all, and the key of its cache."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xnorforge.gen.boards import Board
from xnorforge.gen.build_cache import sha256
from xnorforge.gen.errors import ToolError

__all__ = [
    "BuildResult",
    "cache_key",
    "file_digests",
    "only_one",
    "read_result",
    "replace_result",
    "scratch",
    "work_folder",
]

# Part of the key: raise it when the steps of a build change.
_FLOW = 3


@dataclass(frozen=True)
class BuildResult:
    """A bitstream and what is known about it; `report.json` beside it holds the same.

    folder: holds the bitstream, report.json, the netlist, nextpnr's report and routed result,
        and the constraints. The logs are in the folder beside it whose name ends in "-logs".
    clock_hz: the PLL's output. constraint_hz: what nextpnr held timing against (equal but for
        its whole picoseconds). fmax_hz: what it reached, with `seed`.
    used, available: logic_cells, block_rams, dsps and, on iCE40, sprams after packing; `used` has
        flip_flops too.
    seeds: Fmax in Hz of every seed tried; failed: why, of those that place and route ended
        without a result for. seconds: what the tools took for each step and in "total", now or
        when a step that is `reused` was made.
    tools: versions. cached: True when nothing had to be made.
    """

    folder: Path
    bitstream: Path
    board: str
    device: str
    clock_hz: float
    constraint_hz: float
    fmax_hz: float
    seed: int
    used: dict[str, int]
    available: dict[str, int]
    seeds: dict[int, float]
    seconds: dict[str, float]
    tools: dict[str, str]
    cached: bool
    failed: dict[int, str] = field(default_factory=dict)
    reused: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        item = dataclasses.asdict(self)
        item["folder"], item["bitstream"] = str(self.folder), str(self.bitstream)
        return item


def cache_key(
    verilog_sha256: str, board: Board, clock_hz: float, tools: dict[str, str], texts: Any
) -> str:
    """Hash of all that the result depends on, but for the seeds.

    texts: what the tools are told, of `gen.build_flow.tool_texts`.
    """
    parts = [_FLOW, verilog_sha256, dataclasses.asdict(board), clock_hz, tools, texts]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_result(
    out: Path, key: str | None = None, asked: dict[str, Any] | None = None
) -> BuildResult | None:
    """What an earlier build left, if its files are unchanged and it is of this key and was made
    for these seeds (where given)."""
    path = out / "report.json"
    if not path.is_file():
        return None
    try:
        report = json.loads(path.read_text())
    except ValueError:
        return None
    if not isinstance(report, dict) or (key is not None and report.get("key") != key):
        return None
    if asked is not None and report.get("asked") != asked:
        return None
    found = file_digests(out)
    found.pop("report.json")
    if found != report.get("files"):
        return None
    (bitstream,) = [out / name for name in report["files"] if name.startswith("bitstream.")]
    fields = {field.name for field in dataclasses.fields(BuildResult)}
    values = {name: value for name, value in report.items() if name in fields}
    for name in ("seeds", "failed"):
        values[name] = {int(seed): value for seed, value in report.get(name, {}).items()}
    values["reused"] = tuple(report.get("reused", ()))
    return BuildResult(folder=out, bitstream=bitstream, cached=True, **values)


@contextlib.contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Holds a lock, which the kernel lets go of when we are killed."""
    with (out.parent / f".{out.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ToolError(f"{out} is being built already: wait for that build") from None
        yield


@contextlib.contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """A folder beside the result; what a killed build left is removed first."""
    for stale in out.parent.glob(f".{out.name}-*"):
        shutil.rmtree(stale)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    work.chmod(0o755)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@dataclass
class Scratch:
    """A folder for the time of a search; keep: leave it, for the logs in it."""

    folder: Path
    keep: bool = False


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[Scratch]:
    """A folder for a search; it stays where an error names a log in it."""
    space = Scratch(Path(tempfile.mkdtemp(prefix=prefix)))
    try:
        yield space
    except ToolError:
        space.keep = True
        raise
    finally:
        if not space.keep:
            shutil.rmtree(space.folder, ignore_errors=True)


def replace_result(work: Path, out: Path) -> None:
    """Rename `work` to `out`; an older result is moved aside first."""
    if out.exists():
        os.rename(out, out.with_name(f".{out.name}-old"))
    os.rename(work, out)
    shutil.rmtree(out.with_name(f".{out.name}-old"), ignore_errors=True)


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, by name."""
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
