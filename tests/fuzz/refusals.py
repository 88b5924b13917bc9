"""What a refusal says is true: its two iterations happen when the whole program runs, and touch the address that it names.

The schedule layer executes the two iterations by themselves before it speaks; here the program runs as it is, with all its
loops, and every access is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tensorlang.errors import ScheduleError
from tensorlang.ir import interp
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import PrimFunc
from tensorlang.schedule.verdict import Missing, RefusedStep
from tensorlang.schedule.witness import points
from tensorlang.symbolic.conflict import Counterexample
from tests.fuzz.programs import Program

_MOST_POINTS = 6000


def check(error: ScheduleError, program: Program) -> str:
    """How it was refused: by a counterexample, by running, or for the step's form."""
    if not isinstance(error, RefusedStep):
        return "form"
    verdict = error.verdict
    assert verdict.status == "refuted" and verdict.reason, error
    example = verdict.counterexample
    if example is None:
        return "run" if verdict.checked else "form"
    if points(error.func.body, example.sizes) > _MOST_POINTS:
        return "counterexample"
    if isinstance(example, Counterexample):
        _both_happen(error, example, program)
    else:
        _happens(error, example, program)
    return "counterexample"


def _both_happen(error: RefusedStep, example: Counterexample, program: Program) -> None:
    assert any(a.write for a in example.accesses), error
    assert dict(example.first) != dict(example.second) or example.accesses[0] is not example.accesses[1], error
    missing = {0, 1}

    def watch(kind: str, buffer: Buffer, index: tuple[int, ...], env: Mapping[Expr, int]) -> None:
        if buffer is example.buffer and tuple(index) == example.address:
            for n in tuple(missing):
                side = (example.first, example.second)[n]
                if (kind == "write") == example.accesses[n].write and all(env.get(v) == value for v, value in side.items()):
                    missing.discard(n)

    _run(error.func, example.sizes, program, watch)
    assert not missing, f"iteration {min(missing) + 1} of the refusal does not happen\n{error}"


def _happens(error: RefusedStep, example: Missing, program: Program) -> None:
    """At those values of the loops, the element is read before anything has written it."""
    first: list[str] = []

    def watch(kind: str, buffer: Buffer, index: tuple[int, ...], env: Mapping[Expr, int]) -> None:
        here = all(env.get(v) == value for v, value in example.at.items())
        if buffer is example.buffer and tuple(index) == example.address and here and not first:
            first.append(kind)

    _run(error.func, example.sizes, program, watch)
    assert first == ["read"], f"the missing element is not read first\n{error}"


def _run(func: PrimFunc, sizes: Mapping[Expr, int], program: Program, watch: interp.OnAccess) -> None:
    values = {**program.symbols, **sizes}
    arrays = []
    for b in func.buffers:
        shape = tuple(interp.evaluate_size(d, values) for d in b.shape)
        arrays.append(np.ones(shape, b.dtype.numpy))
    interp.run(func, [*arrays, *(values[v] for v in func.size_vars)], on_access=watch)
