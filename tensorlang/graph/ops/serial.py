"""Operators whose algorithm is a sequence of decisions: written as the emitted program's own Python, one kernel each.

They give buffers of the largest size that the result can have, and how much of them it takes up (a `count`, one i64); the
importer cuts them with `bind_size` and `slice`. ONNX, operators NonZero, Unique, NonMaxSuppression.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import product, require
from tensorlang.graph.registry import OPAQUE, Op, op
from tensorlang.ir.expr import Expr


class SerialOp(Op):
    """An operator with a hand-written kernel.

    `parameters` names the pointers, inputs first; `sizes` gives the kernel's integer arguments, by name; `body` is the
    kernel's text, in which types of its inputs may occur as `{0}`, `{1}`, ... Equal texts are one kernel.

    Where `lines`, in terms of the sizes, counts independent pieces of the work, threads share them: the text does those from
    `line_begin` up to `line_end`. `each` is about how many steps a piece takes.
    """

    parameters: tuple[str, ...] = ()
    body: str = ""
    lines: str = ""
    each: str = "1"

    def sizes(self, *inputs: TensorType, **attrs: Any) -> dict[str, Expr]:
        raise NotImplementedError(self.name)

    def text(self, inputs: Sequence[TensorType], **attrs: Any) -> str:
        """The lines of the kernel's body."""
        return self.body


@op("nonzero", OPAQUE)
class NonZero(SerialOp):
    """x[d0, ..., dn] -> (indices i64[n, product(d)], count): column k holds the position of the k-th element that is not 0."""

    parameters = ("x", "y", "count")

    def infer(self, x: TensorType, **attrs: Any) -> list[TensorType]:
        return [TensorType.of("i64", (x.ndim, product(x.shape))), TensorType.of("i64", ())]

    def sizes(self, x: TensorType, **attrs: Any) -> dict[str, Expr]:
        return {"n": product(x.shape), **{f"d{k}": d for k, d in enumerate(x.shape)}}

    def text(self, inputs: Sequence[TensorType], **attrs: Any) -> str:
        lines = ["found = 0", "for i in range(n):", "    if x[i] != 0:", "        rest = i"]
        for k in reversed(range(inputs[0].ndim)):
            lines += [f"        y[{k} * n + found] = rest % d{k}", f"        rest = rest // d{k}"]
        return "\n".join([*lines, "        found += 1", "count[0] = found"])

    def numpy(self, x: np.ndarray, **attrs: Any) -> tuple[np.ndarray, np.ndarray]:
        found = np.stack(np.nonzero(x)) if x.ndim else np.zeros((0, int(x != 0)), np.int64)
        buffer = np.zeros((x.ndim, x.size), np.int64)
        buffer[:, : found.shape[1]] = found
        return buffer, np.array(found.shape[1], np.int64)


@op("unique", OPAQUE)
class Unique(SerialOp):
    """x[n, m] -> (first i64[n], inverse i64[n], counts i64[n], spare, count): the distinct rows of x.

    `first[k]` is the first row that equals the k-th distinct one. Distinct rows are in ascending order if `ordered`, else in
    that of their first occurrence. Merge sort, so that equal rows stay in order.
    """

    parameters = ("x", "first", "inverse", "counts", "spare", "count")
    ORDERED = """
for i in range(n):
    first[i] = i
width = 1
while width < n:
    begin = 0
    while begin < n:
        middle = minimum(begin + width, n)
        end = minimum(begin + 2 * width, n)
        a = begin
        b = middle
        for k in range(begin, end):
            left = a < middle
            if left and b < end:
                j = 0
                while j < m and x[first[a] * m + j] == x[first[b] * m + j]:
                    j += 1
                if j < m:
                    left = x[first[a] * m + j] < x[first[b] * m + j]
            if left:
                spare[k] = first[a]
                a += 1
            else:
                spare[k] = first[b]
                b += 1
        begin += 2 * width
    for i in range(n):
        first[i] = spare[i]
    width *= 2
found = 0
for i in range(n):
    row = first[i]
    new = i == 0
    if not new:
        j = 0
        while j < m and x[row * m + j] == x[spare[found - 1] * m + j]:
            j += 1
        new = j < m
    if new:
        spare[found] = row
        counts[found] = 0
        found += 1
    inverse[row] = found - 1
    counts[found - 1] += 1
for i in range(found):
    first[i] = spare[i]
count[0] = found
"""
    BY_OCCURRENCE = """
for i in range(found):
    spare[i] = -1
next_ = 0
for i in range(n):
    group = inverse[i]
    if spare[group] < 0:
        spare[group] = next_
        next_ += 1
for i in range(found):
    place = spare[i]
    while place != i:
        other = spare[place]
        kept = first[place]
        first[place] = first[i]
        first[i] = kept
        kept = counts[place]
        counts[place] = counts[i]
        counts[i] = kept
        spare[place] = place
        spare[i] = other
        place = other
"""

    def infer(self, x: TensorType, **attrs: Any) -> list[TensorType]:
        require(x.ndim == 2, f"unique of {x}: give rows")
        column = TensorType.of("i64", (x.shape[0],))
        return [column, column, column, column, TensorType.of("i64", ())]

    def sizes(self, x: TensorType, **attrs: Any) -> dict[str, Expr]:
        return {"n": x.shape[0], "m": x.shape[1]}

    def text(self, inputs: Sequence[TensorType], *, ordered: bool = True, **attrs: Any) -> str:
        if ordered:
            return self.ORDERED.strip()
        renumber = "for i in range(n):\n    inverse[i] = rank[inverse[i]]\n"
        ranked = self.BY_OCCURRENCE.replace("for i in range(found):\n    place", "RENUMBER\nfor i in range(found):\n    place")
        ranked = ranked.replace("RENUMBER", renumber.replace("rank", "spare").strip())
        return (self.ORDERED + ranked).strip()

    def numpy(self, x: np.ndarray, *, ordered: bool = True, **attrs: Any) -> tuple[np.ndarray, ...]:
        n = x.shape[0]
        _, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=0)
        inverse = inverse.reshape(-1)
        if not ordered:
            order = np.argsort(first, kind="stable")
            rank = np.argsort(order)
            first, counts, inverse = first[order], counts[order], rank[inverse]
        columns = [np.resize(np.asarray(a, np.int64), n) if len(a) else np.zeros(n, np.int64) for a in (first, inverse, counts)]
        return (*columns, np.zeros(n, np.int64), np.array(len(first), np.int64))


