"""A model whose nodes some are for the host only, in segments: alternately compiled models and single nodes.

A node's level is the least that no input's producer exceeds, even for compiled nodes and odd for the host's, so that each level
runs as a whole after the one below. Constants belong to whoever reads them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tensorlang.errors import ModelError, UnsupportedOpError
from tensorlang.graph import HostStep, NativeStep, Segments, Slot

from .convert import Inputs, Shapes
from .host import (
    ALWAYS,
    COUPLING,
    ONNXRUNTIME,
    OWN,
    REFERENCE,
    STRING,
    Run,
    by_onnxruntime,
    by_reference,
    captured_names,
)
from .node import node_label
from .reader import all_nodes, opset_versions
from .registry import canonical_domain

_TENSOR, _GRAPH = onnx.AttributeProto.TENSOR, onnx.AttributeProto.GRAPH


def split(
    model: onnx.ModelProto, shapes: Shapes | None, refused: Collection[str] = (), fallback: str | None = None
) -> Segments | None:
    """The model in segments; None if no node is for the host.

    Args:
        model: sound, functions inlined (`reader.read_model`).
        refused: labels of nodes that cannot be compiled.
        fallback: who computes those: "onnxruntime", or None for nobody.

    Raises:
        InputError: `shapes` does not fit the model.
        UnsupportedOpError: a node at a border gives or takes no tensor; or nobody has an operator.
    """
    return _Splitter(model, shapes or {}, refused, fallback).run()


class _Splitter:
    def __init__(self, model: onnx.ModelProto, shapes: Shapes, refused: Collection[str], fallback: str | None):
        self.refused, self.fallback = set(refused), fallback
        self.model = _with_numbered_labels(_with_shapes(model, shapes))
        self.opsets = opset_versions(model)
        graph = self.model.graph
        self.types = _types(self.model)
        self.constants: dict[str, onnx.TensorProto] = {t.name: t for t in graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            tensor = _constant(node)
            if tensor is None:
                self.nodes.append(node)
            else:
                self.constants[tensor.name] = tensor
        for name, tensor in self.constants.items():
            self.types[name] = Slot(name, _dtype_name(tensor.data_type), tuple(tensor.dims))

    def run(self) -> Segments | None:
        engines = {id(n): engine for n in self.nodes if (engine := self._engine(n)) is not None}
        if not engines:
            return None
        self._refuse_unmade()
        graph = self.model.graph
        level: dict[str, int] = {}
        rows: dict[int, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            own = max((level.get(n, 0) for n in _reads(node)), default=0)
            own += (own % 2 == 0) == (id(node) in engines)
            level.update((name, own) for name in node.output if name)
            rows.setdefault(own, []).append(node)
        wanted = [o.name for o in graph.output]
        steps: list[HostStep | NativeStep] = []
        for own in sorted(rows):
            if own % 2:
                steps += [self._host(node, engines[id(node)]) for node in rows[own]]
            else:
                later = [n for above in rows if above > own for n in rows[above]]
                steps += self._native(rows[own], later, wanted)
        if given := [n for n in wanted if n in self.constants]:
            steps.insert(0, self._given(given))
        inputs = [v for v in graph.input if v.name not in {t.name for t in graph.initializer}]
        outputs = tuple(self._slot(n) for n in wanted)
        return Segments(graph.name or "main", tuple(self._slot(v.name) for v in inputs), outputs, tuple(steps))

    def _refuse_unmade(self) -> None:
        """
        Raises:
            ModelError: a node reads what nobody made before it, or makes what is there already.
        """
        there = {v.name for v in self.model.graph.input} | set(self.constants)
        for node in self.nodes:
            for name in _reads(node):
                if name not in there:
                    reason = "which no input, initializer or earlier node makes"
                    raise ModelError(f"node {node_label(node)!r} ({node.op_type}) reads {name!r}, {reason}")
            for name in filter(None, node.output):
                if name in there:
                    raise ModelError(f"{name!r} is made twice: again by node {node_label(node)!r} ({node.op_type})")
                there.add(name)
        if missing := [o.name for o in self.model.graph.output if o.name not in there]:
            raise ModelError(f"output {missing[0]!r} of the model is made by no node")

    # -- whose a node is -------------------------------------------------------------------------------------------
    def _engine(self, node: onnx.NodeProto) -> str | None:
        """Who on the host computes a node, or None for a compiled one."""
        if self._handles_strings(node):
            return REFERENCE
        return self.fallback if self.fallback and self._is_refused(node) else None

    def _handles_strings(self, node: onnx.NodeProto) -> bool:
        if any(self._slot(n).dtype == "str" for n in (*_reads(node), *node.output) if n):
            return True
        return any((canonical_domain(n.domain), n.op_type) in ALWAYS or _has_text(n) for n in all_nodes([node]))

    def _is_refused(self, node: onnx.NodeProto) -> bool:
        labels = {node_label(n) for n in all_nodes([node])}
        return not labels.isdisjoint(self.refused) or any(r.startswith(f"{node_label(node)}.") for r in self.refused)

    def _slot(self, name: str) -> Slot:
        return self.types.get(name, Slot(name, None, None))

    # -- steps -----------------------------------------------------------------------------------------------------
    def _host(self, node: onnx.NodeProto, engine: str) -> HostStep:
        names = list(dict.fromkeys(n for n in _reads(node)))
        outputs = tuple(n for n in node.output if n)
        run: Run | None
        if engine == ONNXRUNTIME:
            run = by_onnxruntime(node, self.opsets, self.model.ir_version)
        elif node.op_type in OWN:
            run = OWN[node.op_type](node)
        else:
            run = by_reference(node, self.opsets)
        if run is None:
            hint = "it handles strings or images, for which ONNX's reference implementation does not know it"
            raise UnsupportedOpError([(node.op_type, node_label(node), hint)])
        known = {n: _array(self.constants[n]) for n in names if n in self.constants}
        asked = tuple(n for n in names if n not in known)
        return HostStep(node.op_type, node_label(node), engine, asked, outputs, _with_known(run, names, known))

    def _given(self, names: Sequence[str]) -> HostStep:
        """Outputs that are constants."""
        arrays = [_array(self.constants[n]) for n in names]
        return HostStep("Constant", ", ".join(names), "constant", (), tuple(names), lambda _: [a.copy() for a in arrays])

    def _native(
        self, nodes: Sequence[onnx.NodeProto], later: Sequence[onnx.NodeProto], wanted: Sequence[str]
    ) -> list[NativeStep]:
        made = {name for node in nodes for name in node.output if name}
        read = dict.fromkeys(n for node in nodes for n in _reads(node))
        reads_later = {n for node in later for n in _reads(node)} | set(wanted)
        outputs = [n for n in dict.fromkeys(n for node in nodes for n in node.output) if n and n in reads_later]
        if not outputs:
            return []
        inputs = tuple(self._slot(n) for n in read if n not in made and n not in self.constants)
        own = [self.constants[n] for n in read if n in self.constants]

        def model(slots: Sequence[Slot]) -> onnx.ModelProto:
            graph = helper.make_graph(
                list(nodes), self.model.graph.name or "main", [_info(s) for s in slots],
                [onnx.ValueInfoProto(name=n) for n in outputs], own,
            )  # fmt: skip
            part = helper.make_model(graph, opset_imports=self.model.opset_import)
            part.ir_version = self.model.ir_version
            return part

        return [NativeStep(inputs, tuple(outputs), model)]


def _reads(node: onnx.NodeProto) -> list[str]:
    return [*(n for n in node.input if n), *captured_names(node)]


def _with_known(run: Run, names: Sequence[str], known: Mapping[str, np.ndarray]) -> Run:
    """`run` on what is not known only."""
    if not known:
        return run

    def call(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        rest = iter(arrays)
        return run([known[n] if n in known else next(rest) for n in names])

    return call


# -- constants and types ---------------------------------------------------------------------------------------------


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor that a `Constant` node holds."""
    if node.op_type != "Constant" or canonical_domain(node.domain) or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    value: object = helper.get_attribute_value(attribute)
    tensor = onnx.TensorProto()
    if attribute.name == "value":
        tensor.CopyFrom(attribute.t)
    elif attribute.name in ("value_float", "value_floats"):
        tensor = numpy_helper.from_array(np.asarray(value, np.float32))
    elif attribute.name in ("value_int", "value_ints"):
        tensor = numpy_helper.from_array(np.asarray(value, np.int64))
    elif attribute.name in ("value_string", "value_strings"):
        tensor = numpy_helper.from_array(np.asarray(_text(value), object))
    else:
        return None
    tensor.name = node.output[0]
    return tensor


