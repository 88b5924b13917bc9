"""From a path, bytes or a ModelProto to a model that is sound enough to import: parsed, complete, of known opsets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx.inliner

from tensorlang.errors import ModelError

from .external import resolve
from .registry import canonical_domain

Source: TypeAlias = "str | os.PathLike[str] | bytes | onnx.ModelProto"


def read_model(source: Source) -> onnx.ModelProto:
    """The model, with external data located (see `external`) and functions inlined.

    Raises:
        ModelError: the file is missing, empty, truncated, not an ONNX model, or of an opset from the future.
    """
    where = _describe(source)
    model = _parse(source, where)
    if model.ir_version == 0 or not (model.graph.node or model.graph.output or model.graph.initializer):
        raise ModelError(f"{where} is not an ONNX model: it holds no graph")
    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(f"{where} has IR version {model.ir_version}; this build reads up to {onnx.IR_VERSION}")
    if not model.graph.output:
        raise ModelError(f"{where} has no outputs")
    _check_text(model, where)
    _check_opsets(model, where)
    _check_names_once(model.graph, where)
    return _without_functions(model, where)


def sniff(source: Source) -> bool:
    """Whether `source` looks like an ONNX model: by its content, not its name."""
    if isinstance(source, onnx.ModelProto):
        return True
    if isinstance(source, bytes):
        head = source[:4096]
    else:
        try:
            with open(source, "rb") as file:
                head = file.read(4096)
        except OSError:
            return False
    # field 1 (ir_version) as a varint, or field 7 (the graph), 8 (opsets) or 2.. (producer) first
    return len(head) >= 4 and head[0] in (0x08, 0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42) and _has_fields(head)


def _has_fields(head: bytes) -> bool:
    """Whether the first bytes parse as fields of a ModelProto (the last one may be cut off)."""
    position = 0
    seen = 0
    while position < len(head) and seen < 3:
        tag = head[position]
        field, wire = tag >> 3, tag & 7
        if field not in (1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26) or wire not in (0, 2):
            return False
        position += 1
        value, shift = 0, 0
        while position < len(head):
            byte = head[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
            if shift > 63:
                return False
        if (wire == 0) != (field in (1, 5)):
            return False
        position += value if wire == 2 else 0
        seen += 1
    return seen > 0


def _describe(source: Source) -> str:
    if isinstance(source, onnx.ModelProto):
        return "the model"
    return f"the model of {len(source)} bytes" if isinstance(source, bytes) else str(Path(source))


def _parse(source: Source, where: str) -> onnx.ModelProto:
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        resolve(_tensors(model.graph), None, where)
        return model
    if isinstance(source, bytes):
        content, folder = source, None
    else:
        path = Path(source)
        try:
            content, folder = path.read_bytes(), path.parent
        except FileNotFoundError:
            raise ModelError(f"{path} does not exist") from None
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    if not content:
        raise ModelError(f"{where} is empty")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf's DecodeError, of which there are several implementations
        raise ModelError(f"{where} is not an ONNX model, or is cut off: {error}") from error
    resolve(_tensors(model.graph), folder, where)
    return model


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)


def all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs included."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from all_nodes(graph.node)


def names_read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """The names that nodes read, those of subgraphs included, and that subgraphs give as results."""
    found: set[str] = set()
    for node in nodes:
        found.update(node.input)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                found |= names_read(graph.node)
                found.update(o.name for o in graph.output)
    found.discard("")
    return found


def opset_versions(model: onnx.ModelProto) -> dict[str, int]:
    """Opset version by domain."""
    return {canonical_domain(o.domain): o.version for o in model.opset_import}


def _check_text(model: onnx.ModelProto, where: str) -> None:
    """Names that are not text come out of protobuf as bytes."""
    names = [t.name for t in _tensors(model.graph)] + [v.name for v in (*model.graph.input, *model.graph.output)]
    for node in all_nodes(model.graph.node):
        names += [node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)]
    names += [d.dim_param for v in model.graph.input for d in v.type.tensor_type.shape.dim]
    names += [o.domain for o in model.opset_import] + [model.graph.name]
    if damaged := [n for n in names if not isinstance(n, str)]:
        raise ModelError(f"{where} is damaged: the name {damaged[0]!r} is not text")


def _check_names_once(graph: onnx.GraphProto, where: str) -> None:
    for what, names in (
        ("input", [v.name for v in graph.input]),
        ("initializer", [t.name for t in graph.initializer]),
        ("output", [v.name for v in graph.output]),
    ):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ModelError(f"{where} has several {what}s of one name: {', '.join(map(repr, twice))}")


def _check_opsets(model: onnx.ModelProto, where: str) -> None:
    versions = opset_versions(model)
    newest = onnx.defs.onnx_opset_version()
    used = {canonical_domain(n.domain) for n in all_nodes(model.graph.node)}
    if "" in used and "" not in versions:
        raise ModelError(f"{where} does not say which opset it uses")
    if versions.get("", 1) > newest:
        raise ModelError(f"{where} uses opset {versions['']}; this build knows opsets up to {newest}")
    if versions.get("", 1) < 1:
        raise ModelError(f"{where} says that it uses opset {versions['']}")


def _without_functions(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """Calls of the model's own functions inlined; operators that ONNX defines by others are expanded where they stand."""
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except Exception as error:
        raise ModelError(f"{where}: its functions cannot be inlined: {error}") from error
    return model
