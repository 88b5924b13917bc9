"""The primitives that replace a nest by an instruction."""

from __future__ import annotations

from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.tensor_intrin import TensorIntrin
from tensorlang.schedule import tensorize
from tensorlang.schedule.handles.base import StageHandle
from tensorlang.schedule.state import Loop
from tensorlang.schedule.verdict import Verdict


class TensorPrimitives(StageHandle):
    def blockize(self, loop: Loop) -> None:
        """Make `loop` and everything inside it one unit, whose loops no later step changes.

        for i_o: for i_i in 16: for k: y(...)   ->   for i_o: for i_i in range(16, blockized=True): for k: y(...)

        Loops outside can still be split, fused, reordered, made parallel, and be where other stages are computed.
        Legal if the nest is perfect: loops around one block that stores to one place. The meaning does not change.
        """

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            return tensorize.blockize(func, self._schedule._for(loop, "blockize")), []

        self._apply("blockize", (loop,), {}, run)

    def tensorize(self, loop: Loop, intrinsic: str | TensorIntrin, *, fallback: bool = False) -> None:
        """Run `loop` and everything inside it as the instruction of `intrinsic` (its name, or from `te.tensor_intrin`).

        for i_i in 16: for k in 4: y(...)   ->   for i_i in range(16, tensor_intrin="dot4"): for k in 4: y(...)

        The nest is unified with the intrinsic's meaning: the same up to names, the order of the loops, that of the
        operands of commutative operations, and the layout of the tensors (offsets and strides). It stays in the program and
        is what the step means; building puts the instruction in its place. A reduction that goes on outside of `loop` uses
        the intrinsic's `update`, and its `reset` for the initialisation (plain loops where it has none).

        Legal if the nest matches, every tile is whole, and the intrinsic's instruction has shown on random inputs that it does
        what it means. The error says which part did not match, in both texts.

        Args:
            fallback: where the machine lacks the instruction, run the loops; otherwise building raises BuildError.

        Raises:
            ScheduleError: the nest is not what the intrinsic means, a tile is partial, or the instruction is wrong.
        """
        intrin = tensorize.find_intrinsic(intrinsic)

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            return tensorize.tensorize(func, self._schedule._for(loop, "tensorize"), intrin, fallback), []

        def unified(func: PrimFunc) -> Verdict:
            """What holds once `run` has not refused: a nest that equals the meaning, and an instruction that was tried."""
            tried = any(part is not None for part in intrin.parts.values())
            why = "unified" + (", its instruction tried" if tried else "")
            return Verdict("proved", why)

        self._apply("tensorize", (loop, intrin.name), {"fallback": True} if fallback else {}, run, unified)
