"""A library of several objects: which function goes where, and that programs reach the kernels of all of them."""

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.codegen.native import compile as native
from tensorlang.codegen.native.source import split_functions
from tests.e2e.models import perceptron


@pytest.fixture(autouse=True)
def small_objects(monkeypatch, tmp_path):
    monkeypatch.setenv("TENSORLANG_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(native, "OBJECT_CHARACTERS", 600)
    monkeypatch.setattr(native, "MOST_OBJECTS", 8)


def test_a_program_in_several_objects_computes_the_same(monkeypatch):
    graph = perceptron(batch=4)  # every call draws other weights
    exe = tl.compile(graph)
    functions = split_functions(exe.source)
    groups = native.partition(functions)
    assert len(groups) > 1, "otherwise this tests nothing"
    assert sorted({f.name for g in groups for f in g}) == sorted(f.name for f in functions)
    for group in groups:
        names = {f.name for f in group}
        for f in group:
            private = {c for c in f.callees if next(g for g in functions if g.name == c).kind in ("chunk", "instruction")}
            assert private <= names, "what only a kernel calls is beside it"
    random = np.random.default_rng(0)
    feeds = {i.name: random.random(i.shape, np.float32) for i in exe.inputs}
    results = exe.run(feeds)
    monkeypatch.setattr(native, "OBJECT_CHARACTERS", 1 << 30)
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
