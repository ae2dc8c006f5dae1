# SPDX-License-Identifier: BSD-2-Clause
"""UART, 8 data bits, no parity, 1 stop bit.

    idle ‾‾\\_start_/ d0 | d1 | ... | d7 \\ stop ‾‾        each bit `divisor` clocks long

The divisor is an input, so that one netlist runs at 100 clocks a bit on a board and at 4 in
simulation.
"""

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["MIN_DIVISOR", "UartReceiver", "UartTransmitter", "line_bits"]

MIN_DIVISOR = 4
"""Fewest clocks a bit: the receiver finds the start edge to one clock, a quarter of a bit."""


def line_bits(data: int) -> list[int]:
    """The ten line levels of a byte: start, bits from the lowest, stop."""
    return [0, *((data >> k) & 1 for k in range(8)), 1]


class UartReceiver(wiring.Component):
    """Line to bytes.

    Each bit is sampled once, in its middle. A start bit that is high again in its middle is
    noise and ignored. A low stop bit gives `framing_error` instead of a byte, and the line must
    be high before the next start bit is looked for.

    Throughput: a byte in 9.5 bits.  Latency: a byte appears 3 clocks after the middle of its
    stop bit.  Cost: about 45 LC on iCE40 with a constant divisor.
    Back-pressure: none; a byte is valid for one clock.

    Members
    -------
    rx : In(1)
        The line; synchronised here.
    divisor : In(16)
        Clocks a bit, at least 4.
    o : Out(stream.Signature(8, always_ready=True))
    framing_error : Out(1)
        High for one clock in place of a byte.
    """

    def __init__(self):
        super().__init__(
            {
                "rx": In(1),
                "divisor": In(16),
                "o": Out(stream.Signature(8, always_ready=True)),
                "framing_error": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rx = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, rx, init=1)

        # "Receiving" from start edge to stop bit. `left` counts down the samples still to take;
        # the first comes after half a bit. Counting up to a constant costs the fewest cells.
        receiving = Signal()
        broken = Signal()  # waits for the line to be high after a bad stop bit
        timer = Signal(16)
        left = Signal(range(10))
        sample = Signal()
        wait = Mux(left == 9, self.divisor >> 1, self.divisor)
        m.d.sync += sample.eq(receiving & (timer == (wait - 2)[:16]))
        m.d.sync += [
            timer.eq((timer + 1) & _span(self.divisor)),
            self.o.valid.eq(0),
            self.framing_error.eq(0),
        ]
        with m.If(~receiving):
            m.d.sync += [timer.eq(0), left.eq(9)]
            with m.If(rx):
                m.d.sync += broken.eq(0)
            with m.Elif(~broken):
                m.d.sync += receiving.eq(1)
        with m.Elif(sample):
            m.d.sync += [timer.eq(0), left.eq(left - 1)]
            with m.If(left == 0):
                m.d.sync += [
                    receiving.eq(0),
                    broken.eq(~rx),
                    self.o.valid.eq(rx),
                    self.framing_error.eq(~rx),
                ]
            with m.Else():
                # The start bit is shifted in as well, and out again by the eighth data bit.
                m.d.sync += self.o.payload.eq(Cat(self.o.payload[1:], rx))
                with m.If((left == 9) & rx):
                    m.d.sync += receiving.eq(0)
        return m


class UartTransmitter(wiring.Component):
    """Bytes to line.

    Throughput: a byte in exactly 10 bits.  Latency: the start bit begins 1 clock after the
    transfer.  Cost: about 35 LC on iCE40 with a constant divisor.
    Back-pressure: stalls, never drops.

    Members
    -------
    i : In(stream.Signature(8))
    tx : Out(1)
    divisor : In(16)
        Clocks a bit.
    """

    def __init__(self):
        super().__init__(
            {"i": In(stream.Signature(8)), "tx": Out(1, init=1), "divisor": In(16)},
        )

    def elaborate(self, platform):
        m = Module()
        # `levels` holds what is still to be sent above the level on the line, ones behind it.
        levels = Signal(9, init=0x1FF)
        left = Signal(range(11))
        timer = Signal(16)
        bit_done = Signal()
        m.d.sync += bit_done.eq(timer == (self.divisor - 2)[:16])
        with m.If(left == 0):
            m.d.sync += timer.eq(0)
        with m.Else():
            m.d.sync += timer.eq((timer + 1) & _span(self.divisor))
        m.d.comb += self.i.ready.eq((left == 0) | ((left == 1) & bit_done))
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                self.tx.eq(0),
                levels.eq(Cat(self.i.payload, 1)),
                left.eq(10),
                timer.eq(0),
            ]
        with m.Elif((left != 0) & bit_done):
            m.d.sync += [
                timer.eq(0),
                left.eq(left - 1),
                Cat(self.tx, levels).eq(Cat(levels, 1)),
            ]
        return m


def _span(divisor: Value) -> Value:
    """Ones in all bits that numbers up to the divisor take.

    A timer never has others; said this way, a constant divisor removes them.
    """
    return Cat(divisor[bit:].any() for bit in range(len(divisor)))
