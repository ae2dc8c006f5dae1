# SPDX-License-Identifier: BSD-2-Clause
"""PLL settings: dividers, what each kind of PLL can do, the setting nearest to a clock.

    clk_in -> [/ reference] -> phase detector -> VCO -> [/ output] -> clk
                                     ^                          |
                                     +----- [/ feedback] <------+   (iCE40: taken from the VCO)

    iCE40   clk = clk_in * feedback / (reference * output),  VCO = clk * output
    ECP5    clk = clk_in * feedback / reference,             VCO = clk * output
    Gowin   as ECP5
    none    clk = clk_in

Limits are those of the tools' own calculators: icepll for iCE40, ecppll for ECP5, where the phase
detector stays above 10 MHz and the output may go down to 3.125, and gowin_pll for Gowin, whose
limits differ from part to part.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from amaranth import Const

__all__ = ["PLL_KINDS", "PllConfig", "PllError"]


class PllError(ValueError):
    """A frequency that a PLL cannot have. input: whether it is that of its input."""

    def __init__(self, message: str, *, input: bool) -> None:
        super().__init__(message)
        self.input = input


@dataclass(frozen=True)
class _Rules:
    """What a kind of PLL can do. Frequencies in Hz, both ends allowed.

    feedback_from_vco: the feedback divider follows the VCO, not the output divider.
    output: ascending.
    vco_target_hz: among equal settings the VCO nearest to this is taken, or the slowest.
    parameters: what the primitive calls reference, feedback and output divider.
    wake_seconds: block RAM is not readable for this long after configuration.
    """

    input_hz: tuple[int, int]
    pfd_hz: tuple[int, int]
    vco_hz: tuple[int, int]
    output_hz: tuple[int, int]
    reference: range
    feedback: range
    output: tuple[int, ...]
    feedback_from_vco: bool
    vco_target_hz: int
    parameters: tuple[str, str, str]
    wake_seconds: Fraction


_ICE40 = _Rules(
    input_hz=(10_000_000, 133_000_000),
    pfd_hz=(10_000_000, 133_000_000),
    vco_hz=(533_000_000, 1_066_000_000),
    output_hz=(16_000_000, 275_000_000),
    reference=range(1, 17),
    feedback=range(1, 129),
    output=(2, 4, 8, 16, 32, 64),
    feedback_from_vco=True,
    vco_target_hz=0,
    parameters=("DIVR", "DIVF", "DIVQ"),
    wake_seconds=Fraction(15, 1_000_000),
)
_ECP5 = _Rules(
    input_hz=(8_000_000, 400_000_000),
    pfd_hz=(10_000_000, 400_000_000),
    vco_hz=(400_000_000, 800_000_000),
    output_hz=(3_125_000, 400_000_000),
    reference=range(1, 129),
    feedback=range(1, 81),
    output=tuple(range(1, 129)),
    feedback_from_vco=False,
    vco_target_hz=600_000_000,
    parameters=("CLKI_DIV", "CLKFB_DIV", "CLKOP_DIV"),
    wake_seconds=Fraction(0),
)


def _gowin(pfd: int, vco: tuple[int, int], output: tuple[int, int]) -> _Rules:
    return _Rules(
        input_hz=(3_000_000, pfd),
        pfd_hz=(3_000_000, pfd),
        vco_hz=vco,
        output_hz=output,
        reference=range(1, 65),
        feedback=range(1, 65),
        output=(2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128),
        feedback_from_vco=False,
        vco_target_hz=0,
        parameters=("IDIV_SEL", "FBDIV_SEL", "ODIV_SEL"),
        wake_seconds=Fraction(0),
    )


_NONE = _Rules(
    input_hz=(1_000_000, 400_000_000),
    pfd_hz=(1_000_000, 400_000_000),
    vco_hz=(1_000_000, 400_000_000),
    output_hz=(1_000_000, 400_000_000),
    reference=range(1, 2),
    feedback=range(1, 2),
    output=(1,),
    feedback_from_vco=False,
    vco_target_hz=0,
    parameters=("", "", ""),
    wake_seconds=Fraction(15, 1_000_000),
)

# By kind and, where a kind's limits depend on it, part: Gowin's name for it in `DEVICE`.
_RULES = {
    ("SB_PLL40_CORE", ""): _ICE40,
    ("SB_PLL40_PAD", ""): _ICE40,
    ("EHXPLLL", ""): _ECP5,
    ("none", ""): _NONE,
    ("rPLL", "GW1N-1"): _gowin(400_000_000, (400_000_000, 900_000_000), (3_125_000, 450_000_000)),
    ("rPLL", "GW1NR-9C"): _gowin(
        400_000_000, (400_000_000, 1_200_000_000), (3_125_000, 600_000_000)
    ),
    ("rPLL", "GW2A-18C"): _gowin(
        500_000_000, (500_000_000, 1_250_000_000), (3_906_250, 625_000_000)
    ),
}

PLL_KINDS = tuple(dict.fromkeys(kind for kind, _ in _RULES))
"""Primitives that `PllConfig` and `Pll` know; "none" is a board's clock as it is."""

