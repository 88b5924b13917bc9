"""Shapes and inputs as written on the command line."""

from __future__ import annotations

import numpy as np
import pytest
import typer

from tensorlang.cli.feeds import FeedSpec, InputInfo, make_feeds, parse_feed, parse_shapes
from tensorlang.errors import InputError

X = InputInfo("x", "float32", (2, 3))
IDS = InputInfo("ids", "int64", (4,))


@pytest.mark.parametrize(
    ("texts", "shapes"),
    [
        ([], {}),
        (["batch=1"], {"batch": 1}),
        (["batch=1,seq=128", "x=1x3x8x8"], {"batch": 1, "seq": 128, "x": (1, 3, 8, 8)}),
        (["model/x:0=0"], {"model/x:0": 0}),
        (["a=b=2"], {"a=b": 2}),
        (["batch=1+8", "x=1+2x3x8"], {"batch": {1, 8}, "x": ({1, 2}, 3, 8)}),
    ],
)
def test_shapes(texts, shapes):
    assert parse_shapes(texts) == shapes


@pytest.mark.parametrize("text", ["batch", "batch=", "=1", "batch=a", "batch=1+", "x=1x", "batch=-1", "x=1x-2", "batch=1.5"])
def test_bad_shapes_are_usage_errors(text):
    with pytest.raises(typer.BadParameter, match="write NAME=SIZE|is not a size|not negative"):
        parse_shapes([text])


def test_shape_given_twice():
    with pytest.raises(typer.BadParameter, match="'batch' is given twice"):
        parse_shapes(["batch=1", "batch=2"])


def test_feed_forms(saved_array):
    path = saved_array(np.zeros(1))
    assert parse_feed(f"x={path}") == FeedSpec("x", path)
    assert parse_feed(path) == FeedSpec(None, path)
    assert parse_feed("x=random") == FeedSpec("x", "random")
    assert parse_feed("random") == FeedSpec(None, "random")
    assert parse_feed("x=random:1x3") == FeedSpec("x", "random", (1, 3))


@pytest.mark.parametrize("text", ["x=missing.npy", "x=ones", "x", "x=random:", "x=random:1y3"])
def test_bad_feeds_are_usage_errors(text):
    with pytest.raises(typer.BadParameter, match=r"no file|write NAME=FILE\.npy|is not a size"):
        parse_feed(text)


def test_files_and_random_inputs_in_the_models_order(saved_array):
    array = np.arange(4)
    feeds = make_feeds([X, IDS], [FeedSpec("ids", saved_array(array))], seed=0)
    assert list(feeds) == ["x", "ids"]
    assert feeds["x"].shape == (2, 3) and feeds["x"].dtype == np.float32
    np.testing.assert_array_equal(feeds["ids"], array)


def test_random_depends_on_the_seed_alone():
    first, again, other = (make_feeds([X], [], seed)["x"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16", "int8", "uint8", "int64", "bool"])
def test_random_has_the_declared_dtype(dtype):
    array = make_feeds([InputInfo("x", dtype, (64,))], [], seed=0)["x"]
    assert str(array.dtype) == dtype
    if dtype.startswith(("int", "uint")):
        assert set(array.tolist()) == {0, 1}


def test_open_dimension_without_size_says_what_to_write():
    info = InputInfo("x", "float32", ("batch", 3, "batch"))
    with pytest.raises(InputError, match=r"--shapes batch=1, or --input x=random:1x3x1"):
        make_feeds([info], [], seed=0)
    assert make_feeds([info], [FeedSpec("x", "random", (2, 3, 2))], seed=0)["x"].shape == (2, 3, 2)


def test_all_wrong_names_are_listed_at_once():
    with pytest.raises(InputError, match=r"'a'.*'b'.*\n  x: float32\[2, 3\]"):
        make_feeds([X], [FeedSpec("a", "random"), FeedSpec("b", "random")], seed=0)


def test_name_may_be_left_out_for_a_single_input_only():
    assert set(make_feeds([X], [FeedSpec(None, "random")], seed=0)) == {"x"}
    with pytest.raises(InputError, match="2 inputs"):
        make_feeds([X, IDS], [FeedSpec(None, "random")], seed=0)


def test_input_given_twice():
    with pytest.raises(InputError, match="'x' is given twice"):
        make_feeds([X], [FeedSpec("x", "random"), FeedSpec(None, "random")], seed=0)


def test_strings_are_not_random():
    with pytest.raises(InputError, match="holds strings"):
        make_feeds([InputInfo("text", "string", (1,))], [], seed=0)


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "evil.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="is not an array file"):
        make_feeds([X], [FeedSpec("x", str(path))], seed=0)


def test_file_that_is_no_array(tmp_path):
    path = tmp_path / "x.npy"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is not an array file"):
        make_feeds([X], [FeedSpec("x", str(path))], seed=0)
