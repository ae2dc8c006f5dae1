# SPDX-License-Identifier: BSD-2-Clause
"""The cheapest chain of folds for an allowed interval.

Neighbouring layers share a cost, the converter between PE results and SIMD inputs, so the choice
is a shortest path through the layers: dynamic programming over the cheapest folds of each, for
every number of SPRAM blocks that the layers so far may have taken.

Cost is a share of the device: cells used / cells there + blocks used / blocks there. The second
term is weighted (a Lagrange multiplier): where the cheapest chain needs too many blocks their
weight is raised, where it needs too many cells it is lowered, until one fits. A chain that is
the cheapest by some weight and too large in both proves that none fits.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import sqrt
from typing import Any

from xnorforge.gen import resources
from xnorforge.gen.assembly import conversions
from xnorforge.gen.folds import Fold, Folds
from xnorforge.gen.layer_plan import LayerPlan, StreamPlan, with_ports
from xnorforge.gen.layers import Conv, Dense, Pool
from xnorforge.gen.network import INPUT, Network
from xnorforge.gen.overrides import STORE_FIELDS
from xnorforge.gen.resources import Resources
from xnorforge.hw.folding import divisors
from xnorforge.hw.head import HeadConfig

__all__ = ["Chain", "Search"]

# Weights of a block's share against a cell's lie between these; so many are tried.
_LOWEST_WEIGHT, _HIGHEST_WEIGHT, _WEIGHTINGS = 1 / 64, 64.0, 7
# Price of an SPRAM block: next to nothing, so that no more are used than help.
_SPRAM_PRICE = 0.01
# Folds kept per layer and number of SPRAM blocks: the cheapest of those that are fast enough.
_KEPT = 24
# Layers up to which all mixtures of two chains are looked at.
_MIXED_LAYERS = 8


@dataclass(frozen=True)
class Chain:
    """A choice for every layer.

    resources: of the core, without the shell, but with the converter behind the link where there
    is one. fold_cycles: an image, of the layer `slowest`. shallow: its line buffers are the
    shallowest that work.
    """

    lanes: int
    layers: tuple[LayerPlan | StreamPlan, ...]
    resources: Resources
    fold_cycles: int
    slowest: str
    shallow: bool = False


@dataclass(frozen=True)
class _Choice:
    """A fold with its stores chosen."""

    price: float
    fold: Fold
    kinds: tuple[str, ...]  # in the order of STORE_FIELDS; none without weights
    sprams: float
    share: int = 1

    @property
    def used(self) -> Resources:
        stores = list(zip(self.fold.stores, self.kinds, strict=True))
        used = self.fold.engine
        if self.share > 1:
            used += self.fold.shares[self.share]
            stores = stores[1:]
        return sum((options[kind] for options, kind in stores), used)

    @property
    def cycles(self) -> int:
        return max(self.fold.cycles, self.fold.steps * self.share)

    @property
    def layer(self) -> LayerPlan | StreamPlan:
        if not self.kinds:
            return self.fold.layer
        choices: dict[str, Any] = dict(zip(STORE_FIELDS, self.kinds, strict=True))
        if self.share > 1:
            choices["share"] = self.share
        return replace(self.fold.layer, **choices)


class Search:
    """Folds of a network on a family.

    capacity: what the device has for the core. overrides: checked settings by layer. constant:
    weights and presets may be constant logic, which no load can change. linked: a link brings the
    images, and a converter makes its beats those of the core. slots: models that the memories
    hold.
    """

    def __init__(
        self,
        network: Network,
        family: str,
        capacity: Resources,
        overrides: Mapping[str, Mapping[str, Any]],
        constant: bool = False,
        *,
        linked: bool = False,
        slots: int = 1,
    ) -> None:
        self.network = network
        self.family = family
        self.capacity = capacity
        self.overrides = overrides
        self._folds = Folds(network, family, overrides, constant, slots=slots)
        # Without line buffers these are the same.
        self._shallow = self._folds
        if any(isinstance(layer, Conv | Pool) for layer in network.layers):
            self._shallow = Folds(network, family, overrides, constant, slots=slots, shallow=True)
        self._reuse = self._share = False
        self.linked = linked
        # What `best` found, here and at every relative: `within`.
        self._known: dict[tuple[int | None, Resources, bool], Chain] = {}
        scores_bits = network.layers[-1].output.bits
        self.head = HeadConfig(
            classes=network.classes,
            score_bits=scores_bits,
            tie=network.head.tie,
            affine=network.head.scale is not None,
            family=family,
            rule=network.head.rule,
            slots=slots,
        )
        self._join = cache(self._make_join)

    def within(self, capacity: Resources, *, linked: bool | None = None) -> "Search":
        """The same folds for another device of the family, or (linked) another place."""
        other = copy(self)
        other.capacity = capacity
        other.linked = self.linked if linked is None else linked
        return other

    @property
    def head_interval(self) -> int:
        """Cycles an image that the head needs, whatever the folds."""
        return self.head.classes * self.head.interval

    def fastest_interval(self, index: int) -> int:
        """Fewest cycles an image of a layer, as its overrides allow."""
        return self._folds.fastest(index)

    @property
    def _fastest_alone(self) -> int:
        """Fewest cycles an image with one window at a time."""
        indices = range(len(self.network.layers))
        return max(self._folds.fastest(index, reuse=False) for index in indices)

    def intervals(self) -> list[int]:
        """All intervals at which another fold becomes possible, ascending."""
        indices = range(len(self.network.layers))
        lowest = max(self.head_interval, *(self.fastest_interval(index) for index in indices))
        values = set[int]().union(*(self._folds.intervals(index) for index in indices))
        return sorted({lowest} | {value for value in values if value > lowest})

    def shallow(self) -> "Search":
        """The same folds with the shallowest line buffers that work."""
        other = copy(self)
        other._folds = self._shallow
        return other

    def best(self, interval: int | None) -> Chain:
        """The cheapest chain of at most `interval` cycles an image (None: any).

        Where it does not fit, and where any interval will do, its line buffers are the shallowest.
        """
        key = interval, self.capacity, self.linked
        if key not in self._known:
            self._known[key] = self._cheapest(interval)
        return self._known[key]

    def _cheapest(self, interval: int | None) -> Chain:
        if interval is not None or self._shallow is self._folds:
            chain = self.deep(interval)
            if chain.resources.fits(self.capacity) or self._shallow is self._folds:
                return chain
        return self.shallow().deep(interval)

    def deep(self, interval: int | None) -> Chain:
        """The cheapest chain of at most `interval` cycles an image, line buffers deep enough.

        It fits the capacity if any weighting of blocks against cells gives one that does, or a
        mixture of the two weightings between which blocks and cells change sides. SPRAM is used
        only where nothing fits without it: a core without it powers up with its model. Layers take
        turns at an SPRAM only where nothing fits without that either, and weights serve several
        windows at once only where that does not help.
        """
        alone = interval is None or interval >= self._fastest_alone
        if self.capacity.sprams and alone:
            plain = self.within(replace(self.capacity, sprams=0))._best(interval)
            if plain.resources.fits(self.capacity):
                return plain
        reuses = (False, True) if interval is not None and self._folds.reusable() else (False,)
        shares = (False, True) if self.capacity.sprams else (False,)
        chains = []
        for reuse, share in product(reuses if alone else (True,), shares):
            other = copy(self)
            other._reuse, other._share = reuse, share
            chains.append(other._best(interval))
            if chains[-1].resources.fits(self.capacity):
                break
        return min(chains, key=lambda chain: self._excess(chain.resources))

    def _best(self, interval: int | None) -> Chain:
        weight, low, high = 1.0, _LOWEST_WEIGHT, _HIGHEST_WEIGHT
        tried: list[tuple[int, tuple[_Choice, ...]]] = []
        sides: dict[str, tuple[int, tuple[_Choice, ...]]] = {}  # the last chain short of each
        for _ in range(_WEIGHTINGS):
            path = self._shortest(interval, weight)
            tried.append(path)
            used = self._chain(*path).resources
            if used.fits(self.capacity):
                break
            short_of_blocks = used.blocks > self.capacity.blocks
            short_of_logic = (
                used.cells > self.capacity.cells or used.flipflops > self.capacity.flipflops
            )
            if short_of_blocks and short_of_logic:
                break
            if short_of_blocks:
                low, sides["blocks"] = weight, path
            else:
                high, sides["logic"] = weight, path
            weight = sqrt(low * high)
        else:
            if len(sides) == 2:
                tried += self._mixtures(*sides.values())
        chains = [self._chain(*path) for path in tried]
        return min(chains, key=lambda chain: self._excess(chain.resources))

    def _excess(self, used: Resources) -> float:
        """What is too much, as shares of the device; 0 where it fits."""
        over = [
            max(0, getattr(used, kind) - getattr(self.capacity, kind))
            / max(1, getattr(self.capacity, kind))
            for kind in resources.LIMITS
        ]
        return sum(over)

    # --- shortest path ---------------------------------------------------------------------

    def price(self, used: Resources, block_weight: float) -> float:
        """What something costs: its shares of the device, that of the blocks weighted."""
        room = self.capacity
        cells = used.cells / max(1, room.cells) + used.flipflops / max(1, room.flipflops) / 4
        blocks = block_weight * used.blocks / max(0.01, room.blocks)
        return cells + blocks + used.sprams * _SPRAM_PRICE

    def _priced(self, index: int, interval: int | None, weight: float) -> list[_Choice]:
        """The cheapest folds of a layer that are fast enough, their stores chosen."""
        found: dict[float, list[_Choice]] = {}
        for fold in self._folds.within(index, interval, self._reuse):
            if not fold.stores:
                choice = _Choice(self.price(fold.engine, weight), fold, (), 0)
                found.setdefault(0, []).append(choice)
                continue
            prices = [
                {kind: self.price(used, weight) for kind, used in options.items()}
                for options in fold.stores
            ]
            others = [
                min((price, kind) for kind, price in options.items()) for options in prices[1:]
            ]
            rest = self.price(fold.engine, weight) + sum(price for price, _ in others)
            kinds = tuple(kind for _, kind in others)
            for price, kind, sprams, share in self._weights(fold, prices[0], interval, weight):
                choice = _Choice(rest + price, fold, (kind, *kinds), sprams, share)
                found.setdefault(sprams, []).append(choice)
        return [
            choice
            for choices in found.values()
            for choice in sorted(choices, key=lambda choice: choice.price)[:_KEPT]
        ]

    def _weights(
        self, fold: Fold, prices: Mapping[str, float], interval: int | None, weight: float
    ) -> Iterator[tuple[float, str, float, int]]:
        """(price, kind, SPRAM blocks, share) of the ways to hold a fold's weights."""
        plain = [(price, kind) for kind, price in prices.items() if kind != "spram"]
        if plain:
            yield (*min(plain), 0, 1)
        if "spram" in prices:
            sprams = fold.stores[0]["spram"].sprams
            if sprams <= self.capacity.sprams or not plain:
                yield prices["spram"], "spram", sprams, 1
        if self._share or not prices:
            for share, used in fold.shares.items():
                if interval is None or fold.steps * share <= interval:
                    yield self.price(used, weight), "spram", used.sprams, share

    @property
    def _link_lanes(self) -> int:
        """Image elements in a byte of the link."""
        return 8 if self.network.input.value.bits == 1 else 1

    def _entry(self, lanes: int) -> Resources:
        """The converter behind the link."""
        value = self.network.input.value
        if not self.linked:
            return Resources()
        return self._join(value.bits, value.size, self._link_lanes, value.size, lanes)

    def _lane_choices(self, interval: int | None) -> list[int]:
        """Widths of the image stream: bytes as the link brings them, or enough for the rate."""
        value, first = self.network.input.value, self.network.layers[0]
        if not isinstance(first, Dense):
            wide = [
                lanes
                for lanes in divisors(value.channels)
                if interval is None or value.size // lanes <= interval
            ]
            return wide[:2] or [value.channels]
        step = self._link_lanes
        needed = 1 if interval is None else -(-value.size // (interval * step))
        return [
            step * count for count in range(needed, (needed if needed == 1 else 2 * needed) + 1)
        ]

    def _shortest(self, interval: int | None, weight: float) -> tuple[int, tuple[_Choice, ...]]:
        """Lanes of the image stream and a choice for every layer, the cheapest together."""
        if not self.network.is_chain:
            return self._greedy(interval, weight)
        value = self.network.input.value
        start, end = (value.size, value.bits), (self.network.classes, 1)

        @cache
        def joint_price(bits: int, *streams: int) -> float:
            return self.price(self._join(bits, *streams), weight)

        # By the stream so far, (elements of a vector, lanes), and SPRAM blocks: price, lanes of
        # the images, choices.
        paths: dict[tuple[int, int, float], tuple[float, int, tuple[_Choice, ...]]] = {
            # A wider stream than needed costs wires that no model counts: a small extra.
            (start[0], lanes, 0): (
                lanes * 1e-6 + self.price(self._entry(lanes), weight),
                lanes,
                (),
            )
            for lanes in self._lane_choices(interval)
        }
        most, bits = self.capacity.sprams, start[1]
        for index, layer in enumerate(self.network.layers):
            following: dict[tuple[int, int, float], tuple[float, int, tuple[_Choice, ...]]] = {}
            for choice in self._priced(index, interval, weight):
                fold = choice.fold
                for (vector, lanes, sprams), (price, image_lanes, choices) in paths.items():
                    key = (fold.vector_out, fold.lanes_out, sprams + choice.sprams)
                    total = price + choice.price
                    total += joint_price(bits, vector, lanes, fold.vector_in, fold.lanes_in)
                    # What overrides put into SPRAM that is not there must stay, to be told.
                    total += 1e3 * max(0, key[2] - most)
                    if key not in following or total < following[key][0]:
                        following[key] = (total, image_lanes, (*choices, choice))
            paths, bits = following, layer.output.bits
        _, lanes, choices = min(
            (
                (price + joint_price(bits, vector, lanes_out, *end), lanes, choices)
                for (vector, lanes_out, _), (price, lanes, choices) in paths.items()
            ),
            key=lambda option: option[:2],
        )
        return lanes, choices

    def _greedy(self, interval: int | None, weight: float) -> tuple[int, tuple[_Choice, ...]]:
        """The same where paths part and join: each layer the cheapest behind those before it."""
        lanes, left = self._lane_choices(interval)[0], self.capacity.sprams
        choices: list[_Choice] = []
        for index in range(len(self.network.layers)):
            options = [
                (
                    choice.price
                    + self.price(self._joined(lanes, [*choices, choice]), weight)
                    + 1e3 * max(0, choice.sprams - left),
                    position,
                    choice,
                )
                for position, choice in enumerate(self._priced(index, interval, weight))
            ]
            choices.append(min(options, key=lambda option: option[:2])[2])
            left -= choices[-1].sprams
        return lanes, tuple(choices)

    def _joined(self, lanes: int, choices: Sequence[_Choice]) -> Resources:
        """The converters before the last of these layers."""
        network, value = self.network, self.network.input.value
        index = len(choices) - 1
        streams = {INPUT: (value.bits, value.size, lanes)}
        for layer, choice in zip(network.layers, choices, strict=False):
            fold = choice.fold
            streams[layer.name] = (layer.output.bits, fold.vector_out, fold.lanes_out)
        used, fold = Resources(), choices[-1].fold
        layer = network.layers[index]
        for name, source in zip(network.inputs_of(index), layer.sources, strict=True):
            vector = fold.vector_in if len(layer.sources) == 1 else source.channels
            used += self._join(*streams[name], vector, fold.lanes_in)
        return used

    def _make_join(
        self, bits: int, vector: int, lanes: int, to_vector: int, to_lanes: int
    ) -> Resources:
        """The converters between two streams."""
        used = Resources()
        for config in conversions(vector, lanes, bits, to_vector, to_lanes):
            used += resources.converter(config, self.family)
        return used

    def _chain(self, lanes: int, choices: Iterable[_Choice]) -> Chain:
        choices = tuple(choices)
        used = resources.head(self.head) + self._entry(lanes)
        for end, choice in enumerate(choices, 1):
            used += choice.used + self._joined(lanes, choices[:end])
        last, bits = choices[-1].fold, self.network.layers[-1].output.bits
        used += self._join(bits, last.vector_out, last.lanes_out, self.network.classes, 1)
        slowest = max(choices, key=lambda choice: choice.cycles)
        plans = with_ports(tuple(choice.layer for choice in choices))
        name = slowest.layer.name
        return Chain(lanes, plans, used, slowest.cycles, name, self._folds.shallow)

    def _mixtures(
        self, one: tuple[int, tuple[_Choice, ...]], other: tuple[int, tuple[_Choice, ...]]
    ) -> Iterator[tuple[int, tuple[_Choice, ...]]]:
        """Each layer from one or the other chain."""
        if len(one[1]) <= _MIXED_LAYERS:
            for choices in product(*zip(one[1], other[1], strict=True)):
                yield one[0], choices
