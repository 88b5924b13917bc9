"""Built functions: `tvm.build`, `Module`, and saving and loading them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.build import Kernel, build as build_kernel, compile_source, lower_kernel, pool_library
from tensorlang.codegen.emit import HEADER
from tensorlang.codegen.native import CpuTarget
from tensorlang.errors import ArtifactError, InputError
from tensorlang.interop.tvm.lowering import Argument, Lowered, lower_for
from tensorlang.interop.tvm.nd import NDArray
from tensorlang.interop.tvm.schedule import Schedule
from tensorlang.interop.tvm.target import Target
from tensorlang.ir.expr import user_location
from tensorlang.ir.parser import parse_func
from tensorlang.runtime import context
from tensorlang.runtime.artifact import FORMAT, Artifact, read_artifact, write_artifact
from tensorlang.runtime.machine import require_machine

KIND = "tvm-module"


@dataclass(frozen=True)
class BenchmarkResult:
    """Seconds per call, one figure per repetition."""

    results: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.results)

    @property
    def median(self) -> float:
        return median(self.results)

    @property
    def min(self) -> float:
        return min(self.results)

    @property
    def max(self) -> float:
        return max(self.results)

    @property
    def std(self) -> float:
        return pstdev(self.results)


class Module:
    """One built function, called on arrays in the order of `build`'s arguments; outputs are written in place.

    Attributes:
        entry_name: the function's name.
        kernel: the kernel underneath.
        target: what it was built for.
    """

    def __init__(self, name: str, kernel: Kernel, arguments: Sequence[Argument], target: Target):
        self.entry_name = name
        self.kernel = kernel
        self.target = target
        self.arguments = tuple(arguments)
        self._imported: list[Any] = [DeviceModule(self)] if target.is_device else []
        self._inputs = [b.name for b in kernel.original.inputs]
        self._outputs = [b.name for b in kernel.original.outputs]

    @property
    def type_key(self) -> str:
        return self.target.kind.name

    @property
    def imported_modules(self) -> list[Any]:
        """The code of the device, if the target is one."""
        return list(self._imported)

    def import_module(self, module: Any) -> None:
        """Keep a module beside this one."""
        self._imported.append(module)

    @property
    def entry_func(self) -> Callable[..., None]:
        return self

    def get_function(self, name: str, query_imports: bool = False) -> Callable[..., None]:
        """The function of this name.

        Raises:
            InputError: there is another one only.
        """
        if name not in (self.entry_name, "main", "__tvm_main__"):
            raise InputError(f"{user_location()}: the module has no function {name!r}; it has {self.entry_name!r}")
        return self

    __getitem__ = get_function

    def __call__(self, *args: Any) -> None:
        """Run.

        Raises:
            InputError: number, kind, type or shape of an argument does not fit.
        """
        if len(args) != len(self.arguments):
            expected = ", ".join(a.name for a in self.arguments)
            raise InputError(
                f"{user_location()}: {self.entry_name} takes {len(self.arguments)} argument(s) ({expected}), got {len(args)}"
            )
        arrays: dict[str, np.ndarray] = {}
        sizes: dict[str, int] = {}
        for n, (declared, given) in enumerate(zip(self.arguments, args, strict=True)):
            if declared.role == "size":
                sizes[declared.name] = int(given)
            else:
                arrays[declared.name] = self._array(n, declared, given)
        try:
            self.kernel(*(arrays[n] for n in self._inputs), out=tuple(arrays[n] for n in self._outputs))
        except InputError as error:
            raise InputError(f"{user_location()}: {error}") from None
        if sizes:
            self._check_sizes(arrays, sizes)

    def time_evaluator(
        self, func_name: str, dev: Any = None, number: int = 10, repeat: int = 1, min_repeat_ms: int = 0, **_: Any
    ) -> Callable[..., BenchmarkResult]:
        """A function of the same arguments that runs the built one `repeat` times `number` times, and once before.

        Args:
            min_repeat_ms: raise `number` until a repetition takes as long.
        """
        run = self.get_function(func_name)

        def evaluate(*args: Any) -> BenchmarkResult:
            run(*args)
            calls = max(1, number)
            results = []
            for _repetition in range(repeat):
                while True:
                    start = time.perf_counter()
                    for _call in range(calls):
                        run(*args)
                    seconds = time.perf_counter() - start
                    if seconds * 1000 >= min_repeat_ms:
                        break
                    calls *= 2
                results.append(seconds / calls)
            return BenchmarkResult(tuple(results))

        return evaluate

    def get_source(self, fmt: str = "") -> str:
        """The code: emitted Python (""), `"ll"` LLVM's, `"asm"` or `"s"` the machine's.

        Raises:
            InputError: there is no such format.
        """
        if fmt in ("", "py"):
            return self.kernel.source
        if fmt == "ll":
            return self.kernel.llvm_ir
        if fmt in ("asm", "s"):
            return self.kernel.asm
        raise InputError(f"{user_location()}: no format {fmt!r}; there are '' (Python), 'll' and 'asm'")

    def save(self, file_name: str | Path, fmt: str = "") -> None:
        """Write the function into a file that `load_module` reads; it appears whole, by rename.

        Raises:
            ArtifactError: it cannot be written, or the function calls Python, which a file does not hold.
        """
        write_artifact(self._artifact(), Path(file_name))

    def export_library(self, file_name: str | Path, fcompile: Any = None, **options: Any) -> None:
        """As `save`; a file is complete by itself."""
        self.save(file_name)

    def __repr__(self) -> str:
        return f"Module({self.entry_name}, {self.target})"

    # -- internals -----------------------------------------------------------------------------------------------------
    def _array(self, n: int, declared: Argument, given: Any) -> np.ndarray:
        if declared.role == "scalar":
            if isinstance(given, int | float | np.number | bool):
                return np.asarray(given, declared.dtype)
            raise self._misfit(n, f"is a number of type {declared.dtype}, not {type(given).__name__}")
        data = given._data if isinstance(given, NDArray) else given
        if not isinstance(data, np.ndarray):
            raise self._misfit(n, f"is an array (tvm.nd.array), not {type(given).__name__}")
        if data.dtype.name != declared.dtype:
            raise self._misfit(n, f"has elements of {declared.dtype}, got {data.dtype.name}")
        return data

    def _misfit(self, n: int, reason: str) -> InputError:
        return InputError(f"{user_location()}: {self.entry_name}: argument {n} ({self.arguments[n].name}) {reason}")

    def _check_sizes(self, arrays: dict[str, np.ndarray], sizes: dict[str, int]) -> None:
        for b in self.kernel.original.buffers:
            for d, size in zip(b.shape, arrays[b.name].shape, strict=True):
                if d.op == "var" and sizes.get(d.name, size) != size:
                    raise InputError(f"{self.entry_name}: {d.name} is {sizes[d.name]}, but {b.name} has it as {size}")

    def _artifact(self) -> Artifact:
        scheduled = self.kernel.lowered.scheduled or self.kernel.lowered.func
        text = str(scheduled)
        if "call_packed" in text:
            raise ArtifactError(f"{self.entry_name} calls a Python function, which cannot be saved")
        host = CpuTarget.host()
        manifest = {
            "format": FORMAT,
            "kind": KIND,
            "name": self.entry_name,
            "target": str(self.target),
            "arguments": [[a.role, a.name, a.dtype] for a in self.arguments],
            "program": text,
            "triple": host.triple,
            "features": sorted(f[1:] for f in host.features.split(",") if f.startswith("+")),
        }
        settings = self.kernel.settings
        code = {"model": compile_source(self.kernel.source, settings=settings), "pool": pool_library(settings=settings)}
        return Artifact(manifest, self.kernel.source, code, np.zeros(0, np.uint8))


class DeviceModule:
    """The code of a device target, which is the CPU's here."""

    def __init__(self, host: Module):
        self._host = host

    @property
    def type_key(self) -> str:
        return self._host.target.kind.name

    def get_source(self, fmt: str = "") -> str:
        """The emitted code; formats as for `Module.get_source`."""
        return self._host.get_source(fmt)

    def save(self, file_name: str | Path, fmt: str = "") -> None:
        """Write the function into a file, as the host's module does."""
        self._host.save(file_name, fmt)


