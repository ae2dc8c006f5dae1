# SPDX-License-Identifier: BSD-2-Clause
"""The command line: results, exit codes, one-sentence errors, no traceback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xnorforge.gen.bundle import Bundle
from xnorforge.gen.errors import SiteError
from xnorforge.gen.network import Input, ValueType
from xnorforge.sw import cli_model
from xnorforge.sw.cli import cli, run
from xnorforge.sw.shipped import shipped_images, shipped_model

MODEL = str(shipped_model("mnist-tfc"))
PROGRAM = [sys.executable, "-c", "from xnorforge.sw.cli import main; main()"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("cli") / "net"
    assert run(["compile", MODEL, "--board", "icebreaker", "--fps", "10000", "-o", str(path)]) == 0
    return str(path)


def fails(capsys, *arguments: str, code: int = 2) -> str:
    """Runs a command that must fail; gives what it says, checked to be one sentence."""
    assert run(list(arguments)) == code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err + captured.out
    return lines[0]


# --- results -------------------------------------------------------------------------------


def test_reason_names_its_own_board(capsys, monkeypatch) -> None:
    """Boards that differ in their pins only share a plan; one that has none keeps its name."""

    def refuse(network, *, board, searches):
        raise SiteError(
            f"{network.name!r} and 'blackice' are too large for ", board, ", not blackice"
        )

    monkeypatch.setattr("xnorforge.gen.planner.make_plan", refuse)
    assert run(["inspect", MODEL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["boards"]
    for board in ("blackice", "blackice-ii", "fomu-hacker", "fomu-pvt", "ulx3s-12f"):
        reason = f"'mnist-tfc' and 'blackice' are too large for {board}, not blackice"
        assert found[board] == {"fits": False, "reason": reason}


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_has_help(command: str, capsys) -> None:
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage: xnorforge" in shown and "--json" in shown


def test_inspect_says_what_a_model_holds(capsys) -> None:
    assert run(["inspect", MODEL, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["boards"]["icebreaker"]["fits"]
    assert run(["inspect", MODEL]) == 0
    assert "59,008 weight bits" in capsys.readouterr().out


def test_compile_makes_a_bundle_and_says_so(bundle, tmp_path, capsys) -> None:
    out = tmp_path / "again"
    arguments = ["compile", MODEL, "--board", "icebreaker", "--fps", "10000"]
    assert run([*arguments, "-o", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["predicted"]["images_per_second"] >= 10_000
    for name in ("accelerator.v", "manifest.json", "network.npz", "weights.bin"):
        assert (out / name).read_bytes() == (Path(bundle) / name).read_bytes()


def test_compile_takes_goals_and_folding(tmp_path, capsys) -> None:
    folding = tmp_path / "folding.json"
    folding.write_text('{"dense0": {"pe": 4, "simd": 49}}')
    out = str(tmp_path / "net")
    arguments = ["compile", MODEL, "--device", "ecp5-25f", "--min", "--clock", "80"]
    assert run([*arguments, "--folding", str(folding), "-o", out, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["clock_hz"] == 80e6 and plan["layers"][0]["simd"] == 49


def test_boards_lists_all(capsys) -> None:
    assert run(["boards", "--json"]) == 0
    names = {board["name"] for board in json.loads(capsys.readouterr().out)["boards"]}
    assert {"icebreaker", "ulx3s-25f", "ulx3s-85f"} <= names
    assert run(["boards"]) == 0
    assert "icebreaker" in capsys.readouterr().out


def test_train_without_a_recipe_lists_recipes_and_data_sets(capsys) -> None:
    assert run(["train", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recipes"]["cnv"]["weight_bits"] == 1_542_848
    assert found["datasets"]["gtsrb"]["classes"] == 43
    assert run(["train"]) == 0
    shown = capsys.readouterr().out
    for name in (*found["recipes"], *found["datasets"], "1,542,848"):
        assert name in shown


def test_verify_reference_on_files_and_on_random_images(bundle, capsys) -> None:
    arguments = ["verify", bundle, "--level", "reference"]
    assert run([*arguments, "--data", str(shipped_images()), "--images", "50"]) == 0
    assert "50 images" in capsys.readouterr().out
    assert run([*arguments, "--images", "7", "--json"]) == 0
    (level,) = json.loads(capsys.readouterr().out)["levels"]
    assert level["passed"] and level["images"] == 7


def test_verify_exits_with_1_on_a_mismatch(bundle, monkeypatch, capsys) -> None:
    from xnorforge.sim.faults import plant
    from xnorforge.sim.verify import verify

    def faulty(self, level, *, images, labels, progress):
        fault = plant(self.network, "threshold", images)
        return verify(self.path, level, images=images, labels=labels, fault=fault)

    monkeypatch.setattr(Bundle, "verify", faulty)
    assert run(["verify", bundle, "--level", "reference", "--data", str(shipped_images())]) == 1
    assert "MISMATCH" in capsys.readouterr().out


def test_random_images_cover_the_pixel_range() -> None:
    images, labels = cli_model._images(
        Input(ValueType("int", 8, (40, 50)), pixel="int8"), None, None, None
    )
    assert images.dtype == np.int8 and images.shape == (200, 40, 50) and labels is None
    assert images.min() == -128 and images.max() == 127


# --- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compile", "absent.onnx", "--board", "icebreaker", "-o", "x"), "absent.onnx"),
        (("compile", MODEL, "--board", "nexys", "-o", "x"), "nexys"),
        (("compile", MODEL, "-o", "x"), "--board or --device"),
        (("compile", MODEL, "--board", "icebreaker", "--max", "--min", "-o", "x"), "--max"),
        (("compile", MODEL, "--board", "icebreaker", "--fps", "1e7", "-o", "x"), "images/s"),
        (("compile", MODEL, "--board", "icebreaker", "--fps", "nan", "-o", "x"), "nan"),
        (("compile", MODEL, "--board", "icebreaker", "--link", "usb", "-o", "x"), "usb"),
        (("compile", MODEL, "--board", "icebreaker", "--folding", "no.json", "-o", "x"), "no.json"),
        (("compile", MODEL, "--board", "icebreaker", "--clock", "1e6", "-o", "x"), "Clock must be"),
        (("inspect", __file__), "test_cli.py"),
        (("verify", "nowhere"), "nowhere"),
        (("build", "nowhere"), "nowhere"),
        (("serve", "nowhere"), "nowhere"),
        (("program", "nowhere"), "nowhere"),
        (("infer", "nowhere", "digits.npz", "--port", "/dev/null"), "nowhere"),
        (("train", "mnist-xxl"), "mnist-xxl"),
        (("train", "cnv", "--dataset", "imagenet"), "imagenet"),
        (("train", "cnv", "--dataset", "mnist"), "takes images (32, 32, 3)"),
        (("verify", "nowhere", "--level", "silicon"), "silicon"),
        (("frobnicate",), "frobnicate"),
    ],
)
def test_bad_input_is_one_sentence(arguments, words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in fails(capsys, *arguments)
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_changed_bundle_is_refused(bundle, tmp_path, capsys) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    with (copy / "accelerator.v").open("a") as file:
        file.write("// changed\n")
    assert "accelerator.v has changed" in fails(capsys, "verify", str(copy))


def test_images_of_wrong_shape_are_refused(bundle, tmp_path, capsys) -> None:
    file = tmp_path / "images.npy"
    np.save(file, np.zeros((3, 5, 5), np.uint8))
    assert "images.npy" in fails(capsys, "verify", bundle, "--data", str(file))


def test_images_of_wrong_type_are_refused_before_the_port(bundle, tmp_path, capsys) -> None:
    file = tmp_path / "images.npy"
    np.save(file, np.zeros((3, 28, 28), np.float32))
    for arguments in (["verify", bundle, "--data", str(file)], ["infer", bundle, str(file)]):
        port = ["--port", "/dev/xnorforge-absent"] if arguments[0] == "infer" else []
        sentence = fails(capsys, *arguments, *port)
        assert "images.npy" in sentence and "uint8, not float32" in sentence


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--timeout", "nan"), "nan"),
        (("--timeout", "-1"), "-1"),
        (("--baud", "0"), "0"),
        (("--baud", "9" * 40), "9" * 40),
        (("-o", "absent/results"), "absent/results.npz cannot be written"),
    ],
)
def test_infer_refuses_bad_options_before_the_port(
    bundle, option, words, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["infer", bundle, str(shipped_images()), "--port", "/dev/xnorforge-absent"]
    sentence = fails(capsys, *arguments, *option)
    assert words in sentence and "does not exist" not in sentence
    assert not list(tmp_path.iterdir())


def test_unwritable_output_is_named(tmp_path, capsys) -> None:
    (tmp_path / "file").touch()
    out = str(tmp_path / "file" / "net")
    sentence = fails(capsys, "compile", MODEL, "--board", "icebreaker", "-o", out)
    assert f"{out} cannot be written" in sentence and "choose another" in sentence


def test_absent_port_is_named(bundle, capsys) -> None:
    port = "/dev/xnorforge-absent"
    assert run(["infer", bundle, str(shipped_images()), "--port", port, "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and port in captured.err


def test_program_without_bitstream_is_refused(bundle, capsys) -> None:
    assert "build it first" in fails(capsys, "program", bundle)


def test_missing_extra_is_named(bundle, monkeypatch, capsys) -> None:
    def verify(self, level, **_):
        raise ModuleNotFoundError("No module named 'numba'", name="numba")

    monkeypatch.setattr(Bundle, "verify", verify)
    assert "pip install 'xnorforge[sim]'" in fails(capsys, "verify", bundle)


def test_fault_of_the_program_is_no_traceback(monkeypatch, capsys) -> None:
    def broken(path, **_):
        raise RuntimeError("out of ideas")

    monkeypatch.setattr(sys.modules["xnorforge.gen.load"], "load", broken)
    sentence = fails(capsys, "inspect", MODEL, code=3)
    assert "RuntimeError: out of ideas" in sentence
    monkeypatch.setenv("XNORFORGE_DEBUG", "1")
    with pytest.raises(RuntimeError):
        run(["inspect", MODEL])


# --- the program ---------------------------------------------------------------------------


def test_start_is_light() -> None:
    """Nothing heavy is imported before a command needs it."""
    code = "import sys, xnorforge.sw.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"amaranth", "onnx", "onnxruntime", "numba", "torch", "cocotb", "rich", "serial"}
    assert not heavy & set(done.stdout.split())


def test_closed_pipe_is_quiet() -> None:
    command = f"{sys.executable} -c '{PROGRAM[2]}' boards | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.timeout(300)
def test_serve_infer_and_interrupt(bundle) -> None:
    """Classify over the socket, then Ctrl-C: the server ends at once, without a word too many."""
    images = str(shipped_images())
    with subprocess.Popen(
        [*PROGRAM, "serve", bundle],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:
        try:
            address = {}
            for line in server.stdout:
                name, _, value = line.partition(":")
                address[name] = value.strip()
                if name == "Socket":
                    break
            for port in (address["Serial path"], address["Socket"]):
                arguments = ["infer", bundle, images, "--images", "20", "--port", port, "--json"]
                done = subprocess.run(
                    [*PROGRAM, *arguments], capture_output=True, text=True, check=True
                )
                found = json.loads(done.stdout)
                assert found["images"] == 20 and found["correct"] >= 15
        finally:
            server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=20)
    assert "Traceback" not in errors
    assert server.returncode == 130


def test_interrupt_of_a_command_is_clean(monkeypatch, capsys) -> None:
    def interrupted(path, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["xnorforge.gen.load"], "load", interrupted)
    assert run(["inspect", MODEL]) == 130
    assert capsys.readouterr().err.strip().endswith("Interrupted")


def test_terminated_compilation_leaves_nothing(tmp_path) -> None:
    code = (
        "import os, signal; from xnorforge.gen import bundle; from xnorforge.sw.cli import main\n"
        "bundle.predict = lambda _: os.kill(os.getpid(), signal.SIGTERM)\n"
        "main()"
    )
    arguments = ["compile", MODEL, "--board", "icebreaker", "-o", str(tmp_path / "net")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 143 and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_says_what_the_comparer_says(tmp_path, capsys) -> None:
    arguments = ["demo", "--no-bitstream", "-o", str(tmp_path / "demo"), "--json"]
    assert run(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] and found["word"] == "EXACT"
    assert all(level["passed"] for level in found["verify"])
    assert run([*arguments, "--inject-fault"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["passed"] and found["word"] == "MISMATCH" and found["fault"]
