"""Layer 4: a program or a schedule to a kernel. The only place where lowering, code generation and the runtime meet.

    PrimFunc -> (default schedule) -> Schedule -> preparation split off -> passes -> Python source -> machine code
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from tensorlang.codegen import native
from tensorlang.codegen.emit import HEADER, RESERVED, EmittedKernel, emit_kernel
from tensorlang.codegen.native import CpuTarget, run_plain
from tensorlang.codegen.native.machine_code import hot_loops
from tensorlang.codegen.packed import Callbacks
from tensorlang.config import Settings
from tensorlang.errors import BuildError, InputError
from tensorlang.ir.expr import Expr, const
from tensorlang.ir.stmt import For, PrimFunc
from tensorlang.ir.tensor_intrin import tile_annotation
from tensorlang.ir.vectorized import evaluate_block_nest
from tensorlang.ir.verify import verify
from tensorlang.ir.visitor import substitute, walk_stmt
from tensorlang.lower import Stage as LoweringStage, lower
from tensorlang.lower.prepare import split_preparation
from tensorlang.lower.tensorize import without_missing
from tensorlang.runtime import context
from tensorlang.runtime.cache import ContentCache
from tensorlang.runtime.loader import Library, check_status, load_library
from tensorlang.schedule import ProofEntry, Schedule
from tensorlang.schedule.explain import Explanation, explain
from tensorlang.schedule.figures import CACHE
from tensorlang.schedule.rules import Machine, default_rule
from tensorlang.schedule.tensorize import find_intrinsic
from tensorlang.schedule.trace import Trace

TARGETS = ("cpu",)


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


def compile_source(
    source: str, target: CpuTarget | None = None, emit: str = "library", settings: Settings | None = None
) -> bytes:
    """Compile an emitted module, or find it in the cache; arguments and errors as for `codegen.native.compile_source`.

    Args:
        settings: where and whether to cache; the environment's by default.
    """
    return native.compile_source(source, target, emit, _store(settings))


def pool_library(target: CpuTarget | None = None, settings: Settings | None = None) -> bytes:
    """Shared library of the thread pool's native half, for `runtime.context.install`."""
    return native.pool_library(target, _store(settings))


def compile_and_load(source: str, target: CpuTarget | None = None, settings: Settings | None = None) -> Library:
    """Compile an emitted module, or find it in the cache, and load it into this process, which gets its pool if it has none."""
    settings = settings or Settings.from_env()
    signatures = native.exported_signatures(source)
    if not context.is_installed():
        context.install(pool_library(settings=settings), settings.num_threads)
    return load_library(compile_source(source, target, settings=settings), signatures)


def _store(settings: Settings | None) -> ContentCache:
    return ContentCache.of(settings or Settings.from_env(), "native")


