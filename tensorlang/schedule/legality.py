"""What is known of a schedule step's legality (placeholder until the integer-set checks land)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Verdict:
    status: str
    reason: str = ""
    counterexample: Any = None


PROVED = Verdict("proved")
UNKNOWN = Verdict("unknown")


def check_parallel(func: Any, loop: Any) -> Verdict:
    return UNKNOWN


check_vectorize = check_parallel


def check_reorder(func: Any, loops: Any) -> Verdict:
    return UNKNOWN


def report(func: Any, step: Any, verdict: Verdict) -> str:
    return f"{step}: {verdict.reason}"
