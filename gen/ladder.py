# SPDX-License-Identifier: BSD-2-Clause
"""The plans of a network by speed, also those that the planner holds too large."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from typing import Any

from xnorforge.gen import resources
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.gen.planner import planner_for
from xnorforge.gen.search import Chain

__all__ = ["Ladder"]


class Ladder:
    """The cheapest plan for each possible interval of a network; rung 0 is the fastest.

    Rungs past what the planner would choose may take all of the device. A rung whose cheapest
    plan is faster than it need be holds the plan of a rung above: see `settle`.

    Parameters
    ----------
    network, settings : as of `make_plan`, without fps and goal

    Members
    -------
    planned : rung of `make_plan(goal="max")`, or the slowest where the planner holds none possible.
    largest : the fastest rung that fits, by the model, a device filled to the last cell.
    """

    def __init__(self, network: Network, **settings: Any) -> None:
        self._planner = planner = planner_for(network, **settings)
        self._room = resources.capacity(planner.site.device, fill=1.0) - planner.shell
        self._intervals = planner.search.intervals()
        self._chain = cache(self._cheapest)
        self.planned = len(self) - 1
        if self._chain(self.planned).resources.fits(planner.room):
            self.planned = self._rung(planner.fastest_chain().fold_cycles)
        elif not self._chain(self.planned).resources.fits(self._room):
            planner.smallest()  # says what is missing
        low, high = 0, self.planned
        while low < high:
            middle = (low + high) // 2
            if self._chain(middle).resources.fits(self._room):
                high = middle
            else:
                low = middle + 1
        self.largest = high

    def __len__(self) -> int:
        return len(self._intervals)

    def settle(self, rung: int) -> int:
        """This rung or one above: one whose plan is no faster than its interval."""
        while True:
            above = self._rung(self._chain(rung).fold_cycles)
            if above == rung:
                return rung
            rung = above

    def plan(self, rung: int) -> Plan:
        return self._planner.plan(self._chain(rung))

    def _cheapest(self, rung: int) -> Chain:
        search, interval = self._planner.search, self._intervals[rung]
        chain = search.best(interval)
        if chain.resources.fits(search.capacity):
            return chain
        return search.within(self._room).best(interval)

    def _rung(self, cycles: int) -> int:
        """The rung of the plan that takes so many cycles."""
        return min(bisect_left(self._intervals, cycles), len(self._intervals) - 1)
