"""The process-wide thread pool: Python starts and sizes it, native code (handed in as a shared library) runs it.

Workers are made by `pthread_create` on native code and never touch Python. The pool's state lies in memory that the
kernel wipes in a forked child, where all zero means "no threads": a child runs serially, safely, until `ensure_running`
gives it workers of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorlang.errors import BuildError, InputError
from tensorlang.runtime.loader import Library, load_library

# the layout of codegen/intrinsics/abi.py; a test compares them
GENERATION, LOCK, SPIN, THREADS, WORKERS, WORKER_STRIDE = 0, 48, 80, 81, 96, 16
MAX_THREADS = 256
_WORDS = WORKERS + MAX_THREADS * WORKER_STRIDE
_MADV_WIPEONFORK = 18
SPIN_SECONDS = 0.005  # how long an idle worker spins before it sleeps

SIGNATURES: dict[str, tuple[str, ...]] = {
    "pool_worker": (),
    "pool_wake": ("i64",),
    "pool_parallel_for": ("i64", "i64", "i64"),
    "pool_acquire": ("i64",),
    "pool_release": ("i64",),
    "pool_spin": ("i64",),
    "pool_allocate": ("i64", "i64*"),
    "pool_free": ("i64",),
}


class ThreadPool:
    """The pool. There is one per process (`runtime.context` holds it).

    It has no workers until `ensure_running` or `set_num_threads`.

    Args:
        code: shared library of the pool's native half.
        num_threads: threads that share a parallel loop, the caller included.
        prefix: of the functions' names in that library.
    """

    def __init__(self, code: bytes | Path, num_threads: int, prefix: str = ""):
        self.native: Library = load_library(code, SIGNATURES, prefix)
        _keep_forever(self.native)  # a worker may still run its code when the interpreter takes objects down
        self._memory = mmap.mmap(-1, _WORDS * 8, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(self._memory, "madvise"):
            with contextlib.suppress(OSError, ValueError):
                self._memory.madvise(_MADV_WIPEONFORK)
        _keep_forever(self._memory)
        self._words = (ctypes.c_int64 * _WORDS).from_buffer(self._memory)
        self.address = ctypes.addressof(self._words)
        self._libc = ctypes.CDLL(None)
        self._lock = threading.Lock()
        self._threads: list[Any] = []
        self._pid = 0  # of the process whose workers these are
        self._spin = self._calibrate()
        _refuse_count(num_threads)
        self.wanted = num_threads

    def _calibrate(self) -> int:
        """How many pauses make `SPIN_SECONDS`: a pause is 5 ns on one machine and 50 on the next."""
        probe = 1000
        fastest = min(self._time_spin(probe) for _ in range(3))
        return max(100, int(SPIN_SECONDS / max(fastest / probe, 1e-9)))

    def _time_spin(self, count: int) -> float:
        started = time.perf_counter()
        self.native["pool_spin"](None, count)
        return time.perf_counter() - started

    @property
    def num_threads(self) -> int:
        """Threads that share a parallel loop now."""
        return int(self._words[THREADS])

    def set_num_threads(self, count: int) -> None:
        """Grow or shrink the pool; waits for a running loop to end.

        Raises:
            InputError: `count` is not in [1, 256].
            BuildError: the system gives no more threads; the pool keeps those it has.
        """
        _refuse_count(count)
        with self._lock:
            self.wanted = count
            self._resize(count)

    def ensure_running(self) -> None:
        """Give this process its workers, if it has none: at the first call, and after a fork."""
        if self._pid != os.getpid():
            self._lock = threading.Lock()  # the parent's may be held by a thread that is not here
            self._pid = os.getpid()
            self._threads = []
            ctypes.memset(self.address, 0, _WORDS * 8)  # where the kernel does not wipe
            self.set_num_threads(self.wanted)

    def _resize(self, count: int) -> None:
        self.native["pool_acquire"](None, self.address)
        try:
            self._words[SPIN] = self._spin
            surplus = self._threads[count - 1 :]
            self._words[THREADS] = min(count, len(self._threads) + 1)
            if surplus:
                self.native["pool_wake"](None, self.address)
                for handle in surplus:
                    self._libc.pthread_join(handle, None)
                del self._threads[count - 1 :]
            with _signals_blocked():  # Python's signal handlers stay on Python's threads
                while len(self._threads) < count - 1:
                    self._start(len(self._threads) + 1)
        finally:
            self._words[THREADS] = len(self._threads) + 1
            self.native["pool_release"](None, self.address)

    def _start(self, number: int) -> None:
        record = WORKERS + number * WORKER_STRIDE
        self._words[record : record + 3] = [0, self.address, number]
        self._words[THREADS] = number + 1
        handle = ctypes.c_ulong()
        worker = ctypes.c_void_p(self.native.address("pool_worker"))
        argument = ctypes.c_void_p(self.address + record * 8)
        error = self._libc.pthread_create(ctypes.byref(handle), None, worker, argument)
        if error:
            raise BuildError(f"cannot start worker thread {number}: {os.strerror(error)}")
        self._threads.append(handle)


def _refuse_count(count: int) -> None:
    if not 1 <= count <= MAX_THREADS:
        raise InputError(f"num_threads must be between 1 and {MAX_THREADS}, got {count}")


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _keep_forever(thing: object) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
