# SPDX-License-Identifier: BSD-2-Clause
"""The half of the shell that talks: acknowledgements, registers and results as frames.

ACK | READ | result --> words of 16 bits --> bytes, CRC behind them --> content beats
"""

import enum

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.cobs import ContentBeat
from xnorforge.hw.crc import SerialCrc32
from xnorforge.hw.head import result_layout
from xnorforge.hw.link_receiver import ReadRequest
from xnorforge.sw.protocol import CRC_BYTES, LABEL_BYTES, Kind, score_bytes

__all__ = ["LinkSender"]


class Step(enum.IntEnum):
    """What the sender loads next."""

    CHOOSE = 0  # the kind of frame, and its first two bytes
    EXPECTED = 1  # an acknowledgement: position and payload
    CONSUMED = 2
    SENT = 3
    ASKED = 4  # registers: what was asked for, and halves of values
    VALUE = 5
    UPPER_VALUE = 6
    RECORD = 7  # results: position, and the beats of records
    SCORE = 8
    UPPER_SCORE = 9
    LABEL = 10
    CHECK = 11  # the CRC
    CLOSE = 12  # the end beat


class LinkSender(wiring.Component):
    """Makes frames.

    Acknowledgements go first, then registers, then results. A RESULT frame carries records as
    long as the next one is there, and waits for the rest of a record unless something else is
    to be sent. Nothing is kept for a second sending: the host asks again with the image.

    Throughput: a byte in 9 cycles.  Latency: about 100 cycles from a result beat to the close
    of its frame.  Cost: about 310 LC on iCE40, CRC included.
    Back-pressure: stalls the core, never drops.

    Parameters
    ----------
    score_bits : width of a score, at most 32

    Members
    -------
    result : In(stream.Signature(result_layout(score_bits)))
    lease, expected, consumed : In(8), In(16), In(16)
    reply_kind, reply_epoch : In(4), In(4)
    reply_taken : Out(1)
    request : In(stream.Signature(ReadRequest))
    address : Out(5)
        Register wanted.
    value : In(32)
        Its value, at most eight cycles later.
    reset : In(1)
        Drops the frame being made and starts the results' positions over.
    o : Out(stream.Signature(ContentBeat))
    """

    def __init__(self, *, score_bits: int):
        self.score_bits = score_bits
        super().__init__(
            {
                "result": In(stream.Signature(result_layout(score_bits))),
                "lease": In(8),
                "expected": In(16),
                "consumed": In(16),
                "reply_kind": In(4),
                "reply_epoch": In(4),
                "reply_taken": Out(1),
                "request": In(stream.Signature(ReadRequest)),
                "address": Out(5),
                "value": In(32),
                "reset": In(1),
                "o": Out(stream.Signature(ContentBeat)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.checker = crc = SerialCrc32()

        # `word` leaves from its low byte, `left` bytes of it. Each step waits until it has left,
        # loads the next one and names the step after it.
        word = Signal(16)
        next_word = Signal(16)
        left = Signal(range(5))
        step = Signal(Step)
        done = Signal()
        byte_goes = Signal()
        draining = Signal()  # the bytes are the CRC's
        in_result = Signal()  # the bytes are a result's
        sent_position = Signal(16)
        length = Signal(8)
        boundary = Signal()  # between two records
        remaining = Signal(5)  # registers still to send
        upper = Signal(16)  # half of a register, or READ's position to be sent back

        m.d.comb += [
            done.eq((left == 0) & ~crc.busy),
            byte_goes.eq((left != 0) & ~crc.busy & self.o.ready),
            self.o.valid.eq(((left != 0) | (step == Step.CLOSE)) & ~crc.busy),
            self.o.payload.end.eq(left == 0),
            self.o.payload.data.eq(Mux(draining, crc.crc, word[:8])),
            crc.data.eq(word[:8]),
            crc.start.eq(byte_goes),
            crc.drain.eq(draining),
            crc.clear.eq(step == Step.CHOOSE),
        ]
        with m.If(byte_goes):
            m.d.sync += [word.eq(word >> 8), left.eq(left - 1)]
            with m.If(in_result):
                m.d.sync += [sent_position.eq(sent_position + 1), length.eq(length + 1)]
        with m.Elif(left == 0):
            m.d.sync += word.eq(next_word)

        record, request = self.result.payload, self.request.payload
        score_size = score_bytes(self.score_bits)
        replies = self.reply_kind != 0
        reads = ~replies & self.request.valid
        others_wait = replies | self.request.valid
        kind = Mux(replies, self.reply_kind, Mux(reads, Kind.VALUES, Kind.RESULT))
        epoch = Mux(replies, self.reply_epoch, Mux(reads, request.epoch, 0))
        words = {
            (Step.CHOOSE,): Cat(epoch, kind, self.lease),
            (Step.EXPECTED,): self.expected,
            (Step.CONSUMED,): self.consumed,
            (Step.SENT, Step.RECORD): sent_position,
            (Step.ASKED, Step.UPPER_VALUE): upper,
            (Step.VALUE,): self.value,
            (Step.SCORE,): record.score,
            (Step.UPPER_SCORE,): record.score >> 16,
            (Step.LABEL,): record.label,
        }
        with m.Switch(step):
            for steps, value in words.items():
                with m.Case(*steps):
                    m.d.comb += next_word.eq(value)

        # Is the frame to be closed here? A cycle old, between bytes that are eight cycles apart.
        # A record's beat adds at most 6 bytes to a payload of at most 246.
        cut = Signal()
        waits = ~self.result.valid & others_wait
        ends = boundary & (length[7] | ~self.result.valid)
        m.d.sync += cut.eq(ends | length[4:].all() | waits)

        # A record's beat is let go a cycle after its last bytes were loaded: the next look at
        # `result` is many cycles away, and the core's way to stall starts at a register.
        let_go = Signal()
        m.d.sync += self.result.ready.eq(let_go & ~self.reset)

        def send(size, then):
            m.d.sync += [left.eq(size), step.eq(then)]

        with m.If(step == Step.CHOOSE):
            m.d.comb += [
                self.reply_taken.eq(replies & ~self.reset),
                self.request.ready.eq(reads & ~self.reset),
            ]
            m.d.sync += [
                draining.eq(0),
                boundary.eq(0),
                length.eq(0),
                self.address.eq(request.address),
                remaining.eq(request.count),
                upper.eq(Cat(request.address, C(0, 3), request.count)),
            ]
            with m.If(others_wait | self.result.valid):
                send(2, Mux(replies, Step.EXPECTED, Mux(reads, Step.ASKED, Step.RECORD)))
        with m.Elif(done), m.Switch(step):
            with m.Case(Step.EXPECTED):
                send(2, Step.CONSUMED)
            with m.Case(Step.CONSUMED):
                send(2, Step.SENT)
            with m.Case(Step.SENT):
                send(2, Step.CHECK)
            with m.Case(Step.ASKED):
                send(2, Step.VALUE)
            with m.Case(Step.VALUE):
                m.d.sync += [upper.eq(self.value >> 16), remaining.eq(remaining - 1)]
                with m.If(remaining == 0):
                    m.d.sync += step.eq(Step.CHECK)
                with m.Else():
                    send(2, Step.UPPER_VALUE)
            with m.Case(Step.UPPER_VALUE):
                send(2, Step.VALUE)
                m.d.sync += self.address.eq(self.address + 1)
            with m.Case(Step.RECORD):
                send(2, Step.SCORE)
            with m.Case(Step.SCORE):
                with m.If(cut):
                    m.d.sync += [in_result.eq(0), step.eq(Step.CHECK)]
                with m.Elif(self.result.valid):
                    m.d.sync += [in_result.eq(1), boundary.eq(0)]
                    if score_size > 2:
                        send(2, Step.UPPER_SCORE)
                    else:
                        m.d.comb += let_go.eq(~record.last)
                        send(score_size, Mux(record.last, Step.LABEL, Step.SCORE))
            with m.Case(Step.UPPER_SCORE):
                if score_size > 2:
                    m.d.comb += let_go.eq(~record.last)
                    send(score_size - 2, Mux(record.last, Step.LABEL, Step.SCORE))
            with m.Case(Step.LABEL):
                m.d.comb += let_go.eq(1)
                m.d.sync += boundary.eq(1)
                send(LABEL_BYTES, Step.SCORE)
            with m.Case(Step.CHECK):
                m.d.sync += draining.eq(1)
                send(CRC_BYTES, Step.CLOSE)
            with m.Case(Step.CLOSE), m.If(self.o.ready):
                m.d.sync += step.eq(Step.CHOOSE)
        with m.If(self.reset):
            m.d.sync += [step.eq(Step.CHOOSE), left.eq(0), sent_position.eq(0), in_result.eq(0)]
        return m
