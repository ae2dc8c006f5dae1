# SPDX-License-Identifier: BSD-2-Clause
"""Store: exact read latency, loads, resets, packing, and the memories that synthesis finds."""

import json
import random

import pytest
from amaranth.back import rtlil
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.gen.devices import DEVICES
from xnorforge.hw.store import FAMILIES, Store, StoreConfig
from xnorforge.sim.bench import run

CONFIGS = [
    StoreConfig(16, 256, "block", "ice40"),
    StoreConfig(9, 300, "block", "ice40"),
    StoreConfig(21, 1100, "block", "ice40"),
    StoreConfig(16, 1025, "block", "ice40"),
    StoreConfig(2, 4100, "block", "ice40"),
    StoreConfig(40, 600, "block", "ecp5"),
    StoreConfig(38, 1030, "block", "ecp5"),
    StoreConfig(37, 2, "block", "ecp5"),
    StoreConfig(38, 1030, "block", "ecp5", hops=1),
    StoreConfig(9, 300, "block", "ice40", hops=2),
    StoreConfig(37, 17, "lut", "ecp5"),
    StoreConfig(6, 300, "lut", "ecp5"),
    StoreConfig(19, 33, "lut", "ice40"),
    StoreConfig(50, 1, "lut", "ice40"),
    StoreConfig(100, 1, "block", "ecp5"),
    StoreConfig(20, 40, "spram", "ice40"),
    StoreConfig(16, 1, "spram", "ice40"),
]
GOWIN_SHAPES = [(40, 600), (38, 1030), (37, 2), (36, 512), (18, 1024), (5, 5000), (1, 16385)]
BLOCK_RAMS = ("SB_RAM40_4K", "DP16KD", "SDPB", "SDPX9B", "DPB", "DPX9B", "SP", "SPX9", "pROM")
CONSTANT = [
    StoreConfig(40, 1, "const", "ice40"),
    StoreConfig(300, 2, "const", "ice40"),
    StoreConfig(300, 8, "const", "ecp5"),
    StoreConfig(70, 11, "const", "ecp5"),
    StoreConfig(1, 100, "const", "ice40"),
]
SHAPES = [("block", "ice40"), ("block", "ecp5"), ("lut", "ice40"), ("lut", "ecp5")]
SHAPES += [("spram", "ice40"), ("const", "ice40"), ("const", "ecp5"), ("block", "gowin")]


def random_words(config, seed):
    generator = random.Random(seed)
    return [generator.getrandbits(config.width) for _ in range(config.depth)]


async def read(ctx, store, words, seed, count=60):
    """Read one address a cycle and compare, exactly `latency` cycles later."""
    config = store.config
    generator = random.Random(seed)
    edges = [0, config.depth - 1]
    addresses = edges + [generator.randrange(config.depth) for _ in range(count)]
    seen = []
    for cycle in range(len(addresses) + config.latency):
        if cycle < len(addresses):
            ctx.set(store.address, addresses[cycle])
        _, _, data = await ctx.tick().sample(store.data)
        seen.append(data)
    assert seen[config.latency :] == config.reference(words, addresses)


async def load(ctx, store, share, gap=0.0, start=True):
    """Send bytes; returns what came out of `load_o` one cycle after each went in."""
    generator = random.Random(len(share))
    port, passed = store.load_i, []
    if start:
        ctx.set(port.start, 1)
        await ctx.tick()
        ctx.set(port.start, 0)
        assert ctx.get(store.load_o.start) == 1
    for byte in share:
        while generator.random() < gap:
            await ctx.tick()
            assert ctx.get(store.load_o.valid) == 0
        ctx.set(port.valid, 1)
        ctx.set(port.data, byte)
        await ctx.tick()
        ctx.set(port.valid, 0)
        if ctx.get(store.load_o.valid):
            passed.append(ctx.get(store.load_o.data))
    await ctx.tick()
    await ctx.tick()
    return passed


def check_store(config, gap=0.0):
    words, fresh = random_words(config, 1), random_words(config, 2)
    store = Store(config=config, init=words)

    async def bench(ctx):
        if config.initialised:
            await read(ctx, store, words, 3)
        if not config.loadable:
            return
        assert await load(ctx, store, config.pack(fresh) + b"next", gap) == list(b"next")
        await read(ctx, store, fresh, 4)

    run(store, [bench], bound=10 * config.load_bytes + 300)


