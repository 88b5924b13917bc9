"""Models of one node, run by us and by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

import tensorlang as tl
from tensorlang.graph import evaluate

Inputs = Sequence[np.ndarray | None]


def node_model(
    op: str, inputs: Inputs, outputs: Sequence[str] = ("y",), *, domain: str = "", opset: int = 21,
    constants: Sequence[int] = (), attrs: dict[str, Any] | None = None,
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:  # fmt: skip
    """A model of one node, and its feeds.

    Args:
        inputs: None where the node leaves one out.
        outputs: names; empty where the node leaves one out.
        constants: positions of the inputs that are initializers.
    """
    names = [f"x{k}" if a is not None else "" for k, a in enumerate(inputs)]
    given = {n: a for n, a in zip(names, inputs, strict=True) if a is not None}
    known = {names[k] for k in constants}
    node = helper.make_node(op, names, list(outputs), domain=domain, **(attrs or {}))
    formal = [
        helper.make_tensor_value_info(n, numpy_helper.from_array(a).data_type, a.shape)
        for n, a in given.items()
        if n not in known
    ]
    graph = helper.make_graph(
        [node], "node", formal, [onnx.ValueInfoProto(name=n) for n in outputs if n],
        [numpy_helper.from_array(given[n], n) for n in given if n in known],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return model, {n: a for n, a in given.items() if n not in known}


def both(
    op: str, inputs: Inputs, outputs: Sequence[str] = ("y",), *, native: bool = True, **options: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Our outputs beside onnxruntime's, which runs on one thread and changes nothing.

    Args:
        native: run machine code; otherwise the operators' NumPy references, which take no time to compile.
    """
    model, feeds = node_model(op, inputs, outputs, **options)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 4
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    theirs = ort.InferenceSession(model.SerializeToString(), settings).run(None, feeds)
    results = tl.compile(model).run(feeds) if native else evaluate(tl.from_onnx(model), feeds)
    return list(zip(results.values(), theirs, strict=True))


def agree(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Integers are equal; floats agree as the design defines it."""
    for ours, theirs in pairs:
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        if ours.dtype.kind in "iub":
            np.testing.assert_array_equal(ours, theirs)
        else:
            bound = 2e-4 * np.abs(theirs).max(initial=0) + 2e-6
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound)
