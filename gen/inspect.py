# SPDX-License-Identifier: BSD-2-Clause
"""What is in a network: the layer table of the command line's `inspect`."""

from __future__ import annotations

from typing import Any

import numpy as np

from xnorforge.gen.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    Layer,
    Pool,
    Product,
    Threshold,
    ValueType,
    WeightType,
)
from xnorforge.gen.network import Network
from xnorforge.hw.geometry import Window

__all__ = ["describe", "inspect"]

_OPERATORS = {
    Dense: "dense",
    Conv: "conv",
    Pool: "pool",
    Threshold: "threshold",
    Add: "add",
    Concat: "concat",
}


def inspect(network: Network) -> dict[str, Any]:
    """A JSON-ready summary: input, layers, totals, head, and what import proved."""
    notes = {note["name"]: note for note in network.source.get("layers", [])}
    value, head = network.input.value, network.head
    rows = []
    for index, layer in enumerate(network.layers):
        row = _layer(layer, notes.get(layer.name, {}))
        row["inputs"] = list(network.inputs_of(index))
        if layer is network.layers[-1]:
            row["output"] = "scores"
        rows.append(row)
    return {
        "name": network.name,
        "input": {
            "type": _type(value),
            "shape": list(value.shape),
            "pixel": network.input.pixel,
            "threshold": network.input.threshold,
            "inverted": network.input.inverted,
            "table": network.input.table is not None,
            "note": network.input.note,
        },
        "layers": rows,
        "classes": network.classes,
        "head": {"rule": head.rule, "tie": head.tie, "affine": head.scale is not None},
        "weight_bits": network.weight_bits,
        "macs": network.macs,
        "exactness": network.source.get("exactness", ""),
        "source": {k: network.source[k] for k in ("file", "format") if k in network.source},
    }


def _type(value: ValueType) -> str:
    return "bit" if value.kind == "bit" else f"{value.kind}{value.bits}"


def _layer(layer: Layer, note: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": layer.name,
        "op": _OPERATORS[type(layer)],
        "node": note.get("node", ""),
        "input": " + ".join(_type(source) for source in layer.sources),
        "output": _type(layer.output),
        "input_shape": list(layer.sources[0].shape),
        "output_shape": list(layer.output.shape),
        "macs": 0,
        "weight_bits": 0,
        "flipped": note.get("flipped"),
        "thresholds": None,
    }
    if isinstance(layer, Product):
        row |= {
            "rows": layer.rows,
            "columns": layer.columns,
            "weights": _weights(layer.weight_type),
            "macs": layer.macs,
            "weight_bits": layer.weight_bits,
        }
        if layer.bank is not None:
            row["thresholds"] = _thresholds(layer.bank, layer.dot_low, layer.dot_high)
    if isinstance(layer, Conv | Pool):
        row["window"] = _window(layer.window)
        row["windows"] = layer.windows.height * layer.windows.width
    if isinstance(layer, Conv):
        row |= {"groups": layer.groups, "borders": layer.borders}
        row["window"]["pad_value"] = layer.pad_value if layer.window.padded else None
    if isinstance(layer, Pool):
        row["pool"] = layer.kind
    if isinstance(layer, Threshold):
        sign = layer.sign.astype(np.int64)
        ends = np.stack([sign * layer.source.low, sign * layer.source.high])
        bank = layer.thresholds[None]
        row["thresholds"] = _thresholds(bank, ends.min(axis=0), ends.max(axis=0))
    return row


def _window(window: Window) -> dict[str, Any]:
    return {name: list(getattr(window, name)) for name in ("kernel", "stride", "dilation", "pads")}


def _weights(kind: WeightType) -> str:
    """What a weight can be."""
    if kind.high == 1:
        return "-1, 1" if kind.kind == "odd" else "-1, 0, 1"
    return f"{'odd, ' if kind.kind == 'odd' else ''}{-kind.high} .. {kind.high}"


