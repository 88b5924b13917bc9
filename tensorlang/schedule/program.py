"""Primitives of the whole program, and those of stages in the calling style of `tir.Schedule`: `s.split(loop, ...)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr, user_location
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.visitor import blocks
from tensorlang.schedule import specialize
from tensorlang.schedule.copies import Copy
from tensorlang.schedule.handles import Stage
from tensorlang.schedule.sampling import Sampling
from tensorlang.schedule.state import Loop


class Program(Sampling):
    """What a schedule does to its whole program.

    The methods that take a loop first do what those of a stage inside that loop do, and enter the trace as those.
    """

    def specialize(self, condition: Expr, suffix: str = "fast") -> tuple[Stage, ...]:
        """Add a copy of the program that runs where `condition` holds of its sizes; returns the copy's stages.

            for i in n: y[i] = f(i)                                     s.specialize(te.equal(n % 16, 0))
        ->  if n % 16 == 0: for i in n // 16 * 16: y_fast[i] = f(i)
            else: for i in n: y[i] = f(i)

        Both versions are scheduled on by themselves: stages of the copy are named `..._<suffix>`. Its extents say what is
        known there (`n % 16 == 0`, `n == 64`, `n >= 16`, `n <= 16`, and conjunctions), so that tiles need no guards.

        Legality: the condition is a comparison of sizes of the program, which divides by constants only, and is not decided
        already. Call it before stages are transformed if the copy shall be transformed in another way.
        """
        made: list[Copy] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, copy = specialize.specialize(func, condition, suffix)
            self._copy_axes(copy.stages, copy.loops)
            made.append(copy)
            return new, []

        self._apply("specialize", None, (condition, suffix), {}, run, None)
        for name in made[0].stages.values():
            self._discover_axes(name)
        return tuple(Stage(self, name) for name in made[0].stages.values())

    # -- tir.Schedule's style ------------------------------------------------------------------------------------------
    def split(self, loop: Loop, factors: Sequence[int | Expr | None], **options: Any) -> tuple[Loop, ...]:
        """`Stage.split(loop, factors=factors)`."""
        return self._inside(loop, "split").split(loop, factors=factors, **options)

    def fuse(self, *loops: Loop) -> Loop:
        """`Stage.fuse`."""
        return self._inside(loops[0] if loops else None, "fuse").fuse(*loops)

    def reorder(self, *loops: Loop) -> None:
        """`Stage.reorder`."""
        self._inside(loops[0] if loops else None, "reorder").reorder(*loops)

    def parallel(self, loop: Loop) -> None:
        """`Stage.parallel`."""
        self._inside(loop, "parallel").parallel(loop)

    def vectorize(self, loop: Loop) -> None:
        """`Stage.vectorize`."""
        self._inside(loop, "vectorize").vectorize(loop)

    def unroll(self, loop: Loop) -> None:
        """`Stage.unroll`."""
        self._inside(loop, "unroll").unroll(loop)

    def bind(self, loop: Loop, thread_axis: Any) -> None:
        """`Stage.bind`."""
        self._inside(loop, "bind").bind(loop, thread_axis)

    def loop_partition(self, loop: Loop, factors: Sequence[int | Expr | None] | None = None) -> tuple[Loop, ...]:
        """`Stage.loop_partition`."""
        return self._inside(loop, "loop_partition").loop_partition(loop, factors)

    def annotate(self, block_or_loop: Loop | Stage, ann_key: str, ann_val: Any = True) -> None:
        """`Stage.annotate`."""
        self._inside(block_or_loop, "annotate").annotate(block_or_loop, ann_key, ann_val)

    def unannotate(self, block_or_loop: Loop | Stage, ann_key: str) -> None:
        """`Stage.unannotate`."""
        self._inside(block_or_loop, "unannotate").unannotate(block_or_loop, ann_key)

    def pad_einsum(self, block: Stage, padding: Sequence[int]) -> tuple[Stage, ...]:
        """`Stage.pad_einsum`."""
        return Stage(self, self._found(block).name).pad_einsum(padding)

    def decompose_padding(self, block: Stage, loop: Loop) -> Stage:
        """`Stage.decompose_padding`."""
        return Stage(self, self._found(block).name).decompose_padding(loop)

    def _inside(self, target: Any, primitive: str) -> Stage:
        """The first stage inside a loop (or the stage itself), under whose name the step enters the trace."""
        if isinstance(target, Stage):
            return Stage(self, self._found(target).name)
        try:
            found = blocks(self._for(target, primitive))
        except ScheduleError as error:
            raise ScheduleError(f"{user_location()}: {error}") from None
        if not found:
            raise ScheduleError(f"{user_location()}: {primitive}: there is no stage inside {target.name}")
        return Stage(self, found[0].name)
