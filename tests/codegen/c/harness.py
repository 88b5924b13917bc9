"""Emitted C as programs of their own: inputs inside as constant arrays, outputs to stdout as bytes. The same program runs
on this machine and, made by a cross compiler, under an emulator."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tensorlang.build import LoweredKernel, evaluate
from tensorlang.codegen.c.files import array_text
from tensorlang.codegen.c.helpers import needs_math_h, prelude
from tensorlang.codegen.c.printer import C_TYPES
from tensorlang.ir.dtype import dtype

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")


@dataclass(frozen=True)
class Machine:
    """A C compiler and how what it makes is run."""

    name: str
    compiler: str
    run: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def missing(self) -> str | None:
        return next((t for t in (self.compiler, *self.run[:1]) if shutil.which(t) is None), None)


HERE = Machine("here", "gcc")
ARM = Machine("arm", "arm-linux-gnueabihf-gcc", ("qemu-arm",), ("-static",))
# Overflow, shifts, conversions out of range, reads beside arrays: C leaves them undefined, and the program stops here.
CHECKED = Machine("checked", "gcc", (), ("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"))
EACH = [
    pytest.param(HERE, marks=pytest.mark.skipif(HERE.missing() is not None, reason="no gcc")),
    pytest.param(CHECKED, marks=[pytest.mark.deploy, pytest.mark.skipif(HERE.missing() is not None, reason="no gcc")]),
    pytest.param(ARM, marks=[pytest.mark.deploy, pytest.mark.skipif(ARM.missing() is not None, reason=f"no {ARM.missing()}")]),
]


def run_c(files: Mapping[str, str], folder: Path, machine: Machine, optimise: str = "-O1") -> bytes:
    """What the program of `files` writes to stdout."""
    for name, text in files.items():
        (folder / name).write_text(text)
    sources = [n for n in files if n.endswith(".c")]
    command = [machine.compiler, *STRICT, optimise, *machine.flags, "-o", "program", *sources, "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ran = subprocess.run([*machine.run, "./program"], cwd=folder, capture_output=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr[-1000:]
    return ran.stdout


def split(data: bytes, like: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The arrays that a program wrote one behind the other."""
    found, at = [], 0
    for array in like:
        found.append(np.frombuffer(data, array.dtype, array.size, at).reshape(array.shape))
        at += array.nbytes
    assert at == len(data)
    return found


def model_program(
    files: Mapping[str, str], name: str, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]
) -> dict[str, str]:
    """A model's files with a main function that feeds `inputs` and writes arrays like `outputs`."""
    lines = ["#include <stdio.h>", f'#include "{name}.h"']
    lines += ["static " + array_text(f"in{n}", a) for n, a in enumerate(inputs)]
    lines += [f"static {_type(a)} out{n}[{max(1, a.size)}];" for n, a in enumerate(outputs)]
    arguments = ", ".join([*(f"in{n}" for n in range(len(inputs))), *(f"out{n}" for n in range(len(outputs)))])
    lines += ["int main(void) {", f"    if ({name}_run({arguments}) != 0) return 1;"]
    lines += [f"    fwrite(out{n}, {a.itemsize}, {a.size}, stdout);" for n, a in enumerate(outputs)]
    rest = {n: t for n, t in files.items() if not n.endswith("_main.c")}
    return {**rest, "program.c": "\n".join([*lines, "    return 0;", "}"]) + "\n"}


def kernel_program(kernels: Sequence[tuple[LoweredKernel, Mapping[str, np.ndarray]]]) -> tuple[str, list[np.ndarray]]:
    """One C file that runs kernels on arrays by parameter name, and arrays like those that it writes, in order."""
    text = "\n".join(k.emitted.text for k, _ in kernels)
    head, main = [], []
    outputs: list[np.ndarray] = []
    for n, (kernel, arrays) in enumerate(kernels):
        names = []
        results = {b.name for b in kernel.func.outputs}
        for b in kernel.func.buffers:
            name, array = f"a{n}_{b.name}", arrays[b.name]
            if b.name in results:
                head.append(f"static {_type(array)} {name}[{max(1, array.size)}];")
                outputs.append(array)
            else:
                head.append("static " + array_text(name, array))
            names.append(name)
        types = {name: t.rstrip("*") for t, name in kernel.emitted.params}
        for name, nbytes in kernel.emitted.workspace:
            count = evaluate(nbytes, {}) // dtype(types[name]).nbytes
            head.append(f"static {C_TYPES[types[name]]} s{n}_{name}[{max(1, count)}];")
            names.append(f"s{n}_{name}")
        main.append(f"    {kernel.emitted.name}({', '.join(names)});")
        main += [
            f"    fwrite(a{n}_{b.name}, {arrays[b.name].itemsize}, {arrays[b.name].size}, stdout);" for b in kernel.func.outputs
        ]
    helpers = prelude(text)
    includes = ["#include <stdint.h>", "#include <stdio.h>"]
    if any(map(needs_math_h, (helpers, text, *head))):
        includes.append("#include <math.h>")
    return "\n".join([*includes, helpers, text, *head, "int main(void) {", *main, "    return 0;", "}"]) + "\n", outputs


def _type(array: np.ndarray) -> str:
    return C_TYPES[dtype(array.dtype).storage.name]
