"""ai.onnx.ml's classifiers and support vectors: scores by matrix products and trees, labels by the largest score.

Labels are integers here; where a model's are strings, `segments` lets the host name them. Semantics where the standard is
silent are onnxruntime's: of equal scores the first wins, and one score for two classes is that of the second.
"""

from __future__ import annotations

import numpy as np

from tensorlang.graph import Value, as_ints, canonical

from .ml import ML, as_float, classic_forest, floats, transformed
from .node import OnnxNode
from .registry import onnx_op

POST_TRANSFORMS = ("SOFTMAX", "SOFTMAX_ZERO", "LOGISTIC")


def _labels(node: OnnxNode, name: str) -> np.ndarray:
    labels = node.attr(name, None)
    if labels is None:
        raise node.unsupported("labels that are strings" if node.has("classlabels_strings") else "no class labels")
    return np.asarray(labels, np.int64)


def _post_transform(node: OnnxNode) -> str:
    kind: str = node.attr("post_transform", "NONE")
    if kind not in ("NONE", *POST_TRANSFORMS):
        raise node.unsupported(f"post_transform={kind}")
    return kind


def _largest(node: OnnxNode, scores: Value, labels: np.ndarray) -> Value:
    place = node.add("argmax", scores, axis=1, keepdims=False)
    return node.add("gather", node.constant(labels), place, axis=0)


def _of_two(node: OnnxNode, holds: Value, labels: np.ndarray) -> Value:
    """The second label where the condition [rows, 1] holds, else the first, [rows]."""
    flat = node.add("reshape", holds, shape=holds.shape[:1])
    return node.add("where", flat, node.constant(labels[1]), node.constant(labels[0]))


@onnx_op("LinearClassifier", domain=ML)
def linear_classifier(node: OnnxNode) -> tuple[Value, Value]:
    """Labels [rows], and x coefficients' + intercepts [rows, classes]."""
    x = as_float(node, node.input(0))
    labels, kind = _labels(node, "classlabels_ints"), _post_transform(node)
    weights = np.asarray(node.attr("coefficients"), np.float32)
    columns = as_ints(x.shape[1:])
    if x.type.ndim != 2 or columns is None:
        raise node.unsupported(f"samples {x.type}: rows of a known length are expected")
    if weights.size != len(labels) * columns[0]:
        raise node.unsupported(f"{weights.size} coefficients for {len(labels)} classes and {columns[0]} features")
    scores = node.add("matmul", x, node.constant(weights.reshape(len(labels), -1).T))
    if (bias := floats(node, "intercepts")) is not None:
        scores = node.add("add", scores, node.constant(bias))
    return _largest(node, scores, labels), transformed(node, scores, kind)


@onnx_op("TreeEnsembleClassifier", domain=ML)
def tree_ensemble_classifier(node: OnnxNode) -> tuple[Value, Value]:
    """Labels [rows], and the sum of what the leaves say for each class [rows, classes]."""
    x = as_float(node, node.input(0))
    labels, kind = _labels(node, "classlabels_int64s"), _post_transform(node)
    count = len(labels)
    forest, roots, names = classic_forest(node)
    leaf = forest.leaves(node, x, roots)
    table = np.zeros((len(forest.rows), count), np.float32)
    trees, ids, classes, weights = (node.attr(f"class_{k}") for k in ("treeids", "nodeids", "ids", "weights"))
    for tree, at, target, weight in zip(trees, ids, classes, weights, strict=True):
        if (tree, at) not in names or not 0 <= target < count:
            raise node.fail(f"a weight of class {target} at node {at} of tree {tree}, which does not exist")
        table[names[tree, at], target] += weight
    single = count == 2 and len(set(classes)) == 1
    if single:
        table = table[:, [classes[0]]]
    worth = node.add("gather", node.constant(table), leaf, axis=0)
    scores = node.add("reduce_sum", worth, axes=(1,), keepdims=False)
    base = floats(node, "base_values")
    if base is not None and base.size:
        if base.size != table.shape[1]:
            raise node.unsupported(f"{base.size} base values for {table.shape[1]} score(s)")
        if count == 2 and not single:
            raise node.unsupported("base values for two classes that both have scores: runtimes differ in what they mean")
        scores = node.add("add", scores, node.constant(base))
    if not single and count == 2:  # as onnxruntime: the sign of the second class's score, or where it has none the first's
        first, second = (node.add("gather", scores, node.constant(np.array([k])), axis=1) for k in (0, 1))
        none = node.constant(0, scores)
        decisive = node.add("where", node.add("equal", second, none), first, second)
        return _of_two(node, node.add("greater", decisive, none), labels), transformed(node, scores, kind)
    if not single:
        return _largest(node, scores, labels), transformed(node, scores, kind)
    # one score for two classes, which is a probability if no weight is negative, else positive for the second class
    positive, zero = min(weights) >= 0, node.constant(0, scores)
    label = _of_two(node, node.add("greater", scores, node.constant(0.5 if positive else 0.0, scores)), labels)
    if classes[0] == 1:
        return label, transformed(node, node.add("concat", node.add("mul", scores, zero), scores, axis=1), kind)
    opposite = node.add("neg", scores)
    if kind == "LOGISTIC":
        return label, node.add("sigmoid", node.add("concat", opposite, scores, axis=1))
    other = node.add("sub", node.constant(1, scores), scores) if positive else opposite
    return label, node.add("concat", other, scores, axis=1)


