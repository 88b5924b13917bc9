"""The thread pool: every iteration once, from any number of threads, across forks, and quiet when idle."""

from __future__ import annotations

import os
import platform
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tensorlang.build import compile_and_load
from tensorlang.codegen.intrinsics import abi
from tensorlang.errors import InputError
from tensorlang.runtime import context, loader, pool


@pytest.fixture(autouse=True)
def two_threads(library):
    context.set_num_threads(2)
    yield
    context.set_num_threads(2)


def _run(library, n=64, work=0, repeats=1):
    hits, owner = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    status = library["regions"](context.context_address(), hits.ctypes.data, owner.ctypes.data, n, work, repeats)
    assert status == 0 and hits[n] == 0
    return hits[:n], owner[:n]


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 2, 13, 64])
def test_each_iteration_runs_once(library, threads, n):
    context.set_num_threads(threads)
    hits, _ = _run(library, n, repeats=20)
    assert (hits == 20).all()


def test_parts_are_contiguous_and_even(library):
    context.set_num_threads(3)
    _, owner = _run(library, 30)
    assert sorted(set(owner)) == [0, 10, 20]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks Linux for the thread by its x86-64 number")
def test_parts_run_on_different_threads():
    source = """
from tensorlang.codegen.intrinsics import *
from tensorlang.codegen.intrinsics.system import *

@chunk("i64* thread")
def record(ctx, begin, end, thread):
    for i in range(begin, end):
        for k in range(20000):
            cpu_pause()
        thread[i] = syscall(186, 0, 0, 0, 0)

@kernel("i64* thread")
def recorded(ctx, thread):
    parallel_for(record, ctx, 2, thread)
"""
    recorded = compile_and_load(source)["recorded"]
    seen = set()
    for _ in range(200):  # on a busy machine the caller may have to do both parts, for a while
        thread = np.zeros(2, np.int64)
        assert recorded(context.context_address(), thread.ctypes.data) == 0
        seen.update(thread.tolist())
        if len(seen) == 2:
            return
    pytest.fail("the worker never took a part")


def test_many_regions_with_threads_coming_and_going(library):
    for threads in (4, 1, 2, 5, 2):
        context.set_num_threads(threads)
        hits, _ = _run(library, 9, repeats=2000)
        assert (hits == 2000).all()


def test_concurrent_callers_share_the_pool(library):
    with ThreadPoolExecutor(4) as executor:
        results = list(executor.map(lambda k: _run(library, 50 + k, work=50, repeats=300)[0], range(8)))
    assert all((hits == 300).all() for hits in results)


def test_nested_loops_run_serially(library):
    hits, owner = np.zeros(8, np.int64), np.zeros(8, np.int64)
    assert library["nested"](context.context_address(), hits.ctypes.data, owner.ctypes.data, 8) == 0
    assert (hits == 1).all()


@pytest.mark.parametrize("bad", [0, 5, 9])
def test_a_failing_part_gives_its_status(library, bad):
    assert library["fails"](context.context_address(), 10, bad) == 77
    assert library["fails"](context.context_address(), 10, 99) == 0


def test_sleeping_workers_wake(library):
    _run(library)
    time.sleep(0.05)  # beyond the spin
    hits, _ = _run(library, repeats=50)
    assert (hits == 50).all()


def test_idle_pool_uses_no_cpu(library):
    context.set_num_threads(4)
    _run(library, repeats=10)
    time.sleep(0.1)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.02


def test_forked_child_gets_its_own_workers(library):
    _run(library, repeats=10)
    child = os.fork()
    if child == 0:
        good = False
        try:
            hits, owner = _run(library, 30, repeats=100)
            good = bool((hits == 100).all()) and len(set(owner)) == 2 and context.get_num_threads() == 2
        finally:
            os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    hits, _ = _run(library, repeats=100)
    assert (hits == 100).all()


def test_fork_while_other_threads_compute(library):
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            _run(library, 20, work=200, repeats=50)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if (_run(library, 20, repeats=20)[0] == 20).all() else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("count", [0, -1, 257])
def test_thread_counts_are_checked(library, count):
    with pytest.raises(InputError, match="between 1 and 256"):
        context.set_num_threads(count)
    assert context.get_num_threads() == 2


def test_the_context_tells_the_thread_count(library):
    out = np.zeros(1, np.int64)
    context.set_num_threads(3)
    library["threads"](context.context_address(), out.ctypes.data)
    assert out[0] == 3


def test_scratch_memory(library):
    out = np.zeros(2, np.int64)
    assert library["scratches"](context.context_address(), 100, out.ctypes.data) == 0
    assert list(out) == [0, 5]


def test_scratch_beyond_memory_is_a_memory_error(library):
    out = np.zeros(2, np.int64)
    status = library["scratches"](context.context_address(), 1 << 60, out.ctypes.data)
    with pytest.raises(MemoryError):
        loader.check_status(status, "scratches")


def test_layouts_agree():
    for name in ("GENERATION", "LOCK", "SPIN", "THREADS", "WORKERS"):
        assert getattr(pool, name) == abi.PoolWord[name]
    assert (pool.WORKER_STRIDE, pool.MAX_THREADS) == (abi.WORKER_STRIDE, abi.MAX_THREADS)
    assert loader.OUT_OF_MEMORY == abi.OUT_OF_MEMORY and context.ABI_VERSION == abi.ABI_VERSION
    for slot in abi.Slot:
        assert getattr(context, slot.name) == slot
