# SPDX-License-Identifier: BSD-2-Clause
"""Boards as data: one TOML file each in `data/boards`, named as the board is called.

The pins are copied into these files (a test holds them against amaranth-boards). A board of one's
own is a file of the same kind. Either way the board's content goes into the bundle, so that a
bundle of today builds the same whatever is installed tomorrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from xnorforge.gen.board import MAX_HZ, PORTS, Board, Pin, baud_divisor, read_pins
from xnorforge.gen.board_file import load_board
from xnorforge.gen.errors import PlanError
from xnorforge.gen.plan import Plan

__all__ = [
    "BOARDS",
    "MAX_HZ",
    "PORTS",
    "Board",
    "Pin",
    "baud_divisor",
    "get_board",
    "load_board",
    "plan_board",
    "read_pins",
]


class _Boards(Mapping[str, Board]):
    """The boards of a folder by name, each read when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._boards: dict[str, Board] = {}

    def __getitem__(self, name: str) -> Board:
        if name not in self._boards:
            if name not in self._names():
                raise KeyError(name)
            self._boards[name] = load_board(self._folder / f"{name}.toml")
        return self._boards[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.toml"))


BOARDS: Mapping[str, Board] = _Boards(Path(__file__).with_name("data") / "boards")
"""All boards, by name."""


def get_board(name: str) -> Board:
    """The board of this name, or of this file where it ends in .toml.

    Raises PlanError, with the names there are, or with file, line and field.
    """
    if name.endswith(".toml"):
        return load_board(Path(name))
    if name not in BOARDS:
        raise PlanError(
            f"Board must be one of {', '.join(BOARDS)}, or a file that ends in .toml, not {name!r}"
        )
    return BOARDS[name]


def plan_board(plan: Plan) -> Board:
    """The board that a plan was made for, as it was then. Raises PlanError for a bare device."""
    if plan.board is None:
        raise PlanError(f"The plan is for bare device {plan.device}, which has no pins")
    if plan.board_record is None:
        return get_board(plan.board)
    return Board.from_json(plan.board_record)
