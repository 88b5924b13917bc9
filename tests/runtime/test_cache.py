"""The content cache: whole or absent, whoever writes, whatever happened to the files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tensorlang.runtime import cache as cache_module
from tensorlang.runtime.cache import ContentCache

KEY = "ab" + "0" * 62


def test_what_is_put_is_got(tmp_path):
    store = ContentCache(tmp_path)
    assert store.get(KEY) is None
    store.put(KEY, b"value")
    assert ContentCache(tmp_path).get(KEY) == b"value"


def test_switched_off_it_keeps_nothing():
    store = ContentCache(None)
    store.put(KEY, b"value")
    assert store.get(KEY) is None


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-3] + b"xyz", lambda b: b + b"!"])
def test_a_damaged_file_is_a_miss_and_goes(tmp_path, damage):
    store = ContentCache(tmp_path)
    store.put(KEY, b"some value")
    path = store.path(KEY)
    path.write_bytes(damage(path.read_bytes()))
    assert store.get(KEY) is None
    assert not path.exists()
    store.put(KEY, b"again")
    assert store.get(KEY) == b"again"


def test_a_directory_that_cannot_be_written_is_warned_of_once(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    store = ContentCache(blocked / "cache")
    with pytest.warns(UserWarning, match="cannot be written"):
        store.put(KEY, b"value")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put(KEY, b"value")
    assert store.get(KEY) is None


def test_least_recently_used_go_first(tmp_path):
    store = ContentCache(tmp_path, limit_bytes=10_000)
    keys = [f"{k:02x}" + "0" * 62 for k in range(10)]
    for age, key in enumerate(keys):
        store.put(key, bytes(900))
        os.utime(store.path(key), (age, age))
    store.get(keys[0])  # used now
    store.limit_bytes = 5_000
    store.evict()
    assert store.get(keys[0]) is not None and store.get(keys[9]) is not None
    assert store.get(keys[1]) is None
    assert sum(p.stat().st_size for p in tmp_path.glob("*/*")) <= 5_000


def test_writing_bounds_the_store(tmp_path):
    store = ContentCache(tmp_path, limit_bytes=50_000)
    for k in range(200):
        store.put(f"{k:04x}" + "0" * 60, bytes(1000))
    assert sum(p.stat().st_size for p in tmp_path.glob("*/*")) <= 60_000


def test_concurrent_writers_and_readers(tmp_path):
    values = [bytes([k]) * 50_000 for k in range(8)]

    def work(k: int) -> None:
        store = ContentCache(tmp_path)
        for _ in range(30):
            store.put(KEY, values[k])
            assert store.get(KEY) in values

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(work, range(8)))
    assert not list(tmp_path.glob("**/*.tmp"))


def test_a_writer_killed_midway_leaves_no_value(tmp_path):
    root = Path(cache_module.__file__).parents[2]
    code = f"""
import sys; from pathlib import Path; sys.path.insert(0, {str(root)!r})
from tensorlang.runtime.cache import ContentCache
store = ContentCache(Path({str(tmp_path)!r}))
print('ready', flush=True)
while True:
    store.put({KEY!r}, bytes(5_000_000))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(0.05)
    process.kill()
    process.wait()
    process.stdout.close()
    assert ContentCache(tmp_path).get(KEY) in (None, bytes(5_000_000))
