"""What the machine can do at most (`tensorlang.limits`), for the seconds that an operator cannot take less than."""

from __future__ import annotations

from tensorlang.limits import LEAST_COPY, MOST_COPY, STEPS, bytes_per_second, flops_per_second

__all__ = ["LEAST_COPY", "MOST_COPY", "STEPS", "bytes_per_second", "flops_per_second", "seconds"]


def seconds(flop: float, nbytes: float, threads: int) -> float:
    """The least time in which `threads` cores could do that; 0 where nothing is counted."""
    found = flop / flops_per_second(threads) if flop else 0.0
    return max(found, nbytes / bytes_per_second(round(nbytes), threads)) if nbytes else found
