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

import cocotb
from cocotb.triggers import Timer
from cocotbext.axi import AxiStreamFrame

from xnorforge.sim.axi_ends import AxiEnds, coin
from xnorforge.sim.line_server import serve_lines

__all__ = ["serve_axi"]

_WORD = 4
_RESET_CYCLES = 8
_PATIENCE = 2_000  # cycles that `results` waits
_QUIET = 500  # cycles without a packet after a flush


@cocotb.test()
async def serve_axi(dut) -> None:
    logging.getLogger("cocotb").setLevel(logging.WARNING)
    folder = Path(os.environ["XNORFORGE_JOB"])
    core = _Core(dut, json.loads((folder / "job.json").read_text()))
    await core.reset(_RESET_CYCLES)
    await serve_lines(folder, core.greet, core.answer, core.leave)


class _Core(AxiEnds):
    """The masters and the sink of one core."""

    def __init__(self, dut, job: dict) -> None:
        super().__init__(dut, job)
        self.beat = len(dut.s_axis_image_tdata) // 8
        draw = random.Random(job["seed"])
        for end in (self.image, self.weights, self.result):
            if job["stall"]:
                end.set_pause_generator(coin(draw.random(), job["stall"]))

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
        await self.reset(_RESET_CYCLES)
        self.result.clear()
        return {}
