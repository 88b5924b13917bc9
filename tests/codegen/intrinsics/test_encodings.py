"""Encodings of f32, and division that is a division."""

from __future__ import annotations

import numpy as np

SOURCE = """
@kernel("f32* x, f32* y, f32* q, i32* bits, f32* back, i64 n")
def encodings(ctx, x, y, q, bits, back, n):
    for i in range(n // 16):
        vstore(q, i * 16, quotient(vload(x, i * 16, 16), y[0]))
        vstore(bits, i * 16, float_bits(vload(x, i * 16, 16)))
        vstore(back, i * 16, from_float_bits(vload(bits, i * 16, 16)))
    for i in range(n):
        q[n + i] = quotient(x[i], f32(0.123))
        bits[n + i] = float_bits(x[i])
        back[n + i] = from_float_bits(bits[n + i])
"""


def test_native_equals_plain_and_numpy(run_both):
    n = 4096
    x = np.random.default_rng(2).standard_normal(n).astype(np.float32) * np.float32(100)
    x[:6] = [0.0, -0.0, np.inf, -np.inf, 1e-45, 3e37]
    y = np.array([0.123], np.float32)
    assert (x / y != x * (1 / y)).any(), "a reciprocal would show"
    outputs = [np.zeros(2 * n, np.float32), np.zeros(2 * n, np.int32), np.zeros(2 * n, np.float32)]
    for _, _, q, bits, back, _ in run_both(SOURCE, "encodings", x, y, *outputs, n):
        np.testing.assert_array_equal(q, np.tile(x / y, 2))
        np.testing.assert_array_equal(bits, np.tile(x.view(np.int32), 2))
        np.testing.assert_array_equal(back.view(np.int32), bits)
