"""Our linker of WebAssembly modules: what it makes of an object, and what it refuses."""

import pytest

from tensorlang.codegen.native import compile_source
from tensorlang.codegen.native.target import CpuTarget
from tensorlang.codegen.wasm import link_module
from tensorlang.errors import BuildError

SOURCE = """
from tensorlang.codegen.intrinsics import *

@kernel("f32* x, f32* y, i64 n")
def double(ctx, x, y, n):
    for i in range(n):
        y[i] = 2.0 * x[i]
"""
WASM = CpuTarget.parse("wasm32")


def test_a_library_is_a_module_with_a_serial_pool():
    module = compile_source(SOURCE, WASM)
    assert module[:8] == b"\0asm\1\0\0\0"
    for name in (b"double", b"pool_parallel_for", b"pool_allocate", b"memory", b"__heap_base"):
        assert name in module
    assert b"__linear_memory" not in module and b"linking" not in module and b"syscall" not in module


def test_the_same_source_gives_the_same_bytes():
    assert compile_source(SOURCE, WASM) == compile_source(SOURCE, WASM)


def test_an_export_that_is_not_there():
    with pytest.raises(BuildError, match="triple is to be exported but not defined"):
        link_module(compile_source(SOURCE, WASM, "object"), ["triple"])


def test_what_is_no_object():
    with pytest.raises(BuildError, match="takes WebAssembly objects"):
        link_module(b"\x7fELF", [])
