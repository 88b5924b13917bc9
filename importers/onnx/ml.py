"""ai.onnx.ml: tree ensembles, encoders of labels, scalers and linear models, on numbers (strings are refused)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensorlang.graph import Value, as_ints, canonical

from .node import OnnxNode
from .registry import onnx_op

ML = "ai.onnx.ml"


def floats(node: OnnxNode, name: str, default: tuple[float, ...] | None = None) -> np.ndarray | None:
    """An attribute of numbers as f32."""
    given = node.attr(name, default)
    return None if given is None else np.asarray(given, np.float32)


def as_float(node: OnnxNode, x: Value) -> Value:
    """`x` as f32."""
    return x if str(x.dtype) == "f32" else node.add("cast", x, dtype="f32")


@onnx_op("Binarizer", domain=ML)
def binarizer(node: OnnxNode) -> Value:
    x = node.input(0)
    return node.add("cast", node.add("greater", x, node.constant(node.attr("threshold", 0.0), x)), dtype=x.dtype)


@onnx_op("Scaler", domain=ML)
def scaler(node: OnnxNode) -> Value:
    """(x - offset) * scale, as f32"""
    x = as_float(node, node.input(0))
    offset, scale = floats(node, "offset", (0.0,)), floats(node, "scale", (1.0,))
    return node.add("mul", node.add("sub", x, node.constant(offset)), node.constant(scale))


@onnx_op("Imputer", domain=ML)
def imputer(node: OnnxNode) -> Value:
    """What equals `replaced_value` (NaN does, if it is NaN) becomes the imputed value of its column."""
    x = node.input(0)
    kind = "float" if x.dtype.is_float else "int64"
    values, old = node.attr(f"imputed_value_{kind}s"), node.attr(f"replaced_value_{kind}", 0)
    hit = node.add("isnan", x) if old != old else node.add("equal", x, node.constant(old, x))
    return node.add("where", hit, node.constant(values, x), x)


@onnx_op("Normalizer", domain=ML)
def normalizer(node: OnnxNode) -> Value:
    """Rows over their largest, the sum of their sizes, or their length; rows of zeros stay."""
    x = as_float(node, node.input(0))
    axes = (x.type.ndim - 1,)
    mode = node.choice("norm", "MAX", "L1", "L2")
    of = {"MAX": "reduce_max", "L1": "reduce_l1", "L2": "reduce_l2"}[mode]
    norm = node.add(of, x, axes=axes, keepdims=True)
    zero = node.add("equal", norm, node.constant(0, norm))
    return node.add("div", x, node.add("where", zero, node.constant(1, norm), norm))


@onnx_op("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(node: OnnxNode) -> Value:
    """Elements picked along the last dimension; of a vector, as one row."""
    x, indices = node.input(0), node.input(1)
    count = canonical(1)
    for d in indices.shape:
        count = canonical(count * d)
    flat = node.add("reshape", indices, shape=(count,))
    y = node.add("gather", x, flat, axis=x.type.ndim - 1)
    return node.add("reshape", y, shape=(1, count)) if x.type.ndim == 1 else y


@onnx_op("LinearRegressor", domain=ML)
def linear_regressor(node: OnnxNode) -> Value:
    x = as_float(node, node.input(0))
    targets = node.attr("targets", 1)
    weights = np.asarray(node.attr("coefficients"), np.float32).reshape(targets, -1).T
    y = node.add("matmul", x, node.constant(weights))
    if (bias := floats(node, "intercepts")) is not None:
        y = node.add("add", y, node.constant(bias))
    return transformed(node, y, node.attr("post_transform", "NONE"))


def transformed(node: OnnxNode, y: Value, kind: str) -> Value:
    """`post_transform` of scores [rows, classes]. SOFTMAX_ZERO: as SOFTMAX, of the scores that are not zero.

    Raises:
        UnsupportedOpError: an unknown one.
    """
    match kind:
        case "NONE":
            return y
        case "LOGISTIC":
            return node.add("sigmoid", y)
        case "SOFTMAX":
            return node.add("softmax", y, axis=1)
        case "SOFTMAX_ZERO":
            top = node.add("reduce_max", y, axes=(1,), keepdims=True)
            counts = node.add("greater", node.add("abs", y), node.constant(1e-7, y))
            zero = node.constant(0, y)
            power = node.add("where", counts, node.add("exp", node.add("sub", y, top)), zero)
            total = node.add("reduce_sum", power, axes=(1,), keepdims=True)
            none = node.add("equal", total, zero)
            return node.add("div", power, node.add("where", none, node.constant(1, y), total))
        case "PROBIT":
            return _probit(node, y)
        case _:
            raise node.unsupported(f"post_transform={kind}")


def _probit(node: OnnxNode, y: Value) -> Value:
    """sqrt(2) erfinv(2 y - 1) by Winitzki's approximation (A = 0.147, good to 2e-3), which is the one onnxruntime takes:
    a better erfinv would not agree. NaN outside of [0, 1].
    """
    a = 0.147

    def number(value: float) -> Value:
        return node.constant(value, y)

    x = node.add("sub", node.add("mul", y, number(2.0)), number(1.0))
    log = node.add("log", node.add("mul", node.add("sub", number(1.0), x), node.add("add", number(1.0), x)))
    middle = node.add("add", node.add("mul", log, number(0.5)), number(2.0 / (math.pi * a)))
    root = node.add("sqrt", node.add("sub", node.add("mul", middle, middle), node.add("mul", log, number(1.0 / a))))
    size = node.add("sqrt", node.add("sub", root, middle))
    signed = node.add("where", node.add("less", x, number(0.0)), node.add("neg", size), size)
    return node.add("mul", signed, number(math.sqrt(2.0)))


@onnx_op("LabelEncoder", domain=ML, since=2)
def label_encoder(node: OnnxNode) -> Value:
    """The value beside the key that an element equals (NaN equals NaN), else the default."""
    x = node.input(0)
    sides = {}
    for side in ("keys", "values"):
        for kind in ("tensor", "floats", "int64s", "strings"):
            if node.has(f"{side}_{kind}"):
                if kind == "strings":
                    raise node.unsupported("labels that are strings")
                given = node.attr(f"{side}_{kind}")
                sides[side] = np.asarray(given, None if kind == "tensor" else np.float32 if kind == "floats" else np.int64)
    if len(sides) != 2 or len(sides["keys"]) != len(sides["values"]):
        raise node.fail("as many keys as values are expected")
    keys, values = sides["keys"].reshape(-1), sides["values"].reshape(-1)
    if node.has("default_tensor"):
        default = node.attr("default_tensor").reshape(-1)[0]
    else:
        default = node.attr("default_float", -0.0) if values.dtype.kind == "f" else node.attr("default_int64", -1)
    if str(keys.dtype) != str(x.dtype.numpy):
        raise node.fail(f"keys of {keys.dtype} for {x.type}")
    wide = node.add("reshape", x, shape=(*x.shape, 1))
    hit = node.add("equal", wide, node.constant(keys))
    if keys.dtype.kind == "f" and np.isnan(keys).any():
        hit = node.add("or", hit, node.add("and", node.add("isnan", wide), node.constant(np.isnan(keys))))
    last = x.type.ndim
    marks = node.add("cast", hit, dtype="u8")
    found = node.add("cast", node.add("reduce_max", marks, axes=(last,), keepdims=False), dtype="bool")
    place = node.add("argmax", marks, axis=last, keepdims=False)
    table = node.constant(values)
    return node.add("where", found, node.add("gather", table, place, axis=0), node.constant(default, table))


# -- trees -----------------------------------------------------------------------------------------------------------

_MODES = {"BRANCH_LEQ": 0, "BRANCH_LT": 1, "BRANCH_GTE": 2, "BRANCH_GT": 3, "BRANCH_EQ": 4, "BRANCH_NEQ": 5, "LEAF": 6}
_MEMBER = 6  # of TreeEnsemble's own numbering


class Forest:
    """Nodes in rows of tables, as the operator `tree_leaves` takes them."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, float, int, int, int]] = []  # feature, mode, value, missing, yes, no

    def add(self, feature: int, mode: int, value: float, missing: int, yes: int = 0, no: int = 0) -> int:
        self.rows.append((feature, mode, value, missing, yes, no))
        return len(self.rows) - 1

    def leaf(self) -> int:
        return self.add(0, 6, 0.0, 0)

    def connect(self, row: int, yes: int, no: int) -> None:
        self.rows[row] = (*self.rows[row][:4], yes, no)

    def leaves(self, node: OnnxNode, x: Value, roots: list[int]) -> Value:
        """The leaf of every sample in every tree.

        Raises:
            ModelError: the nodes are no trees, or read columns that x does not have.
        """
        if x.type.ndim != 2:
            raise node.fail(f"samples {x.type}: one row each is expected")
        columns = as_ints(x.shape[1:])
        if columns is None:
            raise node.unsupported("samples of an unknown number of columns")
        self._check(node, roots, columns[0])
        table = list(zip(*self.rows, strict=True))
        integers = [node.constant(np.array(column, np.int64)) for k, column in enumerate(table) if k != 2]
        feature, mode, missing, yes, no = integers
        value = node.constant(np.array(table[2]), x)
        return node.add("tree_leaves", x, feature, mode, value, missing, yes, no, node.constant(np.array(roots, np.int64)))

    def _check(self, node: OnnxNode, roots: list[int], columns: int) -> None:
        count = len(self.rows)
        if not roots or not all(0 <= r < count for r in roots):
            raise node.fail(f"roots {roots[:8]} of {count} nodes")
        for row, (feature, mode, _, _, yes, no) in enumerate(self.rows):
            if mode < 6 and not (0 <= feature < columns and 0 <= yes < count and 0 <= no < count):
                raise node.fail(f"tree node {row} reads column {feature} of {columns} and leads to {yes} and {no} of {count}")
        done, open_ = set(), set()
        for root in roots:
            stack = [(root, False)]
            while stack:
                row, leave = stack.pop()
                if leave:
                    open_.discard(row)
                    done.add(row)
                elif row in open_:
                    raise node.fail(f"tree node {row} leads back to itself")
                elif row not in done:
                    open_.add(row)
                    stack.append((row, True))
                    if self.rows[row][1] < 6:
                        stack += [(self.rows[row][4], False), (self.rows[row][5], False)]


