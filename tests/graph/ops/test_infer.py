"""Type rules on symbolic shapes: dimensions stay in one form, and what cannot be told equal is a constraint, not an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensorlang.errors import InputError, TypeCheckError
from tensorlang.graph import Graph, GraphBuilder, TensorType, evaluate, get, shape_constraints, size_quotient
from tensorlang.ir.expr import var

N, H, W, S = (var(n) for n in "NHWS")
CONV = {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": 1, "layout": "NCHW"}


def t(*shape: Any, dtype: str = "f32") -> TensorType:
    return TensorType.of(dtype, shape)


def infer(op: str, *inputs: TensorType, **attrs: Any) -> str:
    return str(get(op).infer(*inputs, **attrs)[0])


def test_broadcast():
    assert infer("add", t(N, 1, S), t(4, S)) == "f32[N, 4, S]"
    assert infer("where", t(S, dtype="bool"), t(N, S), t()) == "f32[N, S]"


def test_unknown_sizes_are_taken_to_be_equal():
    halved = (S + 1) // 2
    assert infer("add", t(halved), t(S)) == "f32[S]"  # the simpler one
    assert infer("add", t(S), t(8)) == "f32[8]"  # a constant first
    assert [(str(a), str(b)) for a, b in get("add").constraints(t(S), t(8))] == [("S", "8")]
    assert get("add").constraints(t(N, S), t(1, S)) == []


@pytest.mark.parametrize(
    ("op", "inputs", "attrs", "message"),
    [
        ("add", (t(3), t(4)), {}, "broadcast"),
        ("add", (t(3), t(3, dtype="f64")), {}, "one type"),
        ("exp", (t(3, dtype="i32"),), {}, "floating-point"),
        ("matmul", (t(2, 3), t(4, 5)), {}, "sizes 3 and 4"),
        ("concat", (t(2, 3), t(3, 3)), {"axis": 1}, "sizes 2 and 3"),
        ("reshape", (t(2, 3),), {"shape": (4, 2)}, "6 and 8 elements"),
        ("transpose", (t(2, 3),), {"perm": (0, 0)}, "not a permutation"),
        ("conv", (t(1, 3, 8, 8), t(4, 2, 3, 3)), CONV, "channels"),
        ("conv", (t(1, 3, 2, 2), t(4, 3, 7, 7)), CONV, "larger than the padded input"),
        ("softmax", (t(2, 3),), {"axis": 2}, "axis 2"),
    ],
)
def test_refusals(op, inputs, attrs, message):
    with pytest.raises(TypeCheckError, match=message):
        get(op).infer(*inputs, **attrs)


def test_windows():
    assert infer("conv", t(N, 3, H, W), t(8, 3, 3, 3), **CONV) == "f32[N, 8, (H + 1) // 2, (W + 1) // 2]"
    same = {**CONV, "strides": (1, 1)}
    assert infer("conv", t(N, 3, H, W), t(8, 3, 3, 3), **same) == "f32[N, 8, H, W]"
    attrs = {"strides": (2, 2), "pads": (0,) * 4, "dilations": (1, 1), "output_padding": (0, 0)}
    assert infer("conv_transpose", t(N, 3, H, W), t(3, 8, 2, 2), **attrs) == "f32[N, 8, H * 2, W * 2]"


def test_shapes():
    assert infer("concat", t(N, 3), t(N, S), axis=1) == "f32[N, S + 3]"
    assert infer("reshape", t(N, S, 8), shape=(N, S, 2, 4)) == "f32[N, S, 2, 4]"
    assert infer("pad", t(N, S), pads=(0, 1, 0, 1)) == "f32[N, S + 2]"
    assert infer("matmul", t(N, 1, S, 8), t(4, 8, S)) == "f32[N, 4, S, S]"


@pytest.mark.parametrize(
    ("total", "parts", "expected"),
    [((N, 3, H, W), (N, 3), H * W), ((N * 6, S), (N, S), 6), ((2, 3, 4), (6,), 4), ((N, H, 8), (N * H, 4), 2)],
)
def test_size_quotient(total, parts, expected):
    assert str(size_quotient(total, parts)) == str(expected)


def test_size_quotient_that_is_not_whole():
    with pytest.raises(ValueError, match="not divisible"):
        size_quotient((2, 3), (4,))


def test_shape_arithmetic_folds_while_building():
    b = GraphBuilder()
    x = b.input("x", t(N, S, 768))
    shape = b.add("shape", [x])
    rows = b.add("gather", [shape, np.array(1)], {"axis": 0})
    rows = b.add("reshape", [rows], {"shape": (1,)})
    wanted = b.add("concat", [rows, np.array([12, 64])], {"axis": 0})
    doubled = b.add("mul", [wanted, np.array([2])])
    halves = b.add("div", [doubled, np.array([4, 2, 2])])
    assert [str(e) for e in wanted.data] == ["S", "12", "64"]
    assert [str(e) for e in halves.data] == ["S // 2", "12", "64"]
    positive = b.add("greater", [rows, np.array([0])])
    assert [e.value for e in positive.data] == [True]


def test_a_run_checks_what_inference_assumed():
    b = GraphBuilder()
    x = b.input("x", t(S))
    y = b.add("slice", [x], {"starts": (0,), "shape": ((S + 1) // 2,), "steps": (2,)})
    z = b.add("tile", [y], {"repeats": (2,)})
    total = b.add("add", [z, x])
    graph = Graph([x], b.nodes, [total], dims={"S": S}, output_names=["total"])
    ((left, right, node),) = shape_constraints(graph)
    assert node.op == "add" and {str(left), str(right)} == {"(S + 1) // 2 * 2", "S"}
    assert evaluate(graph, {"x": np.arange(4, dtype=np.float32)})["total"].tolist() == [0, 3, 2, 5]
    with pytest.raises(InputError, match="= 6 and S = 5 must be equal"):
        evaluate(graph, {"x": np.arange(5, dtype=np.float32)})
