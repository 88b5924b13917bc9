"""Kernel IR expressions as C. Scalars only: C's compiler finds the vectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from tensorlang.codegen.c.intervals import Intervals, of_type
from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import DType, i64
from tensorlang.ir.expr import COMPARE, Expr, const
from tensorlang.ir.visitor import loads, walk

C_TYPES = {
    "bool": "uint8_t", "f16": "uint16_t", "bf16": "uint16_t", "f32": "float", "f64": "double",
    **{f"i{n}": f"int{n}_t" for n in (8, 16, 32, 64)}, **{f"u{n}": f"uint{n}_t" for n in (8, 16, 32, 64)},
}  # fmt: skip
_LEVEL = {
    "or": 1, "and": 2, "|": 3, "^": 4, "&": 5, "eq": 6, "ne": 6, "lt": 7, "le": 7, "shift": 8, "add": 9, "sub": 9,
    "mul": 10, "div": 10, "floordiv": 10, "floormod": 10,
}  # fmt: skip
_SYMBOL = {"add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "/", "floormod": "%", "and": "&&", "or": "||"}
_BITWISE = {"bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^"}
_UNARY, _ATOM = 11, 12
_RENAMED = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
}  # fmt: skip
_FROM_MATH_H = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "rint", "fmod": "fmod"}
_F64_FROM_MATH_H = frozenset(
    "exp expm1 log log2 log1p tanh erf sin cos tan asin acos atan sinh cosh asinh acosh atanh pow".split()
)


def c_type(dtype: DType) -> str:
    """The C type of one element; a bool is a byte, a half its bits."""
    return C_TYPES[dtype.scalar.name]


def comment(text: str) -> str:
    """`text` as a comment's: nothing in it ends the line, or joins it with the next (a backslash does, and `??/` is one)."""
    return re.sub(r"[^\x20-\x7e]|[\\?]", "_", text)


