# SPDX-License-Identifier: BSD-2-Clause
"""How far a tool is, read from its log while that grows."""

from __future__ import annotations

import pytest

from xnorforge.gen import tool_progress
from xnorforge.gen.tool_progress import LogWatcher

YOSYS = (
    ("\n1. Executing Verilog-2005 frontend: accelerator.v\n", "pass 1, Verilog-2005"),
    ("Generating RTLIL representation for module `\\a'.\n", "pass 1, Verilog-2005"),
    ("6. Executing SYNTH_ECP5 pass.\n", "pass 6, SYNTH_ECP5"),
    ("6.45. Executing TECHMAP pass (map to techn", "pass 6, SYNTH_ECP5"),
    ("ology primitives).\n", "pass 6.45, TECHMAP"),
    # What a pass calls in turn leaves its name alone, another pass does not.
    ("6.45.3.7. Executing PROC_MUX pass (convert).\n", "pass 6.45, TECHMAP"),
    ("6.46.3.7. Executing PROC_MUX pass (convert).\n", "pass 6.46, PROC_MUX"),
    ("6.46. Executing ABC9 pass.\n", "pass 6.46, ABC9"),
)
NEXTPNR = (
    ("Info: Pack IOBs...\n", "packing"),
    ("Info:     at initial placer iter 3, wirelen = 887\n", "placing"),
    (
        "Info:     at iteration #12, type ALL: wirelen solved = 35, spread = 40, legal = 57\n",
        "placing, iteration 12",
    ),
    (
        "Info:   at iteration #5: temp = 0.000000, timing cost = 511, wirelen = 10612\n",
        "refining the placement, iteration 5",
    ),
    ("Info: Routing..\n", "routing"),
    (
        "Info:       2000 |      114       1885 |   58   942 |     11723|       7.68      20.42|\n",
        "routing, 11,723 wires to go",
    ),
    (
        "Info:     iter=3 wires=180442 overused=1233 overuse=1280 archfail=NA\n",
        "routing, 1,233 wires taken twice",
    ),
    ("Info: Critical path report for clock 'clk' (posedge -> posedge):\n", "timing"),
    ("Info:       type curr  total name\n", "timing"),
)


@pytest.mark.parametrize(
    "tool, steps",
    [("yosys", YOSYS), ("nextpnr-ecp5", NEXTPNR), ("icepack", [("Info: Pack IOBs\n", "")])],
)
def test_words_follow_the_log(tmp_path, tool, steps) -> None:
    log = tmp_path / "log"
    log.touch()
    watcher = LogWatcher(tool, log)
    assert watcher.detail() == ""
    for text, words in steps:
        with log.open("a") as file:
            file.write(text)
        assert watcher.detail() == words


def test_only_the_end_of_much_text_is_read(tmp_path, monkeypatch) -> None:
    log = tmp_path / "log"
    log.write_text("Info: Pack IOBs\nInfo: Rou")
    watcher = LogWatcher("nextpnr-ice40", log)
    assert watcher.detail() == "packing"
    with log.open("a") as file:
        file.write("ting..\n" + "x\n" * tool_progress._MOST_BYTES)
    assert watcher.detail() == "packing"
    with log.open("a") as file:
        file.write("Info: Routing..\n")
    assert watcher.detail() == "routing"
