"""Expressions: one interned, immutable class. Equal expressions are the same object, so `is` is structural equality.

Grammar (integers are i64 unless cast; `//` and `%` have Python's floor semantics):

    e ::= const | var | buffer[e, ...]                     load
        | e + e | e - e | e * e | e / e | e // e | e % e | -e | min(e, e) | max(e, e)
        | e == e | e != e | e < e | e <= e | and(e, e) | or(e, e) | not(e)
        | select(cond, e, e)                               only the chosen arm is evaluated
        | cast(dtype, e) | name(e, ...)                    a pure intrinsic of `intrinsics.INTRINSICS`
        | ramp(base, stride) | broadcast(e)                vectors, made by lowering; lanes are in the dtype
        | reduce(kind, axes, e)                            in tensor expressions only, as the outermost operation

`==` on expressions is identity, so that they can be keys; the node is built by `eq(a, b)`.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import numpy as np

from tensorlang.errors import TypeCheckError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import DType, bool_, dtype as as_dtype, f32, i32, i64, promote
from tensorlang.ir.intrinsics import INTRINSICS

BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "floormod": "%"}
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<="}

_TABLE: WeakValueDictionary[tuple, Expr] = WeakValueDictionary()
_SERIAL = count()


class Expr:
    """One node. Build with the functions of this module, never directly.

    Attributes:
        op: the operation's name (see the grammar).
        args: operand expressions.
        value: what else identifies the node: a constant's value, a variable's (name, serial), a load's buffer, an
            intrinsic's name, a reduction's (kind, axes).
    """

    __slots__ = ("args", "dtype", "op", "value", "__weakref__")
    op: str
    dtype: DType
    args: tuple[Expr, ...]
    value: Any

    # -- arithmetic ------------------------------------------------------------------------------------------------
    def __add__(self, other: ExprLike) -> Expr:
        return add(self, other)

    def __radd__(self, other: ExprLike) -> Expr:
        return add(other, self)

    def __sub__(self, other: ExprLike) -> Expr:
        return sub(self, other)

    def __rsub__(self, other: ExprLike) -> Expr:
        return sub(other, self)

    def __mul__(self, other: ExprLike) -> Expr:
        return mul(self, other)

    def __rmul__(self, other: ExprLike) -> Expr:
        return mul(other, self)

    def __truediv__(self, other: ExprLike) -> Expr:
        return div(self, other)

    def __rtruediv__(self, other: ExprLike) -> Expr:
        return div(other, self)

    def __floordiv__(self, other: ExprLike) -> Expr:
        return floordiv(self, other)

    def __rfloordiv__(self, other: ExprLike) -> Expr:
        return floordiv(other, self)

    def __mod__(self, other: ExprLike) -> Expr:
        return floormod(self, other)

    def __rmod__(self, other: ExprLike) -> Expr:
        return floormod(other, self)

    def __neg__(self) -> Expr:
        return neg(self)

    def __lt__(self, other: ExprLike) -> Expr:
        return lt(self, other)

    def __le__(self, other: ExprLike) -> Expr:
        return le(self, other)

    def __gt__(self, other: ExprLike) -> Expr:
        return lt(other, self)

    def __ge__(self, other: ExprLike) -> Expr:
        return le(other, self)

    def __and__(self, other: ExprLike) -> Expr:
        return and_(self, other) if self.dtype.is_bool else call("bitwise_and", self, other)

    def __or__(self, other: ExprLike) -> Expr:
        return or_(self, other) if self.dtype.is_bool else call("bitwise_or", self, other)

    def __xor__(self, other: ExprLike) -> Expr:
        return ne(self, other) if self.dtype.is_bool else call("bitwise_xor", self, other)

    def __lshift__(self, other: ExprLike) -> Expr:
        return call("left_shift", self, other)

    def __rshift__(self, other: ExprLike) -> Expr:
        return call("right_shift", self, other)

    def __invert__(self) -> Expr:
        return not_(self) if self.dtype.is_bool else call("bitwise_not", self)

    def __bool__(self) -> bool:
        if self.op == "const":
            return bool(self.value)
        fail(
            "a tensor expression has no truth value while the program is being built: "
            "use te.if_then_else(cond, a, b), te.all_of / te.any_of, or & | ~"
        )

    def astype(self, dtype: DType | str) -> Expr:
        return cast(dtype, self)

    def equal(self, other: ExprLike) -> Expr:
        """The condition that both have the same value; `==` is identity."""
        return eq(self, other)

    def __repr__(self) -> str:
        return format_expr(self)

    __str__ = __repr__

    @property
    def name(self) -> str:
        """A variable's name."""
        return self.value[0]


