"""Minimal filtering: what a 3x3 convolution at stride one becomes with fewer multiplications, channels last.

    Y = A^T [ (G g G^T) * (B^T d B) ] A      for every tile d of the image and filter g, * per element, summed over channels
                                             (Winograd 1980; Lavin and Gray, arXiv:1509.09308)

`winograd_input` makes B^T d B of all tiles, one matrix per element of a tile; a batch of matrix products follows, with the
prepared filters G g G^T; `winograd_output` makes Y. With tiles of m x m results there are (m + 2)^2 products per tile
instead of 9 m^2: 2.25 times fewer for m = 2, 4 times for m = 4.

The matrices are those of Toom and Cook at the points below, computed in exact fractions. For m = 4 the points are 0, +-3/4,
+-3/2 and infinity: all entries are sums of few powers of two, hence exact, and the rounding error is a third of that of the
usual 0, +-1, +-2 (Barabasz et al., arXiv:1803.10986, on why points decide it). What remains of it: on average at most thrice
that of a direct sum for m = 2, eight times for m = 4, and never more than the bound that test_winograd.py checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import cache

import numpy as np

from tensorlang import te
from tensorlang.graph.ir import TensorType
from tensorlang.graph.ops.common import canonical, plain, require
from tensorlang.graph.registry import COMPOUND, OPAQUE, Op, op
from tensorlang.ir.expr import Expr, ExprLike, floordiv, floormod, wrap

TAPS = 3
POINTS: dict[int, tuple[Fraction, ...]] = {
    2: tuple(map(Fraction, (0, 1, -1))),
    4: (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2)),
}
Matrix = tuple[tuple[Fraction, ...], ...]


@cache
def matrices(m: int) -> tuple[Matrix, Matrix, Matrix]:
    """(A^T, G, B^T) of F(m, 3): m x (m+2), (m+2) x 3, (m+2) x (m+2)."""
    points = POINTS[m]
    one, nought = Fraction(1), Fraction(0)
    output = tuple((*(p**i for p in points), Fraction(int(i == m - 1))) for i in range(m))
    scales = [_product(p - q for q in points if q != p) for p in points]
    filters = tuple(tuple(p**j / f for j in range(TAPS)) for p, f in zip(points, scales, strict=True))
    data = [_roots([q for q in points if q != p]) + [nought] for p in points]
    return output, (*filters, (nought,) * (TAPS - 1) + (one,)), tuple(map(tuple, [*data, _roots(points)]))


def _product(factors: Iterable[Fraction]) -> Fraction:
    total = Fraction(1)
    for f in factors:
        total *= f
    return total


def _roots(points: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients, from the constant one up, of the polynomial that is zero at `points` and begins with x^n."""
    coefficients = [Fraction(1)]
    for p in points:
        shifted = [Fraction(0), *coefficients]
        coefficients = [s - p * c for s, c in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def filters(weight: np.ndarray, m: int) -> np.ndarray:
    """G g G^T of HWIO filters, [(m+2)^2, I, O]; computed in f64, rounded once."""
    g = np.array(matrices(m)[1], np.float64)
    made = np.einsum("ai,bj,ijco->abco", g, g, weight.astype(np.float64))
    return made.reshape(-1, *weight.shape[2:]).astype(weight.dtype)


def tiles(size: ExprLike, m: int) -> Expr:
    """How many tiles of m results cover `size` of them."""
    return canonical(floordiv(wrap(size) + (m - 1), m))


def _rows(matrix: Matrix, row: Expr, term: Callable[[int], Expr]) -> Expr:
    """The sum over k of matrix[row][k] * term(k): a choice between sums, so that a known row is one sum, without zeros."""
    sums = []
    for coefficients in matrix:
        terms = [term(k) if c == 1 else term(k) * float(c) for k, c in enumerate(coefficients) if c != 0]
        total = terms[0]
        for t in terms[1:]:
            total = total + t
        sums.append(total)
    chosen = sums[-1]
    for n in reversed(range(len(sums) - 1)):
        chosen = te.if_then_else(te.equal(row, n), sums[n], chosen)
    return chosen


@op("winograd_input", OPAQUE)
class WinogradInput(Op):
    """x [N, H, W, C], padded by `pads` (begins, then ends), as tiles: [m+2, m+2, N, tiles, tiles, C]."""

    def infer(self, x: TensorType, *, m: int, pads: Sequence[ExprLike]) -> list[TensorType]:
        require(x.ndim == 4 and x.dtype.is_float and len(pads) == 4, f"winograd_input of {x} with pads {pads}")
        n, h, w, c = x.shape
        sizes = [tiles(s + a + b - (TAPS - 1), m) for s, a, b in ((h, pads[0], pads[2]), (w, pads[1], pads[3]))]
        return [TensorType.of(x.dtype, (m + 2, m + 2, n, *sizes, c))]

    def te(self, x: te.Tensor, *, m: int, pads: Sequence[ExprLike]) -> te.Tensor:
        (out,) = self.infer(TensorType.of(x.dtype, x.shape), m=m, pads=pads)
        matrix = matrices(m)[2]
        size, n, th, tw, c = m + 2, *plain(out.shape[2:])
        _, height, width, _ = x.shape

        def window(b: Expr, i: Expr, j: Expr, p: Expr, q: Expr, k: Expr) -> Expr:
            row, column = i * m + p - pads[0], j * m + q - pads[1]
            inside = te.all_of(row >= 0, row < wrap(height), column >= 0, column < wrap(width))
            return te.if_then_else(inside, x[b, row, column, k], te.const(0, x.dtype))

        d = te.compute((n, th, tw, size, size, c), window, name="window")
        u = te.compute(
            (n, th, tw, size, size, c),
            lambda b, i, j, p, q, k: _rows(matrix, p, lambda r: d[b, i, j, r, q, k]),
            name="columns",
        )
        return te.compute(
            (size, size, n, th, tw, c),
            lambda p, q, b, i, j, k: _rows(matrix, q, lambda r: u[b, i, j, p, r, k]),
            name="winograd_input",
        )

    def numpy(self, x: np.ndarray, *, m: int, pads: Sequence[int]) -> np.ndarray:
        n, h, w, c = x.shape
        th, tw = (-(-(s - TAPS + 1) // m) for s in (h + pads[0] + pads[2], w + pads[1] + pads[3]))
        padded = np.zeros((n, th * m + 2, tw * m + 2, c), x.dtype)
        image = np.pad(x, ((0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0)))[:, : th * m + 2, : tw * m + 2]
        padded[:, : image.shape[1], : image.shape[2]] = image
        view = np.lib.stride_tricks.sliding_window_view(padded, (m + 2, m + 2), (1, 2))[:, ::m, ::m]
        b = np.array(matrices(m)[2], np.float64)
        return np.einsum("pr,qs,nijcrs->pqnijc", b, b, view).astype(x.dtype)


@op("winograd_output", COMPOUND)
class WinogradOutput(Op):
    """Products x [m+2, m+2, N, tiles, tiles, O] to results [N, `height`, `width`, O], plus a bias per channel if given."""

    def infer(
        self, x: TensorType, b: TensorType | None = None, *, m: int, height: ExprLike, width: ExprLike
    ) -> list[TensorType]:
        require(x.ndim == 6, f"winograd_output of {x}")
        return [TensorType.of(x.dtype, (x.shape[2], height, width, x.shape[5]))]

    def te(self, x: te.Tensor, b: te.Tensor | None = None, *, m: int, height: ExprLike, width: ExprLike) -> te.Tensor:
        matrix = matrices(m)[0]
        _, size, n, th, tw, c = x.shape
        t = te.compute(
            plain(map(wrap, (n, th, tw, m, size, c))),
            lambda b, i, j, p, q, k: _rows(matrix, p, lambda r: x[r, q, b, i, j, k]),
            name="columns",
        )

        def element(batch: Expr, h: Expr, w: Expr, k: Expr) -> Expr:
            i, j, p, q = floordiv(h, m), floordiv(w, m), floormod(h, m), floormod(w, m)
            y = _rows(matrix, q, lambda r: t[batch, i, j, p, r, k])
            return y if b is None else y + b[k]

        return te.compute(plain(map(wrap, (n, height, width, c))), element, name="winograd_output")

    def numpy(self, x: np.ndarray, b: np.ndarray | None = None, *, m: int, height: int, width: int) -> np.ndarray:
        a = np.array(matrices(m)[0], np.float64)
        y = np.einsum("pr,qs,rsnijc->nipjqc", a, a, x)
        n, th, _, tw, _, c = y.shape
        y = y.reshape(n, th * m, tw * m, c)[:, :height, :width].astype(x.dtype)
        return y if b is None else y + b
