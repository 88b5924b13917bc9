"""`Kernel`: a compiled operator, callable on arrays. All that it knows of its target is the interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from tensorlang.build.lowering import LoweredKernel, lower_kernel, prepare
from tensorlang.build.race_check import barrier_proof
from tensorlang.codegen.native.machine_code import hot_loops
from tensorlang.codegen.target import Function, Target, find_target
from tensorlang.config import Settings
from tensorlang.errors import BuildError, InputError
from tensorlang.ir.expr import Expr, const
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.verify import verify
from tensorlang.ir.visitor import substitute
from tensorlang.schedule import ProofEntry, Schedule
from tensorlang.schedule.explain import Explanation, explain
from tensorlang.schedule.figures import CACHE


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
        source: the emitted text, as it is built.
        target: what it was built for.
    """

    lowered: LoweredKernel
    original: PrimFunc
    settings: Settings = field(default_factory=Settings.from_env)
    target: Target = field(default_factory=lambda: find_target("cpu"))
    _function: Function | None = None
    _calls: dict[Any, _Call] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names = [b.name for b in self.original.buffers]
        self._pointers = [b.name for b in self.lowered.func.buffers]

    @property
    def name(self) -> str:
        return self.lowered.emitted.name

    @property
    def source(self) -> str:
        return self.target.assemble([self.lowered.emitted])

    @property
    def stages(self) -> dict[str, str]:
        """The program after every step of the road down, as text."""
        scheduled = self.lowered.scheduled or self.lowered.func
        made = {"te": str(self.original), "scheduled": str(scheduled)}
        made.update({s.name: str(s.func) for s in self.lowered.stages})
        made[self.target.language] = self.source
        return made

    @property
    def asm(self) -> str:
        """The machine code, disassembled."""
        return self.target.inspect(self.source, "asm", self.settings)

    @property
    def llvm_ir(self) -> str:
        return self.target.inspect(self.source, "llvm", self.settings)

    def inspect(self, what: str) -> str:
        """A later form of the text, one of `target.inspects`: "asm" and "llvm" of the CPU, "ptx" and "ptxas" (registers,
        shared memory and spills of each function) of CUDA.

        Raises:
            BuildError: the target has none, or a program that makes it is missing.
        """
        return self.target.inspect(self.source, what, self.settings)

    @property
    def proof(self) -> tuple[ProofEntry, ...]:
        """What is known of every schedule step: proved, or unknown. On a grid of threads, last, of the barriers between them:
        refuted is a program with a data race, by the two threads and the element."""
        return (*self.lowered.proof, *self._barriers)

    @cached_property
    def _barriers(self) -> tuple[ProofEntry, ...]:
        program = self.target.grid(self.lowered.stages[-1].func)
        return () if program is None else (barrier_proof(program),)

    def explain(self, sizes: Mapping[str, int] | None = None, *, machine: bool = True, cache: int = CACHE) -> Explanation:
        """What each schedule step did to arithmetic, bytes moved, footprint and vector lanes (see `schedule.figures`), the
        working set of every loop, and what the machine code's innermost loops do. `print` it for a table.

        Args:
            sizes: of a symbolic kernel: the sizes to count at, by name.
            machine: whether to read the machine code, where the target has any to show.
            cache: bytes of the cache that traffic is counted into.
        """
        read = asdict(hot_loops(self.asm)) if machine and "asm" in self.target.inspects else None
        return explain(self.name, self.original, self.lowered.steps, self.lowered.proof, read, sizes, cache)

    def __call__(self, *arrays: Any, out: Any = None) -> Any:
        """Run on arrays (NumPy, or anything that exports DLPack); returns the output, or a tuple of them.

        An input that shares memory with `out` is copied first, as NumPy does: results never depend on the overlap.

        Raises:
            InputError: an array's dtype or shape does not fit, or two outputs share memory.
        """
        call = self._planned(inputs := [as_array(a) for a in arrays])
        results = self._outputs(out, call)
        if out is not None:
            inputs = [a.copy() if any(np.may_share_memory(a, r) for r in results) else a for a in inputs]
        args, space = self._arguments(inputs, results, call)
        self.target.launch(self._function or self._load(), args)
        call.spaces.append(space)
        return results[0] if len(results) == 1 else tuple(results)

    def time(self, *arrays: Any, repeats: int = 10) -> float:
        """Seconds of one run on `arrays`, as the target measures them (those of a simulator are simulated)."""
        call = self._planned(inputs := [as_array(a) for a in arrays])
        args, space = self._arguments(inputs, self._outputs(None, call), call)
        seconds = self.target.time(self._function or self._load(), args, repeats)
        call.spaces.append(space)
        return seconds

    def attach(self, code: bytes) -> None:
        """From now on, run `code`, which was built from `source` before."""
        self._function = self.target.load(code, [self.lowered.emitted], self.settings)[self.name]

    def _load(self) -> Function:
        self.attach(self.target.build(self.source, self.settings))
        assert self._function is not None  # attach made it
        return self._function

    def _planned(self, inputs: list[np.ndarray]) -> _Call:
        key = tuple((a.shape, a.dtype) for a in inputs)
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = self._plan(inputs)
        return call

    def _arguments(
        self, inputs: list[np.ndarray], results: list[np.ndarray], call: _Call
    ) -> tuple[list[Any], list[np.ndarray]]:
        """What the function takes, and the workspace among it."""
        named = dict(zip(self._names, [*inputs, *results], strict=True))
        if self.lowered.preparations:
            named.update(prepare(self.lowered, named))
        try:
            space = call.spaces.pop()  # of an earlier call that has returned
        except IndexError:
            space = [_aligned(n) for n in call.workspace]
        return [*(named[n] for n in self._pointers), *call.ints, *space], space

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
    program: PrimFunc | Schedule,
    *,
    target: str | Target = "cpu",
    schedule: Callable[[Schedule], None] | None = None,
) -> Kernel:
    """Compile a program, under `schedule` if given, else the target's default one.

    Args:
        target: a registered target's name, a text that one accepts, or the target itself.

    Raises:
        ScheduleError: the schedule was refused.
        BuildError: the target is unknown, cannot express the program, or lacks an instruction that it asks for.
    """
    found = find_target(target)
    original = program.original if isinstance(program, Schedule) else program
    verify(original)
    if schedule is not None:
        if isinstance(program, Schedule):
            raise BuildError("build: give either a Schedule or schedule=, not both")
        program = Schedule(program)
        schedule(program)
    kernel = Kernel(lower_kernel(program, target=found), original, target=found)
    _ = kernel._barriers  # refuses a race before anything is built
    if kernel.settings.jit:
        found.check(kernel.source)
    return kernel
