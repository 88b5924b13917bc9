"""Every mistake in a tensor expression has one typed error that names this file and the line. One mistake per test."""

import inspect

import pytest

from tensorlang import te
from tensorlang.errors import TypeCheckError

X = te.placeholder((4, 5), name="x")
V = te.placeholder((4,), name="v")
IDS = te.placeholder((4,), "i64", name="ids")


def refuse(function, message):
    """`function` raises TypeCheckError whose text begins with this file and a line inside the function."""
    with pytest.raises(TypeCheckError) as error:
        function()
    text = str(error.value)
    lines, first = inspect.getsourcelines(function)
    path, line, rest = text.split(":", 2)
    assert path == __file__ and first <= int(line) < first + len(lines), text
    assert message in rest, text


def test_too_few_indices():
    refuse(lambda: te.compute((4,), lambda i: X[i]), "x has 2 dimension(s) but is indexed with 1")


def test_too_many_indices():
    refuse(lambda: te.compute((4,), lambda i: V[i, 0]), "v has 1 dimension(s) but is indexed with 2")


def test_slice():
    refuse(lambda: te.compute((4,), lambda i: V[i:]), "slices are stages of their own")


def test_float_index():
    refuse(lambda: te.compute((4,), lambda i: V[1.5]), "index 0 of v has type f32")


def test_integer_and_float_do_not_mix():
    refuse(lambda: te.compute((4,), lambda i: V[i] * IDS[i]), "operands of types f32 and i64 do not mix")


def test_division_of_integers():
    refuse(lambda: te.compute((4,), lambda i: IDS[i] / 2), "/ on i64: use // for integers")


def test_exp_of_integer():
    refuse(lambda: te.compute((4,), lambda i: te.exp(IDS[i])), "te.exp of i64; cast to a floating-point type")


def test_condition_must_be_bool():
    refuse(lambda: te.compute((4,), lambda i: te.if_then_else(V[i], 1.0, 0.0)), "select of f32; a condition is bool")


def test_python_if_on_an_expression():
    refuse(lambda: te.compute((4,), lambda i: 1.0 if V[i] > 0 else 0.0), "no truth value")


def test_reduction_inside_an_expression():
    k = te.reduce_axis(5, name="k")
    refuse(
        lambda: te.compute((4,), lambda i: te.sum(X[i, k], axis=k) + 1, name="y"),
        "stage y: te.sum must be the outermost operation",
    )


def test_reduction_inside_a_reduction():
    k, r = te.reduce_axis(5, name="k"), te.reduce_axis(5, name="r")
    refuse(lambda: te.compute((), lambda: te.sum(te.max(X[k, r], axis=k), axis=r)), "must be the outermost operation")


def test_reduce_axis_without_reduction():
    k = te.reduce_axis(5, name="k")
    refuse(lambda: te.compute((4,), lambda i: X[i, k], name="y"), "stage y uses reduce axis k outside a reduction")


def test_reduction_without_axis():
    refuse(lambda: te.compute((4,), lambda i: te.max(V[i], 0.0)), "for two scalars use te.maximum")


def test_index_of_another_stage():
    y = te.compute((4,), lambda i: V[i], name="y")
    refuse(lambda: te.compute((4,), lambda j: V[y.op.axis[0]], name="z"), "stage z uses index i of stage y")


def test_lambda_with_too_few_indices():
    refuse(lambda: te.compute((4, 5), lambda i: V[i], name="y"), "stage y has 2 dimension(s) but its function takes 1")


def test_lambda_with_too_many_indices():
    refuse(
        lambda: te.compute((4,), lambda i, j: X[i, j], name="y"), "stage y has 1 dimension(s) but its function takes 2"
    )


def test_stage_returns_a_tensor():
    refuse(lambda: te.compute((4,), lambda i: V, name="y"), "returned tensor v, not an element")


