# SPDX-License-Identifier: BSD-2-Clause
"""The comparer sees every kind of difference."""

from __future__ import annotations

import numpy as np
import pytest

from xnorforge.sim.compare import Mismatch, compare
from xnorforge.sim.reference import Result


def result(count: int = 5) -> Result:
    scores = np.arange(count * 3, dtype=np.int64).reshape(count, 3) - 4
    return Result(scores, scores.argmax(axis=1))


def test_equal_results_are_exact_whatever_their_types():
    got = Result(result().scores.astype(np.int16), result().labels.astype(np.uint16))
    found = compare(result(), got)
    assert found.word == "EXACT"
    assert (found.images, found.scores, found.differing, found.first) == (5, 15, 0, None)


def test_one_wrong_score_is_named():
    got = result()
    got.scores[3, 1] += 1
    found = compare(result(), got)
    assert found.word == "MISMATCH"
    assert found.first == Mismatch(3, 1, 6, 7)
    assert str(found) == "MISMATCH: image 3, class 1: expected 6, got 7 (1 of 5 images differ)"


def test_one_wrong_label_is_named():
    got = result()
    got.labels[2] = 0
    found = compare(result(), got)
    assert found.word == "MISMATCH"
    assert str(found.first) == "image 2, label: expected 2, got 0"


def test_first_of_several_is_named_and_all_are_counted():
    got = result()
    got.labels[4] = 0
    got.scores[1] = 0
    assert compare(result(), got).differing == 2
    assert compare(result(), got).first.image == 1


@pytest.mark.parametrize(
    ("count", "message"),
    [(0, "image 0: no result"), (4, "image 4: no result"), (6, "image 5: a result that nobody")],
)
def test_missing_and_surplus_results_are_differences(count, message):
    found = compare(result(5), result(count))
    assert found.word == "MISMATCH"
    assert str(found.first).startswith(message)
    assert found.differing == abs(5 - count)


def test_nothing_to_compare_is_an_error():
    with pytest.raises(ValueError, match="no images"):
        compare(result(0), result(0))
