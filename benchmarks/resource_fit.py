# SPDX-License-Identifier: BSD-2-Clause
"""The resource model's coefficients from measured designs, and its error on the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from resource_designs import Block, Design, Element, blocks, design_names, draw, is_held_out

from xnorforge.gen.resource_terms import Elements, ElementTables, Terms, chain
from xnorforge.gen.resources import ELEMENT_TABLES, FITTED, Resources, block_terms, parts_of

__all__ = ["Sample", "elements_of", "fit_family", "samples", "to_toml"]

FIT_TERMS = {
    "cells": (
        "match.cells",
        "accumulate",
        "elements",
        "engine",
        "count",
        "lone",
        "choose",
        "stored",
        "lut_rams",
        "rom",
        "store",
        "column",
        "convert",
        "gearbox",
        "gearboxes",
        "head",
        "affine",
        "core",
        "shell",
    ),
    "flipflops": ("match.flipflops", "registers", "lut_rams", "core", "shell"),
    "carries": (
        "match.carries",
        "accumulate.carries",
        "count.carries",
        "head",
        "affine",
        "core",
        "shell",
    ),
}
"""The terms that each kind is a sum of."""

COUNTED = ("match.cells", "match.flipflops", "match.carries", "accumulate.carries", "registers")
"""Terms that are measured alone or counted one by one: their coefficients are near 1."""

BELIEF = 0.3  # how near: a coefficient of 1.1 costs as much as an error of 3 % on a design
BLOCK_WEIGHT = 0.3
SMALLEST = {"cells": 150, "flipflops": 100, "carries": 50}
"""Errors of less than these counts are taken as shares of them."""


class Sample:
    """One measured item with its terms. used: what was measured."""

    def __init__(
        self,
        item: Block | Design,
        used: Mapping[str, int],
        elements: ElementTables,
        shell_blocks: int,
    ) -> None:
        self.name, self.used = item.name, used
        self.is_design = isinstance(item, Design)
        self.is_held_out = self.is_design and is_held_out(item.name)
        self.terms: Terms = Terms()
        self.exact = Resources()
        if isinstance(item, Design):
            for terms, exact in parts_of(item.network, item.plan, elements, shell_blocks).values():
                self.terms.update(terms)
                self.exact += exact
        elif not isinstance(item.config, Element):
            self.terms, self.exact = block_terms(item.config, item.family, elements)

    def predicted(self, kind: str, weights: Mapping[str, Mapping[str, float]]) -> float:
        if kind not in FITTED:
            return getattr(self.exact, kind)
        return sum(weight * self.terms[name] for name, weight in weights[kind].items())


def elements_of(family: str, known: Mapping[str, Any]) -> ElementTables:
    """The tables of processing elements measured alone."""

    def table(name: str) -> Elements:
        found = [
            (block.config.config, known[block.name]["used"])
            for block in blocks(family)
            if isinstance(block.config, Element) and block.config.table == name
        ]
        columns = {kind: tuple(used[kind] for _, used in found) for kind in FITTED}
        columns["carries"] = tuple(
            used["carries"] - chain(config.acc_width + config.has_spare, family)
            for config, used in found
        )
        return Elements(simd=tuple(config.simd for config, _ in found), **columns)

    return ElementTables(*map(table, ELEMENT_TABLES))


def samples(family: str, known: Mapping[str, Any], shell_blocks: int) -> list[Sample]:
    """Everything measured of a family, but for the elements."""
    elements = elements_of(family, known)
    items = [b for b in blocks(family) if not isinstance(b.config, Element)]
    items += [draw(name) for name in design_names(family)]
    return [
        Sample(item, known[item.name]["used"], elements, shell_blocks)
        for item in items
        if item.name in known
    ]


def fit_family(found: Iterable[Sample]) -> dict[str, dict[str, float]]:
    """Coefficients by kind and term: least squares of the relative error, none negative."""
    serving = [sample for sample in found if not sample.is_held_out]
    weights = {}
    for kind in FITTED:
        used = np.array([sample.used[kind] for sample in serving], float)
        scale = np.array([1.0 if sample.is_design else BLOCK_WEIGHT for sample in serving])
        scale /= np.maximum(used, SMALLEST[kind])
        names = [n for n in FIT_TERMS[kind] if any(sample.terms[n] for sample in serving)]
        while True:
            matrix = np.array([[s.terms[name] for name in names] for s in serving], float)
            ones = np.array([[BELIEF * (n == m) for n in names] for m in names if m in COUNTED])
            left = np.vstack([matrix * scale[:, None], ones.reshape(-1, len(names))])
            right = np.append(used * scale, np.full(len(ones), BELIEF))
            solution = np.linalg.lstsq(left, right, rcond=None)[0]
            if (solution >= 0).all():
                break
            names.pop(int(solution.argmin()))
        weights[kind] = dict(zip(names, map(float, solution), strict=True))
    return weights


def to_toml(
    family: str,
    weights: Mapping[str, Mapping[str, float]],
    elements: ElementTables,
    shell_blocks: int,
    fill: float,
    lut_ram_fill: float,
) -> str:
    """A family's part of resources.toml."""
    lines = [f"[{family}]", f"shell_blocks = {shell_blocks}", f"fill = {fill}"]
    lines += [f"lut_ram_fill = {lut_ram_fill}", ""]
    for kind, known in weights.items():
        lines.append(f"[{family}.{kind}]")
        lines += [f'"{name}" = {float(f"{weight:.4g}")}' for name, weight in known.items()]
        lines.append("")
    found = (elements.single, elements.double, elements.constant)
    for table, known in zip(ELEMENT_TABLES, found, strict=True):
        lines.append(f"[{family}.{table}]")
        lines += [f"{name} = {list(values)}" for name, values in asdict(known).items()]
        lines.append("")
    return "\n".join(lines)