def test_stage_returns_no_values():
    refuse(lambda: te.compute((4,), lambda i: (), name="y"), "returned an empty tuple")


def test_a_reduction_beside_another_value():
    k = te.reduce_axis(4)
    refuse(lambda: te.compute((4,), lambda i: (V[i], te.sum(V[k], axis=k)), name="y"), "computes that alone")


def test_half_of_a_tuple_reduction():
    k = te.reduce_axis(4)
    refuse(lambda: te.compute((4,), lambda i: te.argmax(V[k], axis=k)[0], name="y"), "all 2 part(s) of one reducer's result")


def test_stage_returns_nothing():
    refuse(lambda: te.compute((4,), lambda i: None), "NoneType is not a scalar expression")


def test_arithmetic_on_tensors():
    refuse(lambda: V + V, "arithmetic is on elements")


def test_tensor_cannot_be_unpacked():
    refuse(lambda: list(X), "x cannot be iterated over")


def test_negative_dimension():
    refuse(lambda: te.compute((-1,), lambda i: V[i], name="y"), "y: dimension -1 is negative")


def test_float_dimension():
    refuse(lambda: te.placeholder((1.5,), name="z"), "z: 1.5 is not a dimension")


def test_bad_name():
    refuse(lambda: te.placeholder((1,), name="a b"), "'a b' is not a name")


def test_reduce_axis_has_one_or_two_ends():
    refuse(lambda: te.reduce_axis((1, 4, 2)), "give an extent or a pair")


def test_reduce_axis_that_ends_before_it_begins():
    refuse(lambda: te.reduce_axis((4, 1)), "dimension -3 is negative")


def test_stage_without_function():
    refuse(lambda: te.compute((4,)), "the function of the indices is missing")


def test_bad_annotation_dimension():
    refuse(lambda: te.f32[-1], "-1 is not a dimension of f32[...]")


def test_schedule_for_something_else():
    refuse(lambda: te.schedule(V), "takes an operator made by @te.compute")


def test_inputs_that_do_not_fit_a_called_operator():
    @te.compute
    def f(x: te.f32["N"], y: te.f32["N"]):
        return te.compute(x.shape, lambda i: x[i] + y[i], name="out")

    five = te.placeholder((5,), name="five")
    refuse(lambda: f(V, five), "f: dimension 0 ('N') of y is 5; expected 4, the size of N in x.shape[0]")
    refuse(lambda: f(V, IDS), "f: y has dtype i64; expected f32['N']")
    refuse(lambda: f(V, 3), "f: x is a tensor but y is int")


def test_missing_input():
    y = te.compute((4,), lambda i: V[i], name="y")
    refuse(lambda: te.create_prim_func("f", [X], [y]), "f reads v, which is not among its inputs")


def test_operator_without_tensor_parameters():
    def f(n: int):
        return n

    with pytest.raises(TypeCheckError, match=r"test_errors.py:\d+: f has no tensor parameter"):
        te.compute(f)


def test_operator_with_bare_type():
    def f(x: te.f32):
        return x

    with pytest.raises(TypeCheckError, match=r"test_errors.py:\d+: f: parameter x has no shape"):
        te.compute(f)


def test_operator_returns_no_tensor():
    @te.compute
    def f(x: te.f32["N"]):
        return 3

    with pytest.raises(TypeCheckError, match=r"test_errors.py:\d+: f returned int; return a tensor"):
        f.trace()


def test_unresolvable_annotation():
    def f(x):
        return x

    f.__annotations__["x"] = "te.nothing['N']"
    with pytest.raises(TypeCheckError, match=r"f: the annotation of x, .* cannot be resolved"):
        te.compute(f)


def test_a_condition_that_python_decided_is_refused():
    x = te.placeholder((4,), name="x")
    with pytest.raises(TypeCheckError, match=r"te\.not_equal"):
        te.compute((4,), lambda i: te.if_then_else(x[i] != 0, 1.0, 2.0))
