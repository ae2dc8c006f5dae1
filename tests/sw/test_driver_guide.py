# SPDX-License-Identifier: BSD-2-Clause
"""docs/driver.md: its blocks run as written, on a toy board that stands in for the port."""

import re
from pathlib import Path

from xnorforge.sim.toy_board import WEIGHTS, ToyBoard, toy_bundle, toy_device
from xnorforge.sw import driver, endpoint, errors
from xnorforge.sw.statistics import Statistics
from xnorforge.sw.transport import open_transport

PAGE = Path(__file__).resolve().parents[2] / "docs" / "driver.md"


def test_python_blocks_run(tmp_path, monkeypatch, capsys) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert len(blocks) >= 6
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").mkdir()
    toy_bundle(tmp_path / "build" / "net")
    toy_bundle(tmp_path / "build" / "other", bytes(reversed(WEIGHTS)))
    names: dict = {"__name__": "guide"}
    with ToyBoard(toy_device()) as board:
        monkeypatch.setattr(
            endpoint,
            "open_transport",
            lambda port, baud: open_transport(port.replace("/dev/ttyUSB1", board.port), baud),
        )
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
    assert "Faults  0 spoilt frames" in capsys.readouterr().out


def test_tables_name_every_exception_and_count() -> None:
    text = PAGE.read_text()
    for name in set(errors.__all__) - {"TrainingError"}:
        assert f"`{name}`" in text, name
    for name in set(Statistics.__dataclass_fields__) - {"link"}:
        assert f"`{name}`" in text, name
    for name in re.findall(r"`link\.(\w+)`", text):
        assert name in driver.LinkCounts.__dataclass_fields__, name