def _text(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_text(v) for v in value]
    return value.decode() if isinstance(value, bytes) else value


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    array = numpy_helper.to_array(tensor)
    if tensor.data_type != STRING:
        return array
    texts = np.empty(array.shape, object)
    for index in np.ndindex(array.shape):
        texts[index] = _text(array[index])
    return texts


def _has_text(node: onnx.NodeProto) -> bool:
    """Whether a node of a subgraph holds strings as a tensor."""
    return any(a.type == _TENSOR and a.t.data_type == STRING for a in node.attribute) or (
        node.op_type == "Constant" and any(a.name.startswith("value_string") for a in node.attribute)
    )


def _types(model: onnx.ModelProto) -> dict[str, Slot]:
    """What ONNX's shape inference finds out about the top level's names."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    try:
        bare = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    except Exception:  # it stops at what it does not know; what the file declares is left
        pass
    found = {}
    for info in (*bare.graph.value_info, *bare.graph.output, *bare.graph.input):
        if info.type.HasField("tensor_type"):
            tensor = info.type.tensor_type
            dims = None
            if tensor.HasField("shape"):
                dims = tuple(_dim(d, info.name, k) for k, d in enumerate(tensor.shape.dim))
            found[info.name] = Slot(info.name, _dtype_name(tensor.elem_type), dims)
    return found


def _dim(d: onnx.TensorShapeProto.Dimension, name: str, axis: int) -> int | str:
    if d.HasField("dim_value") and d.dim_value > 0:
        return d.dim_value
    return d.dim_param if any(c.isalnum() for c in d.dim_param) else f"{name}_dim_{axis}"


def _dtype_name(code: int) -> str | None:
    if code == STRING:
        return "str"
    try:
        return helper.tensor_dtype_to_np_dtype(code).name
    except (KeyError, TypeError, ValueError):
        return None


def _info(slot: Slot) -> onnx.ValueInfoProto:
    if slot.dtype is None or slot.shape is None:
        raise ModelError(f"the type of {slot.name!r}, at the border of a native segment, is not known")
    kind = slot.dtype
    code = next(c for c in onnx.TensorProto.DataType.values() if _dtype_name(c) == kind)
    return helper.make_tensor_value_info(slot.name, code, list(slot.shape))


_NUMBERED = {  # classifiers whose labels may be strings -> their attribute of labels that are integers
    "LinearClassifier": "classlabels_ints", "SVMClassifier": "classlabels_ints",
    "TreeEnsembleClassifier": "classlabels_int64s",
}  # fmt: skip


def _with_numbered_labels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Classifiers give the number of a label, and the host looks up the string: the scores are compiled."""
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        texts = [a for a in node.attribute if a.name == "classlabels_strings" and len(a.strings)]
        nodes.append(node)
        if node.domain == "ai.onnx.ml" and node.op_type == "SVMClassifier":
            nodes += _with_coupling(node)
        if node.domain != "ai.onnx.ml" or node.op_type not in _NUMBERED or not texts:
            continue
        labels = list(texts[0].strings)
        number, numbers = f"{node.output[0]}#number", list(range(len(labels)))
        node.attribute.remove(texts[0])
        node.attribute.append(helper.make_attribute(_NUMBERED[node.op_type], numbers))
        table: dict[str, object] = {"keys_int64s": numbers, "values_strings": labels}
        if opset_versions(model).get("ai.onnx.ml", 1) < 2:
            table = {"classes_strings": labels}
        encoder = helper.make_node(
            "LabelEncoder", [number], [node.output[0]], f"{node_label(node)}.labels", domain="ai.onnx.ml", **table
        )
        node.output[0] = number
        nodes.append(encoder)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


