"""The primitives of memory: in which order, and where, the elements of a stage are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import PrimFunc
from tensorlang.schedule import cache
from tensorlang.schedule.handles.base import StageHandle


class MemoryPrimitives(StageHandle):
    def transform_layout(self, index_map: Callable[..., Any]) -> None:
        """Store this stage's buffer in another order, e.g. `lambda k, j: (j // 48, k, j % 48)`; padding holds zeros."""
        index_map = cache.IndexMap.of(index_map, len(self._schedule.block(self).iters))

        def run(func: PrimFunc) -> tuple[PrimFunc, list[Expr]]:
            new, spatial = cache.transform_layout(func, self.name, index_map)
            self._schedule._pending_axes[self.name] = (spatial, [])
            return new, []

        self._apply("transform_layout", (index_map,), {}, run)
