# SPDX-License-Identifier: BSD-2-Clause
"""AXI shell: the core's streams and registers in the terms of AXI, in the core's clock domain.

    image   --> packet guard ---------------------> image feed
    weights --> packet guard ---------------------> config
    result  <-- packets of words <----------------- result
    request, response <-- registers, flush -------> registers, flush

`docs/axi.md` describes ports, registers and rules.
"""

from dataclasses import dataclass

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.axi_lite import RESPONSE_LAYOUT, request_layout
from xnorforge.hw.axi_result import WORD_LAYOUT, ResultPacker
from xnorforge.hw.link_shell import check_ranges, core_ports
from xnorforge.hw.packet import PacketGuard, packet_layout
from xnorforge.hw.stream import Queue
from xnorforge.sw import protocol
from xnorforge.sw.protocol import AxiRegister, Control, Register

__all__ = ["ADDRESS_BITS", "AxiShell", "AxiShellConfig", "axi_streams"]

ADDRESS_BITS = 12
"""A register page of 4 KiB."""

FLUSH_CYCLES = 64
"""Long enough for all that a crossing holds (32 beats, and the times to see them) to be dropped."""


@dataclass(frozen=True)
class AxiShellConfig:
    """What the shell is told of the core, and the width of its image stream.

    image_bytes: of an image. beat_bytes: of an image beat. classes, score_bits: of a result.
    load_bytes: of a weight load, its CRC included. images_held: the most that can be on the way
    behind the packet guard. slots: models that the core holds, 1 or 2.

    Raises
    ------
    ValueError: a value out of its range.
    """

    image_bytes: int
    beat_bytes: int
    classes: int
    score_bits: int
    load_bytes: int
    images_held: int
    slots: int = 1

    def __post_init__(self):
        check_ranges(
            self,
            "AXI shell",
            slots=(1, 2),
            image_bytes=(1, 0xFFFFFFFF),
            beat_bytes=(1, 128),
            classes=(1, 0xFFFF),
            score_bits=(1, protocol.WORD_BITS),
            load_bytes=(protocol.CRC_BYTES, 0xFFFFFFFF),
            images_held=(1, 0xFFFF),
        )

    @property
    def beats(self) -> int:
        """Of an image."""
        return -(-self.image_bytes // self.beat_bytes)

    @property
    def words(self) -> dict[int, int]:
        """The constant registers."""
        return {
            Register.IMAGE_BYTES: self.image_bytes,
            Register.OUTPUT: protocol.WORD_BITS // 8 << 16 | self.classes,
            AxiRegister.BEAT_BYTES: self.beat_bytes,
            AxiRegister.LOAD_BYTES: self.load_bytes,
        }


def axi_streams(config: AxiShellConfig) -> dict[str, wiring.Member]:
    """The bus side of a shell, as streams."""
    return {
        "images": In(stream.Signature(packet_layout(8 * config.beat_bytes, config.slots))),
        "weights": In(stream.Signature(packet_layout(8, config.slots))),
        "results": Out(stream.Signature(WORD_LAYOUT)),
        "request": In(stream.Signature(request_layout(ADDRESS_BITS))),
        "response": Out(stream.Signature(RESPONSE_LAYOUT)),
    }


class AxiShell(wiring.Component):
    """AXI streams to core.

    Throughput: an image beat, a weight byte and a result word a cycle; a result is classes + 1
    words.  Latency: 0 cycles towards the core, 1 from it; a register 2 cycles, a flush
    `FLUSH_CYCLES` + 1.  Back-pressure: stalls; while it flushes, images are taken and dropped.
    Cost: see docs/axi.md.

    Parameters
    ----------
    config : AxiShellConfig

    Members
    -------
    images, weights, results, request, response : as `axi_streams`
    image, result, config, register_address, register_data, flush : the core's, as of LinkShell;
        image beats have `beat_bytes` bytes
    image_slot, config_slot : Out(1)
        Of two slots: those of the packets in `images` and `weights`.
    """

    def __init__(self, *, config: AxiShellConfig):
        self.shell = config
        core = core_ports(config.score_bits, config.slots, 8 * config.beat_bytes)
        super().__init__({**axi_streams(config), **core})

    def elaborate(self, platform):
        shell = self.shell
        m = Module()
        spoilt_images, spoilt_loads = Signal(16), Signal(16)
        reload = Signal()

        # --- images: a short one is filled up, and known as such when its result comes
        guard = PacketGuard(
            bits=8 * shell.beat_bytes, beats=shell.beats, pad=True, slots=shell.slots
        )
        flags = Queue(shape=1, depth=shell.images_held + 2, store="lut")
        m.submodules.image_guard = ResetInserter(self.flush)(guard)
        m.submodules.image_flags = ResetInserter(self.flush)(flags)
        known = ~guard.last | flags.i.ready
        m.d.comb += [
            guard.i.payload.eq(self.images.payload),
            guard.i.valid.eq(self.images.valid & ~self.flush),
            self.images.ready.eq(guard.i.ready | self.flush),
            self.image.payload.eq(guard.o.payload),
            self.image.valid.eq(guard.o.valid & known & ~self.flush),
            guard.o.ready.eq(self.image.ready & known & ~self.flush),
            flags.i.payload.eq(guard.short),
            flags.i.valid.eq(guard.o.valid & guard.o.ready & guard.last),
        ]
        with m.If(flags.i.valid & flags.i.ready & guard.short):
            m.d.sync += spoilt_images.eq(spoilt_images + 1)

        # --- weights: a short load does not match its CRC
        loads = PacketGuard(bits=8, beats=shell.load_bytes, pad=False, slots=shell.slots)
        m.submodules.weight_guard = ResetInserter(reload)(loads)
        wiring.connect(m, wiring.flipped(self.weights), loads.i)
        m.d.comb += [
            self.config.payload.data.eq(loads.o.payload),
            self.config.payload.first.eq(loads.first),
            self.config.valid.eq(loads.o.valid),
            loads.o.ready.eq(self.config.ready),
        ]
        with m.If(loads.o.valid & loads.o.ready & loads.short):
            m.d.sync += spoilt_loads.eq(spoilt_loads + 1)
        if shell.slots > 1:
            m.d.comb += [self.image_slot.eq(guard.slot), self.config_slot.eq(loads.slot)]

        # --- results
        m.submodules.packer = packer = ResultPacker(score_bits=shell.score_bits)
        wiring.connect(m, wiring.flipped(self.result), packer.i)
        wiring.connect(m, packer.o, wiring.flipped(self.results))
        m.d.comb += [
            packer.spoilt.eq(flags.o.payload),
            packer.flush.eq(self.flush),
            flags.o.ready.eq(packer.i.valid & packer.i.ready & packer.i.payload.last),
        ]

        errors = Cat(spoilt_images, spoilt_loads)
        self._registers(m, reload, errors)
        return m

    def _registers(self, m, reload, errors) -> None:
        """Answers requests, one at a time; the core gives a register a cycle after its address."""
        request, response = self.request.payload, self.response.payload
        left = Signal(range(FLUSH_CYCLES + 1))  # cycles of the flush
        words = {register: C(word, 32) for register, word in self.shell.words.items()}
        words |= {Register.ERRORS: errors, AxiRegister.CONTROL: C(0, 32)}
        is_core = request.address < protocol.ADDRESS_SHELL
        control = request.address == AxiRegister.CONTROL
        m.d.comb += [
            self.register_address.eq(request.address[:4]),
            self.flush.eq(left != 0),
        ]
        with m.Switch(request.address):
            for register, word in words.items():
                with m.Case(int(register)):
                    m.d.comb += response.data.eq(word)
            with m.Default():
                m.d.comb += [
                    response.data.eq(Mux(is_core, self.register_data, 0)),
                    response.error.eq(~is_core),
                ]
        with m.If(request.write):
            m.d.comb += response.error.eq(~control)
        with m.FSM():
            with m.State("idle"), m.If(self.request.valid):
                m.next = "answer"
                with m.If(request.write & control):
                    m.d.comb += reload.eq((request.data & Control.RELOAD).any())
                    with m.If((request.data & Control.FLUSH).any()):
                        m.d.sync += left.eq(FLUSH_CYCLES)
                        m.next = "flush"
            with m.State("flush"):
                m.d.sync += left.eq(left - 1)
                with m.If(left == 1):
                    m.next = "answer"
            with m.State("answer"):
                m.d.comb += [
                    self.response.valid.eq(1),
                    self.request.ready.eq(self.response.ready),
                ]
                with m.If(self.response.ready):
                    m.next = "idle"
