# SPDX-License-Identifier: BSD-2-Clause
"""The cycle model against simulation: every transfer's cycle, not an average."""

import random
import tracemalloc

import numpy as np
import pytest

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.cycles import predict, timeline
from xnorforge.hw.head import HeadConfig
from xnorforge.hw.mvu import MvuConfig
from xnorforge.sim.bench import random_stalls
from xnorforge.sim.core_bench import random_case, simulate_core

FRAMES = 7


def expected(network, values):
    x = values.astype(np.int64)
    for layer in network.layers:
        if layer.source.kind == "bit":
            x = 2 * x - 1
        x = x @ layer.weights.astype(np.int64).T
        if layer.thresholds is not None:
            x = (x >= layer.thresholds).astype(np.int64)
    return x, network.head.label(x)


def random_values(network, seed, count=FRAMES):
    value = network.input.value
    low = 0 if value.kind == "bit" else value.low
    return np.random.default_rng(seed).integers(low, value.high + 1, (count, value.size))


@pytest.mark.parametrize("seed", range(200))
def test_core_every_transfer_is_predicted_and_exact(seed):
    network, plan = random_case(seed)
    values = random_values(network, seed)
    ran = simulate_core(network, plan, values)
    scores, labels = expected(network, values)
    np.testing.assert_array_equal(ran.scores, scores)
    np.testing.assert_array_equal(ran.labels, labels)
    predicted = timeline(core_parts(network, plan).stages, FRAMES)
    assert ran.image_times == predicted.image
    assert ran.result_times == predicted.result


@pytest.mark.parametrize("seed", range(1000, 1060))
def test_core_with_random_gaps_every_transfer_is_predicted(seed):
    network, plan = random_case(seed)
    values = random_values(network, seed)
    stages = core_parts(network, plan).stages
    beats = len(timeline(stages, FRAMES).image)
    rng = random.Random(seed)
    gaps = [rng.choice([0, 0, 0, 1, 2, 7]) for _ in range(beats)]
    idle = [busy for gap in gaps for busy in [True] * gap + [False]]
    ran = simulate_core(network, plan, values, idle=[*idle, *[True] * 100_000])
    predicted = timeline(stages, FRAMES, gaps)
    # The first gap of a core that is loaded first passes during the load.
    start = predicted.image[0] - ran.image_times[0]
    assert start == 0 or core_parts(network, plan).must_load
    assert [time + start for time in ran.image_times] == predicted.image
    assert [time + start for time in ran.result_times] == predicted.result
    np.testing.assert_array_equal(ran.scores, expected(network, values)[0])


@pytest.mark.parametrize("seed", range(2000, 2020))
def test_core_under_random_stalls_is_exact(seed):
    network, plan = random_case(seed)
    values = random_values(network, seed)
    ran = simulate_core(
        network, plan, values, idle=random_stalls(0.3, seed), stall=random_stalls(0.5, seed + 1)
    )
    scores, labels = expected(network, values)
    np.testing.assert_array_equal(ran.scores, scores)
    np.testing.assert_array_equal(ran.labels, labels)


@pytest.mark.parametrize("seed", range(40))
def test_predict_steady_interval_is_that_of_a_long_timeline(seed):
    network, plan = random_case(seed)
    stages = core_parts(network, plan).stages
    prediction = predict(stages)
    frames = 400
    ends = timeline(stages, frames).result[network.classes - 1 :: network.classes]
    measured = (ends[399] - ends[399 - 240]) / 240
    assert measured == pytest.approx(float(prediction.interval_cycles), abs=0.07)
    assert prediction.interval_cycles >= max(prediction.stage_intervals) * 0.999
    assert prediction.frame_latency_cycles == ends[0] - timeline(stages, 1).image[0]


def test_wide_images_take_memory_for_their_beats_only():
    config = MvuConfig(
        rows=1, columns=4096, input_kind="uint", input_bits=8, pe=1, simd=1, pl=8, scores=True
    )
    head = HeadConfig(classes=1, score_bits=config.score_bits)
    tracemalloc.start()
    try:
        prediction = predict([config, head])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert prediction.interval_cycles == 4096
    assert peak < 100 * 8 * 4096
