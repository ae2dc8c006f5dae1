# SPDX-License-Identifier: BSD-2-Clause
"""Weight chain: whole loads reach every store; broken, short or reset loads never count."""

import dataclasses
import random
import zlib

import pytest
from amaranth import Module, ResetInserter
from amaranth.back import rtlil
from amaranth.lib import wiring
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.hw.boot_rom import BootRom, BootRomConfig
from xnorforge.hw.config_chain import ConfigHead
from xnorforge.hw.store import Store, StoreConfig
from xnorforge.sim.bench import run

CHAIN = (
    StoreConfig(21, 5, "block", "ice40"),
    StoreConfig(7, 1, "lut", "ice40"),
    StoreConfig(40, 18, "lut", "ecp5"),
    StoreConfig(8, 3, "block", "ecp5"),
)
LOAD_BYTES = sum(config.load_bytes for config in CHAIN)
WITH_SPRAM = (
    StoreConfig(9, 4, "const", "ice40"),
    StoreConfig(21, 5, "spram", "ice40"),
    StoreConfig(12, 6, "block", "ice40"),
)
BOOTED = (
    StoreConfig(21, 5, "block", "ice40", patchable=True),
    StoreConfig(7, 1, "block", "ice40", patchable=True),
    StoreConfig(40, 18, "lut", "ecp5", patchable=True),
    StoreConfig(9, 300, "block", "ice40", patchable=True),
    StoreConfig(12, 6, "lut", "ice40", patchable=True),
)
ALL_BLOCK = (StoreConfig(21, 5, "block", "ice40", patchable=True),)
ALL_CONSTANT = (StoreConfig(9, 4, "const", "ice40"), StoreConfig(30, 1, "const", "ice40"))


def random_words(seed, stores=CHAIN):
    generator = random.Random(seed)
    return [[generator.getrandbits(c.width) for _ in range(c.depth)] for c in stores]


def payload_of(words, stores=CHAIN):
    return b"".join(config.pack(w) for config, w in zip(stores, words, strict=True))


class Chain(wiring.Component):
    """A head and its stores, as a core holds them."""

    def __init__(self, words, stores=CHAIN, short=0):
        payload = payload_of(words, stores)
        digest = zlib.crc32(payload) if all(config.initialised for config in stores) else None
        boot = None
        if stores[0].patchable:
            pairs = zip(stores, words, strict=True)
            shares = b"".join(config.pack(w) for config, w in pairs if config.boots)
            rom = BootRomConfig(len(shares))
            boot, digest = BootRom(config=rom, words=rom.words(shares, digest)), None
        self.head = ConfigHead(
            load_bytes=len(payload) - short,
            init_digest=digest,
            boot=boot,
            slots=stores[0].slots,
        )
        self.stores = [Store(config=c, init=w) for c, w in zip(stores, words, strict=True)]
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.head = self.head
        load = self.head.load_o
        for k, store in enumerate(self.stores):
            m.submodules[f"store_{k}"] = store
            if store.config.loadable:
                wiring.connect(m, load, store.load_i)
                load = store.load_o
            if store.config.slots > 1:
                m.d.comb += store.load_slot.eq(self.head.load_slot)
        wiring.connect(m, load, self.head.load_i)
        return m


class Host:
    """What the tests do to a chain, inside a testbench."""

    def __init__(self, chain, ctx):
        self.chain, self.ctx, self.head = chain, ctx, chain.head

    async def send(self, load, gap=0.0, first=True):
        generator = random.Random(len(load))
        for k, byte in enumerate(load):
            while generator.random() < gap:
                await self.ctx.tick()
            self.ctx.set(self.head.i.payload, {"data": byte, "first": first and k == 0})
            self.ctx.set(self.head.i.valid, 1)
            await self.ctx.tick()
            self.ctx.set(self.head.i.valid, 0)

    async def wait(self, cycles):
        for _ in range(cycles):
            await self.ctx.tick()

    async def settle(self):
        await self.wait(len(CHAIN) + 4)

    def state(self):
        return self.ctx.get(self.head.model_valid), self.ctx.get(self.head.weights_digest)

    async def contents(self, slot=None):
        found = []
        for store in self.chain.stores:
            words = []
            if slot is not None:
                self.ctx.set(store.slot, slot)
            for address in range(store.config.depth):
                self.ctx.set(store.address, address)
                await self.wait(store.config.latency)
                words.append(self.ctx.get(store.data))
            found.append(words)
        return found


