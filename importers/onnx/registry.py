"""Which function imports which ONNX operator, by domain and opset version."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .node import Item, OnnxNode

Rule = Callable[["OnnxNode"], "Item | tuple[Item, ...]"]

_RULES: dict[tuple[str, str], list[tuple[int, Rule]]] = {}


def onnx_op(name: str, since: int = 1, domain: str = "") -> Callable[[Rule], Rule]:
    """Register the importer of operator `name` from opset `since` on, until a later registration takes over."""

    def register(rule: Rule) -> Rule:
        versions = _RULES.setdefault((canonical_domain(domain), name), [])
        versions[:] = sorted([v for v in versions if v[0] != since] + [(since, rule)], key=lambda v: v[0])
        return rule

    return register


def find_rule(domain: str, name: str, version: int) -> Rule | None:
    """The importer of an operator at an opset version of its domain, if there is one."""
    found = None
    for since, rule in _RULES.get((canonical_domain(domain), name), ()):
        if since <= version:
            found = rule
    return found


def domains() -> set[str]:
    """The domains that some operator is registered for."""
    return {domain for domain, _ in _RULES}


def canonical_domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
