"""Softmax and the normalisations: several stages each, sums in the accumulation type, variances about the mean (two passes)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import as_float, known_size, product, require, same_dim, wide
from tensorlang.graph.ops.reduce import reduce_stage
from tensorlang.graph.registry import COMPOUND, ELEMENTWISE, Op, op
from tensorlang.ir.expr import Expr, ExprLike, floordiv, wrap


def _without(index: Sequence[Expr], axes: Sequence[int]) -> tuple[Expr, ...]:
    return tuple(i for a, i in enumerate(index) if a not in axes)


class Softmax(Op):
    """exp(x - max) / sum(exp(x - max)) along `axis`; or its logarithm."""

    logarithm = False

    def infer(self, x: TensorType, *, axis: int) -> list[TensorType]:
        require(x.dtype.is_float, f"{self.name} of {x.dtype}")
        require(0 <= axis < x.ndim, f"{self.name} along axis {axis} of {x}")
        return [x]

    def te(self, x: te.Tensor, *, axis: int) -> te.Tensor:
        largest = reduce_stage(x, [axis], False, te.max, wide, f"{self.name}_max")

        def shifted(i: Sequence[Expr]) -> Expr:
            return wide(x[tuple(i)]) - largest[_without(i, [axis])]

        powers = te.compute(x.shape, lambda *i: te.exp(shifted(i)), name=f"{self.name}_exp")
        total = reduce_stage(powers, [axis], False, te.sum, lambda e: e, f"{self.name}_sum")

        def element(*i: Expr) -> Expr:
            if type(self).logarithm:
                return te.cast(x.dtype, shifted(i) - te.log(total[_without(i, [axis])]))
            return te.cast(x.dtype, powers[i] * (1.0 / total[_without(i, [axis])]))

        return te.compute(x.shape, element, name=self.name)

    def numpy(self, x: np.ndarray, *, axis: int) -> np.ndarray:
        w = x.astype(np.float64)
        shifted = w - w.max(axis=axis, keepdims=True)
        powers = np.exp(shifted)
        total = powers.sum(axis=axis, keepdims=True)
        return (shifted - np.log(total) if type(self).logarithm else powers / total).astype(x.dtype)


@op("softmax", COMPOUND)
class SoftmaxOp(Softmax):
    """exp(x) / sum(exp(x)) along `axis`."""


@op("log_softmax", COMPOUND)
class LogSoftmax(Softmax):
    """x - log(sum(exp(x))) along `axis`."""

    logarithm = True


def _standardise(x: te.Tensor, axes: Sequence[int], epsilon: float, name: str) -> tuple[te.Tensor, te.Tensor]:
    """The stages of the mean and of 1 / sqrt(variance + epsilon) along `axes`."""
    count = product(x.shape[a] for a in axes)
    total = reduce_stage(x, axes, False, te.sum, wide, f"{name}_total")
    size = as_float(count.value if count.op == "const" else count, total.dtype)
    mean = te.compute(total.shape, lambda *i: total[i] / size, name=f"{name}_mean")
    ks = {a: te.reduce_axis(x.shape[a], name=f"k{a}" if len(axes) > 1 else "k") for a in axes}

    def squares(*i: Expr) -> Expr:
        kept = iter(i)
        centred = wide(x[tuple(ks[a] if a in ks else next(kept) for a in range(x.ndim))]) - mean[i]
        return te.sum(centred * centred, axis=list(ks.values()))

    spread = te.compute(mean.shape, squares, name=f"{name}_squares")
    scale = te.compute(
        mean.shape,
        lambda *i: te.const(1.0, total.dtype) / te.sqrt(spread[i] / size + te.const(epsilon, total.dtype)),
        name=f"{name}_scale",
    )
    return mean, scale


def _np_standardise(x: np.ndarray, axes: Sequence[int], epsilon: float) -> np.ndarray:
    w = x.astype(np.float64)
    mean = w.mean(axis=tuple(axes), keepdims=True)
    return (w - mean) / np.sqrt(np.square(w - mean).mean(axis=tuple(axes), keepdims=True) + epsilon)


@op("layer_norm", COMPOUND)
class LayerNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the dimensions from `axis` on.

    `scale`, and `bias` if given, broadcast to those dimensions.
    """

    def infer(
        self, x: TensorType, scale: TensorType, bias: TensorType | None = None, *, axis: int, epsilon: float = 1e-5
    ) -> list[TensorType]:
        require(0 <= axis < x.ndim, f"layer_norm from axis {axis} of {x}")
        require(x.dtype.is_float and scale.dtype == x.dtype, f"layer_norm of {x} with a scale of {scale.dtype}")
        return [x]

    def te(
        self, x: te.Tensor, scale: te.Tensor, bias: te.Tensor | None = None, *, axis: int, epsilon: float = 1e-5
    ) -> te.Tensor:
        axes = range(axis, x.ndim)
        mean, factor = _standardise(x, axes, epsilon, "layer_norm")

        def element(*i: Expr) -> Expr:
            lead = i[:axis]
            y = (wide(x[i]) - mean[lead]) * factor[lead] * wide(_at_end(scale, i))
            return te.cast(x.dtype, y if bias is None else y + wide(_at_end(bias, i)))

        return te.compute(x.shape, element, name="layer_norm")

    def numpy(
        self, x: np.ndarray, scale: np.ndarray, bias: np.ndarray | None = None, *, axis: int, epsilon: float = 1e-5
    ) -> np.ndarray:
        y = _np_standardise(x, range(axis, x.ndim), epsilon) * scale.astype(np.float64)
        return (y if bias is None else y + bias.astype(np.float64)).astype(x.dtype)


