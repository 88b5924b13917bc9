"""The layout that compiled code, the pool and the runtime agree on. The runtime has its own copy (`runtime/context.py`),
since it imports nothing of the compiler; a test holds the two together."""

from __future__ import annotations

from enum import IntEnum

ABI_VERSION = 1

OUT_OF_MEMORY = 0x7FFF0001  # statuses above 0x7FFF0000 are ours, those below the emitted program's `check`s


class Slot(IntEnum):
    """Index of each 8-byte slot of the context."""

    VERSION = 0
    PARALLEL_FOR = 1  # i32 (ctx, chunk entry, count, arguments)
    ALLOCATE = 2  # i32 (ctx, nbytes, i64* result): the address, 64-byte aligned
    RELEASE = 3  # i32 (ctx, address)
    POOL = 4  # address of the pool's state (`PoolWord`), or 0
    NUM_THREADS = 5
    USER = 6


class PoolWord(IntEnum):
    """Index of each 8-byte word of the pool's state. Words that different threads write stand 128 bytes apart.

    All zero is a sound state (no threads: loops run serially), which is what a forked child finds.
    """

    GENERATION = 0  # number of parallel regions so far; workers spin, then sleep, on its low half
    PENDING = 16  # parts of the current region not yet finished
    SLEEPERS = 32
    LOCK = 48  # 1 while a region runs
    BODY = 64  # the current region: chunk entry, context, count, arguments, parts, status
    CONTEXT = 65
    COUNT = 66
    ARGUMENTS = 67
    PARTS = 68
    STATUS = 69
    SPIN = 80  # pauses before a worker sleeps
    THREADS = 81  # threads that share a region, the caller included; a worker whose number is not below it ends
    WORKERS = 96  # per thread: claim word, address of the state, its number


WORKER_STRIDE = 16  # words from one worker's record to the next
MAX_THREADS = 256
POOL_WORDS = PoolWord.WORKERS + MAX_THREADS * WORKER_STRIDE
