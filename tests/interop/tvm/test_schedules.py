"""Classic schedules: any order of calls gives the program that was meant, and misuse is refused with the user's line."""

from __future__ import annotations

import numpy as np
import pytest

import tensorlang.interop.tvm as tvm
from tensorlang.errors import InputError, ScheduleError, TypeCheckError
from tensorlang.interop.tvm import te


def run(s, tensors, arrays, out_shape, dtype="float32", target="llvm"):
    function = tvm.build(s, tensors, target)
    out = tvm.nd.empty(out_shape, dtype)
    function(*(tvm.nd.array(a) for a in arrays), out)
    return out.numpy()


def uniform(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")


def product(n, m, k):
    a, b = te.placeholder((n, k), name="a"), te.placeholder((k, m), name="b")
    r = te.reduce_axis((0, k), "r")
    c = te.compute((n, m), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r), name="c")
    return a, b, c


def chain(n):
    a = te.placeholder((n,), name="a")
    b = te.compute((n,), lambda i: a[i] + 1, name="b")
    c = te.compute((n,), lambda i: b[i] * 2, name="c")
    return a, b, c


def test_split_fuse_reorder_tile_on_symbolic_sizes():
    n, m = te.var("n"), te.var("m")
    a = te.placeholder((n, m), name="a")
    b = te.compute((n, m), lambda i, j: a[i, j] * 3, name="b")
    s = te.create_schedule(b.op)
    xo, yo, xi, yi = s[b].tile(b.op.axis[0], b.op.axis[1], x_factor=4, y_factor=5)
    fused = s[b].fuse(xi, yi)
    s[b].reorder(fused, yo, xo)
    assert s[b].leaf_iter_vars == [fused, yo, xo]
    outer, inner = s[b].split(fused, nparts=3)
    s[b].unroll(inner)
    s[b].parallel(outer)
    x = uniform(7, 11)
    np.testing.assert_array_equal(run(s, [a, b], [x], x.shape), x * 3)


