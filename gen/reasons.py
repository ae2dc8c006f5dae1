# SPDX-License-Identifier: BSD-2-Clause
"""Why a plan's weights, presets and buffers lie where they do, in words for its report.

The search weighs shares of the device; here each choice is set beside what its alternatives would
have taken of what the rest of the design leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from xnorforge.gen import resources
from xnorforge.gen.layer_plan import StreamPlan
from xnorforge.gen.layers import Product
from xnorforge.gen.network import Network
from xnorforge.gen.overrides import STORE_FIELDS
from xnorforge.gen.resource_terms import CONSTANT_WORDS
from xnorforge.gen.resources import Resources
from xnorforge.hw.mvu import MvuConfig
from xnorforge.hw.store import StoreConfig

if TYPE_CHECKING:
    from xnorforge.gen.search import Chain

__all__ = ["store_reasons"]

_NAMES = {"weight_store": "weights", "preset_store": "presets", "buffer_store": "buffer"}


def store_reasons(
    chain: Chain,
    network: Network,
    family: str,
    room: Resources,
    overrides: Mapping[str, Mapping[str, Any]],
) -> tuple[tuple[str, str], ...]:
    """(name, reason) of every memory, e.g. ("fc0.weights", "2 SPRAM blocks: ...").

    room: what the device has for the core. overrides: checked settings by layer.
    """
    left = room - chain.resources
    found = []
    for layer, folds in zip(network.layers, chain.layers, strict=True):
        if isinstance(folds, StreamPlan) or not isinstance(layer, Product):
            continue
        config = folds.mvu_config(family, layer)
        for field in STORE_FIELDS:
            own = overrides.get(layer.name, {})
            fixed = field in own or (field == "weight_store" and own.get("share", 1) > 1)
            reason = _reason(config, getattr(folds, field), field, room, left, fixed)
            found.append((f"{layer.name}.{_NAMES[field]}", reason))
    return tuple(found)


def _reason(
    config: MvuConfig, kind: str, field: str, room: Resources, left: Resources, fixed: bool
) -> str:
    shape = _shape(config, field)
    options = {other: resources.mvu_store(config, field, other) for other in {"block", "lut", kind}}
    taken = _taken(shape, kind, options[kind])
    if fixed:
        return f"{taken}: the overrides say so"
    if shape.depth == 1:
        return f"{taken}: one word"
    blocks, logic = options["block"].blocks, options["lut"]
    free = left.blocks + options[kind].blocks
    bits = f"{shape.width * shape.depth:,} bits"
    if kind == "spram":
        if blocks > free:
            return f"{taken}: {bits} would take {blocks} block RAMs and {free} are left"
        return f"{taken}: {blocks} block RAMs are left for the rest"
    if kind == "const":
        if field == "weight_store" and shape.depth <= CONSTANT_WORDS:
            return f"{taken}: {shape.depth} words fit in the LUT4 of their XNOR"
        return f"{taken}: cheaper than any memory of {shape.depth} words"
    share, other_share = _share(options[kind], room), _share(options[_OTHER[kind]], room)
    if kind == "block":
        if logic.cells > left.cells + options[kind].cells:
            cells = left.cells + options[kind].cells
            return f"{taken}: {bits} would take {logic.cells:,} logic cells and {cells:,} are left"
        why = f"{share} of the block RAMs, against {other_share} of the logic cells"
        return f"{taken}: {why}{'' if _cheaper(options, room, kind) else ', which are scarcer'}"
    if blocks > free:
        return f"{taken}: {blocks} block RAMs would be needed and {free} are left"
    filled = 100 * shape.width * shape.depth // _block_bits(shape)
    why = f"{share} of the logic cells, against {other_share} of the block RAMs, {filled} % full"
    return f"{taken}: {why}{'' if _cheaper(options, room, kind) else ', which are scarcer'}"


_OTHER = {"block": "lut", "lut": "block"}


def _shape(config: MvuConfig, field: str) -> StoreConfig:
    """The store's shape as block RAM, so that its tiles can be asked for."""
    if field == "weight_store":
        found = config.weight_config
    elif field == "preset_store":
        found = config.preset_config
    else:
        width = config.reuse * config.simd * config.input_bits
        return StoreConfig(width, config.buffer_depth, "block", config.family)
    return StoreConfig(found.width, found.depth, "block", config.family, found.readers)


def _taken(shape: StoreConfig, kind: str, used: Resources) -> str:
    if kind == "const":
        return "constant logic"
    if shape.depth == 1:
        return "register"
    if kind == "spram" and used.sprams < 1:
        return f"1/{round(1 / used.sprams)} of a shared SPRAM block"
    if kind == "spram":
        return _count(round(used.sprams), "SPRAM block")
    if kind == "block":
        return _count(used.blocks, "block RAM")
    as_lut = StoreConfig(shape.width, shape.depth, "lut", shape.family)
    return "LUT RAM" if as_lut.lut_rams else "flip-flops"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _part(used: Resources, room: Resources) -> float:
    """Share of what a memory mostly takes: block RAMs, else logic cells."""
    if used.blocks:
        return used.blocks / max(1, room.blocks)
    return used.cells / max(1, room.cells)


def _share(used: Resources, room: Resources) -> str:
    return f"{100 * _part(used, room):.1f} %"


def _cheaper(options: Mapping[str, Resources], room: Resources, kind: str) -> bool:
    return _part(options[kind], room) <= _part(options[_OTHER[kind]], room)


def _block_bits(shape: StoreConfig) -> int:
    """Bits of the block RAMs that the shape would take."""
    width, depth = shape.tile(0)
    return shape.block_rams * width * depth
