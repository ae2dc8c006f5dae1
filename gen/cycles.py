# SPDX-License-Identifier: BSD-2-Clause
"""Exact cycle model: when every beat of every stream moves, without simulating a circuit.

The core is a chain of stages joined by streams. Each stage has fixed rules for when it can offer
its n-th output beat and when it can take its n-th input beat, all of the form "so many cycles
after such an earlier transfer". A transfer happens in the first cycle in which the stream before
it is free, the producer offers and the consumer takes; so every time is a maximum of sums of
earlier times (a timed event graph; Baccelli et al., "Synchronization and Linearity", 1992,
chapter 2), and evaluating the recurrences in dependency order gives the simulation's own numbers.
It holds for any gaps of the source and any fold; the sink is taken to be always ready.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from xnorforge.hw.head import HeadConfig
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.width import WidthConverterConfig

__all__ = ["Prediction", "StageConfig", "Timeline", "predict", "timeline"]

StageConfig = WidthConverterConfig | MvuConfig | HeadConfig

_MOST_FRAMES = 4000


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


class _Stage(ABC):
    """Transfer times of one stage's input and output beats, and its two rules.

    `offer(n)` / `accept(n)`: earliest cycle of output / input transfer n by this stage's own
    rules, or None while that is not known yet.
    """

    in_beats: int  # a frame
    out_beats: int

    def __init__(self, inputs: list[int], outputs: list[int]):
        self.inputs = inputs
        self.outputs = outputs

    @abstractmethod
    def offer(self, n: int) -> int | None: ...

    @abstractmethod
    def accept(self, n: int) -> int | None: ...

    def advance(self) -> None:  # noqa: B027 - most stages have no inner events
        """Work out inner events that have become known."""


def _known(times: list[int], n: int, after: int) -> int | None:
    """`times[n] + after`, 0 for n before the first, None while unknown."""
    if n < 0:
        return 0
    return times[n] + after if n < len(times) else None


class _Converter(_Stage):
    def __init__(self, config: WidthConverterConfig, inputs: list[int], outputs: list[int]):
        super().__init__(inputs, outputs)
        self.lanes_in, self.lanes_out = config.lanes_in, config.lanes_out
        self.in_beats = -(-config.elements // config.lanes_in)
        self.out_beats = -(-config.elements // config.lanes_out)

    def offer(self, n: int) -> int | None:
        frame, beat = divmod(n, self.out_beats)
        needed = min(-(-(beat + 1) * self.lanes_out // self.lanes_in), self.in_beats)
        return _known(self.inputs, frame * self.in_beats + needed - 1, 1)

    def accept(self, n: int) -> int | None:
        frame, beat = divmod(n, self.in_beats)
        gone = beat * self.lanes_in // self.lanes_out
        return _known(self.outputs, frame * self.out_beats + gone - 1, 0)


class _Mvu(_Stage):
    def __init__(self, config: MvuConfig, inputs: list[int], outputs: list[int]):
        super().__init__(inputs, outputs)
        self.c = config
        self.in_beats, self.out_beats = config.sf, config.nf
        self.depth, self.credits = config.buffer_depth, config.credits
        self.read_delay, self.latency = config.read_delay, config.latency
        self.completed: list[int] = []  # issue of each result's last step
        self.freed: list[int] = []  # cycle in which each input beat's slot is released
        self.issued = -1  # the latest issue
        self.sf_done = 0  # beats of the first pass whose steps are issued

    def offer(self, n: int) -> int | None:
        return _known(self.completed, n, self.latency)

    def accept(self, n: int) -> int | None:
        return _known(self.freed, n - self.depth, 1)

    def advance(self) -> None:
        sf, nf, groups = self.c.sf, self.c.nf, self.c.groups
        while True:
            result = len(self.completed)
            vector, fold = divmod(result, nf)
            frees = fold == nf - 1
            credit = _known(self.outputs, result - self.credits, 1)
            if fold == 0:
                while self.sf_done < sf:
                    arrived = _known(self.inputs, vector * sf + self.sf_done, 1)
                    if arrived is None:
                        return
                    step = max(self.issued + 1, arrived) + groups - 1
                    if self.sf_done == sf - 1:
                        if credit is None:
                            return
                        step = max(step, credit)
                    self.issued = step
                    self.sf_done += 1
                    if frees:
                        self.freed.append(step + self.read_delay)
                self.sf_done = 0
            else:
                if credit is None:
                    return
                start = self.issued
                self.issued = max(start + sf * groups, credit)
                if frees:
                    for beat in range(1, sf):
                        self.freed.append(start + beat * groups + self.read_delay)
                    self.freed.append(self.issued + self.read_delay)
            self.completed.append(self.issued)


class _Head(_Stage):
    def __init__(self, config: HeadConfig, inputs: list[int], outputs: list[int]):
        super().__init__(inputs, outputs)
        self.in_beats = self.out_beats = config.classes
        self.latency = config.latency

    def offer(self, n: int) -> int | None:
        return _known(self.inputs, n, self.latency)

    def accept(self, n: int) -> int | None:
        return _known(self.outputs, n - 1, 0)


_RULES = {WidthConverterConfig: _Converter, MvuConfig: _Mvu, HeadConfig: _Head}


class _Chain:
    """Stages joined by streams; stream s carries beats from stage s - 1 to stage s."""

    def __init__(self, configs: Sequence[StageConfig]):
        self.streams: list[list[int]] = [[] for _ in range(len(configs) + 1)]
        self.stages = [
            _RULES[type(config)](config, self.streams[i], self.streams[i + 1])
            for i, config in enumerate(configs)
        ]

    def run(self, gaps: Sequence[int] | None, results: int) -> None:
        """Evaluate until `results` result beats have moved (or the source runs dry).

        gaps: idle cycles of the source before each image beat; None: a source without gaps or
            end.
        """
        last = len(self.streams) - 1
        while len(self.streams[last]) < results:
            progress = False
            for s, stream in enumerate(self.streams):
                if s:
                    self.stages[s - 1].advance()
                while True:
                    n = len(stream)
                    free = stream[-1] + 1 if n else 0
                    if s:
                        offered = self.stages[s - 1].offer(n)
                    elif gaps is None:
                        offered = free
                    else:
                        offered = free + gaps[n] if n < len(gaps) else None
                    if offered is None:
                        break
                    taken = self.stages[s].accept(n) if s < last else 0
                    if taken is None:
                        break
                    stream.append(max(free, offered, taken))
                    progress = True
            if not progress:
                return


def timeline(
    configs: Sequence[StageConfig], frames: int, gaps: Sequence[int] | None = None
) -> Timeline:
    """Transfer times of `frames` images through the stages.

    configs: the core's stages in order, as `gen.assembly.core_stages` gives them.
    gaps: idle cycles of the source before each image beat, counted from the transfer of the beat
        before; None: none.
    """
    chain = _Chain(configs)
    beats = frames * chain.stages[0].in_beats
    chain.run([0] * beats if gaps is None else gaps, frames * chain.stages[-1].out_beats)
    return Timeline(image=chain.streams[0], result=chain.streams[-1])


def predict(configs: Sequence[StageConfig]) -> Prediction:
    """Latency and steady interval of a chain of stages.

    The steady state is reached when the times of a run of frames repeat, shifted; the run is as
    long as any rule looks back, so equal runs stay equal for ever.
    """
    chain = _Chain(configs)
    reach = 2 + max(
        max(-(-c.buffer_depth // c.sf), -(-c.credits // c.nf))
        for c in configs
        if isinstance(c, MvuConfig)
    )
    per_frame = [stage.in_beats for stage in chain.stages] + [chain.stages[-1].out_beats]
    ends: list[int] = []
    shapes: list[tuple[int, ...]] = []
    for frame in range(_MOST_FRAMES - 2 * reach):
        # Later frames' images are already on their way: evaluate them too before comparing.
        chain.run(None, (frame + 1) * per_frame[-1])
        end = chain.streams[-1][(frame + 1) * per_frame[-1] - 1]
        ends.append(end)
        shapes.append(
            tuple(
                t - end
                for stream, beats in zip(chain.streams, per_frame, strict=True)
                for t in stream[frame * beats : (frame + 1) * beats]
            )
        )
        period = _period(shapes, ends, reach)
        if period:
            break
    else:
        raise RuntimeError(f"No steady state within {_MOST_FRAMES} frames")
    image, result = chain.streams[0], chain.streams[-1]
    return Prediction(
        first_output_cycles=result[0] - image[0],
        frame_latency_cycles=ends[0] - image[0],
        interval_cycles=Fraction(ends[-1] - ends[-1 - period], period),
        stage_intervals=tuple(_alone(config) for config in configs),
    )


def _period(shapes: list[tuple[int, ...]], ends: list[int], reach: int) -> int:
    """Frames after which the last `reach` frames repeat, 0 if they do not."""
    frame = len(shapes) - 1
    for period in range(1, min(16, frame - reach) + 1):
        if all(
            shapes[frame - back] == shapes[frame - back - period]
            and ends[frame - back] - ends[frame - back - 1]
            == ends[frame - back - period] - ends[frame - back - period - 1]
            for back in range(reach)
            if frame - back - period - 1 >= 0
        ):
            return period
    return 0


def _alone(config: StageConfig) -> int:
    """Cycles per frame of one stage between an ideal source and sink."""
    if isinstance(config, MvuConfig):
        return config.interval
    if isinstance(config, HeadConfig):
        return config.classes * config.interval
    out_beats = -(-config.elements // config.lanes_out)
    return max(-(-config.elements // config.lanes_in), out_beats)
