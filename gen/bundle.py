# SPDX-License-Identifier: BSD-2-Clause
"""The bundle: the directory one compilation makes, and all that later commands take.

manifest.json  network.json  network.npz  accelerator.v  weights.bin      (immutable;
                                         with AXI ports also what `gen.axi_files` makes, for a
                                         PCIe card what `gen.pcie_files` does)
results/                                                (what build and verify add)
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from xnorforge.gen.api import BundleMethods
from xnorforge.gen.assembly import CoreParts, core_parts, weights_load
from xnorforge.gen.axi_files import axi_files
from xnorforge.gen.cycles import predict
from xnorforge.gen.errors import BundleError
from xnorforge.gen.layer_plan import LayerPlan, StreamPlan
from xnorforge.gen.layers import Layer, Product
from xnorforge.gen.network import Network
from xnorforge.gen.pcie_files import pcie_files
from xnorforge.gen.plan import Plan
from xnorforge.gen.resources import estimate
from xnorforge.gen.verilog import accelerator_verilog
from xnorforge.sw import protocol

__all__ = ["Bundle", "check_output", "compile_bundle", "input_record", "scale_record"]

SCHEMA = "1.0"
_FILES = ("network.json", "network.npz", "accelerator.v", "weights.bin")
_LABELS = {
    "argmax": "their arg-max",
    "highest_bit": "the highest class whose scaled score is not negative, else 0",
}


@dataclass(frozen=True)
class Bundle(BundleMethods):
    """An opened bundle whose files match their hashes."""

    path: Path
    manifest: dict[str, Any]
    network: Network
    plan: Plan

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """Read and check a bundle. Raises BundleError naming the file and what is wrong."""
        path = Path(path)
        manifest_path = path / "manifest.json"
        if not manifest_path.is_file():
            raise BundleError(
                f"{path} is not a bundle: it has no manifest.json; compile a model to make one"
            )
        try:
            manifest = json.loads(manifest_path.read_text())
            schema, files = manifest["schema"], manifest["files"]
            hashes = {name: item["sha256"] for name, item in files.items()}
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{manifest_path} is not a bundle's manifest ({error}): compile again"
            ) from None
        if str(schema).split(".")[0] != SCHEMA.split(".")[0]:
            raise BundleError(
                f"{manifest_path} has schema {schema}; this version reads "
                f"{SCHEMA.split('.')[0]}.x: compile the model again"
            )
        for name in (*_FILES, *(hashes.keys() - set(_FILES))):
            if not (path / name).is_file():
                raise BundleError(f"{path / name} is missing: compile the model again")
            if _sha256(path / name) != hashes.get(name):
                raise BundleError(
                    f"{path / name} has changed since the bundle was made: compile the model again"
                )
        network = Network.restore(path)
        try:
            plan = Plan.from_json(manifest["plan"])
            # A newer minor version may have more in its plan than is read here.
            same = schema != SCHEMA or plan.structure_hash(network) == manifest["plan_hash"]
        except (AttributeError, KeyError, TypeError) as error:
            raise BundleError(
                f"{manifest_path} has no whole plan ({error!r}): compile the model again"
            ) from None
        if not same:
            raise BundleError(
                f"{manifest_path} has a plan that is not the circuit's: compile the model again"
            )
        return cls(path, manifest, network, plan)

    @property
    def results(self) -> Path:
        """Folder for what is made from the bundle."""
        return self.path / "results"


def check_output(out: str | Path) -> None:
    """Raises BundleError for a directory that `compile_bundle` would refuse to replace."""
    out = Path(out)
    if Path.cwd().is_relative_to(out.resolve()):
        raise BundleError(f"{out} holds the working directory: choose another output folder")
    if (
        out.exists()
        and not (out / "manifest.json").is_file()
        and (not out.is_dir() or any(out.iterdir()))
    ):
        raise BundleError(f"{out} exists and is not a bundle: choose another output folder")


def compile_bundle(
    network: Network,
    plan: Plan,
    out: str | Path,
    progress: Callable[[str], None] | None = None,
) -> Bundle:
    """Write the bundle of a network laid out by a plan.

    out: the directory to make; an older bundle there is replaced, with what was built and
    verified from it; anything else is refused.
    Nothing is seen under `out` until all of it is written. Raises BundleError, PlanError, and
    ToolError where a tool that makes a part of it is not installed.
    """
    out = Path(out)
    check_output(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(out)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-{os.getpid()}-", dir=out.parent))
        try:
            _write(network, plan, work, progress or (lambda _: None))
            work.chmod(0o755)
            _replace(work, out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise BundleError(
            f"{out} cannot be written ({error.strerror or error}): make room or choose another "
            "output folder"
        ) from error
    return Bundle.open(out)


def _write(network: Network, plan: Plan, work: Path, progress: Callable[[str], None]) -> None:
    parts = core_parts(network, plan)
    network.save(work)
    load = weights_load(parts)
    (work / "weights.bin").write_bytes(load)
    progress("predicting cycles")
    prediction = predict(parts)
    progress("writing Verilog")
    (work / "accelerator.v").write_text(accelerator_verilog(network, plan, parts))
    extra, addresses = _link_files(network, plan, parts, work, progress)
    interval = prediction.interval_cycles
    reasons = dict(plan.reasons)
    manifest = {
        "schema": SCHEMA,
        "name": network.name,
        "plan": plan.to_json(),
        "plan_hash": plan.structure_hash(network),
        "weights_digest": int.from_bytes(load[-4:], "little"),
        "clock_hz": plan.clock_hz,
        "link": _link_record(plan) | addresses,
        "input": input_record(network),
        "output": {
            "classes": network.classes,
            "score_bits": parts.head.score_bits,
            "score_bytes": -(-parts.head.score_bits // 8),
            "tie": network.head.tie,
            "rule": network.head.rule,
            **scale_record(network),
            "meaning": "signed integer scores in class order; the label is "
            + _LABELS[network.head.rule],
        },
        "layers": [
            _layer_record(layer, folds)
            for layer, folds in zip(network.layers, plan.layers, strict=True)
        ],
        "memories": [
            {
                "name": name,
                "width": c.width,
                "depth": c.depth,
                "kind": c.kind,
                "block_rams": c.block_rams,
                "spram_blocks": c.sprams if c.share == 1 else 0,
                **({"spram_share": c.share} if c.share > 1 else {}),
                "reason": reasons.get(name, ""),
            }
            for name, c, _ in parts.stores
        ],
        # Whether the board waits for a load before it takes images, and what no load can change.
        "weights": {
            "bytes": len(load),
            "must_load": parts.must_load,
            "slots": parts.slots,
            # When another model takes over while images run.
            "exchange": "between images" if parts.slots > 1 else "between batches",
            "constant": [name for name, c, _ in parts.stores if not c.loadable],
        },
        "registers": _register_record(plan),
        "predicted": {
            "first_output_cycles": prediction.first_output_cycles,
            "frame_latency_cycles": prediction.frame_latency_cycles,
            "interval_cycles": float(interval),
            "images_per_second": plan.clock_hz / float(interval),
            "resources": estimate(network, plan),
        },
        "tools": {name: version(name) for name in ("amaranth", "xnorforge")},
        "files": {
            name: {"sha256": _sha256(work / name), "bytes": (work / name).stat().st_size}
            for name in (*_FILES, *sorted(extra))
        },
    }
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    (work / "manifest.json").write_text(text)


def _link_files(
    network: Network,
    plan: Plan,
    parts: CoreParts,
    work: Path,
    progress: Callable[[str], None],
) -> tuple[list[str], dict[str, int]]:
    """Write what the link brings along: its names, and addresses that the driver must know."""
    if plan.link == "pcie":
        return pcie_files(plan, work, progress)
    texts = axi_files(network, plan, parts) if plan.link == "axi" else {}
    for name, text in texts.items():
        (work / name).write_text(text)
    return list(texts), {}


def _link_record(plan: Plan) -> dict[str, Any]:
    record = {"kind": plan.link, "protocol": protocol.VERSION}
    if plan.link != "uart":
        return record | {
            "beat_bytes": plan.beat_bytes,
            "bus_clock_hz": plan.bus_clock_hz or plan.clock_hz,
        }
    return record | {"baud": plan.baud}


def _register_record(plan: Plan) -> dict[str, int]:
    """The registers that the link has, by name."""
    found = {register.name.lower(): int(register) for register in protocol.Register}
    if plan.link != "uart":
        del found["window"]
        found |= {register.name.lower(): int(register) for register in protocol.AxiRegister}
    return found


def input_record(network: Network) -> dict[str, Any]:
    """How images become bytes on the link, as the manifest tells of it."""
    given, value = network.input, network.input.value
    return {
        "shape": list(value.shape),
        "kind": value.kind,
        "bits": value.bits,
        "pixel": given.pixel,
        "threshold": given.threshold,
        "inverted": given.inverted,
        "table": None if given.table is None else given.table.tolist(),
        "image_bytes": given.image_bytes,
        "packing": "8 elements a byte, first in bit 0" if value.bits == 1 else "1 element a byte",
        "note": given.note,
    }


def scale_record(network: Network) -> dict[str, Any]:
    """What scores are compared by, class by class: scale * score + offset; None: the scores."""
    scale, offset = network.head.scale, network.head.offset
    return {
        "scale": None if scale is None else scale.tolist(),
        "offset": None if offset is None else offset.tolist(),
    }


def _layer_record(layer: Layer, plan: LayerPlan | StreamPlan) -> dict[str, Any]:
    """A layer as the manifest tells of it. cycles: of its engine, an image."""
    record: dict[str, Any] = {"name": layer.name, "output_shape": list(layer.output.shape)}
    if isinstance(layer, Product) and isinstance(plan, LayerPlan):
        record |= {
            "op": "conv" if plan.window else "dense",
            "rows": layer.rows,
            "columns": layer.columns,
            "weight_bits": layer.weight_bits,
            "pe": plan.pe,
            "simd": plan.simd,
            "pl": plan.pl,
            "fold_cycles": plan.image_cycles,
        }
        if plan.reuse > 1:
            record["reuse"] = plan.reuse
        if plan.share > 1:
            record["share"] = plan.share
    elif isinstance(plan, StreamPlan):
        record |= {"op": plan.op, "lanes": plan.lanes}
    if plan.window is not None:
        record["window"] = dataclasses.asdict(plan.window)
    return record


def _replace(work: Path, out: Path) -> None:
    """Rename `work` to `out`; an older bundle is moved aside first and removed last."""
    if not out.exists():
        os.rename(work, out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-{os.getpid()}-old-", dir=out.parent))
    os.rename(out, aside / "bundle")
    os.rename(work, out)
    shutil.rmtree(aside, ignore_errors=True)


def _remove_stale(out: Path) -> None:
    """Remove the work folders of compilations that were killed."""
    for stale in out.parent.glob(f".{out.name}-*"):
        process = re.fullmatch(re.escape(f".{out.name}-") + r"(\d+)-.*", stale.name)
        if process is None:
            continue
        try:
            os.kill(int(process[1]), 0)
        except ProcessLookupError:
            shutil.rmtree(stale, ignore_errors=True)
        except PermissionError:
            pass  # somebody else's process: alive


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
