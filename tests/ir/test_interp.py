"""The interpreter against NumPy, and the errors of programs that do what none may."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tensorlang.errors import InputError, InternalError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import SCALARS, dtype as as_dtype
from tensorlang.ir.expr import (
    Expr,
    add,
    and_,
    call,
    cast,
    const,
    eq,
    floordiv,
    floormod,
    load,
    lt,
    minimum,
    mul,
    ramp,
    select,
    var,
)
from tensorlang.ir.interp import ExecutionError, run
from tensorlang.ir.intrinsics import INTRINSICS
from tensorlang.ir.parser import parse_func
from tensorlang.ir.semantics import identity_of, poison
from tensorlang.ir.stmt import For, PrimFunc, Store
from tests.ir.programs import CONV, DENSE, DENSE_SPLIT, GATHER, LOWERED, MIXED, SOFTMAX

RNG = np.random.default_rng(0)


def assert_equal(actual: Any, expected: Any) -> None:
    """Equal and of one type; bf16 as f32, because NumPy does not know its NaN."""
    a, b = np.asarray(actual), np.asarray(expected)
    if a.dtype == ml_dtypes.bfloat16:
        assert b.dtype == a.dtype
        a, b = a.astype(np.float32), b.astype(np.float32)
    np.testing.assert_array_equal(a, b)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("text", [DENSE, DENSE_SPLIT])
@pytest.mark.parametrize("order", ["ascending", "reversed", "shuffled"])
def test_matmul(text: str, order: str) -> None:
    x, w, y = normal(5, 7), normal(6, 7), np.zeros((5, 6), np.float32)
    run(parse_func(text), [x, w, y], order=order)
    expected = np.zeros((5, 6), np.float32)
    for k in range(7):
        expected += np.outer(x[:, k], w[:, k])  # the same order of rounding: bit for bit
    assert_equal(y, np.maximum(expected, 0) if text == DENSE else expected)


def test_convolution_with_guarded_padding() -> None:
    x, w, y = normal(2, 3, 7, 8), normal(4, 3, 3, 3), np.empty((2, 4, 4, 4), np.float32)
    run(parse_func(CONV), [x, w, y])
    pad = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(pad, (3, 3), axis=(2, 3))[:, :, ::2, ::2][:, :, :4, :4]
    np.testing.assert_allclose(y, np.einsum("nchwrs,ocrs->nohw", windows, w), rtol=1e-4, atol=1e-5)


def test_softmax() -> None:
    x, y = normal(4, 9), np.empty((4, 9), np.float32)
    run(parse_func(SOFTMAX), [x, y])
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(1, keepdims=True), rtol=1e-6)


def test_gather() -> None:
    table, ids, y = normal(5, 3), np.array([4, -1, 0, -5], np.int32), np.empty((4, 3), np.float32)
    run(parse_func(GATHER), [table, ids, y])
    assert_equal(y, table[ids])


def test_mixed_types() -> None:
    n = 300
    a = np.linspace(-300, 300, n).astype(np.float16)
    a[0] = np.nan
    b = np.linspace(-3, 3, n).astype(ml_dtypes.bfloat16)
    c, d = RNG.integers(-128, 128, n).astype(np.int8), RNG.integers(0, 256, n).astype(np.uint8)
    h, g = np.empty(n, np.float16), np.empty(n, ml_dtypes.bfloat16)
    s, t, m, f = np.empty(n, np.int8), np.empty(n, np.int32), np.empty(n, bool), np.empty((), np.float64)
    run(parse_func(MIXED), [a, b, c, d, h, g, s, t, m, f])
    with np.errstate(all="ignore"):
        assert_equal(h, a * a + np.float16(0.1))
        assert_equal(g, b * ml_dtypes.bfloat16(1.5) - a.astype(ml_dtypes.bfloat16))
        assert_equal(s, c * c + np.int8(100))
        wrapped = (np.uint8(200) + d).astype(np.int32)
        assert_equal(t, c.astype(np.int32) // np.int32(-7) * 1000 + d.astype(np.int32) % 5 + wrapped)
    assert_equal(m, np.isnan(a) | ((c >= 0) & (d != 3)))
    assert np.isnan(f)


@pytest.mark.parametrize("n", [1, 4, 7, 16])
@pytest.mark.parametrize("order", ["ascending", "shuffled"])
def test_lowered_vectors(n: int, order: str) -> None:
    x, s = normal(n), normal(1)
    y, z = np.empty(n, np.float32), np.empty(n, np.float32)
    run(parse_func(LOWERED), [x, s, y, z], order=order)
    assert_equal(y, x * s)
    assert_equal(z, np.where(np.arange(n) % 2 == 0, x[::-1], 0))


def test_flat_buffers_take_arrays_of_any_shape() -> None:
    x, s, y, z = normal(2, 3), normal(1), np.empty((2, 3), np.float32), np.empty((3, 2), np.float32)
    run(parse_func(LOWERED), [x, s, y, z, 6])
    assert_equal(y, x * s)


# -- single operations -------------------------------------------------------------------------------------------------


def compute(e: Expr, inputs: Mapping[Buffer, np.ndarray], lanes: int = 1) -> Any:
    """`e` over `INDEX`, by the interpreter."""
    n = len(next(iter(inputs.values())))
    out = Buffer("out", (const(n),), e.dtype)
    func = PrimFunc("f", (*inputs, out), For(INDEX, const(n), "serial", Store(out, (INDEX,), e)))
    result = np.empty(n, e.dtype.numpy)
    run(func, [*inputs.values(), result])
    return result


INDEX = var("i")


def operands(name: str) -> tuple[np.ndarray, np.ndarray]:
    d = SCALARS[name]
    if d.is_float:
        special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -2.5, 3e4, -7.0, 0.1]
        values = np.array(special).astype(d.numpy)
    elif d.is_bool:
        values = np.array([True, False])
    else:
        low, high = np.iinfo(d.numpy).min, np.iinfo(d.numpy).max
        some = {low, low + 1, 0, 1, 2, 7, 100 % high, high - 1, high} | ({-1, -5} if low else set())
        values = np.array(sorted(some), d.numpy)
    a, b = np.meshgrid(values, values)
    return a.ravel(), b.ravel()


BINARY = {
    "add": (add, np.add), "mul": (mul, np.multiply), "floordiv": (floordiv, np.floor_divide),
    "floormod": (floormod, np.remainder), "min": (minimum, np.minimum), "lt": (lt, np.less), "eq": (eq, np.equal),
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in SCALARS if n != "bool"])
@pytest.mark.parametrize("op", BINARY)
def test_arithmetic_is_that_of_the_type(op: str, name: str) -> None:
    a, b = operands(name)
    if op in ("floordiv", "floormod") and not SCALARS[name].is_float:
        a, b = a[b != 0], b[b != 0]
    x, y = Buffer("x", (const(len(a)),), name), Buffer("y", (const(len(a)),), name)
    build, numpy = BINARY[op]
    with np.errstate(all="ignore"):
        expected = numpy(a, b)
    assert expected.dtype == (bool if op in ("lt", "eq") else a.dtype)
    assert_equal(compute(build(load(x, (INDEX,)), load(y, (INDEX,))), {x: a, y: b}), expected)


@pytest.mark.parametrize("source", SCALARS)
@pytest.mark.parametrize("target", SCALARS)
def test_casts(source: str, target: str) -> None:
    a, _ = operands(source)
    to = SCALARS[target]
    if SCALARS[source].is_float and to.is_int:  # out of range is undefined
        limits = np.iinfo(to.numpy)
        wide = a.astype(np.float64)
        a = a[np.isfinite(wide) & (wide > limits.min - 1.0) & (wide < limits.max)]
    x = Buffer("x", (const(len(a)),), source)
    through = np.float32 if target == "bf16" and SCALARS[source].is_int else a.dtype
    with np.errstate(all="ignore"):
        expected = a.astype(through).astype(to.numpy)
    assert_equal(compute(cast(target, load(x, (INDEX,))), {x: a}), expected)


def _types(name: str) -> list[str]:
    if name.startswith("bitwise") or name.endswith("shift"):
        return ["i8", "u32"]
    return ["f32", "f16", "bf16"] + (["i8"] if name in ("abs", "sign", "fma") else [])


@pytest.mark.parametrize(
    ("name", "kind"), [(n, t) for n, known in INTRINSICS.items() if known.result != "scalar" for t in _types(n)]
)
def test_intrinsics(name: str, kind: str) -> None:
    known, base = INTRINSICS[name], as_dtype(kind)
    values = RNG.uniform(0.1, 0.9, (known.arity, 20)) * (8 if base.is_int else 1)
    arrays = [v.astype(base.numpy) for v in values]
    buffers = [Buffer(f"x{n}", (const(20),), kind) for n in range(known.arity)]
    e = call(name, *(load(b, (INDEX,)) for b in buffers))
    through = np.float32 if kind == "bf16" else base.numpy
    with np.errstate(all="ignore"):
        expected = np.array([known.numpy(*(a[n].astype(through) for a in arrays)) for n in range(20)])
    got = compute(e, dict(zip(buffers, arrays, strict=True)))
    np.testing.assert_allclose(got.astype(np.float64), expected.astype(e.dtype.numpy).astype(np.float64), rtol=1e-6)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "i8", "i64"])
@pytest.mark.parametrize(("name", "ufunc"), [("add", np.add), ("mul", np.multiply), ("max", np.maximum), ("min", np.minimum)])
def test_horizontal_reductions(name: str, ufunc: np.ufunc, kind: str) -> None:
    x, y = Buffer("x", (const(8),), kind), Buffer("y", (const(1),), kind)
    e = call(f"vreduce_{name}", load(x, (ramp(0, 1, 8),)))
    assert e.dtype == x.dtype
    a, result = np.arange(1, 9).astype(x.dtype.numpy), np.zeros(1, x.dtype.numpy)
    run(PrimFunc("f", (x, y), Store(y, (const(0),), e)), [a, result])
    through = a.astype(np.float32) if kind == "bf16" else a
    assert_equal(result[0], ufunc.reduce(through, dtype=through.dtype).astype(x.dtype.numpy))


def test_large_integers_wrap_but_indices_cost_nothing() -> None:
    x = Buffer("x", (const(3),), "u64")
    a = np.array([1, 1 << 63, (1 << 64) - 1], np.uint64)
    with np.errstate(all="ignore"):
        expected = a * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
    e = load(x, (INDEX,)) * const(6364136223846793005, "u64") + const(1442695040888963407, "u64")
    assert_equal(compute(e, {x: a}), expected)
    big = (INDEX + 3) * ((1 << 62) + 1) * 5
    with np.errstate(all="ignore"):
        hashed = (np.arange(3) + 3) * np.int64((1 << 62) + 1) * 5
    assert_equal(compute(big, {x: a}), hashed)


def test_shared_subexpressions_are_computed_once() -> None:
    x = Buffer("x", (const(1),), "f32")
    e = load(x, (INDEX,))
    for _ in range(60):  # 2**60 terms as a tree
        e = e * const(0.5) + e * const(0.5)
    assert_equal(compute(e, {x: np.ones(1, np.float32)}), [1.0])


def test_long_chains_of_select() -> None:
    x = Buffer("x", (const(200),), "i64")
    e: Expr = const(-1)
    for n in reversed(range(200)):
        e = select(eq(load(x, (INDEX,)), n), n * n, e)
    values = np.arange(200)[::-1].copy()
    assert_equal(compute(e, {x: values}), values * values)


def test_deep_nests() -> None:
    x, y = Buffer("x", (const(2),), "f32"), Buffer("y", (const(2),), "f32")
    body: Any = Store(y, (const(0),), load(y, (const(0),)) + load(x, (const(1),)))
    for n in range(40):
        body = For(var(f"i{n}"), const(2 if n in (0, 39) else 1), "serial", body)
    from_zero = Store(y, (const(0),), const(0.0))
    func = PrimFunc("f", (x, y), type(body)(var("o"), const(1), "serial", body))
    result = np.zeros(2, np.float32)
    run(PrimFunc("g", (x, y), from_zero), [np.ones(2, np.float32), result])
    assert result[0] == 0 and np.isnan(result[1])
    out = np.zeros(2, np.float32)
    run(PrimFunc("f", (x, y), func.body, 0), [np.ones(2, np.float32), out])
    assert out[0] == 4


# -- the fine print ----------------------------------------------------------------------------------------------------


def test_what_is_read_again_after_a_store_is_new() -> None:
    text = """\
