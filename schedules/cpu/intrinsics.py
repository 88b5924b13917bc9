"""Tensor intrinsics of CPUs, by name, for `stage.tensorize(loop, "x86.vnni_dot4")`. Importing this module registers them.

name                  meaning                                                       needs
transposed_N_TYPE     c TYPE[N, N] = a TYPE[N, N] transposed, in registers; ..._past: c is too large for the caches
x86.fma_tile_RxC      c f32[R, C] += a f32[R, K] b f32[K, C]; c in registers         avx512f
x86.vnni_dot4         c i32[16] += a u8[4] . b i8[16, 4]                            avx512vnni
x86.bf16_dot2         c f32[16] += a bf16[2] . b bf16[16, 2]                        avx512bf16
x86.amx_i8            c i32[16, 16] += a i8[16, 64] . b i8[16, 16, 4]               amx-int8
x86.amx_bf16          c f32[16, 16] += a bf16[16, 32] . b bf16[16, 16, 2]           amx-bf16
x86.amx_TYPE_TxP      a product of T tiles of rows by P of columns, over all of K   amx-bf16, amx-int8
arm.sdot4, arm.udot4  c i32[4] += a i8[4] . b i8[4, 4]; the same of u8 into u32      dotprod

`b` of the dot products is packed: neighbours of the reduction lie side by side, for each column.
"""

# mypy: ignore-errors
# (a meaning is a te definition, an instruction is text for the code generator: neither is typed Python)

from __future__ import annotations

from functools import cache

from tensorlang import te
from tensorlang.ir.tensor_intrin import TensorIntrin
from tensorlang.te import instructions as hw

# -- every machine ------------------------------------------------------------------------------------------------------


@cache
def transposed_tile(size: int, kind: str = "f32", past: bool = False) -> TensorIntrin:
    """A square of `size` by `size` elements, turned in registers: whole vectors are read and written, `past` the caches if need
    be (a line that is written whole need not be read first)."""
    dtype = getattr(te, kind)

    @te.compute
    def tile(a: dtype[size, size]):
        return te.compute((size, size), lambda i, j: a[j, i], name="c")

    def body(c, c_stride0, a, a_stride0):
        hw.transpose_tile(c, c_stride0, a, a_stride0, size)

    def body_past(c, c_stride0, a, a_stride0):
        hw.transpose_tile_past(c, c_stride0, a, a_stride0, size)

    name = f"transposed_{size}_{kind}"
    return te.tensor_intrin(tile, body_past, name=name + "_past") if past else te.tensor_intrin(tile, body, name=name)


# -- x86: AVX-512 -------------------------------------------------------------------------------------------------------


