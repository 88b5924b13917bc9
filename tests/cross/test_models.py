"""Whole models on the machines that they are compiled for: MLP, MobileNetV2 and MiniLM, against this machine's own build."""

import numpy as np
import pytest

import tensorlang as tl
from bench import cache, models, zoo
from tests.cross.machines import MACHINES, compile_for, run_on

pytestmark = pytest.mark.deploy


def _mlp():
    return models.path("mlp"), models.inputs("mlp", 0)


def _mobilenet():
    return models.path("mobilenet_v2"), models.inputs("mobilenet_v2", 0)


def _minilm():
    try:
        return zoo.path("minilm"), zoo.inputs("minilm", 0)
    except cache.BenchError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module", params=[_mlp, _mobilenet, _minilm], ids=["mlp", "mobilenet_v2", "minilm"])
def model(request):
    """The graph with its sizes fixed, what it is fed, and what this machine makes of that."""
    path, feeds = request.param()
    graph = tl.load_model(str(path), shapes={name: array.shape for name, array in feeds.items()})
    arrays = [feeds[v.name] for v in graph.inputs]
    outputs = tl.compile(graph)(*arrays)
    return graph, arrays, outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.target)
def test_a_model_elsewhere_gives_what_it_gives_here(model, machine, tmp_path):
    if tool := machine.missing:
        pytest.skip(f"{tool} is not installed")
    graph, feeds, want = model
    got = run_on(machine, compile_for(graph, machine.target), feeds, tmp_path / "m", threads=2)
    for found, expected in zip(got, want, strict=True):
        bound = 2e-4 * np.abs(expected).max() + 2e-6
        assert np.abs(found - expected).max() <= bound
