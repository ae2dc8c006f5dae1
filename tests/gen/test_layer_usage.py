# SPDX-License-Identifier: BSD-2-Clause
"""What each layer takes: owners of cells, packed cells, rows, and real builds of three families."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter

import pytest

from xnorforge.gen import layer_usage as module
from xnorforge.gen.assembly import core_parts
from xnorforge.gen.build_result import BuildResult
from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.cell_owners import CellOwners
from xnorforge.gen.core import block_owners
from xnorforge.gen.devices import FAMILIES
from xnorforge.gen.errors import BundleError, ToolError
from xnorforge.gen.layer_usage import layer_usage, rows_of, total_usage
from xnorforge.gen.packed_cells import count_packed, netlist_owners
from xnorforge.gen.planner import make_plan
from xnorforge.sim.core_bench import random_network

A, B, STORE = ("system", "core", "mvu_0"), ("system", "core", "mvu_1"), ("system", "core", "a.b")


class Netlist:
    """A netlist in the making. Blocks have ten lines each, in the order they are named."""

    def __init__(self, *blocks: tuple[str, ...]) -> None:
        self.cells: dict[str, dict] = {}
        self.netnames: dict[str, dict] = {}
        self.bits: dict[str, int] = {}
        self.lines = {block: 10 * index + 1 for index, block in enumerate(blocks)}
        for block, first in self.lines.items():
            attributes = {"module_src": f"accelerator.v:{first}.1-{first + 8}.10"}
            if len(block) > 1:
                attributes["hdlname"] = " ".join(block)
            self.cells[".".join(block)] = {"type": "$scopeinfo", "attributes": attributes}

    def bit(self, net: str) -> int:
        if net not in self.bits:
            self.bits[net] = len(self.bits) + 2
            self.netnames[net] = {"bits": [self.bits[net]]}
        return self.bits[net]

    def add(self, kind, name, out, inputs=(), block=None, ports=("O", "I")) -> None:
        """out: net, or None. block: whose line the cell has."""
        outs = {} if out is None else {ports[0]: [self.bit(out)]}
        ins = {f"{ports[1]}{i}": [self.bit(net)] for i, net in enumerate(inputs)}
        source = f"cells_map.v:3.1-4.2|accelerator.v:{self.lines[block] + 2}.5-7.9" if block else ""
        self.cells[name] = {
            "type": kind,
            "attributes": {"src": source},
            "connections": outs | ins,
            "port_directions": dict.fromkeys(outs, "output") | dict.fromkeys(ins, "input"),
        }

    def ff(self, name, out, data, block=None) -> None:
        self.add("SB_DFF", name, out, [data], block, ("Q", "D"))
        cell = self.cells[name]
        cell["connections"]["D"] = cell["connections"].pop("D0")
        cell["port_directions"]["D"] = cell["port_directions"].pop("D0")

    def owners(self, family="ice40") -> CellOwners:
        return netlist_owners({"cells": self.cells, "netnames": self.netnames}, FAMILIES[family])


def test_owners_are_lines_names_and_neighbours() -> None:
    net = Netlist(("system",), ("system", "core"), A, B, STORE, (*STORE, "loader"))
    net.ff("ff_a", "qa", "da", A)
    net.ff("ff_b", "qb", "db", B)
    net.ff("deep", "qd", "dd", (*STORE, "loader"))
    net.add("SB_CARRY", "carry", "co", ["qa"], A)
    net.add("SB_RAM40_4K", "system.core.a.b.bank_0.cells.0.0", "word", ["qa"])
    # yosys named this register after the net, which is the core's.
    net.ff("system.core.data_SB_DFF_Q", "held", "word")
    net.add("SB_LUT4", "lone_sink", "da", ["qa", "qb"])
    net.add("SB_LUT4", "behind", "t0", ["qb"])
    net.add("SB_LUT4", "before", "db", ["t0", "t1"])
    net.add("SB_LUT4", "shared", "t1", ["qa", "held"])
    net.add("SB_LUT4", "a_mostly", "t2", ["qa", "co"])
    for name in ("u", "v"):
        net.ff(f"sink_{name}", f"q{name}", "t2", A if name == "u" else B)
    net.add("SB_LUT4", "pin", "led", ["qb"])
    owner = net.owners().owner
    assert owner["ff_a"] == owner["carry"] == owner["lone_sink"] == A
    assert owner["deep"] == STORE
    assert owner["system.core.a.b.bank_0.cells.0.0"] == STORE
    assert owner["system.core.data_SB_DFF_Q"] == STORE
    # Through a table to the register of the block it feeds.
    assert owner["before"] == owner["behind"] == owner["shared"] == B
    # It feeds one of each, and two of A's feed it.
    assert owner["a_mostly"] == A
    assert owner["pin"] == B
    assert set(owner) == {name for name, cell in net.cells.items() if cell["type"][0] != "$"}


def test_loop_of_tables_has_owners() -> None:
    net = Netlist(A)
    net.add("SB_LUT4", "one", "x", ["y"])
    net.add("SB_LUT4", "two", "y", ["x"])
    net.ff("ff", "q", "x", A)
    assert set(net.owners().owner.values()) == {A}


def packed(*cells, nets=()) -> dict:
    """nextpnr's netlist: (type, name, {port: bit}, parameters); ports in capitals O, Q, F, DO, SUM
    and COUT, FCO are outputs."""
    outputs = {"O", "Q", "F", "DO", "SUM", "COUT", "FCO"}
    return {
        "cells": {
            name: {
                "type": kind,
                "connections": {port: [bit] for port, bit in ports.items()},
                "port_directions": {
                    port: "output" if port in outputs else "input" for port in ports
                },
            }
            for kind, name, ports in cells
        },
        "netnames": {name: {"bits": [bit]} for name, bit in nets},
    }


def test_ice40_cell_goes_where_its_flip_flop_is() -> None:
    net = Netlist(A, B)
    net.ff("ff_a", "qa", "t", A)
    net.ff("ff_b", "qb", "t", B)
    net.add("SB_LUT4", "table", "t", ["qa", "qb"])
    net.add("SB_CARRY", "carry", "co", ["qb"], B)
    made = packed(
        ("ICESTORM_LC", "table_LC", {"O": 1}),
        ("ICESTORM_LC", "ff_b_DFFLC", {"O": 2}),
        ("ICESTORM_LC", "carry$CARRY", {"CIN": 8, "COUT": 3}),
        ("ICESTORM_LC", "$nextpnr_ICESTORM_LC_0", {"COUT": 8}),
        ("ICESTORM_LC", "$nextpnr_ICESTORM_LC_1", {"CIN": 3}),
        ("ICESTORM_LC", "$PACKER_GND", {"O": 9}),
        ("SB_IO", "pad", {}),
        nets=[("qa", 1), ("qb", 2), ("co", 3), ("$PACKER_GND_NET", 9)],
    )
    counts = count_packed(net.owners(), made, FAMILIES["ice40"])
    assert counts[A]["logic_cells"] == 1 and counts[A]["flip_flops"] == 1
    assert counts[B] == Counter(logic_cells=4, flip_flops=1, carries=1) + Counter(
        luts=counts[B]["luts"]
    )
    assert counts[()] == Counter(logic_cells=1)
    assert sum(count["logic_cells"] for count in counts.values()) == 6
    assert sum(count["luts"] for count in counts.values()) == 1


def test_ecp5_memory_takes_its_tables_along() -> None:
    net = Netlist(A)
    ram = "system.core.mvu_0.ram.cells.0.0"
    net.add("TRELLIS_DPR16X4", ram, "word", ["x"])
    made = packed(
        *(("TRELLIS_COMB", f"{ram}$DPRAM_COMB{i}", {"F": i}) for i in range(4)),
        *(("TRELLIS_COMB", f"{ram}$RAMW_BLOCK{i}", {}) for i in range(2)),
        ("TRELLIS_RAMW", f"{ram}$RAMW_SLICE", {}),
        nets=[("word", 0)],
    )
    net.cells["system.core.mvu_0"]["attributes"]["hdlname"] = " ".join(A)
    counts = count_packed(net.owners("ecp5"), made, FAMILIES["ecp5"])
    assert counts == {A: Counter(logic_cells=6, lut_rams=1)}


def test_gowin_places_that_are_blocked_count() -> None:
    net = Netlist(A, B)
    ram = "system.core.mvu_1.ram.cells.0.0"
    net.add("RAM16SDP4", ram, "word", ["x"])
    net.add("ALU", "sum", "s", ["x"], A)
    made = packed(
        ("ALU", "sum", {"SUM": 0, "CIN": 5}),
        ("ALU", "sum_HEAD_ALULC", {"COUT": 5}),
        ("BLOCKER_LUT", "sum_BLOCKER_LUT", {}),
        ("BLOCKER_LUT", "sum_HEAD_ALULC_BLOCKER_LUT", {}),
        ("RAM16SDP4", ram, {"DO": 1}),
        ("LUT4", f"{ram}_LUT3", {}),
        *(("BLOCKER_LUT", f"{ram}_BLOCKER_LUT_{i}", {}) for i in range(2)),
        ("BLOCKER_FF", f"{ram}_BLOCKER_FF_5", {}),
        ("DP", "system.core.mvu_0.words.0.0", {}),
        nets=[("s", 0), ("word", 1)],
    )
    net.add("DPX9B", "system.core.mvu_0.words.0.0", "out", ["x"])
    counts = count_packed(net.owners("gowin"), made, FAMILIES["gowin"])
    assert counts[A] == Counter(logic_cells=2, carries=1, block_rams=1)
    assert counts[B] == Counter(logic_cells=3, lut_rams=1, lost_flip_flops=1)


def test_rows_add_up_to_what_was_routed() -> None:
    blocks = {
        A: Counter(logic_cells=10, flip_flops=4, lost_flip_flops=3, block_rams=2),
        B: Counter(logic_cells=3),
        ("system", "core", "beat"): Counter(logic_cells=1),
        ("system", "core"): Counter(logic_cells=2),
        ("system", "shell", "link"): Counter(logic_cells=5, block_rams=1),
        ("system", "pll", "reset"): Counter(logic_cells=6),
        (): Counter(logic_cells=7),
    }
    predicted = {"one": {"cells": 12, "flipflops": 5, "blocks": 2, "lut_rams": 0}, "shell": {}}
    routed = {"logic_cells": 36, "flip_flops": 4, "block_rams": 3, "dsps": 0}
    rows = {
        row.name: row
        for row in rows_of(blocks, {"mvu_0": "one", "mvu_1": "head"}, predicted, routed)
    }
    assert list(rows) == ["one", "head", "shell", "place and route"]
    assert rows["one"].packed == blocks[A]
    assert rows["one"].predicted == {"logic_cells": 12, "flip_flops": 5, "block_rams": 2}
    assert rows["head"].packed == {"logic_cells": 3} and rows["head"].predicted is None
    assert rows["shell"].blocks == {
        "constants": {"logic_cells": 7},
        "weight chain and registers": {"logic_cells": 3},
        "clock": {"logic_cells": 6},
        "link": {"logic_cells": 5, "block_rams": 1},
    }
    assert rows["place and route"].packed == {"logic_cells": 2}
    total = total_usage(tuple(rows.values()))
    assert total == {"lost_flip_flops": 3} | {k: count for k, count in routed.items() if count}


@pytest.fixture
def built(tmp_path):
    """A bundle, and a build's result whose netlist has a flip-flop in each block."""
    network = random_network(random.Random(4), sizes=[20, 4, 3])
    bundle = compile_bundle(network, make_plan(network, board="icebreaker"), tmp_path / "net")
    names = block_owners(core_parts(bundle.network, bundle.plan))
    blocks = [("system", "core", name) for name in names]
    net = Netlist(*blocks)
    for block in blocks:
        net.ff(f"ff_{block[2]}", f"q_{block[2]}", "d", block)
    folder = bundle.results / "build"
    folder.mkdir(parents=True)
    top = {"cells": net.cells, "netnames": net.netnames}
    (folder / "netlist.json").write_text(json.dumps({"modules": {"top": top}}))
    (folder / "report.json").write_text("{}")
    used = {"logic_cells": len(names) + 1, "block_rams": 0, "sprams": 0, "dsps": 0}
    used["flip_flops"] = len(names)
    found = {field.name: None for field in dataclasses.fields(BuildResult)}
    return bundle, BuildResult(**{**found, "folder": folder, "used": used})


