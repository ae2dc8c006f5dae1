# SPDX-License-Identifier: BSD-2-Clause
"""Stream drivers, sinks, monitors and stall generators for Amaranth simulation.

    Source --valid/payload--> component --> Sink        Monitor watches any stream

Cycles are numbered: cycle 0 ends with the first clock edge after power-up, cycle t with edge t.
A transfer happens in cycle t when valid and ready are both high at edge t; `times` records it.
A source can present its first payload in cycle 0.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from amaranth.hdl import ClockDomain, Module, Value
from amaranth.sim import Simulator

__all__ = ["Monitor", "ProtocolError", "Sink", "Source", "never", "random_stalls", "run"]


class ProtocolError(AssertionError):
    """A stream broke its rules, or a bench waited longer than its bound."""


def never() -> Iterator[bool]:
    """A stall generator that never stalls."""
    while True:
        yield False


def random_stalls(probability: float, seed: int = 0) -> Iterator[bool]:
    """A stall generator: True (hold off this cycle) with the given probability."""
    generator = random.Random(seed)
    while True:
        yield generator.random() < probability


class Source:
    """Sends payloads into a stream, in order.

    Once valid is high it stays high, with its payload, until the transfer. In a cycle in which
    the clock domain is reset nothing is transferred and the source starts over.

    Parameters
    ----------
    stream: the input stream of a component.
    payloads: values its payload takes (integers, or lists and dicts for layouts).
    idle: for each cycle in which a new payload could be presented, True to leave it idle.

    Attributes
    ----------
    times: the cycle of every transfer since the last reset.
    """

    def __init__(
        self, stream: Any, payloads: Iterable[Any], *, idle: Iterable[bool] | None = None
    ) -> None:
        self.stream = stream
        self.payloads = list(payloads)
        self.idle = iter(never() if idle is None else idle)
        self.times: list[int] = []

    @property
    def done(self) -> bool:
        return len(self.times) == len(self.payloads)

    @property
    def progress(self) -> str:
        return f"source sent {len(self.times)} of {len(self.payloads)}"

    async def process(self, ctx: Any) -> None:
        valid = self._present(ctx)
        cycle = 0
        async for _, reset, ready in ctx.tick().sample(self.stream.ready):
            if reset:
                self.times.clear()
                valid = self._present(ctx)
            else:
                if valid and ready:
                    self.times.append(cycle)
                    valid = False
                if not valid:
                    valid = self._present(ctx)
            cycle += 1

    def _present(self, ctx: Any) -> bool:
        valid = not self.done and not next(self.idle)
        if valid:
            ctx.set(self.stream.payload, self.payloads[len(self.times)])
        ctx.set(self.stream.valid, valid)
        return valid


class Sink:
    """Takes payloads out of a stream.

    Parameters
    ----------
    stream: the output stream of a component.
    count: how many transfers the bench waits for. More are still recorded, so that a surplus
        shows; None waits for none.
    stall: for each cycle, True to hold ready low.
    waits: ready stays low until valid was high at the last edge: a component whose valid waits
        for ready never gets anywhere with such a sink.

    Attributes
    ----------
    received: payloads since the last reset (integers, or `amaranth.lib.data.Const`).
    times: their cycles.
    """

    def __init__(
        self,
        stream: Any,
        count: int | None = None,
        *,
        stall: Iterable[bool] | None = None,
        waits: bool = False,
    ) -> None:
        self.stream = stream
        self.count = count
        self.stall = iter(never() if stall is None else stall)
        self.waits = waits
        self.received: list[Any] = []
        self.times: list[int] = []

    @property
    def done(self) -> bool:
        return self.count is None or len(self.received) >= self.count

    @property
    def progress(self) -> str:
        return f"sink got {len(self.received)} of {self.count}"

    async def process(self, ctx: Any) -> None:
        always = self.stream.signature.always_ready
        ready = always or (not next(self.stall) and not self.waits)
        if not always:
            ctx.set(self.stream.ready, ready)
        cycle = 0
        trigger = ctx.tick().sample(self.stream.valid, self.stream.payload)
        async for _, reset, valid, payload in trigger:
            if reset:
                self.received.clear()
                self.times.clear()
            elif valid and ready:
                self.received.append(payload)
                self.times.append(cycle)
            if not always:
                waiting = self.waits and (reset or not valid or ready)
                ready = not next(self.stall) and not waiting
                ctx.set(self.stream.ready, ready)
            cycle += 1


class Monitor:
    """Raises ProtocolError when a stream drops valid or changes its payload before the transfer."""

    done = True
    progress = "monitor"

    def __init__(self, stream: Any, name: str = "stream") -> None:
        self.stream = stream
        self.name = name

    async def process(self, ctx: Any) -> None:
        held = None
        cycle = 0
        stream = self.stream
        payload = Value.cast(stream.payload)
        trigger = ctx.tick().sample(stream.valid, stream.ready, payload)
        async for _, reset, valid, ready, value in trigger:
            if held is not None and not reset:
                if not valid:
                    raise ProtocolError(f"{self.name}: valid dropped untaken in cycle {cycle}")
                if value != held:
                    raise ProtocolError(
                        f"{self.name}: payload changed from {held:#x} to {value:#x} "
                        f"before it was taken, in cycle {cycle}"
                    )
            held = value if valid and not ready and not reset else None
            cycle += 1


def run(
    component: Any,
    processes: Sequence[Source | Sink | Monitor | Callable[[Any], Any]],
    bound: int,
    *,
    reset: Collection[int] = (),
    extra: int = 8,
) -> int:
    """Simulate until every process is done; returns the number of cycles that took.

    processes: sources, sinks, monitors, or `async def bench(ctx)` functions, which run as
        testbenches and are done when they return.
    bound: cycles after which the bench gives up with ProtocolError.
    reset: cycles in which the `sync` domain is held in reset (synchronous); the bench does not
        end before the last of them.
    extra: cycles simulated after all are done, so that surplus transfers are seen.
    """
    top = Module()
    top.domains.sync = domain = ClockDomain("sync")
    top.submodules.dut = component
    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    running = []
    for process in processes:
        if callable(process):
            bench = _Testbench(process)
            running.append(bench)
            simulator.add_testbench(bench.process, background=True)
        else:
            running.append(process)
            simulator.add_process(process.process)
    last_reset = max(reset, default=-1)
    taken = 0

    async def pulse(ctx: Any) -> None:
        ctx.set(domain.rst, 0 in reset)
        cycle = 1
        async for _ in ctx.tick():
            ctx.set(domain.rst, cycle in reset)
            cycle += 1

    async def supervise(ctx: Any) -> None:
        nonlocal taken
        while taken <= last_reset or not all(process.done for process in running):
            if taken >= bound:
                state = ", ".join(p.progress for p in running if not p.done)
                raise ProtocolError(f"Not done after {bound} cycles: {state}")
            await ctx.tick()
            taken += 1
        for _ in range(extra):
            await ctx.tick()

    if reset:
        simulator.add_process(pulse)
    simulator.add_testbench(supervise)
    simulator.run()
    return taken


class _Testbench:
    """An `async def bench(ctx)` function that knows whether it has returned."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.done = False
        self.progress = f"{function.__name__} has not returned"

    async def process(self, ctx: Any) -> None:
        await self.function(ctx)
        self.done = True
