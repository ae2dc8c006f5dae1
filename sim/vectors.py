# SPDX-License-Identifier: BSD-2-Clause
"""Runs a Verilog module on vectors: one of inputs a clock cycle, its outputs before and after.

For models of single cells and for memories, where a board or cocotb would be too much. The module
has the ports `clk`, `stimulus` and `response`; both vectors are wider than 64 bits.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xnorforge.gen.errors import ToolError
from xnorforge.sim.verilator import build_program, environment

__all__ = ["pack_fields", "run_vectors", "unpack_fields"]

_MAIN = Path(__file__).with_name("vectors_main.cpp")
_WORD_BYTES = 4  # Verilator keeps wide vectors in words of 32 bits


def run_vectors(
    sources: Sequence[Path],
    top: str,
    stimulus: np.ndarray,
    response_bits: int,
    *,
    options: Sequence[str] = (),
    seed: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Responses before and after the rising edge, uint8 (cycles, bits) of 0 and 1, bit 0 first.

    stimulus: uint8 (cycles, bits) of 0 and 1. What is not initialised powers up at random by
    `seed`. Raises ToolError when the model does not build or run, ValueError for narrow vectors.
    """
    cycles, bits = stimulus.shape
    if min(bits, response_bits) <= 64:
        raise ValueError(f"Vectors must be wider than 64 bits, not {bits} and {response_bits}")
    program = build_program(
        sources, top, _MAIN, options=["--x-assign", "unique", "--x-initial", "unique", *options]
    )
    packed = np.packbits(stimulus, axis=1, bitorder="little")
    padded = np.zeros((cycles, _bytes(bits)), np.uint8)
    padded[:, : packed.shape[1]] = packed
    done = subprocess.run(
        [str(program), "+verilator+rand+reset+2", f"+verilator+seed+{seed}"],
        input=padded.tobytes(),
        capture_output=True,
        env=environment(),
    )
    width = _bytes(response_bits)
    if done.returncode != 0 or len(done.stdout) != 2 * cycles * width:
        raise ToolError(f"The model of {top} did not run: {done.stderr.decode().strip()}")
    found = np.frombuffer(done.stdout, np.uint8).reshape(cycles, 2, width)
    unpacked = np.unpackbits(found, axis=2, bitorder="little")[:, :, :response_bits]
    return unpacked[:, 0], unpacked[:, 1]


def pack_fields(fields: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """Columns of bits from (values, width), the first field in the lowest bits."""
    columns = [
        (np.asarray(values, np.uint64)[:, None] >> np.arange(width, dtype=np.uint64)) & np.uint64(1)
        for values, width in fields
    ]
    return np.concatenate(columns, axis=1).astype(np.uint8)


def unpack_fields(bits: np.ndarray, widths: Sequence[int]) -> list[np.ndarray]:
    """Inverse of `pack_fields`: an array of integers a field."""
    values = []
    low = 0
    for width in widths:
        part = bits[:, low : low + width].astype(np.uint64)
        values.append((part << np.arange(width, dtype=np.uint64)).sum(axis=1, dtype=np.uint64))
        low += width
    return values


def _bytes(bits: int) -> int:
    return -(-bits // (8 * _WORD_BYTES)) * _WORD_BYTES
