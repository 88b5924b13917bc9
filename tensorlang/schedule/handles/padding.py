"""The primitives of padding: whole tiles for contractions, padded copies in two parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import PrimFunc
from tensorlang.schedule import padding
from tensorlang.schedule.handles.base import StageHandle
from tensorlang.schedule.state import Loop


class PaddingPrimitives(StageHandle):
    def pad_einsum(self, padding_to: Sequence[int]) -> tuple[Self, ...]:
        """Round the iterations of this contraction up to multiples, over padded copies of what it reads.

            for i in 10: for k in 7: y[i] += x[i, k] * w[k]             y.pad_einsum([4, 8])
        ->  for i in 12: for k in 8: x_pad[i, k] = select(i < 10 and k < 7, x[i, k], 0)
            for k in 8: w_pad[k] = select(k < 7, w[k], 0)
            for i in 12: for k in 8: y_pad[i] += x_pad[i, k] * w_pad[k]
            for i in 10: y[i] = y_pad[i]

        Args:
            padding_to: a multiple per iteration variable, output axes first, then the reduction's (1: leave it).

        Returns:
            The new stages: `..._pad` per operand with a padded axis, and last, if an output axis is padded, `..._crop`.
            All can be placed, inlined and vectorized like any other.

        Legality: the stage is a reduction that was not transformed yet; what it reads is indexed by iteration variables
        themselves wherever they are padded; and beyond the end of a reduction axis what is read makes its neutral element
        (zeros on both sides of a product do; a zero times an element that may be infinite does not).
        """
        made: list[str] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            result = padding.pad_einsum(func, self.name, padding_to)
            made.extend(result.operands)
            if result.output is not None:
                made.append(result.output)
            return result.func, []

        self._apply("pad_einsum", (list(padding_to),), {}, run)
        for name in (self.name, *made):
            self._schedule._discover_axes(name)
        return tuple(type(self)(self._schedule, name) for name in made)

    def decompose_padding(self, loop: Loop) -> Self:
        """Split this padded copy into a fill, before `loop`, and a copy of what is not padding; returns the fill.

            for i in 12: p[i] = select(1 <= i and i < 11, x[i - 1], 0)      p.decompose_padding(i)
        ->  for i in 12: p[i] = 0                                           (stage p_fill)
            for i in 10: p[i + 1] = x[i]

        Legality: the stage stores `select(condition, a, constant)`, the condition reads no memory, each element is written
        once, and `loop` holds nothing else. Conditions that are no range of one axis stay guards.
        """
        made: list[str] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            target = self._schedule._for(loop, "decompose_padding")
            new, name, renamed = padding.decompose_padding(func, self.name, target)
            self._schedule._copy_axes({self.name: self.name}, renamed)
            made.append(name)
            return new, []

        self._apply("decompose_padding", (loop,), {}, run)
        self._schedule._discover_axes(made[0])
        return type(self)(self._schedule, made[0])