def test_the_schedule_can_go_on_after_lower():
    a, b, c = product(8, 32, 16)
    s = te.create_schedule(c.op)
    before = str(tvm.lower(s, [a, b, c], simple_mode=True))
    xo, yo, xi, yi = s[c].tile(*c.op.axis, 4, 16)
    (k,) = s[c].op.reduce_axis
    s[c].reorder(xo, yo, k, xi, yi)
    tiled = str(tvm.lower(s, [a, b, c], simple_mode=True))
    s[c].vectorize(yi)
    after = str(tvm.lower(s, [a, b, c], simple_mode=True))
    assert len({before, tiled, after}) == 3 and "vectorized(16)" in after
    x, y = uniform(8, 16), uniform(16, 32)
    np.testing.assert_allclose(run(s, [a, b, c], [x, y], (8, 32)), x @ y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("late", [False, True], ids=["split-first", "compute_at-first"])
def test_compute_at_before_or_after_the_transformations(late):
    a, b, c = chain(64)
    s = te.create_schedule(c.op)
    if not late:
        s[b].split(b.op.axis[0], factor=4)
    outer, inner = s[c].split(c.op.axis[0], factor=16)
    s[b].compute_at(s[c], outer)
    if late:
        s[b].split(b.op.axis[0], factor=4)
    s[c].vectorize(inner)
    text = str(tvm.lower(s, [a, c]))
    assert text.index("for i_o in range(4)") < text.index('block("b"') < text.index("vectorized(16)")
    x = uniform(64)
    np.testing.assert_array_equal(run(s, [a, c], [x], 64), (x + 1) * 2)


def test_a_placement_can_be_changed_again():
    a, b, c = chain(32)
    s = te.create_schedule(c.op)
    naive = str(tvm.lower(s, [a, c]))
    s[b].compute_at(s[c], c.op.axis[0])
    inside = str(tvm.lower(s, [a, c]))
    s[b].compute_inline()
    inlined = str(tvm.lower(s, [a, c]))
    s[b].compute_root()
    assert str(tvm.lower(s, [a, c])) == naive
    assert len({naive, inside, inlined}) == 3 and 'block("b"' not in inlined


def test_cache_write_leaves_the_axes_to_the_copy_and_the_reduction_to_the_cache():
    a, b, c = product(16, 32, 24)
    s = te.create_schedule(c.op)
    cc = s.cache_write(c, "global")
    assert s[c].op.reduce_axis == [] and len(s[cc].op.reduce_axis) == 1
    xo, yo, _, yi = s[c].tile(c.op.axis[0], c.op.axis[1], 8, 16)
    s[cc].compute_at(s[c], yo)
    xc, yc = s[cc].op.axis
    ko, ki = s[cc].split(s[cc].op.reduce_axis[0], factor=4)
    s[cc].reorder(ko, xc, ki, yc)
    s[cc].unroll(ki)
    s[cc].vectorize(yc)
    s[c].parallel(xo)
    s[c].vectorize(yi)
    x, y = uniform(16, 24), uniform(24, 32)
    np.testing.assert_allclose(run(s, [a, b, c], [x, y], (16, 32)), x @ y, rtol=1e-4, atol=1e-5)


def test_cache_read_of_an_input_and_its_placement():
    a, b, c = product(8, 16, 12)
    s = te.create_schedule(c.op)
    bb = s.cache_read(b, "shared", [c])
    outer, _ = s[c].split(c.op.axis[1], factor=8)
    s[c].reorder(outer, c.op.axis[0])
    s[bb].compute_at(s[c], outer)
    assert 'block("b_global"' in str(tvm.lower(s, [a, b, c]))
    x, y = uniform(8, 12), uniform(12, 16)
    np.testing.assert_allclose(run(s, [a, b, c], [x, y], (8, 16)), x @ y, rtol=1e-4, atol=1e-5)


def test_rfactor_with_splits_before_and_after():
    n, m = te.var("n"), te.var("m")
    a = te.placeholder((n, m), name="a")
    k = te.reduce_axis((0, m), "k")
    b = te.compute((n,), lambda i: te.sum(a[i, k], axis=k), name="b")
    s = te.create_schedule(b.op)
    rows, _ = s[b].split(b.op.axis[0], factor=4)  # on the output's axis: stays with b
    ko, ki = s[b].split(b.op.reduce_axis[0], factor=8)
    bf = s.rfactor(b, ki)
    assert [v.name for v in s[bf].op.axis] == ["k_i", "i_rf"] and s[bf].op.reduce_axis == [ko]
    assert len(s[b].op.reduce_axis) == 1 and "b_rf" in str(s[b].op.body)
    s[bf].reorder(s[bf].op.axis[1], ko, s[bf].op.axis[0])
    s[bf].vectorize(s[bf].op.axis[0])
    s[b].parallel(rows)
    x = uniform(10, 27)
    np.testing.assert_allclose(run(s, [a, b], [x], 10), x.sum(1), rtol=1e-5, atol=1e-5)


def test_a_reduction_across_threads_runs_as_loops():
    a = te.placeholder((32, 64), name="a")
    k = te.reduce_axis((0, 64), "k")
    b = te.compute((32,), lambda i: te.sum(a[i, k], axis=k), name="b")
    s = te.create_schedule(b.op)
    _, ki = s[b].split(b.op.reduce_axis[0], factor=16)
    bf = s.rfactor(b, ki)
    tx = te.thread_axis("threadIdx.x")
    s[b].bind(s[b].op.axis[0], te.thread_axis("blockIdx.x"))
    s[b].bind(s[b].op.reduce_axis[0], tx)
    s[bf].compute_at(s[b], s[b].op.reduce_axis[0])
    s[b].set_store_predicate(tx.var.equal(0))
    function = tvm.build(s, [a, b], "cuda")
    assert "for" in function.imported_modules[0].get_source()
    x, out = uniform(32, 64), tvm.nd.empty((32,), device=tvm.cuda(0))
    function(tvm.nd.array(x, tvm.cuda(0)), out)
    np.testing.assert_allclose(out.numpy(), x.sum(1), rtol=1e-5, atol=1e-5)


def test_copies_at_every_level_as_for_a_gpu():
    a, b, c = product(32, 32, 32)
    s = te.create_schedule(c.op)
    shared = {t: s.cache_read(t, "shared", [c]) for t in (a, b)}
    local = {t: s.cache_read(shared[t], "local", [c]) for t in (a, b)}
    result = s.cache_write(c, "local")
    (by, iy), (bx, ix) = (s[c].split(axis, factor=16) for axis in c.op.axis)
    (ty, iy), (tx, ix) = (s[c].split(axis, nparts=4) for axis in (iy, ix))
    s[c].reorder(by, bx, ty, tx, iy, ix)
    axes = {tag: te.thread_axis(tag) for tag in ("blockIdx.y", "blockIdx.x", "threadIdx.y", "threadIdx.x")}
    for axis, tag in zip((by, bx, ty, tx), axes, strict=True):
        s[c].bind(axis, axes[tag])
    s[result].compute_at(s[c], tx)
    ko, ki = s[result].split(s[result].op.reduce_axis[0], factor=8)
    s[result].reorder(ko, ki, *s[result].op.axis)
    for t in (a, b):
        s[shared[t]].compute_at(s[result], ko)
        s[local[t]].compute_at(s[result], ki)
        fused = s[shared[t]].fuse(*s[shared[t]].op.axis)
        outer, fused = s[shared[t]].split(fused, nparts=4)
        inner, fused = s[shared[t]].split(fused, nparts=4)
        s[shared[t]].bind(outer, axes["threadIdx.y"])
        s[shared[t]].bind(inner, axes["threadIdx.x"])
    x, y = uniform(32, 32), uniform(32, 32)
    np.testing.assert_allclose(run(s, [a, b, c], [x, y], (32, 32), target="cuda"), x @ y, rtol=1e-4, atol=1e-5)


def test_a_store_predicate_that_would_leave_elements_out_is_refused():
    a, b, c = chain(32)
    s = te.create_schedule(c.op)
    tx = te.thread_axis("threadIdx.x")
    s[c].bind(c.op.axis[0], tx)
    s[c].set_store_predicate(tx.var.equal(0))
    with pytest.raises(ScheduleError, match="leave elements out"):
        tvm.lower(s, [a, c])


def test_a_thread_axis_of_another_extent_is_refused():
    a, b, c = chain(32)
    s = te.create_schedule(c.op)
    s[c].bind(c.op.axis[0], te.thread_axis((0, 64), "threadIdx.x"))
    with pytest.raises(ScheduleError, match="64 threads, but i_1 32 iterations"):
        tvm.lower(s, [a, c])


def test_hints_change_nothing():
    a, b, c = chain(32)
    s = te.create_schedule(c.op)
    s[b].set_scope("shared")
    s[b].double_buffer()
    s[c].storage_align(c.op.axis[0], 32, 1)
    s[c].prefetch(b, c.op.axis[0], 1)
    s[c].pragma(c.op.axis[0], "auto_unroll_max_step", 16)
    x = uniform(32)
    np.testing.assert_array_equal(run(s.normalize(), [a, c], [x], 32), (x + 1) * 2)


# -- refusals: at the user's call where it is known to be wrong there, else with the line of that call ------------------


def here() -> str:
    return __file__.rsplit("/", 1)[1]


def test_an_axis_that_was_split_is_named_with_what_it_became():
    _, _, c = chain(32)
    s = te.create_schedule(c.op)
    s[c].split(c.op.axis[0], factor=4)
    reason = rf"{here()}.*i is not an axis of stage c; it was split into i_o, i_i at .*{here()}"
    with pytest.raises(ScheduleError, match=reason):
        s[c].vectorize(c.op.axis[0])


def test_split_takes_one_size():
    _, _, c = chain(32)
    with pytest.raises(ScheduleError, match="either factor or nparts"):
        te.create_schedule(c.op)[c].split(c.op.axis[0])


def test_fuse_takes_neighbours():
    _, _, c = product(4, 4, 4)
    s = te.create_schedule(c.op)
    with pytest.raises(ScheduleError, match="j, i are not neighbours"):
        s[c].fuse(c.op.axis[1], c.op.axis[0])


def test_reorder_names_each_axis_once():
    _, _, c = product(4, 4, 4)
    s = te.create_schedule(c.op)
    with pytest.raises(ScheduleError, match="named twice"):
        s[c].reorder(c.op.axis[0], c.op.axis[0])


def test_an_axis_of_another_stage_is_refused():
    _, b, c = chain(32)
    s = te.create_schedule(c.op)
    with pytest.raises(ScheduleError, match="is not an axis of stage c"):
        s[c].parallel(b.op.axis[0])


def test_a_stage_of_another_schedule_is_refused():
    _, _, c = chain(32)
    _, _, other = product(4, 4, 4)
    with pytest.raises(ScheduleError, match="c is not a stage of this schedule"):
        te.create_schedule(c.op)[other]


def test_a_step_that_the_proof_refutes_names_its_line():
    a, b, c = product(4, 4, 4)
    s = te.create_schedule(c.op)
    s[c].parallel(c.op.reduce_axis[0])  # this line
    with pytest.raises(ScheduleError, match=rf"{here()}:\d+: parallel of r of c, carried out by lower") as refusal:
        tvm.lower(s, [a, b, c])
    line = int(str(refusal.value).split(":")[1])
    assert open(__file__).read().splitlines()[line - 1].endswith("# this line")


def test_the_loop_to_compute_at_has_to_stay():
    a, b, c = chain(32)
    s = te.create_schedule(c.op)
    s[b].compute_at(s[c], c.op.axis[0])
    s[c].split(c.op.axis[0], factor=4)
    with pytest.raises(ScheduleError, match="compute_at of b at i of c.*it was split"):
        tvm.lower(s, [a, c])


def test_rfactor_takes_an_axis_of_the_reduction():
    _, _, c = product(4, 4, 4)
    s = te.create_schedule(c.op)
    with pytest.raises(ScheduleError, match="does not belong to the reduction"):
        s.rfactor(c, c.op.axis[0])


def test_cache_write_comes_before_the_transformations():
    _, _, c = product(4, 4, 4)
    s = te.create_schedule(c.op)
    s[c].split(c.op.axis[0], factor=2)
    with pytest.raises(ScheduleError, match="call cache_write first"):
        s.cache_write(c, "local")


def test_create_schedule_takes_operations():
    with pytest.raises(TypeCheckError, match="takes operations"):
        te.create_schedule("c")
    with pytest.raises(TypeCheckError, match="no operation given"):
        te.create_schedule([])


def test_bind_takes_a_thread_axis():
    _, _, c = chain(32)
    with pytest.raises(ScheduleError, match="thread axis"):
        te.create_schedule(c.op)[c].bind(c.op.axis[0], "threadIdx.x")
    with pytest.raises(ScheduleError, match="needs a tag"):
        te.thread_axis()


def test_groups_are_refused():
    _, _, c = chain(32)
    with pytest.raises(ScheduleError, match="compute_at"):
        te.create_schedule(c.op).create_group(c, [])


def test_lower_takes_a_schedule():
    with pytest.raises(InputError, match="lower takes a schedule"):
        tvm.lower("c", [])
