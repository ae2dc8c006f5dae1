# SPDX-License-Identifier: BSD-2-Clause
"""AXI4-Lite, one access at a time, as a stream of requests and one of responses.

Source: AMBA AXI and ACE Protocol Specification (ARM IHI 0022), chapter B1.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RESPONSE_LAYOUT", "AxiLite", "axi_lite_ports", "request_layout"]

OKAY, SLVERR = 0, 2
RESPONSE_LAYOUT = data.StructLayout({"data": 32, "error": 1})


def request_layout(address_bits: int) -> data.StructLayout:
    """address: of a word. data: to write; bytes without their strobe are 0."""
    return data.StructLayout({"address": address_bits - 2, "write": 1, "data": 32})


def axi_lite_ports(address_bits: int, prefix: str = "s_axi_") -> dict[str, wiring.Member]:
    """The ports of a subordinate with data of 32 bits."""
    ports = {
        "awaddr": In(address_bits),
        "awprot": In(3),
        "awvalid": In(1),
        "awready": Out(1),
        "wdata": In(32),
        "wstrb": In(4),
        "wvalid": In(1),
        "wready": Out(1),
        "bresp": Out(2),
        "bvalid": Out(1),
        "bready": In(1),
        "araddr": In(address_bits),
        "arprot": In(3),
        "arvalid": In(1),
        "arready": Out(1),
        "rdata": Out(32),
        "rresp": Out(2),
        "rvalid": Out(1),
        "rready": In(1),
    }
    return {prefix + name: member for name, member in ports.items()}


class AxiLite(wiring.Component):
    """An AXI4-Lite subordinate.

    Address and data of a write may come in any order; writes and reads that wait take turns. The
    two lowest address bits are ignored, as the bus transfers whole words. An error is answered
    with SLVERR.

    Throughput: one access at a time.  Latency: 3 cycles and those of the response.
    Back-pressure: each channel holds one transfer; `ready` depends on registers only.
    Cost: about 110 flip-flops.

    Parameters
    ----------
    address_bits : of a byte address

    Members
    -------
    s_axi_aw*, w*, b*, ar*, r* : AXI4-Lite
    request : Out(stream.Signature(request_layout(address_bits)))
    response : In(stream.Signature(RESPONSE_LAYOUT))
        One for each request, in order.
    """

    def __init__(self, *, address_bits: int):
        super().__init__(
            {
                **axi_lite_ports(address_bits),
                "request": Out(stream.Signature(request_layout(address_bits))),
                "response": In(stream.Signature(RESPONSE_LAYOUT)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        request = self.request.payload
        read_address, write_address = (Signal(len(request.address)) for _ in range(2))
        write_data = Signal(32)
        # A channel's transfer is here; they stay until they have been answered.
        has_ar, has_aw, has_w = (Signal(name=name) for name in ("has_ar", "has_aw", "has_w"))
        asked, writes = Signal(), Signal()  # a request is on its way, it is a write
        strobes = Cat(bit.replicate(8) for bit in self.s_axi_wstrb)
        m.d.comb += [
            self.s_axi_arready.eq(~has_ar),
            self.s_axi_awready.eq(~has_aw),
            self.s_axi_wready.eq(~has_w),
        ]
        with m.If(self.s_axi_arvalid & ~has_ar):
            m.d.sync += [has_ar.eq(1), read_address.eq(self.s_axi_araddr[2:])]
        with m.If(self.s_axi_awvalid & ~has_aw):
            m.d.sync += [has_aw.eq(1), write_address.eq(self.s_axi_awaddr[2:])]
        with m.If(self.s_axi_wvalid & ~has_w):
            m.d.sync += [has_w.eq(1), write_data.eq(self.s_axi_wdata & strobes)]

        write_waits = has_aw & has_w & ~self.s_axi_bvalid
        read_waits = has_ar & ~self.s_axi_rvalid
        with m.If(~self.request.valid & ~asked), m.If(write_waits | read_waits):
            chosen = Mux(read_waits & write_waits, ~writes, write_waits)
            m.d.sync += [
                writes.eq(chosen),
                self.request.valid.eq(1),
                request.write.eq(chosen),
                request.address.eq(Mux(chosen, write_address, read_address)),
                request.data.eq(write_data),
            ]
        with m.If(self.request.valid & self.request.ready):
            m.d.sync += [self.request.valid.eq(0), asked.eq(1)]

        code = Mux(self.response.payload.error, SLVERR, OKAY)
        m.d.comb += self.response.ready.eq(1)  # there is room: one request is out at most
        with m.If(self.response.valid):  # maybe in the cycle in which the request is taken
            m.d.sync += asked.eq(0)
            with m.If(writes):
                m.d.sync += [self.s_axi_bvalid.eq(1), self.s_axi_bresp.eq(code)]
            with m.Else():
                m.d.sync += [
                    self.s_axi_rvalid.eq(1),
                    self.s_axi_rresp.eq(code),
                    self.s_axi_rdata.eq(self.response.payload.data),
                ]
        with m.If(self.s_axi_bvalid & self.s_axi_bready):
            m.d.sync += [self.s_axi_bvalid.eq(0), has_aw.eq(0), has_w.eq(0)]
        with m.If(self.s_axi_rvalid & self.s_axi_rready):
            m.d.sync += [self.s_axi_rvalid.eq(0), has_ar.eq(0)]
        return m
