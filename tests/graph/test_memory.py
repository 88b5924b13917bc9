"""Memory planning: nothing that lives at the same time overlaps, and memory is reused."""

import random

from hypothesis import given, strategies as st

from tensorlang.graph.memory import ALIGNMENT, Request, plan_memory
from tensorlang.ir.expr import const, var, wrap
from tensorlang.ir.visitor import substitute

N, H = var("N"), var("H")


def value(e, sizes):
    return substitute(wrap(e), {v: const(n) for v, n in sizes.items()}).value


def check(requests, sizes):
    plan = plan_memory(requests)
    arena = value(plan.nbytes, sizes)
    at = {r.key: value(plan.offsets[r.key], sizes) for r in requests}
    size = {r.key: value(r.nbytes, sizes) for r in requests}
    for r in requests:
        assert at[r.key] % ALIGNMENT == 0 and 0 <= at[r.key] and at[r.key] + size[r.key] <= arena
        for o in requests:
            if o is not r and r.first <= o.last and o.first <= r.last and size[r.key] and size[o.key]:
                assert at[r.key] + size[r.key] <= at[o.key] or at[o.key] + size[o.key] <= at[r.key], (r, o)
    return arena


def test_memory_of_the_dead_is_reused():
    requests = [Request("a", const(256), 0, 2), Request("b", const(128), 1, 3), Request("c", const(200), 3, 4)]
    plan = plan_memory(requests)
    assert {k: v.value for k, v in plan.offsets.items()} == {"a": 0, "b": 256, "c": 0} and plan.nbytes.value == 384


def test_the_last_step_still_counts():
    assert check([Request("a", const(64), 0, 1), Request("b", const(64), 1, 2)], {}) == 128


def test_the_smallest_gap_is_taken():
    requests = [
        Request("wall", const(64), 0, 9),
        Request("big", const(512), 0, 1),
        Request("small", const(128), 5, 5),
        Request("long", const(256), 2, 9),
    ]
    assert check(requests, {}) == 64 + 512


def test_a_chain_needs_two_buffers_whatever_its_length():
    chain = [Request(k, N * 100, k, k + 1) for k in range(20)]
    assert check(chain, {N: 7}) == 2 * 128 * 7


def test_units_of_one_kind_share():
    requests = [Request("a", N * H * 512, 0, 1), Request("b", H * 4 * N, 1, 2), Request("c", N * 256 * H, 2, 3)]
    assert check(requests, {N: 3, H: 5}) == (512 + 64) * 15


def test_kinds_do_not_overlap():
    requests = [Request("a", N * 64, 0, 3), Request("b", const(10), 0, 3), Request("c", (N + 1) * 4, 0, 3)]
    for n in (0, 1, 5):
        check(requests, {N: n})


def test_empty():
    assert plan_memory([]).nbytes.value == 0
    assert plan_memory([Request("a", const(0), 0, 5)]).nbytes.value == 0


@given(st.randoms(use_true_random=False))
def test_random_lives(draw: random.Random):
    units = [const(1), N, N * H, N * H + N, (N + 1) // 2]
    requests = []
    for k in range(draw.randrange(1, 25)):
        first = draw.randrange(10)
        requests.append(Request(k, draw.choice(units) * draw.randrange(0, 2000), first, first + draw.randrange(5)))
    check(requests, {N: draw.randrange(1, 9), H: draw.randrange(1, 9)})


def test_the_order_of_requests_does_not_matter_for_equal_lives():
    requests = [Request(k, const(64 * (k + 1)), 0, 1) for k in range(5)]
    assert plan_memory(requests).nbytes.value == plan_memory(requests[::-1]).nbytes.value == 64 * 15
