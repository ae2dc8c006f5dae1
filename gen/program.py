# SPDX-License-Identifier: BSD-2-Clause
"""Loads a bundle's bitstream onto its board through openFPGALoader."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from xnorforge.gen.boards import plan_board
from xnorforge.gen.build_result import read_result
from xnorforge.gen.bundle import Bundle
from xnorforge.gen.errors import BundleError, ToolError
from xnorforge.gen.tools import Progress, run_tool

__all__ = ["ProgramResult", "program", "program_command"]

_TOOL = "openFPGALoader"


@dataclass(frozen=True)
class ProgramResult:
    """command: what a user can type. done: it ran and the board took the bitstream.
    reason: why not, e.g. that no board is attached ("" when done)."""

    command: str
    done: bool
    reason: str


def program_command(bundle: Bundle) -> list[str]:
    """The whole command. Raises BundleError where no bitstream of the bundle is."""
    folder = bundle.results / "build"
    result = read_result(folder)
    if result is None or bundle.plan.board != result.board:
        raise BundleError(f"{bundle.path} has no finished bitstream: build it first")
    if (folder / "accelerator.v").read_bytes() != (bundle.path / "accelerator.v").read_bytes():
        raise BundleError(f"{result.bitstream} is of another accelerator.v: build it again")
    board, bitstream = plan_board(bundle.plan), str(result.bitstream.resolve())
    if board.loader:
        return [_TOOL, *board.loader, bitstream]
    return [word.replace("{}", bitstream) for word in shlex.split(board.programmer)]


def program(bundle: Bundle | str | Path, *, progress: Progress | None = None) -> ProgramResult:
    """Load a built bundle onto its board.

    A missing tool or board is no exception: the result then holds the command and the reason.
    Raises BundleError where there is no bitstream.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    words = program_command(bundle)
    command = shlex.join(words)
    if words[:1] != [_TOOL]:
        how = "its own tool does" if words else "its board file names no other tool"
        return ProgramResult(command, False, f"{_TOOL} does not know {bundle.plan.board}: {how}")
    log = bundle.results / "program.log"
    log.unlink(missing_ok=True)
    try:
        run_tool(
            _TOOL,
            words[1:],
            cwd=bundle.results,
            log=log,
            progress=progress,
            label=f"programming {bundle.plan.board}",
        )
    except ToolError as error:
        text = log.read_text(errors="replace") if log.is_file() else ""
        if "device not found" in text:
            return ProgramResult(command, False, f"No {bundle.plan.board} is attached")
        return ProgramResult(command, False, str(error))
    return ProgramResult(command, True, "")
