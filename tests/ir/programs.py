"""Programs as text, shared by the tests of the IR. Each is also a round-trip case of printer and parser."""

from __future__ import annotations

DENSE = """\
@prim_func(source={"y": "model.py:7"}, constants=("w",))
def dense(x: f32[M, K], w: f32[N, K], out: f32[M, N], M: i64, N: i64, K: i64) -> out:
    y = alloc(f32[M, N])
    for i in range(M):
        for j in range(N):
            for k in range(K):
                with block("y", vi=spatial(M, i), vj=spatial(N, j), vk=reduce(K, k)):
                    with init():
                        y[vi, vj] = 0.0
                    y[vi, vj] = y[vi, vj] + x[vi, vk] * w[vj, vk]
    for i_1 in parallel(M):
        for j_1 in vectorized(N, chunk=4):
            with block("out", vi=spatial(M, i_1), vj=spatial(N, j_1)):
                out[vi, vj] = max(y[vi, vj], 0.0)"""

# j split by 4 with a guarded tail, k outside: init must run at the first k only
DENSE_SPLIT = """\
def dense(x: f32[M, K], w: f32[N, K], y: f32[M, N], M: i64, N: i64, K: i64) -> y:
    for i in parallel(M):
        for j_o in range((N + 3) // 4):
            for k in range(K):
                for j_i in range(4):
                    with block(
                            "y", vi=spatial(M, i), vj=spatial(N, j_o * 4 + j_i), vk=reduce(K, k),
                            where=j_o * 4 + j_i < N, annotation_of_a_block=("a", 1, 2.5, True, None),
                    ):
                        with init():
                            y[vi, vj] = 0.0
                        y[vi, vj] = y[vi, vj] + x[vi, vk] * w[vj, vk]"""

CONV = """\
def conv(x: f32[2, 3, 7, 8], w: f32[4, 3, 3, 3], y: f32[2, 4, 4, 4]) -> y:
    pad = alloc(f32[2, 3, 9, 10])
    for n in range(2):
        for c in range(3):
            for h in range(9):
                for q in range(10):
                    with block("pad", vn=spatial(2, n), vc=spatial(3, c), vh=spatial(9, h), vq=spatial(10, q)):
                        pad[vn, vc, vh, vq] = select(
                            all_of(all_of(1 <= vh, vh < 8), all_of(1 <= vq, vq < 9)), x[vn, vc, vh - 1, vq - 1], 0.0
                        )
    for n_1 in parallel(2):
        for o in range(4):
            for h_1 in range(4):
                for q_1 in range(4):
                    for c_1 in range(3):
                        for r in range(3):
                            for s in range(3):
                                with block(
                                    "y", vn=spatial(2, n_1), vo=spatial(4, o), vh=spatial(4, h_1), vq=spatial(4, q_1),
                                    vc=reduce(3, c_1), vr=reduce(3, r), vs=reduce(3, s),
                                ):
                                    with init():
                                        y[vn, vo, vh, vq] = 0.0
                                    y[vn, vo, vh, vq] = (
                                        y[vn, vo, vh, vq] + pad[vn, vc, vh * 2 + vr, vq * 2 + vs] * w[vo, vc, vr, vs]
                                    )"""

SOFTMAX = """\
def softmax(x: f32[M, N], y: f32[M, N], M: i64, N: i64) -> y:
    for i in parallel(M):
        with alloc(f32[1], scope="local") as top:
            for j in range(N):
                with block("top", vi=spatial(M, i), vj=reduce(N, j)):
                    with init():
                        top[0] = float("-inf")
                    top[0] = max(top[0], x[vi, vj])
            total = alloc(f32[1], scope="local")
            for j_1 in range(N):
                with block("total", vi=spatial(M, i), vj=reduce(N, j_1)):
                    with init():
                        total[0] = 0.0
                    total[0] = total[0] + exp(x[vi, vj] - top[0])
            for j_2 in range(N):
                with block("y", vi=spatial(M, i), vj=spatial(N, j_2)):
                    y[vi, vj] = exp(x[vi, vj] - top[0]) / total[0]
        pass"""

