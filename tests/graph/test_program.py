"""The emitted program: shared kernels, prepared weights, places of values, and few statements in `main`."""

import numpy as np
import pytest

from tensorlang.build import lower_kernel
from tensorlang.errors import ModelError
from tensorlang.graph import Graph, GraphBuilder, TensorType, dim
from tensorlang.graph.passes import fuse, optimize
from tensorlang.graph.program import emit_program, to_size
from tensorlang.ir.expr import maximum, select, var
from tensorlang.runtime.sizes import describe, evaluate
from tests.e2e.models import pass_through, perceptron, two_dimensions


def program_of(graph):
    graph = optimize(graph)
    return emit_program(graph, fuse(graph), lambda func, name: lower_kernel(func, name=name))


def main_of(program):
    return program.source[program.source.index("def main") :].strip().split("\n")[1:]


def test_equal_layers_are_one_kernel_with_weights_of_their_own():
    program = program_of(perceptron(batch=4))
    assert len(program.kernels) == 2 and len(program.steps) == 4
    first, second, third, last = program.steps
    assert first.kernel == second.kernel == third.kernel != last.kernel
    weights = {a.value.value for s in (first, second, third) for a in s.args if a.place == "weights"}
    assert len(weights) == 6 and all(w % 64 == 0 for w in weights)


def test_main_has_a_statement_per_call():
    assert len(main_of(program_of(perceptron(batch=4)))) == 4
    assert len(main_of(program_of(perceptron()))) == 4 + 2  # the dimension, and one offset that is used twice


def test_results_are_computed_in_place():
    program = program_of(perceptron(batch=4))
    *_, hidden, probs = program.steps
    assert ("output", 1) in [(a.place, a.value.value) for a in hidden.args]
    assert [(a.place, a.value.value) for a in probs.args] == [("output", 1), ("output", 0)]


def test_symbolic_sizes_are_data():
    manifest = program_of(two_dimensions()).manifest
    assert manifest["dims"] == ["batch", "rows"]
    assert manifest["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": ["batch", "rows", 8]},
        {"name": "y", "dtype": "float32", "shape": ["rows", 8]},
    ]
    assert [o["shape"] for o in manifest["outputs"]] == [["batch", "rows", 8], ["batch", "rows"]]


def test_what_no_kernel_computes_is_copied_to_the_results():
    program = program_of(pass_through())
    copies = [s for s in program.steps if s.kernel.startswith("copy")]
    assert len(copies) == 4  # the input, the constant, the input reshaped, the second of two equal results
    places = [[(a.place, a.value.value) for a in s.args] for s in copies]
    assert [p[-1] for p in places] == [("output", 0), ("output", 1), ("output", 2), ("output", 4)]
    assert places[0][0] == places[2][0] == ("input", 0) and places[3][0] == ("output", 3)


def test_work_is_counted():
    first = program_of(perceptron(batch=4)).steps[0]
    assert first.flops.value == 4 * 16 * 16 * 2 + 4 * 16 * 2
    assert first.nbytes.value == 4 * (4 * 16 + 16 * 16 + 16 + 4 * 16)


def test_kernels_do_not_hide_the_vocabulary():
    builder = GraphBuilder()
    x = builder.input("x", TensorType.of("f32", (8, 8)))
    a = builder.add("sigmoid", [x])
    b = builder.add("transpose", [a], {"perm": (1, 0)})
    c = builder.add("sigmoid", [builder.add("add", [b, a])])
    program = program_of(Graph([x], builder.nodes, [a, c]))
    assert program.kernels and "def sigmoid(" not in program.source


def test_same_graph_same_bytes():
    import tests.e2e.models as models

    texts = []
    for _ in range(2):
        models.RANDOM = np.random.default_rng(7)
        program = program_of(perceptron(batch=2))
        texts.append((program.source, program.weights.tobytes(), str(program.manifest)))
    assert texts[0] == texts[1]


def test_a_dimension_that_no_shape_tells_is_refused():
    builder = GraphBuilder()
    n = dim("n")
    x = builder.input("x", TensorType.of("f32", (n * 2,)))
    out = builder.add("relu", [x])
    with pytest.raises(ModelError, match="dimension n cannot be read off any input's shape"):
        program_of(Graph([x], builder.nodes, [out], dims={"n": n}))


@pytest.mark.parametrize("n", [0, 1, 7])
def test_sizes_survive_as_data(n):
    v = var("n")
    e = select(v < 3, maximum(v * 4 - 1, 0), (v + 5) // 2 % 7)
    size = to_size(e, {v: "n"})
    assert evaluate(size, {"n": n}) == (max(n * 4 - 1, 0) if n < 3 else (n + 5) // 2 % 7)
    assert "n" in describe(size)


def test_a_size_that_the_inputs_do_not_tell_is_refused():
    with pytest.raises(ModelError, match="size n is not determined"):
        to_size(var("n") * 2, {})
