# SPDX-License-Identifier: BSD-2-Clause
"""What is in a network: the layer table of the command line's `inspect`."""

from __future__ import annotations

from typing import Any

from xnorforge.gen.network import Dense, Network, ValueType

__all__ = ["describe", "inspect"]


def inspect(network: Network) -> dict[str, Any]:
    """A JSON-ready summary: input, layers, totals, head, and what import proved."""
    notes = {note["name"]: note for note in network.source.get("layers", [])}
    value, head = network.input.value, network.head
    return {
        "name": network.name,
        "input": {
            "type": _type(value),
            "shape": list(value.shape),
            "pixel": network.input.pixel,
            "threshold": network.input.threshold,
            "inverted": network.input.inverted,
            "note": network.input.note,
        },
        "layers": [_layer(layer, notes.get(layer.name, {})) for layer in network.layers],
        "classes": network.classes,
        "head": {"tie": head.tie, "affine": head.scale is not None},
        "weight_bits": network.weight_bits,
        "macs": network.macs,
        "exactness": network.source.get("exactness", ""),
        "source": {k: network.source[k] for k in ("file", "format") if k in network.source},
    }


def _type(value: ValueType) -> str:
    return "bit" if value.kind == "bit" else f"{value.kind}{value.bits}"


def _layer(layer: Dense, note: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": layer.name,
        "node": note.get("node", ""),
        "rows": layer.rows,
        "columns": layer.columns,
        "input": _type(layer.source),
        "output": _type(layer.output) if layer.thresholds is not None else "scores",
        "macs": layer.weights.size * layer.source.bits,
        "weight_bits": layer.weights.size,
        "flipped": note.get("flipped"),
        "thresholds": None,
    }
    if layer.thresholds is not None:
        always = layer.thresholds == layer.dot_low
        never = layer.thresholds == layer.dot_high + 1
        used = layer.thresholds[~(always | never)]
        row["thresholds"] = {
            "low": int(used.min()) if used.size else None,
            "high": int(used.max()) if used.size else None,
            "always": int(always.sum()),
            "never": int(never.sum()),
        }
    return row


_COLUMNS = (
    "layer",
    "shape",
    "input",
    "output",
    "MACs",
    "weight bits",
    "thresholds",
    "constant",
    "flipped",
)


def describe(network: Network) -> str:
    """The same for people: a table and a few lines."""
    summary = inspect(network)
    table = [_COLUMNS]
    for row in summary["layers"]:
        t = row["thresholds"]
        used = t is not None and t["low"] is not None
        table.append(
            (
                row["name"],
                f"{row['columns']} -> {row['rows']}",
                row["input"],
                row["output"],
                f"{row['macs']:,}",
                f"{row['weight_bits']:,}",
                f"{t['low']} .. {t['high']}" if used else "-",
                "-" if t is None else str(t["always"] + t["never"]),
                "-" if row["flipped"] is None else str(row["flipped"]),
            )
        )
    widths = [max(len(row[i]) for row in table) for i in range(len(_COLUMNS))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    kind, shape = summary["input"]["type"], " x ".join(map(str, summary["input"]["shape"]))
    ties = {"first": "lowest", "last": "highest"}[summary["head"]["tie"]]
    lines = [
        f"{summary['name']}: {summary['weight_bits']:,} weight bits, {summary['macs']:,} binary "
        f"MACs an image, {summary['classes']} classes",
        f"input: {shape} {summary['input']['pixel']} pixels as {kind} ({summary['input']['note']})",
        "",
        *lines,
        "",
        f"label: largest score, {ties} class among equals"
        + (", after a scale and offset by class" if summary["head"]["affine"] else ""),
    ]
    if summary["exactness"]:
        lines.append(f"exactness: {summary['exactness']}")
    return "\n".join(lines)
