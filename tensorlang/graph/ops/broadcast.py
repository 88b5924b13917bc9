"""Elementwise operators of several inputs under NumPy broadcasting: output[i] = f(a[i], b[i], ...)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType, Value
from tensorlang.graph.ops.common import (
    at,
    broadcast_constraints,
    broadcast_dims,
    broadcast_shape,
    canonical,
    known,
    map_data,
    require,
)  # fmt: skip
from tensorlang.graph.registry import ELEMENTWISE, Op, op
from tensorlang.ir.dtype import DType, bool_
from tensorlang.ir.expr import Expr, and_, call, eq, floordiv, floormod, le, lt, maximum, minimum, ne, not_, or_, select

Body = Callable[[Expr, Expr], Expr]


class Binary(Op):
    """output[i] = body(a[i], b[i]); both inputs have one dtype.

    Attributes:
        content: on elements of known contents, or None if they are not integers.
        result: the output's dtype, if not the inputs'.
    """

    body: Callable[..., Expr]
    reference: Callable[..., np.ndarray]
    content: Callable[..., Any] | None = None
    result: DType | None = None
    accepts: str = "iuf"

    def infer(self, a: TensorType, b: TensorType, **attrs: Any) -> list[TensorType]:
        require(a.dtype == b.dtype, f"{self.name} of {a.dtype} and {b.dtype}: the operands have one type")
        require(a.dtype.kind in self.accepts, f"{self.name} of {a.dtype} has no meaning")
        return [TensorType(self.result or a.dtype, broadcast_dims([a.shape, b.shape], self.name))]

    def constraints(self, a: TensorType, b: TensorType, **attrs: Any) -> list[tuple[Expr, Expr]]:
        return broadcast_constraints([a.shape, b.shape])

    def te(self, a: te.Tensor, b: te.Tensor, **attrs: Any) -> te.Tensor:
        body, shape = type(self).body, broadcast_shape(a, b)
        return te.compute(shape, lambda *i: body(at(a, i, shape), at(b, i, shape), **attrs), name=_stage_name(self.name))

    def numpy(self, a: np.ndarray, b: np.ndarray, **attrs: Any) -> np.ndarray:
        result = np.asarray(type(self).reference(np.asarray(a), np.asarray(b), **attrs))
        return result.astype(bool if self.result else np.asarray(a).dtype, copy=False)

    def data(self, a: Value, b: Value, **attrs: Any) -> list[np.ndarray | None] | None:
        content = type(self).content
        if content is None or (contents := known(a, b)) is None:
            return None
        return [map_data(lambda p, q: content(p, q, **attrs), *contents)]


def _stage_name(name: str) -> str:
    return name if name not in ("and", "or") else f"logical_{name}"


def binary(
    name: str,
    body: Callable[..., Expr],
    reference: Callable[..., Any],
    content: Callable[..., Any] | None = None,
    result: DType | None = None,
    accepts: str = "iuf",
) -> None:
    """Register an operator output[i] = body(a[i], b[i])."""
    members = {
        "body": staticmethod(body),
        "reference": staticmethod(reference),
        "content": None if content is None else staticmethod(content),
        "result": result,
        "accepts": accepts,
        "__doc__": f"{name}(a, b), elementwise with broadcasting.",
    }
    op(name, ELEMENTWISE)(type(name.title().replace("_", ""), (Binary,), members))


def truncdiv(a: Expr, b: Expr) -> Expr:
    """Integer division toward zero, on known contents: `//` where both are non-negative for certain."""
    if a.op == "const" and b.op == "const":
        q = abs(a.value) // abs(b.value)
        return a * 0 + (q if (a.value < 0) == (b.value < 0) else -q)
    if canonical(a >= 0).op == "const" and canonical(a >= 0).value and canonical(b > 0).op == "const":
        return floordiv(a, b)
    return te.truncdiv(a, b)


def _divide(a: Expr, b: Expr) -> Expr:
    return a / b if a.dtype.is_float else te.truncdiv(a, b)


def _np_divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f" or a.dtype.kind == "V":
        return a / b
    quotient = np.abs(a) // np.abs(b)
    return np.where((a < 0) != (b < 0), -quotient, quotient) if a.dtype.kind == "i" else a // b


def _remainder(a: Expr, b: Expr) -> Expr:
    """a - b * (a / b toward zero), of the sign of a.

    Floating point in f64, exact up to quotients of 2^53: the product is fused, and a quotient that was rounded to the next
    whole number shows in the sign.
    """
    if not a.dtype.is_float:
        return a - te.truncdiv(a, b) * b
    x, y, zero = te.cast("f64", a), te.cast("f64", b), te.const(0.0, "f64")
    rest = te.fma(-te.trunc(x / y), y, x)
    wrong = and_(ne(rest, zero), ne(lt(rest, zero), lt(x, zero)))
    rest = select(wrong, rest + select(ne(lt(x, zero), lt(y, zero)), -y, y), rest)
    return te.cast(a.dtype, select(and_(te.isinf(y), not_(te.isinf(x))), x, rest))


def _modulo(a: Expr, b: Expr, fmod: bool = False) -> Expr:
    """The remainder with the sign of the divisor, or with `fmod` that of the dividend."""
    if fmod:
        return _remainder(a, b)
    if not a.dtype.is_float:
        return floormod(a, b)
    rest, zero = _remainder(a, b), te.const(0, a.dtype)
    return select(and_(ne(rest, zero), ne(lt(rest, zero), lt(b, zero))), rest + b, rest)


def _power(a: Expr, b: Expr) -> Expr:
    """a ** b. Of integers by squaring: exact where the result fits; else its low bits, for exponents below 64."""
    if a.dtype.is_float:
        return call("pow", a, b)
    one, zero = te.const(1, a.dtype), te.const(0, a.dtype)
    exponent = te.cast("i64", b)
    parity = call("bitwise_and", exponent, te.const(1, "i64"))
    far = 62 + parity  # only 0, 1 and -1 have such powers, and those depend on parity alone
    left = select(lt(exponent, te.const(0, "i64")), parity, te.minimum(exponent, far))
    result, square = one, a
    for bit in range(6):
        odd = ne(call("bitwise_and", left, te.const(1 << bit, "i64")), te.const(0, "i64"))
        result = select(odd, result * square, result)
        square = square * square
    if b.dtype.kind == "u":
        return result
    unit = eq(a, one) if a.dtype.kind == "u" else or_(eq(a, one), eq(a, -one))
    return select(and_(lt(exponent, te.const(0, "i64")), not_(unit)), zero, result)


def _np_power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind not in "iu" or b.dtype.kind == "u" or (b >= 0).all():
        return np.power(a, b)
    unit = (a == 1) | (a == -1)
    return np.where(b < 0, np.where(unit, np.power(a, np.abs(b)), 0), np.power(a, np.maximum(b, 0)))


def _np_modulo(a: np.ndarray, b: np.ndarray, fmod: bool = False) -> np.ndarray:
    if a.dtype.kind in "iu" or fmod:
        return np.fmod(a, b) if fmod else np.mod(a, b)
    rest = np.fmod(a, b)
    return np.where((rest != 0) & ((rest < 0) != (b < 0)), rest + b, rest)


binary("add", lambda a, b: a + b, np.add, lambda a, b: a + b)
binary("sub", lambda a, b: a - b, np.subtract, lambda a, b: a - b)
binary("mul", lambda a, b: a * b, np.multiply, lambda a, b: a * b)
binary("div", _divide, _np_divide, truncdiv)
binary("pow", _power, _np_power)
binary("minimum", minimum, np.minimum, minimum)
binary("maximum", maximum, np.maximum, maximum)
binary("mod", _modulo, _np_modulo, lambda a, b, fmod=False: floormod(a, b))
binary("equal", eq, np.equal, eq, bool_, "iufb")
binary("not_equal", ne, np.not_equal, ne, bool_, "iufb")
binary("less", lt, np.less, lt, bool_)
binary("less_equal", le, np.less_equal, le, bool_)
binary("greater", lambda a, b: lt(b, a), np.greater, lambda a, b: lt(b, a), bool_)
binary("greater_equal", lambda a, b: le(b, a), np.greater_equal, lambda a, b: le(b, a), bool_)
binary("and", and_, np.logical_and, and_, bool_, "b")
binary("or", or_, np.logical_or, or_, bool_, "b")
binary("xor", ne, np.logical_xor, ne, bool_, "b")
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    binary(_name, lambda a, b, _name=_name: call(_name, a, b), getattr(np, _name), accepts="iu")


def _shift(name: str) -> None:
    """Shifts by less than 0 or by the width and more move every bit out: 0 is left, or the sign of what goes right."""

    def body(a: Expr, b: Expr) -> Expr:
        inside = and_(le(te.const(0, b.dtype), b), lt(b, te.const(a.dtype.bits, b.dtype)))
        last = te.const(a.dtype.bits - 1, b.dtype)
        moved = call(name, a, select(inside, b, last))
        if name == "right_shift" and a.dtype.kind == "i":
            return moved
        return select(inside, moved, te.const(0, a.dtype))

    def reference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        bits = 8 * a.dtype.itemsize
        inside = (b >= 0) & (b < bits)
        moved = getattr(np, name)(a, np.where(inside, b, bits - 1).astype(b.dtype))
        return moved if name == "right_shift" and a.dtype.kind == "i" else np.where(inside, moved, 0)

    binary(name, body, reference, accepts="iu")


_shift("left_shift")
_shift("right_shift")


@op("prelu", ELEMENTWISE)
class Prelu(Op):
    """x where it is not negative, else x * slope; the slope broadcasts to x."""

    def infer(self, x: TensorType, slope: TensorType) -> list[TensorType]:
        require(x.dtype == slope.dtype, f"prelu of {x.dtype} with a slope of {slope.dtype}")
        return [TensorType(x.dtype, broadcast_dims([x.shape, slope.shape], "prelu"))]

    def constraints(self, x: TensorType, slope: TensorType) -> list[tuple[Expr, Expr]]:
        return broadcast_constraints([x.shape, slope.shape])

    def te(self, x: te.Tensor, slope: te.Tensor) -> te.Tensor:
        shape = broadcast_shape(x, slope)

        def element(*i: Expr) -> Expr:
            e = at(x, i, shape)
            return te.select(e < te.const(0, e.dtype), e * at(slope, i, shape), e)

        return te.compute(shape, element, name="prelu")

    def numpy(self, x: np.ndarray, slope: np.ndarray) -> np.ndarray:
        return np.where(x < 0, x * slope, x)


@op("where", ELEMENTWISE)
class Where(Op):
    """a where the condition holds, else b."""

    def infer(self, condition: TensorType, a: TensorType, b: TensorType) -> list[TensorType]:
        require(condition.dtype.is_bool, f"where: the condition is {condition.dtype}, not bool")
        require(a.dtype == b.dtype, f"where: branches of {a.dtype} and {b.dtype}")
        return [TensorType(a.dtype, broadcast_dims([condition.shape, a.shape, b.shape], "where"))]

    def constraints(self, condition: TensorType, a: TensorType, b: TensorType) -> list[tuple[Expr, Expr]]:
        return broadcast_constraints([condition.shape, a.shape, b.shape])

    def te(self, condition: te.Tensor, a: te.Tensor, b: te.Tensor) -> te.Tensor:
        shape = broadcast_shape(condition, a, b)
        return te.compute(
            shape,
            lambda *i: te.select(at(condition, i, shape), at(a, i, shape), at(b, i, shape)),
            name="where",
        )

    def numpy(self, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(condition, a, b)

    def data(self, condition: Value, a: Value, b: Value) -> list[np.ndarray | None] | None:
        contents = known(condition, a, b)
        if contents is None:
            return None

        def element(c: Expr, p: Expr, q: Expr) -> Expr:
            if p.dtype.is_bool:
                return or_(and_(c, p), and_(not_(c), q))
            return select(c, p, q)

        return [map_data(element, *contents)]
