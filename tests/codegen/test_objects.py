"""A model's library of several objects: what is in each, that programs reach the kernels of all, and that models share them."""

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.codegen.native import compile as native
from tensorlang.codegen.native.source import split_functions
from tests.e2e.models import perceptron


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TENSORLANG_CACHE_DIR", str(tmp_path))


def test_units_are_kernels_with_what_only_they_call():
    functions = split_functions(tl.compile(perceptron(batch=4)).source)
    units = native.kernel_units(functions)
    assert len(units) > 1, "otherwise this tests nothing"
    assert [u[-1].kind for u in units] == ["kernel"] * len(units)
    assert {f.digest for u in units for f in u} == {f.digest for f in functions if f.kind != "program"}
    kinds = {f.name: f.kind for f in functions}
    for unit in units:
        private = {c for f in unit for c in f.callees if kinds[c] in ("chunk", "instruction")}
        assert private == {f.name for f in unit[:-1]}


def test_a_program_in_several_objects_computes_the_same_as_in_one(monkeypatch):
    graph = perceptron(batch=4)  # every call draws other weights
    exe = tl.compile(graph)
    feeds = {i.name: np.random.default_rng(0).random(i.shape, np.float32) for i in exe.inputs}
    results = exe.run(feeds)
    monkeypatch.setattr(native, "_objects", lambda source, functions, target, store: [
        native._machine_code(source, functions, target, "object")
    ])  # fmt: skip
    monkeypatch.setenv("TENSORLANG_CACHE", "0")
    whole = tl.compile(graph).run(feeds)
    for name, result in results.items():
        np.testing.assert_array_equal(result, whole[name])


def test_the_objects_do_not_depend_on_the_number_of_cores(monkeypatch):
    source = tl.compile(perceptron(batch=4)).source
    libraries = set()
    for cores in (1, 2):
        monkeypatch.setattr(native, "_cores", lambda cores=cores: cores)
        libraries.add(native.compile_source(source))
    assert len(libraries) == 1


class Memory(dict):
    def put(self, key: str, value: bytes) -> None:
        self[key] = value


def test_models_share_the_objects_of_equal_kernels(monkeypatch):
    monkeypatch.setattr(native, "_cores", lambda: 1)
    header = "from tensorlang.codegen.intrinsics import *\n\n\n"
    kernel = '@kernel("f32* x")\ndef {}(ctx, x):\n    x[0] = {}\n\n\n'
    main = '@program("i64 x")\ndef main(ctx, x):\n    {}(ctx, x)\n'
    compiled: list[str] = []
    monkeypatch.setattr(native.backend, "optimise", lambda module, target: compiled.append(str(module)))
    store = Memory()
    first = header + kernel.format("a", "x[1] + f32(1.0)") + kernel.format("b", "x[2]") + main.format("a")
    native.compile_source(first, store=store)
    assert len(compiled) == 3  # the program, and two kernels
    compiled.clear()
    second = header + kernel.format("other", "x[1] + f32(1.0)") + kernel.format("b", "x[3]") + main.format("other")
    native.compile_source(second, store=store)
    assert len(compiled) == 2  # the program, and the kernel that is new
    compiled.clear()
    native.compile_source(second, store=store)
    assert not compiled
