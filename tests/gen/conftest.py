# SPDX-License-Identifier: BSD-2-Clause
"""A builder of small ONNX models (a chain of nodes, each taking the result of the one before), and
tools that stand in for the slow ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from xnorforge.gen import tools

QONNX = "qonnx.custom_op.general"


class Chain:
    """`Chain([1, 784]).node("MatMul", X, w)`: X stands for the result so far."""

    X = object()

    def __init__(self, shape: list, *, opset: int = 13, dtype: type = np.float32) -> None:
        self.opset, self.dtype = opset, np.dtype(dtype)
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.last = "image"
        self.extra_inputs: list[onnx.ValueInfoProto] = []

    def constant(self, value: object) -> str:
        array = np.asarray(value)
        if array.dtype.kind == "f" or not isinstance(value, np.ndarray):
            array = array.astype(self.dtype)
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(
        self, op: str, *inputs: object, domain: str = "", outputs: int = 1, **options
    ) -> Chain:
        """Append a node; inputs are X, names (str), None (left out) or constants."""
        inputs = inputs or (self.X,)
        names = []
        for value in inputs:
            if value is self.X:
                names.append(self.last)
            elif value is None or isinstance(value, str):
                names.append(value or "")
            else:
                names.append(self.constant(value))
        results = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, results, name, domain=domain, **options))
        self.last = results[0]
        return self

    def bipolar(self, scale: object = 1.0, domain: str = QONNX) -> Chain:
        return self.node("BipolarQuant", self.X, np.asarray(scale, self.dtype), domain=domain)

    def binary_input(self) -> Chain:
        """The zoo's: pixels in [0, 1], doubled, less one, binarised."""
        return self.node("Mul", self.X, 2.0).node("Sub", self.X, 1.0).bipolar()

    def batchnorm(self, gamma, beta, mean, variance, epsilon: float = 1e-5) -> Chain:
        params = [np.asarray(p, self.dtype) for p in (gamma, beta, mean, variance)]
        return self.node("BatchNormalization", self.X, *params, epsilon=epsilon)

    def model(self) -> onnx.ModelProto:
        element = helper.np_dtype_to_tensor_dtype(self.dtype)
        graph = helper.make_graph(
            self.nodes,
            "chain",
            [helper.make_tensor_value_info("image", element, self.shape), *self.extra_inputs],
            [helper.make_tensor_value_info(self.last, TensorProto.UNDEFINED, None)],
            self.constants,
        )
        versions = [helper.make_opsetid("", self.opset), helper.make_opsetid(QONNX, 1)]
        return helper.make_model(graph, opset_imports=versions, ir_version=8)

    def save(self, path: Path) -> Path:
        path.write_bytes(self.model().SerializeToString())
        return path


@pytest.fixture(scope="session")
def chain() -> Callable[..., Chain]:
    return Chain


# --- tools that stand in -----------------------------------------------------------------------

_FAKE = """#!{python}
import json, os, re, signal, sys, time
from pathlib import Path

home = Path({home!r})
name = Path(sys.argv[0]).name
with (home / "calls").open("a") as calls:
    calls.write(" ".join([name, *sys.argv[1:]]) + chr(10))
if name == "yosys":
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
