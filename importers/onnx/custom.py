"""Users' own operators: a `@te.compute` function for the nodes of a custom domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorlang import te
from tensorlang.errors import InputError
from tensorlang.graph import Value, register_operator

from .node import OnnxNode
from .registry import canonical_domain, onnx_op


def register(
    domain: str, name: str, operator: te.Operator, reference: Callable[..., Any] | None = None, since: int = 1
) -> None:
    """Import nodes `domain::name` as `operator`: inputs to its tensors in order, attributes to its compile-time constants.

    Args:
        reference: what it computes, in NumPy, on arrays with the constants by name.
        since: the version of the domain from which on this holds.

    Raises:
        InputError: `operator` is not a `te.Operator`, or the name is empty or belongs to ONNX itself.
    """
    if not isinstance(operator, te.Operator):
        raise InputError(f"{operator!r} is not a tensorlang operator: decorate the function with @te.compute")
    if not name or canonical_domain(domain) == "":
        raise InputError(f"a custom operator needs a domain of its own and a name, not {domain!r} and {name!r}")
    target = f"{domain}.{name}" if since == 1 else f"{domain}.{name}.{since}"
    register_operator(target, operator, reference)

    @onnx_op(name, since=since, domain=domain)
    def rule(node: OnnxNode) -> Value | tuple[Value, ...]:
        constants = node.attributes()
        if unknown := sorted(set(constants) - set(operator.constants)):
            known = ", ".join(operator.constants) or "none"
            raise node.fail(f"attribute {unknown[0]!r} is no compile-time constant of {operator.name} (it has: {known})")
        try:
            return node.add_all(target, *node.all_inputs(), **constants)
        except InputError as error:
            raise node.fail(str(error)) from error