GATHER = """\
def gather(table: f32[V, D], ids: i32[B], y: f32[B, D], V: i64, D: i64, B: i64) -> y:
    for b in parallel(B):
        for d in range(D):
            with block("y", vb=spatial(B, b), vd=spatial(D, d)):
                y[vb, vd] = table[cast(i64, select(ids[vb] < i32(0), ids[vb] + cast(i32, V), ids[vb])), vd]"""

MIXED = """\
def mixed(
        a: f16[N], b: bf16[N], c: i8[N], d: u8[N], h: f16[N], g: bf16[N], s: i8[N], t: i32[N], m: bool[N], f: f64[()], N: i64
) -> (h, g, s, t, m, f):
    for i in range(N):
        with block("h", vi=spatial(N, i)):
            h[vi] = a[vi] * a[vi] + f16(0.1)
    for i_1 in range(N):
        with block("g", vi=spatial(N, i_1)):
            g[vi] = b[vi] * bf16(1.5) - cast(bf16, a[vi])
    for i_2 in range(N):
        with block("s", vi=spatial(N, i_2)):
            s[vi] = c[vi] * c[vi] + i8(100)
    for i_3 in range(N):
        with block("t", vi=spatial(N, i_3)):
            t[vi] = cast(i32, c[vi]) // i32(-7) * i32(1000) + cast(i32, d[vi]) % i32(5) + cast(i32, u8(200) + d[vi])
    for i_4 in range(N):
        with block("m", vi=spatial(N, i_4)):
            m[vi] = any_of(isnan(cast(f32, a[vi])), all_of(not_(c[vi] < i8(0)), d[vi] != u8(3)))
    for i_5 in range(N):
        with block("f", vi=reduce(N, i_5)):
            with init():
                f[()] = f64(0.0)
            f[()] = f[()] + cast(f64, a[vi])"""

# Lowered: flat buffers, vectors, a masked tail; y = x * s, but z[i] = x[N - 1 - i] where i is even, else 0
LOWERED = """\
def lowered(x: f32[N], s: f32[1], y: f32[N], z: f32[N], N: i64) -> (y, z):
    for i in parallel((N + 3) // 4):
        if i * 4 + 4 <= N:
            y[ramp(i * 4, 1, 4)] = x[ramp(i * 4, 1, 4)] * broadcast(s[0], 4)
        else:
            if ramp(i * 4, 1, 4) < broadcast(N, 4):
                y[ramp(i * 4, 1, 4)] = (
                    select(ramp(i * 4, 1, 4) < broadcast(N, 4), x[ramp(i * 4, 1, 4)], broadcast(0.0, 4))
                    * broadcast(s[0], 4)
                )
        if ramp(i * 4, 1, 4) < broadcast(N, 4):
            z[ramp(i * 4, 1, 4)] = select(
                ramp(i * 4, 1, 4) % broadcast(2, 4) == broadcast(0, 4), x[ramp(N - 1 - i * 4, -1, 4)], broadcast(0.0, 4)
            )"""

ODD = """\
@prim_func(name="conv/Relu:0", attrs={"not a name": {"k": [1, -2.5, float("nan")]}, "where": ""})
def conv_Relu_0(x: alloc(f32[4], scope="shared"), n: i32, M: i64) -> None:
    for i in bind("blockIdx.x", M, dtype="i32", annotations={"dtype": "x", "2": 1}):
        tensor_store(x[cast(i64, i)], -x[0], neg(1.0), -2.0, f64(-0.0), float("inf"), i8(-128))
    for j in unrolled(n):
        pass
    with alloc(i32[M * 2 + 1]) as tmp:
        with block("b/1", v=spatial(4, 0, dtype="i32"), where=not_(x[0] == 0.0), annotations={"where": 1}):
            tmp[v] = call(i32, "anything", x[0])
    a = alloc(bool[()])
    if M - (3 - M) * 2 - 1 <= M // (M % 7) and_then_nothing:
        a[()] = (x[0] < 1.0) == (x[1] < 2.0)
    else:
        a[()] = True""".replace(" and_then_nothing", "")

ALL = {
    "dense": DENSE, "dense_split": DENSE_SPLIT, "conv": CONV, "softmax": SOFTMAX, "gather": GATHER, "mixed": MIXED,
    "lowered": LOWERED, "odd": ODD,
}  # fmt: skip
