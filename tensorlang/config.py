"""One immutable settings object (layer 0). It is part of every cache key; there are no global mutable options."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

PRECISIONS = ("float32", "bf16")  # what `tl.compile(precision=)` takes
FALLBACKS = ("onnxruntime",)  # and `fallback=`


def _default_cache_dir() -> Path:
    if explicit := os.environ.get("TENSORLANG_CACHE_DIR"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tensorlang"


def _default_threads() -> int:
    if explicit := os.environ.get("TENSORLANG_NUM_THREADS"):
        return max(1, int(explicit))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


@dataclass(frozen=True)
class Settings:
    """What the environment says, read once per use by `Settings.from_env`.

    Attributes:
        num_threads: worker threads of the pool, the caller included (`TENSORLANG_NUM_THREADS`).
        cache_dir: the content-addressed build cache (`TENSORLANG_CACHE_DIR`).
        cache: whether builds are cached on disk at all (`TENSORLANG_CACHE=0` switches it off).
        dump_dir: where every stage of every build is written (`TENSORLANG_DUMP`), or None.
        winograd: whether 3x3 convolutions may be computed with fewer multiplications (`tl.compile(..., winograd=False)`: not).
        precision: of products: "float32", or "bf16" where the machine multiplies such (`tl.compile(..., precision="bf16")`).
        jit: False runs the emitted Python itself instead of machine code (`TENSORLANG_JIT=0`), for pdb.
    """

    num_threads: int = field(default_factory=_default_threads)
    cache_dir: Path = field(default_factory=_default_cache_dir)
    cache: bool = field(default_factory=lambda: os.environ.get("TENSORLANG_CACHE", "1") != "0")
    dump_dir: Path | None = field(
        default_factory=lambda: Path(os.environ["TENSORLANG_DUMP"]) if os.environ.get("TENSORLANG_DUMP") else None
    )
    winograd: bool = True
    precision: str = "float32"
    jit: bool = field(default_factory=lambda: os.environ.get("TENSORLANG_JIT", "1") != "0")

    @classmethod
    def from_env(cls) -> Settings:
        """The settings as the environment gives them now."""
        return cls()
