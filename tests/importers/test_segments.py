"""Models that are no single native program: strings and images on the host, other nodes by onnxruntime where asked to."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, parser

import tensorlang as tl
from tensorlang.errors import ArtifactError, BuildError, InputError, ModelError, UnsupportedOpError
from tests.importers.models import model

ort = pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)

SCORES = """
<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 2]>
words (string[n] words, float[4, 3] table) => (float[k] scores, string[k] clean) {
    clean = StringNormalizer <case_change_action = "LOWER", is_case_sensitive = 0, stopwords = ["the"]> (words)
    ids = ai.onnx.ml.LabelEncoder <keys_strings = ["cat", "dog", "bird"], values_int64s = [1, 2, 3], default_int64 = 0> (clean)
    rows = Gather <axis = 0> (table, ids)
    squares = Mul (rows, rows)
    axes = Constant <value_ints = [1]> ()
    scores = ReduceSum <keepdims = 0> (squares, axes)
}
"""


def words() -> onnx.ModelProto:
    return parser.parse_model(SCORES)


def theirs(proto: onnx.ModelProto, feeds: dict) -> list:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def expected(given: dict) -> tuple[np.ndarray, list[str]]:
    """What `SCORES` means (onnxruntime's StringNormalizer needs a locale that machines may lack)."""
    clean = [w.lower() for w in given["words"] if w.lower() != "the"]
    ids = [{"cat": 1, "dog": 2, "bird": 3}.get(w, 0) for w in clean]
    return (given["table"][ids] ** 2).sum(1), clean


def feeds(count: int = 5) -> dict:
    given = np.array(["The", "CAT", "dog", "Fish", "bird", "cat"][:count], object)
    return {"words": given, "table": RNG.standard_normal((4, 3)).astype(np.float32)}


@pytest.mark.parametrize("count", [2, 5, 6])
def test_strings_run_on_the_host_around_compiled_segments(count: int) -> None:
    exe = tl.compile(words())
    given = feeds(count)
    found = exe.run(given)
    scores, clean = expected(given)
    np.testing.assert_allclose(found["scores"], scores, rtol=1e-5)
    assert list(found["clean"]) == clean
    assert [(op, engine) for op, _, engine in exe.host_nodes] == [
        ("StringNormalizer", "onnx.reference"), ("LabelEncoder", "onnx.reference"),
    ]  # fmt: skip
    assert "StringNormalizer" in repr(exe)


def test_what_the_host_does_cannot_be_saved(tmp_path) -> None:
    exe = tl.compile(words())
    exe.run(feeds())
    with pytest.raises(ArtifactError, match="only the host can compute StringNormalizer"):
        exe.save(tmp_path / "model.tl")
    with pytest.raises(ArtifactError, match="only the host can compute StringNormalizer"):
        exe.export_library(tmp_path / "libmodel.so")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words": np.zeros(3, np.float32)}, "strings are expected"),
        ({"words": np.array(["a", 3], object)}, "strings are expected"),
        ({"words": np.array([["a"]], object)}, "got shape"),
        ({"table": np.zeros((4, 3))}, "dtype float64"),
        ({"table": np.zeros((4, 2), np.float32)}, "got shape"),
        ({"more": np.zeros(2)}, "no input is called 'more'"),
    ],
)
def test_feeds_are_refused_before_anything_runs(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tl.compile(words()).run({**feeds(), **change})


def test_shapes_fix_dimensions_of_strings_too() -> None:
    exe = tl.compile(words(), shapes={"n": 2})
    assert [i.shape for i in exe.inputs] == [(2,), (4, 3)]
    exe.run(feeds(2))
    with pytest.raises(InputError, match="got shape"):
        exe.run(feeds(3))
    with pytest.raises(InputError, match="shapes names 'm'"):
        tl.compile(words(), shapes={"m": 2})


def test_a_session_takes_strings() -> None:
    session = tl.InferenceSession(words())
    assert [a.type for a in session.get_inputs()] == ["tensor(string)", "tensor(float)"]
    given = feeds()
    np.testing.assert_allclose(session.run(["scores"], given)[0], expected(given)[0], rtol=1e-5)


def test_verify_refuses_what_it_cannot_check() -> None:
    with pytest.raises(BuildError, match="inputs are numbers"):
        tl.compile(words(), verify=True)


def test_strings_in_a_branch() -> None:
    """A node whose body handles strings is the host's as a whole."""
    branches = {}
    for name, text in (("then_branch", "yes"), ("else_branch", "no")):
        made = helper.make_node("Constant", [], ["made"], value_strings=[text])
        joined = helper.make_node("StringConcat", ["words", "made"], ["joined"])
        out = helper.make_tensor_value_info("joined", TensorProto.STRING, ["n"])
        branches[name] = helper.make_graph([made, joined], name, [], [out])
    proto = model(
        [
            helper.make_node("Greater", ["x", "limit"], ["c"]),
            helper.make_node("If", ["c"], ["y"], **branches),
            helper.make_node("Add", ["x", "x"], ["z"]),
        ],
        [("x", np.float32, [])],
        ["z"],
        {"limit": np.float32(0)},
        opset=20,
    )
    proto.graph.input.append(helper.make_tensor_value_info("words", TensorProto.STRING, ["n"]))
    proto.graph.output.append(helper.make_tensor_value_info("y", TensorProto.STRING, ["n"]))
    exe = tl.compile(proto)
    for x, text in ((1, "yes"), (-1, "no")):
        found = exe.run({"x": np.array(x, np.float32), "words": np.array(["a", "b"], object)})
        assert list(found["y"]) == ["a" + text, "b" + text]
        assert found["z"] == 2 * x


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("s", "b", "b")], "reads 'b', which no input"),
        ([("s", "s", "y"), ("s", "s", "y")], "'y' is made twice"),
        ([("s", "s", "other")], "output 'y' of the model is made by no node"),
    ],
)
def test_segments_of_an_unsound_model(nodes: list, message: str) -> None:
    made = [helper.make_node("StringConcat", [a, b], [c]) for a, b, c in nodes]
    proto = model(made, [], ["y"], opset=20)
    proto.graph.input.append(helper.make_tensor_value_info("s", TensorProto.STRING, ["n"]))
    with pytest.raises(ModelError, match=message):
        tl.compile(proto)