def _thresholds(
    bank: np.ndarray, low: int | np.ndarray, high: int | np.ndarray
) -> dict[str, int | None]:
    """Of (borders, levels, channels) for values low .. high: how many, and from where to where."""
    always, never = bank <= low, bank > high
    used = bank[~(always | never)]
    return {
        "levels": bank.shape[1],
        "borders": bank.shape[0],
        "low": int(used.min()) if used.size else None,
        "high": int(used.max()) if used.size else None,
        "always": int(always.sum()),
        "never": int(never.sum()),
    }


_COLUMNS = (
    "layer",
    "operator",
    "shape",
    "input",
    "output",
    "windows",
    "MACs",
    "weight bits",
    "levels",
    "thresholds",
    "constant",
    "flipped",
)


def describe(network: Network) -> str:
    """The same for people: a table and a few lines."""
    summary = inspect(network)
    rows = [_cells(row) for row in summary["layers"]]
    # What no layer of this network has needs no column.
    kept = [i for i in range(len(_COLUMNS)) if any(row[i] not in ("", "-") for row in rows)]
    table = [[row[i] for i in kept] for row in (_COLUMNS, *rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(kept))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    spec = summary["input"]
    note = f" ({spec['note']})" if spec["note"] else ""
    lines = [
        f"{summary['name']}: {summary['weight_bits']:,} weight bits, {summary['macs']:,} binary "
        f"MACs an image, {summary['classes']} classes",
        f"input: {' x '.join(map(str, spec['shape']))} {spec['pixel']} pixels as {spec['type']}"
        f"{' through a table' if spec['table'] else ''}{note}",
        "",
        *lines,
        "",
        _label(summary["head"]),
    ]
    if summary["exactness"]:
        lines.append(f"exactness: {summary['exactness']}")
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the table of people."""
    t = row["thresholds"]
    used = t is not None and t["low"] is not None
    if row["op"] == "dense":
        shape = f"{row['columns']} -> {row['rows']}"
    else:
        shape = " -> ".join("x".join(map(str, row[f"{way}_shape"])) for way in ("input", "output"))
    return (
        row["name"],
        _operator(row),
        shape,
        row["input"],
        row["output"],
        f"{row['windows']:,}" if "windows" in row else "-",
        f"{row['macs']:,}" if "rows" in row else "-",
        f"{row['weight_bits']:,}" if "rows" in row else "-",
        "-" if t is None or t["levels"] == 1 else str(t["levels"]),
        f"{t['low']} .. {t['high']}" if used else "-",
        "-" if t is None else str(t["always"] + t["never"]),
        "-" if row["flipped"] is None else str(row["flipped"]),
    )


def _operator(row: dict[str, Any]) -> str:
    """Such as "conv 3x3 stride 2 pads 1 groups 4, weights -1, 0, 1"."""
    words = [row["pool"], row["op"]] if "pool" in row else [row["op"]]
    window = row.get("window")
    if window is not None:
        words.append("x".join(map(str, window["kernel"])))
        for name, usual in (("stride", 1), ("dilation", 1), ("pads", 0)):
            values = window[name]
            if any(value != usual for value in values):
                one = len(set(values)) == 1
                words += [name, str(values[0]) if one else ",".join(map(str, values))]
    if row.get("groups", 1) > 1:
        words += ["groups", str(row["groups"])]
    text = " ".join(words)
    usual = row.get("weights", "-1, 1") == "-1, 1"
    return text if usual else f"{text}, weights {row['weights']}"


def _label(head: dict[str, Any]) -> str:
    scaled = ", after a scale and offset by class" if head["affine"] else ""
    if head["rule"] == "highest_bit":
        return f"label: highest class whose score is not negative, else 0{scaled}"
    ties = {"first": "lowest", "last": "highest"}[head["tie"]]
    return f"label: largest score, {ties} class among equals{scaled}"
