# SPDX-License-Identifier: BSD-2-Clause
"""What designs of two models have in common: the ports that tell of slots, and changing over."""

from collections.abc import Callable

from amaranth import *
from amaranth.lib import wiring

__all__ = ["follow_when_idle", "slot_ports"]


def slot_ports(direction: Callable[[int], wiring.Member], slots: int) -> dict[str, wiring.Member]:
    """`image_slot` and `config_slot`: of the images, of the weight load; none with one slot."""
    return {} if slots == 1 else {"image_slot": direction(1), "config_slot": direction(1)}


def follow_when_idle(m: Module, slot: Signal, wanted: Value, idle: Value) -> None:
    """Set `slot` to `wanted` after four cycles of `idle` in which they differed.

    So many, because who is idle may be seen two cycles late.
    """
    quiet = Signal(2, name=f"{slot.name}_quiet")
    with m.If((slot != wanted) & idle):
        m.d.sync += quiet.eq(quiet + 1)
        with m.If(quiet.all()):
            m.d.sync += slot.eq(wanted)
    with m.Else():
        m.d.sync += quiet.eq(0)
