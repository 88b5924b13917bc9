"""Steps that integer sets cannot decide are tried out: the program before and after, on random data, at several sizes.

Not a proof, and it does not count as one: the verdict stays "unknown" and says at which sizes both came to the same. Where
they do not, the step is refuted, and the verdict says where they differ.

Constant shapes run as they are, symbolic ones at small and awkward sizes, all within a limit of work. Data is drawn so that
sums of products are exact (quarters); where the program cannot run on any integers, those that index memory stay within the
dimension that they index. Parallel and
vectorized loops run forwards, backwards and shuffled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from tensorlang.errors import TensorlangError
from tensorlang.ir import interp
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import PrimFunc, Store
from tensorlang.ir.visitor import own_exprs, walk, walk_stmt
from tensorlang.schedule.verdict import NOT_CHECKED, Verdict
from tensorlang.schedule.witness import describe, points
from tensorlang.symbolic.integer_set import evaluate

AT_ONCE = 4_000.0  # points of one step: some 10 ms
THOROUGH = 400_000.0  # at build, or when somebody asks for the proof: a second
_SIZES = (1, 2, 3, 5, 8, 17, 33, 65)
_RUNS = 6  # of different sizes
_SEEDS = (0, 1)
# Relative to the largest value: a legal step may reassociate sums, and no more.
_TOLERANCE = {"f64": 1e-9, "f32": 1e-3, "f16": 5e-2, "bf16": 0.2}


def tried(before: PrimFunc, after: PrimFunc, verdict: Verdict, limit: float) -> Verdict:
    """`verdict`, an unknown one, with what running `before` and `after` says; unchanged if that is beyond `limit` points."""
    done: list[Mapping[Expr, int]] = []
    budget = limit
    suspected = [dict(verdict.suspect)] if verdict.suspect else []
    for sizes in (*suspected, *_assignments(before)):
        sizes = {v: sizes.get(v, 1) for v in before.size_vars}
        if any(n < 0 for b in (*before.inputs, *before.outputs) for n in _shape(b, sizes)):
            continue  # a window that is wider than what it runs over: nobody can call it with this
        cost = (points(before.body, sizes) + points(after.body, sizes)) * len(_SEEDS)
        if cost > budget:
            continue
        budget -= cost
        for seed in _SEEDS:
            outcome = _compare(before, after, sizes, seed)
            if isinstance(outcome, str):
                where = f" with {describe(sizes)}" if sizes else ""
                return replace(verdict, status="refuted", checked=f"running it{where} shows a difference: {outcome}")
            if not outcome:
                break
        else:
            done.append(sizes)
        if len(done) >= _RUNS:
            break
    if not done:
        return verdict
    where = "; ".join(describe(s) for s in done) or "its own shapes"
    return replace(verdict, checked=f"checked by running it on random data, at {where}")


def not_tried(verdict: Verdict) -> Verdict:
    """`verdict` of a step that was to be run, and could not be."""
    return verdict if verdict.checked else replace(verdict, checked=f"{NOT_CHECKED}: the program is too large to be run for it")


def _assignments(func: PrimFunc) -> Iterator[dict[Expr, int]]:
    """Sizes to try: all alike first, small ones before large ones, then pairs that differ."""
    variables = func.size_vars
    if not variables:
        yield {}
        return
    for n, first in enumerate(_SIZES):
        yield {v: _SIZES[(n + k) % len(_SIZES)] if k else first for k, v in enumerate(variables)}
    if len(variables) > 1:
        for a, b in product((1, 4, 9), (2, 7)):
            yield {v: (a, b)[k % 2] for k, v in enumerate(variables)}


def _compare(before: PrimFunc, after: PrimFunc, sizes: Mapping[Expr, int], seed: int) -> str | bool:
    """Where the two differ; True if nowhere; False if `before` cannot run on such data."""
    for integers in ("any", "indices", "bits"):  # the widest that `before` can run on tells most
        known = {b.name: a for b, a in zip(before.inputs, _data(before, sizes, seed, integers), strict=True)}
        try:
            expected = _outputs(before, known, sizes, "ascending", seed)
        except TensorlangError:
            continue
        for order in interp.ORDERS:
            try:
                found = _outputs(after, known, sizes, order, seed)
            except TensorlangError as error:
                return str(error)
            if difference := _difference(after.outputs, found, expected):
                return difference
        return True
    return False


def _outputs(
    func: PrimFunc, known: Mapping[str, np.ndarray], sizes: Mapping[Expr, int], order: str, seed: int
) -> list[np.ndarray]:
    outs = [np.zeros(_shape(b, sizes), b.dtype.numpy) for b in func.outputs]
    given = [known[b.name].copy() for b in func.inputs]
    interp.run(func, [*given, *outs, *(sizes[v] for v in func.size_vars)], order=order, seed=seed)
    return outs


def _difference(outputs: Sequence[Buffer], found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str:
    for b, f, e in zip(outputs, found, expected, strict=True):
        if b.dtype.is_float:
            x, y = np.asarray(f, np.float64), np.asarray(e, np.float64)
            finite = np.abs(y[np.isfinite(y)])
            bound = _TOLERANCE.get(b.dtype.name, 0.5) * max(1.0, float(finite.max(initial=0.0)))
            with np.errstate(all="ignore"):
                wrong = ~((np.abs(x - y) <= bound) | (x == y) | (np.isnan(x) & np.isnan(y)))
        else:
            wrong = np.asarray(f != e)
        if wrong.any():
            at = tuple(int(n) for n in np.argwhere(wrong)[0]) if wrong.ndim else ()
            return f"{b.name}[{', '.join(map(str, at))}] is {f[at]} after the step, {e[at]} before"
    return ""


def _shape(b: Buffer, sizes: Mapping[Expr, int]) -> tuple[int, ...]:
    return tuple(int(evaluate(d, sizes)) for d in b.shape)


def _data(func: PrimFunc, sizes: Mapping[Expr, int], seed: int, integers: str) -> list[np.ndarray]:
    """Random inputs. `integers`: "any"; "indices", of which those that index memory are within what they index; "bits"."""
    rng = np.random.default_rng(seed)
    limits = _index_limits(func, sizes) if integers == "indices" else {}
    arrays = []
    for b in func.inputs:
        shape, dtype = _shape(b, sizes), b.dtype.numpy
        if b.dtype.is_bool:
            arrays.append(rng.integers(0, 2, shape).astype(dtype))
        elif b.dtype.is_int:
            signed = (1 if b.dtype.kind == "u" else -9, 10)
            low, high = (0, 2) if integers == "bits" else (0, limits[b]) if b in limits else signed
            arrays.append(rng.integers(low, max(high, low + 1), shape).astype(dtype))
        else:
            arrays.append((rng.integers(-8, 9, shape) / 4).astype(np.float64).astype(dtype))
    return arrays


def _index_limits(func: PrimFunc, sizes: Mapping[Expr, int]) -> dict[Buffer, int]:
    """For inputs whose elements index memory: the smallest dimension that they index."""
    limits: dict[Buffer, int] = {}

    def index(buffer: Buffer, indices: Sequence[Expr]) -> None:
        for d, e in zip(buffer.shape, indices, strict=True):
            for n in walk(e):
                if n.op == "load":
                    try:
                        size = int(evaluate(d, sizes))
                    except KeyError:
                        continue
                    limits[n.value] = min(limits.get(n.value, size), size)

    for s in walk_stmt(func.body):
        if isinstance(s, Store):
            index(s.buffer, s.indices)
        for e in own_exprs(s):
            for n in walk(e):
                if n.op == "load":
                    index(n.value, n.args)
    return limits
