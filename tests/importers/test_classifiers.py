"""ai.onnx.ml's classifiers and support vectors against onnxruntime: integers and strings as labels, trees, all kernels."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import tensorlang as tl
from tensorlang.errors import ModelError, UnsupportedOpError
from tests.importers.models import model

ort = pytest.importorskip("onnxruntime")
ML = "ai.onnx.ml"


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def ml_model(node: onnx.NodeProto, outputs: list, columns: int = 4, more: list | None = None) -> onnx.ModelProto:
    proto = model([node, *(more or [])], [("x", np.float32, ["n", columns])], [], opset=17, domains={ML: 3})
    proto.graph.output.extend(outputs)
    return proto


def labels_and_scores(kind: int = TensorProto.INT64) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info("label", kind, ["n"]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", "classes"]),
    ]


def agree(proto: onnx.ModelProto, columns: int = 4, rows: int = 9) -> dict:
    x = rng().standard_normal((rows, columns)).astype(np.float32)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    found = tl.compile(proto).run({"x": x})
    for name, theirs in zip(names, session.run(None, {"x": x}), strict=True):
        if isinstance(theirs, np.ndarray) and theirs.dtype.kind == "f":
            np.testing.assert_allclose(found[name], theirs, rtol=2e-4, atol=2e-5, err_msg=name)
        elif isinstance(theirs, np.ndarray):
            assert found[name].tolist() == theirs.tolist()
        else:
            assert [list(row) for row in found[name]] == [list(row) for row in theirs]
            for ours, other in zip(found[name], theirs, strict=True):
                np.testing.assert_allclose(list(ours.values()), list(other.values()), rtol=2e-4, atol=2e-5)
    return found


@pytest.mark.parametrize("post", ["NONE", "SOFTMAX", "LOGISTIC"])
@pytest.mark.parametrize("classes", [2, 3])
def test_linear_classifier(post: str, classes: int) -> None:
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "score"], domain=ML, post_transform=post, multi_class=0,
        classlabels_ints=[10 * k for k in range(classes)],
        coefficients=rng().standard_normal(4 * classes).tolist(), intercepts=rng().standard_normal(classes).tolist(),
    )  # fmt: skip
    agree(ml_model(node, labels_and_scores()))


def stumps(class_of, weights: list[float], **attributes) -> onnx.NodeProto:
    """Trees of one comparison; leaf number k says `weights[k]` for class `class_of(k)`."""
    count = len(weights) // 2
    leaves = [(t, leaf) for t in range(count) for leaf in (1, 2)]
    return helper.make_node(
        "TreeEnsembleClassifier", ["x"], ["label", "score"], domain=ML,
        nodes_treeids=[t for t in range(count) for _ in range(3)], nodes_nodeids=[0, 1, 2] * count,
        nodes_featureids=[k for t in range(count) for k in (t % 4, 0, 0)],
        nodes_values=[v for t in range(count) for v in (0.1 * t - 0.2, 0.0, 0.0)],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * count, nodes_truenodeids=[1, 0, 0] * count,
        nodes_falsenodeids=[2, 0, 0] * count, nodes_hitrates=[1.0] * (3 * count),
        nodes_missing_value_tracks_true=[0] * (3 * count),
        class_treeids=[t for t, _ in leaves], class_nodeids=[leaf for _, leaf in leaves],
        class_ids=[class_of(k) for k in range(2 * count)], class_weights=weights, **attributes,
    )  # fmt: skip


@pytest.mark.parametrize("post", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_trees_of_several_classes(post: str) -> None:
    weights = rng().random(12).tolist()
    node = stumps(lambda k: k % 3, weights, classlabels_int64s=[5, 6, 7], post_transform=post)
    agree(ml_model(node, labels_and_scores()))


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize(("signed", "of"), [(False, 0), (True, 0), (True, 1)])
def test_trees_with_one_score_for_two_classes(signed: bool, of: int, post: str) -> None:
    weights = (rng().random(12) / 6 - (0.08 if signed else 0)).tolist()
    node = stumps(lambda k: of, weights, classlabels_int64s=[0, 1], post_transform=post)
    found = agree(ml_model(node, labels_and_scores()), rows=40)
    assert set(found["label"].tolist()) == {0, 1}


@pytest.mark.parametrize("post", ["NONE", "LOGISTIC", "SOFTMAX"])
@pytest.mark.parametrize("shift", [0.0, -0.5, -1.0])
def test_trees_with_two_scores_for_two_classes(shift: float, post: str) -> None:
    """The label is not that of the larger score: onnxruntime looks at the sign of the second one's."""
    weights = (rng().random(12) + shift).tolist()
    node = stumps(lambda k: k // 2 % 2, weights, classlabels_int64s=[0, 1], post_transform=post)
    agree(ml_model(node, labels_and_scores()), rows=40)


def test_labels_that_are_strings_are_looked_up_by_the_host() -> None:
    node = stumps(lambda k: k % 3, rng().random(12).tolist(), classlabels_strings=["a", "b", "c"], name="trees")
    proto = ml_model(node, labels_and_scores(TensorProto.STRING))
    agree(proto)
    assert tl.compile(proto).host_nodes == (("LabelEncoder", "trees.labels", "onnx.reference"),)


def test_zip_map() -> None:
    """What scikit-learn's exporter puts last: scores by label, a list of dictionaries."""
    node = stumps(lambda k: k % 3, rng().random(12).tolist(), classlabels_strings=["a", "b", "c"])
    zip_map = helper.make_node("ZipMap", ["score"], ["chances"], domain=ML, classlabels_strings=["a", "b", "c"])
    outputs = [labels_and_scores(TensorProto.STRING)[0], onnx.ValueInfoProto(name="chances")]
    map_type = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    outputs[1].type.CopyFrom(helper.make_sequence_type_proto(map_type))
    agree(ml_model(node, outputs, more=[zip_map]))


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
@pytest.mark.parametrize("one_class", [0, 1])
def test_support_vector_regression(kernel: str, one_class: int) -> None:
    node = helper.make_node(
        "SVMRegressor", ["x"], ["y"], domain=ML, kernel_type=kernel, kernel_params=[0.3, 0.2, 2.0], n_supports=5,
        support_vectors=rng().standard_normal(20).tolist(), coefficients=rng().standard_normal(5).tolist(), rho=[0.1],
        one_class=one_class,
    )  # fmt: skip
    agree(ml_model(node, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])]))


