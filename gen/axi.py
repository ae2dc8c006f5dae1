# SPDX-License-Identifier: BSD-2-Clause
"""The core with AXI ports, for a design of somebody else's ([docs/axi.md](../docs/axi.md)).

one clock:    AXI ports --> shell --> core                      aclk
two clocks:   AXI ports --> crossings --> shell --> core        aclk | core_clk
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer, ResetSynchronizer
from amaranth.lib.wiring import In, Out

from xnorforge.gen.assembly import CoreParts
from xnorforge.gen.core_instance import add_core
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.hw.axi_lite import AxiLite, axi_lite_ports
from xnorforge.hw.axi_shell import ADDRESS_BITS, AxiShell, AxiShellConfig, axi_streams
from xnorforge.hw.crossing import Crossing
from xnorforge.sw.protocol import CRC_BYTES, WORD_BITS

__all__ = ["AXI", "AxiSystem", "beat_bytes", "shell_config"]

AXI = "xnorforge_axi"
"""The Verilog module with the AXI ports."""

MAX_BEAT_BYTES = 128  # AXI's widest
_DEPTH = {"images": 16, "weights": 8, "results": 16, "request": 4, "response": 4}


def beat_bytes(network: Network, lanes: int) -> int:
    """Bytes of an image beat: no fewer than a beat of the core takes, a power of two."""
    value = network.input.value
    needed = -(-lanes // 8) if value.bits == 1 else lanes
    size = 1
    while size < min(needed, network.input.image_bytes, MAX_BEAT_BYTES):
        size *= 2
    return size


def shell_config(network: Network, plan: Plan, parts: CoreParts) -> AxiShellConfig:
    return AxiShellConfig(
        image_bytes=network.input.image_bytes,
        beat_bytes=plan.beat_bytes,
        classes=network.classes,
        score_bits=parts.head.score_bits,
        load_bytes=parts.load_bytes + CRC_BYTES,
        images_held=parts.images_held + 2,  # in the feed, too
        slots=plan.slots,
    )


class AxiSystem(wiring.Component):
    """Shell and core behind AXI ports.

    Throughput, latency, back-pressure: `AxiShell`'s and the core's; two clocks add those of
    `Crossing` each way.

    Members
    -------
    aclk, aresetn : In(1), In(1)
        Clock and reset of all AXI ports. With two clocks the reset may come at any time and is at
        least as long as a cycle of either; with one it goes with `aclk`.
    core_clk : In(1)
        Of the core; only where the plan has a `bus_clock_hz`.
    s_axi_* : AXI4-Lite, 32 bits
    s_axis_image_*, s_axis_weights_*, m_axis_result_* : AXI4-Stream
        `tuser` of the first two is the slot, where there are two.
    """

    def __init__(self, network: Network, plan: Plan, parts: CoreParts):
        self.network, self.plan, self.parts = network, plan, parts
        self.shell = shell_config(network, plan, parts)
        self.crosses = plan.bus_clock_hz is not None
        slot = {"tuser": In(1)} if plan.slots > 1 else {}
        stream_ports = {
            "s_axis_image_": {"tdata": In(8 * plan.beat_bytes), "tlast": In(1), **slot},
            "s_axis_weights_": {"tdata": In(8), "tlast": In(1), **slot},
            "m_axis_result_": {"tdata": Out(WORD_BITS), "tlast": Out(1), "tuser": Out(1)},
        }
        ports = {}
        for prefix, members in stream_ports.items():
            given = In if prefix.startswith("s_") else Out
            taken = Out if prefix.startswith("s_") else In
            members = {**members, "tvalid": given(1), "tready": taken(1)}
            ports |= {prefix + name: member for name, member in members.items()}
        super().__init__(
            {
                "aclk": In(1),
                "aresetn": In(1),
                **({"core_clk": In(1)} if self.crosses else {}),
                **axi_lite_ports(ADDRESS_BITS),
                **ports,
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.shell = shell = AxiShell(config=self.shell)
        add_core(m, shell, self.network, self.plan, self.parts)
        lite = AxiLite(address_bits=ADDRESS_BITS)
        if self.crosses:
            open_ = self._clocks(m)  # whether the bus may be listened to
            bus = self._crossings(m, shell)
            lite = DomainRenamer("bus")(lite)
        else:
            m.domains.sync = ClockDomain()
            m.d.comb += [ClockSignal().eq(self.aclk), ResetSignal().eq(~self.aresetn)]
            open_ = ~ResetSignal()
            bus = {name: getattr(shell, name) for name in axi_streams(self.shell)}
        m.submodules.lite = lite
        wiring.connect(m, lite.request, bus["request"])
        wiring.connect(m, bus["response"], lite.response)
        for name, member in axi_lite_ports(ADDRESS_BITS).items():
            own, its = getattr(self, name), getattr(lite, name)
            if name.endswith(("awvalid", "wvalid", "arvalid")):
                m.d.comb += its.eq(own & open_)
            elif name.endswith(("awready", "wready", "arready")):
                m.d.comb += own.eq(its & open_)
            else:
                m.d.comb += its.eq(own) if member.flow is In else own.eq(its)
        for name, port in (("image", bus["images"]), ("weights", bus["weights"])):
            tvalid = getattr(self, f"s_axis_{name}_tvalid")
            m.d.comb += [
                port.payload.data.eq(getattr(self, f"s_axis_{name}_tdata")),
                port.payload.last.eq(getattr(self, f"s_axis_{name}_tlast")),
                port.valid.eq(tvalid & open_),
                getattr(self, f"s_axis_{name}_tready").eq(port.ready & open_),
            ]
            if self.plan.slots > 1:
                m.d.comb += port.payload.slot.eq(getattr(self, f"s_axis_{name}_tuser"))
        results = bus["results"]
        m.d.comb += [
            self.m_axis_result_tdata.eq(results.payload.data),
            self.m_axis_result_tlast.eq(results.payload.last),
            self.m_axis_result_tuser.eq(results.payload.user),
            self.m_axis_result_tvalid.eq(results.valid & open_),
            results.ready.eq(self.m_axis_result_tready & open_),
        ]
        return m

    def _clocks(self, m) -> Signal:
        """Both domains, reset together; high where the bus side is out of reset.

        The bus side waits for the core's, so that nothing is sent into a reset.
        """
        m.domains.sync = ClockDomain()
        m.domains.bus = ClockDomain()
        ready = Signal()
        m.d.comb += [ClockSignal().eq(self.core_clk), ClockSignal("bus").eq(self.aclk)]
        m.submodules.core_reset = ResetSynchronizer(~self.aresetn, domain="sync")
        m.submodules.core_ready = FFSynchronizer(~ResetSignal(), ready, o_domain="bus", init=0)
        m.d.comb += ResetSignal("bus").eq(~(self.aresetn & ready))
        return ~ResetSignal("bus")

    def _crossings(self, m, shell) -> dict:
        """A crossing for each stream; their bus ends."""
        bus = {}
        for name, member in axi_streams(self.shell).items():
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
            bus[name] = crossing.i if inwards else crossing.o
        return bus
