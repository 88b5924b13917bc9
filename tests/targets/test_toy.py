"""A third party's target, complete: operators and an MLP, by its own stack machine."""

import numpy as np
import pytest

import tensorlang as tl
from tensorlang import te
from tensorlang.codegen.target import find_target, target_names
from tensorlang.errors import BuildError, TensorlangError
from tensorlang.graph.generator import find_generator
from tensorlang.graph.ir import Graph, TensorType
from tensorlang.graph.ops import elementwise  # noqa: F401 - fills the registry
from tensorlang.graph.registry import GraphBuilder

rng = np.random.default_rng(0)


@te.compute
def dense(x: te.f32["M", "K"], w: te.f32["N", "K"], b: te.f32["N"]):  # noqa: F821
    (M, K), (N, _) = x.shape, w.shape
    k = te.reduce_axis(K, name="k")
    y = te.compute((M, N), lambda i, j: te.sum(x[i, k] * w[j, k], axis=k), name="y")
    return te.compute((M, N), lambda i, j: te.maximum(y[i, j] + b[j], 0), name="out")


def values(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def test_the_toy_target_is_found_by_its_entry_point(toy):
    assert toy in target_names()
    assert find_target("toy").language == "stack code"


def test_a_kernel_is_stack_code_and_right(toy):
    kernel = tl.build(dense, target="toy", shapes={"M": 3, "N": 4, "K": 5})
    x, w, b = values(3, 5), values(4, 5), values(4)
    np.testing.assert_allclose(kernel(x, w, b), np.maximum(x @ w.T + b, 0), rtol=1e-5, atol=1e-6)
    assert kernel.source.startswith("kernel dense\npush i64 12\nallocate f32 y_0")
    assert list(kernel.stages)[-1] == "stack code"


def test_open_sizes_are_arguments(toy):
    kernel = tl.build(dense, target="toy")
    for m, n, k in ((2, 3, 4), (1, 5, 2)):
        x, w, b = values(m, k), values(n, k), values(n)
        np.testing.assert_allclose(kernel(x, w, b), np.maximum(x @ w.T + b, 0), rtol=1e-5, atol=1e-6)


def test_a_users_schedule_goes_down_the_same_road(toy):
    def rule(s):
        i, j = s["y"].axis
        s["y"].reorder(j, i)

    kernel = tl.build(dense, target="toy", schedule=rule, shapes={"M": 2, "N": 2, "K": 3})
    x, w, b = values(2, 3), values(2, 3), values(2)
    np.testing.assert_allclose(kernel(x, w, b), np.maximum(x @ w.T + b, 0), rtol=1e-5, atol=1e-6)


def test_what_the_target_cannot_show_is_refused(toy):
    kernel = tl.build(dense, target="toy", shapes={"M": 1, "N": 1, "K": 1})
    with pytest.raises(BuildError, match="there is no asm to show"):
        _ = kernel.asm
    assert kernel.explain() is not None
    assert kernel.time(values(1, 1), values(1, 1), values(1), repeats=2) > 0


def graph_of(op, inputs, attrs=None):
    """A graph of one operator."""
    b = GraphBuilder()
    given = [b.input(f"x{n}", TensorType.of(a.dtype, a.shape)) for n, a in enumerate(inputs)]
    out = b.add(op, given, attrs)
    return Graph(given, b.nodes, list(out) if isinstance(out, tuple) else [out], op)


OPERATORS = {
    "add": (lambda: [values(2, 3), values(3)], {}),
    "relu": (lambda: [values(2, 3)], {}),
    "sigmoid": (lambda: [values(5)], {}),
    "erf": (lambda: [values(5)], {}),
    "matmul": (lambda: [values(2, 3, 4), values(4, 2)], {}),
    "transpose": (lambda: [values(2, 3, 4)], {"perm": (2, 0, 1)}),
    "reduce_sum": (lambda: [values(2, 3, 4)], {"axes": (1,), "keepdims": False}),
    "softmax": (lambda: [values(3, 4)], {"axis": 1}),
    "concat": (lambda: [values(2, 3), values(2, 1)], {"axis": 1}),
    "where": (lambda: [values(4) > 0, values(4), values(4)], {}),
}


@pytest.mark.parametrize("op", OPERATORS)
def test_operators(toy, op):
    make, attrs = OPERATORS[op]
    inputs = make()
    graph = graph_of(op, inputs, attrs)
    exe = tl.compile(graph, target="toy")
    expected = tl.compile(graph)(*inputs)
    np.testing.assert_allclose(exe(*inputs), expected, rtol=1e-5, atol=1e-6)
    assert exe._artifact.manifest["hosted"]["counts"]["kernels on cpu"] == 0
    assert exe._artifact.manifest["hosted"]["counts"]["kernels on toy"] >= 1


def mlp():
    b = GraphBuilder()
    x = b.input("x", TensorType.of("f32", (4, 8)))
    h = x
    for width in (6, 5):
        h = b.add("relu", [b.add("add", [b.add("matmul", [h, values(h.shape[1].value, width)]), values(width)])])
    y = b.add("softmax", [h], {"axis": 1})
    return Graph([x], b.nodes, [y], "mlp")


def test_an_mlp_is_the_same_as_on_the_cpu_and_survives_a_file(toy, tmp_path):
    graph, x = mlp(), values(4, 8)
    exe = tl.compile(graph, target="toy")
    expected = tl.compile(graph)(x)
    np.testing.assert_allclose(exe(x), expected, rtol=1e-5, atol=1e-6)
    exe.save(tmp_path / "mlp.tl")
    np.testing.assert_allclose(tl.load(tmp_path / "mlp.tl")(x), expected, rtol=1e-5, atol=1e-6)
    assert exe.profile({"x": x}, repeats=1).rows


def test_unknown_targets_are_refused_with_a_list():
    with pytest.raises(BuildError, match=r"unknown target 'toy'; there are: c, cpu"):
        tl.build(dense, target="toy", shapes={"M": 1, "N": 1, "K": 1})
    with pytest.raises(BuildError, match="unknown target 'tpu'"):
        tl.compile(mlp(), target="tpu")


def test_a_target_that_cannot_be_imported_says_so(tmp_path, monkeypatch):
    from tensorlang.codegen.target import registered

    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tensorlang.targets]\nbroken = no_such_module:target\nwrong = json:dumps\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registered.cache_clear()
    try:
        with pytest.raises(BuildError, match="'broken' .* cannot be loaded"):
            tl.compile(mlp(), target="broken")
        with pytest.raises(BuildError, match="'wrong' .* not a tensorlang Target"):
            find_target("wrong")
    finally:
        monkeypatch.undo()
        registered.cache_clear()


