# SPDX-License-Identifier: BSD-2-Clause
"""SharedSpram: stores that read one SPRAM in turn, each its own words in its own cycles."""

import random
from itertools import combinations, product

import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from xnorforge.gen.devices import DEVICES
from xnorforge.hw.shared_spram import (
    TURN_BITS,
    SharedSpram,
    SharedSpramConfig,
    SpramShare,
    Turns,
    pack_shares,
)
from xnorforge.hw.store import SPRAM_SHAPE, Store, StoreConfig
from xnorforge.hw.store_loader import LOAD
from xnorforge.sim.bench import run
from xnorforge.sim.cells import primitives

SHARES = [SpramShare(share, turn) for share in (2, 4, 8) for turn in range(share)]


class Stores(wiring.Component):
    """Stores on one weight chain, in as few SPRAMs as hold them."""

    def __init__(self, shapes):
        self.configs = [StoreConfig(w, d, "spram", "ice40", share=s) for w, d, s in shapes]
        self.shares = pack_shares([config.share for config in self.configs])
        self.stores = [Store(config=config, init=[0] * config.depth) for config in self.configs]
        ports = {"begin": In(1), "turn": Out(TURN_BITS), "load": In(LOAD)}
        for index, config in enumerate(self.configs):
            ports[f"address_{index}"] = In(config.address_bits)
            ports[f"data_{index}"] = Out(config.width)
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        m.submodules.turns = turns = Turns()
        m.d.comb += [turns.begin.eq(self.begin), self.turn.eq(turns.turn)]
        load = wiring.flipped(self.load)
        clients = {}
        for index, (store, (number, share)) in enumerate(
            zip(self.stores, self.shares, strict=True)
        ):
            m.submodules[f"store_{index}"] = store
            wiring.connect(m, load, store.load_i)
            load = store.load_o
            m.d.comb += [
                store.address.eq(getattr(self, f"address_{index}")),
                getattr(self, f"data_{index}").eq(store.data),
            ]
            clients.setdefault(number, []).append((store, share))
        for number, users in clients.items():
            spram = SharedSpram(config=SharedSpramConfig(tuple(share for _, share in users)))
            m.submodules[f"spram_{number}"] = spram
            m.d.comb += spram.turn.eq(turns.turn)
            for port, (store, _) in zip(spram.ports, users, strict=True):
                wiring.connect(m, store.port, port)
        return m


@pytest.mark.parametrize(
    "shapes",
    [
        [(16, 40, 2), (7, 33, 2)],
        [(16, 20, 4), (9, 40, 2), (3, 50, 4)],
        [(5, 9, 8), (16, 11, 2), (8, 2, 4), (13, 17, 8), (16, 30, 2)],
        [(16, 5 + n, 8) for n in range(8)],
    ],
    ids=lambda shapes: "-".join(str(share) for _, _, share in shapes),
)
def test_each_store_reads_its_words_in_its_turn(shapes):
    """All are loaded, then read at random addresses in all cycles; only those of a turn count."""
    circuit = Stores(shapes)
    generator = random.Random(len(shapes))
    words = [
        [generator.getrandbits(config.width) for _ in range(config.depth)]
        for config in circuit.configs
    ]
    load = b"".join(config.pack(own) for config, own in zip(circuit.configs, words, strict=True))
    read = [0] * len(shapes)

    async def bench(ctx):
        ctx.set(circuit.load.start, 1)
        await ctx.tick()
        ctx.set(circuit.load.start, 0)
        for byte in load:
            ctx.set(circuit.load.valid, 1)
            ctx.set(circuit.load.data, byte)
            await ctx.tick()
        ctx.set(circuit.load.valid, 0)
        await ctx.tick().repeat(len(shapes) + 3)
        ctx.set(circuit.begin, 1)
        asked = {}
        for cycle in range(400):
            turn = cycle % (1 << TURN_BITS)
            assert ctx.get(circuit.turn) == turn
            for index, (_, share) in enumerate(circuit.shares):
                data = ctx.get(getattr(circuit, f"data_{index}"))
                if index in asked:
                    assert data == words[index][asked.pop(index)]
                    read[index] += 1
                address = generator.randrange(circuit.configs[index].depth)
                ctx.set(getattr(circuit, f"address_{index}"), address)
                if turn % share.share == share.turn:
                    asked[index] = address
            await ctx.tick()
            ctx.set(circuit.begin, generator.random() < 0.5)

    run(circuit, [bench], bound=len(load) + 500)
    assert all(count >= 400 // share - 1 for count, (_, _, share) in zip(read, shapes, strict=True))


def test_turns_stand_until_the_first_beat_and_begin_with_it():
    turns = Turns()

    async def bench(ctx):
        for _ in range(5):
            assert ctx.get(turns.turn) == 0
            await ctx.tick()
        ctx.set(turns.begin, 1)
        assert ctx.get(turns.turn) == 0
        await ctx.tick()
        ctx.set(turns.begin, 0)
        for cycle in range(1, 20):
            assert ctx.get(turns.turn) == cycle % 8
            await ctx.tick()

    run(turns, [bench], bound=40)


def test_turns_that_never_meet_have_addresses_that_never_meet():
    def addresses(share):
        return range(share.base, share.base + SPRAM_SHAPE[1] // share.share)

    for one, other in combinations(SHARES, 2):
        meet = any(t % one.share == one.turn and t % other.share == other.turn for t in range(8))
        overlap = max(addresses(one)[0], addresses(other)[0]) <= min(
            addresses(one)[-1], addresses(other)[-1]
        )
        assert one.meets(other) == meet == overlap


def test_shares_leave_no_gaps():
    for shares in product((2, 4, 8), repeat=5):
        packed = pack_shares(shares)
        assert [share.share for _, share in packed] == list(shares)
        numbers = {number for number, _ in packed}
        assert numbers == set(range(-(-sum(8 // share for share in shares) // 8)))
        for (one_number, one), (other_number, other) in combinations(packed, 2):
            assert one_number != other_number or not one.meets(other)


def test_one_spram_holds_all(tmp_path):
    circuit = Stores([(16, 1000, 4)] * 4)
    found = primitives(circuit, "ice40", tmp_path, DEVICES["ice40-up5k"].synthesis_args)
    assert found["SB_SPRAM256KA"] == 1 == sum(config.sprams for config in circuit.configs)
    assert found["SB_RAM40_4K"] == 0


def test_errors_name_the_rule():
    with pytest.raises(ValueError, match="same turn of an SPRAM"):
        SharedSpramConfig((SpramShare(2, 1), SpramShare(4, 3)))
    with pytest.raises(ValueError, match="must be one of 2, 4, 8, not 3"):
        SpramShare(3, 0)
    with pytest.raises(ValueError, match="from 0 to 3, not 4"):
        SpramShare(4, 4)
    with pytest.raises(ValueError, match="share must be one of 1, 2, 4, 8, not 5"):
        StoreConfig(16, 40, "spram", "ice40", share=5)
    with pytest.raises(ValueError, match="kind 'block' cannot share"):
        StoreConfig(16, 40, "block", "ice40", share=2)
    for width, depth in ((17, 40), (16, 8193), (16, 1)):
        with pytest.raises(ValueError, match=f"2 to 8192 words .* 16 bits, not {depth} of {width}"):
            StoreConfig(width, depth, "spram", "ice40", share=2)
