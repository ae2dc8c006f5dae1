# SPDX-License-Identifier: BSD-2-Clause
"""Link shell: the link protocol between two streams of bytes and the core's streams.

    i --> COBS --> receiver (CRC, ring) --> image, config, flush
    o <-- COBS <-- sender (CRC)         <-- result, registers, acknowledgements

`docs/link.md` describes the protocol, `xnorforge.sw.protocol` holds its constants.
"""

from dataclasses import dataclass

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.cobs import CobsDecoder, CobsEncoder
from xnorforge.hw.head import result_layout
from xnorforge.hw.link_receiver import ConfigByte, LinkReceiver
from xnorforge.hw.link_sender import LinkSender
from xnorforge.hw.slots import slot_ports
from xnorforge.sw import protocol
from xnorforge.sw.protocol import Register

__all__ = ["LinkShell", "LinkShellConfig", "check_ranges", "core_ports"]


@dataclass(frozen=True)
class LinkShellConfig:
    """What the shell tells the host, and its buffer.

    image_bytes: bytes of an image. classes, score_bits: of a result. buffer_bytes: receive
    buffer, a power of two. window_bytes: unacknowledged bytes that keep the line busy
    (`protocol.window_bytes(baud)`). slots: models that the core holds, 1 or 2.

    Raises
    ------
    ValueError: a value out of its range.
    """

    image_bytes: int
    classes: int
    score_bits: int
    buffer_bytes: int = protocol.DEFAULT_BUFFER_BYTES
    window_bytes: int = protocol.window_bytes(protocol.DEFAULT_BAUD)
    slots: int = 1

    def __post_init__(self):
        check_ranges(
            self,
            "Link shell",
            slots=(1, 2),
            image_bytes=(1, 0xFFFFFFFF),
            classes=(1, 0xFFFF),
            score_bits=(1, 32),
            buffer_bytes=(512, 16384),
            window_bytes=(512, protocol.MAX_WINDOW_BYTES),
        )
        if self.buffer_bytes & (self.buffer_bytes - 1):
            raise ValueError(
                f"Link shell buffer_bytes must be a power of two, not {self.buffer_bytes}"
            )

    @property
    def words(self) -> dict[Register, int]:
        """The constant registers."""
        return {
            Register.WINDOW: self.window_bytes << 16 | self.buffer_bytes,
            Register.IMAGE_BYTES: self.image_bytes,
            Register.OUTPUT: protocol.score_bytes(self.score_bits) << 16 | self.classes,
        }


def check_ranges(config: object, title: str, **ranges: tuple[int, int]) -> None:
    """Raises ValueError for a field of a shell's configuration outside its (lowest, highest)."""
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not isinstance(value, int) or not low <= value <= high:
            raise ValueError(
                f"{title} {name} must be an integer from {low} to {high}, not {value!r}"
            )


def core_ports(score_bits: int, slots: int = 1, image_bits: int = 8) -> dict[str, wiring.Member]:
    """A shell's ports towards the core, the mirror of the core's own; images still as bytes."""
    return {
        **slot_ports(Out, slots),
        "image": Out(stream.Signature(image_bits)),
        "result": In(stream.Signature(result_layout(score_bits))),
        "config": Out(stream.Signature(ConfigByte)),
        "register_address": Out(4),
        "register_data": In(32),
        "flush": Out(1),
    }


class LinkShell(wiring.Component):
    """Bytes to core.

    Throughput: a byte in 10 cycles each way.  Latency: an image's first byte reaches the core
    6 cycles after the end of its frame; a result's frame begins to leave about 9 cycles a
    byte after its first beat.  Cost: see docs/link.md.
    Back-pressure: stalls the core's results, refuses frames that do not fit, never drops.

    Parameters
    ----------
    config : LinkShellConfig

    Members
    -------
    i : In(stream.Signature(8, always_ready=True))
        From the line, at least 10 cycles apart.
    spoilt : In(1)
        A byte of the line was lost.
    o : Out(stream.Signature(8))
        To the line.
    image : Out(stream.Signature(8))
        Image bytes, back to back.
    result : In(stream.Signature(result_layout(score_bits)))
    config : Out(stream.Signature(ConfigByte))
    register_address, register_data : Out(4), In(32)
        Data one cycle after the address.
    flush : Out(1)
        One cycle: drop every image and result on the way, converters beside the core included.
    image_slot, config_slot : Out(1)
        Of two slots: that of the image bytes, which changes while there are none; and where the
        weight load goes.
    """

    def __init__(self, *, config: LinkShellConfig):
        self.shell = config
        super().__init__(
            {
                "i": In(stream.Signature(8, always_ready=True)),
                "spoilt": In(1),
                "o": Out(stream.Signature(8)),
                **core_ports(config.score_bits, config.slots),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder = decoder = CobsDecoder()
        m.submodules.encoder = encoder = CobsEncoder()
        m.submodules.receiver = receiver = LinkReceiver(
            buffer_bytes=self.shell.buffer_bytes, slots=self.shell.slots
        )
        m.submodules.sender = sender = LinkSender(score_bits=self.shell.score_bits)

        wiring.connect(m, wiring.flipped(self.i), decoder.i)
        wiring.connect(m, decoder.o, receiver.i)
        wiring.connect(m, receiver.image, wiring.flipped(self.image))
        wiring.connect(m, receiver.config, wiring.flipped(self.config))
        wiring.connect(m, wiring.flipped(self.result), sender.result)
        wiring.connect(m, receiver.request, sender.request)
        wiring.connect(m, sender.o, encoder.i)
        wiring.connect(m, encoder.o, wiring.flipped(self.o))
        m.d.comb += [
            decoder.spoilt.eq(self.spoilt),
            sender.lease.eq(receiver.lease),
            sender.expected.eq(receiver.expected),
            sender.consumed.eq(receiver.consumed),
            sender.reply_kind.eq(receiver.reply_kind),
            sender.reply_epoch.eq(receiver.reply_epoch),
            receiver.reply_taken.eq(sender.reply_taken),
            sender.reset.eq(receiver.reset),
            encoder.abort.eq(receiver.reset),
            self.flush.eq(receiver.reset),
        ]

        if self.shell.slots > 1:
            m.d.comb += [
                self.image_slot.eq(receiver.image_slot),
                self.config_slot.eq(receiver.config_slot),
            ]

        # The core's registers below 16, the shell's above.
        words = {register: C(word, 32) for register, word in self.shell.words.items()}
        words[Register.ERRORS] = Cat(receiver.bad_frames, receiver.dropped)
        m.d.comb += self.register_address.eq(sender.address)
        with m.If(~sender.address[4]):
            m.d.comb += sender.value.eq(self.register_data)
        with m.Else(), m.Switch(sender.address[:4]):
            for register, word in words.items():
                with m.Case(register - protocol.ADDRESS_SHELL):
                    m.d.comb += sender.value.eq(word)
        return m
