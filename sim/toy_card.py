# SPDX-License-Identifier: BSD-2-Clause
"""A PCIe card of a made-up core in plain Python: the driver's side without a simulator.

It goes round its rings as LitePCIe's DMA does: it fetches buffers ahead of what it looks at, in
pieces and at random moments, whether or not the host has written them.

    card = ToyCard(seed=1)
    bus = PcieBus(card.opened(), CARD, classes=3)
"""

from __future__ import annotations

import random
from collections import deque

import numpy as np

from xnorforge.sim.device_model import Shape
from xnorforge.sim.toy_board import WEIGHTS, toy_record
from xnorforge.sw.blocks import (
    BEAT_BYTES,
    BLOCK_BYTES,
    BLOCK_WORDS,
    INDEX_BITS,
    PAYLOAD_BYTES,
    BlockKind,
    BlockRegister,
    Trailer,
    number,
)
from xnorforge.sw.errors import PortError
from xnorforge.sw.manifest import Card
from xnorforge.sw.protocol import (
    CRC_BYTES,
    MAGIC,
    STATUS_MODEL_VALID,
    STATUS_SECOND_VALID,
    STATUS_SLOT,
    STATUS_TWO_SLOTS,
    VERSION,
    AxiRegister,
    Control,
    Register,
    crc32,
)

__all__ = ["CARD", "ToyCard"]

CARD = Card(registers=0x20000, dma_status=0x5034, beat_bytes=4)
_PIECE = 512  # bytes fetched at once
_INDEX = (1 << INDEX_BITS) - 1
_GONE = 0xFFFFFFFF


