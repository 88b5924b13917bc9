"""Operators that move elements without computing: reshape, transpose, expand, concat, slice, pad, tile, and their like.

They are their own arithmetic on known contents: the NumPy reference runs on object arrays of expressions just as well.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType, Value
from tensorlang.graph.ops.common import (
    DATA_LIMIT,
    at,
    broadcast_dims,
    canonical,
    dims_of,
    is_one,
    known,
    object_array,
    plain,
    product,
    require,
    same_dim,
)  # fmt: skip
from tensorlang.graph.registry import INJECTIVE, Op, as_ints, op
from tensorlang.ir.dtype import DType, dtype as as_dtype
from tensorlang.ir.expr import Expr, ExprLike, floordiv, floormod, wrap

Ints = Sequence[int]


def numpy_on_contents(definition: Op, values: Sequence[Value], attrs: dict[str, Any]) -> list[np.ndarray | None] | None:
    """Contents of the outputs by the operator's own NumPy reference, if the inputs' contents are known."""
    contents = known(*values)
    out_types = definition.infer(*(v.type for v in values), **attrs)
    if contents is None or any(as_ints(t.shape) is None for t in out_types):
        return None
    if any(int(np.prod(as_ints(t.shape) or (1,), dtype=np.int64)) > DATA_LIMIT for t in out_types):
        return None
    attrs = {k: _static(v) for k, v in attrs.items()}
    result = definition.numpy(*contents, **attrs)
    results = result if isinstance(result, tuple) else (result,)
    return [object_array(np.asarray(r, dtype=object).flat, np.shape(r)) for r in results]


def _static(value: Any) -> Any:
    if isinstance(value, Expr) and value.op == "const":
        return value.value
    return tuple(_static(v) for v in value) if isinstance(value, tuple | list) else value


class Movement(Op):
    """Base: contents follow from the NumPy reference."""

    def data(self, *inputs: Value, **attrs: Any) -> list[np.ndarray | None] | None:
        return numpy_on_contents(self, inputs, attrs)


def delinearise(linear: Expr, shape: Sequence[ExprLike]) -> tuple[Expr, ...]:
    """The multi-index at position `linear` of a row-major tensor of `shape`."""
    index: list[Expr] = []
    for size in reversed(shape[1:]):
        index.append(wrap(0) if is_one(size) else floormod(linear, size))
        linear = linear if is_one(size) else floordiv(linear, size)
    return (linear, *reversed(index)) if shape else ()


def linearise(index: Sequence[ExprLike], shape: Sequence[ExprLike]) -> Expr:
    """The row-major position of `index` in a tensor of `shape`."""
    position: Expr = wrap(0)
    for i, size in zip(index, shape, strict=True):
        position = position * size + i
    return position


def grouped_dims(source: Sequence[Expr], target: Sequence[Expr]) -> list[tuple[list[int], list[int]]]:
    """Runs of dimensions of `source` and `target` with equal products, the shortest that can be told to be equal."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(source) or j < len(target):
        left = [i] if i < len(source) else []
        right = [j] if j < len(target) else []
        i, j = i + len(left), j + len(right)
        while product(source[a] for a in left) is not product(target[b] for b in right):
            p, q = product(source[a] for a in left), product(target[b] for b in right)
            grow_left = (p.value < q.value) if p.op == "const" and q.op == "const" else len(left) <= len(right)
            if (grow_left or j >= len(target)) and i < len(source):
                left.append(i)
                i += 1
            elif j < len(target):
                right.append(j)
                j += 1
            else:  # not told to be equal: one group of all that is left
                break
        groups.append((left, right))
    return groups


