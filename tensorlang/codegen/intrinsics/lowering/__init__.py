"""What numba compiles the intrinsics to. Importing this package imports numba; only `codegen.native.frontend` does."""

from __future__ import annotations

from tensorlang.codegen.intrinsics.lowering import arith, calls, casts, machine, math, memory, operators, system
from tensorlang.codegen.intrinsics.lowering.registry import GLOBALS, IntrinsicType, lowering_registry

__all__ = [
    "GLOBALS", "IntrinsicType", "arith", "calls", "casts", "lowering_registry", "machine", "math", "memory",
    "operators", "system",
]  # fmt: skip
