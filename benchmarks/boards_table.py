# SPDX-License-Identifier: BSD-2-Clause
"""The table of boards in docs/boards.md, from the board files.

python benchmarks/boards_table.py     writes it there, between its two markers
"""

from __future__ import annotations

from pathlib import Path

from xnorforge.gen.boards import BOARDS, Board

DOCUMENT = Path(__file__).parents[1] / "docs" / "boards.md"
BEGIN, END = "<!-- boards: begin -->\n", "<!-- boards: end -->\n"


def table() -> str:
    """All boards as Markdown, by family and size."""
    lines = [
        "| board | device, package | LUT4 | memory, kbit | oscillator | core clock | PLL | UART |",
        "|---|---|---|---|---|---|---|---|",
    ]
    order = {"ice40": 0, "ecp5": 1, "gowin": 2}
    boards = sorted(
        BOARDS.values(),
        key=lambda board: (order[board.device.family.name], board.device.luts, board.name),
    )
    return "\n".join([*lines, *map(_row, boards)]) + "\n"


def _row(board: Board) -> str:
    device = board.device
    memory = f"{device.block_rams * device.family.block_ram_bits // 1024:,}"
    if device.spram_blocks:
        memory += f" + {device.spram_blocks * 256:,}"
    package = " ".join(filter(None, (board.package, board.speed)))
    return (
        f"| `{board.name}` | `{device.name}`, {package} | {device.luts:,} | {memory} | "
        f"{board.oscillator_hz / 1e6:g} MHz | {board.pll_config().output_hz / 1e6:g} MHz | "
        f"{board.pll} | {board.uart} |"
    )


def with_table(text: str) -> str:
    """The document with the table as it must be now."""
    head, rest = text.split(BEGIN)
    return head + BEGIN + table() + END + rest.split(END)[1]


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