@onnx_op("SVMRegressor", domain=ML)
def svm_regressor(node: OnnxNode) -> Value:
    """Kernels of samples and support vectors, weighted: [rows, 1]."""
    x = as_float(node, node.input(0))
    if node.attr("post_transform", "NONE") != "NONE":
        raise node.unsupported(f"post_transform={node.attr('post_transform')}")
    weights = np.asarray(node.attr("coefficients"), np.float32)
    count = node.attr("n_supports", 0)
    offset = np.asarray(node.attr("rho", (0.0,)), np.float32)
    if count:
        vectors = np.asarray(node.attr("support_vectors"), np.float32).reshape(count, -1)
        products = _kernel(node, x, vectors)
    else:
        products = x
    y = node.add("add", node.add("matmul", products, node.constant(weights.reshape(-1, 1))), node.constant(offset[:1]))
    if node.attr("one_class", 0):
        y = node.add("where", node.add("greater", y, node.constant(0, y)), node.constant(1, y), node.constant(-1, y))
    return y


@onnx_op("SVMClassifier", domain=ML)
def svm_classifier(node: OnnxNode) -> tuple[Value, Value]:
    """Labels [rows] by one vote for each pair of classes; and the pairs' scores [rows, pairs].

    Without support vectors it is a linear classifier of one score per class. Probabilities take an iteration that ends for
    each row on its own: `segments` gives it to the host.
    """
    x = as_float(node, node.input(0))
    labels, kind = _labels(node, "classlabels_ints"), _post_transform(node)
    count = len(labels)
    rho, weights = np.asarray(node.attr("rho"), np.float32), np.asarray(node.attr("coefficients"), np.float32)
    sizes = list(node.attr("vectors_per_class", None) or ())
    if not sum(sizes):
        return _linear_svm(node, x, labels, kind, weights, rho)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    total, starts = sum(sizes), np.cumsum([0, *sizes])
    if count < 2 or len(sizes) != count or min(sizes) < 0 or weights.size != (count - 1) * total or rho.size < len(pairs):
        found = f"{weights.size} coefficients and {rho.size} offsets"
        raise node.fail(f"{found} for {total} support vectors of {len(sizes)} classes and {count} labels")
    if node.attr("prob_a", None):
        raise node.unsupported("probabilities: tl.compile of the model's file has the host couple them")
    if count == 2 and kind not in ("NONE", "LOGISTIC"):
        raise node.unsupported(f"post_transform={kind} of the score of two classes")
    weights = weights.reshape(count - 1, total)
    table, votes = np.zeros((total, len(pairs)), np.float32), np.zeros((len(pairs), count), np.float32)
    for place, (i, j) in enumerate(pairs):
        of_i, of_j = slice(starts[i], starts[i + 1]), slice(starts[j], starts[j + 1])
        table[of_i, place], table[of_j, place] = weights[j - 1, of_i], weights[i, of_j]
        votes[place, i], votes[place, j] = 1, -1  # of a score above zero; the second class has a vote unless the first has
    columns = as_ints(x.shape[1:])
    vectors = np.asarray(node.attr("support_vectors"), np.float32)
    if x.type.ndim != 2 or columns is None or vectors.size != total * columns[0]:
        raise node.unsupported(f"samples {x.type} and {vectors.size} numbers as {total} support vectors")
    products = _kernel(node, x, vectors.reshape(total, -1))
    scores = node.add("add", node.add("matmul", products, node.constant(table)), node.constant(rho[: len(pairs)]))
    holds = node.add("cast", node.add("greater", scores, node.constant(0, scores)), dtype="f32")
    base = np.bincount([j for _, j in pairs], minlength=count).astype(np.float32)
    label = _largest(node, node.add("add", node.add("matmul", holds, node.constant(votes)), node.constant(base)), labels)
    return label, _both_signs(node, scores, kind) if count == 2 else transformed(node, scores, kind)