def machine_of(target: CpuTarget, threads: int) -> Machine:
    """What schedules may know of a target."""
    registers = 32 if target.vector_bits >= 512 or target.architecture.startswith("aarch64") else 16
    return Machine(vector_bytes=target.vector_bits // 8, vector_registers=registers, threads=threads)


def schedule_of(program: PrimFunc | Schedule, target: str = "cpu", machine: Machine | None = None) -> Schedule:
    """`program` if it is scheduled already, else under the target's default schedule."""
    if isinstance(program, Schedule):
        return program
    schedule = Schedule(program, trials="on demand")
    default_rule(target)(schedule, machine or machine_of(CpuTarget.host(), Settings.from_env().num_threads))
    return schedule


def lower_kernel(
    program: PrimFunc | Schedule,
    *,
    target: str = "cpu",
    name: str | None = None,
    machine: Machine | None = None,
    cpu: CpuTarget | None = None,
) -> LoweredKernel:
    """Schedule, lower and emit one program; nothing is compiled.

    Args:
        cpu: decides which tensor intrinsics that may fall back to loops do so; this machine by default.

    Raises:
        BuildError: the target is unknown or has no code for something in the program.
        ScheduleError: a step of a user's schedule that integer sets could not decide changes what the program computes.
    """
    if target not in TARGETS:
        raise BuildError(f"unknown target {target!r}; there are: {', '.join(TARGETS)}")
    schedule = schedule_of(program, target, machine)
    if schedule.trials == "at once":
        schedule.settle()
    scheduled = _with_intrinsics(schedule.func, cpu or CpuTarget.host())
    if name is not None:
        scheduled = replace(scheduled, name=name)
    preparations, func = split_preparation(scheduled, scheduled.attrs.get("constants", ()))
    stages = lower(func)
    trace = str(schedule.trace)
    emitted = emit_kernel(stages[-1].func, identifier(func.name), trace)
    proof = tuple(schedule.proof)
    return LoweredKernel(emitted, func, tuple(preparations), tuple(stages), trace, proof, scheduled, schedule.trace)


def _with_intrinsics(func: PrimFunc, cpu: CpuTarget) -> PrimFunc:
    """`func` as it will run on `cpu`, after its tensor intrinsics have been verified (once per process)."""
    names = dict.fromkeys(tile_annotation(s) for s in walk_stmt(func.body) if isinstance(s, For))
    found = [find_intrinsic(n) for n in names if n]
    for intrin in found:
        intrin.verify(intrin)
    return without_missing(func, {i.name: all(map(cpu.has, i.requires)) for i in found}) if found else func


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


@dataclass
class _Call:
    """What one combination of input shapes needs: output shapes, size arguments, bytes of workspace, free workspaces."""

    shapes: list[tuple[int, ...]]
    ints: list[int]
    workspace: list[int]
    spaces: list[list[np.ndarray]] = field(default_factory=list)


@dataclass
class Kernel:
    """A compiled operator, callable on arrays.

    Attributes:
        lowered: source and stages.
        source: the emitted Python module, as it runs.
    """

    lowered: LoweredKernel
    original: PrimFunc
    settings: Settings = field(default_factory=Settings.from_env)
    _library: Library | None = None
    _plain: dict[str, Any] | None = None
    _calls: dict[Any, _Call] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names = [b.name for b in self.original.buffers]
        self._pointers = [b.name for b in self.lowered.func.buffers]
        self._callbacks = Callbacks(self.lowered.emitted.packed)

    @property
    def name(self) -> str:
        return self.lowered.emitted.name

    @property
    def source(self) -> str:
        return f"{HEADER}\n\n{self.lowered.emitted.text}"

    @property
    def stages(self) -> dict[str, str]:
        """The program after every step of the road down, as text."""
        scheduled = self.lowered.scheduled or self.lowered.func
        made = {"te": str(self.original), "scheduled": str(scheduled)}
        made.update({s.name: str(s.func) for s in self.lowered.stages})
        made["python"] = self.source
        return made

    @property
    def asm(self) -> str:
        """The machine code, disassembled."""
        return compile_source(self.source, emit="asm", settings=self.settings).decode()

    @property
    def llvm_ir(self) -> str:
        return compile_source(self.source, emit="llvm", settings=self.settings).decode()

    @property
    def proof(self) -> tuple[ProofEntry, ...]:
        """What is known of every schedule step: proved, or unknown."""
        return self.lowered.proof

    def explain(self, sizes: Mapping[str, int] | None = None, *, machine: bool = True, cache: int = CACHE) -> Explanation:
        """What each schedule step did to arithmetic, bytes moved, footprint and vector lanes (see `schedule.figures`), the
        working set of every loop, and what the machine code's innermost loops do. `print` it for a table.

        Args:
            sizes: of a symbolic kernel: the sizes to count at, by name.
            machine: whether to read the machine code.
            cache: bytes of the cache that traffic is counted into.
        """
        read = asdict(hot_loops(self.asm)) if machine else None
        return explain(self.name, self.original, self.lowered.steps, self.proof, read, sizes, cache)

    def __call__(self, *arrays: Any, out: Any = None) -> Any:
        """Run on arrays (NumPy, or anything that exports DLPack); returns the output, or a tuple of them.

        An input that shares memory with `out` is copied first, as NumPy does: results never depend on the overlap.

        Raises:
            InputError: an array's dtype or shape does not fit, or two outputs share memory.
        """
        inputs = [as_array(a) for a in arrays]
        key = tuple((a.shape, a.dtype) for a in inputs)
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = self._plan(inputs)
        results = self._outputs(out, call)
        if out is not None:
            inputs = [a.copy() if any(np.may_share_memory(a, r) for r in results) else a for a in inputs]
        named = dict(zip(self._names, [*inputs, *results], strict=True))
        if self.lowered.preparations:
            named.update(prepare(self.lowered, named))
        try:
            space = call.spaces.pop()  # of an earlier call that has returned
        except IndexError:
            space = [_aligned(n) for n in call.workspace]
        self._run([*(named[n] for n in self._pointers), *call.ints, *space])
        call.spaces.append(space)
        return results[0] if len(results) == 1 else tuple(results)

    def _plan(self, inputs: list[np.ndarray]) -> _Call:
        sizes = bind_sizes(self.original, inputs)
        return _Call(
            [tuple(evaluate(d, sizes) for d in b.shape) for b in self.original.outputs],
            [evaluate(v, sizes) for v in self.lowered.func.size_vars],
            [evaluate(n, sizes) for _, n in self.lowered.emitted.workspace],
        )

    def _outputs(self, out: Any, call: _Call) -> list[np.ndarray]:
        wanted, shapes = self.original.outputs, call.shapes
        if out is None:
            return [np.empty(s, b.dtype.numpy) for s, b in zip(shapes, wanted, strict=True)]
        given = list(out) if isinstance(out, tuple | list) else [out]
        if len(given) != len(wanted):
            raise InputError(f"{self.name}: out= needs {len(wanted)} array(s), got {len(given)}")
        for array, shape, b in zip(given, shapes, wanted, strict=True):
            ok = isinstance(array, np.ndarray) and array.flags.c_contiguous and array.flags.writeable
            if not ok or array.shape != shape or array.dtype != b.dtype.numpy:
                raise InputError(f"{self.name}: out= must be a writable C-contiguous {b.dtype} array of shape {shape}")
        if len(given) > 1 and any(np.may_share_memory(a, b) for n, a in enumerate(given) for b in given[:n]):
            raise InputError(f"{self.name}: arrays of out= share memory; give each output its own")
        return given

    def _run(self, args: list[Any]) -> None:
        if not self.settings.jit:
            if self._plain is None:
                self._plain = run_plain(self.source)
            self._plain[self.name](None, *args, *self._callbacks.plain)
            return
        if self._library is None:
            self._library = compile_and_load(self.source, settings=self.settings)
        native = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in args]
        status = self._library[self.name](context.context_address(), *native, *self._callbacks.addresses)
        if status and self._callbacks.sites:
            self._callbacks.raise_error()
        check_status(status, self.name)


