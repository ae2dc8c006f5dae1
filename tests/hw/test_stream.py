# SPDX-License-Identifier: BSD-2-Clause
"""Queue: order, exact timing against a model, reset, conversion, parameter errors."""

import random

import pytest
from amaranth.back import rtlil
from amaranth.lib import data
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.hw.stream import Queue, QueueConfig
from xnorforge.sim.bench import Monitor, Sink, Source, never, random_stalls, run

STALLS = (0.0, 0.3, 0.8)
SHAPES = [
    ("registers", 1),
    ("registers", 2),
    ("registers", 3),
    ("registers", 7),
    ("lut", 1),
    ("lut", 2),
    ("lut", 16),
    ("lut", 21),
    ("block", 3),
    ("block", 5),
    ("block", 32),
]


def stalls(probability, seed):
    return random_stalls(probability, seed) if probability else never()


def run_queue(config, items, idle, stall, **options):
    queue = Queue(shape=config.width, depth=config.depth, store=config.store)
    source = Source(queue.i, items, idle=idle)
    sink = Sink(queue.o, len(items), stall=stall)
    monitors = [Monitor(queue.i, "i"), Monitor(queue.o, "o")]
    run(queue, [source, sink, *monitors], bound=40 * len(items) + 60, **options)
    return source, sink


def model_times(config, count, idle, stall):
    """Transfer cycles on both sides, from the contract alone."""
    taken, left = [], []
    offered = not next(idle)
    cycle = 0
    ready = not next(stall)
    while len(left) < count:
        take = offered and len(taken) < count and len(taken) - len(left) < config.depth
        head = len(left)
        leave = ready and head < len(taken) and taken[head] + config.latency <= cycle
        if take:
            taken.append(cycle)
            offered = False
        if leave:
            left.append(cycle)
        if not offered and len(taken) < count:
            offered = not next(idle)
        ready = not next(stall)
        cycle += 1
    return taken, left


@pytest.mark.parametrize(("store", "depth"), SHAPES)
@pytest.mark.parametrize("idle", STALLS)
@pytest.mark.parametrize("stall", STALLS)
def test_order_and_every_transfer_cycle_match_the_contract(store, depth, idle, stall):
    config = QueueConfig(8, depth, store)
    items = [random.Random(depth).randrange(256) for _ in range(60)]
    source, sink = run_queue(config, items, stalls(idle, 1), stalls(stall, 2))
    assert sink.received == config.reference(items)
    taken, left = model_times(config, len(items), stalls(idle, 1), stalls(stall, 2))
    assert source.times == taken
    assert sink.times == left


@settings(max_examples=25)
@given(
    width=st.integers(1, 40),
    depth=st.integers(3, 20),
    store=st.sampled_from(["registers", "lut", "block"]),
    seed=st.integers(0, 1000),
)
def test_random_shapes_keep_order(width, depth, store, seed):
    generator = random.Random(seed)
    items = [generator.getrandbits(width) for _ in range(2 * depth + 3)]
    config = QueueConfig(width, depth, store)
    idle, stall = random_stalls(0.4, seed), random_stalls(0.5, seed + 1)
    _, sink = run_queue(config, items, idle, stall)
    assert sink.received == items


@pytest.mark.parametrize(("store", "depth"), SHAPES)
def test_full_speed_interval_and_latency(store, depth):
    config = QueueConfig(4, depth, store)
    source, sink = run_queue(config, [1, 2, 3, 4, 5, 6], None, None)
    assert source.times == [config.interval * k for k in range(6)]
    assert sink.times == [t + config.latency for t in source.times]


@pytest.mark.parametrize("store", ["registers", "lut", "block"])
def test_reset_midway_forgets_items(store):
    items = [(7 * k) % 251 for k in range(30)]
    config = QueueConfig(8, 6, store)
    stall = (cycle < 20 or cycle % 3 == 0 for cycle in range(1000))
    source, sink = run_queue(config, items, None, stall, reset=(12, 13))
    assert sink.received == items
    assert source.times[0] == 14


@pytest.mark.parametrize("store", ["registers", "lut", "block"])
def test_valid_does_not_wait_for_ready(store):
    queue = Queue(shape=8, depth=4, store=store)
    sink = Sink(queue.o, 5, waits=True)
    run(queue, [Source(queue.i, range(5)), sink], bound=60)
    assert sink.received == list(range(5))


@pytest.mark.parametrize("store", ["registers", "lut", "block"])
def test_layout_payload_keeps_its_shape(store):
    shape = data.StructLayout({"score": 5, "last": 1})
    queue = Queue(shape=shape, depth=4, store=store)
    items = [{"score": k, "last": k == 2} for k in range(3)]
    sink = Sink(queue.o, 3)
    run(queue, [Source(queue.i, items), sink], bound=30)
    assert [(item.score, item.last) for item in sink.received] == [(0, 0), (1, 0), (2, 1)]


@pytest.mark.parametrize(("store", "depth"), SHAPES)
def test_converts_to_rtlil(store, depth):
    queue = Queue(shape=data.ArrayLayout(3, 5), depth=depth, store=store)
    assert "attribute \\top" in rtlil.convert(queue)


def test_parameter_errors():
    with pytest.raises(ValueError, match="depth must be at least 1, not 0"):
        QueueConfig(8, 0)
    with pytest.raises(TypeError, match=r"width must be an integer, not 8\.0"):
        QueueConfig(8.0, 2)
    with pytest.raises(ValueError, match="must be one of registers, lut, block, not 'fifo'"):
        QueueConfig(8, 2, "fifo")
    with pytest.raises(ValueError, match="at least 3, not 2"):
        QueueConfig(8, 2, "block")
