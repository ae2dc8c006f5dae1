# SPDX-License-Identifier: BSD-2-Clause
"""Tables of results: measured row by row, kept beside the pages that show them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

__all__ = ["insert", "keep_rows"]


def keep_rows(
    table: Path,
    names: Iterable[str],
    measure: Callable[[str], dict[str, Any]],
    markdown: Callable[[dict[str, Any]], str],
    page: Path | None = None,
) -> dict[str, Any]:
    """Measure rows by name; after each, write all there are, of earlier runs too, and the table.

    table: the .md file; the rows are in the .json beside it. page: has marks of the table's name,
    blanks for underscores, to put it between. Returns all rows.
    """
    kept = table.with_suffix(".json")
    kept.parent.mkdir(exist_ok=True)
    report: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    for name in names:
        report[name] = measure(name)
        kept.write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
        table.write_text(markdown(report))
        if page is not None:
            insert(page, table.stem.replace("_", " "), table.read_text())
    print(table.read_text())
    return report


def insert(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of this name on a page."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->\n"
    before, _, rest = page.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page.name} has no marks {begin.strip()} and {end.strip()}")
    page.write_text(before + begin + text + end + after)
