"""Graph operators by family; importing this package fills the registry."""

from tensorlang.graph.ops import (
    broadcast,
    control,
    conv,
    elementwise,
    gather,
    linear,
    normalization,
    pool,
    rearrange,
    reduce,
    resize,
    sampling,
    serial,
    shape,
    unfold,
)

__all__ = [
    "broadcast",
    "control",
    "conv",
    "elementwise",
    "gather",
    "linear",
    "normalization",
    "pool",
    "rearrange",
    "reduce",
    "resize",
    "serial",
    "sampling",
    "shape",
    "unfold",
]
