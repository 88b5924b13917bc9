"""Elementary functions in f32 as branch-free formulas, each written once for two carriers.

A formula takes an algebra `m` (`numpy_algebra` or the LLVM one in `lowering/algebra.py`) and values of it. Values have
Python's operators (`>>` is arithmetic on the signed integers used here); `m` has the rest: `select`, `fma`, `bits`
(f32 to i32), `floats` (i32 to f32), `sqrt`, `floor`, `abs`, `wide`/`narrow` (f32 <-> f64), `low_word` (f64 bits to i32),
and two for which machines have instructions: `scale` (times a power of two) and `ratio` (a quotient of ordinary numbers).

All are defined for every input, NaN and infinities included, and use no conversion whose result is undefined.
Error bounds, as measured against float64 over the whole range, stand in `ERROR_BOUNDS`.
Sources: S. Moshier's Cephes (exp, log, asin, atan), the rational tanh and erf of Eigen and XLA, argument reduction after
Cody & Waite, "Software Manual for the Elementary Functions" (1980).
"""

from __future__ import annotations

import math
from typing import Any

V = Any  # a value of the algebra in use

_MAGIC = 12582912.0  # 1.5 * 2**23: adding it rounds an f32 to an integer, which then stands in the low bits
_MAGIC_BITS = 0x4B400000
_LN2_HI = 0.693359375
_LN2_LO = -2.12194440e-4
_INF = math.inf
_NAN = math.nan


def polynomial(m: Any, x: V, *coefficients: float) -> V:
    """Horner's rule, highest power first."""
    result = m.constant(x, coefficients[0])
    for c in coefficients[1:]:
        result = m.fma(result, x, c)
    return result


def _clamp(m: Any, x: V, low: float, high: float) -> V:
    """`x` held to [low, high]; a NaN stays (each select is one min/max instruction)."""
    x = m.select(x < low, low, x)
    return m.select(x > high, high, x)


def _with_sign_of(m: Any, magnitude: V, x: V) -> V:
    return m.floats(m.bits(magnitude) | (m.bits(x) & -0x80000000))


def _reduce_exp(m: Any, x: V) -> tuple[V, V, V]:
    """(k, n, r) with x = k ln2 + r, |r| <= ln2 / 2, k an i32 and n the same as f32."""
    shifted = m.fma(x, 1.44269504088896341, _MAGIC)
    n = shifted - _MAGIC
    r = m.fma(n, -_LN2_LO, m.fma(n, -_LN2_HI, x))
    return m.bits(shifted) - _MAGIC_BITS, n, r


