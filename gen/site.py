# SPDX-License-Identifier: BSD-2-Clause
"""Where a design goes: a board and the clock that its PLL makes, or a bare device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from xnorforge.gen.boards import Board, get_board
from xnorforge.gen.cards import CARDS, PcieCard, get_card
from xnorforge.gen.devices import Device, get_device
from xnorforge.gen.errors import PlanError
from xnorforge.hw.store import SPRAM_SHAPE
from xnorforge.sw import protocol

__all__ = ["Site"]


@dataclass(frozen=True)
class Site:
    """Where the design goes."""

    board: Board | None
    device: Device
    clock_hz: float
    card: PcieCard | None = None

    @classmethod
    def choose(
        cls,
        board: str | None,
        device: str | None,
        clock_hz: float | None,
        pins: Mapping[str, str] | None = None,
    ) -> Site:
        if board is not None and device is not None:
            raise PlanError("Name either a board or a device, not both")
        if board is None:
            if device is None:
                raise PlanError("Name either a board or a device, e.g. board icebreaker")
            if pins:
                raise PlanError(f"Pins go with a board, not with bare device {device}")
            found = get_device(device)
            return cls(None, found, clock_hz or found.clock_hz)
        if board in CARDS:
            raise PlanError(f"Board {board} has no UART: its links are pcie and axi")
        known = get_board(board).with_pins(pins or {})
        known.check_uart()
        return cls(known, known.device, known.pll_config(clock_hz).output_hz)

    @classmethod
    def within(cls, board: str | None, device: str | None, clock_hz: float | None) -> Site:
        """For a part of somebody else's design: the device of a board, without its pins or PLL."""
        if board is None or device is not None:
            return cls.choose(board, device, clock_hz)
        if board in CARDS:
            card = CARDS[board]
            return cls(None, card.device, clock_hz or card.device.clock_hz)
        known = get_board(board)
        return cls(None, known.device, clock_hz or known.pll_config(None).output_hz)

    @classmethod
    def on_card(cls, board: str | None, device: str | None, clock_hz: float | None) -> Site:
        """Behind the PCIe edge of a board."""
        if device is not None:
            raise PlanError(
                f"Link pcie needs a board, whose pins lead to a PCIe edge: {', '.join(CARDS)}; not "
                f"device {device}"
            )
        if board is not None and board not in CARDS:
            get_board(board)  # raises where there is none of the name
            raise PlanError(f"Board {board} has no PCIe: link pcie is for {', '.join(CARDS)}")
        card = get_card(board or "")
        return cls(None, card.device, card.core_hz(clock_hz), card)

    @property
    def takes_patches(self) -> bool:
        """Whether words in its bitstreams can be replaced."""
        return self.board is not None and bool(self.device.family.patcher)

    @property
    def baud(self) -> int:
        """Rate of the link when none is asked for."""
        return protocol.DEFAULT_BAUD if self.board is None else self.board.baud

    @property
    def name(self) -> str:
        """The board's name, or the device's."""
        if self.card is not None:
            return self.card.name
        return self.device.name if self.board is None else self.board.name

    @property
    def most_bits(self) -> int:
        """More weight bits than any design here can hold."""
        device = self.device
        blocks = device.block_rams * device.family.block_ram_bits
        sprams = device.spram_blocks * SPRAM_SHAPE[0] * SPRAM_SHAPE[1]
        return blocks + sprams + 16 * device.luts
