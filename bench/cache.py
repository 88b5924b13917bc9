"""Where generated and fetched model files live: outside the repository, written by rename.

The place is ``$TENSORLANG_BENCH_CACHE`` if set, else ``$XDG_CACHE_HOME/tensorlang-bench``, else
``~/.cache/tensorlang-bench``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

ENVIRONMENT_VARIABLE = "TENSORLANG_BENCH_CACHE"


class BenchError(RuntimeError):
    """Something the benchmark needs is missing or unsound; the text says what to do."""


def directory(*parts: str) -> Path:
    """The cache directory (or one below it), made if need be."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        root = Path(chosen)
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tensorlang-bench"
    path = root.joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write(temporary)`` fill a file beside ``path``, then rename it into place.

    A crash leaves no half file under ``path``; of two writers at once, one whole file wins.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
