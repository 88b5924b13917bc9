"""What names and operators mean inside `@te.hybrid`, where an operand may be an expression or plain Python."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from typing import Any

from tensorlang.ir.dtype import DType
from tensorlang.ir.expr import Expr, and_, eq, fail, ne, not_, or_, select, wrap
from tensorlang.te import math

HELPERS = "__hybrid__"  # under which rewritten expressions find `Helpers`


@dataclass(frozen=True, eq=False)
class Declared:
    """A tensor that the function makes."""

    shape: Any
    dtype: DType
    is_output: bool


@dataclass(frozen=True, eq=False)
class Range:
    """The iterations low, low + 1, ... below high."""

    low: Expr | int
    high: Expr | int


def _range(*ends: Any) -> Range:
    if not 1 <= len(ends) <= 2:
        fail("range takes its end, or its beginning and end; for a stride, multiply inside")
    low, high = (0, ends[0]) if len(ends) == 1 else ends
    for e in (low, high):
        if not (isinstance(e, Expr) and e.dtype.is_int or isinstance(e, int)):
            fail(f"range of {type(e).__name__}: its ends are integers")
    return Range(low, high)


def _extremum(name: str) -> Any:
    def apply(*args: Any) -> Any:
        if not builtins.any(isinstance(a, Expr) for a in args):
            return getattr(builtins, name)(*args)
        join = math.maximum if name == "max" else math.minimum
        result = args[0]
        for a in args[1:]:
            result = join(result, a)
        return result

    return apply


def _cast(dtype: str, plain: Any) -> Any:
    return lambda value: math.cast(dtype, value) if isinstance(value, Expr) else plain(value)


def _abs(value: Any) -> Any:
    return math.abs(value) if isinstance(value, Expr) else builtins.abs(value)


def _const_range(*ends: int) -> range:
    return range(*ends)


BUILT_INS: dict[str, Any] = {
    "range": _range, "min": _extremum("min"), "max": _extremum("max"), "abs": _abs, "float": _cast("f32", float),
    "int": _cast("i64", int),
}  # fmt: skip

_FUNCTIONS = ("exp", "log", "sqrt", "rsqrt", "tanh", "sigmoid", "power", "round", "likely")


def _function(name: str) -> Any:
    if name == "power":
        return math.pow
    return (lambda value: value) if name == "likely" else getattr(math, name)


# Names that classic TVM's hybrid script knows without an import; a name of the user's own hides them.
CLASSIC: dict[str, Any] = {"const_range": _const_range, **{n: _function(n) for n in _FUNCTIONS}}


class Helpers:
    """What `and`, `or`, `not`, `==` and conditional expressions are rewritten to."""

    @staticmethod
    def all_of(*conditions: Any) -> Any:
        """The conjunction; of plain Python values, Python's."""
        return _joined(conditions, and_, builtins.all)

    @staticmethod
    def any_of(*conditions: Any) -> Any:
        """The disjunction; of plain Python values, Python's."""
        return _joined(conditions, or_, builtins.any)

    @staticmethod
    def negated(condition: Any) -> Any:
        """not"""
        return not_(condition) if isinstance(condition, Expr) else not condition

    @staticmethod
    def equal(a: Any, b: Any) -> Any:
        """=="""
        return eq(a, b) if isinstance(a, Expr) or isinstance(b, Expr) else a == b

    @staticmethod
    def not_equal(a: Any, b: Any) -> Any:
        """!="""
        return ne(a, b) if isinstance(a, Expr) or isinstance(b, Expr) else a != b

    @staticmethod
    def chosen(condition: Any, a: Any, b: Any) -> Any:
        """a if condition else b"""
        return select(condition, a, b) if isinstance(condition, Expr) else (a if condition else b)


def _joined(conditions: tuple[Any, ...], join: Any, plain: Any) -> Any:
    if not builtins.any(isinstance(c, Expr) for c in conditions):
        return plain(conditions)
    result = wrap(conditions[0])
    for c in conditions[1:]:
        result = join(result, wrap(c))
    return result
