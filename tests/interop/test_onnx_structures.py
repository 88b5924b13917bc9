"""Sequences and optionals at the boundary of a model, through the backend interface."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from tensorlang.errors import InputError
from tensorlang.interop import onnx_backend

HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'
A, B, C = np.array([1, 2], np.float32), np.array([3], np.float32), np.array([4, 5, 6], np.float32)


def prepared(text: str) -> onnx_backend.TensorlangRep:
    return onnx_backend.prepare(onnx.parser.parse_model(HEAD + text))


def test_lists_in_and_out() -> None:
    rep = prepared(
        """test (seq(float[N]) s, float[M] x) => (seq(float[N]) r, int64 n) {
             r = SequenceInsert(s, x)
             n = SequenceLength(s)
           }"""
    )
    for given in ([A, B], [C], []):
        made, n = rep.run([given, C])
        assert n == len(given)
        assert len(made) == len(given) + 1
        for found, wanted in zip(made, [*given, C], strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_a_list_is_asked_for() -> None:
    rep = prepared("test (seq(float[N]) s) => (int64 n) { n = SequenceLength(s) }")
    with pytest.raises(InputError, match="is a sequence"):
        rep.run({"s": A})


def test_optional_input() -> None:
    rep = prepared("test (optional(float[N]) x) => (bool y) { y = OptionalHasElement(x) }")
    assert rep.run({"x": A})[0]
    assert not rep.run({"x": None})[0]