@pytest.fixture
def packer(built, monkeypatch):
    """Packs each flip-flop by itself; gives the list of its calls."""
    calls = []

    def pack(bundle, result, progress):
        calls.append(result.folder)
        top = json.loads((result.folder / "netlist.json").read_text())["modules"]["top"]
        names = [name for name in top["cells"] if name.startswith("ff_")]
        return packed(*(("ICESTORM_LC", f"{name}_DFFLC", {}) for name in names))

    monkeypatch.setattr(module, "_packed", pack)
    return calls


def test_rows_are_layers_and_are_counted_once_for_a_build(built, packer) -> None:
    bundle, result = built
    rows = layer_usage(bundle, result)
    names = [layer.name for layer in bundle.network.layers]
    assert [row.name for row in rows] == [*names, "head", "shell", "place and route"]
    assert sum(row.packed.get("flip_flops", 0) for row in rows) == result.used["flip_flops"]
    for row in rows[: len(names)]:
        model = bundle.manifest["predicted"]["resources"]["parts"][row.name]
        assert row.predicted["logic_cells"] == model["cells"]
        # Engine, weights and presets at least, each with its flip-flop.
        assert row.packed["flip_flops"] == row.packed["logic_cells"] == len(row.blocks) >= 3
        assert {f"{row.name}.weights_store", f"{row.name}.presets_store"} < set(row.blocks)
    assert layer_usage(bundle, result) == rows and len(packer) == 1
    (result.folder / "report.json").write_text('{"another": "build"}')
    assert layer_usage(bundle, result) == rows and len(packer) == 2
    for damaged in ("{", "[]", "{}"):
        (bundle.results / "layers.json").write_text(damaged)
        assert layer_usage(bundle, result) == rows
    assert len(packer) == 5


