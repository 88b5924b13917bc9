"""What the machine can do at most: multiply-adds per second, and bytes per second of a copy of our own.

An operator's limit is the larger of two times: that of its floating-point operations at the peak rate, and that of every
input, weight and output moved once at the rate of a copy which moves as many bytes with as many threads. Both are measured
here. Something that only reads can beat a copy a little; an algorithm with fewer operations (Winograd's) the peak.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np

from tensorlang.build import compile_and_load
from tensorlang.runtime.context import context_address, set_num_threads
from tensorlang.runtime.loader import Library
from tensorlang.runtime.machine import host_features

STEPS = 20_000  # of the loop of multiply-adds: under a millisecond
LEAST_COPY, MOST_COPY = 1 << 12, 1 << 28  # bytes of a copy that is measured, input and output together

_SOURCE = """
from tensorlang.codegen.intrinsics import *

@chunk("f32* out")
def peak_part(ctx, begin, end, out):
    for n in range(begin, end):
        sums = local_array(f32, {size})
        for v in range({vectors}):
            vstore(sums, v * {lanes}, vload(out, {lanes} * v, {lanes}))
        a = vload(out, 0, {lanes})
        b = vload(out, {lanes}, {lanes})
        for k in range({steps}):
            for v in range({vectors}):
                vstore(sums, v * {lanes}, vload(sums, v * {lanes}, {lanes}) * a + b)
        for v in range({vectors}):
            vstore(out, (n + 1) * {size} + v * {lanes}, vload(sums, v * {lanes}, {lanes}))

@kernel("f32* out, i64 threads")
def peak(ctx, out, threads):
    parallel_for(peak_part, ctx, threads, out)

@chunk("f32* x, f32* y, i64 lines")
def copy_part(ctx, begin, end, x, y, lines):
    for n in range(begin * lines, end * lines):
        vstore(y, n * {lanes}, vload(x, n * {lanes}, {lanes}))

@kernel("f32* x, f32* y, i64 lines, i64 parts")
def copy(ctx, x, y, lines, parts):
    parallel_for(copy_part, ctx, parts, x, y, lines)
"""


@functools.cache
def _library() -> tuple[Library, int, int]:
    """The kernels, lanes of a vector, and floats of a set of accumulators."""
    wide = "avx512f" in host_features()
    lanes, vectors = (16, 24) if wide else (8, 10)
    text = _SOURCE.format(size=lanes * vectors, lanes=lanes, vectors=vectors, steps=STEPS)
    return compile_and_load(text), lanes, lanes * vectors


@functools.cache
def flops_per_second(threads: int) -> float:
    """f32 operations a second, two per multiply-add, of `threads` cores with all accumulators in registers."""
    set_num_threads(threads)
    library, _, size = _library()
    out = np.zeros(size * (threads + 1), np.float32)
    function, context = library["peak"], context_address()
    return threads * STEPS * size * 2 / _best(lambda: function(context, out.ctypes.data, threads))


def bytes_per_second(nbytes: int, threads: int) -> float:
    """Bytes a second, read and written, of a copy that moves about `nbytes`: as many as the power of two at or below it."""
    return _copied_per_second(min(MOST_COPY, max(LEAST_COPY, 1 << nbytes.bit_length() - 1)), threads)


@functools.cache
def _copied_per_second(footprint: int, threads: int) -> float:
    set_num_threads(threads)
    library, lanes, _ = _library()
    n = footprint // 8
    memory = [np.ones(n + 16, np.float32) for _ in range(2)]
    x, y = (array.ctypes.data + -array.ctypes.data % 64 for array in memory)
    parts = threads if n >= 16 * 1024 else 1
    function, context, lines = library["copy"], context_address(), n // lanes // parts
    return footprint / _best(lambda: function(context, x, y, lines, parts))


def _best(call: Callable[[], object], budget: float = 0.1) -> float:
    """The least time of a call, of as many as fit into `budget` seconds, and three at least."""
    for _ in range(3):
        call()
    best, begun, count = float("inf"), time.perf_counter(), 0
    while count < 3 or time.perf_counter() - begun < budget:
        before = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - before)
        count += 1
    return best
