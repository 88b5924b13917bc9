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
        """Split the reduction along `loop` into partial results (a new stage, returned) and their combination."""
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
        """Initialise this reduction in a stage of its own before `loop`; returns that stage."""
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
