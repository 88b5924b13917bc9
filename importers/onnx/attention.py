"""Attentions: ONNX's own in f16; com.microsoft's with one packed weight, of many heads, of grouped queries with a cache.

All are softmax(scale * q k' + bias) v over heads [B, N, S, D] (Attention Is All You Need, arXiv 1706.03762), in f32 or f64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tensorlang.graph import Expr, Value, as_dtype, as_ints, canonical

from .microsoft import MICROSOFT, rotated
from .node import Item, OnnxNode
from .quantize import integer_product, scaled_product
from .registry import onnx_op

LOWEST = float(np.finfo(np.float32).min)
Dim = int | Expr


def attend(
    node: OnnxNode, q: Value, k: Value, v: Value, scale: float, biases: Sequence[Value | None] = (),
    keep: Value | None = None, cap: float = 0.0,
) -> Value:  # fmt: skip
    """[B, N, S, D] heads attending to [B, N, T, D] ones.

    Args:
        biases: added to the scores; they broadcast.
        keep: where it does not hold, nothing is attended to.
        cap: scores are held within it by a tanh, before biases; 0: they are not.
    """
    scores = node.add("matmul", q, node.add("transpose", k, perm=(0, 1, 3, 2)))
    scores = node.add("mul", scores, node.constant(scale / cap if cap else scale, scores))
    if cap:
        scores = node.add("mul", node.add("tanh", scores), node.constant(cap, scores))
    for bias in biases:
        if bias is not None:
            scores = node.add("add", scores, bias)
    if keep is not None:
        scores = node.add("where", keep, scores, node.constant(LOWEST, scores))
    return node.add("matmul", node.add("softmax", scores, axis=3), v)


def split_heads(node: OnnxNode, x: Value, heads: int) -> Value:
    """[B, S, N * D] as [B, N, S, D]."""
    width = as_ints(x.shape[2:])
    if width is None or width[0] % heads:
        raise node.fail(f"{x.type} does not split into {heads} heads")
    split = node.add("reshape", x, shape=(*x.shape[:2], heads, width[0] // heads))
    return node.add("transpose", split, perm=(0, 2, 1, 3))


def join_heads(node: OnnxNode, x: Value) -> Value:
    """[B, N, S, D] as [B, S, N * D]."""
    batch, heads, length, size = x.shape
    return node.add("reshape", node.add("transpose", x, perm=(0, 2, 1, 3)), shape=(batch, length, canonical(heads * size)))


def _columns(node: OnnxNode, x: Value, sizes: Sequence[int]) -> list[Value]:
    """`x` cut along its last dimension."""
    lead, parts, start = x.shape[:-1], [], 0
    for size in sizes:
        starts = (*(0,) * len(lead), start)
        parts.append(node.add("slice", x, starts=starts, shape=(*lead, size), steps=(1,) * (len(lead) + 1)))
        start += size
    return parts


def _pick(node: OnnxNode, x: Value, axis: int, index: int) -> Value:
    """One index of a dimension, which goes."""
    shape = [1 if a == axis else d for a, d in enumerate(x.shape)]
    starts = tuple(index if a == axis else 0 for a in range(x.type.ndim))
    part = node.add("slice", x, starts=starts, shape=tuple(shape), steps=(1,) * x.type.ndim)
    return node.add("reshape", part, shape=tuple(d for a, d in enumerate(x.shape) if a != axis))


def _extended(node: OnnxNode, past: Value | None, x: Value) -> Value:
    """Keys or values after those of the past."""
    return x if past is None else node.add("concat", past, x, axis=2)


def _count(node: OnnxNode, size: Dim, shape: Sequence[Dim], start: Dim = 0) -> Value:
    """start, start + 1, ... as i64 in a shape."""
    return node.add("reshape", node.add("range", start=start, step=1, size=size, dtype="i64"), shape=tuple(shape))


def causal(node: OnnxNode, queries: Expr, keys: Expr) -> Value:
    """Whether a query may attend to a key [1, 1, S, T], the last query being at the last key."""
    t = _count(node, keys, (1, 1, 1, keys))
    s = _count(node, queries, (1, 1, queries, 1), canonical(keys - queries))
    return node.add("less_equal", t, s)


def _masked(node: OnnxNode, mask: Value | None, batch: Expr, queries: Expr, keys: Expr, like: Value) -> Value | None:
    """What a mask adds to the scores: 0, or `mask_filter_value` where there is nothing to attend to.

    Masks are the keys' number [B], their end and start [2 B], or ones and zeros [B, T], [B, S, T] or [B, 1, M, M].
    """
    if mask is None:
        return None
    wide = node.add("cast", mask, dtype="i64")
    shape: tuple[Dim, ...]
    if mask.type.ndim == 1:
        t = _count(node, keys, (1, 1, 1, keys))
        rows, given = as_ints((batch,)), as_ints(mask.shape)
        if mask.shape[0] is batch or (rows is not None and rows == given):
            keep = node.add("less", t, node.add("reshape", wide, shape=(batch, 1, 1, 1)))
        elif rows is not None and given == (2 * rows[0],):
            end, start = (
                node.add("reshape", node.add("slice", wide, starts=(s,), shape=(batch,), steps=(1,)), shape=(batch, 1, 1, 1))
                for s in (0, rows[0])
            )
            keep = node.add("and", node.add("less", t, end), node.add("less_equal", start, t))
        else:
            raise node.unsupported(f"a mask {mask.type} for {batch} rows")
    else:
        if mask.type.ndim == 4:
            part = (batch, 1, queries, keys)
            wide = node.add("slice", wide, starts=(0, 0, canonical(keys - queries), 0), shape=part, steps=(1,) * 4)
            shape = part
        else:
            shape = (batch, 1, 1, keys) if mask.type.ndim == 2 else (batch, 1, queries, keys)
        keep = node.add("greater", node.add("reshape", wide, shape=shape), node.constant(0, as_dtype("i64")))
    away = node.constant(node.attr("mask_filter_value", -10000.0), like)
    return node.add("where", keep, node.constant(0, like), away)


def _refuse(node: OnnxNode, *flags: str) -> None:
    for flag in flags:
        if node.attr(flag, 0):
            raise node.unsupported(f"{flag}={node.attr(flag)}")


@onnx_op("Attention", since=23)
def standard_attention(node: OnnxNode) -> tuple[Item, ...]:
    """ONNX's own, by its definition; that of f16 in f32, which is nearer to the truth, and rounded once at the end."""
    half, wide = as_dtype("f16"), as_dtype("f32")
    if node.input(0).dtype != half:
        raise node.unsupported("only f16 has a rule of its own")
    given = [node.add("cast", v, dtype=wide) if isinstance(v, Value) and v.dtype == half else v for v in node.inputs]
    made = node.host.inlined(OnnxNode(node.proto, node.version, given, node.emitter, node.host))
    return tuple(node.add("cast", v, dtype=half) if isinstance(v, Value) and v.dtype == wide else v for v in made)