@pytest.mark.parametrize("config", CONFIGS + CONSTANT, ids=str)
def test_reads_init_and_then_the_loaded_words(config):
    check_store(config)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3136, 16384 + 700])
def test_spram_of_one_bank_and_of_two(depth):
    check_store(StoreConfig(16, depth, "spram", "ice40"))


def test_spram_does_not_power_up_with_its_words():
    config = StoreConfig(16, 64, "spram", "ice40")
    words = random_words(config, 1)
    with pytest.raises(AssertionError):
        store = Store(config=config, init=words)
        run(store, [lambda ctx: read(ctx, store, words, 3)], bound=300)


@settings(max_examples=40)
@given(
    width=st.integers(1, 80),
    depth=st.integers(1, 70),
    shape=st.sampled_from(SHAPES),
    gap=st.sampled_from([0.0, 0.5]),
)
def test_random_shapes(width, depth, shape, gap):
    check_store(StoreConfig(width, depth, *shape), gap)


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 8, 13, 16])
def test_constant_store_of_every_function_of_its_address(depth):
    # Every truth table there is over a few addresses, or many of them.
    width = min(1 << depth, 700)
    check_store(StoreConfig(width, depth, "const", "ecp5"))


@pytest.mark.parametrize("config", [c for c in CONFIGS if c.load_bytes < 3000], ids=str)
def test_start_in_the_middle_of_a_share_begins_again(config):
    words, fresh = random_words(config, 1), random_words(config, 2)
    store = Store(config=config, init=words)

    async def bench(ctx):
        for cut in (1, 3, config.load_bytes - 1):
            await load(ctx, store, config.pack(words)[:cut])
        assert await load(ctx, store, config.pack(fresh) + b"ab") == list(b"ab")
        await read(ctx, store, fresh, 5)

    run(store, [bench], bound=4 * config.load_bytes + 300)


@pytest.mark.parametrize("config", [c for c in CONFIGS[7:] if c.initialised], ids=str)
def test_reset_keeps_words_and_makes_the_rest_of_a_load_pass(config):
    words = random_words(config, 1)
    store = Store(config=config, init=words)

    async def bench(ctx):
        # One byte short of any whole entry, then the reset of cycle 2, then bytes to pass on.
        await load(ctx, store, b"")
        await ctx.tick()
        assert await load(ctx, store, bytes(range(40)), start=False) == list(range(40))
        await read(ctx, store, words, 6)

    run(store, [bench], bound=300, reset=(2,))


def test_before_any_start_everything_passes():
    config = StoreConfig(8, 4, "block", "ice40")
    words = [1, 2, 3, 4]
    store = Store(config=config, init=words)

    async def bench(ctx):
        assert await load(ctx, store, b"hello", start=False) == list(b"hello")
        await read(ctx, store, words, 1)

    run(store, [bench], bound=200)


def test_pack_is_column_by_column_little_endian():
    config = StoreConfig(20, 2, "block", "ice40")
    assert config.columns == (16, 4)
    assert config.pack([0xA1234, 0xB5678]) == bytes.fromhex("3412 7856 0a 0b")
    assert StoreConfig(37, 1, "lut", "ecp5").pack([0x1A_BBCC_DDEE]) == bytes.fromhex(
        "eeddccbb0a 01"
    )


@given(
    width=st.integers(1, 120),
    depth=st.integers(1, 20),
    family=st.sampled_from(["ice40", "ecp5"]),
    seed=st.integers(0, 99),
)
def test_unpack_inverts_pack(width, depth, family, seed):
    config = StoreConfig(width, depth, "block", family)
    words = random_words(config, seed)
    share = config.pack(words)
    assert len(share) == config.load_bytes
    assert config.unpack(share) == words


