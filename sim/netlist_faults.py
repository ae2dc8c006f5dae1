# SPDX-License-Identifier: BSD-2-Clause
"""Faults planted in a mapped netlist, each the smallest there is.

    lut      one bit of one look-up table's truth table turned
    memory   one bit of what a memory powers up with turned
    net      one input of one look-up table cut off: it reads 0
    write    the write enable of one memory cut off: it keeps what it powered up with

A fault that no image can show proves nothing: `plant_in_netlist` simulates until one does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xnorforge.gen.bundle import Bundle
from xnorforge.gen.errors import ModelError
from xnorforge.gen.tools import Progress
from xnorforge.sim.compare import compare
from xnorforge.sim.netlist_level import (
    LOADED_IMAGES,
    NetlistModel,
    family_name,
    find_netlist,
    run_netlist,
)
from xnorforge.sim.netlist_verilog import MappedNetlist
from xnorforge.sim.other_model import other_model
from xnorforge.sim.reference import Executor

__all__ = ["NETLIST_FAULT_KINDS", "NetlistFault", "plant_in_netlist"]

NETLIST_FAULT_KINDS = ("lut", "memory", "net", "write")

_LUTS = {"SB_LUT4": "LUT_INIT", **dict.fromkeys(("LUT1", "LUT2", "LUT3", "LUT4"), "INIT")}
_LUT_INPUTS = ("I0", "I1", "I2", "I3", "A", "B", "C", "D")
_MEMORIES = {
    "SB_RAM40_4K": "INIT_",
    "DP16KD": "INITVAL_",
    "TRELLIS_DPR16X4": "INITVAL",
    **dict.fromkeys(("SP", "SPX9", "SDPB", "SDPX9B", "DPB", "DPX9B"), "INIT_RAM_"),
    **dict.fromkeys(("RAM16SDP1", "RAM16SDP2", "RAM16SDP4"), "INIT_"),
}
_WRITE_ENABLES = {
    "SB_RAM40_4K": ("WE", "WCLKE"),
    "SB_SPRAM256KA": ("WREN",),
    "DP16KD": ("WEA", "WEB"),
    **dict.fromkeys(("SP", "SPX9"), ("WRE",)),
    **dict.fromkeys(("SDPB", "SDPX9B"), ("CEA",)),
    **dict.fromkeys(("DPB", "DPX9B"), ("WREA", "WREB")),
    **dict.fromkeys(
        ("TRELLIS_DPR16X4", "RAM16SDP1", "RAM16SDP2", "RAM16SDP4"),
        ("WRE",),
    ),
}
_CUT = ("net", "write")
_CONSTANTS = ("GND", "VCC")  # cells of Gowin
_TRIES = 40  # of random tables a few in ten show


@dataclass(frozen=True)
class NetlistFault:
    """A change of one cell. place: its parameter or input. bit: of it, lowest first."""

    kind: str
    cell: str
    cell_type: str
    place: str
    bit: int

    @property
    def description(self) -> str:
        what = "input reads 0" if self.kind in _CUT else "bit is turned"
        return f"{self.cell_type} {self.cell}: {self.place}[{self.bit}] {what}"

    def apply(self, netlist: MappedNetlist) -> MappedNetlist:
        """The netlist with the fault. Raises ModelError when it has not that cell."""
        cell = netlist.cells.get(self.cell)
        part = "connections" if self.kind in _CUT else "parameters"
        if cell is None or self.place not in cell[part]:
            raise ModelError(f"The netlist has no {self.place} of a cell {self.cell}")
        value: Any = cell[part][self.place]
        if self.kind in _CUT:
            value = [*value[: self.bit], "0", *value[self.bit + 1 :]]
        else:
            at = len(value) - 1 - self.bit
            value = f"{value[:at]}{'10'[int(value[at])]}{value[at + 1 :]}"
        faulty = {**cell, part: {**cell[part], self.place: value}}
        cells = {**netlist.module["cells"], self.cell: faulty}
        return replace(netlist, module={**netlist.module, "cells": cells})


def plant_in_netlist(
    bundle: Bundle,
    kind: str,
    images: np.ndarray,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> NetlistFault:
    """A fault of this kind in the core that changes the result of one of the images.

    Every try is compiled and run. Raises ModelError for an unknown kind, or where no try shows.
    """
    if kind not in NETLIST_FAULT_KINDS:
        raise ModelError(f"Fault must be one of {', '.join(NETLIST_FAULT_KINDS)}, not {kind!r}")
    netlist = find_netlist(bundle, progress=progress).netlist
    # A memory that is not written shows only when another model is loaded.
    loaded = kind == "write"
    images = images[:LOADED_IMAGES] if loaded else images
    expected = Executor(bundle.network).run(images)
    other = other_model(bundle.network, bundle.plan, images) if loaded else None
    faults = _candidates(netlist, kind, [layer.name for layer in bundle.network.layers])
    random.Random(seed).shuffle(faults)
    for number, fault in enumerate(faults[:_TRIES]):
        if progress is not None:
            progress(f"planting a fault, try {number + 1}: {fault.description}")
        with NetlistModel(fault.apply(netlist), family_name(bundle)) as model:
            found = run_netlist(
                bundle, model, images, loaded=loaded, other=other, progress=progress
            ).results
        wanted = dict.fromkeys(found, expected)
        if other is not None:
            wanted["other_model"] = other.result
        if any(compare(wanted[name], got).first is not None for name, got in found.items()):
            return fault
    raise ModelError(f"None of {min(_TRIES, len(faults))} {kind} faults changes these images")


def _candidates(netlist: MappedNetlist, kind: str, layers: Sequence[str]) -> list[NetlistFault]:
    """Faults of the kind, of those cells that are likeliest to matter to an image.

    Cells are called after what they drive: a memory of the last layer, or a table that is part of
    a layer's arithmetic and not of its stores, where there are such names; else any.
    """
    found = []
    fixed = {
        bit
        for cell in netlist.cells.values()
        if cell["type"] in _CONSTANTS
        for bits in cell["connections"].values()
        for bit in bits
    }
    for name, cell in netlist.cells.items():
        cell_type = cell["type"]
        if kind == "memory" and cell_type in _MEMORIES:
            places = [
                (place, len(value) - 1 - at)
                for place, value in cell["parameters"].items()
                if place.startswith(_MEMORIES[cell_type])
                for at, digit in enumerate(value)
                if digit == "1"  # a word that is used: the others are 0, or open
            ]
        elif kind == "lut" and cell_type in _LUTS:
            place = _LUTS[cell_type]
            places = [(place, bit) for bit in _reachable(cell, len(cell["parameters"][place]))]
        elif kind == "net" and cell_type in _LUTS:
            pins = cell["connections"].items()
            places = [
                (port, 0) for port, bits in pins if port in _LUT_INPUTS and isinstance(bits[0], int)
            ]
        elif kind == "write" and cell_type in _WRITE_ENABLES:
            places = [
                (port, 0)
                for port in _WRITE_ENABLES[cell_type]
                for bit in cell["connections"].get(port, [])
                if isinstance(bit, int) and bit not in fixed
            ]
        else:
            continue
        found += [NetlistFault(kind, name, cell_type, *place) for place in places]
    wanted = layers[-1:] if kind == "memory" else layers
    likely = [
        fault
        for fault in found
        if any(f"{layer}." in fault.cell for layer in wanted)
        and (
            "store" in fault.cell
            if kind == "write"
            else kind == "memory" or "store" not in fault.cell
        )
    ]
    return likely or found


def _reachable(cell: dict[str, Any], size: int) -> list[int]:
    """Entries of a truth table that its constant inputs leave."""
    inputs = [cell["connections"][port][0] for port in _LUT_INPUTS if port in cell["connections"]]
    return [
        entry
        for entry in range(size)
        if all(
            str(bit) == str(entry >> place & 1) or isinstance(bit, int)
            for place, bit in enumerate(inputs)
        )
    ]
