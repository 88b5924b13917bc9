"""Each lowering pass on a small program: the text before and after, and that the numbers stay."""

from __future__ import annotations

import numpy as np
import pytest

from tensorlang import te
from tensorlang.ir import interp
from tensorlang.ir.parser import parse_func
from tensorlang.ir.verify import verify
from tensorlang.lower import PASSES, lower
from tensorlang.lower.prepare import split_preparation
from tensorlang.te import instructions as hw

RUN = dict(PASSES)
SIZES = {"M": 7, "N": 13}


@te.compute
def scale8(a: te.f32[8]):
    return te.compute((8,), lambda i: a[i] * 2.0, name="c")


@te.tensor_intrin(scale8, name="lower.scale8")
def vector_scale8(c, a):
    hw.vstore(c, 0, hw.vload(a, 0, 8) * hw.vsplat(hw.f32(2.0), 8))



PROGRAMS = {
    "init": """\
def f(x: f32[M, 8], y: f32[M], M: i64) -> y:
    for i in parallel(M):
        for k_o in range(2):
            for k_i in range(4):
                with block("y", vi=spatial(M, i), vk=reduce(8, k_o * 4 + k_i)):
                    with init():
                        y[vi] = 0.0
                    y[vi] = y[vi] + x[vi, vk]""",
    "blocks": """\
def f(x: f32[N], y: f32[N], N: i64) -> y:
    for i_o in range((N + 3) // 4):
        for i_i in range(4):
            with block("y", vi=spatial(N, i_o * 4 + i_i), where=i_o * 4 + i_i < N):
                y[vi] = x[vi]""",
    "halves": """\
def f(x: f32[N], y: f32[N], N: i64) -> y:
    h = alloc(f16[N])
    for i in range(N):
        h[i] = cast(f16, x[i]) * f16(0.5)
    s = alloc(bf16[()])
    s[()] = bf16(0.0)
    for j in range(N):
        s[()] = max(s[()], cast(bf16, h[j]))
    for k in range(N):
        y[k] = cast(f32, s[()]) + cast(f32, h[k])""",
    "simplify": """\
def f(x: f32[8], y: f32[8]) -> y:
    for i in range(1):
        for j in range(2):
            for k in range(4):
                if j * 4 + k < 8:
                    y[i * 8 + (j * 4 + k) % 8] = x[(j * 8 + k * 2) // 2]""",
    "narrow": """\
def f(x: f32[M, 8], y: f32[M, 8], M: i64) -> y:
    for i in range(M):
        with alloc(f32[M, 8]) as t:
            for j in range(8):
                t[i, j] = x[i, j] * 2.0
            for j in range(8):
                y[i, j] = t[i, j] + t[i, 7 - j]""",
    "hoist": """\
def f(x: f32[N], y: f32[N, 4], N: i64) -> y:
    for i_o in range((N + 3) // 4):
        for i_i in range(4):
            for j in range(4):
                if all_of(i_o * 4 + i_i < N, j < 3):
                    y[i_o * 4 + i_i, j] = x[i_o * 4 + i_i]""",
    "partition": """\
def f(x: f32[N], y: f32[N], N: i64) -> y:
    for i_o in range((N + 3) // 4):
        with alloc(f32[4], scope="local") as t:
            for i in range(4):
                if i_o * 4 + i < N:
                    t[i] = x[i_o * 4 + i]
            for k in range(3):
                for i in range(4):
                    if i_o * 4 + i < N:
                        t[i] = t[i] * 3.0 + x[i_o * 4 + i]
            for i in range(4):
                if i_o * 4 + i < N:
                    y[i_o * 4 + i] = t[i] * t[i]""",
    "unswitch": """\
def f(x: f32[N], w: f32[5, 5], y: f32[N], N: i64) -> y:
    for h in range(N):
        with alloc(f32[1], scope="local") as t:
            t[0] = 0.0
            for kh in range(5):
                for kw in range(5):
                    for r in range(20):
                        t[0] = t[0] + select(all_of(h + kh < N, kw < r), x[h + kh], 0.0) * w[kh, kw]
            y[h] = t[0]""",
    "tensorize": """\
def f(x: f32[2, 32], y: f32[2, 32]) -> y:
    for i in range(2):
        for j_o in range(4):
            for j_i in range(8, tensor_intrin="lower.scale8"):
                y[i, j_o * 8 + j_i] = 2.0 * x[i, 24 - j_o * 8 + j_i]""",
    "flatten": """\
def f(x: f32[M, 3, N], y: f32[N, M], M: i64, N: i64) -> y:
    for i in range(M):
        for j in range(N):
            y[j, i] = x[i, 1, j]""",
    "vectorize": """\
def f(x: f32[N], w: f32[64], y: f32[N], N: i64) -> y:
    for i in range((N + 7) // 8):
        for v in vectorized(8):
            if i * 8 + v < N:
                y[i * 8 + v] = select(v < 2, w[v * 3], x[i * 8 + v]) * w[i]""",
}