def _aggregated(node: OnnxNode, leaf: Value, table: np.ndarray, present: np.ndarray, how: str, x: Value) -> Value:
    """[rows, trees] leaves to [rows, targets]: what they are worth, over all trees."""
    limits = np.finfo(x.dtype.numpy)
    absent = {"MIN": limits.max, "MAX": limits.min}.get(how, 0.0)
    worth = node.add("gather", node.constant(np.where(present, table, absent), x), leaf, axis=0)
    target = {"SUM": "reduce_sum", "AVERAGE": "reduce_mean", "MIN": "reduce_min", "MAX": "reduce_max"}[how]
    return node.add(target, worth, axes=(1,), keepdims=False)


@onnx_op("TreeEnsembleRegressor", domain=ML)
def tree_ensemble_regressor(node: OnnxNode) -> Value:
    x = as_float(node, node.input(0))
    forest, roots, names = classic_forest(node)
    targets = node.attr("n_targets", 1)
    leaf = forest.leaves(node, x, roots)
    table, present = np.zeros((len(forest.rows), targets)), np.zeros((len(forest.rows), targets), bool)
    columns = [node.attr(f"target_{k}") for k in ("treeids", "nodeids", "ids", "weights")]
    for tree, at, target, weight in zip(*columns, strict=True):
        if (tree, at) not in names or not 0 <= target < targets:
            raise node.fail(f"a weight of target {target} at node {at} of tree {tree}, which does not exist")
        table[names[tree, at], target] += weight
        present[names[tree, at], target] = True
    y = _aggregated(node, leaf, table, present, node.attr("aggregate_function", "SUM"), x)
    if (base := floats(node, "base_values")) is not None:
        y = node.add("add", y, node.constant(base))
    return transformed(node, y, node.attr("post_transform", "NONE"))


