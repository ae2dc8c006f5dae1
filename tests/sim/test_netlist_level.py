# SPDX-License-Identifier: BSD-2-Clause
"""Level "netlist": right as synthesised, red for each fault planted in the mapped netlist."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from xnorforge.gen import load
from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.errors import ModelError, ToolError, UserError
from xnorforge.gen.planner import make_plan
from xnorforge.sim.cell_models import CELL_MODELS
from xnorforge.sim.faults import FAULT_KINDS, plant
from xnorforge.sim.netlist_faults import NETLIST_FAULT_KINDS as KINDS
from xnorforge.sim.netlist_faults import NetlistFault, plant_in_netlist
from xnorforge.sim.netlist_level import find_netlist
from xnorforge.sim.netlist_verilog import MappedNetlist
from xnorforge.sim.verify import verify
from xnorforge.sw.images import load_images
from xnorforge.sw.shipped import shipped_images, shipped_model

FAMILY_BOARDS = ("icebreaker", "ulx3s-25f", "tang-nano-9k")
DEVICES = ("ice40-hx8k", "ecp5-25f", "gw1nr-9")


@pytest.fixture(scope="module")
def made(nets, tmp_path_factory):
    rng = np.random.default_rng(3)
    network = nets.network(rng, [12, 6, 4])
    stores = {layer.name: {"weight_store": "block"} for layer in network.layers}
    plan = make_plan(network, board="icebreaker", goal="min", overrides=stores)
    bundle = compile_bundle(network, plan, tmp_path_factory.mktemp("netlist") / "bundle")
    return SimpleNamespace(bundle=bundle, images=nets.images(rng, network, 25), nets=nets)


def test_netlist_of_a_board_is_exact(made):
    report = verify(made.bundle.path, "netlist", images=made.images)
    assert (report.word, report.passed) == ("EXACT", True)
    counts = {name: item.images for name, item in report.comparisons.items()}
    assert counts == {"reference": 25, "powered_up": 25, "loaded": 20, "other_model": 20}
    assert report.netlist["cells"]["SB_PLL40_PAD"] == 1
    assert not report.netlist["in_bitstream"]
    assert "own models: SB_LUT4, SB_PLL40_CORE, SB_PLL40_PAD" in report.notes[0]
    assert "SB_RAM40_4K" in report.notes[0] and "SB_DFF" in report.notes[0]
    written = json.loads((made.bundle.results / "verify_netlist.json").read_text())
    assert written["netlist"]["sha256"] == report.netlist["sha256"]


def test_wrong_weights_turn_the_netlist_red(made):
    fault = plant(made.bundle.network, FAULT_KINDS[0], made.images)
    report = verify(made.bundle.path, "netlist", images=made.images, fault=fault)
    assert report.comparisons["loaded"].word == "MISMATCH" and not report.passed


def check_fault(bundle, images, kind):
    fault = plant_in_netlist(bundle, kind, images)
    report = verify(bundle.path, "netlist", images=images, fault=fault)
    assert (report.word, report.passed) == ("MISMATCH", False)
    words = {name: item.word for name, item in report.comparisons.items()}
    if kind == "write":  # it holds the right weights: only other ones show that it cannot be
        passes = [words[name] for name in ("powered_up", "loaded", "other_model")]
        assert passes == ["EXACT", "EXACT", "MISMATCH"]
    else:
        assert words["powered_up"] == "MISMATCH"
    assert report.comparisons["reference"].word == "EXACT"
    assert report.fault == fault.description
    return fault


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] * (kind in ("memory", "net"))) for kind in KINDS],
)
def test_fault_in_the_netlist_turns_it_red(made, kind):
    check_fault(made.bundle, made.images[:5], kind)


def core_bundle(nets, device, folder):
    rng = np.random.default_rng(8)
    network = nets.network(rng, [40, 9, 5])
    stores = {layer.name: {"weight_store": "block"} for layer in network.layers}
    plan = make_plan(network, device=device, goal="min", overrides=stores)
    return compile_bundle(network, plan, folder), nets.images(rng, network, 30)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("device", DEVICES)
def test_netlist_of_a_core_is_exact_and_faults_turn_it_red(nets, device, tmp_path):
    bundle, images = core_bundle(nets, device, tmp_path / "bundle")
    report = verify(bundle.path, "netlist", images=images)
    assert (report.word, report.passed) == ("EXACT", True)
    assert report.cycles.equal
    for kind in KINDS:
        check_fault(bundle, images, kind)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("board", FAMILY_BOARDS)
def test_tfc_is_exact(board, tmp_path):
    network = load(shipped_model("mnist-tfc"))
    images, labels = load_images(shipped_images(), shape=network.input.value.shape)
    plan = make_plan(network, board=board, goal="min")
    bundle = compile_bundle(network, plan, tmp_path / "bundle")
    report = verify(bundle.path, "netlist", images=images[:100], labels=labels[:100])
    assert (report.word, report.passed) == ("EXACT", True)


def test_netlist_that_is_damaged_is_refused(made):
    netlist = find_netlist(made.bundle).netlist
    name = next(name for name, cell in netlist.cells.items() if cell["type"] == "SB_LUT4")
    cell = netlist.cells[name]

    def with_cell(**changes):
        cells = {**netlist.module["cells"], name: {**cell, **changes}}
        return MappedNetlist("top", {**netlist.module, "cells": cells}, netlist.ports)

    pins = cell["connections"]
    with pytest.raises(ToolError, match="nets that nothing drives"):
        with_cell(connections={**pins, "I0": [999_999]}).verilog()
    other = next(c for c in netlist.cells.values() if c["type"] == "SB_DFF")["connections"]["Q"]
    with pytest.raises(ToolError, match="more than one driver"):
        with_cell(connections={**pins, "O": other}).verilog()
    with pytest.raises(ToolError, match=r"has nothing on \['I0'\]"):
        with_cell(connections={k: v for k, v in pins.items() if k != "I0"}).verilog()
    with pytest.raises(ToolError, match=r"has nothing on \['I0'\]"):  # left open explicitly
        with_cell(connections={**pins, "I0": []}).verilog()
    with pytest.raises(ToolError, match="has 2 bits on port I0, which has 1"):
        with_cell(connections={**pins, "I0": ["0", "1"]}).verilog()
    with pytest.raises(ModelError, match="has no INIT of a cell nowhere"):
        NetlistFault("lut", "nowhere", "LUT4", "INIT", 0).apply(netlist)


def test_open_input_of_a_gowin_table_gets_a_level():
    ports = {"LUT4": {**{f"I{i}": ("input", 1) for i in range(4)}, "F": ("output", 1)}}
    pins = {"I0": [2], "I1": [], "I2": ["x"], "F": [3]}
    cell = {"type": "LUT4", "parameters": {"INIT": "0" * 16}, "connections": pins}
    module = {
        "cells": {"table": cell},
        "ports": {
            "a": {"direction": "input", "bits": [2]},
            "o": {"direction": "output", "bits": [3]},
        },
    }
    netlist = MappedNetlist("top", module, ports)
    levels = set()
    for seed in range(8):
        text = netlist.verilog(seed)
        levels.add(tuple(re.findall(r"\.(I[123])\(\{?(1'b[01])", text)))
        assert all(sorted(dict(found)) == ["I1", "I2", "I3"] for found in levels)
    assert len(levels) > 2


def test_what_cannot_be_is_refused(made):
    with pytest.raises(ToolError, match="Cell FOO of ecp5 has no simulation model"):
        CELL_MODELS["ecp5"].used(["FOO"])
    with pytest.raises(ToolError, match="Cell SDP of gowin has no simulation model"):
        CELL_MODELS["gowin"].used(["SDP"])  # empty in yosys' library
    fault = NetlistFault("lut", "a", "LUT4", "INIT", 0)
    with pytest.raises(UserError, match="not in what level rtl runs"):
        verify(made.bundle.path, "rtl", images=made.images, fault=fault)
    with pytest.raises(ModelError, match="Fault must be one of"):
        plant_in_netlist(made.bundle, "typo", made.images)
