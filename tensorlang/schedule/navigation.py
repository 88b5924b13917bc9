"""Finding one's way in a program: stages by name, what feeds them and reads them, loops around and stages inside."""

from __future__ import annotations

from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import user_location
from tensorlang.ir.stmt import Block
from tensorlang.ir.tree import block_path, read_buffers, written_buffers
from tensorlang.ir.visitor import blocks
from tensorlang.schedule.handles import Stage
from tensorlang.schedule.state import Loop, ScheduleState


class Navigation(ScheduleState):
    """The questions that classic `tir.Schedule` answers; nothing here changes the program or enters the trace."""

    def get_block(self, name: str) -> Stage:
        """The stage of this name.

        Raises:
            ScheduleError: there is none.
        """
        return Stage(self, self._found(name).name)

    def get_loops(self, stage: Any) -> tuple[Loop, ...]:
        """All loops around a stage, outermost first."""
        return self._loops_around(self._found(stage).name)

    def get_producers(self, stage: Any) -> tuple[Stage, ...]:
        """The stages that write what this one reads, in program order."""
        block = self._found(stage)
        return self._writers(set(read_buffers(block)), block)

    def get_consumers(self, stage: Any) -> tuple[Stage, ...]:
        """The stages that read what this one writes, in program order."""
        block = self._found(stage)
        written = set(written_buffers(block))
        readers = [b for b in blocks(self.func.body) if b is not block and written & set(read_buffers(b))]
        return tuple(Stage(self, b.name) for b in readers)

    def get_child_blocks(self, parent: Loop | Any) -> tuple[Stage, ...]:
        """The stages inside a loop, or inside a stage (where it was made of others), in program order."""
        inside = self._for(parent, "get_child_blocks").body if isinstance(parent, Loop) else self._found(parent).body
        return tuple(Stage(self, b.name) for b in blocks(inside))

    def get_output_blocks(self) -> tuple[Stage, ...]:
        """The stages that write the program's outputs, in program order."""
        return self._writers(set(self.func.outputs))

    def _writers(self, buffers: set[Buffer], but: Block | None = None) -> tuple[Stage, ...]:
        found = [b for b in blocks(self.func.body) if b is not but and buffers & set(written_buffers(b))]
        return tuple(Stage(self, b.name) for b in found)

    def _found(self, stage: Any) -> Block:
        name = stage if isinstance(stage, str) else getattr(stage, "name", None)
        path = block_path(self.func.body, name) if isinstance(name, str) else []
        if not path or not isinstance(path[-1], Block):
            known = ", ".join(b.name for b in blocks(self.func.body))
            raise ScheduleError(f"{user_location()}: no stage {name if name is not None else stage!r}; there are: {known}")
        return path[-1]
