"""Derivatives of scalar expressions: forward mode with respect to one element that the expression loads.

    d(a * b) = da * b + a * db          d select(c, a, b) = select(c, da, db)          d exp(a) = exp(a) * da

A derivative that vanishes identically is None, so that no product with zero is ever built. A `select` stays around whatever
its arms read: an element that the program does not touch, its derivative does not touch either.

Conventions where there is no derivative: 0 at a step (`floor`, `sign`, a cast to integers); 0 for `abs` at 0. Where the
operands of `max(a, b)` or `min(a, b)` are equal, each gets half, which is what the central difference says; but a constant
operand takes the tie whole, so that max(x, 0), which everyone calls relu, has derivative 0 at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce as fold

from tensorlang.ir.expr import Expr, add, and_, call, cast, const, div, eq, fail, is_const, lt, mul, neg, select, sub
from tensorlang.ir.visitor import walk

Derivative = Expr | None


def derivative(e: Expr, element: Expr, where: Sequence[Expr] = ()) -> Derivative:
    """d e / d element, where `element` is a load that occurs in `e`; of the type of `e`. None if it is 0 everywhere.

    Args:
        where: the element counts only where these conditions hold; they are asked where `e` loads the element, not elsewhere.

    Raises:
        TypeCheckError: `e` is made with a function whose derivative is unknown.
    """
    known: dict[Expr, Derivative] = {}
    for node in walk(e):
        if node is element:
            one, zero = const(1, node.dtype), const(0, node.dtype)
            known[node] = select(fold(and_, where), one, zero) if where else one
        elif not node.dtype.is_float:
            known[node] = None  # conditions and integers are piecewise constant
        else:
            known[node] = _of_node(node, [known[a] for a in node.args])
    return known[e]


def plus(a: Derivative, b: Derivative) -> Derivative:
    """a + b, where None is 0."""
    if a is None or b is None:
        return b if a is None else a
    return add(a, b)


def times(a: Expr, d: Expr) -> Expr:
    """a * d. Constants 1 and -1 go, and `a` moves into the arms of a `select` that is 0 elsewhere: its condition may guard
    what `a` reads."""
    if is_const(d, 1):
        return a
    if is_const(a, 1):
        return d
    if is_const(d, -1):
        return neg(a)
    if is_const(a) and is_const(d):
        return const(a.value * d.value, d.dtype)
    if d.op == "select" and (is_const(d.args[1], 0) or is_const(d.args[2], 0)):
        c, x, y = d.args
        return select(c, x if is_const(x, 0) else times(a, x), y if is_const(y, 0) else times(a, y))
    return neg(times(a, d.args[0])) if d.op == "neg" else mul(a, d)


def is_zero(e: Expr) -> Expr:
    return eq(e, const(0, e.dtype))


def _times(a: Expr, d: Derivative) -> Derivative:
    return None if d is None else times(a, d)


def _minus(d: Derivative) -> Derivative:
    return None if d is None else times(const(-1, d.dtype), d)


def _of_node(e: Expr, ds: list[Derivative]) -> Derivative:
    if all(d is None for d in ds):
        return None
    rule = _CALLS.get(e.value) if e.op == "call" else _OPS.get(e.op)
    if rule is None:
        what = f"te.{e.value}" if e.op == "call" else repr(e.op)
        fail(f"te.gradient: the derivative of {what} is not known, in {e}")
    return rule(e, ds)


Rule = Callable[[Expr, list[Derivative]], Derivative]


def _div(e: Expr, ds: list[Derivative]) -> Derivative:
    b = e.args[1]
    first = None if ds[0] is None else div(ds[0], b)
    return plus(first, None if ds[1] is None else times(neg(div(e, b)), ds[1]))


def _select(e: Expr, ds: list[Derivative]) -> Derivative:
    zero = const(0, e.dtype)
    return select(e.args[0], zero if ds[1] is None else ds[1], zero if ds[2] is None else ds[2])


def _extremum(e: Expr, ds: list[Derivative]) -> Derivative:
    a, b = e.args
    wins = lt(b, a) if e.op == "max" else lt(a, b)  # strictly
    zero = const(0, e.dtype)
    da, db = (zero if d is None else d for d in ds)
    if _is_fixed(b):
        return select(wins, da, db)
    if _is_fixed(a):
        return select(lt(a, b) if e.op == "max" else lt(b, a), db, da)
    both = plus(ds[0], ds[1])
    half = zero if both is None else times(const(0.5, e.dtype), both)
    return select(wins, da, select(eq(a, b), half, db))


def _is_fixed(e: Expr) -> bool:
    """Whether no floating-point tensor has a part in `e`."""
    return not any(n.op == "load" and n.dtype.is_float for n in walk(e))


def _floormod(e: Expr, ds: list[Derivative]) -> Derivative:
    a, b = e.args
    return plus(ds[0], _times(neg(call("floor", div(a, b))), ds[1]))


def _fmod(e: Expr, ds: list[Derivative]) -> Derivative:
    a, b = e.args
    return plus(ds[0], _times(neg(call("trunc", div(a, b))), ds[1]))


def _pow(e: Expr, ds: list[Derivative]) -> Derivative:
    a, b = e.args
    base: Derivative = None
    if ds[0] is not None and not is_const(b, 0):
        if b.op == "const":
            power = a if b.value == 2 else const(1, a.dtype) if b.value == 1 else call("pow", a, const(b.value - 1, b.dtype))
        else:
            power = call("pow", a, sub(b, const(1, b.dtype)))
        base = times(times(b, power), ds[0])
    exponent: Derivative = None
    if ds[1] is not None:  # 0 ** b is 0 whatever b > 0 is; log(0) would make it NaN
        exponent = select(is_zero(a), const(0, e.dtype), times(mul(e, call("log", a)), ds[1]))
    return plus(base, exponent)


def _fma(e: Expr, ds: list[Derivative]) -> Derivative:
    a, b, _ = e.args
    return plus(plus(_times(b, ds[0]), _times(a, ds[1])), ds[2])


def _cast(e: Expr, ds: list[Derivative]) -> Derivative:
    d = ds[0]
    if d is None:
        return None
    return const(d.value, e.dtype) if d.op == "const" else cast(e.dtype, d)


_OPS: dict[str, Rule] = {
    "add": lambda e, ds: plus(ds[0], ds[1]),
    "sub": lambda e, ds: (
        plus(ds[0], _minus(ds[1])) if ds[0] is None or ds[1] is None else sub(ds[0], ds[1])
    ),
    "mul": lambda e, ds: plus(_times(e.args[1], ds[0]), _times(e.args[0], ds[1])),
    "neg": lambda e, ds: _minus(ds[0]),
    "div": _div,
    "floordiv": lambda e, ds: None,
    "floormod": _floormod,
    "min": _extremum,
    "max": _extremum,
    "select": _select,
    "cast": _cast,
}


def _unary(outer: Callable[[Expr, Expr], Expr]) -> Rule:
    """The chain rule, from the derivative as a function of the call and its argument."""
    return lambda e, ds: _times(outer(e, e.args[0]), ds[0])


def _c(value: float, like: Expr) -> Expr:
    return const(value, like.dtype)


def _over(x: Expr) -> Expr:
    return div(_c(1, x), x)


def _step(e: Expr, ds: list[Derivative]) -> Derivative:
    return None


_CALLS: dict[str, Rule] = {
    "exp": _unary(lambda e, x: e),
    "expm1": _unary(lambda e, x: e + _c(1, e)),
    "log": _unary(lambda e, x: _over(x)),
    "log2": _unary(lambda e, x: _c(1 / math.log(2), x) / x),
    "log1p": _unary(lambda e, x: _over(x + _c(1, x))),
    "sqrt": _unary(lambda e, x: _c(0.5, e) / e),
    "rsqrt": _unary(lambda e, x: _c(-0.5, e) * e / x),
    "tanh": _unary(lambda e, x: _c(1, e) - e * e),
    "sigmoid": _unary(lambda e, x: e * (_c(1, e) - e)),
    "erf": _unary(lambda e, x: _c(2 / math.sqrt(math.pi), x) * call("exp", neg(x * x))),
    "sin": _unary(lambda e, x: call("cos", x)),
    "cos": _unary(lambda e, x: neg(call("sin", x))),
    "tan": _unary(lambda e, x: e * e + _c(1, e)),
    "arcsin": _unary(lambda e, x: call("rsqrt", _c(1, x) - x * x)),
    "arccos": _unary(lambda e, x: neg(call("rsqrt", _c(1, x) - x * x))),
    "arctan": _unary(lambda e, x: _over(x * x + _c(1, x))),
    "sinh": _unary(lambda e, x: call("cosh", x)),
    "cosh": _unary(lambda e, x: call("sinh", x)),
    "arcsinh": _unary(lambda e, x: call("rsqrt", x * x + _c(1, x))),
    "arccosh": _unary(lambda e, x: call("rsqrt", x * x - _c(1, x))),
    "arctanh": _unary(lambda e, x: _over(_c(1, x) - x * x)),
    "abs": _unary(lambda e, x: call("sign", x)),
    "floor": _step, "ceil": _step, "trunc": _step, "round": _step, "sign": _step,
    "pow": _pow,
    "fmod": _fmod,
    "fma": _fma,
}  # fmt: skip

EXACT = frozenset(("const", "var", "load", "select", "neg", "min", "max"))


def is_reproducible(e: Expr) -> bool:
    """Whether computing `e` again gives the same bits, however it is compiled: it rounds nowhere. (A product and a sum may be
    contracted in one kernel and not in the other.)"""
    floats = (n for n in walk(e) if n.dtype.is_float)
    return all(n.op in EXACT or (n.op == "call" and n.value == "abs") or _widens(n) for n in floats)


def _widens(e: Expr) -> bool:
    return e.op == "cast" and e.args[0].dtype.is_float and e.dtype.bits >= e.args[0].dtype.bits


