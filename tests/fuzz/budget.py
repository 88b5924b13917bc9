"""How many examples: few in `make test`, as many as asked for in `make fuzz`."""

from __future__ import annotations

from hypothesis import settings


def examples(n: int, share: int = 1) -> settings:
    """`n` examples in the deterministic profile; in the fuzzing one, what that says, divided by `share`."""
    if settings.get_current_profile_name() == "fuzz":
        return settings(max_examples=max(n, settings().max_examples // share))
    return settings(max_examples=n)
