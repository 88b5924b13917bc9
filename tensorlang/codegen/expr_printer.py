"""Kernel IR expressions as the Python that runs: scalars in ordinary operators, vectors through the intrinsics."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import bool_, i64
from tensorlang.ir.expr import BINARY, COMPARE, Expr, le
from tensorlang.symbolic.bounds import prove

_PRECEDENCE = {"or": 1, "and": 2, "not": 3, "compare": 4, "|": 5, "^": 6, "&": 7, "<<": 8, ">>": 8}
_LEVEL = {"add": 9, "sub": 9, "mul": 10, "div": 10, "floordiv": 10, "floormod": 10}
_BITWISE = {"bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^", "left_shift": "<<", "right_shift": ">>"}
_RENAMED = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
}  # fmt: skip
_ATOM = 12
# Numba computes these in i64 when integers are narrower: the result is cut back to its own type, so that it wraps.
_WIDENED = frozenset(["add", "sub", "mul", "floordiv", "floormod", "neg", "call"])


class ExprPrinter:
    """Prints expressions of one kernel.

    Args:
        name_of: spells variables.
        buffer_name: spells buffers.
        ranges: extents of the loop variables, to choose unsigned division where operands are not negative.
    """

    def __init__(
        self, name_of: Callable[[Expr], str], buffer_name: Callable[[Buffer], str], ranges: Mapping[Expr, Expr | int]
    ):
        self.name_of, self.buffer_name, self.ranges = name_of, buffer_name, ranges
        self.bound: dict[Expr, str] = {}  # expressions that a variable of the emitted code holds

    def __call__(self, e: Expr) -> str:
        return self.show(e, 0)

    def show(self, e: Expr, level: int) -> str:
        """`e` as text, in parentheses if it binds weaker than `level`."""
        if (held := self.bound.get(e)) is not None:
            return held
        if e.dtype.lanes > 1:
            text, mine = self._vector(e)
        else:
            text, mine = self._scalar(e)
            if e.op in _WIDENED and e.dtype.is_int and e.dtype.bits < 64:
                text, mine = f"{e.dtype}({text})", _ATOM
        return f"({text})" if mine < level else text

    # -- scalars ---------------------------------------------------------------------------------------------------
    def _scalar(self, e: Expr) -> tuple[str, int]:
        op, args = e.op, e.args
        if op == "const":
            return self._const(e), _ATOM
        if op == "var":
            return self.name_of(e), _ATOM
        if op == "load":
            return f"{self.buffer_name(e.value)}[{self(args[0])}]", _ATOM
        if op in ("floordiv", "floormod") and e.dtype.is_int:
            if all(prove(le(0, a), self.ranges) for a in args):
                name = "floordiv_pos" if op == "floordiv" else "floormod_pos"
                return f"{name}({self(args[0])}, {self(args[1])})", _ATOM
            return self._binary(e)
        if op in BINARY or op in COMPARE:
            return self._binary(e)
        if op in ("and", "or"):
            mine = _PRECEDENCE[op]
            return f"{self.show(args[0], mine)} {op} {self.show(args[1], mine + 1)}", mine
        if op == "not":
            return f"not {self.show(args[0], 3)}", 3
        if op == "select":
            return f"({self(args[1])} if {self(args[0])} else {self(args[2])})", _ATOM
        if op == "cast":
            return f"{_dtype(e)}({self(args[0])})", _ATOM
        return self._common(e)

    def _const(self, e: Expr) -> str:
        value = e.value
        if e.dtype == bool_:
            return str(value)
        if e.dtype == i64:
            return repr(value) if value >= 0 else f"({value!r})"
        if e.dtype.is_float and (value != value or abs(value) == float("inf")):
            return f'{e.dtype}(float("{value}"))'
        return f"{e.dtype}({value!r})"

    def _binary(self, e: Expr) -> tuple[str, int]:
        symbol = (BINARY | COMPARE)[e.op]
        mine = _PRECEDENCE["compare"] if e.op in COMPARE else _LEVEL[e.op]
        left = self.show(e.args[0], mine + (1 if e.op in COMPARE else 0))
        return f"{left} {symbol} {self.show(e.args[1], mine + 1)}", mine

    def _common(self, e: Expr) -> tuple[str, int]:
        """What scalars and vectors print alike."""
        op, args = e.op, e.args
        if op == "neg":
            return f"-{self.show(args[0], 11)}", 11
        if op in ("min", "max"):
            return f"{op}imum({self(args[0])}, {self(args[1])})", _ATOM
        if op == "call":
            if (symbol := _BITWISE.get(e.value)) is not None:
                mine = _PRECEDENCE[symbol]
                return f"{self.show(args[0], mine)} {symbol} {self.show(args[1], mine + 1)}", mine
            if e.value == "bitwise_not":
                return f"~{self.show(args[0], 11)}", 11
            return f"{_RENAMED.get(e.value, e.value)}({', '.join(map(self, args))})", _ATOM
        raise BuildError(f"no Python for {op} in {e}")

    # -- vectors ---------------------------------------------------------------------------------------------------
    def _vector(self, e: Expr) -> tuple[str, int]:
        op, args, lanes = e.op, e.args, e.dtype.lanes
        if op == "broadcast":
            return f"vsplat({self(args[0])}, {lanes})", _ATOM
        if op == "ramp":
            return f"viota({self(args[0])}, {self(args[1])}, {lanes})", _ATOM
        if op == "load":
            return self._vector_load(e), _ATOM
        if op == "select":
            return self._vector_select(e), _ATOM
        if op in ("lt", "le") and (mask := self._lane_mask(e)) is not None:
            return mask, _ATOM
        if op in BINARY:
            return self._binary(e)
        if op in COMPARE:
            return self._binary(e)
        if op in ("and", "or"):
            symbol = "&" if op == "and" else "|"
            mine = _PRECEDENCE[symbol]
            return f"{self.show(args[0], mine)} {symbol} {self.show(args[1], mine + 1)}", mine
        if op == "not":
            return f"~{self.show(args[0], 11)}", 11
        if op == "cast":
            return f"vcast({self(args[0])}, {_dtype(e)})", _ATOM
        return self._common(e)

    def _vector_load(self, e: Expr) -> str:
        buffer, index = self.buffer_name(e.value), e.args[0]
        lanes = e.dtype.lanes
        if index.op == "ramp":
            base, stride = index.args
            if stride.op == "const" and stride.value == 1:
                return f"vload({buffer}, {self(base)}, {lanes})"
            if stride.op == "const" and stride.value == 0:
                return f"vsplat({buffer}[{self(base)}], {lanes})"
            return f"vload_strided({buffer}, {self(base)}, {self(stride)}, {lanes})"
        if index.op == "broadcast":
            return f"vsplat({buffer}[{self(index.args[0])}], {lanes})"
        return f"vgather({buffer}, {self(index)})"

    def _vector_select(self, e: Expr) -> str:
        cond, a, b = e.args
        lanes = e.dtype.lanes
        if cond.dtype.lanes == 1:
            return f"({self(a)} if {self(cond)} else {self(b)})"
        if is_masked_load(e):
            buffer, index = self.buffer_name(a.value), a.args[0]
            other = self(b.args[0])
            if index.op == "ramp" and index.args[1].op == "const" and index.args[1].value == 1:
                return f"vload_masked({buffer}, {self(index.args[0])}, {self(cond)}, {other})"
            if index.op == "ramp" and index.args[1].op == "const" and index.args[1].value == 2 and lanes % 2 == 0:
                return f"vload_strided_masked({buffer}, {self(index.args[0])}, 2, {self(cond)}, {other})"
            # Inactive lanes read element 0 of the buffer, which always exists, and are replaced.
            safe = f"select({self(cond)}, {self(index)}, vsplat(0, {lanes}))"
            return f"select({self(cond)}, vgather({buffer}, {safe}), {self(b)})"
        return f"select({self(cond)}, {self(a)}, {self(b)})"

    def _lane_mask(self, e: Expr) -> str | None:
        """`base + lane < limit` as a comparison with the lane number."""
        a, b = e.args
        if a.op == "ramp" and a.args[1].op == "const" and a.args[1].value == 1 and b.op == "broadcast":
            limit = b.args[0] - a.args[0]
            return f"lane_mask({self(limit if e.op == 'lt' else limit + 1)}, {e.dtype.lanes})"
        return None


def is_masked_load(e: Expr) -> bool:
    """Whether `e` is a choice between a vector load and a constant, which reads under the mask only."""
    if e.op != "select" or e.args[0].dtype.lanes == 1:
        return False
    _, a, b = e.args
    return a.op == "load" and b.op == "broadcast" and b.args[0].op == "const"


def _dtype(e: Expr) -> str:
    return "boolean" if e.dtype.is_bool else e.dtype.scalar.name
