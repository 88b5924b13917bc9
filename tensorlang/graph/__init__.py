"""Graph IR (layer 6): what importers and passes build on. Importing it fills the operator registry."""

from tensorlang.graph import ops as ops
from tensorlang.graph.dims import canonical, product, shape_constraints, size_quotient
from tensorlang.graph.ir import Graph, Node, TensorType, Value, constant, dim, lowest, runtime_dim
from tensorlang.graph.ops.custom import register_operator
from tensorlang.graph.ops.formats import MOVING
from tensorlang.graph.reference import evaluate
from tensorlang.graph.registry import (
    COMPOUND,
    CONTRACTION,
    ELEMENTWISE,
    INJECTIVE,
    OPAQUE,
    REDUCTION,
    GraphBuilder,
    Kind,
    Op,
    as_ints,
    get,
    names,
    op,
)
from tensorlang.graph.rewrite import live_nodes
from tensorlang.graph.segments import HostStep, NativeStep, Segments, Slot
from tensorlang.ir.dtype import DType, dtype as as_dtype
from tensorlang.ir.expr import Expr
from tensorlang.ir.visitor import free_vars

__all__ = [
    "COMPOUND",
    "CONTRACTION",
    "ELEMENTWISE",
    "INJECTIVE",
    "MOVING",
    "NativeStep",
    "OPAQUE",
    "REDUCTION",
    "Segments",
    "Slot",
    "DType",
    "Expr",
    "Graph",
    "GraphBuilder",
    "HostStep",
    "Kind",
    "Node",
    "Op",
    "TensorType",
    "Value",
    "as_dtype",
    "as_ints",
    "canonical",
    "constant",
    "dim",
    "evaluate",
    "free_vars",
    "get",
    "live_nodes",
    "lowest",
    "names",
    "op",
    "product",
    "register_operator",
    "runtime_dim",
    "shape_constraints",
    "size_quotient",
]