ExprLike = Expr | int | float | bool | np.generic


def fail(message: str) -> NoReturn:
    """Raise `TypeCheckError` that begins with the user's file:line."""
    raise TypeCheckError(f"{user_location()}: {message}")


def user_location() -> str:
    """file:line of the nearest frame outside this package: where the user wrote what we are working on."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith("tensorlang."):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "<unknown>:0"


# -- leaves --------------------------------------------------------------------------------------------------------


def _make(op: str, dtype: DType, args: tuple[Expr, ...] = (), value: Any = None, key: Any = None) -> Expr:
    table_key = (op, dtype.name, dtype.lanes, args, value if key is None else key)
    if (node := _TABLE.get(table_key)) is not None:
        return node
    node = object.__new__(Expr)
    node.op, node.dtype, node.args, node.value = op, dtype, args, value
    _TABLE[table_key] = node
    return node


def const(value: int | float | bool | np.generic, dtype: DType | str | None = None) -> Expr:
    """A constant; without `dtype`, bool, i64 or f32 by the Python type of `value`."""
    if isinstance(value, np.generic):
        dtype = dtype or as_dtype(value.dtype)
        value = value.item()
    if dtype is None:
        dtype = bool_ if isinstance(value, bool) else i64 if isinstance(value, int) else f32
    dtype = as_dtype(dtype)
    if dtype.is_float:
        value = float(value)
        value = value if value == value else math.nan  # one NaN: sign and payload have no text
        return _make("const", dtype, (), value, struct.pack("<d", value))
    value = bool(value) if dtype.is_bool else wrap_int(int(value), dtype)
    return _make("const", dtype, (), value)


def wrap_int(value: int, dtype: DType) -> int:
    """`value` modulo 2**bits, in the range of the integer type `dtype`."""
    if dtype.kind == "u":
        return value & ((1 << dtype.bits) - 1)
    half = 1 << (dtype.bits - 1)
    return value if -half <= value < half else ((value + half) & (2 * half - 1)) - half


def var(name: str, dtype: DType | str = i64) -> Expr:
    """A fresh variable: two calls never give the same one."""
    return _make("var", as_dtype(dtype), (), (name, next(_SERIAL)))


def load(buffer: Buffer, indices: Iterable[ExprLike]) -> Expr:
    index = tuple(wrap(i) for i in indices)
    if len(index) != buffer.ndim:
        fail(f"{buffer.name} has {buffer.ndim} dimension(s) but is indexed with {len(index)}")
    for position, e in enumerate(index):
        if not e.dtype.is_int:
            fail(f"index {position} of {buffer.name} has type {e.dtype}; indices are integers (te.cast it)")
    lanes = max((e.dtype.lanes for e in index), default=1)
    return _make("load", buffer.dtype.with_lanes(lanes), index, buffer)


def wrap(value: ExprLike, like: Expr | None = None) -> Expr:
    """`value` as an expression; a Python number takes the type of `like` where that loses nothing."""
    if isinstance(value, Expr):
        return value
    if type(value) is int and (like is None or like.dtype is i64) and (known := _SMALL.get(value)) is not None:
        return known
    if isinstance(value, bool | np.bool_):
        return const(bool(value))
    if isinstance(value, np.generic):
        return const(value)
    if isinstance(value, int):
        return const(value, like.dtype.scalar if like is not None and not like.dtype.is_bool else i64)
    if isinstance(value, float):
        return const(value, like.dtype.scalar if like is not None and like.dtype.is_float else f32)
    fail(f"{type(value).__name__} is not a scalar expression: {value!r}")


_SMALL = {n: const(n) for n in range(-64, 1025)}  # of i64: what index arithmetic asks for all the time


def is_const(e: Expr, value: int | float | None = None) -> bool:
    return e.op == "const" and (value is None or e.value == value)


# -- operators -----------------------------------------------------------------------------------------------------


def _pair(a: ExprLike, b: ExprLike, what: str) -> tuple[Expr, Expr]:
    x = wrap(a, b if isinstance(b, Expr) else None)
    y = wrap(b, a if isinstance(a, Expr) else None)
    if x.dtype is y.dtype or x.dtype == y.dtype:
        return x, y
    try:
        common = promote(x.dtype, y.dtype)
    except TypeCheckError as error:
        fail(f"{what}: {error}")
    lanes = max(x.dtype.lanes, y.dtype.lanes)
    return _widen(cast(common, x), lanes), _widen(cast(common, y), lanes)


def _widen(e: Expr, lanes: int) -> Expr:
    return e if e.dtype.lanes == lanes else broadcast(e, lanes)


def _arith(op: str, a: ExprLike, b: ExprLike) -> Expr:
    x, y = _pair(a, b, BINARY.get(op, op))
    if x.dtype.is_bool:
        fail(f"{BINARY.get(op, op)} on bool; cast to an integer first")
    if x.dtype.is_int and x.op == "const" and y.op == "const":
        if op in ("floordiv", "floormod") and y.value == 0:
            fail("integer division by constant zero")
        return const(_FOLD[op](x.value, y.value), x.dtype)
    return _make(op, x.dtype, (x, y))


_FOLD: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "floormod": lambda a, b: a % b,
    "min": min,
    "max": max,
}


def add(a: ExprLike, b: ExprLike) -> Expr:
    e = _arith("add", a, b)
    if e.op != "add" or not e.dtype.is_int:
        return e
    x, y = e.args
    if x.op == "const":
        x, y = y, x
    if y.op == "const":
        if y.value == 0:
            return x
        if x.op == "add" and x.args[1].op == "const":
            return add(x.args[0], const(x.args[1].value + y.value, y.dtype))
        return _make("add", e.dtype, (x, y))
    return e


def sub(a: ExprLike, b: ExprLike) -> Expr:
    e = _arith("sub", a, b)
    if e.op != "sub" or not e.dtype.is_int:
        return e
    x, y = e.args
    if y.op == "const":
        return add(x, const(-y.value, y.dtype))
    return const(0, e.dtype) if x is y and e.dtype.lanes == 1 else e


def mul(a: ExprLike, b: ExprLike) -> Expr:
    e = _arith("mul", a, b)
    if e.op != "mul" or not e.dtype.is_int:
        return e
    x, y = e.args
    if x.op == "const":
        x, y = y, x
    if y.op == "const":
        if y.value == 0 or y.value == 1:
            return y if y.value == 0 else x
        if x.op == "mul" and x.args[1].op == "const":
            return mul(x.args[0], const(x.args[1].value * y.value, y.dtype))
        return _make("mul", e.dtype, (x, y))
    return e


def div(a: ExprLike, b: ExprLike) -> Expr:
    """True division, of floating-point operands only."""
    x, y = _pair(a, b, "/")
    if not x.dtype.is_float:
        fail(f"/ on {x.dtype}: use // for integers, or cast to a floating-point type first")
    return _make("div", x.dtype, (x, y))


def floordiv(a: ExprLike, b: ExprLike) -> Expr:
    e = _arith("floordiv", a, b)
    if e.op == "floordiv" and e.dtype.is_int and is_const(e.args[1], 1):
        return e.args[0]
    return e


def floormod(a: ExprLike, b: ExprLike) -> Expr:
    e = _arith("floormod", a, b)
    if e.op == "floormod" and e.dtype.is_int and is_const(e.args[1], 1):
        return const(0, e.dtype)
    return e


def neg(a: ExprLike) -> Expr:
    x = wrap(a)
    return sub(const(0, x.dtype), x) if x.dtype.is_int else _make("neg", x.dtype, (x,))


def minimum(a: ExprLike, b: ExprLike) -> Expr:
    """The smaller operand; NaN if either is NaN (NumPy's `minimum`)."""
    e = _arith("min", a, b)
    return e.args[0] if e.op == "min" and e.args[0] is e.args[1] else e


def maximum(a: ExprLike, b: ExprLike) -> Expr:
    """The larger operand; NaN if either is NaN (NumPy's `maximum`)."""
    e = _arith("max", a, b)
    return e.args[0] if e.op == "max" and e.args[0] is e.args[1] else e


_COMPARE_FOLD: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
}


