# SPDX-License-Identifier: BSD-2-Clause
"""The cycle model's rules of a MatrixVectorUnit: a vector after the other, or several windows.

Where the weights' memory serves several layers in turn, each step waits for the layer's own turn.
Turns count from the image beat that is taken first, so a step's times stay maxima of earlier ones,
rounded up.
"""

from __future__ import annotations

from array import array

from xnorforge.gen.cycle_stage import Stage, Times
from xnorforge.hw.mvu import MvuConfig

__all__ = ["EngineStage", "engine_stage"]


def engine_stage(config: MvuConfig, inputs: Times, outputs: Times) -> Stage:
    """The rule of an engine, between its streams."""
    kind = MvuStage if config.reuse == 1 else ReuseStage
    return kind(config, inputs, outputs)


class EngineStage(Stage):
    """What the two kinds of engine have in common. image: times of the core's image beats.

    sf, nf: beats a vector, results a vector. beat, first_pass, result: cycles of the steps of a
    beat, of a vector's first pass and of a result.
    """

    def __init__(self, config: MvuConfig, inputs: Times, outputs: Times):
        super().__init__(inputs, outputs)
        # Of the config, whose properties are worked out anew each time.
        self.sf, self.nf, self.share = config.sf, config.nf, config.share
        self.beat = config.groups * config.share
        self.first_pass = config.sf * self.beat
        self.result = config.result_cycles
        self.credits = config.credits
        self.in_beats = config.sf * config.vectors
        self.out_beats = config.nf * config.vectors
        self._issue_turn = config.issue_turn
        self.image = inputs
        self.released = config.read_delay + 1  # from a beat's last step to a free slot
        self.issued = -1  # the latest issue
        self.sf_done = 0  # beats of the first pass whose steps are issued

    def turn(self, time: int) -> int:
        """The first cycle from `time` on in which a step can be issued."""
        if self.share == 1:
            return time
        return time + (self.image[0] + self._issue_turn - time) % self.share


