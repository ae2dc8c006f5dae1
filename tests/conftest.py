# SPDX-License-Identifier: BSD-2-Clause
"""Fixtures and the Hypothesis profile shared by all tests."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from xnorforge.gen import tools

settings.register_profile(
    "fixed",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fixed")


def pytest_configure() -> None:
    """A shell's background jobs ignore Ctrl-C, and so would every process that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with third-party models and data sets; tests that need it skip without it."""
    default = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("XNORFORGE_SHARED", default))
    if not path.is_dir():
        pytest.skip("no folder with third-party models; set XNORFORGE_SHARED")
    return path


# --- tools that stand in -----------------------------------------------------------------------

_FAKE = """#!{python}
import json, os, re, signal, sys, time
from pathlib import Path

home = Path({home!r})
name = Path(sys.argv[0]).name
with (home / "calls").open("a") as calls:
    calls.write(" ".join([name, *sys.argv[1:]]) + chr(10))
if name == "yosys" and sys.argv[1] == "convert.ys":
    # Writing the Verilog is quick: that is the real one.
    from pyosys import libyosys
    libyosys.run_pass("script convert.ys", libyosys.Design())
elif name == "yosys":
    text = Path("accelerator.v").read_text()
    found = re.findall(r"[.](DIV[RFQ])[(](?:\\d+'h)?([0-9a-f]+)[)]", text)
    digits = dict((key, format(int(value, 16), "07b")) for key, value in found)
    cell = dict(type="SB_PLL40_PAD", parameters=digits, connections=dict(PLLOUTGLOBAL=[2]))
    top = dict(cells=dict(pll=cell), netnames=dict(clk=dict(bits=[2])))
    Path("netlist.json").write_text(json.dumps(dict(modules=dict(top=top))))
elif name == "nextpnr-ice40":
    options = dict(zip(sys.argv[1:], sys.argv[2:]))
    plan = json.loads((home / "plan.json").read_text())
    what = dict(plan["default"], **plan.get(options["--seed"], dict()))
    print("Info: placing, no error so far", flush=True)
    time.sleep(what.get("sleep", 0))
    if what.get("crash") == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what.get("crash") == "exit":
        print("ERROR: Unable to place cell 'odd'")
        sys.exit(1)
    Path(options["--asc"]).write_text("seed " + options["--seed"])
    wanted = float(re.search("set_frequency clk ([0-9.]+)", Path(options["--pcf"]).read_text())[1])
    wanted = 1e6 / int(1e6 / wanted)  # a period in whole picoseconds
    cells = dict(used=7, available=5280)
    keys = ("ICESTORM_LC", "ICESTORM_RAM", "ICESTORM_DSP")
    clock = dict(constraint=wanted, achieved=what["fmax"])
    report = dict(fmax=dict(clk=clock), utilization=dict((key, cells) for key in keys))
    if what.get("crash") == "no report":
        sys.exit(0)
    text = json.dumps(report)
    Path(options["--report"]).write_text(text[:30] if what.get("crash") == "half report" else text)
else:
    Path(sys.argv[2]).write_text("packed " + Path(sys.argv[1]).read_text())
"""


class FakeTools:
    """Programs in place of yosys, nextpnr-ice40 and icepack, which find the PLL and obey."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.plan(default={"fmax": 40.0})

    def plan(self, default: dict[str, Any], **seeds: dict[str, Any]) -> None:
        """What place and route does with each seed ("s3" is 3): fmax in MHz, sleep in seconds,
        crash "kill", "exit", "no report" or "half report"."""
        item = {"default": default, **{name[1:]: what for name, what in seeds.items()}}
        (self.home / "plan.json").write_text(json.dumps(item))

    def calls(self) -> list[str]:
        """What ran since this was last asked: "yosys", "seed 3", "icepack"."""
        path = self.home / "calls"
        if not path.is_file():
            return []
        lines = [line.split() for line in path.read_text().splitlines()]
        path.unlink()
        return [
            f"seed {words[words.index('--seed') + 1]}" if "--seed" in words else words[0]
            for words in lines
            if "convert.ys" not in words
        ]


@pytest.fixture
def fake_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    """Fake tools on this test's machine, whose step cache is empty."""
    home = tmp_path / "tools"
    package = home / "fake_tools_package"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (home / "fake_tools_package-1.0.dist-info").mkdir()
    metadata = home / "fake_tools_package-1.0.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: fake-tools-package\nVersion: 1.0\n")
    for name in ("yosys", "nextpnr-ice40", "icepack"):
        program = package / "bin" / name
        program.write_text(_FAKE.format(python=sys.executable, home=str(home)))
        program.chmod(0o755)
        recipe = tools._Recipe("fake-tools-package", "build", binary=f"bin/{name}")
        monkeypatch.setitem(tools._RECIPES, name, (recipe,))
    monkeypatch.syspath_prepend(home)
    monkeypatch.setenv("XNORFORGE_CACHE", str(tmp_path / "cache"))
    return FakeTools(home)
