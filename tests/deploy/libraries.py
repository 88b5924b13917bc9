"""Models exported as libraries, compiled into C programs with gcc, and run."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx.parser

from tensorlang.runtime.executable import Executable

DRIVER = Path(__file__).with_name("driver.c")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1")
HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + text)


# name -> model, feeds: open sizes, control flow, and results whose sizes only a run tells
MODELS: dict[str, tuple[str, list[dict[str, np.ndarray]]]] = {
    "branches": (
        """branches (float[N] x, bool c) => (float[M] y, float[N] z) {
             y = If (c) <then_branch = t () => (float[A] a) { a = Concat <axis = 0> (x, x) },
                         else_branch = e () => (float[B] b) { b = Neg(x) }>
             z = Tanh(x)
           }""",
        [{"x": np.array([1, 2, 3], np.float32), "c": np.array(c)} for c in (True, False)],
    ),
    "loop": (
        """loop (int64 n, float[K] x) => (float[K] s, float[T, K] ys) {
             t = Constant <value = bool {1}> ()
             s, ys = Loop (n, t, x) <body = b (int64 i, bool go, float[K] a) => (bool go2, float[K] c, float[K] d) {
               go2 = Identity(go)
               f = Cast <to = 1> (i)
               c = Add(a, f)
               d = Mul(c, x)
             }>
           }""",
        [{"n": np.array(n), "x": np.array([1, 2], np.float32)} for n in (5, 0, 40)],
    ),
    "nonzero": (
        """nonzero (float[A, B] x) => (int64[2, K] y, float[B, A] z) {
             y = NonZero(x)
             z = Transpose <perm = [1, 0]> (x)
           }""",
        [{"x": np.array([[0, 1, 2], [3, 0, 0]], np.float32)}, {"x": np.zeros((2, 3), np.float32)}],
    ),
    "quantised": (
        """quantised (float[N, 4] x) => (float[N, 3] y) {
             scale = Constant <value = float {0.125}> ()
             zero = Constant <value = uint8 {100}> ()
             w = Constant <value = int8[4, 3] {1, -2, 3, -4, 5, -6, 127, -128, 9, -10, 11, -12}> ()
             q = QuantizeLinear(x, scale, zero)
             sums = MatMulInteger(q, w, zero)
             z = Cast <to = 1> (sums)
             y = Mul(z, scale)
           }""",
        [{"x": np.linspace(-20, 30, 4 * n, dtype=np.float32).reshape(n, 4)} for n in (1, 7)],
    ),
    "recurrent": (
        """recurrent (float[T, B, 3] x, float[1, 8, 3] w, float[1, 8, 2] r) => (float[T, 1, B, 2] y, float[1, B, 2] h) {
             y, h = LSTM <hidden_size = 2> (x, w, r)
           }""",
        [
            {name: np.sin(np.arange(np.prod(shape), dtype=np.float32) + k).reshape(shape)
             for k, (name, shape) in enumerate({"x": (5, batch, 3), "w": (1, 8, 3), "r": (1, 8, 2)}.items())}
            for batch in (1, 4)
        ],
    ),
}  # fmt: skip


def gcc(folder: Path, *arguments: str, compiler: str = "gcc") -> None:
    done = subprocess.run([compiler, *STRICT, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def run(folder: Path, *command: str) -> str:
    """The output of a program that runs in an empty environment."""
    done = subprocess.run(command, cwd=folder, env={}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_driver(folder: Path, stem: str, library: str, compiler: str = "gcc") -> None:
    """The driver as `folder`/driver, with a library that lies there."""
    gcc(
        folder, "-o", "driver", f"-DP=tl_{stem.removeprefix('lib')}", "-include", f"{stem}.h", str(DRIVER), library,
        f"-Wl,-rpath,{folder}", "-lpthread", compiler=compiler,
    )  # fmt: skip


def drive(folder: Path, exe: Executable, feeds: Mapping[str, np.ndarray], before: Sequence[str] = ()) -> None:
    """Run the driver and compare what it wrote with what Python computes."""
    wanted = exe.run(feeds)
    sizes: list[str] = []
    for k, tensor in enumerate(exe.inputs):
        array = np.ascontiguousarray(feeds[tensor.name])
        sizes += map(str, feeds[tensor.name].shape)
        (folder / f"in{k}.bin").write_bytes(array.tobytes())
    weights = next(folder.glob("*.weights"))
    run(folder, *before, "./driver", weights.name, *sizes)
    for k, (name, array) in enumerate(wanted.items()):
        got = np.frombuffer((folder / f"out{k}.bin").read_bytes(), array.dtype)
        if before:
            bound = 2e-4 * float(np.abs(array).max(initial=0)) + 2e-6  # another machine's order and rounding
            np.testing.assert_allclose(got, array.ravel(), rtol=0, atol=bound, err_msg=name)
        else:
            np.testing.assert_array_equal(got, array.ravel(), err_msg=name)
