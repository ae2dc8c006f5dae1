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
from math import ceil, lcm

import numpy as np

from xnorforge.gen.cycle_stages import RULES, Stage, StageConfig, Times
from xnorforge.hw.head import HeadConfig
from xnorforge.hw.mvu import MvuConfig

__all__ = ["Prediction", "StageConfig", "Timeline", "predict", "timeline"]

_MOST_FRAMES = 4000
_FEW_FRAMES = 64
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


@dataclass(eq=False)
class _Stream:
    """Transfers between two stages; None stands for the core's source or sink.

    frame: beats an image. offers, accepts: what the stages before and after it say.
    """

    times: Times
    before: int | None
    after: int | None
    offers: Times | None = None
    accepts: Times | None = None
    frame: int = 0


class _Chain:
    """Stages joined by streams; stream s carries beats from stage s - 1 to stage s."""

    def __init__(self, configs: Sequence[StageConfig]):
        last = len(configs)
        self.streams = [
            _Stream(array("q"), s - 1 if s else None, s if s < last else None)
            for s in range(last + 1)
        ]
        self.stages: list[Stage] = [
            RULES[type(config)](config, self.streams[s].times, self.streams[s + 1].times)
            for s, config in enumerate(configs)
        ]
        self.units = _units(self.stages)
        for stage, units, before, after in zip(
            self.stages, self.units, self.streams, self.streams[1:], strict=False
        ):
            before.accepts, before.frame = stage.accepts, units * stage.in_beats
            after.offers, after.frame = stage.offers, units * stage.out_beats

    def run(
        self, frames: int, gaps: Sequence[int] | None = None, pace: Fraction = Fraction(0)
    ) -> None:
        """Evaluate until all beats of `frames` images have moved, or nothing moves any more.

        gaps: idle cycles of the source before each image beat; None: a source without gaps or
            end. pace: such a source begins image f not before cycle `f * pace`.
        """
        stale = [True] * len(self.stages)
        while any(stale):
            for index, stage in enumerate(self.stages):
                if stale[index]:
                    stale[index] = False
                    stage.advance()
            for stream in self.streams:
                moved = _move(stream) if stream.offers is not None else _send(stream, gaps, pace)
                if moved:
                    for index in (stream.before, stream.after):
                        if index is not None:
                            stale[index] = True
            if all(len(s.times) >= frames * s.frame for s in self.streams):
                return


def _move(stream: _Stream) -> bool:
    """Transfers in the first cycles that both sides allow, each after the one before it.

    Whether there was any.
    """
    times, offers, accepts = stream.times, stream.offers, stream.accepts
    assert offers is not None
    first, end = len(times), len(offers)
    if accepts is not None:
        end = min(end, len(accepts))
    if first >= end:
        return False
    accepted_at = offers if accepts is None else accepts
    time = times[-1] if first else -1
    for offered, accepted in zip(offers[first:end], accepted_at[first:end], strict=True):
        time += 1
        if offered > time:
            time = offered
        if accepted > time:
            time = accepted
        times.append(time)
    return True


def _send(stream: _Stream, gaps: Sequence[int] | None, pace: Fraction) -> bool:
    """The source's transfers, as `_move`."""
    times, accepts = stream.times, stream.accepts
    assert accepts is not None
    first, end = len(times), len(accepts)
    if gaps is not None:
        end = min(end, len(gaps))
    time = times[-1] if first else -1
    for beat in range(first, end):
        time += 1
        if gaps is not None:
            time += gaps[beat]
        elif beat % stream.frame == 0:
            time = max(time, ceil(beat // stream.frame * pace))
        if accepts[beat] > time:
            time = accepts[beat]
        times.append(time)
    return first < end


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
    source, sink = chain.streams[0], chain.streams[-1]
    chain.run(frames, [0] * (frames * source.frame) if gaps is None else gaps)
    return Timeline(image=source.times.tolist(), result=sink.times.tolist())


def predict(configs: Sequence[StageConfig]) -> Prediction:
    """Latency and steady interval of a chain of stages."""
    chain = _Chain(configs)
    chain.run(1)
    image, result = chain.streams[0].times, chain.streams[-1]
    alone = tuple(
        units * _alone(config) for units, config in zip(chain.units, configs, strict=True)
    )
    return Prediction(
        first_output_cycles=result.times[0] - image[0],
        frame_latency_cycles=result.times[result.frame - 1] - image[0],
        interval_cycles=_interval(configs, max(alone)),
        stage_intervals=tuple(ceil(interval) for interval in alone),
    )


def _interval(configs: Sequence[StageConfig], least: Fraction = Fraction(0)) -> Fraction:
    """Steady cycles per image. least: cycles that it takes at least.

    Buffers between stages of nearly equal speed fill up over hundreds of images before times
    repeat. A source that begins an image every `least` cycles spares them that: if all goes on at
    this pace, then so it does with a source that is always valid, since what comes earlier can
    make nothing later. If the images take longer, the source's pace soon has no say.
    """
    for pace, most in ((least, _FEW_FRAMES), (Fraction(0), _MOST_FRAMES)):
        interval = _steady(_Chain(configs), pace, most)
        if interval is not None:
            return interval
    raise RuntimeError(f"No steady state within {_MOST_FRAMES} frames")


def _steady(chain: _Chain, pace: Fraction, most: int) -> Fraction | None:
    """Cycles per image when the times of a run of frames repeat, shifted, within `most` frames.

    The run is as long as any rule looks back, so equal runs stay equal for ever.
    """
    events = [(stream.times, stream.frame) for stream in chain.streams]
    for stage, units in zip(chain.stages, chain.units, strict=True):
        events += [(times, units * count) for times, count in stage.inner()]
    reach = 2 + max(
        -(-stage.reach // units) for stage, units in zip(chain.stages, chain.units, strict=True)
    )
    sink = chain.streams[-1]
    ends: list[int] = []
    shapes: list[bytes] = []
    for frame in range(most):
        # Some of a frame's events, such as the last slots it frees, come with the next frame.
        chain.run(frame + 2, pace=pace)
        end = sink.times[(frame + 1) * sink.frame - 1]
        ends.append(end)
        shapes.append(_shape(events, frame, end))
        period = _period(shapes, ends, reach)
        if period:
            return Fraction(ends[-1] - ends[-1 - period], period)
    return None


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


@lru_cache(maxsize=1024)
def _alone(config: StageConfig) -> Fraction:
    """Cycles a unit of one stage's work between an ideal source and sink."""
    if isinstance(config, MvuConfig):
        return Fraction(config.interval * config.vectors)
    if isinstance(config, HeadConfig):
        return Fraction(config.classes * config.interval)
    return _interval([config])
