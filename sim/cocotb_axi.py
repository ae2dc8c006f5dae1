# SPDX-License-Identifier: BSD-2-Clause
"""The cocotb bench of a core with AXI ports: cocotbext-axi's masters do what a job says.

Runs inside the simulator; `sim.axi_run` prepares its job folder and judges what it leaves.

    job.json      clocks, and steps in order (`sim.axi_run.Step`)
    images.npy    (N, bytes): images as they go over the bus, whole beats
    found.json    a record a step: packets of results [{words, user}], answers of registers
"""

from __future__ import annotations

import json
import logging
import os
import random
from pathlib import Path

import cocotb
import numpy as np
from cocotb.triggers import Event, First, Timer
from cocotbext.axi import AxiStreamFrame

from xnorforge.sim.axi_ends import AxiEnds, coin
from xnorforge.sw.protocol import AxiRegister, Control

__all__ = ["drive_axi"]

WORD = 4
_PATIENCE = 20_000  # cycles without a result


@cocotb.test()
async def drive_axi(dut) -> None:
    logging.getLogger("cocotb").setLevel(logging.WARNING)
    folder = Path(os.environ["XNORFORGE_JOB"])
    job = json.loads((folder / "job.json").read_text())
    bench = _Bench(dut, job, np.load(folder / "images.npy"))
    await bench.reset(8)
    found = []
    for step in job["steps"]:
        found.append(await bench.do(step))
        (folder / "found.json").write_text(json.dumps(found))


class _Bench(AxiEnds):
    """The masters and the sink of one core."""

    def __init__(self, dut, job: dict, images: np.ndarray) -> None:
        super().__init__(dut, job)
        self.images = images
        self.random = random.Random(job["seed"])

    async def do(self, step: dict) -> dict:
        self._stalls(step["idle"], step["stall"])
        return await getattr(self, f"_{step['kind']}")(step)

    def _stalls(self, idle: float, stall: float) -> None:
        """Random pauses of what the bench gives, and of what it takes, on every channel."""
        bus = self.registers
        masters = [self.image, self.weights]
        masters += [bus.write_if.aw_channel, bus.write_if.w_channel, bus.read_if.ar_channel]
        sinks = [self.result, bus.write_if.b_channel, bus.read_if.r_channel]
        for share, ends in ((idle, masters), (stall, sinks)):
            for end in ends:
                end.set_pause_generator(coin(self.random.random(), share) if share else None)
                end.pause = False

    # --- steps ----------------------------------------------------------------------------------

    async def _images(self, step: dict) -> dict:
        """Images, and their packets of results; cut short after `after` cycles if that is given."""
        frames = []
        for index in range(step["first"], step["first"] + step["count"]):
            data = self.images[index % len(self.images)].tobytes()
            frames.append(AxiStreamFrame(data, tuser=step["slot"]))
        for frame in frames:
            self.image.send_nowait(frame)
        if step["after"] is None:
            packets = await self._packets(len(frames))
            return {"packets": packets, "stuck": len(packets) < len(frames)}
        await Timer(self.period * step["after"], "step")
        if step["end"] == "reset":
            await self.reset(self.random.randint(1, 12))
        else:
            # The rest of an image that was on its way comes behind the flush.
            self.image.clear_pause_generator()
            self.image.clear()
            self.image.pause = True
            await self.registers.write_dword(WORD * AxiRegister.CONTROL, Control.FLUSH)
            self.image.pause = False
        return {"packets": await self._packets(None), "stuck": False}

    async def _packets(self, count: int | None) -> list[dict]:
        """So many packets of results, or all that come before it has long been quiet."""
        found: list[dict] = []
        while count is None or len(found) < count:
            patience = _PATIENCE if count is not None else 2_000
            event = Event()
            waiting = cocotb.start_soon(self._next(found, event))
            timer = Timer(self.period * patience, "step")
            if await First(event.wait(), timer) is timer:
                waiting.cancel()
                break
        return found

    async def _next(self, found: list[dict], event: Event) -> None:
        frame = await self.result.recv(compact=False)
        data = bytes(frame.tdata)
        words = [int.from_bytes(data[k : k + WORD], "little") for k in range(0, len(data), WORD)]
        found.append({"words": words, "user": frame.tuser[-1]})
        event.set()

    async def _load(self, step: dict) -> dict:
        """A weight load, or its first bytes as a packet that ends too early."""
        data = bytes.fromhex(step["data"])
        await self.weights.send(AxiStreamFrame(data, tuser=step["slot"]))
        await self.weights.wait()
        await Timer(self.period * 200, "step")
        return {}

    async def _registers(self, step: dict) -> dict:
        """Words at addresses; [data, response code]."""
        answers = []
        for address in step["addresses"]:
            answer = await self.registers.read(address, WORD)
            answers.append([int.from_bytes(answer.data, "little"), int(answer.resp)])
        return {"answers": answers}

    async def _writes(self, step: dict) -> dict:
        codes = []
        for address, word in step["words"]:
            answer = await self.registers.write(address, word.to_bytes(WORD, "little"))
            codes.append(int(answer.resp))
        return {"codes": codes}
