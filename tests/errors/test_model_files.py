"""Files that are no sound models: each gives one typed error that says what is wrong and where."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import tensorlang as tl
from tensorlang.errors import ModelError, UnsupportedOpError
from tests.importers.models import model, node

F = np.float32


def classifier() -> onnx.ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["h"], name="fc"), node("Relu", ["h"], ["y"], name="act")]
    return model(nodes, [("x", F, [1, 64])], ["y"], {"w": np.ones((64, 64), F)})


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        tl.load_model(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("read", [tl.load_model, tl.from_onnx])
def test_an_empty_file(tmp_path, read):
    path = tmp_path / "empty.onnx"
    path.write_bytes(b"")
    with pytest.raises(ModelError, match=r"empty\.onnx is empty"):
        read(path)


@pytest.mark.parametrize("kept", [10, 100, 1000, 10_000, -1])
def test_a_truncated_file(tmp_path, kept):
    path = tmp_path / "cut.onnx"
    path.write_bytes(classifier().SerializeToString()[:kept])
    with pytest.raises(ModelError, match="cut.onnx"):
        tl.load_model(path)


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\x03\x04" + bytes(100), b"hello world, this is text", bytes(64), b"\x08\x07"],
)
@pytest.mark.parametrize("read", [tl.load_model, tl.from_onnx])
def test_other_files(tmp_path, content, read):
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="other.onnx"):
        read(path)


def test_random_damage_is_never_an_unexpected_error():
    good = classifier().SerializeToString()
    rng = np.random.default_rng(0)
    for _ in range(400):
        content = bytearray(good)
        for position in rng.integers(0, 400, 3):
            position = position % 200 if position < 200 else -(position - 199)  # the head, or the tail
            content[position] = rng.integers(0, 256)
        try:
            tl.from_onnx(bytes(content))
        except tl.errors.TensorlangError:
            pass


def test_an_opset_from_the_future():
    m = model([node("Relu", ["x"], ["y"])], [("x", F, [1])], ["y"], opset=999)
    with pytest.raises(ModelError, match="opset 999; this build knows opsets up to"):
        tl.from_onnx(m)


def test_a_format_from_the_future():
    m = classifier()
    m.ir_version = 99
    with pytest.raises(ModelError, match="IR version 99"):
        tl.from_onnx(m)


def test_no_opset():
    m = classifier()
    del m.opset_import[:]
    with pytest.raises(ModelError, match="which opset"):
        tl.from_onnx(m)


def test_all_unsupported_operators_are_listed_at_once():
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Whatever", ["a"], ["b"], name="first"),
        node("Frobnicate", ["a"], ["c"], name="second"),
        node("Magic", ["a"], ["y"], name="third", domain="com.acme.nowhere"),
    ]
    with pytest.raises(UnsupportedOpError) as caught:
        tl.from_onnx(model(nodes, [("x", F, [3])], ["y"], domains={"com.acme.nowhere": 1}))
    assert [(op, name) for op, name, _ in caught.value.ops] == [
        ("Whatever", "first"), ("Frobnicate", "second"), ("com.acme.nowhere::Magic", "third"),
    ]  # fmt: skip
    text = str(caught.value)
    assert "no such operator in ONNX" in text and "register_onnx_op" in text


def test_unsupported_forms_are_listed_at_once_too():
    nodes = [
        node("Unsqueeze", ["x", "s"], ["a"], name="first"),
        node("Relu", ["a"], ["b"], name="between"),
        node("CumSum", ["x", "s"], ["c"], name="second"),
        node("Add", ["b", "c"], ["y"], name="join"),
    ]
    with pytest.raises(UnsupportedOpError, match="computed at run time") as caught:
        tl.from_onnx(model(nodes, [("x", F, [4]), ("s", np.int64, [1])], ["y"]))
    assert [name for _, name, _ in caught.value.ops] == ["first", "second"]
    assert caught.value.needs == ("s",)


def test_unsupported_operators_inside_subgraphs():
    info = helper.make_tensor_value_info("o", 1, None)
    body = helper.make_graph([node("Whatever", ["x"], ["o"], name="deep")], "then", [], [info])
    m = model([node("If", ["c"], ["y"], then_branch=body, else_branch=body)], [("x", F, [3])], ["y"], {"c": np.array(True)})
    with pytest.raises(UnsupportedOpError, match="'deep'"):
        tl.from_onnx(m)


def test_element_types_that_we_lack():
    m = model([node("Identity", ["x"], ["y"])], [("x", onnx.TensorProto.STRING, [1])], [("y", onnx.TensorProto.STRING, [1])])
    with pytest.raises(UnsupportedOpError, match="element type STRING"):
        tl.from_onnx(m)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Relu", ["z"], ["y"], name="act")], "'act'.*reads 'z'"),
        ([node("Relu", ["x"], ["z"])], "output 'y'"),
        ([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])], "made twice"),
        ([node("Add", ["x"], ["y"], name="sum")], "'sum'.*input 1 is missing"),
        ([node("MatMul", ["x", "w"], ["y"], name="fc")], "'fc'.*sizes 64 and 3"),
        ([node("Concat", ["x"], ["y"], name="cat")], "'cat'.*'axis' is missing"),
        ([node("Transpose", ["x"], ["y"], name="turn", perm=[0, 0])], "'turn'.*permutation"),
        ([node("Softmax", ["x"], ["y"], name="soft", axis=5)], "'soft'.*axis 5"),
        ([node("Reshape", ["x", "s"], ["y"], name="view")], "'view'.*divisible"),
        ([node("Conv", ["x", "w"], ["y"], name="conv")], "'conv'"),
        ([node("If", ["b"], ["y"], name="if", then_branch=1, else_branch=2)], "'if'.*'then_branch' is no graph"),
        ([node("Loop", ["s", "", "x"], ["y"], name="loop", body=1.0)], "'loop'.*'loop : body'"),
    ],
)
def test_unsound_nodes_are_named(nodes, message):
    weights = {"w": np.ones((3, 3), F), "s": np.array([5, -1]), "b": np.array(True)}
    with pytest.raises(ModelError, match=message):
        tl.from_onnx(model(nodes, [("x", F, [1, 64])], ["y"], weights))


def test_a_weight_shorter_than_its_shape():
    m = classifier()
    m.graph.initializer[0].raw_data = m.graph.initializer[0].raw_data[:100]
    with pytest.raises(ModelError, match="initializer 'w'"):
        tl.from_onnx(m)


def test_external_data_may_not_leave_the_folder(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(64 * 64 * 4))
    folder = tmp_path / "models"
    folder.mkdir()
    m = classifier()
    w = m.graph.initializer[0]
    w.ClearField("raw_data")
    w.data_location = onnx.TensorProto.EXTERNAL
    w.external_data.add(key="location", value="../secret.bin")
    (folder / "m.onnx").write_bytes(m.SerializeToString())
    with pytest.raises(ModelError, match="other files cannot be read"):
        tl.from_onnx(folder / "m.onnx")


def test_a_graph_that_is_made_of_nothing():
    with pytest.raises(ModelError, match="holds no graph"):
        tl.from_onnx(onnx.ModelProto(ir_version=8))


def external_model(folder, location="weights.bin", **entries):
    """A classifier whose weight is in a file beside it."""
    m = classifier()
    w = m.graph.initializer[0]
    content = w.raw_data
    w.ClearField("raw_data")
    w.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        w.external_data.add(key=key, value=str(value))
    (folder / "m.onnx").write_bytes(m.SerializeToString())
    return content


def test_external_data_is_mapped(tmp_path):
    content = external_model(tmp_path, offset=4096, length=64 * 64 * 4)
    (tmp_path / "weights.bin").write_bytes(bytes(4096) + content)
    graph = tl.from_onnx(tmp_path / "m.onnx")
    (weight,) = [v for v in graph.constants() if v.type.ndim == 2]
    np.testing.assert_array_equal(weight.constant, np.ones((64, 64), F))
    assert not weight.constant.flags.owndata and not weight.constant.flags.writeable


@pytest.mark.parametrize(
    ("entries", "size", "message"),
    [
        ({}, None, "no such file"),
        ({}, 100, "of a file of 100"),
        ({"offset": 8}, 64 * 64 * 4, "16384 bytes from 8 on"),
        ({"length": 12}, 64 * 64 * 4, "length 12"),
        ({"offset": "x"}, 64 * 64 * 4, "no number"),
    ],
)
def test_external_data_that_is_not_there(tmp_path, entries, size, message):
    external_model(tmp_path, **entries)
    if size is not None:
        (tmp_path / "weights.bin").write_bytes(bytes(size))
    with pytest.raises(ModelError, match=message):
        tl.from_onnx(tmp_path / "m.onnx")


def test_external_data_of_a_model_object(tmp_path):
    external_model(tmp_path)
    with pytest.raises(ModelError, match="load it by its path"):
        tl.from_onnx(onnx.load(tmp_path / "m.onnx", load_external_data=False))


def test_a_cycle():
    nodes = [node("Add", ["x", "b"], ["a"], name="one"), node("Relu", ["a"], ["b"], name="two")]
    with pytest.raises(ModelError, match="'two' makes it, but stands later: the nodes are out of order, or form a cycle"):
        tl.from_onnx(model(nodes, [("x", F, [3])], ["b"]))


@pytest.mark.parametrize("what", ["input", "initializer", "output"])
def test_names_that_come_twice(what):
    m = classifier()
    field = getattr(m.graph, what)
    field.append(field[0])
    with pytest.raises(ModelError, match=f"several {what}s of one name"):
        tl.from_onnx(m)


def test_absurd_sizes():
    with pytest.raises(ModelError, match="bytes, more than"):
        tl.from_onnx(model([node("Relu", ["x"], ["y"])], [("x", F, [1 << 20, 1 << 20])], ["y"]))
    nodes = [node("Expand", ["x", "s"], ["y"], name="grow")]
    with pytest.raises(ModelError, match="'grow' would make"):
        tl.from_onnx(model(nodes, [("x", F, [1])], ["y"], {"s": np.array([1 << 40])}))


def test_an_attribute_that_is_given_twice():
    softmax = node("Softmax", ["x"], ["y"], name="soft", axis=0)
    softmax.attribute.append(helper.make_attribute("axis", 1))
    with pytest.raises(ModelError, match="'soft'.*attribute 'axis' is given twice"):
        tl.from_onnx(model([softmax], [("x", F, [2, 2])], ["y"]))


def test_a_branch_that_is_no_graph():
    branches = node("If", ["c"], ["y"], name="choice", then_branch=1, else_branch=2)
    with pytest.raises(ModelError, match="choice.*_branch"):
        tl.from_onnx(model([branches], [("c", np.bool_, [])], ["y"]))


def test_a_weight_of_negative_size():
    proto = model([node("Add", ["x", "w"], ["y"])], [("x", F, [2])], ["y"], {"w": np.zeros(2, F)})
    proto.graph.initializer[0].dims[0] = -2
    with pytest.raises(ModelError, match="initializer 'w': a negative size"):
        tl.from_onnx(proto)
