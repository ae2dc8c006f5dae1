# SPDX-License-Identifier: BSD-2-Clause
"""What a plan is asked for, checked before anything is planned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xnorforge.gen.boards import MAX_HZ
from xnorforge.gen.devices import FAMILIES
from xnorforge.gen.errors import PlanError
from xnorforge.gen.network import Network
from xnorforge.gen.overrides import STORE_FIELDS, read_overrides
from xnorforge.gen.site import Site

__all__ = ["LINKS", "WEIGHTS", "check_settings"]

LINKS = ("uart", "axi", "pcie")
WEIGHTS = ("loadable", "constant", "patchable")
MAX_CLASSES = 0xFFFF  # the label's and the class count's 16 bits


def check_settings(
    network: Network,
    *,
    board: str | None,
    device: str | None,
    overrides: str | Path | Mapping[str, Any] | None,
    link: str,
    baud: int | None,
    clock_hz: float | None,
    weights: str,
    slots: int,
    pins: Mapping[str, str] | None,
    bus_clock_hz: float | None,
) -> tuple[Site, dict[str, dict[str, Any]]]:
    """Where the design goes, and the overrides; settings as of `planner.make_plan`.

    Raises PlanError naming the setting that cannot be.
    """
    if link not in LINKS:
        raise PlanError(f"Link must be one of {', '.join(LINKS)}, not {link!r}")
    if weights not in WEIGHTS:
        known = f"{', '.join(WEIGHTS[:-1])} or {WEIGHTS[-1]}"
        raise PlanError(f"Weights must be {known}, not {weights!r}")
    if baud is not None and not 0 < baud <= MAX_HZ:
        raise PlanError(f"Baud rate must be a positive number up to {MAX_HZ:,}, not {baud!r}")
    if clock_hz is not None and not 0 < clock_hz <= MAX_HZ:
        raise PlanError(f"Clock must be a positive number up to {MAX_HZ:,} Hz, not {clock_hz!r}")
    if network.classes > MAX_CLASSES:
        raise PlanError(
            f"{network.name!r} has {network.classes:,} classes; {MAX_CLASSES:,} are the most"
        )
    site = _site(board, device, link, baud, clock_hz, pins, bus_clock_hz)
    if site.board is not None:
        site.board.check_baud(baud or site.baud, site.clock_hz)
    checked = read_overrides(overrides, network, site.device)
    if weights == "patchable":
        _check_patchable(site, checked)
    if slots not in (1, 2):
        raise PlanError(f"Slots must be 1 or 2, not {slots!r}")
    if slots > 1:
        _check_slots(weights, checked)
    return site, checked


def _site(
    board: str | None,
    device: str | None,
    link: str,
    baud: int | None,
    clock_hz: float | None,
    pins: Mapping[str, str] | None,
    bus_clock_hz: float | None,
) -> Site:
    for what, given in (("a baud rate", baud), ("pins", pins)):
        if given and link != "uart":
            raise PlanError(f"Link {link} has no use for {what}")
    if link == "axi":
        if bus_clock_hz is not None and not 0 < bus_clock_hz <= MAX_HZ:
            raise PlanError(
                f"Bus clock must be a positive number up to {MAX_HZ:,} Hz, not {bus_clock_hz!r}"
            )
        return Site.within(board, device, clock_hz)
    if bus_clock_hz is not None:
        raise PlanError(f"A bus clock goes with link axi, not with {link}")
    if link == "pcie":
        return Site.on_card(board, device, clock_hz)
    return Site.choose(board, device, clock_hz, pins)


def _check_slots(weights: str, overrides: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises PlanError where a second model could not be loaded beside the first."""
    if weights == "constant":
        raise PlanError("Constant weights are logic: a design with them holds one model")
    _refuse_spram_and_logic(
        overrides, "cannot be loaded while images use it, so the design holds one model"
    )


def _check_patchable(site: Site, overrides: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises PlanError where weights could not be replaced in the bitstream."""
    if not site.takes_patches:
        raise PlanError(
            f"Weights cannot be patchable on {site.name}: bitstreams of boards with "
            f"{' or '.join(sorted(f.name for f in FAMILIES.values() if f.patcher))} devices can be "
            "patched"
        )
    _refuse_spram_and_logic(
        overrides, "is no memory whose words a bitstream holds, so weights cannot be patchable"
    )


def _refuse_spram_and_logic(overrides: Mapping[str, Mapping[str, Any]], why: str) -> None:
    """Raises PlanError, for this reason, where overrides ask for a store of SPRAM or logic."""
    for layer, fixed in overrides.items():
        for field in STORE_FIELDS:
            if fixed.get(field) in ("spram", "const"):
                raise PlanError(f"Overrides, layer {layer!r}: {field} {fixed[field]!r} {why}")
        if fixed.get("share", 1) > 1:
            raise PlanError(f"Overrides, layer {layer!r}: a share of an SPRAM {why}")
