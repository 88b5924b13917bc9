"""Narrow formats in graphs: they move as bytes, keep their name in the signature, and refuse arithmetic."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tensorlang as tl
from tensorlang.errors import BuildError
from tensorlang.graph import Graph, GraphBuilder, TensorType, constant, evaluate
from tensorlang.graph.passes.storage import narrow_values, without_narrow
from tensorlang.ir.dtype import NARROW, dtype

I4 = np.dtype(ml_dtypes.int4)


def moving() -> Graph:
    """y = concat(transpose(x), weights); z = the numbers of y."""
    builder = GraphBuilder()
    x = builder.input("x", TensorType.of("i4", (3, 2)))
    weights = constant(np.array([[-8, 7, -1]]).astype(I4), "weights")
    y = builder.add("concat", [builder.add("transpose", [x], {"perm": (1, 0)}), weights], {"axis": 0})
    z = builder.add("decode", [builder.add("reinterpret", [y], {"dtype": "u8"})], {"of": "i4", "dtype": "f32"})
    return Graph([x], builder.nodes, [y, z], output_names=["y", "z"])


def test_dtypes_have_names_and_bytes():
    for name, kind in NARROW.items():
        assert dtype(name) is kind and dtype(kind.numpy) is kind
        assert (kind.nbytes, kind.numpy.itemsize, str(kind.storage)) == (1, 1, "u8")
        assert not (kind.is_float or kind.is_int or kind.is_bool)


def test_the_program_knows_bytes_only():
    graph = moving()
    bare = without_narrow(graph)
    assert narrow_values(graph) and not narrow_values(bare)
    assert [n.op for n in bare.nodes] == ["transpose", "concat", "decode"]
    assert [str(v.dtype) for v in (*bare.inputs, *bare.outputs)] == ["u8", "u8", "f32"]
    assert without_narrow(bare) is bare


def test_signature_keeps_the_format():
    x = np.array([[1, -2], [3, -4], [-5, 6]]).astype(I4)
    expected = np.concatenate([x.astype(np.float32).T, [[-8, 7, -1]]])
    exe = tl.compile(moving())
    assert [t.dtype for t in (*exe.inputs, *exe.outputs)] == ["int4", "int4", "float32"]
    for results in (exe.run({"x": x}), evaluate(moving(), {"x": x})):
        assert results["y"].dtype == I4
        np.testing.assert_array_equal(results["y"].astype(np.float32), expected)
        np.testing.assert_array_equal(results["z"], expected)


def test_arithmetic_is_refused():
    builder = GraphBuilder()
    x = builder.input("x", TensorType.of("f8e5m2", (3,)))
    y = builder.add("abs", [x], name="magnitude")
    with pytest.raises(BuildError, match=r"magnitude.*abs of f8e5m2\[3\].*decoded first"):
        tl.compile(Graph([x], builder.nodes, [y]))
