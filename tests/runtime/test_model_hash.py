"""The hash of a model's file is kept by what the system says of the file, and never outlives a change of it."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace

import pytest

from tensorlang.config import Settings

module = importlib.import_module("tensorlang.compile")


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE_BYTES", 8)
    monkeypatch.setattr(module, "SETTLED_SECONDS", -1.0)
    return replace(Settings.from_env(), cache=True, cache_dir=tmp_path / "cache")


def test_a_file_that_did_not_change_is_read_once(tmp_path, settings, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"weights and location")
    first = module._content(path, settings)
    monkeypatch.setattr(module.mmap, "mmap", None)  # reading it again would fail
    assert module._content(path, settings) == first and first[1]


def test_other_bytes_of_the_same_size_and_time_are_another_file(tmp_path, settings):
    path = tmp_path / "m.onnx"
    path.write_bytes(b"weights one")
    status = path.stat()
    first = module._content(path, settings)
    path.write_bytes(b"weights two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert module._content(path, settings)[0] != first[0]


def test_what_was_written_just_now_is_read_again(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(module, "SETTLED_SECONDS", 60.0)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"weights one")
    module._content(path, settings)
    assert not list((settings.cache_dir / "files").glob("*/*"))
