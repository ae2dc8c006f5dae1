# SPDX-License-Identifier: BSD-2-Clause
"""The cheapest chain of folds for an allowed interval.

Neighbouring layers share a cost, the converter between PE results and SIMD inputs, so the choice
is a shortest path through the layers: dynamic programming over the cheapest folds of each.

Cost is a share of the device: cells used / cells there + blocks used / blocks there; the second
term is weighted up or down when one of the two would run out.
"""

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

from xnorforge.gen import resources
from xnorforge.gen.network import Network
from xnorforge.gen.overrides import FOLD_FIELDS, STORE_FIELDS
from xnorforge.gen.plan import LayerPlan
from xnorforge.gen.resources import Resources
from xnorforge.hw.head import HeadConfig
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.width import WidthConverterConfig

__all__ = ["Chain", "Search"]

# Weight of a block's share against a cell's; the first is tried first.
_BLOCK_WEIGHTS = (1.0, 0.25, 4.0, 0.06, 16.0)
# Folds kept per layer: the cheapest of those that are fast enough.
_KEPT = 24
# SIMD widths looked at per PE and PL, from the narrowest that is fast enough.
_WIDER = 5


@dataclass(frozen=True)
class Chain:
    """A choice for every layer. resources: of the core, without the shell."""

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


class Search:
    """Folds of a network on a family.

    capacity: what the device has for the core. overrides: checked settings by layer.
    """

    def __init__(
        self,
        network: Network,
        family: str,
        capacity: Resources,
        overrides: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.network = network
        self.family = family
        self.capacity = capacity
        self.overrides = overrides
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
        self._converter = cache(resources.converter)

    def within(self, capacity: Resources) -> "Search":
        """The same folds for another device of the family."""
        other = copy(self)
        other.capacity = capacity
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

        It fits the capacity if any weighting of blocks against cells gives one that does.
        """
        chains = []
        for weight in _BLOCK_WEIGHTS:
            chain = self._shortest(interval, weight)
            if chain.resources.fits(self.capacity):
                return chain
            chains.append(chain)
        return min(chains, key=lambda chain: chain.resources.share_of(self.capacity))

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
        kinds: dict[str, Any] = {field: fixed.get(field, "lut") for field in STORE_FIELDS}
        config = MvuConfig(**shape, **kinds, family=self.family)
        stores = tuple(
            {
                kind: resources.mvu_store(config, field, kind)
                for kind in ([fixed[field]] if field in fixed else ("lut", "block"))
            }
            for field in STORE_FIELDS
        )
        plan = LayerPlan(name=layer.name, **shape, **kinds)
        return _Fold(plan, resources.engine(config), stores)

    # --- shortest path ---------------------------------------------------------------------

    def _price(self, used: Resources, block_weight: float) -> float:
        blocks = used.blocks / self.capacity.blocks if self.capacity.blocks else 0.0
        cells = used.cells / self.capacity.cells + used.flipflops / self.capacity.flipflops / 4
        return cells + block_weight * blocks

    def _priced(
        self, index: int, interval: int | None, weight: float
    ) -> list[tuple[float, LayerPlan, Resources]]:
        """The cheapest folds of a layer that are fast enough, their stores chosen."""
        found = []
        for fold in self._fast_enough(index, interval):
            used = fold.engine
            kinds: dict[str, Any] = {}
            for field, options in zip(STORE_FIELDS, fold.stores, strict=True):
                kinds[field] = min(options, key=lambda k: self._price(options[k], weight))
                used = used + options[kinds[field]]
            found.append((self._price(used, weight), fold.layer, kinds, used))
        found.sort(key=lambda item: item[0])
        return [
            (price, replace(layer, **kinds), used) for price, layer, kinds, used in found[:_KEPT]
        ]

    def _lane_choices(self, interval: int | None) -> list[int]:
        """Widths of the image stream: bytes as the link brings them, or enough for the rate."""
        value = self.network.input.value
        step = 8 if value.bits == 1 else 1
        needed = 1 if interval is None else -(-value.size // (interval * step))
        return [
            step * count for count in range(needed, (needed if needed == 1 else 2 * needed) + 1)
        ]

    def _shortest(self, interval: int | None, weight: float) -> Chain:
        network = self.network

        def join(elements: int, bits: int, lanes_in: int, lanes_out: int) -> Resources:
            if lanes_in == lanes_out:
                return Resources()
            return self._converter(
                WidthConverterConfig(
                    elements=elements, element_bits=bits, lanes_in=lanes_in, lanes_out=lanes_out
                ),
                self.family,
            )

        # A path: (price, resources, lanes out, choices so far)
        paths: list[tuple[float, Resources, int, tuple[Any, ...]]] = [
            # A wider stream than needed costs wires that no model counts: a small extra.
            (lanes * 1e-6, Resources(), lanes, (lanes,))
            for lanes in self._lane_choices(interval)
        ]
        for index, layer in enumerate(network.layers):
            following = []
            for price, fold, used in self._priced(index, interval, weight):
                options = []
                for path_price, path_used, lanes, choices in paths:
                    joint = join(layer.columns, layer.source.bits, lanes, fold.simd)
                    total = path_price + price + self._price(joint, weight)
                    options.append((total, path_used + used + joint, fold.pe, (*choices, fold)))
                following.append(min(options, key=lambda option: option[0]))
            paths = following
        ends = []
        for price, used, lanes, choices in paths:
            joint = join(network.classes, self.head.score_bits, lanes, 1)
            ends.append((price + self._price(joint, weight), used + joint, choices))
        _, used, choices = min(ends, key=lambda end: end[0])
        lanes, *layers = choices
        return Chain(lanes, tuple(layers), used + resources.head(self.head))


def _useful_widths(limit: int) -> list[int]:
    """The smallest width for each possible number of folds of `limit`."""
    return sorted({-(-limit // folds) for folds in range(1, limit + 1)})
