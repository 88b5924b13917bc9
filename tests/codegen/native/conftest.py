"""A cache of its own for each test of the compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensorlang.config import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache", num_threads=2)
