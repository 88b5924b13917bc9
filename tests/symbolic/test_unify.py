"""Unification: a tile that was made from a meaning by renaming, permuting and laying out anew is found again, exactly."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st

from tensorlang import te
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, add, cast, const, load, mul, var
from tensorlang.ir.stmt import For, Store
from tensorlang.ir.tensor_intrin import TensorIntrin
from tensorlang.symbolic.simplify import simplify
from tensorlang.symbolic.unify import Match, Mismatch, contiguous_strides, unify
from tests.symbolic.strategies import evaluate

M, N, K = 4, 2, 3


@te.compute
def product(a: te.i8[M, K], b: te.i8[K, N]):
    k = te.reduce_axis(K, name="k")
    return te.compute((M, N), lambda i, j: te.sum(te.cast("i32", a[i, k]) * te.cast("i32", b[k, j]), axis=k), name="c")


INTRIN = TensorIntrin("product", product.prim_func(), {"update": None})


@st.composite
def layouts(draw, name: str, dtype: str, axes: tuple[Expr, Expr], sizes: tuple[int, int], outer: Expr):
    """A buffer and the indices of the element (axes) in it: transposed, inside a larger one, fused, or with more dimensions."""
    order = draw(st.permutations([0, 1]))
    index = [axes[o] for o in order]
    shape = [sizes[o] for o in order]
    if draw(st.booleans()):  # both in one dimension
        index, shape = [index[0] * shape[1] + index[1]], [shape[0] * shape[1]]
    for d in range(len(index)):  # a part of a longer dimension
        start = draw(st.integers(0, 3))
        index[d], shape[d] = index[d] + start + outer * shape[d], shape[d] * 5 + start
    if draw(st.booleans()):
        at = draw(st.integers(0, len(index)))
        index.insert(at, outer)
        shape.insert(at, 5)
    return Buffer(name, tuple(map(const, shape)), dtype), tuple(index)


@settings(max_examples=60)
@given(st.data())
def test_a_tile_is_found_with_its_offsets_and_strides(data):
    i, j, k, outer = (var(n) for n in ("p", "q", "r", "outer"))
    (y, at_y), (x, at_x), (w, at_w) = (
        data.draw(layouts(name, dtype, axes, sizes, outer))
        for name, dtype, axes, sizes in (
            ("y", "i32", (i, j), (M, N)),
            ("x", "i8", (i, k), (M, K)),
            ("w", "i8", (k, j), (K, N)),
        )
    )
    factors = [cast("i32", load(x, at_x)), cast("i32", load(w, at_w))]
    source = mul(*data.draw(st.permutations(factors)))
    value = add(*data.draw(st.permutations([load(y, at_y), source])))
    body = Store(y, at_y, value)
    loops = [For(v, const(n), "serial", body) for v, n in data.draw(st.permutations([(i, M), (j, N), (k, K)]))]
    ranges = {i: M, j: N, k: K, outer: 5}
    found = unify(INTRIN.pattern("update"), loops, body, ranges)
    assert isinstance(found, Match), str(found)
    operands = {b.name: o for b, o in found.operands.items()}
    point = {
        i: data.draw(st.integers(0, M - 1)),
        j: data.draw(st.integers(0, N - 1)),
        k: data.draw(st.integers(0, K - 1)),
    }
    env = {**point, outer: data.draw(st.integers(0, 4))}
    for name, buffer, index, axes in (("c", y, at_y, (i, j)), ("a", x, at_x, (i, k)), ("b", w, at_w, (k, j))):
        shape = tuple(d.value for d in buffer.shape)
        wanted = np.ravel_multi_index(tuple(evaluate(e, env) for e in index), shape, mode="wrap")
        o = operands[name]
        steps = [evaluate(s, env) for s in o.strides]
        assert evaluate(o.flat, env) + sum(s * point[v] for s, v in zip(steps, axes, strict=True)) == wanted
        base = np.ravel_multi_index(tuple(evaluate(e, env) for e in o.base), shape, mode="wrap")
        assert base == evaluate(o.flat, env)


def test_another_tile_is_not_found():
    i, j, k = (var(n) for n in "ijk")
    x, w, y = (
        Buffer("x", (const(M), const(K)), "i8"),
        Buffer("w", (const(K), const(N)), "i8"),
        Buffer("y", (const(M), const(N)), "i32"),
    )
    value = load(y, (i, j)) + cast("i32", load(x, (i, k))) * cast("i32", load(w, (k, const(0))))  # not along j
    body = Store(y, (i, j), value)
    loops = [For(v, const(n), "serial", body) for v, n in ((i, M), (j, N), (k, K))]
    found = unify(INTRIN.pattern("update"), loops, body, {i: M, j: N, k: K})
    assert isinstance(found, Match)  # a stride of 0 along j is a layout too
    assert [o.strides for b, o in found.operands.items() if b.name == "b"] == [(const(N), const(0))]
    body = Store(y, (i, j), value + 1)
    assert isinstance(unify(INTRIN.pattern("update"), loops, body, {i: M, j: N, k: K}), Mismatch)


def test_contiguous_strides():
    assert contiguous_strides([const(2), const(3), const(4)], [const(12), const(4), const(1)]) == [
        const(12),
        const(4),
        const(1),
    ]
    assert contiguous_strides([const(2), const(3)], [const(7), const(2)]) == [const(6), const(1)]
    n = var("n")
    assert simplify(contiguous_strides([const(2), n], [n, const(1)])[0] - n) is const(0)


@te.compute
def windows(a: te.f32["R", "S", "K", 4], b: te.f32["S", "K", 4]):  # noqa: F821, UP037
    s, k, q = te.reduce_axis(a.shape[1], name="s"), te.reduce_axis(a.shape[2], name="k"), te.reduce_axis(4, name="q")
    return te.compute((a.shape[0],), lambda i: te.sum(a[i, s, k, q] * b[s, k, q], axis=[s, k, q]), name="c")


def test_a_named_extent_may_be_one_point_without_a_loop():
    """Where two could be left out, the one with which the rest lies as it should is found."""
    pattern = TensorIntrin("windows", windows.prim_func(), {"update": None}).pattern("update")
    names = {v.name: v for v, _, _ in pattern.axes}
    assert list(names) == ["i", "s", "k", "q"]
    x, w, y = (Buffer(n, s, "f32") for n, s in (("x", (5, 8)), ("w", (8,)), ("y", (5,))))
    i, k, q = (var(n) for n in "ikq")
    store = Store(y, (i,), load(y, (i,)) + load(x, (i, k * 4 + q)) * load(w, (k * 4 + q,)))
    loops = [For(v, const(n), "serial", store) for v, n in ((i, 5), (k, 2), (q, 4))]
    ranges = {f.var: f.extent for f in loops}
    found = unify(pattern, loops, store, ranges)
    assert isinstance(found, Match) and sorted(str(e) for e in found.sizes.values()) == ["1", "2", "5"]
    by_name = {v.name: str(e) for v, e in found.sizes.items()}
    assert by_name["S"] == "1" and by_name["K"] == "2"  # the first that fits
    no = Mismatch("", "", "no")
    other = unify(pattern, loops, store, ranges, lambda m: no if str(m.sizes[_named(m, "S")]) == "1" else None)
    assert isinstance(other, Match) and {v.name: str(e) for v, e in other.sizes.items()}["S"] == "2"
    assert unify(pattern, loops, store, ranges, lambda m: no) is no


def _named(match, name):
    return next(v for v in match.sizes if v.name == name)
