# SPDX-License-Identifier: BSD-2-Clause
"""Population count: how many of `width` bits are 1.

    3 bits -> full adder (2 LUTs)                       level 0
    n bits -> count(2^k - 1) + count(the rest) + 1 bit  levels 1, 2, ...

Every ripple adder takes one more raw bit through its carry-in, written without primitives as
`({a, 1} + {b, cin}) >> 1`: a tree over 2^k - 1 bits is then full at every level, and n - 1 bits
of carry chain do the work that a tree of plain sums needs more cells for.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.barrier import kept
from xnorforge.hw.compressor import FUNCTIONS, Compressor, Node, compress

__all__ = ["PIPELINES", "STRUCTURES", "Popcount", "PopcountConfig"]

STRUCTURES = ("carry", "lut", "pairs", "plain")
PIPELINES = ("none", "output", "third", "half", "full")
_PAIRS_LEVELS = {"third": 8, "half": 5, "full": 2}
"""Tables from register to register with the structure "pairs"."""
_UNLIMITED = 1 << 30


@dataclass(frozen=True)
class PopcountConfig:
    """Shape of a `Popcount`.

    Parameters
    ----------
    width : int
        Bits counted, at least 1.
    structure : str
        `"carry"`: leaves in LUTs, then carry chains with a raw bit in every carry-in; fastest.
        `"lut"`: the same tree, all of it full adders in LUTs. `"pairs"`: LUTs only, two full
        adders in three of them (`hw.compressor`); smallest. `"plain"`: a tree of `+`, left to
        the synthesiser; the checked baseline.
    pipeline : str
        Where registers are: `"none"` (combinational), `"output"`, `"third"` and `"half"` (after
        every third, every second adder level, counted from the output), `"full"` (after the leaves
        and after every adder). With "pairs": after every eighth, fifth, second table.
    literals : int
        Signals that one bit of the word is a function of, which synthesis can take into the first
        tables: 1, or 2 for products of an input and a weight. Only "pairs" builds by it.

    Raises
    ------
    TypeError, ValueError
        For a parameter of the wrong kind, or outside its range.
    """

    width: int
    structure: str = "carry"
    pipeline: str = "output"
    literals: int = 1

    def __post_init__(self) -> None:
        check_positive("Popcount width", self.width)
        if self.literals not in (1, 2):
            raise ValueError(f"Popcount literals must be 1 or 2, not {self.literals!r}")
        check_choice("Popcount structure", self.structure, STRUCTURES)
        check_choice("Popcount pipeline", self.pipeline, PIPELINES)

    @property
    def output_width(self) -> int:
        """Bits of the count."""
        return self.width.bit_length()

    @property
    def depth(self) -> int:
        """Number of the output's level: 0 for a lone leaf, else the adders on the path.

        With "pairs", of its last stage.
        """
        if self.structure == "pairs":
            return -(-self.compressor.depth // self.stage_levels) - 1 if self.width > 1 else 0
        return _depth(self.width)

    @property
    def latency(self) -> int:
        """Cycles from `i` to `o`."""
        return sum(self.is_registered(level) for level in range(self.depth + 1))

    @property
    def stage_levels(self) -> int:
        """Tables a stage of "pairs"."""
        return _PAIRS_LEVELS.get(self.pipeline, _UNLIMITED)

    @property
    def compressor(self) -> Compressor:
        """The counter that "pairs" builds."""
        return compress(self.width, self.literals, _PAIRS_LEVELS.get(self.pipeline, 0))

    def is_registered(self, level: int) -> bool:
        """Whether the values of a level go through a register."""
        if self.pipeline in ("none", "output"):
            return self.pipeline == "output" and level == self.depth
        if self.structure == "pairs":
            return True
        return (self.depth - level) % {"third": 3, "half": 2, "full": 1}[self.pipeline] == 0

    def reference(self, x: int) -> int:
        """The count, for the low `width` bits of `x`."""
        return (x & ((1 << self.width) - 1)).bit_count()


class Popcount(wiring.Component):
    """Counts the ones of a word.

    Free running: a word enters and a count leaves every cycle, with no handshake and no reset.

    Throughput: 1 word per cycle.  Latency: `config.latency` cycles.
    Cost: see `docs/blocks/engine.md`.

    Parameters
    ----------
    config : PopcountConfig

    Members
    -------
    i : In(width)
        The word.
    o : Out(output_width)
        Its count, `config.latency` cycles later.
    """

    def __init__(self, *, config: PopcountConfig):
        if not isinstance(config, PopcountConfig):
            raise TypeError(f"Popcount config must be a PopcountConfig, not {config!r}")
        self.config = config
        super().__init__({"i": In(config.width), "o": Out(config.output_width)})

    def elaborate(self, platform) -> Module:
        # A "level" is one rank of leaves or adders. A "raw" bit is one that no leaf has counted.
        m = Module()
        config = self.config
        if config.structure == "pairs":
            m.d.comb += self.o.eq(self._pairs(m))
            return m

        def delay(value: Value, levels: Iterable[int]) -> Value:
            count = sum(config.is_registered(level) for level in levels)
            return delayed(m, value, count, name="delay")

        def named(value: Value, name: str) -> Value:
            # An expression used twice is written twice: give every node a name.
            signal = Signal(len(value), name=name)
            m.d.comb += signal.eq(value)
            return signal

        def full_adders(a: Value, b: Value, carry: Value) -> Value:
            sums = []
            for k in range(max(len(a), len(b))):
                bit = _leaf(Cat(carry, a[k : k + 1], b[k : k + 1]), "lut")
                total, carry = named(bit, "full_adder")
                sums.append(total)
            return Cat(*sums, carry)

        def at_level(bits: Value, level: int) -> Value:
            """Count of `bits`, behind the register of `level`."""
            own = _depth(len(bits))
            if own < level:
                return delay(at_level(bits, own), range(own + 1, level + 1))
            if len(bits) <= 3:
                return delay(named(_leaf(bits, config.structure), "leaf"), (level,))
            low, high, raw = _split(len(bits))
            a = at_level(bits[:low], level - 1)
            b = at_level(bits[low : low + high], level - 1)
            carry = delay(bits[low + high :], range(level)) if raw else C(0, 1)
            if config.structure == "lut":
                total = full_adders(a, b, carry)
            elif config.structure == "plain" or not raw:
                total = a + b + carry if raw else a + b
            else:
                # The bottom pair 1 + carry makes the chain's carry-in; its sum bit is dropped.
                total = (Cat(C(1, 1), a) + Cat(carry, b))[1:]
            return delay(named(total[: len(bits).bit_length()], f"count_{level}"), (level,))

        m.d.comb += self.o.eq(at_level(self.i, config.depth))
        return m

    def _pairs(self, m: Module) -> Value:
        """The nodes of the compressor, rank by rank, with a register behind every stage."""
        config = self.config
        counter = config.compressor
        levels = config.stage_levels
        is_piped = config.pipeline in _PAIRS_LEVELS
        end = config.depth
        last = {node: end + 1 if is_piped else 0 for node in counter.outputs}  # stage of last use
        for node in counter.nodes:
            for source in node.sources:
                last[source] = max(last.get(source, 0), counter.stage(node, levels))
        ranks: dict[int, list[Node]] = {}
        for node in counter.nodes:
            ranks.setdefault(node.depth, []).append(node)
        at: dict[tuple[Node, int], Value] = {}  # value of a node in a stage

        def put(nodes: list[Node], values: list[Value], stage: int, name: str) -> None:
            """Values of nodes from `stage` on, through registers as far as they are used."""
            while True:
                at.update({(node, stage): values[k] for k, node in enumerate(nodes)})
                later = [k for k, node in enumerate(nodes) if last.get(node, 0) > stage]
                nodes = [nodes[k] for k in later]
                if not nodes:
                    break
                stage += 1
                word = delayed(m, Cat(values[k] for k in later), 1, name=f"{name}_at_{stage}")
                values = [word[k] for k in range(len(nodes))]

        inputs = {source for node in counter.nodes for source in node.sources} - {*counter.nodes}
        inputs |= {node for node in counter.outputs if not node.function}
        put(
            ordered := sorted(inputs, key=lambda node: node.index),
            [self.i[node.index] for node in ordered],
            0,
            "input",
        )
        for depth, nodes in sorted(ranks.items()):
            stage = counter.stage(nodes[0], levels)
            values = []
            for node in nodes:
                value = FUNCTIONS[node.function](*(at[source, stage] for source in node.inputs))
                values.append(value if node.first is None else value ^ at[node.first, stage])
            # A module of its own, so that simulation works a rank out when the one before stands.
            m.submodules[f"rank_{depth}"] = rank = Module()
            put(nodes, kept(rank, values, name="kept"), stage, f"rank_{depth}")
        total = Cat(at[node, end + 1 if is_piped else 0] for node in counter.outputs)
        return delayed(m, total, int(config.pipeline == "output"), name="count")


def check_positive(name: str, value: int) -> None:
    """Raises TypeError unless `value` is an integer, ValueError unless it is at least 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a positive integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be a positive integer, not {value!r}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def delayed(m: Module, value: Value, cycles: int, *, name: str) -> Value:
    """`value` behind `cycles` registers without reset."""
    for stage in range(cycles):
        register = Signal(len(value), name=f"{name}_{stage}", reset_less=True)
        m.d.sync += register.eq(value)
        value = register
    return value


def _depth(width: int) -> int:
    return max(0, width.bit_length() - 2)


def _split(width: int) -> tuple[int, int, int]:
    """Operand widths and carry-in bits of the adder that counts `width` >= 4 bits.

    One operand is the largest full tree, 2^k - 1 bits, below `width`: halving `width` instead
    leaves leaves of two bits and costs up to 30 % more.
    """
    full = (1 << (width.bit_length() - 1)) - 1
    rest = width - full
    return (1, full, 0) if rest == 1 else (rest - 1, full, 1)


def _leaf(bits: Value, structure: str) -> Value:
    if len(bits) == 1:
        return bits
    if structure == "plain":
        return sum((bit for bit in bits[1:]), bits[0])[:2]
    if len(bits) == 2:
        return Cat(bits[0] ^ bits[1], bits[0] & bits[1])
    a, b, c = bits
    return Cat(a ^ b ^ c, Mux(a ^ b, c, a))