def _both_signs(node: OnnxNode, score: Value, kind: str) -> Value:
    """One score per row as those of two classes: -s and s; with LOGISTIC, 1 - s and s, which is what onnxruntime gives."""
    first = node.add("neg", score) if kind == "NONE" else node.add("sub", node.constant(1, score), score)
    return node.add("concat", first, score, axis=1)


def _linear_svm(
    node: OnnxNode, x: Value, labels: np.ndarray, kind: str, weights: np.ndarray, rho: np.ndarray
) -> tuple[Value, Value]:
    columns = as_ints(x.shape[1:])
    if x.type.ndim != 2 or columns is None or weights.size != len(labels) * columns[0] or not rho.size:
        raise node.unsupported(f"{weights.size} coefficients for {len(labels)} classes and samples {x.type}")
    scores = node.add("matmul", x, node.constant(np.ascontiguousarray(weights.reshape(len(labels), -1).T)))
    scores = node.add("add", scores, node.constant(rho[:1]))
    result = transformed(node, scores, kind)
    if len(labels) != 2 or node.attr("prob_a", None):
        return _largest(node, scores, labels), result
    # of two labels onnxruntime takes the second as soon as the larger score is positive (0.5, if no weight is negative)
    positive = bool((weights >= 0).all())
    top = node.add("reduce_max", scores, axes=(1,), keepdims=False)
    high = node.add("greater_equal" if positive else "greater", top, node.constant(0.5 if positive else 0.0, top))
    return node.add("where", high, node.constant(labels[1]), _largest(node, scores, labels)), result


def _kernel(node: OnnxNode, x: Value, vectors: np.ndarray) -> Value:
    """k(x, v) of every sample and vector [rows, vectors]."""
    kind = node.choice("kernel_type", "LINEAR", "POLY", "RBF", "SIGMOID")
    gamma, coefficient, degree = (*node.attr("kernel_params", (0.0, 0.0, 0.0)), 0.0, 0.0, 0.0)[:3]
    if kind == "RBF":
        wide = node.add("reshape", x, shape=(x.shape[0], canonical(1), x.shape[1]))
        difference = node.add("sub", wide, node.constant(vectors[None]))
        distance = node.add("reduce_sum", node.add("mul", difference, difference), axes=(2,), keepdims=False)
        return node.add("exp", node.add("mul", distance, node.constant(-gamma, x)))
    products = node.add("matmul", x, node.constant(np.ascontiguousarray(vectors.T)))
    if kind == "LINEAR":
        return products
    scaled = node.add("add", node.add("mul", products, node.constant(gamma, x)), node.constant(coefficient, x))
    return node.add("pow", scaled, node.constant(degree, x)) if kind == "POLY" else node.add("tanh", scaled)


@onnx_op("OneHotEncoder", domain=ML)
def one_hot_encoder(node: OnnxNode) -> Value:
    """A last dimension of f32: 1 at the category that an element equals. Elements of no category are zeros throughout."""
    x = node.input(0)
    if node.has("cats_strings"):
        raise node.unsupported("categories that are strings")
    if not node.attr("zeros", 1):
        raise node.unsupported("zeros=0: an element of no category would be refused")
    categories = np.asarray(node.attr("cats_int64s"), np.int64)
    whole = node.add("cast", x, dtype="i64")
    hit = node.add("equal", node.add("reshape", whole, shape=(*x.shape, 1)), node.constant(categories))
    return node.add("cast", hit, dtype="f32")


@onnx_op("FeatureVectorizer", domain=ML)
def feature_vectorizer(node: OnnxNode) -> Value:
    """The columns of all inputs side by side, as f32."""
    parts = []
    for value in node.all_inputs():
        wide = as_float(node, value)
        if wide.type.ndim == 1:
            wide = node.add("reshape", wide, shape=(1, *wide.shape))
        if wide.type.ndim != 2:
            raise node.fail(f"features {value.type}: rows are expected")
        parts.append(wide)
    declared, found = node.attr("inputdimensions", None), as_ints(tuple(p.shape[1] for p in parts))
    if declared is not None and found is not None and tuple(declared) != found:
        raise node.unsupported(f"inputdimensions {list(declared)} of inputs with {list(found)} columns")
    return parts[0] if len(parts) == 1 else node.add("concat", *parts, axis=1)
