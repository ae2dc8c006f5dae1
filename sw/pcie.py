# SPDX-License-Identifier: BSD-2-Clause
"""A card as a bus (`sw.bus`): blocks through the rings of DMA buffers, registers through BAR 0.

    images, loads --> blocks --> ring ==DMA==> card ==DMA==> ring --> words --> packets

The card reads its ring without asking the host, so a block may only go into a buffer that it has
not fetched yet. `DMA_STATUS` says how far it got; the host looks before it writes and once more
before it counts the block as sent, and puts into a later buffer what came too late. Blocks carry
numbers, so the card takes each of them once (`sw.blocks`).
"""

import random
from collections import deque
from collections.abc import Sequence

from xnorforge.sw.blocks import (
    BEAT_BYTES,
    INDEX_BITS,
    PAYLOAD_BYTES,
    BlockKind,
    BlockRegister,
    Trailer,
    header,
    number,
)
from xnorforge.sw.bus import BusLost, packet_bytes
from xnorforge.sw.litepcie import DeviceFile, LitePcie, SimulatedDevice
from xnorforge.sw.manifest import Card
from xnorforge.sw.protocol import WORD_BITS, AxiRegister, Control

__all__ = ["PcieBus", "open_card"]

_INDEX = (1 << INDEX_BITS) - 1
_BRIDGE = 4096  # byte address of the bridge's registers behind the core's
_AHEAD = 4  # buffers between where the card reads and where the host begins again
_ROUNDS = 1 << 16  # the card counts them with 16 bits
_LAST_EPOCH = 255
_NOTHING = 0xFFFFFFFF
_PREFETCHED = 2  # buffers behind the one it names that the card may have begun to read
_TRIES = 16  # to be in time; a card that reads on and on may be too fast for ever


def open_card(port: str, card: Card, classes: int) -> "PcieBus":
    """The card at a device file, or a simulated one at a `socket://`. Raises PortError."""
    device: LitePcie
    device = SimulatedDevice(port) if port.startswith("socket://") else DeviceFile(port)
    return PcieBus(device, card, classes)


