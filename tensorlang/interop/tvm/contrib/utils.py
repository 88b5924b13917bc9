"""Temporary folders."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any


class TempDirectory:
    """A folder that disappears with this object.

    Attributes:
        path: where it is.
    """

    def __init__(self, custom_path: str | None = None):
        self._made = custom_path is None
        self.path = custom_path or tempfile.mkdtemp(prefix="tensorlang-")
        Path(self.path).mkdir(parents=True, exist_ok=True)

    temp_dir = property(lambda self: self.path)

    def relpath(self, name: str) -> str:
        """The path of a file in it."""
        return str(Path(self.path) / name)

    def listdir(self) -> list[str]:
        """The names in it, sorted."""
        return sorted(p.name for p in Path(self.path).iterdir())

    def remove(self) -> None:
        """Delete the folder, if this object made it."""
        if self._made:
            shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> TempDirectory:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.remove()

    def __del__(self) -> None:
        self.remove()


def tempdir(custom_path: str | None = None) -> TempDirectory:
    """A new temporary folder."""
    return TempDirectory(custom_path)