def as_array(a: Any) -> np.ndarray:
    """`a` as a C-contiguous NumPy array, without a copy where possible."""
    if not isinstance(a, np.ndarray):
        a = np.from_dlpack(a) if hasattr(a, "__dlpack__") else np.asarray(a)
    return np.ascontiguousarray(a) if a.ndim else a


def _aligned(nbytes: int) -> np.ndarray:
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]


def bind_sizes(func: PrimFunc, arrays: Sequence[np.ndarray]) -> dict[Expr, int]:
    """The values of symbolic sizes, from the shapes of `arrays`.

    Raises:
        InputError: number, dtype, rank or a size does not fit; the message names the parameter and dimension.
    """
    if len(arrays) != len(func.inputs):
        raise InputError(f"{func.name} takes {len(func.inputs)} array(s), got {len(arrays)}")
    sizes: dict[Expr, int] = {}
    for b, a in zip(func.inputs, arrays, strict=True):
        if a.dtype != b.dtype.numpy:
            raise InputError(f"{func.name}: {b.name} must be {b.dtype}, got {a.dtype}")
        if a.ndim != b.ndim:
            raise InputError(f"{func.name}: {b.name} must have {b.ndim} dimension(s), got shape {a.shape}")
        for d, size in zip(b.shape, a.shape, strict=True):
            if d.op == "var":
                sizes.setdefault(d, size)
    for b, a in zip(func.inputs, arrays, strict=True):  # once all are known: a shape may mention a later one's size
        for n, (d, size) in enumerate(zip(b.shape, a.shape, strict=True)):
            expected = evaluate(d, sizes)
            if expected != size:
                raise InputError(f"{func.name}: dimension {n} of {b.name} must be {d} = {expected}, got {size}")
    return sizes


def evaluate(e: Expr, sizes: Mapping[Expr, int]) -> int:
    """An integer expression of symbolic sizes as a number."""
    value = substitute(e, {v: const(n) for v, n in sizes.items()})
    if value.op != "const":
        raise InputError(f"the size {e} is not determined by the inputs' shapes")
    return int(value.value)


def build(
    program: PrimFunc | Schedule, *, target: str = "cpu", schedule: Callable[[Schedule], None] | None = None
) -> Kernel:
    """Compile a program, under `schedule` if given, else the target's default one.

    Raises:
        ScheduleError: the schedule was refused.
        BuildError: the target cannot express the program, or the machine lacks an instruction that it asks for.
    """
    original = program.original if isinstance(program, Schedule) else program
    verify(original)
    if schedule is not None:
        if isinstance(program, Schedule):
            raise BuildError("build: give either a Schedule or schedule=, not both")
        program = Schedule(program)
        schedule(program)
    kernel = Kernel(lower_kernel(program, target=target), original)
    if kernel.settings.jit:
        native.check_features(kernel.source, CpuTarget.host())
    return kernel