@pytest.mark.parametrize("targets", [1, 2])
def test_probit_of_a_regression(targets: int) -> None:
    node = helper.make_node(
        "LinearRegressor", ["x"], ["y"], domain=ML, targets=targets, post_transform="PROBIT",
        coefficients=[0.02, 0.05, -0.03, 0.01] * targets, intercepts=[0.45] * targets,
    )  # fmt: skip
    agree(ml_model(node, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", targets])]))


def test_one_hot_and_features_side_by_side() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT64),
        helper.make_node("OneHotEncoder", ["whole"], ["hot"], domain=ML, cats_int64s=[-1, 0, 1], zeros=1),
        helper.make_node("Reshape", ["hot", "flat"], ["table"]),
        helper.make_node("FeatureVectorizer", ["x", "table"], ["y"], domain=ML, inputdimensions=[4, 12]),
    ]
    proto = model(
        nodes, [("x", np.float32, ["n", 4])], [("y", np.float32, ["n", 16])], {"flat": np.array([-1, 12])},
        opset=17, domains={ML: 3},
    )  # fmt: skip
    agree(proto)


def test_what_is_not_settled_is_refused() -> None:
    one = helper.make_node(
        "LinearClassifier", ["x"], ["label", "score"], domain=ML, classlabels_ints=[0, 1], coefficients=[1.0] * 4
    )
    with pytest.raises(UnsupportedOpError, match="4 coefficients for 2 classes"):
        tl.compile(ml_model(one, labels_and_scores()))
    both = stumps(lambda k: k % 2, [0.5] * 12, classlabels_int64s=[0, 1], base_values=[0.1, 0.2])
    with pytest.raises(UnsupportedOpError, match="base values for two classes"):
        tl.compile(ml_model(both, labels_and_scores()))
    probit = stumps(lambda k: k % 3, [0.5] * 12, classlabels_int64s=[0, 1, 2], post_transform="PROBIT")
    with pytest.raises(UnsupportedOpError, match="PROBIT"):
        tl.compile(ml_model(probit, labels_and_scores()))


