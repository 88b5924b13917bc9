"""Random te programs: a few stages over a few tensors, constant or symbolic sizes, every index in bounds by construction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tensorlang import te
from tensorlang.ir.expr import Expr, load, var
from tensorlang.ir.stmt import PrimFunc
from tensorlang.te.tensor import Tensor
from tests.fuzz import values
from tests.fuzz.values import Draw, Value

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 16, 17)
DTYPES = ("f32", "f32", "f32", "i32", "i64", "f64", "bool", "f16", "bf16", "i8")
POINTS = 1200  # of one stage, so that the interpreter answers at once


@dataclass(frozen=True)
class Dim:
    """A size: its number in this run, and how the program writes it (an int, or a symbol)."""

    size: int
    text: int | Expr

    @property
    def fixed(self) -> bool:
        return isinstance(self.text, int)


@dataclass(frozen=True)
class Source:
    """A tensor that stages may read, with what its elements are."""

    tensor: Tensor
    dims: tuple[Dim, ...]
    element: Value


@dataclass(frozen=True)
class Program:
    """A random program and its inputs.

    Attributes:
        func: the naive loop nest.
        arrays: seeded inputs.
        shapes: of the outputs.
        errors: per output, how far two correct programs may be apart.
        symbols: the values of the size variables.
    """

    func: PrimFunc
    arrays: tuple[np.ndarray, ...]
    shapes: tuple[tuple[int, ...], ...]
    errors: tuple[float, ...]
    symbols: dict[Expr, int]

    def __repr__(self) -> str:
        shapes = ", ".join(str(a.shape) for a in self.arrays)
        return f"inputs of shapes {shapes}:\n{self.func}"

    def outputs(self) -> list[np.ndarray]:
        return [np.zeros(s, b.dtype.numpy) for s, b in zip(self.shapes, self.func.outputs, strict=True)]


@st.composite
def programs(draw: Draw, symbolic: bool = True) -> Program:
    """One to four stages, one or two outputs; without `symbolic`, all sizes are constants."""
    symbols = [Dim(draw(st.sampled_from((*SIZES, 0))), var(name)) for name in "MN"]
    use_symbols = symbolic and draw(st.integers(0, 3)) == 0

    def size() -> Dim:
        if use_symbols and draw(st.integers(0, 3)):
            return draw(st.sampled_from(symbols))
        n = draw(st.sampled_from(SIZES))
        return Dim(n, n)

    seed = draw(st.integers(0, 7))
    special = draw(st.integers(0, 4)) == 0
    rng = np.random.default_rng(seed)
    sources: list[Source] = []
    arrays: list[np.ndarray] = []
    for n in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(DTYPES))
        known = [d for s in sources for d in s.dims]
        dims = tuple(
            draw(st.sampled_from(known)) if known and draw(st.booleans()) else size() for _ in range(draw(st.integers(1, 3)))
        )
        while prod(d.size for d in dims) > POINTS:
            dims = dims[1:]
        tensor = te.placeholder(tuple(d.text for d in dims), kind, name="xwz"[n])
        arrays.append(_numbers(rng, tensor, tuple(d.size for d in dims), special))
        sources.append(Source(tensor, dims, _input_element(tensor)))
    inputs = [s.tensor for s in sources]
    bound = {id(d) for s in sources for d in s.dims}
    symbols = [d for d in symbols if id(d) in bound]  # a call finds sizes in the inputs' shapes
    use_symbols = bool(symbols)
    stages: list[Source] = []
    for n in range(draw(st.sampled_from((2, 1, 3, 4)))):
        kind = KINDS[draw(st.sampled_from(tuple(KINDS)))]
        stages += kind(draw, "abcd"[n], [*sources, *stages], size, special)
    used = set(te.stages_of([stages[-1].tensor]))
    outputs = [s for s in stages if s is stages[-1] or s.tensor not in used]
    constants = tuple(t.name for t in inputs if draw(st.integers(0, 3)) == 0)
    func = te.create_prim_func("f", inputs, [s.tensor for s in outputs], constants)
    return Program(
        func,
        tuple(arrays),
        tuple(tuple(d.size for d in s.dims) for s in outputs),
        tuple(s.element.error for s in outputs),
        {d.text: d.size for d in symbols if isinstance(d.text, Expr)},
    )


def _numbers(rng: np.random.Generator, tensor: Tensor, shape: tuple[int, ...], special: bool) -> np.ndarray:
    dtype = tensor.dtype.numpy
    if tensor.dtype.is_bool:
        return rng.integers(0, 2, shape).astype(dtype)
    if tensor.dtype.is_int:
        return rng.integers(-9, 10, shape).astype(dtype)
    exact = (rng.integers(-8, 9, shape) / 4).astype(dtype)  # in any arithmetic on them
    strange = rng.choice(np.array([np.nan, np.inf, -np.inf, -0.0], dtype), shape)
    return np.where(rng.random(shape) < 0.1, strange, exact) if special else exact


def _input_element(tensor: Tensor) -> Value:
    e = load(tensor.buffer, [te.const(0)] * tensor.ndim)
    if tensor.dtype.is_bool:
        return Value(e, 1)
    return Value(e, 9.0, 1.0) if tensor.dtype.is_int else Value(e, 2.0, 0.25)


def _point(draw: Draw, name: str, sources: list[Source], size: Callable[[], Dim], special: bool) -> list[Source]:
    """A stage of any expression, reduced or not."""
    dims = tuple(_like(draw, sources, size) for _ in range(draw(st.integers(0 if len(sources) > 1 else 1, 3))))
    reduced: tuple[Dim, ...] = ()
    if draw(st.booleans()):
        reduced = tuple(_like(draw, sources, size) for _ in range(draw(st.integers(1, 2))))
    while prod(d.size for d in (*dims, *reduced)) > POINTS:
        dims, reduced = (dims[1:], reduced) if dims else (dims, reduced[1:])
    axes = [te.reduce_axis(d.text, name=f"r{n}") for n, d in enumerate(reduced)]
    element: list[Value] = []
    wanted = draw(st.sampled_from(DTYPES))

    def body(*index: Expr) -> Expr:
        space = [*zip(index, dims, strict=True), *zip(axes, reduced, strict=True)]
        scalar = _Scalars(draw, sources, space, special)
        result = scalar.cast(scalar.read(sources[-1], wanted), wanted)
        if draw(st.integers(0, 3)):
            join = values.logical if wanted == "bool" else values.binary
            result = join(draw, result, scalar.typed(wanted, 2))
        result = values.clamp(result)
        if axes:
            if result.dtype.is_bool:
                result = scalar.cast(result, "i32")
            result = values.reduce(draw, result, axes, prod(d.size for d in reduced))
        element.append(result)
        return result.expr

    tensor = te.compute(tuple(d.text for d in dims), body, name=name)
    return [_source(tensor, dims, element[0])]


def _source(tensor: Tensor, dims: tuple[Dim, ...], v: Value) -> Source:
    return Source(tensor, dims, Value(load(tensor.buffer, [te.const(0)] * tensor.ndim), v.bound, v.step, v.error))


def _window(draw: Draw, name: str, sources: list[Source], size: Callable[[], Dim], special: bool) -> list[Source]:
    """A reduction over windows, with strides and dilations, of one tensor: pooling, or times a weight: convolution."""
    wide = [s for s in sources if any(d.fixed and d.size >= 2 for d in s.dims) and not s.element.dtype.is_bool]
    if not wide:
        return _point(draw, name, sources, size, special)
    source = wide[-1] if draw(st.booleans()) else draw(st.sampled_from(wide))
    dims: list[Dim] = []
    axes: list[Expr] = []
    reduced: list[Dim] = []
    terms: list[tuple[int, Expr | None, int]] = []  # per dimension: stride, axis, dilation
    for d in source.dims:
        if not (d.fixed and d.size >= 2) or (axes and draw(st.booleans())):
            dims.append(d)
            terms.append((1, None, 0))
            continue
        dilation = draw(st.sampled_from((1, 1, 2)))
        most = min(4, (d.size - 1) // dilation + 1)
        kernel = draw(st.sampled_from((*range(2, most + 1), 1)))
        stride = draw(st.sampled_from((1, 1, 2, 3)))
        count = (d.size - (kernel - 1) * dilation - 1) // stride + 1
        dims.append(Dim(count, count))
        reduced.append(Dim(kernel, kernel))
        axes.append(te.reduce_axis(kernel, name=f"k{len(axes)}"))
        terms.append((stride, axes[-1], dilation))
    element: list[Value] = []

    def body(*index: Expr) -> Expr:
        at = tuple(v * c if k is None else v * c + k * t for v, (c, k, t) in zip(index, terms, strict=True))
        here = source.element
        result = values.clamp(Value(source.tensor[at], here.bound, here.step, here.error))
        scalar = _Scalars(draw, sources, [*zip(index, dims, strict=True), *zip(axes, reduced, strict=True)], special)
        if draw(st.booleans()):
            result = values.clamp(values.multiply(result, scalar.typed(result.dtype.name, 1)))
        result = values.reduce(draw, result, axes, prod(d.size for d in reduced))
        element.append(result)
        return result.expr

    tensor = te.compute(tuple(d.text for d in dims), body, name=name)
    return [_source(tensor, tuple(dims), element[0])]


_SUM_AND_MAX = te.comm_reducer(
    lambda x, y: (x[0] + y[0], te.maximum(x[1], y[1])), lambda a, b: (te.const(0, a), te.min_value(b)), name="sum_and_max"
)


def _tuple(draw: Draw, name: str, sources: list[Source], size: Callable[[], Dim], special: bool) -> list[Source]:
    """A reduction of pairs, to two tensors: the greatest (or least) value and its position, or sum and maximum."""
    known = [s for s in sources if s.dims and not s.element.dtype.is_bool]
    if not known:
        return _point(draw, name, sources, size, special)
    source = draw(st.sampled_from(known))
    cut = draw(st.integers(0, len(source.dims) - 1))
    dims, reduced = source.dims[:cut], source.dims[cut:]
    axes = [te.reduce_axis(d.text, name=f"r{n}") for n, d in enumerate(reduced)]
    points = prod(d.size for d in reduced)
    here = values.clamp(source.element)
    both = draw(st.sampled_from(("argmax", "argmin", "sum_and_max"))) if here.is_exact else "sum_and_max"
    small = here.dtype.name != "f16" or here.bound * points < values.LARGEST["f16"]
    if both == "sum_and_max" and not small:
        return _point(draw, name, sources, size, special)
    element: list[Value] = []

    def body(*index: Expr) -> Any:
        v = values.clamp(
            Value(source.tensor[(*index, *axes)], source.element.bound, source.element.step, source.element.error)
        )
        if both == "sum_and_max":
            parts = _SUM_AND_MAX((v.expr, v.expr), axis=axes)
            total = Value(parts[0], v.bound * points, v.step, v.error * points).rounded(points)
            element[:] = [total, Value(parts[1], v.bound, v.step, v.error)]
        else:
            parts = getattr(te, both)(v.expr, axis=axes)
            element[:] = [Value(parts[0], max(points, 1), 1.0), Value(parts[1], v.bound, v.step, v.error)]
        return parts

    tensors = te.compute(tuple(d.text for d in dims), body, name=name)
    if any(d.size == 0 for d in reduced):  # the position of nothing is the greatest integer there is
        element[0] = Value(element[0].expr, 2.0**63, 1.0)
    return [_source(t, dims, v) for t, v in zip(tensors, element, strict=True)]


def _scan(draw: Draw, name: str, sources: list[Source], size: Callable[[], Dim], special: bool) -> list[Source]:
    """A recurrence: row t is row t - 1 (or a neighbour's) joined with row t of another tensor."""
    known = [s for s in sources if len(s.dims) >= 1 and s.dims[0].fixed and not s.element.dtype.is_bool]
    if not known:
        return _point(draw, name, sources, size, special)
    source = draw(st.sampled_from(known))
    rows, dims, dtype = source.dims[0].size, source.dims[1:], source.element.dtype
    shape = tuple(d.text for d in source.dims)
    here = source.element
    join = draw(st.sampled_from((te.maximum, te.minimum, lambda a, b: a + b)))
    v = values.clamp(here)
    sums = join not in (te.maximum, te.minimum)
    if sums and dtype.name == "f16" and v.bound * (rows + 1) >= values.LARGEST["f16"]:
        join, sums = te.maximum, False
    state = te.placeholder(shape, dtype, name=f"{name}_s")
    first = te.compute((1, *shape[1:]), lambda t, *i: te.const(0, dtype), name=f"{name}_first")

    sideways = bool(dims) and draw(st.booleans())

    def row(t: Expr, *i: Expr) -> Expr:
        before = (te.minimum(i[0] + 1, te.const(0) + dims[0].text - 1), *i[1:]) if sideways else i
        return join(state[(t - 1, *before)], values.clamp(replace(here, expr=source.tensor[(t, *i)])).expr)

    update = te.compute(shape, row, name=f"{name}_u")
    tensor = te.scan(first, update, state, name=name)
    total = Value(v.expr, v.bound * (rows if sums else 1), v.step, v.error * rows)
    return [_source(tensor, (source.dims[0], *dims), total.rounded(rows) if sums else total)]


def _contraction(draw: Draw, name: str, sources: list[Source], size: Callable[[], Dim], special: bool) -> list[Source]:
    """A sum of products over dimensions that two tensors share; the others are the result's."""
    numbers = [s for s in sources if s.dims and not s.element.dtype.is_bool]
    pairs = [
        (a, b, n, m)
        for a in numbers
        for b in numbers
        for n, d in enumerate(a.dims)
        for m, e in enumerate(b.dims)
        if a.element.dtype.name == b.element.dtype.name and (d.text is e.text or (d.fixed and d.text == e.text))
    ]
    if not pairs:
        return _point(draw, name, sources, size, special)
    a, b, n, m = draw(st.sampled_from(pairs))
    dims = (*(d for k, d in enumerate(a.dims) if k != n), *(d for k, d in enumerate(b.dims) if k != m))
    if prod(d.size for d in (*dims, a.dims[n])) > POINTS:
        return _point(draw, name, sources, size, special)
    axis = te.reduce_axis(a.dims[n].text, name="k")
    element: list[Value] = []

    def body(*index: Expr) -> Expr:
        cut = len(a.dims) - 1
        left, right = list(index[:cut]), list(index[cut:])
        left.insert(n, axis)
        right.insert(m, axis)
        one, other = (replace(s.element, expr=s.tensor[tuple(at)]) for s, at in ((a, left), (b, right)))
        product = values.multiply(one, other)
        points = a.dims[n].size
        if product.dtype.is_int or product.bound * points < values.LARGEST.get(product.dtype.name, np.inf):
            v = Value(te.sum(product.expr, axis=axis), product.bound * points, product.step, product.error * points)
            element.append(v.rounded(points))
        else:
            element.append(replace(product, expr=te.max(product.expr, axis=axis)))
        return element[0].expr

    tensor = te.compute(tuple(d.text for d in dims), body, name=name)
    return [_source(tensor, dims, element[0])]


def _padding(draw: Draw, name: str, sources: list[Source], size: Callable[[], Dim], special: bool) -> list[Source]:
    """A tensor with a border of one constant around it."""
    known = [s for s in sources if s.dims and not s.element.dtype.is_bool]
    if not known:
        return _point(draw, name, sources, size, special)
    source = draw(st.sampled_from(known))
    border = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in source.dims]
    dims = tuple(_wider(d, low + high) for d, (low, high) in zip(source.dims, border, strict=True))
    if prod(d.size for d in dims) > POINTS:
        return _point(draw, name, sources, size, special)
    filler = te.const(draw(st.sampled_from((0, 0, 1))), source.element.dtype)

    def body(*index: Expr) -> Expr:
        inside = te.const(True)
        for v, d, (low, high) in zip(index, source.dims, border, strict=True):
            inside = inside & (v >= low) if low else inside
            inside = inside & (v < d.text + low) if high else inside
        element = source.tensor[tuple(v - low for v, (low, _) in zip(index, border, strict=True))]
        return te.if_then_else(inside, element, filler) if inside.op != "const" else element

    tensor = te.compute(tuple(d.text for d in dims), body, name=name)
    here = source.element
    return [_source(tensor, dims, replace(here, bound=max(here.bound, 1.0)))]


