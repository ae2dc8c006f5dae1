# SPDX-License-Identifier: BSD-2-Clause
"""What a core with AXI ports brings along for the design that it goes into.

xnorforge.core   FuseSoC's description: the core, and targets that simulate and lint it
testbench.v      that simulation in plain Verilog: images.hex in, results.hex out, under stalls
instance.v       an instantiation to copy
litex_core.py    a LiteX module around the core

Templates lie in `data/axi`; {{name}} is filled in.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from xnorforge.gen.assembly import CoreParts, weights_load
from xnorforge.gen.axi import AXI
from xnorforge.gen.network import Network
from xnorforge.gen.numpy_reference import evaluate
from xnorforge.gen.plan import Plan

__all__ = ["AXI_FILES", "axi_files"]

_TEMPLATED = ("xnorforge.core", "testbench.v", "instance.v", "litex_core.py")
AXI_FILES = (*_TEMPLATED, "images.hex", "results.hex", "weights.hex")
_TEMPLATES = Path(__file__).parent / "data" / "axi"
_IMAGES = 8


def axi_files(network: Network, plan: Plan, parts: CoreParts) -> dict[str, str]:
    """The text of `AXI_FILES`, by name."""
    images = network.input.draw(np.random.default_rng(0), _IMAGES)
    found = evaluate(network, images)
    words = np.concatenate([found.scores, found.labels[:, None]], axis=1)
    beats = _beats(network, plan.beat_bytes, found.input)
    load = weights_load(parts)
    two_clocks, two_slots = plan.bus_clock_hz is not None, plan.slots > 1
    values: dict[str, Any] = {
        "module": AXI,
        "name": "-".join(re.findall(r"\w+", network.name)) or "network",
        "data_bits": 8 * plan.beat_bytes,
        "images": _IMAGES,
        "beats": len(beats) // _IMAGES,
        "classes": network.classes,
        "load_bytes": len(load),
        "core_clk": "\n      .core_clk(core_clk)," if two_clocks else "",
        "core_clk_port": "\n    input core_clk," if two_clocks else "",
        "slots": "\n      .s_axis_image_tuser(1'b0),\n      .s_axis_weights_tuser(1'b0),"
        if two_slots
        else "",
        "two_clocks": two_clocks,
        "two_slots": two_slots,
    }
    texts = {
        name: re.sub(
            r"\{\{(\w+)\}\}",
            lambda found: str(values[found[1]]),
            (_TEMPLATES / f"{name}.in").read_text(),
        )
        for name in _TEMPLATED
    }
    return texts | {
        "images.hex": _hex(bytes(beat[::-1]).hex() for beat in beats),
        "results.hex": _hex(f"{int(word) & 0xFFFF_FFFF:08x}" for word in words.flat),
        "weights.hex": _hex(f"{byte:02x}" for byte in load),
    }


def _beats(network: Network, beat_bytes: int, values: np.ndarray) -> np.ndarray:
    """Network inputs (N, K) -> beats of the image stream, uint8 (N * beats, beat_bytes)."""
    given = network.input
    size = -(-given.image_bytes // beat_bytes) * beat_bytes
    whole = np.zeros((len(values), size), np.uint8)
    if given.value.bits == 1:
        packed = np.packbits(values.astype(np.uint8), axis=1, bitorder="little")
    else:
        packed = (values.astype(np.int64) & 0xFF).astype(np.uint8)
    whole[:, : given.image_bytes] = packed
    return whole.reshape(-1, beat_bytes)


def _hex(words: Any) -> str:
    return "\n".join(words) + "\n"
