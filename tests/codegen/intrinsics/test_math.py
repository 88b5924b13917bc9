"""Elementary functions: the stated error bounds hold over the whole range, natively and in the plain twin."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tensorlang.build import compile_and_load
from tensorlang.codegen.intrinsics import formulas, math as twins
from tensorlang.runtime.context import context_address

REFERENCE = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log2": np.log2, "log1p": np.log1p,
    "rsqrt": lambda x: 1 / np.sqrt(x), "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "tanh": np.tanh,
    "erf": np.vectorize(math.erf, otypes="d"), "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin,
    "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh,
}  # fmt: skip
PERIODIC = {"sin", "cos", "tan"}
SOURCE = "".join(
    f'@kernel("f32* x, f32* y, i64 n")\ndef k_{name}(ctx, x, y, n):\n    for i in range(n // 16):\n'
    f"        vstore(y, i * 16, {name}(vload(x, i * 16, 16)))\n    y[n] = {name}(x[0])\n\n"
    for name in REFERENCE
)
POW = """
@kernel("f32* x, f32* e, f32* y, i64 n")
def k_pow(ctx, x, e, y, n):
    for i in range(n // 16):
        vstore(y, i * 16, pow(vload(x, i * 16, 16), vload(e, i * 16, 16)))
"""


def _inputs(name: str) -> np.ndarray:
    """Every 32771st bit pattern (so all exponents, signs, NaNs, denormals), and the interesting stretches densely."""
    patterns = np.arange(0, 1 << 32, 32771, dtype=np.uint64).astype(np.uint32).view(np.float32)
    stretches = [np.linspace(a, b, 8000) for a, b in ((-1, 1), (-10, 10), (-110, 110), (0.4, 2.5))]
    edges = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 88.72283, 88.7229, -87.34, -103.97, 1e-45, -1e-45, 3.4e38]
    with np.errstate(invalid="ignore"):  # signalling NaNs among the patterns
        x = np.concatenate([patterns, *stretches, edges]).astype(np.float32)
    if name in PERIODIC:
        x = x[(np.abs(x) < 1.6e6) | ~np.isfinite(x)]
    return np.concatenate([x, np.zeros(-len(x) % 16, np.float32)])


def _check(got: np.ndarray, want: np.ndarray, bound: float, where: np.ndarray) -> None:
    """`got` is within `bound` relative error (plus one denormal step) of float64 `want`, and exact at the edges."""
    with np.errstate(all="ignore"):
        rounded = want.astype(np.float32)
    exact = ~np.isfinite(rounded)
    np.testing.assert_array_equal(got[exact], rounded[exact])
    error = np.abs(got[~exact].astype(np.float64) - want[~exact])
    allowed = bound * np.abs(want[~exact]) + 1.5e-45
    worst = np.argmax(error - allowed)
    assert (error <= allowed).all(), (where[~exact][worst], got[~exact][worst], want[~exact][worst])


@pytest.mark.parametrize("name", REFERENCE)
def test_plain_twin_keeps_its_bound(name):
    x = _inputs(name)
    with np.errstate(all="ignore"):
        want = REFERENCE[name](x.astype(np.float64))
    _check(getattr(twins, name)(x), want, formulas.ERROR_BOUNDS[name], x)


@pytest.fixture(scope="module")
def native(settings):
    library = compile_and_load("from tensorlang.codegen.intrinsics import *\n" + SOURCE + POW, settings=settings)

    def call(name: str, *arguments: np.ndarray, out: int) -> np.ndarray:
        y = np.zeros(out, np.float32)
        pointers = [a.ctypes.data for a in arguments]
        assert library[f"k_{name}"](context_address(), *pointers, y.ctypes.data, len(arguments[0])) == 0
        return y

    return call


@pytest.mark.parametrize("name", REFERENCE)
def test_machine_code_keeps_the_bound(native, name):
    x = _inputs(name)
    with np.errstate(all="ignore"):
        want = REFERENCE[name](x.astype(np.float64))
    y = native(name, x, out=len(x) + 1)
    _check(y[:-1], want, formulas.ERROR_BOUNDS[name], x)
    np.testing.assert_allclose(y[-1], y[0], rtol=formulas.ERROR_BOUNDS[name])  # the scalar form


def _pow_inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    special = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 2, -2, 0.5, -0.5, 3, -3, 1e-40, 3e38, -7], np.float32)
    a, b = (g.ravel() for g in np.meshgrid(special, special))
    wild = rng.integers(0, 1 << 32, (2, 16000), dtype=np.uint64).astype(np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):  # signalling NaNs among the patterns
        a = np.concatenate([a, wild[0], np.exp(rng.uniform(-80, 80, 16000)), rng.integers(-9, 9, 1600)]).astype(np.float32)
        b = np.concatenate([b, wild[1], rng.uniform(-3, 3, 16000), rng.integers(-9, 9, 1600)]).astype(np.float32)
    return a, b


@pytest.mark.parametrize("how", ["plain", "native"])
def test_pow_with_all_edges(native, how):
    a, b = _pow_inputs()
    with np.errstate(all="ignore"):
        want = np.power(a.astype(np.float64), b.astype(np.float64))
    got = twins.pow(a, b) if how == "plain" else native("pow", a, b, out=len(a))
    _check(got, want, formulas.ERROR_BOUNDS["pow"], np.stack([a, b], 1))


@pytest.mark.parametrize("name", ["tanh", "erf", "sigmoid"])
def test_saturating_functions_stay_within_one(name):
    y = getattr(twins, name)(np.linspace(-30, 30, 200001).astype(np.float32))
    assert (np.abs(y) <= 1).all()


def test_double_precision_is_libm(run_both):
    names = ["exp", "log", "tanh", "erf", "expm1", "sigmoid", "rsqrt"]
    source = "".join(
        f'@kernel("f64* x, f64* y")\ndef d_{n}(ctx, x, y):\n    vstore(y, 0, {n}(vload(x, 0, 8)))\n' for n in names
    )
    x = np.random.default_rng(0).uniform(0.1, 3, 8)
    for name in names:
        got, plain = run_both(source, f"d_{name}", x, np.zeros(8))
        np.testing.assert_allclose(got[1], plain[1], rtol=1e-14)


ROUNDING = "".join(
    f'@kernel("f32* x, f32* y")\ndef r_{n}(ctx, x, y):\n    vstore(y, 0, {n}(vload(x, 0, 16)))\n    y[16] = {n}(x[3])\n'
    for n in ("floor", "ceil", "round", "trunc", "abs", "sqrt")
)


@pytest.mark.parametrize("name", ["floor", "ceil", "round", "trunc", "abs", "sqrt"])
def test_rounding(run_both, name):
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.0, -0.0, np.nan, np.inf, -np.inf, 1e10, -1e10, 0.49999997, 3.7, -3.7, 8])
    got, plain = run_both(ROUNDING, f"r_{name}", x.astype(np.float32), np.zeros(17, np.float32))
    np.testing.assert_array_equal(got[1], plain[1])
