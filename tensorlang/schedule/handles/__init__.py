"""Handles to stages: `Stage` joins the families of primitives."""

from __future__ import annotations

from tensorlang.schedule.handles.loops import LoopPrimitives
from tensorlang.schedule.handles.memory import MemoryPrimitives
from tensorlang.schedule.handles.padding import PaddingPrimitives
from tensorlang.schedule.handles.pipeline import PipelinePrimitives
from tensorlang.schedule.handles.placement import PlacementPrimitives
from tensorlang.schedule.handles.reductions import ReductionPrimitives
from tensorlang.schedule.handles.tensorize import TensorPrimitives


class Stage(
    LoopPrimitives,
    PaddingPrimitives,
    PlacementPrimitives,
    MemoryPrimitives,
    ReductionPrimitives,
    PipelinePrimitives,
    TensorPrimitives,
):
    """A handle to a stage of the program. Its methods are the primitives; loops are passed as handles."""