@op("reshape", INJECTIVE)
class Reshape(Movement):
    """The same elements in the same row-major order under another shape.

    Dimensions that stay are indexed as they are; only dimensions that merge or split go through a linear position.
    """

    def infer(self, x: TensorType, *, shape: Sequence[ExprLike]) -> list[TensorType]:
        dims = dims_of(shape)
        before, after = product(x.shape), product(dims)
        if before.op == "const" and after.op == "const":
            require(before is after, f"reshape of {x} to [{', '.join(map(str, dims))}]: {before} and {after} elements")
        return [TensorType(x.dtype, dims)]

    def constraints(self, x: TensorType, *, shape: Sequence[ExprLike]) -> list[tuple[Expr, Expr]]:
        before, after = product(x.shape), product(dims_of(shape))
        return [] if before is after else [(before, after)]

    def te(self, x: te.Tensor, *, shape: Sequence[ExprLike]) -> te.Tensor:
        source, target = tuple(wrap(d) for d in x.shape), dims_of(shape)
        groups = grouped_dims(source, target)

        def element(*index: Expr) -> Expr:
            picked: dict[int, Expr] = {}
            for left, right in groups:
                full = [a for a in left if not is_one(source[a])]
                wide = [b for b in right if not is_one(target[b])]
                picked.update((a, wrap(0)) for a in left)
                if len(full) == 1 and len(wide) == 1:
                    picked[full[0]] = index[wide[0]]
                elif full:
                    position = linearise([index[b] for b in wide], [target[b] for b in wide])
                    picked.update(zip(full, delinearise(position, [source[a] for a in full]), strict=True))
            return x[tuple(picked[a] for a in range(x.ndim))]

        return te.compute(plain(target), element, name="reshape")

    def numpy(self, x: np.ndarray, *, shape: Sequence[int]) -> np.ndarray:
        return np.reshape(x, tuple(shape))


@op("transpose", INJECTIVE)
class Transpose(Movement):
    """Dimension `i` of the result is dimension `perm[i]` of `x`."""

    def infer(self, x: TensorType, *, perm: Ints) -> list[TensorType]:
        require(sorted(perm) == list(range(x.ndim)), f"transpose of {x}: perm={list(perm)} is not a permutation")
        return [TensorType(x.dtype, tuple(x.shape[p] for p in perm))]

    def te(self, x: te.Tensor, *, perm: Ints) -> te.Tensor:
        where = {axis: position for position, axis in enumerate(perm)}
        return te.compute(
            tuple(x.shape[p] for p in perm), lambda *i: x[tuple(i[where[a]] for a in range(x.ndim))], name="transpose"
        )

    def numpy(self, x: np.ndarray, *, perm: Ints) -> np.ndarray:
        return np.transpose(x, tuple(perm))


@op("expand", INJECTIVE)
class Expand(Movement):
    """x broadcast to `shape` (and to its own shape: sizes of 1 in `shape` keep those of x)."""

    def infer(self, x: TensorType, *, shape: Sequence[ExprLike]) -> list[TensorType]:
        return [TensorType(x.dtype, broadcast_dims([x.shape, dims_of(shape)], "expand"))]

    def te(self, x: te.Tensor, *, shape: Sequence[ExprLike]) -> te.Tensor:
        out = plain(broadcast_dims([tuple(wrap(d) for d in x.shape), dims_of(shape)], "expand"))
        return te.compute(out, lambda *i: at(x, i, out), name="expand")

    def numpy(self, x: np.ndarray, *, shape: Sequence[int]) -> np.ndarray:
        return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape)))


@op("concat", INJECTIVE)
class Concat(Movement):
    """The inputs one after another along `axis`."""

    def infer(self, *xs: TensorType, axis: int) -> list[TensorType]:
        first = xs[0]
        require(0 <= axis < first.ndim, f"concat along axis {axis} of {first}")
        dims = list(first.shape)
        for x in xs[1:]:
            require(x.dtype == first.dtype and x.ndim == first.ndim, f"concat of {first} and {x}")
            for a in range(first.ndim):
                if a != axis:
                    dims[a] = same_dim(dims[a], x.shape[a], f"concat along axis {axis} of {first} and {x}")
        total = wrap(0)
        for x in xs:
            total = total + x.shape[axis]
        dims[axis] = canonical(total)
        return [TensorType(first.dtype, tuple(dims))]

    def constraints(self, *xs: TensorType, axis: int) -> list[tuple[Expr, Expr]]:
        (out,) = self.infer(*xs, axis=axis)
        return [
            (x.shape[a], out.shape[a])
            for x in xs
            for a in range(out.ndim)
            if a != axis and x.shape[a] is not out.shape[a]
        ]

    def te(self, *xs: te.Tensor, axis: int) -> te.Tensor:
        (out,) = self.infer(*(TensorType.of(x.dtype, x.shape) for x in xs), axis=axis)
        starts = [wrap(0)]
        for x in xs:
            starts.append(starts[-1] + x.shape[axis])

        def element(*i: Expr) -> Expr:
            def read(position: int) -> Expr:
                return xs[position][(*i[:axis], i[axis] - starts[position], *i[axis + 1 :])]

            value = read(len(xs) - 1)
            for position in reversed(range(len(xs) - 1)):
                value = te.if_then_else(i[axis] < starts[position + 1], read(position), value)
            return value

        return te.compute(plain(out.shape), element, name="concat")

    def numpy(self, *xs: np.ndarray, axis: int) -> np.ndarray:
        return np.concatenate(xs, axis)


