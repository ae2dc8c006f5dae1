# SPDX-License-Identifier: BSD-2-Clause
"""Downloads with checksum, from the first mirror that answers, into the user's cache."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xnorforge.sw.errors import TrainingError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["download"]


def download(
    files: Mapping[str, str],
    mirrors: Sequence[str],
    folder: Path,
    *,
    advice: str,
    progress: bool = True,
) -> None:
    """Fetch what `folder` lacks of the files, given with their SHA-256.

    advice: what to do if it does not work. Raises TrainingError if no mirror gives a file.
    """
    import pooch

    with _quiet(pooch.get_logger()), _progress(progress) as bar:
        for name, sha256 in files.items():
            _fetch(folder, name, sha256, mirrors, advice, bar)


def _fetch(
    folder: Path,
    name: str,
    sha256: str,
    mirrors: Sequence[str],
    advice: str,
    bar: _Bar | None,
) -> None:
    import pooch
    import requests

    reasons = []
    for mirror in mirrors:
        if bar is not None:
            bar.start(name)
        try:
            pooch.retrieve(
                mirror + name,
                known_hash=f"sha256:{sha256}",
                fname=name,
                path=folder,
                downloader=pooch.HTTPDownloader(progressbar=bar or False, timeout=30),
            )
            return
        except (requests.RequestException, ValueError, OSError) as error:
            reasons.append(f"{mirror}: {_reason(error)}")
    raise TrainingError(f"{name} could not be downloaded ({'; '.join(reasons)}): {advice}")


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, requests.RequestException):
        return f"no connection ({type(error).__name__})"
    if isinstance(error, ValueError):
        return "the checksum is wrong"
    return str(error)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Pooch tells each download on stderr, where the bar is drawn."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Bar:
    """The four methods pooch asks of a progress bar, on one line of rich's."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._task: TaskID

    def start(self, name: str) -> None:
        self._task = self._display.add_task(f"download {name}", total=None)

    @property
    def total(self) -> float | None:
        return self._display.tasks[self._task].total

    @total.setter
    def total(self, value: float) -> None:
        self._display.update(self._task, total=value)

    def update(self, count: int) -> None:
        self._display.advance(self._task, count)

    def reset(self) -> None:
        self._display.update(self._task, completed=0)

    def close(self) -> None:
        self._display.stop_task(self._task)


@contextmanager
def _progress(show: bool) -> Iterator[_Bar | None]:
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=Console(stderr=True)) as display:
        yield _Bar(display)
