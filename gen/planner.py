# SPDX-License-Identifier: BSD-2-Clause
"""Chooses a Plan: folds, memories and stream widths for a network, a target and a device.

Every layer is a MatrixVectorUnit that takes NF x SF x G cycles an image; the slowest stage of the
chain sets the rate. For an allowed interval `gen.search` finds the cheapest chain of folds that
is fast enough; this module turns goals into intervals, checks that the result fits and says, when
it does not, which layer or memory stands in the way.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from xnorforge.gen import resources
from xnorforge.gen.assembly import core_parts
from xnorforge.gen.axi import beat_bytes
from xnorforge.gen.boards import BOARDS
from xnorforge.gen.cards import CARDS
from xnorforge.gen.cycles import paced_interval, predict
from xnorforge.gen.depths import LineBuffers
from xnorforge.gen.devices import DEVICES
from xnorforge.gen.errors import PlanError, SiteError
from xnorforge.gen.network import Network
from xnorforge.gen.pcie import dma_beat_bytes
from xnorforge.gen.plan import Plan
from xnorforge.gen.queues import with_deep_queues, with_queues
from xnorforge.gen.reasons import store_reasons
from xnorforge.gen.resources import Resources
from xnorforge.gen.search import Chain, Search
from xnorforge.gen.settings import check_settings
from xnorforge.gen.site import Site
from xnorforge.hw.boot_rom import BootRomConfig

__all__ = ["GOALS", "Planner", "link_interval", "make_plan", "planner_for"]

GOALS = ("link", "max", "min")
BITS_PER_BYTE = 10  # 8N1
_CLOSE_MISSES = 3  # plans found too slow by the exact model before larger steps are taken
_BEYOND = 6  # intervals faster than the fastest found to fit that are tried as well


def make_plan(
    network: Network,
    *,
    board: str | None = None,
    device: str | None = None,
    fps: float | None = None,
    goal: str = "link",
    overrides: str | Path | Mapping[str, Any] | None = None,
    link: str = "uart",
    baud: int | None = None,
    clock_hz: float | None = None,
    weights: str = "loadable",
    slots: int = 1,
    pins: Mapping[str, str] | None = None,
    bus_clock_hz: float | None = None,
    searches: dict[str, Search] | None = None,
) -> Plan:
    """Lay a network out on a board, or on a bare device.

    board: a name, or the path of a board file (it ends in .toml). pins: package pins by port,
    where they are not the board's own.
    fps: images per second the core must reach. Without it, goal says what is wanted: "link", the
    smallest design that keeps the link busy; "max", the fastest that fits; "min", the smallest.
    overrides: {layer: {"pe": n, ...}} or a JSON file of that; what it fixes is kept.
    clock_hz: instead of the board's own (rounded to what its PLL can make).
    weights: "loadable": the driver can exchange them for those of another model of this shape;
    "constant": they may become logic, where that is cheaper, and belong to the circuit;
    "patchable": as "loadable", and `gen.patch` can replace those of a finished bitstream.
    slots: models that the design holds at once, 1 or 2: a load goes to the one that no image uses,
    and images of one model follow those of the other without a gap.
    link: "uart"; or "axi", a core with AXI ports for a design of somebody else's: a board then only
    says which device and what clock; or "pcie", on a board of `gen.cards`. bus_clock_hz: of the AXI
    ports, where it is not the core's.
    searches: what calls for the same network, overrides, weights and slots have found out, by
    family; they add to it.
    Raises PlanError when the target cannot be met, naming what limits it.
    """
    if goal not in GOALS:
        raise PlanError(f"Goal must be one of {', '.join(GOALS)}, not {goal!r}")
    if fps is not None and not 0 < fps < float("inf"):
        raise PlanError(f"Images per second must be a positive number, not {fps!r}")
    planner = planner_for(
        network,
        board=board,
        device=device,
        overrides=overrides,
        link=link,
        baud=baud,
        clock_hz=clock_hz,
        weights=weights,
        slots=slots,
        pins=pins,
        bus_clock_hz=bus_clock_hz,
        searches=searches,
    )
    if fps is not None:
        return planner.for_rate(fps)
    if link != "uart" and goal == "link":
        raise PlanError(f"Link {link} has no rate to keep up with: give --fps, --max or --min")
    return {"link": planner.for_link, "max": planner.fastest, "min": planner.smallest}[goal]()


def planner_for(
    network: Network,
    *,
    board: str | None = None,
    device: str | None = None,
    overrides: str | Path | Mapping[str, Any] | None = None,
    link: str = "uart",
    baud: int | None = None,
    clock_hz: float | None = None,
    weights: str = "loadable",
    slots: int = 1,
    pins: Mapping[str, str] | None = None,
    bus_clock_hz: float | None = None,
    searches: dict[str, Search] | None = None,
) -> "Planner":
    """The planner of a network on a site, with settings as of `make_plan`, all checked."""
    site, checked = check_settings(
        network,
        board=board,
        device=device,
        overrides=overrides,
        link=link,
        baud=baud,
        clock_hz=clock_hz,
        weights=weights,
        slots=slots,
        pins=pins,
        bus_clock_hz=bus_clock_hz,
    )
    return Planner(
        network,
        site,
        link,
        baud or site.baud,
        checked,
        weights=weights,
        slots=slots,
        bus_clock_hz=bus_clock_hz,
        searches=searches,
    )


def link_interval(network: Network, clock_hz: float, baud: int) -> int:
    """Clock cycles that the link needs for the bytes of one image, without any framing."""
    return max(1, int(clock_hz * network.input.image_bytes * BITS_PER_BYTE / baud))


class Planner:
    """One network on one site.

    searches: by family those of planners of the same network elsewhere, and this one's.
    """

    def __init__(
        self,
        network: Network,
        site: Site,
        link: str,
        baud: int,
        overrides: Mapping[str, Mapping[str, Any]],
        *,
        weights: str = "loadable",
        slots: int = 1,
        bus_clock_hz: float | None = None,
        searches: dict[str, Search] | None = None,
    ) -> None:
        self.network = network
        self.site = site
        self.link = link
        self.baud = baud
        self.overrides = overrides
        self.weights = weights
        self.slots = slots
        self.bus_clock_hz = bus_clock_hz
        self.family = site.device.family.name
        linked = site.board is not None or link != "uart"
        self.shell = resources.core(self.family)
        if link == "axi":
            self.shell += resources.axi_ports(self.family, bus_clock_hz is not None)
        elif site.card is not None:
            self.shell += resources.pcie_bridge(self.family)
        elif linked:
            self.shell = resources.shell(self.family)
        patchable = weights == "patchable"
        if patchable:
            self.shell += resources.boot(self.family, BootRomConfig(0))
        self.room = resources.capacity(site.device) - self.shell
        if patchable or slots > 1:
            # SPRAM wakes up with anything, and its one port reads or writes.
            self.room = replace(self.room, sprams=0)
        constant = weights == "constant"
        self._searches: dict[str, Search] = {} if searches is None else searches
        if self.family in self._searches:
            self.search = self._searches[self.family].within(self.room, linked=linked)
        else:
            self.search = Search(
                network, self.family, self.room, overrides, constant, linked=linked, slots=slots
            )
            self._searches[self.family] = self.search

    # --- goals -----------------------------------------------------------------------------

    def for_rate(self, fps: float) -> Plan:
        """The smallest plan whose exact interval reaches the rate."""
        self._check_reachable(fps, self._interval(fps))
        plan = self._within(self._interval(fps))
        if plan is None:
            raise self._too_fast(fps)
        return plan

    def for_link(self) -> Plan:
        """The smallest plan that keeps the link busy, or the fastest that fits."""
        wanted = link_interval(self.network, self.site.clock_hz, self.baud)
        return self._within(wanted) or self.fastest()

    def _within(self, wanted: int) -> Plan | None:
        """The smallest plan of at most `wanted` cycles an image by the exact model, if any fits."""
        allowed, misses = wanted, 0
        while allowed >= self.search.intervals()[0]:
            chain = self.search.best(allowed)
            if not self._fits(chain):
                return None
            # The exact model sees what single stages do not: bubbles between them.
            laid = self._laid_out(chain, wanted)
            if not laid.plan.forks and laid.shrink_all(wanted):
                return self._finished(chain, laid, None)
            parts = core_parts(self.network, laid.planned())
            interval = paced_interval(parts, wanted) or predict(parts).interval_cycles
            if interval <= wanted:
                return self._finished(chain, laid, wanted)
            misses += 1
            # Line by line at first; where that leads nowhere, in strides.
            stride = 1 if misses <= _CLOSE_MISSES else int(interval - wanted) // 2 + 1
            allowed = min(allowed, chain.fold_cycles) - stride
        return None

    def smallest(self) -> Plan:
        chain = self.search.best(None)
        if not self._fits(chain):
            raise self._too_large(chain)
        return self._finished(chain, self._laid_out(chain, None), None)

    def fastest(self) -> Plan:
        """The plan of the smallest interval that fits."""
        self.smallest()  # says what is missing when nothing fits
        return self.plan(self.fastest_chain())

    def fastest_chain(self) -> Chain:
        intervals = self.search.intervals()
        low, high = 0, len(intervals) - 1
        best = self.search.best(None)
        while low <= high:
            middle = (low + high) // 2
            chain = self.search.best(intervals[middle])
            if self._fits(chain):
                best, high = chain, middle - 1
            else:
                low = middle + 1
        # The search is not exact at the edge: what lies just beyond it is tried one by one.
        for interval in reversed(intervals[max(0, low - _BEYOND) : low]):
            chain = self.search.best(interval)
            if self._fits(chain):
                best = chain
        return best

    def _fits(self, chain: Chain) -> bool:
        return chain.resources.fits(self.room)

    def plan(self, chain: Chain) -> Plan:
        """The chain as a plan, as fast as its folds are."""
        return self._finished(chain, self._laid_out(chain, chain.fold_cycles), None)

    def _laid_out(self, chain: Chain, wanted: int | None) -> LineBuffers:
        """The chain as a plan with queues of any depth, and its line buffers.

        Where they had to be shallow, they are as deep again as is needed for `wanted` cycles an
        image and as there is room.
        """
        card, beat = self.site.card, 1
        if self.link == "axi":
            beat = beat_bytes(self.network, chain.lanes)
        elif card is not None:
            rate = min(1.0, card.pcie.clock_hz / self.site.clock_hz)
            beat = dma_beat_bytes(self.network, chain.fold_cycles * rate)
        plan = Plan(
            family=self.family,
            device=self.site.device.name,
            board=None if self.site.board is None else self.site.board.name,
            board_record=None if self.site.board is None else self.site.board.to_json(),
            patchable=self.weights == "patchable",
            slots=self.slots,
            clock_hz=self.site.clock_hz,
            link=self.link,
            baud=self.baud,
            lanes=chain.lanes,
            layers=chain.layers,
            beat_bytes=beat,
            bus_clock_hz=self.bus_clock_hz if card is None else card.pcie.clock_hz,
            card=None if card is None else card.name,
        )
        plan = with_deep_queues(self.network, plan)
        buffers = self._buffers(plan, self.room - chain.resources)
        if chain.shallow and wanted is not None and self._fits(chain):
            buffers.deepen(wanted)
        return buffers

    def _buffers(self, plan: Plan, left: Resources) -> LineBuffers:
        price = partial(self.search.price, block_weight=1.0)
        return LineBuffers(self.network, plan, self.overrides, price, left)

    def _finished(self, chain: Chain, buffers: LineBuffers, wanted: int | None) -> Plan:
        """The plan with queues that cost no time and buffers no deeper than `wanted` needs."""
        plan = with_queues(self.network, buffers.planned())
        if wanted is not None:
            if plan.forks:
                buffers = self._buffers(plan, buffers.left)
            buffers.shrink(wanted)
        reasons = store_reasons(chain, self.network, self.family, self.room, self.overrides)
        lines = tuple((f"{name}.lines", reason) for name, reason in buffers.reasons().items())
        return replace(buffers.planned(), forks=plan.forks, reasons=reasons + lines)

    # --- what stands in the way ------------------------------------------------------------

    def _check_reachable(self, fps: float, wanted: int) -> None:
        """Raises when no fold reaches the rate, whatever the device."""
        head = self.search.head_interval
        each = self.search.head.interval
        every = "every cycle" if each == 1 else f"every {each} cycles"
        limits = [(head, f"the head takes one class {every}")]
        for index, layer in enumerate(self.network.layers):
            limits.append(
                (
                    self.search.fastest_interval(index),
                    f"layer {layer.name!r} takes {self.search.fastest_interval(index)} cycles "
                    "as its overrides fix it",
                )
            )
        slowest, why = max(limits, key=lambda item: item[0])
        if wanted < slowest:
            raise SiteError(
                f"{fps:g} images/s cannot be reached on ",
                self.site.name,
                f" at {self.site.clock_hz / 1e6:g} MHz: {why}, so "
                f"{int(self._rate(slowest)):,} images/s is the most at this clock",
            )

    def _too_fast(self, fps: float) -> SiteError:
        self.smallest()
        chain = self.fastest_chain()
        plan = self.plan(chain)
        interval = predict(core_parts(self.network, plan)).interval_cycles
        return SiteError(
            f"{fps:g} images/s do not fit on ",
            self.site.name,
            f" at {self.site.clock_hz / 1e6:g} MHz: layer {chain.slowest!r} limits, "
            f"the best that fits is {int(self._rate(interval)):,} images/s"
            f"{self._larger(lambda planner: planner._within(planner._interval(fps)) is not None)}",
        )

    def _too_large(self, chain: Chain) -> SiteError:
        used = chain.resources
        room, beside = self.room, "beside"
        shell = "weight chain" if self.site.board is None else "link"
        if not Resources().fits(room):
            # Not even the link fits: say what all of it takes.
            used, room, beside = used + self.shell, room + self.shell, "with"
        lacking = [
            f"{need} of {have} {what}"
            for need, have, what in (
                (used.cells, room.cells, "logic cells"),
                (used.flipflops, room.flipflops, "flip-flops"),
                (used.blocks, room.blocks, "block RAMs"),
                (ceil(used.sprams), room.sprams, "SPRAM blocks"),
                (used.lut_rams, room.lut_rams, "LUT RAMs"),
            )
            if need > have
        ]
        largest = max(self.network.products, key=lambda layer: layer.weight_bits)
        fold = "even folded to its smallest"
        if self.overrides:
            fold = f"with the folding given for {', '.join(map(repr, self.overrides))}"
        return SiteError(
            f"{self.network.name!r} is too large for ",
            self.site.name,
            f": {fold} it needs {' and '.join(lacking)} ({beside} the {shell}), layer "
            f"{largest.name!r} alone has {largest.weight_bits:,} weight bits"
            f"{self._larger(lambda planner: planner._fits(planner.search.best(None)))}",
        )

    def _larger(self, works: Callable[["Planner"], bool]) -> str:
        """What to use instead: the smallest board, else device, with which it works."""
        here = self.site.device
        # One board of each device is enough; those without a UART of their own are not offered.
        known = [board for board in BOARDS.values() if "rx" in board.pins]
        known.sort(key=lambda board: (board.uart == "USB bridge", bool(board.loader)))
        boards = {board.device.name: board.name for board in known}
        sites = [Site.choose(name, None, None) for name in boards.values()]
        sites += [Site.choose(None, name, None) for name in DEVICES]
        if self.link == "pcie":
            sites = [Site.on_card(name, None, None) for name in CARDS]
        bits = self.network.weight_bits
        spram = any(
            "spram" in fixed.values() or fixed.get("share", 1) > 1
            for fixed in self.overrides.values()
        )
        sites = [
            site
            for site in sites
            if site.device.name != here.name
            and site.most_bits >= bits
            and (site.device.spram_blocks or not spram)
            and (site.takes_patches or self.weights != "patchable")
        ]
        for site in sorted(sites, key=lambda site: (site.board is None, site.device.luts)):
            planner = Planner(
                self.network,
                site,
                self.link,
                self.baud,
                self.overrides,
                weights=self.weights,
                slots=self.slots,
                bus_clock_hz=self.bus_clock_hz,
                searches=self._searches,
            )
            if works(planner):
                return f"; {site.name} would hold it"
        return "; no board or device known here would hold it"

    def _interval(self, fps: float) -> int:
        return int(Fraction(self.site.clock_hz) / Fraction(fps))

    def _rate(self, interval: int | Fraction) -> float:
        return self.site.clock_hz / float(interval)
