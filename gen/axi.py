# SPDX-License-Identifier: BSD-2-Clause
"""The core with AXI ports, for a design of somebody else's ([docs/axi.md](../docs/axi.md)).

one clock:    AXI ports --> shell --> core                      aclk
two clocks:   AXI ports --> crossings --> shell --> core        aclk | core_clk
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.assembly import CoreParts
from xnorforge.gen.bus_core import add_axi_lite, add_bus_core
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.hw.axi_lite import axi_lite_ports
from xnorforge.hw.axi_shell import ADDRESS_BITS
from xnorforge.sw.protocol import WORD_BITS

__all__ = ["AXI", "AxiSystem", "beat_bytes"]

AXI = "xnorforge_axi"
"""The Verilog module with the AXI ports."""

MAX_BEAT_BYTES = 128  # AXI's widest


def beat_bytes(network: Network, lanes: int) -> int:
    """Bytes of an image beat: no fewer than a beat of the core takes, a power of two."""
    value = network.input.value
    needed = -(-lanes // 8) if value.bits == 1 else lanes
    size = 1
    while size < min(needed, network.input.image_bytes, MAX_BEAT_BYTES):
        size *= 2
    return size


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
        bus = add_bus_core(
            m,
            self.network,
            self.plan,
            self.parts,
            clock=self.aclk,
            reset=~self.aresetn,
            core_clock=self.core_clk if self.crosses else None,
        )
        lite = add_axi_lite(m, self, bus, ADDRESS_BITS)
        streams, open_ = bus.streams, bus.is_open
        wiring.connect(m, lite.request, streams["request"])
        wiring.connect(m, streams["response"], lite.response)
        for name, port in (("image", streams["images"]), ("weights", streams["weights"])):
            tvalid = getattr(self, f"s_axis_{name}_tvalid")
            m.d.comb += [
                port.payload.data.eq(getattr(self, f"s_axis_{name}_tdata")),
                port.payload.last.eq(getattr(self, f"s_axis_{name}_tlast")),
                port.valid.eq(tvalid & open_),
                getattr(self, f"s_axis_{name}_tready").eq(port.ready & open_),
            ]
            if self.plan.slots > 1:
                m.d.comb += port.payload.slot.eq(getattr(self, f"s_axis_{name}_tuser"))
        results = streams["results"]
        m.d.comb += [
            self.m_axis_result_tdata.eq(results.payload.data),
            self.m_axis_result_tlast.eq(results.payload.last),
            self.m_axis_result_tuser.eq(results.payload.user),
            self.m_axis_result_tvalid.eq(results.valid & open_),
            results.ready.eq(self.m_axis_result_tready & open_),
        ]
        return m
