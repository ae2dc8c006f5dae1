# SPDX-License-Identifier: BSD-2-Clause
"""Boards as data: one TOML file each in `data/boards`, named as the board is called.

The pins are copied into these files (a test holds them against amaranth-boards), so that a
bundle of today builds the same whatever version of that package is installed tomorrow.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnorforge.gen.devices import DEVICES, Device
from xnorforge.gen.errors import PlanError
from xnorforge.hw.pll import PLL_KINDS, PllConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["BOARDS", "PORTS", "Board", "Pin", "baud_divisor", "get_board", "load_board"]

PORTS = ("clk_in", "rx", "tx", "led")
"""Ports of `top`; every board gives each of them a pin."""

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
    none is asked for. loader: arguments of openFPGALoader before the file.
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
    loader: tuple[str, ...]
    led_active_low: bool
    pins: dict[str, Pin]

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
        except ValueError as error:
            raise PlanError(f"Board {self.name}: {error}; choose another clock") from error


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


_KINDS: dict[str, tuple[type, str]] = {
    "title": (str, "a string"),
    "device": (str, "a string"),
    "package": (str, "a string"),
    "speed": (str, "a string"),
    "oscillator_hz": (int, "an integer"),
    "pll": (str, "a string"),
    "clock_hz": (int, "an integer"),
    "baud": (int, "an integer"),
    "loader": (list, "a list of strings"),
    "led_active_low": (bool, "true or false"),
    "pins": (dict, "a table of pins"),
}
_OPTIONAL = {"speed": "", "led_active_low": False}


def load_board(path: Path) -> Board:
    """Read a board from its file. Raises PlanError naming file, line and field."""
    try:
        text = path.read_text()
        item = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"Board file {path.name} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"Board file {path.name} is not TOML: {error}") from error

    def wrong(field: str, why: str) -> PlanError:
        where = _line_of(text, field)
        place = f" line {where}" if where else ""
        return PlanError(f"Board file {path.name}{place}: field {field!r} {why}")

    for field in item:
        if field not in _KINDS:
            raise wrong(field, f"is unknown; fields are {', '.join(_KINDS)}")
    item = {**_OPTIONAL, **item}
    for field, (kind, words) in _KINDS.items():
        if field not in item:
            raise wrong(field, f"is missing; it must be {words}")
        value = item[field]
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise wrong(field, f"must be {words}, not {value!r}")
        if isinstance(value, int) and kind is int and value <= 0:
            raise wrong(field, f"must be positive, not {value}")
    if item["device"] not in DEVICES:
        raise wrong("device", f"must be one of {', '.join(DEVICES)}, not {item['device']!r}")
    if item["pll"] not in PLL_KINDS:
        raise wrong("pll", f"must be one of {', '.join(PLL_KINDS)}, not {item['pll']!r}")
    if not all(isinstance(word, str) for word in item["loader"]):
        raise wrong("loader", f"must be a list of strings, not {item['loader']!r}")
    pins = {}
    for port in PORTS:
        if port not in item["pins"]:
            raise wrong(f"pins.{port}", 'is missing; it must be like { site = "35" }')
    for port, pin in item["pins"].items():
        if port not in PORTS:
            raise wrong(f"pins.{port}", f"is unknown; pins are {', '.join(PORTS)}")
        pins[port] = _pin(pin, lambda why, port=port: wrong(f"pins.{port}", why))
    board = Board(
        name=path.stem,
        **{
            **{field: item[field] for field in _KINDS},
            "device": DEVICES[item["device"]],
            "loader": tuple(item["loader"]),
            "pins": pins,
        },
    )
    try:
        PllConfig.nearest(
            board.pll, board.oscillator_hz, board.clock_hz, part=board.device.pll_part
        )
    except ValueError as error:
        raise wrong("clock_hz", f"does not suit the PLL: {error}") from error
    return board


def _pin(item: Any, wrong: Any) -> Pin:
    fields = {field.name for field in dataclasses.fields(Pin)}
    if not isinstance(item, dict) or "site" not in item or not set(item) <= fields:
        raise wrong(f'must be like {{ site = "35", options = "..." }}, not {item!r}')
    if not all(isinstance(value, str) for value in item.values()):
        raise wrong(f"must hold strings, not {item!r}")
    return Pin(**item)


def _line_of(text: str, field: str) -> int | None:
    """Line (from 1) where a field, or `table.field`, is set; None where it is not."""
    table, _, key = field.rpartition(".")
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([\w.-]+)\s*\]", line)
        if header:
            current = header[1]
            if not table and current == key:
                return number
        elif current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return _line_of(text, table) if table else None


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
    """The board of this name. Raises PlanError, with the names there are."""
    if name not in BOARDS:
        raise PlanError(f"Board must be one of {', '.join(BOARDS)}, not {name!r}")
    return BOARDS[name]
