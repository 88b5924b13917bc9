"""Every error that tensorlang raises on purpose, as one tree (layer 0).

A user's mistake is always a `TensorlangError`; each also refines the built-in that a caller would expect to catch.
A fault of our own is an `InternalError`, which is deliberately *not* a `TensorlangError`.
"""

from __future__ import annotations

from collections.abc import Sequence


class TensorlangError(Exception):
    """Root of all errors caused by what the user gave."""


class TypeCheckError(TensorlangError, TypeError):
    """A tensor expression that has no meaning: wrong rank, dtype or use. The message names the user's file and line."""


class ScheduleError(TensorlangError, ValueError):
    """A schedule step that was refused; the schedule is as it was before the call."""


class ModelError(TensorlangError, ValueError):
    """A file that is not a sound model."""


class UnsupportedOpError(TensorlangError, NotImplementedError):
    """A sound model that uses operators we lack; all of them are listed at once.

    Args:
        ops: (operator, node name, hint) for every node that cannot be imported.
        needs: names of the model's inputs whose contents, if they were known beforehand, would help.
    """

    def __init__(self, ops: Sequence[tuple[str, str, str]], needs: Sequence[str] = ()):
        self.ops = tuple(ops)
        self.needs = tuple(needs)
        lines = [f"  {op} at node {node!r}" + (f": {hint}" if hint else "") for op, node, hint in self.ops]
        kinds = sorted({op for op, _, _ in self.ops})
        super().__init__(
            f"{len(self.ops)} node(s) use {len(kinds)} unsupported operator(s): {', '.join(kinds)}\n" + "\n".join(lines)
        )


class InputError(TensorlangError, ValueError):
    """Feeds that do not fit the function or model that is called: name, dtype, rank or size."""


class BuildError(TensorlangError, RuntimeError):
    """Code could not be generated or compiled for the target asked for."""


class OutOfMemoryError(TensorlangError, MemoryError):
    """A call needs more memory than the system gives; the process and the function called are as before."""


class ArtifactError(TensorlangError, OSError):
    """A saved model that cannot be written, read or run on this machine."""


class InternalError(AssertionError):
    """A broken invariant of the compiler itself: a bug in tensorlang, not in what the user wrote."""
