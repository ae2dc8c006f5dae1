# SPDX-License-Identifier: BSD-2-Clause
"""Pins, clocks and timing: what place and route is told, and what its report must say back.

Left alone, nextpnr takes 12 MHz as the target of a clock that comes from a PLL and reports
"PASS". So the PLL is looked up in the synthesised netlist, its real output frequency computed
from its dividers, the net it drives constrained to that, and the report believed only when the
constraint it names is that frequency.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnorforge.gen.boards import Board
from xnorforge.gen.errors import BundleError, PlanError, ToolError
from xnorforge.hw.pll_config import PLL_KINDS, PllConfig

__all__ = [
    "Clock",
    "Timing",
    "check_pll",
    "constraint_files",
    "find_clock",
    "pack_args",
    "place_and_route_args",
    "read_netlist",
    "read_timing",
    "refuse_pin",
]

# Ports of the primitives that carry the clock that the design runs on.
_OUTPUT_PORTS = ("PLLOUTGLOBAL", "PLLOUTCORE", "CLKOP", "CLKOUT")
# nextpnr keeps a period in whole picoseconds.
_PERIOD_STEP = 1.01e-12


@dataclass(frozen=True)
class Clock:
    """The design's clock: a net of the netlist, and the setting of the PLL that drives it."""

    net: str
    pll: PllConfig


@dataclass(frozen=True)
class Timing:
    """What nextpnr reports of the clock, in Hz, and whether the constraint is met."""

    constraint_hz: float
    fmax_hz: float

    @property
    def met(self) -> bool:
        return self.fmax_hz >= self.constraint_hz


def read_netlist(path: Path) -> dict[str, Any]:
    """The module `top` of a netlist that yosys wrote."""
    return json.loads(path.read_text())["modules"]["top"]


def check_pll(verilog: str, board: Board) -> None:
    """Raises BundleError when the Verilog has not just the kind of PLL that the board has."""
    kinds = [
        kind
        for kind in PLL_KINDS
        if kind != "none" and re.search(rf"^\s*{kind}\b", verilog, re.MULTILINE)
    ]
    _one_pll(kinds, board)


def _one_pll(kinds: list[str], board: Board) -> None:
    wanted = [] if board.pll == "none" else [board.pll]
    if kinds != wanted:
        raise BundleError(
            f"accelerator.v must hold {'one ' if wanted else 'no PLL'}{''.join(wanted)} for board "
            f"{board.name}, but holds "
            f"{', '.join(kinds) or 'none'}: compile the model again for this board"
        )


def find_clock(netlist: dict[str, Any], board: Board) -> Clock:
    """The PLL of a netlist and the net of its output; without a PLL, the net of the clock pin.

    Raises BundleError unless there is one PLL, of the kind that the board has.
    """
    plls = [cell for cell in netlist["cells"].values() if cell["type"] in PLL_KINDS]
    _one_pll([cell["type"] for cell in plls], board)
    if not plls:
        return Clock("clk_in", board.pll_config())
    (cell,) = plls
    # Numbers are strings of binary digits, texts are texts: only the former are dividers.
    numbers = {
        name: int(value, 2)
        for name, value in cell["parameters"].items()
        if value and not set(value) - {"0", "1"}
    }
    (bit,) = next(
        cell["connections"][port] for port in _OUTPUT_PORTS if port in cell["connections"]
    )
    names = [name for name, net in netlist["netnames"].items() if net["bits"] == [bit]]
    return Clock(
        net=min(names, key=lambda name: ("$" in name, len(name), name)),
        pll=PllConfig.from_parameters(
            board.pll, board.oscillator_hz, numbers, part=board.device.pll_part
        ),
    )


