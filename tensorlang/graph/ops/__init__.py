"""Graph operators by family; importing this package fills the registry."""

from tensorlang.graph.ops import (
    broadcast,
    conv,
    elementwise,
    gather,
    linear,
    normalization,
    pool,
    reduce,
    resize,
    shape,
)

__all__ = [
    "broadcast",
    "conv",
    "elementwise",
    "gather",
    "linear",
    "normalization",
    "pool",
    "reduce",
    "resize",
    "shape",
]
