# SPDX-License-Identifier: BSD-2-Clause
"""New weights in a finished bitstream: the same as a build of them, and nothing else changed."""

import dataclasses
import re
import shutil
import subprocess
from functools import partial

import numpy as np
import pytest

from xnorforge.gen import load
from xnorforge.gen.assembly import core_parts
from xnorforge.gen.boards import baud_divisor, plan_board
from xnorforge.gen.build import build
from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.errors import BundleError, ModelError, PlanError, ToolError
from xnorforge.gen.memory_contents import MemoryContents, check_filled, memory_contents
from xnorforge.gen.patch import patch
from xnorforge.gen.planner import make_plan
from xnorforge.sim.board import VirtualBoard
from xnorforge.sim.random_networks import dense_network, random_images, random_network
from xnorforge.sim.reference import Executor
from xnorforge.sim.verilator import MODELS
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.shipped import shipped_model

PATCHERS = {"icebreaker": "icebram", "ulx3s-25f": "ecpbram"}
SIZES = [40, 24, 10, 6]


def network_of(seed, sizes=SIZES):
    return dense_network(np.random.default_rng(seed), sizes)


def with_numbers_of(seed, network):
    """Another network of the same shape."""
    rng = np.random.default_rng(seed)
    layers = []
    for layer in network.layers:
        changes = {}
        if hasattr(layer, "weights"):
            changes["weights"] = rng.permutation(layer.weights.reshape(-1)).reshape(
                layer.weights.shape
            )
        if getattr(layer, "thresholds", None) is not None and layer.thresholds.ndim == 1:
            changes["thresholds"] = layer.thresholds + rng.integers(-2, 3, layer.thresholds.shape)
        layers.append(dataclasses.replace(layer, **changes))
    return dataclasses.replace(network, layers=tuple(layers))


def patchable(network, board="icebreaker", **options):
    return make_plan(network, board=board, weights="patchable", **options)


@pytest.mark.parametrize("board", PATCHERS)
def test_blank_design_is_the_same_for_every_network_of_a_plan(board):
    network = network_of(1)
    other = with_numbers_of(2, network)
    plan = patchable(network, board)
    assert plan.structure_hash(network) == plan.structure_hash(other)
    one, two = (memory_contents(item, plan, PATCHERS[board]) for item in (network, other))
    assert one.verilog == two.verilog
    assert np.array_equal(one.blank, two.blank) and not np.array_equal(one.wanted, two.wanted)
    assert len({row.tobytes() for row in one.blank}) == len(one.blank)


def test_patchable_plan_is_another_one():
    network = network_of(1)
    plan = patchable(network)
    assert plan.structure_hash(network) != dataclasses.replace(
        plan, patchable=False
    ).structure_hash(network)
    assert all(config.patchable for _, config, _ in core_parts(network, plan).stores)


@pytest.mark.parametrize("slices", [4, 5, 6, 7, 8, 41])
def test_every_slice_is_replaced_whatever_their_number(slices):
    rng = np.random.default_rng(slices)
    blank, wanted = rng.integers(0, 2, (2, slices, 256)).astype(np.uint8)
    held = blank.copy()
    for replacement in MemoryContents("", blank, wanted).replacements():
        assert len(replacement.old) % 4 == 0
        found = {row.tobytes(): k for k, row in enumerate(held)}
        places = [found[row.tobytes()] for row in replacement.old]
        assert len(set(places)) == len(places)
        held[places] = replacement.new
    assert np.array_equal(held, wanted)


def test_memory_that_was_not_found_is_an_error(tmp_path):
    blank = np.random.default_rng(0).integers(0, 2, (4, 256)).astype(np.uint8)
    contents = MemoryContents("", blank, blank ^ 1)
    routed = ".comment x\n\n.ram_data 6 1\n" + "00ff\n" * 16 + "\n.logic_tile 1 1\n0101\n"
    for name, text in (("a", routed), ("b", routed.replace("00ff", "00fe", 1))):
        (tmp_path / name).write_text(text)
    with pytest.raises(ToolError, match="changed 1 bits instead of 1024"):
        check_filled(tmp_path / "a", tmp_path / "b", contents, tmp_path / "log")
    with pytest.raises(ToolError, match="changed 0 bits instead of 1024"):
        check_filled(tmp_path / "a", tmp_path / "a", contents, tmp_path / "log")


@pytest.mark.parametrize("seed", range(2))
def test_booted_core_gives_what_the_network_does(seed, tmp_path):
    network = random_network(np.random.default_rng(20 + seed))
    plan = patchable(network, ("icebreaker", "ulx3s-25f")[seed])
    bundle = compile_bundle(network, plan, tmp_path / "net")
    assert bundle.manifest["weights"]["must_load"] is False
    images = random_images(np.random.default_rng(0), network, 4)
    assert bundle.verify("rtl", images=images).passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"board": "tang-nano-9k"}, "cannot be patchable on tang-nano-9k: bitstreams of boards"),
        ({"device": "ecp5-25f"}, "cannot be patchable on ecp5-25f"),
        (
            {"board": "icebreaker", "overrides": {"dense1": {"weight_store": "spram"}}},
            "layer 'dense1': weight_store 'spram' is no memory whose words a bitstream holds",
        ),
    ],
)
def test_what_cannot_be_patchable_is_refused(options, message):
    network = network_of(1)
    if "overrides" in options:
        name = network.layers[1].name
        options = {**options, "overrides": {name: options["overrides"]["dense1"]}}
        message = message.replace("dense1", name)
    with pytest.raises(PlanError, match=re.escape(message)):
        make_plan(network, weights="patchable", **options)