def classic_forest(node: OnnxNode) -> tuple[Forest, list[int], dict[tuple[int, int], int]]:
    """The trees of the older operators: nodes named by tree and number, the first of each tree its root."""
    trees, ids = node.attr("nodes_treeids"), node.attr("nodes_nodeids")
    count = len(ids)
    columns: dict[str, Any] = {}
    for name, default in (
        ("featureids", ...), ("modes", ...), ("values", ...), ("truenodeids", ...), ("falsenodeids", ...),
        ("missing_value_tracks_true", (0,) * count),
    ):  # fmt: skip
        columns[name] = node.attr(f"nodes_{name}", default) or (0,) * count
        if len(columns[name]) != count:
            raise node.fail(f"nodes_{name} has {len(columns[name])} entries for {count} nodes")
    forest = Forest()
    names: dict[tuple[int, int], int] = {}
    roots: dict[int, int] = {}
    for row, key in enumerate(zip(trees, ids, strict=True)):
        mode = _MODES.get(columns["modes"][row])
        if mode is None or key in names:
            raise node.fail(f"tree node {key}: mode {columns['modes'][row]!r}, or it comes twice")
        value, missing = columns["values"][row], columns["missing_value_tracks_true"][row]
        names[key] = forest.add(columns["featureids"][row], mode, value, missing)
        roots.setdefault(key[0], names[key])
    for row, tree in enumerate(trees):
        if forest.rows[row][1] < 6:
            ends = [names.get((tree, columns[side][row]), -1) for side in ("truenodeids", "falsenodeids")]
            forest.connect(row, *ends)
    return forest, list(roots.values()), names


