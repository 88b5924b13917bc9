"""Which values an integer expression can have, from the types of what it loads and the extents of loops.

C leaves signed overflow undefined: arithmetic that provably stays within its type is written with operators, the rest with
functions that wrap. Operands are treated as independent, so the intervals are sound and sometimes wide.
"""

from __future__ import annotations

from collections.abc import Mapping

from tensorlang.ir.dtype import DType
from tensorlang.ir.expr import Expr
from tensorlang.ir.visitor import walk

Interval = tuple[int, int]


def of_type(dtype: DType) -> Interval:
    """Lowest and highest value of an integer type."""
    if dtype.is_bool:
        return 0, 1
    if dtype.kind == "u":
        return 0, (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1


class Intervals:
    """Intervals of the expressions of one kernel.

    Args:
        extents: of the loop variables; other variables can be anything of their type.
    """

    def __init__(self, extents: Mapping[Expr, Expr | int]):
        self.extents = extents
        self._exact: dict[Expr, Interval] = {}

    def exact(self, e: Expr) -> Interval:
        """Lowest and highest value before the result is cut to its type, operands having been cut to theirs."""
        if e not in self._exact:
            for node in walk(e):
                if node not in self._exact:
                    self._exact[node] = self._find(node)
        return self._exact[e]

    def __call__(self, e: Expr) -> Interval:
        """Lowest and highest value of `e`."""
        low, high = self.exact(e)
        least, most = of_type(e.dtype)
        return (low, high) if least <= low and high <= most else (least, most)

    def overflows(self, e: Expr) -> bool:
        """Whether the exact result may lie outside the type of `e`."""
        return self(e) != self.exact(e)

    def not_negative(self, e: Expr) -> bool:
        return self(e)[0] >= 0

    def _find(self, e: Expr) -> Interval:
        if not (e.dtype.is_int or e.dtype.is_bool):
            return 0, 0  # not an integer: never asked for
        if e.op == "const":
            return int(e.value), int(e.value)
        if e.op == "var":
            extent = self.extents.get(e)
            if extent is None:
                return of_type(e.dtype)
            most = extent if isinstance(extent, int) else self(extent)[1]
            return 0, max(0, most - 1)
        if e.dtype.is_bool or e.op == "load":
            return of_type(e.dtype)
        if e.op == "cast":
            source = e.args[0]
            return self(source) if source.dtype.is_int or source.dtype.is_bool else of_type(e.dtype)
        if e.op == "select":
            (a, b), (c, d) = self(e.args[1]), self(e.args[2])
            return min(a, c), max(b, d)
        if e.op in ("add", "sub", "mul", "min", "max", "floordiv", "floormod"):
            return self._arithmetic(e)
        return of_type(e.dtype)

    def _arithmetic(self, e: Expr) -> Interval:
        (a, b), (c, d) = self(e.args[0]), self(e.args[1])
        if e.op == "add":
            return a + c, b + d
        if e.op == "sub":
            return a - d, b - c
        if e.op == "mul":
            corners = (a * c, a * d, b * c, b * d)
            return min(corners), max(corners)
        if e.op == "min":
            return min(a, c), min(b, d)
        if e.op == "max":
            return max(a, c), max(b, d)
        if c > 0:
            if e.op == "floormod":
                return (0, min(b, d - 1)) if a >= 0 else (0, d - 1)
            corners = (a // c, a // d, b // c, b // d)
            return min(corners), max(corners)
        return of_type(e.dtype)
