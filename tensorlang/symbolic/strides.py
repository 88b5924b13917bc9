"""How the elements of a buffer lie in memory."""

from __future__ import annotations

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const
from tensorlang.symbolic.simplify import simplify


def strides(buffer: Buffer) -> list[Expr]:
    """Per axis, how many elements apart neighbours lie; rounded up where the buffer is aligned."""
    wanted = {axis: (factor, offset) for axis, factor, offset in buffer.align}
    found: list[Expr] = []
    stride: Expr = const(1)
    for axis in reversed(range(buffer.ndim)):
        if axis in wanted:
            factor, offset = wanted[axis]
            stride = simplify(stride + (offset - stride) % factor)
        found.append(stride)
        stride = simplify(stride * buffer.shape[axis])
    return found[::-1]
