"""What the tests of primitives share: a scheduled program means what it meant, interpreted and as machine code."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlang.build import build
from tensorlang.ir import interp
from tensorlang.ir.stmt import For, PrimFunc
from tensorlang.ir.verify import verify
from tensorlang.ir.visitor import walk_stmt
from tensorlang.schedule import Schedule
from tests import programs


def loops_of(s: Schedule) -> list[str]:
    """`name:extent:kind` of every loop, in program order."""
    return [f"{n.var.name}:{n.extent}:{n.kind}" for n in walk_stmt(s.func.body) if isinstance(n, For)]


def interpreted(func: PrimFunc, arrays: list[np.ndarray], sizes: dict[str, int]) -> list[np.ndarray]:
    outs = []
    for b in func.outputs:
        shape = [d.value if d.op == "const" else sizes[d.name] for d in b.shape]
        outs.append(np.full(shape, 77).astype(b.dtype.numpy))
    interp.run(func, [*arrays, *outs, *(sizes[v.name] for v in func.size_vars)])
    return outs


def check(s: Schedule, **sizes: int) -> None:
    """The scheduled program equals the original in the interpreter and as machine code; its text is well-formed."""
    verify(s.func)
    arrays = programs.arrays_of(s.original, **sizes)
    for a in arrays:  # NaN and garbage that a mask must not let through
        assert np.isfinite(a.astype(np.float64)).all()
    expected = interpreted(s.original, arrays, sizes)
    for found, wanted in zip(interpreted(s.func, arrays, sizes), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)
    native: Any = build(s)(*arrays)
    for found, wanted in zip(native if isinstance(native, tuple | list) else [native], expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def replays(s: Schedule) -> None:
    """The trace makes the same program of a fresh schedule."""
    fresh = Schedule(s.original)
    s.trace.replay(fresh)
    assert str(fresh) == str(s)
    assert str(fresh.trace) == str(s.trace)


def body_of(s: Schedule) -> str:
    """The program's text without the places in files."""
    text = str(s)
    return text[text.index("def ") :]
