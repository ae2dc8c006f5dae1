# SPDX-License-Identifier: BSD-2-Clause
"""The cocotb bench of a core: streams images in, collects results, keeps the cycle numbers.

Runs inside the simulator, with the core as top; `sim.core_run` prepares its job folder and reads
what it leaves. It judges nothing: whatever the core gives is written down and compared outside.

    job.json    classes, beats per image, passes [{name, first, count, idle, stall, seed}], ...
    beats.npy   (N, beats, bytes a beat)            <pass>.load   weight load before it, if there
    <pass>.npz  scores, lasts, labels per result beat; image_cycles, label_cycles; stuck

Cycle t ends with clock edge t; a transfer in cycle t has valid and ready high at that edge. Python
wakes once a cycle only while beats move: otherwise it waits for the next ready or valid to rise.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import First, RisingEdge, Timer
from cocotb.utils import get_sim_time

__all__ = ["stream_images"]

_PERIOD = 2  # simulation steps a clock cycle
_PATIENCE = 8  # cycles without a transfer before waiting for an event instead
_EXTRA_CYCLES = 200  # watched after the last result for one too many
_PATTERN = 4096  # random stalls repeat after so many cycles
_REPORT = 4096  # result beats between progress reports


@cocotb.test()
async def stream_images(dut) -> None:
    folder = Path(os.environ["XNORFORGE_JOB"])
    job = json.loads((folder / "job.json").read_text())
    for name in ("image_valid", "result_ready", "config_valid", "flush", "register_address"):
        getattr(dut, name).value = 0
    dut.rst.value = 1
    Clock(dut.clk, _PERIOD, "step", impl="gpi").start(start_high=False)
    edge = RisingEdge(dut.clk)
    for _ in range(4):
        await edge
    dut.rst.value = 0
    beats = np.load(folder / "beats.npy")
    for item in job["passes"]:
        load = folder / f"{item['name']}.load"
        if load.exists():
            await _load(dut, edge, load.read_bytes())
        chosen = beats[item["first"] : item["first"] + item["count"]]
        rows = chosen.reshape(-1, beats.shape[2])
        words = [int.from_bytes(row.tobytes(), "little") for row in rows]
        found = await _Pass(dut, edge, job, item, words, folder).run()
        np.savez(folder / f"{item['name']}.npz", allow_pickle=False, **found)
        if found["stuck"]:
            break


async def _load(dut, edge: RisingEdge, data: bytes) -> None:
    """A whole weight load, a byte a cycle; `config` is always ready."""
    for index, byte in enumerate(data):
        dut.config_data.value = byte
        dut.config_first.value = index == 0
        dut.config_valid.value = 1
        await edge
    dut.config_valid.value = 0


class _Pass:
    """Some images through the core, under one pattern of stalls."""

    def __init__(
        self, dut, edge: RisingEdge, job: dict, item: dict, words: list[int], folder: Path
    ) -> None:
        self.dut, self.edge, self.words, self.folder = dut, edge, words, folder
        self.name = item["name"]
        self.beats = job["beats"]
        self.wanted = item["count"] * job["classes"]
        self.timeout_cycles = job["timeout_cycles"]
        self.stalls = item["idle"] > 0 or item["stall"] > 0
        generator = random.Random(item["seed"])
        self.idle = [generator.random() < item["idle"] for _ in range(_PATTERN)]
        self.stall = [generator.random() < item["stall"] for _ in range(_PATTERN)]
        self.scores: list[int] = []
        self.lasts: list[int] = []
        self.labels: list[int] = []
        self.image_cycles: list[int] = []  # first beat of each image taken
        self.first_cycle = -1  # first result beat given
        self.start = 0
        self.label_cycles: list[int] = []

    async def run(self) -> dict[str, np.ndarray]:
        self.start = _cycle()
        stuck = not await self._stream()
        return {
            "scores": np.array(self.scores, np.int64),
            "lasts": np.array(self.lasts, bool),
            "labels": np.array(self.labels, np.int64),
            "image_cycles": np.array(self.image_cycles, np.int64),
            "label_cycles": np.array(self.label_cycles, np.int64),
            "first_cycle": np.array(self.first_cycle, np.int64),
            "stuck": np.array(stuck),
        }

    async def _stream(self) -> bool:
        """False when the core stopped taking images and giving results."""
        dut, edge = self.dut, self.edge
        ready, valid, data = dut.image_ready, dut.image_valid, dut.image_data
        result_valid, result_ready = dut.result_valid, dut.result_ready
        words, count = self.words, len(self.words)
        offering = taking = False  # valid and ready as driven: what the coming edge sees
        quiet = cycle = sent = 0
        while len(self.scores) < self.wanted:
            await edge
            cycle += 1
            quiet += 1
            if offering and ready.value == 1:
                if sent % self.beats == 0:
                    self.image_cycles.append(_cycle() - self.start)
                sent += 1
                quiet = 0
                offering = False
            if taking and result_valid.value == 1:
                self._take()
                quiet = 0
            if not offering:
                offering = sent < count and not (self.stalls and self.idle[cycle % _PATTERN])
                if offering:
                    data.value = words[sent]
                valid.value = offering
            if taking == (self.stalls and self.stall[cycle % _PATTERN]):
                taking = not taking
                result_ready.value = taking
            if quiet > _PATIENCE and not self.stalls:
                if not await self._until_something(offering):
                    return False
                quiet = 0
            elif quiet > self.timeout_cycles:
                return False
        valid.value = 0
        result_ready.value = 1
        for _ in range(_EXTRA_CYCLES):
            await edge
            if taking and result_valid.value == 1:
                self._take()
            taking = True
        result_ready.value = 0
        return True

    def _take(self) -> None:
        dut = self.dut
        if self.first_cycle < 0:
            self.first_cycle = _cycle() - self.start
        last = dut.result_last.value == 1
        self.scores.append(dut.result_score.value.to_signed())
        self.lasts.append(last)
        self.labels.append(dut.result_label.value.to_unsigned() if last else -1)
        if last:
            self.label_cycles.append(_cycle() - self.start)
        if len(self.scores) % _REPORT == 0:
            aside = self.folder / "progress.new"
            aside.write_text(f"{self.name} {len(self.scores)} {self.wanted}")
            aside.replace(self.folder / "progress")

    async def _until_something(self, offering: bool) -> bool:
        """Until a beat can move: False for a core that lets none move before the time-out."""
        dut = self.dut
        if dut.result_valid.value == 1 or (offering and dut.image_ready.value == 1):
            return True
        timeout = Timer(self.timeout_cycles * _PERIOD, "step")
        events = [timeout, RisingEdge(dut.result_valid)]
        if offering:
            events.append(RisingEdge(dut.image_ready))
        return await First(*events) is not timeout


def _cycle() -> int:
    return int(get_sim_time("step")) // _PERIOD
