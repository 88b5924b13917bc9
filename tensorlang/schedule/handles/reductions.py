"""The primitives of reductions."""

from __future__ import annotations

from typing import Self

from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.tree import block_path, loops_of
from tensorlang.schedule import legality, reduction
from tensorlang.schedule.handles.base import StageHandle
from tensorlang.schedule.legality import Verdict
from tensorlang.schedule.state import Loop


class ReductionPrimitives(StageHandle):
    def rfactor(self, loop: Loop, factor_axis: int = 0) -> Self:
        """Split the reduction along `loop` into partial results (a new stage, returned) and their combination.

            for i: for ko in 8: for ki in 4: y[i] += x[i, ko*4 + ki]            y.rfactor(ki)
        ->  for ki in 4: for i: for ko in 8: y_rf[ki, i] += x[i, ko*4 + ki]
            for i: for ki in 4: y[i] += y_rf[ki, i]

        The partial results are independent along `ki`, so that loop may then be vectorized or parallel.

        Args:
            loop: a loop of the reduction.
            factor_axis: where the new dimension stands among those of the partial results.

        Legal if the stage is a reduction and `loop` is one of its reduction's. The order of the sum changes: floats may
        differ in the last bits.
        """
        made: list[str] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, name = reduction.rfactor(func, self.name, self._schedule._for(loop, "rfactor"), factor_axis)
            made.append(name)
            return new, []

        self._apply("rfactor", (loop, factor_axis), {}, run)
        self._schedule._discover_axes(self.name)
        self._schedule._discover_axes(made[0])
        return type(self)(self._schedule, made[0])

    def decompose_reduction(self, loop: Loop) -> Self:
        """Initialise this reduction in a stage of its own before `loop`; returns that stage.

            for i: for k: y[i] = (0 if k == 0 else y[i]) + x[i, k]              y.decompose_reduction(k)
        ->  for i:
                y[i] = 0                                                        (stage y_init)
                for k: y[i] += x[i, k]

        Args:
            loop: a loop around the stage.

        Legal if the stage is a reduction and none of its reduction's loops is outside of `loop`: else it would be
        initialised again on the way.
        """
        made: list[str] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, name = reduction.decompose_reduction(func, self.name, self._schedule._for(loop, "decompose_reduction"))
            made.append(name)
            return new, []

        def check(func: PrimFunc) -> Verdict:
            target = self._schedule._for(loop, "decompose_reduction")
            around = any(f is target for f in loops_of(block_path(func.body, self.name)))
            return legality.check_decompose_reduction(func, self.name, target) if around else legality.PROVED

        self._apply("decompose_reduction", (loop,), {}, run, check)
        self._schedule._discover_axes(made[0])
        return type(self)(self._schedule, made[0])
