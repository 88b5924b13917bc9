"""The primitives of loops: how the iterations of a stage are cut, ordered and run."""

from __future__ import annotations

from collections.abc import Callable

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import For, PrimFunc
from tensorlang.schedule import legality, loops
from tensorlang.schedule.handles.base import StageHandle
from tensorlang.schedule.legality import Verdict
from tensorlang.schedule.state import Loop


class LoopPrimitives(StageHandle):
    def split(
        self, loop: Loop, factor: int | Expr | None = None, *, nparts: int | Expr | None = None, tail: str = "guard"
    ) -> tuple[Loop, Loop]:
        """Split `loop` into an outer loop and an inner one of `factor` iterations (or an outer one of `nparts`).

        for v in n  ->  for v_o in ceil(n / factor): for v_i in factor

        `tail` says what the last tile does where `factor` does not divide n: `"guard"` skips points beyond n,
        `"shift_inwards"` moves the tile back inside and recomputes some points. Always legal.
        """
        if tail not in loops.TAILS:
            raise ScheduleError(f"split: tail is one of {', '.join(loops.TAILS)}, not {tail!r}")
        if (factor is None) == (nparts is None):
            raise ScheduleError("split: give either factor or nparts")

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            target = self._schedule._for(loop, "split")
            if nparts is not None:
                parts = loops.as_factor(nparts, "split")
                size = loops.simplify((target.extent + parts - 1) // parts)
            else:
                size = loops.as_factor(factor, "split")
            new, pair = loops.split(func, target, size, tail)
            return new, list(pair)

        kwargs = {k: v for k, v in (("nparts", nparts), ("tail", tail)) if v not in (None, "guard")}
        def check(func: PrimFunc) -> Verdict:
            if tail == "guard":
                return legality.PROVED
            return legality.check_shift_inwards(func, self._schedule._for(loop, "split"))

        args = (loop, *([factor] if factor is not None else []))
        outer, inner = self._apply("split", args, kwargs, run, check)
        return outer, inner

    def tile(self, x: Loop, y: Loop, x_factor: int, y_factor: int) -> tuple[Loop, Loop, Loop, Loop]:
        """Split both loops and order them x_o, y_o, x_i, y_i. Returns those four."""
        xo, xi = self.split(x, x_factor)
        yo, yi = self.split(y, y_factor)
        self.reorder(xo, yo, xi, yi)
        return xo, yo, xi, yi

    def fuse(self, *fused: Loop) -> Loop:
        """One loop over the product of directly nested loops, outermost first. Always legal."""
        if len(fused) < 2:
            raise ScheduleError("fuse: give at least two loops")
        result = fused[0]
        for inner in fused[1:]:
            outer = result

            def run(func: PrimFunc, outer: Loop = outer, inner: Loop = inner) -> tuple[PrimFunc, list[Expr]]:
                new, v = loops.fuse(func, self._schedule._for(outer, "fuse"), self._schedule._for(inner, "fuse"))
                return new, [v]

            (result,) = self._apply("fuse", (outer, inner), {}, run)
        return result

    def reorder(self, *order: Loop) -> None:
        """Put perfectly nested loops into this order, outermost first. Legal if no dependence is turned around."""
        targets = [self._schedule._for(loop, "reorder") for loop in order]
        if len(set(map(id, targets))) != len(targets):
            raise ScheduleError("reorder: a loop is named twice")
        if len(targets) < 2:
            return

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            return loops.reorder(func, targets), []

        def check(func: PrimFunc) -> Verdict:
            loops.perfect_nest(func, targets)
            return legality.check_reorder(func, targets)

        self._apply("reorder", order, {}, run, check)

    def vectorize(self, loop: Loop) -> None:
        """Run the iterations of `loop` as vector lanes. Legal if they are independent; its extent must be constant."""
        target = self._schedule._for(loop, "vectorize")
        if target.extent.op != "const":
            raise ScheduleError(f"vectorize: the extent of {loop.name} is {target.extent}, not a constant; split it first")
        self._set_kind("vectorize", loop, "vectorized", legality.check_vectorize)

    def parallel(self, loop: Loop) -> None:
        """Share the iterations of `loop` among threads. Legal if they are independent."""
        self._set_kind("parallel", loop, "parallel", legality.check_parallel)

    def unroll(self, loop: Loop) -> None:
        """Write the iterations of `loop` out. Always legal; its extent must be constant."""
        if self._schedule._for(loop, "unroll").extent.op != "const":
            raise ScheduleError(f"unroll: the extent of {loop.name} is not a constant; split it first")
        self._set_kind("unroll", loop, "unrolled", None)

    def _set_kind(
        self, primitive: str, loop: Loop, kind: str, check: Callable[[PrimFunc, For], Verdict] | None
    ) -> None:
        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            return loops.set_kind(func, self._schedule._for(loop, primitive), kind), []

        def checked(func: PrimFunc) -> Verdict:
            return check(func, self._schedule._for(loop, primitive)) if check else legality.PROVED

        self._apply(primitive, (loop,), {}, run, checked)

    def pragma(self, loop: Loop, key: str, value: int | str | float = 1) -> None:
        """A hint on `loop` for code generation. Never changes the meaning."""

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            return loops.annotate(func, self._schedule._for(loop, "pragma"), key, value), []

        self._apply("pragma", (loop, key, value), {}, run)