@onnx_op("Attention", domain=MICROSOFT)
def attention(node: OnnxNode) -> Value | tuple[Value, ...]:
    """Self-attention of x [B, S, H] with a weight and bias for queries, keys and values side by side."""
    _refuse(node, "do_rotary", "past_present_share_buffer")
    x, weight, bias, mask, past, extra = (node.optional(i) for i in range(6))
    if x is None or weight is None:
        raise node.fail("an input is missing")
    together = node.add("matmul", x, weight)
    if bias is not None:
        together = node.add("add", together, bias)
    return _self_attention(node, together, mask, past, extra)


@onnx_op("QAttention", domain=MICROSOFT)
def quantised_attention(node: OnnxNode) -> Value | tuple[Value, ...]:
    """`attention` whose first product is of integers."""
    _refuse(node, "do_rotary", "past_present_share_buffer")
    x, weight, bias, x_scale, weight_scale = (node.input(i) for i in range(5))
    mask, x_zero, weight_zero, past = (node.optional(i) for i in range(5, 9))
    total = integer_product(node, x, x_zero, weight, weight_zero)
    return _self_attention(node, scaled_product(node, total, x_scale, weight_scale, bias), mask, past, None)


def _self_attention(
    node: OnnxNode, together: Value, mask: Value | None, past: Value | None, extra: Value | None
) -> Value | tuple[Value, ...]:
    """Attention of queries, keys and values that stand side by side in [B, S, 3 H]."""
    heads, width = int(node.attr("num_heads")), as_ints(together.shape[2:])
    if width is None:
        raise node.unsupported(f"a weight of unknown size: {together.type}")
    sizes = tuple(node.attr("qkv_hidden_sizes", ())) or (width[0] // 3,) * 3
    q, k, v = (split_heads(node, part, heads) for part in _columns(node, together, sizes))
    if past is not None:
        k, v = (_extended(node, _pick(node, past, 0, i), new) for i, new in enumerate((k, v)))
    batch, queries, keys = together.shape[0], together.shape[1], k.shape[2]
    scale = node.attr("scale", 0.0) or 1 / math.sqrt(sizes[0] // heads)
    keep = causal(node, queries, keys) if node.attr("unidirectional", 0) else None
    y = attend(node, q, k, v, scale, (_masked(node, mask, batch, queries, keys, q), extra), keep)
    joined = join_heads(node, y)
    if not node.wants(1):
        return joined
    return joined, node.add("concat", *(node.add("reshape", c, shape=(1, *c.shape)) for c in (k, v)), axis=0)


@onnx_op("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(node: OnnxNode) -> Value | tuple[Value, ...]:
    """Attention of given queries to given keys and values, with a cache of past ones."""
    query, key, value, bias, mask, extra, past_key, past_value = (node.optional(i) for i in range(8))
    if any(node.optional(i) is not None for i in (8, 9)):
        raise node.unsupported("a cache that is shared or indirect")
    if query is None:
        raise node.fail("the query is missing")
    heads = int(node.attr("num_heads"))
    parts = _apart(node, query, key, value)
    if bias is not None:
        widths = [as_ints(p.shape[2:]) if p.type.ndim == 3 else as_ints((canonical(p.shape[1] * p.shape[3]),)) for p in parts]
        if None in widths:
            raise node.unsupported("a bias of unknown sizes")
        biases = _columns(node, bias, [w[0] for w in widths if w is not None])
        parts = [node.add("add", p, b) if p.type.ndim == 3 else p for p, b in zip(parts, biases, strict=True)]
    q, k, v = (split_heads(node, p, heads) if p.type.ndim == 3 else p for p in parts)
    k, v = _extended(node, past_key, k), _extended(node, past_value, v)
    batch, queries, keys, size = q.shape[0], q.shape[2], k.shape[2], as_ints(q.shape[3:])
    if size is None:
        raise node.unsupported(f"heads of unknown size {q.type}")
    scale = node.attr("scale", 0.0) or 1 / math.sqrt(size[0])
    keep = causal(node, queries, keys) if node.attr("unidirectional", 0) else None
    y = join_heads(node, attend(node, q, k, v, scale, (_masked(node, mask, batch, queries, keys, q), extra), keep))
    return (y, k, v)[: node.output_count] if node.output_count > 1 else y


def _apart(node: OnnxNode, query: Value, key: Value | None, value: Value | None) -> list[Value]:
    """Queries, keys and values, each [B, S, N * D], or keys and values [B, N, T, D] as they are given."""

    def row(x: Value) -> Value:
        batch, length, heads, size = x.shape
        return node.add("reshape", x, shape=(batch, length, canonical(heads * size)))

    if query.type.ndim == 5:  # [B, S, N, 3, D]
        return [row(_pick(node, query, 3, i)) for i in range(3)]
    if key is not None and key.type.ndim == 5:  # [B, T, N, 2, D]
        return [query, *(row(_pick(node, key, 3, i)) for i in range(2))]
    if key is None or value is None:
        raise node.fail("keys or values are missing")
    return [query, key, value]


@onnx_op("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(node: OnnxNode) -> tuple[Value, ...]:
    """Causal attention in which several heads of queries share one of keys and values (arXiv 2305.13245), with a cache.

    `seqlens_k` [B] are the numbers of keys less 1 after this call. What the cache holds beyond them is not looked at.
    """
    _refuse(node, "smooth_softmax", "kv_cache_bit_width", "qk_output")
    query, key, value, past_key, past_value, lengths, total, cosines, sines, positions, extra = (
        node.optional(i) for i in range(11)
    )
    if node.optional(11) is not None:
        raise node.unsupported("head sinks")
    if query is None or lengths is None or total is None:
        raise node.fail("an input is missing")
    heads, groups = int(node.attr("num_heads")), int(node.attr("kv_num_heads"))
    width = as_ints(query.shape[2:])
    if width is None:
        raise node.unsupported(f"heads of unknown size {query.type}")
    if key is None or value is None:
        size = width[0] // (heads + 2 * groups)
        query, key, value = _columns(node, query, (heads * size, groups * size, groups * size))
    else:
        size = width[0] // heads
    batch, queries = query.shape[0], query.shape[1]
    after = node.add("reshape", node.add("cast", lengths, dtype="i64"), shape=(batch, 1))
    after = node.add("add", after, node.constant(1, as_dtype("i64")))
    length = node.add("full", shape=(), value=queries, dtype="i64")
    before = node.add("maximum", node.add("sub", after, length), node.constant(0, as_dtype("i64")))  # keys of the past, [B, 1]
    place = node.add("add", before, _count(node, queries, (1, queries)))  # of each query, [B, S]
    if node.attr("do_rotary", 0):
        if cosines is None or sines is None:
            raise node.fail("tables of cosines and sines are missing")
        turned = place if positions is None else positions
        query, key = (
            _rotated_rows(node, x, n, turned, cosines, sines) for x, n in ((query, heads), (key, groups))
        )
    q, k, v = split_heads(node, query, heads), split_heads(node, key, groups), split_heads(node, value, groups)
    keys = queries
    if past_key is not None and past_value is not None:
        keys = node.dims(6, "the total length")[0]
        held = past_key.shape[2]
        limits = as_ints((held, keys))
        keys = canonical(max(limits)) if limits is not None else keys
        k = node.add("append_rows", past_key, k, before, size=keys)
        v = node.add("append_rows", past_value, v, before, size=keys)
    t = _count(node, keys, (1, 1, 1, keys))
    s = node.add("reshape", place, shape=(batch, 1, queries, 1))
    keep = node.add("less_equal", t, s)
    if (window := node.attr("local_window_size", -1)) > 0:
        oldest = node.add("sub", s, node.constant(window, as_dtype("i64")))
        keep = node.add("and", keep, node.add("less", oldest, t))
    shared_keys, shared_values = (_repeated(node, x, heads // groups) for x in (k, v))
    scale = node.attr("scale", 0.0) or 1 / math.sqrt(size)
    y = attend(node, q, shared_keys, shared_values, scale, (extra,), keep, node.attr("softcap", 0.0))
    return (join_heads(node, y), k, v)[: max(node.output_count, 1)]


def _rotated_rows(node: OnnxNode, x: Value, heads: int, place: Value, cosines: Value, sines: Value) -> Value:
    """x [B, S, N * D] with the heads turned by their positions [B, S]."""
    batch, length, width = x.shape
    split = node.add("reshape", x, shape=(batch, length, heads, canonical(width // heads)))
    turned = rotated(node, split, place, cosines, sines, bool(node.attr("rotary_interleaved", 0)))
    return node.add("reshape", turned, shape=x.shape)


def _repeated(node: OnnxNode, x: Value, times: int) -> Value:
    """Each head [B, N, T, D] several times, side by side."""
    if times == 1:
        return x
    batch, heads, length, size = x.shape
    apart = node.add("reshape", x, shape=(batch, heads, 1, length, size))
    wide = node.add("expand", apart, shape=(batch, heads, times, length, size))
    return node.add("reshape", wide, shape=(batch, canonical(heads * times), length, size))
