# SPDX-License-Identifier: BSD-2-Clause
"""WidthConverter: values and every transfer cycle against its rule, on any pair of widths."""

import random
from itertools import pairwise
from math import gcd

import pytest
from amaranth.back import rtlil
from hypothesis import given, settings
from hypothesis import strategies as st

from xnorforge.hw.width import WidthConverter, WidthConverterConfig
from xnorforge.sim.bench import Monitor, Sink, Source, never, random_stalls, run

CONFIGS = [
    WidthConverterConfig(24, 1, 8, 8),
    WidthConverterConfig(784, 1, 8, 16),
    WidthConverterConfig(24, 1, 8, 16),
    WidthConverterConfig(10, 3, 2, 6),
    WidthConverterConfig(5, 2, 1, 8),
    WidthConverterConfig(64, 1, 1, 16),
    WidthConverterConfig(64, 1, 16, 4),
    WidthConverterConfig(10, 8, 10, 1),
    WidthConverterConfig(23, 4, 12, 3),
    WidthConverterConfig(3, 4, 12, 4),
    WidthConverterConfig(49 * 16, 1, 16, 49),
    WidthConverterConfig(49 * 16, 1, 49, 16),
    WidthConverterConfig(50, 1, 16, 49),
    WidthConverterConfig(31, 2, 6, 4),
    WidthConverterConfig(3, 2, 4, 6),
    WidthConverterConfig(7, 1, 5, 2),
]


def stalls(probability, seed):
    return random_stalls(probability, seed) if probability else never()


def random_beats(config, vectors, seed):
    """Input beats of whole vectors; lanes past a vector's end carry anything."""
    generator = random.Random(seed)
    width = config.lanes_in * config.element_bits
    return [generator.getrandbits(width) for _ in range(vectors * config.beats_in)]


def known_lanes(config, beats):
    """Output beats with the lanes past a vector's end cleared."""
    known = []
    for k, beat in enumerate(beats):
        lanes = config.elements - k % config.beats_out * config.lanes_out
        known.append(beat & (1 << min(lanes, config.lanes_out) * config.element_bits) - 1)
    return known


def model_times(config, vectors, idle, stall):
    """Transfer cycles on both sides, straight from the rule in the contract."""
    lanes_in, lanes_out = config.lanes_in, config.lanes_out
    unit = gcd(lanes_in, lanes_out)
    total_in, total_out = vectors * config.beats_in, vectors * config.beats_out
    last = config.elements - (config.beats_in - 1) * lanes_in
    taken, left, level, draining, cycle = [], [], 0, False, 0
    offered, willing = not next(idle), not next(stall)
    while len(left) < total_out:
        if lanes_in == lanes_out:
            valid, ready = offered and len(taken) < total_in, willing
        else:
            valid = level >= lanes_out or (draining and level > 0)
            if draining:
                ready = level == 0 or (willing and valid and level <= lanes_out)
            else:
                ready = level < lanes_out or (willing and level - lanes_out < lanes_out)
        if valid and willing:
            left.append(cycle)
            level = max(0, level - lanes_out)
            draining = draining and level > 0
        if offered and ready and len(taken) < total_in:
            taken.append(cycle)
            offered = False
            draining = len(taken) % config.beats_in == 0
            level += -(-last // unit) * unit if draining else lanes_in
        if not offered and len(taken) < total_in:
            offered = not next(idle)
        willing = not next(stall)
        cycle += 1
    return taken, left


def run_converter(config, vectors, idle, stall, **options):
    # Arrays of lanes take their beats as plain integers, lane 0 lowest.
    converter = WidthConverter(config=config)
    beats = random_beats(config, vectors, config.elements)
    if config.element_bits > 1:
        mask = (1 << config.element_bits) - 1
        payloads = [
            [beat >> k * config.element_bits & mask for k in range(config.lanes_in)]
            for beat in beats
        ]
    else:
        payloads = beats
    source = Source(converter.i, payloads, idle=idle)
    sink = Sink(converter.o, vectors * config.beats_out, stall=stall)
    monitors = [Monitor(converter.i, "i"), Monitor(converter.o, "o")]
    bound = 20 * vectors * (config.beats_in + config.beats_out) + 80
    run(converter, [source, sink, *monitors], bound, **options)
    if config.element_bits > 1:
        received = [
            sum(beat[k] << k * config.element_bits for k in range(config.lanes_out))
            for beat in sink.received
        ]
    else:
        received = sink.received
    assert known_lanes(config, received) == config.reference(beats)
    return source, sink


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize(("idle", "stall"), [(0, 0), (0.4, 0), (0, 0.4), (0.5, 0.7), (0.8, 0.3)])
def test_values_and_every_transfer_cycle_match_the_rule(config, idle, stall):
    vectors = 3
    source, sink = run_converter(config, vectors, stalls(idle, 1), stalls(stall, 2))
    taken, left = model_times(config, vectors, stalls(idle, 1), stalls(stall, 2))
    assert source.times == taken
    assert sink.times == left


@settings(max_examples=60)
@given(
    elements=st.integers(1, 40),
    element_bits=st.integers(1, 3),
    lanes_in=st.integers(1, 20),
    lanes_out=st.integers(1, 20),
    idle=st.sampled_from([0, 0.5]),
    stall=st.sampled_from([0, 0.5]),
)
def test_random_shapes(elements, element_bits, lanes_in, lanes_out, idle, stall):
    config = WidthConverterConfig(elements, element_bits, lanes_in, lanes_out)
    source, sink = run_converter(config, 3, stalls(idle, 5), stalls(stall, 6))
    taken, left = model_times(config, 3, stalls(idle, 5), stalls(stall, 6))
    assert (source.times, sink.times) == (taken, left)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_full_speed_interval_and_latency(config):
    source, sink = run_converter(config, 4, None, None)
    starts = source.times[:: config.beats_in]
    if config.aligned:
        assert [b - a for a, b in pairwise(starts)] == [config.interval] * 3
    needed = min(-(-config.lanes_out // config.lanes_in), config.beats_in)
    assert sink.times[0] == source.times[needed - 1] + config.latency


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("reset", [3, 8, 21])
def test_reset_midway_starts_a_new_vector(config, reset):
    run_converter(config, 3, stalls(0.2, 3), stalls(0.4, 4), reset=(reset,))


@pytest.mark.parametrize("config", CONFIGS[1:], ids=str)
def test_valid_does_not_wait_for_ready(config):
    converter = WidthConverter(config=config)
    beats = [0] * config.beats_in
    payloads = beats if config.element_bits == 1 else [[0] * config.lanes_in for _ in beats]
    sink = Sink(converter.o, config.beats_out, waits=True)
    run(converter, [Source(converter.i, payloads), sink], bound=3000)
    assert len(sink.received) == config.beats_out


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_converts_to_rtlil(config):
    assert "o__valid" in rtlil.convert(WidthConverter(config=config))


def test_parameter_errors():
    with pytest.raises(ValueError, match="lanes out must be at least 1, not 0"):
        WidthConverterConfig(8, 1, 4, 0)
    with pytest.raises(TypeError, match="element bits must be an integer, not None"):
        WidthConverterConfig(8, None, 4, 2)
