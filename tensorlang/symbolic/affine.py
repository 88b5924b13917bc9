"""Integer expressions as polynomials: the view in which like terms collect and linear forms are read off.

    io*8 + ii + 8 - ii   ->   {(io,): 8, (): 8}
    i*N + j              ->   {(i, N): 1, (j,): 1}

A polynomial maps monomials (sorted tuples of *atoms*, `()` for the constant) to integer coefficients. An atom is whatever
is not `+ - *` of 64-bit integers: a variable, a load, `x // 8`, `min(a, b)`, ... Zero coefficients are never stored. The
dictionaries are shared by a memo: treat them as immutable.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from tensorlang.ir.dtype import i64
from tensorlang.ir.expr import Expr, add, const, mul, sub
from tensorlang.ir.visitor import walk

Monomial = tuple[Expr, ...]
Poly = Mapping[Monomial, int]

ONE: Monomial = ()
_MAX_TERMS = 64  # a product that would expand to more stays an atom
_MEMO_LIMIT = 50_000
_memo: dict[Expr, Poly] = {}
_keys: dict[Expr, tuple[Any, ...]] = {}
_built: dict[frozenset[tuple[Monomial, int]], Expr] = {}


def linear_form(e: Expr, variables: Container[Expr]) -> tuple[dict[Expr, int | Expr], Expr] | None:
    """`e` as `sum(coefficient[v] * v) + rest`, where `rest` and the coefficients are free of `variables`.

    Coefficients are ints where constant, else expressions of other symbols (`i*N`: N). None if `e` is not linear in
    `variables` (one of them is multiplied by another, or stands under `//`, `%`, `min`, a load, ...).
    """
    coefficients: dict[Expr, dict[Monomial, int]] = {}
    rest: dict[Monomial, int] = {}
    for monomial, c in polynomial(e).items():
        found: Expr | None = None
        for atom in monomial:
            if atom in variables:
                if found is not None:
                    return None
                found = atom
            elif atom.args and any(n in variables for n in walk(atom)):
                return None
        if found is None:
            rest[monomial] = c
        else:
            at = monomial.index(found)
            coefficients.setdefault(found, {})[monomial[:at] + monomial[at + 1 :]] = c
    return {v: _int_or_expr(p) for v, p in coefficients.items()}, build(rest)


def _int_or_expr(p: Poly) -> int | Expr:
    c = constant_value(p)
    return build(p) if c is None else c


def is_index(e: Expr) -> bool:
    """Whether `e` is an integer of the index type: a scalar i64, whose arithmetic is taken not to overflow."""
    dtype = e.dtype
    return dtype is i64 or (dtype.name == "i64" and dtype.lanes == 1)


def polynomial(e: Expr) -> Poly:
    """The polynomial of a scalar i64 expression; of any other expression, the expression itself as an atom."""
    global _memo
    memo = _memo
    if (known := memo.get(e)) is not None:
        return known
    if len(memo) > _MEMO_LIMIT:
        memo = _memo = {}  # not cleared: another thread may be in the middle of it
    if not (is_index(e) and e.op in ARITHMETIC):
        found: Poly = integer(e.value) if e.op == "const" and is_index(e) else {(e,): 1}
        memo[e] = found
        return found
    for node in walk(e):
        if node not in memo and node.op in ARITHMETIC and is_index(node):
            memo[node] = combine(node, *(memo.get(a) or polynomial(a) for a in node.args))
    return memo[e]


ARITHMETIC = frozenset(("add", "sub", "mul"))


def combine(node: Expr, a: Poly, b: Poly) -> Poly:
    """The polynomial of `node` (`+`, `-` or `*`) whose operands have the polynomials `a` and `b`."""
    if node.op == "mul":
        return multiply(a, b)
    return plus(a, b) if node.op == "add" else plus(a, b, -1)


def plus(a: Poly, b: Poly, scale: int = 1) -> Poly:
    """a + scale * b"""
    if not b or not scale:
        return a
    out = dict(a)
    for monomial, c in b.items():
        if total := out.get(monomial, 0) + scale * c:
            out[monomial] = total
        else:
            del out[monomial]
    return out


def times(a: Poly, k: int) -> Poly:
    """k * a"""
    return a if k == 1 else {m: c * k for m, c in a.items()} if k else {}


def multiply(a: Poly, b: Poly) -> Poly:
    """a * b; one atom where expanding would explode"""
    for p, q in ((a, b), (b, a)):
        if (k := constant_value(p)) is not None:
            return times(q, k)
    if len(a) * len(b) > _MAX_TERMS:
        x, y = sorted((build(a), build(b)), key=order_key)
        return {(mul(x, y),): 1}
    out: dict[Monomial, int] = {}
    for m, c in a.items():
        for n, d in b.items():
            both = tuple(sorted(m + n, key=order_key)) if m and n else m or n
            if total := out.get(both, 0) + c * d:
                out[both] = total
            else:
                del out[both]
    return out


def integer(k: int) -> Poly:
    """The constant polynomial k."""
    return {ONE: k} if k else {}


def constant_value(p: Poly) -> int | None:
    """The value of a constant polynomial."""
    if not p:
        return 0
    return p.get(ONE) if len(p) == 1 else None


def split_atom(p: Poly, atom: Expr) -> tuple[Poly, Poly] | None:
    """(c, r) with `p == c * atom + r`, both free of the factor `atom`; None if `p` is not linear in it."""
    c: dict[Monomial, int] = {}
    r: dict[Monomial, int] = {}
    for monomial, k in p.items():
        n = monomial.count(atom)
        if n == 0:
            r[monomial] = k
        elif n == 1:
            at = monomial.index(atom)
            c[monomial[:at] + monomial[at + 1 :]] = k
        else:
            return None
    return c, r


def order_key(e: Expr) -> tuple[Any, ...]:
    """A total order on atoms, the same in every process: variables by age, then the rest by structure."""
    global _keys
    keys = _keys
    if (key := keys.get(e)) is not None:
        return key
    if len(keys) > _MEMO_LIMIT:
        keys = _keys = {}
    for node in walk(e):
        if node.op == "var":
            keys[node] = (0, node.value[1], node.value[0], ())
        else:
            what = node.value.name if node.op == "load" else "" if node.value is None else str(node.value)
            keys[node] = (1 + (node.op == "const"), 0, f"{node.op} {what}", tuple(keys[a] for a in node.args))
    return keys[e]


def _term_key(term: tuple[Monomial, int]) -> tuple[Any, ...]:
    """Positive terms first, large strides before small ones, so that an index reads `io*8 + ii`."""
    monomial, c = term
    return (c < 0, -len(monomial), -abs(c), [order_key(a) for a in monomial])


def build(p: Poly) -> Expr:
    """The canonical expression of a polynomial: sorted terms, the constant last."""
    key = frozenset(p.items())
    if (found := _built.get(key)) is None:
        if len(_built) > _MEMO_LIMIT:
            _built.clear()
        found = _built[key] = _build(p)
        _memo[found] = p
    return found


def _build(p: Poly) -> Expr:
    constant = p.get(ONE, 0)
    terms = [t for t in p.items() if t[0]]
    if len(terms) > 1:
        terms.sort(key=_term_key)
    total: Expr | None = None
    if terms and terms[0][1] < 0 and constant > 0:  # 7 - i
        total, constant = const(constant), 0
    for monomial, c in terms:
        product = monomial[0]
        for atom in monomial[1:]:
            product = mul(product, atom)
        if c != 1 and c != -1:
            product = mul(product, abs(c))
        if total is None:
            total = product if c > 0 else sub(0, product)
        else:
            total = add(total, product) if c > 0 else sub(total, product)
    if total is None:
        return const(constant)
    return add(total, constant) if constant else total
