# SPDX-License-Identifier: BSD-2-Clause
"""The resource model's error: a table and a scatter plot for docs/resources.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from resource_fit import Sample

from xnorforge.gen.resources import FITTED

__all__ = ["error_table", "errors", "scatter"]

TITLES = {"ice40": "iCE40", "ecp5": "ECP5", "gowin": "Gowin"}
CELL_NAMES = {"ice40": "logic cells", "ecp5": "TRELLIS_COMB", "gowin": "LUT4"}
WORDS = {"cells": "cells", "flipflops": "flip-flops", "carries": "carry cells"}
BAND = 0.2  # the worst error that is asked for


Fitted = Mapping[str, tuple[Sequence[Sample], Mapping[str, Mapping[str, float]]]]
"""By family: everything measured, and the coefficients."""


def errors(found: Sequence[Sample], weights: Mapping[str, Mapping[str, float]], kind: str):
    """Relative errors of whole designs."""
    return np.array([s.predicted(kind, weights) / max(1, s.used[kind]) - 1 for s in found])


def error_table(fitted: Fitted) -> str:
    """Errors on the designs that were held out, and the exact kinds on all of them."""
    lines = [
        "| family | designs | cells | kind | median error | worst | mean, signed |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, (found, weights) in fitted.items():
        held = [sample for sample in found if sample.is_held_out]
        sizes = [sample.used["cells"] for sample in held]
        for kind in FITTED:
            found_errors = errors(held, weights, kind)
            lines.append(
                f"| {TITLES[family]} | {len(held)} | {min(sizes):,} to {max(sizes):,} "
                f"| {WORDS[kind]} | {np.median(abs(found_errors)):.1%} "
                f"| {abs(found_errors).max():.1%} | {found_errors.mean():+.1%} |"
            )
    lines += [
        "",
        "| family | designs | block RAM | SPRAM | LUT RAM | fitted: cells, median | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for family, (found, weights) in fitted.items():
        designs = [sample for sample in found if sample.is_design]
        exact = [
            f"{sum(sample.used[kind] == getattr(sample.exact, kind) for sample in designs)} exact"
            for kind in ("blocks", "sprams", "lut_rams")
        ]
        served = [sample for sample in designs if not sample.is_held_out]
        found_errors = abs(errors(served, weights, "cells"))
        lines.append(
            f"| {TITLES[family]} | {len(designs)} | {' | '.join(exact)} "
            f"| {np.median(found_errors):.1%} | {found_errors.max():.1%} |"
        )
    return "\n".join(lines) + "\n"


def scatter(fitted: Fitted, path: Path) -> None:
    """Predicted against packed cells, a panel a family."""
    plt.rcParams["svg.hashsalt"] = "xnorforge"  # the same picture is the same file
    figure, axes = plt.subplots(1, len(fitted), figsize=(4 * len(fitted), 4.2), squeeze=False)
    for axis, (family, (found, weights)) in zip(axes[0], fitted.items(), strict=True):
        designs = [sample for sample in found if sample.is_design]
        low = 0.7 * min(sample.used["cells"] for sample in designs)
        high = 1.4 * max(sample.used["cells"] for sample in designs)
        ends = np.array([low, high])
        axis.fill_between(
            ends, ends * (1 - BAND), ends * (1 + BAND), color="0.92", label=f"±{BAND:.0%}"
        )
        axis.plot(ends, ends, color="0.5", linewidth=0.8)
        for is_held_out, style, label in (
            (False, {"facecolors": "none", "edgecolors": "0.45"}, "fitted"),
            (True, {"color": "C0"}, "held out"),
        ):
            group = [sample for sample in designs if sample.is_held_out == is_held_out]
            axis.scatter(
                [sample.used["cells"] for sample in group],
                [sample.predicted("cells", weights) for sample in group],
                s=18,
                label=f"{label} ({len(group)})",
                zorder=3,
                **style,
            )
        axis.set(
            title=TITLES[family],
            xscale="log",
            yscale="log",
            xlim=ends,
            ylim=ends,
            xlabel=f"packed {CELL_NAMES[family]}",
            aspect="equal",
        )
        axis.legend(loc="upper left", fontsize=8)
    axes[0][0].set_ylabel("predicted")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