def f(x: f32[4], y: f32[4]) -> (x, y):
    for i in range(4):
        x[i] = 1.0
        if x[i] > 0.0:
            x[i] = 5.0
            y[i] = x[i]"""
    x, y = np.empty(4, np.float32), np.empty(4, np.float32)
    run(parse_func(text), [x, y])
    assert (y == 5).all()


def test_uninitialised_memory_and_outputs_are_poisoned() -> None:
    text = """\
def f(x: f32[4], y: f32[4], z: i32[4]) -> (y, z):
    t = alloc(f32[4])
    u = alloc(i32[4])
    for i in range(3):
        y[i] = t[i] + x[i]
        z[i] = u[i]"""
    x, y, z = normal(4), np.zeros(4, np.float32), np.zeros(4, np.int32)
    run(parse_func(text), [x, y, z])
    assert np.isnan(y).all()
    assert (z == poison(as_dtype("i32"))).all() and abs(int(z[0])) > 1 << 29


def test_an_output_that_is_an_input_keeps_its_contents() -> None:
    text = "def f(x: f32[4], y: f32[4]) -> y:\n    for i in range(4):\n        y[i] = x[i] + 1.0"
    x = np.zeros(4, np.float32)
    run(parse_func(text), [x, x])
    assert (x == 1).all()


def test_init_runs_at_the_first_point_of_each_reduction() -> None:
    text = """\
