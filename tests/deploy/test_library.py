"""Shared and static libraries: what they import, their C interface, and that Python loads them again."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.codegen.library.archive import static_library
from tensorlang.codegen.library.interface import Status, checksum, padded
from tensorlang.errors import ArtifactError, BuildError
from tensorlang.runtime.executable import Executable
from tests.deploy.libraries import DRIVER, MODELS, build_driver, drive, gcc, parsed, run
from tests.e2e import models

LIBC = {
    "aligned_alloc", "clock_gettime", "close", "free", "lseek", "memcpy", "memmove", "memset", "mmap", "munmap", "open",
    "pthread_create", "pthread_join", "pthread_sigmask", "syscall", "sysconf",
}  # fmt: skip
VALGRIND = ("valgrind", "-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=all", "--errors-for-leak-kinds=all")
FEEDS = {"x": np.random.default_rng(0).standard_normal((5, 16), dtype=np.float32)}

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
needs_valgrind = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is missing")


@pytest.fixture(scope="module")
def perceptron() -> Executable:
    return tl.compile(models.perceptron())


@pytest.fixture(scope="module")
def library(perceptron: Executable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`libmlp.so`, with its weights inside, and beside it as well."""
    folder = tmp_path_factory.mktemp("library")
    perceptron.export_library(folder / "libmlp.so", weights="beside")
    perceptron.export_library(folder / "libmlp.so")
    return folder / "libmlp.so"


def dynamic_symbols(library: Path) -> dict[str, bool]:
    """Name -> whether the library defines it."""
    text = subprocess.run(["nm", "-D", str(library)], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1]: line.split()[-2] != "U" for line in text.splitlines()}


