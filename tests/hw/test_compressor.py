# SPDX-License-Identifier: BSD-2-Clause
"""The compressor's nodes, evaluated one by one, against counting; and what they cost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.hw.compressor import FUNCTIONS, Compressor, Node, compress


def count(counter: Compressor, word: int) -> int:
    values: dict[Node, int] = {}

    def value(node: Node) -> int:
        return values[node] if node.function else word >> node.index & 1

    for node in counter.nodes:
        result = FUNCTIONS[node.function](*map(value, node.inputs)) & 1
        values[node] = result if node.first is None else result ^ value(node.first)
    return sum(value(node) << bit for bit, node in enumerate(counter.outputs))


def literals_read(node: Node, literals: int) -> int:
    return sum(1 if source.function else literals for source in node.sources)


@settings(max_examples=200)
@given(st.integers(1, 300), st.sampled_from((1, 2)), st.sampled_from((0, 2, 5)), st.data())
def test_count_equals_ones(width, literals, levels, data):
    counter = compress(width, literals, levels)
    assert len(counter.outputs) == width.bit_length()
    for word in (0, (1 << width) - 1, data.draw(st.integers(0, (1 << width) - 1))):
        assert count(counter, word) == word.bit_count()


@pytest.mark.parametrize("width", range(1, 11))
@pytest.mark.parametrize("literals", [1, 2])
def test_all_words_of_small_widths(width, literals):
    counter = compress(width, literals)
    assert [count(counter, word) for word in range(1 << width)] == [
        word.bit_count() for word in range(1 << width)
    ]


@pytest.mark.parametrize("width", [3, 7, 16, 49, 127, 255, 784])
@pytest.mark.parametrize("literals", [1, 2])
@pytest.mark.parametrize("levels", [0, 2])
def test_every_node_is_one_table_of_four_inputs(width, literals, levels):
    for node in compress(width, literals, levels).nodes:
        assert literals_read(node, literals) <= 4


@pytest.mark.parametrize(
    ("width", "literals", "tables"), [(127, 1, 206), (255, 1, 424), (127, 2, 281), (255, 2, 571)]
)
def test_table_counts(width, literals, tables):
    """Full adders alone would take 240, 496, 304 and 622."""
    counter = compress(width, literals)
    assert len(counter.nodes) <= tables
    assert counter.depth < 20


def test_wide_counter_is_not_deep():
    assert compress(784, 2).depth <= 27


def test_registers_between_stages():
    """Bit 0 and three carries behind table 2, the count behind table 3."""
    counter = compress(7, 1, 2)
    assert (counter.depth, counter.register_count(2)) == (3, 4 + 3)