@onnx_op("TreeEnsemble", domain=ML, since=5)
def tree_ensemble(node: OnnxNode) -> Value:
    x = node.input(0)
    modes, features, splits = (node.attr(f"nodes_{k}") for k in ("modes", "featureids", "splits"))
    count = len(features)
    missing = node.attr("nodes_missing_value_tracks_true", None) or (0,) * count
    members = iter(_sets(node))
    weights, targets, n_targets = node.attr("leaf_weights"), node.attr("leaf_targetids"), node.attr("n_targets")
    forest = Forest()
    leaves = [forest.leaf() for _ in targets]
    heads: list[int] = []
    chains: list[list[int]] = []
    for row in range(count):
        values = next(members) if modes[row] == _MEMBER else [float(splits[row])]
        mode = _MODES["BRANCH_EQ"] if modes[row] == _MEMBER else int(modes[row])
        chains.append([forest.add(features[row], mode, v, missing[row]) for v in values])
        heads.append(chains[-1][0])
    for row, chain in enumerate(chains):
        ends = []
        for side in ("true", "false"):
            place, table = node.attr(f"nodes_{side}nodeids")[row], leaves if node.attr(f"nodes_{side}leafs")[row] else heads
            ends.append(table[place] if 0 <= place < len(table) else -1)
        for here, following in zip(chain, [*chain[1:], ends[1]], strict=True):
            forest.connect(here, ends[0], following)  # equal to one member, or try the next
    worth, present = np.zeros((len(forest.rows), n_targets)), np.zeros((len(forest.rows), n_targets), bool)
    for place, row in enumerate(leaves):
        if not 0 <= targets[place] < n_targets:
            raise node.fail(f"leaf {place} is for target {targets[place]} of {n_targets}")
        worth[row, targets[place]], present[row, targets[place]] = weights[place], True
    roots = [heads[r] if 0 <= r < count else -1 for r in node.attr("tree_roots")]
    how = ("AVERAGE", "SUM", "MIN", "MAX")[node.attr("aggregate_function", 1)]
    y = _aggregated(node, forest.leaves(node, x, roots), worth, present, how, x)
    post = node.attr("post_transform", 0)
    names = {0: "NONE", 1: "SOFTMAX", 2: "LOGISTIC", 3: "SOFTMAX_ZERO"}
    if post not in names:
        raise node.unsupported(f"post_transform={post}")
    return transformed(node, y, names[post])


def _sets(node: OnnxNode) -> list[list[float]]:
    """The sets of the nodes that ask for membership: numbers up to a NaN each."""
    found: list[list[float]] = [[]]
    for value in node.attr("membership_values", np.zeros(0)):
        if np.isnan(value):
            found.append([])
        else:
            found[-1].append(float(value))
    return [members or [float("nan")] for members in found[:-1]]
