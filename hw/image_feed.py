# SPDX-License-Identifier: BSD-2-Clause
"""Bytes of a link to the core's image stream, each image for its model.

i, slot --> [ taken while `slot` is that of the images inside ] --> width converter --> o
"""

from dataclasses import dataclass

from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from xnorforge.hw.slots import follow_when_idle
from xnorforge.hw.width import WidthConverter, WidthConverterConfig, beat_shape

__all__ = ["ImageFeed", "ImageFeedConfig"]

BYTE = 8


@dataclass(frozen=True)
class ImageFeedConfig:
    """Shape of an `ImageFeed`.

    elements: of an image. element_bits: 1 (8 elements a byte) to 8 (an element a byte).
    bytes_in: of a beat from the link. lanes: elements of a beat to the core. slots: models that
    the core holds, 1 or 2.

    Raises
    ------
    TypeError, ValueError: a value out of its range.
    """

    elements: int
    element_bits: int
    bytes_in: int
    lanes: int
    slots: int = 1

    def __post_init__(self):
        if self.element_bits > BYTE:
            raise ValueError(f"An element has at most {BYTE} bits, not {self.element_bits}")
        _ = self.width  # its own checks

    @property
    def width(self) -> WidthConverterConfig:
        """The converter between the link's beats and the core's."""
        lanes_in = self.bytes_in * (BYTE if self.element_bits == 1 else 1)
        return WidthConverterConfig(self.elements, self.element_bits, lanes_in, self.lanes)


class ImageFeed(wiring.Component):
    """Bytes to image beats.

    An image begins with a beat of its own; bytes past its end in its last beat are ignored.

    Throughput and latency: those of `WidthConverter`; 5 cycles more where the slot changes.
    Back-pressure: stalls, never drops.  Cost: the converter's.

    Parameters
    ----------
    config : ImageFeedConfig

    Members
    -------
    i : In(stream.Signature(8 * bytes_in))
    o : Out(stream.Signature(beat_shape(element_bits, lanes)))
    flush : In(1)
        Drop what is inside.
    slot, o_slot : In(1), Out(1)
        Of two slots: that of the bytes in `i`, steady until the image's last has been taken; that
        of `o`.
    """

    def __init__(self, *, config: ImageFeedConfig):
        self.config = config
        two = {"slot": In(1), "o_slot": Out(1)} if config.slots > 1 else {}
        super().__init__(
            {
                "i": In(stream.Signature(BYTE * config.bytes_in)),
                "o": Out(stream.Signature(beat_shape(config.element_bits, config.lanes))),
                "flush": In(1),
                **two,
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = self.config.element_bits
        width = WidthConverter(config=self.config.width)
        m.submodules.width = ResetInserter(self.flush)(width)
        taken = C(1)
        if self.config.slots > 1:
            follow_when_idle(m, self.o_slot, self.slot, ~width.o.valid)
            taken = self.o_slot == self.slot
        step = BYTE if bits > 1 else 1
        elements = [self.i.payload[k : k + bits] for k in range(0, len(self.i.payload), step)]
        m.d.comb += [
            Value.cast(width.i.payload).eq(Cat(elements)),
            width.i.valid.eq(self.i.valid & taken),
            self.i.ready.eq(width.i.ready & taken),
        ]
        wiring.connect(m, width.o, wiring.flipped(self.o))
        return m