def _at_end(p: te.Tensor, i: Sequence[Expr]) -> Expr:
    offset = len(i) - p.ndim
    return p[tuple(0 if n == 1 else i[offset + a] for a, n in enumerate(p.shape))]


@op("rms_norm", COMPOUND)
class RMSNorm(Op):
    """x / sqrt(mean(x^2) + epsilon) * scale over the dimensions from `axis` on (arXiv 1910.07467)."""

    def infer(self, x: TensorType, scale: TensorType, *, axis: int, epsilon: float = 1e-5) -> list[TensorType]:
        require(0 <= axis < x.ndim, f"rms_norm from axis {axis} of {x}")
        return [x]

    def te(self, x: te.Tensor, scale: te.Tensor, *, axis: int, epsilon: float = 1e-5) -> te.Tensor:
        axes = tuple(range(axis, x.ndim))
        count = product(x.shape[a] for a in axes)
        total = reduce_stage(x, axes, False, te.sum, lambda e: wide(e) * wide(e), "rms_norm_squares")
        size = as_float(count.value if count.op == "const" else count, total.dtype)
        factor = te.compute(
            total.shape,
            lambda *i: te.const(1.0, total.dtype) / te.sqrt(total[i] / size + te.const(epsilon, total.dtype)),
            name="rms_norm_scale",
        )
        return te.compute(
            x.shape,
            lambda *i: te.cast(x.dtype, wide(x[i]) * factor[i[:axis]] * wide(_at_end(scale, i))),
            name="rms_norm",
        )

    def numpy(self, x: np.ndarray, scale: np.ndarray, *, axis: int, epsilon: float = 1e-5) -> np.ndarray:
        w = x.astype(np.float64)
        mean = np.square(w).mean(axis=tuple(range(axis, x.ndim)), keepdims=True)
        return (w / np.sqrt(mean + epsilon) * scale.astype(np.float64)).astype(x.dtype)