def _wider(d: Dim, n: int) -> Dim:
    return Dim(d.size + n, d.text + n) if n else d


def _map(draw: Draw, name: str, sources: list[Source], size: Callable[[], Dim], special: bool) -> list[Source]:
    """A function of each element of a tensor, possibly transposed: what can be inlined, in both directions."""
    source = sources[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(sources))
    order = draw(st.permutations(range(len(source.dims))))
    dims = tuple(source.dims[n] for n in order)
    element: list[Value] = []

    def body(*index: Expr) -> Expr:
        at = [te.const(0)] * len(order)
        for v, n in zip(index, order, strict=True):
            at[n] = v
        v = replace(source.element, expr=source.tensor[tuple(at)])
        scalar = _Scalars(draw, sources[:-1] or sources, list(zip(index, dims, strict=True)), special)
        if v.dtype.is_bool:
            v = values.logical(draw, v, scalar.typed("bool", 0))
        else:
            v = values.unary(draw, v) if draw(st.booleans()) else values.binary(draw, v, scalar.typed(v.dtype.name, 0))
        element.append(v)
        return v.expr

    tensor = te.compute(tuple(d.text for d in dims), body, name=name)
    return [_source(tensor, dims, element[0])]


KINDS: dict[str, Callable[..., list[Source]]] = {
    "point": _point, "window": _window, "tuple": _tuple, "contraction": _contraction, "padding": _padding, "scan": _scan,
    "map": _map, "again": _point, "and again": _point, "more windows": _window, "more products": _contraction,
    "more maps": _map, "still more products": _contraction,
}  # fmt: skip