@op("slice", INJECTIVE)
class Slice(Movement):
    """x[starts[d] + i * steps[d]] for 0 <= i < shape[d], in every dimension; steps may be negative."""

    def infer(
        self, x: TensorType, *, starts: Sequence[ExprLike], shape: Sequence[ExprLike], steps: Ints
    ) -> list[TensorType]:
        require(len(starts) == len(shape) == len(steps) == x.ndim, f"slice of {x} needs a start, size and step per dim")
        return [TensorType(x.dtype, dims_of(shape))]

    def te(
        self, x: te.Tensor, *, starts: Sequence[ExprLike], shape: Sequence[ExprLike], steps: Ints
    ) -> te.Tensor:
        return te.compute(
            plain(dims_of(shape)),
            lambda *i: x[tuple(wrap(s) + j * step for s, j, step in zip(starts, i, steps, strict=True))],
            name="slice",
        )

    def numpy(self, x: np.ndarray, *, starts: Ints, shape: Ints, steps: Ints) -> np.ndarray:
        picks = []
        for start, size, step in zip(starts, shape, steps, strict=True):
            stop = start + size * step
            picks.append(slice(start, None if stop < 0 else stop, step) if size else slice(0, 0))
        return x[tuple(picks)]


@op("pad", INJECTIVE)
class Pad(Op):
    """x with `pads` (all begins, then all ends; negative ones crop) around it.

    mode: "constant" (filled with `value`, or with the number that a second input is), "edge", "reflect" (without the
    border) or "wrap".
    """

    def infer(
        self, x: TensorType, fill: TensorType | None = None, *, pads: Sequence[ExprLike], mode: str = "constant",
        value: float = 0,
    ) -> list[TensorType]:
        if fill is not None:
            require(fill == TensorType(x.dtype, ()) and mode == "constant", f"pad of {x} in mode {mode!r}, filled with {fill}")
        require(len(pads) == 2 * x.ndim, f"pad of {x}: {len(pads)} pads, expected {2 * x.ndim}")
        require(mode in ("constant", "edge", "reflect", "wrap"), f"pad: unknown mode {mode!r}")
        dims = (canonical(d + pads[a] + pads[a + x.ndim]) for a, d in enumerate(x.shape))
        return [TensorType(x.dtype, tuple(dims))]

    def te(
        self, x: te.Tensor, fill: te.Tensor | None = None, *, pads: Sequence[ExprLike], mode: str = "constant",
        value: float = 0,
    ) -> te.Tensor:
        return pad_stage(x, pads[: x.ndim], pads[x.ndim :], value if fill is None else fill[()], mode)

    def numpy(
        self, x: np.ndarray, fill: np.ndarray | None = None, *, pads: Ints, mode: str = "constant", value: float = 0
    ) -> np.ndarray:
        if fill is not None:
            value = fill.item()
        widths = list(zip(pads[: x.ndim], pads[x.ndim :], strict=True))
        crop = tuple(slice(max(0, -b), n - max(0, -e)) for (b, e), n in zip(widths, x.shape, strict=True))
        positive = [(max(0, b), max(0, e)) for b, e in widths]
        if mode == "constant":
            return np.pad(x[crop], positive, constant_values=np.asarray(value, x.dtype)[()])
        return np.pad(x[crop], positive, mode=mode)  # type: ignore[call-overload]


