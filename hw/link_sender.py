# SPDX-License-Identifier: BSD-2-Clause
"""The half of the shell that talks: acknowledgements, registers and results as frames.

ACK | READ | result --> words of 32 bits --> bytes, CRC behind them --> content beats
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.cobs import ContentBeat
from xnorforge.hw.crc import SerialCrc32
from xnorforge.hw.link_receiver import ReadRequest
from xnorforge.sw.protocol import CRC_BYTES, LABEL_BYTES, Kind, score_bytes

__all__ = ["LinkSender", "result_layout"]


def result_layout(score_bits: int) -> data.StructLayout:
    """A beat of the core's result stream: one class's score; `label` holds on the `last`."""
    return data.StructLayout({"score": signed(score_bits), "label": 16, "last": 1})


class LinkSender(wiring.Component):
    """Makes frames.

    Acknowledgements go first, then registers, then results. A RESULT frame carries records as
    long as the next one is there, and waits for the rest of a record unless something else is
    to be sent. Nothing is kept for a second sending: the host asks again with the image.

    Throughput: a byte in 9 cycles.  Latency: about 100 cycles from a result beat to the close
    of its frame.  Cost: about 330 LC on iCE40.  Back-pressure: stalls the core, never drops.

    Parameters
    ----------
    score_bits : width of a score, at most 32

    Members
    -------
    result : In(stream.Signature(result_layout(score_bits)))
    session, expected, consumed : In(8), In(16), In(16)
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
                "session": In(8),
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
        m.submodules.crc = crc = SerialCrc32()

        # `word` leaves from its low byte, `left` bytes of it. Each step waits until it has left,
        # loads the next one and names the step after it.
        word = Signal(32)
        left = Signal(range(5))
        step = Signal(3)
        choose, ack, values, scores, label, check, close = range(7)
        done = Signal()
        byte_goes = Signal()
        draining = Signal()  # the bytes are the CRC's
        in_result = Signal()  # the bytes are a result's
        sent_position = Signal(16)
        length = Signal(8)
        boundary = Signal()  # between two records
        remaining = Signal(5)  # registers still to send

        m.d.comb += [
            done.eq((left == 0) & ~crc.busy),
            byte_goes.eq((left != 0) & ~crc.busy & self.o.ready),
            self.o.valid.eq(((left != 0) & ~crc.busy) | ((step == close) & done)),
            self.o.payload.end.eq(left == 0),
            self.o.payload.data.eq(Mux(draining, crc.crc, word[:8])),
            crc.data.eq(word[:8]),
            crc.start.eq(byte_goes),
            crc.drain.eq(draining),
            crc.clear.eq(step == choose),
        ]
        with m.If(byte_goes):
            m.d.sync += [word.eq(word >> 8), left.eq(left - 1)]
            with m.If(in_result):
                m.d.sync += [sent_position.eq(sent_position + 1), length.eq(length + 1)]

        record, request = self.result.payload, self.request.payload
        result_bytes = score_bytes(self.score_bits)
        others_wait = (self.reply_kind != 0) | self.request.valid
        with m.Switch(step):
            with m.Case(choose):
                m.d.sync += [
                    draining.eq(0),
                    boundary.eq(0),
                    length.eq(0),
                    self.address.eq(request.address),
                    remaining.eq(request.count),
                ]
                with m.If(self.reply_kind != 0):
                    header = Cat(self.reply_epoch, self.reply_kind, self.session, self.expected)
                    m.d.comb += self.reply_taken.eq(~self.reset)
                    m.d.sync += [word.eq(header), left.eq(4), step.eq(ack)]
                with m.Elif(self.request.valid):
                    asked = Cat(request.address, C(0, 3), request.count, C(0, 3))
                    header = Cat(request.epoch, C(Kind.VALUES, 4), self.session, asked)
                    m.d.comb += self.request.ready.eq(~self.reset)
                    m.d.sync += [word.eq(header), left.eq(4), step.eq(values)]
                with m.Elif(self.result.valid):
                    header = Cat(C(0, 4), C(Kind.RESULT, 4), self.session, sent_position)
                    m.d.sync += [word.eq(header), left.eq(4), step.eq(scores)]
            with m.Case(ack), m.If(done):
                m.d.sync += [word.eq(Cat(self.consumed, sent_position)), left.eq(4)]
                m.d.sync += step.eq(check)
            with m.Case(values):
                with m.If(done & (remaining == 0)):
                    m.d.sync += step.eq(check)
                with m.Elif(done):
                    m.d.sync += [
                        word.eq(self.value),
                        left.eq(4),
                        self.address.eq(self.address + 1),
                        remaining.eq(remaining - 1),
                    ]
            with m.Case(scores):
                # A record's beat adds at most 6 bytes to a payload of at most 246.
                cut = boundary & (length[7] | ~self.result.valid)
                with m.If(done & (cut | (length >= 240) | (~self.result.valid & others_wait))):
                    m.d.sync += [in_result.eq(0), step.eq(check)]
                with m.Elif(done & self.result.valid):
                    m.d.sync += [
                        word.eq(record.score),
                        left.eq(result_bytes),
                        in_result.eq(1),
                        boundary.eq(0),
                    ]
                    m.d.comb += self.result.ready.eq(~record.last)
                    with m.If(record.last):
                        m.d.sync += step.eq(label)
            with m.Case(label), m.If(done):
                m.d.comb += self.result.ready.eq(1)
                m.d.sync += [word.eq(record.label), left.eq(LABEL_BYTES), boundary.eq(1)]
                m.d.sync += step.eq(scores)
            with m.Case(check), m.If(done):
                m.d.sync += [draining.eq(1), left.eq(CRC_BYTES), step.eq(close)]
            with m.Case(close), m.If(done & self.o.ready):
                m.d.sync += step.eq(choose)
        with m.If(self.reset):
            m.d.sync += [step.eq(choose), left.eq(0), sent_position.eq(0), in_result.eq(0)]
        return m
