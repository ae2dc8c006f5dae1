# SPDX-License-Identifier: BSD-2-Clause
"""The cocotb bench of `sim.pcie_card`: a card in a PC, and the work of LitePCIe's Linux driver.

The registers written, and their order, are those of `software/kernel/main.c` of LitePCIe 2024.12;
questions stand for its system calls, and JSON answers for what they give back. The driver waits a
millisecond when it stops the DMA; here that is until the card has no reads on the way. Interrupts
are enabled as there and none comes: a program that looks into the mapped buffers needs none.

    read, write     a word of BAR 0 (LITEPCIE_IOCTL_REG); a write is on its way when answered
    lock            both directions (LITEPCIE_IOCTL_LOCK)
    reader, writer  `enable`: host to card, card to host (LITEPCIE_IOCTL_DMA_READER, _WRITER)
    wait            `cycles` of LitePCIe's clock
    time            nanoseconds that have passed in the simulation
    link            generation, lanes, bytes a second each way
    reset           a reset of the card at once; then all reads are ones, until
    rescan          the bus is enumerated and the driver probed again, as for a new client
    raw_read        `length` bytes at `address`, whatever they are: status, and data where "ok"
    raw_write       `bytes` (hex) at `address`

The memory file holds the buffers, those to the card first; it is the memory that the DMA works on.
"""

from __future__ import annotations

import json
import mmap
import os
import random
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.utils import get_sim_time

from xnorforge.sim.line_server import serve_lines
from xnorforge.sim.pcie_host import BusError, Host

__all__ = ["serve_pcie"]

# Behind the base of the DMA's registers; the reader's (host to card) are 0x20 behind the writer's.
_ENABLE, _VALUE, _WE, _LOOP_PROG_N, _FLUSH = 0x00, 0x04, 0x0C, 0x10, 0x1C
_SIDES = {"writer": 0x00, "reader": 0x20}
_IRQ_DISABLE, _LAST_DISABLE = 1 << 24, 1 << 25
_BUFFERS_PER_IRQ = 32
_GONE = 0xFFFFFFFF
_SETTLE_CYCLES = 250
_LONGEST_STOP_NS = 1_000_000
_MEMORY = 0x1000_0000


@cocotb.test()
async def serve_pcie(dut) -> None:
    folder = Path(os.environ["XNORFORGE_JOB"])
    job = json.loads((folder / "job.json").read_text())
    Clock(dut.core_mmcm.CLKOUT0, job["core_period_ps"], "ps").start(start_high=False)
    driver = _Driver(dut, folder / "memory", job)
    await driver.host.reset()
    await driver.probe()
    await serve_lines(folder, driver.greet, driver.answer, driver.release)