def test_files_beside_the_library(library: Path) -> None:
    names = {p.name for p in library.parent.iterdir()}
    assert {"libmlp.so", "libmlp.h", "libmlp.json", "libmlp_main.c", "libmlp.weights"} <= names
    described = json.loads(library.with_suffix(".json").read_text())
    assert described["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 16], "allocated_by_library": False}]
    assert [t["name"] for t in described["outputs"]] == ["probs", "hidden"]


@needs_gcc
def test_imports_libc_alone_and_exports_its_prefix_alone(library: Path) -> None:
    symbols = dynamic_symbols(library)
    assert {name for name, defined in symbols.items() if not defined} <= LIBC
    assert all(name.startswith("tl_mlp_") for name, defined in symbols.items() if defined)


def test_the_same_bytes_again(perceptron: Executable, library: Path, tmp_path: Path) -> None:
    for written in perceptron.export_library(tmp_path / library.name):
        assert written.read_bytes() == (library.parent / written.name).read_bytes()


def test_python_loads_the_library(perceptron: Executable, library: Path, tmp_path: Path) -> None:
    loaded = tl.load(library)
    assert [str(t) for t in loaded.inputs] == [str(t) for t in perceptron.inputs]
    for name, value in perceptron.run(FEEDS).items():
        np.testing.assert_array_equal(loaded.run(FEEDS)[name], value)
    loaded.save(tmp_path / "again.tl")
    np.testing.assert_array_equal(tl.load(tmp_path / "again.tl").run(FEEDS)["probs"], perceptron.run(FEEDS)["probs"])


def test_python_loads_a_library_with_its_weights_beside(perceptron: Executable, tmp_path: Path) -> None:
    perceptron.export_library(tmp_path / "m.so", weights="beside")
    np.testing.assert_array_equal(tl.load(tmp_path / "m.so").run(FEEDS)["probs"], perceptron.run(FEEDS)["probs"])
    weights = bytearray((tmp_path / "m.weights").read_bytes())
    weights[10] ^= 1
    (tmp_path / "m.weights").write_bytes(weights)
    with pytest.raises(ArtifactError, match="checksum"):
        tl.load(tmp_path / "m.so")


@pytest.mark.parametrize("cut", [10, 100, 5000, -1000])
def test_a_damaged_library_is_refused(library: Path, tmp_path: Path, cut: int) -> None:
    (tmp_path / "cut.so").write_bytes(library.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match="cut.so"):
        tl.load(tmp_path / "cut.so")


def test_refusals(perceptron: Executable, library: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="suffix"):
        perceptron.export_library(tmp_path / "m.dll")
    with pytest.raises(ArtifactError, match="inside or beside"):
        perceptron.export_library(tmp_path / "m.so", weights="elsewhere")
    with pytest.raises(BuildError, match="nonsense"):
        perceptron.export_library(tmp_path / "m.so", target="nonsense")
    with pytest.raises(ArtifactError, match="compile the model"):
        tl.load(library).export_library(tmp_path / "m.so", target="x86-64-v3")
    assert not list(tmp_path.iterdir())


@needs_gcc
def test_the_example_program(library: Path, tmp_path: Path) -> None:
    folder = library.parent
    gcc(folder, "-o", str(tmp_path / "main"), "libmlp_main.c", "libmlp.so", f"-Wl,-rpath,{folder}")
    lines = run(tmp_path, "./main").splitlines()
    assert [line.split()[0] for line in lines] == ["probs", "hidden"]
    assert lines == run(tmp_path, "./main").splitlines()


@needs_gcc
def test_a_c_program_gets_what_python_gets(perceptron: Executable, library: Path) -> None:
    """Two instances, four threads at once, own and given workspace, refusals: see driver.c."""
    build_driver(library.parent, "libmlp", "libmlp.so")
    drive(library.parent, perceptron, FEEDS)


@needs_gcc
def test_a_static_library(perceptron: Executable, tmp_path: Path) -> None:
    perceptron.export_library(tmp_path / "libmlp.a", weights="beside")
    perceptron.export_library(tmp_path / "libmlp.a")
    build_driver(tmp_path, "libmlp", "libmlp.a")
    drive(tmp_path, perceptron, FEEDS)


@needs_gcc
def test_two_libraries_in_one_program(perceptron: Executable, tmp_path: Path) -> None:
    for form in ("a", "so"):
        perceptron.export_library(tmp_path / f"libone.{form}")
        perceptron.export_library(tmp_path / f"libtwo.{form}")
    (tmp_path / "both.c").write_text(
        '#include "libone.h"\n#include "libtwo.h"\nint main(void) {\n  tl_one *a;\n  tl_two *b;\n'
        "  int failed = tl_one_create(&a) || tl_two_create(&b);\n"
        "  tl_one_destroy(a);\n  tl_two_destroy(b);\n  return failed;\n}\n"
    )
    for one, two in (("libone.a", "libtwo.a"), ("libone.so", "libtwo.so"), ("libone.a", "libtwo.so")):
        gcc(tmp_path, "-o", "both", "both.c", one, two, f"-Wl,-rpath,{tmp_path}", "-lpthread")
        run(tmp_path, "./both")


@needs_gcc
def test_a_library_comes_and_goes(perceptron: Executable, tmp_path: Path) -> None:
    """Null pointers, wrong sizes, dlclose and dlopen again, forks: see lifecycle.c."""
    perceptron.export_library(tmp_path / "libmlp.so", weights="beside")
    perceptron.export_library(tmp_path / "libmlp.so")
    gcc(tmp_path, "-o", "lifecycle", str(DRIVER.with_name("lifecycle.c")), "-ldl", "-lpthread")
    (line,) = run(tmp_path, "./lifecycle", "./libmlp.so", "tl_mlp", "libmlp.weights", "5", "16").splitlines()
    wanted = perceptron.run({"x": np.zeros((5, 16), np.float32)})
    told = sum(float((np.arange(1, a.size + 1) * a.ravel().astype(np.float64)).sum()) for a in wanted.values())
    assert float(line) == pytest.approx(told, rel=1e-6)


@needs_gcc
@pytest.mark.parametrize("name", MODELS)
def test_open_sizes_control_flow_and_results_of_unknown_size(name: str, tmp_path: Path) -> None:
    text, feeds = MODELS[name]
    exe = tl.compile(parsed(text))
    exe.export_library(tmp_path / "libm.so", weights="beside")
    exe.export_library(tmp_path / "libm.so")
    build_driver(tmp_path, "libm", "libm.so")
    gcc(tmp_path, "-o", "main", "libm_main.c", "libm.so", f"-Wl,-rpath,{tmp_path}")
    run(tmp_path, "./main")
    for feed in feeds:
        drive(tmp_path, exe, feed)
        loaded = tl.load(tmp_path / "libm.so").run(feed)
        for output, value in exe.run(feed).items():
            np.testing.assert_array_equal(loaded[output], value)


@pytest.mark.parametrize("batch", [5, None])
def test_input_shapes_may_be_null_where_all_sizes_are_fixed(tmp_path: Path, batch: int | None) -> None:
    exe = tl.compile(models.perceptron(), shapes={"batch": batch} if batch else None)
    exe.export_library(tmp_path / "libm.so")
    library, instance, nbytes = ctypes.CDLL(str(tmp_path / "libm.so")), ctypes.c_void_p(), ctypes.c_int64()
    assert library.tl_m_create(ctypes.byref(instance)) == 0
    status = library.tl_m_workspace_bytes(instance, None, ctypes.byref(nbytes))
    if batch is None:
        assert status == Status.NO_SHAPES
    else:
        x, wanted = FEEDS["x"], exe.run(FEEDS)
        got = [np.empty_like(array) for array in wanted.values()]
        inputs = (ctypes.c_void_p * 1)(x.ctypes.data)
        outputs = (ctypes.c_void_p * len(got))(*(a.ctypes.data for a in got))
        assert (status, library.tl_m_run(instance, inputs, None, outputs, None, None, ctypes.c_int64(0))) == (0, 0)
        for array, expected in zip(got, wanted.values(), strict=True):
            np.testing.assert_array_equal(array, expected)
    library.tl_m_destroy(instance)


@pytest.mark.deploy
@needs_gcc
@needs_valgrind
def test_valgrind_finds_nothing(perceptron: Executable, tmp_path: Path) -> None:
    """valgrind does not know AVX-512: the libraries are for x86-64-v3."""
    perceptron.export_library(tmp_path / "libmlp.so", target="x86-64-v3", weights="beside")
    perceptron.export_library(tmp_path / "libmlp.so", target="x86-64-v3")
    build_driver(tmp_path, "libmlp", "libmlp.so")
    drive(tmp_path, perceptron, FEEDS, VALGRIND)


@pytest.mark.deploy
@needs_gcc
@needs_valgrind
@pytest.mark.parametrize("name", MODELS)
def test_valgrind_and_control_flow(name: str, tmp_path: Path) -> None:
    text, feeds = MODELS[name]
    exe = tl.compile(parsed(text))
    exe.export_library(tmp_path / "libm.so", target="x86-64-v3")
    gcc(tmp_path, "-o", "main", "libm_main.c", "libm.so", f"-Wl,-rpath,{tmp_path}")
    run(tmp_path, *VALGRIND, "./main")


def test_an_archive_lists_its_members() -> None:
    archive = static_library({"a.o": b"odd", "b.o": b"even"}, {"a.o": ["one"], "b.o": ["two"]})
    assert archive.startswith(b"!<arch>\n") and archive.count(b"`\n") == 3
    with pytest.raises(BuildError, match="15"):
        static_library({"a_name_too_long.o": b""}, {})


def test_the_checksum_sees_order_and_every_bit() -> None:
    data = padded(np.arange(200, dtype=np.uint8))
    assert data.nbytes == 256
    assert checksum(data) == checksum(data.copy())
    for position in (0, 100, 255):
        other = data.copy()
        other[position] ^= 128
        assert checksum(other) != checksum(data)
    words = data.copy().view(np.int64)
    words[[0, 1]] = words[[1, 0]]
    assert checksum(words.view(np.uint8)) != checksum(data)
