"""The description of a program that the runtime reads (see `runtime.executable`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensorlang.build import LoweredKernel
from tensorlang.errors import ModelError
from tensorlang.graph.ir import Graph, Node, TensorType
from tensorlang.graph.program.emit import MAIN_SIGNATURE
from tensorlang.graph.program.tree import Step
from tensorlang.ir.expr import Expr, wrap
from tensorlang.runtime.sizes import OPERATIONS, Size


def describe_program(
    graph: Graph,
    names: dict[Expr, str],
    told: Sequence[str],
    kernels: Mapping[str, LoweredKernel],
    steps: Sequence[Step],
    arena: Expr,
    weights_bytes: int,
    constraints: Sequence[tuple[Expr, Expr, Node]],
    checks: Sequence[str],
    variables: Mapping[Expr, str],
) -> dict[str, Any]:
    """The manifest.

    Args:
        names: every dimension's name, those that the program tells included.
        told: the latter.
        checks: what the statuses 1, 2, ... of `main` mean.
        variables: the names of sizes in the text of `main`.
    """
    signatures = {n: [t for t, _ in k.emitted.params] for n, k in kernels.items()}
    signatures["main"] = [part.split()[0] for part in MAIN_SIGNATURE.split(", ")]
    output_names = graph.output_names or [v.name for v in graph.outputs]
    return {
        "model": graph.name,
        "dims": [n for n in names.values() if n not in told],
        "told": list(told),
        "inputs": [_describe(v.name, v.type, names) for v in graph.inputs],
        "outputs": [_describe(n, v.type, names) for n, v in zip(output_names, graph.outputs, strict=True)],
        "constraints": [[to_size(a, names), to_size(b, names), node.name or node.op] for a, b, node in constraints],
        "checks": list(checks),
        "arena_bytes": to_size(arena, names),
        "weights_bytes": weights_bytes,
        "signatures": signatures,
        "steps": [_describe_step(s, names) for s in steps] if _is_flat(graph) else [],
        "calls": [] if _is_flat(graph) else [_describe_call(s, variables) for s in steps],
    }


def _is_flat(graph: Graph) -> bool:
    """Whether every call happens once, with arguments that are known beforehand."""
    return not any(n.op in ("if", "loop", "bind_size", "require") for n in graph.nodes)


def _describe_call(s: Step, variables: Mapping[Expr, str]) -> dict[str, Any]:
    """A call that control flow decides on, with sizes by the variables of `main`."""

    def size(e: Expr) -> Size:
        try:
            return to_size(e, variables)
        except ModelError:
            return 0  # computed by what sizes have no word for: not told

    return {"kernel": s.kernel, "label": s.label, "flops": size(s.flops), "bytes": size(s.nbytes)}


def _describe_step(s: Step, names: dict[Expr, str]) -> dict[str, Any]:
    return {
        "kernel": s.kernel,
        "label": s.label,
        "args": [[a.place, to_size(a.value, names)] for a in s.args],
        "flops": to_size(s.flops, names),
        "bytes": to_size(s.nbytes, names),
    }


def _describe(name: str, type: TensorType, names: dict[Expr, str]) -> dict[str, Any]:
    return {"name": name, "dtype": type.dtype.numpy.name, "shape": [to_size(d, names) for d in type.shape]}


def to_size(e: Expr, names: Mapping[Expr, str]) -> Size:
    """An integer expression as the data that the runtime evaluates.

    Raises:
        ModelError: it mentions something that the inputs' shapes do not determine.
    """
    e = wrap(e)
    if e.op == "const":
        return int(e.value)
    if e.op == "var":
        if e not in names:
            raise ModelError(f"size {e} is not determined by the shapes of the model's inputs")
        return names[e]
    if e.op == "cast" and e.dtype.is_int:
        return to_size(e.args[0], names)
    if e.op not in OPERATIONS:
        raise ModelError(f"the size {e} cannot be computed before the model runs")
    return [e.op, *(to_size(a, names) for a in e.args)]
