"""onnxruntime's calling convention on top of `tl.compile` (layer 8).

    sess = tl.InferenceSession("model.onnx")
    outputs = sess.run(None, {sess.get_inputs()[0].name: x})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorlang.compile import compile as compile_model
from tensorlang.errors import InputError
from tensorlang.runtime.executable import TensorInfo

_TYPES = {
    "float32": "float", "float64": "double", "float16": "float16", "bfloat16": "bfloat16", "bool": "bool",
    "object": "string",
    **{f"{kind}{bits}": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}  # fmt: skip


@dataclass(frozen=True)
class NodeArg:
    """An input or output as onnxruntime describes it: `type` is "tensor(float)" and the like, open dimensions are names."""

    name: str
    type: str
    shape: list[int | str]


class InferenceSession:
    """A model that is compiled on construction and run as `onnxruntime.InferenceSession` is.

    Args:
        path_or_model: path of a model file, or what else `tl.compile` takes.
        options: passed on to `tl.compile` (`shapes`, `verify`, ...).
    """

    def __init__(self, path_or_model: Any, **options: Any):
        self.executable = compile_model(path_or_model, **options)

    def get_inputs(self) -> list[NodeArg]:
        return [_described(info) for info in self.executable.inputs]

    def get_outputs(self) -> list[NodeArg]:
        return [_described(info) for info in self.executable.outputs]

    def get_providers(self) -> list[str]:
        return ["TensorlangExecutionProvider"]

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: Any = None
    ) -> list[np.ndarray]:
        """The outputs named (None or empty: all, in the model's order).

        Raises:
            InputError: a feed does not fit, or an output name is unknown.
        """
        del run_options  # onnxruntime's own settings mean nothing here
        return self._chosen(self.executable.run(input_feed), output_names)

    def _chosen(self, results: Mapping[str, np.ndarray], output_names: Sequence[str] | None) -> list[np.ndarray]:
        if unknown := [n for n in output_names or () if n not in results]:
            raise InputError(f"no output is called {', '.join(map(repr, unknown))}; there are: {', '.join(results)}")
        return [results[n] for n in output_names or results]


def _described(info: TensorInfo) -> NodeArg:
    return NodeArg(info.name, f"tensor({_TYPES.get(info.dtype, info.dtype)})", list(info.shape))
