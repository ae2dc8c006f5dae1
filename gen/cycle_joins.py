# SPDX-License-Identifier: BSD-2-Clause
"""The cycle model's rules of stages with several inputs or outputs, as `gen.cycle_stages`.

They have lists of times in place of one: `inputs`, `accepts` and `in_beats` for every input,
`outputs`, `offers` and `out_beats` for every output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Sequence

from xnorforge.gen.cycle_stages import Times
from xnorforge.hw.add import AddConfig
from xnorforge.hw.concat import ConcatConfig
from xnorforge.hw.fork import ForkConfig

__all__ = ["AddStage", "ConcatStage", "ForkStage", "JoinStage"]


class JoinStage(ABC):
    """One stage between several streams.

    inputs, outputs: cycles of the transfers so far; the owner of the streams appends to them.
    offers, accepts: earliest cycles of output and input transfers by this stage's rules.
    in_beats, out_beats: of the stage's unit of work. reach: so many units back a rule looks.
    """

    in_beats: tuple[int, ...]
    out_beats: tuple[int, ...]
    reach: int = 1

    def __init__(self, inputs: Sequence[Times], outputs: Sequence[Times]):
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.offers: tuple[Times, ...] = tuple(array("q") for _ in outputs)
        self.accepts: tuple[Times, ...] = tuple(array("q") for _ in inputs)

    @abstractmethod
    def advance(self) -> None:
        """Extend `offers` and `accepts` as far as the transfers so far allow."""

    def inner(self) -> list[tuple[Times, int]]:
        """Times of inner events that later rules look back on, and how many there are a unit."""
        return []


class ForkStage(JoinStage):
    """A Fork: its unit is a beat."""

    def __init__(self, config: ForkConfig, inputs: Sequence[Times], outputs: Sequence[Times]):
        super().__init__(inputs, outputs)
        self.in_beats, self.out_beats = (1,), (1,) * len(config.depths)
        self.depths, self.latency = config.depths, config.latency
        self.reach = max(config.depths)

    def advance(self) -> None:
        taken = self.inputs[0]
        for offers, latency in zip(self.offers, self.latency, strict=True):
            offers.extend([time + latency for time in taken[len(offers) :]])
        accepts = self.accepts[0]
        branches = list(zip(self.outputs, self.depths, strict=True))
        end = min(len(outputs) + depth for outputs, depth in branches)
        for n in range(len(accepts), end):
            owed = [outputs[n - depth] + 1 for outputs, depth in branches if n >= depth]
            accepts.append(max(owed, default=0))


class AddStage(JoinStage):
    """An AddUnit: its unit is a vector.

    It takes beats together, so when it takes one follows from when the others are offered.
    offered: the `offers` of the stages before it, for each input; when one of them grows, this
        stage can `advance`, though no beat has moved.
    """

    def __init__(
        self,
        config: AddConfig,
        inputs: Sequence[Times],
        outputs: Sequence[Times],
        offered: Sequence[Times],
    ):
        super().__init__(inputs, outputs)
        self.in_beats, self.out_beats = (config.nf,) * len(inputs), (config.nf,)
        self.offered = tuple(offered)
        self.latency, self.credits = config.latency, config.credits
        self.reach = -(-config.credits // config.nf)
        self.last = -1

    def inner(self) -> list[tuple[Times, int]]:
        return [(self.offers[0], self.out_beats[0])]

    def advance(self) -> None:
        (outputs,), (offers,) = self.outputs, self.offers
        end = min(len(outputs) + self.credits, *(len(offered) for offered in self.offered))
        for n in range(len(offers), end):
            time = max(self.last + 1, *(offered[n] for offered in self.offered))
            if n >= self.credits:
                time = max(time, outputs[n - self.credits] + 1)
            self.last = time
            offers.append(time + self.latency)
            for accepts in self.accepts:
                accepts.append(time)


class ConcatStage(JoinStage):
    """A ConcatUnit: its unit is a pixel."""

    def __init__(self, config: ConcatConfig, inputs: Sequence[Times], outputs: Sequence[Times]):
        super().__init__(inputs, outputs)
        self.in_beats, self.out_beats = config.beats, (sum(config.beats),)
        self.latency = config.latency
        # Which source each beat of a pixel comes from.
        self.turns = [k for k, beats in enumerate(config.beats) for _ in range(beats)]

    def advance(self) -> None:
        (outputs,), (offers,) = self.outputs, self.offers
        while True:
            # Beat n is `place` in its pixel; it can be taken once beat n - 1 was.
            n = sum(len(accepts) for accepts in self.accepts)
            if n > len(offers):
                source = self.turns[(n - 1) % len(self.turns)]
                taken = self.inputs[source]
                if len(taken) < len(self.accepts[source]):
                    return
                offers.append(taken[-1] + self.latency)
            if n - 2 >= len(outputs):
                return
            time = offers[n - 1] - self.latency + 1 if n else 0
            if n >= 2:
                time = max(time, outputs[n - 2] + 1)
            self.accepts[self.turns[n % len(self.turns)]].append(time)
