"""The context that every compiled function receives first, and the process's pool behind it.

install(pool_library, num_threads)     # once, by whoever loads compiled code
library["dense"](context_address(), ...)
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

from tensorlang.config import Settings
from tensorlang.errors import InputError, InternalError
from tensorlang.runtime.pool import MAX_THREADS, ThreadPool

ABI_VERSION = 1
# slots of codegen/intrinsics/abi.py; a test compares them
VERSION, PARALLEL_FOR, ALLOCATE, RELEASE, POOL, NUM_THREADS, USER = range(7)

_lock = threading.Lock()
_pool: ThreadPool | None = None
_slots = (ctypes.c_int64 * 8)()
_address = ctypes.addressof(_slots)
_idle = False  # whether the pool has no workers yet: before the first call, and in a forked child
_wanted: int | None = None  # what `set_num_threads` asked for


def install(pool_library: bytes | Path, num_threads: int | None = None, prefix: str = "") -> None:
    """Make the process's pool from its native half, whose workers start at the first call; later `install`s change nothing.

    Args:
        pool_library: shared library of the pool for this machine.
        num_threads: threads that share a parallel loop; what the settings say by default.
        prefix: of the functions' names in that library.
    """
    global _pool, _idle
    with _lock:
        if _pool is not None:
            return
        pool = ThreadPool(pool_library, _wanted or num_threads or Settings.from_env().num_threads, prefix)
        _slots[VERSION] = ABI_VERSION
        _slots[PARALLEL_FOR] = pool.native.address("pool_parallel_for")
        _slots[ALLOCATE] = pool.native.address("pool_allocate")
        _slots[RELEASE] = pool.native.address("pool_free")
        _slots[POOL] = pool.address
        _slots[NUM_THREADS] = pool.wanted
        _pool, _idle = pool, True


def is_installed() -> bool:
    """Whether this process has its pool."""
    return _pool is not None


def context_address() -> int:
    """Address of the context, to be passed first to compiled functions. Cheap; call it before each of them."""
    if _pool is None:
        raise InternalError("compiled code was called before `runtime.context.install`")
    if _idle:
        _start()
    return _address


def release(address: int) -> None:
    """Free memory that compiled code allocated and handed over."""
    if _pool is None:
        raise InternalError("memory was released before `runtime.context.install`")
    _pool.native["pool_free"](None, address)


def set_num_threads(count: int) -> None:
    """Set how many threads share a parallel loop, the caller included; may be called before anything is compiled.

    Raises:
        InputError: `count` is not in [1, 256].
    """
    global _wanted
    if not 1 <= count <= MAX_THREADS:
        raise InputError(f"num_threads must be between 1 and {MAX_THREADS}, got {count}")
    _wanted = count
    if _pool is not None:
        _pool.ensure_running()
        _pool.set_num_threads(count)
        _slots[NUM_THREADS] = _pool.num_threads


def get_num_threads() -> int:
    """How many threads share a parallel loop."""
    return _pool.wanted if _pool is not None else _wanted or Settings.from_env().num_threads


def _start() -> None:
    global _idle
    with _lock:
        if _idle and _pool is not None:
            _pool.ensure_running()
            _slots[NUM_THREADS] = _pool.num_threads
        _idle = False


def _after_fork() -> None:
    global _idle, _lock
    _lock = threading.Lock()  # the parent's may be held by a thread that does not exist here
    _idle = _pool is not None


os.register_at_fork(after_in_child=_after_fork)
