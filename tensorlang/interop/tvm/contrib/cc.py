"""Where classic TVM calls a C compiler to link: files of saved functions need none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorlang.interop.tvm.module import bundle


def create_shared(output: str | Path, objects: str | Path | Sequence[str | Path], options: Any = None, cc: Any = None) -> None:
    """Make the file of a saved function one that `load_module` reads under the name `output`.

    Raises:
        ArtifactError: there are several functions, or a file is none.
    """
    bundle(output, [objects] if isinstance(objects, str | Path) else list(objects))
