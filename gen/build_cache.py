# SPDX-License-Identifier: BSD-2-Clause
"""What the steps of a build made, kept under the hash of all that they read.

An entry is a folder `steps/<2 digits>/<key>` below the cache folder: the files, compressed, and
`entry.json` with the SHA-256 of each. It is written aside and renamed, so it is there whole or
not at all, for any number of builds at a time. A file that is not what `entry.json` says is
never used: the entry goes, and the step runs again. When the cache has grown over its limit, the
entries used longest ago go first.

`XNORFORGE_CACHE` moves the cache folder, `XNORFORGE_CACHE_GB` sets the limit (2 by default, 0
keeps nothing).
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xnorforge.gen.errors import ToolError

__all__ = ["StepCache", "cache_folder", "folder_bytes", "sha256"]

_LIMIT_GB = 2.0
_BLOCK = 1 << 20
# Writing an entry takes a second: what is older was left by a process that was killed.
_STALE_SECONDS = 3600.0


def cache_folder() -> Path:
    """Where everything is kept that can be made again; need not exist."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "xnorforge"
    return Path(os.environ.get("XNORFORGE_CACHE") or default)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def folder_bytes(folder: Path) -> int:
    """Size of all files under a folder; 0 where there is none."""
    return sum(_size(Path(root) / name) for root, _, names in os.walk(folder) for name in names)


class _UnreadableError(Exception):
    """A file of the cache cannot be read."""


class StepCache:
    """The entries under one folder.

    folder: instead of `cache_folder()`. limit_bytes: instead of the user's limit.
    """

    def __init__(self, folder: Path | None = None, *, limit_bytes: int | None = None) -> None:
        self.folder = (folder or cache_folder()) / "steps"
        self.limit_bytes = _user_limit() if limit_bytes is None else limit_bytes

    def take(self, key: str, names: Sequence[str], into: Path) -> dict[str, Any] | None:
        """Put the files of an entry into a folder; give what was noted with it.

        None, and no file, where there is no entry of this key that has all these files
        unchanged.
        """
        entry = self._entry(key)
        try:
            item = json.loads(b"".join(_blocks(entry / "entry.json")))
            if item["key"] != key:
                raise ValueError(f"{entry} is of another key")
            note = dict(item["note"])
            for name in names:
                _unpack(entry / f"{name}.gz", into / name, item["files"][name])
        except _UnreadableError:
            # None of this key, or one that somebody has just removed, or may read.
            self._forget(names, into)
            return None
        except (ValueError, KeyError, TypeError):
            # Damaged: not trusted, and not kept.
            self._forget(names, into)
            self._remove(entry)
            return None
        with contextlib.suppress(OSError):  # a cache that can only be read
            os.utime(entry)
        return note

    def keep(self, key: str, names: Sequence[str], source: Path, note: Mapping[str, Any]) -> None:
        """Make an entry of files of a folder. Raises OSError where it cannot be written."""
        if self.limit_bytes == 0:
            return
        entry = self._entry(key)
        entry.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder))
        try:
            files = {name: _pack(source / name, work / f"{name}.gz") for name in names}
            item = {"key": key, "files": files, "note": dict(note)}
            (work / "entry.json").write_text(json.dumps(item, indent=1, sort_keys=True) + "\n")
            if entry.exists():
                self._remove(entry)
            try:
                os.rename(work, entry)
            except OSError as error:
                # Another build was first, with the same files. Looking for them now would
                # be a race with a third one, that replaces them.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        self._prune(entry)

    def entries(self) -> int:
        """How many steps are kept."""
        return sum(1 for _ in self._all())

    def size(self) -> int:
        """Bytes on disk."""
        return folder_bytes(self.folder)

    def _entry(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _all(self) -> Iterator[Path]:
        return (path for path in self.folder.glob("??/*") if path.is_dir())

    @staticmethod
    def _forget(names: Sequence[str], into: Path) -> None:
        for name in names:
            (into / name).unlink(missing_ok=True)

    def _remove(self, entry: Path) -> None:
        """Remove an entry at once for everybody, its files after that."""
        with contextlib.suppress(OSError):
            aside = Path(tempfile.mkdtemp(prefix=".old-", dir=self.folder))
            try:
                os.rename(entry, aside / "entry")
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def _prune(self, newest: Path) -> None:
        """Remove what is over the limit, oldest use first, and what killed builds left."""
        now = time.time()
        for stale in self.folder.glob(".*-*"):
            if now - _modified(stale) > _STALE_SECONDS:
                shutil.rmtree(stale, ignore_errors=True)
        entries = sorted(self._all(), key=_modified, reverse=True)
        total = folder_bytes(newest)
        for entry in entries:
            if entry == newest:
                continue
            total += folder_bytes(entry)
            if total > self.limit_bytes:
                self._remove(entry)


def _user_limit() -> int:
    text = os.environ.get("XNORFORGE_CACHE_GB", "")
    try:
        limit = float(text) if text else _LIMIT_GB
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise ToolError(f"XNORFORGE_CACHE_GB must be a number of gigabytes, not {text!r}")
    return int(limit * 1e9)


def _pack(source: Path, target: Path) -> str:
    """Compress a file; SHA-256 of what it held."""
    digest = hashlib.sha256()
    with source.open("rb") as file, gzip.GzipFile(target, "wb", compresslevel=1, mtime=0) as packed:
        while block := file.read(_BLOCK):
            digest.update(block)
            packed.write(block)
    return digest.hexdigest()


def _unpack(source: Path, target: Path, wanted: str) -> None:
    """The reverse. Raises ValueError when it does not hold what it should."""
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for block in _blocks(source, packed=True):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != wanted:
        raise ValueError(f"{source} is damaged")


def _blocks(path: Path, *, packed: bool = False) -> Iterator[bytes]:
    """What a file holds. Raises _UnreadableError, or ValueError where it is no whole file."""
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise _UnreadableError(str(error)) from error


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _modified(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0