def constraint_files(board: Board, clock: Clock) -> dict[str, str]:
    """Constraint files of the board's family by name: pins, and the clock at its real frequency."""
    mhz = clock.pll.output_hz / 1e6
    family = board.device.family.name
    pins, clocks = [], []
    if family == "ice40":
        for port, pin in sorted(board.pins.items()):
            pins.append(" ".join(["set_io", *pin.options.split(), port, pin.site]))
        clocks.append(f"set_frequency {clock.net} {mhz:.6f}")
    elif family == "ecp5":
        for port, pin in sorted(board.pins.items()):
            pins.append(f'LOCATE COMP "{port}" SITE "{pin.site}";')
            if pin.options:
                pins.append(f'IOBUF PORT "{port}" {pin.options};')
        clocks.append(f'FREQUENCY NET "{clock.net}" {mhz:.6f} MHZ;')
    elif family == "gowin":
        for port, pin in sorted(board.pins.items()):
            pins.append(f'IO_LOC "{port}" {pin.site};')
            if pin.options:
                pins.append(f'IO_PORT "{port}" {pin.options};')
        clocks.append(f"create_clock -period {1000 / mhz:.6f} [get_nets {{{clock.net}}}]")
    else:
        raise ToolError(f"No constraint file is known for family {family!r}")
    suffixes = board.device.family.constraints_suffixes
    texts = [pins + clocks] if len(suffixes) == 1 else [pins, clocks]
    return {
        f"constraints{suffix}": "\n".join(lines) + "\n"
        for suffix, lines in zip(suffixes, texts, strict=True)
    }


def place_and_route_args(board: Board) -> list[str]:
    """nextpnr's arguments for a board: device, package, speed and constraint files.

    The files lie in nextpnr's working folder under the names that `constraint_files` gives them.
    """
    device, family = board.device, board.device.family
    if family.name == "gowin":
        return [
            *("--device", f"{device.part}{board.package}{board.speed}"),
            *("--vopt", f"family={device.chip}"),
            *("--vopt", "cst=constraints.cst"),
            *("--sdc", "constraints.sdc"),
        ]
    speed = ["--speed", board.speed] if board.speed else []
    (suffix,) = family.constraints_suffixes
    return [
        *device.place_and_route_args,
        *("--package", board.package, *speed),
        *(f"--{suffix[1:]}", f"constraints{suffix}"),
    ]


# How each nextpnr says that a package has no such pin.
_NO_PIN = re.compile(
    r"package does not have a pin named '(\w+)'"
    r"|constrained to pin '(\w+)', which does not exist"
    r"|ERROR: Pin (\w+) not found"
)


def refuse_pin(board: Board, log: str) -> None:
    """Raises PlanError where nextpnr's output says that the package lacks a pin."""
    found = _NO_PIN.search(log)
    if found:
        site = next(filter(None, found.groups()))
        ports = [port for port, pin in board.pins.items() if pin.site == site]
        raise PlanError(
            f"Board {board.name}: package {board.package} of {board.device.name} has no pin "
            f"{site!r}, which {' and '.join(ports)} should be on; choose another one"
        )


def pack_args(board: Board, routed: str, bitstream: str) -> list[str]:
    """The packer's arguments for a routed result."""
    packer = board.device.family.packer
    if packer == "gowin_pack":
        # Pins that also serve configuration are the design's once it runs.
        shared = ("--sspi_as_gpio", "--mspi_as_gpio", "--ready_as_gpio", "--done_as_gpio")
        return ["-d", board.device.chip, *shared, "-o", bitstream, routed]
    options = ["--compress"] if packer == "ecppack" else []
    return [*options, routed, bitstream]


def read_timing(report: dict[str, Any], output_hz: float) -> Timing:
    """Timing from nextpnr's report, of the worst clock where there are several.

    Raises ToolError unless every clock in it was held against `output_hz`.
    """
    clocks = report.get("fmax", {})
    if not clocks:
        raise ToolError("nextpnr reports no clock at all: the design has no flip-flop on the PLL")
    timings = []
    for name, clock in clocks.items():
        timing = Timing(clock["constraint"] * 1e6, clock["achieved"] * 1e6)
        if abs(1 / timing.constraint_hz - 1 / output_hz) > _PERIOD_STEP:
            raise ToolError(
                f"nextpnr held clock {name!r} against {timing.constraint_hz / 1e6:.3f} MHz, but "
                f"the PLL makes {output_hz / 1e6:.3f} MHz: its timing result means nothing"
            )
        timings.append(timing)
    return min(timings, key=lambda timing: timing.fmax_hz)
