"""The thread pool's native half, written as an emitted module and compiled like any other.

One pool serves the process. A region is split into as many contiguous parts as there are threads; each part is claimed
by compare-and-swap, by its own thread or, where that is late (asleep, or without a core), by the caller, who then does
it itself: a stalled worker delays a region only if it stalls inside a part. Who finds the pool busy runs serially.
Workers spin for a bounded time, then sleep on a futex.

A worker that arrives late cannot take a part of a later region by mistake: a claim word holds twice its region's
number, plus one once taken, and the region's fields do not change before all its parts are finished.
"""

from __future__ import annotations

from tensorlang.codegen.intrinsics.abi import OUT_OF_MEMORY, WORKER_STRIDE, PoolWord
from tensorlang.codegen.native.target import CpuTarget
from tensorlang.errors import BuildError

_BYTES = {"WORKER_STRIDE": WORKER_STRIDE * 8, **{word.name: word.value * 8 for word in PoolWord}}

_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "armv7": 240}
_YIELD = {"x86_64": 24, "aarch64": 124, "riscv64": 124, "armv7": 158}

_PRELUDE = """
from tensorlang.codegen.intrinsics import *
from tensorlang.codegen.intrinsics.system import *
"""

_TEMPLATE = """
@kernel("i64 state, i64 part")
def pool_run_part(ctx, state, part):
    count = atomic_load(state + {COUNT})
    parts = atomic_load(state + {PARTS})
    begin = floordiv_pos(count * part, parts)
    end = floordiv_pos(count * (part + 1), parts)
    body = atomic_load(state + {BODY})
    status = call_chunk(body, context_at(atomic_load(state + {CONTEXT})), begin, end, atomic_load(state + {ARGUMENTS}))
    if status != 0:
        atomic_or(state + {STATUS}, status)
    atomic_add(state + {PENDING}, -1)

@kernel("")
def pool_worker(ctx):
    state = context_slot(ctx, 1)
    number = context_slot(ctx, 2)
    claim = address_of(ctx)
    seen = 0
    while number < atomic_load(state + {THREADS}):
        spins = 0
        while atomic_load(state + {GENERATION}) == seen:
            spins += 1
            if spins < atomic_load(state + {SPIN}):
                cpu_pause()
            else:
                atomic_add(state + {SLEEPERS}, 1)
                if atomic_load(state + {GENERATION}) == seen:
                    syscall({futex}, state + {GENERATION}, 128, seen, 0)      # FUTEX_WAIT, private
                atomic_add(state + {SLEEPERS}, -1)
        seen = atomic_load(state + {GENERATION})
        if atomic_claim(claim, 2 * seen, 2 * seen + 1):
            pool_run_part(ctx, state, number)

@kernel("i64 state")
def pool_wake(ctx, state):
    atomic_add(state + {GENERATION}, 1)
    if atomic_add(state + {SLEEPERS}, 0) > 0:
        syscall({futex}, state + {GENERATION}, 129, 2147483647, 0)            # FUTEX_WAKE, private

@kernel("i64 body, i64 count, i64 arguments")
def pool_parallel_for(ctx, body, count, arguments):
    state = context_slot(ctx, 4)
    parts = 1
    if state != 0:
        parts = minimum(atomic_load(state + {THREADS}), count)
    if parts > 1:
        if not atomic_claim(state + {LOCK}, 0, 1):
            parts = 1
    if parts <= 1:
        if count > 0:
            fail(call_chunk(body, ctx, 0, count, arguments))
    else:
        region = atomic_load(state + {GENERATION}) + 1
        atomic_store(state + {BODY}, body)
        atomic_store(state + {CONTEXT}, address_of(ctx))
        atomic_store(state + {COUNT}, count)
        atomic_store(state + {ARGUMENTS}, arguments)
        atomic_store(state + {PARTS}, parts)
        atomic_store(state + {STATUS}, 0)
        atomic_store(state + {PENDING}, parts)
        for part in range(parts):
            atomic_store(state + {WORKERS} + part * {WORKER_STRIDE}, 2 * region)
        pool_wake(ctx, state)
        for part in range(parts):
            if atomic_claim(state + {WORKERS} + part * {WORKER_STRIDE}, 2 * region, 2 * region + 1):
                pool_run_part(ctx, state, part)
        spins = 0
        while atomic_load(state + {PENDING}) > 0:
            spins += 1
            if spins < 20000:
                cpu_pause()
            else:
                syscall({sched_yield}, 0, 0, 0, 0)
        status = atomic_load(state + {STATUS})
        atomic_store(state + {LOCK}, 0)
        fail(status)

@kernel("i64 state")
def pool_acquire(ctx, state):
    while not atomic_claim(state + {LOCK}, 0, 1):
        syscall({sched_yield}, 0, 0, 0, 0)

@kernel("i64 state")
def pool_release(ctx, state):
    atomic_store(state + {LOCK}, 0)

@kernel("i64 count")
def pool_spin(ctx, count):
    for k in range(count):
        cpu_pause()
"""

_SERIAL = """
@kernel("i64 body, i64 count, i64 arguments")
def pool_parallel_for(ctx, body, count, arguments):
    if count > 0:
        fail(call_chunk(body, ctx, 0, count, arguments))
"""

_MEMORY = """
@kernel("i64 nbytes, i64* result")
def pool_allocate(ctx, nbytes, result):
    address = allocate((nbytes + 64) // 64 * 64)
    check(address != 0, {out_of_memory})
    result[0] = address

@kernel("i64 address")
def pool_free(ctx, address):
    deallocate(address)
"""


def pool_source(target: CpuTarget) -> str:
    """The emitted module of the pool for a Linux target.

    Raises:
        BuildError: the architecture's system calls are not known here.
    """
    architecture = target.architecture
    if architecture not in _FUTEX:
        raise BuildError(f"the thread pool is not written for {architecture}; it knows {', '.join(_FUTEX)}")
    template = _PRELUDE + _TEMPLATE + _MEMORY
    return template.format(**_BYTES, futex=_FUTEX[architecture], sched_yield=_YIELD[architecture], out_of_memory=OUT_OF_MEMORY)


def with_serial_pool(source: str) -> str:
    """An emitted module, and beside it what the context needs on a machine without threads: loops that run serially."""
    return _PRELUDE + source + "\n" + _SERIAL + _MEMORY.format(out_of_memory=OUT_OF_MEMORY)