def _expm1_small(m: Any, r: V) -> V:
    """exp(r) - 1 for |r| <= ln2 / 2."""
    p = polynomial(m, r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
    return m.fma(p, r * r, r)


def _power_of_two(m: Any, k: V) -> V:
    return m.floats((k + 127) << 23)


def exp(m: Any, x: V) -> V:
    """e**x, denormal results included."""
    k, n, r = _reduce_exp(m, _clamp(m, x, -104.0, 89.0))
    # (exp(r) - 1 - r) / r**2, minimax: 3e-9 of exp(r)
    q = polynomial(m, r, 1.38145405799e-3, 8.36874544621e-3, 4.16683889925e-2, 1.66665211320e-1, 4.99999940395e-1)
    return m.scale(m.fma(m.fma(q, r, 1.0), r, 1.0), n, k)


def expm1(m: Any, x: V) -> V:
    """e**x - 1 without cancellation near 0."""
    k, _, r = _reduce_exp(m, _clamp(m, x, -40.0, 89.0))
    scale = _power_of_two(m, k - 1)  # half of 2**k, which is finite at k = 128
    result = m.fma(scale, _expm1_small(m, r), scale - 0.5) * 2.0
    return m.select(m.abs(x) < 1e-7, x, result)


def _log_parts(m: Any, x: V) -> tuple[V, V, V]:
    """(e, f, y) with log(x) = e ln2 + f + y for positive finite x, f + 1 in [sqrt(1/2), sqrt(2))."""
    tiny = x < 1.17549435e-38
    x = m.select(tiny, x * 8388608.0, x)
    bits = m.bits(x) - 0x3F3504F3
    k = bits >> 23
    f = m.floats(m.bits(x) - (k << 23)) - 1.0
    e = m.int_to_float(k) + m.select(tiny, m.constant(x, -23.0), m.constant(x, 0.0))
    p = polynomial(
        m, f, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )  # fmt: skip
    z = f * f
    return e, f, m.fma(z, -0.5, p * f * z)


def _log_edges(m: Any, x: V, result: V) -> V:
    result = m.select(x > 0.0, result, m.select(x == 0.0, m.constant(x, -_INF), m.constant(x, _NAN)))
    return m.select(x == _INF, x, result)


def log(m: Any, x: V) -> V:
    """Natural logarithm; -inf at 0, NaN below."""
    e, f, y = _log_parts(m, x)
    return _log_edges(m, x, m.fma(e, _LN2_HI, m.fma(e, _LN2_LO, y) + f))


def log2(m: Any, x: V) -> V:
    """Logarithm to base 2, exact at powers of two."""
    e, f, y = _log_parts(m, x)
    extra = 0.44269504088896340736  # log2(e) - 1, so that the larger part of f stays exact
    return _log_edges(m, x, m.fma(y, extra, f * extra) + y + f + e)


def log1p(m: Any, x: V) -> V:
    """log(1 + x) without cancellation near 0."""
    u = x + 1.0
    lost = m.select(m.abs(x) < 1.0, x - (u - 1.0), (1.0 - (u - x)))  # what the addition rounded away
    lost = m.select(m.abs(u) < 1e30, lost, m.constant(x, 0.0))
    result = log(m, u) + m.select(u > 0.0, lost / u, m.constant(x, 0.0))
    return m.select(m.abs(x) < 1e-7, x, result)


def rsqrt(m: Any, x: V) -> V:
    """1 / sqrt(x)."""
    return 1.0 / m.sqrt(x)


def sigmoid(m: Any, x: V) -> V:
    """1 / (1 + exp(-x)), relatively accurate in the left tail too."""
    e = exp(m, -m.abs(x))
    return m.ratio(m.select(x < 0.0, e, m.constant(x, 1.0)), e + 1.0)


def tanh(m: Any, x: V) -> V:
    """Hyperbolic tangent: a rational function, held where it reaches 1 in f32."""
    y = _clamp(m, x, -7.90531110763549805, 7.90531110763549805)
    z = y * y
    p = polynomial(
        m, z, -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
        1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
    )  # fmt: skip
    q = polynomial(m, z, 1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
    return m.select(m.abs(x) < 4e-4, x, m.ratio(y * p, q))


def erf(m: Any, x: V) -> V:
    """Error function: a rational function on [-3.74, 3.74]."""
    y = _clamp(m, x, -3.7439211627767994, 3.7439211627767994)
    z = y * y
    p = polynomial(
        m, z, 2.2905065861350646e-4, 3.4082910107109506e-3, 5.0955695062380861e-2, 1.8520832239976145e-1,
        1.128379143519084,
    )  # fmt: skip
    q = polynomial(
        m, z, -1.1791602954361697e-7, 2.3547966471313185e-5, 1.0179625278914885e-3, 1.4070470171167667e-2,
        1.1098505178285362e-1, 4.9746925110067538e-1, 1.0,
    )  # fmt: skip
    return m.ratio(y * p, q)


def _reduce_pi(m: Any, x: V) -> tuple[V, V]:
    """(quadrant as i32, r as f32) with x = quadrant pi/2 + r, |r| <= pi/4, carried out in f64."""
    wide = m.wide(x)
    magic = 6755399441055744.0  # 1.5 * 2**52
    shifted = m.fma(wide, 0.63661977236758134308, magic)
    n = shifted - magic
    r = m.fma(n, -1.57079632673412561417e00, wide)  # pi/2 in three parts of 33 bits: n times each is exact
    r = m.fma(n, -6.07710050630396597660e-11, r)
    r = m.fma(n, -2.02226624879595063154e-21, r)
    return m.low_word(shifted), m.narrow(r)


def _sin_cos(m: Any, r: V) -> tuple[V, V]:
    z = r * r
    s = polynomial(m, z, -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
    c = polynomial(m, z, 2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
    return m.fma(s * z, r, r), m.fma(c * z, z, m.fma(z, -0.5, 1.0))


def sin(m: Any, x: V) -> V:
    """Sine, for |x| up to 2**30 (1.6e6 on machines without FMA); NaN at infinities."""
    quadrant, r = _reduce_pi(m, x)
    s, c = _sin_cos(m, r)
    value = m.select((quadrant & 1) == 0, s, c)
    return m.floats(m.bits(value) ^ ((quadrant & 2) << 30))


def cos(m: Any, x: V) -> V:
    """Cosine, for |x| up to 2**30 (1.6e6 on machines without FMA); NaN at infinities."""
    quadrant, r = _reduce_pi(m, x)
    s, c = _sin_cos(m, r)
    value = m.select((quadrant & 1) == 0, c, s)
    return m.floats(m.bits(value) ^ (((quadrant + 1) & 2) << 30))


def tan(m: Any, x: V) -> V:
    """Tangent, for |x| up to 2**30 (1.6e6 on machines without FMA)."""
    quadrant, r = _reduce_pi(m, x)
    s, c = _sin_cos(m, r)
    even = (quadrant & 1) == 0
    return m.select(even, s, -c) / m.select(even, c, s)


def _asin_core(m: Any, z: V, s: V) -> V:
    """asin(s) for 0 <= s <= 1/2, z = s * s."""
    p = polynomial(m, z, 4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1)
    return m.fma(p * z, s, s)


def asin(m: Any, x: V) -> V:
    """Inverse sine; NaN outside [-1, 1]."""
    a = m.abs(x)
    large = a > 0.5
    z = m.select(large, (1.0 - a) * 0.5, a * a)
    core = _asin_core(m, z, m.select(large, m.sqrt(z), a))
    return _with_sign_of(m, m.select(large, 1.5707963267948966 - (core + core), core), x)


def acos(m: Any, x: V) -> V:
    """Inverse cosine; NaN outside [-1, 1]."""
    a = m.abs(x)
    large = a > 0.5
    z = m.select(large, (1.0 - a) * 0.5, a * a)
    core = _asin_core(m, z, m.select(large, m.sqrt(z), a))
    near_one = core + core
    outer = m.select(x < 0.0, 3.1415926535897932 - near_one, near_one)
    inner = 1.5707963267948966 - _with_sign_of(m, core, x)
    return m.select(large, outer, inner)


def atan(m: Any, x: V) -> V:
    """Inverse tangent."""
    a = m.abs(x)
    far = a > 2.414213562373095
    middle = a > 0.4142135623730950
    t = m.select(far, -1.0 / a, m.select(middle, (a - 1.0) / (a + 1.0), a))
    t = m.select(a == _INF, m.constant(x, 0.0), t)
    base = m.select(
        far,
        m.constant(x, 1.5707963267948966),
        m.select(middle, m.constant(x, 0.78539816339744831), m.constant(x, 0.0)),
    )
    z = t * t
    p = polynomial(m, z, 8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
    return _with_sign_of(m, m.fma(p * z, t, t) + base, x)


def sinh(m: Any, x: V) -> V:
    """Hyperbolic sine."""
    t = expm1(m, m.abs(x))
    small = (t + t / (t + 1.0)) * 0.5
    h = exp(m, m.abs(x) * 0.5)  # its square overflows only where sinh does
    return _with_sign_of(m, m.select(t < 1e30, small, h * 0.5 * h), x)


def cosh(m: Any, x: V) -> V:
    """Hyperbolic cosine."""
    a = m.abs(x)
    e = exp(m, a)
    h = exp(m, a * 0.5)
    return m.select(e < 1e30, (e + 1.0 / e) * 0.5, h * 0.5 * h)


def asinh(m: Any, x: V) -> V:
    """Inverse hyperbolic sine."""
    a = m.abs(x)
    z = a * a
    near = log1p(m, a + z / (m.sqrt(z + 1.0) + 1.0))
    far = log(m, a) + 0.69314718055994531
    return _with_sign_of(m, m.select(a < 1e9, near, far), x)


def acosh(m: Any, x: V) -> V:
    """Inverse hyperbolic cosine; NaN below 1."""
    t = x - 1.0
    near = log1p(m, t + m.sqrt(t * (t + 2.0)))
    return m.select(x < 1.0, m.constant(x, _NAN), m.select(x < 1e9, near, log(m, x) + 0.69314718055994531))


def atanh(m: Any, x: V) -> V:
    """Inverse hyperbolic tangent; NaN outside [-1, 1]."""
    a = m.abs(x)
    return _with_sign_of(m, log1p(m, (a + a) / (1.0 - a)) * 0.5, x)


def _log2_wide(m: Any, x: V) -> V:
    """log2 of a positive finite f32 in f64, to about 1e-12."""
    tiny = x < 1.17549435e-38
    x = m.select(tiny, x * 8388608.0, x)
    k = (m.bits(x) - 0x3F3504F3) >> 23
    mantissa = m.wide(m.floats(m.bits(x) - (k << 23)))
    e = m.wide(m.int_to_float(k) + m.select(tiny, m.constant(x, -23.0), m.constant(x, 0.0)))
    s = (mantissa - 1.0) / (mantissa + 1.0)  # log(mantissa) = 2 atanh(s), |s| < 0.172
    series = polynomial(m, s * s, 1 / 15, 1 / 13, 1 / 11, 1 / 9, 1 / 7, 1 / 5, 1 / 3, 1.0)
    return m.fma(s * series, 2.0 / math.log(2.0), e)


def _exp2_wide(m: Any, t: V) -> V:
    """2**t as f32 for an f64 t; overflows and underflows as f32 does."""
    t = _clamp(m, t, -160.0, 140.0)
    magic = 6755399441055744.0
    shifted = t + magic
    r = (t - (shifted - magic)) * math.log(2.0)
    series = polynomial(m, r, *(1.0 / math.factorial(n) for n in range(10, -1, -1)))
    k = m.low_word(shifted)
    half = k >> 1
    quarter = half >> 1  # factors small enough to be normal; the series times the first is exact in f32's range
    first = m.narrow(series) * _power_of_two(m, quarter) * _power_of_two(m, half - quarter)
    return first * _power_of_two(m, k - half)


def pow(m: Any, x: V, y: V) -> V:
    """x**y with IEEE 754's edges (pow(x, 0) = pow(1, y) = 1; NaN for a negative x and a y that is no integer)."""
    a = m.abs(x)
    zero, one, inf = m.constant(x, 0.0), m.constant(x, 1.0), m.constant(x, _INF)
    magnitude = _exp2_wide(m, m.wide(y) * _log2_wide(m, a))
    integer = m.floor(y) == y
    odd = integer & (m.floor(y * 0.5) != y * 0.5)
    signed = m.select(odd & (m.bits(x) < 0), -magnitude, magnitude)
    result = m.select((x < 0.0) & (integer == m.false(x)), m.constant(x, _NAN), signed)
    # zero and infinite bases; an infinite exponent
    grows = y > 0.0
    edge = m.select(grows == (a == inf), inf, zero)
    edge = m.select(odd & (m.bits(x) < 0), -edge, edge)
    result = m.select((a == 0.0) | (a == inf), edge, result)
    to_infinity = m.select(a == 1.0, one, m.select((a > 1.0) == grows, inf, zero))
    result = m.select((m.abs(y) == inf) & (a == a), to_infinity, result)
    result = m.select((x != x) | (y != y), x + y, result)
    return m.select((x == 1.0) | (y == 0.0), one, result)


UNARY = {
    f.__name__: f
    for f in (
        exp, expm1, log, log2, log1p, rsqrt, sigmoid, tanh, erf, sin, cos, tan,
        asin, acos, atan, sinh, cosh, asinh, acosh, atanh,
    )
}  # fmt: skip

# greatest |computed - exact| / |exact| over all finite f32 results (one denormal step more where the result is
# denormal); sin, cos and tan for |x| < 1.6e6. One ulp is between 6e-8 and 1.2e-7.
ERROR_BOUNDS: dict[str, float] = {
    "exp": 1.1e-7, "expm1": 1.5e-7, "log": 1.1e-7, "log2": 1.3e-7, "log1p": 1.6e-7, "rsqrt": 1.2e-7,
    "sigmoid": 2.2e-7, "tanh": 3.0e-7, "erf": 3.5e-7, "sin": 1.6e-7, "cos": 1.6e-7, "tan": 2.7e-7,
    "asin": 2.7e-7, "acos": 1.6e-7, "atan": 2.4e-7, "sinh": 2.2e-7, "cosh": 2.2e-7, "asinh": 2.0e-7,
    "acosh": 2.0e-7, "atanh": 2.0e-7, "pow": 1.0e-7,
}  # fmt: skip
