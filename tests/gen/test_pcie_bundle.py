# SPDX-License-Identifier: BSD-2-Clause
"""Bundles for PCIe boards: their files, pins and clocks, and what cannot be asked of them."""

from __future__ import annotations

import importlib.util
import re

import numpy as np
import pytest

from xnorforge.gen import litepcie
from xnorforge.gen.bundle import Bundle, compile_bundle
from xnorforge.gen.cards import CARDS, get_card
from xnorforge.gen.errors import BundleError, PlanError
from xnorforge.gen.extras import MissingPackageError
from xnorforge.gen.mmcm import Mmcm
from xnorforge.gen.pcie import dma_beat_bytes
from xnorforge.gen.planner import make_plan
from xnorforge.gen.tools import run_tool
from xnorforge.sim.random_networks import dense_network
from xnorforge.sim.verify import verify
from xnorforge.sw.manifest import Manifest

NETWORK = dense_network(np.random.default_rng(1), [98, 16, 5], "bit", 1)


@pytest.fixture(scope="module", params=CARDS)
def bundle(request, tmp_path_factory):
    plan = make_plan(NETWORK, board=request.param, link="pcie", goal="min")
    return compile_bundle(NETWORK, plan, tmp_path_factory.mktemp("bundle") / "net")


def test_bundle_is_whole_and_the_same_each_time(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    again = compile_bundle(NETWORK, bundle.plan, "again")
    assert again.manifest == bundle.manifest
    files = bundle.manifest["files"]
    script = (bundle.path / "vivado.tcl").read_text()
    for name in re.findall(r"\S+\.(?:v|init|xdc)\b", script):
        assert name in files, name
    assert "{{" not in script + (bundle.path / "top.v").read_text()
    assert {"litepcie/csr.h", "litepcie/soc.h", "litepcie/litepcie_core.v"} <= set(files)
    present = {str(p.relative_to(bundle.path)) for p in bundle.path.rglob("*") if p.is_file()}
    assert present == {*files, "manifest.json"}
    (bundle.path / "top.v").write_text((bundle.path / "top.v").read_text() + "\n")
    with pytest.raises(Exception, match=r"top\.v"):
        Bundle.open(bundle.path)
    (bundle.path / "top.v").write_text((bundle.path / "top.v").read_text()[:-1])


def test_modules_fit_each_other(bundle, tmp_path):
    names = [name for name in bundle.manifest["files"] if name.endswith(".v")]
    # AMD's adapters are not for yosys, and the hard block is none of ours.
    names = [name for name in names if "adapt" not in name and "support" not in name]
    reads = "".join(f"read_verilog -sv {bundle.path / name}\n" for name in names)
    script = tmp_path / "read.ys"
    memories = "".join(
        f"!cp {bundle.path / name} .\n" for name in bundle.manifest["files"] if ".init" in name
    )
    script.write_text(
        f"{memories}{reads}hierarchy -top top\nselect -assert-count 1 top/w:pcie_rst_n\n"
    )
    run_tool("yosys", [str(script)], cwd=tmp_path, log=tmp_path / "log")


def test_driver_finds_its_addresses(bundle):
    card = Manifest.read(bundle.path).card
    header = (bundle.path / "litepcie" / "csr.h").read_text()
    found = re.search(r"PCIE_DMA0_READER_TABLE_LOOP_STATUS_ADDR \(CSR_BASE \+ (\w+)L\)", header)
    assert card.dma_status == int(found[1], 16)
    assert card.registers == 0x20000 and card.beat_bytes == 1


def test_constraints_name_every_pin_and_the_crossings(bundle):
    card = get_card(bundle.plan.card)
    pins = (bundle.path / "top.xdc").read_text()
    for port, sites in card.pins.items():
        for site in sites.split():
            assert f"PACKAGE_PIN {site} [get_ports {{{port}" in pins
    assert "create_clock -name pcie_clk_p -period 10.0" in pins
    period = 1e9 / max(card.pcie.clock_hz, bundle.plan.clock_hz)
    assert f"-datapath_only {period:.3f}" in (bundle.path / "clocks.xdc").read_text()


@pytest.mark.parametrize(
    ("name", "platform"), [("litefury", "LitefuryPlatform"), ("nitefury-ii", "NitefuryIIPlatform")]
)
def test_pins_are_those_of_amaranth_boards(name, platform):
    nitefury = pytest.importorskip("amaranth_boards.nitefury")
    board, card = getattr(nitefury, platform), get_card(name)
    assert card.part == f"{board.device}{board.package}-{board.speed}"
    (pcie,) = (resource for resource in board.resources if resource.name == "pcie")
    theirs = {}
    for part in pcie.ios:
        pins = part.ios[0]
        if hasattr(pins, "p"):
            theirs |= {f"{part.name}_p": pins.p.names, f"{part.name}_n": pins.n.names}
        else:
            theirs[part.name] = pins.names
    ours = {port: sites.split() for port, sites in card.pins.items()}
    assert ours.pop("clkreq_n") == theirs.pop("clkreq")
    assert ours.pop("pcie_rst_n") == theirs.pop("rst")
    assert ours == {f"pcie_{port}": sites for port, sites in theirs.items()}


@pytest.mark.parametrize("phy, source", [("S7PCIEPHY", 125e6), ("USPPCIEPHY", 250e6)])
@pytest.mark.parametrize("wanted", [25e6, 62.5e6, 99e6, 100e6, 133.3e6, 180e6, 312.5e6])
def test_mmcm_comes_near_within_its_ranges(phy, source, wanted):
    found = Mmcm.nearest(phy, source, wanted)
    assert found.output_hz(source) == pytest.approx(wanted, rel=0.01)
    low, high = {"S7PCIEPHY": (600e6, 1200e6), "USPPCIEPHY": (800e6, 1600e6)}[phy]
    assert low <= source * found.multiply / found.divide <= high


@pytest.mark.parametrize(
    ("size", "cycles", "beat"),
    [(98, 76, 2), (98, 20, 8), (98, 8, 16), (98, 200, 2), (784, 100, 16), (97, 200, 1), (5, 1, 16)],
)
def test_beats_leave_the_fewest_bytes_that_the_rate_allows(size, cycles, beat):
    network = dense_network(np.random.default_rng(1), [8 * size, 4], "bit", 1)
    assert dma_beat_bytes(network, cycles) == beat


@pytest.mark.parametrize(
    ("message", "settings"),
    [
        ("Board icebreaker has no PCIe: link pcie is for litefury", {"board": "icebreaker"}),
        ("needs a board, .*; not device ecp5-85f", {"device": "ecp5-85f"}),
        ("needs a board, .*; not device xc7a100t", {"device": "xc7a100t"}),
        ("Board must be one of .*not 'fury'", {"board": "fury"}),
        ("give --fps, --max or --min", {"board": "litefury", "goal": "link"}),
        ("no use for pins", {"board": "litefury", "pins": {"rx": "A1"}}),
        ("no use for a baud rate", {"board": "litefury", "baud": 9600}),
        ("MMCM makes .*not 2000 MHz", {"board": "litefury", "clock_hz": 1e9 * 2}),
        ("A bus clock goes with link axi", {"board": "litefury", "bus_clock_hz": 1e8}),
    ],
)
def test_what_cannot_be_is_named(message, settings):
    if settings.get("clock_hz", 0) > 1e9:
        message = "Clock must be a positive number up to"
    with pytest.raises(PlanError, match=message):
        make_plan(NETWORK, link="pcie", **{"goal": "min", **settings})


def test_uart_on_such_a_board_and_axi_with_its_device():
    with pytest.raises(PlanError, match="Board litefury has no UART: its links are pcie and axi"):
        make_plan(NETWORK, board="litefury")
    plan = make_plan(NETWORK, board="litefury", link="axi", goal="min")
    assert (plan.device, plan.card, plan.family) == ("xc7a100t", None, "xilinx")


def test_clock_is_what_the_mmcm_makes():
    plan = make_plan(NETWORK, board="litefury", link="pcie", goal="min", clock_hz=99.3e6)
    assert plan.clock_hz == pytest.approx(99.3e6, rel=0.005)
    assert plan.at_clock(110e6).clock_hz == pytest.approx(110e6, rel=0.005)
    with pytest.raises(PlanError, match="Board litefury: its MMCM makes"):
        plan.at_clock(1e6)


def test_netlist_is_vivados(bundle):
    with pytest.raises(BundleError, match="whose netlist Vivado makes: verify it at level rtl"):
        verify(bundle.path, "netlist", images=NETWORK.input.draw(np.random.default_rng(0), 2))


def test_bitstream_is_vivados(bundle):
    with pytest.raises(PlanError, match=r"run `vivado -mode batch -source .*vivado\.tcl`"):
        bundle.build()


def test_missing_extra_is_one_sentence(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        litepcie.importlib.util,
        "find_spec",
        lambda name: None if name == "litepcie" else found(name),
    )
    plan = make_plan(NETWORK, board="litefury", link="pcie", goal="min")
    with pytest.raises(MissingPackageError, match=r"pip install 'xnorforge\[pcie\]'"):
        compile_bundle(NETWORK, plan, tmp_path / "net")
    assert not (tmp_path / "net").exists()