@pytest.mark.parametrize(
    ("config", "latency", "block_rams"),
    [
        (StoreConfig(16, 256, "block", "ice40"), 1, 1),
        (StoreConfig(8, 512, "block", "ice40"), 1, 1),
        (StoreConfig(16, 1024, "block", "ice40"), 1, 4),
        (StoreConfig(16, 1025, "block", "ice40"), 3, 5),
        (StoreConfig(16, 3136, "block", "ice40"), 3, 13),
        (StoreConfig(36, 512, "block", "ecp5"), 2, 1),
        (StoreConfig(36, 1024, "block", "ecp5"), 2, 2),
        (StoreConfig(36, 1100, "block", "ecp5"), 3, 3),
        (StoreConfig(64, 16, "lut", "ecp5"), 1, 0),
        (StoreConfig(64, 65, "lut", "ecp5"), 2, 0),
        (StoreConfig(16, 16384, "spram", "ice40"), 1, 0),
        (StoreConfig(16, 16385, "spram", "ice40"), 2, 0),
        (StoreConfig(64, 500, "const", "ecp5"), 1, 0),
    ],
)
def test_latency_and_block_rams_of_known_shapes(config, latency, block_rams):
    assert (config.latency, config.block_rams) == (latency, block_rams)


@pytest.mark.parametrize(
    ("width", "depth", "sprams"), [(16, 4096, 1), (32, 6272, 2), (17, 2, 2), (16, 16385, 2)]
)
def test_sprams_of_known_shapes(width, depth, sprams):
    config = StoreConfig(width, depth, "spram", "ice40")
    assert (config.sprams, config.block_rams, config.lut_rams) == (sprams, 0, 0)


TWO_SLOTS = [
    StoreConfig(16, 128, "block", "ice40", slots=2),
    StoreConfig(9, 300, "block", "ice40", slots=2),
    StoreConfig(21, 700, "block", "ice40", slots=2, hops=1),
    StoreConfig(40, 90, "block", "ecp5", slots=2),
    StoreConfig(38, 530, "block", "ecp5", slots=2),
    StoreConfig(37, 17, "lut", "ecp5", slots=2),
    StoreConfig(19, 9, "lut", "ice40", slots=2),
    StoreConfig(50, 1, "lut", "ice40", slots=2),
    StoreConfig(9, 5, "block", "ecp5", slots=2, readers=2),
]


@pytest.mark.parametrize("config", TWO_SLOTS, ids=str)
@pytest.mark.parametrize("gap", [0.0, 0.4])
def test_slot_that_is_read_stands_while_the_other_is_written(config, gap):
    models = [random_words(config, seed) for seed in (1, 2, 3)]
    store = Store(config=config, init=models[0])
    end = []

    async def write(ctx):
        for slot, words in ((1, models[1]), (0, models[2])):
            ctx.set(store.load_slot, slot)
            ctx.set(store.slot, 1 - slot)
            await load(ctx, store, config.pack(words), gap)
            ctx.set(store.slot, slot)
            for _ in range(40 + config.latency):
                await ctx.tick()
        end.append(True)

    async def look(ctx):
        generator = random.Random(7)
        held, before = {0: models[0], 1: models[1]}, []
        while not end:
            slot, address = ctx.get(store.slot), generator.randrange(config.depth)
            if slot == 0 and ctx.get(store.load_slot) == 0:
                held[0] = models[2]
            ctx.set(store.address, address * (1 + (config.readers - 1 << config.address_bits)))
            before.append((slot, held[slot][address]))
            _, _, data = await ctx.tick().sample(store.data)
            if len(before) > config.latency:
                then, word = before[-1 - config.latency]
                if {then} == {one for one, _ in before[-1 - config.latency :]}:
                    assert data & (1 << config.width) - 1 == word

    run(store, [write, look], bound=20 * config.load_bytes + 2000)


def test_slots_take_memory_twice_but_a_load_once():
    one, two = (StoreConfig(16, 128, "block", "ice40", slots=n) for n in (1, 2))
    assert (one.block_rams, two.block_rams) == (1, 1)
    assert one.load_bytes == two.load_bytes
    assert StoreConfig(16, 129, "block", "ice40", slots=2).block_rams == 2
    for kind in ("spram", "const"):
        with pytest.raises(ValueError, match=f"kind '{kind}' has one slot"):
            StoreConfig(16, 128, kind, "ice40", slots=2)
    with pytest.raises(ValueError, match="slots must be 1 or 2, not 3"):
        StoreConfig(16, 128, slots=3)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_converts_to_rtlil(config):
    text = rtlil.convert(Store(config=config, init=random_words(config, 1)))
    assert "cell $memrd_v2" in text or config.depth == 1