def pad_stage(
    x: te.Tensor,
    begins: Sequence[ExprLike],
    ends: Sequence[ExprLike],
    value: float | Expr = 0,
    mode: str = "constant",
    name: str = "pad",
) -> te.Tensor:
    """The stage `name`: x with a border; dimensions without one are indexed as they are."""
    padded = [not (_is_zero(b) and _is_zero(e)) for b, e in zip(begins, ends, strict=True)]
    shape = tuple(canonical(wrap(n) + b + e) for n, b, e in zip(x.shape, begins, ends, strict=True))

    def element(*i: Expr) -> Expr:
        index = [j - b if p else j for j, b, p in zip(i, begins, padded, strict=True)]
        if mode != "constant":
            return x[tuple(_MODES[mode](j, n) if p else j for j, n, p in zip(index, x.shape, padded, strict=True))]
        inside = []
        for j, n, b, e, p in zip(index, x.shape, begins, ends, padded, strict=True):
            inside += [j >= 0] if p and not _is_zero(b) else []
            inside += [j < n] if p and not _is_zero(e) else []
        fill = value if isinstance(value, Expr) else te.const(bool(value) if x.dtype.is_bool else value, x.dtype)
        return te.if_then_else(te.all_of(*inside), x[tuple(index)], fill) if inside else x[tuple(index)]

    return te.compute(plain(shape), element, name=name)


def _is_zero(e: ExprLike) -> bool:
    return (e.op == "const" and e.value == 0) if isinstance(e, Expr) else e == 0


_MODES = {
    "edge": lambda j, n: te.maximum(te.minimum(j, wrap(n) - 1), 0),
    "wrap": lambda j, n: floormod(j, n),
    "reflect": lambda j, n: _reflect(j, n),
}


def _reflect(j: Expr, n: ExprLike) -> Expr:
    """j mirrored at both ends without repeating them: -1 -> 1, n -> n - 2, any number of times (size 1 stays 0)."""
    period = te.maximum(2 * (wrap(n) - 1), 1)
    k = floormod(j, period)
    return te.minimum(k, te.maximum(period - k, 0)) if not is_one(n) else wrap(0)


@op("tile", INJECTIVE)
class Tile(Movement):
    """x repeated `repeats[d]` times along each dimension."""

    def infer(self, x: TensorType, *, repeats: Sequence[ExprLike]) -> list[TensorType]:
        require(len(repeats) == x.ndim, f"tile of {x}: {len(repeats)} repeats")
        return [TensorType(x.dtype, tuple(canonical(d * r) for d, r in zip(x.shape, repeats, strict=True)))]

    def te(self, x: te.Tensor, *, repeats: Sequence[ExprLike]) -> te.Tensor:
        shape = tuple(canonical(wrap(d) * r) for d, r in zip(x.shape, repeats, strict=True))

        def element(*i: Expr) -> Expr:
            return x[tuple(j if _is_one(r) else floormod(j, d) for j, d, r in zip(i, x.shape, repeats, strict=True))]

        return te.compute(plain(shape), element, name="tile")

    def numpy(self, x: np.ndarray, *, repeats: Ints) -> np.ndarray:
        return np.tile(x, tuple(repeats))


_is_one = is_one


