# SPDX-License-Identifier: BSD-2-Clause
"""Cores with AXI ports: cocotbext-axi's masters on the Verilog, stalls on every channel."""

from __future__ import annotations

import random

import numpy as np
import pytest

from xnorforge.gen.bundle import compile_bundle
from xnorforge.gen.errors import BundleError, PlanError
from xnorforge.gen.load import load
from xnorforge.gen.planner import make_plan
from xnorforge.sim.axi_run import Step, run_axi
from xnorforge.sim.board import VirtualBoard
from xnorforge.sim.faults import plant
from xnorforge.sim.other_model import other_model
from xnorforge.sim.random_networks import dense_network, random_images
from xnorforge.sim.reference import Executor
from xnorforge.sim.verify import verify
from xnorforge.sim.verilator import lint
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.errors import PortError
from xnorforge.sw.images import load_images
from xnorforge.sw.protocol import MAGIC, AxiRegister, Control, Register
from xnorforge.sw.shipped import shipped_images, shipped_model

OKAY, SLVERR = 0, 2
# Simulation steps a cycle of the bus and of the core, in no simple ratio.
PERIODS = {"one clock": (1000, 1000), "slower core": (1000, 1734), "faster core": (1000, 718)}
KINDS = [
    # Kind and bits of the input, sizes, slots, clocks.
    ("bit", 1, [40, 16, 5], 1, "one clock"),
    ("uint", 5, [23, 9, 3], 2, "slower core"),
    ("bit", 1, [77, 20, 4], 1, "faster core"),
    ("int", 4, [30, 8, 2], 2, "one clock"),
]


def case(tmp_path, kind, bits, sizes, slots, clocks):
    network = dense_network(np.random.default_rng(bits), sizes, kind, bits)
    plan = make_plan(
        network,
        device="ecp5-25f",
        goal="max" if bits == 1 else "min",
        slots=slots,
        link="axi",
        bus_clock_hz=None if clocks == "one clock" else 1.25e8,
    )
    bundle = compile_bundle(network, plan, tmp_path / "bundle")
    images = random_images(np.random.default_rng(2), network, 60)
    return bundle, images


def cuts(rng, rounds, count, bundle, clocks):
    """Images that are cut off at a random cycle, and after each some that must be whole."""
    bus, core = PERIODS[clocks]
    cycles = int(bundle.manifest["predicted"]["interval_cycles"] * count * core / bus)
    steps = []
    for k in range(rounds):
        idle, stall = rng.choice([0, 0.3]), rng.choice([0, 0.3])
        after, end = rng.randint(2, cycles), ("reset", "flush")[k % 2]
        steps.append(Step("images", count=count, after=after, end=end, idle=idle, stall=stall))
        steps.append(Step("images", count=8, idle=stall, stall=idle))
    return steps


def check(steps, found, expected):
    """Every packet that was not cut is the reference's; nothing but cut steps has spoilt ones."""
    for step, packets in zip(steps, found, strict=True):
        if step.kind != "images":
            continue
        count = len(packets.result.labels)
        assert count <= step.count and not packets.stuck
        assert step.after is not None or (count, packets.spoilt) == (step.count, 0)
        # Of a flush: the packet that had begun, and the rest of an image that came behind it.
        assert packets.spoilt <= 2 * (step.end == "flush")
        assert np.array_equal(packets.result.scores, expected[step.slot].scores[:count])
        assert np.array_equal(packets.result.labels, expected[step.slot].labels[:count])


@pytest.mark.parametrize("kind, bits, sizes, slots, clocks", KINDS)
def test_images_are_exact_under_stalls_resets_and_flushes(
    kind, bits, sizes, slots, clocks, tmp_path
):
    bundle, images = case(tmp_path, kind, bits, sizes, slots, clocks)
    source = bundle.path / "accelerator.v"
    lint([source], "xnorforge_axi")
    expected = [Executor(bundle.network).run(images)]
    rng = random.Random(bits)
    steps = [Step("images", count=60), Step("images", count=60, idle=0.3, stall=0.3)]
    steps += cuts(rng, 6, 20, bundle, clocks)
    if slots == 2:
        other = other_model(bundle.network, bundle.plan, images)
        expected.append(other.result)
        steps += [Step("load", data=other.load.hex(), slot=1, idle=0.2)]
        steps += [Step("images", count=10, slot=k % 2, idle=0.1 * k) for k in range(4)]
    found = run_axi(
        [source], bundle.network, bundle.plan, images, steps, periods=PERIODS[clocks], seed=bits
    )
    check(steps, found, expected)
    cut = [len(p.result.labels) for s, p in zip(steps, found, strict=True) if s.after is not None]
    assert 0 < sum(cut) < 20 * len(cut)  # in the middle


