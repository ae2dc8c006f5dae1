# SPDX-License-Identifier: BSD-2-Clause
"""The cycle model's rules, one class a circuit: when a stage can give a beat, when take one.

A stage knows the times of the transfers on its two streams so far and works out from them, as far
as they reach, the earliest cycles by its own rules of further ones: `offers` of output beats and
`accepts` of input beats. A beat then moves in the first cycle after the one before it that is in
neither's way (`gen.cycles`). Every rule is one that the circuit's own documents state; tests
compare every transfer with simulation.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from xnorforge.gen.cycle_engine import engine_stage
from xnorforge.gen.cycle_stage import Stage, Times
from xnorforge.hw.add import AddConfig
from xnorforge.hw.concat import ConcatConfig
from xnorforge.hw.fork import ForkConfig
from xnorforge.hw.head import HeadConfig
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.pool import PoolConfig
from xnorforge.hw.threshold import ThresholdConfig
from xnorforge.hw.tile_pool import TilePoolConfig
from xnorforge.hw.width import WidthConverterConfig
from xnorforge.hw.window import WindowConfig

__all__ = ["RULES", "Stage", "StageConfig", "Times"]

StageConfig = (
    WidthConverterConfig
    | MvuConfig
    | HeadConfig
    | WindowConfig
    | PoolConfig
    | ThresholdConfig
    | TilePoolConfig
    | AddConfig
    | ConcatConfig
    | ForkConfig
)


class ConverterStage(Stage):
    """A WidthConverter: its unit is a vector."""

    def __init__(self, config: WidthConverterConfig, inputs: Times, outputs: Times):
        super().__init__(inputs, outputs)
        lanes_in, lanes_out = config.lanes_in, config.lanes_out
        self.in_beats, self.out_beats = config.beats_in, config.beats_out
        # For each output beat the input beats it is made of; for each input beat the output beats
        # that must have left.
        self.needed = [
            min(-(-(beat + 1) * lanes_out // lanes_in), self.in_beats)
            for beat in range(self.out_beats)
        ]
        self.gone = [beat * lanes_in // lanes_out for beat in range(self.in_beats)]

    def advance(self) -> None:
        inputs, outputs, offers, accepts = self.inputs, self.outputs, self.offers, self.accepts
        in_beats, out_beats = self.in_beats, self.out_beats
        known = len(inputs)
        vector, beat = divmod(len(offers), out_beats)
        while (last := vector * in_beats + self.needed[beat] - 1) < known:
            offers.append(inputs[last] + 1)
            beat += 1
            if beat == out_beats:
                vector, beat = vector + 1, 0
        known = len(outputs)
        vector, beat = divmod(len(accepts), in_beats)
        while (last := vector * out_beats + self.gone[beat] - 1) < known:
            accepts.append(outputs[last] if last >= 0 else 0)
            beat += 1
            if beat == in_beats:
                vector, beat = vector + 1, 0


class WindowStage(Stage):
    """A SlidingWindow: its unit is a map.

    A window's reads follow each other as fast as the stream takes them: the credits of the output
    queue never hold back a beat on `o` (each is at least a cycle after the one before it, and
    there are latency + 1 of them), only the reads themselves.
    """

    def __init__(self, config: WindowConfig, inputs: Times, outputs: Times):
        super().__init__(inputs, outputs)
        walk = config.walk
        self.in_beats, self.out_beats = config.beats_in, config.beats_out
        self.reach = max(-(-config.depth // walk.pixels), -(-config.credits // config.beats_out))
        self.pixel_beats, self.window_beats = config.pixel_beats, config.window_beats
        self.latency, self.credits = config.latency, config.credits
        self.need: list[int] = walk.need.ravel().tolist()
        self.base_steps: list[int] = walk.base_steps.tolist()
        self.pixels, self.skips = walk.pixels, bool(walk.skipped)
        self.accepts.extend([0] * config.ring_beats)
        self.ready = array("q")  # last read of each window, were it not for credits
        self.ended = array("q")  # last read of each window
        self.left = array("q")  # cycle in which each pixel leaves the ring
        self.let_go = array("q", [0] * int(walk.base[0, 0]))  # ... could, for each pixel

    def inner(self) -> list[tuple[Times, int]]:
        return [(self.ended, len(self.need)), (self.left, self.pixels)]

    def advance(self) -> None:
        self._open()
        self._end()
        self._leave()

    def _open(self) -> None:
        """Reads of windows whose pixels are there."""
        inputs, beats, known = self.inputs, self.pixel_beats, len(self.inputs)
        while True:
            frame, window = divmod(len(self.ready), len(self.need))
            last = (frame * self.pixels + self.need[window]) * beats - 1
            if last >= known:
                return
            start = inputs[last] + 1
            if self.ready and self.ready[-1] >= start:
                start = self.ready[-1] + 1
            end = start + self.window_beats
            self.ready.append(end - 1)
            self.offers.extend(range(start + self.latency, end + self.latency))

    def _end(self) -> None:
        """Last reads of windows, which let pixels go."""
        outputs, known = self.outputs, len(self.outputs)
        while (window := len(self.ended)) < len(self.ready):
            owed = (window + 1) * self.window_beats - 1 - self.credits
            if owed >= known:
                return
            end = self.ready[window]
            if owed >= 0 and outputs[owed] >= end:
                end = outputs[owed] + 1
            self.ended.append(end)
            self.let_go.extend([end + 1] * self.base_steps[window % len(self.need)])

    def _leave(self) -> None:
        """Pixels leave the ring one a cycle, none before it is there."""
        for pixel in range(len(self.left), len(self.let_go)):
            time = self.let_go[pixel]
            if self.left and self.left[-1] >= time:
                time = self.left[-1] + 1
            if self.skips:
                last = (pixel + 1) * self.pixel_beats - 1
                if last >= len(self.inputs):
                    return
                time = max(time, self.inputs[last] + 1)
            self.left.append(time)
            self.accepts.extend([time + 1] * self.pixel_beats)


class PoolStage(Stage):
    """A PoolReducer: its unit is a result."""

    def __init__(self, config: PoolConfig, inputs: Times, outputs: Times):
        super().__init__(inputs, outputs)
        self.in_beats, self.out_beats = config.taps, 1
        self.latency = config.latency

    def advance(self) -> None:
        taps = self.in_beats
        whole = len(self.inputs) // taps
        for result in range(len(self.offers), whole):
            self.offers.append(self.inputs[(result + 1) * taps - 1] + self.latency)
        for result in range(len(self.accepts) // taps, len(self.outputs) + 1):
            # A window's first beat can enter as the result before it leaves.
            self.accepts.extend([self.outputs[result - 1] if result else 0] * taps)


class TilePoolStage(Stage):
    """A TilePool: its unit is a map. A beat leaves as the result before it does, at the earliest;
    the next one enters in that cycle."""

    def __init__(self, config: TilePoolConfig, inputs: Times, outputs: Times):
        super().__init__(inputs, outputs)
        self.in_beats, self.out_beats = config.beats_in, config.beats_out
        finishing = config.finishing()
        self.finishing = frozenset(finishing)
        # For each beat the results of beats before it.
        self.given = [bisect_left(finishing, beat) for beat in range(self.in_beats)]
        self.accepts.append(0)

    def advance(self) -> None:
        inputs, outputs = self.inputs, self.outputs
        for beat in range(len(self.accepts) - 1, len(inputs)):
            map_, place = divmod(beat, self.in_beats)
            results = map_ * self.out_beats + self.given[place]
            if results > len(outputs):
                return
            leaves = inputs[beat] + 1
            if results and outputs[results - 1] > leaves:
                leaves = outputs[results - 1]
            self.accepts.append(leaves)
            if place in self.finishing:
                self.offers.append(leaves + 1)


class ThresholdStage(Stage):
    """A ThresholdUnit: its unit is a vector."""

    def __init__(self, config: ThresholdConfig, inputs: Times, outputs: Times):
        super().__init__(inputs, outputs)
        self.in_beats = self.out_beats = config.nf
        self.latency, self.interval, self.credits = config.latency, config.interval, config.credits
        self.reach = -(-config.credits // config.nf)

    def advance(self) -> None:
        self.offers.extend([t + self.latency for t in self.inputs[len(self.offers) :]])
        # One beat at least `interval` cycles after the one before it, and with room in the queue.
        end = min(len(self.inputs) + 1, len(self.outputs) + self.credits)
        for n in range(len(self.accepts), end):
            time = self.inputs[n - 1] + self.interval if n else 0
            if n >= self.credits:
                time = max(time, self.outputs[n - self.credits] + 1)
            self.accepts.append(time)


class HeadStage(Stage):
    """An ArgMaxHead: its unit is an image's scores."""

    def __init__(self, config: HeadConfig, inputs: Times, outputs: Times):
        super().__init__(inputs, outputs)
        self.in_beats = self.out_beats = config.classes
        self.latency = config.latency

    def advance(self) -> None:
        self.offers.extend([t + self.latency for t in self.inputs[len(self.offers) :]])
        if not self.accepts:
            self.accepts.append(0)
        self.accepts.extend(self.outputs[len(self.accepts) - 1 :])


RULES: dict[type, Callable[[Any, Times, Times], Stage]] = {
    WidthConverterConfig: ConverterStage,
    MvuConfig: engine_stage,
    HeadConfig: HeadStage,
    WindowConfig: WindowStage,
    PoolConfig: PoolStage,
    ThresholdConfig: ThresholdStage,
    TilePoolConfig: TilePoolStage,
}
