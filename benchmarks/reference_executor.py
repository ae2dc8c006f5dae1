# SPDX-License-Identifier: BSD-2-Clause
"""Speed of the reference executor against float32 PyTorch and NumPy on an LFC-sized network.

    python benchmarks/reference_executor.py [--threads 1 2] [--batch 1 64 1024] [--out FOLDER]

All three take the same uint8 images, threshold them, run 784-1024-1024-1024-10 with weights of
-1 and +1 and integer thresholds, and give the same scores (checked before anything is timed).
Runs are interleaved; figures are medians. Each thread count runs in a process of its own, because
NumPy's BLAS reads its thread count at import. Writes reference_executor.json and .md.
"""

from __future__ import annotations

import argparse
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

SIZES = (784, 1024, 1024, 1024, 10)
TARGET = 7.0  # times PyTorch, one thread, batch >= 64: the headline of the BNN paper
SECONDS = 2.0  # of timed runs per figure, at least REPEATS of them
REPEATS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(options.measure, options.batch)))
        return

    rows = []
    for threads in options.threads:
        print(f"{threads} thread(s) ...", file=sys.stderr)
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        command = [sys.executable, __file__, "--measure", str(threads), "--batch"]
        done = subprocess.run(
            [*command, *map(str, options.batch)],
            env={**os.environ, **dict.fromkeys(names, str(threads))},
            check=True,
            capture_output=True,
            text=True,
        )
        rows += json.loads(done.stdout)
    gated = [row for row in rows if row["threads"] == 1 and row["batch"] >= 64]
    report = {
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "layers": "-".join(map(str, SIZES)),
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
        raise SystemExit(f"below {TARGET:g} times PyTorch at one thread and batch >= 64")


def measure(threads: int, batches: list[int]) -> list[dict]:
    """One row a batch size, in this process."""
    import torch

    from xnorforge.gen.network import Dense, Head, Input, Network, ValueType
    from xnorforge.sim.reference import Executor

    torch.set_num_threads(threads)
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
    network = Network("lfc-sized", spec, tuple(layers), Head())
    executor = Executor(network, threads)

    matrices = [np.ascontiguousarray(layer.weights.T.astype(np.float32)) for layer in layers]
    limits = [layer.thresholds.astype(np.float32) for layer in layers[:-1]]
    matrices_t, limits_t = map(torch.from_numpy, matrices), map(torch.from_numpy, limits)
    matrices_t, limits_t = list(matrices_t), list(limits_t)
    one, minus_one = np.float32(1), np.float32(-1)

    def run_numpy(images: np.ndarray) -> np.ndarray:
        x = np.where(images >= 128, one, minus_one)
        for matrix, limit in zip(matrices, limits, strict=False):
            x = np.where(x @ matrix >= limit, one, minus_one)
        return x @ matrices[-1]

    def run_torch(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.where(torch.from_numpy(images) >= 128, 1.0, -1.0)
            for matrix, limit in zip(matrices_t, limits_t, strict=False):
                x = torch.where(x @ matrix >= limit, 1.0, -1.0)
            return (x @ matrices_t[-1]).numpy()

    def run_executor(images: np.ndarray) -> np.ndarray:
        return executor.run(images).scores

    found = []
    for batch in batches:
        images = rng.integers(0, 256, (batch, SIZES[0]), dtype=np.uint8)
        want = run_executor(images)
        for run in (run_numpy, run_torch):
            if not np.array_equal(run(images), want):
                raise SystemExit(f"{run.__name__} and the executor give different scores")
        executor_s, torch_s, numpy_s = interleaved([run_executor, run_torch, run_numpy], images)
        found.append(
            {
                "threads": threads,
                "batch": batch,
                "executor_s": executor_s,
                "torch_s": torch_s,
                "numpy_s": numpy_s,
                "times_torch": torch_s / executor_s,
                "times_numpy": numpy_s / executor_s,
                "executor_images_per_s": batch / executor_s,
                "versions": {"numpy": np.__version__, "torch": torch.__version__},
            }
        )
    return found


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
        f"Reference executor, {report['layers']}, on {report['cpu']}, medians:",
        "",
        "| threads | batch | executor ms | torch float32 ms | NumPy float32 ms "
        "| x torch | x NumPy | images/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        lines.append(
            f"| {row['threads']} | {row['batch']} | {row['executor_s'] * 1e3:.3f} "
            f"| {row['torch_s'] * 1e3:.2f} | {row['numpy_s'] * 1e3:.2f} "
            f"| {row['times_torch']:.1f} | {row['times_numpy']:.1f} "
            f"| {row['executor_images_per_s']:,.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
