"""A dense layer as a tensor expression, called on arrays, then scheduled by hand, step by step."""

import numpy as np

import tensorlang as tl
from tensorlang import te


@te.compute
def dense(x: te.f32["M", "K"], w: te.f32["N", "K"], b: te.f32["N"]):
    """relu(x @ w.T + b)"""
    M, K = x.shape
    N, _ = w.shape
    k = te.reduce_axis(K, name="k")
    y = te.compute((M, N), lambda i, j: te.sum(x[i, k] * w[j, k], axis=k), name="y")
    return te.compute((M, N), lambda i, j: te.maximum(y[i, j] + b[j], 0), name="out")


def reference(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(x @ w.T + b, 0)


def main() -> None:
    random = np.random.default_rng(0)
    x, w, b = (random.standard_normal(shape, dtype=np.float32) for shape in ((128, 256), (192, 256), (192,)))

    np.testing.assert_allclose(dense(x, w, b), reference(x, w, b), rtol=1e-4, atol=1e-4)
    print("default schedule: equal to NumPy")

    s = te.create_schedule(dense, shapes={"M": 128, "N": 192, "K": 256})
    out, y = s["out"], s["y"]
    i, j = out.axis
    io, jo, ii, ji = out.tile(i, j, 4, 64)
    y.compute_at(out, jo)
    print(s)  # the loop nest, after any step
    out.parallel(io)
    out.vectorize(ji)
    kernel = tl.build(s, target="cpu")
    np.testing.assert_allclose(kernel(x, w, b), reference(x, w, b), rtol=1e-4, atol=1e-4)
    print("own schedule: equal to NumPy")

    try:
        y_again = te.create_schedule(dense, shapes={"M": 128, "N": 192, "K": 256})["y"]
        (k,) = y_again.reduce_axis
        y_again.parallel(k)
    except tl.errors.ScheduleError as error:
        print("refused, as it must be:", str(error).splitlines()[0])


if __name__ == "__main__":
    main()
