# SPDX-License-Identifier: BSD-2-Clause
"""Boards with a PCIe edge, whose bitstreams Vivado makes.

Pins, parts and lanes are those of amaranth-boards (tested against it) and, for the UltraScale+
board, of litex-boards.
"""

from __future__ import annotations

from dataclasses import dataclass

from xnorforge.gen.devices import Device, get_device
from xnorforge.gen.errors import PlanError
from xnorforge.gen.litepcie import LitePcieConfig
from xnorforge.gen.mmcm import Mmcm

__all__ = ["CARDS", "PcieCard", "get_card"]


@dataclass(frozen=True)
class PcieCard:
    """One board.

    part: as Vivado names it. phy, lanes: as of `LitePcieConfig`. pins: by port of `top`, a site a
    lane. standard: of `pcie_rst_n`, and of `clkreq_n` where there is one. settings: further lines
    for the constraint file.
    """

    name: str
    title: str
    device: Device
    part: str
    phy: str
    lanes: int
    pins: dict[str, str]
    standard: str
    settings: tuple[str, ...] = ()

    @property
    def pcie(self) -> LitePcieConfig:
        """What LitePCIe is asked for."""
        return LitePcieConfig(self.phy, self.part, self.lanes)

    def mmcm(self, clock_hz: float | None = None) -> Mmcm:
        """The setting nearest to a core clock (the device's own by default).

        Raises PlanError where the MMCM cannot go there.
        """
        try:
            return Mmcm.nearest(self.phy, self.pcie.clock_hz, clock_hz or self.device.clock_hz)
        except PlanError as error:
            raise PlanError(f"Board {self.name}: {error}; choose another clock") from error

    def core_hz(self, clock_hz: float | None = None) -> float:
        """What the MMCM makes of a core clock that is asked for."""
        return self.mmcm(clock_hz).output_hz(self.pcie.clock_hz)


_SPI = (
    "set_property BITSTREAM.CONFIG.SPI_BUSWIDTH 4 [current_design]",
    "set_property BITSTREAM.GENERAL.COMPRESS TRUE [current_design]",
)
_FURY_PINS = {
    "clkreq_n": "G1",
    "pcie_rst_n": "J1",
    "pcie_clk_p": "F6",
    "pcie_clk_n": "E6",
    "pcie_rx_p": "B10 B8 D11 D9",
    "pcie_rx_n": "A10 A8 C11 C9",
    "pcie_tx_p": "B6 B4 D5 D7",
    "pcie_tx_n": "A6 A4 C5 C7",
}
_FURY_SETTINGS = (
    *_SPI,
    "set_property BITSTREAM.CONFIG.CONFIGRATE 16 [current_design]",
    "set_property CFGBVS VCCO [current_design]",
    "set_property CONFIG_VOLTAGE 3.3 [current_design]",
)

_ALL = (
    PcieCard(
        name="litefury",
        title="RHS Research LiteFury",
        device=get_device("xc7a100t"),
        part="xc7a100tfgg484-2",
        phy="S7PCIEPHY",
        lanes=4,
        pins=_FURY_PINS,
        standard="LVCMOS33",
        settings=_FURY_SETTINGS,
    ),
    PcieCard(
        name="nitefury-ii",
        title="RHS Research NiteFury II",
        device=get_device("xc7a200t"),
        part="xc7a200tfbg484-2",
        phy="S7PCIEPHY",
        lanes=4,
        pins=_FURY_PINS,
        standard="LVCMOS33",
        settings=_FURY_SETTINGS,
    ),
    PcieCard(
        name="xcu1525",
        title="SQRL XCU1525",
        device=get_device("xcvu9p"),
        part="xcvu9p-fsgd2104-2l-e",
        phy="USPPCIEPHY",
        lanes=4,
        pins={
            "pcie_rst_n": "BD21",
            "pcie_clk_p": "AM11",
            "pcie_clk_n": "AM10",
            "pcie_rx_p": "AF2 AG4 AH2 AJ4",
            "pcie_rx_n": "AF1 AG3 AH1 AJ3",
            "pcie_tx_p": "AF7 AG9 AH7 AJ9",
            "pcie_tx_n": "AF6 AG8 AH6 AJ8",
        },
        standard="LVCMOS12",
        settings=_SPI,
    ),
)

CARDS: dict[str, PcieCard] = {card.name: card for card in _ALL}
"""All of them, by name."""


def get_card(name: str) -> PcieCard:
    """The card of this name. Raises PlanError, with the names there are."""
    if name not in CARDS:
        raise PlanError(f"Link pcie is for boards {', '.join(CARDS)}, not for {name!r}")
    return CARDS[name]
