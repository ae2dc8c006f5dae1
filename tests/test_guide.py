# SPDX-License-Identifier: BSD-2-Clause
"""The tutorial: its blocks run as written, in their order."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from xnorforge.sw.cli import run
from xnorforge.sw.shipped import shipped_images, shipped_model

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide.md"


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), re.M | re.S)
    assert found, f"no {language} block in the guide"
    return found


@pytest.mark.timeout(900)
def test_python_blocks_run(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "guide"}
    for block in blocks("python"):
        exec(compile(block, str(GUIDE), "exec"), names)
    shown = capsys.readouterr().out
    assert "EXACT" in shown and "'accelerator.v'" in shown


def test_shell_blocks_run(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(shipped_model("mnist-tfc"), "model.onnx")
    shutil.copy(shipped_images(), "digits.npz")
    for block in blocks("sh"):
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "xnorforge"
            assert run(arguments) == 0, line
    assert "EXACT" in capsys.readouterr().out


def test_commands_in_the_documents_exist() -> None:
    """Every `xnorforge <command>` and option that a document names is one of the program's."""
    from xnorforge.sw.cli import cli

    root = GUIDE.parents[1]
    checked = 0
    for file in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        for name, rest in re.findall(r"^ *(?:\$ )?xnorforge ([a-z]+)(.*)$", file.read_text(), re.M):
            assert name in cli.commands, f"{file.name}: xnorforge {name}"
            options = {o for p in cli.commands[name].params for o in p.opts}
            for option in re.findall(r"(?<!\S)--?[a-z][\w-]*", rest.split("#")[0]):
                assert option in options | {"--help"}, f"{file.name}: xnorforge {name} {option}"
            checked += 1
    assert checked >= 5
