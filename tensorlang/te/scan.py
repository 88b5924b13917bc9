"""`te.scan`: recurrences over the first dimension, with a cell of any number of stages.

    s_state = te.placeholder((m, n))
    s_init = te.compute((1, n), lambda _, i: x[0, i])
    s_update = te.compute((m, n), lambda t, i: s_state[t - 1, i] + x[t, i])
    s = te.scan(s_init, s_update, s_state)
->  for i0 in 1: for i in n: s[i0, i] = x[0, i]
    for t in m - 1: for i in n: with s_update(vt = t + 1, vi = i): s[vt, vi] = s[vt - 1, vi] + x[vt, vi]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tensorlang.ir.expr import Expr, fail, user_location, var, wrap
from tensorlang.ir.visitor import walk
from tensorlang.symbolic.simplify import simplify
from tensorlang.te.tensor import ComputeOp, Op, PlaceholderOp, Shape, Tensor, checked_name


class ScanOp(Op):
    """A recurrence: rows of the states given by `init`, then one after the other by `update` from earlier rows.

    Attributes:
        scan_axis: the variable of time: how many rows `update` has computed before.
        spatial_axis: a variable for each other dimension of each state.
        init, update, state: the tensors, one per state.
        cell: the stages that run at every step, in order; the last ones are those of `update`.
        first: the number of rows that `init` gives, per state.
    """

    def __init__(
        self, name: str, init: Sequence[Tensor], update: Sequence[Tensor], state: Sequence[Tensor], source: str
    ):
        super().__init__(name, source)
        self.init, self.update, self.state = tuple(init), tuple(update), tuple(state)
        self.first = tuple(t.shape[0] for t in init)
        self.scan_axis = var(f"{name}_t")
        self.axis = (self.scan_axis,)
        self.spatial_axis = tuple(var(f"{s.name}_i{n}") for s in state for n in range(1, s.ndim))
        self.cell, self._externals = self._split()
        names = [name] if len(state) == 1 else [f"{name}_v{n}" for n in range(len(state))]
        self._outputs = [Tensor(self, s.shape, s.dtype, n) for s, n in zip(state, names, strict=True)]
        for op in self.cell:
            self._check_reads(op)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What it reads from outside: the initial rows, and what the cell reads besides the states."""
        return tuple(dict.fromkeys((*self.init, *self._externals)))

    def _split(self) -> tuple[tuple[ComputeOp, ...], tuple[Tensor, ...]]:
        """The cell's stages, producers first, and the tensors that they read from outside."""
        order: dict[Op, None] = {}
        stack: list[tuple[Op, bool]] = [(t.op, False) for t in reversed(self.update)]
        while stack:
            op, done = stack.pop()
            if done:
                order.setdefault(op)
            elif op not in order:
                stack.append((op, True))
                stack.extend((t.op, False) for t in reversed(op.inputs))
        inside: dict[Op, None] = {t.op: None for t in self.state}
        last = {t.op for t in self.update}
        for op in order:
            if op in last or any(t.op in inside for t in op.inputs):
                inside.setdefault(op)
        cell = []
        for op in order:
            if op not in inside or isinstance(op, PlaceholderOp):
                continue
            if not isinstance(op, ComputeOp):
                fail(f"te.scan {self.name}: stage {op.name} of the cell is not made by te.compute")
            cell.append(op)
        outside = dict.fromkeys(t for op in cell for t in op.inputs if t.op not in inside)
        return tuple(cell), tuple(outside)

    def _check_reads(self, op: ComputeOp) -> None:
        """Row t is computed from earlier rows of the states and from row t of the cell's other stages."""
        if not op.axis:
            fail(f"te.scan {self.name}: stage {op.name} of the cell has no dimension of time (the first one)")
        what, time = f"te.scan {self.name}: stage {op.name} of the cell", op.axis[0]
        if len({simplify(wrap(t.shape[0])) for t in (*op.outputs, *self.state)}) != 1:
            fail(f"{what} has {op.output().shape[0]} rows, a state {self.state[0].shape[0]}")
        states = {t.buffer: n for n, t in enumerate(self.state)}
        others = {t.buffer for c in self.cell for t in c.outputs}
        for e in (node for body in op.bodies for node in walk(body) if node.op == "load"):
            if e.value in states:
                behind = simplify(time - e.args[0])
                rows = self.first[states[e.value]]
                if behind.op != "const" or behind.value < 1:
                    fail(f"{what} reads {e}; a state is read at an earlier row, such as {time.name} - 1")
                if not isinstance(rows, int) or behind.value > rows:
                    fail(f"{what} reads {e}, but the initial value has {rows} row(s)")
            elif e.value in others and e.args[0] is not time:
                fail(f"{what} reads {e}; a stage of the cell is read at the same row, {time.name}")


def scan(
    init: Tensor | Sequence[Tensor],
    update: Tensor | Sequence[Tensor],
    state_placeholder: Tensor | Sequence[Tensor],
    inputs: Iterable[Tensor] | None = None,
    name: str = "scan",
) -> Any:
    """The states of a recurrence over the first dimension (classic TVM's `te.scan`).

    Args:
        init: the first rows of each state, `(rows, ...)`; `rows` is a constant, usually 1.
        update: for each state a stage of the state's whole shape: row t from rows t-1, t-2, ... (as many as `init` has) of
            `state_placeholder`. It may read further stages that do so: the cell.
        state_placeholder: stands for each state where it is read.
        inputs: not needed: they are found; accepted for classic TVM's sake.

    Returns:
        A tensor of the state's shape; a tuple of them where tuples or lists are given.

    Raises:
        TypeCheckError: shapes or types do not fit, or the cell reads what is not computed yet.
    """
    many = isinstance(init, tuple | list)
    groups = [tuple(t) if isinstance(t, tuple | list) else (t,) for t in (init, update, state_placeholder)]
    name = checked_name(name)
    if len({len(g) for g in groups}) != 1 or not groups[0]:
        counts = f"{len(groups[0])} initial values, {len(groups[1])} updates, {len(groups[2])} states"
        fail(f"te.scan {name}: {counts}: give one of each")
    if strange := [t for g in groups for t in g if not isinstance(t, Tensor)]:
        fail(f"te.scan {name}: {strange[0]!r} is not a tensor")
    for i, u, s in zip(*groups, strict=True):
        if not isinstance(s.op, PlaceholderOp):
            fail(f"te.scan {name}: state {s.name} is not a placeholder")
        same_type = i.dtype == u.dtype == s.dtype
        if not same_type or s.ndim < 1 or _differ(u.shape, s.shape) or _differ(i.shape[1:], s.shape[1:]):
            fail(
                f"te.scan {name}: initial value {i.buffer}, update {u.buffer} and state {s.buffer} do not fit: "
                "the same type, and the same shape but for the initial value's rows"
            )
    op = ScanOp(name, groups[0], groups[1], groups[2], user_location())
    if passed := [t.name for t in inputs or () if not isinstance(t, Tensor)]:
        fail(f"te.scan {name}: input {passed[0]!r} is not a tensor")
    return op.outputs if many else op.output()


def _differ(a: Shape, b: Shape) -> bool:
    def same(x: int | Expr, y: int | Expr) -> bool:
        return simplify(wrap(x)) is simplify(wrap(y))

    return len(a) != len(b) or not all(same(x, y) for x, y in zip(a, b, strict=True))
