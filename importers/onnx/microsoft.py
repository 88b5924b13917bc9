"""com.microsoft's operators on floats: fused products, normalisations after a sum, embeddings, rotary positions."""

from __future__ import annotations

from tensorlang.graph import Value, as_ints

from .nn import gemm_of, pool_attributes, window_attributes
from .node import OnnxNode
from .registry import onnx_op

MICROSOFT = "com.microsoft"


# -- products ------------------------------------------------------------------------------------------------------


def _transposed(node: OnnxNode, x: Value, batch: bool, matrix: bool) -> Value:
    """`x` with its last two dimensions exchanged (`matrix`), after the first moved to the last but one place (`batch`)."""
    n = x.type.ndim
    perm = list(range(n))
    if batch and n > 2:
        perm = [*perm[1:-1], 0, n - 1]
    if matrix and n > 1:
        perm[-1], perm[-2] = perm[-2], perm[-1]
    return x if perm == list(range(n)) else node.add("transpose", x, perm=tuple(perm))


@onnx_op("FusedMatMul", domain=MICROSOFT)
@onnx_op("TransposeMatMul", domain=MICROSOFT)
def fused_matmul(node: OnnxNode) -> Value:
    """alpha * A' B'"""
    a, b = (
        _transposed(node, node.input(i), bool(node.attr(f"transBatch{s}", 0)), bool(node.attr(f"trans{s}", 0)))
        for i, s in enumerate("AB")
    )
    y = node.add("matmul", a, b)
    alpha = node.attr("alpha", 1.0)
    return y if alpha == 1 else node.add("mul", y, node.constant(alpha, y))


@onnx_op("FusedGemm", domain=MICROSOFT)
def fused_gemm(node: OnnxNode) -> Value:
    """activation(alpha * A' B' + beta * C)"""
    given = [f"activation_{k}" for k in ("alpha", "beta") if node.has(f"activation_{k}")]
    return activated(node, gemm_of(node), tuple(map(node.attr, given)))


def activated(node: OnnxNode, x: Value, given: tuple[float, ...] | None = None) -> Value:
    """`x` through the function that the attribute `activation` names, with `given` or its `activation_params`."""
    name = node.attr("activation", "")
    given = tuple(node.attr("activation_params", ())) if given is None else given
    if name in ("Relu", "Tanh", "Sigmoid"):
        return node.add(name.lower(), x)
    if name == "":
        return x
    if name == "LeakyRelu":
        return node.add("leaky_relu", x, alpha=given[0] if given else 0.01)
    if name == "Clip":
        return node.add("clip", x, min=given[0], max=given[1])
    if name == "HardSigmoid":
        return node.add("hard_sigmoid", x, alpha=given[0], beta=given[1])
    raise node.unsupported(f"the activation {name}")


@onnx_op("FusedConv", domain=MICROSOFT)
def fused_conv(node: OnnxNode) -> Value:
    """activation(conv(x, w) + bias + z)"""
    x, w = node.input(0), node.input(1)
    bias, other = node.optional(2), node.optional(3)
    y = node.add("conv", x, w, *([] if bias is None else [bias]), **window_attributes(node, x, w))
    return activated(node, y if other is None else node.add("add", y, other))


@onnx_op("NhwcConv", domain=MICROSOFT)
@onnx_op("NhwcFusedConv", domain=MICROSOFT)
def nhwc_conv(node: OnnxNode) -> Value:
    """A convolution of a tensor whose channels are last; of the weight, they are second, as ever."""
    n = node.input(0).type.ndim
    forth, back = (0, n - 1, *range(1, n - 1)), (0, *range(2, n), 1)
    x, w = node.add("transpose", node.input(0), perm=forth), node.input(1)
    bias, other = node.optional(2), node.optional(3)
    y = node.add("conv", x, w, *([] if bias is None else [bias]), **window_attributes(node, x, w))
    y = node.add("transpose", y, perm=back)
    return activated(node, y if other is None else node.add("add", y, other))


