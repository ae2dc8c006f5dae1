# SPDX-License-Identifier: BSD-2-Clause
"""UART shell: the link protocol between two pins and the core's streams.

    rx --> UART --> COBS --> receiver (CRC, ring) --> image, config, flush
    tx <-- UART <-- COBS <-- sender (CRC)        <-- result, registers, acknowledgements

`docs/link.md` describes the protocol, `xnorforge.sw.protocol` holds its constants.
"""

from dataclasses import dataclass

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.cobs import CobsDecoder, CobsEncoder
from xnorforge.hw.link_receiver import ConfigByte, LinkReceiver
from xnorforge.hw.link_sender import LinkSender, result_layout
from xnorforge.hw.uart import UartReceiver, UartTransmitter
from xnorforge.sw import protocol
from xnorforge.sw.protocol import Register

__all__ = ["UartShell", "UartShellConfig"]


@dataclass(frozen=True)
class UartShellConfig:
    """What the shell tells the host, and its buffer.

    image_bytes: bytes of an image. classes, score_bits: of a result. buffer_bytes: receive
    buffer, a power of two. window_bytes: unacknowledged bytes that keep the line busy
    (`protocol.window_bytes(baud)`).

    Raises
    ------
    ValueError: a value out of its range.
    """

    image_bytes: int
    classes: int
    score_bits: int
    buffer_bytes: int = protocol.DEFAULT_BUFFER_BYTES
    window_bytes: int = protocol.window_bytes(protocol.DEFAULT_BAUD)

    def __post_init__(self):
        for name, low, high in (
            ("image_bytes", 1, 0xFFFFFFFF),
            ("classes", 1, 0xFFFF),
            ("score_bits", 1, 32),
            ("buffer_bytes", 512, 16384),
            ("window_bytes", 512, protocol.MAX_WINDOW_BYTES),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(
                    f"UART shell {name} must be an integer from {low} to {high}, not {value!r}"
                )
        if self.buffer_bytes & (self.buffer_bytes - 1):
            raise ValueError(
                f"UART shell buffer_bytes must be a power of two, not {self.buffer_bytes}"
            )

    @property
    def words(self) -> dict[Register, int]:
        """The constant registers."""
        return {
            Register.WINDOW: self.window_bytes << 16 | self.buffer_bytes,
            Register.IMAGE_BYTES: self.image_bytes,
            Register.OUTPUT: protocol.score_bytes(self.score_bits) << 16 | self.classes,
        }


class UartShell(wiring.Component):
    """Pins to core.

    Throughput: the line's.  Latency: an image byte reaches the core 6 cycles after the end of
    its frame on the line; a result's frame begins to leave about 9 cycles a byte after its
    first beat.  Cost: see docs/link.md.
    Back-pressure: stalls the core's results, refuses frames that do not fit, never drops.

    Parameters
    ----------
    config : UartShellConfig

    Members
    -------
    rx, tx : In(1), Out(1)
    divisor : In(16)
        Clocks a bit, at least 4.
    image : Out(stream.Signature(8))
        Image bytes, back to back.
    result : In(stream.Signature(result_layout(score_bits)))
    config : Out(stream.Signature(ConfigByte))
    register_address, register_data : Out(4), In(32)
        Data one cycle after the address.
    flush : Out(1)
        One cycle: drop every image and result on the way, converters beside the core included.
    """

    def __init__(self, *, config: UartShellConfig):
        self.shell = config
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "divisor": In(16),
                "image": Out(stream.Signature(8)),
                "result": In(stream.Signature(result_layout(config.score_bits))),
                "config": Out(stream.Signature(ConfigByte)),
                "register_address": Out(4),
                "register_data": In(32),
                "flush": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.uart_receiver = uart_receiver = UartReceiver()
        m.submodules.uart_transmitter = uart_transmitter = UartTransmitter()
        m.submodules.decoder = decoder = CobsDecoder()
        m.submodules.encoder = encoder = CobsEncoder()
        m.submodules.receiver = receiver = LinkReceiver(buffer_bytes=self.shell.buffer_bytes)
        m.submodules.sender = sender = LinkSender(score_bits=self.shell.score_bits)

        wiring.connect(m, uart_receiver.o, decoder.i)
        wiring.connect(m, decoder.o, receiver.i)
        wiring.connect(m, receiver.image, wiring.flipped(self.image))
        wiring.connect(m, receiver.config, wiring.flipped(self.config))
        wiring.connect(m, wiring.flipped(self.result), sender.result)
        wiring.connect(m, receiver.request, sender.request)
        wiring.connect(m, sender.o, encoder.i)
        wiring.connect(m, encoder.o, uart_transmitter.i)
        m.d.comb += [
            uart_receiver.rx.eq(self.rx),
            uart_receiver.divisor.eq(self.divisor),
            uart_transmitter.divisor.eq(self.divisor),
            self.tx.eq(uart_transmitter.tx),
            decoder.spoilt.eq(uart_receiver.framing_error),
            sender.session.eq(receiver.session),
            sender.expected.eq(receiver.expected),
            sender.consumed.eq(receiver.consumed),
            sender.reply_kind.eq(receiver.reply_kind),
            sender.reply_epoch.eq(receiver.reply_epoch),
            receiver.reply_taken.eq(sender.reply_taken),
            sender.reset.eq(receiver.reset),
            encoder.abort.eq(receiver.reset),
            self.flush.eq(receiver.reset),
        ]
        self._registers(m, sender, receiver, uart_receiver.framing_error)
        return m

    def _registers(self, m, sender, receiver, framing_error) -> None:
        """The core's registers below 16, the shell's above."""
        framing_errors = Signal(16)
        m.d.sync += framing_errors.eq(framing_errors + framing_error)
        words = {register: C(word, 32) for register, word in self.shell.words.items()}
        words[Register.LINE_ERRORS] = Cat(receiver.crc_errors, framing_errors)
        words[Register.DROPPED] = Cat(receiver.misfits, receiver.overruns)
        m.d.comb += self.register_address.eq(sender.address)
        with m.Switch(sender.address):
            for register, word in words.items():
                with m.Case(int(register)):
                    m.d.comb += sender.value.eq(word)
            with m.Default():
                m.d.comb += sender.value.eq(
                    Mux(sender.address[4], 0, self.register_data),
                )