def f(x: f32[6], y: f32[2]) -> y:
    for ko in range(3):
        for i in range(2):
            for ki in range(2):
                with block("y", vi=spatial(2, i), vk=reduce(6, ko * 2 + ki)):
                    with init():
                        y[vi] = 0.0
                    y[vi] = y[vi] + x[vk]"""
    x, y = np.arange(6, dtype=np.float32), np.empty(2, np.float32)
    run(parse_func(text), [x, y])
    assert (y == 15).all()
    never = text.replace("ko * 2 + ki)", "ko * 2 + ki), where=ko * 2 + ki > 0")
    run(parse_func(never), [x, y])
    assert np.isnan(y).all()  # the first point is excluded: nothing initialises


def test_a_race_shows_when_the_order_changes() -> None:
    text = "def f(x: f32[8], y: f32[1]) -> y:\n    for i in parallel(8):\n        y[0] = x[i]"
    x, y = np.arange(8, dtype=np.float32), np.empty(1, np.float32)
    run(parse_func(text), [x, y])
    assert y[0] == 7
    run(parse_func(text), [x, y], order="reversed")
    assert y[0] == 0


def test_select_is_lazy_and_conditions_are_not() -> None:
    x = Buffer("x", (const(4),), "f32")
    a = np.ones(4, np.float32)
    safe = select(lt(INDEX, 3), load(x, (INDEX + 1,)), 0.0)
    assert_equal(compute(safe, {x: a}), [1, 1, 1, 0])
    eager = and_(lt(INDEX, 3), lt(load(x, (INDEX + 1,)), 2.0))
    with pytest.raises(ExecutionError):
        compute(eager, {x: a})


OUT_OF_BOUNDS = """\
def shift(x: f32[N], y: f32[N], N: i64) -> y:
    for i in range(N):
        with block("y", vi=spatial(N, i)):
            y[vi] = x[vi + 1]"""


def test_an_access_out_of_bounds_says_where() -> None:
    x, y = normal(4), np.empty(4, np.float32)
    with pytest.raises(ExecutionError, match=r"read of x\[4\] is out of bounds: x is f32\[4\] in block 'y', at i=3, vi=3"):
        run(parse_func(OUT_OF_BOUNDS), [x, y])
    below = OUT_OF_BOUNDS.replace("x[vi + 1]", "x[vi - 1]")
    with pytest.raises(ExecutionError, match=r"x\[-1\]"):
        run(parse_func(below), [x, y])
    store = OUT_OF_BOUNDS.replace("x[vi + 1]", "0.0").replace("y[vi]", "y[vi * 2]")
    with pytest.raises(ExecutionError, match=r"write of y\[4\]"):
        run(parse_func(store), [x, y])


def test_a_vector_access_out_of_bounds_says_which_lane() -> None:
    text = LOWERED.replace("if i * 4 + 4 <= N:", "if 0 <= N:")
    with pytest.raises(ExecutionError, match=r"read of x\[6\] is out of bounds: x is f32\[6\], at i=1"):
        run(parse_func(text), [normal(6), normal(1), np.empty(6, np.float32), np.empty(6, np.float32)])


@pytest.mark.parametrize("divide", ["//", "%"])
def test_division_by_zero(divide: str) -> None:
    text = f"def f(x: i64[4], y: i64[4]) -> y:\n    for i in range(4):\n        y[i] = i {divide} x[i]"
    with pytest.raises(ExecutionError, match="f: integer division by zero"):
        run(parse_func(text), [np.zeros(4, np.int64), np.empty(4, np.int64)])


def test_accesses_are_traced() -> None:
    func = parse_func(OUT_OF_BOUNDS.replace("vi + 1", "vi"))
    seen: list[tuple[str, str, tuple[int, ...], dict[str, int]]] = []

    def on_access(kind: str, buffer: Buffer, indices: tuple[int, ...], env: Mapping[Expr, int]) -> None:
        seen.append((kind, buffer.name, indices, {v.name: n for v, n in env.items()}))

    run(func, [normal(2), np.empty(2, np.float32)], on_access=on_access)
    assert seen == [(kind, name, (n,), {"i": n, "vi": n}) for n in range(2) for kind, name in (("read", "x"), ("write", "y"))]


def test_masked_lanes_are_not_traced() -> None:
    reads: list[tuple[int, ...]] = []

    def on_access(kind: str, buffer: Buffer, indices: tuple[int, ...], env: Mapping[Expr, int]) -> None:
        if kind == "read" and buffer.name == "x":
            reads.append(indices)

    run(parse_func(LOWERED), [normal(3), normal(1), np.empty(3, np.float32), np.empty(3, np.float32)], on_access=on_access)
    assert reads == [(0,), (1,), (2,), (2,), (0,)]


GOOD_ARGS = [normal(3, 2), normal(4, 2), np.empty((3, 4), np.float32)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[:2], "takes 3 array"),
        (lambda a: [*a, 3, 4, 2, 1], "takes 3 array"),
        (lambda a: [[1.0], *a[1:]], "x must be a NumPy array, got list"),
        (lambda a: [a[0].astype(np.float64), *a[1:]], "x must be f32, got float64"),
        (lambda a: [a[0][0], *a[1:]], "x must have 2 dimension"),
        (lambda a: [a[0], a[1][:, :1], a[2]], "dimension 1 of w must be K = 2, got 1"),
        (lambda a: [*a, 5], "dimension 0 of x must be M = 5, got 3"),
    ],
)
def test_arguments_that_do_not_fit(change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(parse_func(DENSE), change(GOOD_ARGS))


def test_sizes_that_no_shape_gives() -> None:
    func = parse_func("def f(x: f32[N * 2], y: f32[N * 2], N: i64) -> y:\n    for i in range(N * 2):\n        y[i] = x[i]")
    x, y = normal(6), np.empty(6, np.float32)
    run(func, [x, y, 3])
    assert_equal(x, y)
    with pytest.raises(InputError, match="size N is no dimension"):
        run(func, [x, y])


def test_programs_without_meaning() -> None:
    with pytest.raises(InternalError, match="does not know what"):
        run(parse_func("def f(x: f32[4]) -> x:\n    tensor_store(x[0])"), [normal(4)])


@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("name", SCALARS)
def test_identities(kind: str, name: str) -> None:
    value = identity_of(kind, SCALARS[name])
    a, _ = operands(name)
    ufunc = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}[kind]
    assert_equal(ufunc(a, value), a)
