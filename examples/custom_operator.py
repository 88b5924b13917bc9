"""An operator of one's own: a node of a custom ONNX domain, compiled from a tensor expression.

HardMish is 0.5 x min(2, max(0, x + 2)). onnxruntime does not know the node ``com.acme::HardMish``; a user of it would
write the composition Add, Max, Min, Mul, Mul. Here it is one function: called on arrays, used for the node in a model,
checked against NumPy and timed against that composition.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import tensorlang as tl
from tensorlang import te

SHAPE = (1, 64, 56, 56)


@te.compute
def hard_mish(x: te.f32["N", "C", "H", "W"], scale: float = 0.5):
    """scale * x * min(2, max(0, x + 2)); ``scale`` is the node's attribute, a constant when it is compiled."""
    return te.compute(
        x.shape,
        lambda n, c, h, w: scale * x[n, c, h, w] * te.minimum(te.maximum(x[n, c, h, w] + 2.0, 0.0), 2.0),
        name="hard_mish",
    )


def reference(x: NDArray[np.float32], scale: float = 0.5) -> NDArray[np.float32]:
    return (scale * x * np.minimum(np.maximum(x + 2.0, 0.0), 2.0)).astype(np.float32)


def model_with_custom_node() -> onnx.ModelProto:
    """y = HardMish(x + 1), with the node in a domain of its own."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE)
    nodes = [
        helper.make_node("Add", ["x", "one"], ["shifted"]),
        helper.make_node("HardMish", ["shifted"], ["y"], name="activation", domain="com.acme", scale=0.5),
    ]
    one = numpy_helper.from_array(np.ones((), np.float32), "one")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    return helper.make_model(helper.make_graph(nodes, "custom", [x], [y], [one]), opset_imports=opsets, ir_version=8)


def composition() -> onnx.ModelProto:
    """HardMish in standard operators: what onnxruntime would run."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE)
    nodes = [
        helper.make_node("Add", ["x", "two"], ["a"]),
        helper.make_node("Max", ["a", "zero"], ["b"]),
        helper.make_node("Min", ["b", "two"], ["c"]),
        helper.make_node("Mul", ["x", "c"], ["d"]),
        helper.make_node("Mul", ["d", "half"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(value, np.float32), name)
        for name, value in (("zero", 0.0), ("half", 0.5), ("two", 2.0))
    ]
    graph = helper.make_graph(nodes, "composition", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    np.testing.assert_allclose(hard_mish(x), reference(x), rtol=1e-5, atol=1e-6)
    print("on arrays: equal to NumPy")

    tl.register_onnx_op("com.acme", "HardMish", hard_mish)
    with tempfile.TemporaryDirectory() as folder:
        custom, standard = Path(folder) / "custom.onnx", Path(folder) / "composition.onnx"
        onnx.save(model_with_custom_node(), custom)
        onnx.save(composition(), standard)

        outputs = tl.compile(str(custom), target="cpu").run({"x": x})
        np.testing.assert_allclose(outputs["y"], reference(x + np.float32(1)), rtol=1e-5, atol=1e-6)
        print("as a node of a model: equal to NumPy")

        print(tl.benchmark(hard_mish, (x,), against=str(standard)))


if __name__ == "__main__":
    main()