def run_host(script, words, stores=CHAIN, bound=6000, **options):
    chain = Chain(words, stores)

    async def bench(ctx):
        await script(Host(chain, ctx))

    return run(chain, [bench], bound=bound, **options)


@pytest.mark.parametrize("gap", [0.0, 0.6])
def test_loads_replace_the_power_up_model(gap):
    words, second, third = random_words(1), random_words(2), random_words(3)

    async def script(host):
        assert host.state() == (1, zlib.crc32(payload_of(words)))
        assert await host.contents() == words
        for fresh in (second, third):
            payload = payload_of(fresh)
            await host.send(ConfigHead.reference(payload), gap)
            await host.settle()
            assert host.state() == (1, zlib.crc32(payload))
            assert await host.contents() == fresh

    run_host(script, words)


def test_model_valid_falls_with_the_first_byte_and_rises_at_a_known_cycle():
    words = random_words(1)

    async def script(host):
        load = ConfigHead.reference(payload_of(words))
        await host.send(load[:1])
        assert host.state() == (0, 0)
        await host.send(load[1:], first=False)
        await host.wait(len(CHAIN) + 1)
        assert host.state() == (0, 0)
        await host.ctx.tick()
        assert host.state() == (1, zlib.crc32(payload_of(words)))

    run_host(script, words)


@settings(max_examples=12)
@given(position=st.integers(0, LOAD_BYTES + 3), bit=st.integers(0, 7))
def test_any_flipped_bit_keeps_the_model_invalid(position, bit):
    words = random_words(1)

    async def script(host):
        load = bytearray(ConfigHead.reference(payload_of(words)))
        load[position] ^= 1 << bit
        await host.send(load)
        await host.settle()
        assert host.state() == (0, 0)

    run_host(script, words)


@pytest.mark.parametrize("missing", [1, 4, 5, 60])
def test_short_load_stays_invalid_until_a_whole_one(missing):
    words, fresh = random_words(1), random_words(2)

    async def script(host):
        load = ConfigHead.reference(payload_of(words))
        await host.send(load[:-missing])
        await host.settle()
        assert host.state() == (0, 0)
        await host.send(ConfigHead.reference(payload_of(fresh)))
        await host.settle()
        assert host.state() == (1, zlib.crc32(payload_of(fresh)))
        assert await host.contents() == fresh

    run_host(script, words)


def test_aborted_load_followed_at_once_by_another():
    words, fresh = random_words(1), random_words(2)

    async def script(host):
        for cut in range(1, 12):
            await host.send(ConfigHead.reference(payload_of(words))[:cut])
        await host.send(ConfigHead.reference(payload_of(fresh)))
        await host.settle()
        assert host.state() == (1, zlib.crc32(payload_of(fresh)))
        assert await host.contents() == fresh

    run_host(script, words)


def test_bytes_without_first_and_after_the_end_are_ignored():
    words, fresh = random_words(1), random_words(2)

    async def script(host):
        await host.send(bytes(range(200)), first=False)
        await host.settle()
        assert host.state() == (1, zlib.crc32(payload_of(words)))
        assert await host.contents() == words
        await host.send(ConfigHead.reference(payload_of(fresh)) + bytes(range(100)))
        await host.settle()
        assert host.state() == (1, zlib.crc32(payload_of(fresh)))
        assert await host.contents() == fresh

    run_host(script, words)


@pytest.mark.parametrize("pause", range(8))
def test_new_load_soon_after_a_whole_one_is_invalid_until_its_own_crc(pause):
    words = random_words(1)

    async def script(host):
        await host.send(ConfigHead.reference(payload_of(words)))
        await host.wait(pause)
        await host.send(payload_of(words))
        await host.settle()
        assert host.state() == (0, 0)

    run_host(script, words)


@pytest.mark.parametrize("reset", [1, 30, LOAD_BYTES, LOAD_BYTES + 4, LOAD_BYTES + 6])
def test_reset_during_a_load_leaves_the_model_invalid(reset):
    words = random_words(1)

    async def script(host):
        await host.send(ConfigHead.reference(payload_of(words)))
        await host.settle()
        assert host.state() == (0, 0)
        await host.send(ConfigHead.reference(payload_of(words)))
        await host.settle()
        assert host.state() == (1, zlib.crc32(payload_of(words)))

    run_host(script, words, reset=(reset,))


