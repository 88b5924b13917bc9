"""Tensor intrinsics for random programs: runs of copies of any length, whose instruction follows any strides."""

from __future__ import annotations

from tensorlang import te
from tensorlang.ir.stmt import PrimFunc


def _copy(dtype: str) -> PrimFunc:
    a = te.placeholder((te.var("n"),), dtype, name="a")
    return te.create_prim_func(f"copy_{dtype}", [a], [te.compute(a.shape, lambda i: a[i], name="c")])


def _doubled(dtype: str) -> PrimFunc:
    a = te.placeholder((te.var("n"),), dtype, name="a")
    return te.create_prim_func(f"doubled_{dtype}", [a], [te.compute(a.shape, lambda i: a[i] + a[i], name="c")])


def _copy_instruction(c, c_stride0, a, a_stride0, n):
    for i in range(n):
        c[i * c_stride0] = a[i * a_stride0]


def _doubled_instruction(c, c_stride0, a, a_stride0, n):
    for i in range(n):
        c[i * c_stride0] = a[i * a_stride0] + a[i * a_stride0]


_INTRINSICS = ((_copy, _copy_instruction), (_doubled, _doubled_instruction))
COPIES = {
    dtype: tuple(te.tensor_intrin(make(dtype), how, name=f"fuzz.{make(dtype).name}").name for make, how in _INTRINSICS)
    for dtype in ("f32", "i32", "i64", "f64")
}
ALL = tuple(name for names in COPIES.values() for name in names)
