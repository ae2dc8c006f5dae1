# SPDX-License-Identifier: BSD-2-Clause
"""A share of the random cores of `make fuzz`."""

import pytest

from xnorforge.sim.fuzz import check


@pytest.mark.parametrize("block", range(8))
def test_random_cores_equal_the_reference(block: int) -> None:
    for seed in range(4 * block, 4 * block + 4):
        assert check(seed).failure == "", seed


def test_a_padded_sum_of_bits_has_no_circuit() -> None:
    """Padding would count as -1: seeds whose networks have one."""
    for seed in (153, 181, 182):
        assert "no element that takes no part" in check(seed).refused


def test_a_fault_is_seen(monkeypatch) -> None:
    from xnorforge.sim import fuzz

    right = fuzz.evaluate

    def wrong(network, images):
        found = right(network, images)
        found.outputs[-1].reshape(-1)[0] += 1
        return found

    monkeypatch.setattr(fuzz, "evaluate", wrong)
    assert check(1).failure == "scores differ"
