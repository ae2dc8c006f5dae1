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

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import inf, sqrt
from typing import Any

from xnorforge.gen import resources
from xnorforge.gen.network import Network
from xnorforge.gen.overrides import FOLD_FIELDS, STORE_FIELDS
from xnorforge.gen.plan import LayerPlan
from xnorforge.gen.resources import Resources
from xnorforge.hw.head import HeadConfig
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.store import SPRAM_FAMILIES
from xnorforge.hw.structures import engine_for
from xnorforge.hw.width import WidthConverterConfig

__all__ = ["Chain", "Search"]

# Weights of a block's share against a cell's lie between these; so many are tried.
_LOWEST_WEIGHT, _HIGHEST_WEIGHT, _WEIGHTINGS = 1 / 64, 64.0, 7
# Price of an SPRAM block: next to nothing, so that no more are used than help.
_SPRAM_PRICE = 0.01
# Folds kept per layer and number of SPRAM blocks: the cheapest of those that are fast enough.
_KEPT = 24
# SIMD widths looked at per PE and PL, from the narrowest that is fast enough.
_WIDER = 5
# Layers up to which all mixtures of two chains are looked at.
_MIXED_LAYERS = 8


@dataclass(frozen=True)
class Chain:
    """A choice for every layer. resources: of the core, without the shell, but with the converter
    behind the link where there is one."""

    lanes: int
    layers: tuple[LayerPlan, ...]
    resources: Resources

    @property
    def fold_cycles(self) -> int:
        return max(layer.fold_cycles for layer in self.layers)


@dataclass(frozen=True)
class _Fold:
    """A fold of one layer, with what it costs without its stores and for each kind of store."""

    layer: LayerPlan
    engine: Resources
    stores: tuple[Mapping[str, Resources], ...]  # in the order of STORE_FIELDS


@dataclass(frozen=True)
class _Choice:
    """A fold with its stores chosen."""

    price: float
    fold: _Fold
    kinds: tuple[str, ...]  # in the order of STORE_FIELDS
    sprams: int

    @property
    def used(self) -> Resources:
        stores = zip(self.fold.stores, self.kinds, strict=True)
        return sum((options[kind] for options, kind in stores), self.fold.engine)

    @property
    def layer(self) -> LayerPlan:
        kinds: dict[str, Any] = dict(zip(STORE_FIELDS, self.kinds, strict=True))
        return replace(self.fold.layer, **kinds)