def test_an_artifact_of_a_target_that_is_gone_says_so(toy, tmp_path, monkeypatch):
    tl.compile(mlp(), target="toy").save(tmp_path / "mlp.tl")
    from tensorlang.codegen import target as module

    monkeypatch.setattr(module, "registered", dict)
    with pytest.raises(TensorlangError, match="unknown target 'toy'"):
        tl.load(tmp_path / "mlp.tl")


# -- a model on two targets -------------------------------------------------------------------------------------------


def test_a_model_runs_on_the_cpu_and_the_toy_with_copies_between(toy, tmp_path):
    graph, x = mlp(), values(4, 8)
    expected = tl.compile(graph)(x)
    exe = tl.compile(graph, codegens=[find_generator("toy").only(lambda node: node.op in ("add", "relu"))])
    np.testing.assert_allclose(exe(x), expected, rtol=1e-5, atol=1e-6)
    counts = exe.placement["counts"]
    assert counts["regions for toy"] == 2  # after either product
    assert counts["copies between memories"] == 4  # into the toy's memory and back, twice
    assert counts["bytes copied"] == 2 * (4 * 6 + 4 * 5) * 4
    assert counts["kernels on cpu"] >= 3
    exe.save(tmp_path / "both.tl")
    np.testing.assert_allclose(tl.load(tmp_path / "both.tl")(x), expected, rtol=1e-5, atol=1e-6)


def test_the_other_way_round_the_toy_is_the_host_of_what_the_cpu_gets(toy):
    graph, x = mlp(), values(4, 8)
    exe = tl.compile(graph, target="toy", codegens=[find_generator("cpu").only(lambda node: node.op == "matmul")])
    np.testing.assert_allclose(exe(x), tl.compile(graph)(x), rtol=1e-5, atol=1e-6)
    assert exe.placement["counts"]["regions for cpu"] == 2


def test_what_the_target_has_no_code_for_runs_on_the_cpu_and_is_told(toy):
    b = GraphBuilder()
    x = b.input("x", TensorType.of("f32", (3, 4)))
    found, count = b.add("nonzero", [b.add("relu", [x])])
    graph = Graph([x], b.nodes, [found, count], "points")
    exe = tl.compile(graph, target="toy")
    a = values(3, 4)
    (got, number), (want, _) = exe(a), tl.compile(graph)(a)
    np.testing.assert_array_equal(got[:, :number], want[:, :number])  # behind these the operator leaves what it finds
    assert number == (a > 0).sum()
    assert exe.placement["counts"] == {
        "kernels on toy": 1, "kernels on cpu": 1, "copies between memories": 0, "bytes copied": 0,
    }  # fmt: skip


# -- the CPU is one of them -------------------------------------------------------------------------------------------


def test_the_cpu_goes_through_the_interface_alone():
    from tensorlang.build.cpu import Cpu

    class Watched(Cpu):
        name = "watched"
        calls = []

        def emit(self, func, name, trace):
            self.calls.append("emit")
            return super().emit(func, name, trace)

        def build(self, source, settings):
            self.calls.append("build")
            return super().build(source, settings)

        def load(self, code, kernels, settings):
            self.calls.append("load")
            return super().load(code, kernels, settings)

        def launch(self, function, args):
            self.calls.append("launch")
            super().launch(function, args)

    watched = Watched()
    kernel = tl.build(dense, target=watched, shapes={"M": 3, "N": 4, "K": 5})
    x, w, b = values(3, 5), values(4, 5), values(4)
    for _ in range(2):
        np.testing.assert_allclose(kernel(x, w, b), np.maximum(x @ w.T + b, 0), rtol=1e-5, atol=1e-6)
    assert watched.calls == ["emit", "build", "load", "launch", "launch"]
    assert kernel.source == tl.build(dense, shapes={"M": 3, "N": 4, "K": 5}).source
    assert 0 < kernel.time(x, w, b) < 1


def test_code_for_another_machine_is_made_but_not_run():
    kernel = tl.build(dense, target="aarch64-linux-gnu", shapes={"M": 3, "N": 4, "K": 5})
    assert "fmla" in kernel.asm
    with pytest.raises(BuildError, match="cannot run code for aarch64"):
        kernel(values(3, 5), values(4, 5), values(4))
