# SPDX-License-Identifier: BSD-2-Clause
"""Exact cycle model: when every beat of every stream moves, without simulating a circuit.

The core is a chain of stages joined by streams. Each stage has fixed rules for when it can offer
its n-th output beat and when it can take its n-th input beat, all of the form "so many cycles
after such an earlier transfer". A transfer happens in the first cycle in which the stream before
it is free, the producer offers and the consumer takes; so every time is a maximum of sums of
earlier times (a timed event graph; Baccelli et al., "Synchronization and Linearity", 1992,
chapter 2), and evaluating the recurrences in dependency order gives the simulation's own numbers.
It holds for any gaps of the source and any fold; the sink is taken to be always ready.
`gen.cycle_stages` holds the rules.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from math import lcm

import numpy as np

from xnorforge.gen.cycle_stages import RULES, Stage, StageConfig, Times
from xnorforge.hw.head import HeadConfig
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.window import WindowConfig

__all__ = ["Prediction", "StageConfig", "Timeline", "predict", "timeline"]

_MOST_FRAMES = 4000
_LONGEST_PERIOD = 16


@dataclass(frozen=True)
class Timeline:
    """Cycle numbers of the transfers at the core's ends, cycle 0 = first with the reset low."""

    image: list[int]
    result: list[int]


@dataclass(frozen=True)
class Prediction:
    """What a plan will do with a source that is always valid and a sink that is always ready.

    first_output_cycles: first image beat taken -> first result beat given.
    frame_latency_cycles: first image beat taken -> result beat with the label.
    interval_cycles: steady cycles per image (exact, a fraction when frames alternate).
    stage_intervals: cycles per image that each stage needs by itself.
    """

    first_output_cycles: int
    frame_latency_cycles: int
    interval_cycles: Fraction
    stage_intervals: tuple[int, ...]


class _Chain:
    """Stages joined by streams; stream s carries beats from stage s - 1 to stage s."""

    def __init__(self, configs: Sequence[StageConfig]):
        self.streams: list[Times] = [array("q") for _ in range(len(configs) + 1)]
        self.stages: list[Stage] = [
            RULES[type(config)](config, self.streams[i], self.streams[i + 1])
            for i, config in enumerate(configs)
        ]
        self.units = _units(self.stages)
        # Beats an image on each stream.
        self.beats = [
            units * stage.in_beats for units, stage in zip(self.units, self.stages, strict=True)
        ]
        self.beats.append(self.units[-1] * self.stages[-1].out_beats)

    def run(self, frames: int, gaps: Sequence[int] | None) -> None:
        """Evaluate until all beats of `frames` images have moved, or nothing moves any more.

        gaps: idle cycles of the source before each image beat; None: a source without gaps or
            end.
        """
        last = len(self.streams) - 1
        wanted = [frames * beats for beats in self.beats]
        progress = True
        while progress and any(
            len(stream) < count for stream, count in zip(self.streams, wanted, strict=True)
        ):
            progress = False
            for s, stream in enumerate(self.streams):
                if s:
                    self.stages[s - 1].advance()
                if s < last:
                    self.stages[s].advance()
                first = len(stream)
                end = len(self.stages[s].accepts) if s < last else len(self.stages[s - 1].offers)
                if s:
                    end = min(end, len(self.stages[s - 1].offers))
                elif gaps is not None:
                    end = min(end, len(gaps))
                if first >= end:
                    continue
                progress = True
                accepts = self.stages[s].accepts[first:end] if s < last else [0] * (end - first)
                if s:
                    _move(stream, self.stages[s - 1].offers[first:end], accepts)
                elif gaps is None:
                    _move(stream, accepts, accepts)
                else:
                    _move_after(stream, gaps[first:end], accepts)


def _move(stream: Times, offers: Sequence[int], accepts: Sequence[int]) -> None:
    """Transfers in the first cycles that both sides allow, each after the one before it."""
    time = stream[-1] if stream else -1
    for offered, accepted in zip(offers, accepts, strict=True):
        time += 1
        if offered > time:
            time = offered
        if accepted > time:
            time = accepted
        stream.append(time)


def _move_after(stream: Times, gaps: Sequence[int], accepts: Sequence[int]) -> None:
    """Transfers of a source that pauses after each."""
    time = stream[-1] if stream else -1
    for gap, accepted in zip(gaps, accepts, strict=True):
        time = max(time + 1 + gap, accepted)
        stream.append(time)


