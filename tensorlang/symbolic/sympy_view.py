"""Shapes as sympy expressions: comparison, exact division and small equation systems of products of symbols.

The only module that loads sympy. sympy's own `Mod` miscompiles integer arithmetic (`Mod(6*Mod(i, 4), 64)`), so `//`, `%`, `min`
and `max` are opaque functions here, and rewriting is by `xreplace`, never `subs`. Symbols stand for sizes: positive integers.
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary, WeakValueDictionary

import sympy

from tensorlang.errors import InternalError
from tensorlang.ir.expr import Expr, const, eq, floordiv, floormod, maximum, minimum, wrap
from tensorlang.ir.visitor import free_vars, substitute, walk
from tensorlang.symbolic.affine import build, constant_value, is_index, linear_form, polynomial
from tensorlang.symbolic.interval import SIZE, Extent, Ranges
from tensorlang.symbolic.simplify import simplify


class FloorDiv(sympy.Function):
    """a // b, opaque."""

    nargs = 2
    is_integer = True


class FloorMod(sympy.Function):
    """a % b, opaque."""

    nargs = 2
    is_integer = True


class Minimum(sympy.Function):
    nargs = 2
    is_integer = True


class Maximum(sympy.Function):
    nargs = 2
    is_integer = True


_FUNCTIONS = {"floordiv": FloorDiv, "floormod": FloorMod, "min": Minimum, "max": Maximum}
_BUILDERS = {FloorDiv: floordiv, FloorMod: floormod, Minimum: minimum, Maximum: maximum}
_symbols: WeakKeyDictionary[Expr, sympy.Symbol] = WeakKeyDictionary()
_exprs: WeakValueDictionary[sympy.Symbol, Expr] = WeakValueDictionary()


def to_sympy(e: Expr) -> sympy.Expr:
    """`e` as a sympy expression; whatever is not integer arithmetic becomes a symbol of its own."""
    memo: dict[Expr, sympy.Expr] = {}
    for n in walk(e):
        if n.op == "const" and is_index(n):
            memo[n] = sympy.Integer(n.value)
        elif not is_index(n) or n.op not in ("add", "sub", "mul", *_FUNCTIONS):
            memo[n] = _symbol(n)
        else:
            a, b = (memo[x] for x in n.args)
            memo[n] = a + b if n.op == "add" else a - b if n.op == "sub" else a * b if n.op == "mul" else _FUNCTIONS[n.op](a, b)
    return memo[e]


def _symbol(e: Expr) -> sympy.Symbol:
    if (found := _symbols.get(e)) is None:
        name = f"{e.name}.{e.value[1]}" if e.op == "var" else f"atom.{len(_symbols)}"
        found = sympy.Symbol(name, integer=True, positive=True) if e.op == "var" else sympy.Dummy(name, integer=True)
        _symbols[e] = found
        _exprs[found] = e
    return found


def from_sympy(s: sympy.Expr) -> Expr:
    """The expression that `s`, made by `to_sympy` and rewritten, stands for, in canonical order.

    Raises:
        InternalError: `s` is not an integer polynomial of symbols and our functions (a fraction was left, say).
    """
    memo: dict[sympy.Basic, Expr] = {}
    for n in sympy.postorder_traversal(s):
        if n in memo:
            continue
        args = [memo[a] for a in n.args if a in memo]
        if n.is_Integer:
            memo[n] = const(int(n))
        elif n.is_Symbol and n in _exprs:
            memo[n] = _exprs[n]
        elif n.is_Add:
            memo[n] = _fold(args, lambda a, b: a + b)
        elif n.is_Mul:
            memo[n] = _fold(args, lambda a, b: a * b)
        elif n.is_Pow and n.exp.is_Integer and n.exp > 0:
            memo[n] = _fold([args[0]] * int(n.exp), lambda a, b: a * b)
        elif n.func in _BUILDERS:
            memo[n] = _BUILDERS[n.func](*args)
        else:
            raise InternalError(f"{s} is not an integer expression (at {n})")
    return build(polynomial(memo[s]))


