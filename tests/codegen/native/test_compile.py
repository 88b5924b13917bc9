"""Emitted modules to machine code: calls, programs, statuses, sharing, caching, other targets."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tensorlang.build import compile_and_load, compile_source
from tensorlang.codegen.intrinsics import Pointer
from tensorlang.codegen.native import CpuTarget, frontend, run_plain
from tensorlang.errors import BuildError, InternalError
from tensorlang.runtime.context import context_address

HEADER = "from tensorlang.codegen.intrinsics import *\n"
MODEL = (
    HEADER
    + """
@chunk("f32* x, f32* y, f32 by")
def scale_p0(ctx, begin, end, x, y, by):
    for i in range(begin, end):
        y[i] = x[i] * by

@kernel("f32* x, f32* y, i64 n, f32 by")
def scale(ctx, x, y, n, by):
    parallel_for(scale_p0, ctx, n, x, y, by)

@kernel("f32* x, f32* y, i64 n, bool negate")
def shift(ctx, x, y, n, negate):
    for i in range(n):
        if negate:
            y[i] = f32(1.0) - x[i]
        else:
            y[i] = x[i] + f32(1.0)

@program("i64 arena, i64 weights, i64* inputs, i64* outputs, i64* dims")
def main(ctx, arena, weights, inputs, outputs, dims):
    n = dims[0]
    check(n > 0, 3)
    scale(ctx, inputs[0], arena + 64, n, f32(2.0))
    k = 0
    while k < dims[1]:
        shift(ctx, arena + 64, arena + 64, n, False)
        k += 1
    if n > 4:
        scale(ctx, weights, arena + 64, 2, f32(1.0))
    temporary = scratch(ctx, n * 4)
    shift(ctx, arena + 64, temporary, n, True)
    shift(ctx, temporary, outputs[0], n, True)
    release(ctx, temporary)
"""
)


def run_main(library, n, repeats):
    arena, weights = np.zeros(64, np.float32), np.array([50, 60], np.float32)
    x, y, dims = np.arange(8, dtype=np.float32), np.zeros(8, np.float32), np.array([n, repeats])
    inputs, outputs = np.array([x.ctypes.data]), np.array([y.ctypes.data])
    status = library["main"](
        context_address(), arena.ctypes.data, weights.ctypes.data, inputs.ctypes.data, outputs.ctypes.data,
        dims.ctypes.data,
    )  # fmt: skip
    return status, y


@pytest.mark.parametrize("n", [3, 8])
def test_a_program_natively_and_plainly(settings, tmp_path, n):
    status, y = run_main(compile_and_load(MODEL, settings=settings), n, 2)
    assert status == 0
    expected = np.arange(8, dtype=np.float32) * 2 + 2
    if n > 4:
        expected[:2] = [50, 60]
    expected[n:] = 0
    np.testing.assert_array_equal(y, expected)

    plain = np.zeros(8, np.float32)
    namespace = run_plain(MODEL, tmp_path / "model.py")
    namespace["main"](
        None, Pointer.of(np.zeros(256, np.uint8)), Pointer.of(np.array([50, 60], np.float32)),
        [np.arange(8, dtype=np.float32)], [plain], [n, 2],
    )  # fmt: skip
    np.testing.assert_array_equal(plain, expected)


def test_a_check_leaves_with_its_status(settings, tmp_path):
    assert run_main(compile_and_load(MODEL, settings=settings), 0, 0)[0] == 3
    with pytest.raises(RuntimeError, match="status 3"):
        run_plain(MODEL, tmp_path / "m.py")["main"](None, None, None, [], [], [0, 0])


def test_objects_ask_for_nothing_but_libc(settings):
    text = compile_source(MODEL, emit="llvm", settings=settings).decode()
    declared = {line.split("@")[1].split("(")[0] for line in text.splitlines() if line.startswith("declare")}
    assert {name for name in declared if not name.startswith("llvm.")} <= {"memset", "memcpy"}


def test_only_kernels_and_programs_are_exported(settings):
    text = compile_source(MODEL, emit="llvm", settings=settings).decode()
    exported = {
        line.split("@")[1].split("(")[0] for line in text.splitlines() if line.startswith("define ") and "internal" not in line
    }
    assert exported == {"scale", "shift", "main"}


def test_equal_kernels_are_front_ended_once(settings, monkeypatch):
    lowered = []
    original = frontend.lower_function
    monkeypatch.setattr(frontend, "lower_function", lambda f, d, c, p: lowered.append(d.name) or original(f, d, c, p))
    body = "    # {comment}\n    for i in range(n):\n        x[i] = x[i] + f32(1.0)\n\n"
    twins = "".join(f'@kernel("f32* x, i64 n")\ndef k{k}(ctx, x, n):\n' + body.format(comment=k) for k in range(3))
    library = compile_and_load(HEADER + twins, settings=settings)
    x = np.zeros(4, np.float32)
    for k in range(3):
        assert library[f"k{k}"](context_address(), x.ctypes.data, 4) == 0
    assert (x == 3).all()
    assert [name for name in lowered if name.startswith("k")] == ["k0"]


def test_same_source_same_bytes(settings, tmp_path):
    from dataclasses import replace

    first = compile_source(MODEL, settings=replace(settings, cache=False))
    assert compile_source(MODEL, settings=replace(settings, cache=False)) == first


def test_a_cached_module_loads_without_numba(settings):
    code = f"""