def support_vector_machine(classes: int, kernel: str = "RBF", **more: object) -> onnx.NodeProto:
    sizes = [k + 2 for k in range(classes)]
    total, pairs = sum(sizes), classes * (classes - 1) // 2
    given: dict = {
        "kernel_type": kernel, "kernel_params": [0.3, 0.5, 2.0], "vectors_per_class": sizes,
        "support_vectors": rng().standard_normal(4 * total).tolist(),
        "coefficients": rng().standard_normal((classes - 1) * total).tolist(),
        "rho": rng().standard_normal(pairs).tolist(), "classlabels_ints": [7 * k + 1 for k in range(classes)],
    }  # fmt: skip
    given |= more
    given = {name: value for name, value in given.items() if value is not None}
    return helper.make_node("SVMClassifier", ["x"], ["label", "score"], domain=ML, **given)


@pytest.mark.parametrize(("kernel", "classes"), [("LINEAR", 3), ("POLY", 3), ("RBF", 2), ("SIGMOID", 5)])
def test_support_vectors_vote(kernel: str, classes: int) -> None:
    agree(ml_model(support_vector_machine(classes, kernel), labels_and_scores()), rows=30)


@pytest.mark.parametrize("post", ["SOFTMAX_ZERO", "LOGISTIC"])
def test_the_scores_of_pairs_are_transformed(post: str) -> None:
    agree(ml_model(support_vector_machine(3, post_transform=post), labels_and_scores()), rows=30)


@pytest.mark.parametrize("classes", [2, 6])
def test_support_vectors_with_probabilities(classes: int) -> None:
    pairs = classes * (classes - 1) // 2
    curve = {"prob_a": rng().uniform(-2, -0.5, pairs).tolist(), "prob_b": rng().uniform(-0.2, 0.2, pairs).tolist()}
    agree(ml_model(support_vector_machine(classes, **curve), labels_and_scores()), rows=60)
    texts = {"classlabels_ints": None, "classlabels_strings": [f"class {k}" for k in range(classes)]}
    agree(ml_model(support_vector_machine(classes, **curve, **texts), labels_and_scores(TensorProto.STRING)), rows=20)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("sign", [0, 1])
def test_support_vector_classifier_without_vectors(classes: int, sign: int) -> None:
    weights = rng().standard_normal(4 * classes)
    node = support_vector_machine(
        classes, "LINEAR", vectors_per_class=None, support_vectors=None, kernel_params=[0.0, 0.0, 0.0],
        coefficients=(np.abs(weights) if sign else weights).tolist(), rho=[0.25],
    )  # fmt: skip
    agree(ml_model(node, labels_and_scores()), rows=40)


def test_a_support_vector_classifier_of_wrong_sizes_is_refused() -> None:
    with pytest.raises(ModelError, match="support vectors of 3 classes"):
        tl.compile(ml_model(support_vector_machine(3, rho=[0.5]), labels_and_scores()))
    with pytest.raises(ModelError, match="1 entries and prob_b 1 for 3 pairs"):
        tl.compile(ml_model(support_vector_machine(3, prob_a=[-1.0], prob_b=[0.0]), labels_and_scores()))


def test_category_mapper_maps_both_ways() -> None:
    lists = {"cats_strings": ["cat", "dog", "bird"], "cats_int64s": [3, 1, 4]}
    forth = helper.make_node("CategoryMapper", ["t"], ["number"], domain=ML, default_int64=-7, **lists)
    back = helper.make_node("CategoryMapper", ["number"], ["text"], domain=ML, default_string="?", **lists)
    proto = model([forth, back], [("x", np.float32, ["n"])], [], opset=17, domains={ML: 3})
    del proto.graph.input[:]
    proto.graph.input.append(helper.make_tensor_value_info("t", TensorProto.STRING, ["n"]))
    proto.graph.output.append(helper.make_tensor_value_info("number", TensorProto.INT64, ["n"]))
    proto.graph.output.append(helper.make_tensor_value_info("text", TensorProto.STRING, ["n"]))
    feed = {"t": np.array(["dog", "fish", "cat", "bird"], object)}
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = tl.compile(proto).run(feed)
    for name, theirs in zip(("number", "text"), session.run(None, feed), strict=True):
        assert found[name].tolist() == theirs.tolist()
