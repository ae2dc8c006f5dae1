# SPDX-License-Identifier: BSD-2-Clause
"""Random plans: layers folded anyhow, memories of any kind, line buffers of any depth."""

from __future__ import annotations

import random
from dataclasses import replace
from math import gcd

from xnorforge.gen.layer_plan import ForkPlan, LayerPlan, StreamPlan, WindowPlan, with_ports
from xnorforge.gen.layers import Add, Concat, Conv, Layer, Pool, Product, Threshold
from xnorforge.gen.network import Network
from xnorforge.gen.plan import Plan
from xnorforge.hw.folding import divisors
from xnorforge.hw.store_config import SPRAM_FAMILIES, SPRAM_SHAPE, SPRAM_SHARES
from xnorforge.hw.tile_pool import tiles

__all__ = ["random_plan"]


def random_plan(rng: random.Random, network: Network, family: str | None = None) -> Plan:
    """A legal plan of a network, mostly of folds that no planner would choose."""
    family = family or rng.choice(["ice40", "ecp5", "gowin"])
    slots = 2 if rng.random() < 0.2 else 1
    patchable = family != "gowin" and rng.random() < 0.2
    stores = ["block", "lut"] if slots > 1 or patchable else ["block", "lut", "const"]
    layers = tuple(_layer(rng, layer, family, stores, slots) for layer in network.layers)
    if family in SPRAM_FAMILIES and "const" in stores and rng.random() < 0.4:
        layers = _sharing(rng, layers)
    return Plan(
        family=family,
        device="bare",
        board=None,
        clock_hz=1e8,
        link="uart",
        baud=1_000_000,
        lanes=rng.randint(1, min(network.input.value.size, 40)),
        layers=layers,
        forks=tuple(
            # Deep enough for any branch: a whole value fits.
            ForkPlan(
                name, (network.type_of(name).size + 2,) * len(consumers), ("lut",) * len(consumers)
            )
            for name, consumers in network.consumers().items()
            if len(consumers) > 1
        ),
        patchable=patchable,
        slots=slots,
    )


def _layer(
    rng: random.Random, layer: Layer, family: str, stores: list[str], slots: int
) -> LayerPlan | StreamPlan:
    """stores: what weights may lie in."""
    method = rng.choice(["parallel", "serial"])
    if isinstance(layer, Pool):
        lanes = rng.choice(divisors(layer.source.channels))
        if tiles(layer.windows) and rng.random() < 0.7:
            return StreamPlan(layer.name, "pool", lanes, store=rng.choice(["block", "lut"]))
        return StreamPlan(layer.name, "pool", lanes, _window(rng, layer, lanes, family))
    if isinstance(layer, Threshold):
        lanes = rng.randint(1, layer.source.channels)
        return StreamPlan(layer.name, "threshold", lanes, method=method, slots=slots)
    if isinstance(layer, Add):
        return StreamPlan(layer.name, "add", rng.randint(1, layer.output.channels), slots=slots)
    if isinstance(layer, Concat):
        shared = gcd(*(source.channels for source in layer.sources[:-1]))
        return StreamPlan(layer.name, "concat", rng.choice(divisors(shared)))
    assert isinstance(layer, Product)
    window = None
    if isinstance(layer, Conv):
        lanes = rng.choice(divisors(layer.source.channels // layer.groups))
        window = _window(rng, layer, lanes, family)
    return LayerPlan.of(
        layer,
        pe=rng.randint(1, layer.rows // layer.groups),
        simd=rng.randint(1, layer.columns),
        pl=rng.randint(1, layer.source.bits),
        weight_store=rng.choice(stores),
        preset_store=rng.choice(stores),
        buffer_store=rng.choice(["block", "lut"]),
        window=window,
        method=method,
        reuse=rng.randint(1, min(layer.vectors, 5)) if rng.random() < 0.5 else 1,
        weight_hops=int(rng.random() < 0.1),
        slots=slots,
    )


def _sharing(
    rng: random.Random, layers: tuple[LayerPlan | StreamPlan, ...]
) -> tuple[LayerPlan | StreamPlan, ...]:
    """The layers with their weights in SPRAMs that they read in turn."""
    found = list(layers)
    for index, plan in enumerate(layers):
        if isinstance(plan, LayerPlan) and rng.random() < 0.9:
            pe = min(plan.pe, SPRAM_SHAPE[0])
            narrow = replace(plan, pe=pe, simd=min(plan.simd, SPRAM_SHAPE[0] // pe))
            if narrow.sets * narrow.planes * narrow.nf * narrow.sf > 1:  # not a register
                share = rng.choice(SPRAM_SHARES[1:])
                found[index] = replace(narrow, weight_store="spram", share=share)
    return with_ports(tuple(found))


def _window(rng: random.Random, layer: Conv | Pool, lanes: int, family: str) -> WindowPlan:
    """A line buffer between the smallest that works and some more than never waits."""
    store = rng.choice(["block", "lut"])
    whole = WindowPlan(lanes, layer.source.pixels + 1, store).config(layer, family)
    low, high = whole.min_depth, whole.bubble_free_depth
    return WindowPlan(lanes, rng.choice([low, high, rng.randint(low, high + 3)]), store)
