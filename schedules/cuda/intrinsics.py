"""Instructions of tensor cores, by name, for `stage.tensorize(loop, "cuda.mma_bf16")`. Importing this module registers them.

name                       meaning
cuda.mma_K                 c [16, 8] += a [16, D] b [D, 8]; sums in f32 registers            `mma.sync`
cuda.mma_K_f32             the same of operands that are cast to f32
cuda.load_a_K              a [16, D] of rows in shared memory into registers                  `ldmatrix`
cuda.load_a_turned_K       the same of columns (a's transpose in memory)                      `ldmatrix.trans`
cuda.load_b_K              b [D, 8] of rows
cuda.load_b_turned_K       b of columns

K is bf16 or f16 (D = 16), or tf32 (f32 in memory, rounded to 11 bits of mantissa in registers; D = 8). All are of a warp: the
loops around them are bound to threadIdx.y and threadIdx.z, and threadIdx.x has 32 threads.
"""

# mypy: ignore-errors
# (a meaning is a te definition: no typed Python)

from __future__ import annotations

from tensorlang import te
from tensorlang.ir.tensor_intrin import TensorIntrin

REQUIRES = ("sm_80",)
DEPTHS = {"bf16": 16, "f16": 16, "tf32": 8}


def _register(kind: str) -> list[TensorIntrin]:
    depth = DEPTHS[kind]
    dtype = te.f32 if kind == "tf32" else getattr(te, kind)

    @te.compute
    def mma(a: dtype[16, depth], b: dtype[depth, 8]):
        k = te.reduce_axis(depth, name="k")
        return te.compute((16, 8), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")

    @te.compute
    def mma_f32(a: dtype[16, depth], b: dtype[depth, 8]):
        k = te.reduce_axis(depth, name="k")
        return te.compute((16, 8), lambda i, j: te.sum(te.cast("f32", a[i, k]) * te.cast("f32", b[k, j]), axis=k), name="c")

    @te.compute
    def load_a(s: dtype[16, depth]):
        return te.compute((16, depth), lambda i, k: s[i, k], name="a")

    @te.compute
    def load_a_turned(s: dtype[depth, 16]):
        return te.compute((16, depth), lambda i, k: s[k, i], name="a")

    @te.compute
    def load_b(s: dtype[depth, 8]):
        return te.compute((depth, 8), lambda k, j: s[k, j], name="b")

    @te.compute
    def load_b_turned(s: dtype[8, depth]):
        return te.compute((depth, 8), lambda k, j: s[j, k], name="b")

    meanings = {"mma": mma, "load_a": load_a, "load_a_turned": load_a_turned, "load_b": load_b, "load_b_turned": load_b_turned}
    if kind != "tf32":
        meanings["mma_f32"] = mma_f32
    names = {"mma_f32": f"cuda.mma_{kind}_f32"}
    return [
        te.tensor_intrin(meaning, None, name=names.get(word, f"cuda.{word}_{kind}"), requires=REQUIRES)
        for word, meaning in meanings.items()
    ]


INTRINSICS = [intrin for kind in DEPTHS for intrin in _register(kind)]
