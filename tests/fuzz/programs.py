"""Random te programs: a few stages over a few tensors, constant or symbolic sizes, every index in bounds by construction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
from hypothesis import strategies as st

from tensorlang import te
from tensorlang.ir.expr import Expr, load, var
from tensorlang.ir.stmt import PrimFunc
from tensorlang.te.tensor import Tensor
from tests.fuzz import values
from tests.fuzz.values import Draw, Value

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 16, 17)
DTYPES = ("f32", "f32", "f32", "i32", "i64", "f64", "bool")
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
        if use_symbols and draw(st.booleans()):
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
        dims = tuple(size() for _ in range(draw(st.integers(1, 3))))
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
        made = _stage(draw, "abcd"[n], [*sources, *stages], size, special)
        stages.append(made)
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


def _stage(draw: Draw, name: str, sources: list[Source], size: Callable[[], Dim], special: bool) -> Source:
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
    e = load(tensor.buffer, [te.const(0)] * tensor.ndim)
    v = element[0]
    return Source(tensor, dims, Value(e, v.bound, v.step, v.error))


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
        choices: list[tuple[Expr, Expr | None]] = [(te.const(0), None)]
        if self.space:
            v, e = draw(st.sampled_from(self.space))
            w, f = draw(st.sampled_from(self.space))
            c = draw(st.integers(1, 3))
            shifted = v + (c - 2)
            choices += [
                (v % n, None),
                (te.minimum(v, n - 1), None),
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
                choices += [(position % n, None), (te.maximum(te.minimum(position, te.const(0) + n - 1), 0), None)]
        return draw(st.sampled_from(choices))

    def gathered(self, source: Source) -> Expr:
        """An element of an integer tensor, at a simple position."""
        index = []
        for d in source.dims:
            v, _ = self.draw(st.sampled_from(self.space))
            index.append(v % d.text)
        return te.cast(source.tensor[tuple(index)], "i64")
