# SPDX-License-Identifier: BSD-2-Clause
"""The resource model against packed designs: exact memories, errors within what is promised."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from xnorforge.gen.devices import DEVICES
from xnorforge.gen.resources import FITTED, Resources, capacity, estimate, load_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RESULTS = BENCHMARKS / "results" / "resource_designs.json"
FAMILIES = ("ice40", "ecp5", "gowin")
EXACT = ("blocks", "sprams", "lut_rams")


@pytest.fixture(scope="module")
def bench():
    """The benchmarks' modules."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import resource_designs
        import resource_fit
        import resource_model
    finally:
        sys.path.remove(str(BENCHMARKS))
    return resource_designs, resource_fit, resource_model


@pytest.fixture(scope="module")
def measured():
    return json.loads(RESULTS.read_text())


@pytest.fixture(scope="module")
def samples(bench, measured):
    """Everything measured, by family."""
    _, fit, _ = bench
    return {f: fit.samples(f, measured, load_model(f).shell_blocks) for f in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_memories_are_exact_on_every_measured_design(samples, family) -> None:
    designs = [sample for sample in samples[family] if sample.is_design]
    assert len(designs) >= 20
    for sample in designs:
        predicted = {kind: getattr(sample.exact, kind) for kind in EXACT}
        assert predicted == {kind: sample.used[kind] for kind in EXACT}, sample.name


@pytest.mark.parametrize("kind", ["cells", "flipflops"])
@pytest.mark.parametrize("family", FAMILIES)
def test_error_on_designs_not_fitted(samples, family, kind) -> None:
    held = [sample for sample in samples[family] if sample.is_held_out]
    weights = load_model(family).weights
    errors = np.array([abs(s.predicted(kind, weights) / s.used[kind] - 1) for s in held])
    assert len(held) >= 20
    assert np.median(errors) <= 0.08
    assert errors.max() <= 0.20


@pytest.mark.parametrize("family", FAMILIES)
def test_estimate_is_what_the_fit_predicts(bench, samples, family) -> None:
    """The planner's numbers and the benchmark's are one model."""
    designs, _, _ = bench
    weights = load_model(family).weights
    for sample in [sample for sample in samples[family] if sample.is_design][:6]:
        design = designs.draw(sample.name)
        used = estimate(design.network, design.plan)
        for kind in FITTED:
            parts = len(used["parts"])
            assert used[kind] == pytest.approx(sample.predicted(kind, weights), abs=parts)
        assert {kind: used[kind] for kind in EXACT} == {k: getattr(sample.exact, k) for k in EXACT}


def test_split_is_fixed_and_blocks_are_never_held_out(bench) -> None:
    designs, _, _ = bench
    held_out = [n for n in range(12) if designs.is_held_out(f"ice40-{n:02}")]
    assert held_out == [1, 3, 4, 5, 6, 7, 8, 9, 10]
    assert not designs.is_held_out("ice40-core")


@pytest.mark.parametrize("family", FAMILIES)
def test_memories_of_a_fresh_netlist(bench, family, tmp_path) -> None:
    """The circuits of today against the model of today: synthesis only."""
    designs, _, model = bench
    design = designs.draw(f"{family}-core")
    netlist = model.netlist_counts(design, design.verilog(), tmp_path)
    used = estimate(design.network, design.plan)
    assert {kind: netlist[kind] for kind in EXACT} == {kind: used[kind] for kind in EXACT}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", FAMILIES)
def test_memories_of_fresh_netlists(bench, family, tmp_path) -> None:
    designs, _, model = bench
    for name in designs.design_names(family):
        design = designs.draw(name)
        (tmp_path / name).mkdir()
        netlist = model.netlist_counts(design, design.verilog(), tmp_path / name)
        used = estimate(design.network, design.plan)
        assert {k: netlist[k] for k in EXACT} == {k: used[k] for k in EXACT}, name


@pytest.mark.parametrize("kind", ["cells", "flipflops", "blocks", "sprams"])
def test_everything_that_a_device_has_is_a_limit(kind) -> None:
    room = Resources(cells=100, flipflops=100, blocks=4, sprams=2)
    most = getattr(room, kind)
    assert Resources(**{kind: most}).fits(room)
    assert not Resources(**{kind: most + 1}).fits(room)


def test_capacity_leaves_room_to_route() -> None:
    device = DEVICES["ice40-up5k"]
    room = capacity(device)
    assert room.cells < device.luts == capacity(device, fill=1.0).cells
    assert (room.blocks, room.sprams) == (device.block_rams, device.spram_blocks)


@pytest.mark.parametrize("family", FAMILIES)
def test_error_on_blocks_between_engines(family) -> None:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import stream_cells
    finally:
        sys.path.remove(str(BENCHMARKS))
    weights = load_model(family).weights["cells"]
    found = list(stream_cells.samples(family))
    assert len(found) == len(list(stream_cells.blocks(family)))
    for name, cells, own, rest in found:
        predicted = rest + sum(weights.get(term, 0) * value for term, value in own.items())
        error = abs(predicted - cells) / max(cells, stream_cells.SMALLEST)
        assert error < (0.15 if name.startswith("window") else 0.4), name
