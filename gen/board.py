# SPDX-License-Identifier: BSD-2-Clause
"""One board: its device, clock, pins and how a bitstream gets onto it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xnorforge.gen.devices import Device, get_device
from xnorforge.gen.errors import PlanError, SiteError
from xnorforge.hw.pll_config import PllConfig, PllError

__all__ = ["MAX_HZ", "PORTS", "SITE", "Board", "Pin", "baud_divisor", "read_pins"]

PORTS = ("clk_in", "rx", "tx", "led")
"""Ports of `top`. `rx` and `tx` may be left to the user, a `led` to the board that has one."""

MAX_HZ = 1_000_000_000
"""No clock and no baud rate is faster."""

SITE = re.compile(r"[A-Za-z0-9_]+")
"""What a package's name of a pin is made of."""

_DIVISOR_LIMITS = (4, 65535)
_BAUD_ERROR = 0.01


@dataclass(frozen=True)
class Pin:
    """site: the package's name of the pin. options: in the words of the family's constraint
    file, e.g. "-pullup yes" (iCE40), "IO_TYPE=LVCMOS33" (ECP5 and Gowin)."""

    site: str
    options: str = ""


@dataclass(frozen=True)
class Board:
    """One board.

    oscillator_hz: clock at `clk_in`. pll: primitive, see `hw.pll`. clock_hz: core clock when
    none is asked for. uart: where rx and tx lead, for people. loader: arguments of openFPGALoader
    before the file; where it does not know the board this is empty and programmer the command
    that does it, with {} for the file. pin_options: for pins that the user names and the board
    does not. pins: by port. bridge_baud: the fastest rate of what rx and tx lead to; MAX_HZ where
    that is not known.
    """

    name: str
    title: str
    device: Device
    package: str
    speed: str
    oscillator_hz: int
    pll: str
    clock_hz: int
    baud: int
    uart: str
    loader: tuple[str, ...]
    programmer: str
    led_active_low: bool
    pin_options: str
    pins: dict[str, Pin]
    bridge_baud: int = MAX_HZ

    def pll_config(self, clock_hz: float | None = None) -> PllConfig:
        """The PLL setting nearest to a clock (the board's own by default).

        Raises PlanError when the PLL cannot go there.
        """
        try:
            return PllConfig.nearest(
                self.pll,
                self.oscillator_hz,
                clock_hz or self.clock_hz,
                part=self.device.pll_part,
            )
        except PllError as error:
            raise SiteError("Board ", self.name, f": {error}; choose another clock") from error

    def with_pins(self, sites: Mapping[str, str]) -> Board:
        """The board with some ports on other sites of the package.

        Raises PlanError for a port or site that cannot be; whether the package has a site is
        only known to place and route.
        """
        pins = dict(self.pins)
        for port, site in sites.items():
            if port not in PORTS:
                raise PlanError(f"Pins are those of {', '.join(PORTS)}, not of {port!r}")
            if not SITE.fullmatch(site):
                raise PlanError(f"Pin {port} must be a pin of the package, not {site!r}")
            options = pins[port].options if port in pins else self.pin_options
            pins[port] = Pin(site, options)
        board = dataclasses.replace(self, pins=pins)
        if "rx" in sites or "tx" in sites:
            board = dataclasses.replace(board, bridge_baud=MAX_HZ)  # they lead elsewhere
        twins = board.shared_site()
        if twins:
            raise PlanError(
                f"Board {self.name}: {twins[0]} and {twins[1]} cannot both be on pin "
                f"{pins[twins[0]].site}"
            )
        return board

    def shared_site(self) -> tuple[str, str] | None:
        """Two ports on one site, where there are such."""
        ports = list(self.pins)
        for index, port in enumerate(ports):
            for other in ports[index + 1 :]:
                if self.pins[port].site.upper() == self.pins[other].site.upper():
                    return port, other
        return None

    def check_uart(self) -> None:
        """Raises PlanError unless rx and tx have pins."""
        missing = [port for port in ("rx", "tx") if port not in self.pins]
        if missing:
            wanted = ",".join(f"{port}=PIN" for port in missing)
            raise SiteError(
                "Board ",
                self.name,
                f" has no UART of its own: say which pins lead to one, like --pins {wanted}",
            )

    def check_baud(self, baud: int, clock_hz: float) -> None:
        """Raises PlanError for a rate that the clock does not divide to, or the bridge is too slow
        for."""
        baud_divisor(clock_hz, baud)
        if baud > self.bridge_baud:
            raise PlanError(
                f"Board {self.name}: its USB bridge does at most {self.bridge_baud:,} baud, not "
                f"{baud:,}"
            )

    def to_json(self) -> dict[str, Any]:
        """All of it in plain values, for a manifest."""
        item = dataclasses.asdict(dataclasses.replace(self, loader=()))
        item["device"] = self.device.name
        item["loader"] = list(self.loader)
        return item

    @classmethod
    def from_json(cls, item: Mapping[str, Any]) -> Board:
        """Inverse of `to_json`. Raises PlanError where the device is none that is known here."""
        fields = {field.name for field in dataclasses.fields(cls)}
        kept = {name: value for name, value in item.items() if name in fields}
        kept["device"] = get_device(item["device"])
        kept["loader"] = tuple(item["loader"])
        kept["pins"] = {
            port: Pin(pin["site"], pin.get("options", "")) for port, pin in item["pins"].items()
        }
        return cls(**kept)


def read_pins(text: str) -> dict[str, str]:
    """Sites by port from words like "rx=B2,tx=B3". Raises PlanError."""
    sites: dict[str, str] = {}
    for word in text.split(","):
        port, equals, site = (part.strip() for part in word.partition("="))
        if not equals or not site:
            raise PlanError(f"Pins must be given like rx=B2,tx=B3, not {text!r}")
        if port in sites:
            raise PlanError(f"Pin {port} is given twice in {text!r}")
        sites[port] = site
    return sites


def baud_divisor(clock_hz: float, baud: int) -> int:
    """Clock cycles per bit of a UART. Raises PlanError where the rate would be off by over 1 %."""
    if baud <= 0:
        raise PlanError(f"Baud rate must be positive, not {baud}")
    divisor = round(clock_hz / baud)
    low, high = _DIVISOR_LIMITS
    if not low <= divisor <= high:
        raise PlanError(
            f"Baud rate {baud} at a {clock_hz / 1e6:g} MHz clock takes {divisor} cycles a bit, "
            f"but {low} to {high} are possible; choose a rate from "
            f"{-(-clock_hz // high):.0f} to {clock_hz // low:.0f}"
        )
    error = abs(clock_hz / divisor / baud - 1)
    if error > _BAUD_ERROR:
        raise PlanError(
            f"Baud rate {baud} at a {clock_hz / 1e6:g} MHz clock would be off by {error:.1%} "
            f"(limit 1 %); the nearest possible rate is {clock_hz / divisor:.0f}"
        )
    return divisor