def _fold(args: list[Expr], join: object) -> Expr:
    result = args[0]
    for a in args[1:]:
        result = join(result, a)  # type: ignore[operator]
    return result


def equal(a: Expr | int, b: Expr | int) -> bool:
    """Whether two symbolic sizes are equal for all values of their symbols (all at least 1). False: not shown."""
    x, y = wrap(a), wrap(b)
    if x is y:
        return True
    sizes = _sizes(x, y)
    difference = simplify(x - y, sizes)
    if difference.op == "const":
        return bool(difference.value == 0)
    return bool(sympy.expand(to_sympy(difference)) == 0)


def exact_quotient(numerator: Expr | int, denominator: Expr | int) -> Expr | None:
    """numerator / denominator, where that is an integer polynomial for all sizes: (a*b*c) / (a*c) = b. Else None."""
    n, d = wrap(numerator), wrap(denominator)
    if n.op == d.op == "const":
        return const(n.value // d.value) if d.value and n.value % d.value == 0 else None
    if d.op == "const" and d.value == 1:
        return build(polynomial(n))
    quotient = sympy.cancel(to_sympy(simplify(n, _sizes(n, d))) / to_sympy(simplify(d, _sizes(n, d))))
    top, bottom = quotient.as_numer_denom()
    return from_sympy(sympy.expand(top)) if bottom == 1 else None


def solve_equal_shapes(
    pairs: Iterable[tuple[Expr | int, Expr | int]],
) -> tuple[dict[Expr, Expr], list[tuple[Expr, Expr]]] | None:
    """Symbols solved from sizes that must be equal.

    [(M, 128), (M*K, M*N)]  ->  ({M: 128, N: K}, [])

    The younger symbol is expressed by the older ones. Equations that no symbol solves come back to be checked at run time.

    Returns:
        (symbol -> value, unsolved pairs), or None if no sizes satisfy the equations.
    """
    solved: dict[Expr, Expr] = {}
    waiting = [(wrap(a), wrap(b)) for a, b in pairs]
    progress = True
    while progress:
        progress = False
        left: list[tuple[Expr, Expr]] = []
        for a, b in waiting:
            x, y = substitute(a, solved), substitute(b, solved)
            difference = _primitive(x - y)
            p = polynomial(difference)
            if (k := constant_value(p)) is not None:
                if k:
                    return None
                continue
            if simplify(eq(difference, 0), _sizes(difference)).op == "const":
                return None  # never 0: the constant case is behind us
            found = _solve_one(difference)
            if found is None:
                left.append((x, y))
                continue
            v, value = found
            solved = {s: simplify(substitute(e, {v: value})) for s, e in solved.items()} | {v: value}
            progress = True
        waiting = left
    return solved, waiting


def _primitive(difference: Expr) -> Expr:
    """`difference` without factors that are positive whatever the sizes: M*K - M*N -> K - N."""
    d = simplify(difference, _sizes(difference))
    p = polynomial(d)
    if len(p) < 2:
        return d
    _, factors = sympy.factor_list(to_sympy(d))
    rest = [f**k for f, k in factors if not f.is_positive]
    return from_sympy(sympy.expand(sympy.Mul(*rest))) if rest else d


def _solve_one(difference: Expr) -> tuple[Expr, Expr] | None:
    """(v, value) with difference == 0 <=> v == value: v has the coefficient 1 or -1 (or k, dividing the rest)."""
    for v in sorted(free_vars(difference), key=lambda v: -v.value[1]):
        form = linear_form(difference, {v})
        if form is None or not isinstance(k := form[0].get(v), int):
            continue
        rest = polynomial(form[1])
        if all(c % k == 0 for c in rest.values()):
            value = build({m: -c // k for m, c in rest.items()})
            low, high = Ranges(_sizes(value)).bounds(polynomial(value))
            if high is None or high >= 1:
                return v, value
    return None


def _sizes(*exprs: Expr) -> dict[Expr, Extent]:
    return {v: SIZE for e in exprs for v in free_vars(e)}