class _Driver:
    """LitePCIe's driver with one card; `lock` and `enabled` are by direction."""

    def __init__(self, dut, file: Path, job: dict) -> None:
        self.buffers, self.size = job["buffers"], job["buffer_bytes"]
        self.file, self.registers = file, job["registers"]
        with file.open("wb+") as memory:
            memory.truncate(2 * self.buffers * self.size)
            mapped = memoryview(mmap.mmap(memory.fileno(), 0))
        pieces = [mapped[k * self.size :][: self.size] for k in range(2 * self.buffers)]
        places = _places(random.Random(job["seed"]), len(pieces), self.size)
        self.handles = {"reader": places[: self.buffers], "writer": places[self.buffers :]}
        self.host = Host(dut, dict(zip(places, pieces, strict=True)), **job["host"])
        self.present = False

    async def probe(self) -> None:
        """litepcie_pci_probe, and what the kernel does before."""
        await self.host.rescan()
        self.present = True
        self.locked: set[str] = set()
        self.enabled = dict.fromkeys(_SIDES, False)
        await self._writel(self.registers["ctrl_reset"], 1)
        await self.host.wait(_SETTLE_CYCLES)

    async def greet(self) -> dict:
        if not self.present:
            await self.probe()
        return {
            "device": "litepcie",
            "buffer_bytes": self.size,
            "buffers": self.buffers,
            "memory": str(self.file),
        }

    async def answer(self, question: dict) -> dict:
        return await getattr(self, f"_op_{question['op']}", self._op_unknown)(question)

    async def release(self) -> None:
        """litepcie_release: of the file of the client that has gone."""
        for side in sorted(self.locked):
            if self.present:
                await self._interrupt(side, False)
                await self._stop(side)
            self.enabled[side] = False
        self.locked.clear()

    # --- the driver's functions -----------------------------------------------------------------

    async def _readl(self, address: int) -> int:
        if not self.present:
            return _GONE
        try:
            return int.from_bytes(await self.host.read(address, 4), "little")
        except BusError:
            return _GONE

    async def _writel(self, address: int, value: int) -> None:
        if self.present:
            await self.host.write(address, (value & _GONE).to_bytes(4, "little"))

    async def _interrupt(self, side: str, on: bool) -> None:
        address, bit = self.registers["msi_enable"], 1 << self.registers[f"{side}_interrupt"]
        enabled = await self._readl(address)
        await self._writel(address, enabled | bit if on else enabled & ~bit)

    async def _start(self, side: str) -> None:
        base = self.registers["dma"] + _SIDES[side]
        await self._writel(base + _ENABLE, 0)
        await self._writel(base + _FLUSH, 1)
        await self._writel(base + _LOOP_PROG_N, 0)
        for index, handle in enumerate(self.handles[side]):
            flags = _LAST_DISABLE | _IRQ_DISABLE * (index % _BUFFERS_PER_IRQ != 0)
            await self._writel(base + _VALUE, flags | self.size)
            await self._writel(base + _VALUE + 4, handle)
            await self._writel(base + _WE, handle >> 32)
        await self._writel(base + _LOOP_PROG_N, 1)
        await self._writel(base + _ENABLE, 1)

    async def _stop(self, side: str) -> None:
        base = self.registers["dma"] + _SIDES[side]
        await self._writel(base + _LOOP_PROG_N, 0)
        await self._writel(base + _FLUSH, 1)
        await self._delay()
        await self._writel(base + _ENABLE, 0)
        await self._writel(base + _FLUSH, 1)

    async def _delay(self) -> None:
        """In place of udelay(1000)."""
        end = get_sim_time("ns") + _LONGEST_STOP_NS
        await self.host.wait(_SETTLE_CYCLES)
        while self.host.reading and get_sim_time("ns") < end:
            await self.host.wait(_SETTLE_CYCLES)

    # --- questions ------------------------------------------------------------------------------

    async def _op_read(self, question: dict) -> dict:
        return {"value": await self._readl(_word_address(question["address"]))}

    async def _op_write(self, question: dict) -> dict:
        await self._writel(_word_address(question["address"]), question["value"])
        return {}

    async def _op_lock(self, question: dict) -> dict:
        free = not self.locked
        self.locked.update(_SIDES)
        return {"ok": free}

    async def _op_reader(self, question: dict) -> dict:
        return await self._switch("reader", question["enable"])

    async def _op_writer(self, question: dict) -> dict:
        return await self._switch("writer", question["enable"])

    async def _switch(self, side: str, on: bool) -> dict:
        if on != self.enabled[side]:
            if on:
                await self._start(side)
                await self._interrupt(side, True)
            else:
                await self._interrupt(side, False)
                await self._stop(side)
        self.enabled[side] = on
        return {}

    async def _op_wait(self, question: dict) -> dict:
        await self.host.wait(max(1, question["cycles"]))
        return {}

    async def _op_time(self, question: dict) -> dict:
        return {"ns": get_sim_time("ns")}

    async def _op_link(self, question: dict) -> dict:
        host = self.host
        return {
            "generation": host.generation,
            "lanes": host.lanes,
            "bytes_per_second": host.bytes_per_second,
        }

    async def _op_reset(self, question: dict) -> dict:
        self.present = False
        await self.host.reset()
        return {}

    async def _op_rescan(self, question: dict) -> dict:
        if self.present:
            await self.host.reset()
        await self.probe()
        return {}

    async def _op_raw_read(self, question: dict) -> dict:
        if not self.present:
            return {"status": "gone"}
        try:
            data = await self.host.read(question["address"], question["length"])
        except BusError as error:
            return {"status": str(error)}
        return {"status": "ok", "data": data.hex()}

    async def _op_raw_write(self, question: dict) -> dict:
        if not self.present:
            return {"status": "gone"}
        await self.host.write(question["address"], bytes.fromhex(question["bytes"]))
        return {"status": "ok"}

    async def _op_unknown(self, question: dict) -> dict:
        raise ValueError(f"no such question: {question['op']!r}")


def _word_address(address: int) -> int:
    if address % 4 or not 0 <= address < 1 << 20:
        raise ValueError(f"not a word of BAR 0: {address:#x}")
    return address


def _places(draw: random.Random, count: int, size: int) -> list[int]:
    """Where the kernel finds memory for so many buffers: in no order."""
    places = [_MEMORY + 4 * size * k + size * draw.randrange(4) for k in range(count)]
    draw.shuffle(places)
    return places
