"""The toy target, installed as a third party's package is: a folder on the path with the module and its metadata."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tensorlang.codegen.target import registered

TOY = Path(__file__).parent / "toy_package"


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """`target="toy"` works for the length of a test."""
    shutil.copy(TOY / "toy_target.py", tmp_path)
    info = tmp_path / "toy_target-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-target\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tensorlang.targets]\ntoy = toy_target:target\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registered.cache_clear()
    yield "toy"
    monkeypatch.undo()
    registered.cache_clear()
