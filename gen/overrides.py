# SPDX-License-Identifier: BSD-2-Clause
"""Folding overrides: `{layer: {"pe": 4, "simd": 49, "weight_store": "lut", ...}}`, checked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xnorforge.gen.devices import Device
from xnorforge.gen.errors import PlanError
from xnorforge.gen.layer_plan import WindowPlan
from xnorforge.gen.layers import Conv, Layer, Pool, Product, Threshold
from xnorforge.gen.network import Network
from xnorforge.hw.popcount import PIPELINES, STRUCTURES
from xnorforge.hw.store_config import SPRAM_SHAPE, SPRAM_SHARES, fits_share
from xnorforge.hw.tile_pool import tiles
from xnorforge.hw.window import WindowConfig

__all__ = ["ENGINE_FIELDS", "FOLD_FIELDS", "STORE_FIELDS", "read_overrides"]

FOLD_FIELDS = ("pe", "simd", "pl", "reuse")
STORE_FIELDS = ("weight_store", "preset_store", "buffer_store")
ENGINE_FIELDS = {"structure": STRUCTURES, "pipeline": PIPELINES}
STORE_KINDS = {
    "weight_store": ("block", "lut", "spram", "const"),
    "preset_store": ("block", "lut", "const"),
    "buffer_store": ("block", "lut"),
}


def read_overrides(
    source: str | Path | Mapping[str, Any] | None, network: Network, device: Device
) -> dict[str, dict[str, Any]]:
    """Overrides from a JSON file or a mapping, every name and value checked.

    Raises PlanError naming the file, the layer, the field and what is allowed, on this device.
    """
    if source is None:
        return {}
    if isinstance(source, Mapping):
        where, content = "Overrides", source
    else:
        where = str(source)
        try:
            content = json.loads(Path(source).read_text())
        except OSError as error:
            raise PlanError(f"{where} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise PlanError(f"{where} is not JSON: {error}") from None
    if not isinstance(content, Mapping):
        raise PlanError(f"{where} must map layer names to settings, not {content!r}")
    layers = {layer.name: layer for layer in network.layers}
    for name, fields in content.items():
        if name not in layers:
            raise PlanError(f"{where}: no layer {name!r}; the layers are {', '.join(layers)}")
        if not isinstance(fields, Mapping):
            raise PlanError(f"{where}: layer {name!r} must map fields to values, not {fields!r}")
        for field, value in fields.items():
            _check(f"{where}: layer {name!r}", layers[name], device, field, value)
        if fields.get("share", 1) > 1:
            _check_share(f"{where}: layer {name!r}", layers[name], fields)
    return {name: dict(fields) for name, fields in content.items()}


def _check(where: str, layer: Layer, device: Device, field: str, value: Any) -> None:
    ring = _ring(layer)
    if field == "depth" and ring is not None:
        low, high = ring.min_depth, max(2 * ring.bubble_free_depth, ring.walk.pixels)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise PlanError(
                f"{where}: depth must be an integer from {low} to {high} pixels of the line "
                f"buffer, not {value!r}"
            )
        return
    if isinstance(layer, Pool | Threshold):
        if field != "simd":
            only = "its fields are simd, its lanes, and depth, of its line buffer"
            if ring is None:
                only = "its only field is simd, its lanes"
            raise PlanError(f"{where}: has no {field}; {only}")
        channels = layer.source.channels
        if not isinstance(value, int) or value < 1 or channels % value:
            raise PlanError(f"{where}: simd must divide {channels} channels, not {value!r}")
        return
    if not isinstance(layer, Product):
        raise PlanError(f"{where}: {type(layer).__name__.lower()} layers have no settings")
    if field in STORE_FIELDS:
        kinds = STORE_KINDS[field]
        if value not in kinds:
            known = f"{', '.join(map(repr, kinds[:-1]))} or {kinds[-1]!r}"
            raise PlanError(f"{where}: {field} must be {known}, not {value!r}")
        if value == "spram" and not device.spram_blocks:
            raise PlanError(f"{where}: {field} 'spram' does not exist on {device.name}")
        return
    if field == "share":
        if type(value) is not int or value not in SPRAM_SHARES:
            known = ", ".join(map(str, SPRAM_SHARES))
            raise PlanError(f"{where}: share must be one of {known}, not {value!r}")
        if value > 1 and not device.spram_blocks:
            raise PlanError(f"{where}: there is no SPRAM to share on {device.name}")
        return
    if field in ENGINE_FIELDS:
        if value not in ENGINE_FIELDS[field]:
            known = ", ".join(map(repr, ENGINE_FIELDS[field]))
            raise PlanError(f"{where}: {field} must be one of {known}, not {value!r}")
        return
    if field not in FOLD_FIELDS:
        own = () if ring is None else ("depth",)
        known = ", ".join((*FOLD_FIELDS, *STORE_FIELDS, "share", *ENGINE_FIELDS, *own))
        raise PlanError(f"{where}: unknown field {field!r}; the fields are {known}")
    rows = layer.rows // layer.groups
    limits = {"pe": rows, "simd": layer.columns, "pl": layer.source.bits, "reuse": layer.vectors}
    limit = limits[field]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
        raise PlanError(f"{where}: {field} must be an integer from 1 to {limit}, not {value!r}")


def _check_share(where: str, layer: Layer, fields: Mapping[str, Any]) -> None:
    """Whether the weights, folded like this, fit in a share of an SPRAM."""
    assert isinstance(layer, Product)
    share, store = fields["share"], fields.get("weight_store", "spram")
    if store != "spram":
        raise PlanError(f"{where}: weights in {store!r} have no share of an SPRAM")
    if not {"pe", "simd"} <= fields.keys():
        raise PlanError(f"{where}: a share of an SPRAM needs pe and simd beside it")
    pe, simd = fields["pe"], fields["simd"]
    rows = layer.rows // layer.groups
    words = layer.groups * layer.weight_type.planes * -(-rows // pe) * -(-layer.columns // simd)
    if not fits_share(pe * simd, words, share):
        width, depth = SPRAM_SHAPE
        raise PlanError(
            f"{where}: 1/{share} of an SPRAM holds 2 to {depth // share} words of up to {width} "
            f"weights, not {words} of {pe} x {simd}"
        )


def _ring(layer: Layer) -> WindowConfig | None:
    """A line buffer of the layer, if it has any."""
    if isinstance(layer, Conv) or (isinstance(layer, Pool) and not tiles(layer.windows)):
        return WindowPlan(1, layer.source.pixels, "block").config(layer, "ecp5")
    return None
