# SPDX-License-Identifier: BSD-2-Clause
"""What commands print: results on stdout, as tables or JSON, and all else on stderr."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

__all__ = ["Steps", "console", "counter", "emit", "json_option", "steps", "table"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

PLAIN_WIDTH = 120
# A step that is done sooner is not worth a line of its own.
_QUIET_SECONDS = 2.0
# Where lines stay, the next one waits for this share of the time so far: a build of 15 minutes
# says some eighty things.
_LINE_SHARE = 0.05


def console(stderr: bool = False) -> Any:
    """A rich console on stdout, or on stderr; wide enough for tables where it is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, highlight=False, width=width)


def emit(value: Any) -> None:
    """The result as one JSON object."""
    click.echo(json.dumps(value, indent=1, default=str))


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()
) -> Any:
    """A rich table; columns listed in `right` hold numbers."""
    from rich import box
    from rich.table import Table

    made = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for index, name in enumerate(columns):
        made.add_column(name, justify="right" if index in right else "left")
    for row in rows:
        made.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return made


class Steps:
    """Says what is going on: a spinner on a terminal, lines elsewhere."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._detail = ""
        self._started = time.monotonic()
        self._next = self._started + _QUIET_SECONDS
        self._lock = threading.Lock()
        self._status: Any = None

    def __call__(self, text: str) -> None:
        """A new detail, e.g. from a tool's progress. May be called from several threads."""
        with self._lock:
            self._detail = text
            if self._status is not None:
                self._status.update(self._line())
            elif (now := time.monotonic()) >= self._next:
                self._next = now + max(_QUIET_SECONDS, _LINE_SHARE * (now - self._started))
                click.echo(f"  {self._line()}", err=True)

    def note(self, text: str) -> None:
        """A line that stays. May be called from several threads."""
        with self._lock:
            if self._status is not None:
                self._status.console.print(text, markup=False)
            else:
                click.echo(text, err=True)

    def _line(self) -> str:
        return f"{self._title}: {self._detail}" if self._detail else self._title

    @contextmanager
    def _running(self) -> Iterator[Steps]:
        if sys.stderr.isatty():
            with console(stderr=True).status(self._title) as self._status:
                yield self
        else:
            timer = threading.Timer(_QUIET_SECONDS, lambda: self(self._detail or "working"))
            timer.daemon = True
            timer.start()
            try:
                yield self
            finally:
                timer.cancel()


@contextmanager
def steps(title: str) -> Iterator[Steps]:
    """Shows a step while it runs."""
    with Steps(title)._running() as running:
        yield running


@contextmanager
def counter(title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows `done` of `total`, a bar on a terminal, lines elsewhere: call it with these two."""
    if not sys.stderr.isatty():
        told = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal told
            if time.monotonic() - told > _QUIET_SECONDS:
                told = time.monotonic()
                click.echo(f"  {title}: {done:,} of {total:,}", err=True)

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
