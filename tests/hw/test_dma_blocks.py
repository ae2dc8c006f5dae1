# SPDX-License-Identifier: BSD-2-Clause
"""DMA receiver and sender against plain Python, under random stalls."""

import gc
import random
from itertools import count

import pytest
from amaranth.back import rtlil

from xnorforge.hw.dma_receiver import DmaReceiver
from xnorforge.hw.dma_sender import QUIET_CYCLES, DmaSender
from xnorforge.sim.bench import Monitor, ProtocolError, Sink, Source, never, random_stalls, run
from xnorforge.sw.blocks import (
    BEAT_BYTES,
    BLOCK_BEATS,
    BLOCK_WORDS,
    INDEX_BITS,
    PAYLOAD_BYTES,
    BlockKind,
    Trailer,
    header,
    number,
)

IMAGES, WEIGHTS = BlockKind.IMAGES, BlockKind.WEIGHTS
MASK = (1 << INDEX_BITS) - 1
EPOCH = 7


def stalls(probability, seed):
    return random_stalls(probability, seed) if probability else never()


# --- blocks to the card ---------------------------------------------------------------------------


def block(head, payload, rng):
    """A block's beats as integers; what is behind the payload is anything."""
    data = head + payload
    data += rng.randbytes(BLOCK_BEATS * BEAT_BYTES - len(data))
    return [int.from_bytes(data[k : k + 16], "little") for k in range(0, len(data), 16)]


def good(index, kind, slot, payload, rng, epoch=EPOCH):
    return block(header(number(index, epoch), kind, slot, len(payload)), payload, rng)


def receive_reference(beats, epoch, slots, beat=16):
    """(image beats, weight bytes, taken, dropped); beats and bytes as (data, slot)."""
    images, weights, taken, dropped = [], [], 0, 0
    for at in range(0, len(beats), BLOCK_BEATS):
        data = b"".join(beat.to_bytes(16, "little") for beat in beats[at : at + BLOCK_BEATS])
        named, kind, size, magic = (
            int.from_bytes(data[k : k + 4], "little") for k in range(0, 16, 4)
        )
        slot, kind = kind >> 8, kind & 255
        whole = size % beat == 0 or kind == WEIGHTS
        expected = (number(taken, epoch), 0x786E6F72)
        known = kind in (1, 2) and slot < slots
        if (named, magic) != expected or not known or size > PAYLOAD_BYTES or not whole:
            dropped += 1
            continue
        payload = data[16 : 16 + size]
        taken += 1
        if kind == WEIGHTS:
            weights += [(byte, slot) for byte in payload]
        else:
            words = (payload[k : k + beat] for k in range(0, size, beat))
            images += [(int.from_bytes(word, "little"), slot) for word in words]
    return images, weights, taken, dropped


def stale_blocks(index, slots, rng):
    """Blocks that are not the next one, for a receiver that waits for `index`."""
    payload, due = rng.randbytes(64), number(index, EPOCH)

    def odd(named=due, kind=1, size=64, magic=None):
        head = header(named, kind, 0, size)
        return block(head if magic is None else head[:12] + magic, payload, rng)

    return [
        odd(named=number(index, EPOCH - 1)),
        odd(named=number(index + 1, EPOCH)),
        odd(named=number(index - 1 & MASK, EPOCH)),
        odd(named=number(index ^ 1 << 23, EPOCH)),
        [0] * BLOCK_BEATS,
        odd(magic=b"ronx"),
        odd(magic=b"\0\0\0\0"),
        odd(kind=0),
        odd(kind=3),
        odd(kind=1 | slots << 8),  # a slot too far
        odd(kind=1 | 1 << 31),
        odd(size=65),  # images in whole beats
        odd(size=PAYLOAD_BYTES + 16),
        odd(kind=2, size=PAYLOAD_BYTES + 1),
        odd(size=1 << 31),
    ]


