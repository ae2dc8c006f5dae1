# SPDX-License-Identifier: BSD-2-Clause
"""A PC with a slot, for a LitePCIe core in a simulator: cocotbext-pcie's models around its stub.

    memory --- root complex --- link --- model of the hard block --- stub `pcie_usp` --- LitePCIe

The link's speed is the limit: the root port negotiates down a card of generation 3 with 4 lanes.
Runs inside the simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge, Timer
from cocotbext.axi import AxiStreamBus, MemoryRegion
from cocotbext.pcie.core import RootComplex
from cocotbext.pcie.core.port import PCIE_GEN_RATE
from cocotbext.pcie.xilinx.us import UltraScalePlusPcieDevice

__all__ = ["BusError", "Host"]

BAR0_BYTES = 1 << 20
"""Vivado's block has no smaller one; LitePCIe repeats its 256 KiB in it."""

_XILINX = 0x10EE
_COMPLETION_NS = 100_000
_CONFIGURATION_NS = 20_000
_STATUS_NS = 80


class BusError(Exception):
    """A read that was not answered, or not with what was asked for."""


class Host:
    """A root complex and the card's hard block, made anew by each reset.

    top: of `gen.pcie_top`. memory: pieces of the host's, by address below 2 GiB. payload_bytes:
    that a write or completion has at most. latency_ns: of the link, each way.
    """

    def __init__(
        self,
        top: Any,
        memory: Mapping[int, memoryview],
        *,
        generation: int,
        lanes: int,
        device_id: int,
        payload_bytes: int,
        latency_ns: int,
    ) -> None:
        self._top, self._memory = top, memory
        self._block = top.litepcie.pcie_support.pcie_usp_i
        self.generation, self.lanes = generation, lanes
        self._device_id = device_id
        self._payload = (payload_bytes // 128).bit_length() - 1
        self._latency_ns = latency_ns
        # Generation 3 needs the faster clock; below it, half the cycles are half the work.
        self._fast = generation > 2
        self.period_ps = 4000 if self._fast else 8000
        self._tasks = _Tasks()
        top.pcie_clk_p.value = 0
        top.pcie_rst_n.value = 0

    @property
    def bytes_per_second(self) -> float:
        """Of the link after its line code, headers included."""
        return PCIE_GEN_RATE[self.generation] * self.lanes / 8

    @property
    def reading(self) -> bool:
        """Whether the card has reads on the way."""
        return any(self._card.active_request)

    async def wait(self, cycles: int) -> None:
        await Timer(cycles * self.period_ps, "ps")

    async def reset(self) -> None:
        """Now, whatever goes on: what is on the way and the configuration are lost."""
        await self._tasks.end()
        self._top.pcie_rst_n.value = 0
        self._plug()
        self._block.user_reset.value = 1
        await self.wait(40)

    async def rescan(self) -> None:
        """The card comes out of reset; the bus is enumerated, the card configured.

        Raises BusError where it does not appear.
        """
        self._top.pcie_rst_n.value = 1
        await self.wait(8)
        while int(self._block.user_reset.value):
            await RisingEdge(self._block.user_clk)
        await self._root.enumerate(timeout=_CONFIGURATION_NS)
        function = self._card.functions[0]
        found = self._root.find_device(function.pcie_id)
        if found is None or (found.vendor_id, found.device_id) != (_XILINX, self._device_id):
            raise BusError("the card was not enumerated")
        await found.enable_device()
        await found.set_master()
        self._bar = found.bar_addr[0]

    async def read(self, address: int, length: int) -> bytes:
        """From BAR 0, or at addresses behind it. Raises BusError."""
        try:
            return await self._root.mem_read(self._bar + address, length, timeout=_COMPLETION_NS)
        except AssertionError as error:
            raise BusError("malformed completion") from error
        except Exception as error:  # the models raise nothing more special
            raise BusError(str(error)) from error

    async def write(self, address: int, data: bytes) -> None:
        """Posted: it is on its way when this returns."""
        await self._root.mem_write(self._bar + address, data)

    def _plug(self) -> None:
        """Models with nothing in them; the card in reset."""
        block = self._block
        self._card = card = _Card(
            pcie_generation=3 if self._fast else 2,
            pcie_link_width=4,
            user_clk_frequency=1e12 / self.period_ps,
            alignment="dword",
            max_payload_size=512,
            enable_client_tag=True,
            enable_extended_tag=False,
            pf0_msi_enable=True,
            user_clk=block.user_clk,
            user_reset=block.user_reset,
            user_lnk_up=block.user_lnk_up,
            sys_reset=block.sys_reset,
            cq_bus=AxiStreamBus.from_prefix(block, "m_axis_cq"),
            cc_bus=AxiStreamBus.from_prefix(block, "s_axis_cc"),
            rq_bus=AxiStreamBus.from_prefix(block, "s_axis_rq"),
            rc_bus=AxiStreamBus.from_prefix(block, "m_axis_rc"),
            cfg_max_payload=block.cfg_max_payload,
            cfg_max_read_req=block.cfg_max_read_req,
            cfg_function_status=block.cfg_function_status,
            cfg_current_speed=block.cfg_current_speed,
            cfg_negotiated_width=block.cfg_negotiated_width,
        )
        function = card.functions[0]
        function.vendor_id, function.device_id = _XILINX, self._device_id
        function.configure_bar(0, BAR0_BYTES)
        self._root = root = RootComplex()
        root.max_payload_size = self._payload
        for address, piece in self._memory.items():
            root.mem_pool.register_region(MemoryRegion(len(piece), mem=piece), address)
        port = root.make_port()
        ends = (port.downstream_port, card.upstream_port)
        for end in ends:
            end.port_delay = self._latency_ns * 1e-9 / len(ends)
        port.downstream_port.max_link_speed = self.generation
        port.downstream_port.max_link_width = self.lanes
        port.connect(card)


class _Card(UltraScalePlusPcieDevice):
    """The hard block, without looking in each cycle whether there is something to do: twice as
    fast. LitePCIe always takes requests (`pcie_cq_np_req` is high) and counts no sequence numbers;
    interrupts are left out."""

    async def _run_cq_logic(self) -> None:
        while True:
            packet = await self.cq_queue.get()
            await self.cq_source.send(packet.pack_us_cq())

    async def _run_rq_seq_num_logic(self) -> None:
        while True:
            await self.rq_seq_num.get()

    async def _run_cfg_status_logic(self) -> None:
        function = self.functions[0]
        while True:
            await Timer(_STATUS_NS, "ns")
            self.config_space_enable = bool(self.sys_reset.value)
            self.user_lnk_up.value = self.config_space_enable
            self.cfg_max_payload.value = function.pcie_cap.max_payload_size & 3
            self.cfg_max_read_req.value = function.pcie_cap.max_read_request_size
            self.cfg_function_status.value = 7 * function.bus_master_enable
            self.cfg_current_speed.value = max(function.pcie_cap.current_link_speed - 1, 0)
            width = function.pcie_cap.negotiated_link_width
            self.cfg_negotiated_width.value = max(width.bit_length() - 1, 0)

    async def _run_cfg_ctrl_logic(self) -> None:
        pass

    async def _run_cfg_int_logic(self) -> None:
        pass


class _Tasks:
    """All tasks that the models start, so that a reset can end them: cocotb ends a test's tasks
    only together with the test."""

    def __init__(self) -> None:
        self._start = cocotb.start_soon
        self._running: list[Any] = []
        self._kept = 1000
        cocotb.start_soon = self._start_soon

    def _start_soon(self, task: Any, **options: Any) -> Any:
        started = self._start(task, **options)
        self._running.append(started)
        if len(self._running) > self._kept:
            self._running = [task for task in self._running if not task.done()]
            self._kept = 1000 + 2 * len(self._running)
        return started

    async def end(self) -> None:
        for task in self._running:
            if not task.done():
                task.cancel()
        self._running.clear()
        await Timer(1, "step")
