"""Random numbers by counters: the generator SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) at position seed + i."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import dims_of, plain
from tensorlang.graph.ops.shape import linearise
from tensorlang.graph.registry import INJECTIVE, Op, op
from tensorlang.ir.dtype import f32, u64
from tensorlang.ir.expr import Expr, ExprLike, call, cast, const

GOLDEN = 0x9E3779B97F4A7C15
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))


@op("random_uniform", INJECTIVE)
class RandomUniform(Op):
    """f32 numbers in [0, 1): 24 bits of a hash of the row-major position and `seed`."""

    def infer(self, *, shape: Sequence[ExprLike], seed: int) -> list[TensorType]:
        return [TensorType(f32, dims_of(shape))]

    def te(self, *, shape: Sequence[ExprLike], seed: int) -> te.Tensor:
        dims = plain(dims_of(shape))

        def element(*i: Expr) -> Expr:
            z = (cast(u64, linearise(i, dims)) + const(seed % (1 << 63), u64)) * const(GOLDEN, u64)
            for shift, factor in MIX:
                z = call("bitwise_xor", z, te.right_shift(z, const(shift, u64))) * const(factor, u64)
            bits = te.right_shift(call("bitwise_xor", z, te.right_shift(z, const(31, u64))), const(40, u64))
            return cast(f32, cast("i64", bits)) * const(2.0**-24, f32)

        return te.compute(dims, element, name="random_uniform")

    def numpy(self, *, shape: Sequence[int], seed: int) -> np.ndarray:
        count = int(np.prod(shape, dtype=np.int64))
        with np.errstate(over="ignore"):
            z = (np.arange(count, dtype=np.uint64) + np.uint64(seed % (1 << 63))) * np.uint64(GOLDEN)
            for shift, factor in MIX:
                z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
            z = (z ^ (z >> np.uint64(31))) >> np.uint64(40)
        return (z.astype(np.float32) * np.float32(2.0**-24)).reshape(tuple(shape))
