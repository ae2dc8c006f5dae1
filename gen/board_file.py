# SPDX-License-Identifier: BSD-2-Clause
"""Board files: TOML into a `Board`, each mistake named with file, line and field."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

from xnorforge.gen.board import MAX_HZ, PORTS, SITE, Board, Pin
from xnorforge.gen.devices import DEVICES
from xnorforge.gen.errors import PlanError
from xnorforge.hw.pll_config import PllConfig, PllError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["load_board"]

_KINDS: dict[str, tuple[type, str]] = {
    "title": (str, "a string"),
    "device": (str, "a string"),
    "package": (str, "a string"),
    "speed": (str, "a string"),
    "oscillator_hz": (int, "an integer"),
    "pll": (str, "a string"),
    "clock_hz": (int, "an integer"),
    "baud": (int, "an integer"),
    "uart": (str, "a string"),
    "loader": (list, "a list of strings"),
    "programmer": (str, "a string"),
    "led_active_low": (bool, "true or false"),
    "pin_options": (str, "a string"),
    "bridge_baud": (int, "an integer"),
    "pins": (dict, "a table of pins"),
}
_OPTIONAL: dict[str, Any] = {
    "speed": "",
    "uart": "pins",
    "loader": [],
    "programmer": "",
    "led_active_low": False,
    "pin_options": "",
    "bridge_baud": MAX_HZ,
}
# What would end or break a line of a constraint file.
_BREAKS_OPTIONS = re.compile(r"[\r\n;\"'#]")


def load_board(path: Path) -> Board:
    """Read a board from its file. Raises PlanError naming file, line and field."""
    return _Reader(path).board()


class _Reader:
    """One board file; its methods raise PlanError with the line of a field."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.text = path.read_text(encoding="utf-8")
            self.item: dict[str, Any] = tomllib.loads(self.text)
        except UnicodeDecodeError as error:
            raise PlanError(f"Board file {path.name} cannot be read: {error}") from error
        except OSError as error:
            why = error.strerror or error
            raise PlanError(f"Board file {path} cannot be read: {why}") from error
        except tomllib.TOMLDecodeError as error:
            raise PlanError(f"Board file {path.name} is not TOML: {error}") from error
        except ValueError as error:  # a number of over 4,300 digits
            raise PlanError(f"Board file {path.name} cannot be read: {error}") from error

    def wrong(self, field: str, why: str) -> PlanError:
        where = _line_of(self.text, field)
        place = f" line {where}" if where else ""
        return PlanError(f"Board file {self.path.name}{place}: field {field!r} {why}")

    def board(self) -> Board:
        item = self._fields()
        if item["device"] not in DEVICES:
            raise self.wrong(
                "device", f"must be one of {', '.join(DEVICES)}, not {item['device']!r}"
            )
        device = DEVICES[item["device"]]
        self._one_of("package", item["package"], device.packages, device.name)
        if device.speeds or item["speed"]:
            self._one_of("speed", item["speed"], device.speeds or ("",), device.name)
        self._one_of("pll", item["pll"], device.family.plls, f"family {device.family.name}")
        if not all(isinstance(word, str) for word in item["loader"]):
            raise self.wrong("loader", f"must be a list of strings, not {item['loader']!r}")
        if item["programmer"] and "{}" not in item["programmer"]:
            raise self.wrong("programmer", "must have {} where the bitstream's path goes")
        try:
            shlex.split(item["programmer"])
        except ValueError as error:
            why = f"is no command line ({error}): {item['programmer']!r}"
            raise self.wrong("programmer", why) from error
        self._options("pin_options", item["pin_options"])
        board = Board(
            name=self.path.stem,
            **{
                **item,
                "device": device,
                "loader": tuple(item["loader"]),
                "pins": self._pins(item["pins"]),
            },
        )
        self._check_clock(board)
        return board

    def _fields(self) -> dict[str, Any]:
        """All fields, of the kinds they must be."""
        for field in self.item:
            if field not in _KINDS:
                raise self.wrong(field, f"is unknown; fields are {', '.join(_KINDS)}")
        item = {**_OPTIONAL, **self.item}
        for field, (kind, words) in _KINDS.items():
            if field not in item:
                raise self.wrong(field, f"is missing; it must be {words}")
            value = item[field]
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise self.wrong(field, f"must be {words}, not {value!r}")
            if isinstance(value, int) and kind is int and not 0 < value <= MAX_HZ:
                why = f"not {value}" if value <= 0 else f"and at most {MAX_HZ:,}"
                raise self.wrong(field, f"must be positive, {why}")
        return item

    def _one_of(self, field: str, value: str, known: tuple[str, ...], of: str) -> None:
        if value not in known:
            names = ", ".join(map(repr, known))
            raise self.wrong(field, f"of {of} must be one of {names}, not {value!r}")

    def _pins(self, items: dict[str, Any]) -> dict[str, Pin]:
        if "clk_in" not in items:
            raise self.wrong("pins.clk_in", 'is missing; it must be like { site = "35" }')
        pins: dict[str, Pin] = {}
        for port, item in items.items():
            field = f"pins.{port}"
            if port not in PORTS:
                raise self.wrong(field, f"is unknown; pins are {', '.join(PORTS)}")
            if not isinstance(item, dict) or "site" not in item or set(item) - {"site", "options"}:
                raise self.wrong(
                    field, f'must be like {{ site = "35", options = "..." }}, not {item!r}'
                )
            if not all(isinstance(value, str) for value in item.values()):
                raise self.wrong(field, f"must hold strings, not {item!r}")
            if not SITE.fullmatch(item["site"]):
                raise self.wrong(field, f"must name a pin of the package, not {item['site']!r}")
            self._options(field, item.get("options", ""))
            for other, pin in pins.items():
                if pin.site.upper() == item["site"].upper():
                    raise self.wrong(field, f"is on pin {pin.site!r}, where pins.{other} is")
            pins[port] = Pin(**item)
        return {port: pins[port] for port in PORTS if port in pins}

    def _options(self, field: str, options: str) -> None:
        found = _BREAKS_OPTIONS.search(options)
        if found:
            raise self.wrong(field, f"must have options without {found[0]!r}: {options!r}")

    def _check_clock(self, board: Board) -> None:
        try:
            setting = PllConfig.nearest(
                board.pll, board.oscillator_hz, board.clock_hz, part=board.device.pll_part
            )
        except PllError as error:
            field = "oscillator_hz" if error.input else "clock_hz"
            raise self.wrong(field, f"does not suit the PLL: {error}") from error
        try:
            board.check_baud(board.baud, setting.output_hz)
        except PlanError as error:
            raise self.wrong("baud", f"does not suit the clock: {error}") from error


def _line_of(text: str, field: str) -> int | None:
    """Line (from 1) where a field, or `table.field`, is set; None where it is not."""
    table, _, key = field.rpartition(".")
    current = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([\w.-]+)\s*\]", line)
        if header:
            current = header[1]
            if current == field:
                return number
        elif current == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return _line_of(text, table) if table else None
