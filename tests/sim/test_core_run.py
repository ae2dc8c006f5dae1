# SPDX-License-Identifier: BSD-2-Clause
"""The cocotb bench with a one-layer core written by hand: right, wrong, stuck, under stalls."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnorforge.gen.network import Dense, Head, Input, Network, ValueType
from xnorforge.sim.compare import compare
from xnorforge.sim.core_run import CorePass, _steady, image_stream, run_core
from xnorforge.sim.reference import Executor

TOY = Path(__file__).parent / "fixtures" / "toy_core.v"
SIZE, LANES, CLASSES = 45, 7, 5
BEATS = -(-SIZE // LANES)


def network(classes: int = CLASSES, seed: int = 1) -> Network:
    rng = np.random.default_rng(seed)
    value = ValueType("bit", 1, (SIZE,))
    weights = rng.choice(np.array([-1, 1], np.int8), (CLASSES, SIZE))
    weights = np.concatenate([weights, weights])[:classes]
    layer = Dense("toy", value, weights, None)
    return Network("toy", Input(value, "uint8", 100), (layer,), Head())


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    bits = np.zeros((CLASSES, BEATS * LANES), np.uint8)
    bits[:, :SIZE] = network().layers[0].weights > 0
    packed = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    weights = f"{bits.size}'h{int.from_bytes(packed, 'little'):x}"
    text = TOY.read_text()
    words = {"K": SIZE, "LANES": LANES, "CLASSES": CLASSES, "WEIGHTS": weights}
    for word, value in words.items():
        text = text.replace(f"@{word}@", str(value))
    path = tmp_path_factory.mktemp("toy") / "toy_core.v"
    path.write_text(text)
    images = np.random.default_rng(2).integers(0, 256, (60, SIZE), dtype=np.uint8)
    return SimpleNamespace(path=path, images=images, want=Executor(network()).run(images))


def test_scores_labels_and_cycles_come_out_with_and_without_stalls(toy):
    passes = [
        CorePass("plain", 0, 60),
        CorePass("stalled", 0, 60, idle=0.5, stall=0.5, seed=3),
        CorePass("part", 20, 7),
    ]
    runs = run_core([toy.path], network(), LANES, toy.images, passes)
    assert compare(toy.want, runs["plain"].result).word == "EXACT"
    assert compare(toy.want, runs["stalled"].result).word == "EXACT"
    assert np.array_equal(runs["part"].result.scores, toy.want.scores[20:27])
    # The toy takes an image, then gives its scores, one register after the last beat.
    assert runs["plain"].first_output_cycles == BEATS + 1
    assert runs["plain"].interval_cycles == BEATS + CLASSES
    assert runs["stalled"].cycles > 1.3 * runs["plain"].cycles


def test_what_nobody_initialises_powers_up_at_random_by_a_seed(toy, tmp_path):
    """The toy with a register that nobody sets, added to its scores."""
    text = toy.path.read_text().replace(
        "result_score <= dots[class_index[$clog2(CLASSES)-1:0]];",
        "result_score <= dots[class_index[$clog2(CLASSES)-1:0]] + junk;",
    )
    text = text.replace("reg full;", "reg signed [15:0] junk;\n  reg full;")
    path = tmp_path / "junk.v"
    path.write_text(text)
    found = []
    for seed in (None, 1, 2):
        passes = [CorePass("plain", 0, 2)]
        options = ("--x-initial", "unique")
        runs = run_core(
            [path], network(), LANES, toy.images[:2], passes, options=options, seed=seed
        )
        junk = runs["plain"].result.scores - toy.want.scores[:2]
        assert (junk == junk[0, 0]).all()
        found.append(int(junk[0, 0]))
    assert found[0] == 0 and len(set(found)) == 3


def test_core_with_other_weights_is_a_mismatch(toy):
    want = Executor(network(seed=9)).run(toy.images)
    runs = run_core([toy.path], network(), LANES, toy.images, [CorePass("plain", 0, 60)])
    assert compare(want, runs["plain"].result).word == "MISMATCH"


def test_core_that_stops_is_stuck_and_its_results_missing(toy):
    # Asked for one class more than the core has, the bench waits for beats that never come.
    wider = network(CLASSES + 1)
    passes = [CorePass("plain", 0, 10), CorePass("later", 0, 10)]
    runs = run_core([toy.path], wider, LANES, toy.images[:10], passes, timeout_cycles=500)
    assert list(runs) == ["plain"]
    assert runs["plain"].stuck
    found = compare(Executor(wider).run(toy.images[:10]), runs["plain"].result)
    assert str(found.first) == "image 0: no result"


@given(
    kind=st.sampled_from(["bit", "uint", "int"]),
    bits=st.integers(2, 8),
    size=st.integers(1, 40),
    lanes=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_beats_hold_element_k_in_beat_and_lane(nets, kind, bits, size, lanes, seed):
    rng = np.random.default_rng(seed)
    bits = 1 if kind == "bit" else bits
    net = nets.network(rng, [size, 2], kind, bits)
    images = nets.images(rng, net, 3)
    values = net.input.quantise(images).astype(np.int64) % (1 << bits)
    beats = image_stream(net, lanes, images)
    assert beats.shape == (3, -(-size // lanes), -(-lanes * bits // 8))
    for n in range(3):
        for k in range(size):
            word = int.from_bytes(beats[n, k // lanes].tobytes(), "little")
            assert word >> (k % lanes * bits) & ((1 << bits) - 1) == values[n, k]


@pytest.mark.parametrize(
    ("gaps", "interval"),
    [
        ([9, 8, 7, 5, 5, 5, 5, 5], 5),
        ([30, 4, 5, 4, 5, 4, 5, 4, 5], Fraction(9, 2)),
        ([1, 2, 3, 4, 5, 6, 7, 8], None),
        ([5], None),
    ],
)
def test_steady_interval_is_found_where_there_is_one(gaps, interval):
    assert _steady(np.cumsum([100, *gaps])) == interval


def test_equal_intervals_between_turns_are_no_steady_pace():
    """A pace of 105 behind a layer whose turn is one cycle in 8."""
    gaps = [104, 104, 104, 104, 104, 104, 104, 112] * 4
    for images in range(2, 24):
        assert _steady(np.cumsum([0, *gaps[: images - 1]]), 8) is None
    assert _steady(np.cumsum([0, *gaps[:24]]), 8) == 105
    assert _steady(np.cumsum([0, *gaps[5:]]), 8) == 105