@op("non_max_suppression", OPAQUE)
class NonMaxSuppression(SerialOp):
    """boxes f32[B, N, 4], scores f32[B, C, N], limit i64, iou f32, floor f32 -> (selected i64[B * C * N, 3], order, count).

    Per batch and class: boxes by falling score (above `floor`), each kept unless it overlaps one kept before by more than
    `iou`. `corners`: boxes are two opposite corners, else centre and size.
    """

    parameters = ("boxes", "scores", "limit", "iou", "floor", "selected", "order", "count")
    BODY = """
found = 0
for batch in range(B):
    for c in range(C):
        base = (batch * C + c) * N
        n = 0
        for i in range(N):
            if scores[base + i] > floor[0]:
                k = n
                while k > 0 and scores[base + order[k - 1]] < scores[base + i]:
                    order[k] = order[k - 1]
                    k -= 1
                order[k] = i
                n += 1
        begin = found
        for k in range(n):
            if found - begin < limit[0]:
                box = (batch * N + order[k]) * 4
                PLACE(box, top, left, bottom, right)
                keep = True
                for s in range(begin, found):
                    if keep:
                        other = (batch * N + selected[s * 3 + 2]) * 4
                        PLACE(other, top2, left2, bottom2, right2)
                        height = minimum(bottom, bottom2) - maximum(top, top2)
                        width = minimum(right, right2) - maximum(left, left2)
                        if height > f32(0) and width > f32(0):
                            common = height * width
                            union = (bottom - top) * (right - left) + (bottom2 - top2) * (right2 - left2) - common
                            if common > iou[0] * union:
                                keep = False
                if keep:
                    selected[found * 3] = batch
                    selected[found * 3 + 1] = c
                    selected[found * 3 + 2] = order[k]
                    found += 1
count[0] = found
"""
    CORNERS = (
        "{1} = minimum(boxes[{0}], boxes[{0} + 2])", "{2} = minimum(boxes[{0} + 1], boxes[{0} + 3])",
        "{3} = maximum(boxes[{0}], boxes[{0} + 2])", "{4} = maximum(boxes[{0} + 1], boxes[{0} + 3])",
    )  # fmt: skip
    CENTRE = (
        "{1} = boxes[{0} + 1] - boxes[{0} + 3] * f32(0.5)", "{2} = boxes[{0}] - boxes[{0} + 2] * f32(0.5)",
        "{3} = boxes[{0} + 1] + boxes[{0} + 3] * f32(0.5)", "{4} = boxes[{0}] + boxes[{0} + 2] * f32(0.5)",
    )  # fmt: skip

    def infer(self, *inputs: TensorType, **attrs: Any) -> list[TensorType]:
        boxes, scores = inputs[:2]
        require(boxes.ndim == scores.ndim == 3, f"non-max suppression of {boxes} with {scores}")
        n = product(scores.shape)
        return [TensorType.of("i64", (n, 3)), TensorType.of("i64", (scores.shape[2],)), TensorType.of("i64", ())]

    def sizes(self, *inputs: TensorType, **attrs: Any) -> dict[str, Expr]:
        return dict(zip("BCN", inputs[1].shape, strict=True))

    def text(self, inputs: Sequence[TensorType], *, corners: bool = True, **attrs: Any) -> str:
        lines = []
        for line in self.BODY.strip().split("\n"):
            if "PLACE(" not in line:
                lines.append(line)
                continue
            indent, names = line.split("PLACE(")
            lines += [indent + t.format(*names.rstrip(")").split(", ")) for t in (self.CORNERS if corners else self.CENTRE)]
        return "\n".join(lines)

    def numpy(self, *inputs: np.ndarray, corners: bool = True, **attrs: Any) -> tuple[np.ndarray, ...]:
        boxes, scores, limit, iou, floor = inputs
        batches, classes, n = scores.shape
        found: list[tuple[int, int, int]] = []
        for b in range(batches):
            edges = _corners(boxes[b]) if corners else _centres(boxes[b])
            for c in range(classes):
                kept: list[int] = []
                for i in np.argsort(-scores[b, c], kind="stable"):
                    if scores[b, c, i] <= floor or len(kept) >= limit:
                        continue
                    if all(_overlap(edges[i], edges[j]) <= iou for j in kept):
                        kept.append(int(i))
                found += [(b, c, i) for i in kept]
        selected = np.zeros((scores.size, 3), np.int64)
        selected[: len(found)] = np.array(found, np.int64).reshape(-1, 3)
        return selected, np.zeros(n, np.int64), np.array(len(found), np.int64)


def _corners(boxes: np.ndarray) -> np.ndarray:
    low, high = np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])
    return np.concatenate([low, high], axis=1)


def _centres(boxes: np.ndarray) -> np.ndarray:
    centre, half = boxes[:, 1::-1], boxes[:, :1:-1] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    size = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if (size <= 0).any():
        return 0.0
    common = size.prod()
    return float(common / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common))
