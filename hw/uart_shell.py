# SPDX-License-Identifier: BSD-2-Clause
"""UART shell: the link between two pins and the core's streams.

rx --> UART --> link shell --> image, config, flush
tx <-- UART <-- link shell <-- result, registers
"""

from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.link_shell import LinkShell, LinkShellConfig, core_ports
from xnorforge.hw.uart import UartReceiver, UartTransmitter

__all__ = ["UartShell", "UartShellConfig"]

UartShellConfig = LinkShellConfig
"""A UART adds nothing to say."""


class UartShell(wiring.Component):
    """Pins to core.

    Throughput: a byte in 10 bits each way, at the line's speed.
    Latency: `LinkShell`'s; before it 3 clocks from the middle of a byte's stop bit, behind it 1.
    Back-pressure: `LinkShell`'s.
    Cost: see docs/link.md.

    Parameters
    ----------
    config : UartShellConfig

    Members
    -------
    rx, tx : In(1), Out(1)
    divisor : In(16)
        Clocks a bit, at least 4.
    image, result, config, register_address, register_data, flush : as of LinkShell
    image_slot, config_slot : as of LinkShell
    """

    def __init__(self, *, config: UartShellConfig):
        self.shell = config
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "divisor": In(16),
                **core_ports(config.score_bits, config.slots),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = UartReceiver()
        m.submodules.transmitter = transmitter = UartTransmitter()
        m.submodules.link = link = LinkShell(config=self.shell)
        wiring.connect(m, receiver.o, link.i)
        wiring.connect(m, link.o, transmitter.i)
        for name in ("image", "config"):
            wiring.connect(m, getattr(link, name), wiring.flipped(getattr(self, name)))
        wiring.connect(m, wiring.flipped(self.result), link.result)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            receiver.divisor.eq(self.divisor),
            transmitter.divisor.eq(self.divisor),
            self.tx.eq(transmitter.tx),
            link.spoilt.eq(receiver.framing_error),
            self.register_address.eq(link.register_address),
            link.register_data.eq(self.register_data),
            self.flush.eq(link.flush),
        ]
        if self.shell.slots > 1:
            m.d.comb += [
                self.image_slot.eq(link.image_slot),
                self.config_slot.eq(link.config_slot),
            ]
        return m