def random_blocks(slots, rng, count, beat=16):
    """Beats of blocks of every kind, each kind of stale one before one of them."""
    stale = list(range(15))
    rng.shuffle(stale)
    beats = []
    for index in range(count):
        while stale and rng.random() < 0.6:
            odd = stale.pop()
            if beat > 1 or odd != 11:
                beats += stale_blocks(index, slots, rng)[odd]
        slot = rng.randrange(slots)
        if rng.random() < 0.4:
            payload = rng.randbytes(rng.choice([0, 1, 15, 16, 17, rng.randrange(300)]))
            beats += good(index, WEIGHTS, slot, payload, rng)
        else:
            most = PAYLOAD_BYTES // beat
            size = beat * rng.choice([0, 1, 2, most - 1, most, rng.randrange(90)])
            beats += good(index, IMAGES, slot, rng.randbytes(size), rng)
    return beats


class Inputs:
    """Plain inputs, set before the first cycle."""

    done, progress = True, "inputs"

    def __init__(self, dut, **values):
        self.dut, self.values = dut, values

    async def process(self, ctx):
        for name, value in self.values.items():
            ctx.set(getattr(self.dut, name), value)


def as_pairs(received, slots):
    assert not any(beat.last for beat in received)
    return [(beat.data, beat.slot if slots > 1 else 0) for beat in received]


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize(
    "idle, stall, beat", [(0, 0, 16), (0.3, 0, 2), (0, 0.3, 16), (0.2, 0.2, 8), (0, 0.1, 1)]
)
def test_blocks_are_taken_once_and_in_order(slots, idle, stall, beat):
    rng = random.Random(f"{slots} {idle} {stall}")
    count = 14 if beat > 1 else 8
    beats = random_blocks(slots, rng, count, beat)
    images, weights, taken, dropped = receive_reference(beats, EPOCH, slots, beat)
    assert taken == count and dropped == len(beats) // BLOCK_BEATS - count >= 4
    dut = DmaReceiver(slots=slots, image_bytes=beat)
    source = Source(dut.i, beats, idle=stalls(idle, 1))
    sinks = [
        Sink(dut.images, len(images), stall=stalls(stall, 2)),
        Sink(dut.weights, len(weights), stall=stalls(stall, 3)),
    ]
    monitors = [Monitor(dut.images, "images"), Monitor(dut.weights, "weights")]
    counts = []

    async def end(ctx):
        while not source.done:
            await ctx.tick()
        await ctx.tick()
        counts.append((ctx.get(dut.taken), ctx.get(dut.dropped)))

    # One is sent that never comes: with all taken, not a beat would move.
    inputs = Inputs(dut, enable=1, epoch=EPOCH, sent=count + 1)
    cycles = len(beats) + 16 * len(weights) + len(images)
    run(dut, [inputs, source, *sinks, *monitors, end], 3 * cycles)
    assert as_pairs(sinks[0].received, slots) == images
    assert as_pairs(sinks[1].received, slots) == weights
    assert counts == [(taken, dropped)]


def test_a_beat_a_cycle_and_a_byte_a_cycle():
    rng = random.Random(0)
    full = rng.randbytes(PAYLOAD_BYTES)
    beats = good(0, IMAGES, 0, full, rng) + good(1, IMAGES, 0, full[:32], rng)
    beats += good(2, WEIGHTS, 0, full[:37], rng) + good(3, IMAGES, 0, full, rng)
    dut = DmaReceiver()
    source = Source(dut.i, beats)
    sinks = Sink(dut.images, 2 * 511 + 2), Sink(dut.weights, 37)
    inputs = Inputs(dut, enable=1, epoch=EPOCH, sent=4)
    run(dut, [inputs, source, *sinks], 3_000)
    # The bytes of the third block's three beats take 37 cycles instead of 3.
    third = 2 * BLOCK_BEATS
    late = 37 - 3
    assert sinks[0].times == [
        *range(1, BLOCK_BEATS),
        *range(BLOCK_BEATS + 1, BLOCK_BEATS + 3),
        *range(third + BLOCK_BEATS + late + 1, third + 2 * BLOCK_BEATS + late),
    ]
    assert sinks[1].times == list(range(third + 1, third + 38))
    assert source.times[-1] == len(beats) + late - 1