def _compare(op: str, a: ExprLike, b: ExprLike) -> Expr:
    x, y = _pair(a, b, COMPARE[op])
    if x.op == "const" and y.op == "const":
        return const(_COMPARE_FOLD[op](x.value, y.value))
    return _make(op, bool_.with_lanes(x.dtype.lanes), (x, y))


def eq(a: ExprLike, b: ExprLike) -> Expr:
    return _compare("eq", a, b)


def ne(a: ExprLike, b: ExprLike) -> Expr:
    return _compare("ne", a, b)


def lt(a: ExprLike, b: ExprLike) -> Expr:
    return _compare("lt", a, b)


def le(a: ExprLike, b: ExprLike) -> Expr:
    return _compare("le", a, b)


def _logical(e: ExprLike, what: str) -> Expr:
    x = wrap(e)
    if not x.dtype.is_bool:
        fail(f"{what} of {x.dtype}; a condition is bool (compare it with something)")
    return x


def and_(a: ExprLike, b: ExprLike) -> Expr:
    x, y = _logical(a, "and"), _logical(b, "and")
    for p, q in ((x, y), (y, x)):
        if p.op == "const":
            return q if p.value else p
    return x if x is y else _make("and", bool_.with_lanes(max(x.dtype.lanes, y.dtype.lanes)), (x, y))