def build(
    inputs: Schedule | Lowered,
    args: Sequence[Any] | None = None,
    target: str | Target | dict[str, Any] | None = None,
    target_host: Any = None,
    name: str = "default_function",
    binds: Any = None,
) -> Module:
    """Compile a schedule into a function of `args`.

    Args:
        inputs: a schedule, or what `lower` returned for one.
        args: tensors and variables, in the order in which the function takes them.
        target: whose intrinsic rules apply, and whose device module is shown; the code is this machine's.

    Raises:
        InputError: the arguments lack an input or the output, or name something else.
        ScheduleError: a step of the schedule was refused.
        BuildError: something in the program has no code.
    """
    chosen = Target(target if target is not None else Target.current() or "llvm", host=target_host)
    if isinstance(inputs, Lowered):
        lowered = inputs
    else:
        if args is None:
            raise InputError(f"{user_location()}: build: args= is missing: the tensors that the function takes, in order")
        lowered = lower_for(inputs, args, name, chosen, complete=True)
    return Module(lowered.name, build_kernel(lowered.schedule), lowered.arguments, chosen)


def load_module(path: str | Path, fmt: str = "") -> Module:
    """A function that `save` or `export_library` wrote.

    Raises:
        ArtifactError: the file is missing, damaged, of another kind, or for a CPU with other features.
    """
    artifact = read_artifact(Path(path))
    manifest = artifact.manifest
    if manifest.get("kind") != KIND:
        raise ArtifactError(f"{path} is not a function saved by this module")
    require_machine(manifest["triple"], manifest["features"], str(path))
    func = parse_func(manifest["program"])
    lowered = lower_kernel(te.Schedule(func))
    text = artifact.source.removeprefix(f"{HEADER}\n\n")  # with the comments, which the program does not keep
    same = _code(lowered.emitted.text) == _code(text)
    kernel = Kernel(replace(lowered, emitted=replace(lowered.emitted, text=text)), func)
    if not same:
        raise ArtifactError(f"{path} was written by another version of tensorlang; build it again")
    if kernel.settings.jit:
        if not context.is_installed():
            context.install(artifact.libraries["pool"], kernel.settings.num_threads)
        kernel.attach(artifact.libraries["model"])
    arguments = [Argument(*a) for a in manifest["arguments"]]
    return Module(manifest["name"], kernel, arguments, Target(manifest["target"]))


def _code(text: str) -> list[str]:
    """The lines of emitted Python that are no comments."""
    return [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def bundle(output: str | Path, objects: Sequence[str | Path]) -> None:
    """One file from the files of saved functions: of one, which is complete by itself.

    Raises:
        ArtifactError: there is not exactly one, or it cannot be read.
    """
    if len(objects) != 1:
        raise ArtifactError(f"{user_location()}: a file holds one function here; save the {len(objects)} in files of their own")
    write_artifact(read_artifact(Path(objects[0])), Path(output))