def _like(draw: Draw, sources: list[Source], size: Callable[[], Dim]) -> Dim:
    """A size that fits those there are: equal, a window less, a stride less, or any."""
    all_dims = [d for s in sources for d in s.dims]
    if not all_dims:
        return size()
    d = draw(st.sampled_from(all_dims))
    if not d.fixed:
        return d
    how = draw(st.integers(0, 5))
    n = {0: d.size - 1, 1: d.size - 2, 2: (d.size + 1) // 2, 3: d.size + 2}.get(how, d.size)
    return size() if how == 4 else Dim(max(n, 1), max(n, 1))


class _Scalars:
    """Expressions of one stage's point."""

    def __init__(self, draw: Draw, sources: list[Source], space: list[tuple[Expr, Dim]], special: bool):
        self.draw, self.sources, self.space = draw, sources, space
        self.special = special  # there are NaN and infinities, which no integer can hold

    def cast(self, v: Value, want: str) -> Value:
        """`v` as type `want`, or else a constant."""
        if self.special and v.dtype.is_float and want not in values.EPS:
            return values.constant(self.draw, want)
        return values.cast(v, want) or values.constant(self.draw, want)

    def typed(self, want: str, depth: int) -> Value:
        """An expression of type `want`."""
        return self.cast(self.any(want, depth), want)

    def any(self, want: str, depth: int) -> Value:
        """An expression, if possible of type `want`."""
        draw = self.draw
        how = draw(st.integers(0, 9)) if depth else 9
        if how >= 5:
            return self.leaf(want, how)
        if how == 4:
            return values.choose(self.condition(depth - 1), self.typed(want, depth - 1), self.typed(want, depth - 1))
        if want == "bool":
            if how == 0:
                return self.condition(depth - 1)
            return values.logical(draw, self.typed(want, depth - 1), self.typed(want, depth - 1))
        if how <= 1:
            return values.unary(draw, self.typed(want, depth - 1))
        return values.binary(draw, self.typed(want, depth - 1), self.typed(want, depth - 1))

    def condition(self, depth: int) -> Value:
        draw = self.draw
        if self.space and draw(st.booleans()):
            v, d = draw(st.sampled_from(self.space))
            return Value(v < draw(st.integers(0, d.size)), 1)
        kind = draw(st.sampled_from(("i32", "f32", "i64")))
        a, b = self.typed(kind, depth), self.typed(kind, depth)
        if a.is_exact and b.is_exact:
            return values.compare(draw, a, b)
        return values.constant(draw, "bool")

    def leaf(self, want: str, how: int) -> Value:
        draw = self.draw
        if how == 5:
            return values.constant(draw, want)
        if how == 6 and self.space:
            v, d = draw(st.sampled_from(self.space))
            return Value(v, d.size, 1.0)
        latest = self.sources[-1:] if draw(st.booleans()) else self.sources
        return self.read(draw(st.sampled_from(latest)), want)

    def read(self, source: Source, want: str) -> Value:
        """An element of `source`; one beside the edge is replaced by a constant."""
        draw = self.draw
        index, inside = [], te.const(True)
        for d in source.dims:
            e, condition = self.index(d)
            index.append(e)
            if condition is not None:
                inside = inside & condition
        element = Value(source.tensor[tuple(index)], source.element.bound, source.element.step, source.element.error)
        if inside.op == "const":
            return element
        other = values.constant(draw, element.dtype.name)
        return values.choose(Value(inside, 1), element, other)

    def index(self, d: Dim) -> tuple[Expr, Expr | None]:
        """An index of a dimension of size `d`, and a condition under which it is in bounds (None: always)."""
        draw, n = self.draw, d.text
        same = [v for v, e in self.space if e.text is n or (e.fixed and d.fixed and e.size <= d.size)]
        if same and draw(st.integers(0, 3)):
            v = draw(st.sampled_from(same))
            return v, None
        some = None if d.fixed else n > 0  # of nothing, there is no element to read: a program is defined at every size
        choices: list[tuple[Expr, Expr | None]] = [(te.const(0), some)]
        if self.space:
            v, e = draw(st.sampled_from(self.space))
            w, f = draw(st.sampled_from(self.space))
            c = draw(st.integers(1, 3))
            shifted = v + (c - 2)
            choices += [
                (v % n, some),
                (te.minimum(v, n - 1), some),
                (shifted, te.all_of(shifted >= 0, shifted < n)),
                (v * c - w, te.all_of(v * c - w >= 0, v * c - w < n)),
            ]
            if v in same:
                choices.append((n - 1 - v, None))
            if d.fixed and e.fixed and f.fixed:
                affine = [(v + w, e.size + f.size - 2)] if v is not w else []
                affine += [(v * c, (e.size - 1) * c), (v // c, (e.size - 1) // c), (v + c, e.size - 1 + c)]
                if v is not w:
                    affine += [(v * c + w, (e.size - 1) * c + f.size - 1), (v * f.size + w, e.size * f.size - 1)]
                choices += [(i, None) for i, high in affine if high < d.size]
            gathers = [s for s in self.sources if s.element.dtype.is_int and s.element.is_exact]
            if gathers:
                position = self.gathered(draw(st.sampled_from(gathers)))
                choices += [(position % n, some), (te.maximum(te.minimum(position, te.const(0) + n - 1), 0), some)]
        return draw(st.sampled_from(choices))

    def gathered(self, source: Source) -> Expr:
        """An element of an integer tensor, at a simple position."""
        index = []
        for d in source.dims:
            v, _ = self.draw(st.sampled_from(self.space))
            index.append(v % d.text)
        return te.cast(source.tensor[tuple(index)], "i64")