@pytest.mark.parametrize("clocks", ["one clock", "slower core"])
def test_registers_answer_as_the_bus_asks(clocks, tmp_path):
    bundle, images = case(tmp_path, "bit", 1, [40, 16, 5], 1, clocks)
    load = (bundle.path / "weights.bin").read_bytes()
    own = Executor(bundle.network).run(images)
    other = other_model(bundle.network, bundle.plan, images)
    registers = (*Register, *AxiRegister)
    known = tuple(4 * register for register in registers)
    digest = (4 * Register.WEIGHTS_DIGEST, 4 * Register.STATUS, 4 * Register.ERRORS)
    stalled = {"idle": 0.3, "stall": 0.3}
    steps = [
        Step("registers", addresses=known, **stalled),
        Step("registers", addresses=(4 * 15, 4 * 23, 4 * 200, 0xFFC)),
        Step("writes", words=((0, 1), (4 * Register.ERRORS, 0), (0x800, 0)), **stalled),
        Step(
            "writes", words=((4 * AxiRegister.CONTROL, 0), (4 * AxiRegister.CONTROL, Control.FLUSH))
        ),
        # A load that ends too early leaves no model, and the next one is whole again.
        Step("load", data=other.load[:-3].hex()),
        Step("registers", addresses=digest),
        Step("load", data=other.load.hex(), idle=0.3),
        Step("registers", addresses=digest),
        Step("images", count=20, **stalled),
        Step("load", data=load[:9].hex()),
        Step("writes", words=((4 * AxiRegister.CONTROL, Control.RELOAD),)),
        Step("load", data=load.hex()),
        Step("images", count=20),
    ]
    found = run_axi(
        [bundle.path / "accelerator.v"],
        bundle.network,
        bundle.plan,
        images,
        steps,
        periods=PERIODS[clocks],
    )
    words = dict(zip(registers, (word for word, _ in found[0].answers), strict=True))
    codes = dict(zip(registers, (code for _, code in found[0].answers), strict=True))
    absent = {Register.WINDOW}
    assert {register for register, code in codes.items() if code != OKAY} == absent
    assert words[Register.MAGIC] == MAGIC
    assert words[Register.PLAN_HASH] == bundle.manifest["plan_hash"]
    assert words[Register.WEIGHTS_DIGEST] == bundle.manifest["weights_digest"]
    assert (words[Register.IMAGE_BYTES], words[AxiRegister.LOAD_BYTES]) == (5, len(load))
    assert words[AxiRegister.BEAT_BYTES] == bundle.manifest["link"]["beat_bytes"]
    # Core registers that are not there read 0; beyond the shell's there is nothing.
    assert found[1].answers == [(0, OKAY), (0, SLVERR), (0, SLVERR), (0, SLVERR)]
    assert found[2].codes == [SLVERR] * 3 and found[3].codes == [OKAY] * 2
    assert found[5].answers == [(0, OKAY), (0, OKAY), (1 << 16, OKAY)]
    other_digest = int.from_bytes(other.load[-4:], "little")
    assert found[7].answers == [(other_digest, OKAY), (1, OKAY), (1 << 16, OKAY)]
    assert np.array_equal(found[8].result.scores, other.result.scores[:20])
    assert np.array_equal(found[12].result.scores, own.scores[:20])


def test_verify_runs_the_axi_ports_and_sees_a_fault(tmp_path):
    bundle, images = case(tmp_path, "bit", 1, [40, 16, 5], 1, "slower core")
    report = verify(bundle.path, "rtl", images=images)
    assert report.passed and "cocotbext-axi" in str(report)
    assert report.comparisons["shell"].images == 20
    fault = plant(bundle.network, "weight", images)
    report = verify(bundle.path, "rtl", images=images, fault=fault)
    assert not report.passed and report.comparisons["shell"].word == "MISMATCH"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("clocks", PERIODS)
def test_a_thousand_images_of_tfc(clocks, tmp_path):
    network = load(shipped_model("mnist-tfc"))
    images, _ = load_images(shipped_images(), shape=network.input.value.shape)
    bus = None if clocks == "one clock" else 1.25e8
    plan = make_plan(network, device="ecp5-25f", fps=1e6, link="axi", bus_clock_hz=bus)
    bundle = compile_bundle(network, plan, tmp_path / "bundle")
    expected = Executor(network).run(images[np.arange(1000) % len(images)])
    rng = random.Random(3)
    steps = [Step("images", count=1000, idle=0.2, stall=0.2), *cuts(rng, 12, 40, bundle, clocks)]
    found = run_axi(
        [bundle.path / "accelerator.v"], network, plan, images, steps, periods=PERIODS[clocks]
    )
    check(steps, found, [expected])


def test_what_has_no_pins_is_neither_built_nor_served(tmp_path):
    bundle, _ = case(tmp_path, "bit", 1, [40, 16, 5], 1, "one clock")
    with pytest.raises(PlanError, match="a core for a design of your own"):
        bundle.build()
    with pytest.raises(BundleError, match="without a board's top"):
        VirtualBoard(bundle.path)
    with pytest.raises(PortError, match="a core for a design of your own"):
        Accelerator.open(bundle.path, "/dev/null")
    with pytest.raises(PortError, match="link axi, which has no baud rate"):
        Accelerator.open(bundle.path, "socket://127.0.0.1:1", baud=9600)


@pytest.mark.parametrize(
    "wrong, settings",
    [
        ("give --fps, --max or --min", {"link": "axi"}),
        ("no use for a baud rate", {"link": "axi", "goal": "min", "baud": 9600}),
        ("Bus clock must be a positive", {"link": "axi", "goal": "min", "bus_clock_hz": -1.0}),
        ("goes with link axi, not with uart", {"bus_clock_hz": 1e8}),
        ("Link must be one of uart, axi, pcie, not 'pci'", {"link": "pci"}),
    ],
)
def test_settings_that_do_not_go_together(wrong, settings):
    network = dense_network(np.random.default_rng(1), [8, 4], "bit", 1)
    with pytest.raises(PlanError, match=wrong):
        make_plan(network, device="ecp5-25f", **settings)


def test_a_board_says_which_device_and_what_clock():
    network = dense_network(np.random.default_rng(1), [8, 4], "bit", 1)
    plan = make_plan(network, board="icebreaker", goal="min", link="axi")
    assert (plan.board, plan.device, plan.clock_hz) == (None, "ice40-up5k", 36e6)
