"""Sequences and optionals at a model's boundary, for callers that hand over lists and None (layer 8).

    (seq(float[K]) s) with [a, b]      ->  (float[2] s[0], float[3] s[1]) { s = SequenceConstruct(s[0], s[1]) ... }
    outputs y[0], y[1]                 ->  y = [..., ...]

A compiled model has tensors only: the number of a sequence's elements is part of the model that is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tensorlang.errors import InputError


def is_structured(info: onnx.ValueInfoProto) -> bool:
    """Whether an input or output is a sequence or an optional."""
    return info.type.WhichOneof("value") in ("sequence_type", "optional_type")


def with_tensors_only(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The model for feeds of this structure, and the feeds as its tensors.

    Raises:
        InputError: a list or None where the model takes something else.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inputs: list[onnx.ValueInfoProto] = []
    nodes: list[onnx.NodeProto] = []
    tensors: dict[str, Any] = {}

    def tensor(name: str, value: Any) -> str:
        array = np.asarray(value)
        inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
        tensors[name] = array
        return name

    def build(name: str, type: onnx.TypeProto, value: Any, result: str) -> None:
        """Nodes that make `result`, of `type`, from tensors called after `name`."""
        kind = type.WhichOneof("value")
        if kind == "optional_type":
            element = type.optional_type.elem_type
            if value is None:
                nodes.append(helper.make_node("Optional", [], [result], type=element))
                return
            build(name, element, value, f"{result}?")
            nodes.append(helper.make_node("Optional", [f"{result}?"], [result]))
        elif kind == "sequence_type":
            if not isinstance(value, list | tuple):
                raise InputError(f"input {name!r} is a sequence; give a list of arrays, not {value.__class__.__name__}")
            parts = [tensor(f"{name}[{k}]", v) for k, v in enumerate(value)]
            nodes.append(helper.make_node("SequenceConstruct" if parts else "SequenceEmpty", parts, [result]))
        else:
            if value is None:
                raise InputError(f"input {name!r} got None")
            nodes.append(helper.make_node("Identity", [tensor(f"{name}[]", value)], [result]))

    for info in model.graph.input:
        if not is_structured(info):
            inputs.append(info)
            if info.name in feeds:
                tensors[info.name] = feeds[info.name]
            continue
        if info.name not in feeds:
            raise InputError(f"input {info.name!r} is missing")
        build(info.name, info.type, feeds[info.name], info.name)
    body = list(copy.graph.node)
    del copy.graph.input[:]
    del copy.graph.node[:]
    copy.graph.input.extend(inputs)
    copy.graph.node.extend([*nodes, *body])
    return copy, tensors


def grouped(model: onnx.ModelProto, results: Mapping[str, Any]) -> tuple[Any, ...]:
    """The outputs in the model's order; those that came as `name[0]`, `name[1]`, ... as lists."""
    found: list[Any] = []
    for info in model.graph.output:
        if info.name in results:
            found.append(results[info.name])
            continue
        items: list[Any] = []
        while (key := f"{info.name}[{len(items)}]") in results:
            items.append(results[key])
        found.append(items)
    return tuple(found)
