# SPDX-License-Identifier: BSD-2-Clause
"""cocotbext-axi's masters and sink at the AXI ports of a core; runs inside the simulator."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiStreamBus, AxiStreamSink, AxiStreamSource

__all__ = ["AxiEnds", "coin"]


class AxiEnds:
    """The ends of one core, which is in reset; its clocks run.

    job: `bus_period` and `core_period` in simulation steps, the latter None where there is one
    clock.
    """

    def __init__(self, dut, job: dict) -> None:
        self.dut, self.period = dut, job["bus_period"]
        Clock(dut.aclk, self.period, "step").start(start_high=False)
        if job["core_period"] is not None:
            Clock(dut.core_clk, job["core_period"], "step").start(start_high=False)
        dut.aresetn.value = 0
        given = (dut.aclk, dut.aresetn, False)
        self.registers = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), *given)
        self.image = self._stream(AxiStreamSource, "s_axis_image", given)
        self.weights = self._stream(AxiStreamSource, "s_axis_weights", given)
        self.result = self._stream(AxiStreamSink, "m_axis_result", given)

    def _stream(self, kind: Any, name: str, given: tuple) -> Any:
        bus = AxiStreamBus.from_prefix(self.dut, name)
        return kind(bus, *given, byte_lanes=len(bus.tdata) // 8)

    async def reset(self, cycles: int) -> None:
        """For so many cycles; images and weights that wait to be sent are dropped."""
        self.dut.aresetn.value = 0
        await Timer(self.period * cycles, "step")
        self.image.clear()
        self.weights.clear()
        self.dut.aresetn.value = 1
        await RisingEdge(self.dut.aclk)


def coin(seed: float, share: float) -> Iterator[bool]:
    """For `set_pause_generator`: a pause in this share of cycles."""
    own = random.Random(seed)
    while True:
        yield own.random() < share