class Feed:
    """Gives a receiver beats by hand, and collects what it passes on, with nothing stalled."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut
        self.images, self.weights = [], []
        for name, value in {"enable": 1, "epoch": EPOCH, "sent": MASK}.items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.images.ready, 1)
        ctx.set(dut.weights.ready, 1)

    async def tick(self):
        """A cycle; whether the beat moved."""
        dut = self.dut
        _, _, moved, images, image, weights, byte = await self.ctx.tick().sample(
            dut.i.valid & dut.i.ready,
            dut.images.valid,
            dut.images.payload.data,
            dut.weights.valid,
            dut.weights.payload.data,
        )
        if images:
            self.images.append(image)
        if weights:
            self.weights.append(byte)
        return moved

    async def give(self, beats):
        for beat in beats:
            self.ctx.set(self.dut.i.payload, beat)
            self.ctx.set(self.dut.i.valid, 1)
            for _ in range(40):
                if await self.tick():
                    break
            else:
                raise ProtocolError("a beat is not taken")
        self.ctx.set(self.dut.i.valid, 0)

    async def refused(self, beat, cycles=20):
        self.ctx.set(self.dut.i.payload, beat)
        self.ctx.set(self.dut.i.valid, 1)
        for _ in range(cycles):
            assert not await self.tick()
        self.ctx.set(self.dut.i.valid, 0)

    async def begin(self, epoch):
        """A lease; whether a beat moved in its cycle."""
        self.ctx.set(self.dut.begin, 1)
        self.ctx.set(self.dut.epoch, epoch)
        moved = await self.tick()
        self.ctx.set(self.dut.begin, 0)
        return moved

    def counts(self):
        return self.ctx.get(self.dut.taken), self.ctx.get(self.dut.dropped)


def test_headers_wait_for_sent_and_for_hold():
    rng = random.Random(2)
    dut = DmaReceiver()
    first, second = (good(k, IMAGES, 0, rng.randbytes(32), rng) for k in range(2))

    async def story(ctx):
        feed = Feed(ctx, dut)
        ctx.set(dut.sent, 0)
        await feed.refused(first[0])
        ctx.set(dut.sent, 1)
        ctx.set(dut.hold, 1)
        await feed.refused(first[0])
        ctx.set(dut.hold, 0)
        await feed.give(first[:2])
        ctx.set(dut.hold, 1)  # a block that has begun goes on
        await feed.give(first[2:])
        ctx.set(dut.hold, 0)
        assert feed.counts() == (1, 0)
        await feed.refused(second[0])
        ctx.set(dut.sent, 2)
        await feed.give(second)
        assert feed.images == first[1:3] + second[1:3]

    run(dut, [story], 10_000)


@pytest.mark.parametrize("kind", [IMAGES, WEIGHTS])
@pytest.mark.parametrize("after", [0, 1, 2, 3, 20, 510, 511])
@pytest.mark.parametrize("offered", [False, True])
def test_a_lease_drops_the_rest_of_the_block_in_hand(kind, after, offered):
    """It begins when so many beats of a block with 10 of payload have moved."""
    rng = random.Random(after)
    dut = DmaReceiver()
    payload = rng.randbytes(160)
    old = good(0, kind, 0, payload, rng)
    new = good(0, IMAGES, 0, rng.randbytes(160), rng, EPOCH + 1)

    async def story(ctx):
        feed = Feed(ctx, dut)
        await feed.give(old[:after])
        if offered:
            ctx.set(dut.i.payload, old[after])
            ctx.set(dut.i.valid, 1)
        moved = await feed.begin(EPOCH + 1)
        ctx.set(dut.i.valid, 0)
        # In the cycle of `begin` a header stays, and what is behind one is dropped.
        assert moved == (offered and after > 0)
        await feed.give(old[after + moved :])
        past = max(0, min(10, after - 1))
        assert feed.images == (old[1 : 1 + past] if kind == IMAGES else [])
        assert feed.weights == (list(payload[: 16 * past]) if kind == WEIGHTS else [])
        assert feed.counts() == (0, after == 0)
        feed.images.clear()
        await feed.give(new)
        assert feed.images == new[1:11]
        assert feed.counts() == (1, after == 0)

    run(dut, [story], 10_000)


@pytest.mark.parametrize("after", [1, 5, 300])
def test_a_dma_that_stops_leaves_nothing_behind(after):
    rng = random.Random(after)
    dut = DmaReceiver()
    first, old = (good(k, WEIGHTS, 0, rng.randbytes(77), rng) for k in range(2))
    new = good(0, IMAGES, 0, rng.randbytes(48), rng)

    async def story(ctx):
        feed = Feed(ctx, dut)
        await feed.give([0] * BLOCK_BEATS + first + old[:after])
        assert feed.counts() == (1 + (after > 5), 1)
        ctx.set(dut.enable, 0)
        await feed.refused(old[after], 3)
        assert feed.counts() == (0, 0)
        ctx.set(dut.enable, 1)
        await feed.give(new)
        assert feed.images == new[1:4]
        assert feed.counts() == (1, 0)

    run(dut, [story], 10_000)


# --- blocks to the host ---------------------------------------------------------------------------


def unpack(beats):
    """Blocks as (trailer, their words), of whole blocks; what is behind the words is zero."""
    found = []
    for at in range(0, len(beats) - BLOCK_BEATS + 1, BLOCK_BEATS):
        data = b"".join(beat.to_bytes(16, "little") for beat in beats[at : at + BLOCK_BEATS])
        trailer = Trailer.from_bytes(data[-16:])
        assert trailer is not None
        words = [int.from_bytes(data[4 * k : 4 * k + 4], "little") for k in range(BLOCK_WORDS)]
        assert not any(words[trailer.words :])
        found.append((trailer, words[: trailer.words]))
    return found


def word(data):
    return {"data": data, "last": data & 1, "user": data >> 1 & 1}


def words_of(count, seed=0):
    rng = random.Random(seed)
    return [rng.getrandbits(32) for _ in range(count)]


def send_inputs(dut, **values):
    return Inputs(dut, **{"enable": 1, "epoch": EPOCH, "credit": MASK} | values)


@pytest.mark.parametrize("idle, stall", [(0, 0), (0.4, 0), (0, 0.5), (0.3, 0.3), (0, 0.9)])
def test_words_come_in_full_blocks_and_the_rest_in_a_last_one(idle, stall):
    sent = words_of(2 * BLOCK_WORDS + 777)
    dut = DmaSender(patience=40)
    source = Source(dut.i, [word(data) for data in sent], idle=stalls(idle, 1))
    sink = Sink(dut.o, 3 * BLOCK_BEATS, stall=stalls(stall, 2))
    run(dut, [send_inputs(dut, taken=5), source, sink, Monitor(dut.o, "o")], 40_000, extra=100)
    assert unpack(sink.received) == [
        (Trailer(number(k, EPOCH), len(part), 5), part)
        for k in range(3)
        for part in [sent[k * BLOCK_WORDS : (k + 1) * BLOCK_WORDS]]
    ]
    assert len(sink.received) == 3 * BLOCK_BEATS


def test_a_word_a_cycle_but_for_the_trailers():
    """With a DMA that takes every beat at once: the queue hides the trailers from the core."""
    dut = DmaSender()
    source = Source(dut.i, [word(data) for data in words_of(5 * BLOCK_WORDS)])
    sink = Sink(dut.o, 5 * BLOCK_BEATS)
    run(dut, [send_inputs(dut), source, sink], 11_000)
    assert source.times == list(range(5 * BLOCK_WORDS))
    # A beat leaves 2 cycles after its fourth word came, a trailer right behind the last of them.
    block = [*range(5, 5 + BLOCK_WORDS, 4), 5 + BLOCK_WORDS - 3]
    assert sink.times == [k * (BLOCK_WORDS + 1) + time for k in range(5) for time in block]


@pytest.mark.parametrize("phase", range(4))
def test_a_dma_that_takes_a_beat_in_four_cycles_never_waits(phase):
    dut = DmaSender()
    source = Source(dut.i, [word(data) for data in words_of(3 * BLOCK_WORDS)])
    sink = Sink(dut.o, 3 * BLOCK_BEATS, stall=(k % 4 != phase for k in count()))
    run(dut, [send_inputs(dut), source, sink], 8_000)
    first = sink.times[0]
    assert sink.times == list(range(first, first + 4 * 3 * BLOCK_BEATS, 4)) and first < 9


@pytest.mark.parametrize("words", [1, 3, 4, 5, 100, BLOCK_WORDS - 1])
@pytest.mark.parametrize("patience", [1, 50])
def test_a_block_is_filled_up_a_beat_a_cycle_when_patience_ends(words, patience):
    sent = words_of(words)
    dut = DmaSender(patience=patience)
    source = Source(dut.i, [word(data) for data in sent])
    sink = Sink(dut.o, BLOCK_BEATS)
    run(dut, [send_inputs(dut), source, sink], 3_000, extra=200)
    assert unpack(sink.received) == [(Trailer(number(0, EPOCH), words, 0), sent)]
    full = words // 4
    given = source.times[-1] + 1  # the last word leaves the queue
    filled = given + patience + 2
    assert sink.times[full:] == list(range(filled, filled + BLOCK_BEATS - full))


@pytest.mark.parametrize("late", [0, 1])
def test_a_word_within_patience_keeps_the_block_open(late):
    patience, sent = 30, words_of(2)
    dut = DmaSender(patience=patience)
    # Idle in all cycles but the first and the one after `patience - 1` or `patience` others.
    gives = (k not in (0, patience + late) for k in count())
    source = Source(dut.i, [word(data) for data in sent], idle=gives)
    sink = Sink(dut.o, (1 + late) * BLOCK_BEATS)
    run(dut, [send_inputs(dut), source, sink], 2_000, extra=200)
    assert source.times == [0, patience + late]
    wanted = [sent] if not late else [[sent[0]], [sent[1]]]
    assert unpack(sink.received) == [
        (Trailer(number(k, EPOCH), len(part), 0), part) for k, part in enumerate(wanted)
    ]


def test_blocks_begin_only_while_there_is_credit():
    sent = words_of(2 * BLOCK_WORDS + 9)
    dut = DmaSender(patience=25)
    source = Source(dut.i, [word(data) for data in sent])
    sink = Sink(dut.o, 3 * BLOCK_BEATS)
    seen = []

    async def story(ctx):
        ctx.set(dut.enable, 1)
        for credit in range(4):
            ctx.set(dut.credit, credit)
            await ctx.tick().repeat(BLOCK_WORDS + 200)
            seen.append((len(source.times), len(sink.received)))

    run(dut, [story, source, sink, Monitor(dut.o, "o")], 20_000)
    held = 32  # words in the queue
    assert seen == [(min(held + k * BLOCK_WORDS, len(sent)), k * BLOCK_BEATS) for k in range(4)]
    assert [words for _, words in unpack(sink.received)] == [
        sent[:BLOCK_WORDS],
        sent[BLOCK_WORDS : 2 * BLOCK_WORDS],
        sent[2 * BLOCK_WORDS :],
    ]


class Purge:
    """A sender that is given words by hand in single cycles, its beats taken by a `Sink`."""

    def __init__(self, ctx, dut):
        self.ctx, self.dut = ctx, dut
        for name, value in {"enable": 1, "epoch": EPOCH, "credit": MASK}.items():
            ctx.set(getattr(dut, name), value)

    async def give(self, words):
        for data in words:
            self.ctx.set(self.dut.i.payload, word(data))
            self.ctx.set(self.dut.i.valid, 1)
            await self.ctx.tick().until(self.dut.i.ready)
        self.ctx.set(self.dut.i.valid, 0)

    async def begin(self, epoch):
        self.ctx.set(self.dut.epoch, epoch)
        self.ctx.set(self.dut.begin, 1)
        await self.ctx.delay(0)
        assert self.ctx.get(self.dut.purging)
        await self.ctx.tick()
        self.ctx.set(self.dut.begin, 0)

    async def quiet(self):
        """Cycles until `purging` falls."""
        for cycles in range(500):
            if not self.ctx.get(self.dut.purging):
                return cycles
            await self.ctx.tick()
        raise ProtocolError("purging does not end")


@pytest.mark.parametrize("before", [0, 1, 4, 7, BLOCK_WORDS - 1, BLOCK_WORDS])
@pytest.mark.parametrize("settled", [0, 1, 2, 10])
@pytest.mark.parametrize("stall", [0, 0.3])
def test_a_lease_closes_the_block_in_hand_and_drops_old_words(before, settled, stall):
    """It begins so many cycles after so many words of the old lease were given."""
    old, late, new = words_of(before, 1), words_of(40, 2), words_of(6, 3)
    dut = DmaSender(patience=100)
    sink = Sink(dut.o, 0, stall=stalls(stall, before))

    async def story(ctx):
        bench = Purge(ctx, dut)
        await bench.give(old)
        for _ in range(settled):
            await ctx.tick()
        await bench.begin(EPOCH + 1)
        await bench.give(late[:20])
        await ctx.tick().repeat(QUIET_CYCLES - 10)
        await bench.give(late[20:])
        # The last word is in the queue for a cycle; none is there in the 64 after it.
        assert await bench.quiet() == QUIET_CYCLES + 1
        await bench.give(new)
        await ctx.tick().repeat(1_500)

    run(dut, [story, sink, Monitor(dut.o, "o")], 20_000)
    *closed, last = unpack(sink.received)
    assert last == (Trailer(number(len(closed), EPOCH + 1), 6, 0), new)
    assert [trailer.number for trailer, _ in closed] == [number(0, EPOCH)][: len(closed)]
    words = closed[0][1] if closed else []
    assert words == old[: len(words)]
    # Words that were still in the queue were dropped there.
    queued = before - len(words)
    assert queued <= 32 if stall else queued == (before > 0 and settled == 0)


def test_purging_lasts_while_the_host_has_sent_nothing():
    dut = DmaSender()

    async def story(ctx):
        bench = Purge(ctx, dut)
        await bench.begin(EPOCH)
        assert await bench.quiet() == QUIET_CYCLES
        ctx.set(dut.unsent, 1)
        await bench.begin(EPOCH)
        await ctx.tick().repeat(3 * QUIET_CYCLES)
        await bench.give(words_of(1))
        await ctx.tick().repeat(2 * QUIET_CYCLES)
        assert ctx.get(dut.purging)
        await bench.give(words_of(1))
        ctx.set(dut.unsent, 0)
        assert await bench.quiet() == QUIET_CYCLES + 1
        await bench.begin(EPOCH)
        await ctx.tick().repeat(5)
        await bench.begin(EPOCH)  # while it still purges
        assert await bench.quiet() == QUIET_CYCLES

    run(dut, [story], 5_000)


@pytest.mark.parametrize("before", [1, 4, 30, 1000])
def test_a_dma_that_stops_begins_anew(before):
    dut = DmaSender(patience=1000)
    beats, new = [], words_of(7, 2)
    sink = Sink(dut.o, 0)

    async def story(ctx):
        bench = Purge(ctx, dut)
        await bench.give(words_of(BLOCK_WORDS + before))
        await ctx.tick().repeat(3)
        ctx.set(dut.enable, 0)
        await bench.give(words_of(100, 3))  # taken and dropped
        beats.append(len(sink.received))
        await ctx.tick().repeat(5)
        ctx.set(dut.enable, 1)
        await bench.give(new)
        await ctx.tick().repeat(1_600)

    run(dut, [story, sink], 10_000)
    assert 0 <= beats[0] - BLOCK_BEATS <= before // 4
    assert unpack(sink.received[:BLOCK_BEATS])[0][0].words == BLOCK_WORDS
    assert unpack(sink.received[beats[0] :]) == [(Trailer(number(0, EPOCH), 7, 0), new)]


# --- both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2])
def test_blocks_convert(slots):
    for block in (DmaReceiver(slots=slots), DmaSender(patience=slots)):
        assert "module" in rtlil.convert(block)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_patience_is_checked():
    with pytest.raises(ValueError, match="patience must be at least 1 cycle, not 0") as caught:
        DmaSender(patience=0)
    del caught
    gc.collect()  # a component that was refused is never used: it says so when it goes
