"""ONNX's own node tests, imported and run by the operators' NumPy references (tests/conformance runs machine code)."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import tensorlang as tl
from tensorlang.errors import UnsupportedOpError
from tensorlang.graph import evaluate
from tensorlang.interop.onnx_backend import with_known_inputs
from tests.conformance import suite

# every case whose name begins so is taken, all of them by all rules of the operators of the standard models and the zoo
FAMILIES = (
    "add adam_not and argmax argmin averagepool basic_conv batchnorm bitshift cast_FLOAT cast_DOUBLE ceil celu clip concat "
    "constant constantofshape conv_ convtranspose cos cumsum depthtospace dequantizelinear div dropout_default dynamicquantize "
    "elu equal erf exp expand eyelike flatten floor gather gelu gemm globalaverage globalmax greater group_norm hardsigmoid "
    "hardswish identity instancenorm isinf isnan layer_norm leakyrelu less log lrn matmul max min mish mod mul mvn neg not "
    "onehot einsum dft stft gridsample roialign col2im deform_conv cumprod hardmax det_ reversesequence tensorscatter "
    "maxpool maxunpool training_dropout ai_onnx_ml_tree ai_onnx_ml_bin ai_onnx_ml_array adagrad "
    "adam momentum nesterov melweight "
    "or pow prelu quantizelinear range reciprocal reduce_ relu reshape resize round scatter selu shape shrink sigmoid "
    "sign sin size slice softmax softplus softsign spacetodepth split_ sqrt squeeze sub sum swish tan tanh "
    "thresholded tile top_k "
    "transpose tril triu unsqueeze upsample where xor affine tfidf bitcast_2d bitcast_float32 bitcast_int32"
).split()


@functools.cache
def cases():
    prefixes = tuple(f"test_{family}" for family in FAMILIES)
    return [c for c in suite.cases().values() if c.id.startswith("node/") and c.name.startswith(prefixes)]


def load(model, feeds):
    """The graph; inputs whose contents the importer needs are constants in it."""
    needs: set[str] = set()
    while True:
        try:
            return tl.from_onnx(with_known_inputs(model, {n: np.asarray(feeds[n]) for n in needs}))
        except UnsupportedOpError as error:
            if not set(error.needs) - needs:
                raise
            needs.update(error.needs)


def check(case):
    model = case.model()
    for inputs, outputs in case.data(model):
        feeds = {v.name: a for v, a in zip(model.graph.input, inputs, strict=False)}
        graph = load(model, feeds)
        taken = {v.name for v in graph.inputs}
        found = evaluate(graph, {n: a for n, a in feeds.items() if n in taken})
        for theirs, (name, ours) in zip(outputs, found.items(), strict=True):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), name
            wide = np.float64 if theirs.dtype.kind not in "OUS" else theirs.dtype
            np.testing.assert_allclose(
                ours.astype(wide), theirs.astype(wide), rtol=max(case.test.rtol, 1e-3), atol=max(case.test.atol, 1e-6)
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family):
    """Every case of the family agrees or is refused as unsupported; at least one agrees."""
    mine = [c for c in cases() if c.name.startswith(f"test_{family}") and "_to_sequence" not in c.name]  # no lists here
    passed, wrong = 0, []
    for case in mine:
        try:
            check(case)
            passed += 1
        except UnsupportedOpError:
            continue
        except Exception as error:
            wrong.append(f"{case.name}: {type(error).__name__}: {str(error)[:200]}")
    assert not wrong, "\n".join(wrong)
    assert passed or not mine
