"""From a compute DAG to the naive loop nest: every stage a nest of loops around one block.

    y = te.compute((M, N), lambda i, j: te.sum(x[i, k] * w[j, k], axis=k), name="y")
->  for i in M: for j in N: for k in K:
        block y(vi, vj, vk reduce): init y[vi, vj] = 0
            y[vi, vj] = y[vi, vj] + x[vi, vk] * w[vj, vk]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tensorlang.errors import InternalError, TypeCheckError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, fail, load, user_location, var, wrap
from tensorlang.ir.reduction import COMBINE, REDUCER, builtin_reducer, store_all
from tensorlang.ir.stmt import Allocate, Block, For, Iter, PrimFunc, Stmt, Store, seq
from tensorlang.ir.visitor import own_exprs, replace_buffers, substitute, walk, walk_stmt
from tensorlang.symbolic.simplify import simplify
from tensorlang.te.extern import ExternOp
from tensorlang.te.hybrid import HybridOp
from tensorlang.te.math import ReducerPart
from tensorlang.te.scan import ScanOp
from tensorlang.te.tensor import ComputeOp, Op, PlaceholderOp, Tensor, compute_stage, extent_of


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
    ops = list(dict.fromkeys(t.op for t in tensors if not isinstance(t.op, PlaceholderOp)))
    redirected = _initialised_in_place(ops, outputs)
    made = [t for op in ops for t in op.outputs if t not in redirected]
    inner = [t for op in ops if isinstance(op, ScanOp) for c in op.cell for t in c.outputs if t not in op.update]
    inner += [t for op in ops if isinstance(op, HybridOp) for t in op.scratch]
    buffers = _unique_buffers([*inputs, *made, *inner])
    for op in ops:
        if isinstance(op, ScanOp):
            aliases = [*zip(op.state, op.outputs, strict=True), *zip(op.update, op.outputs, strict=True)]
            buffers.update({alias: buffers[t] for alias, t in aliases})
    buffers.update({t: buffers[state] for t, state in redirected.items()})
    block_names = _unique_names(ops, buffers)
    hybrid_names = _names_of_hybrids(ops, buffers, block_names)
    body = seq(*(_nests(op, buffers, block_names, redirected, hybrid_names) for op in ops))
    body = replace_buffers(body, {t.buffer: b for t, b in buffers.items() if b is not t.buffer})
    for t in reversed(made):
        if t not in outputs:
            body = Allocate(buffers[t], body)
    sources = {block_names[op]: op.source for op in _computing(ops) if not isinstance(op, HybridOp)}
    for hybrid, made_of in hybrid_names.items():
        sources |= {name: source for name, (_, source) in zip(made_of, hybrid.blocks, strict=True)}
    sources |= {buffers[t].name: t.op.source for t in (*made, *inner) if len(t.op.outputs) > 1}
    attrs: dict[str, Any] = {"source": sources}
    if constants:
        names = {buffers[t].name for t in inputs}
        if unknown := [c for c in constants if c not in names]:
            raise TypeCheckError(f"{user_location()}: {name} has no input {unknown[0]!r}; it has {', '.join(names)}")
        attrs["constants"] = tuple(constants)
    params = [*(buffers[t] for t in inputs), *(buffers[t] for t in outputs)]
    return PrimFunc(name, (*params, *_size_vars(inputs, outputs, ops)), body, len(outputs), attrs)


def _initialised_in_place(ops: Sequence[Op], outputs: Sequence[Tensor]) -> dict[Tensor, Tensor]:
    """Initial rows of scans that nothing else reads are computed where the state is: tensor -> the scan's output."""
    readers: dict[Tensor, int] = dict.fromkeys(outputs, 1)
    for op in ops:
        for t in op.inputs:
            readers[t] = readers.get(t, 0) + 1
    found: dict[Tensor, Tensor] = {}
    for op in ops:
        if isinstance(op, ScanOp):
            for t, state in zip(op.init, op.outputs, strict=True):
                alone = readers[t] == 1 and op.init.count(t) == 1 and len(t.op.outputs) == 1
                if alone and isinstance(t.op, ComputeOp):
                    found[t] = state
    return found


def _computing(ops: Sequence[Op]) -> list[Op]:
    """The operations that have a block, those of scans' cells included."""
    return [c for op in ops for c in ((op, *op.cell) if isinstance(op, ScanOp) else (op,))]


def _unique_names(ops: Sequence[Op], buffers: Mapping[Tensor, Buffer]) -> dict[Op, str]:
    """A block's name for every operation: that of its only tensor's buffer, or else its own, with a suffix if taken."""
    taken = {b.name for b in buffers.values()}
    names: dict[Op, str] = {}
    for op in _computing(ops):
        buffer = buffers[op.output()]
        if len(op.outputs) == 1 and buffer.name not in names.values() and buffer.name.startswith(op.name):
            names[op] = buffer.name
            continue
        name, serial = op.name, 1
        while name in taken or name in names.values():
            name, serial = f"{op.name}_{serial}", serial + 1
        names[op] = name
    return names


def _names_of_hybrids(
    ops: Sequence[Op], buffers: Mapping[Tensor, Buffer], names: Mapping[Op, str]
) -> dict[HybridOp, list[str]]:
    """Names of the blocks of hybrid stages: each that of the tensor which it writes, and `_1`, `_2`, ... after the first."""
    taken = {names[op] for op in names if not isinstance(op, HybridOp)}
    found: dict[HybridOp, list[str]] = {}
    for op in ops:
        if not isinstance(op, HybridOp):
            continue
        own = {t.name: buffers[t].name for t in (*op.outputs, *op.scratch)}
        found[op] = []
        for tensor, _ in op.blocks:
            name, serial = own[tensor], 1
            while name in taken:
                name, serial = f"{own[tensor]}_{serial}", serial + 1
            taken.add(name)
            found[op].append(name)
    return found


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


