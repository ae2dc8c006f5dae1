# SPDX-License-Identifier: BSD-2-Clause
"""Random networks and plans, and a core of theirs in Amaranth simulation.

What block tests and the cycle model's test share: `random_case` draws a network with any shape and
fold, `simulate_core` runs it and gives every transfer's cycle.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from amaranth.hdl import Cat

from xnorforge.gen.assembly import CoreParts, core_parts, weights_load
from xnorforge.gen.core import Core
from xnorforge.gen.layer_plan import LayerPlan
from xnorforge.gen.network import Head, Network
from xnorforge.gen.plan import Plan
from xnorforge.sim.bench import Monitor, Sink, Source, run
from xnorforge.sim.random_networks import dense_network

__all__ = ["CoreRun", "image_beats", "random_case", "random_network", "simulate_core"]


@dataclass(frozen=True)
class CoreRun:
    """What went in and out of a simulated core, and when.

    Cycle 0 ends with the first clock edge, of a core that is loaded or boots with the first in
    which its model is valid.
    """

    image_times: list[int]
    result_times: list[int]
    scores: np.ndarray
    labels: np.ndarray


def random_network(
    rng: random.Random, *, sizes: list[int], kind: str = "bit", bits: int = 1
) -> Network:
    """A network with random weights, thresholds and head; sizes: inputs, rows of each layer."""
    generator = np.random.default_rng(rng.getrandbits(32))
    network = dense_network(generator, sizes, kind, bits)
    affine = rng.random() < 0.2
    classes = sizes[-1]
    head = Head(
        tie=rng.choice(["first", "last"]),
        scale=generator.integers(-(1 << 15), 1 << 15, classes) if affine else None,
        offset=generator.integers(-(1 << 31), 1 << 31, classes) if affine else None,
    )
    return dataclasses.replace(network, head=head)


def random_case(seed: int) -> tuple[Network, Plan]:
    """A small random network and a random plan: primes, ragged folds and planes included."""
    rng = random.Random(seed)
    depth = rng.choice([1, 1, 2, 3])
    sizes = [rng.randint(1, 40)] + [rng.randint(1, 20) for _ in range(depth)]
    kind = rng.choice(["bit", "bit", "uint", "int"])
    bits = 1 if kind == "bit" else rng.randint(2, 8)
    network = random_network(rng, sizes=sizes, kind=kind, bits=bits)
    family = rng.choice(["ice40", "ecp5", "gowin"])
    weight_kinds = ["block", "lut", "const"]
    if family == "ice40" and rng.random() < 0.15:  # a load takes long to simulate
        weight_kinds = ["spram"]
    layers = []
    for layer in network.products:
        layers.append(
            LayerPlan.of(
                layer,
                pe=rng.randint(1, layer.rows),
                simd=rng.randint(1, layer.columns),
                pl=rng.randint(1, layer.source.bits),
                weight_store=rng.choice(weight_kinds),
                preset_store=rng.choice(["block", "lut", "const"]),
                buffer_store=rng.choice(["block", "lut"]),
            )
        )
    lanes = rng.choice([1, layers[0].simd, rng.randint(1, sizes[0])])
    plan = Plan(
        family=family,
        device="bare",
        board=None,
        clock_hz=1e8,
        link="uart",
        baud=1_000_000,
        lanes=lanes,
        layers=tuple(layers),
    )
    return network, plan


def image_beats(network: Network, lanes: int, values: np.ndarray) -> list[int]:
    """Network inputs (N, K), as `Input.quantise` gives them -> beats of the image stream."""
    bits, size = network.input.value.bits, network.input.value.size
    mask = (1 << bits) - 1
    beats = []
    for vector in values:
        for start in range(0, size, lanes):
            beat = 0
            for lane, x in enumerate(vector[start : start + lanes]):
                beat |= (int(x) & mask) << (lane * bits)
            beats.append(beat)
    return beats


def simulate_core(
    network: Network,
    plan: Plan,
    values: np.ndarray,
    *,
    idle: Iterable[bool] | None = None,
    stall: Iterable[bool] | None = None,
    bound: int = 200_000,
    reset: tuple[int, ...] = (),
    parts: CoreParts | None = None,
    slot: int = 0,
    beside: bytes = b"",
) -> CoreRun:
    """Run `values` (N, K) through the core's circuit in Amaranth's simulator.

    Of two slots: the images go through the model in `slot`, which is loaded where it is not the
    one that powers up; `beside` is written to the other slot while they go through.
    """
    parts = parts or core_parts(network, plan)
    core = Core(
        parts=parts, image_bits=plan.lanes * network.input.value.bits, plan_hash=0x1234_5678
    )
    image = SimpleNamespace(
        payload=core.image_data,
        valid=core.image_valid,
        ready=core.image_ready,
        signature=SimpleNamespace(always_ready=False),
    )
    result = SimpleNamespace(
        payload=Cat(core.result_score, core.result_label, core.result_last),
        valid=core.result_valid,
        ready=core.result_ready,
        signature=SimpleNamespace(always_ready=False),
    )
    source = Source(image, image_beats(network, plan.lanes, values), idle=idle)
    sink = Sink(result, len(values) * network.classes, stall=stall)
    load = weights_load(parts) if parts.must_load or slot else b""

    async def write(ctx, load):
        for index, byte in enumerate(load):
            ctx.set(core.config_data, byte)
            ctx.set(core.config_first, index == 0)
            ctx.set(core.config_valid, 1)
            await ctx.tick()
        ctx.set(core.config_valid, 0)

    async def load_weights(ctx):
        if parts.slots > 1:
            ctx.set(core.image_slot, slot)
            ctx.set(core.config_slot, slot)
        await write(ctx, load)
        if beside:
            while not source.times:  # a load in the middle of a boot would end it
                await ctx.tick()
            ctx.set(core.config_slot, 1 - slot)
            await write(ctx, beside)

    run(core, [source, sink, Monitor(result, "result"), load_weights], bound, reset=reset)
    start = source.times[0] if load or parts.patchable else 0
    score_bits = parts.head.score_bits
    scores, labels = [], []
    for n, word in enumerate(sink.received):
        score = word & ((1 << score_bits) - 1)
        scores.append(score - ((score >> (score_bits - 1)) << score_bits))
        last = bool(word >> (score_bits + 16))
        if last != (n % network.classes == network.classes - 1):
            raise AssertionError(f"result beat {n}: last is {last}")
        if last:
            labels.append((word >> score_bits) & 0xFFFF)
    return CoreRun(
        [time - start for time in source.times],
        [time - start for time in sink.times],
        np.array(scores).reshape(len(values), network.classes),
        np.array(labels),
    )
