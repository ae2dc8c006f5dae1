# SPDX-License-Identifier: BSD-2-Clause
"""Folding overrides: `{layer: {"pe": 4, "simd": 49, "weight_store": "lut", ...}}`, checked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xnorforge.gen.devices import Device
from xnorforge.gen.errors import PlanError
from xnorforge.gen.layers import Layer, Pool, Product, Threshold
from xnorforge.gen.network import Network
from xnorforge.hw.popcount import PIPELINES, STRUCTURES

__all__ = ["ENGINE_FIELDS", "FOLD_FIELDS", "STORE_FIELDS", "read_overrides"]

FOLD_FIELDS = ("pe", "simd", "pl")
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
    return {name: dict(fields) for name, fields in content.items()}


def _check(where: str, layer: Layer, device: Device, field: str, value: Any) -> None:
    if isinstance(layer, Pool | Threshold):
        if field != "simd":
            raise PlanError(f"{where}: has no {field}; its only field is simd, its lanes")
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
    if field in ENGINE_FIELDS:
        if value not in ENGINE_FIELDS[field]:
            known = ", ".join(map(repr, ENGINE_FIELDS[field]))
            raise PlanError(f"{where}: {field} must be one of {known}, not {value!r}")
        return
    if field not in FOLD_FIELDS:
        known = ", ".join((*FOLD_FIELDS, *STORE_FIELDS, *ENGINE_FIELDS))
        raise PlanError(f"{where}: unknown field {field!r}; the fields are {known}")
    rows = layer.rows // layer.groups
    limit = {"pe": rows, "simd": layer.columns, "pl": layer.source.bits}[field]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
        raise PlanError(f"{where}: {field} must be an integer from 1 to {limit}, not {value!r}")
