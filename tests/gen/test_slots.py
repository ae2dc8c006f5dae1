# SPDX-License-Identifier: BSD-2-Clause
"""Two models in one design: images of either, one after the other, and loads beside them."""

import dataclasses
import random
from types import SimpleNamespace

import numpy as np
import pytest
from amaranth.hdl import Cat

from xnorforge.gen.assembly import core_parts, weights_load
from xnorforge.gen.core import Core
from xnorforge.gen.errors import PlanError
from xnorforge.gen.planner import make_plan
from xnorforge.sim.bench import Monitor, Sink, Source, never, random_stalls, run
from xnorforge.sim.core_bench import image_beats
from xnorforge.sim.other_model import other_model
from xnorforge.sim.random_networks import random_images, random_network
from xnorforge.sim.reference import Executor
from xnorforge.sw import protocol


def two_models(seed):
    """A network, another of its shape, a plan for both, and images."""
    rng = np.random.default_rng(seed)
    while True:
        network = random_network(rng)
        if network.macs > 4_000:  # a simulation of seconds
            continue
        images = random_images(rng, network, 8)
        device = ("ice40-hx8k", "ecp5-25f", "gw2a-18")[seed % 3]
        try:
            plan = make_plan(network, device=device, goal=("min", "max")[seed % 2], slots=2)
        except PlanError:
            continue
        other = other_model(network, plan, images)
        if other is not None:
            return network, other.network, plan, images


class Bench:
    """A core of two models; what each image gives is compared with its own model's reference."""

    def __init__(self, seed):
        self.models = two_models(seed)
        network, other, plan, images = self.models
        self.plan, self.images = plan, images
        self.rng = random.Random(seed)
        self.core = Core(
            parts=core_parts(network, plan),
            image_bits=plan.lanes * network.input.value.bits,
            plan_hash=1,
        )
        core = self.core
        self.image = SimpleNamespace(
            payload=core.image_data,
            valid=core.image_valid,
            ready=core.image_ready,
            signature=SimpleNamespace(always_ready=False),
        )
        self.result = SimpleNamespace(
            payload=Cat(core.result_score, core.result_label, core.result_last),
            valid=core.result_valid,
            ready=core.result_ready,
            signature=SimpleNamespace(always_ready=False),
        )
        self.loads = [weights_load(core_parts(model, plan)) for model in (network, other)]
        self.expected = [Executor(model).run(images).scores for model in (network, other)]

    def beats(self):
        network = self.models[0]
        values = network.input.quantise(self.images.reshape(len(self.images), -1))
        return image_beats(network, self.plan.lanes, values)

    async def load(self, ctx, model, slot, cut=0):
        core, load = self.core, self.loads[model]
        ctx.set(core.config_slot, slot)
        for index, byte in enumerate(load[: len(load) - cut]):
            ctx.set(core.config_data, byte)
            ctx.set(core.config_first, index == 0)
            ctx.set(core.config_valid, 1)
            await ctx.tick()
            ctx.set(core.config_valid, 0)
            while self.rng.random() < 0.2:
                await ctx.tick()
        for _ in range(len(core.parts.stores) + 5):
            await ctx.tick()

    async def register(self, ctx, register):
        ctx.set(self.core.register_address, register)
        await ctx.tick()
        await ctx.tick()
        return ctx.get(self.core.register_data)

    def check(self, words, slots, held):
        """Scores of all images against those of the models that the slots held."""
        network, bits = self.models[0], self.core.parts.head.score_bits
        scores = [(word & (1 << bits) - 1) for word in words]
        scores = np.array([s - (s >> bits - 1 << bits) for s in scores])
        scores = scores.reshape(-1, network.classes)
        wanted = [self.expected[held[slot]][k % len(self.images)] for k, slot in enumerate(slots)]
        assert np.array_equal(scores, wanted)


@pytest.mark.parametrize("seed", range(8))
def test_each_image_goes_through_the_model_that_it_asks_for(seed):
    bench = Bench(seed)
    rounds = 2
    slots = [bench.rng.randrange(2) for _ in range(rounds * len(bench.images))]
    beats = bench.beats() * rounds
    each = len(beats) // len(slots)
    idle = random_stalls(0.2, seed) if seed % 4 else never()
    stall = random_stalls(0.3, seed + 1) if seed % 3 else never()
    network = bench.models[0]
    sink = Sink(bench.result, len(slots) * network.classes, stall=stall)

    async def images(ctx):
        core = bench.core
        assert await bench.register(ctx, protocol.Register.STATUS) == 1 | protocol.STATUS_TWO_SLOTS
        await bench.load(ctx, 1, 1)
        status = await bench.register(ctx, protocol.Register.STATUS)
        assert status & 3 == protocol.STATUS_MODEL_VALID | protocol.STATUS_SECOND_VALID
        for model, where in enumerate(
            (protocol.Register.WEIGHTS_DIGEST, protocol.Register.SECOND_DIGEST)
        ):
            digest = int.from_bytes(bench.loads[model][-4:], "little")
            assert await bench.register(ctx, where) == digest
        for k, beat in enumerate(beats):
            ctx.set(core.image_slot, slots[k // each])
            while next(idle):
                await ctx.tick()
            ctx.set(core.image_data, beat)
            ctx.set(core.image_valid, 1)
            ready = 0
            while not ready:
                _, _, ready = await ctx.tick().sample(core.image_ready)
            ctx.set(core.image_valid, 0)

    run(bench.core, [images, sink, Monitor(bench.result, "result")], 400_000)
    bench.check(sink.received, slots, (0, 1))


@pytest.mark.parametrize("seed", range(4))
def test_load_beside_running_images_touches_nothing_of_theirs(seed):
    bench = Bench(seed)
    rounds = 3
    beats = bench.beats() * rounds
    slots = [0] * (rounds * len(bench.images))
    source = Source(bench.image, beats)
    sink = Sink(bench.result, len(slots) * bench.models[0].classes)

    async def loads(ctx):
        await bench.load(ctx, 1, 1, cut=bench.rng.randrange(1, len(bench.loads[1])))
        assert await bench.register(ctx, protocol.Register.SECOND_DIGEST) == 0
        await bench.load(ctx, 1, 1)
        status = await bench.register(ctx, protocol.Register.STATUS)
        assert status & 3 == 3

    run(bench.core, [source, sink, Monitor(bench.result, "result"), loads], 400_000)
    bench.check(sink.received, slots, (0, 1))


def test_what_cannot_hold_two_models_is_refused():
    network = two_models(1)[0]
    name = network.products[0].name
    with pytest.raises(PlanError, match="Constant weights are logic"):
        make_plan(network, device="ecp5-25f", weights="constant", slots=2)
    with pytest.raises(PlanError, match="'spram' cannot be loaded while images use it"):
        stores = {name: {"weight_store": "spram"}}
        make_plan(network, device="ice40-up5k", overrides=stores, slots=2)
    with pytest.raises(PlanError, match="Slots must be 1 or 2, not 3"):
        make_plan(network, device="ecp5-25f", slots=3)


def test_two_slots_are_another_plan_and_take_memory_twice():
    network = two_models(1)[0]
    one, two = (make_plan(network, device="ecp5-25f", goal="min", slots=n) for n in (1, 2))
    assert one.structure_hash(network) != two.structure_hash(network)
    bits = [
        sum(c.addresses * c.width for _, c, _ in core_parts(network, plan).stores)
        for plan in (dataclasses.replace(one), two)
    ]
    assert bits[1] >= 1.5 * bits[0]
