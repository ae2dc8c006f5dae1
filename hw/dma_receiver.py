# SPDX-License-Identifier: BSD-2-Clause
"""Blocks from a DMA that reads a ring of buffers: headers looked at, payloads passed on.

    i --> header: the next block? --yes--> images, weights
                                  --no---> dropped

`sw.blocks` holds the format and `docs/pcie.md` the rules.
"""

from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from xnorforge.hw.packet import packet_layout
from xnorforge.hw.tally import Cycle
from xnorforge.sw.blocks import BEAT_BYTES, BLOCK_BEATS, INDEX_BITS, PAYLOAD_BYTES, BlockKind
from xnorforge.sw.protocol import MAGIC

__all__ = ["BEAT_BITS", "DmaReceiver"]

BEAT_BITS = 8 * BEAT_BYTES

_HEADER = data.StructLayout(
    {"index": INDEX_BITS, "epoch": 8, "kind": 8, "slot": 24, "size": 32, "magic": 32}
)


class DmaReceiver(wiring.Component):
    """Takes blocks of a lease, each once and in order, out of all that pass by.

    A block is the next one if its header has this lease's epoch, the index `taken`, a known kind
    and slot, and a size that fits (of images: whole beats of theirs). Of any other not a byte goes
    on. A block counts as taken with the last beat of its payload.

    Throughput: 1 beat a cycle, headers included; of images `image_bytes`, of weights 1 byte.
    Latency: 0.
    Back-pressure: stalls; before a header also while `taken` is `sent`, or `hold` is high.
    Cost: 230 LUTs + 87 flip-flops of 7 series (yosys).

    Parameters
    ----------
    slots : models that blocks can be for, 1 or 2
    image_bytes : of a beat of images, a power of two up to 16

    Members
    -------
    i : In(stream.Signature(128))
    enable : In(1)
        Low: the DMA is off. The next beat is a header, and the counts begin anew.
    epoch, begin : In(8), In(1)
        With `begin` a lease of that epoch begins: what is left of the block in hand is dropped.
    sent : In(24)
        Blocks that the host has sent in this lease.
    hold : In(1)
        Begin no block.
    images, weights : Out(stream.Signature(packet_layout(8 * image_bytes or 8, slots)))
        Without `last`. What was offered is taken back where `begin` comes or `enable` goes.
    taken, dropped : Out(24), Out(32)
        Blocks taken in this lease; others that passed by since `enable` rose.
    """

    def __init__(self, *, slots: int = 1, image_bytes: int = BEAT_BYTES):
        if image_bytes not in (1, 2, 4, 8, BEAT_BYTES):
            raise ValueError(
                f"DmaReceiver image_bytes must be a power of two up to {BEAT_BYTES}, not "
                f"{image_bytes!r}"
            )
        self._slots, self._image_bytes = slots, image_bytes
        super().__init__(
            {
                "i": In(stream.Signature(BEAT_BITS)),
                "enable": In(1),
                "epoch": In(8),
                "begin": In(1),
                "sent": In(INDEX_BITS),
                "hold": In(1),
                "images": Out(stream.Signature(packet_layout(8 * image_bytes, slots))),
                "weights": Out(stream.Signature(packet_layout(8, slots))),
                "taken": Out(INDEX_BITS),
                "dropped": Out(32),
            }
        )

    def elaborate(self, platform):
        # The header decides what the beats behind it are: images, weights, or neither, which are
        # skipped. After the last of the payload they are neither again.
        m = Module()
        header = data.View(_HEADER, self.i.payload)
        m.submodules.beat = beat = ResetInserter(~self.enable)(Cycle(count=BLOCK_BEATS))
        are_images, are_weights = Signal(), Signal()
        left = Signal(range(PAYLOAD_BYTES + 1))  # bytes of the payload
        lane = Signal(range(BEAT_BYTES))  # of a beat, the byte that is due
        passes, done = Signal(), Signal()
        size = Mux(are_images, self._image_bytes, 1)  # of what goes on at once
        final = left == size
        moves = self.i.valid & self.i.ready
        shift = exact_log2(self._image_bytes)
        m.d.comb += [
            beat.step.eq(moves),
            done.eq(final | (lane == BEAT_BYTES - size)),
            self.images.payload.data.eq(
                self.i.payload.word_select(lane[shift:], 8 * self._image_bytes)
            ),
            self.weights.payload.data.eq(self.i.payload.word_select(lane, 8)),
        ]
        with m.If(~self.enable):
            pass
        with m.Elif(beat.first):
            m.d.comb += self.i.ready.eq((self.taken != self.sent) & ~self.hold & ~self.begin)
        with m.Elif(are_images & ~self.begin):
            m.d.comb += [
                self.images.valid.eq(self.i.valid),
                self.i.ready.eq(self.images.ready & done),
                passes.eq(self.images.valid & self.images.ready),
            ]
        with m.Elif(are_weights & ~self.begin):
            m.d.comb += [
                self.weights.valid.eq(self.i.valid),
                self.i.ready.eq(self.weights.ready & done),
                passes.eq(self.weights.valid & self.weights.ready),
            ]
        with m.Else():
            m.d.comb += self.i.ready.eq(1)

        # --- the block in hand
        is_next = self._is_next(header)
        with m.If(moves & beat.first):
            some = is_next & (header.size != 0)
            m.d.sync += [
                are_images.eq(some & (header.kind == BlockKind.IMAGES)),
                are_weights.eq(some & (header.kind == BlockKind.WEIGHTS)),
                left.eq(header.size),
                lane.eq(0),
                self.taken.eq(self.taken + (is_next & ~some)),
                self.dropped.eq(self.dropped + ~is_next),
            ]
            if self._slots > 1:
                m.d.sync += [
                    self.images.payload.slot.eq(header.slot),
                    self.weights.payload.slot.eq(header.slot),
                ]
        with m.If(passes):
            m.d.sync += [left.eq(left - size), lane.eq(lane + size)]
            with m.If(final):
                m.d.sync += [are_images.eq(0), are_weights.eq(0), self.taken.eq(self.taken + 1)]
        with m.If(self.begin | ~self.enable):
            m.d.sync += [are_images.eq(0), are_weights.eq(0), self.taken.eq(0)]
        with m.If(~self.enable):
            m.d.sync += self.dropped.eq(0)
        return m

    def _is_next(self, header) -> Value:
        whole = header.size[: exact_log2(self._image_bytes)] == 0
        known = ((header.kind == BlockKind.IMAGES) & whole) | (header.kind == BlockKind.WEIGHTS)
        return (
            (header.magic == MAGIC)
            & (header.epoch == self.epoch)
            & (header.index == self.taken)
            & (header.slot < self._slots)
            & (header.size <= PAYLOAD_BYTES)
            & known
        )