# Upper ends of the phase detector's ranges, for FILTER_RANGE 1, 2, ...
_ICE40_FILTER_HZ = (17_000_000, 26_000_000, 44_000_000, 66_000_000, 101_000_000)


@dataclass(frozen=True)
class PllConfig:
    """A legal setting of one PLL.

    Parameters
    ----------
    kind : str
        Primitive: "SB_PLL40_PAD" (clock pin that belongs to the PLL), "SB_PLL40_CORE" (clock
        from the fabric), "EHXPLLL", "rPLL" or "none": the oscillator is the clock.
    input_hz : int
        Frequency of the oscillator.
    reference, feedback, output : int
        Dividers as they divide (an iCE40 DIVQ of 5 is an `output` of 32).
    part : str
        The part that an rPLL's limits are of, in Gowin's words; "" for other kinds.

    Raises
    ------
    ValueError
        A divider or a frequency outside the primitive's range.
    """

    kind: str
    input_hz: int
    reference: int
    feedback: int
    output: int
    part: str = ""

    def __post_init__(self) -> None:
        rules = self._rules
        for name in ("reference", "feedback", "output"):
            if getattr(self, name) not in getattr(rules, name):
                raise ValueError(f"{self.kind} {name} divider cannot be {getattr(self, name)!r}")
        for name, value in (
            ("input", Fraction(self.input_hz)),
            ("pfd", self._pfd),
            ("vco", self._vco),
            ("output", self._output),
        ):
            low, high = getattr(rules, f"{name}_hz")
            if name == "pfd" and self.reference == 1:
                continue  # the input's own range holds: an ECP5 takes 8 MHz undivided
            if not low <= value <= high:
                raise ValueError(
                    f"{self.kind} {name} frequency must be {low / 1e6:g} to {high / 1e6:g} MHz, "
                    f"not {float(value) / 1e6:g} MHz"
                )

    @classmethod
    def nearest(
        cls, kind: str, input_hz: int, requested_hz: float, *, part: str = ""
    ) -> "PllConfig":
        """The legal setting whose output is nearest to `requested_hz`.

        Equals go to the lowest reference divider, then to the VCO nearest 600 MHz (ECP5) or to
        the slowest (Gowin).
        Raises PllError when the input or the request is outside the primitive's range.
        """
        rules = _rules(kind, part)
        for name, value in (("input", input_hz), ("output", requested_hz)):
            low, high = getattr(rules, f"{name}_hz")
            if not low <= value <= high:
                raise PllError(
                    f"{kind} {name} frequency must be {low / 1e6:g} to {high / 1e6:g} MHz, "
                    f"not {value / 1e6:g} MHz",
                    input=name == "input",
                )
        if kind == "none" and abs(requested_hz / input_hz - 1) > 0.01:
            raise PllError(
                f"there is no PLL, so the clock is the oscillator's {input_hz / 1e6:g} MHz, "
                f"not {requested_hz / 1e6:g} MHz",
                input=False,
            )
        target = Fraction(requested_hz)
        best: tuple[Fraction, int, Fraction] | None = None
        chosen = (0, 0, 0)
        for reference, feedback, output, clk in _settings(rules, input_hz):
            vco_distance = Fraction(0)
            if not rules.feedback_from_vco:
                vco_distance = abs(clk * output - rules.vco_target_hz)
            key = (abs(clk - target), reference, vco_distance)
            if best is None or key < best:
                best, chosen = key, (reference, feedback, output)
        if best is None:
            raise PllError(
                f"{kind} has no legal setting for {input_hz / 1e6:g} MHz input", input=True
            )
        return cls(kind, input_hz, *chosen, part=part)

    @classmethod
    def outputs(cls, kind: str, input_hz: int, *, part: str = "") -> tuple[float, ...]:
        """Every `output_hz` that a legal setting has, the slowest first."""
        settings = _settings(_rules(kind, part), input_hz)
        return tuple(sorted({float(clk) for _, _, _, clk in settings}))

    @classmethod
    def from_parameters(
        cls, kind: str, input_hz: int, parameters: Mapping[str, int], *, part: str = ""
    ) -> "PllConfig":
        """The setting of an instance in a netlist, from its parameters as integers."""
        rules = _rules(kind, part)
        if rules is _NONE:
            return cls(kind, input_hz, 1, 1, 1)
        reference, feedback, output = (parameters[name] for name in rules.parameters)
        if rules is _ICE40:
            reference, feedback, output = reference + 1, feedback + 1, 1 << output
        elif rules is not _ECP5:
            reference, feedback = reference + 1, feedback + 1
        return cls(kind, input_hz, reference, feedback, output, part)

    @property
    def _rules(self) -> _Rules:
        return _rules(self.kind, self.part)

    @property
    def _pfd(self) -> Fraction:
        return Fraction(self.input_hz, self.reference)

    @property
    def _output(self) -> Fraction:
        clk = self._pfd * self.feedback
        return clk / self.output if self._rules.feedback_from_vco else clk

    @property
    def _vco(self) -> Fraction:
        return self._output * self.output

    @property
    def pfd_hz(self) -> float:
        """Frequency at the phase detector."""
        return float(self._pfd)

    @property
    def vco_hz(self) -> float:
        return float(self._vco)

    @property
    def output_hz(self) -> float:
        """The frequency that the PLL really makes."""
        return float(self._output)

    @property
    def reset_cycles(self) -> int:
        """Cycles of `output_hz` that reset stays after lock (iCE40: at least 15 us)."""
        return max(16, ceil(self._rules.wake_seconds * self._output))

    def instance_parameters(self) -> dict[str, int | str | Const]:
        """Parameters of the primitive that depend on the setting."""
        if self.kind == "none":
            return {}
        if self.kind == "rPLL":
            return {
                "FCLKIN": f"{self.input_hz / 1e6:g}",
                "DEVICE": self.part,
                "IDIV_SEL": self.reference - 1,
                "FBDIV_SEL": self.feedback - 1,
                "ODIV_SEL": self.output,
            }
        if self.kind == "EHXPLLL":
            return {
                "CLKI_DIV": self.reference,
                "CLKFB_DIV": self.feedback,
                "CLKOP_DIV": self.output,
                "CLKOP_CPHASE": self.output // 2,
                "CLKOP_FPHASE": 0,
            }
        filter_range = 1 + sum(self._pfd >= edge for edge in _ICE40_FILTER_HZ)
        return {
            "DIVR": Const(self.reference - 1, 4),
            "DIVF": Const(self.feedback - 1, 7),
            "DIVQ": Const(self.output.bit_length() - 1, 3),
            "FILTER_RANGE": Const(filter_range, 3),
        }