class ToyCard:
    """A card, and what LitePCIe's driver offers of it (`sw.litepcie.LitePcie`).

    seed: of the moments at which it moves. buffers: of a ring. fetched: pieces that it holds.
    models: that the core holds at once. garble: the digest of a load reads back wrong.

    Attributes
    ----------
    gone: registers read as ones and nothing moves. stopped: the core gives no results.
    dropped: blocks that were not the next. opens: programs so far.
    """

    def __init__(
        self, *, seed: int = 0, buffers: int = 16, fetched: int = 40, models: int = 1
    ) -> None:
        self.shape = Shape(image_bytes=2, classes=3, score_bytes=4)
        self.gone = self.stopped = self.garble = False
        self.dropped = self.opens = self.frames = 0
        self.digests: list[int | None] = [crc32(WEIGHTS), None][:models]
        self.rounds = 0  # that the card's count stands at when the DMA starts
        self._random = random.Random(seed)
        self._most_fetched = fetched
        self._in_use = self._on = False
        self._slot = 0
        self._load = bytearray()
        self.tx = np.zeros((buffers, BLOCK_BYTES), np.uint8)
        self.rx = np.zeros((buffers, BLOCK_BYTES), np.uint8)
        self._registers = dict.fromkeys(BlockRegister, 0)
        self._stop()

    # --- as the driver's side sees it -----------------------------------------------------------

    def opened(self) -> ToyCard:
        if self._in_use:
            raise PortError("/dev/toy is in use: close the other program first")
        self._in_use = True
        self.opens += 1
        return self

    def close(self) -> None:
        self._in_use = False
        self._stop()

    def start(self) -> None:
        self._stop()
        self.tx[:] = 0
        self.rx[:] = 0
        self._on = True

    def pause(self, seconds: float) -> None:
        self._run(200)

    def read(self, address: int) -> int:
        self._run(self._random.randrange(60))
        if self.gone:
            return _GONE
        if address == CARD.dma_status:
            read = max(0, self._position - 1)
            size = len(self.tx)
            return (read // size + self.rounds) % (1 << 16) << 16 | read % size
        register = address - CARD.registers
        if register >= 4096:
            return self._registers[BlockRegister((register - 4096) // 4)]
        return self._core_register(register // 4)

    def write(self, address: int, word: int) -> None:
        self._run(self._random.randrange(60))
        register = address - CARD.registers
        if self.gone:
            return
        if register == 4 * AxiRegister.CONTROL:
            if word & Control.FLUSH:
                self._images.clear()
            if word & Control.RELOAD:
                self._load.clear()
            return
        register = BlockRegister((register - 4096) // 4)
        if not self._on and register is not BlockRegister.LEASE:
            return  # they are 0 while the DMA is off
        self._registers[register] = word
        if register is BlockRegister.LEASE:
            self._registers |= {BlockRegister.SENT: 0, BlockRegister.TAKEN: 0}
            self._image.clear()
            self._words.clear()
            self._patience = 0  # a block in hand is closed

    def power_cycle(self) -> None:
        """A reset: everything is forgotten, the DMA stands."""
        self._stop()
        self.digests = [None] * len(self.digests)

    # --- the card -------------------------------------------------------------------------------

    def _stop(self) -> None:
        self._on = False
        self._position = self._piece = 0  # of the reader: whole buffers, pieces of the next
        self._pieces: deque[bytes] = deque()
        self._block = bytearray()
        self._image = bytearray()
        self._images: deque[tuple[bytes, int]] = deque()
        self._words: deque[int] = deque()
        self._out = bytearray()  # of the block to the host
        self._out_epoch = self._index = self._patience = 0
        self._registers |= {BlockRegister.SENT: 0, BlockRegister.CREDIT: 0}

    def _run(self, steps: int) -> None:
        for _ in range(steps if self._on and not self.gone else 0):
            self._random.choice((self._fetch, self._take, self._take, self._compute, self._give))()

    def _fetch(self) -> None:
        if len(self._pieces) == self._most_fetched:
            return
        buffer = self.tx[self._position % len(self.tx)]
        self._pieces.append(buffer[self._piece : self._piece + _PIECE].tobytes())
        self._piece += _PIECE
        if self._piece == BLOCK_BYTES:
            self._position, self._piece = self._position + 1, 0

    def _take(self) -> None:
        registers = self._registers
        waits = registers[BlockRegister.TAKEN] == registers[BlockRegister.SENT]
        if not self._pieces or (not self._block and waits):
            return
        self._block += self._pieces.popleft()
        if len(self._block) < BLOCK_BYTES:
            return
        words = [int.from_bytes(self._block[k : k + 4], "little") for k in range(0, 16, 4)]
        payload = bytes(self._block[BEAT_BYTES : BEAT_BYTES + words[2]])
        self._block.clear()
        expected = number(registers[BlockRegister.TAKEN], registers[BlockRegister.LEASE])
        if words[3] != MAGIC or words[0] != expected:
            self.dropped += 1
            return
        registers[BlockRegister.TAKEN] = registers[BlockRegister.TAKEN] + 1 & _INDEX
        slot = words[1] >> 8
        if words[1] & 255 == BlockKind.IMAGES:
            self._take_images(payload, slot)
        else:
            self._take_load(payload, slot)

    def _take_images(self, payload: bytes, slot: int) -> None:
        self._image += payload
        size = -(-self.shape.image_bytes // CARD.beat_bytes) * CARD.beat_bytes
        while len(self._image) >= size:
            self._images.append((bytes(self._image[: self.shape.image_bytes]), slot))
            del self._image[:size]

    def _take_load(self, payload: bytes, slot: int) -> None:
        self.digests[slot] = None
        self._load += payload
        if len(self._load) < len(WEIGHTS) + CRC_BYTES:
            return
        digest = crc32(bytes(self._load[:-CRC_BYTES]))
        if digest.to_bytes(CRC_BYTES, "little") == self._load[-CRC_BYTES:]:
            self.digests[slot] = digest
        self._load.clear()

    def _compute(self) -> None:
        if self._images and not self.stopped and len(self._words) < 16:
            image, slot = self._images.popleft()
            self._slot = slot
            self.frames += 1
            record = toy_record(image, self.digests[slot] or 0)
            scores = np.frombuffer(record[:6], "<i2").astype("<i4").tobytes()
            words = scores + record[6:] + bytes(2)
            self._words += [int.from_bytes(words[k : k + 4], "little") for k in range(0, 16, 4)]

    def _give(self) -> None:
        """A piece of a block to the host, when it is full or nothing came for long."""
        registers = self._registers
        if not registers[BlockRegister.SENT]:
            self._words.clear()  # of images of an older lease
        if not self._out and self._index & _INDEX == registers[BlockRegister.CREDIT]:
            return
        if not self._out and self._words:
            self._out_epoch, self._patience = registers[BlockRegister.LEASE], 50
        while self._words and len(self._out) < PAYLOAD_BYTES:
            self._out += self._words.popleft().to_bytes(4, "little")
            self._patience = 50
        self._patience -= 1
        if not self._out or (self._patience > 0 and len(self._out) < PAYLOAD_BYTES):
            return
        count = len(self._out) // 4
        assert count <= BLOCK_WORDS
        block = number(self._index, self._out_epoch)
        trailer = Trailer(block, count, registers[BlockRegister.TAKEN]).to_bytes()
        buffer = self.rx[self._index % len(self.rx)]
        buffer[:-BEAT_BYTES] = memoryview(bytes(self._out.ljust(PAYLOAD_BYTES, b"\0")))
        buffer[-BEAT_BYTES:] = memoryview(trailer)
        self._index += 1
        self._out.clear()

    def _core_register(self, register: int) -> int:
        shape, digests = self.shape, [*self.digests, None]
        status = STATUS_MODEL_VALID * (digests[0] is not None)
        if len(self.digests) > 1:
            status |= STATUS_TWO_SLOTS | STATUS_SLOT * self._slot
            status |= STATUS_SECOND_VALID * (digests[1] is not None)
        words: dict[int, int] = {
            Register.MAGIC: shape.magic,
            Register.VERSION: VERSION,
            Register.PLAN_HASH: shape.plan_hash,
            Register.WEIGHTS_DIGEST: (digests[0] or 0) ^ self.garble,
            Register.STATUS: status,
            Register.SECOND_DIGEST: digests[1] or 0,
            Register.FRAMES: self.frames,
            Register.IMAGE_BYTES: shape.image_bytes,
            Register.OUTPUT: shape.score_bytes << 16 | shape.classes,
        }
        return words.get(register, 0)
