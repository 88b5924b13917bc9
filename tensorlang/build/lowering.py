"""A program or a schedule to the text of a kernel, by way of a target's passes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tensorlang.build.cpu import Cpu
from tensorlang.codegen.emit import RESERVED, EmittedKernel
from tensorlang.codegen.native import CpuTarget
from tensorlang.codegen.target import Target, find_target
from tensorlang.config import Settings
from tensorlang.ir.machine import Machine
from tensorlang.ir.stmt import For, PrimFunc
from tensorlang.ir.tensor_intrin import tile_annotation
from tensorlang.ir.vectorized import evaluate_block_nest
from tensorlang.ir.visitor import walk_stmt
from tensorlang.lower import Stage as LoweringStage, lower
from tensorlang.lower.pipeline import PASSES
from tensorlang.lower.prepare import split_preparation
from tensorlang.lower.tensorize import without_missing
from tensorlang.schedule import ProofEntry, Schedule
from tensorlang.schedule.rules import default_rule
from tensorlang.schedule.tensorize import find_intrinsic
from tensorlang.schedule.trace import Trace


@dataclass(frozen=True)
class LoweredKernel:
    """A kernel as source text, with everything that led to it.

    Attributes:
        emitted: name, text, parameters and workspace.
        func: the scheduled program, without what is prepared at build time.
        preparations: functions of constants alone, each making one more input of `func`.
        stages: the program after every lowering pass.
        trace: the schedule's steps, as text.
        proof: what is known of the schedule's legality.
        scheduled: the whole scheduled program.
        steps: the schedule's steps, to be replayed.
    """

    emitted: EmittedKernel
    func: PrimFunc
    preparations: tuple[PrimFunc, ...]
    stages: tuple[LoweringStage, ...]
    trace: str
    proof: tuple[ProofEntry, ...] = ()
    scheduled: PrimFunc | None = None
    steps: Trace | None = None


def schedule_of(
    program: PrimFunc | Schedule, target: str | Target = "cpu", machine: Machine | None = None
) -> Schedule:
    """`program` if it is scheduled already, else under the target's default schedule."""
    if isinstance(program, Schedule):
        return program
    target = find_target(target)
    schedule = Schedule(program, trials="on demand")
    machine = machine or target.machine(Settings.from_env().num_threads)
    if not target.schedule(schedule, machine) and target.schedules:
        default_rule(target.schedules)(schedule, machine)
    return schedule


def lower_kernel(
    program: PrimFunc | Schedule,
    *,
    target: str | Target = "cpu",
    name: str | None = None,
    machine: Machine | None = None,
    cpu: CpuTarget | None = None,
) -> LoweredKernel:
    """Schedule, lower and emit one program; nothing is compiled.

    Args:
        machine: what its default schedule may know; the target's own figures by default.
        cpu: another CPU than the target's, short for `target=Cpu(cpu)`.

    Raises:
        BuildError: the target is unknown or has no code for something in the program.
        ScheduleError: a step of a user's schedule that integer sets could not decide changes what the program computes.
    """
    target = Cpu(cpu) if cpu is not None else find_target(target)
    schedule = schedule_of(program, target, machine)
    if schedule.trials == "at once":
        schedule.settle()
    scheduled = _with_intrinsics(schedule.func, target)
    if name is not None:
        scheduled = replace(scheduled, name=name)
    preparations, func = split_preparation(scheduled, scheduled.attrs.get("constants", ()))
    stages = lower(func, target.passes(PASSES))
    trace = str(schedule.trace)
    emitted = target.emit(stages[-1].func, identifier(func.name), trace)
    proof = tuple(schedule.proof)
    return LoweredKernel(emitted, func, tuple(preparations), tuple(stages), trace, proof, scheduled, schedule.trace)


def _with_intrinsics(func: PrimFunc, target: Target) -> PrimFunc:
    """`func` as it will run on `target`, after its tensor intrinsics have been verified (once per process)."""
    names = dict.fromkeys(tile_annotation(s) for s in walk_stmt(func.body) if isinstance(s, For))
    found = [find_intrinsic(n) for n in names if n]
    for intrin in found:
        intrin.verify(intrin)
    return without_missing(func, {i.name: all(map(target.has, i.requires)) for i in found}) if found else func


def prepare(kernel: LoweredKernel, constants: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The prepared inputs of `kernel`, by name, from its constants."""
    known = dict(constants)
    made: dict[str, np.ndarray] = {}
    for step in kernel.preparations:
        out = step.outputs[0]
        array = np.empty(tuple(d.value for d in out.shape), out.dtype.numpy)
        evaluate_block_nest(step.body, {**{b: known[b.name] for b in step.inputs}, out: array}, {})
        made[out.name] = known[out.name] = array
    return made


def identifier(name: str) -> str:
    """`name` as a function name that shadows nothing the emitted module uses."""
    text = re.sub(r"\W", "_", name)
    return text if text and not text[0].isdigit() and text not in RESERVED else f"k_{text}"
