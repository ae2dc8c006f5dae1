# SPDX-License-Identifier: BSD-2-Clause
"""accelerator.v: reproducible, readable from outside, clean under Verilator's lint."""

import random
import re

import pytest

from xnorforge.gen.assembly import core_parts
from xnorforge.gen.planner import make_plan
from xnorforge.gen.verilog import accelerator_verilog
from xnorforge.sim.core_bench import random_case, random_network
from xnorforge.sim.verilator import MODELS, lint

PORTS = {
    *("image_data", "image_valid", "image_ready"),
    *("result_score", "result_label", "result_last", "result_valid", "result_ready"),
    *("config_data", "config_first", "config_valid", "config_ready"),
    *("register_address", "register_data", "flush", "clk", "rst"),
}


@pytest.fixture(scope="module")
def board_case():
    network = random_network(random.Random(4), sizes=[100, 20, 7])
    return network, make_plan(network, board="icebreaker")


def test_same_network_and_plan_give_the_same_text(board_case):
    network, plan = board_case
    first, second = (accelerator_verilog(network, plan, core_parts(network, plan)) for _ in "ab")
    assert first == second


def test_core_has_the_documented_ports(board_case):
    network, plan = board_case
    text = accelerator_verilog(network, plan, core_parts(network, plan))
    header = re.search(r"module xnorforge_core\((.*?)\);", text, flags=re.DOTALL)
    assert header and set(header[1].replace("\n", "").split(", ")) == PORTS


@pytest.mark.parametrize("top", ["top", "xnorforge_core"])
def test_lint_is_clean_with_the_allowed_warnings(board_case, top, tmp_path):
    network, plan = board_case
    source = tmp_path / "accelerator.v"
    source.write_text(accelerator_verilog(network, plan, core_parts(network, plan)))
    lint([source, *(sorted(MODELS.glob("*.v")) if top == "top" else [])], top)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_lint_is_clean_for_random_cores(seed, tmp_path):
    network, plan = random_case(seed)
    source = tmp_path / "accelerator.v"
    source.write_text(accelerator_verilog(network, plan, core_parts(network, plan)))
    lint([source], "xnorforge_core")