class Search:
    """Folds of a network on a family.

    capacity: what the device has for the core. overrides: checked settings by layer. constant:
    weights and presets may be constant logic, which no load can change. linked: a link brings the
    images, and a converter makes its beats those of the core.
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
    ) -> None:
        self.network = network
        self.family = family
        self.capacity = capacity
        self.overrides = overrides
        self.linked = linked
        self._kinds: dict[str, tuple[str, ...]] = dict.fromkeys(STORE_FIELDS, ("lut", "block"))
        if constant:
            self._kinds["preset_store"] += ("const",)
            self._kinds["weight_store"] += ("const",)
        if family in SPRAM_FAMILIES:
            self._kinds["weight_store"] += ("spram",)
        scores_bits = network.layers[-1].output.bits
        self.head = HeadConfig(
            classes=network.classes,
            score_bits=scores_bits,
            tie=network.head.tie,
            affine=network.head.scale is not None,
            family=family,
        )
        self._widths = [self._useful(index) for index in range(len(network.layers))]
        self._fold = cache(self._make_fold)
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
        return self._cycles(index, *(max(widths) for widths in self._widths[index]))

    def intervals(self) -> list[int]:
        """All intervals at which another fold becomes possible, ascending."""
        indices = range(len(self._widths))
        lowest = max(self.head_interval, *(self.fastest_interval(index) for index in indices))
        values = {
            self._cycles(index, *widths)
            for index in indices
            for widths in product(*self._widths[index])
        }
        return sorted({lowest} | {value for value in values if value > lowest})

    def best(self, interval: int | None) -> Chain:
        """The cheapest chain of at most `interval` cycles an image (None: any).

        It fits the capacity if any weighting of blocks against cells gives one that does, or a
        mixture of the two weightings between which blocks and cells change sides. SPRAM is used
        only where nothing fits without it: a core without it powers up with its model.
        """
        if self.capacity.sprams:
            plain = self.within(replace(self.capacity, sprams=0))._best(interval)
            if plain.resources.fits(self.capacity):
                return plain
        return self._best(interval)

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

    # --- folds -----------------------------------------------------------------------------

    def _useful(self, index: int) -> tuple[list[int], ...]:
        """Values of PE, SIMD and PL worth a look."""
        layer = self.network.layers[index]
        fixed = self.overrides.get(layer.name, {})
        limits = {"pe": layer.rows, "simd": layer.columns, "pl": layer.source.bits}
        return tuple(
            [fixed[field]] if field in fixed else _useful_widths(limits[field])
            for field in FOLD_FIELDS
        )

    def _cycles(self, index: int, pe: int, simd: int, pl: int) -> int:
        layer = self.network.layers[index]
        return -(-layer.rows // pe) * -(-layer.columns // simd) * -(-layer.source.bits // pl)

    def _fast_enough(self, index: int, interval: int | None) -> Iterator[_Fold]:
        """For each PE and PL the narrowest SIMD that is fast enough, and the next few: a wider
        one costs more logic but may fill its memories better."""
        rows, columns, planes = self._widths[index]
        for pe, pl in product(rows, planes):
            first = 0
            while interval is not None and self._cycles(index, pe, columns[first], pl) > interval:
                first += 1
                if first == len(columns):
                    break
            for simd in columns[first : first + _WIDER]:
                yield self._fold(index, pe, simd, pl)

    def _make_fold(self, index: int, pe: int, simd: int, pl: int) -> _Fold:
        layer = self.network.layers[index]
        fixed = self.overrides.get(layer.name, {})
        shape: dict[str, Any] = {
            "rows": layer.rows,
            "columns": layer.columns,
            "input_kind": layer.source.kind,
            "input_bits": layer.source.bits,
            "scores": layer.thresholds is None,
            "pe": pe,
            "simd": simd,
            "pl": pl,
        }
        kinds: dict[str, Any] = dict.fromkeys(STORE_FIELDS, "lut")
        measured = engine_for(self.family, simd)
        shape["structure"] = fixed.get("structure", measured.structure)
        shape["pipeline"] = fixed.get("pipeline", measured.pipeline)
        config = MvuConfig(**shape, **kinds, family=self.family)
        stores = tuple(
            {
                kind: resources.mvu_store(config, field, kind)
                for kind in ([fixed[field]] if field in fixed else self._kinds[field])
            }
            for field in STORE_FIELDS
        )
        plan = LayerPlan(name=layer.name, **shape, **kinds)
        return _Fold(plan, resources.engine(config), stores)

    # --- shortest path ---------------------------------------------------------------------

    def _price(self, used: Resources, block_weight: float) -> float:
        room = self.capacity
        cells = used.cells / max(1, room.cells) + used.flipflops / max(1, room.flipflops) / 4
        blocks = block_weight * used.blocks / max(0.01, room.blocks)
        return cells + blocks + used.sprams * _SPRAM_PRICE

    def _priced(self, index: int, interval: int | None, weight: float) -> list[_Choice]:
        """The cheapest folds of a layer that are fast enough, their stores chosen."""
        found: dict[int, list[_Choice]] = {}
        for fold in self._fast_enough(index, interval):
            prices = [
                {kind: self._price(used, weight) for kind, used in options.items()}
                for options in fold.stores
            ]
            first, *others = (
                min((price, kind) for kind, price in options.items() if kind != "spram")
                if options.keys() != {"spram"}
                else (inf, "spram")
                for options in prices
            )
            rest = self._price(fold.engine, weight) + sum(price for price, _ in others)
            kinds = tuple(kind for _, kind in others)
            weights = [(*first, 0)] if first[0] < inf else []
            if "spram" in prices[0]:
                sprams = fold.stores[0]["spram"].sprams
                if sprams <= self.capacity.sprams or not weights:
                    weights.append((prices[0]["spram"], "spram", sprams))
            for price, kind, sprams in weights:
                choice = _Choice(rest + price, fold, (kind, *kinds), sprams)
                found.setdefault(sprams, []).append(choice)
        return [
            choice
            for choices in found.values()
            for choice in sorted(choices, key=lambda choice: choice.price)[:_KEPT]
        ]

    @property
    def _link_lanes(self) -> int:
        """Image elements in a byte of the link."""
        return 8 if self.network.input.value.bits == 1 else 1

    def _entry(self, lanes: int) -> Resources:
        """The converter behind the link."""
        value = self.network.input.value
        if not self.linked or lanes == self._link_lanes:
            return Resources()
        config = WidthConverterConfig(value.size, value.bits, self._link_lanes, lanes)
        return resources.converter(config, self.family)

    def _lane_choices(self, interval: int | None) -> list[int]:
        """Widths of the image stream: bytes as the link brings them, or enough for the rate."""
        value = self.network.input.value
        step = self._link_lanes
        needed = 1 if interval is None else -(-value.size // (interval * step))
        return [
            step * count for count in range(needed, (needed if needed == 1 else 2 * needed) + 1)
        ]

    def _shortest(self, interval: int | None, weight: float) -> tuple[int, tuple[_Choice, ...]]:
        """Lanes of the image stream and a choice for every layer, the cheapest together."""
        layers = self.network.layers

        @cache
        def joint_price(index: int, lanes_in: int, lanes_out: int) -> float:
            return self._price(self._join(index, lanes_in, lanes_out), weight)

        # By lanes out and SPRAM blocks so far: (price, lanes of the images, choices).
        paths: dict[tuple[int, int], tuple[float, int, tuple[_Choice, ...]]] = {
            # A wider stream than needed costs wires that no model counts: a small extra.
            (lanes, 0): (lanes * 1e-6 + self._price(self._entry(lanes), weight), lanes, ())
            for lanes in self._lane_choices(interval)
        }
        most = self.capacity.sprams
        for index in range(len(layers)):
            following: dict[tuple[int, int], tuple[float, int, tuple[_Choice, ...]]] = {}
            for choice in self._priced(index, interval, weight):
                simd, pe = choice.fold.layer.simd, choice.fold.layer.pe
                for (lanes, sprams), (price, image_lanes, choices) in paths.items():
                    key = (pe, sprams + choice.sprams)
                    total = price + choice.price + joint_price(index, lanes, simd)
                    # What overrides put into SPRAM that is not there must stay, to be told.
                    total += 1e3 * max(0, key[1] - most)
                    if key not in following or total < following[key][0]:
                        following[key] = (total, image_lanes, (*choices, choice))
            paths = following
        _, lanes, choices = min(
            (
                (price + joint_price(len(layers), lanes_out, 1), lanes, choices)
                for (lanes_out, _), (price, lanes, choices) in paths.items()
            ),
            key=lambda end: end[:2],
        )
        return lanes, choices

    def _make_join(self, index: int, lanes_in: int, lanes_out: int) -> Resources:
        """The converter before layer `index`, or before the head."""
        network = self.network
        if lanes_in == lanes_out:
            return Resources()
        if index < len(network.layers):
            elements, bits = network.layers[index].columns, network.layers[index].source.bits
        else:
            elements, bits = network.classes, self.head.score_bits
        return resources.converter(
            WidthConverterConfig(
                elements=elements, element_bits=bits, lanes_in=lanes_in, lanes_out=lanes_out
            ),
            self.family,
        )

    def _chain(self, lanes: int, choices: Iterable[_Choice]) -> Chain:
        choices = tuple(choices)
        used = resources.head(self.head) + self._entry(lanes)
        lanes_in = lanes
        for index, choice in enumerate(choices):
            used += choice.used + self._join(index, lanes_in, choice.fold.layer.simd)
            lanes_in = choice.fold.layer.pe
        used += self._join(len(choices), lanes_in, 1)
        return Chain(lanes, tuple(choice.layer for choice in choices), used)

    def _mixtures(
        self, one: tuple[int, tuple[_Choice, ...]], other: tuple[int, tuple[_Choice, ...]]
    ) -> Iterator[tuple[int, tuple[_Choice, ...]]]:
        """Each layer from one or the other chain."""
        if len(one[1]) <= _MIXED_LAYERS:
            for choices in product(*zip(one[1], other[1], strict=True)):
                yield one[0], choices


def _useful_widths(limit: int) -> list[int]:
    """The smallest width for each possible number of folds of `limit`."""
    return sorted({-(-limit // folds) for folds in range(1, limit + 1)})
