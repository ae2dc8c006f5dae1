# SPDX-License-Identifier: BSD-2-Clause
"""The core behind the AXI shell, as streams in the clock domain of a bus.

one clock:    streams --> shell --> core                        bus
two clocks:   streams --> crossings --> shell --> core          bus | core
"""

from typing import NamedTuple

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer, ResetSynchronizer
from amaranth.lib.wiring import In

from xnorforge.gen.assembly import CoreParts
from xnorforge.gen.core_instance import add_core
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.hw.axi_lite import AxiLite, axi_lite_ports
from xnorforge.hw.axi_shell import AxiShell, AxiShellConfig, axi_streams
from xnorforge.hw.crossing import Crossing
from xnorforge.sw.protocol import CRC_BYTES

__all__ = ["Bus", "add_axi_lite", "add_bus_core", "shell_config"]

_DEPTH = {"images": 16, "weights": 8, "results": 16, "request": 4, "response": 4}


class Bus(NamedTuple):
    """The bus side of a core.

    domain: its clock domain. streams: the ends of `hw.axi_shell.axi_streams`, by name. is_open:
    high where the side is out of reset; before, nothing may be taken or given.
    """

    domain: str
    streams: dict
    is_open: Value


def shell_config(network: Network, plan: Plan, parts: CoreParts) -> AxiShellConfig:
    """The shell of a plan whose `beat_bytes` is known."""
    return AxiShellConfig(
        image_bytes=network.input.image_bytes,
        beat_bytes=plan.beat_bytes,
        classes=network.classes,
        score_bits=parts.head.score_bits,
        load_bytes=parts.load_bytes + CRC_BYTES,
        images_held=parts.images_held + 2,  # in the feed, too
        slots=plan.slots,
    )


def add_bus_core(
    m: Module,
    network: Network,
    plan: Plan,
    parts: CoreParts,
    *,
    clock: Value,
    reset: Value,
    core_clock: Value | None = None,
) -> Bus:
    """Put clock domains, shell and core into a module without any.

    clock, reset: the bus's; the reset is high. core_clock: where it is another; the reset may come
    at any time then, and is at least as long as a cycle of either.
    """
    config = shell_config(network, plan, parts)
    m.submodules.shell = shell = AxiShell(config=config)
    add_core(m, shell, network, plan, parts)
    if core_clock is not None:
        is_open = _clocks(m, clock, reset, core_clock)
        return Bus("bus", _crossings(m, shell, config), is_open)
    m.domains.sync = ClockDomain()
    m.d.comb += [ClockSignal().eq(clock), ResetSignal().eq(reset)]
    streams = {name: getattr(shell, name) for name in axi_streams(config)}
    return Bus("sync", streams, ~ResetSignal())


def add_axi_lite(m: Module, system: wiring.Component, bus: Bus, address_bits: int) -> AxiLite:
    """Put an AXI4-Lite subordinate behind the ports of a system; its requests are not wired."""
    m.submodules.lite = lite = DomainRenamer(bus.domain)(AxiLite(address_bits=address_bits))
    for name, member in axi_lite_ports(address_bits).items():
        own, its = getattr(system, name), getattr(lite, name)
        if name.endswith(("awvalid", "wvalid", "arvalid")):
            m.d.comb += its.eq(own & bus.is_open)
        elif name.endswith(("awready", "wready", "arready")):
            m.d.comb += own.eq(its & bus.is_open)
        else:
            m.d.comb += its.eq(own) if member.flow is In else own.eq(its)
    return lite


def _clocks(m, clock, reset, core_clock) -> Value:
    """Both domains, reset together; high where the bus side is out of reset.

    The bus side waits for the core's, so that nothing is sent into a reset.
    """
    m.domains.sync = ClockDomain()
    m.domains.bus = ClockDomain()
    ready = Signal()
    m.d.comb += [ClockSignal().eq(core_clock), ClockSignal("bus").eq(clock)]
    m.submodules.core_reset = ResetSynchronizer(reset, domain="sync")
    m.submodules.core_ready = FFSynchronizer(~ResetSignal(), ready, o_domain="bus", init=0)
    m.d.comb += ResetSignal("bus").eq(~(~reset & ready))
    return ~ResetSignal("bus")


def _crossings(m, shell, config) -> dict:
    """A crossing for each stream; their bus ends."""
    ends = {}
    for name, member in axi_streams(config).items():
        inwards = member.flow is In
        domains = ("bus", "sync") if inwards else ("sync", "bus")
        crossing = Crossing(
            shape=member.signature.members["payload"].shape,
            depth=_DEPTH[name],
            i_domain=domains[0],
            o_domain=domains[1],
        )
        m.submodules[f"cross_{name}"] = crossing
        if inwards:
            wiring.connect(m, crossing.o, getattr(shell, name))
        else:
            wiring.connect(m, getattr(shell, name), crossing.i)
        ends[name] = crossing.i if inwards else crossing.o
    return ends
