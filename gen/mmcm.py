# SPDX-License-Identifier: BSD-2-Clause
"""The clock generator of 7-series and UltraScale+: settings for a clock that is wanted.

Ranges: AMD DS181 and DS923 (switching characteristics), UG472 and UG572 (fields), for the slowest
parts at their lowest voltage that the boards here have.
"""

from __future__ import annotations

from dataclasses import dataclass

from xnorforge.gen.errors import PlanError

__all__ = ["Mmcm"]

_VCO_HZ = {"S7PCIEPHY": (600e6, 1200e6), "USPPCIEPHY": (800e6, 1600e6)}
_DETECTOR_HZ = (10e6, 450e6)
_EIGHTHS = 8
_MOST_DIVIDE = 16  # more only brings more jitter
_MULTIPLY = (2 * _EIGHTHS, 64 * _EIGHTHS)
_DIVIDE_OUT = (1 * _EIGHTHS, 128 * _EIGHTHS)
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Mmcm:
    """output = input * multiply / (divide * divide_out).

    multiply (2 to 64) and divide_out (1 to 128) go in eighths, divide is whole (1 to 106).
    Raises PlanError for other values.
    """

    multiply: float
    divide: int
    divide_out: float

    def __post_init__(self) -> None:
        for name, least, most in (("multiply", 2, 64), ("divide_out", 1, 128)):
            value = getattr(self, name)
            if not least <= value <= most or value * 8 != int(value * 8):
                raise PlanError(
                    f"MMCM's {name} must be {least} to {most} in eighths, not {value!r}"
                )
        if self.divide not in range(1, 107):
            raise PlanError(f"MMCM's divide must be 1 to 106, not {self.divide!r}")

    def output_hz(self, input_hz: float) -> float:
        """What comes out."""
        return input_hz * self.multiply / (self.divide * self.divide_out)

    @classmethod
    def nearest(cls, phy: str, input_hz: float, wanted_hz: float) -> Mmcm:
        """The setting nearest to a clock, of equal ones that with the fastest oscillator.

        phy: of `gen.litepcie.PHYS`, which says the family. Raises PlanError where none comes
        within a hundredth.
        """
        low, high = _VCO_HZ[phy]
        best: tuple[float, float, Mmcm] | None = None  # error, minus the oscillator's rate
        for divide in range(1, _MOST_DIVIDE + 1):
            detector = input_hz / divide
            if not _DETECTOR_HZ[0] <= detector <= _DETECTOR_HZ[1]:
                continue
            first = max(_MULTIPLY[0], int(-(-low * _EIGHTHS // detector)))
            last = min(_MULTIPLY[1], int(high * _EIGHTHS // detector))
            for multiply in range(first, last + 1):
                vco = detector * multiply / _EIGHTHS
                divide_out = round(vco * _EIGHTHS / wanted_hz)
                divide_out = min(max(divide_out, _DIVIDE_OUT[0]), _DIVIDE_OUT[1])
                found = cls(multiply / _EIGHTHS, divide, divide_out / _EIGHTHS)
                key = (abs(found.output_hz(input_hz) - wanted_hz), -vco)
                if best is None or key < best[:2]:
                    best = (*key, found)
        if best is None or best[0] > _TOLERANCE * wanted_hz:
            least, most = low / (_DIVIDE_OUT[1] / _EIGHTHS), high
            raise PlanError(
                f"its MMCM makes {least / 1e6:.3g} to {most / 1e6:g} MHz, not "
                f"{wanted_hz / 1e6:g} MHz"
            )
        return best[2]
