"""A compiled library with parallel loops, for tests of the pool."""

from __future__ import annotations

from typing import Any

import pytest

from tensorlang.build import compile_and_load
from tensorlang.config import Settings

SOURCE = """
from tensorlang.codegen.intrinsics import *

@chunk("i64* hits, i64* owner, i64 work")
def visit(ctx, begin, end, hits, owner, work):
    for i in range(begin, end):
        hits[i] = hits[i] + 1
        owner[i] = begin
        s = 0
        for k in range(work):
            s = s + (k ^ i)
        if s == -1:
            hits[i] = 0

@kernel("i64* hits, i64* owner, i64 n, i64 work, i64 repeats")
def regions(ctx, hits, owner, n, work, repeats):
    for r in range(repeats):
        parallel_for(visit, ctx, n, hits, owner, work)

@chunk("i64* hits, i64* owner, i64 n")
def nest(ctx, begin, end, hits, owner, n):
    for i in range(begin, end):
        parallel_for(visit, ctx, n, hits, owner, 0)

@kernel("i64* hits, i64* owner, i64 n")
def nested(ctx, hits, owner, n):
    parallel_for(nest, ctx, 1, hits, owner, n)

@chunk("i64 bad")
def failing(ctx, begin, end, bad):
    for i in range(begin, end):
        check(i != bad, 77)

@kernel("i64 n, i64 bad")
def fails(ctx, n, bad):
    parallel_for(failing, ctx, n, bad)

@kernel("i64 nbytes, i64* out")
def scratches(ctx, nbytes, out):
    p = scratch(ctx, nbytes)
    out[0] = p % 64
    v = view(p, i64)
    v[0] = 5
    out[1] = v[0]
    release(ctx, p)

@kernel("i64* out")
def threads(ctx, out):
    out[0] = num_threads(ctx)
"""


@pytest.fixture(scope="session")
def library() -> Any:
    return compile_and_load(SOURCE, settings=Settings(num_threads=2))