def test_zeros_after_a_reset_are_no_load():
    # The CRC of nothing is zero: four zero bytes must not pass for a load's end.
    words = random_words(1)

    async def script(host):
        await host.send(ConfigHead.reference(payload_of(words))[:9])
        await host.wait(3)
        await host.send(bytes(20), first=False)
        await host.settle()
        assert host.state() == (0, 0)

    run_host(script, words, reset=(10,))


def test_reset_between_loads_keeps_model_and_memories():
    words, fresh = random_words(1), random_words(2)

    async def script(host):
        await host.send(ConfigHead.reference(payload_of(fresh)))
        await host.settle()
        await host.wait(10)
        assert host.state() == (1, zlib.crc32(payload_of(fresh)))
        assert await host.contents() == fresh

    end = LOAD_BYTES + 4 + len(CHAIN) + 4
    run_host(script, words, reset=(end + 2, end + 3))


def test_wrong_load_length_never_makes_a_valid_model():
    words = random_words(1)
    chain = Chain(words, short=1)

    async def bench(ctx):
        host = Host(chain, ctx)
        await host.send(ConfigHead.reference(payload_of(words)[:-1]))
        await host.settle()
        assert host.state() == (0, 0)

    run(chain, [bench], bound=1000)


def test_model_is_invalid_until_spram_is_loaded():
    words, fresh = random_words(1, WITH_SPRAM), random_words(2, WITH_SPRAM)
    fresh[0] = words[0]
    payload = payload_of(fresh, WITH_SPRAM)

    async def script(host):
        assert host.state() == (0, 0)
        load = ConfigHead.reference(payload)
        await host.send(load[:-1] + bytes([load[-1] ^ 1]))
        await host.settle()
        assert host.state() == (0, 0)
        await host.send(load)
        await host.settle()
        assert host.state() == (1, zlib.crc32(payload))
        assert await host.contents() == fresh

    run_host(script, words, WITH_SPRAM)


@pytest.mark.parametrize("cut", [1, 6, 20])
def test_reset_in_the_middle_of_a_load_leaves_spram_invalid_until_a_whole_one(cut):
    words = random_words(1, WITH_SPRAM)
    payload = payload_of(words, WITH_SPRAM)

    async def script(host):
        await host.send(ConfigHead.reference(payload))  # interrupted by the reset
        await host.settle()
        assert host.state() == (0, 0)
        await host.send(ConfigHead.reference(payload))
        await host.settle()
        assert host.state() == (1, zlib.crc32(payload))
        assert await host.contents() == words

    run_host(script, words, WITH_SPRAM, reset=(cut,))


def test_constants_alone_take_an_empty_payload():
    words = random_words(1, ALL_CONSTANT)

    async def script(host):
        assert host.state() == (1, zlib.crc32(b""))
        assert await host.contents() == words
        await host.send(bytes([0, 0, 1, 0]))  # not the CRC of nothing
        await host.settle()
        assert host.state() == (0, 0)
        await host.send(ConfigHead.reference(b""))
        await host.settle()
        assert host.state() == (1, zlib.crc32(b""))
        assert await host.contents() == words

    run_host(script, words, ALL_CONSTANT)


def boot_cycles(stores):
    """Of a chain out of reset: the ROM's latency, its bytes, the registers of head and stores."""
    return sum(c.load_bytes for c in stores if c.boots) + 4 + len(stores) + 2


@pytest.mark.parametrize("stores", [BOOTED, ALL_BLOCK])
def test_boot_brings_the_power_up_model_and_a_load_replaces_it(stores):
    words, fresh = random_words(1, stores), random_words(2, stores)

    async def script(host):
        assert host.state() == (0, 0)
        await host.wait(boot_cycles(stores) - 4)
        assert host.state() == (0, 0)
        await host.wait(8)
        assert host.state() == (1, zlib.crc32(payload_of(words, stores)))
        assert await host.contents() == words
        await host.send(b"\xff", first=False)  # is still on the wires as the load begins
        await host.send(ConfigHead.reference(payload_of(fresh, stores)), 0.3)
        await host.settle()
        assert host.state() == (1, zlib.crc32(payload_of(fresh, stores)))
        assert await host.contents() == fresh

    run_host(script, words, stores)