class PcieBus:
    """A `sw.bus.Bus` over a LitePCIe device.

    Parameters
    ----------
    device : a DeviceFile or SimulatedDevice; `close` closes it
    card : its addresses
    classes : of a result
    seed : for the choice of the first epoch; None for a random one
    """

    def __init__(
        self, device: LitePcie, card: Card, classes: int, *, seed: int | None = None
    ) -> None:
        self._device, self._card = device, card
        self._packet_bytes = packet_bytes(classes)
        self._epoch = random.Random(seed).randrange(1, _LAST_EPOCH + 1)
        # To the card. Positions count buffers since the DMA was started.
        self._blocks: deque[tuple[BlockKind, int, bytes]] = deque()  # not yet in the ring
        self._position = 0  # where the next block goes
        self._seen = 0  # how far the card has read
        self._sent = 0  # blocks of this lease
        # From the card.
        self._next = 0  # index of the next block
        self._granted = 0  # the card begins no block with this index
        self._words = bytearray()

    # --- registers ------------------------------------------------------------------------------

    def read(self, register: int) -> int:
        return self._word(self._card.registers + 4 * register)

    def _word(self, address: int) -> int:
        """Of BAR 0. Raises BusLost where the card is gone: then every word reads as ones."""
        word = self._device.read(address)
        if word == _NOTHING:
            if self._device.read(self._card.registers) == _NOTHING:
                raise BusLost("the card does not answer")
            word = self._device.read(address)  # it may have come back just now
        return word

    def _write(self, register: int, word: int) -> None:
        self._device.write(self._card.registers + 4 * register, word)

    def _bridge(self, register: BlockRegister) -> int:
        return self._card.registers + _BRIDGE + 4 * register

    # --- leases ---------------------------------------------------------------------------------

    def begin(self) -> None:
        if not self._granted or self._word(self._bridge(BlockRegister.CREDIT)) != (
            self._granted & _INDEX
        ):
            self._start()  # or again: a reset stopped the DMA, and took the credit
        elif self._epoch == _LAST_EPOCH:
            self._start()  # what is still on the way, either way, is of an epoch that comes again
        self._epoch = self._epoch % _LAST_EPOCH + 1
        self._blocks.clear()
        self._words.clear()
        self._sent = 0
        # Numbers may come again: no block of an old lease may still lie in the ring.
        self._device.tx[:, :BEAT_BYTES] = 0
        # In this order: no beat of the old lease passes behind the flush, and the card drops what
        # the flush lets out until something is sent.
        self._device.write(self._bridge(BlockRegister.LEASE), self._epoch)
        self._write(AxiRegister.CONTROL, Control.FLUSH)

    def _start(self) -> None:
        """The DMA from the rings' first buffers on."""
        self._device.start()
        self._position = self._seen = self._next = self._granted = 0
        self._grant()

    # --- to the card ----------------------------------------------------------------------------

    def send(self, images: Sequence[tuple[bytes, int]]) -> int:
        count = 0
        room = len(self._device.tx) // 2 * PAYLOAD_BYTES
        queued = sum(len(payload) for _, _, payload in self._blocks)
        payload, slot = bytearray(), images[0][1]
        for image, its_slot in images:
            if queued + len(payload) >= room:
                break
            if its_slot != slot:
                self._queue(BlockKind.IMAGES, slot, bytes(payload))
                queued += len(payload)
                payload, slot = bytearray(), its_slot
            payload += image
            payload += bytes(-len(image) % self._card.beat_bytes)
            count += 1
        self._queue(BlockKind.IMAGES, slot, bytes(payload))
        self._push()
        return count

    def load(self, data: bytes, slot: int, *, first: bool) -> int:
        if first:
            self._write(AxiRegister.CONTROL, Control.RELOAD)
        room = max(0, len(self._device.tx) // 2 - len(self._blocks)) * PAYLOAD_BYTES
        self._queue(BlockKind.WEIGHTS, slot, data[:room])
        self._push()
        return min(room, len(data))

    @property
    def pending(self) -> int:
        self._push()
        taken = self._word(self._bridge(BlockRegister.TAKEN))
        left = len(self._blocks) + (self._sent - taken & _INDEX)
        if left:
            self._device.pause(1e-3)
        return left

    def _queue(self, kind: BlockKind, slot: int, data: bytes) -> None:
        for start in range(0, len(data), PAYLOAD_BYTES):
            self._blocks.append((kind, slot, data[start : start + PAYLOAD_BYTES]))

    def _push(self) -> None:
        """Put blocks into buffers that the card has not fetched, and count them as sent."""
        ring = self._device.tx
        for _ in range(_TRIES):
            if not self._blocks:
                return
            reached = self._reached()
            if reached + _PREFETCHED > self._position:
                self._position = reached + _AHEAD
            room = reached + len(ring) - self._position
            if room <= 0:
                return
            batch = [self._blocks[k] for k in range(min(room, len(self._blocks)))]
            buffers = [ring[(self._position + k) % len(ring)] for k in range(len(batch))]
            for buffer, (_, _, payload) in zip(buffers, batch, strict=True):
                buffer[BEAT_BYTES : BEAT_BYTES + len(payload)] = memoryview(payload)
            if self._is_late():
                continue
            # Only now: the card has not read anything of these buffers, so it gets a header only
            # with the whole of its payload.
            for k, (buffer, (kind, slot, payload)) in enumerate(zip(buffers, batch, strict=True)):
                block = number(self._sent + k, self._epoch)
                buffer[:BEAT_BYTES] = memoryview(header(block, kind, slot, len(payload)))
            if self._is_late():
                # Other payloads come into some of these buffers: not under these headers.
                for buffer in buffers:
                    buffer[:BEAT_BYTES] = 0
                continue
            self._position += len(batch)
            self._sent += len(batch)
            for _ in batch:
                self._blocks.popleft()
            self._device.write(self._bridge(BlockRegister.SENT), self._sent & _INDEX)

    def _is_late(self) -> bool:
        """The card may have passed the first of the blocks: once more, further on."""
        return self._reached() + _PREFETCHED > self._position

    def _reached(self) -> int:
        """The last buffer that the card has read whole since the start; 0 also before it has."""
        status = self._word(self._card.dma_status)
        size = len(self._device.tx)
        found = (status >> 16) * size + (status & 0xFFFF)
        self._seen += (found - self._seen) % (_ROUNDS * size)  # the count of rounds wraps
        return self._seen

    # --- from the card --------------------------------------------------------------------------

    def receive(self, timeout: float) -> list[bytes]:
        self._push()
        if not self._collect() and timeout > 0:
            self._device.pause(timeout)
            self._collect()
        size = self._packet_bytes
        count = len(self._words) // size
        packets = [bytes(self._words[k * size : (k + 1) * size]) for k in range(count)]
        del self._words[: count * size]
        return packets

    def _collect(self) -> bool:
        """Words of the blocks that have come."""
        ring, came = self._device.rx, False
        while True:
            buffer = ring[self._next % len(ring)]
            trailer = Trailer.from_bytes(buffer[-BEAT_BYTES:].tobytes())
            if trailer is None or trailer.number & _INDEX != self._next & _INDEX:
                break
            if trailer.number >> INDEX_BITS == self._epoch:
                self._words += buffer[: trailer.words * WORD_BITS // 8].tobytes()
            self._next += 1
            came = True
        if came:
            self._grant()
        return came

    def _grant(self) -> None:
        """Let the card use all buffers but those not looked at."""
        granted = self._next + len(self._device.rx) - 1
        if granted - self._granted >= len(self._device.rx) // 4 or not self._granted:
            self._granted = granted
            self._device.write(self._bridge(BlockRegister.CREDIT), granted & _INDEX)

    def close(self) -> None:
        self._device.close()