def _rules(kind: str, part: str) -> _Rules:
    if kind not in PLL_KINDS:
        raise ValueError(f"PLL kind must be one of {', '.join(PLL_KINDS)}, not {kind!r}")
    if (kind, part) not in _RULES:
        parts = ", ".join(repr(known) for name, known in _RULES if name == kind)
        raise ValueError(f"{kind} part must be one of {parts}, not {part!r}")
    return _RULES[kind, part]


def _settings(rules: _Rules, input_hz: int) -> Iterator[tuple[int, int, int, Fraction]]:
    """All legal (reference, feedback, output, clk)."""
    vco_low, vco_high = rules.vco_hz
    for reference in rules.reference:
        pfd = Fraction(input_hz, reference)
        if reference > 1 and not rules.pfd_hz[0] <= pfd <= rules.pfd_hz[1]:
            continue
        for feedback in rules.feedback:
            product = pfd * feedback
            if rules.feedback_from_vco:
                legal = rules.output if vco_low <= product <= vco_high else ()
            else:
                first = bisect_left(rules.output, vco_low / product)
                legal = rules.output[first : bisect_right(rules.output, vco_high / product)]
            for output in legal:
                clk = product / output if rules.feedback_from_vco else product
                if rules.output_hz[0] <= clk <= rules.output_hz[1]:
                    yield reference, feedback, output, clk
