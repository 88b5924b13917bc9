"""The accelerator's instructions as tensor intrinsics, and the schedule that puts a product on it.

    for ib:
        a <- x[ib, :]                           a block of rows stays in its scratchpad
        for jo:
            b <- w[:, jo]                       while columns of weights pass
            acc = 0
            for ko: for ii:                     a tile of weights stays in the array for all rows of the block
                acc[ii] += a[ii, ko] @ b[ko]
            y[ib, jo] <- acc
"""

from __future__ import annotations

from tensorlang import te
from tensorlang.errors import BuildError
from tensorlang.ir.machine import Machine
from tensorlang.schedule import Schedule
from tensorlang.te import instructions as hw

from .machine import CAPACITY, SIDE

ROWS = (8, 7, 6, 5, 4, 3, 2, 1)  # tiles of rows in a block: the most that divides and fits
FEATURE = "accel16"


@te.compute
def product(a: te.u8[SIDE, SIDE], b: te.i8[SIDE, SIDE]):  # type: ignore[valid-type]
    k = te.reduce_axis(SIDE, name="k")
    return te.compute(
        (SIDE, SIDE), lambda i, j: te.sum(te.cast("i32", a[i, k]) * te.cast("i32", b[k, j]), axis=k), name="c"
    )


@te.compute
def bytes_in(a: te.u8[SIDE, SIDE]):  # type: ignore[valid-type]
    return te.compute((SIDE, SIDE), lambda i, j: a[i, j], name="c")


@te.compute
def weights_in(a: te.i8[SIDE, SIDE]):  # type: ignore[valid-type]
    return te.compute((SIDE, SIDE), lambda i, j: a[i, j], name="c")


@te.compute
def sums_out(a: te.i32[SIDE, SIDE]):  # type: ignore[valid-type]
    return te.compute((SIDE, SIDE), lambda i, j: a[i, j], name="c")


# What each instruction does, in words that a CPU can run: `tensor_intrin` checks it against the meaning before its first use.


def zero(c, c_stride0):  # type: ignore[no-untyped-def]
    for i in range(16):
        hw.vstore(c, i * c_stride0, hw.vsplat(hw.i32(0), 16))


def mac(c, a, b, c_stride0, a_stride0, b_stride0):  # type: ignore[no-untyped-def]
    for i in range(16):
        total = hw.vload(c, i * c_stride0, 16)
        for k in range(16):
            row = hw.vcast(hw.vload(b, k * b_stride0, 16), hw.i32)
            total = total + hw.vcast(hw.vsplat(a[i * a_stride0 + k], 16), hw.i32) * row
        hw.vstore(c, i * c_stride0, total)


def move(c, a, c_stride0, a_stride0):  # type: ignore[no-untyped-def]
    for i in range(16):
        hw.vstore(c, i * c_stride0, hw.vload(a, i * a_stride0, 16))


MAC = te.tensor_intrin(product, mac, reset=zero, requires=[FEATURE], name="accel.mac")
LOAD_A = te.tensor_intrin(bytes_in, move, requires=[FEATURE], name="accel.load_a")
LOAD_B = te.tensor_intrin(weights_in, move, requires=[FEATURE], name="accel.load_b")
STORE = te.tensor_intrin(sums_out, move, requires=[FEATURE], name="accel.store")


def schedule(s: Schedule, machine: Machine) -> None:
    """Put a product of bytes, u8[M, K] by i8[K, N] into i32[M, N] with all sizes multiples of 16, on the array.

    Raises:
        BuildError: the program is something else.
    """
    func = s.func
    kinds = [b.dtype.name for b in func.buffers]
    sizes = [d.value if d.op == "const" else 0 for b in func.buffers for d in b.shape]
    if kinds != ["u8", "i8", "i32"] or len(sizes) != 6 or len(s.stages) != 1 or any(n % SIDE or not n for n in sizes):
        raise BuildError(f"{func.name}: the accelerator multiplies u8[M, K] by i8[K, N], all multiples of {SIDE}, nothing else")
    x, w, out = (b.name for b in func.buffers)
    y = s[out]
    if len(y.reduce_axis) != 1:
        raise BuildError(f"{func.name}: the accelerator multiplies matrices, and this is no product")
    rows = next((r for r in ROWS if (sizes[0] // SIDE) % r == 0 and r * SIDE * sizes[1] <= CAPACITY["accel.a"]), 0)
    if not rows:
        raise BuildError(f"{func.name}: {SIDE} rows of {sizes[1]} bytes do not fit the accelerator's scratchpad")
    acc = s.cache_write(y, "accel.acc")
    i, j = y.axis
    ib, ii = y.split(i, rows * SIDE)
    jo, ji = y.split(j, SIDE)
    y.reorder(ib, jo, ii, ji)
    acc.compute_at(y, jo)
    _, ii = y.split(ii, SIDE)
    y.tensorize(ii, STORE)
    ai, aj = acc.axis
    (k,) = acc.reduce_axis
    ko, ki = acc.split(k, SIDE)
    at, ai = acc.split(ai, SIDE)
    acc.reorder(ko, at, ai, aj, ki)
    for name, scope, loop, intrinsic in ((w, "accel.b", jo, LOAD_B), (x, "accel.a", ib, LOAD_A)):
        panel = s.cache_read(name, scope, [acc])
        panel.compute_at(y, loop)
        _, _, ii, _ = panel.tile(*panel.axis, SIDE, SIDE)
        panel.tensorize(ii, intrinsic)
    acc.tensorize(ai, MAC)