@pytest.mark.parametrize("begin", range(0, boot_cycles(BOOTED) + 6, 5))
def test_load_that_begins_during_a_boot_wins(begin):
    words, fresh = random_words(1, BOOTED), random_words(2, BOOTED)

    async def script(host):
        await host.wait(begin)
        load = ConfigHead.reference(payload_of(fresh, BOOTED))
        await host.send(load[:9])
        await host.wait(boot_cycles(BOOTED))
        assert host.state() == (0, 0)
        await host.send(load)
        await host.settle()
        assert host.state() == (1, zlib.crc32(payload_of(fresh, BOOTED)))
        assert await host.contents() == fresh

    run_host(script, words, BOOTED)


@pytest.mark.parametrize("reset", range(0, boot_cycles(BOOTED) + 12, 3))
def test_reset_during_a_boot_begins_it_anew(reset):
    words = random_words(1, BOOTED)

    async def script(host):
        await host.wait(reset + boot_cycles(BOOTED) + 6)
        assert host.state() == (1, zlib.crc32(payload_of(words, BOOTED)))
        assert await host.contents() == words

    run_host(script, words, BOOTED, reset=(reset, reset + 1))


def test_reset_after_a_load_does_not_boot_again():
    words, fresh = random_words(1, BOOTED), random_words(2, BOOTED)
    end = boot_cycles(BOOTED) + 6 + sum(c.load_bytes for c in BOOTED) + 4 + len(BOOTED) + 10

    async def script(host):
        await host.wait(boot_cycles(BOOTED) + 6)
        await host.send(ConfigHead.reference(payload_of(fresh, BOOTED)))
        await host.wait(boot_cycles(BOOTED) + 40)
        assert host.state() == (1, zlib.crc32(payload_of(fresh, BOOTED)))
        assert await host.contents() == fresh

    run_host(script, words, BOOTED, reset=(end,))


TWO_SLOTS = tuple(dataclasses.replace(config, slots=2) for config in CHAIN)
BOOTED_SLOTS = tuple(dataclasses.replace(config, slots=2) for config in BOOTED)


@pytest.mark.parametrize("stores", [TWO_SLOTS, BOOTED_SLOTS])
def test_each_slot_holds_a_model_of_its_own(stores):
    models = [random_words(seed, stores) for seed in range(4)]
    payloads = [payload_of(words, stores) for words in models]

    async def script(host):
        await host.wait(boot_cycles(stores) + 6)
        held, ctx = [0, None], host.ctx

        async def check():
            valid, digests = host.state()
            for slot, model in enumerate(held):
                assert valid >> slot & 1 == (model is not None)
                assert digests[slot] == (0 if model is None else zlib.crc32(payloads[model]))
                if model is not None:
                    assert await host.contents(slot) == models[model]

        await check()
        for slot, model, cut in ((1, 1, 0), (0, 2, 3), (1, 3, 60), (0, 3, 0), (1, 2, 0), (1, 0, 1)):
            ctx.set(host.head.slot, slot)
            load = ConfigHead.reference(payloads[model])
            await host.send(load[: len(load) - cut], 0.2)
            ctx.set(host.head.slot, 1 - slot)  # is looked at with the first byte only
            await host.settle()
            held[slot] = None if cut else model
            await check()

    run_host(script, models[0], stores, bound=20_000)


def test_memory_that_cannot_be_booted_is_not_patchable():
    for kind in ("spram", "const"):
        with pytest.raises(ValueError, match=f"kind '{kind}' cannot be patchable"):
            StoreConfig(21, 5, kind, "ice40", patchable=True)


def test_converts_to_rtlil_inside_a_resettable_domain():
    assert "digest" in rtlil.convert(ResetInserter({})(Chain(random_words(1))), ports=[])


def test_parameter_errors():
    with pytest.raises(ValueError, match="at least 0 bytes, not -1"):
        ConfigHead.check(-1, 0)
    with pytest.raises(TypeError, match="must be an integer, not '12'"):
        ConfigHead.check("12", 0)
    with pytest.raises(ValueError, match="must fit in 32 unsigned bits, not -1"):
        ConfigHead.check(12, -1)
