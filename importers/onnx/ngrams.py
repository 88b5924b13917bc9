"""TfIdfVectorizer on numbers: how often n-grams out of a given pool occur in each row."""

from __future__ import annotations

import numpy as np

from tensorlang.graph import Value, as_ints, canonical

from .node import OnnxNode
from .registry import onnx_op


@onnx_op("TfIdfVectorizer", since=9)
def tfidf_vectorizer(node: OnnxNode) -> Value:
    """x [C] or [N, C] -> counts f32[outputs] or [N, outputs], where an n-gram's elements stand 1 to max_skip_count + 1 apart.

    `ngram_counts` cuts the pool into parts of 1-grams, 2-grams, ...; only those of min to max length count.
    """
    x = node.input(0)
    if node.has("pool_strings") or not node.has("pool_int64s"):
        raise node.unsupported("a pool of strings, for elements that are numbers")
    if x.type.ndim not in (1, 2):
        raise node.fail(f"{x.type}: a row or a table is expected")
    columns = as_ints(x.shape[-1:])
    if columns is None:
        raise node.unsupported(f"{x.type}: rows of an unknown length")
    rows = node.add("reshape", x, shape=(1, *x.shape)) if x.type.ndim == 1 else x
    wide = node.add("cast", rows, dtype="i64")
    places = node.attr("ngram_indexes")
    shortest, longest, skips = (node.attr(n) for n in ("min_gram_length", "max_gram_length", "max_skip_count"))
    mode = node.choice("mode", "TF", "IDF", "TFIDF")
    weights = np.asarray(node.attr("weights", (1.0,) * len(places)), np.float32)
    outputs = max(places, default=-1) + 1
    if outputs < 1 or len(weights) != len(places) or not 1 <= shortest <= longest or skips < 0:
        raise node.fail("its n-grams, weights or lengths do not fit each other")
    counts: list[Value] = []
    target = np.full(outputs, -1, np.int64)  # which of the counted n-grams each output shows
    counted = 0
    for length, (first, pool) in _pools(node, len(places)).items():
        if not shortest <= length <= longest or not len(pool):
            continue
        found = _occurrences(node, wide, columns[0], pool, skips if length > 1 else 0)
        if found is None:
            continue
        counts.append(found)
        target[list(places[first : first + len(pool)])] = np.arange(counted, counted + len(pool))
        counted += len(pool)
    batch = rows.shape[0]
    none = node.add("expand", node.constant(np.zeros((1, 1), np.float32)), shape=(batch, canonical(1)))
    table = node.add("concat", *counts, none, axis=1) if counts else none  # the last column: what nobody counts
    y = node.add("gather", table, node.constant(np.where(target < 0, counted, target)), axis=1)
    if mode != "TF":
        factor = np.ones(outputs, np.float32)
        factor[list(places)] = weights
        if mode == "IDF":
            y = node.add("cast", node.add("greater", y, node.constant(0, y)), dtype="f32")
        y = node.add("mul", y, node.constant(factor))
    return node.add("reshape", y, shape=(outputs,)) if x.type.ndim == 1 else y


def _pools(node: OnnxNode, total: int) -> dict[int, tuple[int, np.ndarray]]:
    """Length of n-grams -> (number of the first of them, their elements [n-grams, length])."""
    elements = np.asarray(node.attr("pool_int64s"), np.int64)
    starts = [*node.attr("ngram_counts"), len(elements)]
    found, first = {}, 0
    for length, (begin, end) in enumerate(zip(starts, starts[1:], strict=False), start=1):
        if not 0 <= begin <= end or (end - begin) % length:
            raise node.fail(f"its pool has no whole number of {length}-grams")
        found[length] = (first, elements[begin:end].reshape(-1, length))
        first += (end - begin) // length
    if first != total:
        raise node.fail(f"its pool has {first} n-grams, ngram_indexes {total}")
    return found


def _occurrences(node: OnnxNode, x: Value, columns: int, pool: np.ndarray, skips: int) -> Value | None:
    """f32[rows, n-grams]: in how many places of a row each n-gram stands; None if rows are too short for any."""
    total: Value | None = None
    for step in range(1, skips + 2):
        width = columns - (pool.shape[1] - 1) * step
        if width < 1:
            break
        same: Value | None = None
        for k in range(pool.shape[1]):
            part = node.add("slice", x, starts=(0, k * step), shape=(x.shape[0], width), steps=(1, 1))
            part = node.add("reshape", part, shape=(x.shape[0], width, 1))
            hit = node.add("equal", part, node.constant(pool[:, k].reshape(1, 1, -1)))
            same = hit if same is None else node.add("and", same, hit)
        assert same is not None
        count = node.add("reduce_sum", node.add("cast", same, dtype="f32"), axes=(1,), keepdims=False)
        total = count if total is None else node.add("add", total, count)
    return total