def _nests(
    op: Op,
    buffers: Mapping[Tensor, Buffer],
    names: Mapping[Op, str],
    redirected: Mapping[Tensor, Tensor],
    hybrid_names: Mapping[HybridOp, Sequence[str]],
) -> Stmt | None:
    if isinstance(op, ComputeOp):
        return _nest(op, names[op])
    if isinstance(op, HybridOp):
        body = op.renamed(hybrid_names[op])
        for t in reversed(op.scratch):
            body = Allocate(t.buffer, body)
        return body
    if isinstance(op, ExternOp):
        return Block(names[op], (), op.body)
    if isinstance(op, ScanOp):
        return _scan_nests(op, buffers, names, redirected)
    raise InternalError(f"no loop nest for {type(op).__name__}")


def _scan_nests(
    op: ScanOp, buffers: Mapping[Tensor, Buffer], names: Mapping[Op, str], redirected: Mapping[Tensor, Tensor]
) -> Stmt:
    """The initial rows (copied, where other stages read them too), then the loop over time."""
    copies = []
    for n, (t, state) in enumerate(zip(op.init, op.outputs, strict=True)):
        if t not in redirected:
            copy = compute_stage(t.shape, lambda *i, source=t: source[i], name="init")
            nest = _nest(copy.op, names[op] if len(op.init) == 1 else f"{names[op]}_init{n}")
            copies.append(replace_buffers(nest, {copy.buffer: state.buffer}))
    time = var(op.scan_axis.name)
    begin = op.first[0]
    if any(first != begin for first in op.first):
        rows = ", ".join(map(str, op.first))
        fail(f"te.scan {op.name}: its states begin with {rows} rows; give all of them the same number")
    body = seq(*(_nest(c, names[c], time + begin) for c in op.cell))
    inner = [t for c in op.cell for t in c.outputs if t not in op.update]
    for t in reversed(inner):
        body = Allocate(buffers[t], body)
    extent = simplify(wrap(op.state[0].shape[0]) - begin)
    return seq(*copies, For(time, extent, "serial", body))


def _nest(op: ComputeOp, name: str, row: Expr | None = None) -> Stmt:
    """The loops of a stage around its block; in a scan's cell without that over the first axis, which is at `row`."""
    shape = op.output().shape
    axes: list[tuple[Expr, Expr, str]] = [(a, wrap(d), "spatial") for a, d in zip(op.axis, shape, strict=True)]
    axes += [(a, wrap(extent_of(a)), "reduce") for a in op.reduce_axis]
    loop_vars = [var(a.name) for a, _, _ in axes]
    own = {a: var(f"v{a.name}") for a, _, _ in axes}
    bindings = list(loop_vars) if row is None else [row, *loop_vars[1:]]
    iters = tuple(Iter(own[a], extent, kind, b) for (a, extent, kind), b in zip(axes, bindings, strict=True))
    index = tuple(own[a] for a in op.axis)
    buffers = [t.buffer for t in op.outputs]
    bodies = [substitute(e, own) for e in op.bodies]
    init: Stmt | None = None
    annotations: dict[str, Any] = {}
    if bodies[0].op == "reduce":
        kind = op.bodies[0].value[0]
        part = kind if isinstance(kind, ReducerPart) else ReducerPart(builtin_reducer(kind, buffers[0].dtype), 0)
        sources, inits = bodies[0].args[: part.width], bodies[0].args[part.width :]
        values = part.reducer.combine([load(b, index) for b in buffers], sources)
        init = store_all([Store(b, index, e) for b, e in zip(buffers, inits or part.reducer.identity, strict=True)])
        if part.reducer.name not in COMBINE or part.width > 1:
            annotations[REDUCER] = part.reducer.annotation()
    else:
        values = tuple(bodies)
    body = store_all([Store(b, index, e) for b, e in zip(buffers, values, strict=True)])
    nest: Stmt = Block(name, iters, body, init, annotations=annotations)
    loops = list(zip(loop_vars, (extent for _, extent, _ in axes), strict=True))
    for v, extent in reversed(loops if row is None else loops[1:]):
        nest = For(v, extent, "serial", nest)
    return nest


def _size_vars(inputs: Sequence[Tensor], outputs: Sequence[Tensor], ops: Sequence[Op]) -> list[Expr]:
    found: dict[Expr, None] = {}

    def collect(e: Expr, bound: frozenset[Expr] = frozenset()) -> None:
        for node in walk(e):
            if node.op == "var" and node not in bound:
                found.setdefault(node)

    computing = _computing(ops)
    for t in (*inputs, *outputs, *(t for op in computing for t in op.outputs)):
        for d in t.shape:
            collect(wrap(d))
    for op in computing:
        if isinstance(op, ExternOp | HybridOp):
            bound = {s.var for s in walk_stmt(op.body) if isinstance(s, For)}
            bound |= {it.var for s in walk_stmt(op.body) if isinstance(s, Block) for it in s.iters}
            for s in walk_stmt(op.body):
                for e in own_exprs(s):
                    collect(e, frozenset(bound))
        if isinstance(op, ComputeOp):
            for a in op.reduce_axis:
                collect(wrap(extent_of(a)))
            for body in op.bodies:
                collect(body, frozenset((*op.axis, *op.reduce_axis)))
    return list(found)
