# SPDX-License-Identifier: BSD-2-Clause
"""The step cache: whole entries or none, damaged ones never used, bounded, for several builds."""

import errno
import json
import multiprocessing
import os
import time

import pytest

from xnorforge.gen import build_cache
from xnorforge.gen.build_cache import StepCache, cache_folder, folder_bytes
from xnorforge.gen.errors import ToolError

NAMES = ("netlist.json", "log")


def key_of(number):
    return f"{number:064x}"


@pytest.fixture
def cache(tmp_path):
    return StepCache(tmp_path / "cache", limit_bytes=10**9)


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "netlist.json").write_bytes(b"netlist " * 1000)
    (folder / "log").write_bytes(b"")
    return folder


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_what_is_kept_comes_back_with_its_note(cache, work, empty):
    assert cache.take(key_of(1), NAMES, empty) is None
    cache.keep(key_of(1), NAMES, work, {"seconds": 1.5})
    assert cache.take(key_of(1), NAMES, empty) == {"seconds": 1.5}
    assert [(empty / n).read_bytes() for n in NAMES] == [(work / n).read_bytes() for n in NAMES]
    assert cache.take(key_of(2), NAMES, empty) is None
    assert cache.entries() == 1
    assert 0 < cache.size() < 1500, "kept compressed"


def test_kept_again_is_replaced(cache, work, empty):
    cache.keep(key_of(1), NAMES, work, {"seconds": 1})
    (work / "log").write_text("new")
    cache.keep(key_of(1), NAMES, work, {"seconds": 2})
    assert cache.take(key_of(1), NAMES, empty) == {"seconds": 2}
    assert (empty / "log").read_text() == "new"
    assert cache.entries() == 1


def damage_content(entry):
    path = entry / "netlist.json.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def damage_swap(entry):
    (entry / "log.gz").write_bytes((entry / "netlist.json.gz").read_bytes())


def damage_cut(entry):
    path = entry / "netlist.json.gz"
    path.write_bytes(path.read_bytes()[:20])


def damage_entry(entry):
    (entry / "entry.json").write_text("{")


def damage_list(entry):
    (entry / "entry.json").write_text("[]")


def damage_key(entry):
    item = json.loads((entry / "entry.json").read_text())
    (entry / "entry.json").write_text(json.dumps({**item, "key": key_of(2)}))


def damage_missing(entry):
    (entry / "log.gz").unlink()


DAMAGE = [damage_content, damage_swap, damage_cut, damage_entry, damage_list, damage_key]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda function: function.__name__)
def test_damaged_entry_is_not_used_and_goes(cache, work, empty, damage):
    cache.keep(key_of(1), NAMES, work, {})
    damage(cache.folder / "00" / key_of(1))
    assert cache.take(key_of(1), NAMES, empty) is None
    assert list(empty.iterdir()) == []
    assert cache.entries() == 0
    cache.keep(key_of(1), NAMES, work, {})
    assert cache.take(key_of(1), NAMES, empty) == {}


def test_entry_without_a_file_is_not_used_and_is_replaced(cache, work, empty):
    cache.keep(key_of(1), NAMES, work, {})
    damage_missing(cache.folder / "00" / key_of(1))
    assert cache.take(key_of(1), NAMES, empty) is None
    assert list(empty.iterdir()) == []
    cache.keep(key_of(1), NAMES, work, {})
    assert cache.take(key_of(1), NAMES, empty) == {}


def test_oldest_use_goes_first_when_the_cache_is_full(tmp_path, work, empty):
    (work / "log").write_bytes(os.urandom(10_000))
    cache = StepCache(tmp_path / "cache", limit_bytes=35_000)
    now = time.time()
    for number in range(3):
        cache.keep(key_of(number), NAMES, work, {})
        os.utime(cache.folder / "00" / key_of(number), (now - 100 + number,) * 2)
    assert cache.take(key_of(0), NAMES, empty) == {}
    cache.keep(key_of(3), NAMES, work, {})
    kept = [number for number in range(4) if cache.take(key_of(number), NAMES, empty) is not None]
    assert kept == [0, 2, 3]
    assert cache.size() <= 35_000


def test_an_entry_over_the_limit_stays_until_the_next(tmp_path, work, empty):
    cache = StepCache(tmp_path / "cache", limit_bytes=1)
    for number in range(2):
        cache.keep(key_of(number), NAMES, work, {})
        assert cache.entries() == 1
    assert cache.take(key_of(1), NAMES, empty) == {}


def test_limit_zero_keeps_nothing(tmp_path, work):
    cache = StepCache(tmp_path / "cache", limit_bytes=0)
    cache.keep(key_of(1), NAMES, work, {})
    assert not cache.folder.exists()


def test_left_by_killed_builds_is_removed_after_a_while(cache, work):
    cache.keep(key_of(1), NAMES, work, {})
    for name, age in ((".new-a", 2 * 3600), (".new-b", 10)):
        (cache.folder / name).mkdir()
        os.utime(cache.folder / name, (time.time() - age,) * 2)
    cache.keep(key_of(2), NAMES, work, {})
    assert [path.name for path in cache.folder.glob(".*-*")] == [".new-b"]


def test_full_disk_leaves_no_entry(cache, work, empty, monkeypatch):
    def full(source, target):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(build_cache, "_pack", full)
        with pytest.raises(OSError, match="No space left"):
            cache.keep(key_of(1), NAMES, work, {})
    assert folder_bytes(cache.folder) == 0
    assert cache.take(key_of(1), NAMES, empty) is None


def _keep_many(folder, work, number):
    for _ in range(20):
        StepCache(folder, limit_bytes=10**9).keep(key_of(number % 2), NAMES, work, {})


def test_several_builds_at_a_time_never_see_half_an_entry(tmp_path, work, empty):
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_keep_many, args=(tmp_path / "cache", work, number))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    cache = StepCache(tmp_path / "cache", limit_bytes=10**9)
    while any(process.is_alive() for process in processes):
        for number in range(2):
            if cache.take(key_of(number), NAMES, empty) is not None:
                for name in NAMES:
                    assert (empty / name).read_bytes() == (work / name).read_bytes()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert cache.take(key_of(0), NAMES, empty) == {} == cache.take(key_of(1), NAMES, empty)
    assert list(cache.folder.glob(".*-*")) == []


def test_cache_folder_and_limit_are_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("XNORFORGE_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg" / "xnorforge"
    monkeypatch.setenv("XNORFORGE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    assert StepCache().folder == tmp_path / "mine" / "steps"
    assert StepCache().limit_bytes == 2e9
    monkeypatch.setenv("XNORFORGE_CACHE_GB", "0.5")
    assert StepCache().limit_bytes == 5e8


@pytest.mark.parametrize("text", ["a lot", "-1", "inf", "nan"])
def test_limit_that_is_no_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("XNORFORGE_CACHE_GB", text)
    with pytest.raises(ToolError, match=f"must be a number of gigabytes, not '{text}'"):
        StepCache()