def or_(a: ExprLike, b: ExprLike) -> Expr:
    x, y = _logical(a, "or"), _logical(b, "or")
    for p, q in ((x, y), (y, x)):
        if p.op == "const":
            return p if p.value else q
    return x if x is y else _make("or", bool_.with_lanes(max(x.dtype.lanes, y.dtype.lanes)), (x, y))


def not_(a: ExprLike) -> Expr:
    x = _logical(a, "not")
    if x.op == "const":
        return const(not x.value)
    return x.args[0] if x.op == "not" else _make("not", x.dtype, (x,))


def select(cond: ExprLike, a: ExprLike, b: ExprLike) -> Expr:
    """`a` where `cond` holds, else `b`; the other arm is not evaluated, so it may read out of bounds."""
    c = _logical(cond, "select")
    x, y = _pair(a, b, "select")
    if c.op == "const":
        return x if c.value else y
    return x if x is y else _make("select", x.dtype.with_lanes(max(c.dtype.lanes, x.dtype.lanes)), (c, x, y))


def cast(dtype: DType | str, e: ExprLike) -> Expr:
    """Conversion; floating point to integer truncates toward zero."""
    x = wrap(e)
    to = as_dtype(dtype).with_lanes(x.dtype.lanes)
    if to == x.dtype:
        return x
    if x.op == "const" and x.dtype.is_int and (to.is_float or to.is_int):
        if to.is_float:
            return const(float(x.value), to)
        low, high = (-(1 << (to.bits - 1)), 1 << (to.bits - 1)) if to.kind == "i" else (0, 1 << to.bits)
        if low <= x.value < high:
            return const(x.value, to)
    return _make("cast", to, (x,))


def call(name: str, *args: ExprLike, dtype: DType | None = None) -> Expr:
    """A pure intrinsic; its result has the type of the first argument unless `dtype` says otherwise."""
    operands = tuple(wrap(a, args[0] if isinstance(args[0], Expr) else None) for a in args)
    result = dtype or call_dtype(name, operands)
    if result is None:
        fail(f"{name}() without arguments needs dtype=")
    return _make("call", result, operands, name)


def call_dtype(name: str, args: tuple[Expr, ...]) -> DType | None:
    """The type of an intrinsic's result, unless the call says otherwise; None without arguments."""
    if not args:
        return None
    known = INTRINSICS.get(name)
    if known is not None and known.result == "scalar":
        return args[0].dtype.scalar
    scalar = args[0].dtype if known is None else {"bool": bool_, "i32": i32, "f32": f32}.get(known.result, args[0].dtype)
    return scalar.with_lanes(max(a.dtype.lanes for a in args))


def ramp(base: ExprLike, stride: ExprLike, lanes: int) -> Expr:
    b, s = _pair(base, stride, "ramp")
    return b if lanes == 1 else _make("ramp", b.dtype.with_lanes(lanes), (b, s))


def broadcast(e: ExprLike, lanes: int) -> Expr:
    x = wrap(e)
    return x if lanes == 1 else _make("broadcast", x.dtype.with_lanes(lanes), (x,))


def reduce(kind: Any, source: ExprLike | Sequence[ExprLike], axes: tuple[Expr, ...], dtype: DType | None = None) -> Expr:
    """A reduction over iteration variables (tensor expressions only).

    Args:
        kind: sum, prod, max, min, any, all, or an object that te gives a meaning (a part of a reducer of tuples).
        source: what is reduced; of such an object, all that it takes.
        dtype: of the result; by default that of the first source.
    """
    sources = tuple(wrap(x) for x in source) if isinstance(source, Sequence) else (wrap(source),)
    return _make("reduce", dtype or sources[0].dtype, sources, (kind, tuple(axes)))


