"""From a compute DAG to the naive loop nest: every stage a nest of loops around one block.

    y = te.compute((M, N), lambda i, j: te.sum(x[i, k] * w[j, k], axis=k), name="y")
->  for i in M: for j in N: for k in K:
        block y(vi, vj, vk reduce): init y[vi, vj] = 0
            y[vi, vj] = y[vi, vj] + x[vi, vk] * w[vj, vk]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tensorlang.errors import TypeCheckError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, load, user_location, var, wrap
from tensorlang.ir.reduction import COMBINE
from tensorlang.ir.stmt import Allocate, Block, For, Iter, PrimFunc, Stmt, Store, seq
from tensorlang.ir.visitor import replace_buffers, substitute, walk
from tensorlang.te.math import identity_of
from tensorlang.te.tensor import ComputeOp, PlaceholderOp, Tensor, compute_stage, extent_of


def stages_of(outputs: Iterable[Tensor]) -> list[Tensor]:
    """Every tensor that `outputs` depend on, and they themselves, producers first."""
    order: dict[Tensor, None] = {}
    stack = [(t, False) for t in reversed(list(outputs))]
    while stack:
        tensor, done = stack.pop()
        if done:
            order.setdefault(tensor)
        elif tensor not in order:
            stack.append((tensor, True))
            stack.extend((t, False) for t in reversed(tensor.op.inputs))
    return list(order)


def placeholders_of(outputs: Iterable[Tensor]) -> list[Tensor]:
    """The inputs that `outputs` depend on, in order of creation."""
    found = [t for t in stages_of(outputs) if isinstance(t.op, PlaceholderOp)]
    return sorted(found, key=lambda t: t.op.serial)


def create_prim_func(
    name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], constants: Sequence[str] = ()
) -> PrimFunc:
    """The naive loop nest of `outputs` as a function of `inputs`.

    Parameters are the inputs, the outputs, then the i64 variables that occur in shapes or elements, in order of first
    occurrence; other stages are allocated inside. Where two tensors share a name, the later one gets a suffix.

    Args:
        constants: names of inputs whose values are known at build time (weights).

    Raises:
        TypeCheckError: `outputs` depend on a placeholder that is not among `inputs`.
    """
    outputs = _materialised(inputs, outputs)
    tensors = stages_of(outputs)
    for t in tensors:
        if isinstance(t.op, PlaceholderOp) and t not in inputs:
            raise TypeCheckError(f"{user_location()}: {name} reads {t.name}, which is not among its inputs")
    stages = [t for t in tensors if isinstance(t.op, ComputeOp)]
    buffers = _unique_buffers([*inputs, *stages])
    body = seq(*(_nest(t, buffers[t]) for t in stages))
    renamed: dict[Buffer, Buffer] = {t.buffer: b for t, b in buffers.items() if b is not t.buffer}
    body = replace_buffers(body, renamed)
    for t in reversed(stages):
        if t not in outputs:
            body = Allocate(buffers[t], body)
    attrs: dict[str, Any] = {"source": {buffers[t].name: t.op.source for t in stages}}
    if constants:
        names = {buffers[t].name for t in inputs}
        if unknown := [c for c in constants if c not in names]:
            raise TypeCheckError(f"{user_location()}: {name} has no input {unknown[0]!r}; it has {', '.join(names)}")
        attrs["constants"] = tuple(constants)
    params = [*(buffers[t] for t in inputs), *(buffers[t] for t in outputs)]
    return PrimFunc(name, (*params, *_size_vars(inputs, outputs, stages)), body, len(outputs), attrs)


def _materialised(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[Tensor]:
    """`outputs`, with a copy in place of each that is an input or appears twice: each parameter is written once."""
    result: list[Tensor] = []
    for t in outputs:
        if isinstance(t.op, PlaceholderOp) or t in result:
            t = compute_stage(t.shape, lambda *i, source=t: source[i], name=f"{t.name}_copy")
        result.append(t)
    return result


def _unique_buffers(tensors: Sequence[Tensor]) -> dict[Tensor, Buffer]:
    taken: set[str] = set()
    found: dict[Tensor, Buffer] = {}
    for t in tensors:
        name, serial = t.name, 1
        while name in taken:
            name, serial = f"{t.name}_{serial}", serial + 1
        taken.add(name)
        found[t] = t.buffer if name == t.name else t.buffer.with_(name=name)
    return found


def _nest(tensor: Tensor, buffer: Buffer) -> Stmt:
    op = tensor.op
    assert isinstance(op, ComputeOp)
    axes: list[tuple[Expr, Expr, str]] = [(a, wrap(d), "spatial") for a, d in zip(op.axis, tensor.shape, strict=True)]
    axes += [(a, wrap(extent_of(a)), "reduce") for a in op.reduce_axis]
    loop_vars = [var(a.name) for a, _, _ in axes]
    own = {a: var(f"v{a.name}") for a, _, _ in axes}
    iters = tuple(Iter(own[a], extent, kind, v) for (a, extent, kind), v in zip(axes, loop_vars, strict=True))
    index = tuple(own[a] for a in op.axis)
    init: Stmt | None = None
    if op.body.op == "reduce":
        kind = op.body.value[0]
        source = substitute(op.body.args[0], own)
        value = COMBINE[kind](load(tensor.buffer, index), source)
        init = Store(tensor.buffer, index, identity_of(kind, tensor.dtype))
    else:
        value = substitute(op.body, own)
    nest: Stmt = Block(buffer.name, iters, Store(tensor.buffer, index, value), init)
    for v, (_, extent, _) in zip(reversed(loop_vars), reversed(axes), strict=True):
        nest = For(v, extent, "serial", nest)
    return nest


def _size_vars(inputs: Sequence[Tensor], outputs: Sequence[Tensor], stages: Sequence[Tensor]) -> list[Expr]:
    found: dict[Expr, None] = {}

    def collect(e: Expr, bound: frozenset[Expr] = frozenset()) -> None:
        for node in walk(e):
            if node.op == "var" and node not in bound:
                found.setdefault(node)

    for t in (*inputs, *outputs, *stages):
        for d in t.shape:
            collect(wrap(d))
    for t in stages:
        assert isinstance(t.op, ComputeOp)
        for a in t.op.reduce_axis:
            collect(wrap(extent_of(a)))
        collect(t.op.body, frozenset((*t.op.axis, *t.op.reduce_axis)))
    return list(found)
