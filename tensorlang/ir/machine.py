"""What schedules may know of the machine that a target makes code for: sizes and features, never a model's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Machine:
    """The capabilities of a target.

    Attributes:
        vector_bytes: width of one vector register.
        vector_registers: how many of them.
        l1_bytes, l2_bytes: data caches of one core.
        l1_ways: lines of the first-level data cache that share a set.
        threads: workers that parallel loops are shared among.
        scopes: memories that buffers may be put into beside "global": "shared", or an accelerator's scratchpad.
        thread_axes: what loops may be bound to: "blockIdx.x", "threadIdx.x".
        features: instruction sets, by the names that tensor intrinsics require.
        limits: other bounds by name, such as {"threads_per_block": 1024, "shared_bytes": 49152}.
    """

    vector_bytes: int = 32
    vector_registers: int = 16
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 1024 * 1024
    l1_ways: int = 8
    threads: int = 2
    scopes: tuple[str, ...] = ()
    thread_axes: tuple[str, ...] = ()
    features: frozenset[str] = frozenset()
    limits: Mapping[str, int] = field(default_factory=lambda: _NOTHING, hash=False)

    def lanes(self, nbytes: int) -> int:
        """How many elements of `nbytes` one register holds."""
        return self.vector_bytes // nbytes
