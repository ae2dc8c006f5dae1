# SPDX-License-Identifier: BSD-2-Clause
"""The comparer: the one place that says whether results are right."""

from __future__ import annotations

from dataclasses import dataclass

from xnorforge.sim.reference import Result

__all__ = ["Comparison", "Mismatch", "compare"]


@dataclass(frozen=True)
class Mismatch:
    """The first difference. score_class: the class whose score differs, None for a label or a
    missing or surplus result. expected, got: None where there is none."""

    image: int
    score_class: int | None
    expected: int | None
    got: int | None

    def __str__(self) -> str:
        if self.got is None:
            return f"image {self.image}: no result"
        if self.expected is None:
            return f"image {self.image}: a result that nobody asked for"
        what = "label" if self.score_class is None else f"class {self.score_class}"
        return f"image {self.image}, {what}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True)
class Comparison:
    """word: "EXACT" or "MISMATCH". images, scores: how many were expected.
    differing: images with any difference. first: None when there is none."""

    word: str
    images: int
    scores: int
    differing: int
    first: Mismatch | None

    def __str__(self) -> str:
        if self.first is None:
            return f"{self.word}: {self.images} images, all {self.scores} scores and labels equal"
        return f"{self.word}: {self.first} ({self.differing} of {self.images} images differ)"


def compare(expected: Result, got: Result) -> Comparison:
    """All scores and labels. Missing and surplus results are differences; no images at all are
    an error (ValueError), since they would prove nothing."""
    count = len(expected.labels)
    if count == 0:
        raise ValueError("There are no images to compare")
    both = min(count, len(got.labels))
    scores = expected.scores[:both] != got.scores[:both]
    labels = expected.labels[:both] != got.labels[:both]
    wrong = scores.any(axis=1) | labels
    differing = int(wrong.sum()) + abs(count - len(got.labels))
    first = None
    if wrong.any():
        image = int(wrong.argmax())
        if scores[image].any():
            column = int(scores[image].argmax())
            values = expected.scores[image, column], got.scores[image, column]
        else:
            column, values = None, (expected.labels[image], got.labels[image])
        first = Mismatch(image, column, *map(int, values))
    elif both < count:
        first = Mismatch(both, None, int(expected.labels[both]), None)
    elif both < len(got.labels):
        first = Mismatch(both, None, None, int(got.labels[both]))
    word = "EXACT" if differing == 0 else "MISMATCH"
    return Comparison(word, count, int(expected.scores.size), differing, first)