# -- onnxruntime for what we lack ------------------------------------------------------------------------------------


def inverse() -> onnx.ModelProto:
    """relu(inverse(x + x)), by an operator that we have no rule for"""
    return model(
        [
            helper.make_node("Add", ["x", "x"], ["a"]),
            helper.make_node("Inverse", ["a"], ["b"], name="inv", domain="com.microsoft"),
            helper.make_node("Relu", ["b"], ["y"]),
        ],
        [("x", np.float32, ["n", 3, 3])],
        [("y", np.float32, ["n", 3, 3])],
        domains={"com.microsoft": 1},
    )


def test_fallback_is_off_unless_asked_for() -> None:
    with pytest.raises(UnsupportedOpError, match="Inverse at node 'inv'"):
        tl.compile(inverse())
    with pytest.raises(BuildError, match="there is: onnxruntime"):
        tl.compile(inverse(), fallback="numpy")


def test_fallback_computes_what_we_lack_and_names_it() -> None:
    exe = tl.compile(inverse(), fallback="onnxruntime")
    assert exe.host_nodes == (("Inverse", "inv", "onnxruntime"),)
    for n in (1, 4):
        x = RNG.standard_normal((n, 3, 3)).astype(np.float32)
        np.testing.assert_allclose(exe(x), theirs(inverse(), {"x": x})[0], rtol=2e-4, atol=1e-4)


def test_fallback_leaves_what_onnxruntime_lacks_unsupported() -> None:
    proto = model(
        [helper.make_node("Nonsense", ["x"], ["y"], name="odd", domain="com.acme")],
        [("x", np.float32, [2])],
        ["y"],
        domains={"com.acme": 1},
    )
    exe = tl.compile(proto, fallback="onnxruntime")  # its types are not known before a run, so neither is the refusal
    with pytest.raises(UnsupportedOpError, match="onnxruntime refuses it as well"):
        exe(np.zeros(2, np.float32))


def test_fallback_of_a_known_operator_in_an_unknown_form() -> None:
    """A number of sizes that only a run tells has no native program; the node alone goes to onnxruntime."""
    proto = model(
        [
            helper.make_node("Reshape", ["x", "shape"], ["r"], name="reshape"),
            helper.make_node("Neg", ["r"], ["y"]),
        ],
        [("x", np.float32, [4, 6]), ("shape", np.int64, ["rank"])],
        ["y"],
    )
    with pytest.raises(UnsupportedOpError):
        tl.compile(proto)
    exe = tl.compile(proto, fallback="onnxruntime")
    x = RNG.standard_normal((4, 6)).astype(np.float32)
    for shape in ((24,), (2, 3, 4)):
        np.testing.assert_array_equal(exe(x, np.array(shape, np.int64)), -x.reshape(shape))


@pytest.mark.skipif(importlib.util.find_spec("PIL") is None, reason="images are decoded by Pillow, which is not installed")
def test_an_image_is_decoded_on_the_host() -> None:
    import io

    from PIL import Image

    pixels = RNG.integers(0, 255, (5, 7, 3)).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    proto = model(
        [
            helper.make_node("ImageDecoder", ["bytes"], ["image"], pixel_format="RGB"),
            helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["wide"], ["y"], axes=[0, 1], keepdims=0),
        ],
        [("bytes", np.uint8, ["n"])],
        ["y"],
        opset=20,
    )
    proto.graph.node[2].ClearField("attribute")
    proto.graph.node[2].input.append("axes")
    proto.graph.node[2].attribute.append(helper.make_attribute("keepdims", 0))
    proto.graph.initializer.append(helper.make_tensor("axes", TensorProto.INT64, [2], [0, 1]))
    found = tl.compile(proto)(np.frombuffer(content.getvalue(), np.uint8))
    np.testing.assert_allclose(found, pixels.mean((0, 1)), rtol=1e-5)
