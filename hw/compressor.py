# SPDX-License-Identifier: BSD-2-Clause
"""Counting bits in look-up tables of four inputs, by full adders whose operands travel in pairs.

Two full adders on one column, one after the other, take four tables. Written with one operand of
each as `e = x ^ y` instead of `y`, and giving their carries the same way, they take three:

    pairs (x1, e1), (x2, e2), bit z
    s = z ^ e1 ^ e2                          sum
    a = e1 ? z : x1                          first carry
    f = a ^ (e2 ? ~s : x2)                   both carries' difference

(Demenkov, Kojevnikov, Kulikov, Yaroslavtsev: "New upper bounds on the Boolean circuit complexity
of symmetric functions", 2010; its MDFA block, counted here in tables instead of gates.) The second
bit of a pair is never made: it needs a table with an input to spare, which the first then takes.

`compress` works column by column, earliest bits first, and leaves one bit a column.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

__all__ = ["FUNCTIONS", "Compressor", "Node", "compress"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "copy": lambda a: a,
    "xor": lambda a, b: a ^ b,
    "xor3": lambda a, b, c: a ^ b ^ c,
    "and": lambda a, b: a & b,
    "less": lambda a, b: a & ~b,
    "majority": lambda a, b, c: (a & b) | (c & (a ^ b)),
    "majority_of_sum": lambda a, b, s: (a & b) | ((a ^ b) & ~s),
    "select": lambda e, a, b: (e & a) | (~e & b),
    "select_not": lambda e, a, b: (e & ~a) | (~e & b),
}
"""What a node computes, on bits, words or Amaranth values."""


@dataclass(frozen=True, eq=False)
class Node:
    """One look-up table, or an input (`function` is "" and `index` its number).

    Its value is `FUNCTIONS[function](*inputs)`, xored with `first` where there is one. depth: look-
    up tables from the inputs to its output.
    """

    function: str
    inputs: tuple["Node", ...] = ()
    first: "Node | None" = None
    index: int = 0
    depth: int = 0

    @property
    def sources(self) -> tuple["Node", ...]:
        """All nodes that this one reads."""
        return self.inputs if self.first is None else (*self.inputs, self.first)


@dataclass(frozen=True, eq=False)
class Compressor:
    """A counter: one output node a bit of the count, and all tables, inputs before users."""

    outputs: tuple[Node, ...]
    nodes: tuple[Node, ...]

    @property
    def depth(self) -> int:
        """Most tables on a path."""
        return max(node.depth for node in self.outputs)

    def stage(self, node: Node, levels: int) -> int:
        """Pipeline stage of a node when a stage is `levels` tables deep."""
        return max(0, node.depth - 1) // levels

    def register_count(self, levels: int) -> int:
        """Flip-flops between the stages and behind the last one."""
        end = self.stage(max(self.outputs, key=lambda node: node.depth), levels) + 1
        last = {node: end for node in self.outputs}
        for node in self.nodes:
            for source in node.sources:
                last[source] = max(last.get(source, 0), self.stage(node, levels))
        return sum(max(0, use - self.stage(node, levels)) for node, use in last.items())


@dataclass(eq=False)
class _Bit:
    """A bit of a column that may become a table of its own, or the second of a pair.

    spare: the same bit as a table of at most three literals, which a pair's first can join; None
    if there is none. Bits that share a `choice` cannot both use theirs: once `choice` has a taker,
    the spare form of the others would cost a table. takes: using this one's is such a choice.
    """

    node: Node
    spare: Node | None = None
    choice: list[object] | None = None
    takes: bool = False

    @property
    def can_join(self) -> bool:
        return self.spare is not None and not self.choice


@lru_cache(maxsize=1024)
def compress(width: int, literals: int = 1, levels: int = 0) -> Compressor:
    """A counter of `width` bits, each a function of `literals` signals (1 or 2).

    The cheapest of those with few, some and no inputs left over by the leaves for later adders.
    levels: tables a pipeline stage; 0 for none. A register counts half a table, a table of depth
    a quarter.
    """
    found = [
        _Builder(width, literals, leaf_count).build()
        for leaf_count in sorted({width * 29 // 100, width * 31 // 100, width // 3})
    ]

    def cost(counter: Compressor) -> int:
        registers = counter.register_count(levels) if levels else 0
        return 4 * len(counter.nodes) + 2 * registers + counter.depth

    return min(found, key=cost)


class _Builder:
    """One way to compress: `leaf_count` full adders on three inputs, then pairs of full adders."""

    def __init__(self, width: int, literals: int, leaf_count: int):
        self.inputs = [Node("", index=index) for index in range(width)]
        self.literals = literals
        self.leaf_count = leaf_count
        self.order = {node: number for number, node in enumerate(self.inputs)}

    def build(self) -> Compressor:
        """Columns from the lowest up; a column's carries are the next one's bits."""
        waiting = [_Bit(node) for node in self.inputs]  # inputs that no leaf takes
        column: list[_Bit] = []
        carries: list[_Bit] = []
        for _ in range(self.leaf_count):
            total, carry = self._full_adder(*(waiting.pop() for _ in range(3)))
            column.append(total)
            carries.append(carry)
        outputs = []
        while column or waiting:
            while len(column) + len(waiting) > 1:
                self._step(column, waiting, carries)
            outputs.append((column or waiting)[0].node)
            column, carries, waiting = carries, [], []
        return Compressor(tuple(outputs), self._used(outputs))

    def _step(self, column: list[_Bit], waiting: list[_Bit], carries: list[_Bit]) -> None:
        """Replaces the earliest bits of a column by their sum; their carries go to `carries`."""
        column.sort(key=lambda bit: (bit.node.depth, self.order[bit.node]))
        count = len(column) + len(waiting)
        seconds = [bit for bit in column if bit.can_join]
        if count >= 5 and len(column) >= 4 and len(seconds) >= 2:
            # First those whose joining costs no other bit its own chance.
            y1, y2 = sorted(seconds, key=lambda bit: bit.takes)[:2]
            column.remove(y1)
            column.remove(y2)
            x1, x2 = column.pop(0), column.pop(0)
            z = waiting.pop() if waiting else column.pop(0)
            total, *both = self._double_adder(z, (x1, y1), (x2, y2))
            carries += both
        elif count >= 3:
            three = [waiting.pop()] if waiting else []
            while len(three) < 3:
                three.append(column.pop(0) if column else waiting.pop())
            total, carry = self._full_adder(*three)
            carries.append(carry)
        else:
            two = column + waiting
            column.clear()
            waiting.clear()
            total, carry = self._half_adder(*two)
            carries.append(carry)
        column.append(total)

    # --- adders ------------------------------------------------------------------------------

    def _full_adder(self, *bits: _Bit) -> tuple[_Bit, _Bit]:
        a, b, c = sorted((bit.node for bit in bits), key=self._literals)
        if self._literals(a, b, c) <= 4:
            total = self._node("xor3", a, b, c)
            carry = self._node("majority", a, b, c)
            if self._literals(c) == 1:
                return _Bit(total, total), _Bit(carry, carry)
            return _Bit(total), _Bit(carry, self._node("majority_of_sum", a, b, total))
        # b and c are functions of two signals: their difference is a table of four literals.
        e = self._node("xor", b, c)
        b = self._node("copy", b)
        total = self._node("xor", e, a)
        carry = self._node("select", e, a, b)
        if self._literals(a) == 1:
            return _Bit(total, total), _Bit(carry, carry)
        choice: list[object] = []
        joined = self._node("select_not", e, total, b)
        return _Bit(total, total, choice, takes=True), _Bit(carry, joined, choice)

    def _double_adder(
        self, z: _Bit, pair1: tuple[_Bit, _Bit], pair2: tuple[_Bit, _Bit]
    ) -> tuple[_Bit, _Bit, _Bit]:
        """Two full adders in three tables; four if the second carry does not end in a pair."""
        (x1, y1), (x2, y2) = pair1, pair2
        e1, e2 = self._join(x1.node, y1), self._join(x2.node, y2)
        total = self._node("xor3", z.node, e1, e2)
        first = self._node("select", e1, z.node, x1.node)
        second = self._node("select_not", e2, total, x2.node)
        choice: list[object] = []
        spare = total if self._literals(*total.inputs) <= 3 else None
        first_spare = first if self._literals(*first.inputs) <= 3 else None
        return (
            _Bit(total, spare, choice, takes=True),
            _Bit(first, first_spare),
            _Bit(second, second, choice),
        )

    def _half_adder(self, x: _Bit, y: _Bit) -> tuple[_Bit, _Bit]:
        if not y.can_join or self._literals(x.node) > 1:
            x, y = y, x
        if y.can_join and self._literals(x.node) == 1:
            e = self._join(x.node, y)
            return _Bit(e), _Bit(self._node("less", x.node, e))
        carry = self._node("and", x.node, y.node)
        spare = carry if self._literals(x.node, y.node) <= 3 else None
        return _Bit(self._node("xor", x.node, y.node)), _Bit(carry, spare)

    def _join(self, first: Node, second: _Bit) -> Node:
        """`first ^ second`, without the second."""
        assert second.spare is not None
        if second.takes:
            assert second.choice is not None
            second.choice.append(second)
        spare = second.spare
        return self._node(spare.function, *spare.inputs, first=first)

    # --- nodes -------------------------------------------------------------------------------

    def _literals(self, *nodes: Node) -> int:
        """Signals that a table reading these nodes depends on: inputs may be functions of two."""
        return sum(1 if node.function else self.literals for node in nodes)

    def _node(self, function: str, *inputs: Node, first: Node | None = None) -> Node:
        sources = inputs if first is None else (*inputs, first)
        depth = 1 + max(source.depth for source in sources)
        node = Node(function, inputs, first, depth=depth)
        self.order[node] = len(self.order)
        return node

    def _used(self, outputs: list[Node]) -> tuple[Node, ...]:
        used: set[Node] = set()
        stack = list(outputs)
        while stack:
            node = stack.pop()
            if node not in used and node.function:
                used.add(node)
                stack += node.sources
        return tuple(sorted(used, key=self.order.__getitem__))
