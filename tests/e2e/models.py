"""Small graphs for the end-to-end tests, and their feeds."""

import numpy as np

from tensorlang.graph import Graph, GraphBuilder, TensorType, constant, dim

RANDOM = np.random.default_rng(0)


def weight(*shape, random=RANDOM):
    return constant(random.standard_normal(shape, dtype=np.float32), "w")


def perceptron(batch=None, layers=3, width=16):
    """x: f32[batch, width] -> probs, hidden: f32[batch, width]; the layers are one kernel with different weights."""
    builder = GraphBuilder()
    n = dim("batch")
    x = builder.input("x", TensorType.of("f32", (n if batch is None else batch, width)))
    h = x
    random = np.random.default_rng(0)  # the same weights whichever test comes first
    for k in range(layers):
        h = builder.add("matmul", [h, weight(width, width, random=random)], name=f"fc{k}")
        h = builder.add("relu", [builder.add("add", [h, weight(width, random=random)], name=f"bias{k}")], name=f"relu{k}")
    out = builder.add("softmax", [h], {"axis": 1}, name="softmax")
    dims = {"batch": n} if batch is None else {}
    return Graph([x], builder.nodes, [out, h], "perceptron", dims, ["probs", "hidden"])


def two_dimensions():
    """x: f32[batch, rows, 8], y: f32[rows, 8] -> sum: f32[batch, rows, 8], total: f32[batch, rows]."""
    builder = GraphBuilder()
    n, m = dim("batch"), dim("rows")
    x = builder.input("x", TensorType.of("f32", (n, m, 8)))
    y = builder.input("y", TensorType.of("f32", (m, 8)))
    s = builder.add("add", [x, y], name="add")
    e = builder.add("exp", [s], name="exp")
    t = builder.add("reduce_sum", [e], {"axes": (2,), "keepdims": False}, name="sum")
    return Graph([x, y], builder.nodes, [s, t], "two", {"batch": n, "rows": m}, ["sum", "total"])


def pass_through():
    """x: f32[2, 3] -> the input itself, a constant, a reshape of the input, and a result given twice."""
    builder = GraphBuilder()
    x = builder.input("x", TensorType.of("f32", (2, 3)))
    flat = builder.add("reshape", [x], {"shape": (6,)}, name="flat")
    doubled = builder.add("add", [x, x], name="double")
    table = constant(np.arange(5, dtype=np.int64), "table")
    outputs = [x, table, flat, doubled, doubled]
    return Graph([x], builder.nodes, outputs, "pass", {}, ["same", "table", "flat", "twice", "again"])
