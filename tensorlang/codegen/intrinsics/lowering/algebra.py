"""The LLVM carrier of `formulas`: values wrap LLVM values, operators emit instructions.

Only `contract` is set: a formula's steps must neither be reassociated nor approximated.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tensorlang.codegen.intrinsics.lowering.registry import declare, is_float, suffix
from tensorlang.codegen.intrinsics.lowering.types import F32, F64, I32, I64

_FLAGS = ("contract",)


def _like(t: ir.Type, element: ir.Type) -> ir.Type:
    return ir.VectorType(element, t.count) if isinstance(t, ir.VectorType) else element


class Value:
    """An LLVM f32, f64, i32 or i1 value, scalar or vector, with Python's operators."""

    __slots__ = ("b", "llvm")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, b: ir.IRBuilder, llvm: Any):
        self.b, self.llvm = b, llvm

    def _other(self, x: Any) -> Any:
        return x.llvm if isinstance(x, Value) else _constant(self.llvm.type, x)

    def _op(self, name: str, x: Any, swap: bool = False) -> Value:
        left, right = (self._other(x), self.llvm) if swap else (self.llvm, self._other(x))
        if is_float(self.llvm.type):
            return Value(self.b, getattr(self.b, "f" + name)(left, right, flags=_FLAGS))
        return Value(self.b, getattr(self.b, name)(left, right))

    def _compare(self, sign: str, x: Any) -> Value:
        if not is_float(self.llvm.type):
            return Value(self.b, self.b.icmp_signed(sign, self.llvm, self._other(x)))
        compare = self.b.fcmp_unordered if sign == "!=" else self.b.fcmp_ordered
        return Value(self.b, compare(sign, self.llvm, self._other(x)))

    def __add__(self, x: Any) -> Value:
        return self._op("add", x)

    def __radd__(self, x: Any) -> Value:
        return self._op("add", x, swap=True)

    def __sub__(self, x: Any) -> Value:
        return self._op("sub", x)

    def __rsub__(self, x: Any) -> Value:
        return self._op("sub", x, swap=True)

    def __mul__(self, x: Any) -> Value:
        return self._op("mul", x)

    def __rmul__(self, x: Any) -> Value:
        return self._op("mul", x, swap=True)

    def __truediv__(self, x: Any) -> Value:
        return self._op("div", x)

    def __rtruediv__(self, x: Any) -> Value:
        return self._op("div", x, swap=True)

    def __neg__(self) -> Value:
        return Value(self.b, self.b.fneg(self.llvm))

    def __and__(self, x: Any) -> Value:
        return Value(self.b, self.b.and_(self.llvm, self._other(x)))

    def __or__(self, x: Any) -> Value:
        return Value(self.b, self.b.or_(self.llvm, self._other(x)))

    def __xor__(self, x: Any) -> Value:
        return Value(self.b, self.b.xor(self.llvm, self._other(x)))

    def __lshift__(self, x: int) -> Value:
        return Value(self.b, self.b.shl(self.llvm, self._other(x)))

    def __rshift__(self, x: int) -> Value:
        return Value(self.b, self.b.ashr(self.llvm, self._other(x)))

    def __lt__(self, x: Any) -> Value:
        return self._compare("<", x)

    def __gt__(self, x: Any) -> Value:
        return self._compare(">", x)

    def __eq__(self, x: Any) -> Value:  # type: ignore[override]
        return self._compare("==", x)

    def __ne__(self, x: Any) -> Value:  # type: ignore[override]
        return self._compare("!=", x)


def _constant(t: ir.Type, value: Any) -> ir.Constant:
    element = t.element if isinstance(t, ir.VectorType) else t
    value = float(value) if is_float(t) else int(value)
    if element == F32:
        value = ir.Constant(F32, value).constant
    return ir.Constant(t, [value] * t.count) if isinstance(t, ir.VectorType) else ir.Constant(t, value)


def _call(name: str, *operands: Value) -> Value:
    b, t = operands[0].b, operands[0].llvm.type
    fn = declare(b, f"llvm.{name}.{suffix(t)}", t, [v.llvm.type for v in operands])
    return Value(b, b.call(fn, [v.llvm for v in operands], fastmath=_FLAGS))


def _machine(name: str, *operands: Value) -> Value:
    """What `native/support.py` defines for each machine, as `tl.<name>.<type>`."""
    b, t = operands[0].b, operands[0].llvm.type
    fn = declare(b, f"tl.{name}.{suffix(t)}", t, [v.llvm.type for v in operands])
    return Value(b, b.call(fn, [v.llvm for v in operands]))


class LLVMAlgebra:
    """The functions of the algebra, in one builder."""

    def __init__(self, b: ir.IRBuilder):
        self.b = b

    def value(self, llvm: Any) -> Value:
        """An LLVM value as a value of the algebra."""
        return Value(self.b, llvm)

    def constant(self, like: Value, value: float) -> Value:
        """`value` in every lane, of the type of `like`."""
        return Value(self.b, _constant(like.llvm.type, value))

    def false(self, like: Value) -> Value:
        """The mask with no lane set."""
        return Value(self.b, _constant(_like(like.llvm.type, ir.IntType(1)), 0))

    def select(self, condition: Value, x: Any, y: Any) -> Value:
        """`x` where `condition`, else `y`; one of them may be a Python number."""
        like = x if isinstance(x, Value) else y
        x, y = (v.llvm if isinstance(v, Value) else _constant(like.llvm.type, v) for v in (x, y))
        return Value(self.b, self.b.select(condition.llvm, x, y))

    def fma(self, x: Value, y: Any, z: Any) -> Value:
        """`x * y + z`, fused where the machine can."""
        y, z = (v if isinstance(v, Value) else self.constant(x, v) for v in (y, z))
        return _call("fmuladd", x, y, z)

    def _bitcast(self, x: Value, element: ir.Type) -> Value:
        return Value(self.b, self.b.bitcast(x.llvm, _like(x.llvm.type, element)))

    def bits(self, x: Value) -> Value:
        """The bit pattern of f32 as i32."""
        return self._bitcast(x, I32)

    def floats(self, x: Value) -> Value:
        """The f32 of an i32 bit pattern."""
        return self._bitcast(x, F32)

    def scale(self, x: Value, n: Value, k: Value) -> Value:
        """`x * 2**k`; `n` is `k` as f32."""
        return _machine("scale", x, n)

    def ratio(self, x: Value, y: Value) -> Value:
        """`x / y` for a `y` that is neither zero nor infinite nor denormal."""
        return _machine("ratio", x, y)

    def int_to_float(self, x: Value) -> Value:
        """The f32 nearest to an i32."""
        return Value(self.b, self.b.sitofp(x.llvm, _like(x.llvm.type, F32)))

    def wide(self, x: Value) -> Value:
        """f32 as f64."""
        return Value(self.b, self.b.fpext(x.llvm, _like(x.llvm.type, F64)))

    def narrow(self, x: Value) -> Value:
        """f64 to the nearest f32."""
        return Value(self.b, self.b.fptrunc(x.llvm, _like(x.llvm.type, F32)))

    def low_word(self, x: Value) -> Value:
        """The low 32 bits of an f64 bit pattern, as i32."""
        word = self._bitcast(x, I64)
        return Value(self.b, self.b.trunc(word.llvm, _like(x.llvm.type, I32)))

    def sqrt(self, x: Value) -> Value:
        """Square root."""
        return _call("sqrt", x)

    def floor(self, x: Value) -> Value:
        """Largest integer not above."""
        return _call("floor", x)

    def abs(self, x: Value) -> Value:
        """Magnitude."""
        return _call("fabs", x)