def test_circuit_of_another_version_is_said(built, packer) -> None:
    bundle, result = built
    path = result.folder / "netlist.json"
    path.write_text(path.read_text().replace("head", "heads"))
    with pytest.raises(BundleError, match=r"netlist\.json has no block 'head': another version"):
        layer_usage(bundle, result)
    assert not packer


def test_packer_that_fails_is_told_without_its_log(built, monkeypatch) -> None:
    bundle, result = built
    (result.folder / "constraints.pcf").write_text("")

    def fails(*_, log, **__):
        raise ToolError("nextpnr-ice40 failed: ERROR: odd", log=log)

    monkeypatch.setattr("xnorforge.gen.build_steps.run_tool", fails)
    with pytest.raises(ToolError, match=r"^nextpnr-ice40 failed: ERROR: odd$"):
        layer_usage(bundle, result)
    assert not (bundle.results / "layers.json").exists()


def test_bundle_that_cannot_be_written_is_counted_all_the_same(built, packer) -> None:
    bundle, result = built
    (bundle.results / "layers.json").mkdir()
    assert layer_usage(bundle, result) == layer_usage(bundle, result)
    assert len(packer) == 2


@pytest.mark.routing
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("board", ["icebreaker", "ulx3s-12f", "tang-nano-9k"])
def test_real_build_counts_every_cell_once(board, tmp_path, monkeypatch) -> None:
    """Memories of each layer are what its configuration says, everything adds up."""
    network = random_network(random.Random(4), sizes=[24, 8, 8, 4])
    bundle = compile_bundle(network, make_plan(network, board=board), tmp_path / "net")
    result = bundle.build(seeds=(1,))
    rows = layer_usage(bundle, result)
    total = total_usage(rows)
    used = json.loads((result.folder / "timing.json").read_text())["utilization"]
    family = bundle.plan.family
    keys = FAMILIES[family].cell_keys
    for kind, cells in keys.items():
        assert total.get(kind, 0) == sum(used.get(cell, {"used": 0})["used"] for cell in cells)
    assert total["flip_flops"] == result.used["flip_flops"]
    if family != "ice40":
        assert total["flip_flops"] == used[{"ecp5": "TRELLIS_FF", "gowin": "DFF"}[family]]["used"]
    # On Gowin place and route adds LUTs that only lead to a flip-flop.
    assert (rows[-1].name == "place and route") == (family == "gowin")
    assert all(count > 0 for count in rows[-1].packed.values())
    for row in rows:
        if row.predicted is None:
            continue
        for kind in ("block_rams", "sprams"):
            assert row.packed.get(kind, 0) == row.predicted.get(kind, 0), (row.name, kind)
        # yosys leaves out a LUT RAM whose bits nothing needs.
        spared = row.predicted.get("lut_rams", 0) - row.packed.get("lut_rams", 0)
        assert spared in (0, 1), row.name
        for kind in ("logic_cells", "flip_flops"):
            assert row.packed[kind] == pytest.approx(row.predicted[kind], rel=0.6), (row.name, kind)
