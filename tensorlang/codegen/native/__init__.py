"""Emitted Python to machine code, `compile_source`, and `pool_library`; and `run_plain` with the jit off.

What is compiled is neither loaded nor kept here: `build` does both, and hands in the `Store` to ask and to fill.
"""

from __future__ import annotations

from tensorlang.codegen.native.compile import NoStore, Store, check_features, compile_source, exported_signatures, pool_library
from tensorlang.codegen.native.target import CpuTarget
from tensorlang.codegen.plain import run_plain

__all__ = [
    "CpuTarget", "NoStore", "Store", "check_features", "compile_source", "exported_signatures", "pool_library", "run_plain",
]  # fmt: skip
