"""What two correct programs must agree on: integers exactly, floating point within the bound of the program's `Value`s."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import reject

from tensorlang.build import Kernel, build, lower_kernel, prepare
from tensorlang.config import Settings
from tensorlang.ir import interp
from tensorlang.ir.stmt import Allocate, PrimFunc
from tensorlang.ir.verify import verify
from tensorlang.ir.visitor import walk_stmt
from tensorlang.lower.init import lower_init
from tensorlang.schedule import Schedule
from tests.fuzz.programs import Program


def interpreted(program: Program, func: PrimFunc | None = None, order: str = "ascending") -> list[np.ndarray]:
    """The outputs of `program`, or of `func`, which should mean the same."""
    func = _defined(program, func or program.func)
    known = {b.name: a for b, a in zip(program.func.inputs, program.arrays, strict=True)}
    outs = program.outputs()
    with np.errstate(all="ignore"):
        interp.run(func, [*(known[b.name] for b in func.inputs), *outs, *sizes(program, func)], order=order)
    return outs


def _defined(program: Program, func: PrimFunc) -> PrimFunc:
    """`func`; where a size is 0, with its initialisations apart: a reduction over nothing is its initial value, which a block
    with an initialisation inside, executed as it is, never stores."""
    return func if all(program.symbols.values()) else lower_init(func)


def sizes(program: Program, func: PrimFunc) -> list[int]:
    """The values of the size variables of `func`, in order."""
    return [program.symbols[v] for v in func.size_vars]


def meaning(program: Program) -> list[np.ndarray]:
    """The outputs of `program` as it was written; a program that divides by an empty dimension has none."""
    try:
        return interpreted(program)
    except interp.ExecutionError:
        reject()


def assert_same(program: Program, found: Sequence[np.ndarray], expected: Sequence[np.ndarray], what: str) -> None:
    """`found` is `expected`, up to twice the error bound of each output."""
    for f, e, bound, b in zip(found, expected, program.errors, program.func.outputs, strict=True):
        assert f.shape == e.shape and f.dtype == e.dtype, f"{what}: {b.name} is {f.dtype}{f.shape}, not {e.dtype}{e.shape}"
        if b.dtype.is_float:
            f, e = np.asarray(f, np.float64), np.asarray(e, np.float64)
        if bound == 0.0:
            np.testing.assert_array_equal(f, e, err_msg=f"{what}: {b.name}")
        else:
            np.testing.assert_allclose(f, e, rtol=0, atol=2 * bound, err_msg=f"{what}: {b.name}")


def check_interpreted(program: Program, s: Schedule, expected: Sequence[np.ndarray]) -> None:
    """The scheduled program, whatever the order of its parallel and vectorized loops, means what the naive one means."""
    for order in interp.ORDERS:
        assert_same(program, interpreted(program, s.func, order), expected, f"scheduled, loops {order}")


def check_lowered(program: Program, s: Schedule, expected: Sequence[np.ndarray]) -> None:
    """So does the program after each lowering pass."""
    lowered = lower_kernel(s)
    known = {b.name: a for b, a in zip(program.func.inputs, program.arrays, strict=True)}
    known.update(prepare(lowered, known))
    for stage in lowered.stages:
        verify(stage.func)
        padded = any(isinstance(n, Allocate) and n.buffer.align for n in walk_stmt(stage.func.body))
        if padded and stage.name in ("tensorize", "prefetch"):
            continue  # a tile's strides are known in flat memory: the interpreter refuses padded rows before that
        for order in ("ascending", "shuffled"):
            outs = program.outputs()
            inputs = [known[b.name] for b in stage.func.inputs]
            interp.run(stage.func, [*inputs, *outs, *sizes(program, stage.func)], order=order)
            assert_same(program, outs, expected, f"after {stage.name}, loops {order}")


def check_plain(program: Program, s: Schedule, expected: Sequence[np.ndarray]) -> None:
    """So does the emitted text, run as plain Python."""
    kernel = build(s)
    plain = Kernel(kernel.lowered, kernel.original, Settings(jit=False))
    assert_same(program, _tuple(plain(*program.arrays)), expected, f"plain Python\n{kernel.source}")


def check_native(program: Program, s: Schedule, expected: Sequence[np.ndarray]) -> None:
    """So does machine code."""
    kernel = build(s)
    assert_same(program, _tuple(kernel(*program.arrays)), expected, f"machine code\n{kernel.source}")


def _tuple(result: object) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)  # type: ignore[return-value]

