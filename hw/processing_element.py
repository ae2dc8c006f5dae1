# SPDX-License-Identifier: BSD-2-Clause
"""One row of a matrix-vector engine: XNOR with the weights, popcount, weigh planes, accumulate.

    x plane l --XNOR w-- popcount --*2^l--+
    ...                                   +-- [register] -- (tmp << planes) + -- acc + -- o
    x plane 0 --XNOR w-- popcount --------+                 (only if groups > 1)

An unsigned input of `bits` bits is `bits` planes of one bit (Hubara et al., Binarized Neural
Networks, 2016, section 2.3): `sum_k w_k x_k` needs one popcount a plane, weighed by 2^plane.
Weights of several planes are worked on plane by plane: between two the accumulator doubles.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.popcount import (
    PIPELINES,
    STRUCTURES,
    Popcount,
    PopcountConfig,
    check_choice,
    check_positive,
    delayed,
)

__all__ = ["PeConfig", "ProcessingElement"]


@dataclass(frozen=True)
class PeConfig:
    """Shape of a `ProcessingElement`.

    The `bits` planes of the input are worked on in `groups` = ceil(bits / planes) steps, the most
    significant first: step g = 0 .. groups - 1 holds plane `(groups - 1 - g) * planes + l` in
    plane lane l = 0 .. planes - 1. When `planes` does not divide `bits`, lanes l >= `top_planes`
    of step 0 lie past the top plane: they are masked, and may carry anything.

    Parameters
    ----------
    simd : int
        Columns a step.
    acc_width : int
        Bits of the signed accumulator. The final value must fit; sums on the way may wrap.
    bits : int
        Planes of the input, at least 1.
    planes : int
        Planes a step (PL), from 1 to `bits`.
    structure, pipeline : str
        As in `PopcountConfig`.
    literals : int
        Signals in a product of input and weight: 2, or 1 where `w` is a function of so few that
        product and function fit in one table.
    doubles : bool
        The accumulator can be doubled between two folds: weights of several planes (Horner's rule).

    Raises
    ------
    TypeError, ValueError
        For a parameter of the wrong kind, or outside its range.
    """

    simd: int
    acc_width: int
    bits: int = 1
    planes: int = 1
    structure: str = "carry"
    pipeline: str = "output"
    literals: int = 2
    doubles: bool = False

    def __post_init__(self) -> None:
        check_positive("PE simd", self.simd)
        check_positive("PE acc_width", self.acc_width)
        check_positive("PE bits", self.bits)
        check_positive("PE planes", self.planes)
        if self.planes > self.bits:
            raise ValueError(f"PE planes must be at most bits = {self.bits}, not {self.planes}")
        check_choice("PE structure", self.structure, STRUCTURES)
        check_choice("PE pipeline", self.pipeline, PIPELINES)

    @property
    def groups(self) -> int:
        """Steps a column fold (G)."""
        return -(-self.bits // self.planes)

    @property
    def top_planes(self) -> int:
        """Planes that the first group holds."""
        return self.bits - (self.groups - 1) * self.planes

    @property
    def control_latency(self) -> int:
        """Cycles after `x` and `w` at which the step's controls are due."""
        return self.popcount.latency

    @property
    def preset_latency(self) -> int:
        """Cycles after `x` and `w` of the first fold's last step at which `preset` is sampled."""
        return self.latency - 1

    @property
    def latency(self) -> int:
        """Cycles from `x` and `w` of a dot product's last step to its value on `o`."""
        return self.control_latency + self.combine_latency + (self.groups > 1) + 1

    @property
    def combine_latency(self) -> int:
        """Cycles that adding the planes of one step takes."""
        if self.planes == 1 or self.pipeline == "none":
            return 0
        return 1 if self.pipeline == "output" else (self.planes - 1).bit_length()

    @property
    def popcount(self) -> PopcountConfig:
        """The popcount of one plane; without the spare bit, if there is one."""
        combined = self.pipeline == "output" and self.planes > 1
        return PopcountConfig(
            width=self.simd - self.has_spare,
            structure=self.structure,
            pipeline="none" if combined else self.pipeline,
            literals=self.literals,
        )

    @property
    def has_spare(self) -> bool:
        """Whether one column of plane 0 goes into the accumulating adder's carry-in.

        A power of two is one bit too many for a full tree; one plane only, for simplicity.
        """
        carry = self.structure in ("carry", "pairs") and self.planes == 1
        return carry and self.simd > 1 and self.simd & (self.simd - 1) == 0

    def reference(self, steps: Iterable[tuple[int, int]], preset: int = 0) -> int:
        """Value on `o` after the steps `(x, w)` of one dot product, in their order.

        Of one plane of the weights: doubling it gives the `preset` of the next.
        """
        mask = (1 << self.simd) - 1
        total = preset
        for index, (x, w) in enumerate(steps):
            group = index % self.groups
            for lane in range(self.planes if group else self.top_planes):
                plane = sum((x >> (s * self.planes + lane) & 1) << s for s in range(self.simd))
                matches = (~(plane ^ w) & mask).bit_count()
                total += matches << ((self.groups - 1 - group) * self.planes + lane)
        low = -(1 << (self.acc_width - 1))
        return (total - low) % (1 << self.acc_width) + low


class ProcessingElement(wiring.Component):
    """Computes `preset + sum over steps and planes a of 2^a * popcount(XNOR(x_a, w))`.

    A step is one cycle's `x` and `w`; steps come in the order `for fold: for group`, with the same
    `w` in all groups of a fold. A dot product is any number of folds. Steps may follow each other
    every cycle, dot products too; idle cycles between steps change nothing.

    Throughput: 1 step per cycle.
    Latency: with `x` and `w` of a step in cycle t, its controls are due in cycle
    `t + config.control_latency`. With t the last step of the first fold, `preset` is sampled in
    cycle `t + config.preset_latency` and only there. With t the last step of a dot product, `o`
    holds its value in cycle `t + config.latency`, and until the first fold of the next one ends.
    Cost: see `docs/blocks/engine.md`.

    Parameters
    ----------
    config : PeConfig

    Members
    -------
    x : In(simd * planes)
        Input bits: column lane s, plane lane l at bit `s * planes + l`.
    w : In(simd)
        Weight bits: 1 = +1, 0 = -1.
    enable : In(1)
        The step is real. The controls below count only with it.
    first : In(1)
        The step belongs to the first fold of a dot product: start from `preset`.
    group_first, group_last : In(1)
        The step is the first, the last of its fold's groups. Unused when `groups` is 1.
    preset : In(signed(acc_width))
        Start value of the accumulator.
    double, low : In(1), In(1)
        Only with `config.doubles`. `double` is a control as `first` is: start the fold from
        `2 * accumulator + low`; `low` is sampled when `preset` would be.
    o : Out(signed(acc_width))
        The accumulator.
    """

    def __init__(self, *, config: PeConfig):
        if not isinstance(config, PeConfig):
            raise TypeError(f"ProcessingElement config must be a PeConfig, not {config!r}")
        self.config = config
        doubling = {"double": In(1), "low": In(1)} if config.doubles else {}
        super().__init__(
            {
                "x": In(config.simd * config.planes),
                "w": In(config.simd),
                "enable": In(1),
                "first": In(1),
                "group_first": In(1),
                "group_last": In(1),
                "preset": In(signed(config.acc_width)),
                "o": Out(signed(config.acc_width)),
                **doubling,
            }
        )

    def elaborate(self, platform) -> Module:
        # A "count" is the popcount of one plane, the "addend" the weighed sum of a step's counts,
        # the "fold" sum that of the steps of one fold (Horner's rule, groups > 1 only). The
        # "spare" bit is the column that enters through the carry-in.
        m = Module()
        config = self.config
        counts, spare = self._counts(m)
        if config.top_planes < config.planes and config.groups > 1:
            for lane in range(config.top_planes, config.planes):
                counts[lane] = Mux(self.group_first, 0, counts[lane])
        addend = self._combined(m, counts)

        cycles = config.combine_latency
        enable = _delayed_control(m, self.enable, cycles, name="enable")
        first = delayed(m, self.first, cycles, name="first")
        double = delayed(m, self.double, cycles, name="double") if config.doubles else None
        if config.groups > 1:
            group_first = delayed(m, self.group_first, cycles, name="group_first")
            group_last = delayed(m, self.group_last, cycles, name="group_last")
            width = (config.simd * ((1 << config.bits) - 1)).bit_length()
            fold_sum = Signal(width, reset_less=True)
            high = Mux(group_first, 0, fold_sum)[: max(0, width - config.planes)]
            with m.If(enable):
                m.d.sync += fold_sum.eq(_sum(Cat(C(0, config.planes), high), addend, spare, width))
            enable = _delayed_control(m, enable & group_last, 1, name="fold_enable")
            first = delayed(m, first, 1, name="fold_first")
            if double is not None:
                double = delayed(m, double, 1, name="fold_double")
            addend, spare = fold_sum, None

        acc = Signal(signed(config.acc_width), reset_less=True)
        kept = acc
        if double is not None:
            kept = Mux(double, Cat(self.low, acc)[: config.acc_width].as_signed(), acc)
        start = Mux(first, self.preset, kept)
        with m.If(enable):
            m.d.sync += acc.eq(_sum(start, addend, spare, config.acc_width))
        m.d.comb += self.o.eq(acc)
        return m

    def _counts(self, m: Module) -> tuple[list[Value], Value | None]:
        """Popcount of each plane's matches, and the spare column's bit of plane 0."""
        config = self.config
        counts = []
        spare = None
        for lane in range(config.planes):
            matches = Signal(config.simd, name=f"matches_{lane}")
            m.d.comb += matches.eq(~(self.x[lane :: config.planes] ^ self.w))
            counter = Popcount(config=config.popcount)
            m.submodules[f"popcount_{lane}"] = counter
            m.d.comb += counter.i.eq(matches[int(config.has_spare) :])
            counts.append(counter.o)
            if config.has_spare:
                spare = delayed(m, matches[0], config.popcount.latency, name="spare")
        return counts, spare

    def _combined(self, m: Module, counts: list[Value]) -> Value:
        """`sum_l 2^l * counts[l]`, `combine_latency` cycles later."""
        # Weighed planes, in pairs: the low operand's low bits pass, the rest is an adder.
        config = self.config
        nodes = [(count, 1) for count in counts]
        while len(nodes) > 1:
            pairs = []
            for (low, low_planes), (high, high_planes) in zip(
                nodes[::2], nodes[1::2], strict=False
            ):
                planes = low_planes + high_planes
                width = (config.simd * ((1 << planes) - 1)).bit_length()
                upper = (low[low_planes:] + high)[: width - low_planes]
                pairs.append((Cat(low[:low_planes], upper), planes))
            nodes = pairs + nodes[len(pairs) * 2 :]
            if config.pipeline in ("third", "half", "full"):
                nodes = [(delayed(m, v, 1, name=f"combined_{p}"), p) for v, p in nodes]
        if config.pipeline == "output":
            return delayed(m, nodes[0][0], config.combine_latency, name="combined")
        return nodes[0][0]


def _delayed_control(m: Module, value: Value, cycles: int, *, name: str) -> Value:
    """`value` behind `cycles` registers with reset: no step is real after one."""
    for stage in range(cycles):
        register = Signal(name=f"{name}_{stage}")
        m.d.sync += register.eq(value)
        value = register
    return value


def _sum(a: Value, b: Value, carry: Value | None, width: int) -> Value:
    """`a + b + carry`, modulo 2^width."""
    if carry is None:
        return (a + b)[:width]
    return (Cat(C(1, 1), a) + Cat(carry, b))[1 : 1 + width]
