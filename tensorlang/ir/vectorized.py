"""Whole nests at once on NumPy: one array operation per IR operation, over the nest's whole iteration domain.

    for no in 12: for k in 768: for ni in 64: with p(...): packed[no, k, ni] = w[no*64 + ni, k]
->  packed[...] = as_strided(w, (12, 768, 64), ...)

Each loop is one axis; loop variables are index arrays along their axis and stay broadcastable, so that an access to
`w[no*64 + ni, k]` never makes index arrays of the domain's size, and an affine access makes none at all. A `select` reads
both arms with indices clipped where its condition does not hold. Means the same as `interp`, but for the order in which a
reduction is summed. Used to pack weights when a model is built, and as a quick oracle in tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from tensorlang.errors import InternalError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.interp import ExecutionError
from tensorlang.ir.reduction import Reduction, reduction_of
from tensorlang.ir.semantics import BINARY_NUMPY, REDUCE_NUMPY, call_numpy, cast_numpy, identity_of, poison
from tensorlang.ir.stmt import Allocate, Block, For, If, PrimFunc, Seq, Stmt, Store
from tensorlang.ir.visitor import free_vars, loads

CHUNK = 1 << 24  # points of a domain evaluated at once: bounds the memory of intermediate arrays

Group = dict[Expr, np.ndarray]  # the variables that run along one axis: their values, all of one length


def evaluate_block_nest(
    program: PrimFunc | Stmt, buffers: Mapping[Buffer, np.ndarray], sizes: Mapping[Expr, int] | None = None
) -> None:
    """Execute `program`, whose nests are loops around single-store blocks, in place on `buffers`.

    Args:
        buffers: an array for each buffer that the program uses and does not allocate, of the buffer's dtype and shape.
        sizes: values of the program's free variables.

    Raises:
        InternalError: the program is of another form (run it with `interp`).
        ExecutionError: an access is out of bounds.
    """
    body = program.body if isinstance(program, PrimFunc) else program
    env = {v: v.dtype.numpy.type(n) for v, n in (sizes or {}).items()}
    with np.errstate(all="ignore"):
        _Evaluator(dict(buffers)).run(body, env)


class _Evaluator:
    def __init__(self, arrays: dict[Buffer, np.ndarray]):
        self.arrays = arrays

    # -- statements ------------------------------------------------------------------------------------------------
    def run(self, s: Stmt, env: dict[Expr, Any]) -> None:
        """`s` under the scalar values `env`."""
        if isinstance(s, Seq):
            for c in s.stmts:
                self.run(c, env)
        elif isinstance(s, Allocate):
            shape = tuple(self.scalar(d, env) for d in s.buffer.shape)
            self.arrays[s.buffer] = np.full(shape, poison(s.buffer.dtype), s.buffer.dtype.numpy)
            self.run(s.body, env)
            del self.arrays[s.buffer]
        elif isinstance(s, If):
            chosen = s.then if self.scalar(s.cond, env) else s.else_
            if chosen is not None:
                self.run(chosen, env)
        elif isinstance(s, For | Block):
            self.nest(s, env)
        else:
            raise InternalError(f"a {type(s).__name__} outside of blocks cannot be evaluated as arrays; use interp.run:\n{s}")

    def nest(self, s: For | Block, env: dict[Expr, Any]) -> None:
        chain: list[For] = []
        inner: Stmt = s
        while isinstance(inner, For):
            chain.append(inner)
            inner = inner.body
        variables = {f.var for f in chain}
        if isinstance(inner, Block) and not any(free_vars(f.extent) & variables for f in chain):
            groups = [{f.var: np.arange(self.scalar(f.extent, env), dtype=f.var.dtype.numpy)} for f in chain]
            self.block(inner, groups, env)
        elif isinstance(s, For):
            for value in range(self.scalar(s.extent, env)):
                self.run(s.body, {**env, s.var: s.var.dtype.numpy.type(value)})

    def scalar(self, e: Expr, env: dict[Expr, Any]) -> int:
        return int(_Grid(self.arrays, [], env).value(e))

    # -- blocks ----------------------------------------------------------------------------------------------------
    def block(self, block: Block, groups: list[Group], env: dict[Expr, Any]) -> None:
        if not isinstance(block.body, Store) or not (block.init is None or isinstance(block.init, Store)):
            raise InternalError(f"block {block.name!r} is not a single store; use interp.run")
        reduce_loops = {v for it in block.iters if it.kind == "reduce" for v in free_vars(it.binding)}
        spatial_loops = {v for it in block.iters if it.kind == "spatial" for v in free_vars(it.binding)}
        mixed = {v for g in groups for v in g} & reduce_loops & spatial_loops
        if mixed:
            raise InternalError(f"block {block.name!r}: loop {mixed.pop().name} is both spatial and reduce; use interp.run")
        reduction = reduction_of(block)
        source = reduction.source if reduction is not None else block.body.value
        own = [e for e in loads(source) if e.value is block.body.buffer]
        if any(e.args != block.body.indices for e in own) or (own and reduction is not None):
            raise InternalError(f"block {block.name!r} reads what it writes; use interp.run")
        accumulates = block.init is not None or any(it.kind == "reduce" for it in block.iters)
        if accumulates and (reduction is None or reduction.kind not in REDUCE_NUMPY):
            raise InternalError(f"block {block.name!r} is no sum, prod, max, min, any or all; use interp.run")

        masks: list[Expr] = []
        for condition in _conjuncts(block.predicate):
            used = [g for g in groups if not free_vars(condition).isdisjoint(g)]
            if any(not reduce_loops.isdisjoint(g) for g in used):
                masks.append(condition)
                continue
            groups = [g for g in groups if not any(g is u for u in used)] + [self.where(condition, used, env)]
        if any(not len(next(iter(g.values()))) for g in groups if g):
            self.initialise(block, [g for g in groups if reduce_loops.isdisjoint(g)], env)
            return
        spatial = [g for g in groups if reduce_loops.isdisjoint(g)]
        reduced = [g for g in groups if not reduce_loops.isdisjoint(g)]
        if reduction is not None:
            self.initialise(block, spatial, env)
        for part in _chunks([*spatial, *reduced]):
            self.points(block, part, len(spatial), masks, reduction, env)

    def initialise(self, block: Block, spatial: list[Group], env: dict[Expr, Any]) -> None:
        if not isinstance(block.init, Store) or any(not len(a) for g in spatial for a in g.values()):
            return
        for part in _chunks(spatial):
            grid = _Grid(self.arrays, part, env)
            grid.bind({it.var: it.binding for it in block.iters if it.kind == "spatial"})
            grid.store(block.init, grid.value(block.init.value))

    def points(
        self,
        block: Block,
        groups: list[Group],
        num_spatial: int,
        masks: list[Expr],
        reduction: Reduction | None,
        env: dict[Expr, Any],
    ) -> None:
        """The block at every point of the product of `groups`, the first `num_spatial` of which are not reduced."""
        grid = _Grid(self.arrays, groups, env)
        for condition in masks:
            grid.restrict(grid.value(condition))
        grid.bind({it.var: it.binding for it in block.iters})
        store = block.body
        assert isinstance(store, Store)
        if reduction is None:
            grid.store(store, grid.value(store.value))
            return
        ufunc = REDUCE_NUMPY[reduction.kind]
        value = grid.value(reduction.source)
        if grid.guard is not None:
            value = np.where(grid.guard, value, identity_of(reduction.kind, store.buffer.dtype))
        axes = tuple(range(num_spatial, len(groups)))
        value = np.asarray(value)
        shape = np.broadcast_shapes(value.shape, tuple(1 if a < num_spatial else n for a, n in enumerate(grid.shape)))
        total = ufunc.reduce(np.broadcast_to(value, shape), axis=axes, keepdims=True, dtype=value.dtype)
        grid.guard = None
        grid.store(store, ufunc(grid.load(store.buffer, store.indices), total))

    def where(self, condition: Expr, groups: list[Group], env: dict[Expr, Any]) -> Group:
        """The points of `groups` where `condition` holds, as one group."""
        grid = _Grid(self.arrays, groups, env)
        holds = np.nonzero(np.broadcast_to(grid.value(condition), grid.shape))
        if not groups:  # a condition of sizes alone: an axis without variables, of one point or none
            return {} if bool(grid.value(condition)) else {condition: np.zeros(0, np.int64)}
        return {v: values[at] for g, at in zip(groups, holds, strict=True) for v, values in g.items()}


def _conjuncts(predicate: Expr) -> Iterable[Expr]:
    if predicate.op == "and":
        for p in predicate.args:
            yield from _conjuncts(p)
    elif predicate.op != "const" or not predicate.value:
        yield predicate


def _length(group: Group) -> int:
    return len(next(iter(group.values()))) if group else 1


def _chunks(groups: list[Group]) -> Iterable[list[Group]]:
    """`groups` in parts of at most `CHUNK` points (or one point of the longest axis)."""
    total = 1
    for g in groups:
        total *= _length(g)
    longest = max(range(len(groups)), key=lambda n: _length(groups[n]), default=-1)
    if total <= CHUNK or longest < 0 or _length(groups[longest]) == 1:
        yield groups
        return
    length = _length(groups[longest])
    edges = np.linspace(0, length, min(length, -(-total // CHUNK)) + 1).astype(int)
    for begin, end in pairwise(edges):
        part = {v: values[begin:end] for v, values in groups[longest].items()}
        yield from _chunks([*groups[:longest], part, *groups[longest + 1 :]])


class _Grid:
    """Values over the product of some groups; group n runs along axis n."""

    def __init__(self, arrays: Mapping[Buffer, np.ndarray], groups: list[Group], env: dict[Expr, Any]):
        self.arrays = arrays
        self.shape = tuple(_length(g) for g in groups)
        self.scopes: list[dict[Expr, Any]] = [dict(env)]
        self.guard: Any = None  # where values are wanted; None: everywhere
        for axis, group in enumerate(groups):
            along = tuple(-1 if a == axis else 1 for a in range(len(groups)))
            for v, values in group.items():
                self.scopes[0][v] = values.reshape(along)

    def bind(self, values: Mapping[Expr, Expr]) -> None:
        self.scopes[0].update({v: self.value(e) for v, e in values.items()})

    def restrict(self, condition: Any) -> None:
        self.guard = condition if self.guard is None else self.guard & condition

    # -- expressions -----------------------------------------------------------------------------------------------
    def known(self, e: Expr) -> Any:
        for scope in reversed(self.scopes):
            if e in scope:
                return scope[e]
        if e.op == "const":
            return e.dtype.numpy.type(e.value)
        if e.op == "var":
            raise InternalError(f"variable {e.name} has no value: give it in sizes")
        return None

    def value(self, e: Expr) -> Any:
        stack = [(e, False)]
        while stack:
            node, operands_done = stack.pop()
            if self.known(node) is not None:
                continue
            if operands_done:
                self.scopes[-1][node] = self.operation(node)
                continue
            stack.append((node, True))
            operands = node.args[:1] if node.op == "select" else node.args  # the arms are evaluated under a guard
            stack.extend((a, False) for a in reversed(operands))
        return self.known(e)

    def operation(self, e: Expr) -> Any:
        if e.dtype.lanes > 1:
            raise InternalError(f"vectors cannot be evaluated as arrays; use interp.run: {e}")
        if e.op == "select":
            return self.select(e)
        if e.op == "load":
            return self.load(e.value, e.args)
        args = tuple(self.known(a) for a in e.args)
        if e.op in ("floordiv", "floormod") and e.dtype.is_int and self.somewhere(args[1] == 0):
            raise ExecutionError(f"integer division by zero: {e}")
        if e.op in BINARY_NUMPY:
            return BINARY_NUMPY[e.op](*args)
        if e.op == "neg":
            return np.negative(args[0])
        if e.op == "not":
            return np.logical_not(args[0])
        if e.op == "cast":
            return cast_numpy(args[0], e.dtype)
        if e.op == "call":
            return call_numpy(e.value, e.dtype, args)
        raise InternalError(f"no array meaning for {e.op} in {e}")

    def somewhere(self, condition: Any) -> bool:
        """Whether `condition` holds at a point that is wanted."""
        if not np.any(condition):
            return False
        return self.guard is None or bool(np.any(condition & self.guard))

    def select(self, e: Expr) -> Any:
        cond = self.known(e.args[0])
        if np.all(cond) or not np.any(cond):
            return self.under(None, e.args[1 if np.all(cond) else 2])
        return np.where(cond, self.under(cond, e.args[1]), self.under(np.logical_not(cond), e.args[2]))

    def under(self, condition: Any, e: Expr) -> Any:
        """`e` wanted only where `condition` holds as well."""
        outer = self.guard
        if condition is not None:
            self.restrict(condition)
        self.scopes.append({})
        value = self.value(e)
        self.scopes.pop()
        self.guard = outer
        return value

    # -- accesses --------------------------------------------------------------------------------------------------
    def load(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Any:
        array, at = self.access("read", buffer, indices)
        view = self.strided(array, at)
        return array[tuple(at)] if view is None else view

    def store(self, s: Store, value: Any) -> None:
        array, at = self.access("write", s.buffer, s.indices)
        shape = np.broadcast_shapes(np.shape(value), *(np.shape(i) for i in at))
        view = self.strided(array, at)
        if view is None:
            array[tuple(np.broadcast_to(i, shape) for i in at)] = value
        elif view.shape == shape:
            view[...] = value
        else:  # along some axes the same elements are written again and again: the last ones stay
            keep = tuple(slice(-1, None) if n == 1 else slice(None) for n in view.shape)
            view[...] = np.broadcast_to(value, shape)[keep]

    def access(self, kind: str, buffer: Buffer, indices: tuple[Expr, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
        """The buffer's array, and an index array per dimension, in range."""
        if buffer not in self.arrays:
            raise InternalError(f"buffer {buffer.name} has no array")
        array = self.arrays[buffer]
        at: list[np.ndarray] = []
        for dim, (e, n) in enumerate(zip(indices, array.shape, strict=True)):
            index = np.asarray(self.value(e)).astype(np.int64, copy=False)
            index = index.reshape((1,) * (len(self.shape) - index.ndim) + index.shape)
            if index.size and (index.min() < 0 or index.max() >= n):
                wrong = (index < 0) | (index >= n)
                if self.somewhere(wrong):
                    bad = index[wrong].flat[0]
                    raise ExecutionError(
                        f"{kind} of {buffer.name}, dimension {dim}: index {e} reaches {bad}, but the size is {n}"
                    )
                index = np.clip(index, 0, max(n - 1, 0))
            at.append(index)
        return array, at

    def strided(self, array: np.ndarray, at: list[np.ndarray]) -> np.ndarray | None:
        """The elements at `at` as a view, where every index is affine in the axes; the size of unused axes is 1."""
        strides = [0] * len(self.shape)
        start: list[slice] = []
        for index, step in zip(at, array.strides, strict=True):
            if not index.size:
                return None
            base = index.flat[0]
            affine: Any = np.full((1,) * len(self.shape), base)
            for axis, n in enumerate(index.shape):
                if n > 1:
                    slope = int(index.take(1, axis=axis).flat[0] - base)
                    strides[axis] += slope * step
                    affine = affine + (slope * np.arange(n)).reshape(tuple(-1 if a == axis else 1 for a in range(index.ndim)))
            if not np.array_equal(affine, index):
                return None
            start.append(slice(int(base), None))
        shape = np.broadcast_shapes((1,) * len(self.shape), *(i.shape for i in at))
        return np.lib.stride_tricks.as_strided(array[tuple(start)] if start else array, shape, strides)