def test_what_cannot_be_patched_is_refused(tmp_path):
    network = network_of(1)
    other = with_numbers_of(2, network)
    plain = compile_bundle(network, make_plan(network, board="icebreaker"), tmp_path / "plain")
    with pytest.raises(BundleError, match="compile it with --patchable"):
        patch(plain, other, tmp_path / "out")
    bundle = compile_bundle(network, patchable(network), tmp_path / "net")
    with pytest.raises(BundleError, match="no finished bitstream: build it first"):
        patch(bundle, other, tmp_path / "out")
    with pytest.raises(BundleError, match="cannot be patched into itself"):
        patch(bundle, other, bundle.path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").touch()
    with pytest.raises(BundleError, match="exists and is not a bundle"):
        patch(bundle, other, tmp_path / "full")
    first = network.layers[0].name
    stores = {first: {"weight_store": "spram"}}
    plan = make_plan(network, board="icebreaker", overrides=stores)
    in_spram = compile_bundle(network, plan, tmp_path / "spram")
    with pytest.raises(BundleError, match=r"lies in SPRAM.*through the driver"):
        patch(in_spram, other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- place and route -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=PATCHERS)
def built(request, tmp_path_factory):
    """A built bundle of each family."""
    network = network_of(1)
    folder = tmp_path_factory.mktemp("patch")
    bundle = compile_bundle(network, patchable(network, request.param), folder / "net")
    build(bundle, seeds=(1,))
    return bundle


@pytest.mark.routing
def test_patched_bitstream_is_that_of_a_whole_build(built, tmp_path):
    other = with_numbers_of(2, built.network)
    result = patch(built, other, tmp_path / "other")
    patched = result.bitstream.read_bytes()
    assert patched != (built.results / "build" / result.bitstream.name).read_bytes()
    assert "place_and_route" not in result.seconds
    assert build(tmp_path / "other").cached
    again = build(tmp_path / "other", seeds=(1,), force=True)
    assert not again.reused and again.bitstream.read_bytes() == patched
    back = patch(tmp_path / "other", built.network, tmp_path / "back")
    own = built.results / "build" / result.bitstream.name
    assert back.bitstream.read_bytes() == own.read_bytes()


@pytest.mark.routing
def test_model_of_another_shape_is_refused(built, tmp_path):
    with pytest.raises(ModelError, match="does not go on the circuit"):
        patch(built, network_of(3, [40, 16, 10, 6]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.routing
def test_netlist_differs_from_the_routed_one_in_contents_only(built):
    images = random_images(np.random.default_rng(0), built.network, 5)
    report = built.verify("netlist", images=images)
    assert report.passed and "the bitstream's" in str(report)


@pytest.mark.routing
@pytest.mark.skipif(shutil.which("icebox_vlog") is None, reason="fpga-icestorm is not installed")
@pytest.mark.parametrize("name", ["small", pytest.param("mnist-tfc", marks=pytest.mark.slow)])
def test_logic_extracted_from_a_patched_bitstream_is_the_new_model(name, tmp_path):
    network = network_of(1) if name == "small" else load(shipped_model(name))
    bundle = compile_bundle(network, patchable(network), tmp_path / "net")
    build(bundle, seeds=(1,))
    other = with_numbers_of(2, network)
    result = patch(bundle, other, tmp_path / "other")
    verilog = extracted(result.bitstream, plan_board(bundle.plan), tmp_path)
    images = random_images(np.random.default_rng(0), network, 20)
    plan = bundle.plan
    with (
        VirtualBoard.from_verilog(
            [verilog, *(MODELS / name for name in ("ice40/sb_ram40_4k.v", "common/block_ram.v"))],
            baud_divisor=baud_divisor(plan.clock_hz, plan.baud),
            idle_cycles=1 << 62,
        ) as board,
        Accelerator.open(
            tmp_path / "other",
            board.socket,
            load="never",
            clock=partial(board.seconds, plan.clock_hz),
        ) as accelerator,
    ):
        scores = accelerator.scores(images)
    assert np.array_equal(scores, Executor(other).run(images).scores)
    assert not np.array_equal(scores, Executor(network).run(images).scores)


def extracted(bitstream, board, folder):
    """Verilog of the logic in an iCE40 bitstream, its PLL replaced by the clock pin."""
    text = folder / "extracted.asc"
    pins = folder / "pins.pcf"
    pins.write_text("".join(f"set_io {name} {pin.site}\n" for name, pin in board.pins.items()))
    subprocess.run(["iceunpack", str(bitstream), str(text)], check=True)
    found = subprocess.run(
        ["icebox_vlog", "-s", "-n", "top", "-p", str(pins), str(text)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    pll = re.search(r"SB_PLL40_PAD #\(.*?\) \w+ \((.*?)\);", found, re.DOTALL)
    ports = dict(re.findall(r"\.(\w+)\((n\d+)\)", pll.group(1)))
    wires = f"assign {ports['PLLOUTGLOBAL']} = clk_in;\nassign {ports['LOCK']} = 1'b1;"
    found = found.replace(pll.group(0), wires)
    # Pins are declared as ports and again as wires.
    found = re.sub(
        r"^wire .*$", lambda m: re.sub(r"\b(rx|tx|led)\b", r"\1_", m[0]), found, flags=re.M
    )
    path = folder / "extracted.v"
    path.write_text(found)
    return path