class MvuStage(EngineStage):
    """A MatrixVectorUnit: its unit is an image's vectors."""

    def __init__(self, config: MvuConfig, inputs: Times, outputs: Times):
        super().__init__(config, inputs, outputs)
        self.latency = config.latency
        self.reach = max(
            -(-config.buffer_depth // self.in_beats), -(-config.credits // self.out_beats)
        )
        self.accepts.extend([0] * config.buffer_depth)

    def inner(self) -> list[tuple[Times, int]]:
        return [(self.offers, self.out_beats), (self.accepts, self.in_beats)]

    def advance(self) -> None:
        sf, nf, beat, first_pass = self.sf, self.nf, self.beat, self.first_pass
        # Steps of the first pass wait for their beats, the last of a result for a credit.
        one_pass = self.result == first_pass
        while True:
            result = len(self.offers)
            vector, fold = divmod(result, nf)
            owed = result - self.credits
            credit = 0 if owed < 0 else None
            if 0 <= owed < len(self.outputs):
                credit = self.outputs[owed] + 1
            replayed = self.result
            if fold == 0:
                replayed -= first_pass
                if not self._first_pass(vector, one_pass, credit):
                    return
            if replayed:
                if credit is None:
                    return
                start = self.issued + replayed - first_pass
                self.issued = self.turn(max(start + first_pass, credit))
                if fold == nf - 1:
                    first = start + beat + self.released
                    self.accepts.extend(range(first, first + (sf - 1) * beat, beat))
                    self.accepts.append(self.issued + self.released)
            self.sf_done = 0
            self.offers.append(self.issued + self.latency)

    def _first_pass(self, vector: int, one_pass: bool, credit: int | None) -> bool:
        """Steps of a vector's first pass; whether all of them are known."""
        sf, wait = self.sf, self.beat - self.share
        end = sf - 1 if one_pass else sf
        frees = one_pass and self.nf == 1
        first = vector * sf
        issued = self.issued
        arrived = self.inputs[first + self.sf_done : first + end]
        for taken in arrived:
            issued = (issued if issued > taken else taken) + 1 + wait
            if self.share > 1:
                issued = self.turn(issued)
            if frees:
                self.accepts.append(issued + self.released)
        self.issued = issued
        self.sf_done += len(arrived)
        if self.sf_done == sf:
            return True
        if self.sf_done < end or credit is None or first + sf > len(self.inputs):
            return False
        self.issued = self.turn(max(max(issued, self.inputs[first + sf - 1]) + 1 + wait, credit))
        self.sf_done = sf
        if frees:
            self.accepts.append(self.issued + self.released)
        return True


class ReuseStage(EngineStage):
    """A MatrixVectorUnit whose weight words serve batches of windows: its unit is an image.

    A step of a vector's first pass waits for its beat of the batch's last window, the last step of
    a result for a place in the result store. A batch's words are read window by window, each at the
    earliest a cycle after it came and when the beat before it leaves; its place is free again with
    the last window's read. Slots of the buffer are taken by a batch's first window alone.
    """

    def __init__(self, config: MvuConfig, inputs: Times, outputs: Times):
        super().__init__(config, inputs, outputs)
        self.reuse, self.batches, self.windows = config.reuse, config.batches, config.window_count
        self.result_latency = config.result_latency
        self.span, self.words = config.sf * config.sets, config.result_words
        self.image_words = config.batches * self.words
        self.image_slots = config.batches * self.span
        self.reach = max(
            -(-config.buffer_depth // self.image_slots), -(-self.credits // self.image_words)
        )
        self.slots = array("q", [0] * config.buffer_depth)  # from when each slot can be taken
        self.stored = array("q")  # cycle in which each result word comes
        self.freed = array("q")  # ... in which its last read is

    def inner(self) -> list[tuple[Times, int]]:
        return [(self.stored, self.image_words), (self.slots, self.image_slots)]

    def advance(self) -> None:
        self._free()
        while self._compute():
            self._free()
        self._offer()
        self._accept()

    def _live(self, batch: int) -> int:
        """Windows of a batch."""
        return min(self.reuse, self.windows - batch % self.batches * self.reuse)

    def _window(self, batch: int, window: int) -> int:
        """Number of a batch's window since the first image."""
        frame, place = divmod(batch, self.batches)
        return frame * self.windows + place * self.reuse + window

    # --- rows ------------------------------------------------------------------------------

    def _compute(self) -> int:
        """Steps of results, whose last ones have places; how many results."""
        first_pass, beat, before = self.first_pass, self.beat, len(self.stored)
        while True:
            word = len(self.stored)
            batch, place = divmod(word, self.words)
            which, fold = divmod(place, self.nf)
            owed = word - self.credits
            credit = 0 if owed < 0 else None
            if 0 <= owed < len(self.freed):
                credit = self.freed[owed] + 1
            replayed = self.result
            if fold == 0:
                replayed -= first_pass
                if not self._first_pass(batch, which, credit):
                    break
            if replayed:
                if credit is None:
                    break
                start = self.issued + replayed - first_pass
                self.issued = self.turn(max(start + first_pass, credit))
                if fold == self.nf - 1:
                    first = start + beat + self.released
                    self.slots.extend(range(first, first + (self.sf - 1) * beat, beat))
                    self.slots.append(self.issued + self.released)
            self.sf_done = 0
            self.stored.append(self.issued + self.result_latency)
        return len(self.stored) - before

    def _first_pass(self, batch: int, which: int, credit: int | None) -> bool:
        """Steps of a vector's first pass; whether all of them are known."""
        wait = self.beat - self.share
        one_pass = self.result == self.first_pass
        end = self.sf - 1 if one_pass else self.sf
        frees = one_pass and self.nf == 1
        first = self._window(batch, self._live(batch) - 1) * self.span + which * self.sf
        for taken in self.inputs[first + self.sf_done : first + end]:
            self.issued = self.turn(max(self.issued, taken) + 1 + wait)
            self.sf_done += 1
            if frees:
                self.slots.append(self.issued + self.released)
        if self.sf_done == self.sf:
            return True
        if self.sf_done < end or credit is None or first + self.sf > len(self.inputs):
            return False
        last = self.inputs[first + self.sf - 1]
        self.issued = self.turn(max(max(self.issued, last) + 1 + wait, credit))
        self.sf_done = self.sf
        if frees:
            self.slots.append(self.issued + self.released)
        return True

    # --- results and slots -----------------------------------------------------------------

    def _offer(self) -> None:
        """Results of a batch's windows, each window's words in order."""
        while True:
            batch, rest = self._batch_of(len(self.offers), self.words)
            word, first = rest % self.words, batch * self.words
            known = self.stored[first + word : first + self.words]
            # The beat before it can delay a read, but never more than the stream does anyway.
            self.offers.extend([time + 2 for time in known])
            if not known:
                return

    def _free(self) -> None:
        """Reads of a batch's last window: each when the beat before it leaves, at the earliest."""
        while (place := len(self.freed)) < len(self.stored):
            batch, word = divmod(place, self.words)
            before = self._window(batch, self._live(batch) - 1) * self.words + word - 1
            if before >= len(self.outputs):
                return
            time = self.stored[place] + 1
            self.freed.append(max(time, self.outputs[before]) if before >= 0 else time)

    def _accept(self) -> None:
        """Beats of a batch's first window take slots, the others follow freely."""
        while True:
            batch, rest = self._batch_of(len(self.accepts), self.span)
            if rest >= self.span:
                self.accepts.extend([0] * (self._live(batch) * self.span - rest))
                continue
            slot = batch * self.span + rest
            if slot >= len(self.slots):
                return
            self.accepts.extend(self.slots[slot : (batch + 1) * self.span])

    def _batch_of(self, beat: int, count: int) -> tuple[int, int]:
        """The batch of a beat, of `count` a window, and its number there."""
        frame, place = divmod(beat, self.windows * count)
        batch, rest = divmod(place, self.reuse * count)
        return frame * self.batches + batch, rest