@op("batch_norm", ELEMENTWISE)
class BatchNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias with constants per channel; channels are dimension `axis`."""

    def infer(
        self,
        x: TensorType,
        scale: TensorType,
        bias: TensorType,
        mean: TensorType,
        variance: TensorType,
        *,
        epsilon: float = 1e-5,
        axis: int = 1,
    ) -> list[TensorType]:
        require(0 <= axis < x.ndim, f"batch_norm of {x}: no channel dimension {axis}")
        for p in (scale, bias, mean, variance):
            require(p.ndim == 1, f"batch_norm of {x}: a parameter is {p}")
            same_dim(p.shape[0], x.shape[axis], f"batch_norm of {x} with a parameter {p}")
        return [x]

    def te(
        self,
        x: te.Tensor,
        scale: te.Tensor,
        bias: te.Tensor,
        mean: te.Tensor,
        variance: te.Tensor,
        *,
        epsilon: float = 1e-5,
        axis: int = 1,
    ) -> te.Tensor:
        def element(*i: Expr) -> Expr:
            c = i[axis]
            deviation = te.sqrt(variance[c] + te.const(epsilon, variance.dtype))
            factor = scale[c] / te.cast(scale.dtype, deviation)
            return (x[i] - te.cast(x.dtype, mean[c])) * te.cast(x.dtype, factor) + te.cast(x.dtype, bias[c])

        return te.compute(x.shape, element, name="batch_norm")

    def numpy(
        self,
        x: np.ndarray,
        scale: np.ndarray,
        bias: np.ndarray,
        mean: np.ndarray,
        variance: np.ndarray,
        *,
        epsilon: float = 1e-5,
        axis: int = 1,
    ) -> np.ndarray:
        shape = [1] * x.ndim
        shape[axis] = -1
        s, b, m, v = (p.astype(np.float64).reshape(shape) for p in (scale, bias, mean, variance))
        factor = s / np.sqrt(v + epsilon)
        return (x * factor + (b - m * factor)).astype(x.dtype)


@op("instance_norm", COMPOUND)
class InstanceNorm(Op):
    """Every channel of every sample standardised over its spatial dimensions, times scale[c], plus bias[c]; channels second."""

    def infer(self, x: TensorType, scale: TensorType, bias: TensorType, *, epsilon: float = 1e-5) -> list[TensorType]:
        require(x.ndim >= 3, f"instance_norm of {x}: no spatial dimensions")
        return [x]

    def te(self, x: te.Tensor, scale: te.Tensor, bias: te.Tensor, *, epsilon: float = 1e-5) -> te.Tensor:
        mean, factor = _standardise(x, range(2, x.ndim), epsilon, "instance_norm")
        return te.compute(
            x.shape,
            lambda *i: te.cast(
                x.dtype, (wide(x[i]) - mean[i[:2]]) * factor[i[:2]] * wide(scale[i[1]]) + wide(bias[i[1]])
            ),
            name="instance_norm",
        )

    def numpy(self, x: np.ndarray, scale: np.ndarray, bias: np.ndarray, *, epsilon: float = 1e-5) -> np.ndarray:
        shape = (-1, *(1,) * (x.ndim - 2))
        y = _np_standardise(x, range(2, x.ndim), epsilon)
        return (y * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)


@op("group_norm", COMPOUND)
class GroupNorm(Op):
    """Channels in `groups` groups, each standardised with its positions, times scale[c], plus bias[c]; channels second."""

    def infer(
        self, x: TensorType, scale: TensorType, bias: TensorType, *, groups: int, epsilon: float = 1e-5
    ) -> list[TensorType]:
        c = x.shape[1]
        require(c.op == "const" and c.value % groups == 0, f"group_norm of {x} in {groups} groups")
        return [x]

    def te(
        self, x: te.Tensor, scale: te.Tensor, bias: te.Tensor, *, groups: int, epsilon: float = 1e-5
    ) -> te.Tensor:
        size = known_size(x.shape[1]) // groups
        grouped = te.compute(
            (x.shape[0], groups, size, *x.shape[2:]), lambda n, g, c, *i: x[(n, g * size + c, *i)], name="grouped"
        )
        mean, factor = _standardise(grouped, range(2, grouped.ndim), epsilon, "group_norm")

        def element(*i: Expr) -> Expr:
            group = (i[0], floordiv(i[1], size))
            y = (wide(x[i]) - mean[group]) * factor[group]
            return te.cast(x.dtype, y * wide(scale[i[1]]) + wide(bias[i[1]]))

        return te.compute(x.shape, element, name="group_norm")

    def numpy(
        self, x: np.ndarray, scale: np.ndarray, bias: np.ndarray, *, groups: int, epsilon: float = 1e-5
    ) -> np.ndarray:
        grouped = x.reshape(x.shape[0], groups, -1)
        y = _np_standardise(grouped, [2], epsilon).reshape(x.shape)
        shape = (-1, *(1,) * (x.ndim - 2))
        return (y * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)


@op("lrn", COMPOUND)
class LRN(Op):
    """x / (bias + alpha / size * sum of x^2 over `size` neighbouring channels)^beta; channels second."""

    def infer(self, x: TensorType, *, size: int, alpha: float, beta: float, bias: float) -> list[TensorType]:
        require(x.ndim >= 2, f"lrn of {x}: no channels")
        return [x]

    def te(self, x: te.Tensor, *, size: int, alpha: float, beta: float, bias: float) -> te.Tensor:
        channels: ExprLike = x.shape[1]
        before = (size - 1) // 2
        k = te.reduce_axis(size, name="k")

        def squares(*i: Expr) -> Expr:
            c = i[1] + k - before
            inside = te.all_of(c >= 0, c < wrap(channels))
            value = te.if_then_else(inside, wide(x[(i[0], c, *i[2:])]), te.const(0, wide(x[i]).dtype))
            return te.sum(value * value, axis=k)

        total = te.compute(x.shape, squares, name="lrn_squares")

        def element(*i: Expr) -> Expr:
            base = te.const(bias, total.dtype) + te.const(alpha / size, total.dtype) * total[i]
            return te.cast(x.dtype, wide(x[i]) / te.pow(base, te.const(beta, total.dtype)))

        return te.compute(x.shape, element, name="lrn")

    def numpy(self, x: np.ndarray, *, size: int, alpha: float, beta: float, bias: float) -> np.ndarray:
        w = x.astype(np.float64)
        before, after = (size - 1) // 2, size // 2
        padded = np.pad(np.square(w), [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
        total = sum(padded[:, k : k + x.shape[1]] for k in range(size))
        return (w / (bias + alpha / size * total) ** beta).astype(x.dtype)


@op("lp_norm", COMPOUND)
class LpNorm(Op):
    """x / (sum of |x|^p along `axis`)^(1/p), p = 1 or 2."""

    def infer(self, x: TensorType, *, axis: int, p: int = 2) -> list[TensorType]:
        require(p in (1, 2), f"lp_norm with p={p}")
        return [x]

    def te(self, x: te.Tensor, *, axis: int, p: int = 2) -> te.Tensor:
        total = reduce_stage(
            x, [axis], False, te.sum, lambda e: te.abs(wide(e)) if p == 1 else wide(e) * wide(e), "lp_norm_sum"
        )

        def element(*i: Expr) -> Expr:
            norm = total[_without(i, [axis])]
            norm = norm if p == 1 else te.sqrt(norm)
            safe = te.select(te.equal(norm, te.const(0, norm.dtype)), te.const(1, norm.dtype), norm)
            return te.cast(x.dtype, wide(x[i]) / safe)

        return te.compute(x.shape, element, name="lp_norm")

    def numpy(self, x: np.ndarray, *, axis: int, p: int = 2) -> np.ndarray:
        norm = np.linalg.norm(x.astype(np.float64), ord=p, axis=axis, keepdims=True)
        return (x / np.where(norm == 0, 1, norm)).astype(x.dtype)
