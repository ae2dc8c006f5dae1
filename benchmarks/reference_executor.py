# SPDX-License-Identifier: BSD-2-Clause
"""Speed of the reference executor against float32 PyTorch and NumPy.

    python benchmarks/reference_executor.py [--networks LFC-sized CNV-sized] [--threads 1 2]
                                            [--batch 1 64 1024] [--out FOLDER]

Networks of random weights: LFC-sized, 784-1024-1024-1024-10 on bits, and CNV-sized, six
convolutions, two pools and three dense layers on 32x32x3 pixels of 8 bits. All take the same uint8
images and give the same scores (checked before anything is timed). NumPy runs dense layers only.
Runs are interleaved; figures are medians. Each thread count runs in a process of its own, because
NumPy's BLAS reads its thread count at import. Writes reference_executor.json and .md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xnorforge.gen.layers import Conv, Dense, Layer, Pool, ValueType
from xnorforge.gen.network import Head, Input, Network
from xnorforge.hw.geometry import Window

SIZES = (784, 1024, 1024, 1024, 10)
TARGET = 7.0  # times PyTorch, LFC-sized, one thread, batch >= 64: the headline of the BNN paper
SECONDS = 2.0  # of timed runs per figure, at least REPEATS of them
REPEATS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--networks", nargs="+", default=[*NETWORKS], choices=[*NETWORKS])
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.networks[0], options.measure, options.batch)))
        return

    rows = []
    for name, threads in itertools.product(options.networks, options.threads):
        print(f"{name}, {threads} thread(s) ...", file=sys.stderr)
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        command = [sys.executable, __file__, "--measure", str(threads), "--networks", name]
        command.append("--batch")
        done = subprocess.run(
            [*command, *map(str, options.batch)],
            env={**os.environ, **dict.fromkeys(names, str(threads))},
            check=True,
            capture_output=True,
            text=True,
        )
        rows += json.loads(done.stdout)
    gated = [
        row
        for row in rows
        if row["network"] == "LFC-sized" and row["threads"] == 1 and row["batch"] >= 64
    ]
    report = {
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "rows": rows,
        "target": TARGET,
        "met": bool(gated) and all(row["times_torch"] >= TARGET for row in gated),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1) + "\n"
    (options.out / "reference_executor.json").write_text(text)
    (options.out / "reference_executor.md").write_text(markdown(report))
    print(markdown(report))
    if gated and not report["met"]:
        raise SystemExit(f"below {TARGET:g} times PyTorch: LFC-sized, one thread, batch >= 64")


def measure(name: str, threads: int, batches: list[int]) -> list[dict]:
    """One row a batch size, in this process."""
    import torch

    from xnorforge.sim.reference import Executor

    torch.set_num_threads(threads)
    network = NETWORKS[name]()
    executor = Executor(network, threads)
    rivals = {"torch": TorchTwin(network)}
    if all(layer.source.kind == "bit" for layer in network.products) and network.is_chain:
        rivals["numpy"] = NumpyTwin(network)

    found = []
    rng = np.random.default_rng(2)
    for batch in batches:
        images = rng.integers(0, 256, (batch, *network.input.value.shape), dtype=np.uint8)
        want = executor.run(images).scores
        for rival in rivals.values():
            if not np.array_equal(rival(images), want):
                raise SystemExit(f"{rival.__class__.__name__} and the executor differ on {name}")
        runs = [lambda x: executor.run(x).scores, *rivals.values()]
        executor_s, *others = interleaved(runs, images)
        row = {"network": name, "threads": threads, "batch": batch, "executor_s": executor_s}
        for rival, seconds in zip(rivals, others, strict=True):
            row[f"{rival}_s"], row[f"times_{rival}"] = seconds, seconds / executor_s
        row["executor_images_per_s"] = batch / executor_s
        row["torch_images_per_s"] = batch / row["torch_s"]
        row["versions"] = {"numpy": np.__version__, "torch": torch.__version__}
        found.append(row)
    return found


def lfc_sized() -> Network:
    """784-1024-1024-1024-10, weights of -1 and +1, integer thresholds."""
    rng = np.random.default_rng(1)
    value = ValueType("bit", 1, SIZES[:1])
    spec = Input(value, "uint8", threshold=128)
    layers = []
    for i, rows in enumerate(SIZES[1:]):
        weights = rng.choice(np.array([-1, 1], np.int8), (rows, value.size))
        last = i == len(SIZES) - 2
        thresholds = None if last else rng.integers(-40, 41, rows).astype(np.int64)
        layers.append(Dense(f"layer{i}", value, weights, thresholds))
        value = layers[-1].output
    return Network("LFC-sized", spec, tuple(layers), Head())


def cnv_sized() -> Network:
    """BNN-PYNQ's CNV on 32x32x3: six 3x3 convolutions, two pools, three dense layers."""
    rng = np.random.default_rng(1)
    value = ValueType("int", 8, (32, 32, 3))
    spec = Input(value, "uint8", table=np.arange(-128, 128))
    layers: list[Layer] = []
    for i, rows in enumerate((64, 64, 128, 128, 256, 256)):
        weights = rng.choice(np.array([-1, 1], np.int8), (rows, 3, 3, value.channels))
        spread = int(2 * (9 * value.channels) ** 0.5) * (64 if i == 0 else 1)
        thresholds = rng.integers(-spread, spread + 1, rows)
        layers.append(Conv(f"conv{i}", value, weights, thresholds, Window((3, 3))))
        value = layers[-1].output
        if i in (1, 3):
            layers.append(Pool(f"pool{i}", value, Window((2, 2), (2, 2))))
            value = layers[-1].output
    for i, rows in enumerate((512, 512, 10)):
        weights = rng.choice(np.array([-1, 1], np.int8), (rows, value.size))
        thresholds = None if i == 2 else rng.integers(-40, 41, rows)
        layers.append(Dense(f"dense{i}", value, weights, thresholds))
        value = layers[-1].output
    return Network("CNV-sized", spec, tuple(layers), Head())


