"""Nodes that no native program computes: strings and images, by ONNX's own reference implementation; others by onnxruntime."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tensorlang.errors import InputError, ModelError, TensorlangError, UnsupportedOpError

from .node import node_label
from .registry import canonical_domain

Run = Callable[[Sequence[np.ndarray]], Sequence[Any]]

REFERENCE, ONNXRUNTIME = "onnx.reference", "onnxruntime"
STRING = onnx.TensorProto.STRING
COUPLING = "CoupleProbabilities"  # the last step of SVMClassifier, a node of our own
ALWAYS = {  # operators of the host whatever the types of their inputs
    ("", "StringConcat"), ("", "StringNormalizer"), ("", "StringSplit"), ("", "RegexFullMatch"), ("", "ImageDecoder"),
    ("ai.onnx.ml", "ZipMap"), ("ai.onnx.ml", "CategoryMapper"), ("tensorlang", COUPLING),
}  # fmt: skip


def by_reference(node: onnx.NodeProto, opsets: Mapping[str, int]) -> Run | None:
    """The node by ONNX's reference implementation; None if there is none."""
    from onnx.reference import ReferenceEvaluator  # a third party's module, of 0.3 s, that few models need

    names = _names(node)
    try:
        evaluator = ReferenceEvaluator(_model(node, opsets, {}))
    except Exception:  # many kinds: unknown operator, unknown version, a body that it cannot read
        return None

    def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        return _called(node, lambda: evaluator.run(None, dict(zip(names, arrays, strict=True))))

    return run


def zipped(node: onnx.NodeProto) -> Run:
    """ZipMap: rows of scores as a list of {label: score}, as onnxruntime gives them."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    texts = [t.decode() for t in found.get("classlabels_strings", ())]
    labels: list[Any] = texts or list(found.get("classlabels_int64s", ()))

    def run(arrays: Sequence[np.ndarray]) -> Sequence[Any]:
        rows = np.atleast_2d(arrays[0])
        if rows.shape[-1] != len(labels):
            raise InputError(f"node {node_label(node)!r} (ZipMap) has {len(labels)} labels for scores {rows.shape}")
        return [[dict(zip(labels, row.tolist(), strict=True)) for row in rows]]

    return run


def category_mapper(node: onnx.NodeProto) -> Run:
    """CategoryMapper: strings to integers or back by two lists side by side; what is in neither becomes the default."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    texts, numbers = [t.decode() for t in found.get("cats_strings", ())], list(found.get("cats_int64s", ()))
    if len(texts) != len(numbers):
        raise ModelError(f"node {node_label(node)!r} (CategoryMapper) has {len(texts)} strings for {len(numbers)} integers")
    to_number, to_text = dict(zip(texts, numbers, strict=True)), dict(zip(numbers, texts, strict=True))
    number, text = found.get("default_int64", -1), found.get("default_string", b"_Unused").decode()

    def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        x = arrays[0]
        if x.dtype.kind in "iu":
            return [np.array([to_text.get(v, text) for v in x.ravel().tolist()], object).reshape(x.shape)]
        return [np.array([to_number.get(str(v), number) for v in x.ravel().tolist()], np.int64).reshape(x.shape)]

    return run


def coupled(node: onnx.NodeProto) -> Run:
    """Probabilities [rows, classes] from the scores of pairs of classes, by a logistic curve for each pair.

    Wu, Lin and Weng's second method (JMLR 5, 2004) with the start, the order and the stop of libsvm's iteration, which all
    show in the result. Two classes come as the scores -s and s.

    Raises:
        ModelError: not one entry of `prob_a` and `prob_b` for each pair.
    """
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    slopes, offsets = (np.asarray(found[name], np.float32) for name in ("prob_a", "prob_b"))
    classes: int = found["classes"]
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    if len(slopes) != len(offsets) or len(slopes) < len(pairs):
        sizes = f"{len(slopes)} entries and prob_b {len(offsets)}"
        raise ModelError(f"node {node_label(node)!r}: prob_a has {sizes} for {len(pairs)} pairs of classes")
    first, second = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    slopes, offsets = slopes[: len(pairs)], offsets[: len(pairs)]

    def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        scores = arrays[0][:, -len(pairs) :].astype(np.float32)
        with np.errstate(over="ignore"):
            ratio = np.clip(1 / (1 + np.exp(scores * slopes + offsets)), np.float32(1e-7), np.float32(1 - 1e-7))
        r = np.zeros((len(scores), classes, classes), np.float32)
        r[:, first, second], r[:, second, first] = ratio, 1 - ratio
        q = -r * r.transpose(0, 2, 1)
        diagonal = np.arange(classes)
        q[:, diagonal, diagonal] = (r * r).sum(1)
        p = np.full((len(scores), classes), 1 / classes, np.float32)
        rows = np.arange(len(scores))
        for _ in range(max(100, classes)):
            qp = np.einsum("nij,nj->ni", q[rows], p[rows])
            level = (p[rows] * qp).sum(1)
            on = np.abs(qp - level[:, None]).max(1, initial=0) >= 0.005 / classes
            rows, qp, level = rows[on], qp[on], level[on]
            if not rows.size:
                break
            for t in range(classes):
                step = (level - qp[:, t]) / q[rows, t, t]
                p[rows, t] += step
                level = (level + step * (step * q[rows, t, t] + 2 * qp[:, t])) / (1 + step) ** 2
                qp = (qp + step[:, None] * q[rows, t]) / (1 + step[:, None])
                p[rows] /= 1 + step[:, None]
        return [p]

    return run