def _with_coupling(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The host's step from a support vector classifier's scores of pairs to probabilities; the node then gives the scores."""
    found = {a.name: a for a in node.attribute}
    asked = [found[name] for name in ("prob_a", "prob_b") if name in found and len(found[name].floats)]
    vectors = "vectors_per_class" in found and sum(found["vectors_per_class"].ints)
    if len(asked) != 2 or not vectors or len(node.output) != 2 or not node.output[1]:
        return []
    if found.get("post_transform") is not None and found["post_transform"].s not in (b"", b"NONE"):
        return []
    classes = len(found["vectors_per_class"].ints)
    scores = f"{node.output[1]}#pairs"
    step = helper.make_node(COUPLING, [scores], [node.output[1]], f"{node_label(node)}.probabilities", domain="tensorlang")
    step.attribute.extend([*asked, helper.make_attribute("classes", classes)])
    for attribute in asked:
        node.attribute.remove(attribute)
    node.output[1] = scores
    return [step]


def _with_shapes(model: onnx.ModelProto, shapes: Shapes) -> onnx.ModelProto:
    """A copy whose inputs have the sizes that `shapes` gives."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    initialised = {t.name for t in copy.graph.initializer}
    formal = [v for v in copy.graph.input if v.name not in initialised]
    found = Inputs(formal, shapes)
    for info in formal:
        for d, size in zip(info.type.tensor_type.shape.dim, found.declared[info.name], strict=True):
            fixed = found.sizes.get(size) if isinstance(size, str) else size
            if fixed is None:
                d.dim_param = str(size)
            else:
                d.dim_value = fixed
    return copy
