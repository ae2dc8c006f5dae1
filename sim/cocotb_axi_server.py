# SPDX-License-Identifier: BSD-2-Clause
"""The cocotb bench of `sim.axi_board`: a core with AXI ports that answers the driver.

read, write   a register over AXI4-Lite
begin         stop the streams, write CONTROL, let out and drop what was ready
images        queue images at the image stream, each with its slot
load          a weight load; answered when the core has taken it
results       packets that have come; with `waits`, after at least one or 2,000 cycles
reset         a reset in the middle of whatever goes on
"""

from __future__ import annotations

import json
import logging
import os
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

from xnorforge.sim.line_server import serve_lines

__all__ = ["serve_axi"]

_WORD = 4
_PATIENCE = 2_000  # cycles that `results` waits
_QUIET = 500  # cycles without a packet after a flush


@cocotb.test()
async def serve_axi(dut) -> None:
    logging.getLogger("cocotb").setLevel(logging.WARNING)
    folder = Path(os.environ["XNORFORGE_JOB"])
    core = _Core(dut, json.loads((folder / "job.json").read_text()))
    await core.reset()
    await serve_lines(folder, core.greet, core.answer, core.leave)


class _Core:
    """The masters and the sink of one core."""

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
        self.beat = len(dut.s_axis_image_tdata) // 8
        draw = random.Random(job["seed"])
        for end in (self.image, self.weights, self.result):
            if job["stall"]:
                end.set_pause_generator(_coin(draw.random(), job["stall"]))

    def _stream(self, kind: Any, name: str, given: tuple) -> Any:
        bus = AxiStreamBus.from_prefix(self.dut, name)
        return kind(bus, *given, byte_lanes=len(bus.tdata) // 8)

    async def reset(self) -> None:
        self.dut.aresetn.value = 0
        await Timer(self.period * 8, "step")
        for end in (self.image, self.weights, self.result):
            end.clear()
        self.dut.aresetn.value = 1
        await RisingEdge(self.dut.aclk)

    async def greet(self) -> dict:
        return {"device": "axi"}

    async def leave(self) -> None:
        """The next client begins with a flush."""

    async def answer(self, question: dict) -> dict:
        found = getattr(self, f"_{question['op']}", None)
        if found is None:
            raise ValueError(f"no such question: {question['op']!r}")
        return await found(question)

    # --- questions ------------------------------------------------------------------------------

    async def _read(self, question: dict) -> dict:
        answer = await self.registers.read(question["address"], _WORD)
        return {"value": int.from_bytes(answer.data, "little"), "response": int(answer.resp)}

    async def _write(self, question: dict) -> dict:
        data = question["value"].to_bytes(_WORD, "little")
        answer = await self.registers.write(question["address"], data)
        return {"response": int(answer.resp)}

    async def _begin(self, question: dict) -> dict:
        self.image.clear()
        await self._write(question)
        while True:
            self.result.clear()
            await Timer(self.period * _QUIET, "step")
            if self.result.empty() and self.image.idle():
                return {}

    async def _images(self, question: dict) -> dict:
        for data, slot in question["images"]:
            image = bytes.fromhex(data)
            padded = image.ljust(-(-len(image) // self.beat) * self.beat, b"\xff")
            self.image.send_nowait(AxiStreamFrame(padded, tuser=slot))
        return {}

    async def _load(self, question: dict) -> dict:
        data = bytes.fromhex(question["data"])
        await self.weights.send(AxiStreamFrame(data, tuser=question["slot"]))
        await self.weights.wait()
        return {}

    async def _results(self, question: dict) -> dict:
        if question["waits"]:
            for _ in range(_PATIENCE // 50):
                if not self.result.empty():
                    break
                await Timer(self.period * 50, "step")
        packets = []
        while not self.result.empty():
            packets.append(bytes(self.result.recv_nowait(compact=False).tdata).hex())
        return {"packets": packets}

    async def _reset(self, question: dict) -> dict:
        await self.reset()
        return {}


def _coin(seed: float, share: float) -> Any:
    own = random.Random(seed)
    while True:
        yield own.random() < share
