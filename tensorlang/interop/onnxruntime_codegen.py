"""onnxruntime as a code generator: regions become ONNX models, which it runs in this process.

    exe = tl.compile("model.onnx", codegens=["onnxruntime"])          # whatever it can, the rest compiled as usual
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from tensorlang.codegen.target import Need
from tensorlang.config import Settings
from tensorlang.errors import BuildError, UnsupportedOpError
from tensorlang.graph.generator import Generator, Run, extract
from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.interop.to_onnx import to_onnx

INSTALL = "pip install 'tensorlang[test]'"
_BIG = 1024  # elements of a constant that a probe asks for as an input


class OnnxRuntime(Generator):
    """Takes every node that can be written as ONNX and that onnxruntime's CPU has a kernel for, types included."""

    name = "onnxruntime"

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def supports(self, node: Node) -> bool:
        if node.bodies or node.defines:
            return False
        probe = _without_weights(extract([node], "probe"))
        key = str(probe)
        if key not in self._known:
            try:
                _session(self.compile(probe, Settings.from_env()), 1)
                self._known[key] = True
            except (BuildError, UnsupportedOpError):
                self._known[key] = False
        return self._known[key]

    def compile(self, graph: Graph, settings: Settings) -> bytes:
        code: bytes = to_onnx(graph).SerializeToString(deterministic=True)
        return code

    def load(self, code: bytes, settings: Settings) -> Run:
        session = _session(code, settings.num_threads)
        names = [i.name for i in session.get_inputs()]

        def run(inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
            results: Sequence[np.ndarray] = session.run(None, dict(zip(names, inputs, strict=True)))
            return results

        return run

    def needs(self) -> list[Need]:
        try:
            found = version("onnxruntime")
        except PackageNotFoundError:
            found = ""
        return [Need("onnxruntime", found, INSTALL)]


def _without_weights(graph: Graph) -> Graph:
    """`graph` with large constants as inputs: whether it can run depends on types alone."""
    large = [v for v in graph.constants() if v.constant is not None and v.constant.size > _BIG]
    big = {v: Value(f"w{k}", v.type) for k, v in enumerate(large)}
    nodes = []
    for node in graph.nodes:
        copy = Node(node.op, [big.get(v, v) for v in node.inputs], node.attrs, node.outputs, node.name)
        nodes.append(copy)
    return Graph([*graph.inputs, *big.values()], nodes, graph.outputs, graph.name, graph.dims)


@cache
def _library() -> Any:
    try:
        import onnxruntime  # a third party, when it is asked for
    except ImportError as error:
        raise BuildError(f"code generator 'onnxruntime' needs onnxruntime: {INSTALL} ({error})") from error
    return onnxruntime


def _session(code: bytes, threads: int) -> Any:
    library = _library()
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        return library.InferenceSession(code, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has several kinds, none of them public
        raise BuildError(f"onnxruntime refuses a region: {error}") from error


generator = OnnxRuntime()
