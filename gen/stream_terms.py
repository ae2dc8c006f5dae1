# SPDX-License-Identifier: BSD-2-Clause
"""Terms of the resource model for what lies between engines: windows, pools, thresholds, joins.

`benchmarks/stream_cells.py` measures these blocks one by one and fits their coefficients in
`data/streams.toml`.
"""

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

__all__ = ["StreamBlock", "stream_terms"]

StreamBlock = (
    WindowConfig
    | TilePoolConfig
    | PoolConfig
    | ThresholdConfig
    | AddConfig
    | ConcatConfig
    | ForkConfig
)


def stream_terms(config: StreamBlock, family: str) -> Terms:
    """A block without its block RAMs and stores.

    Its cells have terms of their own, beside those of memories made of LUTs; its flip-flops and
    carry cells are counted as everywhere.
    """
    if isinstance(config, WindowConfig):
        return _window(config)
    if isinstance(config, TilePoolConfig):
        return _tile_pool(config)
    if isinstance(config, PoolConfig):
        return _pool(config, family)
    if isinstance(config, ThresholdConfig):
        return _threshold(config)
    if isinstance(config, AddConfig):
        return _add(config)
    if isinstance(config, ConcatConfig):
        return _concat(config)
    return _fork(config, family)


def _own(name: str, **terms: int) -> Terms:
    """The cells of one block of a kind, and what they grow with."""
    found: Terms = Counter({f"{name}.{term}": value for term, value in terms.items()})
    found[name] = 1
    return found


def _window(config: WindowConfig) -> Terms:
    """A sliding window around its line buffer."""
    width, words = config.beat_bits, config.ring_beats
    kernel, windows = config.window.kernel, config.walk.windows
    shape = (*kernel, windows.height, windows.width, config.group_beats, config.groups)
    counters = [counter_bits(n) for n in (*shape, config.pixel_beats)]
    levels = [level_bits(config.depth)] * 3
    address = counter_bits(words)
    wrapped = words & (words - 1) != 0
    terms = _own(
        "window",
        count=sum(counters) + sum(levels),
        address=2 * address * (2 if wrapped else 1),
        width=width * (3 + config.window.padded),
    )
    counters += [*levels, address, address]
    terms["registers"] = sum(counters) + (config.credits + 1) * width
    terms["count.carries"] = sum(chain(bits, config.family) for bits in counters)
    if config.store == "lut":
        terms.update(lut_memory(width, words, config.family))
    return terms


def _pool(config: PoolConfig, family: str) -> Terms:
    """The reduction of a window's beats to one."""
    bits = config.lanes * config.output_bits
    taps = counter_bits(config.taps)
    choices = 1 if config.element_bits == 1 and config.mode == "max" else 2
    terms = _own("pool", width=bits * (choices + 1))
    terms["registers"] = 2 * bits + taps + 2
    terms["count.carries"] = chain(taps, family)
    return terms


def _tile_pool(config: TilePoolConfig) -> Terms:
    """A pool of tiles around its memory."""
    pool, windows = config.pool, config.windows
    bits, words = config.word_bits, config.words
    held = pool.lanes * pool.element_bits
    counters = [counter_bits(config.pixel_beats), counter_bits(words)]
    for axis in (windows.vertical, windows.horizontal):
        counters += [
            counter_bits(axis.taps),
            counter_bits(axis.size if axis.size % axis.taps else axis.positions),
        ]
    choices = 1 if pool.element_bits == 1 and pool.mode == "max" else 2
    terms = _own("tile", count=sum(counters), width=bits * choices + held)
    terms["registers"] = sum(counters) + counter_bits(words) + bits + held + 8
    if config.pixel_beats == 1:
        terms.update(Counter({"registers": bits, "tile.width": bits}))
    terms["count.carries"] = sum(chain(bits, config.family) for bits in counters)
    if config.store == "lut" and words:
        terms.update(lut_memory(bits, words, config.family))
    return terms


def _threshold(config: ThresholdConfig) -> Terms:
    """The comparison with several thresholds a channel."""
    comparators = config.lanes * (config.levels if config.method == "parallel" else 1)
    bits = config.lanes * config.bits
    delay = config.store_config.latency
    queue = config.credits * config.lanes * config.output_bits
    chosen = 0 if config.method == "parallel" else config.lanes * config.level_bits
    counts = counter_bits(config.nf) + counter_bits(config.store_config.depth)
    terms = _own(
        "threshold",
        compare=comparators * config.level_bits,
        choose=round(chosen * selector_tables(config.levels)),
        queue=bits * delay + queue,
    )
    terms["registers"] = (
        counts
        + level_bits(config.credits)
        + bits * delay
        + queue
        + 2 * delay
        + config.lanes * config.output_bits
    )
    terms["accumulate.carries"] = comparators * chain(config.level_bits, config.family)
    return terms


def _add(config: AddConfig) -> Terms:
    """A sum of several streams; a multiplier is an adder a bit of the number."""
    bits = config.output_bits
    adders = len(config.kinds) - 1 + (config.offset_bits > 0) + sum(config.multiplier_bits)
    taken = config.lanes * sum(config.bits)
    queue = config.credits * config.lanes * bits
    terms = _own(
        "add", sum=config.lanes * adders * bits, queue=taken * config.store_latency + queue
    )
    terms["registers"] = (
        counter_bits(config.nf)
        + level_bits(config.credits)
        + taken * (config.store_latency + 1)
        + queue
        + config.lanes * bits
    )
    terms["accumulate.carries"] = config.lanes * adders * chain(bits, config.family)
    return terms


def _concat(config: ConcatConfig) -> Terms:
    """Channels side by side: a multiplexer and a queue of two beats."""
    beats = counter_bits(sum(config.beats))
    terms = _own("concat", width=config.width * (1 + len(config.channels)))
    terms["registers"] = 2 * config.width + beats + 2
    return terms


def _fork(config: ForkConfig, family: str) -> Terms:
    """The queues of a fork."""
    terms = _own("fork")
    for queue in config.queues:
        if queue.store == "registers":
            held = queue.depth * queue.width
            terms.update(Counter({"registers": held + queue.depth, "fork.held": held}))
            continue
        pointers = 2 * counter_bits(queue.depth) + level_bits(queue.depth)
        terms.update(Counter({"registers": pointers, "fork.count": pointers}))
        terms["count.carries"] += 2 * chain(counter_bits(queue.depth), family)
        if queue.store == "lut":
            terms.update(lut_memory(queue.width, queue.depth, family))
    return terms