class CPrinter:
    """Prints the expressions of one kernel; same use as `codegen.expr_printer.ExprPrinter`.

    Args:
        name_of: spells variables.
        buffer_name: spells buffers.
        ranges: extents of the loop variables.
        index_bits: width of the kernel's index arithmetic, 32 or 64 (see `fits_32_bits`).
    """

    def __init__(
        self,
        name_of: Callable[[Expr], str],
        buffer_name: Callable[[Buffer], str],
        ranges: Mapping[Expr, Expr | int],
        index_bits: int = 64,
    ):
        self.name_of, self.buffer_name = name_of, buffer_name
        self.intervals = Intervals(ranges)
        self.index_bits = index_bits
        self.bound: dict[Expr, str] = {}  # expressions that a variable of the emitted code holds

    @property
    def index_type(self) -> str:
        return f"int{self.index_bits}_t"

    def __call__(self, e: Expr) -> str:
        return self.show(e, 0)

    def show(self, e: Expr, level: int) -> str:
        """`e` as text, in parentheses if it binds weaker than `level`."""
        if (held := self.bound.get(e)) is not None:
            return held
        if e.dtype.lanes > 1:
            raise BuildError(f"vector value {e} in a kernel for C: its lowering makes no vectors")
        text, mine = self._show(e)
        return f"({text})" if mine < level else text

    def type_of(self, e: Expr) -> str:
        """The C type of a variable that holds `e`."""
        return self.index_type if e.dtype == i64 and not loads(e) else c_type(e.dtype)

    # -- by operation ----------------------------------------------------------------------------------------------
    def _show(self, e: Expr) -> tuple[str, int]:
        op, args = e.op, e.args
        if op == "const":
            return self._const(e)
        if op == "var":
            return self.name_of(e), _ATOM
        if op == "load":
            return f"{self.buffer_name(e.value)}[{self(args[0])}]", _ATOM
        if op in ("and", "or"):  # compilers warn of `a || b && c`
            mine = _LEVEL[op]
            parts = [self.show(a, mine if a.op == op else _LEVEL["and"] + 1) for a in args]
            return f" {_SYMBOL[op]} ".join(parts), mine
        if op == "not":
            return f"!{self.show(args[0], _UNARY)}", _UNARY
        if op in COMPARE:
            mine = _LEVEL[op]
            left, right = (self.show(a, 8) for a in args)  # one level up: C would chain `a < b == c`
            return f"{left} {COMPARE[op]} {right}", mine
        if op == "select":
            return f"{self.show(args[0], 1)} ? {self(args[1])} : {self(args[2])}", 0
        if op == "cast":
            return self._cast(e)
        if op in ("min", "max"):
            if self._is_index(e):
                return self._call(f"{op}_i{self.index_bits}", e)
            return self._call(f"{op}_{e.dtype}", e)
        if op == "neg":
            return f"-{self.show(args[0], _ATOM)}", _UNARY  # of a float: integers are subtracted from zero
        if op in _LEVEL:
            return self._integer(e) if e.dtype.is_int else self._float(e)
        if op == "call":
            return self._intrinsic(e)
        raise BuildError(f"no C for {op} in {e}")

    def _infix(self, e: Expr, symbol: str, mine: int) -> tuple[str, int]:
        return f"{self.show(e.args[0], mine)} {symbol} {self.show(e.args[1], mine + 1)}", mine

    def _call(self, helper: str, e: Expr) -> tuple[str, int]:
        return f"tl_{helper}({', '.join(map(self, e.args))})", _ATOM

    def _is_index(self, e: Expr) -> bool:
        """Whether `e` is index arithmetic, which never leaves its type: memory would have to be larger than that."""
        return e.dtype == i64 and not loads(e)

    def _float(self, e: Expr) -> tuple[str, int]:
        if e.op in ("floordiv", "floormod"):
            return self._call(f"{e.op}_{e.dtype}", e)
        return self._infix(e, _SYMBOL[e.op], _LEVEL[e.op])

    def _integer(self, e: Expr) -> tuple[str, int]:
        index = self._is_index(e)
        suffix = f"i{self.index_bits}" if index else str(e.dtype)
        if e.op in ("floordiv", "floormod"):
            divisor = self.intervals(e.args[1])
            if divisor[0] > 0 and (self.intervals.not_negative(e.args[0]) or e.dtype.kind == "u"):
                return self._infix(e, _SYMBOL[e.op], _LEVEL[e.op])
            return self._call(f"{e.op}_{suffix}", e)
        if index or not self.intervals.overflows(e):
            added = e.args[1]
            if e.op == "add" and added.op == "const" and of_type(added.dtype)[0] < added.value < 0:
                return f"{self.show(e.args[0], 9)} - {self.show(const(-added.value, added.dtype), 10)}", _LEVEL["sub"]
            return self._infix(e, _SYMBOL[e.op], _LEVEL[e.op])
        if e.dtype.bits < 32 and e.op != "mul" or e.dtype.bits < 16:  # computed as int, where it fits
            return f"({c_type(e.dtype)})({self._infix(e, _SYMBOL[e.op], _LEVEL[e.op])[0]})", _UNARY
        return self._call(f"{e.op}_{suffix}", e)

    def _const(self, e: Expr) -> tuple[str, int]:
        value, dtype = e.value, e.dtype
        if dtype.is_bool:
            return str(int(value)), _ATOM
        if dtype.is_float:
            return self._float_const(float(value), dtype)
        if dtype.kind == "i" and value == of_type(dtype)[0] and dtype.bits >= 32:
            return f"INT{dtype.bits}_MIN", _ATOM
        if dtype == i64 and not -(1 << 31) < value < (1 << 31):
            return f"INT64_C({value})", _ATOM
        if dtype.kind == "u" and dtype.bits >= 32:
            return (f"{value}u" if dtype.bits == 32 else f"UINT64_C({value})"), _ATOM
        return str(value), _ATOM if value >= 0 else _UNARY

    def _float_const(self, value: float, dtype: DType) -> tuple[str, int]:
        if dtype.bits == 16:  # the bits
            return f"{int(np.asarray(value, dtype.numpy).view(np.uint16))}", _ATOM
        if value != value:
            return ("NAN" if dtype.bits == 32 else "(double)NAN"), _UNARY
        if value in (float("inf"), float("-inf")):
            sign = "-" if value < 0 else ""
            return f"{sign}{'' if dtype.bits == 32 else '(double)'}INFINITY", _UNARY
        number = np.float32(value) if dtype.bits == 32 else np.float64(value)
        if not np.isfinite(number):
            return self._float_const(float(number), dtype)
        text = repr(number.item()) if dtype.bits == 64 else str(number)
        text = text if any(c in text for c in ".e") else f"{text}.0"
        return f"{text}{'f' if dtype.bits == 32 else ''}", _ATOM if value >= 0 else _UNARY

    def _cast(self, e: Expr) -> tuple[str, int]:
        source, to = e.args[0].dtype.scalar, e.dtype
        inner = e.args[0]
        if source.is_float and source.bits == 16:
            if to.is_float and to.bits == 32:
                return f"tl_{source}_to_f32({self(inner)})", _ATOM
            return self._cast_text(f"tl_{source}_to_f32({self(inner)})", "f32", to)
        if to.is_float and to.bits == 16:
            wide = "f64" if to.name == "f16" and source.name == "f64" else "f32"
            value = self(inner) if source.name == wide else f"({C_TYPES[wide]}){self.show(inner, _UNARY)}"
            return f"tl_{wide}_to_{to}({value})", _ATOM
        if source.is_float:
            return self._cast_text(self.show(inner, _UNARY if not to.is_int else 0), source.name, to)
        if to.is_bool:
            return f"({self.show(inner, 7)} != 0)", _ATOM
        return f"({c_type(to)}){self.show(inner, _UNARY)}", _UNARY

    def _cast_text(self, text: str, source: str, to: DType) -> tuple[str, int]:
        """A float's text of type `source` as `to`."""
        if to.is_float:
            return f"({c_type(to)}){text}", _UNARY
        if to.is_bool:
            return f"({text} != 0)", _ATOM
        return f"tl_{source}_to_{to}({text})", _ATOM

    def _intrinsic(self, e: Expr) -> tuple[str, int]:
        name = _RENAMED.get(e.value, e.value)
        args, dtype = e.args, e.args[0].dtype if e.args else e.dtype
        if name in _BITWISE:
            symbol = _BITWISE[name]
            return f"{self.show(args[0], _UNARY)} {symbol} {self.show(args[1], _UNARY)}", _LEVEL[symbol]
        if name == "bitwise_not":
            return f"({c_type(dtype)})~{self.show(args[0], _UNARY)}", _UNARY
        if name in ("left_shift", "right_shift"):
            right, amount = name == "right_shift", args[1]
            if amount.op == "const" and 0 <= amount.value < dtype.bits and (right or dtype.bits >= 32):
                value = self.show(args[0], _UNARY)
                if right or dtype.kind == "u":
                    return f"{value} {'>>' if right else '<<'} {amount.value}", _LEVEL["shift"]
                return f"({c_type(dtype)})((u{c_type(dtype)}){value} << {amount.value})", _UNARY
            return self._call(f"{name}_{dtype}", e)
        if name == "quotient" and dtype.is_float:
            return self._infix(e, "/", _LEVEL["div"])
        if name == "fma" and dtype.is_float:
            return f"{self.show(args[0], 10)} * {self.show(args[1], 11)} + {self.show(args[2], 10)}", 9
        if name in ("float_bits", "from_float_bits", "isnan", "isinf", "abs", "sign"):
            if name == "abs" and dtype.kind == "u":
                return self._show(args[0])
            return self._call(f"{name}_{dtype}", e)
        if name in _FROM_MATH_H and dtype.is_float:
            suffix = "f" if dtype.bits == 32 else ""
            return f"{_FROM_MATH_H[name]}{suffix}({', '.join(map(self, args))})", _ATOM
        if name == "rsqrt" and dtype.is_float:
            one, root = ("1.0f", "sqrtf") if dtype.bits == 32 else ("1.0", "sqrt")
            return f"{one} / {root}({self(args[0])})", _LEVEL["div"]
        if dtype.name == "f64" and name in _F64_FROM_MATH_H:
            return f"{name}({', '.join(map(self, args))})", _ATOM
        if dtype.name == "f64" and name == "sigmoid":
            return f"1.0 / (1.0 + exp(-{self.show(args[0], _ATOM)}))", _LEVEL["div"]
        if dtype.name == "f32" and (name in _F64_FROM_MATH_H or name == "sigmoid"):
            return self._call(f"{name}_f32", e)
        raise BuildError(f"no C for {e.value} of {dtype} in {e}")


def fits_32_bits(exprs: list[Expr], ranges: Mapping[Expr, Expr | int]) -> bool:
    """Whether all index arithmetic in `exprs` stays within 32 bits, so that small machines need no wider one."""
    intervals = Intervals(ranges)
    low, high = -(1 << 31), (1 << 31) - 1
    for e in exprs:
        for node in walk(e):
            if node.dtype == i64 and not loads(node):
                a, b = intervals.exact(node)
                if a < low or b > high:
                    return False
    return True
