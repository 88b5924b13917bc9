"""From a sound ONNX model to a graph: inputs with symbolic dimensions, then one rule per node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from tensorlang.errors import InputError, InternalError, ModelError, TensorlangError, UnsupportedOpError
from tensorlang.graph import Expr, Graph, TensorType, Value, canonical, constant, dim, live_nodes

from .body import Build, RanksDiffer, build_if
from .functions import function_body, has_function, leave_out, opsets
from .node import Emitter, Item, OnnxNode, Structured, Unsupported, element_type, node_label, refuse_absurd, to_array
from .reader import all_nodes, names_read, opset_versions
from .registry import Rule, canonical_domain, domains, find_rule
from .sequences import Maybe, Stack, TensorList

Shapes = Mapping[str, Any]


def convert(model: onnx.ModelProto, shapes: Shapes | None = None) -> Graph:
    """The graph of a model.

    Args:
        shapes: sizes by dimension name, or whole shapes by input name (None, a string or -1 leaves a dimension as it is).

    Raises:
        ModelError: the model is not sound.
        UnsupportedOpError: it uses operators, or forms of them, that there are no rules for; all are listed.
        InputError: `shapes` names what the model does not have, or contradicts it.
    """
    versions = opset_versions(model)
    _refuse_unknown_operators(model, versions)
    return _Converter(model, versions).run(shapes or {})


def _refuse_unknown_operators(model: onnx.ModelProto, versions: Mapping[str, int]) -> None:
    unknown = []
    for node in all_nodes(model.graph.node):
        domain = canonical_domain(node.domain)
        version = versions.get(domain, 1)
        if find_rule(domain, node.op_type, version) is None and not has_function(domain, node.op_type, version):
            unknown.append((_operator_name(node), node_label(node), _hint(domain, node.op_type, version)))
    if unknown:
        raise UnsupportedOpError(unknown)


def _operator_name(node: onnx.NodeProto) -> str:
    domain = canonical_domain(node.domain)
    return f"{domain}::{node.op_type}" if domain else node.op_type


def _hint(domain: str, name: str, version: int) -> str:
    if domain not in domains() and domain != "":
        return f"unknown domain {domain!r}; register it with tensorlang.register_onnx_op"
    if domain == "" and not onnx.defs.has(name):
        return "no such operator in ONNX"
    return f"not in opset {version}" if find_rule(domain, name, 1 << 30) else ""


MAX_SPLITS = 6  # branches in a row whose results differ in rank: each doubles what follows


class _Converter:
    def __init__(self, model: onnx.ModelProto, versions: Mapping[str, int]):
        self.model = model
        self.versions = versions
        self.emitter = Emitter()
        self.dims: dict[str, Expr] = {}
        self.unsupported: list[tuple[str, str, str]] = []
        self.needs: dict[str, None] = {}  # inputs whose contents some unsupported node lacks
        self.read: set[str] = set()  # names that the nodes and outputs of the graph being imported read
        self.origins: dict[Value, Value] = {}
        self.splits = 0  # branches around the one being imported that hold all of what follows them
        self.scope: dict[str, Item | None] = {}  # None: the output of a node that could not be imported

    def run(self, shapes: Shapes) -> Graph:
        proto = self.model.graph
        self._read_initializers(proto)
        formal = [v for v in proto.input if v.name not in self.scope]
        inputs = Inputs(formal, shapes).values(self)
        self.scope.update((v.name, v) for v in inputs)
        outputs = self._import_graph(proto.node, [v.name for v in proto.output])
        if self.unsupported:
            raise UnsupportedOpError(list(dict.fromkeys(self.unsupported)), tuple(self.needs))
        named = [pair for o, v in zip(proto.output, outputs, strict=True) for pair in _flat(o.name, v)]
        values = [v for _, v in named]
        nodes = live_nodes(self.emitter.builder.nodes, values)
        return Graph(inputs, nodes, values, proto.name or "main", self.dims, [n for n, _ in named])

    # -- scopes ----------------------------------------------------------------------------------------------------
    def _read_initializers(self, proto: onnx.GraphProto) -> None:
        for tensor in proto.initializer:
            try:
                array = to_array(tensor, f"initializer {tensor.name!r}")
            except Unsupported as error:
                self.unsupported.append(("initializer", tensor.name, str(error)))
                self.scope[tensor.name] = None
                continue
            self.scope[tensor.name] = constant(array, self.emitter.builder.unique(tensor.name))
        for sparse in proto.sparse_initializer:
            self.unsupported.append(("sparse initializer", sparse.values.name, ""))
            self.scope[sparse.values.name] = None

    def _lookup(self, name: str, node: onnx.NodeProto) -> Item | None:
        if name not in self.scope:
            later = next((n for n in self.model.graph.node if name in n.output), None)
            reason = "" if later is None else (
                f"; node {node_label(later)!r} makes it, but stands later: the nodes are out of order, or form a cycle"
            )
            raise ModelError(
                f"node {node_label(node)!r} ({node.op_type}) reads {name!r}, which no input, initializer or earlier node "
                f"makes{reason}"
            )
        return self.scope[name]

    def _output(self, name: str) -> Item | None:
        if name not in self.scope:
            raise ModelError(f"output {name!r} of the model is made by no node")
        return self.scope[name]

    # -- nodes -----------------------------------------------------------------------------------------------------
    def _import_graph(self, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[Item | None]:
        """The values called `outputs` after all nodes."""
        around, self.read = self.read, names_read(nodes) | set(outputs)
        try:
            for n, proto in enumerate(nodes):
                try:
                    self._bind(proto, self._import_node(proto))
                except RanksDiffer as found:
                    return self._import_split(found, proto, nodes[n + 1 :], outputs)
        finally:
            self.read = around
        return [self._output(name) for name in outputs]

    def _bind(self, proto: onnx.NodeProto, made: Sequence[Item] | None) -> None:
        for position, name in enumerate(proto.output):
            if not name:
                continue
            if name in self.scope:
                raise ModelError(f"{name!r} is made twice: again by node {node_label(proto)!r} ({proto.op_type})")
            self.scope[name] = None if made is None else made[position] if position < len(made) else None

    def _import_split(
        self, found: RanksDiffer, proto: onnx.NodeProto, rest: Sequence[onnx.NodeProto], outputs: Sequence[str]
    ) -> list[Item | None]:
        """Where results of an `if` differ in rank, everything behind it, once in each branch."""
        split, self.splits = self.splits, self.splits + 1

        def with_rest(branch: Build) -> Build:
            def build() -> list[Value]:
                self._bind(proto, branch())
                made = self._import_graph(rest, outputs)
                if not all(isinstance(v, Value) for v in made):
                    raise Unsupported("see the nodes above" if None in made else f"{found}; sequences depend on them")
                return [v for v in made if isinstance(v, Value)]

            return build

        try:
            if split == MAX_SPLITS:
                raise Unsupported(f"{found}; so do those of {MAX_SPLITS} nodes before it")
            return list(build_if(found.node, found.condition, [with_rest(b) for b in found.branches]))
        except (Unsupported, RanksDiffer) as error:
            self.unsupported.append((_operator_name(proto), found.node.label, str(error)))
            self._note_needs([found.condition])
            return [None for _ in outputs]
        finally:
            self.splits = split

    def _import_node(self, proto: onnx.NodeProto) -> tuple[Item, ...] | None:
        inputs = [self._lookup(name, proto) if name else None for name in proto.input]
        if any(v is None for v, name in zip(inputs, proto.input, strict=True) if name):
            return None  # it reads what could not be imported
        domain = canonical_domain(proto.domain)
        version = self.versions.get(domain, 1)
        rule = find_rule(domain, proto.op_type, version)
        node = OnnxNode(proto, version, inputs, self.emitter, self)
        try:
            result = self.inlined(node) if rule is None else self._by_rule(rule, node)
        except Unsupported as error:
            self.unsupported.append((_operator_name(proto), node.label, str(error)))
            self._note_needs(error.needs)
            return None
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError) as error:
            if isinstance(error, TensorlangError):
                raise
            raise self._blamed(node, error) from error
        return result if isinstance(result, tuple) else (result,)

    def _note_needs(self, values: Sequence[Value]) -> None:
        self.needs.update(dict.fromkeys(_sources(values, self.origins)))

    def _by_rule(self, rule: Rule, node: OnnxNode) -> Item | tuple[Item, ...]:
        """By our own rule; where it does not know this form, by ONNX's definition of the operator, if there is one."""
        before = len(self.emitter.builder.nodes)
        try:
            return rule(node)
        except Unsupported as error:
            if not has_function(node.proto.domain, node.proto.op_type, node.version):
                raise
            del self.emitter.builder.nodes[before:]
            try:
                return self.inlined(node)
            except Unsupported as inner:
                raise Unsupported(str(error), (*error.needs, *inner.needs)) from None

    def inlined(self, node: OnnxNode) -> tuple[Item, ...]:
        """The body that ONNX defines the operator by, imported where the node stands. Names outside are not visible in it."""
        proto = node.proto
        body = function_body(proto, node.version, [v if isinstance(v, Value) else None for v in node.inputs])
        if body is None:
            raise Unsupported(f"no rule for it in opset {node.version}")
        outer, outer_versions, outer_unsupported = self.scope, self.versions, self.unsupported
        given = dict(zip(body.input, node.inputs, strict=False))
        self.scope = {name: given[name] for name in body.input if given.get(name) is not None}
        self.versions, self.unsupported = {**self.versions, **opsets(body)}, []
        try:
            for inner in body.node:
                inner.name = f"{node.label}.{inner.name or inner.op_type}"
            leave_out(body.node, {name for name in body.input if name not in self.scope})
            makes = {*self.scope, *(name for inner in body.node for name in inner.output)}
            outputs = self._import_graph(body.node, [o for o in body.output if o in makes])
            if self.unsupported:
                operator, _, hint = self.unsupported[0]
                raise Unsupported(f"its definition uses {operator}" + (f": {hint}" if hint else ""))
        finally:
            self.scope, self.versions, self.unsupported = outer, outer_versions, outer_unsupported
        found = iter(outputs)
        made = [next(found) if o in makes else None for o in body.output][: node.output_count]
        if any(v is None and node.wants(i) for i, v in enumerate(made)):
            raise Unsupported("its definition does not make every output")
        return tuple(v if v is not None else node.constant(0) for v in made)

    def _blamed(self, node: OnnxNode, error: Exception) -> Exception:
        """What to raise for an error that no rule foresaw: a node that ONNX's checker refuses is to blame, else we are."""
        context = onnx.checker.C.CheckerContext()
        context.ir_version = self.model.ir_version
        context.opset_imports = dict(self.versions)
        bare = onnx.NodeProto()  # alone: the checker would miss the outer names that subgraphs read
        bare.CopyFrom(node.proto)
        for attribute in bare.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                attribute.g.CopyFrom(onnx.GraphProto(name=attribute.g.name or "body"))
        try:
            onnx.checker.check_node(bare, context)
        except onnx.checker.ValidationError as refusal:
            return node.fail(str(refusal).strip().splitlines()[0])
        return InternalError(f"importing node {node.label!r} ({node.proto.op_type}) failed: {error!r}")

    def subgraph(self, proto: onnx.GraphProto, inputs: Sequence[Item]) -> list[Item]:
        """Import the nodes of a subgraph right here; names of the outer graph are visible in it."""
        outer = dict(self.scope)
        self._read_initializers(proto)
        if len(inputs) != len(proto.input):
            raise ModelError(f"subgraph {proto.name!r} takes {len(proto.input)} input(s), given {len(inputs)}")
        self.scope.update((formal.name, v) for formal, v in zip(proto.input, inputs, strict=True))
        for node in proto.node:
            for name in node.output:
                self.scope.pop(name, None)  # shadows the outer one
        before = len(self.unsupported)
        outputs = self._import_graph(proto.node, [v.name for v in proto.output])
        self.scope = outer
        if any(v is None for v in outputs):
            raise Unsupported("see the nodes above" if len(self.unsupported) > before else "its body reads unsupported values")
        return [v for v in outputs if v is not None]