@pytest.mark.parametrize("name", RUN)
def test_before_and_after(name, golden):
    before = parse_func(PROGRAMS[name])
    after = RUN[name](before)
    verify(before)
    verify(after)
    golden(f"{before}\n\n->\n\n{after}", name)
    rng = np.random.default_rng(0)
    shapes = [[d.value if d.op == "const" else SIZES[d.name] for d in b.shape] for b in before.buffers]
    inputs = [rng.standard_normal(s).astype(np.float32) for s in shapes[:-1]]
    outputs = []
    for func in (before, after):
        out = np.empty(shapes[-1], np.float32)
        interp.run(func, [*inputs, out, *(SIZES[v.name] for v in func.size_vars)])
        outputs.append(out)
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("name", RUN)
def test_a_pass_returns_the_same_object_where_nothing_changes(name):
    func = parse_func("""\
def f(x: f32[8], y: f32[8]) -> y:
    for i in range(8):
        y[i] = x[i] * 2.0""")
    assert RUN[name](func).body is func.body


@pytest.mark.parametrize("store", ["t[0] = t[0] * 3.0 + x[i_o * 4 + i]", "t[i] = t[3 - i] * 3.0 + x[i_o * 4 + i]"])
def test_rows_of_a_guarded_tile_stay_inside_where_they_meet(store):
    before = parse_func(f"""\
def f(x: f32[N], y: f32[N], N: i64) -> y:
    for i_o in range((N + 3) // 4):
        with alloc(f32[4], scope="local") as t:
            for i in range(4):
                t[i] = 1.0
            for k in range(3):
                for i in range(4):
                    if i_o * 4 + i < N:
                        {store}
            for i in range(4):
                if i_o * 4 + i < N:
                    y[i_o * 4 + i] = t[i]""")
    x, outputs = np.random.default_rng(0).standard_normal(13).astype(np.float32), []
    for func in (before, RUN["partition"](before)):
        outputs.append(np.empty(13, np.float32))
        interp.run(func, [x, outputs[-1], 13])
    np.testing.assert_array_equal(*outputs)


def test_every_pass_has_a_program():
    assert list(PROGRAMS) == list(RUN)


def test_lowering_keeps_a_stage_per_pass():
    stages = lower(parse_func(PROGRAMS["init"]))
    assert [s.name for s in stages] == list(RUN)


# -- preparation ---------------------------------------------------------------------------------------------------

PACKED = """\
def f(x: f32[4, 8], w: f32[8, 8], y: f32[4, 8]) -> y:
    p = alloc(f32[2, 8, 4])
    for o in range(2):
        for k in range(8):
            for l in range(4):
                with block("p", vo=spatial(2, o), vk=spatial(8, k), vl=spatial(4, l)):
                    p[vo, vk, vl] = w[vk, vo * 4 + vl]
    for i in range(4):
        for j in range(8):
            for k in range(8):
                with block("y", vi=spatial(4, i), vj=spatial(8, j), vk=reduce(8, k)):
                    with init():
                        y[vi, vj] = 0.0
                    y[vi, vj] = y[vi, vj] + x[vi, vk] * p[vj // 4, vk, vj % 4]"""


def test_what_depends_on_constants_alone_is_split_off(golden):
    steps, main = split_preparation(parse_func(PACKED), ["w"])
    golden("\n\n".join(map(str, [*steps, main])))


def test_nothing_is_split_off_without_constants():
    func = parse_func(PACKED)
    assert split_preparation(func, []) == ([], func)


def test_what_depends_on_a_size_is_not_prepared():
    func = parse_func("""\
def f(w: f32[N], y: f32[N, 4], N: i64) -> y:
    p = alloc(f32[4])
    for i in range(4):
        with block("p", vi=spatial(4, i)):
            p[vi] = w[vi % N]
    for i in range(N):
        for j in range(4):
            with block("y", vi=spatial(N, i), vj=spatial(4, j)):
                y[vi, vj] = p[vj] + w[vi]""")
    assert split_preparation(func, ["w"]) == ([], func)
