"""Operators that ONNX itself defines by others: the body of such an operator, ready to be imported in a node's place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

import onnx

from tensorlang.errors import ModelError
from tensorlang.graph import Value

from .node import element_code
from .registry import canonical_domain


def schema_of(domain: str, name: str, version: int) -> onnx.defs.OpSchema | None:
    """ONNX's description of an operator at an opset version of its domain, if there is one."""
    try:
        return onnx.defs.get_schema(name, version, canonical_domain(domain))
    except onnx.defs.SchemaError:
        return None


def has_function(domain: str, name: str, version: int) -> bool:
    """Whether ONNX defines the operator by others."""
    schema = schema_of(domain, name, version)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def function_body(
    proto: onnx.NodeProto, version: int, inputs: Sequence[Value | None]
) -> onnx.FunctionProto | None:
    """The body of the operator that `proto` applies, its attributes filled in; None if it has none for such inputs.

    Args:
        version: opset version of the node's domain.
        inputs: some bodies depend on their types.
    """
    schema = schema_of(proto.domain, proto.op_type, version)
    if schema is None:
        return None
    node = onnx.NodeProto()
    node.CopyFrom(proto)
    given = {a.name for a in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
            node.attribute.append(attribute.default_value)
    content = _content(schema, node, version, inputs)
    if not content:
        return None
    body = onnx.FunctionProto()
    body.ParseFromString(content)
    attributes = {a.name: a for a in node.attribute}
    for inner in body.node:
        _fill(inner, attributes)
    return body


def _content(
    schema: onnx.defs.OpSchema, node: onnx.NodeProto, version: int, inputs: Sequence[Value | None]
) -> bytes:
    """The body as bytes: that of the newest opset that is no newer than the model's."""
    if schema.has_function:
        known = [v for v in schema.function_opset_versions if v <= version]
        return bytes(schema.get_function_with_opset_version(max(known))) if known else b""
    if schema.has_context_dependent_function:
        known = [v for v in schema.context_dependent_function_opset_versions if v <= version]
        types = [b"" if v is None else _type_of(v).SerializeToString() for v in inputs]
        if known:
            return bytes(
                schema.get_context_dependent_function_with_opset_version(max(known), node.SerializeToString(), types)
            )
    return b""


def _type_of(value: Value) -> onnx.TypeProto:
    dims = [d.value if d.op == "const" else str(d) for d in value.shape]
    return onnx.helper.make_tensor_type_proto(element_code(value.dtype), dims)


def _fill(node: onnx.NodeProto, attributes: Mapping[str, onnx.AttributeProto]) -> None:
    """Replace references to the function's attributes by what they are; those that are nothing go."""
    kept = []
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            given = attributes.get(attribute.ref_attr_name)
            if given is None:
                continue
            copy = onnx.AttributeProto()
            copy.CopyFrom(given)
            copy.name = attribute.name
            attribute = copy
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                _fill(inner, attributes)
        kept.append(attribute)
    copies = []
    for attribute in kept:
        copy = onnx.AttributeProto()
        copy.CopyFrom(attribute)
        copies.append(copy)
    del node.attribute[:]
    node.attribute.extend(copies)


def leave_out(nodes: Iterable[onnx.NodeProto], names: Set[str]) -> None:
    """Make `nodes` read nothing where they read a formal input that the call leaves out."""
    for node in nodes:
        for position, name in enumerate(node.input):
            if name in names:
                node.input[position] = ""
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                leave_out(graph.node, names)


def opsets(body: onnx.FunctionProto) -> dict[str, int]:
    """Opset version by domain that the body is written in.

    Raises:
        ModelError: it names none.
    """
    found = {canonical_domain(o.domain): o.version for o in body.opset_import}
    if not found:
        raise ModelError(f"the function {body.name!r} does not say which opset it uses")
    return found