def _flat(name: str, item: Item | None) -> list[tuple[str, Value]]:
    """An output by name; the elements of a sequence as `name[0]`, `name[1]`, ..."""
    if isinstance(item, Maybe) and item.item is not None:
        item = item.item
    if isinstance(item, TensorList):
        return [(f"{name}[{k}]", v) for k, v in enumerate(item.items)]
    if isinstance(item, Structured):
        loop = item.value.producer if isinstance(item, Stack) else None  # whose number of trips is the sequence's length
        needs = tuple(_sources(loop.inputs[:2])) if loop is not None else ()
        raise UnsupportedOpError([("output", name, f"it is {item.kind}; let the model return tensors")], needs)
    return [] if item is None else [(name, item)]


def _sources(values: Sequence[Value], origins: Mapping[Value, Value] | None = None) -> Iterator[str]:
    """Names of the graph inputs that `values` are computed from; `origins` tells what inputs of bodies stand for."""
    seen: set[Value] = set()
    stack = list(values)
    while stack:
        value = stack.pop()
        if value in seen or value.is_constant:
            continue
        seen.add(value)
        if origins and value in origins:
            stack.append(origins[value])
        elif value.producer is None:
            yield value.name
        else:
            stack.extend(value.producer.inputs)


class Inputs:
    """The model's inputs with their dimensions: fixed by the model, fixed by `shapes`, or symbolic.

    Attributes:
        declared: per input, its dimensions as sizes or names.
        sizes: what `shapes` fixes, by name of dimension.
    """

    def __init__(self, formal: Sequence[onnx.ValueInfoProto], shapes: Shapes):
        self.formal = formal
        self.declared = {v.name: self._declared(v) for v in formal}
        self.sizes: dict[str, int] = {}
        self._check_names(shapes)
        for name, given in shapes.items():
            if name in self.declared:
                self._bind_input(name, given)
            else:
                self._bind_dim(name, given, f"shapes[{name!r}]")

    def _declared(self, info: onnx.ValueInfoProto) -> list[int | str]:
        """Dimensions as sizes or names; those without a name get one of their own."""
        if not info.type.HasField("tensor_type"):
            kind = info.type.WhichOneof("value") or "unknown"
            raise UnsupportedOpError([("input", info.name, f"its type is {kind}, not a tensor")])
        tensor = info.type.tensor_type
        if not tensor.HasField("shape"):
            raise UnsupportedOpError([("input", info.name, "its number of dimensions is not known")])
        dims: list[int | str] = []
        for axis, d in enumerate(tensor.shape.dim):
            if d.HasField("dim_value") and d.dim_value > 0:
                dims.append(d.dim_value)
            else:
                named = any(c.isalnum() for c in d.dim_param)  # "?" is no name: equal marks are not equal sizes
                dims.append(d.dim_param if named else f"{info.name}_dim_{axis}")
        return dims

    def _dim_names(self) -> list[str]:
        return list(dict.fromkeys(d for dims in self.declared.values() for d in dims if isinstance(d, str)))

    def _check_names(self, shapes: Shapes) -> None:
        names = self._dim_names()
        if unknown := [n for n in shapes if n not in self.declared and n not in names]:
            raise InputError(
                f"shapes names {', '.join(map(repr, unknown))}, which the model does not have; its open dimensions: "
                f"{', '.join(map(repr, names)) or 'none'}; its inputs: {', '.join(map(repr, self.declared)) or 'none'}"
            )

    def _bind_input(self, name: str, given: Any) -> None:
        dims = self.declared[name]
        if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != len(dims):
            raise InputError(f"shapes[{name!r}] = {given!r}; the input has {len(dims)} dimension(s): {dims}")
        for axis, (d, size) in enumerate(zip(dims, given, strict=True)):
            where = f"dimension {axis} of shapes[{name!r}]"
            if isinstance(d, str):
                self._bind_dim(d, size, where)
            elif not _is_open(size) and size != d:
                raise InputError(f"{where} is {size}; the model fixes it at {d}")

    def _bind_dim(self, name: str, size: Any, where: str) -> None:
        if _is_open(size):
            return
        if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
            raise InputError(f"{where} is {size!r}; a size is an integer of at least 1")
        if self.sizes.setdefault(name, int(size)) != size:
            raise InputError(f"{where} is {size}, but dimension {name!r} is given as {self.sizes[name]} too")

    def values(self, converter: _Converter) -> list[Value]:
        """The inputs as values of the graph that `converter` makes."""
        return [self._value(v, converter) for v in self.formal]

    def _value(self, info: onnx.ValueInfoProto, converter: _Converter) -> Value:
        try:
            kind = element_type(info.type.tensor_type.elem_type)
        except Unsupported as error:
            raise UnsupportedOpError([("input", info.name, str(error))]) from None
        dims = [d if isinstance(d, int) else self._symbol(d, converter) for d in self.declared[info.name]]
        converter.emitter.builder.unique(info.name)
        type_ = TensorType.of(kind, dims)
        refuse_absurd(type_, f"input {info.name!r} is")
        return Value(info.name, type_)  # the model's own name: feeds are given by it

    def _symbol(self, name: str, converter: _Converter) -> Expr:
        if name in self.sizes:
            return canonical(self.sizes[name])
        if name not in converter.dims:
            converter.dims[name] = dim("".join(c if c.isalnum() or c == "_" else "_" for c in name))
        return converter.dims[name]


def _is_open(size: Any) -> bool:
    return size is None or isinstance(size, str) or (isinstance(size, int) and size == -1)


