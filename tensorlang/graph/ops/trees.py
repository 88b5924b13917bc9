"""Decision trees: where each sample ends in each tree. What its leaves are worth is gathered and summed by other operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import require
from tensorlang.graph.ops.serial import SerialOp
from tensorlang.graph.registry import OPAQUE, op
from tensorlang.ir.expr import Expr

LEAF = 6  # what is no comparison: 0 <=, 1 <, 2 >=, 3 >, 4 ==, 5 !=
_COMPARISONS = (np.less_equal, np.less, np.greater_equal, np.greater, np.equal, np.not_equal)


@op("tree_leaves", OPAQUE)
class TreeLeaves(SerialOp):
    """x[rows, columns] -> leaf i64[rows, trees]: the node at which row i ends in tree t, from roots[t] on.

    Per node: feature (a column), mode (see `LEAF`), value (of the type of x), missing (1: NaN goes where the comparison
    holds), yes and no (the next node). The nodes are acyclic and their features are columns: the importer has checked.
    """

    parameters = ("x", "feature", "mode", "value", "missing", "yes", "no", "roots", "leaf")
    body = """
for i in range(rows):
    for t in range(trees):
        n = roots[t]
        while mode[n] < 6:
            v = x[i * columns + feature[n]]
            s = value[n]
            m = mode[n]
            hit = missing[n] != 0
            if v == v:
                if m == 0:
                    hit = v <= s
                elif m == 1:
                    hit = v < s
                elif m == 2:
                    hit = v >= s
                elif m == 3:
                    hit = v > s
                elif m == 4:
                    hit = v == s
                else:
                    hit = v != s
            if hit:
                n = yes[n]
            else:
                n = no[n]
        leaf[i * trees + t] = n
""".strip()

    def infer(self, x: TensorType, *tables: TensorType, **attrs: Any) -> list[TensorType]:
        require(len(tables) == 7 and x.ndim == 2 and tables[2].dtype == x.dtype, f"tree_leaves of {x}")
        require(all(t.dtype == TensorType.of("i64", ()).dtype for n, t in enumerate(tables) if n != 2), "tree_leaves: tables")
        return [TensorType.of("i64", (x.shape[0], tables[-1].shape[0]))]

    def sizes(self, x: TensorType, *tables: TensorType, **attrs: Any) -> dict[str, Expr]:
        return {"rows": x.shape[0], "columns": x.shape[1], "trees": tables[-1].shape[0]}

    def numpy(self, x: np.ndarray, *tables: np.ndarray, **attrs: Any) -> np.ndarray:
        feature, mode, value, missing, yes, no, roots = tables
        node = np.broadcast_to(roots, (len(x), len(roots))).copy()
        while (mode[node] < LEAF).any():
            v = np.take_along_axis(x, feature[node], axis=1)
            hit = np.where(np.isnan(v), missing[node] != 0, False)
            for number, comparison in enumerate(_COMPARISONS):
                hit = np.where((mode[node] == number) & ~np.isnan(v), comparison(v, value[node]), hit)
            node = np.where(mode[node] < LEAF, np.where(hit, yes[node], no[node]), node)
        return node
