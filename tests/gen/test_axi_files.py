# SPDX-License-Identifier: BSD-2-Clause
"""What a core with AXI ports brings along, used as its user would: FuseSoC, LiteX, an instance."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xnorforge.gen.axi_files import AXI_FILES
from xnorforge.gen.bundle import Bundle, compile_bundle
from xnorforge.gen.errors import BundleError
from xnorforge.gen.planner import make_plan
from xnorforge.sim.random_networks import dense_network
from xnorforge.sim.verilator import environment, lint

SYSTEM = """
from migen import ClockDomain
from litex.build.sim import SimPlatform
from litex.build.generic_platform import Pins
from litex.soc.integration.soc import SoCRegion
from litex.soc.integration.soc_core import SoCMini
from litex_core import BinaryNetwork

pins = [(name, 0, Pins(1)) for name in ("sys_clk", "sys_rst", "bnn_clk")]
platform = SimPlatform("SIM", pins)
soc = SoCMini(platform, clk_freq=int(125e6))
soc.cd_sys, soc.cd_bnn = ClockDomain("sys"), ClockDomain("bnn")
soc.comb += [
    soc.cd_sys.clk.eq(platform.request("sys_clk")),
    soc.cd_sys.rst.eq(platform.request("sys_rst")),
    soc.cd_bnn.clk.eq(platform.request("bnn_clk")),
]
soc.bnn = bnn = BinaryNetwork(platform)
soc.bus.add_slave("bnn", bnn.bus, SoCRegion(origin=0x30000000, size=0x1000, cached=False))
# Results go round to the weights: it only has to be wired, on both sides.
soc.comb += [
    bnn.weights.data.eq(bnn.results.data),
    bnn.weights.valid.eq(bnn.results.valid),
    bnn.results.ready.eq(bnn.weights.ready),
    bnn.images.valid.eq(bnn.spoilt),
]
soc.finalize()
platform.get_verilog(soc, name="system").write("system.v")
print([source[0] for source in platform.sources])
"""


@pytest.fixture(params=[None, 1.25e8], ids=["one clock", "two clocks"])
def bundle(request, tmp_path):
    network = dense_network(np.random.default_rng(1), [40, 16, 5], "bit", 1)
    slots = 1 if request.param else 2
    plan = make_plan(
        network,
        device="ecp5-25f",
        goal="max",
        link="axi",
        bus_clock_hz=request.param,
        slots=slots,
    )
    return compile_bundle(network, plan, tmp_path / "bundle")


def fusesoc(bundle, folder, target):
    """Runs a target of the bundle's FuseSoC core; what it printed."""
    folder.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fusesoc.main", "--cores-root", str(bundle.path)),
            *("run", "--target", target, "xnorforge::random:1.0.0"),
        ],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def test_fusesoc_resolves_lints_and_simulates_the_core(bundle, tmp_path):
    status, text = fusesoc(bundle, tmp_path / "lint", "lint")
    assert status == 0, text
    status, text = fusesoc(bundle, tmp_path / "sim", "sim")
    assert status == 0 and "PASS: 8 images, all scores and labels equal" in text, text
    # A wrong weight is seen.
    weights = bundle.path / "weights.hex"
    first, *rest = weights.read_text().splitlines()
    weights.write_text("\n".join([f"{int(first, 16) ^ 1:02x}", *rest]) + "\n")
    status, text = fusesoc(bundle, tmp_path / "wrong", "sim")
    assert status != 0 and "PASS" not in text and "FAIL" in text


def test_the_instance_lints(bundle):
    lint([bundle.path / "instance.v", bundle.path / "accelerator.v"], "xnorforge_axi_example")


def test_a_litex_system_with_the_core_elaborates(bundle, tmp_path):
    script = tmp_path / "system.py"
    script.write_text(SYSTEM)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(bundle.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert str(bundle.path / "accelerator.v") in done.stdout
    verilog = (tmp_path / "system.v").read_text()
    assert "xnorforge_axi xnorforge_axi" in verilog
    # LiteX's own Verilog is not clean: only ports that are missing or of another width count.
    done = subprocess.run(
        [
            *("verilator", "--lint-only", "-Wno-fatal", "--top-module", "system"),
            *(str(tmp_path / "system.v"), str(bundle.path / "accelerator.v")),
        ],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ports = [
        line for line in done.stderr.splitlines() if "port connection" in line or "PIN" in line
    ]
    assert [line for line in ports if "system.v:" in line] == []


def test_files_belong_to_the_bundle(bundle):
    assert set(AXI_FILES) <= bundle.manifest["files"].keys()
    assert {path.name for path in bundle.path.iterdir()} >= set(AXI_FILES)
    (bundle.path / "testbench.v").write_text("")
    with pytest.raises(BundleError, match=r"testbench\.v has changed"):
        Bundle.open(bundle.path)


def test_core_description_names_the_network(tmp_path):
    network = dense_network(np.random.default_rng(1), [8, 4], "bit", 1)
    plan = make_plan(network, device="ice40-hx8k", goal="min", link="axi")
    text = (compile_bundle(network, plan, Path(tmp_path) / "b").path / "xnorforge.core").read_text()
    assert text.startswith("CAPI=2:\n") and f"name: xnorforge::{network.name}:1.0.0" in text
