# SPDX-License-Identifier: BSD-2-Clause
"""The measured table of engines, and that synthesis keeps the tables of their popcounts."""

import pytest

from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.popcount import PIPELINES, STRUCTURES, Popcount, PopcountConfig
from xnorforge.hw.processing_element import PeConfig, ProcessingElement
from xnorforge.hw.structures import CLOCK_GOALS, engine_for
from xnorforge.sim.cells import primitives


@pytest.mark.parametrize("goal", CLOCK_GOALS)
def test_every_width_has_a_measured_engine(goal):
    family, _, spread = goal.partition("-")
    for simd in range(1, 257):
        engine = engine_for(family, simd, spread=bool(spread))
        assert engine.structure in STRUCTURES
        assert engine.pipeline in PIPELINES
        assert engine.simd >= simd
        for site, mhz in CLOCK_GOALS[goal].items():
            assert engine.clock_mhz[site] >= mhz


def test_spread_engines_are_those_of_the_family_where_none_were_measured():
    assert engine_for("ice40", 64, spread=True) == engine_for("ice40", 64)
    assert engine_for("gowin", 64, spread=True) == engine_for("ecp5", 64, spread=True)


def test_engine_wider_than_measured_has_carry_chains():
    assert engine_for("ecp5", 5000).structure == "carry"
    assert engine_for("ecp5", 784) == engine_for("ecp5", 256)


def test_gowin_takes_the_choices_of_ecp5():
    assert engine_for("gowin", 64) == engine_for("ecp5", 64)


@pytest.mark.parametrize("family", ["ice40", "ecp5"])
def test_table_is_the_one_that_was_measured(family):
    """Cells per MAC at SIMD 128 stay where `make bench` found them."""
    engine = engine_for(family, 128)
    assert engine.cells / 128 <= (2.8 if family == "ice40" else 2.6)


def test_mvu_takes_the_measured_engine_unless_told():
    shape = {"rows": 8, "columns": 64, "input_kind": "bit", "input_bits": 1}
    fold = {"pe": 2, "simd": 32, "pl": 1, "scores": False, "family": "ecp5"}
    engine = engine_for("ecp5", 32)
    config = MvuConfig(**shape, **fold)
    assert config.pe_config.structure == engine.structure
    assert config.pe_config.pipeline == engine.pipeline
    told = MvuConfig(**shape, **fold, structure="plain", pipeline="full")
    assert (told.pe_config.structure, told.pe_config.pipeline) == ("plain", "full")
    assert told.latency != config.latency


@pytest.mark.parametrize(("family", "table"), [("ice40", "SB_LUT4"), ("ecp5", "LUT4")])
def test_synthesis_keeps_the_tables_of_pairs(family, table, tmp_path):
    """Without the barriers a popcount of 31 bits takes more tables than its compressor has."""
    config = PopcountConfig(31, "pairs", "none")
    cells = primitives(Popcount(config=config), family, tmp_path)
    assert cells[table] == len(config.compressor.nodes) == 46
    assert not any("barrier" in name for name in cells)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ice40", "ecp5", "gowin"])
def test_products_join_the_tables_of_pairs(family, tmp_path):
    config = PeConfig(128, 12, structure="pairs", pipeline="none")
    cells = primitives(ProcessingElement(config=config), family, tmp_path)
    tables = sum(n for name, n in cells.items() if name in ("SB_LUT4", "LUT1", "LUT2", "LUT3"))
    tables += cells["LUT4"]
    # The accumulator's multiplexer, its carry-in's product and, on iCE40, its sums.
    beside = 12 + 1 + (12 if family == "ice40" else 0)
    assert tables <= len(config.popcount.compressor.nodes) + beside
