"""software_pipeline and double_buffer: what they print, that they mean the same, and every way in which they can be wrong."""

import pytest

from tensorlang import te
from tensorlang.errors import ScheduleError
from tensorlang.ir.parser import parse_func
from tensorlang.schedule import Schedule
from tensorlang.schedule.verdict import RefusedStep
from tests import programs
from tests.fuzz import intrinsics
from tests.schedule.checks import body_of, check, replays


def tiles(n=40, tile=8) -> tuple[Schedule, object]:
    """A producer computed at the tiles of its reader."""
    x = te.placeholder((n,), name="x")
    y = te.compute((n,), lambda i: x[i] + 1.0, name="y")
    s = Schedule(te.create_prim_func("f", [x], [te.compute((n,), lambda i: y[i] * 2.0, name="out")]))
    outer, _ = s["out"].split(s["out"].axis[0], tile)
    s["y"].compute_at(s["out"], outer)
    return s, outer


def packed_product(m=8, n=16, k=24) -> tuple[Schedule, object]:
    """A matmul whose weights are copied, a few rows at a time, inside the reduction loop."""
    s = Schedule(programs.dense(m, n, k))
    y = s["y"]
    (i, j), (r,) = y.axis, y.reduce_axis
    ro, ri = y.split(r, 4)
    y.reorder(ro, i, j, ri)
    w = s.cache_read("w", "global", ["y"])
    w.compute_at(y, ro)
    return s, ro


def test_double_buffer(golden):
    s, _ = tiles()
    s["y"].double_buffer()
    golden(body_of(s))
    assert str(s.trace).splitlines()[-1] == "y.software_pipeline(i_o, [0, 1])"
    assert s.proof[-1].verdict.status == "proved"
    check(s)
    replays(s)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 21])
def test_ragged_and_short_loops(n):
    s, _ = tiles(n)
    s["y"].double_buffer()
    check(s)
    s, _ = tiles(te.var("N"))
    s["y"].double_buffer()
    check(s, N=n)


def test_copies_inside_a_reduction():
    s, ro = packed_product()
    s["w_global"].double_buffer()
    copy = s["w_global"]
    copy.vectorize(copy.loops[-1])
    s["y"].vectorize(s["y"].axis[1])
    check(s)
    replays(s)
    s["y"].loop_partition(ro)
    main = str(s)[str(s).index("k_o_main") : str(s).index("k_o_tail")]
    assert "where" not in main  # the guard is gone from all iterations but the last
    check(s)


@pytest.mark.parametrize("m", [1, 2, 3, 6])
@pytest.mark.parametrize("stages", [[0, 1, 2], [0, 0, 1], [0, 1, 1], [0, 2, 3]])
def test_several_stages(stages, m, golden):
    s = Schedule(programs.dense(te.var("M"), 6, 5))
    y = s["y"]
    first = s.cache_read("x", "global", ["y"])
    first.compute_at(y, y.axis[0])
    s.cache_read("x_global", "local", ["y"])
    y.software_pipeline(y.axis[0], stages)
    if stages == [0, 1, 2] and m == 1:
        golden(body_of(s))
        replays(s)
    check(s, M=m)


def test_two_tiles_of_one_reader():
    s, ro = packed_product(8, 16, 22)
    x = s.cache_read("x", "local", ["y"])
    x.compute_at(s["y"], ro)
    s["y"].software_pipeline(ro, [0, 0, 1])
    check(s)


def test_what_feeds_a_double_buffered_stage_runs_ahead_with_it():
    s, _ = tiles()
    copy = s.cache_read("x", "global", ["y"])
    copy.compute_at(s["y"], s["y"].loops[0])
    s["y"].double_buffer()
    assert str(s.trace).splitlines()[-1] == "y.software_pipeline(i_o, [0, 0, 1])"
    check(s)


def test_steps_after_it_are_checked_on_what_it_made():
    s, outer = tiles()
    s["y"].double_buffer()
    with pytest.raises(ScheduleError, match="not independent"):
        s["out"].parallel(outer)
    for step in (s["y"].compute_inline, s["y"].compute_root, lambda: s["y"].transform_layout(lambda a, b: (b, a))):
        with pytest.raises(ScheduleError):
            step()
    s["out"].vectorize(s["out"].loops[-1])
    s["y"].unroll(s["y"].loops[-1])
    check(s)


# -- refusals ----------------------------------------------------------------------------------------------------------

