"""How many examples: few in `make test`, as many as asked for in `make fuzz`."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import engine

FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5000"))
PARTS = 8  # the long run cuts its largest test in as many, which workers share
_SHRINK_SECONDS = 45  # hypothesis' own limit is 5 minutes, for each of several failures

if hasattr(engine, "MAX_SHRINKING_SECONDS"):
    engine.MAX_SHRINKING_SECONDS = _SHRINK_SECONDS


def is_long() -> bool:
    """Whether this is `make fuzz`."""
    return settings.get_current_profile_name() == "fuzz"


def examples(n: int, share: int = 1) -> settings:
    """`n` examples in the deterministic profile; in the fuzzing one, FUZZ_EXAMPLES divided by `share`."""
    if is_long():
        return settings(max_examples=max(1, FUZZ_EXAMPLES // share))
    return settings(max_examples=n)


parts = pytest.mark.parametrize("part", range(PARTS if is_long() else 1))