@onnx_op("NhwcMaxPool", domain=MICROSOFT)
def nhwc_max_pool(node: OnnxNode) -> Value:
    """Of a tensor whose channels are last."""
    n = node.input(0).type.ndim
    x = node.add("transpose", node.input(0), perm=(0, n - 1, *range(1, n - 1)))
    return node.add("transpose", node.add("max_pool", x, **pool_attributes(node, x)), perm=(0, *range(2, n), 1))


# -- activations ---------------------------------------------------------------------------------------------------


def _halves(node: OnnxNode, x: Value) -> tuple[Value, Value]:
    """The two halves of the last dimension."""
    size = as_ints(x.shape[-1:])
    if size is None or size[0] % 2:
        raise node.unsupported(f"a last dimension that cannot be halved: {x.type}")
    half, lead = size[0] // 2, x.shape[:-1]
    zero, one = (0,) * len(lead), (1,) * len(x.shape)
    left, right = (node.add("slice", x, starts=(*zero, at), shape=(*lead, half), steps=one) for at in (0, half))
    return left, right


@onnx_op("BiasSplitGelu", domain=MICROSOFT)
def bias_split_gelu(node: OnnxNode) -> Value:
    """The left half of x + bias times gelu of the right half."""
    left, right = _halves(node, node.add("add", node.input(0), node.input(1)))
    return node.add("mul", left, node.add("gelu", right, approximate="none"))


@onnx_op("BiasAdd", domain=MICROSOFT)
def bias_add(node: OnnxNode) -> Value:
    """x + bias + skip"""
    return node.add("add", node.add("add", node.input(0), node.input(1)), node.input(2))


@onnx_op("BiasSoftmax", domain=MICROSOFT)
def bias_softmax(node: OnnxNode) -> Value:
    """softmax(x + bias) over the last dimension; the bias broadcasts from the inside."""
    x, axis = node.input(0), node.attr("axis", 1)
    if node.normal_axis(axis, x.type.ndim) != x.type.ndim - 1:
        raise node.unsupported(f"axis {axis} of {x.type}")
    return node.add("softmax", node.add("add", x, node.input(1)), axis=x.type.ndim - 1)


# -- normalisations ------------------------------------------------------------------------------------------------