NEIGHBOURS = """\
def f(x: i64[9], y: i64[9], z: i64[9]) -> (y, z):
    for i in range(8):
        for a in range(1):
            with block("y", v=spatial(8, i + a)):
                y[v] = x[v] + z[v]
        for b in range(1):
            with block("z", v=spatial(8, i + b)):
                z[v + 1] = y[v] * 2"""

SHARED = """\
def f(x: i64[8], y: i64[8]) -> y:
    t = alloc(i64[1])
    for i in range(8):
        for a in range(1):
            with block("t", v=spatial(1, a)):
                t[v] = 5
        for b in range(1):
            with block("y", v=spatial(8, i + b)):
                y[v] = t[0] + x[v]"""


def refused(s: Schedule, step, reason: str) -> ScheduleError:
    before, length = str(s), len(s.trace)
    with pytest.raises(ScheduleError, match=reason) as caught:
        step()
    assert str(s) == before and len(s.trace) == len(s.proof) == length
    return caught.value


def test_a_statement_does_not_run_ahead_of_what_it_depends_on():
    s = Schedule(parse_func(NEIGHBOURS))
    error = refused(s, lambda: s["z"].software_pipeline(s["z"].loops[0], [0, 1]), "y would run 1 iteration.* ahead of z")
    assert isinstance(error, RefusedStep)
    example = error.verdict.counterexample
    times = [next(n for v, n in side.items() if v.name == "i") for side in (example.first, example.second)]
    assert example.buffer.name == "z" and times[1] == times[0] + 1 and example.address == (times[1],)


def test_memory_that_iterations_share_has_one_version():
    s = Schedule(parse_func(SHARED))
    refused(s, lambda: s["y"].software_pipeline(s["y"].loops[0], [0, 1]), "t would run 1 iteration.* ahead of y")


def test_parallel_loops_have_no_order():
    s, outer = tiles()
    s["out"].parallel(outer)
    refused(s, s["y"].double_buffer, "is parallel")


def test_a_stage_at_the_root():
    s = Schedule(programs.dense(4, 4, 4))
    refused(s, s["y"].double_buffer, "computed at the root")


def test_what_accumulates_along_the_loop_is_last():
    s, ro = packed_product()
    refused(s, lambda: s["y"].software_pipeline(ro, [1, 0]), "y accumulates along k_o|is read in stage 0")


@pytest.mark.parametrize(
    ("stages", "reason"),
    [
        ([0], r"holds 2 statement\(s\) \(y; out\), and 1 stage"),
        ([0, 0], "nothing to overlap"),
        ([1, 2], "of which 0 is used"),
        ([0, -1], "numbers from 0 to 7"),
        ([0, True], "numbers from 0 to 7"),
        ([1, 0], "y is read in stage 0 and made in stage 1"),
    ],
)
def test_wrong_stages(stages, reason):
    s, outer = tiles()
    refused(s, lambda: s["out"].software_pipeline(outer, stages), reason)


def test_a_loop_of_another_stage():
    s = Schedule(programs.dense(4, 4, 4))
    refused(s, lambda: s["y"].software_pipeline(s["out"].axis[0], [0, 1]), "not a loop of stage y")


def test_what_is_tensorized_or_rolled_already():
    x = te.placeholder((18,), name="x")
    k = te.reduce_axis(3, name="k")
    s = Schedule(te.create_prim_func("f", [x], [te.compute((16,), lambda i: te.sum(x[i + k], axis=k), name="y")]))
    copy = s.cache_read("x", "global", ["y"])
    copy.compute_at(s["y"], s["y"].axis[0])
    copy.rolling_buffer()
    refused(s, lambda: s["y"].software_pipeline(s["y"].axis[0], [0, 1]), "x_global is rolled")
    s, _ = packed_product()
    s["w_global"].tensorize(s["w_global"].loops[-1], intrinsics.COPIES["f32"][0], fallback=True)
    refused(s, s["w_global"].double_buffer, "was tensorized; pipeline k_o before that")


def test_a_loop_of_elements_and_their_sums_is_refused():
    """Found by fuzzing: slots of such a loop would be part of the sum, which then begins at the first slot alone."""
    x = te.placeholder((2,), name="x")
    k = te.reduce_axis(2, "k")
    s = Schedule(te.create_prim_func("f", [x], [te.compute((3,), lambda i: te.sum(x[k] + 1.0, axis=k), name="a")]))
    copy = s.cache_read("x", "global", ["a"])
    fused = s["a"].fuse(*s["a"].loops)
    copy.compute_at(s["a"], fused)
    before = str(s)
    with pytest.raises(ScheduleError, match="moves both the elements and the sum of a"):
        s["a"].software_pipeline(fused, [0, 1])
    assert str(s) == before