@op("depth_to_space", INJECTIVE)
class DepthToSpace(Op):
    """NCHW: blocks of channels become blocks of pixels. mode "DCR": channel = (block row, block column, c); "CRD": (c, ...)."""

    def infer(self, x: TensorType, *, blocksize: int, mode: str = "DCR") -> list[TensorType]:
        n, c, h, w = x.shape
        b = blocksize
        return [TensorType(x.dtype, (n, canonical(floordiv(c, b * b)), canonical(h * b), canonical(w * b)))]

    def te(self, x: te.Tensor, *, blocksize: int, mode: str = "DCR") -> te.Tensor:
        (out,) = self.infer(TensorType.of(x.dtype, x.shape), blocksize=blocksize, mode=mode)
        b, channels = blocksize, out.shape[1]

        def element(n: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
            block = (h % b) * b + w % b
            return x[n, block * channels + c if mode == "DCR" else c * (b * b) + block, h // b, w // b]

        return te.compute(plain(out.shape), element, name="depth_to_space")

    def numpy(self, x: np.ndarray, *, blocksize: int, mode: str = "DCR") -> np.ndarray:
        n, c, h, w = x.shape
        b = blocksize
        if mode == "DCR":
            y = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
        else:
            y = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
        return y.reshape(n, c // (b * b), h * b, w * b)


@op("space_to_depth", INJECTIVE)
class SpaceToDepth(Op):
    """NCHW: blocks of pixels become channels. mode "DCR": channel = (block row, block column, c); "CRD": (c, ...)."""

    def infer(self, x: TensorType, *, blocksize: int, mode: str = "DCR") -> list[TensorType]:
        n, c, h, w = x.shape
        b = blocksize
        dims = (n, canonical(c * b * b), canonical(floordiv(h, b)), canonical(floordiv(w, b)))
        return [TensorType(x.dtype, dims)]

    def te(self, x: te.Tensor, *, blocksize: int, mode: str = "DCR") -> te.Tensor:
        (out,) = self.infer(TensorType.of(x.dtype, x.shape), blocksize=blocksize)
        b, channels = blocksize, x.shape[1]

        def element(n: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
            block, channel = (c // channels, c % channels) if mode == "DCR" else (c % (b * b), c // (b * b))
            return x[n, channel, h * b + block // b, w * b + block % b]

        return te.compute(plain(out.shape), element, name="space_to_depth")

    def numpy(self, x: np.ndarray, *, blocksize: int, mode: str = "DCR") -> np.ndarray:
        n, c, h, w = x.shape
        b = blocksize
        y = x.reshape(n, c, h // b, b, w // b, b).transpose((0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
        return y.reshape(n, c * b * b, h // b, w // b)


@op("trilu", INJECTIVE)
class Trilu(Op):
    """The upper or lower triangle of the last two dimensions, zero elsewhere; `k` moves the diagonal to the right."""

    def infer(self, x: TensorType, *, upper: bool = True, k: int = 0) -> list[TensorType]:
        require(x.ndim >= 2, f"trilu of {x}: it takes matrices")
        return [x]

    def te(self, x: te.Tensor, *, upper: bool = True, k: int = 0) -> te.Tensor:
        zero = te.const(False if x.dtype.is_bool else 0, x.dtype)

        def element(*i: Expr) -> Expr:
            keep = i[-1] >= i[-2] + k if upper else i[-1] <= i[-2] + k
            return te.select(keep, x[i], zero)

        return te.compute(x.shape, element, name="trilu")

    def numpy(self, x: np.ndarray, *, upper: bool = True, k: int = 0) -> np.ndarray:
        return np.triu(x, k) if upper else np.tril(x, k)


# -- tensors made of nothing but shapes ------------------------------------------------------------------------------


@op("shape", INJECTIVE)
class Shape(Op):
    """The dimensions of x from `start` to `end`, as i64[n]."""

    def infer(self, x: TensorType, *, start: int = 0, end: int | None = None) -> list[TensorType]:
        return [TensorType.of("i64", (len(x.shape[start:end]),))]

    def te(self, x: te.Tensor, *, start: int = 0, end: int | None = None) -> te.Tensor:
        dims = x.shape[start:end]

        def element(i: Expr) -> Expr:
            picks = reversed(list(enumerate(dims)))
            return functools.reduce(lambda rest, d: te.select(te.equal(i, d[0]), wrap(d[1]), rest), picks, wrap(0))

        return te.compute((len(dims),), element, name="shape")

    def numpy(self, x: np.ndarray, *, start: int = 0, end: int | None = None) -> np.ndarray:
        return np.array(x.shape[start:end], np.int64)

    def data(self, x: Value, *, start: int = 0, end: int | None = None) -> list[np.ndarray | None] | None:
        dims = x.shape[start:end]
        return [object_array(dims, (len(dims),))]


@op("size", INJECTIVE)
class Size(Op):
    """The number of elements of x, as i64[]."""

    def infer(self, x: TensorType) -> list[TensorType]:
        return [TensorType.of("i64", ())]

    def te(self, x: te.Tensor) -> te.Tensor:
        count = product(x.shape)
        return te.compute((), lambda: count, name="size")

    def numpy(self, x: np.ndarray) -> np.ndarray:
        return np.array(x.size, np.int64)

    def data(self, x: Value) -> list[np.ndarray | None] | None:
        return [object_array([product(x.shape)], ())]


@op("full", INJECTIVE)
class Full(Op):
    """`shape` filled with `value`."""

    def infer(self, *, shape: Sequence[ExprLike], value: float, dtype: DType | str) -> list[TensorType]:
        return [TensorType(as_dtype(dtype), dims_of(shape))]

    def te(self, *, shape: Sequence[ExprLike], value: float, dtype: DType | str) -> te.Tensor:
        element = te.const(value, as_dtype(dtype))
        return te.compute(plain(dims_of(shape)), lambda *i: element, name="full")

    def numpy(self, *, shape: Ints, value: float, dtype: DType | str) -> np.ndarray:
        return np.full(tuple(shape), value, as_dtype(dtype).numpy)

    def data(
        self, *, shape: Sequence[ExprLike], value: float, dtype: DType | str
    ) -> list[np.ndarray | None] | None:
        dims = as_ints(dims_of(shape))
        if dims is None or as_dtype(dtype).is_float or (count := int(np.prod(dims, dtype=np.int64))) > DATA_LIMIT:
            return None
        return [object_array([value] * count, dims)]


@op("range", INJECTIVE)
class Range(Op):
    """start, start + step, ...: `size` numbers. The attributes are integers or expressions of dimensions, or plain floats."""

    def infer(
        self, *, start: ExprLike, step: ExprLike, size: ExprLike, dtype: DType | str
    ) -> list[TensorType]:
        return [TensorType(as_dtype(dtype), dims_of([size]))]

    def te(self, *, start: ExprLike, step: ExprLike, size: ExprLike, dtype: DType | str) -> te.Tensor:
        to = as_dtype(dtype)

        def element(i: Expr) -> Expr:
            if to.is_float:
                return te.const(start, to) + te.cast(to, i) * te.const(step, to)  # type: ignore[arg-type]
            return te.cast(to, wrap(start) + i * step)

        return te.compute(plain(dims_of([size])), element, name="range")

    def numpy(self, *, start: Any, step: Any, size: int, dtype: DType | str) -> np.ndarray:
        kind = as_dtype(dtype).numpy
        return np.asarray(start + np.arange(size) * step).astype(kind)

    def data(
        self, *, start: ExprLike, step: ExprLike, size: ExprLike, dtype: DType | str
    ) -> list[np.ndarray | None] | None:
        count = as_ints(dims_of([size]))
        if count is None or as_dtype(dtype).is_float or count[0] > DATA_LIMIT:
            return None
        return [object_array([wrap(start) + i * wrap(step) for i in range(count[0])], count)]


@op("eye_like", INJECTIVE)
class EyeLike(Op):
    """Ones on the k-th diagonal of a matrix of the shape of x."""

    def infer(self, x: TensorType, *, k: int = 0, dtype: DType | str) -> list[TensorType]:
        return [TensorType(as_dtype(dtype), x.shape)]

    def te(self, x: te.Tensor, *, k: int = 0, dtype: DType | str) -> te.Tensor:
        to = as_dtype(dtype)
        one, zero = (te.const(bool(v) if to.is_bool else v, to) for v in (1, 0))
        return te.compute(x.shape, lambda i, j: te.select(te.equal(j, i + k), one, zero), name="eye_like")

    def numpy(self, x: np.ndarray, *, k: int = 0, dtype: DType | str) -> np.ndarray:
        rows, columns = x.shape
        return np.eye(rows, columns, k=k, dtype=as_dtype(dtype).numpy)