# operators of the host that are written here: the reference does not have them, or differs from onnxruntime
OWN: dict[str, Callable[[onnx.NodeProto], Run]] = {
    "ZipMap": zipped, "CategoryMapper": category_mapper, COUPLING: coupled,
}  # fmt: skip


def by_onnxruntime(node: onnx.NodeProto, opsets: Mapping[str, int], ir_version: int) -> Run:
    """The node by onnxruntime. Its session is made at the first run with inputs of given types, and kept.

    Raises:
        UnsupportedOpError: onnxruntime is not installed, or does not have the operator.
    """
    label, operator = node_label(node), node.op_type
    try:
        engine = importlib.import_module("onnxruntime")  # an extra
    except ImportError:
        hint = "fallback='onnxruntime' needs it installed: pip install onnxruntime"
        raise UnsupportedOpError([(operator, label, hint)]) from None
    names = _names(node)
    sessions: dict[tuple[str, ...], Any] = {}

    def session(arrays: Sequence[np.ndarray]) -> Any:
        key = tuple(a.dtype.str for a in arrays)
        if key not in sessions:
            types = {n: _code(a) for n, a in zip(names, arrays, strict=True)}
            model = _model(node, opsets, types)
            model.ir_version = min(ir_version, 10)
            options = engine.SessionOptions()
            options.log_severity_level = 4
            try:
                sessions[key] = engine.InferenceSession(
                    model.SerializeToString(), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:
                hint = f"onnxruntime refuses it as well: {str(error).splitlines()[0][:200]}"
                raise UnsupportedOpError([(operator, label, hint)]) from error
        return sessions[key]

    def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        prepared = session(arrays)
        return _called(node, lambda: prepared.run(None, dict(zip(names, arrays, strict=True))))

    return run


def _called(node: onnx.NodeProto, call: Callable[[], Sequence[Any]]) -> Sequence[np.ndarray]:
    try:
        results = call()
    except Exception as error:
        if isinstance(error, TensorlangError):
            raise
        raise InputError(f"node {node_label(node)!r} ({node.op_type}), on the host: {error}") from error
    return [as_host_array(r, node) for r in results]


def as_host_array(value: Any, node: onnx.NodeProto) -> np.ndarray:
    """A result as an array, strings as objects."""
    if not isinstance(value, np.ndarray | np.generic | str):
        raise InputError(f"node {node_label(node)!r} ({node.op_type}), on the host, gives a {type(value).__name__}, no tensor")
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "UST" else array


def _names(node: onnx.NodeProto) -> list[str]:
    """What the node's model takes: its inputs, then what its subgraphs read from around it."""
    return list(dict.fromkeys([*(n for n in node.input if n), *captured_names(node)]))


def captured_names(node: onnx.NodeProto) -> list[str]:
    """The outer names that the subgraphs of a node read, in order."""
    found: dict[str, None] = {}
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else ()), *attribute.graphs):
            own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
            for inner in graph.node:
                found.update(dict.fromkeys(n for n in (*inner.input, *captured_names(inner)) if n and n not in own))
                own.update(inner.output)
            found.update(dict.fromkeys(o.name for o in graph.output if o.name not in own))
    return list(found)


def _model(node: onnx.NodeProto, opsets: Mapping[str, int], types: Mapping[str, int]) -> onnx.ModelProto:
    """The node as a model of its own."""
    inputs = [
        onnx.ValueInfoProto(name=n) if n not in types else _typed(n, types[n]) for n in _names(node)
    ]
    outputs = [onnx.ValueInfoProto(name=n) for n in node.output if n]
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    if canonical_domain(node.domain) not in opsets:
        imports.append(helper.make_opsetid(node.domain, 1))
    return helper.make_model(helper.make_graph([node], "node", inputs, outputs), opset_imports=imports)


def _typed(name: str, code: int) -> onnx.ValueInfoProto:
    """An input of a type, of any rank."""
    info = onnx.ValueInfoProto(name=name)
    info.type.tensor_type.elem_type = code
    return info


def _code(array: np.ndarray) -> int:
    return STRING if array.dtype.kind in "OUS" else int(helper.np_dtype_to_tensor_dtype(array.dtype))