@cache
def fma_tile(rows: int, columns: int, lanes: int = 16, requires: tuple[str, ...] = ("avx512f",)) -> TensorIntrin:
    """The register tile of a product: `rows` by `columns` sums stay in registers while the whole of K runs over them.

    It takes `rows * columns / lanes` vector registers, and one for each vector of `b`'s row. `a` may have any strides, so it
    can be packed or not; rows of `b` and `c` are contiguous.
    """
    vectors = columns // lanes

    @te.compute
    def tile(a: te.f32[rows, "K"], b: te.f32["K", columns]):  # noqa: UP037
        k = te.reduce_axis(a.shape[1], name="k")
        return te.compute((rows, columns), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")

    def update(c, c_stride0, a, a_stride0, a_stride1, b, b_stride0, K):
        acc = hw.local_array(hw.f32, rows * columns)
        for i in range(rows):
            for v in range(vectors):
                hw.vstore(acc, i * columns + v * lanes, hw.vload(c, i * c_stride0 + v * lanes, lanes))
        for k in range(K):
            for i in range(rows):
                left = hw.vsplat(a[i * a_stride0 + k * a_stride1], lanes)
                for v in range(vectors):
                    at = i * columns + v * lanes
                    hw.vstore(
                        acc, at, hw.fma(left, hw.vload(b, k * b_stride0 + v * lanes, lanes), hw.vload(acc, at, lanes))
                    )
        for i in range(rows):
            for v in range(vectors):
                hw.vstore(c, i * c_stride0 + v * lanes, hw.vload(acc, i * columns + v * lanes, lanes))

    def reset(c, c_stride0):
        for i in range(rows):
            for v in range(vectors):
                hw.vstore(c, i * c_stride0 + v * lanes, hw.vsplat(hw.f32(0.0), lanes))

    return te.tensor_intrin(tile, update, reset=reset, name=f"x86.fma_tile_{rows}x{columns}", requires=requires)


@te.compute
def _dot4_u8(a: te.u8[4], b: te.i8[16, 4]):
    k = te.reduce_axis(4, name="k")
    return te.compute((16,), lambda i: te.sum(te.cast("i32", a[k]) * te.cast("i32", b[i, k]), axis=k), name="c")


def _zero16(c):
    hw.vstore(c, 0, hw.vsplat(hw.i32(0), 16))


@te.tensor_intrin(_dot4_u8, name="x86.vnni_dot4", reset=_zero16, requires=("avx512vnni",))
def vnni_dot4(c, a, b):
    hw.vstore(c, 0, hw.vpdpbusd(hw.vload(c, 0, 16), hw.vload_repeated(a, 0, 4, 16), hw.vload(b, 0, 64)))


@te.compute
def _dot2_bf16(a: te.bf16[2], b: te.bf16[16, 2]):
    k = te.reduce_axis(2, name="k")
    return te.compute((16,), lambda i: te.sum(te.cast("f32", a[k]) * te.cast("f32", b[i, k]), axis=k), name="c")


def _zero16_f32(c):
    hw.vstore(c, 0, hw.vsplat(hw.f32(0.0), 16))


@te.tensor_intrin(_dot2_bf16, name="x86.bf16_dot2", reset=_zero16_f32, requires=("avx512bf16",))
def bf16_dot2(c, a, b):
    hw.vstore(c, 0, hw.vdpbf16(hw.vload(c, 0, 16), hw.vload_repeated(a, 0, 2, 16), hw.vload(b, 0, 32)))


# -- x86: AMX -----------------------------------------------------------------------------------------------------------

AMX_DOTS = {"bf16": hw.amx_dot_bf16, "u8": hw.amx_dot_u8, "i8": hw.amx_dot_i8}


@te.compute
def _amx_i8(a: te.i8[16, 64], b: te.i8[16, 16, 4]):
    k = te.reduce_axis(16, name="k")
    q = te.reduce_axis(4, name="q")
    return te.compute(
        (16, 16),
        lambda i, j: te.sum(te.cast("i32", a[i, k * 4 + q]) * te.cast("i32", b[k, j, q]), axis=[k, q]),
        name="c",
    )


def _zero_i32(c, c_stride0):
    for i in range(16):
        hw.vstore(c, i * c_stride0, hw.vsplat(hw.i32(0), 16))


@te.tensor_intrin(_amx_i8, name="x86.amx_i8", reset=_zero_i32, requires=("amx-tile", "amx-int8"))
def amx_i8(c, c_stride0, a, a_stride0, b, b_stride0):
    hw.amx_configure(16, 16)
    hw.amx_load(0, c, c_stride0)
    hw.amx_load(4, a, a_stride0)
    hw.amx_load(6, b, b_stride0)
    hw.amx_dot_i8(0, 4, 6)
    hw.amx_store(0, c, c_stride0)
    hw.amx_release()


@te.compute
def _amx_bf16(a: te.bf16[16, 32], b: te.bf16[16, 16, 2]):
    k = te.reduce_axis(16, name="k")
    q = te.reduce_axis(2, name="q")
    return te.compute(
        (16, 16),
        lambda i, j: te.sum(te.cast("f32", a[i, k * 2 + q]) * te.cast("f32", b[k, j, q]), axis=[k, q]),
        name="c",
    )


def _zero_f32(c, c_stride0):
    for i in range(16):
        hw.vstore(c, i * c_stride0, hw.vsplat(hw.f32(0.0), 16))


@te.tensor_intrin(_amx_bf16, name="x86.amx_bf16", reset=_zero_f32, requires=("amx-tile", "amx-bf16"))
def amx_bf16(c, c_stride0, a, a_stride0, b, b_stride0):
    hw.amx_configure(16, 16)
    hw.amx_load(0, c, c_stride0)
    hw.amx_load(4, a, a_stride0)
    hw.amx_load(6, b, b_stride0)
    hw.amx_dot_bf16(0, 4, 6)
    hw.amx_store(0, c, c_stride0)
    hw.amx_release()


@cache
def amx_tile(kind: str, tiles: int, panels: int) -> TensorIntrin:
    """A product in the tiles of the matrix unit: one or two of rows by one or two of 16 columns, over the whole reduction.

    `R` rows of `a` and `G` groups of four bytes fill a tile, up to 16 each; along `k`, `g` and `q` memory is contiguous. The
    outer reductions `s` and `p`, the window of a convolution, lie in `a` at any distance; a plain product has one point there.
    """
    left, right = getattr(te, kind), te.bf16 if kind == "bf16" else te.i8
    sums, each = ("f32", 2) if kind == "bf16" else ("i32", 4)
    width = 16 * panels
    dot = AMX_DOTS[kind]

    @te.compute
    def tile(a: left[tiles, "R", "S", "P", "K", "G", each], b: right["S", "P", "K", "G", width, each]):  # noqa: UP037
        s, p, k, g, q = (te.reduce_axis(n, name=name) for n, name in zip(b.shape[:4] + (each,), "spkgq", strict=True))
        return te.compute(
            (tiles, a.shape[1], width),
            lambda t, i, j: te.sum(
                te.cast(sums, a[t, i, s, p, k, g, q]) * te.cast(sums, b[s, p, k, g, j, q]), axis=[s, p, k, g, q]
            ),
            name="c",
        )

    def before(R, G):
        hw.amx_configure(R, G)

    def after():
        hw.amx_release()

    def body(
        c, c_stride0, c_stride1, a, a_stride0, a_stride1, a_stride2, a_stride3, b, b_ahead, b_turn, b_turns, R, S, P, K, G
    ):
        lines = 0 if b_turns == 0 else (G * panels + b_turns - 1) // b_turns
        hw.amx_zero(0)
        hw.amx_zero(1)
        hw.amx_zero(2)
        hw.amx_zero(3)
        for s in range(S):
            for p in range(P):
                for k in range(K):
                    at = s * a_stride2 + p * a_stride3 + k * G * each
                    panel = ((s * P + p) * K + k) * G * width * each
                    for line in range(lines):
                        hw.prefetch_far(b, panel + b_ahead + hw.minimum(b_turn * lines + line, G * panels - 1) * 16 * each)
                    hw.amx_load(6, hw.offset(b, panel), width * each)
                    hw.amx_load(4, hw.offset(a, at), a_stride1)
                    dot(0, 4, 6)
                    if panels > 1:
                        hw.amx_load(7, hw.offset(b, panel + 16 * each), width * each)
                        dot(1, 4, 7)
                    if tiles > 1:
                        hw.amx_load(5, hw.offset(a, at + a_stride0), a_stride1)
                        dot(2, 5, 6)
                        if panels > 1:
                            dot(3, 5, 7)
        hw.amx_store(0, c, c_stride1)
        if panels > 1:
            hw.amx_store(1, hw.offset(c, 16), c_stride1)
        if tiles > 1:
            hw.amx_store(2, hw.offset(c, c_stride0), c_stride1)
            if panels > 1:
                hw.amx_store(3, hw.offset(c, c_stride0 + 16), c_stride1)

    needs = ("amx-tile", "amx-bf16" if kind == "bf16" else "amx-int8")
    name = f"x86.amx_{kind}_{tiles}x{panels}"
    return te.tensor_intrin(tile, None, body=body, around=(before, after), name=name, requires=needs)


# -- Arm ----------------------------------------------------------------------------------------------------------------


@te.compute
def _sdot4(a: te.i8[4], b: te.i8[4, 4]):
    k = te.reduce_axis(4, name="k")
    return te.compute((4,), lambda i: te.sum(te.cast("i32", a[k]) * te.cast("i32", b[i, k]), axis=k), name="c")


@te.tensor_intrin(_sdot4, name="arm.sdot4", requires=("dotprod",))
def sdot4(c, a, b):
    hw.vstore(c, 0, hw.sdot(hw.vload(c, 0, 4), hw.vload_repeated(a, 0, 4, 4), hw.vload(b, 0, 16)))


@te.compute
def _udot4(a: te.u8[4], b: te.u8[4, 4]):
    k = te.reduce_axis(4, name="k")
    return te.compute((4,), lambda i: te.sum(te.cast("u32", a[k]) * te.cast("u32", b[i, k]), axis=k), name="c")


@te.tensor_intrin(_udot4, name="arm.udot4", requires=("dotprod",))
def udot4(c, a, b):
    hw.vstore(c, 0, hw.udot(hw.vload(c, 0, 4), hw.vload_repeated(a, 0, 4, 4), hw.vload(b, 0, 16)))


fma_tile_6x64 = fma_tile(6, 64)  # 24 sums, 4 vectors of b, one of a: of 32 registers