def rebuild(e: Expr, args: tuple[Expr, ...]) -> Expr:
    """`e` with other operands, through the folding constructors."""
    if args == e.args:
        return e
    builder = _REBUILD.get(e.op)
    if builder is not None:
        return builder(*args)
    if e.op == "load":
        return load(e.value, args)
    if e.op == "cast":
        return cast(e.dtype.scalar, args[0])
    if e.op == "call":
        inferred = call_dtype(e.value, args)
        if inferred is None or e.dtype != call_dtype(e.value, e.args):  # the call said otherwise
            inferred = e.dtype.with_lanes(max((a.dtype.lanes for a in args), default=1))
        return _make("call", inferred, args, e.value)
    if e.op in ("ramp", "broadcast"):
        return _make(e.op, e.dtype, args)
    if e.op == "reduce":
        return _make("reduce", e.dtype, args, e.value)
    raise TypeCheckError(f"cannot rebuild {e.op}")


_REBUILD: dict[str, Callable[..., Expr]] = {
    "add": add, "sub": sub, "mul": mul, "div": div, "floordiv": floordiv, "floormod": floormod, "neg": neg,
    "min": minimum, "max": maximum, "eq": eq, "ne": ne, "lt": lt, "le": le, "and": and_, "or": or_, "not": not_,
    "select": select,
}  # fmt: skip


# -- text ----------------------------------------------------------------------------------------------------------

LOGICAL = {"and": "all_of", "or": "any_of", "not": "not_"}
_ATOM = 9
_PRECEDENCE = {
    "eq": 2, "ne": 2, "lt": 2, "le": 2, "add": 3, "sub": 3, "mul": 4, "div": 4, "floordiv": 4, "floormod": 4, "neg": 5,
}  # fmt: skip


def format_const(e: Expr) -> str:
    """A constant as text that parses back: i64, f32 and bool bare, other types as `dtype(value)`."""
    value = e.value
    if e.dtype.is_float and (value != value or value in (float("inf"), float("-inf"))):
        text = f'float("{value}")'
    else:
        text = repr(value)
    return text if e.dtype in (i64, f32, bool_) else f"{e.dtype}({text})"


def format_expr(
    e: Expr, names: Callable[[Expr], str] | None = None, buffers: Callable[[Buffer], str] | None = None
) -> str:
    """`e` as Python text, which `parser` reads back. `names` and `buffers` spell variables and buffers (default: their
    own names)."""
    name_of = names or (lambda v: v.value[0])
    name_of_buffer = buffers or (lambda b: b.name)
    done: dict[Expr, tuple[str, int]] = {}  # text and precedence; bottom-up, because expressions may be deep

    def at(x: Expr, level: int) -> str:
        text, mine = done[x]
        return f"({text})" if mine < level else text

    def show(x: Expr) -> tuple[str, int]:
        op, args = x.op, x.args
        if op == "const":
            return format_const(x), _ATOM
        if op == "var":
            return name_of(x), _ATOM
        if op in BINARY:
            mine = _PRECEDENCE[op]
            return f"{at(args[0], mine)} {BINARY[op]} {at(args[1], mine + 1)}", mine
        if op in COMPARE:  # operands one level up: Python would chain `a < b == c`
            return f"{at(args[0], 3)} {COMPARE[op]} {at(args[1], 3)}", _PRECEDENCE[op]
        if op == "neg" and args[0].op != "const":  # -1.0 is a constant, neg(1.0) is not
            return f"-{at(args[0], 5)}", _PRECEDENCE[op]
        inner = ", ".join(at(a, 0) for a in args)
        if op == "load":
            return f"{name_of_buffer(x.value)}[{inner or '()'}]", _ATOM
        if op == "cast":
            return f"cast({x.dtype.scalar}, {inner})", _ATOM
        if op == "call":
            if x.dtype == call_dtype(x.value, args) and x.value.isidentifier():
                return f"{x.value}({inner})", _ATOM
            return f'call({", ".join([str(x.dtype), repr(x.value), *([inner] if args else [])])})', _ATOM
        if op in ("ramp", "broadcast"):
            return f"{op}({inner}, {x.dtype.lanes})", _ATOM
        if op == "reduce":
            kind, axes = x.value
            return f"{kind}({inner}, axis=[{', '.join(name_of(a) for a in axes)}])", _ATOM
        return f"{LOGICAL.get(op, op)}({inner})", _ATOM

    stack = [(e, False)]
    while stack:
        node, operands_done = stack.pop()
        if operands_done:
            done[node] = show(node)
        elif node not in done:
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args))
    return done[e][0]