def _units(stages: Sequence[Stage]) -> list[int]:
    """How many units of its work each stage does for an image."""
    units = [Fraction(1)]
    for before, after in zip(stages[-2::-1], stages[:0:-1], strict=True):
        units.append(units[-1] * after.in_beats / before.out_beats)
    whole = lcm(*(unit.denominator for unit in units))
    return [int(unit * whole) for unit in reversed(units)]


def timeline(
    configs: Sequence[StageConfig], frames: int, gaps: Sequence[int] | None = None
) -> Timeline:
    """Transfer times of `frames` images through the stages.

    configs: the core's stages in order, as `gen.assembly.core_stages` gives them.
    gaps: idle cycles of the source before each image beat, counted from the transfer of the beat
        before; None: none.
    """
    chain = _Chain(configs)
    chain.run(frames, [0] * (frames * chain.beats[0]) if gaps is None else gaps)
    return Timeline(image=chain.streams[0].tolist(), result=chain.streams[-1].tolist())


def predict(configs: Sequence[StageConfig]) -> Prediction:
    """Latency and steady interval of a chain of stages."""
    chain, ends, period = _steady(configs)
    image, result = chain.streams[0], chain.streams[-1]
    return Prediction(
        first_output_cycles=result[0] - image[0],
        frame_latency_cycles=ends[0] - image[0],
        interval_cycles=Fraction(ends[-1] - ends[-1 - period], period),
        stage_intervals=tuple(
            units * _alone(config) for units, config in zip(chain.units, configs, strict=True)
        ),
    )


def _steady(configs: Sequence[StageConfig]) -> tuple[_Chain, list[int], int]:
    """A chain evaluated into its steady state, the times of the images' last results, and the
    period in images.

    The steady state is reached when the times of a run of frames repeat, shifted; the run is as
    long as any rule looks back, so equal runs stay equal for ever.
    """
    chain = _Chain(configs)
    events = list(zip(chain.streams, chain.beats, strict=True))
    for stage, units in zip(chain.stages, chain.units, strict=True):
        events += [(times, units * count) for times, count in stage.inner()]
    reach = 2 + max(
        -(-stage.reach // units) for stage, units in zip(chain.stages, chain.units, strict=True)
    )
    ends: list[int] = []
    shapes: list[bytes] = []
    for frame in range(_MOST_FRAMES - 2 * reach):
        # Some of a frame's events, such as the last slots it frees, come with the next frame.
        chain.run(frame + 2, None)
        end = chain.streams[-1][(frame + 1) * chain.beats[-1] - 1]
        ends.append(end)
        shapes.append(_shape(events, frame, end))
        period = _period(shapes, ends, reach)
        if period:
            return chain, ends, period
    raise RuntimeError(f"No steady state within {_MOST_FRAMES} frames")


def _shape(events: Sequence[tuple[Times, int]], frame: int, end: int) -> bytes:
    """A digest of the times of a frame's transfers and events, relative to its last result."""
    digest = blake2b(digest_size=16)
    for times, count in events:
        part = np.array(times[frame * count : (frame + 1) * count], dtype=np.int64)
        digest.update((part - end).tobytes())
    return digest.digest()


def _period(shapes: list[bytes], ends: list[int], reach: int) -> int:
    """Frames after which the last `reach` frames repeat, 0 if they do not."""
    frame = len(shapes) - 1
    for period in range(1, min(_LONGEST_PERIOD, frame - reach) + 1):
        if all(
            shapes[frame - back] == shapes[frame - back - period]
            and ends[frame - back] - ends[frame - back - 1]
            == ends[frame - back - period] - ends[frame - back - period - 1]
            for back in range(reach)
            if frame - back - period - 1 >= 0
        ):
            return period
    return 0


@lru_cache(maxsize=256)
def _alone(config: StageConfig) -> int:
    """Cycles a unit of one stage's work between an ideal source and sink."""
    if isinstance(config, WindowConfig):
        _, ends, period = _steady([config])
        return -(-(ends[-1] - ends[-1 - period]) // period)
    if isinstance(config, MvuConfig):
        return config.interval * config.vectors
    if isinstance(config, HeadConfig):
        return config.classes * config.interval
    return config.interval
