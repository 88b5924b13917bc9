"""Operators that put elements where data says: top-k, scatter. Kernels of the emitted program's own Python (see `serial`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import dims_of, known_size, plain, product, require, wrapped_index
from tensorlang.graph.ops.serial import SerialOp
from tensorlang.graph.registry import OPAQUE, op
from tensorlang.ir.expr import Expr, ExprLike, eq, wrap


@op("topk", OPAQUE)
class TopK(SerialOp):
    """The `k` largest (or smallest) elements along `axis` in order, and their positions as i64; ties: the first one first.

    A heap of the best so far, the worst of them on top, in the results themselves; then the heap is taken apart, worst first:
    O(n log k) (Williams 1964). Vectors of neighbours that are all no better than the worst are passed by.
    """

    parameters = ("x", "values", "places")
    lines, each = "A * B", "n"
    BODY = """
for line in range(line_begin, line_end):
    first = floordiv_pos(line, B) * n * B + floormod_pos(line, B)
    top = floordiv_pos(line, B) * k * B + floormod_pos(line, B)
    for j in range(minimum(k, n)):
        v = x[first + j * B]
        c = j
        while c > 0 and WORSE_THAN_EARLIER(v, values[top + (c - 1) // 2 * B]):
            p = (c - 1) // 2
            values[top + c * B] = values[top + p * B]
            places[top + c * B] = places[top + p * B]
            c = p
        values[top + c * B] = v
        places[top + c * B] = j
    at = k
    if k == 0:
        at = n
    while at < n:
        PASS_BY
        for j in range(at, minimum(at + 16, n)):
            v = x[first + j * B]
            if BETTER(v, values[top]):
                SINK(v, j, k)
        at = at + 16
    for e in range(k - 1, 0, -1):
        w = values[top + e * B]
        place = places[top + e * B]
        values[top + e * B] = values[top]
        places[top + e * B] = places[top]
        SINK(w, place, e)
"""
    PASS_BY = """
if B == 1:
    worst = values[top]
    none = True
    while none and at + 16 <= n:
        none = vreduce_max(select(BETTER(vload(x, first + at, 16), vsplat(worst, 16)), vsplat(1, 16), vsplat(0, 16))) == 0
        if none:
            at = at + 16
"""
    WIDE = ("f32", "f64", "i32", "i64")  # elements of which a vector passes by at once
    SINK = """
h = 0
going = True
while going:
    d = 2 * h + 1
    if d + 1 < COUNT:
        left = values[top + d * B]
        right = values[top + (d + 1) * B]
        if BETTER(left, right) or (left == right and places[top + d * B] < places[top + (d + 1) * B]):
            d = d + 1
    going = False
    if d < COUNT:
        under = values[top + d * B]
        if BETTER(VALUE, under) or (VALUE == under and PLACE < places[top + d * B]):
            values[top + h * B] = under
            places[top + h * B] = places[top + d * B]
            h = d
            going = True
values[top + h * B] = VALUE
places[top + h * B] = PLACE
"""

    def infer(self, x: TensorType, *, k: ExprLike, axis: int, largest: bool = True) -> list[TensorType]:
        (size,) = dims_of([k])
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        return [TensorType(x.dtype, shape), TensorType.of("i64", shape)]

    def sizes(self, *inputs: TensorType, k: ExprLike, axis: int, **attrs: Any) -> dict[str, Expr]:
        (x,) = inputs
        (size,) = dims_of([k])
        return {"A": product(x.shape[:axis]), "n": x.shape[axis], "B": product(x.shape[axis + 1 :]), "k": size}

    def text(self, inputs: Sequence[TensorType], *, largest: bool = True, **attrs: Any) -> str:
        lines: list[str] = []
        for line in self.BODY.strip().split("\n"):
            if line.strip() == "PASS_BY":
                indent = line[: -len("PASS_BY")]
                wide = inputs[0].dtype.name in self.WIDE
                lines += [indent + part for part in self.PASS_BY.strip().split("\n") if wide]
                continue
            if "SINK(" not in line:
                lines.append(line)
                continue
            indent, names = line.split("SINK(")
            value, place, count = names.rstrip(")").split(", ")
            sink = self.SINK.replace("VALUE", value).replace("PLACE", place).replace("COUNT", count)
            lines += [indent + part for part in sink.strip().split("\n")]
        sign = ">" if largest else "<"
        text = _infix("\n".join(lines), "WORSE_THAN_EARLIER", "<=" if largest else ">=")
        return _infix(text, "BETTER", sign)

    def te(self, x: te.Tensor, *, k: ExprLike, axis: int, largest: bool = True) -> tuple[te.Tensor, te.Tensor]:
        """By rank, for targets that have no serial kernels: an element's place is how many come before it (quadratic)."""
        (size,) = plain(dims_of([k]))
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        j, m = te.reduce_axis(x.shape[axis], name="j"), te.reduce_axis(x.shape[axis], name="m")

        def line(i: Sequence[Expr], p: ExprLike) -> tuple[ExprLike, ...]:
            return (*i[:axis], p, *i[axis + 1 :])

        def before(i: Sequence[Expr]) -> Expr:
            mine, other = x[tuple(i)], x[line(i, j)]
            wins = mine < other if largest else other < mine
            first = te.any_of(wins, te.all_of(eq(mine, other), j < i[axis]))
            return te.select(first, te.const(1, "i64"), te.const(0, "i64"))

        rank = te.compute(x.shape, lambda *i: te.sum(before(i), axis=j), name="rank")
        positions = te.compute(
            shape,
            lambda *i: te.sum(te.select(eq(rank[line(i, m)], i[axis]), m, te.const(0, "i64")), axis=m),
            name="topk_indices",
        )
        values = te.compute(shape, lambda *i: x[line(i, positions[i])], name="topk_values")
        return values, positions

    def numpy(self, x: np.ndarray, *, k: int, axis: int, largest: bool = True) -> tuple[np.ndarray, np.ndarray]:
        key = -x.astype(np.float64) if largest and x.dtype.kind in "fu" else -x if largest else x
        order = np.argsort(key, axis=axis, kind="stable")
        order = np.take(order, np.arange(k), axis)
        return np.take_along_axis(x, order, axis), order.astype(np.int64)


def _infix(text: str, name: str, sign: str) -> str:
    """`name(a, b)` as `(a sign b)`; a and b hold balanced brackets."""
    while (start := text.find(f"{name}(")) >= 0:
        depth, comma, end = 0, 0, start + len(name)
        for end in range(start + len(name), len(text)):
            depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(text[end], 0)
            if text[end] == "," and depth == 1:
                comma = end
            if depth == 0:
                break
        a, b = text[start + len(name) + 1 : comma], text[comma + 2 : end]
        text = f"{text[:start]}{a} {sign} {b}{text[end + 1 :]}"
    return text


_COMBINE = {"none": "{1}", "add": "{0} + {1}", "mul": "{0} * {1}", "max": "maximum({0}, {1})", "min": "minimum({0}, {1})"}
_TE_COMBINE = {"add": lambda a, b: a + b, "mul": lambda a, b: a * b, "max": te.maximum, "min": te.minimum}
_NP_COMBINE = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _combined(reduction: str, x: TensorType, old: str, new: str) -> str:
    """Text of the element that comes of an `old` and a `new` one; 16-bit floats are combined as f32."""
    if reduction == "none" or not x.dtype.is_float or x.dtype.nbytes >= 4:
        return _COMBINE[reduction].format(old, new)
    return f"{x.dtype}({_COMBINE[reduction].format(f'f32({old})', f'f32({new})')})"


def _check(name: str, indices: TensorType, reduction: str) -> None:
    require(indices.dtype.is_int, f"{name}: indices of {indices.dtype}, expected integers")
    require(reduction in _COMBINE, f"{name}: unknown reduction {reduction!r}")


@op("scatter_elements", OPAQUE)
class ScatterElements(SerialOp):
    """x with x[.., indices[i], ..] = updates[i] along `axis`; `reduction` combines instead of overwriting.

    Updates are taken in order: of several for one element the last one stays. Those outside of x are passed over.
    """

    parameters = ("x", "indices", "updates", "y")

    def infer(
        self, x: TensorType, indices: TensorType, updates: TensorType, *, axis: int, reduction: str = "none"
    ) -> list[TensorType]:
        _check(self.name, indices, reduction)
        return [x]

    def sizes(self, *inputs: TensorType, axis: int, **attrs: Any) -> dict[str, Expr]:
        x, indices, _ = inputs
        named = {f"d{k}": d for k, d in enumerate(x.shape)} | {f"e{k}": d for k, d in enumerate(indices.shape)}
        return {"total": product(x.shape), "count": product(indices.shape), **named}

    def text(self, inputs: Sequence[TensorType], *, axis: int, reduction: str = "none", **attrs: Any) -> str:
        rank = inputs[0].ndim
        lines = ["for i in range(total):", "    y[i] = x[i]", "for i in range(count):", "    rest = i"]
        for k in reversed(range(rank)):
            lines += [f"    c{k} = rest % e{k}", f"    rest = rest // e{k}"]
        lines += [*_wrapped(f"c{axis}", "indices[i]", f"d{axis}"), "    place = 0"]
        lines += [f"    place = place * d{k} + c{k}" for k in range(rank)]
        stored = _combined(reduction, inputs[0], "y[place]", "updates[i]")
        inside = " and ".join(f"{'0 <= ' if k == axis else ''}c{k} < d{k}" for k in range(rank))
        return "\n".join([*lines, f"    if {inside}:", f"        y[place] = {stored}"])

    def te(
        self, x: te.Tensor, indices: te.Tensor, updates: te.Tensor, *, axis: int, reduction: str = "none"
    ) -> te.Tensor:
        """For targets that have no serial kernels, by gathering: every element looks through its line (quadratic)."""
        count = indices.shape[axis]

        def line(i: Sequence[Expr], k: ExprLike) -> tuple[ExprLike, ...]:
            return (*i[:axis], k, *i[axis + 1 :])

        k = te.reduce_axis(count, name="k")

        def covered(i: Sequence[Expr]) -> Expr:
            others = [i[a] < indices.shape[a] for a in range(x.ndim) if a != axis]
            return te.all_of(*others)

        def hit(i: Sequence[Expr], k: Expr) -> Expr:
            return te.all_of(covered(i), eq(wrapped_index(indices[line(i, k)], x.shape[axis]), i[axis]))

        if reduction == "none":
            last = te.compute(
                x.shape, lambda *i: te.max(te.select(hit(i, k), k, te.const(-1, "i64")), axis=k), name="last"
            )
            return te.compute(
                x.shape,
                lambda *i: te.if_then_else(last[i] >= 0, updates[line(i, te.maximum(last[i], 0))], x[i]),
                name="scatter_elements",
            )
        reducer = {"add": te.sum, "mul": te.prod, "max": te.max, "min": te.min}[reduction]
        neutral = {
            "add": te.const(0, x.dtype), "mul": te.const(1, x.dtype),
            "max": te.min_value(x.dtype), "min": te.max_value(x.dtype),
        }[reduction]  # fmt: skip
        found = te.compute(
            x.shape, lambda *i: reducer(te.if_then_else(hit(i, k), updates[line(i, k)], neutral), axis=k), name="found"
        )
        return te.compute(x.shape, lambda *i: _TE_COMBINE[reduction](x[i], found[i]), name="scatter_elements")

    def numpy(
        self, x: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, axis: int, reduction: str = "none"
    ) -> np.ndarray:
        out = np.array(x)
        index = np.where(indices < 0, indices + x.shape[axis], indices)
        where = [index if a == axis else grid for a, grid in enumerate(np.indices(indices.shape))]
        if reduction == "none":
            out[tuple(where)] = updates
        else:
            _NP_COMBINE[reduction].at(out, tuple(where), updates)
        return out


@op("scatter_nd", OPAQUE)
class ScatterND(SerialOp):
    """x with x[indices[i, :], ...] = updates[i, ...]; `reduction` combines instead of overwriting; order as above."""

    parameters = ("x", "indices", "updates", "y")

    def infer(
        self, x: TensorType, indices: TensorType, updates: TensorType, *, reduction: str = "none"
    ) -> list[TensorType]:
        _check(self.name, indices, reduction)
        require(indices.shape[-1].op == "const", f"scatter_nd: the last dimension of {indices} must be known")
        return [x]

    def sizes(self, *inputs: TensorType, **attrs: Any) -> dict[str, Expr]:
        x, indices, _ = inputs
        depth = int(indices.shape[-1].value)
        named = {f"d{k}": d for k, d in enumerate(x.shape[:depth])}
        return {"total": product(x.shape), "count": product(indices.shape[:-1]), "m": product(x.shape[depth:]), **named}

    def text(self, inputs: Sequence[TensorType], *, reduction: str = "none", **attrs: Any) -> str:
        depth = int(inputs[1].shape[-1].value)
        lines = ["for i in range(total):", "    y[i] = x[i]", "for i in range(count):", "    place = 0"]
        for k in range(depth):
            lines += [*_wrapped(f"c{k}", f"indices[i * {depth} + {k}]", f"d{k}"), f"    place = place * d{k} + c{k}"]
        inside = " and ".join(f"0 <= c{k} < d{k}" for k in range(depth)) or "True"
        stored = _combined(reduction, inputs[0], "y[place * m + j]", "updates[i * m + j]")
        lines += [f"    if {inside}:", "        for j in range(m):", f"            y[place * m + j] = {stored}"]
        return "\n".join(lines)

    def te(self, x: te.Tensor, indices: te.Tensor, updates: te.Tensor, *, reduction: str = "none") -> te.Tensor:
        """For targets that have no serial kernels, by gathering: every element looks through all updates."""
        depth = known_size(indices.shape[-1])
        axes = [te.reduce_axis(n, name=f"k{a}") for a, n in enumerate(indices.shape[:-1])]
        if not axes:
            axes = [te.reduce_axis(1, name="k")]
        lead = axes[: indices.ndim - 1]

        def hit(i: Sequence[Expr]) -> Expr:
            return te.all_of(*(eq(wrapped_index(indices[(*lead, d)], x.shape[d]), i[d]) for d in range(depth)))

        if reduction == "none":
            order = wrap(0)
            for a, n in zip(lead, indices.shape[:-1], strict=True):
                order = order * n + a
            last = te.compute(
                x.shape[:depth],
                lambda *i: te.max(te.select(hit(i), order, te.const(-1, "i64")), axis=axes),
                name="last",
            )

            def element(*i: Expr) -> Expr:
                position, picks = te.maximum(last[i[:depth]], 0), []
                for n in reversed(indices.shape[:-1]):
                    picks.append(position % n)
                    position = position // n
                return te.if_then_else(last[i[:depth]] >= 0, updates[(*reversed(picks), *i[depth:])], x[i])

            return te.compute(x.shape, element, name="scatter_nd")
        reducer = {"add": te.sum, "mul": te.prod, "max": te.max, "min": te.min}[reduction]
        neutral = {
            "add": te.const(0, x.dtype), "mul": te.const(1, x.dtype),
            "max": te.min_value(x.dtype), "min": te.max_value(x.dtype),
        }[reduction]  # fmt: skip
        found = te.compute(
            x.shape,
            lambda *i: reducer(te.if_then_else(hit(i), updates[(*lead, *i[depth:])], neutral), axis=axes),
            name="found",
        )
        return te.compute(x.shape, lambda *i: _TE_COMBINE[reduction](x[i], found[i]), name="scatter_nd")

    def numpy(
        self, x: np.ndarray, indices: np.ndarray, updates: np.ndarray, *, reduction: str = "none"
    ) -> np.ndarray:
        out = np.array(x)
        where = tuple(
            np.where(index < 0, index + n, index) for index, n in zip(np.moveaxis(indices, -1, 0), x.shape, strict=False)
        )
        if reduction == "none":
            out[where] = updates
        else:
            _NP_COMBINE[reduction].at(out, where, updates)
        return out


def _wrapped(name: str, index: str, size: str) -> list[str]:
    """Statements that make `name` the index, counted from the end where it is negative."""
    return [f"    {name} = i64({index})", f"    if {name} < 0:", f"        {name} = {name} + {size}"]
