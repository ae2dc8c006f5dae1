# SPDX-License-Identifier: BSD-2-Clause
"""What a rule of the cycle model is: a stage between streams, by the times of their transfers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array

__all__ = ["Stage", "Times"]

Times = array  # of "q": 8 bytes a transfer


class Stage(ABC):
    """One stage between two streams.

    inputs, outputs: cycles of the transfers so far; the owner of the streams appends to them.
    offers, accepts: earliest cycles of output and input transfers by this stage's rules.
    in_beats, out_beats: of the stage's unit of work: a vector, a map, a window.
    reach: so many units back a rule looks at most.
    """

    in_beats: int
    out_beats: int
    reach: int = 1

    def __init__(self, inputs: Times, outputs: Times):
        self.inputs = inputs
        self.outputs = outputs
        self.offers: Times = array("q")
        self.accepts: Times = array("q")

    @abstractmethod
    def advance(self) -> None:
        """Extend `offers` and `accepts` as far as the transfers so far allow."""

    def inner(self) -> list[tuple[Times, int]]:
        """Times of inner events that later rules look back on, and how many there are a unit."""
        return []
