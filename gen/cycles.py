# SPDX-License-Identifier: BSD-2-Clause
"""Exact cycle model: when every beat of every stream moves, without simulating a circuit.

The core is a network of stages joined by streams. Each stage has fixed rules for when it can offer
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from itertools import count, islice
from math import ceil, lcm
from typing import Any, Protocol

import numpy as np

from xnorforge.gen.cycle_engine import EngineStage
from xnorforge.gen.cycle_joins import AddStage, ConcatStage, ForkStage, JoinStage
from xnorforge.gen.cycle_stages import RULES, Stage, StageConfig, Times
from xnorforge.gen.errors import PlanError
from xnorforge.hw.add import AddConfig
from xnorforge.hw.concat import ConcatConfig
from xnorforge.hw.fork import ForkConfig
from xnorforge.hw.head import HeadConfig
from xnorforge.hw.mvu import MvuConfig

__all__ = ["Prediction", "StageConfig", "Timeline", "paced_interval", "predict", "timeline"]

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


class Pipeline(Protocol):
    """Stages joined by streams: what `gen.assembly.core_parts` gives.

    beats: of an image. wires: for each stage the (stage, output) that it takes from, stage -1 the
    source; only the last stage's output is nobody's.
    """

    @property
    def beats(self) -> int: ...

    @property
    def stages(self) -> tuple[StageConfig, ...]: ...

    @property
    def wires(self) -> tuple[tuple[tuple[int, int], ...], ...]: ...


@dataclass(frozen=True)
class _Row:
    """Stages one behind the other."""

    beats: int
    stages: tuple[StageConfig, ...]

    @property
    def wires(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        return tuple(((index - 1, 0),) for index in range(len(self.stages)))


def _pipeline(stages: Sequence[StageConfig] | Pipeline) -> Pipeline:
    """Stages in a row, of which the last does one unit of work an image, as a Pipeline."""
    if not isinstance(stages, Sequence):
        return stages
    rules = [RULES[type(config)](config, array("q"), array("q")) for config in stages]
    units = [Fraction(1)]
    for before, after in zip(rules[-2::-1], rules[:0:-1], strict=True):
        units.append(units[-1] * after.in_beats / before.out_beats)
    whole = lcm(*(unit.denominator for unit in units))
    return _Row(int(units[-1] * whole) * rules[0].in_beats, tuple(stages))


@dataclass(eq=False)
class _Stream:
    """Transfers between two stages; None stands for the core's source or sink.

    frame: beats an image. offers, accepts: what the stages before and after it say.
    """

    frame: int
    before: int | None
    offers: Times | None = None
    times: Times = field(default_factory=lambda: array("q"))
    after: int | None = None
    accepts: Times | None = None


class _Network:
    """The stages of a pipeline and the streams between them. units: of work an image."""

    def __init__(self, pipeline: Pipeline):
        self.source = _Stream(pipeline.beats, None)
        self.streams = [self.source]
        self.stages: list[Stage | JoinStage] = []
        self.units: list[int] = []
        # Stages that go on when a stage before them offers more, though nothing has moved.
        self.eager: dict[int, list[int]] = {}
        outputs: dict[tuple[int, int], _Stream] = {(-1, 0): self.source}
        for index, (config, wires) in enumerate(zip(pipeline.stages, pipeline.wires, strict=True)):
            inputs = [outputs.pop(wire) for wire in wires]
            given = [_Stream(0, index) for _ in range(_branches(config))]
            stage = self._stage(config, inputs, given)
            self.stages.append(stage)
            units = Fraction(inputs[0].frame, _ports(stage.in_beats)[0])
            if units.denominator != 1:
                raise ValueError(f"Stage {index} does {units} units of its work an image")
            self.units.append(int(units))
            for stream, accepts in zip(inputs, _ports(stage.accepts), strict=True):
                stream.after, stream.accepts = index, accepts
                if isinstance(stage, AddStage) and stream.before is not None:
                    self.eager.setdefault(stream.before, []).append(index)
            for port, (stream, offers, beats) in enumerate(
                zip(given, _ports(stage.offers), _ports(stage.out_beats), strict=True)
            ):
                stream.offers, stream.frame = offers, int(units) * beats
                outputs[index, port] = stream
            self.streams += given
        (self.sink,) = outputs.values()
        # Streams that a stage takes from and gives to.
        self.beside = [
            [stream for stream in self.streams if index in (stream.before, stream.after)]
            for index in range(len(self.stages))
        ]

    def _stage(
        self, config: StageConfig, inputs: list[_Stream], outputs: list[_Stream]
    ) -> Stage | JoinStage:
        taken, given = [s.times for s in inputs], [s.times for s in outputs]
        if isinstance(config, AddConfig):
            offered = [stream.offers for stream in inputs if stream.offers is not None]
            return AddStage(config, taken, given, offered)
        if isinstance(config, ForkConfig):
            return ForkStage(config, taken, given)
        if isinstance(config, ConcatConfig):
            return ConcatStage(config, taken, given)
        stage = RULES[type(config)](config, taken[0], given[0])
        if isinstance(stage, EngineStage):
            stage.image = self.source.times
        return stage

    def run(
        self, frames: int, gaps: Sequence[int] | None = None, pace: Fraction = Fraction(0)
    ) -> None:
        """Evaluate until all beats of `frames` images have moved, or nothing moves any more.

        gaps: idle cycles of the source before each image beat; None: a source without gaps or
            end. pace: such a source begins image f not before cycle `f * pace`.
        """
        stale = [True] * len(self.stages)
        goals = [(stream.times, frames * stream.frame) for stream in self.streams]
        # Beats are followed down the pipeline, then the room that they left up again.
        sweep = list(enumerate(self.stages))
        while any(stale):
            for index, stage in sweep:
                if not stale[index]:
                    continue
                stale[index] = False
                stage.advance()
                for eager in self.eager.get(index, ()):
                    stale[eager] = True
                for stream in self.beside[index]:
                    source = stream.offers is None
                    if _send(stream, gaps, pace) if source else _move(stream):
                        for side in (stream.before, stream.after):
                            if side is not None:
                                stale[side] = True
            if all(len(times) >= goal for times, goal in goals):
                return
            sweep.reverse()


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


def _branches(config: StageConfig) -> int:
    """Outputs of a stage."""
    return len(config.depths) if isinstance(config, ForkConfig) else 1


def _ports(value: Any) -> tuple[Any, ...]:
    """What a stage says of each of its ports; most stages have one."""
    return value if isinstance(value, tuple) else (value,)


def timeline(
    stages: Sequence[StageConfig] | Pipeline, frames: int, gaps: Sequence[int] | None = None
) -> Timeline:
    """Transfer times of `frames` images through the stages.

    stages: a core's parts (`gen.assembly.core_parts`), or stages one behind the other.
    gaps: idle cycles of the source before each image beat, counted from the transfer of the beat
        before; None: none.
    """
    network = _Network(_pipeline(stages))
    source = network.source
    network.run(frames, [0] * (frames * source.frame) if gaps is None else gaps)
    return Timeline(image=source.times.tolist(), result=network.sink.times.tolist())


def predict(stages: Sequence[StageConfig] | Pipeline) -> Prediction:
    """Latency and steady interval of stages, given as for `timeline`.

    Raises PlanError where a queue between two paths is too shallow: nothing moves any more.
    """
    pipeline = _pipeline(stages)
    network = _Network(pipeline)
    network.run(1)
    image, result = network.source.times, network.sink
    if len(result.times) < result.frame:
        raise PlanError(
            f"The queues of this plan lock: after {len(image)} beats of an image "
            f"{len(result.times)} of {result.frame} results have come"
        )
    alone = [
        units * _alone(config) for units, config in zip(network.units, pipeline.stages, strict=True)
    ]
    return Prediction(
        first_output_cycles=result.times[0] - image[0],
        frame_latency_cycles=result.times[result.frame - 1] - image[0],
        interval_cycles=_interval(pipeline, max(alone)),
        stage_intervals=tuple(ceil(interval) for interval in alone),
    )


def _interval(pipeline: Pipeline, least: Fraction = Fraction(0)) -> Fraction:
    """Steady cycles per image. least: cycles that it takes at least.

    Buffers between stages of nearly equal speed fill up over hundreds of images before times
    repeat. A source that begins an image every `least` cycles spares them that: if all goes on at
    this pace, then so it does with a source that is always valid, since what comes earlier can
    make nothing later. If the images take longer, the source's pace soon has no say.
    """
    for pace, most in ((least, _FEW_FRAMES), (Fraction(0), _MOST_FRAMES)):
        for interval in islice(_settling(_Network(pipeline), pace), most):
            if interval is not None:
                return interval
    raise RuntimeError(f"No steady state within {_MOST_FRAMES} frames")


def paced_interval(
    stages: Sequence[StageConfig] | Pipeline, least: Fraction | int, most: int = _FEW_FRAMES
) -> Fraction | None:
    """Steady cycles per image of a source that begins one every `least` cycles at most.

    `least` itself where the stages keep up, which shows sooner than their own interval. None where
    nothing moves any more, or within `most` images no steady state shows.
    """
    pipeline, least = _pipeline(stages), Fraction(least)
    # What falls behind shows soonest with a source that is always valid.
    runs = [_settling(_Network(pipeline), pace) for pace in (least, Fraction(0))]
    for _ in range(most):
        for run in runs:
            interval = next(run, None)
            if interval is not None:
                return max(interval, least)
    return None


def _settling(network: _Network, pace: Fraction) -> Iterator[Fraction | None]:
    """Frame after frame: cycles per image once the times of a run of frames repeat, shifted.

    The run is as long as any rule looks back, so equal runs stay equal for ever. Ends where
    nothing moves any more.
    """
    events = [(stream.times, stream.frame) for stream in network.streams]
    for stage, units in zip(network.stages, network.units, strict=True):
        events += [(times, units * each) for times, each in stage.inner()]
    reach = 2 + max(
        -(-stage.reach // units) for stage, units in zip(network.stages, network.units, strict=True)
    )
    # Cycles after which the turns of all shared memories repeat.
    turns = max((s.share for s in network.stages if isinstance(s, EngineStage)), default=1)
    sink = network.sink
    ends: list[int] = []
    shapes: list[bytes] = []
    for frame in count():
        # Some of a frame's events, such as the last slots it frees, come with the next frame.
        network.run(frame + 2, pace=pace)
        if len(sink.times) < (frame + 1) * sink.frame:
            return
        end = sink.times[(frame + 1) * sink.frame - 1]
        ends.append(end)
        shapes.append(_shape(events, frame, end, end % turns))
        period = _period(shapes, ends, reach)
        yield Fraction(ends[-1] - ends[-1 - period], period) if period else None


def _shape(events: Sequence[tuple[Times, int]], frame: int, end: int, turn: int) -> bytes:
    """A digest of the times of a frame's transfers and events, relative to its last result.

    turn: of shared memories, in the cycle of that result.
    """
    digest = blake2b(turn.to_bytes(1, "little"), digest_size=16)
    for times, each in events:
        part = np.array(times[frame * each : (frame + 1) * each], dtype=np.int64)
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
    if isinstance(config, MvuConfig) and config.reuse == 1:
        return Fraction(config.image_cycles)
    if isinstance(config, HeadConfig):
        return Fraction(config.classes * config.interval)
    if isinstance(config, AddConfig):
        return Fraction(config.interval * config.nf)
    if isinstance(config, ConcatConfig | ForkConfig):
        return Fraction(config.interval)
    return _interval(_pipeline([config]))
