"""Programs whose sizes are all known before they run: for targets that allocate no memory then."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tensorlang.errors import BuildError, ModelError
from tensorlang.graph.ir import Value
from tensorlang.graph.program.emit import Main
from tensorlang.graph.program.tree import Call, Statement

if TYPE_CHECKING:
    from tensorlang.graph.program.builder import ProgramBuilder


class StaticMain(Main):
    """Refuses what needs memory of a size that only a run can tell.

    Attributes:
        target: its name, for messages.
        statements: those that the language has.
    """

    target: ClassVar[str]
    statements: ClassVar[tuple[type, ...]] = (Call,)
    serial = False

    def __init__(self, program: ProgramBuilder):
        super().__init__(program)
        if program.dims:
            names = ", ".join(program.dims)
            raise ModelError(
                f"target {self.target!r} has no memory for dimensions that are open until the model runs ({names}): give each "
                f"a size, such as shapes={{{next(iter(program.dims))!r}: 1}}"
            )

    def _statement(self, s: Statement, depth: int) -> None:
        if not isinstance(s, self.statements):
            value = getattr(s, "value", None) or getattr(s, "source", None) or getattr(s, "stack", None)
            about = f" (value {value.name!r})" if isinstance(value, Value) else ""
            raise BuildError(
                f"target {self.target!r} runs programs of a fixed shape, and what {type(s).__name__.lower()} does here{about} "
                "only a run can tell; give the model fixed shapes, or run that part outside"
            )
        super()._statement(s, depth)
