"""The jit off: the emitted text itself, run as plain Python from a real file that a debugger can show."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from tensorlang.config import Settings


def run_plain(source: str, path: Path | None = None) -> dict[str, Any]:
    """Execute an emitted module as plain Python.

    Args:
        source: text of the module.
        path: file to hold the text; by default one named by content hash in the cache directory, or in the
            temporary directory where that cannot be written.

    Returns:
        The module's namespace; its kernels are called as `namespace["dense"](ctx, x, ...)` with arrays for pointers.
    """
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    path = _write(source, path or Settings.from_env().cache_dir / "plain" / f"emitted_{digest}.py")
    name = f"tensorlang_emitted_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # of an existing .py file, always
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pdb and inspect look modules up by name
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module.__dict__


def _write(source: str, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != source:
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            with os.fdopen(handle, "w") as file:
                file.write(source)
            os.replace(temporary, path)
    except OSError:
        fallback = Path(tempfile.gettempdir()) / path.name
        if fallback == path:
            raise
        return _write(source, fallback)
    return path
