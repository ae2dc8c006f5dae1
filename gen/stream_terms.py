# SPDX-License-Identifier: BSD-2-Clause
"""Terms of the resource model for what lies between engines: windows, pools, thresholds, joins."""

from __future__ import annotations

from collections import Counter

from xnorforge.gen.resource_terms import (
    Terms,
    chain,
    counter_bits,
    level_bits,
    lut_memory,
    selector_tables,
)
from xnorforge.hw.add import AddConfig
from xnorforge.hw.concat import ConcatConfig
from xnorforge.hw.fork import ForkConfig
from xnorforge.hw.pool import PoolConfig
from xnorforge.hw.threshold import ThresholdConfig
from xnorforge.hw.tile_pool import TilePoolConfig
from xnorforge.hw.window import WindowConfig

__all__ = [
    "add_terms",
    "concat_terms",
    "fork_terms",
    "pool_terms",
    "threshold_terms",
    "tile_pool_terms",
    "window_terms",
]


def window_terms(config: WindowConfig) -> Terms:
    """A sliding window around its line buffer, block RAMs aside."""
    width = config.lanes * config.element_bits
    beats = config.channels // config.lanes
    words = config.depth * beats
    kernel, map_ = config.window.kernel, (config.height, config.width)
    counters = [counter_bits(n) for n in (*kernel, *map_, *map_, beats, config.groups)]
    counters += [counter_bits(words)] * 4 + [level_bits(words)] * 2
    terms: Terms = Counter(
        count=sum(counters),
        registers=sum(counters) + 3 * width,
        choose=width * (3 if config.window.padded else 2),
        lone=width,
    )
    terms["count.carries"] = sum(chain(bits, config.family) for bits in counters)
    if config.store == "lut":
        terms.update(lut_memory(width, words, config.family))
    return terms


def pool_terms(config: PoolConfig, family: str) -> Terms:
    """The reduction of a window's beats to one."""
    bits = config.lanes * config.output_bits
    taps = counter_bits(config.taps)
    terms: Terms = Counter(
        count=taps,
        registers=2 * bits + taps + 2,
        lone=bits,
        choose=bits * (1 if config.element_bits == 1 and config.mode == "max" else 2),
    )
    terms["count.carries"] = chain(taps, family)
    return terms


def tile_pool_terms(config: TilePoolConfig) -> Terms:
    """A pool of tiles around its memory, block RAMs aside."""
    pool, windows = config.pool, config.windows
    bits, words = config.word_bits, config.words
    held = pool.lanes * pool.element_bits
    counters = [counter_bits(config.pixel_beats), counter_bits(words)]
    for axis in (windows.vertical, windows.horizontal):
        counters += [
            counter_bits(axis.taps),
            counter_bits(axis.size if axis.size % axis.taps else axis.positions),
        ]
    terms: Terms = Counter(
        count=sum(counters),
        registers=sum(counters) + counter_bits(words) + bits + held + 8,
        lone=held,
        choose=bits * (1 if pool.element_bits == 1 and pool.mode == "max" else 2),
    )
    if config.pixel_beats == 1:
        terms.update(Counter(registers=bits, choose=bits))
    terms["count.carries"] = sum(chain(bits, config.family) for bits in counters)
    if config.store == "lut" and words:
        terms.update(lut_memory(bits, words, config.family))
    return terms


def threshold_terms(config: ThresholdConfig) -> Terms:
    """The comparison with several thresholds a channel, without its store."""
    comparators = config.lanes * (config.levels if config.method == "parallel" else 1)
    bits = config.lanes * config.bits
    delay = config.store_config.latency
    queue = config.credits * config.lanes * config.output_bits
    chosen = 0 if config.method == "parallel" else config.lanes * config.level_bits
    terms: Terms = Counter(
        accumulate=comparators * config.level_bits,
        count=counter_bits(config.nf)
        + counter_bits(config.store_config.depth)
        + level_bits(config.credits),
        registers=bits * delay + queue + 2 * delay + config.lanes * config.output_bits,
        lone=bits * delay + queue,
        choose=chosen * selector_tables(config.levels) + queue + comparators,
    )
    terms["accumulate.carries"] = comparators * chain(config.level_bits, config.family)
    return terms


def add_terms(config: AddConfig) -> Terms:
    """A sum of several streams, without its store; a multiplier is an adder a bit of the number."""
    bits = config.output_bits
    adders = len(config.kinds) - 1 + (config.offset_bits > 0) + sum(config.multiplier_bits)
    taken = config.lanes * sum(config.bits)
    queue = config.credits * config.lanes * bits
    terms: Terms = Counter(
        accumulate=config.lanes * adders * bits,
        count=counter_bits(config.nf) + level_bits(config.credits),
        registers=taken * (config.store_latency + 1) + queue + config.lanes * bits,
        lone=taken * config.store_latency + queue,
        choose=queue,
    )
    terms["accumulate.carries"] = config.lanes * adders * chain(bits, config.family)
    return terms


def concat_terms(config: ConcatConfig) -> Terms:
    """Channels side by side: a multiplexer and a queue of two beats."""
    beats = counter_bits(sum(config.beats))
    return Counter(
        count=beats,
        registers=2 * config.width + beats + 2,
        choose=config.width * len(config.channels),
        lone=config.width,
    )


def fork_terms(config: ForkConfig, family: str) -> Terms:
    """The queues of a fork, block RAMs aside."""
    total: Terms = Counter()
    for queue in config.queues:
        if queue.store == "registers":
            total.update(
                registers=queue.depth * (queue.width + 1), choose=queue.depth * queue.width
            )
            continue
        pointers = 2 * counter_bits(queue.depth) + level_bits(queue.depth)
        total.update(count=pointers, registers=pointers)
        total["count.carries"] += 2 * chain(counter_bits(queue.depth), family)
        if queue.store == "lut":
            total.update(lut_memory(queue.width, queue.depth, family))
    return total
