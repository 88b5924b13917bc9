"""Emitted Python to running machine code: `compile_source`, `compile_and_load`; and `run_plain` with the jit off."""

from __future__ import annotations

from tensorlang.codegen.native.compile import compile_and_load, compile_source
from tensorlang.codegen.native.plain import run_plain
from tensorlang.codegen.native.target import CpuTarget

__all__ = ["CpuTarget", "compile_and_load", "compile_source", "run_plain"]
