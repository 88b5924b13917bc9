"""Machine operations for the thread pool only (not part of the emitted vocabulary, no plain twin).

Addresses are i64. They exist to be lowered: with the jit off parallel loops are serial and none of these is called.
"""

from __future__ import annotations

from typing import Any, NoReturn


def _native_only() -> NoReturn:
    raise NotImplementedError("the thread pool has no plain-Python twin")


def atomic_load(address: int) -> int:
    """The i64 at `address`, acquire."""
    _native_only()


def atomic_store(address: int, value: int) -> None:
    """Set the i64 at `address`, release."""
    _native_only()


def atomic_add(address: int, value: int) -> int:
    """Add to the i64 at `address`; returns what was there."""
    _native_only()


def atomic_or(address: int, value: int) -> int:
    """Set bits of the i64 at `address`; returns what was there."""
    _native_only()


def atomic_claim(address: int, expected: int, value: int) -> bool:
    """Compare-and-swap of the i64 at `address`; whether it happened."""
    _native_only()


def unroll() -> None:
    """Mark the loop whose last statement but its increment this is: unroll in full."""
    _native_only()


def cpu_pause() -> None:
    """Tell the core that this is a spin loop."""
    _native_only()


def syscall(number: int, a: int, b: int, c: int, d: int) -> int:
    """A Linux system call through libc's `syscall`."""
    _native_only()


def context_at(address: int) -> Any:
    """A context by its address."""
    _native_only()


def address_of(ctx: Any) -> int:
    """The address of a context."""
    _native_only()


def call_chunk(body: int, ctx: Any, begin: int, end: int, arguments: int) -> int:
    """Run a chunk entry, `i32 body(ctx, begin, end, arguments)`; its status."""
    _native_only()


def context_slot(ctx: Any, slot: int) -> int:
    """The i64 in a slot of the context."""
    _native_only()


def allocate(nbytes: int) -> int:
    """`aligned_alloc(64, nbytes)`; 0 when there is no memory."""
    _native_only()


def deallocate(address: int) -> None:
    """`free`."""
    _native_only()


def fail(status: int) -> None:
    """Leave the function with a status that is not 0, or go on when it is."""
    _native_only()