@pytest.mark.parametrize("config", CONSTANT, ids=str)
def test_constant_store_has_no_memory_and_no_load(config):
    store = Store(config=config, init=random_words(config, 1))
    assert not hasattr(store, "load_i")
    assert "mem" not in rtlil.convert(store, emit_src=False)
    assert (config.load_bytes, config.pack(random_words(config, 1))) == (0, b"")
    with pytest.raises(ValueError, match="constant store has no share"):
        config.unpack(b"")


def check_primitives(config, folder):
    from xnorforge.sim.cells import primitives

    words = random_words(config, 1)
    options = DEVICES["ice40-up5k"].synthesis_args if config.kind == "spram" else ()
    found = primitives(Store(config=config, init=words), config.family, folder, options)
    assert sum(found[cell] for cell in BLOCK_RAMS) == config.block_rams
    assert found["TRELLIS_DPR16X4"] + found["RAM16SDP4"] == config.lut_rams
    assert found["SB_SPRAM256KA"] == config.sprams
    if config.block_rams:
        assert init_ones(folder) == sum(word.bit_count() for word in words)
    if config.block_rams and config.latency == config.read_registers:
        # The loader, and a register behind each block RAM: none that stand for its own latch.
        registers = config.width if FAMILIES[config.family].register else 0
        flipflops = sum(number for cell, number in found.items() if "FF" in cell)
        assert flipflops <= registers + 8 * -(-max(config.columns) // 8) + 40


def init_ones(folder):
    """Ones in what the block RAMs of a netlist power up with."""
    netlist = json.loads((folder / "netlist.json").read_text())
    return sum(
        value.count("1")
        for cell in netlist["modules"]["top"]["cells"].values()
        if cell["type"] in BLOCK_RAMS
        for name, value in cell["parameters"].items()
        if name.startswith("INIT")
    )


@pytest.mark.parametrize(
    "config",
    [CONFIGS[1], CONFIGS[8], StoreConfig(20, 20, "lut", "gowin"), StoreConfig(20, 9000, "spram")],
    ids=str,
)
def test_synthesis_finds_the_stated_memories(config, tmp_path):
    check_primitives(config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        *CONFIGS,
        StoreConfig(16, 3136, "block", "ice40"),
        StoreConfig(1, 2049, "block", "ice40"),
        StoreConfig(18, 1024, "block", "ecp5"),
        StoreConfig(5, 5000, "block", "ecp5"),
        StoreConfig(1, 16385, "block", "ecp5"),
        StoreConfig(144, 700, "block", "ecp5"),
        StoreConfig(144, 40, "lut", "ecp5"),
        *(StoreConfig(*shape, "block", "gowin") for shape in GOWIN_SHAPES),
        StoreConfig(144, 40, "lut", "gowin"),
    ],
    ids=str,
)
def test_synthesis_finds_the_stated_memories_of_odd_shapes(config, tmp_path):
    check_primitives(config, tmp_path)


def test_parameter_errors():
    with pytest.raises(ValueError, match="depth must be at least 1, not 0"):
        StoreConfig(8, 0)
    with pytest.raises(TypeError, match=r"width must be an integer, not 1\.5"):
        StoreConfig(1.5, 4)
    with pytest.raises(ValueError, match="one of block, lut, spram, const, not 'flash'"):
        StoreConfig(8, 4, "flash")
    with pytest.raises(ValueError, match="'spram' does not exist on family 'ecp5'"):
        StoreConfig(8, 4, "spram", "ecp5")
    with pytest.raises(ValueError, match=r"family must be one of ice40, .*, not 'altera'"):
        StoreConfig(8, 4, "lut", "altera")
    config = StoreConfig(8, 2)
    with pytest.raises(ValueError, match="depth 2 cannot take 3 words"):
        config.check([1, 2, 3])
    with pytest.raises(ValueError, match="word 1 must fit in 8 unsigned bits, not 0x100"):
        config.check([1, 256])
    with pytest.raises(ValueError, match="must be 2 bytes, not 3"):
        config.unpack(b"abc")
