# SPDX-License-Identifier: BSD-2-Clause
"""The half of the shell that listens: checks frames, keeps their payload, answers.

    content beats --> header | CRC --> ring of whole, verified, in-order bytes --> image or config

Go-back-N: of image and weight frames only the expected next one is taken. See docs/link.md.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.cobs import DecodedBeat
from xnorforge.hw.crc import SerialCrc32
from xnorforge.hw.ram import BlockRam
from xnorforge.hw.slots import slot_ports
from xnorforge.sw.protocol import CRC_BYTES, HEADER_BYTES, Kind

__all__ = ["ConfigByte", "LinkReceiver", "ReadRequest"]

ConfigByte = data.StructLayout({"data": 8, "first": 1})
"""A byte of a weight load; `first` marks the byte a load begins with."""

ReadRequest = data.StructLayout({"address": 5, "count": 5, "epoch": 4})
"""Registers asked for, and the tag to answer with."""

_ACK_STRIDE = 256
"""An acknowledgement also goes out whenever so many bytes have left the ring."""


_VERDICTS = ("spoilt", "joins", "refused", "asks", "opens")


class LinkReceiver(wiring.Component):
    """Verifies frames and delivers their bytes.

    Payload is written to the ring as it comes, behind what is known good, and belongs to it only
    when the frame's end proves the CRC: the core never sees an unverified byte. Images and
    weights share the ring; a frame for the other destination is taken only when it is empty.

    Throughput: a beat in 10 cycles in, a byte in 3 cycles out.
    Latency: 6 cycles from a frame's end to its first byte.
    Cost: about 350 LC, CRC included, and the ring on iCE40.
    Back-pressure: towards the line none, a frame that does not fit is refused (`BUSY`).

    Parameters
    ----------
    buffer_bytes : size of the ring, a power of two
    slots : models that the core holds, 1 or 2

    Members
    -------
    i : In(stream.Signature(DecodedBeat, always_ready=True))
    image : Out(stream.Signature(8))
    config : Out(stream.Signature(ConfigByte))
    image_slot, config_slot : Out(1)
        Of two slots: whose images the ring holds or held last, and where the last load goes.
    reset : Out(1)
        High for one cycle when a lease begins: everything on the way is void.
    lease, expected, consumed : Out(8), Out(16), Out(16)
        Lease, next position, bytes that left the ring.
    reply_kind, reply_epoch : Out(4), Out(4)
        ACK, NAK or BUSY to be sent, 0 for none, and the epoch to echo.
    reply_taken : In(1)
        The reply is being sent.
    request : Out(stream.Signature(ReadRequest))
    bad_frames, dropped : Out(16), Out(16)
        Frames spoilt on the line; good data frames that were not the next or did not fit.
    """

    def __init__(self, *, buffer_bytes: int, slots: int = 1):
        self.buffer_bytes = buffer_bytes
        self.slots = slots
        super().__init__(
            {
                "i": In(stream.Signature(DecodedBeat, always_ready=True)),
                "image": Out(stream.Signature(8)),
                "config": Out(stream.Signature(ConfigByte)),
                "reset": Out(1),
                "lease": Out(8),
                "expected": Out(16),
                "consumed": Out(16),
                "reply_kind": Out(4),
                "reply_epoch": Out(4),
                "reply_taken": In(1),
                "request": Out(stream.Signature(ReadRequest)),
                "bad_frames": Out(16),
                "dropped": Out(16),
                **slot_ports(Out, slots),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._check(m)
        self._judge(m)
        self._deliver(m)
        return m

    def _check(self, m) -> None:
        """Take a frame apart: header into registers, payload behind `expected` in the ring."""
        self._kind = kind = Signal(4)
        self._epoch = epoch = Signal(4)
        self._lease = lease = Signal(8)
        self._position = position = Signal(16)
        self._place = place = Signal(16)  # where the next payload byte goes
        self._full = full = Signal()  # a payload byte found no room
        self._seen = seen = Signal(range(HEADER_BYTES + CRC_BYTES + 1))  # saturates
        self._ended = ended = Signal()
        self._good = good = Signal()

        m.submodules.checker = crc = SerialCrc32()
        # What is read lies before `expected`, what is written behind: never the same address.
        m.submodules.ring = self._ring = ring = BlockRam(width=8, depth=self.buffer_bytes)
        bits = len(ring.write_address)
        beat = self.i.payload
        byte = self.i.valid & ~beat.end
        m.d.comb += [
            crc.data.eq(beat.data),
            crc.start.eq(byte),
            crc.clear.eq(self.i.valid & beat.end),
            ring.write_address.eq(place),
            ring.write_data.eq(beat.data),
        ]
        # Beats are 10 cycles apart: a cycle-old comparison holds.
        no_room = Signal()
        m.d.sync += no_room.eq((place - self.consumed)[bits])
        m.d.sync += ended.eq(self.i.valid & beat.end)
        with m.If(byte):
            with m.If(seen != HEADER_BYTES + CRC_BYTES):
                m.d.sync += seen.eq(seen + 1)
            with m.Switch(seen):
                with m.Case(0):
                    m.d.sync += Cat(epoch, kind).eq(beat.data)
                with m.Case(1):
                    m.d.sync += lease.eq(beat.data)
                with m.Case(2):
                    m.d.sync += position[:8].eq(beat.data)
                with m.Case(3):
                    m.d.sync += [position[8:].eq(beat.data), place.eq(self.expected), full.eq(0)]
                with m.Default():
                    m.d.comb += ring.write_enable.eq(~no_room & ~full)
                    m.d.sync += full.eq(full | no_room)
                    with m.If(ring.write_enable):
                        m.d.sync += place.eq(place + 1)
        with m.If(self.i.valid & beat.end):
            whole = seen == HEADER_BYTES + CRC_BYTES
            m.d.sync += [good.eq(whole & crc.match & ~beat.bad), seen.eq(0)]

    def _judge(self, m) -> None:
        """Sort a frame in the cycle after its end, act on it in the next."""
        kind = self._kind
        self._is_load = is_load = Signal()  # the ring's bytes go to config
        is_data = Signal()
        # The header came bytes ago, and an empty ring stays empty until a frame is taken: these
        # may be a cycle old.
        self._ours = ours = Signal()
        next_one, may_enter = Signal(), Signal()
        self._fetched, self._offered = fetched, offered = Signal(), Signal()
        begins = kind == Kind.WEIGHTS_BEGIN
        is_image = same_image = kind == Kind.IMAGE
        brings_load = kind != Kind.IMAGE
        if self.slots > 1:
            second, second_load = kind == Kind.IMAGE_SECOND, kind == Kind.WEIGHTS_BEGIN_SECOND
            same_image = Mux(self.image_slot, second, is_image)
            is_image, begins = is_image | second, begins | second_load
            brings_load = ~is_image
        m.d.sync += [
            is_data.eq(is_image | (kind == Kind.WEIGHTS) | begins),
            ours.eq(self._lease == self.lease),
            next_one.eq(self._position == self.expected),
            may_enter.eq(
                ((self.expected == self.consumed) & ~fetched & ~offered)
                | Mux(is_load, kind == Kind.WEIGHTS, same_image)
            ),
        ]

        with m.If(self.reply_taken):
            m.d.sync += self.reply_kind.eq(0)
        with m.If(self.request.ready):
            m.d.sync += self.request.valid.eq(0)

        # What went out of the ring opens the window, with no frame to answer.
        stride_done = Signal(init=1)
        m.d.sync += stride_done.eq(self.consumed[: _ACK_STRIDE.bit_length() - 1] == 0)
        stride_was_done = Signal(init=1)
        m.d.sync += stride_was_done.eq(stride_done)
        with m.If(stride_done & ~stride_was_done & (self.reply_kind == 0)):
            m.d.sync += self.reply_kind.eq(Kind.ACK)

        spoilt, joins, refused, asks, opens = (Signal(name=name) for name in _VERDICTS)
        self._restarts = restarts = Signal()
        whole = self._ended & self._good
        fits = ours & next_one & ~self._full & may_enter
        m.d.sync += [
            spoilt.eq(self._ended & ~self._good),
            joins.eq(whole & is_data & fits),
            refused.eq(whole & is_data & ~fits),
            asks.eq(whole & (kind == Kind.READ)),
            opens.eq(whole & (kind == Kind.OPEN)),
            # A repeated OPEN of the running lease changes nothing.
            restarts.eq(whole & (kind == Kind.OPEN) & ~ours),
        ]
        with m.If(joins | refused | opens):
            m.d.sync += self.reply_epoch.eq(self._epoch)
        with m.If(joins | opens):
            m.d.sync += self.reply_kind.eq(Kind.ACK)
        with m.If(refused):
            m.d.sync += [
                self.reply_kind.eq(Mux(ours & next_one, Kind.BUSY, Kind.NAK)),
                self.dropped.eq(self.dropped + 1),
            ]
        with m.If(joins):
            m.d.sync += [
                self.expected.eq(self._place - CRC_BYTES),
                is_load.eq(brings_load),
            ]
            if self.slots > 1:
                with m.If(is_image):
                    m.d.sync += self.image_slot.eq(second)
                with m.If(begins):
                    m.d.sync += self.config_slot.eq(second_load)
        with m.If(spoilt):
            m.d.sync += self.bad_frames.eq(self.bad_frames + 1)
        with m.If(asks):
            m.d.sync += [
                self.request.valid.eq(1),
                self.request.payload.address.eq(self._position[:8]),
                self.request.payload.count.eq(self._position[8:]),
                self.request.payload.epoch.eq(self._epoch),
            ]
        m.d.sync += self.reset.eq(restarts)
        with m.If(restarts):
            m.d.sync += [self.lease.eq(self._lease), self.expected.eq(0)]
        self._begins = joins & begins

    def _deliver(self, m) -> None:
        """The ring's bytes to where they belong: fetched, registered, offered."""
        ring = self._ring
        offered = self._offered
        taken = Mux(self._is_load, self.config.ready, self.image.ready)
        fetch = Signal()
        waiting = Signal()  # the ring has bytes; a cycle old, while a fetch takes three
        byte = Signal(8)
        first = Signal()  # the next byte begins a load
        m.d.comb += [
            fetch.eq(waiting & ~self._fetched & ~offered & ~self.reset),
            ring.read_enable.eq(fetch),
            ring.read_address.eq(self.consumed),
            self.image.payload.eq(byte),
            self.image.valid.eq(offered & ~self._is_load),
            self.config.payload.data.eq(byte),
            self.config.payload.first.eq(first),
            self.config.valid.eq(offered & self._is_load),
        ]
        m.d.sync += [self._fetched.eq(fetch), waiting.eq(self.consumed != self.expected)]
        with m.If(fetch):
            m.d.sync += self.consumed.eq(self.consumed + 1)
        with m.If(self._fetched):
            m.d.sync += [byte.eq(ring.ram_data), offered.eq(1)]
        with m.Elif(taken):
            m.d.sync += offered.eq(0)
        with m.If(self._begins):
            m.d.sync += first.eq(1)
        with m.Elif(self.config.valid & self.config.ready):
            m.d.sync += first.eq(0)
        with m.If(self._restarts):
            m.d.sync += [self.consumed.eq(0), self._fetched.eq(0), offered.eq(0), first.eq(0)]