@onnx_op("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_simplified_layer_normalization(node: OnnxNode) -> Value | tuple[Value, ...]:
    """rms_norm(x + skip [+ bias]) * gamma"""
    x = node.add("add", node.input(0), node.input(1))
    if (bias := node.optional(3)) is not None:
        x = node.add("add", x, bias)
    if node.wants(1) or node.wants(2):
        raise node.unsupported("mean and deviation as outputs")
    y = node.add("rms_norm", x, node.input(2), axis=x.type.ndim - 1, epsilon=node.attr("epsilon", 1e-12))
    return (y, y, y, x)[: node.output_count] if node.wants(3) else y


@onnx_op("EmbedLayerNormalization", domain=MICROSOFT)
def embed_layer_normalization(node: OnnxNode) -> tuple[Value, ...]:
    """layer_norm(words[ids] + positions[0, 1, ...] [+ segments[segment_ids]]), and the number of tokens of each row."""
    ids, segment_ids, words, positions, segments, gamma, beta, mask, position_ids = (node.optional(i) for i in range(9))
    if ids is None or words is None or positions is None or gamma is None or beta is None:
        raise node.fail("an input is missing")
    length = ids.shape[1]
    total = node.add("gather", words, ids, axis=0)
    if position_ids is None:
        width = positions.shape[1]
        part = node.add("slice", positions, starts=(0, 0), shape=(length, width), steps=(1, 1))
        total = node.add("add", total, part)
    else:
        total = node.add("add", total, node.add("gather", positions, position_ids, axis=0))
    if segments is not None and segment_ids is not None:
        total = node.add("add", total, node.add("gather", segments, segment_ids, axis=0))
    y = node.add("layer_norm", total, gamma, beta, axis=2, epsilon=node.attr("epsilon", 1e-12))
    if mask is None or node.attr("mask_index_type", 1) == 0:
        count = node.add("full", shape=(ids.shape[0],), value=0, dtype="i32")
    else:
        count = node.add("reduce_sum", node.add("cast", mask, dtype="i32"), axes=(1,), keepdims=False)
    return (y, count, total)[: max(node.output_count, 1)]


# -- positions -----------------------------------------------------------------------------------------------------


def rotated(
    node: OnnxNode, x: Value, positions: Value, cosines: Value, sines: Value, interleaved: bool, scale: float = 1.0
) -> Value:
    """Pairs of elements of x [B, S, N, D] turned by the angles of their positions [B, S] (RoFormer, arXiv 2104.09864).

    Args:
        cosines, sines: tables [positions, R / 2]; only the first R elements are turned.
        interleaved: pairs are neighbours; otherwise an element and the one R / 2 further.
    """
    sizes = as_ints((x.shape[3], cosines.shape[1]))
    if sizes is None:
        raise node.unsupported(f"heads of unknown size {x.type}")
    size, half = sizes
    lead = x.shape[:3]
    angle = (positions.shape[0], positions.shape[1], 1, half)
    cos, sin = (node.add("reshape", node.add("gather", t, positions, axis=0), shape=angle) for t in (cosines, sines))
    turned, rest = x, []
    if 2 * half < size:
        turned = node.add("slice", x, starts=(0,) * 4, shape=(*lead, 2 * half), steps=(1,) * 4)
        rest = [node.add("slice", x, starts=(0, 0, 0, 2 * half), shape=(*lead, size - 2 * half), steps=(1,) * 4)]
    step = 2 if interleaved else 1
    starts = (0, 1) if interleaved else (0, half)
    a, b = (
        node.add("slice", turned, starts=(0, 0, 0, s), shape=(*lead, half), steps=(1, 1, 1, step)) for s in starts
    )
    real = node.add("sub", node.add("mul", a, cos), node.add("mul", b, sin))
    imaginary = node.add("add", node.add("mul", a, sin), node.add("mul", b, cos))
    if interleaved:
        pair = [node.add("reshape", v, shape=(*lead, half, 1)) for v in (real, imaginary)]
        y = node.add("reshape", node.add("concat", *pair, axis=4), shape=(*lead, 2 * half))
    else:
        y = node.add("concat", real, imaginary, axis=3)
    y = node.add("concat", y, *rest, axis=3) if rest else y
    return y if scale == 1 else node.add("mul", y, node.constant(scale, y))


@onnx_op("RotaryEmbedding", domain=MICROSOFT)
def rotary_embedding(node: OnnxNode) -> Value:
    """`rotated` for x [B, S, N * D] or [B, N, S, D]; a single position is that of the first token."""
    x, positions, cosines, sines = (node.input(i) for i in range(4))
    if node.attr("is_packed_batching", 0):
        raise node.unsupported("packed batches")
    interleaved, scale = bool(node.attr("interleaved", 0)), node.attr("scale", 1.0)
    if x.type.ndim == 4:
        rows = _row_positions(node, positions, x.shape[0], x.shape[2])
        turned = rotated(node, node.add("transpose", x, perm=(0, 2, 1, 3)), rows, cosines, sines, interleaved, scale)
        return node.add("transpose", turned, perm=(0, 2, 1, 3))
    width, table = as_ints(x.shape[2:]), as_ints(cosines.shape[1:])
    if width is None or table is None:
        raise node.unsupported(f"heads of unknown size {x.type}")
    heads = int(node.attr("num_heads", 0))
    if node.attr("rotary_embedding_dim", 0) and not heads:
        raise node.fail("rotary_embedding_dim without num_heads")
    size = width[0] // heads if heads else 2 * table[0]
    split = node.add("reshape", x, shape=(*x.shape[:2], width[0] // size, size))
    positions = _row_positions(node, positions, x.shape[0], x.shape[1])
    return node.add("reshape", rotated(node, split, positions, cosines, sines, interleaved, scale), shape=x.shape)


def _row_positions(node: OnnxNode, positions: Value, batch: object, length: object) -> Value:
    """Positions [B, S] of the tokens, given so or as the first one's."""
    if positions.type.ndim == 2:
        return positions
    count = node.add("range", start=0, step=1, size=length, dtype="i64")
    first = node.add("reshape", positions, shape=(1, 1))
    row = node.add("add", node.add("reshape", count, shape=(1, length)), first)
    return node.add("expand", row, shape=(batch, length))
