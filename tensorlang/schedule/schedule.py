"""The scheduling language: a `Schedule` holds one loop nest; handles to its stages and loops carry the primitives.

Every primitive checks, rewrites the nest at once, and records: `print(s)` after any step shows the program as it is,
`s.trace` lists the steps, `s.proof` what is known of their legality. A step that is refused raises `ScheduleError` and
leaves the schedule as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO, Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.expr import Expr, user_location
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.tree import block_path
from tensorlang.ir.visitor import blocks
from tensorlang.schedule import cache, show
from tensorlang.schedule.handles import Stage
from tensorlang.schedule.handles.placement import complete
from tensorlang.schedule.place import Placed
from tensorlang.schedule.program import Program


class Schedule(Program):
    """One program under transformation.

    Attributes:
        func: the loop nest as it is now (immutable; keep it to go back).
        trace: the steps so far.
        proof: what is known of each step.
    """

    def __getitem__(self, stage: Any) -> Stage:
        """The stage named so (or of the tensor given)."""
        # A tensor may be one of several that its stage computes: the stage has the operation's name.
        name = stage if isinstance(stage, str) else getattr(getattr(stage, "op", None), "name", stage.name)
        if not isinstance(stage, str) and not block_path(self.func.body, name):
            name = stage.name
        if not block_path(self.func.body, name):
            known = ", ".join(b.name for b in blocks(self.func.body))
            raise ScheduleError(f"{user_location()}: no stage {name!r}; there are: {known}")
        return Stage(self, name)

    @property
    def stages(self) -> list[Stage]:
        """All stages in program order."""
        return [Stage(self, b.name) for b in blocks(self.func.body)]

    def show(self, file: IO[str] | None = None) -> None:
        """Print the loop nest in colours (plainly, where `file` is no terminal), with the last step marked."""
        show.show(self.func, self.trace, file)

    def _repr_html_(self) -> str:
        return show.as_html(self.func, self.trace)

    def cache_read(self, tensor: Any, scope: str = "global", readers: Sequence[Any] = ()) -> Stage:
        """Let `readers` read a copy of `tensor`, made by the stage that is returned.

            for i: y[i] = f(x[i])        s.cache_read("x", "global", [y])
        ->  for i: x_global[i] = x[i]
            for i: y[i] = f(x_global[i])

        The copy is a stage like any other: `compute_at` moves it to any loop of its reader. A tensor that is private to a
        loop is copied inside that loop, as far as it is read there.

        Args:
            tensor: any tensor of the program, a parameter or one that a stage computes; its name, or the tensor.
            scope: the kind of memory that the copy lives in.
            readers: stages; by default all that read it.

        Legal if the readers come after everything that writes `tensor`, in another nest.
        """
        buffer = self._buffer(tensor, "cache_read")
        names = [r if isinstance(r, str) else r.name for r in readers]
        return self._cached(
            "cache_read", (buffer.name, scope, tuple(names)), lambda func: cache.cache_read(func, buffer, scope, names)
        )

    def cache_write(self, stage: Any, scope: str = "local") -> Stage:
        """Let `stage` compute into a new buffer by the stage that is returned; the old stage becomes the copy back.

            for i: y[i] = f(x[i])        s.cache_write(y)
        ->  for i: y_local[i] = f(x[i])
            for i: y[i] = y_local[i]

        The new stage takes the computation with its loops, as they were split and ordered, and with what is computed
        inside them; the copy has plain loops. Both may then be placed: usually the new stage at a loop of the old one.

        Args:
            stage: a stage or its name; inside a loop of another stage, the copy is made there.
            scope: the kind of memory of the new buffer.

        Legal if the stage alone writes its buffer, and in the order of its axes.
        """
        name = stage if isinstance(stage, str) else stage.name

        def taken(made: str) -> None:
            self._axis_vars[made] = self._axis_vars[name]
            self._axes_of[made] = self._axes_of[name]

        return self._cached("cache_write", (name, scope), lambda func: cache.cache_write(func, name, scope), taken)

    def reindex(self, stage: Any, tensor: Any, scope: str = "global") -> Stage:
        """Let `stage` read a copy of `tensor` that has one dimension for each axis of `stage` that the access depends on.

            for h: for kh: y[h] += x[h * 2 + kh] * w[kh]          s.reindex(y, "x")
        ->  for h: for kh: x_reindex[h, kh] = x[h * 2 + kh]
            for h: for kh: y[h] += x_reindex[h, kh] * w[kh]

        A window becomes a plain matrix product so (im2col), which `tensorize` can match. Elements that would lie outside of
        `tensor` are zeros, which nobody reads. Returns the stage that makes the copy.

        Legal if the stage reads `tensor` at one index, which is not read from memory itself, and after it was written.
        """
        buffer = self._buffer(tensor, "reindex")
        name = stage if isinstance(stage, str) else stage.name
        return self._cached(
            "reindex", (name, buffer.name, scope), lambda func: cache.reindex(func, name, buffer, scope)
        )

    def _cached(
        self,
        primitive: str,
        args: tuple[Any, ...],
        add: Callable[[PrimFunc], tuple[Placed, str]],
        before: Callable[[str], None] = lambda _: None,
    ) -> Stage:
        found: list[tuple[Placed, str]] = []

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            found.append(add(func))
            placed, made = found[0]
            before(made)
            self._move(placed.func, placed.axes)
            return placed.func, []

        self._apply(primitive, None, args, {}, run, None, lambda func: complete(func, found[0][0]))
        return Stage(self, found[0][1])
