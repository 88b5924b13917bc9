"""The table of simplification rules, by operator. `algebra` and `movement` fill it; every pass that makes nodes applies it."""

from __future__ import annotations

from collections.abc import Callable

from tensorlang.graph.ir import Node, Value
from tensorlang.graph.passes.fold_constants import fold
from tensorlang.graph.rewrite import Rewriter

RuleFunction = Callable[[Rewriter, Node], "Value | list[Value] | None"]
_RULES: dict[str, list[RuleFunction]] = {}


def rule(*ops: str) -> Callable[[RuleFunction], RuleFunction]:
    """Register a rule for nodes of these operators: an equal and simpler value (one per output), or None."""

    def register(function: RuleFunction) -> RuleFunction:
        for op in ops:
            _RULES.setdefault(op, []).append(function)
        return function

    return register


def simplify_node(rw: Rewriter, node: Node, limit: int = 1 << 22) -> Value | list[Value] | None:
    """A simpler equal of `node`, or None. Passes that create nodes give this to their rewriter.

    Args:
        limit: bytes above which constants are not folded (`Options.fold_limit`).
    """
    folded = fold(rw, node, limit)
    if folded is not None:
        return folded
    for function in _RULES.get(node.op, ()):
        result = function(rw, node)
        if result is not None and result is not node.output:
            return result
    return None
