# SPDX-License-Identifier: BSD-2-Clause
"""What people see while a command runs, where lines stay."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

from xnorforge.sw import cli_output
from xnorforge.sw.cli_output import Steps


def test_lines_of_a_long_step_grow_rare(capsys, monkeypatch) -> None:
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(cli_output, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    say = Steps("Building")
    for second in range(901):
        now.seconds = 100.0 + second
        say(f"synthesis: {second} s")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [f"  Building: synthesis: {second} s" for second in (2, 4, 6)]
    shown = [int(line.split()[-2]) for line in lines]
    assert 60 < len(shown) < 100
    assert all(b - a <= max(2, 0.05 * b) + 1 for a, b in pairwise(shown))
    # What stays is said at once.
    say.note("seed 1: done")
    assert capsys.readouterr().err == "seed 1: done\n"


def test_quick_step_says_nothing(capsys) -> None:
    say = Steps("Planning")
    say("a detail")
    assert capsys.readouterr().err == ""
