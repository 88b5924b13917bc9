"""From a classic schedule and its arguments to the program of a kernel: `lower`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tensorlang import te
from tensorlang.errors import InputError
from tensorlang.interop.tvm.realise import Realised, carry_out
from tensorlang.interop.tvm.schedule import Schedule
from tensorlang.interop.tvm.target import Target
from tensorlang.interop.tvm.tensor import Tensor, outputs_of
from tensorlang.interop.tvm.tir.calls import lower_intrinsics
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, load, user_location
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.visitor import free_vars, map_exprs, substitute
from tensorlang.te.primfunc import create_prim_func, placeholders_of
from tensorlang.te.scan import ScanOp
from tensorlang.te.tensor import PlaceholderOp, Tensor as Core


@dataclass(frozen=True)
class Argument:
    """One argument of a built function.

    Attributes:
        role: "input", "output", "scalar" or "size": a dimension, which the arrays tell too.
        name: of the buffer or variable in the program.
        dtype: NumPy's name of the element type.
    """

    role: str
    name: str
    dtype: str


@dataclass(frozen=True, eq=False)
class Lowered:
    """A schedule carried out: what `lower` returns and `build` takes.

    Attributes:
        schedule: the schedule of tensorlang that has the program.
        arguments: how the function is called.
    """

    name: str
    schedule: te.Schedule
    arguments: tuple[Argument, ...]

    @property
    def func(self) -> PrimFunc:
        """The loop nest."""
        return self.schedule.func

    @property
    def body(self) -> Any:
        return self.func.body

    def __getitem__(self, name: str) -> PrimFunc:
        return self.func

    def astext(self) -> str:
        return str(self)

    script = astext

    def __str__(self) -> str:
        return str(self.func)

    __repr__ = __str__


def lower(
    sch: Schedule | Lowered, args: Sequence[Any] = (), name: str = "main", binds: Any = None, simple_mode: bool = False
) -> Lowered:
    """The loop nest that a schedule describes; `print` shows it.

    Args:
        args: tensors and variables that the function takes, in order. Outputs left out are added at the end; tensors that
            exist only inside a loop, or not at all, are passed over.

    Raises:
        ScheduleError: a step of the schedule was refused.
        InputError: something in `args` has no part in the schedule, or an input is missing.
    """
    if isinstance(sch, Lowered):
        return sch
    return lower_for(sch, args, name, Target.current() or Target("llvm"), complete=False)


def lower_for(sch: Schedule, args: Sequence[Any], name: str, target: Target, complete: bool) -> Lowered:
    """As `lower`, with the intrinsic rules of `target`.

    Args:
        complete: refuse outputs left out and tensors that exist only inside loops.
    """
    if not isinstance(sch, Schedule):
        raise InputError(f"{user_location()}: lower takes a schedule made by te.create_schedule, not {type(sch).__name__}")
    tensors = _tensors(sch, args, name, complete)
    inputs = [t for t in tensors if isinstance(t.op, PlaceholderOp)]
    outputs = [t for t in tensors if not isinstance(t.op, PlaceholderOp)]
    missing = [t for t in sch.output_tensors if t not in outputs]
    if complete and not set(outputs) & set(sch.output_tensors):
        raise InputError(f"{user_location()}: {name}: no output is among the arguments: add {missing[0].name}")
    outputs += [t for t in missing if not complete or t.op not in {o.op for o in outputs}]
    for needed in placeholders_of(outputs):
        if needed not in inputs:
            raise InputError(f"{user_location()}: {name} reads {needed.name}, which is not among the arguments")
    func = create_prim_func(name, inputs, outputs)
    func, scalars = _with_scalars(func, [a for a in args if isinstance(a, Expr)], complete)
    func = func.with_body(map_exprs(func.body, lambda e: lower_intrinsics(e, target.kind.name)))
    names = stage_names(func, outputs)
    buffers = dict(zip([*inputs, *scalars, *outputs], func.buffers, strict=True))
    arguments = []
    for a in args:
        if isinstance(a, Tensor):
            if a.core in buffers:
                b = buffers[a.core]
                arguments.append(Argument("output" if b in func.outputs else "input", b.name, b.dtype.numpy.name))
        elif a in buffers:
            arguments.append(Argument("scalar", buffers[a].name, buffers[a].dtype.numpy.name))
        else:
            arguments.append(Argument("size", a.name, "int64"))
    known = {a.name for a in arguments}
    arguments += [Argument("output", b.name, b.dtype.numpy.name) for b in func.outputs if b.name not in known]
    return Lowered(name, carry_out(sch, func, names), tuple(arguments))


def body_program(sch: Schedule) -> Realised:
    """A schedule with only its dataflow steps carried out, to look at."""
    outputs = sch.output_tensors
    func = create_prim_func("main", placeholders_of(outputs), outputs)
    realised = Realised(sch, func, stage_names(func, outputs))
    realised.dataflow()
    return realised


def stage_names(func: PrimFunc, outputs: Sequence[Core]) -> dict[Any, str]:
    """The names in `func` of the stages that have a block, by operation."""
    ops = list(dict.fromkeys(t.op for t in te.stages_of(outputs) if not isinstance(t.op, PlaceholderOp)))
    computing = [c for op in ops for c in ((op, *op.cell) if isinstance(op, ScanOp) else (op,))]
    named = zip(computing, func.attrs["source"], strict=False)  # after the stages come the outputs of those with several
    return {op: name for op, name in named if not isinstance(op, ScanOp)}


def _tensors(sch: Schedule, args: Sequence[Any], name: str, complete: bool) -> list[Core]:
    """The tensors among the arguments that the program has as parameters."""
    found: list[Core] = []
    for a in args:
        if isinstance(a, Expr) and a.op == "var":
            continue
        if not isinstance(a, Tensor):
            raise InputError(f"{user_location()}: {name}: arguments are tensors and variables, not {type(a).__name__}")
        core = a.core
        if core in found:
            raise InputError(f"{user_location()}: {name}: {a.name} is given twice")
        if core.op not in sch.stage_map and isinstance(core.op, PlaceholderOp):
            found.append(core)  # an input that nothing reads
            continue
        if core.op not in sch.stage_map:
            raise InputError(f"{user_location()}: {name}: {a.name} has no part in the schedule")
        stage = sch.stage_map[core.op]
        if isinstance(core.op, PlaceholderOp) and not stage.is_input:
            raise InputError(f"{user_location()}: {name}: {stage.name} was made by the schedule; it cannot be an argument")
        if not stage.is_root and not isinstance(core.op, PlaceholderOp):
            if complete:
                where = "is computed inline" if stage.inlined else "exists only inside a loop"
                raise InputError(f"{user_location()}: {name}: {a.name} {where}; it cannot be an argument")
            continue
        if core in outputs_of(core.op):
            found.append(core)
    return found


def _with_scalars(func: PrimFunc, given: Sequence[Expr], complete: bool) -> tuple[PrimFunc, list[Expr]]:
    """Variables that no input's shape tells become inputs of no dimensions, in the order of `given`."""
    told = {d for b in func.inputs for d in b.shape if d.op == "var"}
    shapes = {v for b in func.buffers for d in b.shape for v in free_vars(d)}
    loose = [v for v in func.size_vars if v not in told and v not in shapes]
    if not loose:
        return func, []
    if complete and (lost := [v for v in loose if v not in given]):
        raise InputError(f"{user_location()}: {func.name} uses the variable {lost[0]}, which is not among the arguments")
    loose = [v for v in given if v in loose] + [v for v in loose if v not in given]
    buffers = {v: Buffer(v.name, (), v.dtype) for v in loose}
    values = {v: load(b, ()) for v, b in buffers.items()}
    body = map_exprs(func.body, lambda e: substitute(e, values))
    sizes = tuple(v for v in func.size_vars if v not in buffers)
    params: tuple[Buffer | Expr, ...] = (*func.inputs, *buffers.values(), *func.outputs, *sizes)
    return replace(func, params=params, body=body), loose