import sys
from tensorlang.build import compile_and_load
assert len(compile_and_load({MODEL!r})) == 3
print("numba" in sys.modules)
"""
    environment = {**os.environ, "TENSORLANG_CACHE_DIR": str(settings.cache_dir)}
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, check=True, env=environment, capture_output=True, text=True) for _ in range(2)]
    assert [run.stdout for run in runs] == ["True\n", "False\n"]


def test_comments_and_layout_do_not_change_the_key(settings):
    compile_source(MODEL, settings=settings)
    files = sorted(settings.cache_dir.glob("native/*/*"))
    compile_source(MODEL.replace("\n    k = 0", "\n\n    # a comment\n    k = 0   # zero"), settings=settings)
    assert sorted(settings.cache_dir.glob("native/*/*")) == files


def test_a_damaged_cache_is_rebuilt(settings):
    expected = compile_source(MODEL, settings=settings)
    for path in settings.cache_dir.glob("native/*/*"):
        path.write_bytes(path.read_bytes()[:-10])
    assert compile_source(MODEL, settings=settings) == expected


@pytest.mark.parametrize(
    ("triple", "features", "machine"),
    [
        ("x86_64-unknown-linux-gnu", "", 62),
        ("aarch64-unknown-linux-gnu", "", 183),
        ("riscv64-unknown-linux-gnu", "+m,+a,+f,+d,+c", 243),
    ],
)
def test_other_targets(settings, triple, features, machine):
    code = compile_source(MODEL, CpuTarget.of(triple, "", features), settings=settings)
    assert code[:4] == b"\x7fELF"
    assert int.from_bytes(code[18:20], "little") == machine


def test_loading_an_object_of_another_machine_is_a_build_error(settings):
    from tensorlang.runtime.loader import load_library

    with pytest.raises(BuildError):
        load_library(b"\x7fELF garbage", {"main": ()})


def test_what_numba_cannot_type_is_named(settings):
    source = HEADER + '@kernel("f32* x")\ndef wrong(ctx, x):\n    x[0] = vload(x, 0, 16)\n'
    with pytest.raises(InternalError, match="emitted function wrong does not compile"):
        compile_source(source, settings=settings)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('@kernel("f32* x")\nx = 1\n', "a def, expected"),
        ('@kernel("f33* x")\ndef f(ctx, x):\n    pass\n', "malformed parameter"),
        ('@kernel("i64 n")\ndef f(ctx, n):\n    pass\n@kernel("i64 n")\ndef f(ctx, n):\n    pass\n', "defined twice"),
    ],
)
def test_malformed_modules(settings, source, message):
    with pytest.raises(InternalError, match=message):
        compile_source(HEADER + source, settings=settings)


def test_plain_text_is_a_real_file(settings, tmp_path):
    path = tmp_path / "module.py"
    namespace = run_plain(MODEL, path)
    assert path.read_text() == MODEL
    assert namespace["main"].function.__code__.co_filename == str(path)
    with pytest.raises(IndexError) as caught:
        namespace["shift"](None, np.zeros(2, np.float32), np.zeros(2, np.float32), 3, True)
    assert str(path) in str(caught.traceback[-1].path)


def test_one_name_with_values_of_two_types(settings):
    source = HEADER + (
        '@kernel("f32* x, f32* y")\ndef f(ctx, x, y):\n    t = vload(x, 0, 16)\n    vstore(y, 0, t)\n'
        "    t = x[3]\n    y[0] = t\n"
    )
    x, y = np.arange(16, dtype=np.float32), np.zeros(16, np.float32)
    compile_and_load(source, settings=settings)["f"](context_address(), x.ctypes.data, y.ctypes.data)
    np.testing.assert_array_equal(y, [3, *range(1, 16)])