NETWORKS = {"LFC-sized": lfc_sized, "CNV-sized": cnv_sized}


class NumpyTwin:
    """A chain of dense layers as matrix products in float32."""

    def __init__(self, network: Network) -> None:
        self._threshold = network.input.threshold
        self._matrices = [
            np.ascontiguousarray(layer.weights.T.astype(np.float32)) for layer in network.products
        ]
        self._limits = [layer.thresholds.astype(np.float32) for layer in network.products[:-1]]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        one, minus_one = np.float32(1), np.float32(-1)
        x = np.where(images >= self._threshold, one, minus_one)
        for matrix, limit in zip(self._matrices, self._limits, strict=False):
            x = np.where(x @ matrix >= limit, one, minus_one)
        return x @ self._matrices[-1]


class TorchTwin:
    """A chain of dense layers, unpadded convolutions and pools in float32."""

    def __init__(self, network: Network) -> None:
        import torch

        self._torch, self._spec = torch, network.input
        if network.input.table is not None:
            self._table = torch.from_numpy(network.input.table.astype(np.float32))
        self._steps = [self._step(layer) for layer in network.layers]

    def _step(self, layer: Layer) -> Callable:
        torch = self._torch
        if isinstance(layer, Pool):
            kernel, stride = layer.window.kernel, layer.window.stride
            return lambda x: torch.nn.functional.max_pool2d(x, kernel, stride)
        weights = torch.from_numpy(layer.weights.astype(np.float32))
        if isinstance(layer, Conv):
            weights = weights.permute(0, 3, 1, 2).contiguous()
            stride = layer.window.stride
            limit = torch.from_numpy(layer.thresholds.astype(np.float32)).reshape(1, -1, 1, 1)
            convolve = torch.nn.functional.conv2d
            return lambda x: torch.where(convolve(x, weights, stride=stride) >= limit, 1.0, -1.0)
        matrix = weights.T.contiguous()
        if layer.thresholds is None:
            return lambda x: x.flatten(1) @ matrix
        limit = torch.from_numpy(layer.thresholds.astype(np.float32))
        return lambda x: torch.where(x.flatten(1) @ matrix >= limit, 1.0, -1.0)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        torch = self._torch
        with torch.inference_mode():
            x = torch.from_numpy(images)
            if self._spec.table is None:
                x = torch.where(x >= self._spec.threshold, 1.0, -1.0)
            else:
                x = self._table[x.int()].permute(0, 3, 1, 2).contiguous()
            for step in self._steps:
                x = step(x)
            return x.numpy()


def interleaved(runs: list[Callable], images: np.ndarray) -> list[float]:
    """Median seconds of each, the runs taking turns."""
    times: list[list[float]] = [[] for _ in runs]
    start = time.perf_counter()
    while len(times[0]) < REPEATS or time.perf_counter() - start < SECONDS:
        for run, taken in zip(runs, times, strict=True):
            before = time.perf_counter()
            run(images)
            taken.append(time.perf_counter() - before)
    return [statistics.median(taken) for taken in times]


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        flags = " with AVX-512 popcount" if "avx512_vpopcntdq" in info.read_text() else ""
        if names:
            return names[0] + flags
    return platform.processor() or platform.machine()


def markdown(report: dict) -> str:
    lines = [
        f"Reference executor on {report['cpu']}, medians:",
        "",
        "| network | threads | batch | executor ms | torch float32 ms | NumPy float32 ms "
        "| x torch | x NumPy | images/s | torch images/s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        numpy_ms, times_numpy = "-", "-"
        if "numpy_s" in row:
            numpy_ms, times_numpy = f"{row['numpy_s'] * 1e3:.2f}", f"{row['times_numpy']:.1f}"
        lines.append(
            f"| {row['network']} | {row['threads']} | {row['batch']} "
            f"| {row['executor_s'] * 1e3:.3f} | {row['torch_s'] * 1e3:.2f} | {numpy_ms} "
            f"| {row['times_torch']:.1f} | {times_numpy} "
            f"| {row['executor_images_per_s']:,.0f} | {row['torch_images_per_s']:,.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
